//! The walk through a victim.
//!
//! What the victim's headers say is believed only where an entry agrees: a block is alive if the entries that its
//! header names refer to this very place. A header that is damaged can therefore make the walk lose its way, but not
//! move or drop anything wrongly. A walk that has lost its way ends with live blocks left over; a second one then
//! looks at every unit. What it cannot find has no header any more, and the segment is set aside until nothing refers
//! to it: its entries report what is damaged.

use super::heads::Kind;
use super::{Cleaner, Fate};
use crate::budget::NoRoom;
use crate::client::PoolCore;
use crate::engine::Engine;
use crate::entry::{BlockRef, Entry};
use crate::header::{HEADER_BYTES, Header};
use crate::ops::{clear, release};
use crate::row::Class;
use crate::stats::Counter;
use crate::table::{LEAF_GRANULES, LeafRef, ObjectRef};
use crate::units::{SegmentId, unit_bytes, units_for};
use std::sync::Arc;

/// How a walk goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// From block to block, and past what is no block.
    Block,
    /// From unit to unit: after a damaged header has led the other kind past live blocks.
    Unit,
}

/// A live block of the victim.
pub(super) struct Live<'a> {
    pub(super) block: BlockRef,
    pub(super) header: Header,
    /// Header and payload, padded to whole units.
    pub(super) bytes: &'a [u8],
    pub(super) leaf: LeafRef,
    pub(super) object: ObjectRef,
    pub(super) pool: Arc<PoolCore>,
    pub(super) class: Class,
    /// What its copy counts as put at: moving does not make it young, but being looked at for use and kept does.
    pub(super) since: u64,
    /// The most heat of its granules.
    pub(super) heat: u32,
    /// Units of the block that its dead granules answer for.
    pub(super) dead_units: u32,
    /// Whether the entries say of the block what its header says.
    agrees: bool,
}

impl Live<'_> {
    pub(super) fn payload(&self) -> &[u8] {
        &self.bytes[HEADER_BYTES..HEADER_BYTES + self.header.stored_bytes]
    }

    /// Whether a block that is partly dead is not worth splitting yet. What is left of a settled one is smaller only
    /// if it is encoded as cold once more: that is done when it is settling's turn, or when half of it is dead.
    fn is_kept_whole(&self, fate: &Fate) -> bool {
        self.header.settled && !matches!(fate, Fate::Settle(_)) && self.dead_units * 2 < self.block.units
    }
}

impl Engine {
    /// Moves everything out of `victim`, which the caller has taken, and retires it. When the reserve is used up, the
    /// victim is put back with what is left in it.
    pub(super) fn clean_victim(&self, cleaner: &mut Cleaner, victim: SegmentId, fate: &Fate) -> Result<(), NoRoom> {
        let row = self.log.segments.row(victim);
        for step in [Step::Block, Step::Unit] {
            if let Err(full) = self.walk(cleaner, victim, fate, step) {
                row.put_back();
                return Err(full);
            }
            if row.word().live() == 0 {
                self.log.retire(victim, &self.epochs);
                return Ok(());
            }
        }
        self.log.condemn(victim);
        Ok(())
    }

    fn walk(&self, cleaner: &mut Cleaner, victim: SegmentId, fate: &Fate, step: Step) -> Result<(), NoRoom> {
        let row = self.log.segments.row(victim);
        let since = if matches!(fate, Fate::Copy) { row.sealed_at() } else { self.log.seals() };
        let of = (row.word().class(), since);
        let bytes = self.log.segments.victim_bytes(victim);
        let mut at = 0;
        while at + HEADER_BYTES <= bytes.len() {
            let mut end = at + unit_bytes(1);
            if let Ok(header) = Header::parse(&bytes[at..]) {
                let (place, units, granules) = (units_for(at), header.units(), header.granules());
                let block = BlockRef { segment: victim, place, units, granules, index: 0 };
                let block_end = (at + unit_bytes(units)).min(bytes.len());
                if let Some(live) = self.look_up(cleaner, block, header, &bytes[at..block_end], of) {
                    self.clean_block(cleaner, &live, fate)?;
                }
                if step == Step::Block {
                    end = block_end;
                }
            }
            at = end;
        }
        Ok(())
    }

