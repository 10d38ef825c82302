//! The ledger of memory.
//!
//! `used == segments + tables + index + scratch`, each in bytes as the kernel counts them: a segment counts from the
//! moment its memory is taken until it is given back, whether it holds blocks or not; a table page from its first
//! use. Everybody but the cleaner stays [`RESERVE_BYTES`] below the limit, so that the cleaner always has somewhere
//! to copy to.

use crate::units::SEGMENT_BYTES;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What only the cleaner may use: one fresh segment for each of its heads that can be full when a pass starts.
pub(crate) const RESERVE_BYTES: usize = 2 * SEGMENT_BYTES;

/// What memory is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// Segments of the log.
    Segments = 0,
    /// Leaves, nodes and objects.
    Tables = 1,
    /// The hash index of objects.
    Index = 2,
    /// Codec scratch and contexts, and everything of fixed size.
    Scratch = 3,
}

const USES: usize = 4;

/// On whose behalf memory is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// Callers: not from the reserve.
    Put,
    /// The cleaner, which gives back more than it takes.
    Cleaner,
}

/// There is no room within the budget (or in the machine).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoRoom {
    /// For a segment.
    Segment,
    /// For so many bytes of tables.
    Tables(usize),
}

/// The ledger.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: AtomicUsize,
    /// What the cleaner may use. The limit; or, from when that was lowered below what was used until less is used, the
    /// reserve more than was used: it must copy to free.
    cleaner_limit: AtomicUsize,
    used: AtomicUsize,
    by_use: [AtomicUsize; USES],
}

// Relaxed throughout: these are sums and publish nothing. Whoever takes memory gets it by other means, under a lock.
impl Budget {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit: AtomicUsize::new(limit),
            cleaner_limit: AtomicUsize::new(limit),
            used: AtomicUsize::new(0),
            by_use: [const { AtomicUsize::new(0) }; USES],
        }
    }

    /// Bytes that may be used in all.
    pub(crate) fn limit(&self) -> usize {
        // Relaxed: see above.
        self.limit.load(Ordering::Relaxed)
    }

    /// Raises the limit to no less than what is used.
    pub(crate) fn raise_limit(&self, limit: usize) {
        // Relaxed, both: see above.
        self.limit.store(limit, Ordering::Relaxed);
        self.cleaner_limit.fetch_max(limit, Ordering::Relaxed);
    }

    /// Changes the limit. What is used already may be above it, and then is to be shrunk.
    pub(crate) fn set_limit(&self, limit: usize) {
        // Relaxed: see above.
        self.limit.store(limit, Ordering::Relaxed);
        // Relaxed: see above.
        self.cleaner_limit.store(limit.max(self.used() + RESERVE_BYTES), Ordering::Relaxed);
    }

    /// What was above the limit has been shrunk as far as it goes.
    pub(crate) fn end_shrinking(&self) {
        let over = self.used() + RESERVE_BYTES > self.limit();
        // Relaxed: see above.
        self.cleaner_limit
            .store(self.limit().max(if over { self.used() + RESERVE_BYTES } else { 0 }), Ordering::Relaxed);
    }

    /// Bytes used in all.
    pub(crate) fn used(&self) -> usize {
        // Relaxed: see above.
        self.used.load(Ordering::Relaxed)
    }

    /// Bytes used for one thing.
    pub(crate) fn used_for(&self, what: Use) -> usize {
        // Relaxed: see above.
        self.by_use[what as usize].load(Ordering::Relaxed)
    }

    /// Bytes that a put could still take.
    pub(crate) fn room(&self) -> usize {
        self.limit().saturating_sub(RESERVE_BYTES).saturating_sub(self.used())
    }

    /// Whether nothing of the reserve is in use: only then may others than the cleaner open segments.
    pub(crate) fn is_reserve_whole(&self) -> bool {
        self.used() + RESERVE_BYTES <= self.limit()
    }

    /// Whether the cleaner could open a segment.
    pub(crate) fn can_clean(&self) -> bool {
        // Relaxed: see above.
        self.used() + SEGMENT_BYTES <= self.cleaner_limit.load(Ordering::Relaxed)
    }

    /// Takes `bytes` if they fit.
    pub(crate) fn take(&self, bytes: usize, what: Use, claim: Claim) -> Result<(), NoRoom> {
        let limit = match claim {
            Claim::Put => self.limit().saturating_sub(RESERVE_BYTES),
            // Relaxed: see above.
            Claim::Cleaner => self.cleaner_limit.load(Ordering::Relaxed),
        };
        let fits = |used: usize| used.checked_add(bytes).filter(|total| *total <= limit);
        // Relaxed: see above.
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        taken.map_err(|_| NoRoom::Tables(bytes))?;
        // Relaxed: see above.
        self.by_use[what as usize].fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Takes `bytes` whether they fit or not: what is held already and was counted too low.
    pub(crate) fn take_anyway(&self, bytes: usize, what: Use) {
        // Relaxed: see above.
        self.used.fetch_add(bytes, Ordering::Relaxed);
        // Relaxed: see above.
        self.by_use[what as usize].fetch_add(bytes, Ordering::Relaxed);
    }

    /// Gives `bytes` back.
    pub(crate) fn give_back(&self, bytes: usize, what: Use) {
        // Relaxed: see above.
        let before = self.by_use[what as usize].fetch_sub(bytes, Ordering::Relaxed);
        assert!(before >= bytes, "{what:?}: {bytes} bytes given back of {before}");
        // Relaxed: see above.
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Makes the count of `what` right after it changed from `before` to `after` bytes.
    pub(crate) fn adjust(&self, before: usize, after: usize, what: Use) {
        if after > before {
            self.take_anyway(after - before, what);
        } else if before > after {
            self.give_back(before - after, what);
        }
    }

    /// Whether the parts make up the whole. Exact only while nothing runs.
    pub(crate) fn is_balanced(&self) -> bool {
        let parts: usize =
            [Use::Segments, Use::Tables, Use::Index, Use::Scratch].map(|u| self.used_for(u)).iter().sum();
        parts == self.used()
    }
}
