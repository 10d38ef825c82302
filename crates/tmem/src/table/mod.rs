//! The tables: from (pool, object, granule) to the entry word.
//!
//! ```text
//! index: (pool, object id) -> Object --root--> Node -> ... -> Node -> Leaf: 32 entry words
//! ```
//!
//! A leaf covers 128 KiB of an object, a node 64 leaves or 32 nodes; a tree is as high as its highest granule needs.
//! A dense object costs 8.6 bytes a granule, a hole nothing.
//!
//! Readers take no lock but the index shard's for reading: they walk from the object to the leaf with plain loads,
//! while pinned. Whatever is unlinked goes to `limbo` and is reused when the epoch of its unlinking has passed.
//!
//! Locks, in the order in which they are taken:
//! 1. a shard of the index: which objects exist;
//! 2. a structure stripe: the tree of the objects that hash to it, and whether they are dead;
//! 3. a leaf stripe: the entries of the leaves that hash to it. One only, ever;
//! 4. `limbo`.
//!
//! A leaf or an object that was unlinked is *dead*, and says so under its lock: whoever finds that out starts again
//! from the index.

mod index;
mod leaf;
mod tree;

pub(crate) use leaf::{LEAF_GRANULES, LeafGuard, LeafRef};
pub(crate) use tree::{ObjectRef, PIECE_UNITS, Unmade};

use crate::budget::Budget;
use crate::epoch::{Epochs, Stamp};
use crate::header::MAX_LEAVES;
use crate::slab::Slab;
use crate::units::Granule;
use index::Index;
use leaf::Leaf;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tmem_sys::SysError;
use tree::{Node, Object};

/// A pool, by number; never used twice in the life of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolId(pub u32);

/// The name of an object within its pool: 192 bits that mean something to the client only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ObjectId(pub [u64; 3]);

impl From<u64> for ObjectId {
    fn from(id: u64) -> Self {
        Self([id, 0, 0])
    }
}

/// All tables of a store.
#[derive(Debug)]
pub(crate) struct Tables {
    leaves: Slab<Leaf>,
    nodes: Slab<Node>,
    objects: Slab<Object>,
    index: Index,
    structure_locks: Stripes,
    leaf_locks: Stripes,
    limbo: Mutex<VecDeque<(Stamp, Garbage)>>,
    limbo_len: AtomicUsize,
}

/// Something that was unlinked.
#[derive(Debug, Clone, Copy)]
enum Garbage {
    Leaf(u32),
    Node(u32),
    Object(u32),
}

/// The most objects of a store, and the most nodes.
const MAX_OBJECTS: u32 = 1 << 28;

/// Garbage that is left lying until somebody has time.
const LAZY_GARBAGE: usize = 256;

impl Tables {
    pub(crate) fn new() -> Result<Self, SysError> {
        Ok(Self {
            leaves: Slab::new(MAX_LEAVES - 1)?,
            nodes: Slab::new(MAX_LEAVES - 1)?,
            objects: Slab::new(MAX_OBJECTS)?,
            index: Index::default(),
            structure_locks: Stripes::new(),
            leaf_locks: Stripes::new(),
            limbo: Mutex::new(VecDeque::new()),
            limbo_len: AtomicUsize::new(0),
        })
    }

    /// The leaf that holds `granule` of `object`. The caller is pinned.
    pub(crate) fn leaf(&self, object: ObjectRef, granule: Granule) -> Option<LeafRef> {
        self.find_leaf(object, granule)
    }

    /// The number after the highest that a leaf can have by now.
    pub(crate) fn leaf_numbers(&self) -> u32 {
        self.leaves.numbers()
    }

    /// The leaf of that number, which may mean nothing, if there ever was one.
    pub(crate) fn checked_leaf(&self, id: u32) -> Option<LeafRef> {
        (id != 0 && self.leaves.contains(id)).then_some(LeafRef(id))
    }

    /// The entry at `index` of `leaf`, without any lock. The caller is pinned.
    pub(crate) fn entry(&self, leaf: LeafRef, index: u32) -> crate::entry::Entry {
        self.leaves.get(leaf.0).load(index)
    }

    /// Asks for the entry at `index` of `leaf`, which will be wanted soon.
    pub(crate) fn prefetch(&self, leaf: LeafRef, index: u32) {
        self.leaves.get(leaf.0).prefetch(index);
    }

    /// Asks for what changing the entry at `index` of `leaf` is going to need.
    pub(crate) fn prefetch_change(&self, leaf: LeafRef, index: u32) {
        self.prefetch(leaf, index);
        self.leaves.get(leaf.0).prefetch_owner();
    }

    /// Counts a get of what `seen` refers to, if the entry is still that.
    pub(crate) fn warm(&self, leaf: LeafRef, index: u32, seen: crate::entry::Entry) {
        self.leaves.get(leaf.0).warm(index, seen);
    }

    /// Locks the entries of `leaf`, which may turn out to be dead.
    pub(crate) fn lock_leaf(&self, leaf: LeafRef) -> LeafGuard<'_> {
        LeafGuard::new(self.leaves.get(leaf.0), self.leaf_locks.lock(leaf.0))
    }

    /// Reuses what was unlinked and can no longer be seen. `Reuse::WhenMuch` leaves a little lying.
    pub(crate) fn reclaim(&self, epochs: &Epochs, budget: &Budget, when: Reuse) {
        // Relaxed: a hint; the list itself is behind its lock.
        let len = self.limbo_len.load(Ordering::Relaxed);
        if len == 0 || (when == Reuse::WhenMuch && len < LAZY_GARBAGE) {
            return;
        }
        let mut limbo = lock(&self.limbo);
        while let Some((stamp, garbage)) = limbo.front().copied() {
            if !epochs.passed(stamp) {
                break;
            }
            limbo.pop_front();
            match garbage {
                Garbage::Leaf(id) => self.leaves.free(id, budget),
                Garbage::Node(id) => self.nodes.free(id, budget),
                Garbage::Object(id) => self.objects.free(id, budget),
            }
        }
        if limbo.capacity() > 4 * LAZY_GARBAGE && limbo.len() < LAZY_GARBAGE {
            limbo.shrink_to(LAZY_GARBAGE);
        }
        // Relaxed: a hint.
        self.limbo_len.store(limbo.len(), Ordering::Relaxed);
    }

    fn discard(&self, epochs: &Epochs, garbage: impl IntoIterator<Item = Garbage>) {
        let stamp = epochs.stamp();
        let mut limbo = lock(&self.limbo);
        limbo.extend(garbage.into_iter().map(|garbage| (stamp, garbage)));
        // Relaxed: a hint.
        self.limbo_len.store(limbo.len(), Ordering::Relaxed);
    }
}

/// When to reuse garbage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reuse {
    /// Now.
    Now,
    /// When it has piled up.
    WhenMuch,
}

/// Locks that many things share, by number.
#[derive(Debug)]
struct Stripes(Box<[Stripe]>);

#[derive(Debug, Default)]
#[repr(align(64))]
struct Stripe(Mutex<()>);

const STRIPES: usize = 256;

impl Stripes {
    fn new() -> Self {
        Self((0..STRIPES).map(|_| Stripe::default()).collect())
    }

    fn lock(&self, id: u32) -> MutexGuard<'_, ()> {
        lock(&self.0[id as usize % STRIPES].0)
    }
}

/// Locks whatever a panic elsewhere may have left: every change under these locks is complete before anything can
/// panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
