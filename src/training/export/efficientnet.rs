//! The feature extractor of EfficientNet-Lite up to stride 16, as an ONNX graph with every batch
//! norm folded into its convolution. Source: Tan and Le, arXiv:1905.11946, and the Lite variants
//! of TensorFlow's TPU models (no squeeze-and-excitation, ReLU6, fixed stem).

use std::path::{Path, PathBuf};

use prost::Message;

use super::error::{ExportError, WeightsError};
use super::graph::{
    Axis, GraphBuilder, integer_attribute, integers_attribute, metadata_entry, standard_operators, tensor_info,
};
use super::onnx::tensor_proto::DataType;
use super::onnx::{GraphProto, ModelProto};
use super::torch::StateDict;
use super::{IR_VERSION, file};
use crate::bundle::sha256_hex;
use crate::scoring::{BackboneSpec, ColorOrder, Layout};

/// A variant of EfficientNet-Lite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// 0.69 M parameters up to stride 16; 24, 40 and 112 channels.
    Lite0,
    /// Deeper than Lite0, as wide.
    Lite1,
    /// Deeper and wider: 24, 48 and 120 channels.
    Lite2,
}

impl Variant {
    /// Name of the backbone, such as `efficientnet_lite0`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lite0 => "efficientnet_lite0",
            Self::Lite1 => "efficientnet_lite1",
            Self::Lite2 => "efficientnet_lite2",
        }
    }

    /// Multiple of the base network's channels.
    fn width(self) -> f64 {
        if self == Self::Lite2 { 1.1 } else { 1.0 }
    }

    /// Multiple of the base network's repeats.
    fn depth(self) -> f64 {
        match self {
            Self::Lite0 => 1.0,
            Self::Lite1 => 1.1,
            Self::Lite2 => 1.2,
        }
    }

    fn channels(self, base: usize) -> usize {
        if self.width() == 1.0 {
            return base;
        }
        // To the nearest multiple of 8, but never below nine tenths of what was wanted.
        let wanted = base as f64 * self.width();
        let rounded = ((wanted + 4.0) as usize / 8 * 8).max(8);
        if (rounded as f64) < 0.9 * wanted { rounded + 8 } else { rounded }
    }

    fn repeats(self, stage: usize, base: usize) -> usize {
        // The Lite variants keep the first stage's depth.
        if stage == 0 { base } else { (self.depth() * base as f64).ceil() as usize }
    }
}

/// What [`import_backbone`] wrote.
#[derive(Debug, Clone, PartialEq)]
pub struct ImportedBackbone {
    /// How the backbone's input is made and its outputs are called.
    pub spec: BackboneSpec,
    /// The description, beside the ONNX file.
    pub spec_path: PathBuf,
    /// Channels per level, finest first.
    pub channels: Vec<usize>,
    /// Number of weights, batch norm folded.
    pub parameters: usize,
    /// Size of the ONNX file.
    pub bytes: usize,
    /// SHA-256 of the ONNX file, hexadecimal.
    pub sha256: String,
}

/// Reads ImageNet weights from a torch file (the format before torch 1.6) and writes the feature
/// extractor with outputs `f4`, `f8`, `f16` at strides 4, 8 and 16 to `out`, and its description
/// to a TOML file of the same name beside it. Each file appears whole or not at all.
///
/// Input `image`: f32 `[batch, 3, height, width]`, RGB, `(pixel - 127) / 128`, height and width
/// multiples of 16.
///
/// # Errors
/// [`ExportError`] when the weights cannot be read, are of another variant, or a file cannot be
/// written.
pub fn import_backbone(variant: Variant, weights: &Path, out: &Path) -> Result<ImportedBackbone, ExportError> {
    let spec_path = out.with_extension("toml");
    if spec_path == out {
        let problem = format!("{} is where its description goes: end the name in .onnx", out.display());
        return Err(ExportError::Request { problem });
    }
    let bytes = file::read(weights)?;
    let damaged = |source| ExportError::Weights { path: weights.to_owned(), source };
    let state = StateDict::read(&bytes).map_err(damaged)?;
    let (model, channels) = build(variant, &state).map_err(damaged)?;

    let spec = BackboneSpec {
        name: variant.name().to_owned(),
        input: "image".to_owned(),
        outputs: TAPS.iter().map(|&(_, name, _)| name.to_owned()).collect(),
        color: ColorOrder::Rgb,
        layout: Layout::Nchw,
        mean: [127.0; 3],
        deviation: [128.0; 3],
    };
    let text = toml::to_string(&spec).map_err(|source| ExportError::Spec { name: spec.name.clone(), source })?;
    let parameters =
        model.graph.iter().flat_map(|graph| &graph.initializer).filter(|constant| !constant.dims.is_empty());
    let parameters = parameters.map(|constant| constant.dims.iter().product::<i64>() as usize).sum();
    let encoded = model.encode_to_vec();
    // The description first: a model file without one could not be used.
    file::write(&spec_path, text.as_bytes())?;
    file::write(out, &encoded)?;
    Ok(ImportedBackbone { spec, spec_path, channels, parameters, bytes: encoded.len(), sha256: sha256_hex(&encoded) })
}

