//! A queue, as its client holds it.
//!
//! | a slot | |
//! |---|---|
//! | free | its annex may be written |
//! | used | its operation was pushed and is not reaped; its number is the tag in the ring, and the number of its annex |
//!
//! A slot is free again when its completion was read, map included. There are as many as the ring has entries, so one is
//! free whenever the ring has room.

use super::next::{Next, Sentry};
use crate::layout::SLICE_WORDS;
use crate::memory::QueueMemory;
use crate::operation::{Completion, Operation, Place, Refusal, Slice, Submission, granules_of, outcome_of};
use crate::primitive::Ordering;
use crate::ring::{Closed, Submitter};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};
use tmem_sys::{Doorbell, poll_readable};

/// The longest that a client looks for completions before it sleeps.
const MOST_PATIENCE: Duration = Duration::from_micros(100);

/// The shortest.
const LEAST_PATIENCE: Duration = Duration::from_micros(2);

/// Why an operation could not be pushed, or completions not be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// As many operations are outstanding as the queue has entries.
    #[error("the queue is full: reap completions before pushing more")]
    Full,
    /// The operation makes no sense.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The server has ended the queue, because somebody wanted it to.
    #[error(
        "the queue was closed by the daemon: operations that are not completed may or may not have been carried out"
    )]
    Closed,
    /// The server has ended the queue, because of what this client did.
    #[error("the daemon closed the queue: this client broke the queue's protocol")]
    Broken,
    /// The server is gone.
    #[error(
        "the daemon is gone: operations that are not completed may or may not have been carried out, and its memory is lost"
    )]
    Gone,
    /// No thread could be started that waits for completions in the place of a future.
    #[error(
        "cannot start the thread that waits for completions: raise the limit of threads or descriptors, or use `wait`"
    )]
    NoSentry,
    /// The server wrote something that means nothing.
    #[error(
        "the daemon posted a completion that belongs to no operation: it does not keep to this version of the protocol"
    )]
    Nonsense,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    used: bool,
    tag: u64,
    /// Of the submission in the ring.
    number: u64,
    granules: u64,
}

/// A queue. One thread at a time uses it.
#[derive(Debug)]
pub struct Queue {
    ring: Submitter<QueueMemory>,
    /// Rings at the server, and is rung from there. It hangs up when the server is gone.
    bell: Doorbell,
    gone: bool,
    slots: Vec<Slot>,
    free: Vec<u32>,
    patience: Duration,
    doorbells: u64,
    sentry: Option<Sentry>,
    /// What the daemon calls it.
    pub(crate) number: u64,
}

impl Queue {
    /// Over memory that the server made. None: it is not a queue of this version.
    pub(crate) fn new(memory: QueueMemory, bell: Doorbell) -> Option<Self> {
        let ring = Submitter::new(memory)?;
        let entries = u32::try_from(ring.layout().entries).ok()?;
        let slots = vec![Slot::default(); entries as usize];
        let free = (0..entries).rev().collect();
        let (gone, patience, doorbells, sentry) = (false, MOST_PATIENCE, 0, None);
        Some(Self { ring, bell, gone, slots, free, patience, doorbells, sentry, number: 0 })
    }

