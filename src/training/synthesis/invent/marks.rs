//! Small and thin defects: scratches and spots.

use rand::{Rng, RngExt};

use crate::training::synthesis::chance::{either_sign, log_uniform};
use crate::training::synthesis::field::{Blob, Field, Noise, smoothstep};

use super::{Canvas, Draft};

/// A colour change: the same in all channels, or now and then tinted where the picture has colour.
fn shift<R: Rng + ?Sized>(canvas: &Canvas<'_>, size: std::ops::Range<f32>, rng: &mut R) -> [f32; 3] {
    let level = either_sign(size.start, size.end, rng);
    if super::textures::is_grey(canvas.normal) || rng.random_bool(0.5) {
        return [level; 3];
    }
    [0; 3].map(|_| level * rng.random_range(0.2..1.3))
}

/// A curve being drawn: place, direction and how much that turns.
struct Pen {
    at: [f32; 2],
    direction: f32,
    turn: f32,
    /// How far the direction strays at every step, radians.
    tremble: f32,
}

/// One to three thin curves near each other.
pub(super) fn scratches<R: Rng + ?Sized>(canvas: &Canvas<'_>, rng: &mut R) -> Draft {
    let longest = 200.0 * canvas.scale;
    let count = if rng.random_bool(0.65) { 1 } else { rng.random_range(2..4) };
    let start = canvas.place(rng);
    let direction = rng.random_range(0.0..std::f32::consts::TAU);
    let mut level = Field::from_fn(canvas.size, |_, _| 0.0);
    // A gouge throws a bright lip beside its dark bottom.
    let lip = if rng.random_bool(0.25) { -0.7 } else { 0.0 };
    let apart = if count > 1 { 12.0 * canvas.scale } else { 0.0 };
    // A crack is ragged, what a tool leaves is smooth.
    let tremble = if rng.random_bool(0.4) { rng.random_range(0.08..0.3) } else { 0.0 };
    for _ in 0..count {
        let length = log_uniform(8.0 * canvas.scale.max(0.5), longest.max(12.0), rng);
        let width = log_uniform(0.4, 1.7, rng) * canvas.scale.max(0.7);
        let pen = Pen {
            at: start.map(|v| v + apart * rng.random_range(-1.0..1.0_f32)),
            direction: direction + rng.random_range(-0.25..0.25),
            turn: rng.random_range(-0.6..0.6) / length,
            tremble,
        };
        stroke(&mut level, pen, length, width, lip, rng);
    }
    let colour = shift(canvas, 15.0..80.0, rng);
    let amount = Field { size: level.size, values: level.values.iter().map(|v| v.abs()).collect() };
    canvas.draft(&amount, 0.3, |at, rgb| {
        let sign = level.values[at].signum();
        [0, 1, 2].map(|c: usize| rgb[c] + sign * colour[c])
    })
}

/// Draws a curve of `length` and half-width `width` pixels; pressure varies and fades at the ends.
fn stroke<R: Rng + ?Sized>(level: &mut Field, mut pen: Pen, length: f32, width: f32, lip: f32, rng: &mut R) {
    let steps = (length * 2.0).ceil() as usize;
    let ends = rng.random_range(0.02..0.3_f32);
    let mut pressure: f32 = 1.0;
    for step in 0..=steps {
        let along = step as f32 / steps as f32;
        pressure = (pressure + rng.random_range(-0.08..0.08)).clamp(0.45, 1.0);
        pen.turn += rng.random_range(-0.008..0.008) / length.sqrt();
        pen.direction += 0.5 * pen.turn + pen.tremble * rng.random_range(-1.0..1.0_f32);
        let (sin, cos) = pen.direction.sin_cos();
        pen.at = [pen.at[0] + 0.5 * cos, pen.at[1] + 0.5 * sin];
        let force = pressure * smoothstep(0.0, ends, along.min(1.0 - along)).max(0.35);
        if lip != 0.0 {
            dab(level, [pen.at[0] - sin * 1.8 * width, pen.at[1] + cos * 1.8 * width], width, lip * force);
        }
        dab(level, pen.at, width, force);
    }
}

/// A round touch with a soft rim; the stronger touch stays.
fn dab(level: &mut Field, at: [f32; 2], width: f32, force: f32) {
    let reach = width + 1.0;
    let range = |middle: f32, length: usize| {
        let from = (middle - reach).ceil().max(0.0) as usize;
        let to = ((middle + reach).floor() + 1.0).clamp(0.0, length as f32) as usize;
        from..to.max(from)
    };
    let (columns, rows) = (range(at[0], level.size.width), range(at[1], level.size.height));
    for y in rows {
        for x in columns.clone() {
            let distance = (x as f32 - at[0]).hypot(y as f32 - at[1]);
            let touch = force * (width + 0.5 - distance).clamp(0.0, 1.0);
            let old = &mut level.values[y * level.size.width + x];
            if touch.abs() > old.abs() {
                *old = touch;
            }
        }
    }
}

/// One to seven spots within a neighbourhood.
pub(super) fn spots<R: Rng + ?Sized>(canvas: &Canvas<'_>, rng: &mut R) -> Draft {
    let count = if rng.random_bool(0.55) { 1 } else { rng.random_range(2..8) };
    let middle = canvas.place(rng);
    let spread = log_uniform(12.0, 90.0, rng) * canvas.scale;
    let colour = shift(canvas, 15.0..80.0, rng);
    let grain = Noise::new(canvas.size, 3.0, rng);
    let grained = rng.random_range(0.0..0.5_f32);
    let mut amount = Field::from_fn(canvas.size, |_, _| 0.0);
    for number in 0..count {
        let away = if number == 0 { 0.0 } else { spread };
        let radius = (log_uniform(1.2, 16.0, rng) * canvas.scale).max(0.8);
        let blob = Blob {
            middle: middle.map(|v| v + away * rng.random_range(-1.0..1.0_f32)),
            radii: [radius, radius * rng.random_range(0.4..1.0)],
            angle: rng.random_range(0.0..std::f32::consts::PI),
            roughness: rng.random_range(0.1..0.7),
        };
        // A rim from sharp to half of the radius.
        let rim = (1.0 / radius).max(rng.random_range(0.05..0.6));
        let spot = blob.draw(canvas.size, rng);
        for (old, inside) in amount.values.iter_mut().zip(spot.values) {
            *old = old.max(smoothstep(0.0, rim, inside));
        }
    }
    let width = canvas.size.width;
    canvas.draft(&amount, 0.25, |at, rgb| {
        let strength = 1.0 + 2.0 * grained * grain.at((at % width) as f32, (at / width) as f32);
        [0, 1, 2].map(|c: usize| rgb[c] + strength * colour[c])
    })
}
