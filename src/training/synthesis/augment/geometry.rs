//! Moves without loss: every pixel is one of the input's.

use crate::inspection::{Mask, Picture, Size};

use super::Augmented;

/// Pixel `(x, y)` of the output is pixel `from(x, y)` of the input.
fn rearrange(input: &Augmented, size: Size, from: impl Fn(usize, usize) -> (usize, usize)) -> Augmented {
    let width = input.mask.size().width;
    let mut rgb = Vec::with_capacity(input.picture.rgb().len());
    let mut flags = Vec::with_capacity(input.mask.flags().len());
    for y in 0..size.height {
        for x in 0..size.width {
            let (sx, sy) = from(x, y);
            let at = sy * width + sx;
            rgb.extend_from_slice(&input.picture.rgb()[at * 3..at * 3 + 3]);
            flags.push(input.mask.flags()[at]);
        }
    }
    match (Picture::from_rgb(size, rgb), Mask::from_flags(size, flags)) {
        (Ok(picture), Ok(mask)) => Augmented { picture, mask },
        // Cannot be: as many pixels as before.
        _ => input.clone(),
    }
}

/// Mirrored left to right, top to bottom, or both.
pub(super) fn flip(input: &Augmented, horizontal: bool, vertical: bool) -> Augmented {
    let size = input.mask.size();
    rearrange(input, size, |x, y| {
        (if horizontal { size.width - 1 - x } else { x }, if vertical { size.height - 1 - y } else { y })
    })
}

/// Rows and columns change places.
pub(super) fn transpose(input: &Augmented) -> Augmented {
    let Size { width, height } = input.mask.size();
    rearrange(input, Size { width: height, height: width }, |x, y| (y, x))
}

/// Turned clockwise by so many quarters.
pub(super) fn quarter_turn(input: &Augmented, quarters: usize) -> Augmented {
    match quarters % 4 {
        0 => input.clone(),
        1 => flip(&transpose(input), true, false),
        2 => flip(input, true, true),
        _ => flip(&transpose(input), false, true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Grey values 1 to 6 in two rows of three; defect where the value is 1.
    fn numbers() -> Augmented {
        let size = Size { width: 3, height: 2 };
        let picture = Picture::from_rgb(size, (1..=6).flat_map(|v| [v; 3]).collect()).unwrap();
        let mask = Mask::from_flags(size, (1..=6).map(|v| v == 1).collect()).unwrap();
        Augmented { picture, mask }
    }

    fn grey(of: &Augmented) -> Vec<u8> {
        let marked = of.mask.flags().iter().position(|&flag| flag).unwrap();
        assert_eq!(of.picture.rgb()[marked * 3], 1, "the mask must move with the picture");
        of.picture.rgb().iter().step_by(3).copied().collect()
    }

    #[test]
    fn turns_flips_and_transposes_move_every_pixel_to_its_place() {
        let input = numbers();
        assert_eq!(grey(&flip(&input, true, false)), [3, 2, 1, 6, 5, 4]);
        assert_eq!(grey(&flip(&input, false, true)), [4, 5, 6, 1, 2, 3]);
        assert_eq!(grey(&transpose(&input)), [1, 4, 2, 5, 3, 6]);
        let turned = quarter_turn(&input, 1);
        assert_eq!(turned.mask.size(), Size { width: 2, height: 3 });
        assert_eq!(grey(&turned), [4, 1, 5, 2, 6, 3]);
        assert_eq!(quarter_turn(&turned, 1), quarter_turn(&input, 2));
        assert_eq!(quarter_turn(&turned, 2), quarter_turn(&input, 3));
        assert_eq!(quarter_turn(&turned, 3), input);
    }
}
