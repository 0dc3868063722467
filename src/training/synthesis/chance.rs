//! Draws that several parts of the room need.

use rand::{Rng, RngExt};

use crate::inspection::Mask;

/// A number between `low` and `high`, every size of it equally likely: as many between 1 and 2 as
/// between 50 and 100.
pub(super) fn log_uniform<R: Rng + ?Sized>(low: f32, high: f32, rng: &mut R) -> f32 {
    low * (high / low).powf(rng.random::<f32>())
}

/// A number between `low` and `high` with a sign by the toss of a coin.
pub(super) fn either_sign<R: Rng + ?Sized>(low: f32, high: f32, rng: &mut R) -> f32 {
    let size = rng.random_range(low..high);
    if rng.random_bool(0.5) { size } else { -size }
}

/// About normal with zero mean and unit deviation: twelve uniform draws are near enough for noise.
pub(super) fn gaussian<R: Rng + ?Sized>(rng: &mut R) -> f32 {
    (0..12).map(|_| rng.random::<f32>()).sum::<f32>() - 6.0
}

/// A random marked place `[x, y]`; none where nothing is marked.
pub(super) fn place_in<R: Rng + ?Sized>(mask: &Mask, rng: &mut R) -> Option<[f32; 2]> {
    let marked = mask.area();
    if marked == 0 {
        return None;
    }
    let chosen = rng.random_range(0..marked);
    let (at, _) = mask.flags().iter().enumerate().filter(|(_, flag)| **flag).nth(chosen)?;
    let width = mask.size().width;
    Some([(at % width) as f32, (at / width) as f32])
}
