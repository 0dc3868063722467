//! Tests of synthesis.

use linegate::inspection::{Mask, Picture, Size};
use linegate::training::synthesis::{
    Augmentation, Augmented, Invention, SOFT_EDGE, augment, foreground, invent_defect, invent_defect_of_kind,
    paste_defect,
};
use proptest::prelude::*;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

const SIZE: Size = Size { width: 96, height: 80 };

fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

fn picture(size: Size, of: impl Fn(usize, usize) -> [u8; 3]) -> Picture {
    let places = (0..size.height).flat_map(|y| (0..size.width).map(move |x| (x, y)));
    Picture::from_rgb(size, places.flat_map(|(x, y)| of(x, y)).collect()).expect("three bytes a pixel")
}

fn mask(size: Size, of: impl Fn(usize, usize) -> bool) -> Mask {
    let places = (0..size.height).flat_map(|y| (0..size.width).map(move |x| (x, y)));
    Mask::from_flags(size, places.map(|(x, y)| of(x, y)).collect()).expect("a flag a pixel")
}

/// Brushed metal that fills the frame: columns of their own brightness and some grain.
fn brushed(size: Size) -> Picture {
    picture(size, |x, y| [(90 + (x * 37) % 29 + (x * 13 + y * 71) % 11) as u8; 3])
}

fn on_plate(x: usize, y: usize) -> bool {
    (20..76).contains(&x) && (15..65).contains(&y)
}

/// A blue plate in front of light grey.
fn plate() -> Picture {
    picture(SIZE, |x, y| {
        let grain = ((x * 31 + y * 17) % 7) as u8;
        if on_plate(x, y) { [20 + grain, 60 + grain, 170 + grain] } else { [190 + grain; 3] }
    })
}

fn near(mask: &Mask, x: usize, y: usize, reach: usize) -> bool {
    let (width, height) = (mask.size().width, mask.size().height);
    (y.saturating_sub(reach)..(y + reach + 1).min(height))
        .any(|y| (x.saturating_sub(reach)..(x + reach + 1).min(width)).any(|x| mask.is_defect(x, y)))
}

/// Whether nothing changed farther than the soft edge from the mask, and something did inside it.
fn changed_only_at(mask: &Mask, before: &Picture, after: &Picture) -> bool {
    let size = mask.size();
    let places = || (0..size.height).flat_map(|y| (0..size.width).map(move |x| (x, y)));
    places().all(|(x, y)| before.pixel(x, y) == after.pixel(x, y) || near(mask, x, y, SOFT_EDGE))
        && places().any(|(x, y)| mask.is_defect(x, y) && before.pixel(x, y) != after.pixel(x, y))
}

/// A dark spot of 6 pixels radius on brushed metal, with its mask.
fn dark_spot(size: Size, at: (usize, usize)) -> (Picture, Mask) {
    let inside = move |x: usize, y: usize| x.abs_diff(at.0).pow(2) + y.abs_diff(at.1).pow(2) <= 36;
    let ground = brushed(size);
    (picture(size, |x, y| if inside(x, y) { [25; 3] } else { ground.pixel(x, y) }), mask(size, inside))
}

#[test]
fn an_object_in_front_of_a_plain_background_is_found() {
    let found = foreground(&plate());
    let agree = mask(SIZE, |x, y| found.is_defect(x, y) == on_plate(x, y)).area();
    assert!(agree * 100 >= SIZE.width * SIZE.height * 98, "{agree} pixels agree");
}

#[test]
fn an_object_without_a_clear_background_fills_the_frame() {
    let all = SIZE.width * SIZE.height;
    assert_eq!(foreground(&brushed(SIZE)).area(), all);
    assert_eq!(foreground(&picture(SIZE, |_, _| [7, 8, 9])).area(), all, "one colour");
    // A bright middle that shades into the border is light, not an object.
    let shaded = picture(SIZE, |x, y| {
        let away = (x as f32 - 48.0).hypot(y as f32 - 40.0) / 62.0;
        [(220.0 - 190.0 * away) as u8; 3]
    });
    assert_eq!(foreground(&shaded).area(), all, "a gradient");
    let one = Size { width: 1, height: 1 };
    assert_eq!(foreground(&picture(one, |_, _| [0, 0, 0])).area(), 1);
}

