//! Defects from nothing.

mod marks;
mod regions;
mod textures;

use rand::{Rng, RngExt};

use crate::inspection::{Mask, Picture, Size};

use super::blend::{blend, intersect};
use super::chance::place_in;
use super::field::Field;
use super::foreground::foreground;

/// Kinds tried until one can be seen.
const TRIES: usize = 12;

/// Levels that an invented defect must differ by, on average over its mask.
const LEAST_SEEN: f32 = 7.0;

/// Levels below which a pixel counts as unchanged, and the share of a mask that may be.
const UNCHANGED: u8 = 3;
const MOST_UNCHANGED: f32 = 0.5;

/// Kinds of invented defects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Invention {
    /// A blob or scattered flecks of foreign texture: the picture's own, shuffled and recoloured,
    /// a cloudy colour, a smear or coarser detail.
    Texture,
    /// One to three thin curves, dark or bright, some with a bright and a dark side.
    Scratch,
    /// One to several small spots, dark, bright or tinted.
    Spots,
    /// A piece from elsewhere on the object, turned and slightly recoloured.
    Patch,
    /// A large region or stripe that is softly brighter, darker, flatter or rougher.
    Band,
}

impl Invention {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::Texture, Self::Scratch, Self::Spots, Self::Patch, Self::Band];

    fn draw<R: Rng + ?Sized>(rng: &mut R) -> Self {
        match rng.random_range(0..100) {
            0..30 => Self::Texture,
            30..50 => Self::Scratch,
            50..70 => Self::Spots,
            70..82 => Self::Patch,
            _ => Self::Band,
        }
    }
}

/// A picture changed all over and where that counts.
struct Draft {
    changed: Picture,
    mask: Mask,
}

/// What an inventor works on.
struct Canvas<'a> {
    normal: &'a Picture,
    /// Where defects may be; never empty.
    object: &'a Mask,
    size: Size,
    /// Shorter side over 256: lengths in pixels are multiplied by it.
    scale: f32,
}

impl Canvas<'_> {
    /// A random place of the object.
    fn place<R: Rng + ?Sized>(&self, rng: &mut R) -> [f32; 2] {
        place_in(self.object, rng).unwrap_or_default()
    }

    /// Every pixel's colour moved by `amount(x, y)` times `change(colour)`; marked where `amount`
    /// is above `threshold`.
    fn draft(&self, amount: &Field, threshold: f32, change: impl Fn(usize, [f32; 3]) -> [f32; 3]) -> Draft {
        let mut changed = self.normal.clone();
        for (at, rgb) in changed.rgb_mut().chunks_exact_mut(3).enumerate() {
            let share = amount.values[at];
            if share > 0.0 {
                let from = [rgb[0], rgb[1], rgb[2]].map(f32::from);
                let to = change(at, from);
                rgb.copy_from_slice(&[0, 1, 2].map(|c: usize| (from[c] + share * (to[c] - from[c])).round() as u8));
            }
        }
        let mut mask = Mask::empty(self.size);
        for (flag, &share) in mask.flags_mut().iter_mut().zip(&amount.values) {
            *flag = share > threshold;
        }
        Draft { changed, mask }
    }
}

/// A defect made up on `normal`, inside the object's [`foreground`], of a random kind and of any
/// size from a few pixels to a large part of the object; result and mask have the size of `normal`.
/// The mask is never empty, the picture differs from `normal` inside it (by 7 levels or more on
/// average) and not at all farther than [`super::SOFT_EDGE`] pixels from it.
pub fn invent_defect(normal: &Picture, rng: &mut impl Rng) -> (Picture, Mask) {
    invent(normal, None, rng)
}

/// As [`invent_defect`], of one kind; where that kind cannot be seen on this picture (a piece of a
/// plain surface on itself), a small spot instead.
pub fn invent_defect_of_kind(normal: &Picture, kind: Invention, rng: &mut impl Rng) -> (Picture, Mask) {
    invent(normal, Some(kind), rng)
}

fn invent<R: Rng>(normal: &Picture, kind: Option<Invention>, rng: &mut R) -> (Picture, Mask) {
    let object = foreground(normal);
    let size = normal.size();
    let canvas = Canvas { normal, object: &object, size, scale: size.width.min(size.height) as f32 / 256.0 };
    for _ in 0..TRIES {
        let draft = match kind.unwrap_or_else(|| Invention::draw(rng)) {
            Invention::Texture => textures::texture(&canvas, rng),
            Invention::Scratch => marks::scratches(&canvas, rng),
            Invention::Spots => marks::spots(&canvas, rng),
            Invention::Patch => regions::patch(&canvas, rng),
            Invention::Band => regions::band(&canvas, rng),
        };
        if let Some(made) = finish(&canvas, draft) {
            return made;
        }
    }
    plain_spot(&canvas, rng)
}

/// The draft within the object; none where it cannot be seen.
fn finish(canvas: &Canvas<'_>, draft: Draft) -> Option<(Picture, Mask)> {
    let mut mask = draft.mask;
    intersect(&mut mask, canvas.object);
    let area = mask.area();
    if area == 0 {
        return None;
    }
    let (mut sum, mut unchanged) = (0.0, 0_usize);
    for (at, _) in mask.flags().iter().enumerate().filter(|(_, flag)| **flag) {
        let pixel = at * 3..at * 3 + 3;
        let pairs = canvas.normal.rgb()[pixel.clone()].iter().zip(&draft.changed.rgb()[pixel]);
        let difference = pairs.map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0);
        sum += f32::from(difference);
        unchanged += usize::from(difference < UNCHANGED);
    }
    let seen = sum / area as f32 >= LEAST_SEEN && unchanged as f32 <= MOST_UNCHANGED * area as f32;
    seen.then(|| (blend(canvas.normal, &draft.changed, &mask), mask))
}

/// What always works: a dot, brighter on dark ground and darker on bright ground.
fn plain_spot<R: Rng + ?Sized>(canvas: &Canvas<'_>, rng: &mut R) -> (Picture, Mask) {
    let [x, y] = canvas.place(rng);
    let radius = 1.0 + 3.0 * canvas.scale * rng.random::<f32>();
    let mut mask = Mask::empty(canvas.size);
    let dot = Field::from_fn(canvas.size, |px, py| radius - (px - x).hypot(py - y));
    for (flag, inside) in mask.flags_mut().iter_mut().zip(&dot.values) {
        *flag = *inside >= 0.0;
    }
    intersect(&mut mask, canvas.object);
    let mut changed = canvas.normal.clone();
    for v in changed.rgb_mut() {
        *v = if *v < 128 { *v + 50 } else { *v - 50 };
    }
    (blend(canvas.normal, &changed, &mask), mask)
}
