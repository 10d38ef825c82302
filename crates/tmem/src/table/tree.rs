//! The tree of one object: from a granule to its leaf.

use super::leaf::{LEAF_GRANULES, LeafRef};
use super::{Garbage, LeafGuard, ObjectId, PoolId, Reuse, Tables};
use crate::budget::{Budget, NoRoom};
use crate::client::PoolCore;
use crate::epoch::Epochs;
use crate::slab::Stable;
use crate::units::{Granule, unit_bytes, units_for};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// An object, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ObjectRef(pub(crate) u32);

/// log2 of the leaves below a node of the lowest level.
const LOW_BITS: u32 = 6;
/// log2 of the children of a node above that.
const HIGH_BITS: u32 = 5;

/// Words of a node.
const NODE_WORDS: usize = 1 << LOW_BITS;
/// Words of a child above the lowest level: its number, and a guess.
const HIGH_WORDS: usize = 2;
const _: () = assert!(HIGH_WORDS << HIGH_BITS == NODE_WORDS);

/// The height at which every leaf of 2^64 bytes has a place.
const MAX_HEIGHT: u32 = 10;
const _: () = assert!(leaf_bits(MAX_HEIGHT) >= 64 - 12 - LEAF_GRANULES.ilog2());

/// An inner node.
///
/// | level | words |
/// |---|---|
/// | 0 | the numbers of 64 leaves; 0 is none |
/// | above | of 32 nodes, each the number, and, if they are of level 0, a *guess*; 0 is none |
///
/// In a large store a lookup finds the nodes of level 0 in no cache, nor the leaves. So that it need not wait for one
/// after the other, the node above says what number the leaf in slot 0 has if the leaves were made in their order, as
/// they are when an object is filled in its order. A guess is good for prefetching only.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Node {
    words: [AtomicU32; NODE_WORDS],
    /// Children that are not 0. Changed under the structure lock.
    count: AtomicU32,
}

// SAFETY: atomics only, and they have no destructors.
unsafe impl Stable for Node {}

/// An object: whose it is, and the root of its tree. All but the loads of `root` happen under its structure lock, or
/// before anybody can find it.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Object {
    id: [AtomicU64; 3],
    /// [`Root`].
    root: AtomicU64,
    pool: AtomicU32,
    /// 1 when it was taken out of the index.
    dead: AtomicU32,
    /// Leaves in the tree.
    leaves: AtomicU32,
}

// SAFETY: atomics only, and they have no destructors.
unsafe impl Stable for Object {}

/// The root word: the number of the root in bits 0-31, and in bits 32-35 its height: 0 when it is a leaf. 0 is an
/// empty tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Root {
    id: u32,
    height: u32,
}

impl Root {
    fn from_word(word: u64) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "the two halves of the word")]
        Self { id: word as u32, height: (word >> 32) as u32 }
    }

    fn word(self) -> u64 {
        u64::from(self.height) << 32 | u64::from(self.id)
    }

    /// Whether a tree of this height has a place for the leaf.
    fn covers(self, leaf_index: u64) -> bool {
        self.height >= MAX_HEIGHT || leaf_index >> leaf_bits(self.height) == 0
    }
}

/// log2 of the leaves below a tree of that height, or below a child of a node at that level.
const fn leaf_bits(height: u32) -> u32 {
    if height == 0 { 0 } else { LOW_BITS + HIGH_BITS * (height - 1) }
}

/// Words of a child of a node at `level`.
const fn child_words(level: u32) -> usize {
    if level == 0 { 1 } else { HIGH_WORDS }
}

/// The word of a node at `level` (0: its children are leaves) that leads to the leaf.
fn child_slot(leaf_index: u64, level: u32) -> usize {
    #[expect(clippy::cast_possible_truncation, reason = "only the lowest bits count")]
    let child = (leaf_index >> leaf_bits(level)) as usize;
    child * child_words(level) % NODE_WORDS
}

fn leaf_index(granule: Granule) -> u64 {
    granule.0 / u64::from(LEAF_GRANULES)
}

// Where an ordering is Relaxed in this file, the structure lock is held, or the thing cannot be found yet.
impl Object {
    pub(super) fn reset(&self, pool: PoolId, id: ObjectId) {
        for (cell, word) in self.id.iter().zip(id.0) {
            cell.store(word, Ordering::Relaxed); // Relaxed: not findable yet
        }
        self.root.store(0, Ordering::Relaxed); // Relaxed: not findable yet
        self.pool.store(pool.0, Ordering::Relaxed); // Relaxed: not findable yet
        self.leaves.store(0, Ordering::Relaxed); // Relaxed: not findable yet
        // Release: pairs with the Acquire in `is_alive`. Who has a hint of the object before has not its root any
        // more.
        self.dead.store(0, Ordering::Release);
    }