#[test]
fn invented_defects_of_every_kind_stay_on_the_object() {
    let object = foreground(&plate());
    for kind in Invention::ALL {
        for seed in 0..8 {
            let (_, mask) = invent_defect_of_kind(&plate(), kind, &mut rng(seed));
            assert!(mask.area() > 0, "{kind:?} {seed}");
            let outside = mask.flags().iter().zip(object.flags()).filter(|(m, o)| **m && !**o).count();
            assert_eq!(outside, 0, "{kind:?} {seed}");
        }
    }
}

#[test]
fn invented_defects_come_in_small_and_large() {
    let ground = brushed(Size { width: 128, height: 128 });
    let mut areas: Vec<usize> = (0..120).map(|seed| invent_defect(&ground, &mut rng(seed)).1.area()).collect();
    areas.sort_unstable();
    assert!(areas[6] <= 12, "the twentieth part is small: {areas:?}");
    assert!(areas[114] >= 128 * 128 / 12, "the twentieth part is large: {areas:?}");
}

#[test]
fn even_where_hardly_anything_can_be_drawn_a_defect_is_made() {
    for (width, height) in [(1, 1), (2, 1), (1, 5), (3, 3), (9, 4)] {
        for level in [0, 128, 255] {
            let ground = picture(Size { width, height }, |_, _| [level; 3]);
            for kind in Invention::ALL {
                let (made, mask) = invent_defect_of_kind(&ground, kind, &mut rng(1));
                assert!(changed_only_at(&mask, &ground, &made), "{kind:?} {width}x{height} at level {level}");
            }
        }
    }
}

#[test]
fn a_grey_picture_stays_grey() {
    let ground = brushed(SIZE);
    for seed in 0..60 {
        let (made, _) = invent_defect(&ground, &mut rng(seed));
        assert!(
            made.rgb().chunks_exact(3).all(|rgb| rgb[0].abs_diff(rgb[1]) <= 1 && rgb[1].abs_diff(rgb[2]) <= 1),
            "seed {seed}"
        );
    }
}

#[test]
fn a_pasted_defect_is_still_darker_than_its_new_ground() {
    let (defect, spot) = dark_spot(SIZE, (30, 30));
    // The same metal under much more light: the spot must be dark against it all the same, and the
    // rest of the cut-out must not show as a frame.
    let ground = brushed(SIZE);
    let bright = picture(SIZE, |x, y| ground.pixel(x, y).map(|v| v + 45));
    for seed in 0..30 {
        let (made, placed) = paste_defect(&defect, &spot, &bright, &mut rng(seed)).expect("a small spot fits");
        assert!(changed_only_at(&placed, &bright, &made), "seed {seed}");
        assert!((15..400).contains(&placed.area()), "seed {seed}: {placed:?}");
        let mean = |picture: &Picture| {
            let levels = (0..SIZE.height).flat_map(|y| (0..SIZE.width).map(move |x| (x, y)));
            let levels: Vec<f32> = levels
                .filter(|(x, y)| placed.is_defect(*x, *y))
                .map(|(x, y)| f32::from(picture.pixel(x, y)[0]))
                .collect();
            levels.iter().sum::<f32>() / levels.len() as f32
        };
        assert!(mean(&made) + 25.0 < mean(&bright), "seed {seed}: {} on {}", mean(&made), mean(&bright));
    }
}

#[test]
fn a_pasted_defect_is_cut_at_the_objects_edge() {
    let (defect, spot) = dark_spot(SIZE, (30, 30));
    let object = foreground(&plate());
    for seed in 0..30 {
        let (_, placed) = paste_defect(&defect, &spot, &plate(), &mut rng(seed)).expect("a small spot fits");
        assert!(placed.flags().iter().zip(object.flags()).all(|(placed, object)| !placed || *object), "seed {seed}");
    }
}

