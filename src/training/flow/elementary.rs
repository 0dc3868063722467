//! Exponential and hyperbolic tangent written so that the compiler turns loops over them into
//! vector code; the C library's are calls, one value each.

/// `e^x` to about 2e-7 relative for |x| <= 80, clamped beyond.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    // Cody-Waite: x = n ln 2 + r with |r| <= ln 2 / 2, e^r by a polynomial, 2^n by exponent bits.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Adding and subtracting 1.5 * 2^23 rounds to the nearest integer.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-80.0, 80.0);
    let rounded = x * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = x - n * LN2_HIGH - n * LN2_LOW;
    let p = 1.987_569_2e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_6e-1;
    let p = p * r + 0.5;
    let p = p * r * r + r + 1.0;
    // The lowest bits of `rounded` count up from those of ROUND: a cast would look for what is no number first.
    p * f32::from_bits(rounded.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23)
}

/// `tanh(x)`, within 2e-7.
#[inline(always)]
pub(super) fn tanh(x: f32) -> f32 {
    1.0 - 2.0 / (exp(2.0 * x.clamp(-15.0, 15.0)) + 1.0)
}

/// The sum of `of` every value: by lanes, where one value after the other would wait for the sum before.
#[inline(always)]
pub(super) fn sum(values: &[f32], of: impl Fn(f32) -> f32) -> f32 {
    let (lanes, rest) = values.as_chunks::<16>();
    let mut sums = [0.0; 16];
    for lane in lanes {
        sums.iter_mut().zip(lane).for_each(|(sum, &value)| *sum += of(value));
    }
    sums.iter().sum::<f32>() + rest.iter().map(|&value| of(value)).sum::<f32>()
}

#[cfg(test)]
mod tests {
    #[test]
    fn exp_and_tanh_agree_with_double_precision() {
        for i in -8000..=8000 {
            let x = i as f32 * 0.01;
            let exact = f64::from(x).exp();
            assert!((f64::from(super::exp(x)) - exact).abs() <= 3e-7 * exact, "exp({x})");
            assert!((f64::from(super::tanh(x)) - f64::from(x).tanh()).abs() <= 2e-7, "tanh({x})");
        }
    }

    #[test]
    fn a_sum_has_every_value_once() {
        for count in [0, 5, 16, 39] {
            let values: Vec<f32> = (0..count).map(|i| i as f32).collect();
            assert_eq!(super::sum(&values, |v| 2.0 * v), (count * (count.max(1) - 1)) as f32, "{count}");
        }
    }
}
