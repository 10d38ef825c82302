//! Epochs: when nobody can still be reading what was taken out of the tables.
//!
//! A reader *pins* its slot for the length of one operation's piece: the slot holds the global epoch as the reader
//! last saw it, or 0 when it reads nothing. Whoever unlinks something (an entry, a leaf, a whole segment) calls
//! [`Epochs::stamp`] afterwards, and may reuse the thing once [`Epochs::passed`] says so: every slot is then idle or
//! was pinned after the stamp.
//!
//! Why that is enough. A reader stores its slot, then fences, then loads entries. An unlinker stores entries, then
//! fences, then loads slots. The two fences are ordered one way or the other: either the unlinker sees the slot, and
//! waits; or the reader sees the entries as they are after the unlinking, and cannot find the thing. A slot that holds
//! an old epoch (the reader was slow between load and store) only makes the unlinker wait for longer.
//!
//! A pin is short and never held while waiting for a stamp to pass, which would be waiting for oneself.

use crate::primitive::{AtomicU64, Ordering, fence};

/// The epochs of one store.
#[derive(Debug)]
pub(crate) struct Epochs {
    global: AtomicU64,
    slots: Box<[Slot]>,
}

/// One reader's epoch, alone on its cache line (two, for the adjacent-line prefetcher).
#[derive(Debug)]
#[repr(align(128))]
struct Slot(AtomicU64);

/// A slot that reads nothing.
const IDLE: u64 = 0;

/// The moment after which something was unlinked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stamp(u64);

/// Proof that its holder's reads are waited for.
#[derive(Debug)]
pub(crate) struct Pin<'a> {
    slot: &'a AtomicU64,
}

impl Epochs {
    /// With `slots` readers at most.
    pub(crate) fn new(slots: usize) -> Self {
        let slots = (0..slots).map(|_| Slot(AtomicU64::new(IDLE))).collect();
        Self { global: AtomicU64::new(1), slots }
    }

    /// Pins `slot`, which belongs to the caller alone and is not pinned.
    pub(crate) fn pin(&self, slot: usize) -> Pin<'_> {
        let slot = &self.slots[slot].0;
        // Relaxed: only the owner writes its slot, and only the owner is here.
        debug_assert_eq!(slot.load(Ordering::Relaxed), IDLE, "a slot is pinned once");
        // Relaxed: an old value is only more cautious (module head).
        let now = self.global.load(Ordering::Relaxed);
        // Release: pairs with the Acquire in `passed`, as the store in `Pin::drop` does. Whoever reads this value
        // instead of that one has the earlier pin's reads behind it all the same.
        slot.store(now, Ordering::Release);
        // SeqCst: pairs with the fence in `stamp`.
        fence(Ordering::SeqCst);
        Pin { slot }
    }

    /// To be called after something was unlinked and before [`Self::passed`] is asked of the result.
    pub(crate) fn stamp(&self) -> Stamp {
        // SeqCst: pairs with the fence in `pin`. What was unlinked before it is invisible to whoever pins after it.
        fence(Ordering::SeqCst);
        // Relaxed: the number alone matters; the fence has done the ordering.
        Stamp(self.global.fetch_add(1, Ordering::Relaxed))
    }

    /// Whether everything unlinked before `stamp` can be reused.
    pub(crate) fn passed(&self, stamp: Stamp) -> bool {
        // Acquire: pairs with the Release in `Pin::drop`. The reader's last reads come before the reuse.
        self.slots.iter().map(|slot| slot.0.load(Ordering::Acquire)).all(|at| at == IDLE || at > stamp.0)
    }
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        // Release: pairs with the Acquire in `passed`.
        self.slot.store(IDLE, Ordering::Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_passes_when_the_readers_before_it_are_gone() {
        let epochs = Epochs::new(2);
        let early = epochs.pin(0);
        let stamp = epochs.stamp();
        assert!(!epochs.passed(stamp));
        let late = epochs.pin(1);
        assert!(!epochs.passed(stamp));
        drop(early);
        assert!(epochs.passed(stamp), "a reader that came later is not waited for");
        drop(late);
        assert!(epochs.passed(stamp));
    }
}
