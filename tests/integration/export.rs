//! From backbone and flows to one ONNX file, run by the scoring room as on the line.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use linegate::bundle::{
    BUNDLE_SCHEMA_VERSION, Bundle, BundleWriter, Calibration, CalibrationSet, Evidence, ImageBoundary, LevelShape,
    METADATA_NAME, METADATA_VERSION, MODEL_FILE, Manifest, PROCESSOR_MODEL_FILE, Preprocessing, Provenance,
};
use linegate::inspection::{Picture, Size};
use linegate::scoring::{BackboneSpec, FeatureExtractor, Model, SessionOptions};
use linegate::training::export::{ExportError, FlowForm, ModelExport, Tiling, Variant, import_backbone, tile_backbone};
use linegate::training::features::Source;
use linegate::training::flow::{FoldedBlock, FoldedFlow};
use ndarray::{Array1, Array2, Array3};

use super::backbone::{pattern, weights};

use crate::support::calibrated_level;

/// Reproducible numbers, roughly normal: the sum of four uniform ones. (SplitMix64.)
struct Numbers(u64);

impl Numbers {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        ((0..4).map(|_| self.uniform()).sum::<f64>() - 2.0) * 3.0_f64.sqrt()
    }

    fn vector(&mut self, length: usize, scale: f64) -> Array1<f32> {
        Array1::from_shape_fn(length, |_| (self.normal() * scale) as f32)
    }

    fn matrix(&mut self, rows: usize, columns: usize, scale: f64) -> Array2<f32> {
        Array2::from_shape_fn((rows, columns), |_| (self.normal() * scale) as f32)
    }
}

const FINEST: Source = Source { map: 0, pooling: 1 };

/// A flow with every part in use. The log-scales reach into the bend of the tanh, and the scales are
/// such that, as in a fitted flow, values stay of the order of 1: f32 could not hold a difference of
/// 1e-3 in log-likelihoods of thousands.
fn random_flow((rows, columns): (usize, usize), channels: usize, source: Source, seed: u64) -> FoldedFlow {
    let mut numbers = Numbers(seed);
    let (second, hidden) = (channels / 2, 29);
    let first = channels - second;
    let block = |numbers: &mut Numbers| FoldedBlock {
        w1: numbers.matrix(first, hidden, (first as f64).powf(-0.5)),
        row_table: numbers.matrix(rows, hidden, 0.7),
        column_table: numbers.matrix(columns, hidden, 0.7),
        w2: numbers.matrix(hidden, 2 * second, 0.5 * (hidden as f64).powf(-0.5)),
        b2: numbers.vector(2 * second, 0.3),
        mix: numbers.matrix(channels, channels, 0.6 * (channels as f64).powf(-0.5)),
        shift: numbers.vector(channels, 0.3),
    };
    FoldedFlow {
        rows,
        columns,
        channels,
        source,
        input_scale: numbers.vector(channels, 0.05),
        input_shift: numbers.vector(channels, 0.5),
        // Flows with and without one must be told alike.
        whitening: (source.pooling > 1).then(|| numbers.matrix(channels, channels, (channels as f64).powf(-0.5))),
        blocks: (0..8).map(|_| block(&mut numbers)).collect(),
        nearest: None,
        contrast: None,
        constant: (numbers.normal() * channels as f64) as f32,
    }
}

/// The level of a flow, comparing with random vectors instead, more than are compared with at once.
fn comparing(flow: &FoldedFlow) -> FoldedFlow {
    let mut numbers = Numbers(99);
    let (channels, whitening) = (flow.channels, (flow.channels as f64).powf(-0.5));
    FoldedFlow {
        // Far enough from each other that it matters which is the nearest.
        input_scale: numbers.vector(channels, 1.0),
        whitening: Some(numbers.matrix(channels, channels, whitening)),
        blocks: Vec::new(),
        nearest: Some(numbers.matrix(70, channels, 0.5)),
        constant: 0.0,
        ..flow.clone()
    }
}

/// The level of a flow, contrasting in a random direction instead.
fn contrasting(flow: &FoldedFlow) -> FoldedFlow {
    let mut numbers = Numbers(98);
    let channels = flow.channels;
    FoldedFlow {
        // Long enough that the map varies.
        contrast: Some((numbers.vector(channels, 8.0 * (channels as f64).powf(-0.5)), -0.7)),
        blocks: Vec::new(),
        constant: 0.0,
        ..flow.clone()
    }
}