    /// Operations that can be outstanding.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.slots.len()
    }

    /// Operations that were pushed and not reaped.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Doorbells that were rung for the server.
    #[must_use]
    pub fn doorbells(&self) -> u64 {
        self.doorbells
    }

    /// Puts an operation into the ring. The server sees it from the next [`Self::submit`] on.
    ///
    /// # Errors
    /// [`QueueError::Full`], and [`QueueError::Refused`] for what can never be right: nothing was pushed.
    pub fn push(&mut self, operation: &Operation<'_>) -> Result<(), QueueError> {
        let (opcode, offset, len, memory) = operation.action.parts()?;
        let slot = *self.free.last().ok_or(QueueError::Full)?;
        let granules = granules_of(offset, len);
        let region = memory.map_or(0, |memory| memory.region);
        let slices = memory.map_or(&[][..], |memory| memory.slices);
        let place = match slices {
            [] => Place::At(0),
            [slice] if granules <= 64 => Place::At(slice.offset),
            slices => self.list(slot, slices),
        };
        let (tag, pool, object) = (u64::from(slot), operation.pool, operation.object);
        let submission = Submission { opcode, region, pool, tag, object, offset, len, place };
        let number = self.ring.write(&submission.to_words()).ok_or(QueueError::Full)?;
        self.free.pop();
        self.slots[slot as usize] = Slot { used: true, tag: operation.tag, number, granules };
        Ok(())
    }

    /// Writes the slices into the annex of a free slot.
    fn list(&self, slot: u32, slices: &[Slice]) -> Place {
        let words = &self.ring.words()[self.ring.layout().annex(u64::from(slot))..];
        let store = |at: usize, value: u64| words[at].store(value, Ordering::Relaxed); // published by `publish`
        store(0, slices.len() as u64);
        for (nth, slice) in slices.iter().enumerate() {
            store((nth + 1) * SLICE_WORDS, slice.offset);
            store((nth + 1) * SLICE_WORDS + 1, slice.len);
        }
        Place::Listed(u64::from(slot))
    }

    /// Hands over everything that was pushed: one store, and a doorbell if the server sleeps.
    pub fn submit(&mut self) {
        if self.ring.publish() {
            self.bell.ring();
            self.doorbells += 1;
        }
    }

    /// Cancels the operations with this tag that the server has not started. Returns how many there were; each still
    /// has its completion.
    pub fn cancel(&mut self, tag: u64) -> usize {
        self.slots.iter().filter(|slot| slot.used && slot.tag == tag && self.ring.cancel(slot.number)).count()
    }

    /// Adds the completions that are there, and returns how many.
    ///
    /// # Errors
    /// [`QueueError::Nonsense`].
    pub fn reap(&mut self, into: &mut Vec<Completion>) -> Result<usize, QueueError> {
        let before = into.len();
        while let Some(completion) = self.reap_one()? {
            into.push(completion);
        }
        Ok(into.len() - before)
    }

    /// The next completion, if there is one.
    ///
    /// # Errors
    /// [`QueueError::Nonsense`].
    pub fn reap_one(&mut self) -> Result<Option<Completion>, QueueError> {
        let Some(words) = self.ring.reap() else { return Ok(None) };
        let number = u32::try_from(words[0]).map_err(|_| QueueError::Nonsense)?;
        let slot = self.slots.get_mut(number as usize).filter(|slot| slot.used).ok_or(QueueError::Nonsense)?;
        slot.used = false;
        let Slot { tag, granules, .. } = *slot;
        let start = self.ring.layout().annex(u64::from(number));
        let words_of = self.ring.words();
        let annex = |at: usize| words_of[start + at].load(Ordering::Relaxed); // ordered by `Submitter::reap`
        let outcome = outcome_of(&words, granules, annex).ok_or(QueueError::Nonsense)?;
        self.free.push(number);
        Ok(Some(Completion { tag, outcome }))
    }

    /// Submits, and waits until `least` completions (at most what is outstanding) can be reaped. Returns how many there
    /// are, which is fewer if the time is over.
    ///
    /// # Errors
    /// [`QueueError::Closed`], [`QueueError::Broken`] or [`QueueError::Gone`] when there are fewer and there will not
    /// be more.
    pub fn wait(&mut self, least: usize, timeout: Option<Duration>) -> Result<usize, QueueError> {
        self.submit();
        let least = least.min(self.outstanding()) as u64;
        let start = Instant::now();
        let patience = self.patience;
        loop {
            if let Some(ready) = self.look(least)? {
                self.patience = (patience * 2).min(MOST_PATIENCE);
                return Ok(ready);
            }
            let spent = start.elapsed();
            if timeout.is_some_and(|timeout| spent >= timeout) {
                return Ok(self.ready());
            }
            if spent >= patience {
                break;
            }
            core::hint::spin_loop();
        }
        self.patience = (patience / 2).max(LEAST_PATIENCE);
        loop {
            if let Some(ready) = self.look(least)? {
                return Ok(ready);
            }
            let left = timeout.map(|timeout| timeout.saturating_sub(start.elapsed()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(self.ready());
            }
            if self.ring.fall_asleep(least) {
                self.hear(left);
                self.ring.wake_up();
            }
        }
    }

    fn ready(&self) -> usize {
        usize::try_from(self.ring.ready()).unwrap_or(usize::MAX)
    }

    /// How many completions are ready, if at least `least` are; an error if they will never be.
    fn look(&self, least: u64) -> Result<Option<usize>, QueueError> {
        // Before the completions are counted: what was posted before the end counts.
        let closed = self.ring.closed();
        let ready = self.ring.ready();
        if ready >= least {
            return Ok(Some(self.ready()));
        }
        match closed {
            0 if self.gone => Err(QueueError::Gone),
            0 => Ok(None),
            why if why == Closed::Broken as u64 => Err(QueueError::Broken),
            _ => Err(QueueError::Closed),
        }
    }

    /// Sleeps until the server rings or is gone.
    fn hear(&mut self, timeout: Option<Duration>) {
        // What poll can fail for (memory, limits) passes: the caller looks again.
        let readable = poll_readable(&[self.bell.as_fd()], timeout) == Ok(1);
        // Readable, and nothing to be cleared: the other end is closed.
        self.gone |= readable && !self.bell.clear();
    }

    /// The next completion, as a future for any executor. Submits what was pushed. With nothing outstanding it is ready
    /// at once: with none.
    #[expect(clippy::should_implement_trait, reason = "what is awaited is called so: futures' streams have it, too")]
    pub fn next(&mut self) -> Next<'_> {
        self.submit();
        Next::new(self)
    }

    /// Readable when the completion that [`Self::ask_for_bell`] asked for is there; for an event loop.
    #[must_use]
    pub fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// The thread that wakes futures; started when it is first wanted.
    pub(crate) fn sentry(&mut self) -> &mut Option<Sentry> {
        &mut self.sentry
    }

    /// Why no more completions will come, if none will.
    pub(crate) fn ended(&self) -> Option<QueueError> {
        self.look(u64::MAX).err()
    }

    /// Asks for the bell when the next completion is there. Returns false, and asks for nothing, if one is there
    /// already or the queue was closed.
    pub fn ask_for_bell(&mut self) -> bool {
        // It may have rung for what was reaped since.
        self.hear(Some(Duration::ZERO));
        self.ring.fall_asleep(1) && self.ended().is_none()
    }
}
