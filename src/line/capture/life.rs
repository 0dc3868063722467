//! The life of one graph, on a thread of its own: a driver, a network disk or an element in there may
//! hang when it is built, started or taken down, and the camera's supervisor must not hang with it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::feed::Feed;
use super::pipeline::Plan;
use super::supervisor::{End, Stop, describe, watch};
use crate::line::panic_message;

/// A graph that does not get on for so long hangs.
const HANGS: Duration = Duration::from_secs(10);
/// Time between two looks at it.
const LOOK: Duration = Duration::from_millis(100);
/// Time between two looks at whether it is down.
const DOWN_LOOK: Duration = Duration::from_millis(1);

/// What a graph's thread and its supervisor tell each other.
#[derive(Debug)]
pub(super) struct Pulse {
    stop: Arc<Stop>,
    beat: Mutex<Instant>,
    forsaken: AtomicBool,
}

impl Pulse {
    /// Says that the graph gets on; whether it shall go on.
    pub(super) fn goes_on(&self) -> bool {
        self.beat();
        !self.stop.is_wanted() && !self.forsaken.load(Ordering::SeqCst)
    }

    fn beat(&self) {
        *self.beat.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn hangs(&self) -> bool {
        self.beat.lock().unwrap_or_else(PoisonError::into_inner).elapsed() >= HANGS
    }
}

/// A graph on its thread.
#[derive(Debug)]
pub(super) struct Life {
    feed: Arc<Feed>,
    /// Number of the graph at its feed.
    graph: u64,
    pulse: Arc<Pulse>,
    ended: Receiver<(End, u64)>,
    thread: Result<JoinHandle<()>, std::io::Error>,
}

impl Life {
    /// Builds the graph and lets it play; a folder camera from `position` on.
    pub(super) fn begin(plan: &Arc<Plan>, feed: &Arc<Feed>, stop: &Arc<Stop>, position: u64) -> Self {
        let graph = feed.begin();
        let beat = Mutex::new(Instant::now());
        let pulse = Arc::new(Pulse { stop: stop.clone(), beat, forsaken: AtomicBool::new(false) });
        let (sender, ended) = sync_channel(1);
        let thread = {
            let (plan, feed, pulse) = (plan.clone(), feed.clone(), pulse.clone());
            std::thread::Builder::new().name(format!("graph-{}", plan.camera)).spawn(move || {
                let mut built = None;
                let play = || match plan.build(&feed, graph, position) {
                    // Left behind, or stopped, while it was built: it must not start beside another.
                    Ok(_) if !pulse.goes_on() => End::Stopped,
                    Ok(graph) => watch(&plan, built.insert(graph), &feed, &pulse),
                    Err(error) => End::Failed(describe(&error)),
                };
                // A graph that breaks the program's own assumptions is a camera that was lost.
                let end = catch_unwind(AssertUnwindSafe(play))
                    .unwrap_or_else(|payload| End::Failed(format!("panic: {}", panic_message(&*payload))));
                feed.hear_no_more(graph);
                let position = match (&end, &built) {
                    (End::Over(_), _) => 0,
                    (_, Some(graph)) => graph.position(),
                    (_, None) => position,
                };
                pulse.beat();
                let _ = sender.send((end, position));
                drop(built);
            })
        };
        Self { feed: feed.clone(), graph, pulse, ended, thread }
    }

    /// Waits for the end, which is how the graph ended or that it hangs, and where a folder camera stood
    /// then. The graph is not heard any more, and may still be on its way down.
    pub(super) fn end(&self) -> (End, Option<u64>) {
        if let Err(error) = &self.thread {
            return (End::Failed(format!("a thread for it cannot be started: {error}")), None);
        }
        loop {
            match self.ended.recv_timeout(LOOK) {
                Ok((end, position)) => return (end, Some(position)),
                Err(RecvTimeoutError::Timeout) if !self.pulse.hangs() => {}
                Err(_) => {
                    self.pulse.forsaken.store(true, Ordering::SeqCst);
                    self.feed.hear_no_more(self.graph);
                    let stopped = self.pulse.stop.is_wanted();
                    let reason = format!("its graph hangs, no sign of it for {} s", HANGS.as_secs());
                    return (if stopped { End::Stopped } else { End::Failed(reason) }, None);
                }
            }
        }
    }

    /// Waits until the graph is taken down; its thread where that hangs, too.
    pub(super) fn wait_until_down(self) -> Option<JoinHandle<()>> {
        let thread = self.thread.ok()?;
        while !thread.is_finished() && !self.pulse.hangs() {
            std::thread::sleep(DOWN_LOOK);
        }
        if thread.is_finished() {
            // It catches its own panics.
            let _ = thread.join();
            return None;
        }
        tracing::error!("a camera's graph hangs and is left behind");
        Some(thread)
    }
}
