//! Entering: what puts and loans have in common.
//!
//! A piece writes its blocks to the tail of a head, then locks the leaf and stores all their entries, then unlocks.
//! Nobody can find a block before its entry is stored, and a head is sealed only when all its blocks have been
//! committed and entered: the cleaner never sees a block that is still to be entered.

use super::{Target, leaf_index, release};
use crate::budget::NoRoom;
use crate::cleaner::Want;
use crate::client::{Persistence, PoolCore};
use crate::context::Context;
use crate::engine::Engine;
use crate::entry::{BlockRef, Entry};
use crate::outcome::{Outcome, Refusal, Rejection};
use crate::row::Class;
use crate::segment::OpenSegment;
use crate::stats::Counter;
use crate::table::{LEAF_GRANULES, LeafRef, ObjectRef, Unmade};
use crate::units::{BLOCK_GRANULES, Granule};

/// Why a piece stopped short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stall {
    NoRoom(NoRoom),
    Cap,
    /// The pool or the client was destroyed under it.
    Gone,
    /// The leaf died under it: the same again.
    Again,
    /// The client was frozen under it.
    Frozen,
}

impl From<NoRoom> for Stall {
    fn from(full: NoRoom) -> Self {
        Self::NoRoom(full)
    }
}

impl From<Unmade> for Stall {
    fn from(unmade: Unmade) -> Self {
        match unmade {
            Unmade::NoRoom(full) => Self::NoRoom(full),
            Unmade::Cap => Self::Cap,
            Unmade::Dead => Self::Again,
        }
    }
}

/// Where a piece is.
pub(super) struct Place {
    pub(super) object: ObjectRef,
    pub(super) leaf: LeafRef,
    pub(super) class: Class,
    /// Granules of the largest block.
    pub(super) block_granules: usize,
}

/// The class of what is put to a pool.
pub(crate) fn class_of(pool: &PoolCore) -> Class {
    match pool.persistence {
        Persistence::Persistent => Class::Persistent,
        Persistence::Ephemeral => Class::Probation,
    }
}

impl Engine {
    /// The place of a piece at `first`, its object and leaf made where they are not there. The caller is pinned.
    pub(super) fn place(
        &self,
        context: &mut Context,
        target: Target<'_>,
        first: Granule,
        block_granules: usize,
    ) -> Result<Place, Stall> {
        let pool = target.pool;
        if pool.is_destroyed() {
            return Err(Stall::Gone);
        }
        let object = self.tables.find_or_make(pool.id, target.id, &self.budget)?;
        self.remember(context, ((pool.id, target.id), object), first);
        let leaf = self.tables.ensure_leaf(pool, object, first, &self.budget)?;
        self.tables.prefetch_change(leaf, leaf_index(first));
        Ok(Place { object, leaf, class: class_of(pool), block_granules })
    }

    /// Whether every one of `granules` is there. The caller is pinned.
    pub(super) fn holds_all(&self, object: ObjectRef, mut granules: impl Iterator<Item = Granule>) -> bool {
        granules.all(|granule| {
            let leaf = self.tables.leaf(object, granule);
            leaf.is_some_and(|leaf| !self.tables.entry(leaf, leaf_index(granule)).is_missing())
        })
    }

    /// Stores the pending entries, whose blocks are at the tail of `head`. Returns the bytes that they stand for. If
    /// it fails, the blocks are forgotten. `slot` is the caller's context.
    pub(super) fn enter(
        &self,
        slot: usize,
        pool: &PoolCore,
        place: &Place,
        (head, pending): (Option<&mut OpenSegment>, &mut Pending),
    ) -> Result<usize, Stall> {
        if pending.bytes == 0 {
            return Ok(0);
        }
        let leaf = self.tables.lock_leaf(place.leaf);
        let alive = leaf.object() == Some(place.object);
        let share_of = |index: u32| leaf.get(index).as_block().map_or(0, |block| u64::from(block.share()));
        let leaving = if alive { pending.indices().map(share_of).sum() } else { 0 };
        if !alive || !pool.owner.charge(pending.units, leaving, pool.persistence) {
            drop(leaf);
            pending.forget(head);
            return Err(if alive { Stall::Cap } else { Stall::Again });
        }
        if let Some(head) = head {
            head.commit(&self.log.segments);
        }
        let mut replaced = 0;
        for index in pending.indices() {
            let before = leaf.set(index, pending.entries[index as usize]);
            replaced += u64::from(!before.is_missing());
            release(&self.log, pool, before);
        }
        drop(leaf);
        pool.cells.add(slot, Counter::GranulesPut, u64::from(pending.present.count_ones()));
        pool.cells.add(slot, Counter::GranulesReplaced, replaced);
        Ok(pending.restart())
    }