    pub(super) fn id(&self) -> ObjectId {
        // Relaxed: set before the object could be found, which the index's lock publishes.
        ObjectId([0, 1, 2].map(|at: usize| self.id[at].load(Ordering::Relaxed)))
    }

    pub(super) fn pool(&self) -> PoolId {
        // Relaxed: as for `id`.
        PoolId(self.pool.load(Ordering::Relaxed))
    }

    fn root(&self) -> Root {
        // Acquire: pairs with the Release in `set_root`. The nodes below are seen as they were linked.
        Root::from_word(self.root.load(Ordering::Acquire))
    }

    fn set_root(&self, root: Root) {
        // Release: pairs with the Acquire in `root`.
        self.root.store(root.word(), Ordering::Release);
    }

    fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed) != 0 // Relaxed: under the structure lock
    }

    /// As of now, for one who is pinned: what is reached from a live object is not reused before he is unpinned.
    fn is_alive(&self) -> bool {
        self.dead.load(Ordering::Acquire) == 0 // Acquire: pairs with the Release in `reset`
    }
}

impl Node {
    fn reset(&self) {
        for word in &self.words {
            word.store(0, Ordering::Relaxed); // Relaxed: not findable yet
        }
        self.count.store(0, Ordering::Relaxed); // Relaxed: not findable yet
    }

    fn child(&self, slot: usize) -> u32 {
        // Acquire: pairs with the Release in `link`. What the child holds is seen.
        self.words[slot].load(Ordering::Acquire)
    }

    fn link(&self, slot: usize, id: u32) {
        self.count.fetch_add(1, Ordering::Relaxed); // Relaxed: under the structure lock
        // Release: pairs with the Acquire in `child`.
        self.words[slot].store(id, Ordering::Release);
    }

    /// The number that the first leaf below the child may have: a guess.
    fn guess(&self, slot: usize) -> u32 {
        self.words[slot + 1].load(Ordering::Relaxed) // Relaxed: right or wrong, it only says what to prefetch
    }

    fn set_guess(&self, slot: usize, first: u32) {
        self.words[slot + 1].store(first, Ordering::Relaxed); // Relaxed: as in `guess`
    }

    fn prefetch(&self, slot: usize) {
        tmem_sys::prefetch(&raw const self.words[slot]);
    }

    fn has_one_child(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 1 // Relaxed: under the structure lock
    }

    /// Returns whether the node has no children left.
    fn unlink(&self, slot: usize) -> bool {
        // Release: only for symmetry with `link`; the epoch's fence orders unlinking before reuse.
        self.words[slot].store(0, Ordering::Release);
        self.count.fetch_sub(1, Ordering::Relaxed) == 1 // Relaxed: under the structure lock
    }
}

/// Units that a client is charged for each leaf and each node.
pub(crate) const PIECE_UNITS: u32 = units_for(size_of::<super::leaf::Leaf>());
const _: () = assert!(unit_bytes(PIECE_UNITS) >= size_of::<Node>());

/// Why there is no leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unmade {
    /// The store has no memory for it.
    NoRoom(NoRoom),
    /// The client is at its cap.
    Cap,
    /// The object is dead: look it up again.
    Dead,
}

impl From<NoRoom> for Unmade {
    fn from(full: NoRoom) -> Self {
        Self::NoRoom(full)
    }
}

impl Tables {
    /// The pool of an object. The caller is pinned, or holds the lock of one of its leaves.
    pub(crate) fn pool_of(&self, object: ObjectRef) -> PoolId {
        self.objects.get(object.0).pool()
    }

    pub(super) fn find_leaf(&self, object: ObjectRef, granule: Granule) -> Option<LeafRef> {
        let index = leaf_index(granule);
        let root = self.objects.get(object.0).root();
        if root.id == 0 || !root.covers(index) {
            return None;
        }
        let mut id = root.id;
        for level in (0..root.height).rev() {
            id = self.nodes.get(id).child(child_slot(index, level));
            if id == 0 {
                return None;
            }
        }
        Some(LeafRef(id))
    }

    /// Whether an object that was found at some time is alive and has that name. The caller is pinned.
    pub(crate) fn is_still(&self, object: ObjectRef, name: (PoolId, ObjectId)) -> bool {
        self.objects.get(object.0).is_alive() && self.name_of(object) == name
    }

