//! Schedule, losses and optimiser.

mod adam;
pub mod loss;

pub use adam::Adam;