#[test]
fn what_cannot_be_pasted_is_refused() {
    let (defect, spot) = dark_spot(SIZE, (30, 30));
    assert!(paste_defect(&defect, &Mask::empty(SIZE), &plate(), &mut rng(0)).is_none(), "nothing to paste");
    let other = Size { width: 80, height: 96 };
    assert!(paste_defect(&defect, &Mask::empty(other), &plate(), &mut rng(0)).is_none(), "a mask of another size");
    // Ten times as wide as the picture that it should go on.
    let tiny = brushed(Size { width: 8, height: 8 });
    let everywhere = mask(SIZE, |_, _| true);
    assert!(paste_defect(&defect, &everywhere, &tiny, &mut rng(0)).is_none(), "too large");
    assert!(paste_defect(&defect, &spot, &brushed(Size { width: 40, height: 200 }), &mut rng(0)).is_some());
}

#[test]
fn every_augmentation_changes_the_picture_and_moves_the_mask_with_it() {
    let (picture, mask) = dark_spot(SIZE, (40, 36));
    let input = Augmented { picture, mask };
    for kind in Augmentation::ALL {
        for seed in 0..6 {
            let out = kind.apply(&input, &mut rng(seed));
            assert_eq!(out.picture.size(), out.mask.size(), "{kind:?}");
            // The spot is the only dark thing, so its pixels must be where the mask says; colour
            // changes keep the order of levels, and warps and blur mix at the rim.
            let level = |marked: bool| {
                let pixels = out.picture.rgb().chunks_exact(3).zip(out.mask.flags());
                let levels: Vec<f32> =
                    pixels.filter(|(_, flag)| **flag == marked).map(|(rgb, _)| f32::from(rgb[0])).collect();
                levels.iter().sum::<f32>() / levels.len() as f32
            };
            assert!(level(true) + 35.0 < level(false), "{kind:?} {seed}: {} and {}", level(true), level(false));
            if kind == Augmentation::Hue {
                let grey = out.picture.rgb().chunks_exact(3).all(|rgb| rgb[0].abs_diff(rgb[2]) <= 1);
                assert!(grey, "a grey picture has no hue");
            } else {
                assert_ne!(out.picture, input.picture, "{kind:?} {seed}");
            }
        }
    }
    assert_eq!(augment(&input, 0, &mut rng(1)), input);
    assert_ne!(augment(&input, 3, &mut rng(1)), augment(&input, 3, &mut rng(2)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn an_invented_defect_changes_its_mask_and_little_else(
        seed: u64, width in 16_usize..80, height in 16_usize..80, framed: bool
    ) {
        let size = Size { width, height };
        let metal = brushed(size);
        let ground = if framed {
            picture(size, |x, y| {
                let inside = x > width / 5 && x < width * 4 / 5 && y > height / 5 && y < height * 4 / 5;
                if inside { [200, 40, 30] } else { metal.pixel(x, y) }
            })
        } else {
            metal
        };
        let (made, mask) = invent_defect(&ground, &mut rng(seed));
        prop_assert_eq!(made.size(), size);
        prop_assert_eq!(mask.size(), size);
        prop_assert!(mask.area() > 0);
        prop_assert!(changed_only_at(&mask, &ground, &made));
        prop_assert_eq!((made, mask), invent_defect(&ground, &mut rng(seed)));
    }

    #[test]
    fn a_pasted_defect_changes_its_mask_and_little_else(
        seed: u64, width in 24_usize..80, height in 24_usize..80, x in 8_usize..80, y in 8_usize..70
    ) {
        let (defect, spot) = dark_spot(SIZE, (x, y));
        let ground = brushed(Size { width, height });
        let pasted = paste_defect(&defect, &spot, &ground, &mut rng(seed));
        prop_assert_eq!(&pasted, &paste_defect(&defect, &spot, &ground, &mut rng(seed)));
        let (made, mask) = pasted.expect("the spot fits");
        prop_assert_eq!(made.size(), ground.size());
        prop_assert!(mask.area() > 0);
        prop_assert!(changed_only_at(&mask, &ground, &made));
    }
}
