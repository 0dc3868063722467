//! The whole flow of one level on a tile of cells after the other: what a tile needs stays in the
//! cache from the first block to the log-likelihood, where operators of their own would carry every
//! intermediate value of every cell through memory.

use std::ops::Range;

use ndarray::{ArrayView1, ArrayView2};
use pulp::{Arch, Simd, WithSimd};

use super::CLAMP;
use super::aligned::Aligned;
use super::average::Average;
use super::elementary::{exp_of_log_scale, tanh};
use super::nearest::Nearest;
use super::product::{Bias, Ends, Lanes, Panels, TILE, lanes_at, padded};

/// Most lanes that a vector has.
const MOST_LANES: usize = 16;

/// One coupling block as [`Flow`] works with it.
#[derive(Debug)]
pub(super) struct Block {
    first: Panels,
    /// `[row, hidden]`, hidden padded.
    row_table: Vec<f32>,
    /// `[hidden, column]`, both padded.
    column_table: Aligned,
    second: Panels,
    second_bias: Vec<f32>,
    mix: Mix,
    shift: Vec<f32>,
}

/// What follows a coupling.
#[derive(Debug)]
enum Mix {
    /// Every channel by its own factor: the last block's, whose rotation changes no length.
    Scale(Vec<f32>),
    Matrix(Panels),
}

/// What takes the correlations of standardised features away.
#[derive(Debug)]
pub(super) struct Whitening {
    matrix: Panels,
    /// A product wants something to begin with.
    zeros: Vec<f32>,
}

impl Whitening {
    /// Of a matrix `[C, C]`.
    pub(super) fn new(matrix: ArrayView2<'_, f32>) -> Self {
        Self { matrix: Panels::pack(matrix), zeros: vec![0.0; padded(matrix.ncols())] }
    }
}

/// What a block is made of; shapes as the operator's inputs have them.
pub(super) struct BlockParts<'a> {
    /// `[C - C/2, hidden]`.
    pub(super) w1: ArrayView2<'a, f32>,
    /// `[row, hidden]`.
    pub(super) row_table: ArrayView2<'a, f32>,
    /// `[column, hidden]`.
    pub(super) column_table: ArrayView2<'a, f32>,
    /// `[hidden, 2 (C/2)]`.
    pub(super) w2: ArrayView2<'a, f32>,
    /// `[2 (C/2)]`.
    pub(super) b2: ArrayView1<'a, f32>,
    /// `[C, C]`.
    pub(super) mix: ArrayView2<'a, f32>,
    /// `[C]`.
    pub(super) shift: ArrayView1<'a, f32>,
}

/// `values`, then zeros up to `length`.
fn filled(values: impl IntoIterator<Item = f32>, length: usize) -> Vec<f32> {
    let mut values: Vec<f32> = values.into_iter().collect();
    values.resize(length, 0.0);
    values
}

/// Room for so many columns, whatever the lanes.
fn padded_columns(columns: usize) -> usize {
    columns.next_multiple_of(MOST_LANES)
}

impl Block {
    pub(super) fn new(parts: &BlockParts<'_>) -> Self {
        let hidden = padded(parts.w1.ncols());
        let diagonal = parts.mix.indexed_iter().all(|((row, column), &value)| row == column || value == 0.0);
        let columns = padded_columns(parts.column_table.nrows());
        let column_table = parts.column_table.columns().into_iter();
        let column_table = column_table.flat_map(|column| filled(column.iter().copied(), columns));
        let channels = padded(parts.mix.ncols());
        Self {
            first: Panels::pack(parts.w1),
            row_table: parts.row_table.rows().into_iter().flat_map(|row| filled(row.iter().copied(), hidden)).collect(),
            column_table: Aligned::of(&filled(column_table, hidden * columns)),
            second: Panels::pack(parts.w2),
            second_bias: filled(parts.b2.iter().copied(), padded(parts.w2.ncols())),
            mix: if diagonal { Mix::Scale(parts.mix.diag().to_vec()) } else { Mix::Matrix(Panels::pack(parts.mix)) },
            shift: filled(parts.shift.iter().copied(), channels),
        }
    }
}

/// A level's flow: a backbone's map in, a map of log-likelihoods out.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) channels: usize,
    pub(super) hidden: usize,
    pub(super) average: Average,
    pub(super) whitening: Option<Whitening>,
    pub(super) density: Density,
}

