//! The sweep: a hand that goes round all leaves and drops ephemeral granules of some clients.
//!
//! Where a client is at its cap, only its own data can make room for it, wherever that lies; and where tables are
//! short, it is leaves that must go, and same-filled granules, which have no block. Both are found from the tables.
//! What the sweep drops from segments is dead there, for compaction to win back.
//!
//! A hand in the manner of CLOCK: a granule that was got since it last came by is spared once for each get, up to
//! [`MAX_HEAT`](crate::entry::MAX_HEAT).

use super::choose::Drops;
use super::{Cleaner, Exhausted};
use crate::client::{Persistence, PoolCore};
use crate::engine::Engine;
use crate::entry::MAX_HEAT;
use crate::ops::clear;
use crate::stats::Counter;
use crate::table::{LEAF_GRANULES, LeafGuard, LeafRef, PIECE_UNITS};

impl Engine {
    /// Drops granules until the clients concerned hold `goal` units less. Succeeds if anything was dropped.
    pub(super) fn sweep(&self, cleaner: &mut Cleaner, drops: &Drops, goal: u64) -> Result<(), Exhausted> {
        let leaves = self.tables.leaf_numbers();
        let steps = u64::from(leaves) * u64::from(MAX_HEAT + 2);
        let mut freed = 0;
        for _ in 0..steps {
            cleaner.hand = if cleaner.hand + 1 < leaves { cleaner.hand + 1 } else { 1 };
            if let Some(leaf) = self.tables.checked_leaf(cleaner.hand) {
                freed += self.sweep_leaf(cleaner, leaf, drops);
            }
            if freed >= goal {
                break;
            }
        }
        self.await_readers();
        if freed > 0 { Ok(()) } else { Err(Exhausted) }
    }

    /// Returns the units that were freed.
    fn sweep_leaf(&self, cleaner: &Cleaner, leaf: LeafRef, drops: &Drops) -> u64 {
        let slot = cleaner.context.slot;
        let _pin = self.epochs.pin(slot);
        let guard = self.tables.lock_leaf(leaf);
        let Some(object) = guard.object() else { return 0 };
        let Some(pool) = self.pool_of(object) else { return 0 };
        if pool.persistence != Persistence::Ephemeral || !drops.concern(pool.owner.id) {
            return 0;
        }
        let (granules, units) = self.sweep_entries(&guard, &pool);
        let empty = guard.is_empty();
        drop(guard);
        pool.cells.add(slot, Counter::GranulesEvicted, granules);
        if empty {
            self.tables.prune(&pool, object, leaf, &self.epochs, &self.budget);
            return units + u64::from(PIECE_UNITS);
        }
        units
    }

    /// Drops what is cold in a leaf and makes the rest colder. Returns how many granules and units were dropped.
    fn sweep_entries(&self, leaf: &LeafGuard<'_>, pool: &PoolCore) -> (u64, u64) {
        let (mut granules, mut units) = (0, 0);
        for index in 0..LEAF_GRANULES {
            let entry = leaf.get(index);
            if entry.is_missing() {
                continue;
            }
            if entry.heat() == 0 {
                clear(&self.log, pool, leaf, index);
                granules += 1;
                units += entry.as_block().map_or(0, |block| u64::from(block.share()));
            } else {
                leaf.set(index, entry.with_heat(entry.heat() - 1));
            }
        }
        (granules, units)
    }
}
