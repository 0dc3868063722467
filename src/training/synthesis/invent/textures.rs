//! Regions of foreign texture.

use rand::seq::SliceRandom;
use rand::{Rng, RngExt};

use crate::inspection::{Picture, Size};
use crate::training::synthesis::augment::{blurred, hue_turn};
use crate::training::synthesis::chance::{either_sign, log_uniform};
use crate::training::synthesis::field::{Blob, Field, noise, smoothstep};

use super::{Canvas, Draft};

/// Whether a picture is grey: its channels differ by less than 4 levels on average.
pub(super) fn is_grey(picture: &Picture) -> bool {
    let chroma: usize = picture
        .rgb()
        .chunks_exact(3)
        .map(|rgb| usize::from(rgb[0].abs_diff(rgb[1]).max(rgb[1].abs_diff(rgb[2]))))
        .sum();
    chroma < 4 * picture.rgb().len() / 3
}

/// A blob or scattered flecks of foreign texture.
pub(super) fn texture<R: Rng + ?Sized>(canvas: &Canvas<'_>, rng: &mut R) -> Draft {
    let shape = shape(canvas, rng);
    let opacity = rng.random_range(0.5..1.0_f32);
    let amount = Field { size: shape.size, values: shape.values.iter().map(|v| opacity * v).collect() };
    let content = match rng.random_range(0..4) {
        0 => shuffled(canvas, rng),
        1 => clouds(canvas, rng),
        2 => detail(canvas, rng.random_range(0.0..0.25), rng),
        _ => detail(canvas, rng.random_range(2.0..4.5), rng),
    };
    canvas.draft(&amount, 0.3 * opacity, |at, _| content[at])
}

/// Where the texture lies, 0 to 1.
fn shape<R: Rng + ?Sized>(canvas: &Canvas<'_>, rng: &mut R) -> Field {
    let side = 256.0 * canvas.scale;
    let radius = (log_uniform(0.012, 0.3, rng) * side).max(1.5);
    let scattered = rng.random_bool(0.4);
    let blob = Blob {
        middle: canvas.place(rng),
        radii: [radius, radius * rng.random_range(0.3..1.0)],
        angle: rng.random_range(0.0..std::f32::consts::PI),
        roughness: if scattered { 0.3 } else { rng.random_range(0.3..1.2) },
    };
    let mut shape = blob.draw(canvas.size, rng);
    if scattered {
        let flecks = noise(canvas.size, log_uniform(0.015, 0.12, rng) * side, rng);
        let cover = rng.random_range(-0.1..0.35_f32);
        for (inside, fleck) in shape.values.iter_mut().zip(flecks.values) {
            *inside = if *inside > 0.0 { (inside.min(0.5) * 0.5 + fleck - cover) * 2.0 } else { -1.0 };
        }
    }
    let rim = rng.random_range(0.05..0.35);
    for share in &mut shape.values {
        *share = smoothstep(0.0, rim, *share);
    }
    shape
}

type Content = Vec<[f32; 3]>;

fn colours(picture: &Picture) -> Content {
    picture.rgb().chunks_exact(3).map(|rgb| [rgb[0], rgb[1], rgb[2]].map(f32::from)).collect()
}

/// Another contrast, brightness and, where the picture has colour, hue.
fn recolour<R: Rng + ?Sized>(canvas: &Canvas<'_>, content: &mut Content, rng: &mut R) {
    let turn = hue_turn(rng.random_range(-0.6..0.6), rng.random_range(0.4..1.5));
    let turned = !is_grey(canvas.normal) && rng.random_bool(0.7);
    let (factor, shift) = (rng.random_range(0.6..1.5_f32), either_sign(3.0, 35.0, rng));
    let mean = [0, 1, 2].map(|c: usize| content.iter().map(|rgb| rgb[c]).sum::<f32>() / content.len() as f32);
    for rgb in content {
        let new = if turned { turn(*rgb) } else { *rgb };
        *rgb = [0, 1, 2].map(|c: usize| (mean[c] + factor * (new[c] - mean[c]) + shift).clamp(0.0, 255.0));
    }
}

