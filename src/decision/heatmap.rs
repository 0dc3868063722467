//! Anomaly maps as colours, for people.

use super::enlarge;
use crate::bundle::ImageBoundary;
use crate::inspection::{AnomalyMap, Picture, Rectangle, Size};

/// Dark to bright in equal steps of lightness ("inferno" of matplotlib, every eighth).
const COLOURS: [[f32; 3]; 9] = [
    [0.0, 0.0, 4.0],
    [31.0, 12.0, 72.0],
    [85.0, 15.0, 109.0],
    [136.0, 34.0, 106.0],
    [186.0, 54.0, 85.0],
    [227.0, 89.0, 51.0],
    [249.0, 140.0, 10.0],
    [249.0, 201.0, 50.0],
    [252.0, 255.0, 164.0],
];

/// Where the model gave no number.
const NOT_A_NUMBER: [f32; 3] = [0.0, 255.0, 255.0];

/// Place of a value on the colour scale, 0 to 1: the normal boundary lies at 0.5 and the abnormal
/// one at 0.75, so that pictures of one bundle compare whatever else is in them.
fn place(value: f32, boundary: &ImageBoundary) -> Option<f32> {
    if !value.is_finite() {
        return None;
    }
    // Calibrated units: normal pixels lie about 0 and a boundary some units above.
    let below = boundary.normal.abs().max(1.0);
    let gap = (boundary.abnormal - boundary.normal).max(0.25 * below);
    let above = value - boundary.normal;
    Some((if above <= 0.0 { 0.5 + 0.5 * above / below } else { 0.5 + 0.25 * above / gap }).clamp(0.0, 1.0))
}

fn colour(place: f32) -> [f32; 3] {
    let at = place * (COLOURS.len() - 1) as f32;
    let first = (at as usize).min(COLOURS.len() - 2);
    let share = at - first as f32;
    std::array::from_fn(|c| COLOURS[first][c] * (1.0 - share) + COLOURS[first + 1][c] * share)
}

/// The map alone as a picture of `size`: dark is normal, orange lies beyond the abnormal boundary,
/// cyan is where there is no number. `size` that is empty gives a single pixel.
pub fn heatmap(map: &AnomalyMap, boundary: &ImageBoundary, size: Size) -> Picture {
    let size = Size { width: size.width.max(1), height: size.height.max(1) };
    let mut picture = blank(size);
    let whole = Rectangle { x: 0, y: 0, width: size.width, height: size.height };
    paint(&mut picture, map, boundary, whole, |_| 1.0);
    picture
}

/// The full frame with the map laid over its region of interest: the more abnormal the stronger,
/// what is normal shows through untouched.
pub fn overlay(
    picture: &Picture,
    map: &AnomalyMap,
    boundary: &ImageBoundary,
    region_of_interest: Option<Rectangle>,
) -> Picture {
    let mut out = picture.clone();
    let size = picture.size();
    let whole = Rectangle { x: 0, y: 0, width: size.width, height: size.height };
    let roi = region_of_interest.filter(|roi| roi.fits(size)).unwrap_or(whole);
    paint(&mut out, map, boundary, roi, |place| ((place - 0.3) / 0.3).clamp(0.0, 1.0) * 0.6);
    out
}

/// Draws the outline of a box, `thickness` pixels inwards, as far as it lies in the picture.
pub fn outline(picture: &mut Picture, bounds: Rectangle, thickness: usize, rgb: [u8; 3]) {
    let size = picture.size();
    let (right, bottom) = (
        bounds.x.saturating_add(bounds.width).min(size.width),
        bounds.y.saturating_add(bounds.height).min(size.height),
    );
    for y in bounds.y..bottom {
        for x in bounds.x..right {
            let inside = (x - bounds.x).min(right - 1 - x).min(y - bounds.y).min(bottom - 1 - y);
            if inside < thickness {
                let at = (y * size.width + x) * 3;
                picture.rgb_mut()[at..at + 3].copy_from_slice(&rgb);
            }
        }
    }
}

fn blank(size: Size) -> Picture {
    Picture::from_rgb(size, vec![0; size.width * size.height * 3]).expect("the length is that of the size")
}

fn paint(
    picture: &mut Picture,
    map: &AnomalyMap,
    boundary: &ImageBoundary,
    roi: Rectangle,
    opacity: impl Fn(f32) -> f32,
) {
    let width = picture.size().width;
    let values = enlarge(&map.0, roi.height, roi.width);
    for ((row, column), &value) in values.indexed_iter() {
        let (rgb, opacity) = match place(value, boundary) {
            Some(place) => (colour(place), opacity(place)),
            None => (NOT_A_NUMBER, 1.0),
        };
        let at = ((roi.y + row) * width + roi.x + column) * 3;
        for (under, over) in picture.rgb_mut()[at..at + 3].iter_mut().zip(rgb) {
            *under = (f32::from(*under) * (1.0 - opacity) + over * opacity).round() as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, array};

    use super::*;

    const BOUNDARY: ImageBoundary =
        ImageBoundary { normal: 3.0, abnormal: 5.0, suspect_rate: 0.1, false_reject_rate: 0.01 };

    #[test]
    fn what_is_normal_shows_through_and_what_is_not_is_coloured() {
        let size = Size { width: 4, height: 2 };
        let grey = Picture::from_rgb(size, vec![100; 24]).expect("picture");
        let painted = overlay(&grey, &AnomalyMap(array![[0.0, 0.0, 9.0, 9.0]]), &BOUNDARY, None);
        assert_eq!(painted.pixel(0, 0), [100; 3]);
        assert!(painted.pixel(3, 1)[0] > 150, "{:?}", painted.pixel(3, 1));
    }

    #[test]
    fn a_region_of_interest_takes_the_map_and_the_rest_stays() {
        let size = Size { width: 8, height: 8 };
        let grey = Picture::from_rgb(size, vec![100; 192]).expect("picture");
        let roi = Rectangle { x: 4, y: 4, width: 4, height: 4 };
        let painted = overlay(&grey, &AnomalyMap(Array2::from_elem((2, 2), 9.0)), &BOUNDARY, Some(roi));
        assert_eq!(painted.pixel(3, 3), [100; 3]);
        assert_ne!(painted.pixel(4, 4), [100; 3]);
    }

    #[test]
    fn maps_without_numbers_or_cells_are_drawn_without_a_crash() {
        let map = AnomalyMap(array![[f32::NAN, f32::INFINITY]]);
        assert_eq!(heatmap(&map, &BOUNDARY, Size { width: 2, height: 1 }).pixel(0, 0), [0, 255, 255]);
        let none = AnomalyMap(Array2::zeros((0, 0)));
        assert_eq!(heatmap(&none, &BOUNDARY, Size { width: 0, height: 3 }).size(), Size { width: 1, height: 3 });
    }

    #[test]
    fn a_box_beyond_the_picture_is_cut_at_its_border() {
        let mut picture = blank(Size { width: 4, height: 4 });
        outline(&mut picture, Rectangle { x: 2, y: 2, width: 9, height: usize::MAX }, 1, [255, 0, 0]);
        assert_eq!(picture.pixel(3, 2), [255, 0, 0]);
        assert_eq!(picture.pixel(1, 1), [0, 0, 0]);
    }
}
