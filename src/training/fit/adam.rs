//! The optimiser.

/// Adam (Kingma & Ba 2015) with the usual 0.9, 0.999 and 1e-8.
#[derive(Debug, Clone)]
pub struct Adam {
    mean: Vec<f32>,
    square: Vec<f32>,
    step: i32,
}

impl Adam {
    /// For `count` parameters.
    pub fn new(count: usize) -> Self {
        Self { mean: vec![0.0; count], square: vec![0.0; count], step: 0 }
    }

    /// One step against `gradient`.
    pub fn step(&mut self, parameters: &mut [f32], gradient: &[f32], learning_rate: f32) {
        const FIRST: f32 = 0.9;
        const SECOND: f32 = 0.999;
        self.step += 1;
        // The usual bias corrections, folded into the rate and the floor.
        let correction = (1.0 - SECOND.powi(self.step)).sqrt();
        let rate = learning_rate * correction / (1.0 - FIRST.powi(self.step));
        let floor = 1e-8 * correction;
        for (((p, g), m), v) in parameters.iter_mut().zip(gradient).zip(&mut self.mean).zip(&mut self.square) {
            *m += (1.0 - FIRST) * (g - *m);
            *v += (1.0 - SECOND) * (g * g - *v);
            *p -= rate * *m / (v.sqrt() + floor);
        }
    }
}
