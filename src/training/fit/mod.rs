//! Schedule, losses and optimiser.

mod adam;
mod level;
pub mod loss;
mod sampler;
mod schedule;

pub use adam::Adam;
pub use level::{AbnormalCells, FitError, LevelFit, StepReport};
pub use sampler::Sampler;
pub use schedule::Schedule;
