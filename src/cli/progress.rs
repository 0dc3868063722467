//! Progress of training in a terminal, or as lines where there is none.

use std::cell::{Cell, RefCell};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::training::Progress;

/// Without a terminal, a line so often.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// One bar per phase on standard error.
pub(super) struct Bars {
    terminal: bool,
    bar: RefCell<ProgressBar>,
    phase: RefCell<String>,
    total: Cell<u64>,
    started: Cell<Instant>,
    said: Cell<Instant>,
}

impl Bars {
    pub(super) fn new() -> Self {
        Self {
            terminal: std::io::stderr().is_terminal(),
            bar: RefCell::new(ProgressBar::hidden()),
            phase: RefCell::default(),
            total: Cell::new(0),
            started: Cell::new(Instant::now()),
            said: Cell::new(Instant::now()),
        }
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        self.bar.borrow().finish_and_clear();
    }
}

impl Progress for Bars {
    fn phase(&self, name: &str, total: u64) {
        self.bar.borrow().finish();
        self.phase.replace(name.to_owned());
        self.total.set(total);
        self.started.set(Instant::now());
        self.said.set(Instant::now());
        if self.terminal {
            let bar = ProgressBar::new(total);
            if let Ok(style) =
                ProgressStyle::with_template("{prefix:20} [{bar:30}] {pos}/{len} {elapsed} elapsed, {eta} left  {msg}")
            {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.set_prefix(name.to_owned());
            self.bar.replace(bar);
        } else {
            eprintln!("{name} ...");
        }
    }

    fn advance(&self, done: u64, note: &str) {
        if self.terminal {
            let bar = self.bar.borrow();
            bar.set_position(done);
            bar.set_message(note.to_owned());
        } else if self.said.get().elapsed() >= LINE_INTERVAL {
            self.said.set(Instant::now());
            let total = self.total.get();
            let left =
                self.started.get().elapsed().as_secs_f64() * (total.saturating_sub(done)) as f64 / done.max(1) as f64;
            eprintln!("{} {done}/{total}, {left:.0} s left  {note}", self.phase.borrow());
        }
    }

    fn tell(&self, text: &str) {
        if self.terminal {
            self.bar.borrow().println(text);
        } else {
            eprintln!("{text}");
        }
    }

    fn warn(&self, text: &str) {
        if self.terminal {
            self.bar.borrow().println(format!("warning: {text}"));
        } else {
            eprintln!("warning: {text}");
        }
    }
}
