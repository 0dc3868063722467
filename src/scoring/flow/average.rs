//! Standardised neighbourhood averages of a map.

use pulp::Simd;

use super::aligned::Aligned;
use super::product::lanes_at;

/// What a map's channels are before a flow sees them: averaged over a square of cells around each
/// (those outside the map not counted), then brought to scale.
#[derive(Debug)]
pub(super) struct Average {
    rows: usize,
    columns: usize,
    /// Cells that the square reaches beyond its middle.
    reach: usize,
    /// `[C]`.
    scale: Vec<f32>,
    /// `[C]`.
    shift: Vec<f32>,
    /// One over the columns that count around each, with room for the last vector.
    across: Aligned,
}

/// More than any vector has.
const ROOM: usize = 16;

impl Average {
    /// `pooling` is the side of the square, odd; `scale` and `shift` are `[C]`.
    pub(super) fn new(rows: usize, columns: usize, pooling: usize, scale: Vec<f32>, shift: Vec<f32>) -> Self {
        let reach = pooling / 2;
        let share = |column| if column < columns { 1.0 / near(column, columns, reach) as f32 } else { 0.0 };
        Self {
            rows,
            columns,
            reach,
            scale,
            shift,
            across: Aligned::of(&(0..columns + ROOM).map(share).collect::<Vec<_>>()),
        }
    }

    /// Channels from `first` on, as many as `out` holds: `map` and `out` are `[channel, row, column]`, `map`
    /// of all channels; `memory` is for one channel.
    #[inline(always)]
    pub(super) fn apply<S: Simd>(&self, simd: S, map: &[f32], first: usize, out: &mut [f32], memory: &mut Aligned) {
        let cells = self.rows * self.columns;
        let channels = map[first * cells..].chunks_exact(cells).zip(&self.scale[first..]).zip(&self.shift[first..]);
        for (out, ((map, &scale), &shift)) in out.chunks_exact_mut(cells).zip(channels) {
            if self.reach == 0 {
                out.iter_mut().zip(map).for_each(|(out, &value)| *out = value * scale + shift);
            } else {
                self.channel(simd, map, (scale, shift), out, memory);
            }
        }
    }

    /// One channel: averages along the rows, then of those along the columns. Both are read from
    /// memory with zeros around, so that the border needs no branch.
    #[inline(always)]
    fn channel<S: Simd>(
        &self,
        simd: S,
        map: &[f32],
        (scale, shift): (f32, f32),
        out: &mut [f32],
        memory: &mut Aligned,
    ) {
        let Self { rows, columns, reach, .. } = *self;
        let side = 2 * reach + 1;
        let width = columns.next_multiple_of(S::F32_LANES);
        let (wide, high) = ((width + 2 * reach).next_multiple_of(ROOM) + ROOM, rows + 2 * reach);
        if memory.len() != 2 * wide + high * width {
            // What lies around stays zero from here on.
            memory.make(2 * wide + high * width).fill(0.0);
        }
        let (lines, averages) = memory.split_at_mut(2 * wide);
        let (mut line, mut next) = lines.split_at_mut(wide);
        let inside = averages[reach * width..].chunks_exact_mut(width);
        // Each row is copied one row ahead: what has just been written cannot be read yet at other places.
        let mut ahead = map.chunks_exact(columns);
        ahead.next().into_iter().for_each(|row| line[reach..reach + columns].copy_from_slice(row));
        for averages in inside.take(rows) {
            ahead.next().into_iter().for_each(|row| next[reach..reach + columns].copy_from_slice(row));
            for (number, average) in S::as_mut_simd_f32s(averages).0.iter_mut().enumerate() {
                let from = number * S::F32_LANES;
                let sum = total(simd, side, |distance| lanes_at::<S>(&line[from + distance..]));
                *average = simd.mul_f32s(sum, lanes_at::<S>(&self.across[from..]));
            }
            std::mem::swap(&mut line, &mut next);
        }
        for (row, out) in out.chunks_exact_mut(columns).enumerate() {
            let scale = simd.splat_f32s(scale / near(row, rows, reach) as f32);
            for (number, out) in out.chunks_mut(S::F32_LANES).enumerate() {
                let from = row * width + number * S::F32_LANES;
                let sum = total(simd, side, |distance| lanes_at::<S>(&averages[from + distance * width..]));
                simd.partial_store_f32s(out, simd.mul_add_e_f32s(sum, scale, simd.splat_f32s(shift)));
            }
        }
    }
}

#[inline(always)]
fn total<S: Simd>(simd: S, count: usize, value: impl Fn(usize) -> S::f32s) -> S::f32s {
    (1..count).fold(value(0), |sum, number| simd.add_f32s(sum, value(number)))
}

/// How many of `length` places lie within `reach` of one.
fn near(place: usize, length: usize, reach: usize) -> usize {
    (place + reach).min(length - 1) + 1 - place.saturating_sub(reach)
}

#[cfg(test)]
mod tests {
    use pulp::{Arch, WithSimd};

    use super::*;

    /// The second channel.
    struct Apply<'a>(&'a Average, &'a [f32], &'a mut [f32]);

    impl WithSimd for Apply<'_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            // Memory of another size, as it is at first.
            self.0.apply(simd, self.1, 1, self.2, &mut Aligned::of(&[7.0; 5]));
        }
    }

    #[test]
    fn an_average_counts_the_cells_inside_alone() {
        let (rows, columns) = (4, 6);
        let map: Vec<f32> = (0..2 * rows * columns).map(|i| (i * i % 23) as f32).collect();
        for pooling in [1, 3, 5, 13] {
            let average = Average::new(rows, columns, pooling, vec![2.0, 3.0], vec![0.5, -1.0]);
            let mut out = vec![f32::NAN; map.len()];
            average.apply(pulp::Scalar, &map, 0, &mut out, &mut Aligned::default());
            let mut second = vec![f32::NAN; rows * columns];
            Arch::new().dispatch(Apply(&average, &map, &mut second));
            for (a, b) in second.iter().zip(&out[rows * columns..]) {
                assert!((a - b).abs() < 1e-4, "{a} {b}");
            }
            for (at, &found) in out.iter().enumerate() {
                let (channel, row, column) = (at / (rows * columns), at / columns % rows, at % columns);
                let (mut sum, mut count) = (0.0, 0.0);
                for r in (0..rows).filter(|r| r.abs_diff(row) <= pooling / 2) {
                    for c in (0..columns).filter(|c| c.abs_diff(column) <= pooling / 2) {
                        sum += map[(channel * rows + r) * columns + c];
                        count += 1.0;
                    }
                }
                let expected = sum / count * [2.0, 3.0][channel] + [0.5, -1.0][channel];
                assert!((found - expected).abs() < 1e-4, "{pooling}, {at}: {found}, not {expected}");
            }
        }
    }
}