/// The picture's own tiles in another order, some turned over.
fn shuffled<R: Rng + ?Sized>(canvas: &Canvas<'_>, rng: &mut R) -> Content {
    let Size { width, height } = canvas.size;
    let grid = *[4_usize, 8, 16].get(rng.random_range(0..3)).unwrap_or(&8);
    let tile = [width.div_ceil(grid), height.div_ceil(grid)];
    // From the object's tiles; where it has none of its own, from all.
    let middle_on_object = |tile_number: &usize| {
        let x = tile_number % grid * tile[0] + tile[0] / 2;
        let y = tile_number / grid * tile[1] + tile[1] / 2;
        x < width && y < height && canvas.object.is_defect(x, y)
    };
    let mut tiles: Vec<usize> = (0..grid * grid).filter(middle_on_object).collect();
    if tiles.is_empty() {
        tiles = (0..grid * grid).collect();
    }
    tiles.shuffle(rng);
    let order: Vec<(usize, bool, bool)> =
        (0..grid * grid).map(|i| (tiles[i % tiles.len()], rng.random_bool(0.5), rng.random_bool(0.5))).collect();
    let source = colours(canvas.normal);
    let mut content = Vec::with_capacity(source.len());
    for y in 0..height {
        for x in 0..width {
            let (from, mirrored, upside_down) = order[y / tile[1] * grid + x / tile[0]];
            let turn = |at: usize, length: usize, turned: bool| if turned { length - 1 - at } else { at };
            let column = from % grid * tile[0] + turn(x % tile[0], tile[0], mirrored);
            let row = from / grid * tile[1] + turn(y % tile[1], tile[1], upside_down);
            content.push(source[row.min(height - 1) * width + column.min(width - 1)]);
        }
    }
    recolour(canvas, &mut content, rng);
    content
}

/// A colour of its own with clouds in it, as rust, dirt or glue.
fn clouds<R: Rng + ?Sized>(canvas: &Canvas<'_>, rng: &mut R) -> Content {
    let [x, y] = canvas.place(rng);
    let ground = canvas.normal.pixel(x as usize, y as usize).map(f32::from);
    let level = either_sign(15.0, 70.0, rng);
    let base = if is_grey(canvas.normal) {
        ground.map(|v| v + level)
    } else {
        ground.map(|v| (v + 0.5 * level) * 0.5 + 0.5 * rng.random_range(10.0..200.0_f32))
    };
    let cell = log_uniform(3.0, 40.0, rng) * canvas.scale;
    let (cloud, grain) = (noise(canvas.size, cell, rng), noise(canvas.size, 2.0, rng));
    let strength = rng.random_range(8.0..45.0_f32);
    // Some of the ground shows through.
    let through = rng.random_range(0.0..0.5_f32);
    let source = colours(canvas.normal);
    let values = cloud.values.iter().zip(&grain.values).zip(source);
    values
        .map(|((cloud, grain), from)| {
            let change = strength * (cloud + 0.4 * grain);
            [0, 1, 2].map(|c: usize| (base[c] + through * (from[c] - ground[c]) + change).clamp(0.0, 255.0))
        })
        .collect()
}

/// The picture with its fine detail taken away (a factor below 1, a smear) or exaggerated, and a
/// little brighter or darker.
fn detail<R: Rng + ?Sized>(canvas: &Canvas<'_>, factor: f32, rng: &mut R) -> Content {
    let sigma = (log_uniform(1.5, 6.0, rng) * canvas.scale).max(0.5);
    let shift = either_sign(4.0, 22.0, rng);
    let smooth = colours(&blurred(canvas.normal, sigma));
    let source = colours(canvas.normal);
    let pairs = source.into_iter().zip(smooth);
    pairs
        .map(|(from, smooth)| {
            [0, 1, 2].map(|c: usize| (smooth[c] + factor * (from[c] - smooth[c]) + shift).clamp(0.0, 255.0))
        })
        .collect()
}
