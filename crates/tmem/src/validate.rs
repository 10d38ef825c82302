//! The slow check of everything against everything.

use crate::client::Persistence;
use crate::context::Context;
use crate::engine::Engine;
use crate::entry::{Entry, EntryKind};
use crate::header::Header;
use crate::row::State;
use crate::table::{LEAF_GRANULES, PIECE_UNITS, PoolId};
use crate::units::SegmentId;
use std::collections::HashMap;

/// What a walk through all tables found.
#[derive(Debug, Default)]
pub(crate) struct Census {
    pub(crate) granules: u64,
    /// Units by pool.
    units: HashMap<PoolId, u64>,
    /// Granules by pool.
    by_pool: HashMap<PoolId, u64>,
    live: HashMap<SegmentId, u64>,
}

impl Engine {
    /// Walks all tables and adds up what entries refer to.
    pub(crate) fn census(&self) -> Census {
        self.census_in(&self.contexts.take(&self.budget))
    }

    fn census_in(&self, context: &Context) -> Census {
        let mut census = Census::default();
        for (pool, pieces) in self.tables.pieces() {
            *census.units.entry(pool).or_default() += pieces * u64::from(PIECE_UNITS);
        }
        let pin = self.epochs.pin(context.slot);
        self.tables.for_each_leaf(|leaf, guard| {
            let Some(object) = guard.object() else { return };
            let pool = self.tables.pool_of(object);
            for index in 0..LEAF_GRANULES {
                let entry = guard.get(index);
                census.add(pool, entry);
                let Some(block) = entry.as_block() else { continue };
                let bytes = self.log.segments.block(block, &pin);
                // A damaged block is for gets to report.
                let Some(Ok((header, _))) = bytes.map(Header::verify) else { continue };
                let owner = (header.leaf, header.first + block.index);
                assert_eq!(owner, (leaf.0, index), "a block's owner is the entry that refers to it");
                assert_eq!((header.units(), header.granules()), (block.units, block.granules), "sizes agree");
            }
        });
        census
    }

    /// See [`crate::Store::validate`].
    pub(crate) fn validate(&self) {
        let context = self.contexts.take(&self.budget);
        let _cleaner = self.lock_cleaner();
        let census = self.census_in(&context);
        let mut reclaimable = 0;
        for id in self.log.ids() {
            let word = self.log.segments.row(id).word();
            let live = census.live.get(&id).copied().unwrap_or(0);
            assert_eq!(u64::from(word.live()), live, "live units of {id:?} ({:?})", word.state());
            assert!(word.live() <= word.filled(), "{id:?}: {word:?}");
            if word.state() == State::Sealed {
                reclaimable += crate::units::unit_bytes(word.reclaimable());
            }
        }
        assert_eq!(self.log.reclaimable_bytes(), reclaimable, "what cleaning could win back");
        for account in self.registry.clients() {
            let (mut charged, mut ephemeral) = (0, 0);
            for pool in account.pools.read().unwrap_or_else(std::sync::PoisonError::into_inner).values() {
                if pool.owner.id != account.id {
                    continue;
                }
                let units = census.units.get(&pool.id).copied().unwrap_or(0);
                charged += units;
                ephemeral += if pool.persistence == Persistence::Ephemeral { units } else { 0 };
                let granules = census.by_pool.get(&pool.id).copied().unwrap_or(0);
                pool.cells.sum().check(granules).unwrap_or_else(|broken| panic!("pool {:?}: {broken}", pool.id));
            }
            assert_eq!(account.charged_units(), charged, "the account of {:?}", account.name);
            assert_eq!(account.ephemeral_units(), ephemeral, "the ephemeral account of {:?}", account.name);
        }
        assert!(self.budget.is_balanced(), "the budget's parts make up the whole: {:?}", self.budget);
    }
}

impl Census {
    fn add(&mut self, pool: PoolId, entry: Entry) {
        match entry.kind() {
            EntryKind::Missing => return,
            EntryKind::Filled(_) | EntryKind::Lost => {}
            EntryKind::Block(block) => {
                *self.live.entry(block.segment).or_default() += u64::from(block.share());
                *self.units.entry(pool).or_default() += u64::from(block.share());
            }
        }
        self.granules += 1;
        *self.by_pool.entry(pool).or_default() += 1;
    }
}