/// What tells how likely a vector is.
#[derive(Debug)]
pub(super) enum Density {
    /// Coupling blocks, and what every log-likelihood has, times C.
    Coupling { blocks: Vec<Block>, constant: f32 },
    /// How near it lies to one that was seen.
    Nearest(Nearest),
}

/// Memory that one thread needs for a flow.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    values: Aligned,
    sums: Aligned,
}

impl Flow {
    /// Channels from `first` on, standardised and averaged, into `out`, `[channel, row, column]` as
    /// `map` with all its channels is.
    pub(super) fn standardise(&self, map: &[f32], first: usize, out: &mut [f32], scratch: &mut Scratch) {
        struct Standardise<'a>(&'a Average, &'a [f32], usize, &'a mut [f32], &'a mut Aligned);
        impl WithSimd for Standardise<'_> {
            type Output = ();

            #[inline(always)]
            fn with_simd<S: Simd>(self, simd: S) {
                self.0.apply(simd, self.1, self.2, self.3, self.4);
            }
        }
        Arch::new().dispatch(Standardise(&self.average, map, first, out, &mut scratch.sums));
    }

    /// Log-likelihoods of some rows into `out`, `[row, column]`, from the whole map as
    /// [`Flow::standardise`] made it.
    pub(super) fn log_likelihoods(&self, x: &[f32], rows: Range<usize>, out: &mut [f32], scratch: &mut Scratch) {
        Arch::new().dispatch(Run { flow: self, x, rows, out, scratch });
    }
}

struct Run<'a> {
    flow: &'a Flow,
    x: &'a [f32],
    rows: Range<usize>,
    out: &'a mut [f32],
    scratch: &'a mut Scratch,
}

/// Where a vector of a tile lies on the map.
#[derive(Clone, Copy)]
struct Place {
    row: usize,
    column: usize,
}

impl WithSimd for Run<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { flow, x, rows, out, scratch } = self;
        let Flow { channels, hidden, columns, .. } = *flow;
        let second = channels / 2;
        let sizes = [padded(channels), padded(channels), padded(hidden), padded(2 * second)];
        let tile = TILE * MOST_LANES;
        let values = scratch.values.make(sizes.iter().sum::<usize>() * tile);
        let (lanes, _) = S::as_mut_simd_f32s(values);
        let (x_tile, rest) = lanes.as_chunks_mut::<TILE>().0.split_at_mut(sizes[0]);
        let (mixed, rest) = rest.split_at_mut(sizes[1]);
        let (activated, rest) = rest.split_at_mut(sizes[2]);
        let affine = &mut rest[..sizes[3]];

        let in_row = columns.div_ceil(S::F32_LANES);
        let vectors = rows.len() * in_row;
        for tile in (0..vectors).step_by(TILE) {
            let places: [Place; TILE] = std::array::from_fn(|v| {
                // Beyond the last vector it is done again, and its result not looked at.
                let vector = (tile + v).min(vectors - 1);
                Place { row: rows.start + vector / in_row, column: vector % in_row * S::F32_LANES }
            });
            flow.load(simd, x, &places, x_tile);
            let sum = flow.transform(simd, &places, x_tile, mixed, activated, affine);
            for (place, &value) in places.iter().zip(&sum).take(vectors - tile) {
                let from = (place.row - rows.start) * columns + place.column;
                let count = S::F32_LANES.min(columns - place.column);
                simd.partial_store_f32s(&mut out[from..from + count], value);
            }
        }
    }
}

/// Hidden units: the condition of their place added, then what is negative cut off.
struct Conditioned<'a> {
    block: &'a Block,
    places: &'a [Place; TILE],
    /// Padded.
    hidden: usize,
    /// Padded.
    columns: usize,
}

impl<S: Simd> Ends<S> for Conditioned<'_> {
    #[inline(always)]
    fn start(&self, simd: S, unit: usize, vector: usize) -> S::f32s {
        let Place { row, column } = self.places[vector];
        let by_column = lanes_at::<S>(&self.block.column_table[unit * self.columns + column..]);
        simd.add_f32s(by_column, simd.splat_f32s(self.block.row_table[row * self.hidden + unit]))
    }

    #[inline(always)]
    fn finish(&self, simd: S, sum: S::f32s) -> S::f32s {
        simd.max_f32s(sum, simd.splat_f32s(0.0))
    }
}

