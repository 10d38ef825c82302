//! The protocol of a queue: two rings over words that both sides see.
//!
//! | word | written by | meaning |
//! |---|---|---|
//! | submitted | client | entries below it are there to be started |
//! | started | server | entries below it were started: in their order, each once |
//! | completed | server | completions below it are there to be reaped |
//! | reaped | client | completions below it were read: written before `submitted` |
//! | armed | server 1, client 0 | 1: the server sleeps until its doorbell is rung |
//! | wake_at | client n, server AWAKE | n: the client sleeps until `completed` is at least n and its doorbell is rung |
//!
//! **Room.** `submitted - reaped <= entries` always: the client sees to it, so there is a completion entry for whatever was
//! submitted, and the submission entry of what was reaped was read. The server needs to know what was reaped only to check
//! that, so the client writes it when it submits. A client whose counts make no sense is *broken*, and served no more.
//!
//! **Doorbells.** Who goes to sleep says so and then looks once more; who has made progress looks whether the other one
//! sleeps. Between the store and the load of both there is a fence: one of them sees the other's store. Saying so is taken
//! back by a swap, so a doorbell is rung once for each sleep. It is said by a swap, too: a store would do, but the model
//! checker loses track of the order of changes to a word where stores are mixed with swaps.
//!
//! **Cancelling.** The first word of a submission has two bits that are set by read-modify-write: TAKEN by the server
//! when it starts it, CANCELLED by a client that wants it no more. Whichever comes first wins, and both sides know.
//!
//! The server fetches every word of the client's once.

use crate::layout::{AWAKE, CANCELLED, COMPLETION_WORDS, Layout, SUBMISSION_WORDS, TAKEN, at};
use crate::primitive::{AtomicU64, Ordering, fence};
use core::ops::Deref;

/// A submission as it lies in the ring.
pub(crate) type RawSubmission = [u64; SUBMISSION_WORDS];

/// A completion as it lies in the ring.
pub(crate) type RawCompletion = [u64; COMPLETION_WORDS];

/// Why a queue is served no more.
#[cfg_attr(not(feature = "server"), allow(dead_code, reason = "the server's"))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closed {
    /// The client or the daemon wanted it.
    Ended = 1,
    /// The client broke the protocol.
    Broken = 2,
}

/// The client's side. It trusts the server to keep to the protocol, but does not lose its own count if it does not.
#[derive(Debug)]
pub(crate) struct Submitter<M> {
    memory: M,
    layout: Layout,
    /// Entries written; those from `submitted` on are not published yet.
    written: u64,
    submitted: u64,
    reaped: u64,
}