/// The definition in [`FoldedFlow`]'s documentation, cell by cell in f64.
fn log_likelihood(flow: &FoldedFlow, features: &Array3<f32>) -> Array2<f64> {
    let (rows, columns, channels) = features.dim();
    assert_eq!((rows, columns, channels), (flow.rows, flow.columns, flow.channels));
    let second = channels / 2;
    let first = channels - second;
    let reach = flow.source.pooling / 2;
    let around = |at: usize, length: usize| at.saturating_sub(reach)..(at + reach + 1).min(length);
    Array2::from_shape_fn((rows, columns), |(row, column)| {
        let mut x: Vec<f64> = (0..channels)
            .map(|c| {
                let cells = around(row, rows).flat_map(|r| around(column, columns).map(move |k| (r, k)));
                let values: Vec<f64> = cells.map(|(r, k)| f64::from(features[[r, k, c]])).collect();
                let mean = values.iter().sum::<f64>() / values.len() as f64;
                mean * f64::from(flow.input_scale[c]) + f64::from(flow.input_shift[c])
            })
            .collect();
        if let Some(whitening) = &flow.whitening {
            let of = |j: usize| x.iter().enumerate().map(|(i, v)| v * f64::from(whitening[[i, j]])).sum();
            x = (0..channels).map(of).collect();
        }
        if let Some(vectors) = &flow.nearest {
            let square = |vector: ndarray::ArrayView1<'_, f32>| -> f64 {
                vector.iter().zip(&x).map(|(m, x)| (x.clamp(-8.0, 8.0) - f64::from(*m)).powi(2)).sum()
            };
            let least = vectors.rows().into_iter().map(square).fold(f64::INFINITY, f64::min);
            return -(0.01 + least / channels as f64).sqrt();
        }
        if let Some((direction, offset)) = &flow.contrast {
            let product: f64 = direction.iter().zip(&x).map(|(d, x)| f64::from(*d) * x).sum();
            return -(product + f64::from(*offset));
        }
        let mut sum_of_s = 0.0;
        for block in &flow.blocks {
            let hidden: Vec<f64> = (0..block.w1.ncols())
                .map(|h| {
                    let product: f64 = (0..first).map(|i| x[i] * f64::from(block.w1[[i, h]])).sum();
                    let place = f64::from(block.row_table[[row, h]]) + f64::from(block.column_table[[column, h]]);
                    (product + place).max(0.0)
                })
                .collect();
            let a = |j: usize| {
                let product: f64 = hidden.iter().enumerate().map(|(h, v)| v * f64::from(block.w2[[h, j]])).sum();
                product + f64::from(block.b2[j])
            };
            for j in 0..second {
                let s = 1.9 * a(j).tanh();
                x[first + j] = x[first + j] * s.exp() + a(second + j);
                sum_of_s += s;
            }
            x = (0..channels)
                .map(|j| {
                    let mixed: f64 = x.iter().enumerate().map(|(i, v)| v * f64::from(block.mix[[i, j]])).sum();
                    mixed + f64::from(block.shift[j])
                })
                .collect();
        }
        let square: f64 = x.iter().map(|v| v * v).sum();
        (f64::from(flow.constant) - 0.5 * square + sum_of_s) / channels as f64
    })
}

fn manifest(size: Size, levels: Vec<LevelShape>) -> Manifest {
    let calibration = calibrated_level(0.0, 1.0, 1.0 / levels.len() as f32);
    Manifest {
        schema_version: BUNDLE_SCHEMA_VERSION,
        name: "pattern".into(),
        version: "20260101T000000Z-test".into(),
        preprocessing: Preprocessing { size, region_of_interest: None },
        calibration: Calibration {
            levels: vec![calibration; levels.len()],
            evidence: Evidence::Deviations,
            strongest: 0.0,
            smoothing_sigma: 0.0,
            minimum_area: 1,
            merging: 0,
            image: ImageBoundary { normal: 1.0, abnormal: 2.0, suspect_rate: 0.05, false_reject_rate: 0.01 },
            set: CalibrationSet {
                images: 1,
                groups: 1,
                false_reject_interval: [0.0, 1.0],
                warnings: vec![],
                scores: vec![0.0],
                score_groups: Vec::new(),
            },
        },
        levels,
        provenance: Provenance {
            software: "test".into(),
            trained_at: "2026-01-01T00:00:00Z".into(),
            seed: 0,
            threads: 1,
            preset: "test".into(),
            settings: serde_json::Value::Null,
            backbone: "test".into(),
            training_set_sha256: String::new(),
            training_images: 1,
            known_defects: vec![],
            normals: vec![],
            export_difference: 0.0,
            phases: vec![],
            started_from: None,
            fitted_before: Vec::new(),
            peak_memory_mib: 0.0,
        },
        files: BTreeMap::new(),
    }
}

