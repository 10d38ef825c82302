//! The cleaner's thread: what is done ahead of need.

use super::{Fate, LAZY_GAIN, LEAST_GAIN};
use crate::budget::Use;
use crate::engine::Engine;
use crate::units::SEGMENT_BYTES;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long no head is opened until the store counts as idle.
const IDLE: Duration = Duration::from_millis(100);

/// How callers and the cleaner's thread tell each other something.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    state: Mutex<Wish>,
    changed: Condvar,
    /// Callers that wait for room.
    waiting: AtomicUsize,
}

/// Each asks for what the one before it asks for, and more.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Wish {
    #[default]
    Nothing,
    /// Something has come to be worth cleaning.
    Clean,
    /// A head was opened: the next one is to be readied, too.
    Ready,
    /// The store is closing.
    Stop,
}

/// A caller that waits for room, for as long as this exists.
pub(super) struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed); // Relaxed: a hint
    }
}

impl Signal {
    /// A head was opened.
    pub(crate) fn opened(&self) {
        self.ask(Wish::Ready);
    }

    /// Something has come to be worth cleaning.
    pub(crate) fn wasted(&self) {
        self.ask(Wish::Clean);
    }

    fn ask(&self, wanted: Wish) {
        let mut wish = self.lock();
        if *wish < wanted {
            *wish = wanted;
            self.changed.notify_one();
        }
    }

    /// Waits for a wish, or for `patience` without one: then it is [`Wish::Nothing`].
    fn next(&self, patience: Option<Duration>) -> Wish {
        let mut wish = self.lock();
        while *wish == Wish::Nothing {
            let Some(patience) = patience else {
                wish = self.changed.wait(wish).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let (woken, timeout) = self.changed.wait_timeout(wish, patience).unwrap_or_else(PoisonError::into_inner);
            wish = woken;
            if timeout.timed_out() {
                break;
            }
        }
        let taken = *wish;
        if taken != Wish::Stop {
            *wish = Wish::Nothing;
        }
        taken
    }

    /// Whether somebody waits for the cleaner, so that long work should be put off.
    pub(super) fn is_wanted(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0 // Relaxed: a hint
    }

    pub(super) fn wait_for_cleaner(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Ordering::Relaxed); // Relaxed: a hint
        Waiting(&self.waiting)
    }

    fn lock(&self) -> MutexGuard<'_, Wish> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread, which stops when this is dropped.
#[derive(Debug)]
pub(crate) struct Background {
    engine: Arc<Engine>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    /// Starts it.
    pub(crate) fn start(engine: &Arc<Engine>) -> std::io::Result<Self> {
        let own = Arc::clone(engine);
        let work = move || {
            loop {
                match own.signal.next(own.log.has_warm().then_some(IDLE)) {
                    Wish::Ready => {
                        own.reclaim_now();
                        own.log.prepare(&own.budget);
                        own.work_ahead();
                    }
                    Wish::Clean => own.work_ahead(),
                    // Nobody has opened a head for a while: spare segments go back to the system.
                    Wish::Nothing => own.log.cool(0, &own.budget),
                    Wish::Stop => return,
                }
            }
        };
        let thread = std::thread::Builder::new().name("tmem-cleaner".into()).spawn(work)?;
        Ok(Self { engine: Arc::clone(engine), thread: Some(thread) })
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.engine.signal.ask(Wish::Stop);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been reported by then; the store works without it.
            let _ = thread.join();
        }
    }
}

impl Engine {
    /// Compacts what is mostly dead, until an eighth is dead at most; and when the store is nearly full, makes room for a
    /// few heads before somebody has to wait for it.
    fn work_ahead(&self) {
        let nearly_full = || self.budget.room() < 4 * SEGMENT_BYTES;
        let wasteful = || self.log.reclaimable_bytes() > self.budget.used_for(Use::Segments) / 8;
        while nearly_full() || wasteful() {
            if self.signal.is_wanted() {
                return;
            }
            let mut cleaner = self.lock_cleaner();
            let gain = if nearly_full() { LEAST_GAIN } else { LAZY_GAIN };
            let Some(victim) = self.emptiest(gain) else { break };
            if self.clean(&mut cleaner, victim, &Fate::Copy).is_err() {
                break;
            }
        }
        if nearly_full() && !self.signal.is_wanted() {
            let mut cleaner = self.lock_cleaner();
            self.await_readers();
            // What cannot be freed now is asked for again by whoever needs it.
            let _ = self.free_until(&mut cleaner, None, || self.can_open_segment());
        }
    }
}
