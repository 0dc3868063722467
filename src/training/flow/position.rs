//! The position code that conditions the flow.

use ndarray::Array2;

/// Length of the condition vector: the first half codes the column, the second the row.
pub const CONDITION_LENGTH: usize = 128;

/// Sinusoidal code of the places `0..count` along one axis, `[place, 64]`: sine and cosine
/// interleaved, frequencies `exp(-2 i ln(10000) / 64)` (the authors' `positionalencoding2d`).
pub fn position_code(count: usize) -> Array2<f32> {
    let half = CONDITION_LENGTH / 2;
    Array2::from_shape_fn((count, half), |(place, k)| {
        let frequency = (-(2.0 * (k / 2) as f64) * 10_000f64.ln() / half as f64).exp();
        let angle = place as f64 * frequency;
        (if k % 2 == 0 { angle.sin() } else { angle.cos() }) as f32
    })
}
