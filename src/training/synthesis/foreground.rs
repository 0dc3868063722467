//! Where the object is.

use crate::inspection::{Mask, Picture, Size};

use super::field::Field;

/// Levels (of 255) that object and background must be apart on average.
const LEAST_CONTRAST: f32 = 25.0;

/// Share of the distances' variance that the two classes must explain (Otsu's effectiveness). Two
/// colours give nearly 1, an even spread 0.75, a bell 0.64: a bright middle is no object.
const LEAST_EFFECTIVENESS: f32 = 0.85;

/// Share of the frame's border that must be background: an object that is cut by the frame more
/// than that has no background worth the name.
const BORDER_BACKGROUND: f32 = 0.85;

/// Share of the frame that an object may have.
const OBJECT_SHARE: std::ops::RangeInclusive<f32> = 0.02..=0.95;

/// The object's pixels: those whose colour, a little blurred, is far from the background's, which
/// is the median colour of the frame's border; "far" is told by Otsu's threshold (IEEE Trans. SMC 9,
/// 1979) on that distance.
///
/// Where there is no clear background (the border is of many colours, hardly differs from the
/// rest or shades into it, or the object is next to nothing or next to everything), the object fills the frame and
/// all of it is foreground. So the answer is never empty.
pub fn foreground(picture: &Picture) -> Mask {
    object(picture).unwrap_or_else(|| {
        let mut all = Mask::empty(picture.size());
        all.flags_mut().fill(true);
        all
    })
}

fn object(picture: &Picture) -> Option<Mask> {
    let size = picture.size();
    let sigma = (size.width.min(size.height) as f32 / 160.0).max(0.5);
    let channels = [0, 1, 2].map(|c| Field::channel(picture, c).blurred(sigma).values);
    let border = border(size);
    let background = [0, 1, 2].map(|c| {
        let mut values: Vec<f32> = border.iter().map(|&at| channels[c][at]).collect();
        values.sort_by(f32::total_cmp);
        values[values.len() / 2]
    });
    let distance: Vec<f32> = (0..size.width * size.height)
        .map(|at| (0..3).map(|c| (channels[c][at] - background[c]).abs()).fold(0.0, f32::max))
        .collect();

    let split = otsu(&distance)?;
    let beyond = |at: &usize| distance[*at] > split.threshold;
    let share = (0..distance.len()).filter(beyond).count() as f32 / distance.len() as f32;
    let quiet = border.iter().filter(|at| !beyond(at)).count() as f32 / border.len() as f32;
    let clear = split.contrast >= LEAST_CONTRAST && split.effectiveness >= LEAST_EFFECTIVENESS;
    if !clear || quiet < BORDER_BACKGROUND || !OBJECT_SHARE.contains(&share) {
        return None;
    }
    Mask::from_flags(size, distance.iter().map(|&d| d > split.threshold).collect()).ok()
}

fn border(size: Size) -> Vec<usize> {
    let Size { width, height } = size;
    (0..width * height)
        .filter(|at| {
            let (x, y) = (at % width, at / width);
            x == 0 || y == 0 || x + 1 == width || y + 1 == height
        })
        .collect()
}

struct Split {
    threshold: f32,
    /// Difference of the two classes' means.
    contrast: f32,
    /// Share of the variance between the classes, 0 to 1.
    effectiveness: f32,
}

/// The threshold that parts values of 0 to 255 with the greatest variance between the classes;
/// none where all are equal.
fn otsu(values: &[f32]) -> Option<Split> {
    let mut histogram = [0_u32; 256];
    for &value in values {
        histogram[value.clamp(0.0, 255.0) as usize] += 1;
    }
    let count = values.len() as f64;
    let sum: f64 = histogram.iter().enumerate().map(|(bin, &n)| bin as f64 * f64::from(n)).sum();
    let squares: f64 = histogram.iter().enumerate().map(|(bin, &n)| (bin * bin) as f64 * f64::from(n)).sum();
    let scatter = (squares - sum * sum / count) * count;
    let (mut below, mut sum_below) = (0.0, 0.0);
    let mut best = None;
    let mut most = 0.0;
    for (bin, &n) in histogram.iter().enumerate() {
        below += f64::from(n);
        sum_below += bin as f64 * f64::from(n);
        let above = count - below;
        if below == 0.0 || above == 0.0 {
            continue;
        }
        let contrast = (sum - sum_below) / above - sum_below / below;
        let between = below * above * contrast * contrast;
        if between > most {
            most = between;
            best = Some(Split {
                threshold: (bin + 1) as f32,
                contrast: contrast as f32,
                effectiveness: (between / scatter) as f32,
            });
        }
    }
    best
}