impl<M: Deref<Target = [AtomicU64]>> Submitter<M> {
    /// Of a queue that nobody has used yet. None: the memory is not a queue of this version.
    pub(crate) fn new(memory: M) -> Option<Self> {
        let layout = Layout::read(&memory)?;
        Some(Self { memory, layout, written: 0, submitted: 0, reaped: 0 })
    }

    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }

    pub(crate) fn words(&self) -> &[AtomicU64] {
        &self.memory
    }

    /// Entries that were written and not reaped.
    pub(crate) fn outstanding(&self) -> u64 {
        self.written - self.reaped
    }

    /// Writes an entry, without publishing it, and returns its number; none if the ring is full.
    pub(crate) fn write(&mut self, entry: &RawSubmission) -> Option<u64> {
        if self.outstanding() == self.layout.entries {
            return None;
        }
        let number = self.written;
        let start = self.layout.submission(number);
        for (at, word) in entry.iter().enumerate() {
            self.memory[start + at].store(*word, Ordering::Relaxed); // published in `publish`
        }
        self.written += 1;
        Some(number)
    }

    /// Publishes what was written. Returns whether the server's doorbell is to be rung.
    pub(crate) fn publish(&mut self) -> bool {
        if self.submitted == self.written {
            return false;
        }
        self.submitted = self.written;
        self.memory[at::REAPED].store(self.reaped, Ordering::Relaxed); // published by `submitted`
        // Release: the entries below it, and `reaped`, with our loads of the completions below that; pairs with the load of
        // `submitted` in `Taker::look`.
        self.memory[at::SUBMITTED].store(self.submitted, Ordering::Release);
        // Pairs with the fence in `Taker::arm`: either it sees `submitted`, or we see `armed`.
        fence(Ordering::SeqCst);
        let armed = &self.memory[at::ARMED];
        // Relaxed: the doorbell's system call orders what the server sees next. The swap: one doorbell a sleep.
        armed.load(Ordering::Relaxed) != 0 && armed.swap(0, Ordering::Relaxed) != 0 // Relaxed: as above
    }

    /// Cancels submission `number`, which is not reaped. Returns whether it was not started yet: then it will not be.
    pub(crate) fn cancel(&self, number: u64) -> bool {
        assert!(number < self.written, "submission {number} was never made");
        let word = &self.memory[self.layout.submission(number)];
        // Relaxed: the bits of one word, of which the first to be set wins; nothing else is published.
        word.fetch_or(CANCELLED, Ordering::Relaxed) & TAKEN == 0
    }

    /// The next completion, if there is one.
    pub(crate) fn reap(&mut self) -> Option<RawCompletion> {
        if self.reaped == self.completed() {
            return None;
        }
        let start = self.layout.completion(self.reaped);
        let entry = core::array::from_fn(|at| {
            self.memory[start + at].load(Ordering::Relaxed) // ordered by the load in `completed`
        });
        self.reaped += 1;
        Some(entry)
    }

    /// Completions posted, as far as that makes sense.
    fn completed(&self) -> u64 {
        // Acquire: the entries below it, and what was brought to our memory for them; pairs with `Taker::post`.
        let completed = self.memory[at::COMPLETED].load(Ordering::Acquire);
        completed.clamp(self.reaped, self.submitted.max(self.reaped))
    }

    /// Completions that can be reaped now.
    pub(crate) fn ready(&self) -> u64 {
        self.completed() - self.reaped
    }

    /// Says that the client sleeps until `more` (at least 1) completions can be reaped. Returns whether it may; if not,
    /// they are there already.
    pub(crate) fn fall_asleep(&self, more: u64) -> bool {
        let target = self.reaped + more;
        self.memory[at::WAKE_AT].swap(target, Ordering::Relaxed); // Relaxed: ordered by the fence
        // Pairs with the fence in `Taker::post`: either it sees `wake_at`, or we see its completions.
        fence(Ordering::SeqCst);
        let may = self.completed() < target;
        if !may {
            self.wake_up();
        }
        may
    }

    /// Takes back what `fall_asleep` said.
    pub(crate) fn wake_up(&self) {
        self.memory[at::WAKE_AT].swap(AWAKE, Ordering::Relaxed); // Relaxed: an early or late doorbell does no harm
    }

    /// Why the queue is served no more: 0 as long as it is.
    pub(crate) fn closed(&self) -> u64 {
        // Acquire: the completions posted before; pairs with `Taker::close`.
        self.memory[at::CLOSED].load(Ordering::Acquire)
    }
}

/// The client's counts make no sense, or it has written where it may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(feature = "server"), allow(dead_code, reason = "the server's"))]
pub(crate) struct Broken;

/// The server's side. It believes nothing that it reads.
#[derive(Debug)]
#[cfg_attr(not(feature = "server"), allow(dead_code, reason = "the server's"))]
pub(crate) struct Taker<M> {
    memory: M,
    layout: Layout,
    started: u64,
    completed: u64,
    /// What can be started, as of the last look.
    seen: u64,
    /// That was the last look.
    stopped: bool,
}

