//! The tree of one object: from a granule to its leaf.

use super::leaf::{LEAF_GRANULES, LeafRef};
use super::{Garbage, LeafGuard, ObjectId, PoolId, Tables};
use crate::budget::{Budget, NoRoom};
use crate::epoch::Epochs;
use crate::slab::Stable;
use crate::units::Granule;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// An object, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ObjectRef(pub(crate) u32);

/// log2 of a node's children.
const NODE_BITS: u32 = 6;
const NODE_CHILDREN: usize = 1 << NODE_BITS;

/// The height at which every leaf of 2^64 bytes has a place.
const MAX_HEIGHT: u32 = 8;
const _: () = assert!(NODE_BITS * MAX_HEIGHT >= 64 - 12 - LEAF_GRANULES.ilog2());

/// An inner node: the numbers of its children, nodes or (at the lowest level) leaves; 0 is none.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Node {
    children: [AtomicU32; NODE_CHILDREN],
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
        self.height >= MAX_HEIGHT || leaf_index >> (NODE_BITS * self.height) == 0
    }
}

/// Which child of a node at `level` (0: its children are leaves) leads to the leaf.
fn child_slot(leaf_index: u64, level: u32) -> usize {
    #[expect(clippy::cast_possible_truncation, reason = "only the lowest bits count")]
    {
        (leaf_index >> (NODE_BITS * level)) as usize % NODE_CHILDREN
    }
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
        self.dead.store(0, Ordering::Relaxed); // Relaxed: not findable yet
        self.leaves.store(0, Ordering::Relaxed); // Relaxed: not findable yet
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
}

impl Node {
    fn reset(&self) {
        for child in &self.children {
            child.store(0, Ordering::Relaxed); // Relaxed: not findable yet
        }
        self.count.store(0, Ordering::Relaxed); // Relaxed: not findable yet
    }

    fn child(&self, slot: usize) -> u32 {
        // Acquire: pairs with the Release in `link`. What the child holds is seen.
        self.children[slot].load(Ordering::Acquire)
    }

    fn link(&self, slot: usize, id: u32) {
        self.count.fetch_add(1, Ordering::Relaxed); // Relaxed: under the structure lock
        // Release: pairs with the Acquire in `child`.
        self.children[slot].store(id, Ordering::Release);
    }

    /// Returns whether the node has no children left.
    fn unlink(&self, slot: usize) -> bool {
        // Release: only for symmetry with `link`; the epoch's fence orders unlinking before reuse.
        self.children[slot].store(0, Ordering::Release);
        self.count.fetch_sub(1, Ordering::Relaxed) == 1 // Relaxed: under the structure lock
    }
}

