//! Schedule, losses and optimiser.

mod adam;
mod level;
pub mod loss;
mod sampler;
mod schedule;

pub use adam::Adam;
pub use level::{DefectCells, FitError, LevelFit, StepReport};
pub use sampler::{CellSampler, PictureCells, Sampler};
pub use schedule::Schedule;
