//! Flush: of a range, and of whole objects.

use super::{Target, clear, leaf_index};
use crate::context::Context;
use crate::engine::Engine;
use crate::outcome::ByteRange;
use crate::stats::Counter;
use crate::table::{LEAF_GRANULES, Reuse};
use crate::units::Granule;

impl Engine {
    /// Makes `range` missing, its last granule whole. Returns how many granules were there.
    pub(crate) fn flush_range(&self, context: &Context, target: Target<'_>, range: ByteRange) -> u64 {
        let Target { pool, id, .. } = target;
        let last = range.last();
        let mut next = Some(range.first());
        let mut flushed = 0;
        while let Some(first) = next {
            let _pin = self.epochs.pin(context.slot);
            let Some(object) = self.tables.find(pool.id, id) else {
                break;
            };
            let Some(leaf) = self.tables.next_leaf(object, first) else {
                // A put that failed early may have left an object without leaves.
                self.tables.prune_object(object, &self.epochs, &self.budget);
                break;
            };
            let guard = self.tables.lock_leaf(leaf);
            if guard.object() != Some(object) {
                // It died between the walk and the lock; the walk finds the next one.
                drop(guard);
                std::thread::yield_now();
                continue;
            }
            let base = guard.base();
            let from = first.max(base);
            let to = last.min(Granule(base.0 + u64::from(LEAF_GRANULES) - 1));
            for granule in from.0..=to.0 {
                let before = clear(&self.log, pool, &guard, leaf_index(Granule(granule)));
                flushed += u64::from(!before.is_missing());
            }
            let empty = guard.is_empty();
            drop(guard);
            if empty {
                self.tables.prune(pool, object, leaf, &self.epochs, &self.budget);
            }
            next = Some(Granule(base.0 + u64::from(LEAF_GRANULES))).filter(|next| *next <= last);
        }
        self.count(context, pool, Counter::GranulesFlushed, flushed);
        self.tables.reclaim(&self.epochs, &self.budget, Reuse::WhenMuch);
        self.tell_of_waste();
        flushed
    }

    /// Makes all of an object missing. Returns how many granules were there.
    pub(crate) fn remove_object(&self, context: &Context, target: Target<'_>) -> u64 {
        let Target { pool, id, .. } = target;
        let removed = {
            let _pin = self.epochs.pin(context.slot);
            self.tables.remove(pool.id, id, &self.budget)
        };
        let mut flushed = 0;
        if let Some(object) = removed {
            self.tables.dismantle(pool, object, &self.epochs, &self.budget, |leaf| {
                for index in 0..LEAF_GRANULES {
                    let before = clear(&self.log, pool, leaf, index);
                    flushed += u64::from(!before.is_missing());
                }
            });
        }
        self.count(context, pool, Counter::GranulesFlushed, flushed);
        self.tables.reclaim(&self.epochs, &self.budget, Reuse::WhenMuch);
        self.tell_of_waste();
        flushed
    }
}
