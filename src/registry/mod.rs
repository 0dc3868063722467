//! Versions of bundles: which is active, promotion, rollback. The only room that may change which
//! bundle is active.

mod error;
mod gate;
mod store;

pub use error::RegistryError;
pub use gate::{GATE_RULE, GateFigures, GateVerdict, first_gate, gate};
pub use store::{Activation, Listed, Registry};
