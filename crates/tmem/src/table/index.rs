//! The hash index: from (pool, object id) to the object's number.
//!
//! Each shard is a SwissTable of numbers; the names are in the objects. Memory is counted as the tables allocate it.

use super::{ObjectId, ObjectRef, PoolId};
use crate::budget::{Budget, NoRoom, Use};
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use std::hash::BuildHasher;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

const SHARDS: usize = 64;

/// A name, and how to ask an object for its own.
type Name = (PoolId, ObjectId);

#[derive(Debug)]
pub(super) struct Index {
    shards: Box<[Shard]>,
    hasher: FixedState,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Shard(RwLock<HashTable<ObjectRef>>);

impl Default for Index {
    fn default() -> Self {
        // Clients choose the names. A seed of this process's own keeps them from choosing collisions.
        let seed = std::collections::hash_map::RandomState::new().hash_one(0);
        Self { shards: (0..SHARDS).map(|_| Shard::default()).collect(), hasher: FixedState::with_seed(seed) }
    }
}

impl Index {
    fn hash(&self, name: Name) -> u64 {
        self.hasher.hash_one(name)
    }

    fn shard(&self, hash: u64) -> &Shard {
        // The table inside a shard uses the low bits and the top seven.
        &self.shards[(hash >> 40) as usize % SHARDS]
    }

    pub(super) fn find(&self, pool: PoolId, id: ObjectId, name_of: impl Fn(ObjectRef) -> Name) -> Option<ObjectRef> {
        let hash = self.hash((pool, id));
        self.shard(hash).read().find(hash, |object| name_of(*object) == (pool, id)).copied()
    }

    /// The object of that name; if there is none, the one that `make` makes.
    pub(super) fn find_or_insert(
        &self,
        pool: PoolId,
        id: ObjectId,
        budget: &Budget,
        name_of: impl Fn(ObjectRef) -> Name,
        make: impl FnOnce() -> Result<ObjectRef, NoRoom>,
    ) -> Result<ObjectRef, NoRoom> {
        let hash = self.hash((pool, id));
        let mut shard = self.shard(hash).write();
        if let Some(object) = shard.find(hash, |object| name_of(*object) == (pool, id)) {
            return Ok(*object);
        }
        let before = shard.allocation_size();
        if shard.len() == shard.capacity() && budget.room() < 2 * before {
            return Err(NoRoom::Tables(2 * before));
        }
        let object = make()?;
        shard.insert_unique(hash, object, |object| self.hash(name_of(*object)));
        budget.adjust(before, shard.allocation_size(), Use::Index);
        Ok(object)
    }

    /// Removes that object if it is still there and `agree` says yes, under the shard's lock.
    pub(super) fn remove_if(
        &self,
        name: Name,
        (object, name_of): (ObjectRef, impl Fn(ObjectRef) -> Name),
        budget: &Budget,
        agree: impl FnOnce() -> bool,
    ) -> bool {
        let hash = self.hash(name);
        let mut shard = self.shard(hash).write();
        let Ok(entry) = shard.find_entry(hash, |other| *other == object) else { return false };
        if !agree() {
            return false;
        }
        entry.remove();
        if shard.len() < shard.capacity() / 8 {
            let (before, most) = (shard.allocation_size(), 2 * shard.len());
            shard.shrink_to(most, |object| self.hash(name_of(*object)));
            budget.adjust(before, shard.allocation_size(), Use::Index);
        }
        true
    }

    /// Every object, as of now.
    pub(super) fn all(&self) -> Vec<ObjectRef> {
        self.shards.iter().flat_map(|shard| shard.read().iter().copied().collect::<Vec<_>>()).collect()
    }
}

impl Shard {
    fn read(&self) -> RwLockReadGuard<'_, HashTable<ObjectRef>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashTable<ObjectRef>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}
