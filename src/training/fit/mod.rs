//! Schedule, losses and optimiser.
