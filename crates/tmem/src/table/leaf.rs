//! Leaves: 32 entry words and whose they are.

use crate::entry::Entry;
use crate::slab::Stable;
use crate::table::ObjectRef;
use crate::units::Granule;
use std::sync::MutexGuard;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Granules that a leaf covers.
pub(crate) const LEAF_GRANULES: u32 = 32;
const _: () =
    assert!((LEAF_GRANULES as usize).is_multiple_of(crate::units::BLOCK_GRANULES), "blocks lie within one leaf");

/// A leaf, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LeafRef(pub(crate) u32);

/// The entries of 128 KiB of an object. Entries are changed under the leaf's lock only, but for their heat.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Leaf {
    entries: [AtomicU64; LEAF_GRANULES as usize],
    /// The first granule.
    base: AtomicU64,
    /// Whose it is; 0: dead.
    object: AtomicU32,
    /// Entries that are not missing.
    present: AtomicU32,
}

// SAFETY: atomics only, and they have no destructors.
unsafe impl Stable for Leaf {}

impl Leaf {
    /// Makes a fresh leaf of one that nobody can find.
    pub(super) fn reset(&self, object: ObjectRef, base: Granule) {
        for entry in &self.entries {
            // Relaxed: published by the store that links the leaf into its tree.
            entry.store(Entry::MISSING.word(), Ordering::Relaxed);
        }
        // Relaxed: as above.
        self.base.store(base.0, Ordering::Relaxed);
        self.object.store(object.0, Ordering::Relaxed); // Relaxed: as above.
        self.present.store(0, Ordering::Relaxed); // Relaxed: as above.
    }

    /// The entry at `index`.
    pub(super) fn load(&self, index: u32) -> Entry {
        // Acquire: pairs with the Release in `LeafGuard::set`. The block that it names is seen whole.
        Entry::from_word(self.entries[index as usize].load(Ordering::Acquire))
    }

    /// Asks for the entry at `index`.
    pub(super) fn prefetch(&self, index: u32) {
        tmem_sys::prefetch(&raw const self.entries[index as usize]);
    }

    /// Asks for what stands beside the entries.
    pub(super) fn prefetch_owner(&self) {
        tmem_sys::prefetch(&raw const self.object);
    }

    /// One get more of `seen`, if it is still there.
    pub(super) fn warm(&self, index: u32, seen: Entry) {
        if let Some(warmer) = seen.warmed() {
            let cell = &self.entries[index as usize];
            // Relaxed: the same contents as before, which the reader has acquired already; a lost count is no loss.
            let _ = cell.compare_exchange(seen.word(), warmer.word(), Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

/// The right to change the entries of a leaf.
#[derive(Debug)]
pub(crate) struct LeafGuard<'a> {
    leaf: &'a Leaf,
    _lock: MutexGuard<'a, ()>,
}

// Relaxed, where nothing else is said: `object`, `base` and `present` are read and written under the leaf's lock.
impl<'a> LeafGuard<'a> {
    pub(super) fn new(leaf: &'a Leaf, lock: MutexGuard<'a, ()>) -> Self {
        Self { leaf, _lock: lock }
    }

    /// Whose leaf it is; nothing if it is dead.
    pub(crate) fn object(&self) -> Option<ObjectRef> {
        // Relaxed: under the lock.
        let object = self.leaf.object.load(Ordering::Relaxed);
        (object != 0).then_some(ObjectRef(object))
    }

    /// The first granule that it covers.
    pub(crate) fn base(&self) -> Granule {
        // Relaxed: under the lock.
        Granule(self.leaf.base.load(Ordering::Relaxed))
    }

    /// The entry at `index`.
    pub(crate) fn get(&self, index: u32) -> Entry {
        self.leaf.load(index)
    }

    /// Replaces the entry at `index`, and returns what it was.
    pub(crate) fn set(&self, index: u32, entry: Entry) -> Entry {
        // AcqRel: Release pairs with the Acquire in `Leaf::load` and publishes the block; a swap, not a store, so
        // that a reader's count of heat is either in what is returned or fails.
        let before = self.leaf.entries[index as usize].swap(entry.word(), Ordering::AcqRel);
        let before = Entry::from_word(before);
        match (before.is_missing(), entry.is_missing()) {
            // Relaxed: under the lock.
            (true, false) => drop(self.leaf.present.fetch_add(1, Ordering::Relaxed)),
            // Relaxed: under the lock.
            (false, true) => drop(self.leaf.present.fetch_sub(1, Ordering::Relaxed)),
            _ => {}
        }
        before
    }

    /// Whether every entry is missing.
    pub(crate) fn is_empty(&self) -> bool {
        // Relaxed: under the lock.
        self.leaf.present.load(Ordering::Relaxed) == 0
    }

    /// Marks an empty leaf as dead.
    pub(super) fn kill(&self) {
        assert!(self.is_empty());
        // Relaxed: under the lock.
        self.leaf.object.store(0, Ordering::Relaxed);
    }
}
