//! From a weight file to a feature extractor.

use std::path::PathBuf;
use std::process::{Command, Output};

use linegate::bundle::sha256_file;
use linegate::inspection::{Picture, Size};
use linegate::scoring::{BackboneSpec, FeatureExtractor, SessionOptions};
use linegate::training::export::{ExportError, Variant, WeightsError, import_backbone};

/// ImageNet weights as `deploy/setup.sh` places them.
pub(crate) fn weights() -> PathBuf {
    let path = crate::support::root().join(".runtime/efficientnet-lite0-57934424.pth");
    assert!(path.is_file(), "{} is missing: run deploy/setup.sh", path.display());
    path
}

/// A picture that is easily made anywhere: `(7x + 13y + 29c + xy mod 61) mod 256`.
pub(crate) fn pattern(size: Size) -> Picture {
    let value = |at: usize| {
        let (y, x, c) = (at / 3 / size.width, at / 3 % size.width, at % 3);
        ((x * 7 + y * 13 + c * 29 + (x * y) % 61) % 256) as u8
    };
    Picture::from_rgb(size, (0..size.width * size.height * 3).map(value).collect()).unwrap()
}

fn import(arguments: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_linegate");
    Command::new(program).args(["backbone", "import"]).args(arguments).output().unwrap()
}

/// (level, row, column, channel, value) of [`pattern`] at 96x64, from the graph that
/// `export_backbone.py lite0` wrote (numpy and onnx, no torch) of the same weights, run in ONNX
/// Runtime 1.32 on a CPU.
const REFERENCE: [(usize, usize, usize, usize, f32); 15] = [
    (0, 0, 0, 0, -8.601_325),
    (0, 15, 23, 23, 9.454_833),
    (0, 8, 8, 12, -23.617_142),
    (0, 0, 23, 5, -5.484_068),
    (0, 15, 0, 8, 19.908_49),
    (1, 0, 0, 0, -3.299_248),
    (1, 7, 11, 39, -19.822_086),
    (1, 4, 4, 20, 8.430_509),
    (1, 0, 11, 5, -31.794_34),
    (1, 7, 0, 13, 7.007_974),
    (2, 0, 0, 0, -2.128_697),
    (2, 3, 5, 111, 7.412_262),
    (2, 2, 2, 56, 15.208_075),
    (2, 0, 5, 5, -6.966_594),
    (2, 3, 0, 37, 0.409_029),
];

#[test]
fn an_imported_lite0_computes_what_the_reference_does() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("lite0.onnx");
    let imported = import_backbone(Variant::Lite0, &weights(), &out).unwrap();
    assert_eq!(imported.channels, [24, 40, 112]);

    let size = Size { width: 96, height: 64 };
    let mut extractor = FeatureExtractor::load(&out, size, &SessionOptions::default()).unwrap();
    assert_eq!(extractor.levels(), [(24, 4), (40, 8), (112, 16)]);
    let features = extractor.extract(&[&pattern(size)]).unwrap();
    for (level, row, column, channel, expected) in REFERENCE {
        let found = features[0][level][[row, column, channel]];
        // Another processor adds up in another order; values reach 40.
        assert!((found - expected).abs() < 1e-4, "level {level} at {row},{column},{channel}: {found}, not {expected}");
    }
}

#[test]
fn the_command_writes_both_files_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("lite0.onnx");
    let weights = weights();
    let arguments = ["--variant", "lite0", "--weights", weights.to_str().unwrap(), "--out", out.to_str().unwrap()];
    let output = import(&arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).unwrap();
    for part in ["692688", "f4: 24 channels", "f8: 40 channels", "f16: 112 channels", &sha256_file(&out).unwrap()] {
        assert!(said.contains(part), "{part} is missing in\n{said}");
    }

    let text = std::fs::read_to_string(out.with_extension("toml")).unwrap();
    let spec: BackboneSpec = toml::from_str(&text).unwrap();
    assert_eq!(spec.outputs, ["f4", "f8", "f16"]);
    assert_eq!((spec.mean, spec.deviation), ([127.0; 3], [128.0; 3]));
    // Nothing temporary is left.
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn an_import_is_the_same_file_every_time() {
    let folder = tempfile::tempdir().unwrap();
    let [first, second] = ["a.onnx", "b.onnx"].map(|name| {
        let out = folder.path().join(name);
        (import_backbone(Variant::Lite0, &weights(), &out).unwrap().sha256, sha256_file(&out).unwrap())
    });
    assert_eq!(first, second);
    assert_eq!(first.0, first.1);
}

#[test]
fn weights_of_another_variant_are_refused_with_the_tensor_that_differs() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("lite1.onnx");
    let weights = weights();
    let arguments = ["--variant", "lite1", "--weights", weights.to_str().unwrap(), "--out", out.to_str().unwrap()];
    let output = import(&arguments);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("_blocks.3._depthwise_conv.weight has shape [144, 1, 5, 5], expected [144, 1, 3, 3]"),
        "{said}"
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn files_that_are_no_legacy_weights_get_their_own_errors() {
    let folder = tempfile::tempdir().unwrap();
    let real = std::fs::read(weights()).unwrap();
    let attempt = |bytes: &[u8]| {
        let path = folder.path().join("weights.pth");
        std::fs::write(&path, bytes).unwrap();
        match import_backbone(Variant::Lite0, &path, &folder.path().join("out.onnx")) {
            Err(ExportError::Weights { source, .. }) => source,
            other => panic!("{other:?}"),
        }
    };
    assert!(matches!(attempt(b"PK\x03\x04 and so on"), WeightsError::ZipFormat));
    assert!(matches!(attempt(b""), WeightsError::NotTorch));
    assert!(matches!(attempt(b"\x89PNG"), WeightsError::NotTorch));
    assert!(matches!(attempt(&real[..10_000]), WeightsError::Pickle(_)));
    assert!(matches!(attempt(&real[..real.len() - 1]), WeightsError::Truncated { .. }));
    // The byte order is said by one opcode, NEWTRUE, in the first dictionary.
    let mut big_endian = real.clone();
    let at = big_endian.iter().position(|&byte| byte == 0x88).unwrap();
    big_endian[at] = 0x89;
    assert!(matches!(attempt(&big_endian), WeightsError::BigEndian));
    // A name that could run code.
    let mut hostile = real.clone();
    let name = b"ccollections\nOrderedDict\n";
    let at = hostile.windows(name.len()).position(|window| window == name).unwrap();
    hostile[at..at + name.len()].copy_from_slice(b"cposix......\nsystem.....\n");
    let WeightsError::Pickle(refused) = attempt(&hostile) else { panic!("not refused") };
    assert!(refused.to_string().contains("posix"), "{refused}");
}

#[test]
fn a_missing_weight_file_or_folder_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.pth");
    let error = import_backbone(Variant::Lite0, &missing, &folder.path().join("out.onnx")).unwrap_err();
    assert!(error.to_string().contains("missing.pth"), "{error}");
    let error = import_backbone(Variant::Lite0, &weights(), &folder.path().join("no/such/out.onnx")).unwrap_err();
    assert!(error.to_string().contains("its folder must exist"), "{error}");
    let error = import_backbone(Variant::Lite0, &weights(), &folder.path().join("out.toml")).unwrap_err();
    assert!(error.to_string().contains("end the name in .onnx"), "{error}");
}