    /// Asks for what a lookup of `granule` in `object` is going to wait for. The caller is pinned.
    pub(crate) fn prefetch_path(&self, object: ObjectRef, granule: Granule) {
        let index = leaf_index(granule);
        let root = self.objects.get(object.0).root();
        if root.id == 0 || !root.covers(index) {
            return;
        }
        let mut id = root.id;
        for level in (1..root.height).rev() {
            let node = self.nodes.get(id);
            let slot = child_slot(index, level);
            id = node.child(slot);
            if id == 0 {
                return;
            }
            if level == 1 {
                self.nodes.get(id).prefetch(child_slot(index, 0));
                self.prefetch_guess(node.guess(slot), granule);
            }
        }
    }

    /// Asks for the entry of `granule`, if `first` is the number of the first leaf below the same node of level 0 and
    /// the others follow it.
    fn prefetch_guess(&self, first: u32, granule: Granule) {
        #[expect(clippy::cast_possible_truncation, reason = "less than NODE_WORDS")]
        let leaf = first.wrapping_add(child_slot(leaf_index(granule), 0) as u32);
        if first != 0 && self.leaves.contains(leaf) {
            self.leaves.get(leaf).prefetch(crate::ops::leaf_index(granule));
        }
    }

    /// The leaf for `granule` of `object`, made if need be and charged to the pool's owner. The caller is pinned.
    pub(crate) fn ensure_leaf(
        &self,
        pool: &PoolCore,
        object: ObjectRef,
        granule: Granule,
        budget: &Budget,
    ) -> Result<LeafRef, Unmade> {
        if let Some(leaf) = self.find_leaf(object, granule) {
            return Ok(leaf);
        }
        let _structure = self.structure_locks.lock(object.0);
        let cell = self.objects.get(object.0);
        if cell.is_dead() {
            return Err(Unmade::Dead);
        }
        if let Some(leaf) = self.find_leaf(object, granule) {
            return Ok(leaf);
        }
        let index = leaf_index(granule);
        let parent = self.make_path(pool, cell, index, budget)?;
        let leaf = self.alloc_piece(pool, || self.leaves.alloc(budget))?;
        self.leaves.get(leaf).reset(object, Granule(index * u64::from(LEAF_GRANULES)));
        match parent {
            Some(parent) => {
                self.nodes.get(parent).link(child_slot(index, 0), leaf);
                self.note_guess(cell.root(), index, leaf);
            }
            None => cell.set_root(Root { id: leaf, height: 0 }),
        }
        cell.leaves.fetch_add(1, Ordering::Relaxed); // Relaxed: under the structure lock
        Ok(LeafRef(leaf))
    }

    /// Makes the nodes that lead to a leaf, and returns the lowest one; none, where the leaf is to be the root. Nodes
    /// that were made before something ran out stay, without leaves, for the next try.
    fn make_path(&self, pool: &PoolCore, object: &Object, index: u64, budget: &Budget) -> Result<Option<u32>, Unmade> {
        let mut root = object.root();
        if root.id == 0 {
            while !root.covers(index) {
                root.height += 1;
            }
            if root.height == 0 {
                return Ok(None);
            }
            root.id = self.alloc_node(pool, budget)?;
            object.set_root(root);
        }
        while !root.covers(index) {
            let above = self.alloc_node(pool, budget)?;
            self.nodes.get(above).link(0, root.id);
            root = Root { id: above, height: root.height + 1 };
            object.set_root(root);
        }
        let mut id = root.id;
        for level in (1..root.height).rev() {
            let slot = child_slot(index, level);
            let mut child = self.nodes.get(id).child(slot);
            if child == 0 {
                child = self.alloc_node(pool, budget)?;
                self.nodes.get(id).link(slot, child);
            }
            id = child;
        }
        Ok(Some(id))
    }

    /// Guesses from a leaf that was just linked where its neighbours are going to be, unless there is a guess.
    fn note_guess(&self, root: Root, index: u64, leaf: u32) {
        let mut id = root.id;
        for level in (1..root.height).rev() {
            let node = self.nodes.get(id);
            let slot = child_slot(index, level);
            id = node.child(slot);
            if level == 1 && (node.guess(slot) == 0 || self.nodes.get(id).has_one_child()) {
                #[expect(clippy::cast_possible_truncation, reason = "less than NODE_WORDS")]
                node.set_guess(slot, leaf.saturating_sub(child_slot(index, 0) as u32));
            }
        }
    }

    fn alloc_node(&self, pool: &PoolCore, budget: &Budget) -> Result<u32, Unmade> {
        let id = self.alloc_piece(pool, || self.nodes.alloc(budget))?;
        self.nodes.get(id).reset();
        Ok(id)
    }

