//! BGAD's loss on a batch of pixels (paper sections 3.2 to 3.4; constants off the authors' code).
//!
//! Log-likelihoods are in nats per feature dimension; the contrastive terms and the boundaries
//! use them divided by [`NORMALISER`].

/// The authors' divisor of log-likelihoods in boundaries and contrastive terms.
pub const NORMALISER: f32 = 10.0;

/// Settings of the loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LossSettings {
    /// Quantile of the batch's normals that is the normal boundary (paper beta), in (0, 1).
    pub boundary_quantile: f32,
    /// Distance of the abnormal boundary below the normal one (paper tau), in units of
    /// log-likelihood / 10.
    pub margin: f32,
    /// Weight of the contrastive terms (paper lambda).
    pub contrast: f32,
    /// Whether hard pixels weigh more.
    pub focal: bool,
}

/// The loss of a batch, by term.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LossTerms {
    /// Maximum likelihood over normals.
    pub likelihood: f64,
    /// Pull of normals beyond the normal boundary.
    pub pull: f64,
    /// Push of abnormals above the abnormal boundary.
    pub push: f64,
    /// `b_n`, in units of log-likelihood / 10; none in a batch without abnormals.
    pub normal_boundary: Option<f32>,
    /// `b_a`, likewise.
    pub abnormal_boundary: Option<f32>,
}

impl LossTerms {
    /// The first term that is not a finite number, by name.
    pub fn not_finite(&self) -> Option<&'static str> {
        [("likelihood", self.likelihood), ("pull", self.pull), ("push", self.push)]
            .into_iter()
            .find(|(_, value)| !value.is_finite())
            .map(|(name, _)| name)
    }
}

/// Focal weight of a normal pixel.
fn normal_weight(log_likelihood: f32) -> f32 {
    let u = log_likelihood / NORMALISER;
    if u > -0.2 { 1.0 } else { 11.7 * (1.0 - u.exp()).sqrt() * u.abs() }
}

/// Focal weight of an abnormal pixel. The authors' 1/|u| has a pole at 0; the floor keeps it
/// finite and is passed only by pixels that lie deep inside the normals.
fn abnormal_weight(log_likelihood: f32) -> f32 {
    let u = log_likelihood / NORMALISER;
    if u <= -1.0 { 1.0 } else { 0.53 * (1.0 + u.exp()).powi(2) / u.abs().max(1e-2) }
}

/// Focal weights of a batch; `abnormal` tells which pixels are defective.
pub fn focal_weights(log_likelihoods: &[f32], abnormal: &[bool]) -> Vec<f32> {
    log_likelihoods
        .iter()
        .zip(abnormal)
        .map(|(&l, &defect)| if defect { abnormal_weight(l) } else { normal_weight(l) })
        .collect()
}

/// The batch's boundaries `(b_n, b_a)`, in units of log-likelihood / 10; none without normals.
pub fn boundaries(log_likelihoods: &[f32], abnormal: &[bool], settings: &LossSettings) -> Option<(f32, f32)> {
    let mut normals: Vec<f32> =
        log_likelihoods.iter().zip(abnormal).filter(|(_, defect)| !**defect).map(|(&l, _)| l).collect();
    if normals.is_empty() {
        return None;
    }
    let at = ((normals.len() as f32 * settings.boundary_quantile) as usize).min(normals.len() - 1);
    let (_, quantile, _) = normals.select_nth_unstable_by(at, f32::total_cmp);
    let b_n = *quantile / NORMALISER;
    Some((b_n, b_n - settings.margin))
}

/// `-ln sigmoid(l)` and its derivative.
fn negative_log_sigmoid(l: f32) -> (f32, f32) {
    ((-l).max(0.0) + (-l.abs()).exp().ln_1p(), -1.0 / (1.0 + l.exp()))
}

/// The loss on a batch and, into `gradient`, its derivative with respect to every
/// log-likelihood. Boundaries and weights are constants to the gradient. Without an abnormal
/// pixel it is the maximum-likelihood term alone.
pub fn loss(log_likelihoods: &[f32], abnormal: &[bool], settings: &LossSettings, gradient: &mut Vec<f32>) -> LossTerms {
    let n = log_likelihoods.len();
    gradient.clear();
    gradient.resize(n, 0.0);
    let weights = if settings.focal { focal_weights(log_likelihoods, abnormal) } else { vec![1.0; n] };
    let normals = abnormal.iter().filter(|defect| !**defect).count();
    let mut terms = LossTerms::default();
    if normals > 0 {
        let share = 1.0 / normals as f32;
        for i in (0..n).filter(|&i| !abnormal[i]) {
            let (value, slope) = negative_log_sigmoid(log_likelihoods[i]);
            terms.likelihood += f64::from(weights[i] * value);
            gradient[i] += share * weights[i] * slope;
        }
        terms.likelihood /= normals as f64;
    }
    if normals == n {
        return terms;
    }
    let Some((b_n, b_a)) = boundaries(log_likelihoods, abnormal, settings) else { return terms };
    terms.normal_boundary = Some(b_n);
    terms.abnormal_boundary = Some(b_a);
    let beyond = |i: usize| {
        let u = log_likelihoods[i] / NORMALISER;
        if abnormal[i] { u >= b_a } else { u <= b_n }
    };
    for defect in [false, true] {
        let count = (0..n).filter(|&i| abnormal[i] == defect && beyond(i)).count();
        if count == 0 {
            continue; // An empty mean is 0.
        }
        let share = settings.contrast / (count as f32 * NORMALISER);
        let mut sum = 0.0;
        for i in (0..n).filter(|&i| abnormal[i] == defect && beyond(i)) {
            let u = log_likelihoods[i] / NORMALISER;
            let (distance, sign) = if defect { (u - b_a, 1.0) } else { (b_n - u, -1.0) };
            sum += f64::from(weights[i] * distance);
            gradient[i] += sign * share * weights[i];
        }
        let mean = sum / count as f64;
        if defect {
            terms.push = mean;
        } else {
            terms.pull = mean;
        }
    }
    terms
}
