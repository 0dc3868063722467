//! Forward and backward over many pixels, in tiles, on several threads.
//!
//! With the same threads the sums run in the same order, so results repeat to the bit.

use pulp::Arch;

use super::parameters::{Flow, FlowShape, Part};
use super::position::{CONDITION_LENGTH, position_code};
use super::product::{Matrix, product};
use super::rotation::Rotation;
use super::tape::{Layout, TILE};
use super::tile::{Backward, Fixed, Forward, Scratch, Sums};

/// Pixels to pass through a flow.
#[derive(Debug, Clone, Copy)]
pub struct Pixels<'a> {
    /// Feature vectors, packed rows `[pixel, C]`.
    pub features: &'a [f32],
    /// Row and column of every pixel in its map.
    pub places: &'a [[u16; 2]],
}

/// Forward and backward for maps of one size. Keeps its buffers between passes.
#[derive(Debug)]
pub struct Pass {
    shape: FlowShape,
    threads: usize,
    column_code: ndarray::Array2<f32>,
    row_code: ndarray::Array2<f32>,
    tape: Vec<f32>,
    log_likelihoods: Vec<f32>,
    log_determinants: Vec<f32>,
    sums: Vec<Sums>,
    gradient: Vec<f32>,
}

impl Pass {
    /// For flows of `shape` on maps of `rows` × `columns`, on `threads` threads.
    pub fn new(shape: FlowShape, rows: usize, columns: usize, threads: usize) -> Self {
        let threads = threads.max(1);
        let sums = (0..threads)
            .map(|_| Sums {
                parameters: vec![0.0; shape.parameter_count()],
                column_tables: vec![0.0; shape.blocks * columns * shape.hidden],
                row_tables: vec![0.0; shape.blocks * rows * shape.hidden],
                upstream: vec![0.0; TILE * shape.channels],
                mixed: vec![0.0; TILE * shape.channels],
                output: vec![0.0; TILE * 2 * shape.second()],
                hidden: vec![0.0; TILE * shape.hidden],
            })
            .collect();
        Self {
            shape,
            threads,
            column_code: position_code(columns),
            row_code: position_code(rows),
            tape: Vec::new(),
            log_likelihoods: Vec::new(),
            log_determinants: Vec::new(),
            sums,
            gradient: vec![0.0; shape.parameter_count()],
        }
    }

    /// Log-likelihood of every pixel, nats per feature dimension. Keeps what
    /// [`Pass::backward`] needs.
    pub fn forward(&mut self, flow: &Flow, pixels: Pixels<'_>) -> &[f32] {
        let tile_length = Layout::new(&self.shape).tile_length();
        self.tape.resize(pixels.places.len().div_ceil(TILE) * tile_length, 0.0);
        self.run_forward(flow, pixels, true);
        &self.log_likelihoods
    }

    /// As [`Pass::forward`], but in a little memory and without a way back.
    pub fn log_likelihood(&mut self, flow: &Flow, pixels: Pixels<'_>) -> &[f32] {
        self.tape.resize((self.threads * Layout::new(&self.shape).tile_length()).max(self.tape.len()), 0.0);
        self.run_forward(flow, pixels, false);
        &self.log_likelihoods
    }

    /// Gives back the memory that grew with the pixels of a pass; the next one takes it anew.
    pub fn release(&mut self) {
        self.tape = Vec::new();
    }