    /// Charges the pool's owner for a leaf or a node and takes it.
    fn alloc_piece(&self, pool: &PoolCore, alloc: impl FnOnce() -> Result<u32, NoRoom>) -> Result<u32, Unmade> {
        if !pool.owner.charge(u64::from(PIECE_UNITS), 0, pool.persistence) {
            return Err(Unmade::Cap);
        }
        alloc().map_err(|full| {
            pool.owner.discharge(u64::from(PIECE_UNITS), pool.persistence);
            full.into()
        })
    }

    /// Unlinks `leaf` if all its entries are missing, and the object after its last leaf. The caller is pinned and
    /// holds no lock.
    pub(crate) fn prune(&self, pool: &PoolCore, object: ObjectRef, leaf: LeafRef, epochs: &Epochs, budget: &Budget) {
        let mut garbage = Vec::new();
        let childless = {
            let _structure = self.structure_locks.lock(object.0);
            let cell = self.objects.get(object.0);
            let guard = self.lock_leaf(leaf);
            if cell.is_dead() || guard.object() != Some(object) || !guard.is_empty() {
                return;
            }
            guard.kill();
            let index = leaf_index(guard.base());
            drop(guard);
            garbage.push(Garbage::Leaf(leaf.0));
            self.unlink_leaf(cell, index, &mut garbage);
            cell.leaves.fetch_sub(1, Ordering::Relaxed) == 1 // Relaxed: under the structure lock
        };
        self.discharge(pool, garbage.len());
        self.discard(epochs, garbage);
        if childless {
            self.prune_object(object, epochs, budget);
        }
    }

    /// Takes so many leaves and nodes off the account of the pool's owner.
    fn discharge(&self, pool: &PoolCore, pieces: usize) {
        pool.owner.discharge(u64::from(PIECE_UNITS) * pieces as u64, pool.persistence);
    }

    fn unlink_leaf(&self, object: &Object, index: u64, garbage: &mut Vec<Garbage>) {
        let root = object.root();
        let mut path = [(0, 0); MAX_HEIGHT as usize];
        let mut id = root.id;
        for level in (0..root.height).rev() {
            let slot = child_slot(index, level);
            path[level as usize] = (id, slot);
            id = self.nodes.get(id).child(slot);
        }
        for &(node, slot) in &path[..root.height as usize] {
            if !self.nodes.get(node).unlink(slot) {
                return;
            }
            garbage.push(Garbage::Node(node));
        }
        object.set_root(Root { id: 0, height: 0 });
    }

    /// The first leaf of `object` that holds `from` or a later granule. The caller is pinned.
    pub(crate) fn next_leaf(&self, object: ObjectRef, from: Granule) -> Option<LeafRef> {
        let root = self.objects.get(object.0).root();
        let index = leaf_index(from);
        if root.id == 0 || !root.covers(index) {
            return None;
        }
        self.first_leaf(root, index).map(LeafRef)
    }

    /// The first leaf of the subtree at or after `index`, counted from the subtree's own start.
    fn first_leaf(&self, top: Root, index: u64) -> Option<u32> {
        if top.height == 0 {
            return Some(top.id);
        }
        let level = top.height - 1;
        let start = child_slot(index, level);
        (start..NODE_WORDS).step_by(child_words(level)).find_map(|slot| {
            let child = self.nodes.get(top.id).child(slot);
            let inner = if slot == start { index } else { 0 };
            if child == 0 { None } else { self.first_leaf(Root { id: child, height: level }, inner) }
        })
    }

    /// Takes an object without leaves or nodes out of the index.
    pub(crate) fn prune_object(&self, object: ObjectRef, epochs: &Epochs, budget: &Budget) {
        let cell = self.objects.get(object.0);
        let (pool, id) = (cell.pool(), cell.id());
        let removed = self.index.remove_if((pool, id), (object, |object| self.name_of(object)), budget, || {
            let _structure = self.structure_locks.lock(object.0);
            let empty = !cell.is_dead() && cell.root().id == 0;
            if empty {
                cell.dead.store(1, Ordering::Relaxed); // Relaxed: under the structure lock
            }
            empty
        });
        if removed {
            self.discard(epochs, [Garbage::Object(object.0)]);
        }
    }

    /// The object, if it exists. The caller is pinned.
    pub(crate) fn find(&self, pool: PoolId, id: ObjectId) -> Option<ObjectRef> {
        self.index.find(pool, id, |object| self.name_of(object))
    }