pub(crate) fn read_spec(backbone: &Path) -> BackboneSpec {
    toml::from_str(&std::fs::read_to_string(backbone.with_extension("toml")).unwrap()).unwrap()
}

pub(crate) fn fixture(name: &str) -> PathBuf {
    crate::support::root().join("tests/fixtures/backbones").join(name)
}

pub(crate) fn lite0(folder: &Path) -> PathBuf {
    let path = folder.join("lite0.onnx");
    import_backbone(Variant::Lite0, &weights(), &path).unwrap();
    path
}

/// Different pictures of one size.
pub(crate) fn pictures(size: Size, count: usize) -> Vec<Picture> {
    let turned = |by: usize| {
        let mut rgb = pattern(size).rgb().to_vec();
        rgb.rotate_left(by * 1001);
        Picture::from_rgb(size, rgb).unwrap()
    };
    (0..count).map(turned).collect()
}

/// Exports random flows for the backbone into a bundle, scores pictures with it as the line does,
/// and compares every cell with the definition in f64 on the backbone's own features.
pub(crate) fn exported_model_equals_the_definition(backbone: &Path, size: Size, sources: &[(usize, usize)]) {
    let mut extractor = FeatureExtractor::load(backbone, size, &SessionOptions::default()).unwrap();
    let mut flows = Vec::new();
    let mut levels = Vec::new();
    for (level, &(map, pooling)) in sources.iter().enumerate() {
        let (channels, stride) = extractor.levels()[map];
        let grid = (size.height / stride, size.width / stride);
        flows.push(random_flow(grid, channels, Source { map, pooling }, 11 + level as u64));
        let output = format!("level{level}");
        levels.push(LevelShape { output, stride, rows: grid.0, columns: grid.1 });
    }
    // Two more, on what the last flow looks at.
    let last = flows[sources.len() - 1].clone();
    flows.extend([comparing(&last), contrasting(&last)]);
    let shape = levels[sources.len() - 1].clone();
    levels.extend(["nearest", "contrast"].map(|output| LevelShape { output: output.to_owned(), ..shape.clone() }));

    let folder = tempfile::tempdir().unwrap();
    let writer = BundleWriter::new(&folder.path().join("bundle")).unwrap();
    let manifest = manifest(size, levels);
    let outputs: Vec<String> = manifest.levels.iter().map(|level| level.output.clone()).collect();
    let metadata = [(METADATA_NAME, &manifest.name), (METADATA_VERSION, &manifest.version)]
        .map(|(key, value)| (key.to_owned(), value.clone()));
    let spec = read_spec(backbone);
    let file = |name| writer.path().join(name);
    let export = ModelExport { backbone, spec: &spec, size, flows: &flows, outputs: &outputs, metadata: &metadata };
    export.write(FlowForm::Standard, &file(MODEL_FILE)).unwrap();
    export.write(FlowForm::Processor, &file(PROCESSOR_MODEL_FILE)).unwrap();
    let bundle: Bundle = writer.commit(manifest).unwrap();
    let for_all = Model::load_file(&bundle.model_path(), &bundle, &SessionOptions::default()).unwrap();
    let on = |threads| Model::load(&bundle, &SessionOptions { threads, ..SessionOptions::default() }).unwrap();
    let [alone, shared] = [on(1), on(3)];
    assert_eq!(alone.path(), bundle.processor_model_path().unwrap());
    assert_ne!(for_all.path(), alone.path());
    for model in [for_all, alone, shared] {
        says_what_the_definition_says(model, &flows, &mut extractor, size);
    }
}

