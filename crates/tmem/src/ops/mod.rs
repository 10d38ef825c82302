//! The operations, each in pieces of at most one leaf (128 KiB). A piece is pinned; between pieces nothing is held but
//! the context.

mod ahead;
mod enter;
mod flush;
mod get;
mod lent;
mod locate;
mod put;

pub(crate) use enter::{Stall, Tries, class_of};
pub(crate) use get::After;
pub use locate::Located;

use crate::client::{Account, ClientState, PoolCore};
use crate::entry::Entry;
use crate::log::Log;
use crate::table::{LEAF_GRANULES, LeafGuard, ObjectId};
use crate::units::Granule;

/// What an operation is on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) pool: &'a PoolCore,
    pub(crate) id: ObjectId,
    /// Who asks for it.
    pub(crate) caller: &'a Account,
}

impl Target<'_> {
    /// Whether puts must not store anything new: for him who asks, or for him who would be charged.
    fn is_frozen(&self) -> bool {
        [self.caller, &self.pool.owner].iter().any(|account| account.state() == ClientState::Frozen)
    }
}

/// Index of a granule within its leaf.
pub(crate) fn leaf_index(granule: Granule) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "below LEAF_GRANULES")]
    {
        (granule.0 % u64::from(LEAF_GRANULES)) as u32
    }
}

/// Sets an entry to missing, and lets go of what it referred to. Returns what it was.
///
/// The segment is told while the leaf is locked: once the cleaner has been through a leaf, every unit that it found
/// dead there has been counted as dead.
pub(crate) fn clear(log: &Log, pool: &PoolCore, leaf: &LeafGuard<'_>, index: u32) -> Entry {
    let before = leaf.set(index, Entry::MISSING);
    release(log, pool, before);
    before
}

/// Lets go of what an entry referred to that was just replaced, under the lock of its leaf.
pub(crate) fn release(log: &Log, pool: &PoolCore, before: Entry) {
    if let Some(block) = before.as_block() {
        log.kill(block.segment, block.share());
        pool.owner.discharge(u64::from(block.share()), pool.persistence);
    }
}
