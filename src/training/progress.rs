//! How training tells what it is doing.

/// Receives progress; called from the training thread.
pub trait Progress {
    /// A phase begins that takes `total` units.
    fn phase(&self, name: &str, total: u64);
    /// `done` units of the phase are done; `note` says how it goes.
    fn advance(&self, done: u64, note: &str);
    /// What was chosen, and why; said once.
    fn tell(&self, _text: &str) {}
    /// Something a person must know.
    fn warn(&self, text: &str);
}

/// Says nothing.
#[derive(Debug, Clone, Copy)]
pub struct Silent;

impl Progress for Silent {
    fn phase(&self, _name: &str, _total: u64) {}
    fn advance(&self, _done: u64, _note: &str) {}
    fn warn(&self, _text: &str) {}
}
