//! Copy-paste of a known defect.

use rand::{Rng, RngExt};

use crate::inspection::{Mask, Picture, Size};

use super::augment::{Augmented, augment};
use super::blend::{blend, for_each_marked, intersect, ring};
use super::chance::place_in;
use super::foreground::foreground;

/// Augmentations drawn for one paste.
const AUGMENTATIONS: usize = 3;

/// Times the defect is augmented anew.
const DRAWS: usize = 4;

/// Places tried for each.
const PLACES: usize = 25;

/// Share of the defect that must fall on the object; what lies beside it is cut off.
const LEAST_KEPT: f32 = 0.7;

/// Width of the surroundings that are compared, pixels.
const SURROUNDINGS: usize = 5;

/// A colour difference of the surroundings beyond this is no matter of light, levels.
const MOST_MATCHED: f32 = 60.0;

/// The defect, randomly augmented (three kinds of [`super::Augmentation`]), pasted at a random
/// place of the object in `normal`; what overhangs the object's [`foreground`] is cut off, at
/// most 30 %. The defect is brightened, darkened or tinted by half to all of the difference
/// between its surroundings there and here, so that it stands out by what it is and not by another exposure.
/// Nothing changes farther than [`super::SOFT_EDGE`] pixels from the returned mask, which is never empty.
///
/// `defect` and `mask` are of one size; `normal` may have another, and the result has its size.
/// None when the mask is empty or of another size than `defect`, or no place was found in 4 draws
/// of the augmentations with 25 places each: a defect too large for the object.
pub fn paste_defect(defect: &Picture, mask: &Mask, normal: &Picture, rng: &mut impl Rng) -> Option<(Picture, Mask)> {
    if mask.size() != defect.size() {
        return None;
    }
    let cut = cut_out(defect, mask)?;
    let object = foreground(normal);
    for _ in 0..DRAWS {
        let patch = augment(&cut, AUGMENTATIONS, rng);
        let Some(bounds) = Bounds::of(&patch.mask) else {
            continue;
        };
        for _ in 0..PLACES {
            let [x, y] = place_in(&object, rng)?;
            let shift = [x - bounds.middle[0], y - bounds.middle[1]].map(|v| v.round() as isize);
            let (changed, mut placed) = place(&patch, normal, shift);
            intersect(&mut placed, &object);
            if placed.area() > 0 && placed.area() as f32 >= LEAST_KEPT * patch.mask.area() as f32 {
                let strength = rng.random_range(0.5..1.0);
                let changed = match_light(&patch, normal, changed, &placed, &object, strength);
                return Some((blend(normal, &changed, &placed), placed));
            }
        }
    }
    None
}

/// Where a mask is marked.
struct Bounds {
    middle: [f32; 2],
    size: [f32; 2],
}

impl Bounds {
    fn of(mask: &Mask) -> Option<Self> {
        let mut span: Option<[usize; 4]> = None;
        for_each_marked(mask, |x, y| {
            let [left, top, right, bottom] = span.unwrap_or([x, y, x, y]);
            span = Some([left.min(x), top.min(y), right.max(x), bottom.max(y)]);
        });
        let [left, top, right, bottom] = span?.map(|v| v as f32);
        let middle = [left.midpoint(right), top.midpoint(bottom)];
        Some(Self { middle, size: [right - left + 1.0, bottom - top + 1.0] })
    }
}

/// A square around the defect, wide enough to turn it in; beyond the picture its border is repeated.
fn cut_out(defect: &Picture, mask: &Mask) -> Option<Augmented> {
    let bounds = Bounds::of(mask)?;
    let side = (bounds.size[0].hypot(bounds.size[1]) * 1.15) as usize + 2 * SURROUNDINGS + 2;
    let Size { width, height } = defect.size();
    let corner = bounds.middle.map(|middle| middle as isize - (side / 2) as isize);
    let size = Size { width: side, height: side };
    let mut rgb = Vec::with_capacity(side * side * 3);
    let mut flags = Vec::with_capacity(side * side);
    for row in 0..side as isize {
        for column in 0..side as isize {
            let (x, y) = (corner[0] + column, corner[1] + row);
            let near = (x.clamp(0, width as isize - 1) as usize, y.clamp(0, height as isize - 1) as usize);
            rgb.extend(defect.pixel(near.0, near.1));
            flags.push(near == (x as usize, y as usize) && mask.is_defect(near.0, near.1));
        }
    }
    Some(Augmented { picture: Picture::from_rgb(size, rgb).ok()?, mask: Mask::from_flags(size, flags).ok()? })
}

/// The patch laid over the picture, shifted; its mask as far as it lies in the frame.
fn place(patch: &Augmented, normal: &Picture, shift: [isize; 2]) -> (Picture, Mask) {
    let Size { width, height } = normal.size();
    let mut out = normal.clone();
    let mut placed = Mask::empty(normal.size());
    let from = patch.mask.size();
    for y in 0..from.height {
        for x in 0..from.width {
            let (Some(to_x), Some(to_y)) = (x.checked_add_signed(shift[0]), y.checked_add_signed(shift[1])) else {
                continue;
            };
            if to_x < width && to_y < height {
                let at = to_y * width + to_x;
                out.rgb_mut()[at * 3..at * 3 + 3].copy_from_slice(&patch.picture.pixel(x, y));
                placed.flags_mut()[at] = patch.mask.is_defect(x, y);
            }
        }
    }
    (out, placed)
}

/// Mean colour of the marked pixels; none for less than a handful.
fn mean_colour(picture: &Picture, mask: &Mask) -> Option<[f32; 3]> {
    let mut sum = [0.0; 3];
    for_each_marked(mask, |x, y| {
        for (sum, v) in sum.iter_mut().zip(picture.pixel(x, y)) {
            *sum += f64::from(v);
        }
    });
    let count = mask.area();
    (count >= 8).then(|| sum.map(|sum| (sum / count as f64) as f32))
}

/// `changed` with the light of the new surroundings. A difference too large for light (a defect
/// over all of its object is surrounded by background) changes nothing.
fn match_light(
    patch: &Augmented,
    normal: &Picture,
    mut changed: Picture,
    placed: &Mask,
    object: &Mask,
    strength: f32,
) -> Picture {
    let mut here = ring(placed, SURROUNDINGS);
    intersect(&mut here, object);
    let there = ring(&patch.mask, SURROUNDINGS);
    if let (Some(here), Some(there)) = (mean_colour(normal, &here), mean_colour(&patch.picture, &there)) {
        let offset = [0, 1, 2].map(|c: usize| here[c] - there[c]);
        if offset.iter().all(|v| v.abs() <= MOST_MATCHED) {
            for rgb in changed.rgb_mut().chunks_exact_mut(3) {
                for (v, offset) in rgb.iter_mut().zip(offset) {
                    *v = (f32::from(*v) + strength * offset).round() as u8;
                }
            }
        }
    }
    changed
}