    /// Makes it possible to go on after a stall, or says how the operation ends. `let_go` flushes what the rest of it
    /// replaces, and returns how many granules were there.
    pub(crate) fn unblock(
        &self,
        context: &mut Context,
        pool: &PoolCore,
        (stall, tries): (Stall, &mut Tries),
        let_go: impl FnOnce(&Context) -> u64,
    ) -> Option<Outcome> {
        let made = match stall {
            Stall::Again => return None,
            Stall::Frozen => return Some(Outcome::Frozen),
            Stall::Gone => return Some(Outcome::Refused(Refusal::UnknownPool(pool.id))),
            Stall::NoRoom(NoRoom::Segment) => self.make_room(context, Want::Segment),
            Stall::NoRoom(NoRoom::Tables(bytes)) => self.make_room(context, Want::Tables(bytes)),
            // Only its own ephemeral blocks can make room for a client under its cap.
            Stall::Cap => self.make_room(context, Want::Cap(&pool.owner)),
        };
        if made.is_ok() && tries.again() {
            return None;
        }
        // What the rest replaces is unreachable already; letting go of it may be what is needed.
        if tries.flush_once() && let_go(context) > 0 {
            return None;
        }
        let why = if stall == Stall::Cap { Rejection::Cap } else { Rejection::Budget };
        Some(Outcome::Rejected(why))
    }
}

/// The entries of a piece before they are stored.
pub(super) struct Pending {
    entries: [Entry; LEAF_GRANULES as usize],
    /// A bit for each entry that is to be stored.
    present: u32,
    /// Where the next one goes.
    next: u32,
    /// Units of the blocks among them.
    units: u64,
    /// Bytes that they stand for.
    pub(super) bytes: usize,
}

const _: () = assert!(LEAF_GRANULES <= u32::BITS);

impl Pending {
    pub(super) fn starting_at(index: u32) -> Self {
        Self { entries: [Entry::MISSING; LEAF_GRANULES as usize], present: 0, next: index, units: 0, bytes: 0 }
    }

    /// Index within the leaf of the next entry.
    pub(super) fn next(&self) -> u32 {
        self.next
    }

    /// Makes `index` the next one.
    pub(super) fn go_to(&mut self, index: u32) {
        self.next = index;
    }

    /// Whether no block is among them.
    pub(super) fn has_no_blocks(&self) -> bool {
        self.units == 0
    }

    pub(super) fn push(&mut self, entry: Entry, bytes: usize) {
        self.entries[self.next as usize] = entry;
        self.present |= 1 << self.next;
        self.next += 1;
        self.bytes += bytes;
    }

    pub(super) fn push_block(&mut self, block: BlockRef, bytes: usize) {
        debug_assert!(block.granules as usize <= BLOCK_GRANULES);
        for index in 0..block.granules {
            self.push(Entry::block(block.at(index)), 0);
        }
        self.bytes += bytes;
        self.units += u64::from(block.units);
    }

    /// Indices of the entries, ascending.
    fn indices(&self) -> impl Iterator<Item = u32> + use<> {
        let mut left = self.present;
        core::iter::from_fn(move || {
            let index = left.trailing_zeros();
            left &= left.wrapping_sub(1);
            (index < u32::BITS).then_some(index)
        })
    }

    /// Drops them, and the blocks that were written to `head` for them.
    fn forget(&mut self, head: Option<&mut OpenSegment>) {
        if let Some(head) = head {
            head.rewind();
        }
        self.next = self.present.trailing_zeros().min(self.next);
        self.restart();
    }

    /// Begins anew after the entries so far. Returns the bytes that they stood for.
    fn restart(&mut self) -> usize {
        self.present = 0;
        self.units = 0;
        std::mem::take(&mut self.bytes)
    }
}

/// How often an operation may try to get room before it is rejected. Others may take the room that was made for it,
/// but not for ever: room is made a segment at a time, and a piece needs at most one.
#[derive(Debug, Default)]
pub(crate) struct Tries {
    without_progress: u32,
    flushed: bool,
}

impl Tries {
    const MOST: u32 = 64;

    pub(super) fn progress(&mut self, bytes: usize) {
        if bytes > 0 {
            self.without_progress = 0;
        }
    }

    fn again(&mut self) -> bool {
        self.without_progress += 1;
        self.without_progress <= Self::MOST
    }

    /// True once.
    fn flush_once(&mut self) -> bool {
        !std::mem::replace(&mut self.flushed, true)
    }
}