    fn run_forward(&mut self, flow: &Flow, pixels: Pixels<'_>, keep: bool) {
        assert_eq!(flow.shape, self.shape, "the flow has another shape");
        let (n, channels) = (pixels.places.len(), self.shape.channels);
        assert_eq!(pixels.features.len(), n * channels, "features and places differ in number");
        self.log_likelihoods.resize(n, 0.0);
        self.log_determinants.resize(n, 0.0);
        let fixed = self.fix(flow);
        let layout = Layout::new(&self.shape);
        let tiles = n.div_ceil(TILE);
        let share = tiles.div_ceil(self.threads).max(1);
        let tape_share = layout.tile_length() * if keep { share } else { 1 };
        std::thread::scope(|scope| {
            let parts = pixels
                .features
                .chunks(share * TILE * channels)
                .zip(pixels.places.chunks(share * TILE))
                .zip(self.tape.chunks_mut(tape_share))
                .zip(self.log_likelihoods.chunks_mut(share * TILE))
                .zip(self.log_determinants.chunks_mut(share * TILE));
            let (fixed, vectors) = (&fixed, Arch::new());
            run_all(scope, parts, move |((((features, places), tape), log_likelihoods), log_determinants)| {
                let mut scratch = Scratch::new(&flow.shape);
                let tiles = features
                    .chunks(TILE * channels)
                    .zip(places.chunks(TILE))
                    .zip(log_likelihoods.chunks_mut(TILE))
                    .zip(log_determinants.chunks_mut(TILE));
                for (i, (((features, places), log_likelihoods), log_determinants)) in tiles.enumerate() {
                    let start = if keep { i * layout.tile_length() } else { 0 };
                    let tape = &mut tape[start..start + layout.tile_length()];
                    let scratch = &mut scratch;
                    vectors.dispatch(Forward {
                        flow,
                        fixed,
                        features,
                        places,
                        tape,
                        scratch,
                        log_likelihoods,
                        log_determinants,
                    });
                }
            });
        });
    }

    /// Gradient of a loss with respect to the flow's parameters (same order), given its gradient
    /// with respect to every log-likelihood of the last [`Pass::forward`].
    pub fn backward(&mut self, flow: &Flow, pixels: Pixels<'_>, loss_gradient: &[f32]) -> &[f32] {
        let n = pixels.places.len();
        assert_eq!(loss_gradient.len(), n, "one gradient per pixel is needed");
        assert_eq!(self.log_likelihoods.len(), n, "backward follows a forward over the same pixels");
        let fixed = self.fix(flow);
        let layout = Layout::new(&self.shape);
        let share = n.div_ceil(TILE).div_ceil(self.threads).max(1);
        std::thread::scope(|scope| {
            let parts = pixels
                .places
                .chunks(share * TILE)
                .zip(loss_gradient.chunks(share * TILE))
                .zip(self.tape.chunks_mut(share * layout.tile_length()))
                .zip(self.sums.iter_mut());
            let (fixed, vectors) = (&fixed, Arch::new());
            run_all(scope, parts, move |(((places, gradient), tape), sums)| {
                sums.parameters.fill(0.0);
                sums.column_tables.fill(0.0);
                sums.row_tables.fill(0.0);
                let tiles = places.chunks(TILE).zip(gradient.chunks(TILE)).zip(tape.chunks_mut(layout.tile_length()));
                for ((places, gradient), tape) in tiles {
                    vectors.dispatch(Backward { flow, fixed, places, loss_gradient: gradient, tape, sums });
                }
            });
        });
        self.gather(&fixed, n.div_ceil(share * TILE), loss_gradient);
        &self.gradient
    }

    /// Latent vectors `[pixel, C]` and log-determinants (nats, whole vector) of the last forward.
    pub fn latent(&self) -> (Vec<f32>, &[f32]) {
        let length = Layout::new(&self.shape).tile_length();
        let mut z: Vec<f32> = self
            .tape
            .chunks_exact(length)
            .flat_map(|tile| tile[length - TILE * self.shape.channels..].iter().copied())
            .collect();
        z.truncate(self.log_likelihoods.len() * self.shape.channels);
        (z, &self.log_determinants)
    }

