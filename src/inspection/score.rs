//! What the model says about a picture.

use ndarray::Array2;

/// Raw log-likelihoods of one picture, a map per level from the finest to the coarsest:
/// `[row, column]`, nats per feature dimension, higher is more normal.
#[derive(Debug, Clone, PartialEq)]
pub struct LogLikelihoodMaps {
    /// One map per level.
    pub levels: Vec<Array2<f32>>,
}

impl LogLikelihoodMaps {
    /// Whether every value is a finite number.
    pub fn is_finite(&self) -> bool {
        self.levels.iter().all(|level| level.iter().all(|v| v.is_finite()))
    }
}

/// The fused map of one picture at the finest level's resolution: `[row, column]`, in calibrated
/// units (about zero on normal pixels, about 4 on a level in the oddest one of a good part), higher is more abnormal.
#[derive(Debug, Clone, PartialEq)]
pub struct AnomalyMap(pub Array2<f32>);
