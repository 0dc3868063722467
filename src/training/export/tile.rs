//! A backbone that looks at a frame through overlapping tiles.
//!
//! The tiles of a frame are one batch of the backbone. Of every tile's feature maps the part nearer to
//! its own middle than to a neighbour's is kept, and the parts are joined to the maps of the whole
//! frame: so all that comes after (averages over neighbourhoods, flows, places) knows no tiles.
//! What the backbone sees at a kept cell is cut off no nearer than half an overlap.

use std::path::Path;

use super::SPLIT_COUNTS_ITSELF;
use super::backbone::{self, map_shape};
use super::error::ExportError;
use super::graph::{Axis, GraphBuilder, integer_attribute, tensor_info};
use super::onnx::GraphProto;
use super::onnx::tensor_proto::DataType;
use super::splice::Backbone;
use crate::inspection::Size;
use crate::scoring::{BackboneSpec, Layout};

/// Cells of the coarsest level by which neighbouring tiles overlap at least.
const OVERLAP: usize = 6;

/// How frames are cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tiling {
    rows: Cuts,
    columns: Cuts,
}

impl Tiling {
    /// Tiles of `side` x `side` pixels, less where the frame is smaller, for frames of `size`.
    /// `stride` is the backbone's coarsest: tiles begin, and parts end, at multiples of it.
    ///
    /// # Errors
    /// What is wrong with the side: not a multiple of `stride`, or no more than the overlap.
    pub fn new(size: Size, side: usize, stride: usize) -> Result<Self, String> {
        if stride == 0 || !side.is_multiple_of(stride) || side <= OVERLAP * stride {
            return Err(format!(
                "tile {side}: a multiple of {stride} above {}, by which tiles overlap",
                OVERLAP * stride
            ));
        }
        if !size.width.is_multiple_of(stride) || !size.height.is_multiple_of(stride) {
            return Err(format!("image size {size}: multiples of {stride}, the backbone's coarsest stride"));
        }
        let along = |length: usize| Cuts::new(length / stride, side.min(length) / stride).times(stride);
        Ok(Self { rows: along(size.height), columns: along(size.width) })
    }

    /// Number of tiles.
    pub fn tiles(&self) -> usize {
        self.rows.starts.len() * self.columns.starts.len()
    }

    /// Pixels of all tiles over pixels of the frame: what tiling costs, 1 and more.
    pub fn overhead(&self) -> f64 {
        let along = |cuts: &Cuts| (cuts.starts.len() * cuts.tile) as f64 / cuts.length() as f64;
        along(&self.rows) * along(&self.columns)
    }

    fn tile_size(&self) -> Size {
        Size { width: self.columns.tile, height: self.rows.tile }
    }
}

/// Tiles along one axis, pixels.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Cuts {
    tile: usize,
    /// Where each tile begins.
    starts: Vec<usize>,
    /// Where each kept part begins, and after them the length of the axis.
    bounds: Vec<usize>,
}

impl Cuts {
    /// As few tiles as overlap enough, evenly spread; all in units of the coarsest stride.
    fn new(length: usize, tile: usize) -> Self {
        let rest = length - tile;
        let gaps = if rest == 0 { 0 } else { rest.div_ceil(tile - OVERLAP) };
        let starts: Vec<usize> = (0..=gaps).map(|i| i * rest / gaps.max(1)).collect();
        let middles = starts.windows(2).map(|pair| (pair[1] + pair[0] + tile) / 2);
        let bounds = std::iter::once(0).chain(middles).chain([length]).collect();
        Self { tile, starts, bounds }
    }

    fn times(mut self, stride: usize) -> Self {
        self.tile *= stride;
        self.starts.iter_mut().chain(&mut self.bounds).for_each(|place| *place *= stride);
        self
    }

    fn length(&self) -> usize {
        self.bounds[self.bounds.len() - 1]
    }

    /// Per tile the part of it that is kept, from its own beginning.
    fn kept(&self) -> impl Iterator<Item = (usize, usize)> {
        self.starts.iter().zip(self.bounds.windows(2)).map(|(start, part)| (part[0] - start, part[1] - start))
    }
}