#[cfg_attr(not(feature = "server"), allow(dead_code, reason = "the server's"))]
impl<M: Deref<Target = [AtomicU64]>> Taker<M> {
    /// Makes a queue in fresh memory.
    pub(crate) fn new(memory: M, layout: Layout) -> Self {
        layout.write(&memory);
        Self { memory, layout, started: 0, completed: 0, seen: 0, stopped: false }
    }

    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }

    pub(crate) fn words(&self) -> &[AtomicU64] {
        &self.memory
    }

    /// Submissions ever started.
    pub(crate) fn started(&self) -> u64 {
        self.started
    }

    /// Submissions that can be started now.
    pub(crate) fn look(&mut self) -> Result<u64, Broken> {
        if self.seen > self.started || self.stopped {
            return Ok(self.seen - self.started);
        }
        // Acquire: the entries below it, and the count of reaped that they rely on; pairs with the store in
        // `Submitter::publish`.
        let submitted = self.memory[at::SUBMITTED].load(Ordering::Acquire);
        let reaped = self.memory[at::REAPED].load(Ordering::Relaxed); // ordered by the load of `submitted`
        let in_order = reaped <= self.completed && self.started <= submitted;
        if !in_order || submitted.wrapping_sub(reaped) > self.layout.entries {
            return Err(Broken);
        }
        self.seen = submitted;
        Ok(self.seen - self.started)
    }

    /// Takes what is submitted now for all that ever will be.
    pub(crate) fn stop(&mut self) -> Result<(), Broken> {
        self.seen = self.started;
        self.look()?;
        self.stopped = true;
        Ok(())
    }

    /// The next submission that [`Self::look`] has seen, not started yet.
    pub(crate) fn peek(&self) -> RawSubmission {
        assert!(self.started < self.seen, "nothing to be started");
        let start = self.layout.submission(self.started);
        core::array::from_fn(|at| {
            self.memory[start + at].load(Ordering::Relaxed) // ordered by the load in `look`
        })
    }

    /// Starts the submission that `peek` has shown. Returns whether it had been cancelled before.
    pub(crate) fn start(&mut self) -> bool {
        let word = &self.memory[self.layout.submission(self.started)];
        self.started += 1;
        // Relaxed: see `Submitter::cancel`.
        word.fetch_or(TAKEN, Ordering::Relaxed) & CANCELLED != 0
    }

    /// Tells the client how many were started, for people who look.
    pub(crate) fn show_started(&self) {
        self.memory[at::STARTED].store(self.started, Ordering::Relaxed); // Relaxed: only to be looked at
    }

    /// Writes a completion, without publishing it.
    pub(crate) fn complete(&mut self, entry: &RawCompletion) {
        assert!(self.completed < self.started, "a completion for nothing");
        let start = self.layout.completion(self.completed);
        for (at, word) in entry.iter().enumerate() {
            self.memory[start + at].store(*word, Ordering::Relaxed); // published in `post`
        }
        self.completed += 1;
    }

    /// Publishes what was completed. Returns whether the client's doorbell is to be rung.
    pub(crate) fn post(&mut self) -> bool {
        // Release: the entries below it, and the client's memory as they say; pairs with the load in
        // `Submitter::completed`.
        self.memory[at::COMPLETED].store(self.completed, Ordering::Release);
        // Pairs with the fence in `Submitter::fall_asleep`.
        fence(Ordering::SeqCst);
        let word = &self.memory[at::WAKE_AT];
        let due = |target: u64| target <= self.completed; // never for AWAKE
        // Relaxed: the doorbell's system call orders what the client sees next. The swap: one doorbell a sleep.
        due(word.load(Ordering::Relaxed)) && word.swap(AWAKE, Ordering::Relaxed) != AWAKE // Relaxed: as above
    }

    /// Says that the server sleeps until the doorbell is rung. Returns whether it may; if not, there is work.
    pub(crate) fn arm(&mut self) -> Result<bool, Broken> {
        self.memory[at::ARMED].swap(1, Ordering::Relaxed); // Relaxed: ordered by the fence
        // Pairs with the fence in `Submitter::publish`.
        fence(Ordering::SeqCst);
        let may = self.look()? == 0;
        if !may {
            self.disarm();
        }
        Ok(may)
    }

    /// Takes back what `arm` said.
    pub(crate) fn disarm(&self) {
        self.memory[at::ARMED].swap(0, Ordering::Relaxed); // Relaxed: one doorbell too many does no harm
    }

    /// Says that the queue is served no more, and why. The client's doorbell is to be rung then, whatever it sleeps for.
    pub(crate) fn close(&self, why: Closed) {
        // Release: completions posted before; pairs with the load in `Submitter::closed`. The doorbell is rung anyway.
        self.memory[at::CLOSED].store(why as u64, Ordering::Release);
    }
}
