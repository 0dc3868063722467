//! Who has a decision: the subscriber, the outbox, both or nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use linegate::inspection::Decision;
use linegate::line::outbox::Outbox;
use linegate::line::publishing::Delivery;

use crate::publishing::brokers::Listener;
use crate::publishing::decision;

/// Everything that the listener got, parsed.
pub(crate) fn received(listener: &Listener) -> Vec<Decision> {
    let messages = listener.on("/decision");
    messages.iter().map(|message| serde_json::from_str(&message.payload).unwrap()).collect()
}

/// What an outbox that nobody has open holds; it must open as it is.
pub(crate) fn left_in(file: &Path) -> Vec<Decision> {
    let outbox = Outbox::open(file, u64::MAX >> 1).unwrap();
    let left = outbox.page(0, 1_000_000).unwrap().into_iter().map(|waiting| waiting.decision).collect();
    drop(outbox);
    let name = file.file_name().unwrap().to_str().unwrap();
    let set_aside: Vec<String> = std::fs::read_dir(file.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|found| found.starts_with(&format!("{name}.corrupt-")))
        .collect();
    assert!(set_aside.is_empty(), "the outbox did not open clean: {set_aside:?}");
    left
}

/// Submits decisions at an even rate until told to stop.
pub(crate) struct Producer<'a> {
    pub(crate) delivery: &'a Delivery,
    pub(crate) rate: u32,
    pub(crate) submitted: Mutex<BTreeSet<String>>,
    pub(crate) done: AtomicBool,
}

impl<'a> Producer<'a> {
    pub(crate) fn new(delivery: &'a Delivery, rate: u32) -> Self {
        Self { delivery, rate, submitted: Mutex::default(), done: AtomicBool::new(false) }
    }

    pub(crate) fn run(&self) {
        let started = Instant::now();
        for number in 1u32.. {
            if self.done.load(Ordering::SeqCst) {
                return;
            }
            let sent = Decision { sequence: number.into(), deadline_ms: None, ..decision("front") };
            // Before: what is handed over counts, whatever becomes of it.
            self.submitted.lock().unwrap().insert(sent.result_id.clone());
            self.delivery.submit(sent).unwrap();
            let due = Duration::from_secs(1) * number / self.rate;
            std::thread::sleep(due.saturating_sub(started.elapsed()));
        }
    }

    pub(crate) fn submitted(&self) -> BTreeSet<String> {
        self.submitted.lock().unwrap().clone()
    }
}

/// Waits until the subscriber has everything that was submitted, then checks what came more than
/// once; how many copies too many there were.
#[track_caller]
pub(crate) fn assert_all_arrived(listener: &Listener, submitted: &BTreeSet<String>, patience: Duration) -> usize {
    let until = Instant::now() + patience;
    let arrived = loop {
        let arrived = received(listener);
        let seen: BTreeSet<&String> = arrived.iter().map(|decision| &decision.result_id).collect();
        let missing = submitted.iter().filter(|id| !seen.contains(id)).count();
        if missing == 0 {
            break arrived;
        }
        assert!(Instant::now() < until, "{missing} of {} decisions never arrived", submitted.len());
        std::thread::sleep(Duration::from_millis(200));
    };
    let mut first: BTreeMap<&str, &Decision> = BTreeMap::new();
    for decision in &arrived {
        assert!(submitted.contains(&decision.result_id), "a decision that nobody made: {decision:?}");
        assert_eq!(decision.replayed, decision.age_ms.is_some());
        let before = *first.entry(&decision.result_id).or_insert(decision);
        let bare = |one: &Decision| Decision { published_us: 0, replayed: false, age_ms: None, ..one.clone() };
        assert_eq!(bare(before), bare(decision), "a copy says the same");
    }
    let sequences: BTreeSet<u64> = first.values().map(|decision| decision.sequence).collect();
    assert_eq!(sequences.len(), first.len(), "one identity, one number");
    arrived.len() - first.len()
}
