//! How a changed region meets the untouched picture.

use crate::inspection::{Mask, Picture, Size};

/// Pixels outside the mask over which a changed region fades out; farther out nothing changes.
pub const SOFT_EDGE: usize = 2;

/// Share of the change at a distance of 0, 1, 2 pixels from the mask. Wholly there inside, since a
/// fade inwards would wipe out a scratch of one pixel.
const SHARE: [f32; SOFT_EDGE + 1] = [1.0, 0.55, 0.2];

/// `normal` outside of the mask, `changed` inside, with a soft edge outwards. All of one size.
pub(super) fn blend(normal: &Picture, changed: &Picture, mask: &Mask) -> Picture {
    let mut out = normal.clone();
    for (at, distance) in distances(mask).into_iter().enumerate() {
        let Some(share) = SHARE.get(usize::from(distance)) else {
            continue;
        };
        for c in at * 3..at * 3 + 3 {
            let (from, to) = (f32::from(normal.rgb()[c]), f32::from(changed.rgb()[c]));
            out.rgb_mut()[c] = (from + share * (to - from)).round() as u8;
        }
    }
    out
}

/// Steps (also diagonal ones) to the nearest marked pixel, up to `SOFT_EDGE`, else more than that.
fn distances(mask: &Mask) -> Vec<u8> {
    let mut distances: Vec<u8> = mask.flags().iter().map(|&flag| if flag { 0 } else { u8::MAX }).collect();
    for step in 1..=SOFT_EDGE as u8 {
        for_each_neighbour_pair(mask.size(), |a, b| {
            for (a, b) in [(a, b), (b, a)] {
                if distances[a] == step - 1 && distances[b] > step {
                    distances[b] = step;
                }
            }
        });
    }
    distances
}

fn for_each_neighbour_pair(size: Size, mut each: impl FnMut(usize, usize)) {
    let Size { width, height } = size;
    for y in 0..height {
        for x in 0..width {
            let at = y * width + x;
            if x + 1 < width {
                each(at, at + 1);
            }
            if y + 1 < height {
                each(at, at + width);
                if x + 1 < width {
                    each(at, at + width + 1);
                }
                if x > 0 {
                    each(at, at + width - 1);
                }
            }
        }
    }
}

/// Pixels within `steps` (also diagonal ones) of the mask, the mask itself not counted.
pub(super) fn ring(mask: &Mask, steps: usize) -> Mask {
    let Size { width, height } = mask.size();
    let mut wide = mask.clone();
    for_each_marked(mask, |x, y| {
        for ny in y.saturating_sub(steps)..(y + steps + 1).min(height) {
            let row = ny * width;
            wide.flags_mut()[row + x.saturating_sub(steps)..row + (x + steps + 1).min(width)].fill(true);
        }
    });
    for (wide, &inner) in wide.flags_mut().iter_mut().zip(mask.flags()) {
        *wide &= !inner;
    }
    wide
}

/// Calls with the column and row of every marked pixel.
pub(super) fn for_each_marked(mask: &Mask, mut each: impl FnMut(usize, usize)) {
    let width = mask.size().width;
    for (at, _) in mask.flags().iter().enumerate().filter(|(_, flag)| **flag) {
        each(at % width, at / width);
    }
}

/// Keeps only what both masks mark; of one size.
pub(super) fn intersect(mask: &mut Mask, other: &Mask) {
    for (flag, &other) in mask.flags_mut().iter_mut().zip(other.flags()) {
        *flag &= other;
    }
}