    fn fix<'a>(&self, flow: &'a Flow) -> Fixed<'a> {
        let (hidden, half) = (self.shape.hidden, CONDITION_LENGTH / 2);
        let table = |code: &ndarray::Array2<f32>, block: usize, offset: usize| {
            let places = code.nrows();
            let mut table = vec![0.0; places * hidden];
            let weight = flow.part(block, Part::ConditionWeight);
            let code = code.as_slice().unwrap_or_default();
            product(
                &mut table,
                hidden,
                false,
                Matrix::new(code, places, half, half),
                Matrix::new(&weight[offset..], hidden, half, CONDITION_LENGTH).t(),
            );
            table
        };
        let mut fixed = Fixed {
            rotations: flow.rotations.iter().map(|matrix| Rotation::of(matrix, self.shape.channels)).collect(),
            column_tables: Vec::new(),
            row_tables: Vec::new(),
            scales: Vec::new(),
            logdet: 0.0,
        };
        for block in 0..self.shape.blocks {
            fixed.column_tables.push(table(&self.column_code, block, 0));
            let mut rows = table(&self.row_code, block, half);
            for row in rows.chunks_exact_mut(hidden) {
                row.iter_mut().zip(flow.part(block, Part::HiddenBias)).for_each(|(v, b)| *v += b);
            }
            fixed.row_tables.push(rows);
            let scale = flow.global_scale(block);
            fixed.logdet += scale.0.iter().map(|&g| f64::from(g).ln()).sum::<f64>();
            fixed.scales.push(scale);
        }
        fixed
    }

    /// Adds the threads' sums up and finishes what was deferred: the condition weight and the
    /// hidden bias from the tables, the raw global scale from g and the log-determinant.
    fn gather(&mut self, fixed: &Fixed<'_>, used: usize, loss_gradient: &[f32]) {
        let shape = self.shape;
        let (hidden, half) = (shape.hidden, CONDITION_LENGTH / 2);
        let (first, others) = self.sums.split_at_mut(1);
        let total = &mut first[0];
        for other in &others[..used.saturating_sub(1)] {
            total.parameters.iter_mut().zip(&other.parameters).for_each(|(a, b)| *a += b);
            total.column_tables.iter_mut().zip(&other.column_tables).for_each(|(a, b)| *a += b);
            total.row_tables.iter_mut().zip(&other.row_tables).for_each(|(a, b)| *a += b);
        }
        self.gradient.copy_from_slice(&total.parameters);
        let weight = loss_gradient.iter().map(|&g| f64::from(g)).sum::<f64>() as f32 / shape.channels as f32;
        let (columns, rows) = (self.column_code.nrows(), self.row_code.nrows());
        for block in 0..shape.blocks {
            let column_table = &total.column_tables[block * columns * hidden..][..columns * hidden];
            let row_table = &total.row_tables[block * rows * hidden..][..rows * hidden];
            let condition = &mut self.gradient[shape.range(block, Part::ConditionWeight)];
            for (table, code, offset) in [(column_table, &self.column_code, 0), (row_table, &self.row_code, half)] {
                let places = code.nrows();
                product(
                    &mut condition[offset..],
                    CONDITION_LENGTH,
                    false,
                    Matrix::new(table, places, hidden, hidden).t(),
                    Matrix::new(code.as_slice().unwrap_or_default(), places, half, half),
                );
            }
            let bias = &mut self.gradient[shape.range(block, Part::HiddenBias)];
            for row in row_table.chunks_exact(hidden) {
                bias.iter_mut().zip(row).for_each(|(a, b)| *a += b);
            }
            let scale = &mut self.gradient[shape.range(block, Part::GlobalScale)];
            for ((gradient, g), slope) in scale.iter_mut().zip(&fixed.scales[block].0).zip(&fixed.scales[block].1) {
                *gradient = (*gradient + weight / g) * slope;
            }
        }
    }
}

/// Runs the first part on this thread's scope and the others beside it.
fn run_all<'scope, 'env, T: Send + 'scope>(
    scope: &'scope std::thread::Scope<'scope, 'env>,
    parts: impl Iterator<Item = T>,
    work: impl Fn(T) + Send + Copy + 'scope,
) {
    let mut parts = parts;
    let Some(own) = parts.next() else { return };
    for part in parts {
        scope.spawn(move || work(part));
    }
    work(own);
}
