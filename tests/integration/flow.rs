//! The flow and the losses against golden numbers of the reference implementation.
//!
//! `golden/bgad_flow.npz`: computed with PyTorch 2.15, FrEIA 0.2 and the authors' loss functions:
//! two conditional flows of 3 blocks, 10 and 7 channels, 96 pixels on 6 rows × 9 columns.
//! Tolerances: values 1e-4 relative, gradients 5e-4 of the largest.

use std::fs::File;

use linegate::training::fit::loss::{LossSettings, boundaries, focal_weights, loss};
use linegate::training::flow::{Flow, FlowShape, Part, Pass, Pixels, position_code};
use ndarray::ArrayD;
use ndarray_npy::NpzReader;
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

struct Golden {
    file: NpzReader<File>,
    prefix: &'static str,
}

impl Golden {
    fn open(prefix: &'static str) -> Self {
        let path = crate::support::root().join("tests/integration/golden/bgad_flow.npz");
        Self { file: NpzReader::new(File::open(path).unwrap()).unwrap(), prefix }
    }

    fn array(&mut self, name: &str) -> ArrayD<f32> {
        let name = format!("{}_{name}", self.prefix);
        self.file
            .by_name::<ndarray::OwnedRepr<f32>, ndarray::IxDyn>(&name)
            .or_else(|_| {
                self.file.by_name::<ndarray::OwnedRepr<f64>, ndarray::IxDyn>(&name).map(|a| a.mapv(|v| v as f32))
            })
            .unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn values(&mut self, name: &str) -> Vec<f32> {
        self.array(name).iter().copied().collect()
    }

    fn scalar(&mut self, name: &str) -> f64 {
        f64::from(self.values(name)[0])
    }

    /// A set of parameters in our order: the first layer's columns are split into features and
    /// condition.
    fn parameters(&mut self, set: &str, shape: &FlowShape) -> Vec<f32> {
        let mut all = vec![0.0; shape.parameter_count()];
        for block in 0..shape.blocks {
            let first = self.array(&format!("{set}.module_list.{block}.subnet.0.weight"));
            let inputs = first.shape()[1];
            let rows: Vec<f32> = first.iter().copied().collect();
            let columns = |range: std::ops::Range<usize>| -> Vec<f32> {
                rows.chunks_exact(inputs).flat_map(|row| row[range.clone()].to_vec()).collect()
            };
            let mut put = |part, values: Vec<f32>| all[shape.range(block, part)].copy_from_slice(&values);
            put(Part::FeatureWeight, columns(0..shape.first()));
            put(Part::ConditionWeight, columns(shape.first()..inputs));
            put(Part::HiddenBias, self.values(&format!("{set}.module_list.{block}.subnet.0.bias")));
            put(Part::OutputWeight, self.values(&format!("{set}.module_list.{block}.subnet.2.weight")));
            put(Part::OutputBias, self.values(&format!("{set}.module_list.{block}.subnet.2.bias")));
            put(Part::GlobalScale, self.values(&format!("{set}.module_list.{block}.global_scale")));
            put(Part::GlobalOffset, self.values(&format!("{set}.module_list.{block}.global_offset")));
        }
        all
    }
}

struct Case {
    golden: Golden,
    flow: Flow,
    features: Vec<f32>,
    places: Vec<[u16; 2]>,
}

fn case(prefix: &'static str) -> Case {
    let mut golden = Golden::open(prefix);
    let x = golden.array("x");
    let shape = FlowShape {
        channels: x.shape()[1],
        blocks: 3,
        hidden: golden.array("param.module_list.0.subnet.0.bias").len(),
    };
    assert_eq!(shape.hidden, FlowShape::paper_hidden(shape.channels));
    let parameters = golden.parameters("param", &shape);
    let rotations = (0..3).map(|b| golden.values(&format!("param.module_list.{b}.w_perm"))).collect();
    let places = golden.values("row").iter().zip(golden.values("col")).map(|(r, c)| [*r as u16, c as u16]).collect();
    Case { golden, flow: Flow { shape, parameters, rotations }, features: x.iter().copied().collect(), places }
}

#[track_caller]
fn close(what: &str, got: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(got.len(), expected.len(), "{what}: length");
    let scale = expected.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        assert!((g - e).abs() <= tolerance * scale.max(1e-6), "{what}[{i}]: {g} is not {e} (scale {scale})");
    }
}

#[test]
fn position_code_equals_the_reference() {
    let mut golden = Golden::open("c10");
    let expected = golden.array("position");
    let (rows, columns) = (position_code(6), position_code(9));
    for r in 0..6 {
        for c in 0..9 {
            for k in 0..64 {
                assert!((expected[[r, c, k]] - columns[[c, k]]).abs() < 1e-6, "column code at {c}, {k}");
                assert!((expected[[r, c, 64 + k]] - rows[[r, k]]).abs() < 1e-6, "row code at {r}, {k}");
            }
        }
    }
}

