//! Random changes of a defect and its mask.

mod colour;
mod geometry;
mod warp;

pub(super) use colour::{blurred, hue_turn};
pub(super) use warp::sample;

use rand::seq::SliceRandom;
use rand::{Rng, RngExt};

use crate::inspection::{Mask, Picture};

/// A picture and its mask, of one size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Augmented {
    /// The picture.
    pub picture: Picture,
    /// Which of its pixels are defective.
    pub mask: Mask,
}

/// One kind of change. What moves pixels moves the mask alike: the picture is read bilinearly, the
/// mask at the nearest pixel; beyond the frame the picture's border is repeated and nothing is defect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Augmentation {
    /// Turned by one, two or three quarters; width and height may change places.
    QuarterTurn,
    /// Mirrored left to right, top to bottom, or both.
    Flip,
    /// Rows and columns change places.
    Transpose,
    /// Barrel or pincushion distortion around the middle.
    OpticalDistortion,
    /// Gaussian noise, deviation 3 to 14 levels.
    Noise,
    /// Gaussian blur, deviation 0.4 to 1.3 pixels.
    Blur,
    /// Shifted by up to 6 % of the size, scaled by 0.75 to 1.3, rotated by up to 45 degrees.
    ShiftScaleRotate,
    /// Elastic distortion (smooth noise) or grid distortion (shifted knots), one of the two.
    Bend,
    /// Contrast times 0.7 to 1.4 around the mean of the picture, and up to 20 levels brighter or
    /// darker.
    Contrast,
    /// Hue turned by up to 25 degrees, saturation times 0.75 to 1.25; a grey picture stays.
    Hue,
}

impl Augmentation {
    /// Every kind.
    pub const ALL: [Self; 10] = [
        Self::QuarterTurn,
        Self::Flip,
        Self::Transpose,
        Self::OpticalDistortion,
        Self::Noise,
        Self::Blur,
        Self::ShiftScaleRotate,
        Self::Bend,
        Self::Contrast,
        Self::Hue,
    ];

    /// The input changed by this kind, its strength drawn at random. A warp may leave the mask
    /// empty when the defect is but a few pixels or moves out of the frame.
    pub fn apply(self, input: &Augmented, rng: &mut impl Rng) -> Augmented {
        match self {
            Self::QuarterTurn => geometry::quarter_turn(input, rng.random_range(1..4)),
            Self::Flip => {
                let which = rng.random_range(1..4);
                geometry::flip(input, which & 1 != 0, which & 2 != 0)
            }
            Self::Transpose => geometry::transpose(input),
            Self::OpticalDistortion => warp::optical_distortion(input, rng),
            Self::Noise => colour::noise(input, rng),
            Self::Blur => colour::blur(input, rng),
            Self::ShiftScaleRotate => warp::shift_scale_rotate(input, rng),
            Self::Bend if rng.random_bool(0.5) => warp::elastic_distortion(input, rng),
            Self::Bend => warp::grid_distortion(input, rng),
            Self::Contrast => colour::contrast(input, rng),
            Self::Hue => colour::hue(input, rng),
        }
    }
}

/// The input changed by `count` different kinds (at most all), drawn at random, in random order.
pub fn augment(input: &Augmented, count: usize, rng: &mut impl Rng) -> Augmented {
    let mut kinds = Augmentation::ALL;
    kinds.shuffle(rng);
    kinds.iter().take(count).fold(input.clone(), |input, kind| kind.apply(&input, rng))
}
