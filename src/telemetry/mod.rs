//! Log events and their set-up.
