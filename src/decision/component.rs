//! Connected sets of cells.

use std::collections::BinaryHeap;

use ndarray::Array2;

use crate::inspection::AnomalyMap;

/// Disjoint sets of cells with their sizes.
#[derive(Debug, Default)]
struct Sets {
    parent: Vec<u32>,
    size: Vec<u32>,
}

impl Sets {
    /// Every one of so many cells a set of its own.
    fn reset(&mut self, cells: usize) {
        self.parent.clear();
        self.parent.extend(0..cells as u32);
        self.size.clear();
        self.size.resize(cells, 1);
    }

    fn root(&mut self, mut cell: usize) -> usize {
        while self.parent[cell] as usize != cell {
            let above = self.parent[self.parent[cell] as usize];
            self.parent[cell] = above;
            cell = above as usize;
        }
        cell
    }

    /// Joins the sets of two cells and gives the size of the union.
    fn join(&mut self, a: usize, b: usize) -> u32 {
        let (mut a, mut b) = (self.root(a), self.root(b));
        if a != b {
            if self.size[a] < self.size[b] {
                std::mem::swap(&mut a, &mut b);
            }
            self.parent[b] = a as u32;
            self.size[a] += self.size[b];
        }
        self.size[a]
    }
}

/// Bits that order as the numbers do (IEEE 754 total order).
fn order(value: f32) -> u32 {
    let bits = value.to_bits();
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

/// The cells of a map `[row, column]`, packed, that are of one region with `cell` if both are in any:
/// the four beside it, and where regions are merged all with at most `merging` cells between, along
/// rows, columns or aslant.
fn beside(cell: usize, (rows, columns): (usize, usize), merging: usize) -> impl Iterator<Item = usize> {
    let (row, column) = (cell / columns, cell % columns);
    let reach = merging + 1;
    let span = move |at: usize, length: usize| at.saturating_sub(reach)..=(at + reach).min(length - 1);
    span(row, rows).flat_map(move |r| span(column, columns).map(move |c| (r, c))).filter_map(move |(r, c)| {
        let steps = r.abs_diff(row) + c.abs_diff(column);
        (steps == 1 || merging > 0 && steps > 0).then_some(r * columns + c)
    })
}

/// The highest level `t` at which `{map >= t}` has a region of at least `minimum_area` cells; with
/// `minimum_area` 1 the highest value. In the map's own units. A region is 4-connected; with `merging`
/// above 0 cells with so many others between them are of one region, too.
///
/// A `minimum_area` of 0 counts as 1 and one beyond the map as the whole map: the score is then
/// the lowest value, never "nothing found". NaN where the map is empty or holds a NaN.
pub fn image_score(map: &AnomalyMap, minimum_area: usize, merging: usize) -> f32 {
    Scorer::default().score(map, minimum_area, merging)
}

/// Scores maps, one after the other in the same memory.
#[derive(Debug, Default)]
pub(super) struct Scorer {
    /// Every cell with its value, the highest on top.
    descending: BinaryHeap<u64>,
    /// Cells at or above the level.
    raised: Vec<bool>,
    sets: Sets,
}

impl Scorer {
    /// As [`image_score`].
    pub(super) fn score(&mut self, map: &AnomalyMap, minimum_area: usize, merging: usize) -> f32 {
        let map = &map.0;
        if map.is_empty() || map.iter().any(|v| v.is_nan()) {
            return f32::NAN;
        }
        let minimum_area = minimum_area.clamp(1, map.len());
        if minimum_area == 1 {
            return map.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        }
        // A heap, for the answer usually lies among the first few cells: no need to sort the rest.
        let mut keys = std::mem::take(&mut self.descending).into_vec();
        keys.clear();
        keys.extend(map.iter().enumerate().map(|(cell, &v)| u64::from(order(v)) << 32 | cell as u64));
        self.descending = keys.into();
        self.raised.clear();
        self.raised.resize(map.len(), false);
        self.sets.reset(map.len());
        let columns = map.ncols();
        let mut lowest = f32::NAN;
        while let Some(key) = self.descending.pop() {
            let cell = (key & u64::from(u32::MAX)) as usize;
            self.raised[cell] = true;
            lowest = map[[cell / columns, cell % columns]];
            for other in beside(cell, map.dim(), merging) {
                if self.raised[other] && self.sets.join(cell, other) as usize >= minimum_area {
                    return lowest;
                }
            }
        }
        // Not reached: the last cell joins the whole map, which is at least `minimum_area` cells.
        lowest
    }
}

/// A connected set of cells above a level.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Component {
    pub(super) top: usize,
    pub(super) bottom: usize,
    pub(super) left: usize,
    pub(super) right: usize,
    pub(super) cells: usize,
    pub(super) peak: f32,
}