/// Compares a model's maps of a few pictures with the flows' definition, one by one and in a batch.
fn says_what_the_definition_says(mut model: Model, flows: &[FoldedFlow], extractor: &mut FeatureExtractor, size: Size) {
    for batch in [1, 3] {
        let pictures = pictures(size, batch);
        let pictures: Vec<&Picture> = pictures.iter().collect();
        let features = extractor.extract(&pictures).unwrap();
        let scores = model.score(&pictures).unwrap();
        assert_eq!(scores.len(), batch);
        for (maps, features) in scores.iter().zip(&features) {
            assert_eq!(maps.levels.len(), flows.len());
            for (map, flow) in maps.levels.iter().zip(flows) {
                let expected = log_likelihood(flow, &features[flow.source.map]);
                let spread = expected.std(0.0);
                assert!(spread > 0.01, "a map that hardly varies ({spread}) shows nothing");
                for ((at, &found), &expected) in map.indexed_iter().zip(&expected) {
                    let difference = (f64::from(found) - expected).abs();
                    assert!(
                        difference < 1e-3,
                        "batch {batch}, {} channels, cell {at:?}: {found}, not {expected}",
                        flow.channels
                    );
                }
            }
        }
    }
}

#[test]
fn a_model_on_lite0_equals_the_definition_of_its_flows() {
    let folder = tempfile::tempdir().unwrap();
    let size = Size { width: 96, height: 64 };
    exported_model_equals_the_definition(&lite0(folder.path()), size, &[(0, 3), (1, 1), (2, 3)]);
    exported_model_equals_the_definition(&lite0(folder.path()), size, &[(0, 1), (1, 3), (2, 1), (2, 9)]);
}

#[test]
fn a_model_on_a_channels_last_bgr_backbone_with_odd_channels_and_our_names_equals_the_definition() {
    let backbone = fixture("nhwc_bgr.onnx");
    exported_model_equals_the_definition(&backbone, Size { width: 48, height: 32 }, &[(0, 1), (1, 1)]);
    exported_model_equals_the_definition(&backbone, Size { width: 48, height: 32 }, &[(0, 3), (1, 3)]);
}

#[test]
fn a_backbone_of_opset_11_is_raised_where_that_changes_nothing() {
    exported_model_equals_the_definition(&fixture("opset11.onnx"), Size { width: 48, height: 32 }, &[(0, 3)]);
}

/// A backbone that sees frames of `size` through tiles, and the plain one for a single tile.
fn tiled(backbone: &Path, size: Size, side: usize, strides: &[usize], folder: &Path) -> (PathBuf, FeatureExtractor) {
    let tile = Size { width: side.min(size.width), height: side.min(size.height) };
    let plain = FeatureExtractor::load(backbone, tile, &SessionOptions::default()).unwrap();
    let found: Vec<usize> = plain.levels().iter().map(|&(_, stride)| stride).collect();
    assert_eq!(found, strides);
    let tiling = Tiling::new(size, side, strides[strides.len() - 1]).unwrap();
    let out = folder.join("tiled.onnx");
    tile_backbone(backbone, plain.spec(), strides, &tiling, &out).unwrap();
    (out, plain)
}

fn cut(picture: &Picture, x: usize, y: usize, size: Size) -> Picture {
    let rows = (y..y + size.height).map(|row| (row * picture.size().width + x) * 3);
    let rgb = rows.flat_map(|at| picture.rgb()[at..at + 3 * size.width].iter().copied()).collect();
    Picture::from_rgb(size, rgb).unwrap()
}