fn forward_and_likelihood_gradient_equal_the_reference(prefix: &'static str) {
    for threads in [1, 2] {
        let mut case = case(prefix);
        let shape = case.flow.shape;
        let mut pass = Pass::new(shape, 6, 9, threads);
        let pixels = Pixels { features: &case.features, places: &case.places };
        let l = pass.forward(&case.flow, pixels).to_vec();
        close("log_likelihood", &l, &case.golden.values("log_likelihood"), 1e-4);
        // The latent's tape layout holds whole tiles: 96 pixels are a full one and a half one.
        let (_, logdet) = pass.latent();
        close("logdet", logdet, &case.golden.values("logdet"), 1e-4);
        assert_eq!(pass.log_likelihood(&case.flow, pixels), l, "the pass without a tape says the same");

        pass.forward(&case.flow, pixels);
        let mut gradient = Vec::new();
        let settings = LossSettings { boundary_quantile: 0.05, margin: 0.1, contrast: 1.0, focal: false };
        let terms = loss(&l, &vec![false; l.len()], &settings, &mut gradient);
        let expected = case.golden.scalar("loss_ml");
        assert!((terms.likelihood - expected).abs() <= 1e-4 * expected, "{} is not {expected}", terms.likelihood);
        let got = pass.backward(&case.flow, pixels, &gradient).to_vec();
        compare_gradients(&shape, &got, &case.golden.parameters("grad_ml", &shape));
    }
}

fn compare_gradients(shape: &FlowShape, got: &[f32], expected: &[f32]) {
    for block in 0..shape.blocks {
        for part in Part::ALL {
            let range = shape.range(block, part);
            close(&format!("gradient of {part:?} in block {block}"), &got[range.clone()], &expected[range], 5e-4);
        }
    }
}

fn bgad_loss_and_gradient_equal_the_reference(prefix: &'static str) {
    let mut case = case(prefix);
    let shape = case.flow.shape;
    let mut pass = Pass::new(shape, 6, 9, 2);
    let pixels = Pixels { features: &case.features, places: &case.places };
    let l = pass.forward(&case.flow, pixels).to_vec();
    let abnormal: Vec<bool> = case.golden.values("mask").iter().map(|&m| m > 0.5).collect();
    let settings = LossSettings { boundary_quantile: 0.05, margin: 0.1, contrast: 1.0, focal: true };
    close("weights", &focal_weights(&l, &abnormal), &case.golden.values("weights"), 1e-4);
    let (b_n, b_a) = boundaries(&l, &abnormal, &settings).unwrap();
    close("b_n", &[b_n], &case.golden.values("b_n"), 1e-4);
    close("b_a", &[b_a], &case.golden.values("b_a"), 1e-4);
    let mut gradient = Vec::new();
    let terms = loss(&l, &abnormal, &settings, &mut gradient);
    for (name, got) in [
        ("bgad_ml", terms.likelihood),
        ("bgad_pull", terms.pull),
        ("bgad_push", terms.push),
        ("bgad_loss", terms.likelihood + terms.pull + terms.push),
    ] {
        let expected = case.golden.scalar(name);
        assert!((got - expected).abs() <= 1e-4 * expected.abs().max(1e-6), "{name}: {got} is not {expected}");
    }
    close("gradient of l", &gradient, &case.golden.values("grad_bgad_wrt_log_likelihood"), 5e-4);
    let got = pass.backward(&case.flow, pixels, &gradient).to_vec();
    compare_gradients(&shape, &got, &case.golden.parameters("grad_bgad", &shape));
}

#[test]
fn flow_of_even_channels_equals_the_reference() {
    forward_and_likelihood_gradient_equal_the_reference("c10");
}

#[test]
fn flow_of_odd_channels_equals_the_reference() {
    forward_and_likelihood_gradient_equal_the_reference("c7");
}

#[test]
fn bgad_loss_of_even_channels_equals_the_reference() {
    bgad_loss_and_gradient_equal_the_reference("c10");
}

#[test]
fn bgad_loss_of_odd_channels_equals_the_reference() {
    bgad_loss_and_gradient_equal_the_reference("c7");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// The log-determinant is that of the Jacobian, taken numerically column by column.
    #[test]
    fn the_log_determinant_is_that_of_the_jacobian(seed in 0u64..1000, channels in 2usize..7) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let shape = FlowShape { channels, blocks: 2, hidden: 12 };
        let flow = Flow::new(shape, None, &mut rng);
        let mut pass = Pass::new(shape, 3, 3, 1);
        let x: Vec<f32> = (0..channels).map(|_| rng.random_range(-1.0..1.0)).collect();
        let places = vec![[1u16, 2u16]];
        let step = 1e-2f32;
        let mut jacobian = vec![vec![0.0f64; channels]; channels];
        for j in 0..channels {
            let mut at = |delta: f32| {
                let mut moved = x.clone();
                moved[j] += delta;
                pass.forward(&flow, Pixels { features: &moved, places: &places });
                pass.latent().0
            };
            let (up, down) = (at(step), at(-step));
            for i in 0..channels {
                jacobian[i][j] = f64::from(up[i] - down[i]) / (2.0 * f64::from(step));
            }
        }
        let mut log = 0.0;
        for i in 0..channels {
            let pivot = (i..channels).max_by(|&a, &b| jacobian[a][i].abs().total_cmp(&jacobian[b][i].abs())).unwrap();
            jacobian.swap(i, pivot);
            log += jacobian[i][i].abs().ln();
            for r in i + 1..channels {
                let factor = jacobian[r][i] / jacobian[i][i];
                for k in i..channels {
                    let above = jacobian[i][k];
                    jacobian[r][k] -= factor * above;
                }
            }
        }
        pass.forward(&flow, Pixels { features: &x, places: &places });
        let logdet = f64::from(pass.latent().1[0]);
        prop_assert!((logdet - log).abs() < 1e-2, "{logdet} is not {log}");
    }
}