/// Regions of `{map > level}` with at least `minimum_area` cells (clamped, and merged, as in
/// [`image_score`]), highest peak first, equal peaks from the top left.
pub(super) fn components(map: &Array2<f32>, level: f32, minimum_area: usize, merging: usize) -> Vec<Component> {
    let mut found = Vec::new();
    // Most parts are good: nothing to look for and nothing to allocate.
    if !map.iter().any(|&v| v > level) {
        return found;
    }
    let (rows, columns) = map.dim();
    let minimum_area = minimum_area.clamp(1, map.len().max(1));
    let values: Vec<f32> = map.iter().copied().collect();
    let mut open: Vec<bool> = values.iter().map(|&v| v > level).collect();
    let mut stack = Vec::new();
    for start in 0..values.len() {
        if !std::mem::take(&mut open[start]) {
            continue;
        }
        let (row, column) = (start / columns, start % columns);
        let mut component =
            Component { top: row, bottom: row, left: column, right: column, cells: 0, peak: f32::NEG_INFINITY };
        stack.push(start);
        while let Some(cell) = stack.pop() {
            let (row, column) = (cell / columns, cell % columns);
            component.top = component.top.min(row);
            component.bottom = component.bottom.max(row);
            component.left = component.left.min(column);
            component.right = component.right.max(column);
            component.cells += 1;
            component.peak = component.peak.max(values[cell]);
            stack.extend(beside(cell, (rows, columns), merging).filter(|&other| std::mem::take(&mut open[other])));
        }
        if component.cells >= minimum_area {
            found.push(component);
        }
    }
    found.sort_by(|a, b| b.peak.total_cmp(&a.peak).then((a.top, a.left).cmp(&(b.top, b.left))));
    found
}

#[cfg(test)]
mod tests {
    use ndarray::array;
    use proptest::prelude::*;

    use super::*;

    /// The definition, read aloud: try every value as the level and count regions.
    fn brute_force(map: &Array2<f32>, minimum_area: usize, merging: usize) -> f32 {
        let mut levels: Vec<f32> = map.iter().copied().collect();
        levels.sort_by(|a, b| b.total_cmp(a));
        let minimum_area = minimum_area.clamp(1, map.len());
        levels
            .into_iter()
            .find(|&t| {
                let mut open = map.mapv(|v| v >= t);
                (0..map.nrows()).any(|r| (0..map.ncols()).any(|c| flood(&mut open, r, c, merging) >= minimum_area))
            })
            .expect("the lowest level joins all")
    }

    fn flood(open: &mut Array2<bool>, row: usize, column: usize, merging: usize) -> usize {
        if !std::mem::take(&mut open[[row, column]]) {
            return 0;
        }
        let mut area = 1;
        for (r, c) in ndarray::indices(open.dim()) {
            let (down, across) = (r.abs_diff(row), c.abs_diff(column));
            if down + across == 1 || merging > 0 && down.max(across) <= merging + 1 {
                area += flood(open, r, c, merging);
            }
        }
        area
    }

    /// Few distinct values, so that ties and equal levels are common.
    fn maps() -> impl Strategy<Value = Array2<f32>> {
        (1_usize..9, 1_usize..9).prop_flat_map(|(rows, columns)| {
            prop::collection::vec((-6_i8..6).prop_map(|v| f32::from(v) / 2.0), rows * columns)
                .prop_map(move |v| Array2::from_shape_vec((rows, columns), v).expect("shape fits"))
        })
    }

    proptest! {
        #[test]
        fn the_score_is_what_the_definition_says(map in maps(), area in 0_usize..12, merging in 0_usize..3) {
            prop_assert_eq!(image_score(&AnomalyMap(map.clone()), area, merging), brute_force(&map, area, merging));
        }

        #[test]
        fn with_area_one_the_score_is_the_highest_value(map in maps()) {
            let highest = map.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            prop_assert_eq!(image_score(&AnomalyMap(map), 1, 0), highest);
        }

        #[test]
        fn raising_any_cell_never_lowers_the_score(map in maps(), at in 0_usize..64, by in 0.0_f32..5.0, area in 1_usize..6, merging in 0_usize..3) {
            let before = image_score(&AnomalyMap(map.clone()), area, merging);
            let mut raised = map;
            let at = at % raised.len();
            let columns = raised.ncols();
            raised[[at / columns, at % columns]] += by;
            prop_assert!(image_score(&AnomalyMap(raised), area, merging) >= before);
        }

        #[test]
        fn the_score_passes_a_level_exactly_when_a_region_lies_above_it(map in maps(), level in -3.0_f32..3.0, area in 1_usize..9, merging in 0_usize..3) {
            let passes = image_score(&AnomalyMap(map.clone()), area, merging) > level;
            prop_assert_eq!(!components(&map, level, area, merging).is_empty(), passes);
        }
    }

    #[test]
    fn cells_that_touch_at_a_corner_are_not_connected() {
        let map = AnomalyMap(array![[5.0, 0.0], [1.0, 5.0]]);
        assert_eq!(image_score(&map, 2, 0), 1.0);
        assert_eq!(components(&map.0, 2.0, 1, 0).len(), 2);
    }

    #[test]
    fn regions_with_few_cells_between_them_are_merged_and_count_their_own_cells() {
        let map = AnomalyMap(array![[5.0, 0.0, 0.0, 5.0, 0.0, 0.0, 0.0, 5.0]]);
        assert_eq!(image_score(&map, 2, 1), 0.0);
        assert_eq!(image_score(&map, 2, 2), 5.0);
        assert_eq!(image_score(&map, 3, 2), 0.0);
        let merged: Vec<_> = components(&map.0, 2.0, 1, 2).iter().map(|c| (c.left, c.right, c.cells)).collect();
        assert_eq!(merged, [(0, 3, 2), (7, 7, 1)]);
    }

    #[test]
    fn a_map_with_a_hole_in_its_numbers_has_no_score() {
        assert!(image_score(&AnomalyMap(array![[1.0, f32::NAN]]), 1, 0).is_nan());
        assert!(image_score(&AnomalyMap(Array2::zeros((0, 0))), 3, 0).is_nan());
    }
}
