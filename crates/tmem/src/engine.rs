//! The engine: the parts of a store put together. What the public faces (store, client, pool) call.

use crate::budget::{Budget, NoRoom, RESERVE_BYTES};
use crate::cleaner::{Cleaner, Signal};
use crate::client::{PoolCore, Registry};
use crate::context::{Context, Contexts};
use crate::epoch::Epochs;
use crate::loan::Loans;
use crate::log::Log;
use crate::ops::Target;
use crate::row::Class;
use crate::stats::Counter;
use crate::store::{Settling, StoreError, StoreOptions};
use crate::table::{ObjectRef, Tables};
use crate::units::SEGMENT_BYTES;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The smallest budget that leaves room for work: the cleaner's reserve, a head for each class, a few segments of
/// blocks, tables and scratch.
pub(crate) const MIN_BUDGET_BYTES: usize = RESERVE_BYTES + 6 * SEGMENT_BYTES;

/// Budget for each context: its heads are then at most an eighth of the store.
const BUDGET_PER_CONTEXT: usize = 32 << 20;

#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) budget: Budget,
    pub(crate) epochs: Epochs,
    pub(crate) log: Log,
    pub(crate) tables: Tables,
    pub(crate) contexts: Contexts,
    pub(crate) loans: Loans,
    pub(crate) registry: Registry,
    /// Lock: taken before everything else. Whoever holds it cleans.
    cleaner: Mutex<Cleaner>,
    /// Lock: taken before a context. Whoever holds it removes an object of a pool that is emptied.
    emptying: Mutex<()>,
    pub(crate) signal: Signal,
    /// Counts changes of pools' policies: what was settled before one may be worth settling again.
    policies: AtomicU64,
    pub(crate) settling: Settling,
    /// Contexts, and so epoch slots and statistics cells; the cleaner's own comes on top.
    pub(crate) slots: usize,
}

impl Engine {
    pub(crate) fn new(options: StoreOptions) -> Result<Self, StoreError> {
        let budget_bytes = options.budget_bytes;
        check_budget(budget_bytes)?;
        let cpus = std::thread::available_parallelism().map_or(2, usize::from);
        let slots = (budget_bytes / BUDGET_PER_CONTEXT).clamp(1, 2 * cpus);
        let budget = Budget::new(budget_bytes);
        let no_room = |_: NoRoom| StoreError::BudgetTooSmall { bytes: budget_bytes, least: MIN_BUDGET_BYTES };
        let contexts = Contexts::new(slots, &budget).map_err(no_room)?;
        let cleaner = Mutex::new(Cleaner::new(slots, &budget).map_err(no_room)?);
        Ok(Self {
            budget,
            epochs: Epochs::new(slots + 1),
            log: Log::new()?,
            tables: Tables::new()?,
            contexts,
            loans: Loans::default(),
            registry: Registry::default(),
            cleaner,
            emptying: Mutex::default(),
            signal: Signal::default(),
            policies: AtomicU64::new(1),
            settling: options.settling,
            slots,
        })
    }

    /// How often policies have changed, from 1 on.
    pub(crate) fn policy_generation(&self) -> u64 {
        self.policies.load(Ordering::Relaxed) // Relaxed: a hint for choosing victims
    }

    /// A pool's policy has changed.
    pub(crate) fn policy_changed(&self) {
        self.policies.fetch_add(1, Ordering::Relaxed); // Relaxed: as above
    }

    pub(crate) fn lock_cleaner(&self) -> MutexGuard<'_, Cleaner> {
        self.cleaner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until every operation that began before a client's or pool's state was changed has ended its current
    /// piece, and so sees the change in its next. The caller is not pinned.
    pub(crate) fn settle_state(&self) {
        let stamp = self.epochs.stamp();
        while !self.epochs.passed(stamp) {
            std::thread::yield_now();
        }
    }

    /// Removes everything in `pool` that was there when this was called. Returns how many granules that were.
    pub(crate) fn empty_pool(&self, pool: &PoolCore) -> u64 {
        let mut flushed = 0;
        for id in self.tables.objects_of(pool.id) {
            // One context for all who empty pools, and no longer than for an object: operations need the others.
            let _turn = self.emptying.lock().unwrap_or_else(PoisonError::into_inner);
            let context = self.contexts.take(&self.budget);
            flushed += self.remove_object(&context, Target { pool, id, caller: &pool.owner });
        }
        self.reclaim_now();
        flushed
    }

    /// Calls the cleaner's thread if what was let go of has made a segment worth cleaning: nobody else may, if nothing is
    /// put for a while.
    pub(crate) fn tell_of_waste(&self) {
        if self.log.has_ripened() {
            self.signal.wasted();
        }
    }

    /// Makes usable again what nobody can see any more.
    pub(crate) fn reclaim_now(&self) {
        self.log.reclaim(&self.epochs, &self.budget);
        self.tables.reclaim(&self.epochs, &self.budget, crate::table::Reuse::Now);
    }

    /// Opens the next head for `class` in `context`, sealing what is there.
    pub(crate) fn next_head(&self, context: &mut Context, class: Class) -> Result<(), NoRoom> {
        if let Some(full) = context.head(class).take() {
            self.log.seal(full);
        }
        let head = match self.log.reopen(class, 0, &self.budget) {
            Some(head) => head,
            None => self.log.open((class, 0), &self.budget, crate::budget::Claim::Put)?,
        };
        *context.head(class) = Some(head);
        self.signal.opened();
        Ok(())
    }

    /// The pool of an object that the caller has just found alive.
    pub(crate) fn pool_of(&self, object: ObjectRef) -> Option<std::sync::Arc<PoolCore>> {
        self.registry.pool(self.tables.pool_of(object))
    }

    /// Counts `n` of `counter` for `pool` in the caller's context.
    pub(crate) fn count(&self, context: &Context, pool: &PoolCore, counter: Counter, n: u64) {
        pool.cells.add(context.slot, counter, n);
    }
}

/// Whether a store can work within `bytes`.
pub(crate) fn check_budget(bytes: usize) -> Result<(), StoreError> {
    if bytes < MIN_BUDGET_BYTES {
        return Err(StoreError::BudgetTooSmall { bytes, least: MIN_BUDGET_BYTES });
    }
    Ok(())
}