    /// The object, made if need be. The caller is pinned.
    pub(crate) fn find_or_make(&self, pool: PoolId, id: ObjectId, budget: &Budget) -> Result<ObjectRef, NoRoom> {
        if let Some(object) = self.find(pool, id) {
            return Ok(object);
        }
        let name_of = |object| self.name_of(object);
        self.index.find_or_insert(pool, id, budget, name_of, || {
            let object = ObjectRef(self.objects.alloc(budget)?);
            self.objects.get(object.0).reset(pool, id);
            Ok(object)
        })
    }

    fn name_of(&self, object: ObjectRef) -> (PoolId, ObjectId) {
        let cell = self.objects.get(object.0);
        (cell.pool(), cell.id())
    }

    /// Every object of `pool`, as of now. It looks at those of all pools, which takes 45 ms for a million: nothing that
    /// objects of a pool could be found by is kept, since that would cost memory for each of them.
    pub(crate) fn objects_of(&self, pool: PoolId) -> Vec<ObjectId> {
        let mut objects = self.index.all();
        // In the order of memory: that halves the time, and takes a third off that of emptying a pool of a million.
        objects.sort_unstable();
        let names = objects.into_iter().map(|object| self.name_of(object));
        names.filter(|name| name.0 == pool).map(|name| name.1).collect()
    }

    /// Takes an object out of the index, for [`Self::dismantle`] by the caller and nobody else. The caller is pinned
    /// and holds no lock.
    pub(crate) fn remove(&self, pool: PoolId, id: ObjectId, budget: &Budget) -> Option<ObjectRef> {
        let object = self.find(pool, id)?;
        let cell = self.objects.get(object.0);
        let removed = self.index.remove_if((pool, id), (object, |object| self.name_of(object)), budget, || {
            let _structure = self.structure_locks.lock(object.0);
            let alive = !cell.is_dead();
            cell.dead.store(1, Ordering::Relaxed); // Relaxed: under the structure lock
            alive
        });
        removed.then_some(object)
    }

    /// Takes an object apart that the caller has removed: calls `visit` with each of its leaves, locked, which
    /// empties it. A dead object's tree changes no more and is freed by nobody else, so the caller need not be
    /// pinned, and should not be: what is freed here is reused as it goes.
    pub(crate) fn dismantle(
        &self,
        pool: &PoolCore,
        object: ObjectRef,
        epochs: &Epochs,
        budget: &Budget,
        mut visit: impl FnMut(&LeafGuard<'_>),
    ) {
        let root = self.objects.get(object.0).root();
        let mut rubbish = |garbage: Garbage| {
            if !matches!(garbage, Garbage::Object(_)) {
                self.discharge(pool, 1);
            }
            self.discard(epochs, [garbage]);
            self.reclaim(epochs, budget, Reuse::WhenMuch);
        };
        if root.id != 0 {
            self.empty_subtree(root, &mut rubbish, &mut visit);
        }
        rubbish(Garbage::Object(object.0));
    }

    fn empty_subtree(&self, top: Root, rubbish: &mut impl FnMut(Garbage), visit: &mut impl FnMut(&LeafGuard<'_>)) {
        if top.height == 0 {
            let guard = self.lock_leaf(LeafRef(top.id));
            visit(&guard);
            guard.kill();
            drop(guard);
            rubbish(Garbage::Leaf(top.id));
            return;
        }
        for slot in (0..NODE_WORDS).step_by(child_words(top.height - 1)) {
            let child = self.nodes.get(top.id).child(slot);
            if child != 0 {
                self.empty_subtree(Root { id: child, height: top.height - 1 }, rubbish, visit);
            }
        }
        rubbish(Garbage::Node(top.id));
    }

    /// Leaves and nodes of every object, by pool. Slow; for checks.
    pub(crate) fn pieces(&self) -> Vec<(PoolId, u64)> {
        let objects = self.index.all().into_iter().map(|object| self.objects.get(object.0));
        objects.map(|cell| (cell.pool(), self.pieces_below(cell.root()))).collect()
    }

    fn pieces_below(&self, top: Root) -> u64 {
        if top.id == 0 {
            return 0;
        }
        let Some(level) = top.height.checked_sub(1) else { return 1 };
        let children = (0..NODE_WORDS).step_by(child_words(level)).map(|slot| {
            let child = self.nodes.get(top.id).child(slot);
            self.pieces_below(Root { id: child, height: level })
        });
        1 + children.sum::<u64>()
    }

    /// Calls `visit` with every leaf that is alive, locked. Slow; for checks.
    pub(crate) fn for_each_leaf(&self, mut visit: impl FnMut(LeafRef, &LeafGuard<'_>)) {
        self.leaves.for_each(|id| {
            let guard = self.lock_leaf(LeafRef(id));
            if guard.object().is_some() {
                visit(LeafRef(id), &guard);
            }
        });
    }
}
