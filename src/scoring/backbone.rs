//! The frozen feature extractor.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ndarray::{Array3, ArrayView3};
use ort::session::Session;
use ort::value::{TensorElementType, TensorRef};
use tracing::info;

use super::contract::{self, Axis, broken};
use super::provider::Opened;
use super::{BackboneSpec, ColorOrder, Layout, Provider, ScoringError, SessionOptions, provider};
use crate::inspection::{Picture, Size};

/// A backbone in a session of its own, for training.
#[derive(Debug)]
pub struct FeatureExtractor {
    path: PathBuf,
    spec: BackboneSpec,
    session: Session,
    provider: Provider,
    size: Size,
    /// Whether a run takes one picture only, because the file was exported so.
    one_by_one: bool,
    levels: Vec<(usize, usize)>,
    /// The normalised value of every pixel value, per channel in the backbone's order.
    normalised: [[f32; 256]; 3],
    /// The input tensor, kept between runs.
    input: Vec<f32>,
}

impl FeatureExtractor {
    /// Loads an ONNX backbone and the TOML beside it, runs it once at `size` and learns the
    /// levels' channels and strides.
    ///
    /// # Errors
    /// [`ScoringError`] saying what was expected of the file and what was found.
    pub fn load(path: &Path, size: Size, options: &SessionOptions) -> Result<Self, ScoringError> {
        let spec = BackboneSpec::beside(path)?;
        let Opened { session, provider, .. } = provider::open(path, None, options)?;
        let batch = Axis::Any("batch");
        let (rows, columns) = (Axis::Likely(size.height), Axis::Likely(size.width));
        let axes = match spec.layout {
            Layout::Nchw => [batch, Axis::Likely(3), rows, columns],
            Layout::Nhwc => [batch, rows, columns, Axis::Likely(3)],
        };
        let declared = contract::only_input(path, &session, &spec.input, TensorElementType::Float32, &axes)?;
        let one_by_one = match declared[0] {
            open if open < 0 => false,
            1 => true,
            fixed => return Err(broken(path, "the batch axis of the input", "open or 1", fixed.to_string())),
        };
        let axes = match spec.layout {
            Layout::Nchw => ["batch", "channel", "row", "column"],
            Layout::Nhwc => ["batch", "row", "column", "channel"],
        };
        for name in &spec.outputs {
            contract::output(path, &session, name, &axes.map(Axis::Any))?;
        }
        let normalised = std::array::from_fn(|channel| {
            std::array::from_fn(|value| (value as f32 - spec.mean[channel]) / spec.deviation[channel])
        });
        let mut extractor = Self {
            path: path.to_owned(),
            spec,
            session,
            provider,
            size,
            one_by_one,
            levels: Vec::new(),
            normalised,
            input: vec![0.0; size.width * size.height * 3],
        };
        let maps = extractor.run(1)?.pop().unwrap_or_default();
        extractor.levels = extractor.measure(&maps)?;
        info!(backbone = extractor.spec.name, %provider, levels = ?extractor.levels, "backbone loaded");
        Ok(extractor)
    }

    /// The ONNX file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The description beside the file.
    pub fn spec(&self) -> &BackboneSpec {
        &self.spec
    }

    /// The execution provider that the session really got.
    pub fn provider(&self) -> Provider {
        self.provider
    }

    /// Size of the pictures that it takes.
    pub fn size(&self) -> Size {
        self.size
    }

    /// Per level, finest first: (channels, stride).
    pub fn levels(&self) -> &[(usize, usize)] {
        &self.levels
    }

    /// Features of pictures of model size: per picture, per level `[row, column, channel]`.
    ///
    /// # Errors
    /// [`ScoringError`] when a picture has another size or the run fails.
    pub fn extract(&mut self, pictures: &[&Picture]) -> Result<Vec<Vec<Array3<f32>>>, ScoringError> {
        for (index, picture) in pictures.iter().enumerate() {
            if picture.size() != self.size {
                return Err(ScoringError::PictureSize { index, expected: self.size, found: picture.size() });
            }
        }
        let batch = if self.one_by_one { 1 } else { pictures.len().max(1) };
        let mut features = Vec::with_capacity(pictures.len());
        for batch in pictures.chunks(batch) {
            self.fill(batch);
            features.append(&mut self.run(batch.len())?);
        }
        Ok(features)
    }

