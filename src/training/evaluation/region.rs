//! Ground truth at model size: the mask resized and its regions told apart.

use std::collections::HashMap;

use crate::inspection::{Mask, Rectangle, Size};

/// Regions of a mask: 0 is normal, else the number of the region from 1. `[row, column]`, packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Regions {
    pub(super) labels: Vec<u32>,
    pub(super) count: u32,
}

/// Tells the regions of a mask apart, with corners counted as touching (8-connected), as the
/// per-region overlap asks.
pub(super) fn regions(mask: &Mask) -> Regions {
    let Size { width, height } = mask.size();
    let mut labels = vec![0_u32; width * height];
    let (mut count, mut stack) = (0, Vec::new());
    for start in 0..labels.len() {
        if labels[start] != 0 || !mask.flags()[start] {
            continue;
        }
        count += 1;
        labels[start] = count;
        stack.push(start);
        while let Some(cell) = stack.pop() {
            let (x, y) = (cell % width, cell / width);
            for row in y.saturating_sub(1)..(y + 2).min(height) {
                for column in x.saturating_sub(1)..(x + 2).min(width) {
                    let other = row * width + column;
                    if labels[other] == 0 && mask.flags()[other] {
                        labels[other] = count;
                        stack.push(other);
                    }
                }
            }
        }
    }
    Regions { labels, count }
}

/// The mask cut to `roi` and resized to `size` by covered area: a target pixel is defective when
/// at least half of it is. A region so thin that no pixel reaches half keeps the one that it
/// covers most, so that no region is lost from the per-region overlap. (`Mask::fit`, made for
/// training, marks every pixel touched, which here would count normal pixels as missed.)
pub(super) fn resize_by_coverage(mask: &Mask, roi: Option<Rectangle>, size: Size) -> Mask {
    let whole = Rectangle { x: 0, y: 0, width: mask.size().width, height: mask.size().height };
    let roi = roi.filter(|roi| roi.fits(mask.size())).unwrap_or(whole);
    let cut: Vec<bool> = (0..roi.height)
        .flat_map(|y| (0..roi.width).map(move |x| (x, y)))
        .map(|(x, y)| mask.is_defect(roi.x + x, roi.y + y))
        .collect();
    let cut_size = Size { width: roi.width, height: roi.height };
    let Ok(cut) = Mask::from_flags(cut_size, cut) else { return Mask::empty(size) };
    if cut_size == size {
        return cut;
    }
    let across: Vec<_> = (0..roi.width).map(|x| shares(x, roi.width, size.width)).collect();
    let down: Vec<_> = (0..roi.height).map(|y| shares(y, roi.height, size.height)).collect();

    let found = regions(&cut);
    let mut coverage = vec![0.0_f64; size.width * size.height];
    // Per region only the cells that it touches: regions are many and small, or few and large.
    let mut per_region: Vec<HashMap<usize, f64>> = vec![HashMap::new(); found.count as usize];
    for (at, &region) in found.labels.iter().enumerate().filter(|(_, region)| **region != 0) {
        for &(row, high) in &down[at / roi.width] {
            for &(column, wide) in &across[at % roi.width] {
                let cell = row * size.width + column;
                coverage[cell] += high * wide;
                *per_region[region as usize - 1].entry(cell).or_default() += high * wide;
            }
        }
    }
    // Half up to rounding: a cell exactly half covered is defective.
    let mut defect: Vec<bool> = coverage.iter().map(|&share| share >= 0.5 - 1e-9).collect();
    for cells in &per_region {
        if !cells.keys().any(|&cell| defect[cell]) {
            let most = cells.iter().max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(a.0)));
            if let Some((&cell, _)) = most {
                defect[cell] = true;
            }
        }
    }
    Mask::from_flags(size, defect).unwrap_or_else(|_| Mask::empty(size))
}

/// The target cells that a source pixel lies on, with the share of the cell that it covers.
fn shares(pixel: usize, source: usize, target: usize) -> Vec<(usize, f64)> {
    let scale = target as f64 / source as f64;
    let (from, to) = (pixel as f64 * scale, (pixel + 1) as f64 * scale);
    ((from as usize)..target)
        .map(|cell| (cell, to.min((cell + 1) as f64) - from.max(cell as f64)))
        .take_while(|(_, share)| *share > 0.0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(rows: &[&str]) -> Mask {
        let size = Size { width: rows[0].len(), height: rows.len() };
        Mask::from_flags(size, rows.iter().flat_map(|row| row.chars().map(|c| c == '#')).collect()).expect("mask")
    }

    #[test]
    fn corners_touch_but_gaps_do_not() {
        assert_eq!(regions(&mask(&["#..#", ".#..", "...#"])).count, 3);
        assert_eq!(regions(&mask(&["....", "...."])).count, 0);
    }

    #[test]
    fn a_pixel_at_least_half_covered_is_defective() {
        let fitted = resize_by_coverage(&mask(&["###.", "...."]), None, Size { width: 2, height: 1 });
        assert_eq!(fitted.flags(), [true, false]);
    }

    #[test]
    fn a_region_too_thin_for_half_a_pixel_keeps_its_best_one() {
        let mut source = Mask::empty(Size { width: 90, height: 90 });
        source.flags_mut()[50 * 90 + 13] = true;
        let fitted = resize_by_coverage(&source, None, Size { width: 9, height: 9 });
        assert_eq!((fitted.area(), fitted.is_defect(1, 5)), (1, true));
    }

    #[test]
    fn enlarging_keeps_the_share_of_defect_pixels() {
        let fitted = resize_by_coverage(&mask(&["#.", ".."]), None, Size { width: 7, height: 7 });
        assert_eq!(fitted.area(), 15, "3 x 3 whole, 3 + 3 half covered, the corner a quarter");
    }

    #[test]
    fn only_the_region_of_interest_is_kept() {
        let roi = Some(Rectangle { x: 2, y: 0, width: 2, height: 2 });
        let fitted = resize_by_coverage(&mask(&["##..", "##.#"]), roi, Size { width: 2, height: 2 });
        assert_eq!(fitted.flags(), [false, false, false, true]);
    }
}