/// Tiles of 128 on 208 x 160 that overlap by 96 or more begin at columns 0, 16, 48, 80 and rows 0, 32;
/// kept parts end in the middle of an overlap, at columns 64, 96, 128 and row 80.
#[test]
fn a_tiled_backbone_gives_every_cell_as_the_tile_that_it_is_kept_from_does() {
    let folder = tempfile::tempdir().unwrap();
    let size = Size { width: 208, height: 160 };
    let tile = Size { width: 128, height: 128 };
    let (path, mut plain) = tiled(&lite0(folder.path()), size, 128, &[4, 8, 16], folder.path());
    let mut extractor = FeatureExtractor::load(&path, size, &SessionOptions::default()).unwrap();
    let frames = pictures(size, 2);
    let found = extractor.extract(&frames.iter().collect::<Vec<_>>()).unwrap();
    for (frame, found) in frames.iter().zip(&found) {
        for (start_x, columns) in [(0, 0..64), (16, 64..96), (48, 96..128), (80, 128..208)] {
            for (start_y, rows) in [(0, 0..80), (32, 80..160)] {
                let expected = plain.extract(&[&cut(frame, start_x, start_y, tile)]).unwrap().remove(0);
                for ((found, expected), stride) in found.iter().zip(&expected).zip([4, 8, 16]) {
                    assert_eq!(found.dim().0 * stride, size.height);
                    for row in rows.start / stride..rows.end / stride {
                        for column in columns.start / stride..columns.end / stride {
                            for channel in 0..found.dim().2 {
                                let expected = expected[[row - start_y / stride, column - start_x / stride, channel]];
                                let found = found[[row, column, channel]];
                                assert!((found - expected).abs() < 1e-3, "{row} {column}: {found}, not {expected}");
                            }
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_tiled_backbone_can_be_exported_like_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let size = Size { width: 192, height: 112 };
    let (path, _) = tiled(&lite0(folder.path()), size, 112, &[4, 8, 16], folder.path());
    exported_model_equals_the_definition(&path, size, &[(0, 3), (1, 1), (2, 9)]);
}

/// Exports to a file that must not appear, and gives the error.
fn refused(backbone: &Path, spec: &BackboneSpec, size: Size, flows: &[FoldedFlow], outputs: &[&str]) -> ExportError {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("model.onnx");
    let outputs: Vec<String> = outputs.iter().map(|&name| name.to_owned()).collect();
    let export = ModelExport { backbone, spec, size, flows, outputs: &outputs, metadata: &[] };
    let error = export.write(FlowForm::Standard, &out).unwrap_err();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "a refused export left a file");
    error
}

#[test]
fn flows_that_do_not_fit_are_refused_with_what_was_expected() {
    let backbone = fixture("opset11.onnx");
    let spec = read_spec(&backbone);
    let size = Size { width: 48, height: 32 };
    let flow = || random_flow((8, 12), 9, FINEST, 5);
    let said = |flows: &[FoldedFlow], outputs: &[&str]| refused(&backbone, &spec, size, flows, outputs).to_string();

    let error = said(&[], &[]);
    assert!(
        error.contains("0 flows, on maps [], and 0 names of outputs for a backbone with 1 feature maps"),
        "{error}"
    );
    let error = said(&[flow()], &["image"]);
    assert!(error.contains("\"image\""), "{error}");
    let error = said(&[random_flow((8, 12), 10, FINEST, 5)], &["level0"]);
    assert!(error.contains("it has 10 channels, the backbone's y declares 9"), "{error}");
    let error = said(&[random_flow((16, 12), 9, FINEST, 5)], &["level0"]);
    assert!(error.contains("it has 16 rows, the backbone's y declares 8"), "{error}");

    let mut diverged = flow();
    diverged.blocks[3].w2[[0, 0]] = f32::NAN;
    let error = said(&[diverged], &["level0"]);
    assert!(error.contains("level 0") && error.contains("w2 of block 3 holds NaN"), "{error}");
    let mut odd = flow();
    odd.blocks[7].shift = Array1::zeros(8);
    let error = said(&[odd], &["level0"]);
    assert!(error.contains("shift of block 7 has shape [8], expected [9]"), "{error}");
    let mut odd = flow();
    odd.source.pooling = 4;
    let error = said(&[odd], &["level0"]);
    assert!(error.contains("side of 4, expected an odd number"), "{error}");
}

#[test]
fn backbones_that_do_not_fit_are_refused_with_what_was_expected() {
    let backbone = fixture("opset11.onnx");
    let spec = read_spec(&backbone);
    let size = Size { width: 48, height: 32 };
    let flows = [random_flow((8, 12), 9, FINEST, 5)];
    let said = |path: &Path, spec: &BackboneSpec, size: Size| refused(path, spec, size, &flows, &["a"]).to_string();

    let error = said(&backbone, &spec, Size { width: 64, height: 32 });
    assert!(error.contains("column axis of its input x has length 48, expected 64"), "{error}");
    let error = said(&backbone, &BackboneSpec { input: "pixels".into(), ..spec.clone() }, size);
    assert!(error.contains("its input is called x, its description says pixels"), "{error}");
    let error = said(&backbone, &BackboneSpec { outputs: vec!["z".into()], ..spec.clone() }, size);
    assert!(error.contains("no output z as its description says, only y"), "{error}");
    let error = said(&backbone, &BackboneSpec { deviation: [1.0, 0.0, 1.0], ..spec.clone() }, size);
    assert!(error.contains("deviation [1.0, 0.0, 1.0]"), "{error}");
    let error = said(&fixture("opset11.toml"), &spec, size);
    assert!(error.contains("is not an ONNX model"), "{error}");
    let error = said(&fixture("absent.onnx"), &spec, size);
    assert!(error.contains("absent.onnx: cannot open it"), "{error}");
}
