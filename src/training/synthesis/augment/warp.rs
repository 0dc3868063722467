//! Smooth moves: the output's pixels lie between the input's.

use rand::{Rng, RngExt};

use crate::inspection::{Mask, Picture};
use crate::training::synthesis::chance::either_sign;
use crate::training::synthesis::field::Noise;

use super::Augmented;

/// The picture's colour at a place, bilinear; beyond the frame its border is repeated.
pub(in crate::training::synthesis) fn sample(picture: &Picture, x: f32, y: f32) -> [f32; 3] {
    let (width, height) = (picture.size().width, picture.size().height);
    let x = x.clamp(0.0, (width - 1) as f32);
    let y = y.clamp(0.0, (height - 1) as f32);
    let (left, top) = (x as usize, y as usize);
    let (right, bottom) = ((left + 1).min(width - 1), (top + 1).min(height - 1));
    let (u, v) = (x - left as f32, y - top as f32);
    let corners = [(left, top), (right, top), (left, bottom), (right, bottom)].map(|(x, y)| picture.pixel(x, y));
    let shares = [(1.0 - u) * (1.0 - v), u * (1.0 - v), (1.0 - u) * v, u * v];
    [0, 1, 2].map(|c| corners.iter().zip(shares).map(|(corner, share)| f32::from(corner[c]) * share).sum())
}

/// Whether the pixel nearest to a place is marked; beyond the frame none is.
fn nearest(mask: &Mask, x: f32, y: f32) -> bool {
    let (x, y) = (x.round(), y.round());
    let inside = x >= 0.0 && y >= 0.0 && x < mask.size().width as f32 && y < mask.size().height as f32;
    inside && mask.is_defect(x as usize, y as usize)
}

/// Pixel `(x, y)` of the output lies at `from(x, y)` in the input.
fn warp(input: &Augmented, from: impl Fn(f32, f32) -> (f32, f32)) -> Augmented {
    let mut out = input.clone();
    let width = input.mask.size().width;
    for (at, (rgb, flag)) in pixels_mut(&mut out) {
        let (x, y) = from((at % width) as f32, (at / width) as f32);
        *flag = nearest(&input.mask, x, y);
        rgb.copy_from_slice(&sample(&input.picture, x, y).map(|v| v.round() as u8));
    }
    out
}

fn pixels_mut(of: &mut Augmented) -> impl Iterator<Item = (usize, (&mut [u8], &mut bool))> {
    of.picture.rgb_mut().chunks_exact_mut(3).zip(of.mask.flags_mut()).enumerate()
}

fn middle(input: &Augmented) -> (f32, f32) {
    let size = input.mask.size();
    ((size.width - 1) as f32 / 2.0, (size.height - 1) as f32 / 2.0)
}

/// Barrel or pincushion: places move along the radius by up to a quarter at the middle of a side.
pub(super) fn optical_distortion<R: Rng + ?Sized>(input: &Augmented, rng: &mut R) -> Augmented {
    let strength = either_sign(0.05, 0.25, rng);
    let (mx, my) = middle(input);
    let unit = mx.max(my).max(1.0);
    warp(input, |x, y| {
        let (dx, dy) = (x - mx, y - my);
        let factor = 1.0 + strength * (dx * dx + dy * dy) / (unit * unit);
        (mx + dx * factor, my + dy * factor)
    })
}

/// Shift up to 6 % of the size, scale 0.75 to 1.3, rotation up to 45 degrees.
pub(super) fn shift_scale_rotate<R: Rng + ?Sized>(input: &Augmented, rng: &mut R) -> Augmented {
    let (mx, my) = middle(input);
    let (sx, sy) = (mx * rng.random_range(-0.12..0.12), my * rng.random_range(-0.12..0.12));
    let scale = rng.random_range(0.75..1.3_f32);
    let (sin, cos) = rng.random_range(-0.785..0.785_f32).sin_cos();
    warp(input, |x, y| {
        let (dx, dy) = ((x - mx - sx) / scale, (y - my - sy) / scale);
        (mx + cos * dx + sin * dy, my + cos * dy - sin * dx)
    })
}

/// Places move by smooth noise, up to about 6 % of the longer side.
pub(super) fn elastic_distortion<R: Rng + ?Sized>(input: &Augmented, rng: &mut R) -> Augmented {
    let size = input.mask.size();
    let side = size.width.max(size.height) as f32;
    let reach = side * rng.random_range(0.03..0.09);
    let cell = side * rng.random_range(0.12..0.3);
    let (across, down) = (Noise::new(size, cell, rng), Noise::new(size, cell, rng));
    warp(input, |x, y| (x + reach * across.at(x, y), y + reach * down.at(x, y)))
}

/// Columns and rows are stretched and squeezed by up to 40 % in five stripes each.
pub(super) fn grid_distortion<R: Rng + ?Sized>(input: &Augmented, rng: &mut R) -> Augmented {
    const STRIPES: usize = 5;
    let size = input.mask.size();
    let mut stretch = |length: usize| {
        let widths: [f32; STRIPES] = std::array::from_fn(|_| rng.random_range(0.6..1.4));
        let scale = length as f32 / widths.iter().sum::<f32>();
        let mut knots = [0.0; STRIPES + 1];
        for (i, width) in widths.iter().enumerate() {
            knots[i + 1] = knots[i] + width * scale;
        }
        move |at: f32| {
            let place = at / length as f32 * STRIPES as f32;
            let stripe = (place as usize).min(STRIPES - 1);
            knots[stripe] + (place - stripe as f32) * (knots[stripe + 1] - knots[stripe])
        }
    };
    let (columns, rows) = (stretch(size.width), stretch(size.height));
    warp(input, |x, y| (columns(x), rows(y)))
}
