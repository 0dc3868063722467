//! Elementary functions on vectors, as exact as single precision lets a coupling be.

use pulp::Simd;

/// Beyond it the hyperbolic tangent is 1 in single precision.
const TANH_BOUND: f32 = 7.905_311;
/// Odd numerator of the rational approximation, highest power first: x¹³ to x.
const TANH_NUMERATOR: [f32; 7] =
    [-2.760_768_5e-16, 2.000_188e-13, -8.604_672e-11, 5.122_297e-8, 1.485_722_4e-5, 6.372_619_3e-4, 4.893_524_6e-3];
/// Even denominator, highest power first: x⁶ to 1.
const TANH_DENOMINATOR: [f32; 4] = [1.198_258_4e-6, 1.185_347_1e-4, 2.268_434_6e-3, 4.893_525e-3];
/// 1/n! from n = 8 down to 0.
const EXPONENTIAL: [f32; 9] =
    [1.0 / 40320.0, 1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];

/// The polynomial with these coefficients, highest power first, at `x`.
#[inline(always)]
fn polynomial<S: Simd>(simd: S, coefficients: &[f32], x: S::f32s) -> S::f32s {
    let mut value = simd.splat_f32s(coefficients[0]);
    for &coefficient in &coefficients[1..] {
        value = simd.mul_add_e_f32s(value, x, simd.splat_f32s(coefficient));
    }
    value
}

/// Hyperbolic tangent, to 5e-7: the rational approximation that Eigen and ONNX Runtime use.
#[inline(always)]
pub(super) fn tanh<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let bound = simd.splat_f32s(TANH_BOUND);
    let x = simd.max_f32s(simd.min_f32s(x, bound), simd.splat_f32s(-TANH_BOUND));
    let square = simd.mul_f32s(x, x);
    let numerator = simd.mul_f32s(x, polynomial(simd, &TANH_NUMERATOR, square));
    simd.div_f32s(numerator, polynomial(simd, &TANH_DENOMINATOR, square))
}

/// Exponential of a log-scale, which the coupling keeps within 1.9 of 0: the fourth power of the
/// Taylor polynomial at a quarter, to 6e-7 of the value.
#[inline(always)]
pub(super) fn exp_of_log_scale<S: Simd>(simd: S, s: S::f32s) -> S::f32s {
    let root = polynomial(simd, &EXPONENTIAL, simd.mul_f32s(s, simd.splat_f32s(0.25)));
    let square = simd.mul_f32s(root, root);
    simd.mul_f32s(square, square)
}

#[cfg(test)]
mod tests {
    use pulp::{Arch, WithSimd};

    use super::*;

    struct Both<'a>(&'a [f32; 16]);

    impl WithSimd for Both<'_> {
        type Output = ([f32; 16], [f32; 16]);

        fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
            let (mut hyperbolic, mut exponential) = ([0.0; 16], [0.0; 16]);
            let into = S::as_mut_simd_f32s(&mut hyperbolic).0.iter_mut().zip(S::as_mut_simd_f32s(&mut exponential).0);
            for (&x, (t, e)) in S::as_simd_f32s(self.0).0.iter().zip(into) {
                (*t, *e) = (tanh(simd, x), exp_of_log_scale(simd, x));
            }
            (hyperbolic, exponential)
        }
    }

    fn check(of: impl Fn(&[f32; 16]) -> ([f32; 16], [f32; 16])) {
        for start in -1600..1600 {
            let x: [f32; 16] = std::array::from_fn(|i| (start * 16 + i as i32) as f32 * 4e-4);
            let (hyperbolic, exponential) = of(&x);
            for ((x, t), e) in x.iter().zip(hyperbolic).zip(exponential) {
                assert!((t - x.tanh()).abs() < 5e-7, "tanh {x} is {t}");
                assert!(x.abs() > 1.9 || (e / x.exp() - 1.0).abs() < 6e-7, "exp {x} is {e}");
            }
        }
        let (ends, _) =
            of(&[50.0, -50.0, f32::INFINITY, f32::NEG_INFINITY, 0., 0., 0., 0., 0., 0., 0., 0., 0., 0., 0., 0.]);
        assert!(ends.iter().zip([1.0, -1.0, 1.0, -1.0, 0.0]).all(|(t, e)| (t - e).abs() < 5e-7), "{ends:?}");
    }

    #[test]
    fn they_are_as_exact_as_they_say_on_every_kind_of_vector() {
        check(|x| Arch::new().dispatch(Both(x)));
        check(|x| Both(x).with_simd(pulp::Scalar));
    }
}