impl Flow {
    #[inline(always)]
    fn load<S: Simd>(&self, simd: S, x: &[f32], places: &[Place; TILE], into: &mut [Lanes<S>]) {
        let cells = self.rows * self.columns;
        for (channel, into) in x.chunks_exact(cells).zip(into) {
            for (place, into) in places.iter().zip(into) {
                let from = place.row * self.columns + place.column;
                let count = S::F32_LANES.min(self.columns - place.column);
                *into = simd.partial_load_f32s(&channel[from..from + count]);
            }
        }
    }

    /// Log-likelihoods of a tile.
    #[inline(always)]
    fn transform<'a, S: Simd>(
        &self,
        simd: S,
        places: &[Place; TILE],
        mut x: &'a mut [Lanes<S>],
        mut other: &'a mut [Lanes<S>],
        activated: &mut [Lanes<S>],
        affine: &mut [Lanes<S>],
    ) -> Lanes<S> {
        if let Some(Whitening { matrix, zeros }) = &self.whitening {
            matrix.multiply(simd, x, other, &Bias(zeros));
            std::mem::swap(&mut x, &mut other);
        }
        let (blocks, constant) = match &self.density {
            Density::Coupling { blocks, constant } => (blocks, *constant),
            Density::Nearest(nearest) => return nearest.compare(simd, &mut x[..self.channels], activated),
        };
        let (second, hidden, columns) = (self.channels / 2, padded(self.hidden), padded_columns(self.columns));
        let zero = simd.splat_f32s(0.0);
        let clamp = simd.splat_f32s(CLAMP);
        let mut log_scales = [zero; TILE];
        for block in blocks {
            block.first.multiply(simd, x, activated, &Conditioned { block, places, hidden, columns });
            block.second.multiply(simd, activated, affine, &Bias(&block.second_bias));
            let (scales, shifts) = affine.split_at(second);
            let x2 = &mut x[self.channels - second..self.channels];
            for ((x2, scales), shifts) in x2.iter_mut().zip(scales).zip(shifts) {
                for (v, sum) in log_scales.iter_mut().enumerate() {
                    let s = simd.mul_f32s(tanh(simd, scales[v]), clamp);
                    *sum = simd.add_f32s(*sum, s);
                    x2[v] = simd.mul_add_e_f32s(x2[v], exp_of_log_scale(simd, s), shifts[v]);
                }
            }
            match &block.mix {
                Mix::Scale(scale) => {
                    for ((x, &scale), &shift) in x.iter_mut().zip(scale).zip(&block.shift) {
                        let (scale, shift) = (simd.splat_f32s(scale), simd.splat_f32s(shift));
                        for x in x {
                            *x = simd.mul_add_e_f32s(*x, scale, shift);
                        }
                    }
                }
                Mix::Matrix(matrix) => {
                    matrix.multiply(simd, x, other, &Bias(&block.shift));
                    std::mem::swap(&mut x, &mut other);
                }
            }
        }
        let mut squares = [zero; TILE];
        for x in &x[..self.channels] {
            for (sum, &x) in squares.iter_mut().zip(x) {
                *sum = simd.mul_add_e_f32s(x, x, *sum);
            }
        }
        let each = simd.splat_f32s(1.0 / self.channels as f32);
        let constant = simd.splat_f32s(constant);
        std::array::from_fn(|v| {
            let sum = simd.mul_add_e_f32s(squares[v], simd.splat_f32s(-0.5), simd.add_f32s(log_scales[v], constant));
            simd.mul_f32s(sum, each)
        })
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array1, Array2};
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::super::nearest::AT_ONCE;
    use super::*;

    const ROWS: usize = 5;
    /// No multiple of any vector.
    const COLUMNS: usize = 19;
    const CHANNELS: usize = 7;
    const HIDDEN: usize = 13;

    fn flow(rng: &mut ChaCha8Rng) -> Flow {
        let mut matrix = |rows, columns| Array2::from_shape_simple_fn((rows, columns), || rng.random_range(-0.6..0.6));
        let second = CHANNELS / 2;
        let blocks = (0..3)
            .map(|block| {
                let (w1, w2) = (matrix(CHANNELS - second, HIDDEN), matrix(HIDDEN, 2 * second));
                let mix = matrix(CHANNELS, CHANNELS);
                let last = Array2::from_diag(&mix.diag());
                Block::new(&BlockParts {
                    w1: w1.view(),
                    row_table: matrix(ROWS, HIDDEN).view(),
                    column_table: matrix(COLUMNS, HIDDEN).view(),
                    w2: w2.view(),
                    b2: matrix(1, 2 * second).row(0),
                    mix: if block == 2 { last.view() } else { mix.view() },
                    shift: matrix(1, CHANNELS).row(0),
                })
            })
            .collect();
        let ones = Array1::ones(CHANNELS).to_vec();
        let average = Average::new(ROWS, COLUMNS, 3, ones.clone(), ones);
        let whitening = Some(Whitening::new(matrix(CHANNELS, CHANNELS).view()));
        Flow {
            rows: ROWS,
            columns: COLUMNS,
            channels: CHANNELS,
            hidden: HIDDEN,
            average,
            whitening,
            density: Density::Coupling { blocks, constant: -6.0 },
        }
    }

    /// The map with vectors of one kind, in two parts of rows.
    fn map<S: Simd>(simd: S, flow: &Flow, x: &[f32]) -> Vec<f32> {
        let mut out = vec![f32::NAN; ROWS * COLUMNS];
        let (upper, lower) = out.split_at_mut(2 * COLUMNS);
        for (rows, out) in [(0..2, upper), (2..ROWS, lower)] {
            simd.vectorize(Run { flow, x, rows, out, scratch: &mut Scratch::default() });
        }
        out
    }

    /// The same, comparing with vectors instead.
    fn comparing(rng: &mut ChaCha8Rng) -> Flow {
        let vectors = Array2::from_shape_simple_fn((AT_ONCE + 3, CHANNELS), || rng.random_range(-2.0..2.0));
        Flow { hidden: AT_ONCE, density: Density::Nearest(Nearest::new(vectors.view())), ..flow(rng) }
    }

    #[test]
    fn every_kind_of_vector_says_the_same_whatever_rows_it_is_given() {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        for flow in [flow(&mut rng), comparing(&mut rng)] {
            every_kind_says_the_same(&flow, &mut rng);
        }
    }

    fn every_kind_says_the_same(flow: &Flow, rng: &mut ChaCha8Rng) {
        let x: Vec<f32> = (0..CHANNELS * ROWS * COLUMNS).map(|_| rng.random_range(-2.0..2.0)).collect();
        let expected = map(pulp::Scalar, flow, &x);
        let mut best = vec![f32::NAN; ROWS * COLUMNS];
        flow.log_likelihoods(&x, 0..ROWS, &mut best, &mut Scratch::default());
        let mut found = vec![("best", best)];
        #[cfg(target_arch = "x86_64")]
        {
            found.extend(pulp::x86::V3::try_new().map(|simd| ("V3", map(simd, flow, &x))));
            found.extend(pulp::x86::V4::try_new().map(|simd| ("V4", map(simd, flow, &x))));
        }
        let spread = expected.iter().fold(0.0f32, |most, value| most.max((value - expected[0]).abs()));
        assert!(spread > 0.1, "a map that hardly varies shows nothing");
        for (kind, found) in found {
            for (cell, (a, b)) in found.iter().zip(&expected).enumerate() {
                assert!((a - b).abs() < 1e-5 * b.abs().max(1.0), "{kind}, cell {cell}: {a}, not {b}");
            }
        }
    }

    #[test]
    fn what_is_no_number_makes_its_cell_none_and_no_other() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        for flow in [flow(&mut rng), comparing(&mut rng)] {
            breaks_its_cell_alone(&flow);
        }
    }

    fn breaks_its_cell_alone(flow: &Flow) {
        let mut x = vec![0.3; CHANNELS * ROWS * COLUMNS];
        for (channel, broken) in [f32::NAN, f32::INFINITY].into_iter().enumerate() {
            x[(channel * ROWS + 1) * COLUMNS + 4 + channel] = broken;
        }
        let mut out = vec![0.0; ROWS * COLUMNS];
        flow.log_likelihoods(&x, 0..ROWS, &mut out, &mut Scratch::default());
        for (cell, value) in out.iter().enumerate() {
            let broken = [COLUMNS + 4, COLUMNS + 5].contains(&cell);
            assert_eq!(value.is_finite(), !broken, "cell {cell}: {value}");
        }
    }
}