/// One stage of EfficientNet-B0.
struct Stage {
    repeats: usize,
    kernel: usize,
    stride: usize,
    expansion: usize,
    input: usize,
    output: usize,
}

const fn stage(repeats: usize, kernel: usize, stride: usize, expansion: usize, input: usize, output: usize) -> Stage {
    Stage { repeats, kernel, stride, expansion, input, output }
}

/// The stages up to stride 16.
const STAGES: [Stage; 5] = [
    stage(1, 3, 1, 1, 32, 16),
    stage(2, 3, 2, 6, 16, 24),
    stage(2, 5, 2, 6, 24, 40),
    stage(3, 3, 2, 6, 40, 80),
    stage(3, 5, 1, 6, 80, 112),
];
/// Stage whose last output is a level, name of the output, stride.
const TAPS: [(usize, &str, usize); 3] = [(1, "f4", 4), (2, "f8", 8), (4, "f16", 16)];
/// Added to every variance, as in training.
const BATCH_NORM_EPSILON: f64 = 1e-3;
const OPSET: i64 = 13;

fn build(variant: Variant, state: &StateDict<'_>) -> Result<(ModelProto, Vec<usize>), WeightsError> {
    let mut network = Network { state, graph: GraphBuilder::default() };
    network.graph.floats("zero", &[], [0.0]);
    network.graph.floats("six", &[], [6.0]);
    // The stem is as wide in every Lite variant.
    let stem = Convolution { kernel: 3, stride: 2, groups: 1, input: 3, output: 32, relu6: true };
    let mut x = network.convolution("image", "_conv_stem", "_bn0", "stem", &stem)?;

    let mut outputs = Vec::new();
    let mut channels = Vec::new();
    let mut block = 0;
    for (index, stage) in STAGES.iter().enumerate() {
        let repeats = variant.repeats(index, stage.repeats);
        let output = variant.channels(stage.output);
        let tap = TAPS.iter().find(|(tapped, ..)| *tapped == index);
        for repeat in 0..repeats {
            let first = repeat == 0;
            let input = match (first, index) {
                (false, _) => output,
                (true, 0) => stage.input,
                (true, _) => variant.channels(stage.input),
            };
            let tapped = tap.filter(|_| repeat + 1 == repeats).map(|&(_, name, _)| name);
            let shape = Block { stage, input, output, stride: if first { stage.stride } else { 1 }, residual: !first };
            x = network.block(&x, block, &shape, tapped)?;
            block += 1;
        }
        if let Some(&(_, name, stride)) = tap {
            let rows_and_columns = ["height", "width"].map(|axis| Axis::named(format!("{axis}/{stride}")));
            let [rows, columns] = rows_and_columns;
            outputs.push(tensor_info(
                name,
                DataType::Float,
                &[Axis::named("batch"), Axis::Fixed(output), rows, columns],
            ));
            channels.push(output);
        }
    }
    let shape = [Axis::named("batch"), Axis::Fixed(3), Axis::named("height"), Axis::named("width")];
    let graph = GraphProto {
        name: Some(format!("{}_features", variant.name())),
        node: network.graph.nodes,
        initializer: network.graph.constants,
        input: vec![tensor_info("image", DataType::Float, &shape)],
        output: outputs,
        ..Default::default()
    };
    let model = ModelProto {
        ir_version: Some(IR_VERSION),
        opset_import: vec![standard_operators(OPSET)],
        producer_name: Some("linegate".to_owned()),
        producer_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        graph: Some(graph),
        metadata_props: [("mean", "127"), ("std", "128"), ("color", "RGB"), ("layout", "NCHW")]
            .map(|(key, value)| metadata_entry(key, value))
            .to_vec(),
        ..Default::default()
    };
    Ok((model, channels))
}

/// A convolution with "same" padding, then ReLU6 where `relu6`.
struct Convolution {
    kernel: usize,
    stride: usize,
    groups: usize,
    input: usize,
    output: usize,
    relu6: bool,
}

/// An inverted residual block: expansion, depthwise convolution, projection.
struct Block<'s> {
    stage: &'s Stage,
    input: usize,
    output: usize,
    stride: usize,
    residual: bool,
}

