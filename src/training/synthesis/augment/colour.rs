//! Changes of colour; the mask stays.

use rand::{Rng, RngExt};

use crate::inspection::Picture;
use crate::training::synthesis::chance::gaussian;
use crate::training::synthesis::field::Field;

use super::Augmented;

fn recoloured(input: &Augmented, mut to: impl FnMut([f32; 3]) -> [f32; 3]) -> Augmented {
    let mut out = input.clone();
    for rgb in out.picture.rgb_mut().chunks_exact_mut(3) {
        let new = to([rgb[0], rgb[1], rgb[2]].map(f32::from));
        // A cast from a float saturates at 0 and 255.
        rgb.copy_from_slice(&new.map(|v| v.round() as u8));
    }
    out
}

/// Gaussian noise, deviation 3 to 14 levels, the same in every channel as on a sensor in poor light.
pub(super) fn noise<R: Rng + ?Sized>(input: &Augmented, rng: &mut R) -> Augmented {
    let deviation = rng.random_range(3.0..14.0_f32);
    recoloured(input, |rgb| {
        let noise = deviation * gaussian(rng);
        rgb.map(|v| v + noise)
    })
}

/// The picture smoothed by a Gaussian of deviation `sigma` pixels.
pub(in crate::training::synthesis) fn blurred(picture: &Picture, sigma: f32) -> Picture {
    let channels = [0, 1, 2].map(|c| Field::channel(picture, c).blurred(sigma).values);
    let mut out = picture.clone();
    for (at, rgb) in out.rgb_mut().chunks_exact_mut(3).enumerate() {
        rgb.copy_from_slice(&[0, 1, 2].map(|c: usize| channels[c][at].round() as u8));
    }
    out
}

/// Gaussian blur, deviation 0.4 to 1.3 pixels.
pub(super) fn blur<R: Rng + ?Sized>(input: &Augmented, rng: &mut R) -> Augmented {
    Augmented { picture: blurred(&input.picture, rng.random_range(0.4..1.3)), mask: input.mask.clone() }
}

/// Contrast times 0.7 to 1.4 around the mean colour, and up to 20 levels brighter or darker.
pub(super) fn contrast<R: Rng + ?Sized>(input: &Augmented, rng: &mut R) -> Augmented {
    let pixels = input.mask.flags().len() as f32;
    let mean = [0, 1, 2].map(|c| Field::channel(&input.picture, c).values.iter().sum::<f32>() / pixels);
    let factor = rng.random_range(0.7..1.4_f32);
    let shift = rng.random_range(-20.0..20.0_f32);
    recoloured(input, |rgb| [0, 1, 2].map(|c: usize| mean[c] + factor * (rgb[c] - mean[c]) + shift))
}

/// Hue turned by up to 25 degrees, saturation times 0.75 to 1.25; a grey picture stays.
pub(super) fn hue<R: Rng + ?Sized>(input: &Augmented, rng: &mut R) -> Augmented {
    let turn = hue_turn(rng.random_range(-0.44..0.44), rng.random_range(0.75..1.25));
    recoloured(input, turn)
}

/// A turn of the hue by `angle` radians and a stretch of the saturation, at equal luma: in the YIQ
/// colour space, where hue is an angle.
pub(in crate::training::synthesis) fn hue_turn(angle: f32, saturation: f32) -> impl Fn([f32; 3]) -> [f32; 3] {
    let (sin, cos) = angle.sin_cos();
    move |[r, g, b]| {
        let luma = 0.299 * r + 0.587 * g + 0.114 * b;
        let i = 0.595_72 * r - 0.274_45 * g - 0.321_26 * b;
        let q = 0.211_46 * r - 0.522_59 * g + 0.311_14 * b;
        let (i, q) = (saturation * (cos * i - sin * q), saturation * (sin * i + cos * q));
        [luma + 0.956_3 * i + 0.621 * q, luma - 0.272_1 * i - 0.647_4 * q, luma - 1.107 * i + 1.704_6 * q]
    }
}