    /// Time of one run of the session alone on one picture that the input tensor holds from the last
    /// extraction, or on zeros: no copies, nothing taken apart. For measuring.
    ///
    /// # Errors
    /// [`ScoringError::Run`].
    pub fn time_run(&mut self) -> Result<Duration, ScoringError> {
        let Size { width, height } = self.size;
        let shape = match self.spec.layout {
            Layout::Nchw => [1, 3, height, width],
            Layout::Nhwc => [1, height, width, 3],
        };
        let path = &self.path;
        let failed = |source| ScoringError::Run { path: path.clone(), batch: 1, source };
        let began = Instant::now();
        let input = TensorRef::from_array_view((shape, &self.input[..3 * width * height])).map_err(failed)?;
        drop(self.session.run(ort::inputs![input]).map_err(failed)?);
        Ok(began.elapsed())
    }

    /// Writes the normalised pictures into the input tensor.
    fn fill(&mut self, pictures: &[&Picture]) {
        let source = match self.spec.color {
            ColorOrder::Rgb => [0, 1, 2],
            ColorOrder::Bgr => [2, 1, 0],
        };
        self.input.clear();
        for picture in pictures {
            let pixels = picture.rgb().chunks_exact(3);
            match self.spec.layout {
                Layout::Nchw => {
                    for (normalised, from) in self.normalised.iter().zip(source) {
                        self.input.extend(pixels.clone().map(|pixel| normalised[usize::from(pixel[from])]));
                    }
                }
                Layout::Nhwc => {
                    for pixel in pixels {
                        self.input.extend(
                            self.normalised
                                .iter()
                                .zip(source)
                                .map(|(normalised, from)| normalised[usize::from(pixel[from])]),
                        );
                    }
                }
            }
        }
    }

    /// Runs the input tensor and takes the maps apart, per picture and level.
    fn run(&mut self, batch: usize) -> Result<Vec<Vec<Array3<f32>>>, ScoringError> {
        let Size { width, height } = self.size;
        let shape = match self.spec.layout {
            Layout::Nchw => [batch, 3, height, width],
            Layout::Nhwc => [batch, height, width, 3],
        };
        let path = &self.path;
        let failed = |source| ScoringError::Run { path: path.clone(), batch, source };
        let input = TensorRef::from_array_view((shape, self.input.as_slice())).map_err(failed)?;
        let outputs = self.session.run(ort::inputs![input]).map_err(failed)?;
        let mut features: Vec<Vec<Array3<f32>>> = vec![Vec::with_capacity(self.spec.outputs.len()); batch];
        for name in &self.spec.outputs {
            let (shape, values) = contract::values(path, &outputs, name)?;
            let odd =
                || broken(path, format!("output `{name}`"), format!("a map for each of {batch}"), format!("{shape:?}"));
            let &[maps, a, b, c] = shape.as_slice() else { return Err(odd()) };
            if maps != batch || values.is_empty() {
                return Err(odd());
            }
            for (picture, values) in features.iter_mut().zip(values.chunks_exact(a * b * c)) {
                let map = ArrayView3::from_shape((a, b, c), values).map_err(|_| odd())?;
                picture.push(match self.spec.layout {
                    Layout::Nchw => map.permuted_axes([1, 2, 0]).as_standard_layout().into_owned(),
                    Layout::Nhwc => map.to_owned(),
                });
            }
        }
        Ok(features)
    }

    /// Channels and stride of every level, from the maps of one picture.
    fn measure(&self, maps: &[Array3<f32>]) -> Result<Vec<(usize, usize)>, ScoringError> {
        let Size { width, height } = self.size;
        let mut levels: Vec<(usize, usize)> = Vec::with_capacity(maps.len());
        for (map, name) in maps.iter().zip(&self.spec.outputs) {
            let (rows, columns, channels) = map.dim();
            let stride = height / rows;
            if rows * stride != height || columns * stride != width {
                return Err(broken(
                    &self.path,
                    format!("output `{name}`"),
                    format!("a map with one stride that divides {}", self.size),
                    format!("{columns}x{rows} cells of {channels} channels (layout {:?})", self.spec.layout),
                ));
            }
            levels.push((channels, stride));
        }
        if !levels.is_sorted_by_key(|&(_, stride)| stride) {
            let strides = levels.iter().map(|&(_, stride)| stride).collect::<Vec<_>>();
            return Err(broken(
                BackboneSpec::path_beside(&self.path).as_path(),
                "`outputs`",
                "ordered from the finest level to the coarsest",
                format!("{:?} with strides {strides:?}", self.spec.outputs),
            ));
        }
        Ok(levels)
    }
}
