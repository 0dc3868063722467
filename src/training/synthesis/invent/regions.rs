//! Regions that are of the object but in the wrong place or in the wrong light.

use rand::{Rng, RngExt};

use crate::training::synthesis::augment::{blurred, sample};
use crate::training::synthesis::chance::{either_sign, log_uniform};
use crate::training::synthesis::field::{Blob, Field, noise, smoothstep};

use super::{Canvas, Draft};

/// A rectangle from elsewhere on the object, turned and slightly recoloured; a third of them long
/// and thin.
pub(super) fn patch<R: Rng + ?Sized>(canvas: &Canvas<'_>, rng: &mut R) -> Draft {
    let mut half = [0; 2].map(|_| log_uniform(2.5, 40.0, rng) * canvas.scale);
    if rng.random_bool(0.35) {
        half = [log_uniform(5.0, 45.0, rng) * canvas.scale, log_uniform(1.0, 4.0, rng) * canvas.scale];
    }
    let half = half.map(|v| v.max(0.7));
    let (to, from) = (canvas.place(rng), canvas.place(rng));
    let (sin, cos) = rng.random_range(0.0..std::f32::consts::TAU).sin_cos();
    let (turn_sin, turn_cos) = rng.random_range(0.0..std::f32::consts::TAU).sin_cos();
    let amount = Field::from_fn(canvas.size, |x, y| {
        let (dx, dy) = (x - to[0], y - to[1]);
        let outside = ((dx * cos + dy * sin).abs() - half[0]).max((dy * cos - dx * sin).abs() - half[1]);
        (0.5 - outside).clamp(0.0, 1.0)
    });
    let (factor, shift) = (rng.random_range(0.8..1.25_f32), rng.random_range(-14.0..14.0_f32));
    let width = canvas.size.width;
    canvas.draft(&amount, 0.3, |at, _| {
        let (dx, dy) = ((at % width) as f32 - to[0], (at / width) as f32 - to[1]);
        let source = [from[0] + dx * turn_cos + dy * turn_sin, from[1] + dy * turn_cos - dx * turn_sin];
        sample(canvas.normal, source[0], source[1]).map(|v| (factor * v + shift).clamp(0.0, 255.0))
    })
}

/// A large region or stripe that is softly brighter, darker, flatter or rougher.
pub(super) fn band<R: Rng + ?Sized>(canvas: &Canvas<'_>, rng: &mut R) -> Draft {
    let side = 256.0 * canvas.scale;
    let amount = if rng.random_bool(0.5) { stripe(canvas, side, rng) } else { cloud(canvas, side, rng) };
    // A dark part stays a part, not a black hole.
    let brightness = object_brightness(canvas);
    let most = (0.45 * brightness + 8.0).min(55.0);
    let light = either_sign(8.0, most.max(9.0), rng);
    let detail = if rng.random_bool(0.5) { 1.0 } else { log_uniform(0.2, 2.2, rng) };
    let smooth = blurred(canvas.normal, (6.0 * canvas.scale).max(0.5));
    canvas.draft(&amount, 0.15, |at, from| {
        [0, 1, 2].map(|c: usize| {
            let smooth = f32::from(smooth.rgb()[at * 3 + c]);
            (smooth + detail * (from[c] - smooth) + light).clamp(0.0, 255.0)
        })
    })
}

/// Mean brightness of the object, levels.
fn object_brightness(canvas: &Canvas<'_>) -> f32 {
    let (mut sum, mut count) = (0_u64, 0_u64);
    for (rgb, _) in canvas.normal.rgb().chunks_exact(3).zip(canvas.object.flags()).filter(|(_, flag)| **flag) {
        sum += rgb.iter().map(|&v| u64::from(v)).sum::<u64>();
        count += 3;
    }
    sum as f32 / count.max(1) as f32
}

/// A stripe across the picture, more often along its sides than oblique, with a wavy outline and
/// two edges of different softness.
fn stripe<R: Rng + ?Sized>(canvas: &Canvas<'_>, side: f32, rng: &mut R) -> Field {
    let quarter = std::f32::consts::FRAC_PI_2 * rng.random_range(0..2) as f32;
    let tilt = if rng.random_bool(0.7) { rng.random_range(-0.12..0.12) } else { rng.random_range(-0.8..0.8) };
    let (sin, cos) = (quarter + tilt).sin_cos();
    let [mx, my] = canvas.place(rng);
    let half = log_uniform(0.03, 0.35, rng) * side;
    let softness = [0; 2].map(|_| (log_uniform(0.006, 0.15, rng) * side).max(1.0));
    let wave = noise(canvas.size, side * rng.random_range(0.1..0.4), rng);
    let reach = side * rng.random_range(0.0..0.04_f32);
    let mut waves = wave.values.into_iter();
    Field::from_fn(canvas.size, |x, y| {
        let across = (x - mx) * cos + (y - my) * sin + reach * waves.next().unwrap_or(0.0);
        let edges = [half - across, half + across];
        edges.iter().zip(softness).map(|(edge, soft)| smoothstep(0.0, soft, *edge)).fold(1.0, f32::min)
    })
}

/// A large blob with a soft outline.
fn cloud<R: Rng + ?Sized>(canvas: &Canvas<'_>, side: f32, rng: &mut R) -> Field {
    let radius = log_uniform(0.1, 0.45, rng) * side;
    let blob = Blob {
        middle: canvas.place(rng),
        radii: [radius, radius * rng.random_range(0.3..1.0)],
        angle: rng.random_range(0.0..std::f32::consts::PI),
        roughness: rng.random_range(0.1..0.6),
    };
    let rim = log_uniform(0.03, 0.7, rng);
    let mut shape = blob.draw(canvas.size, rng);
    for share in &mut shape.values {
        *share = smoothstep(0.0, rim, *share);
    }
    shape
}