struct Network<'s> {
    state: &'s StateDict<'s>,
    graph: GraphBuilder,
}

impl Network<'_> {
    /// Adds a block and gives the name of its output, which is `tapped` where there is one.
    fn block(
        &mut self,
        x: &str,
        number: usize,
        block: &Block<'_>,
        tapped: Option<&str>,
    ) -> Result<String, WeightsError> {
        let (prefix, name) = (format!("_blocks.{number}"), format!("b{number}"));
        let Block { stage, input, output, stride, residual } = *block;
        let wide = input * stage.expansion;
        let mut y = x.to_owned();
        if stage.expansion != 1 {
            let expand = Convolution { kernel: 1, stride: 1, groups: 1, input, output: wide, relu6: true };
            let weights = (format!("{prefix}._expand_conv"), format!("{prefix}._bn0"));
            y = self.convolution(&y, &weights.0, &weights.1, &format!("{name}.expand"), &expand)?;
        }
        let depthwise =
            Convolution { kernel: stage.kernel, stride, groups: wide, input: wide, output: wide, relu6: true };
        let weights = (format!("{prefix}._depthwise_conv"), format!("{prefix}._bn1"));
        y = self.convolution(&y, &weights.0, &weights.1, &format!("{name}.dw"), &depthwise)?;
        let project = Convolution { kernel: 1, stride: 1, groups: 1, input: wide, output, relu6: false };
        let weights = (format!("{prefix}._project_conv"), format!("{prefix}._bn2"));
        let projected =
            if residual { format!("{name}.project") } else { tapped.map_or(format!("{name}.project"), Into::into) };
        y = self.convolution(&y, &weights.0, &weights.1, &projected, &project)?;
        if residual {
            y = self.graph.node("Add", &[&y, x], tapped.unwrap_or(&format!("{name}.sum")), vec![]);
        }
        Ok(y)
    }

    fn convolution(
        &mut self,
        x: &str,
        weights: &str,
        batch_norm: &str,
        name: &str,
        shape: &Convolution,
    ) -> Result<String, WeightsError> {
        let &Convolution { kernel, stride, groups, input, output, relu6 } = shape;
        let dims = [output, input / groups, kernel, kernel];
        let kernels = self.state.floats(&format!("{weights}.weight"), &dims)?;
        let (gain, bias) = self.batch_norm(batch_norm, output)?;
        let per_output = dims[1..].iter().product();
        let folded = kernels
            .chunks_exact(per_output)
            .zip(&gain)
            .flat_map(|(kernel, gain)| kernel.iter().map(move |&weight| (f64::from(weight) * gain) as f32));
        let weight = self.graph.floats(&format!("{name}.w"), &dims, folded);
        let bias = self.graph.floats(&format!("{name}.b"), &[output], bias);
        // TensorFlow's "same" for inputs that the stride divides: the odd row goes to the end.
        let padding = (kernel - stride.min(kernel)) as i64;
        let (before, after) = (padding / 2, padding - padding / 2);
        let attributes = vec![
            integer_attribute("group", groups as i64),
            integers_attribute("kernel_shape", &[kernel as i64; 2]),
            integers_attribute("pads", &[before, before, after, after]),
            integers_attribute("strides", &[stride as i64; 2]),
        ];
        if !relu6 {
            return Ok(self.graph.node("Conv", &[x, &weight, &bias], name, attributes));
        }
        let linear = self.graph.node("Conv", &[x, &weight, &bias], &format!("{name}.c"), attributes);
        Ok(self.graph.node("Clip", &[&linear, "zero", "six"], name, vec![]))
    }

    /// Gain and bias that a batch norm amounts to once its statistics are frozen.
    fn batch_norm(&self, name: &str, channels: usize) -> Result<(Vec<f64>, Vec<f32>), WeightsError> {
        let part = |part: &str| self.state.floats(&format!("{name}.{part}"), &[channels]);
        let (weight, bias) = (part("weight")?, part("bias")?);
        let (mean, variance) = (part("running_mean")?, part("running_var")?);
        if let Some(&value) = variance.iter().find(|&&variance| variance < 0.0) {
            return Err(WeightsError::Value { name: format!("{name}.running_var"), value });
        }
        let gain: Vec<f64> = weight
            .iter()
            .zip(&variance)
            .map(|(&weight, &variance)| f64::from(weight) / (f64::from(variance) + BATCH_NORM_EPSILON).sqrt())
            .collect();
        let shift = bias.iter().zip(&mean).zip(&gain);
        let shift = shift.map(|((&bias, &mean), gain)| (f64::from(bias) - f64::from(mean) * gain) as f32);
        let shift = shift.collect();
        Ok((gain, shift))
    }
}
