//! The scorers' threads and their seats: a scorer that hangs loses its seat to another.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::error::LineError;
use super::judgement::Judgement;
use super::model::{ActiveModel, Loader, Successor};
use super::progress::Stage;
use super::threads::{keep, spawn};
use super::{Shared, ledger, worker};
use crate::inspection::NotInspected;
use crate::scoring::Breaker;

/// Threads that hang at the same time at most: with one more the line is left to the service manager.
const MOST_HANGING: usize = 4;
/// Time between two looks at threads that are to end.
const END_LOOK: Duration = Duration::from_millis(2);

/// What is known about a scorer from outside its thread.
#[derive(Debug, Default)]
pub(super) struct Seat {
    /// Which thread works here, counted up from 0; an earlier one that still runs is out.
    holder: AtomicU64,
    /// Frames in hand: who puts another thread here decides about them.
    in_hand: Mutex<Vec<ledger::Key>>,
    /// Of the model in use.
    breaker: Mutex<Option<Breaker>>,
}

/// A thread's claim to a seat.
pub(super) struct Seated {
    shared: Arc<Shared>,
    /// Number of the seat.
    pub(super) number: usize,
    holder: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whole between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Seated {
    fn seat(&self) -> &Seat {
        &self.shared.seats[self.number]
    }

    fn holds(&self) -> bool {
        self.seat().holder.load(Ordering::SeqCst) == self.holder
    }

    /// Says that the thread gets on, and may take so much longer than usual for what comes next;
    /// `false` where it has lost its seat and must end.
    pub(super) fn turn(&self, longer: Duration) -> bool {
        let holds = self.holds();
        if holds {
            self.shared.progress.turned(Stage::Scorer(self.number), Instant::now() + longer);
        }
        holds
    }

    /// Says which model it uses now, and goes to the core where that one's session is.
    pub(super) fn take_up(&self, model: &ActiveModel) {
        model.model.bind_thread();
        if self.holds() {
            *lock(&self.seat().breaker) = Some(model.model.breaker());
        }
    }

    /// Says which frames it has in hand now.
    pub(super) fn take_in_hand(&self, frames: Vec<ledger::Key>) {
        *lock(&self.seat().in_hand) = frames;
    }
}

/// Decides about the frames that a scorer had in hand when it died or hung.
fn give_up_what_is_in_hand(shared: &Shared, number: usize) {
    let keys = std::mem::take(&mut *lock(&shared.seats[number].in_hand));
    for key in keys {
        shared.conclude(&key, Judgement::not_inspected(NotInspected::Failed));
    }
}

#[derive(Default)]
struct Crew {
    /// By the seat's number.
    working: Vec<JoinHandle<()>>,
    /// Those that lost their seats and have not ended.
    hanging: Vec<JoinHandle<()>>,
    ended: bool,
}

/// The threads of all scorers.
pub(super) struct Scorers {
    shared: Arc<Shared>,
    loader: Loader,
    successor: Arc<Successor>,
    crew: Mutex<Crew>,
}

impl Scorers {
    pub(super) fn new(shared: &Arc<Shared>, loader: &Loader, successor: &Arc<Successor>) -> Self {
        let (shared, loader, successor) = (shared.clone(), loader.clone(), successor.clone());
        Self { shared, loader, successor, crew: Mutex::default() }
    }

    /// Starts a thread for each model.
    pub(super) fn start(&self, models: Vec<ActiveModel>) -> Result<(), LineError> {
        for (number, model) in models.into_iter().enumerate() {
            let thread = self.spawn(number, Some(model))?;
            lock(&self.crew).working.push(thread);
        }
        Ok(())
    }

    fn spawn(&self, number: usize, mut first: Option<ActiveModel>) -> Result<JoinHandle<()>, LineError> {
        let holder = self.shared.seats[number].holder.load(Ordering::SeqCst);
        let seated = Seated { shared: self.shared.clone(), number, holder };
        let (loader, successor) = (self.loader.clone(), self.successor.clone());
        spawn("scorer", move || {
            keep(&seated.shared, "scorer", || {
                if seated.turn(Duration::ZERO) {
                    give_up_what_is_in_hand(&seated.shared, number);
                    // A session that died once is not trusted again.
                    worker::work(&seated.shared, &seated, first.take(), &loader, &successor);
                }
                if !seated.holds() {
                    tracing::warn!(scorer = number, "the run that was broken off has ended");
                }
            });
        })
    }

    /// Puts another thread, with a session of its own, into each seat whose scorer hangs.
    pub(super) fn look(&self) {
        let patience = self.loader.run_timeout();
        for number in self.shared.progress.stuck_scorers(Instant::now(), patience) {
            let mut crew = lock(&self.crew);
            crew.hanging.retain(|thread| !thread.is_finished());
            if crew.ended || crew.hanging.len() >= MOST_HANGING {
                return;
            }
            tracing::error!(scorer = number, ms = patience.as_millis() as u64, "a run hangs: it is broken off");
            self.vacate(number);
            self.shared.restarts.fetch_add(1, Ordering::SeqCst);
            match self.spawn(number, None) {
                Ok(thread) => {
                    // Its time begins now, however late it comes to run.
                    self.shared.progress.turned(Stage::Scorer(number), Instant::now());
                    let former = std::mem::replace(&mut crew.working[number], thread);
                    crew.hanging.push(former);
                }
                Err(error) => tracing::error!(%error, "no thread for another scorer"),
            }
        }
    }

    /// Takes the seat from its thread and decides about what that had in hand.
    fn vacate(&self, number: usize) {
        let seat = &self.shared.seats[number];
        seat.holder.fetch_add(1, Ordering::SeqCst);
        if let Some(breaker) = lock(&seat.breaker).take() {
            breaker.break_off();
        }
        give_up_what_is_in_hand(&self.shared, number);
    }

    /// Waits until every thread has scored what waits; one that hangs is waited for no longer than its
    /// run may take, and left behind.
    pub(super) fn end(&self) {
        let mut crew = lock(&self.crew);
        crew.ended = true;
        let working = std::mem::take(&mut crew.working);
        drop(crew);
        for (number, thread) in working.into_iter().enumerate() {
            while !thread.is_finished() {
                std::thread::sleep(END_LOOK);
                if self.shared.progress.stuck_scorers(Instant::now(), self.loader.run_timeout()).contains(&number) {
                    tracing::error!(scorer = number, "a run hangs: the line ends without it");
                    self.vacate(number);
                    break;
                }
            }
            if thread.is_finished() && thread.join().is_err() {
                tracing::error!(scorer = number, "a scorer had panicked");
            }
        }
    }
}
