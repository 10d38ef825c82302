//! Where everything lies in the memory of a queue. LAYOUT.md says the same for other languages, byte by byte.
//!
//! ```text
//!    0    constants, written once by who makes the queue
//!  512    submitted     client    submissions ever made
//!  640    reaped        client    completions ever taken
//!  768    wake_at       client    completions that it sleeps for, or AWAKE; the server swaps AWAKE in when it rings
//! 1024    started       server    submissions ever started
//! 1152    completed     server    completions ever posted
//! 1280    armed         server    1: it sleeps, ring for it; the client swaps 0 in when it does
//! 1408    closed        server    0, or why the queue is served no more
//! 4096    submissions   entries of 64 bytes
//!         completions   entries of 32 bytes
//!         annexes       entries of 1024 bytes: lists of slices, on the way back maps
//! ```
//! Counts are of 64 bits and never wrap; entry `n` lies at `n % entries`. Whatever one side writes often is 128 bytes from
//! what the other does: a line and its neighbour, which is fetched with it.

use crate::primitive::{AtomicU64, Ordering};

/// First word of a queue's memory: "tmemring".
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"tmemring");

/// The layout's version. Another one is another layout.
pub(crate) const VERSION: u64 = 1;

/// The most entries that a queue can have.
pub const MOST_ENTRIES: u64 = 1 << 15;

/// Words of a submission (64 bytes).
pub(crate) const SUBMISSION_WORDS: usize = 8;

/// Words of a completion (32 bytes).
pub(crate) const COMPLETION_WORDS: usize = 4;

/// Words of an annex (1 KiB). None has one under a model checker, which keeps a history of each word.
pub(crate) const ANNEX_WORDS: usize = if cfg!(loom) { 2 } else { 128 };

/// Words of a slice in an annex: where it starts in its region, and its bytes.
pub(crate) const SLICE_WORDS: usize = 2;

/// The most slices that an operation can have. The first word of the annex is their number, the second is free.
pub const MOST_SLICES: usize = ANNEX_WORDS / SLICE_WORDS - 1;

/// Granules that a map in an annex can tell apart; of a longer range a bit stands for several.
pub(crate) const MAP_BITS: u64 = 64 * ANNEX_WORDS as u64;

/// Words at which the header's fields lie.
pub(crate) mod at {
    pub(crate) const MAGIC: usize = 0;
    pub(crate) const VERSION: usize = 1;
    pub(crate) const ENTRIES: usize = 2;
    pub(crate) const SUBMITTED: usize = word(512);
    pub(crate) const REAPED: usize = word(640);
    pub(crate) const WAKE_AT: usize = word(768);
    pub(crate) const STARTED: usize = word(1024);
    pub(crate) const COMPLETED: usize = word(1152);
    pub(crate) const ARMED: usize = word(1280);
    pub(crate) const CLOSED: usize = word(1408);
    pub(crate) const SUBMISSIONS: usize = word(4096);

    /// Where a byte lies. Nothing is spread under a model checker, which keeps a history of each word.
    const fn word(byte: usize) -> usize {
        byte / if cfg!(loom) { 128 } else { 8 }
    }
}

/// [`at::WAKE_AT`] of a client that does not sleep.
pub(crate) const AWAKE: u64 = u64::MAX;

/// A bit of a submission's first word: the client wants it no more.
pub(crate) const CANCELLED: u64 = 1 << 14;

/// A bit of a submission's first word: it is being carried out.
pub(crate) const TAKEN: u64 = 1 << 15;

/// Where things lie in a queue of so many entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    /// A power of two.
    pub(crate) entries: u64,
}

impl Layout {
    /// Of a queue of so many entries: a power of two, at most [`MOST_ENTRIES`].
    pub(crate) fn new(entries: u64) -> Option<Self> {
        (entries.is_power_of_two() && entries <= MOST_ENTRIES).then_some(Self { entries })
    }

    /// Of a queue that somebody else has made, if it is one of this version and all there.
    pub(crate) fn read(words: &[AtomicU64]) -> Option<Self> {
        // Relaxed: written before the memory was sent here.
        let word = |at: usize| words.get(at).map(|word| word.load(Ordering::Relaxed));
        let known = word(at::MAGIC)? == MAGIC && word(at::VERSION)? == VERSION;
        let layout = Self::new(word(at::ENTRIES)?)?;
        (known && words.len() >= layout.words()).then_some(layout)
    }

    /// Writes the constants into fresh memory.
    pub(crate) fn write(self, words: &[AtomicU64]) {
        assert!(words.len() >= self.words(), "memory for {} entries", self.entries);
        let constants = [(at::MAGIC, MAGIC), (at::VERSION, VERSION), (at::ENTRIES, self.entries), (at::WAKE_AT, AWAKE)];
        for (at, value) in constants {
            words[at].store(value, Ordering::Relaxed); // Relaxed: sending the memory publishes them
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "at most MOST_ENTRIES")]
    fn count(self) -> usize {
        self.entries as usize
    }

    #[expect(clippy::cast_possible_truncation, reason = "below `entries`")]
    fn index(self, number: u64) -> usize {
        (number % self.entries) as usize
    }

    /// Words in all.
    pub(crate) fn words(self) -> usize {
        at::SUBMISSIONS + self.count() * (SUBMISSION_WORDS + COMPLETION_WORDS + ANNEX_WORDS)
    }

    /// Bytes in all.
    #[cfg_attr(not(feature = "server"), expect(dead_code, reason = "for who makes queues"))]
    pub(crate) fn bytes(self) -> usize {
        self.words() * 8
    }

    /// First word of submission `number`.
    pub(crate) fn submission(self, number: u64) -> usize {
        at::SUBMISSIONS + self.index(number) * SUBMISSION_WORDS
    }

    /// First word of completion `number`.
    pub(crate) fn completion(self, number: u64) -> usize {
        at::SUBMISSIONS + self.count() * SUBMISSION_WORDS + self.index(number) * COMPLETION_WORDS
    }

    /// First word of annex `number`, which is below `entries`.
    pub(crate) fn annex(self, number: u64) -> usize {
        assert!(number < self.entries, "annex {number} of {}", self.entries);
        at::SUBMISSIONS + self.count() * (SUBMISSION_WORDS + COMPLETION_WORDS) + self.index(number) * ANNEX_WORDS
    }
}