/// What came of an attempt to make a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ensured {
    /// Here it is.
    Leaf(LeafRef),
    /// The object is dead: look it up again.
    Dead,
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

    /// The leaf for `granule` of `object`, made if need be. The caller is pinned.
    pub(crate) fn ensure_leaf(&self, object: ObjectRef, granule: Granule, budget: &Budget) -> Result<Ensured, NoRoom> {
        if let Some(leaf) = self.find_leaf(object, granule) {
            return Ok(Ensured::Leaf(leaf));
        }
        let _structure = self.structure_locks.lock(object.0);
        let cell = self.objects.get(object.0);
        if cell.is_dead() {
            return Ok(Ensured::Dead);
        }
        if let Some(leaf) = self.find_leaf(object, granule) {
            return Ok(Ensured::Leaf(leaf));
        }
        let index = leaf_index(granule);
        let leaf = self.alloc_leaf(object, Granule(index * u64::from(LEAF_GRANULES)), budget)?;
        if let Err(full) = self.link_leaf(cell, index, leaf, budget) {
            self.leaves.free(leaf, budget);
            return Err(full);
        }
        cell.leaves.fetch_add(1, Ordering::Relaxed); // Relaxed: under the structure lock
        Ok(Ensured::Leaf(LeafRef(leaf)))
    }

    /// Links a leaf that nobody knows yet. Nodes that were made before the budget ran out stay, empty, for the next try.
    fn link_leaf(&self, object: &Object, index: u64, leaf: u32, budget: &Budget) -> Result<(), NoRoom> {
        let mut root = object.root();
        if root.id == 0 {
            while !root.covers(index) {
                root.height += 1;
            }
            if root.height == 0 {
                object.set_root(Root { id: leaf, height: 0 });
                return Ok(());
            }
            root.id = self.alloc_node(budget)?;
            object.set_root(root);
        }
        while !root.covers(index) {
            let above = self.alloc_node(budget)?;
            self.nodes.get(above).link(0, root.id);
            root = Root { id: above, height: root.height + 1 };
            object.set_root(root);
        }
        let mut node = self.nodes.get(root.id);
        for level in (1..root.height).rev() {
            let slot = child_slot(index, level);
            let mut child = node.child(slot);
            if child == 0 {
                child = self.alloc_node(budget)?;
                node.link(slot, child);
            }
            node = self.nodes.get(child);
        }
        node.link(child_slot(index, 0), leaf);
        Ok(())
    }

    fn alloc_node(&self, budget: &Budget) -> Result<u32, NoRoom> {
        let id = self.nodes.alloc(budget)?;
        self.nodes.get(id).reset();
        Ok(id)
    }

    /// Unlinks `leaf` if all its entries are missing, and the object after its last leaf. The caller is pinned and holds
    /// no lock.
    pub(crate) fn prune(&self, object: ObjectRef, leaf: LeafRef, epochs: &Epochs, budget: &Budget) {
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
        self.discard(epochs, garbage);
        if childless {
            self.prune_object(object, epochs, budget);
        }
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
        (start..NODE_CHILDREN).find_map(|slot| {
            let child = self.nodes.get(top.id).child(slot);
            let inner = if slot == start { index } else { 0 };
            if child == 0 { None } else { self.first_leaf(Root { id: child, height: level }, inner) }
        })
    }

    /// Takes an object without leaves out of the index.
    fn prune_object(&self, object: ObjectRef, epochs: &Epochs, budget: &Budget) {
        let cell = self.objects.get(object.0);
        let (pool, id) = (cell.pool(), cell.id());
        let removed = self.index.remove_if(pool, id, object, budget, || {
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

    /// Every object of `pool`, as of now.
    pub(crate) fn objects_of(&self, pool: PoolId) -> Vec<ObjectId> {
        self.index
            .all()
            .into_iter()
            .map(|object| self.name_of(object))
            .filter(|name| name.0 == pool)
            .map(|n| n.1)
            .collect()
    }

    /// Takes an object out of the index and calls `visit` with each of its leaves, locked; `visit` empties them. The
    /// caller is pinned and holds no lock.
    pub(crate) fn remove(
        &self,
        pool: PoolId,
        id: ObjectId,
        epochs: &Epochs,
        budget: &Budget,
        mut visit: impl FnMut(&LeafGuard<'_>),
    ) {
        let Some(object) = self.find(pool, id) else {
            return;
        };
        let cell = self.objects.get(object.0);
        let removed = self.index.remove_if(pool, id, object, budget, || {
            let _structure = self.structure_locks.lock(object.0);
            let alive = !cell.is_dead();
            cell.dead.store(1, Ordering::Relaxed); // Relaxed: under the structure lock
            alive
        });
        if !removed {
            return;
        }
        // Dead objects' trees do not change any more, so they are walked without the structure lock.
        let root = cell.root();
        let mut garbage = vec![Garbage::Object(object.0)];
        if root.id != 0 {
            self.empty_subtree(root, &mut garbage, &mut visit);
        }
        self.discard(epochs, garbage);
    }

    fn empty_subtree(&self, top: Root, garbage: &mut Vec<Garbage>, visit: &mut impl FnMut(&LeafGuard<'_>)) {
        if top.height == 0 {
            let guard = self.lock_leaf(LeafRef(top.id));
            visit(&guard);
            guard.kill();
            garbage.push(Garbage::Leaf(top.id));
            return;
        }
        for slot in 0..NODE_CHILDREN {
            let child = self.nodes.get(top.id).child(slot);
            if child != 0 {
                self.empty_subtree(Root { id: child, height: top.height - 1 }, garbage, visit);
            }
        }
        garbage.push(Garbage::Node(top.id));
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
