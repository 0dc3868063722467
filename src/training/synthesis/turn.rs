//! Whole pictures turned by any angle.

use rand::{Rng, RngExt};

use super::augment::sample;
use crate::inspection::Picture;

/// The picture turned clockwise about its centre by `angle` (radians), read bilinearly; where the
/// turned picture does not reach, its border is repeated. `stretch` is how many times as wide as
/// high the ground under one pixel is: 1 unless the picture was squeezed to another aspect, and a
/// part would be sheared, not turned, by a turn that does not know of it.
pub fn turned(picture: &Picture, angle: f32, stretch: f32) -> Picture {
    let mut out = picture.clone();
    let (width, height) = (picture.size().width, picture.size().height);
    let (mx, my) = ((width - 1) as f32 / 2.0, (height - 1) as f32 / 2.0);
    let (sin, cos) = angle.sin_cos();
    for (at, rgb) in out.rgb_mut().chunks_exact_mut(3).enumerate() {
        let (dx, dy) = (((at % width) as f32 - mx) * stretch, (at / width) as f32 - my);
        let (x, y) = (mx + (cos * dx + sin * dy) / stretch, my + cos * dy - sin * dx);
        rgb.copy_from_slice(&sample(picture, x, y).map(|v| v.round() as u8));
    }
    out
}

/// `copies` of each picture, every one turned by an angle of its own, all angles alike likely.
pub fn turned_copies(pictures: &[Picture], copies: usize, stretch: f32, rng: &mut impl Rng) -> Vec<Picture> {
    let mut made = Vec::with_capacity(pictures.len() * copies);
    for picture in pictures {
        for _ in 0..copies {
            made.push(turned(picture, rng.random_range(0.0..std::f32::consts::TAU), stretch));
        }
    }
    made
}

#[cfg(test)]
mod tests {
    use std::f32::consts::{FRAC_PI_2, PI};

    use super::*;
    use crate::inspection::Size;

    fn numbers(width: usize, height: usize) -> Picture {
        let rgb = (0..width * height).flat_map(|i| [i as u8 * 5; 3]).collect();
        Picture::from_rgb(Size { width, height }, rgb).unwrap()
    }

    #[test]
    fn a_quarter_of_a_square_moves_every_pixel_clockwise_to_its_place() {
        let picture = numbers(5, 5);
        let quarter = turned(&picture, FRAC_PI_2, 1.0);
        for y in 0..5 {
            for x in 0..5 {
                assert_eq!(quarter.pixel(4 - y, x), picture.pixel(x, y));
            }
        }
    }

    #[test]
    fn four_quarters_are_the_picture_again_and_half_a_turn_fits_any_shape() {
        let square = numbers(6, 6);
        let round = (0..4).fold(square.clone(), |picture, _| turned(&picture, FRAC_PI_2, 1.0));
        assert_eq!(round, square);
        let wide = numbers(8, 4);
        let half = turned(&wide, PI, 2.0);
        assert_eq!(half.pixel(7, 3), wide.pixel(0, 0));
    }

    #[test]
    fn a_squeezed_part_turns_on_its_ground_not_in_pixels() {
        // 20 wide pixels of ground squeezed to 10: a line along the middle row becomes, turned by a
        // quarter, a line along the middle column of the same length on the ground.
        let size = Size { width: 11, height: 21 };
        let mut picture = Picture::from_rgb(size, vec![0; 11 * 21 * 3]).unwrap();
        for x in 2..9 {
            picture.rgb_mut()[(10 * 11 + x) * 3..][..3].fill(255);
        }
        let quarter = turned(&picture, FRAC_PI_2, 2.0);
        let lit: Vec<usize> = (0..21).filter(|&y| quarter.pixel(5, y)[0] > 200).collect();
        assert_eq!((lit.first(), lit.last()), (Some(&4), Some(&16)));
    }
}