/// Writes a backbone that takes whole frames and runs `backbone` on their tiles, to `out`, and its
/// description beside it. `strides` has the stride of each of `spec.outputs`.
///
/// # Errors
/// [`ExportError`] when the backbone cannot be read or run on a batch of tiles, or a file cannot be
/// written.
pub fn tile_backbone(
    backbone: &Path,
    spec: &BackboneSpec,
    strides: &[usize],
    tiling: &Tiling,
    out: &Path,
) -> Result<(), ExportError> {
    let read = Backbone::read(backbone, spec, tiling.tile_size())?;
    let (rows, columns) = match spec.layout {
        Layout::Nchw => (2, 3),
        Layout::Nhwc => (1, 2),
    };
    let axes = [rows, columns];
    let mut before = GraphBuilder::default();
    let tiles: Vec<String> = places(tiling)
        .map(|(row, column)| {
            let starts = [tiling.rows.starts[row], tiling.columns.starts[column]];
            let ends = [starts[0] + tiling.rows.tile, starts[1] + tiling.columns.tile];
            slice(&mut before, &spec.input, &format!("tile/{row}_{column}"), axes, starts, ends)
        })
        .collect();
    concat(&mut before, &tiles, &read.input, 0);

    let mut after = GraphBuilder::default();
    for ((output, map), stride) in spec.outputs.iter().zip(&read.outputs).zip(strides) {
        let parts: Vec<String> = places(tiling).map(|(row, column)| format!("tile/{output}/{row}_{column}")).collect();
        let names: Vec<&str> = parts.iter().map(String::as_str).collect();
        let mut attributes = vec![integer_attribute("axis", 0)];
        if read.opset >= SPLIT_COUNTS_ITSELF {
            attributes.push(integer_attribute("num_outputs", parts.len() as i64));
        }
        after.node_with_outputs("Split", &[map], &names, attributes);
        let across = tiling.columns.starts.len();
        let strips: Vec<String> = parts
            .chunks(across)
            .zip(tiling.rows.kept())
            .enumerate()
            .map(|(row, (parts, (top, bottom)))| {
                let cut: Vec<String> = parts
                    .iter()
                    .zip(tiling.columns.kept())
                    .map(|(part, (left, right))| {
                        let starts = [top / stride, left / stride];
                        let ends = [bottom / stride, right / stride];
                        slice(&mut after, part, &format!("{part}/kept"), axes, starts, ends)
                    })
                    .collect();
                concat(&mut after, &cut, &format!("tile/{output}/{row}"), columns)
            })
            .collect();
        concat(&mut after, &strips, output, rows);
    }

    let shape = |channels: Axis, height: usize, width: usize| {
        map_shape(spec.layout, channels, Axis::Fixed(height), Axis::Fixed(width))
    };
    let (height, width) = (tiling.rows.length(), tiling.columns.length());
    let outputs = spec.outputs.iter().zip(&read.declared).zip(strides).map(|((output, declared), stride)| {
        let channels = declared[0].map_or_else(|| Axis::named(format!("{output}_channels")), Axis::Fixed);
        tensor_info(output, DataType::Float, &shape(channels, height / stride, width / stride))
    });
    let graph = GraphProto {
        name: Some(format!("{}_tiled", spec.name)),
        node: [before.nodes, read.graph.node, after.nodes].concat(),
        initializer: [before.constants, read.graph.initializer, after.constants].concat(),
        sparse_initializer: read.graph.sparse_initializer,
        input: vec![tensor_info(&spec.input, DataType::Float, &shape(Axis::Fixed(3), height, width))],
        output: outputs.collect(),
        ..Default::default()
    };
    backbone::write(out, spec, graph, read.origin)
}

/// Row and column of every tile, in the order of the batch.
fn places(tiling: &Tiling) -> impl Iterator<Item = (usize, usize)> {
    let across = tiling.columns.starts.len();
    (0..tiling.tiles()).map(move |tile| (tile / across, tile % across))
}

fn slice(
    graph: &mut GraphBuilder,
    from: &str,
    to: &str,
    axes: [i64; 2],
    starts: [usize; 2],
    ends: [usize; 2],
) -> String {
    let mut constant = |part: &str, values: [i64; 2]| graph.integers(&format!("{to}/{part}"), &values);
    let starts = constant("starts", starts.map(|v| v as i64));
    let ends = constant("ends", ends.map(|v| v as i64));
    let axes = constant("axes", axes);
    graph.node("Slice", &[from, &starts, &ends, &axes], to, vec![])
}

fn concat(graph: &mut GraphBuilder, parts: &[String], to: &str, axis: i64) -> String {
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    graph.node("Concat", &parts, to, vec![integer_attribute("axis", axis)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_the_frame_overlap_enough_and_are_kept_to_the_middle_of_the_overlap() {
        for length in (16..=2448).step_by(16) {
            for side in [112, 256, 512] {
                let side = side.min(length);
                let cuts = Cuts::new(length / 16, side / 16).times(16);
                assert_eq!((cuts.bounds[0], cuts.length()), (0, length));
                assert_eq!(cuts.starts[cuts.starts.len() - 1] + side, length);
                for (i, pair) in cuts.starts.windows(2).enumerate() {
                    assert!(pair[0] + side >= pair[1] + OVERLAP * 16, "{length} {side}: {cuts:?}");
                    let (before, after) = (cuts.bounds[i + 1] - pair[1], pair[0] + side - cuts.bounds[i + 1]);
                    assert!(before.abs_diff(after) <= 16 && before.min(after) >= 48, "{length} {side}: {cuts:?}");
                }
            }
        }
    }

    #[test]
    fn a_side_that_cannot_be_is_told() {
        let size = Size { width: 512, height: 512 };
        for side in [0, 96, 250] {
            let problem = Tiling::new(size, side, 16).unwrap_err();
            assert!(problem.contains(&format!("tile {side}: a multiple of 16 above 96")), "{problem}");
        }
        assert!(Tiling::new(Size { width: 496, ..size }, 256, 32).unwrap_err().contains("496x512"));
    }

    #[test]
    fn a_frame_within_a_tile_is_one_tile() {
        let tiling = Tiling::new(Size { width: 256, height: 128 }, 512, 16).unwrap();
        assert_eq!((tiling.tiles(), tiling.overhead()), (1, 1.0));
        assert_eq!(tiling.tile_size(), Size { width: 256, height: 128 });
    }
}