    /// What the tables say of a block: nothing, if no entry refers to it.
    fn look_up<'a>(
        &self,
        cleaner: &Cleaner,
        block: BlockRef,
        header: Header,
        bytes: &'a [u8],
        (class, since): (Class, u64),
    ) -> Option<Live<'a>> {
        let leaf = self.tables.checked_leaf(header.leaf)?;
        if header.first + block.granules > LEAF_GRANULES {
            return None;
        }
        let _pin = self.epochs.pin(cleaner.context.slot);
        let guard = self.tables.lock_leaf(leaf);
        let object = guard.object()?;
        let entries = (0..block.granules).map(|nth| (nth, guard.get(header.first + nth)));
        let own: Vec<(u32, Entry)> = entries.filter(|(_, entry)| refers_to(*entry, block)).collect();
        let agrees = own.iter().all(|(nth, entry)| entry.as_block() == Some(block.at(*nth)));
        let heat = own.iter().map(|(_, entry)| entry.heat()).max()?;
        let pool = self.pool_of(object)?;
        let live_units: u32 = own.iter().filter_map(|(_, entry)| entry.as_block()).map(BlockRef::share).sum();
        // A damaged header may say less than its entries; it is found out when the block is verified.
        let dead_units = block.units.saturating_sub(live_units);
        Some(Live { block, header, bytes, leaf, object, pool, class, since, heat, dead_units, agrees })
    }

    fn clean_block(&self, cleaner: &mut Cleaner, live: &Live<'_>, fate: &Fate) -> Result<(), NoRoom> {
        // Intact, but somebody else's, is as corrupt as damaged.
        if Header::verify(live.bytes).is_err() || !live.agrees {
            self.lose(cleaner, live);
            return Ok(());
        }
        let ephemeral = live.class != Class::Persistent;
        match fate {
            Fate::Drop(drops) if ephemeral && drops.concern(live.pool.owner.id) => {
                if live.heat == 0 {
                    self.evict(cleaner, live);
                    return Ok(());
                }
                return self.move_block(cleaner, live, Class::Protected, live.heat - 1);
            }
            Fate::Settle(cold) => {
                if self.settle(cleaner, live, *cold)? {
                    return Ok(());
                }
            }
            Fate::Drop(_) | Fate::Copy => {}
        }
        if live.dead_units == 0 || live.is_kept_whole(fate) {
            self.move_block(cleaner, live, live.class, live.heat)
        } else {
            self.split(cleaner, live, fate)
        }
    }

    /// Copies a block to the cleaner's head for `class`.
    pub(super) fn move_block(
        &self,
        cleaner: &mut Cleaner,
        live: &Live<'_>,
        class: Class,
        heat: u32,
    ) -> Result<(), NoRoom> {
        let kind = Kind { class, settled: 0, since: live.since };
        let head = self.head_with(&mut cleaner.heads, kind, live.header.stored_bytes)?;
        let to = head.push_copy(&self.log.segments, &live.header, live.bytes);
        head.commit(&self.log.segments);
        head.stuck += u64::from(live.dead_units);
        self.redirect(cleaner, live, to, heat);
        live.pool.cells.add(cleaner.context.slot, Counter::BlocksMoved, 1);
        Ok(())
    }

    /// Makes the entries that still refer to the victim's block refer to its copy, which is committed. Of the copy,
    /// the granules that nothing refers to are dead from the start.
    pub(super) fn redirect(&self, cleaner: &Cleaner, live: &Live<'_>, to: BlockRef, heat: u32) {
        let _pin = self.epochs.pin(cleaner.context.slot);
        let guard = self.tables.lock_leaf(live.leaf);
        for nth in 0..to.granules {
            let index = live.header.first + nth;
            let (old, new) = (guard.get(index), to.at(nth));
            if refers_to(old, live.block) {
                guard.set(index, Entry::block(new).with_heat(heat));
                self.log.kill(live.block.segment, live.block.at(nth).share());
            } else {
                self.log.kill(new.segment, new.share());
            }
        }
    }

    /// Drops a block from the tables.
    fn evict(&self, cleaner: &Cleaner, live: &Live<'_>) {
        let granules = self.clear_block(cleaner, live);
        live.pool.cells.add(cleaner.context.slot, Counter::GranulesEvicted, granules);
    }

    /// Makes the entries that still refer to the block missing. Returns how many did.
    fn clear_block(&self, cleaner: &Cleaner, live: &Live<'_>) -> u64 {
        let _pin = self.epochs.pin(cleaner.context.slot);
        let guard = self.tables.lock_leaf(live.leaf);
        let mut cleared = 0;
        for index in live.header.first..live.header.first + live.block.granules {
            if refers_to(guard.get(index), live.block) {
                clear(&self.log, &live.pool, &guard, index);
                cleared += 1;
            }
        }
        let empty = guard.is_empty();
        drop(guard);
        // If nothing was cleared, the leaf may be another object's by now.
        if empty && cleared > 0 {
            self.tables.prune(&live.pool, live.object, live.leaf, &self.epochs, &self.budget);
        }
        cleared
    }

    /// The block is damaged: its entries say so from now on.
    pub(super) fn lose(&self, cleaner: &Cleaner, live: &Live<'_>) {
        let _pin = self.epochs.pin(cleaner.context.slot);
        let guard = self.tables.lock_leaf(live.leaf);
        let mut lost = 0;
        for index in live.header.first..live.header.first + live.block.granules {
            if refers_to(guard.get(index), live.block) {
                let before = guard.set(index, Entry::LOST);
                release(&self.log, &live.pool, before);
                lost += 1;
            }
        }
        live.pool.cells.add(cleaner.context.slot, Counter::GranulesLost, lost);
    }
}

/// Whether an entry refers to a granule of `block`.
pub(super) fn refers_to(entry: Entry, block: BlockRef) -> bool {
    entry.as_block().is_some_and(|own| own.same_block(block))
}
