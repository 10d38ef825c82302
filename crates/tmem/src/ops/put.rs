//! Put.
//!
//! A piece encodes its blocks into the context's head, then locks the leaf and stores all their entries, then unlocks.
//! Nobody can find a block before its entry is stored, and a head is sealed only when all its blocks have been committed
//! and entered: the cleaner never sees a block that is still to be entered.
//!
//! Whatever goes wrong, the range of a put that is not stored is missing afterwards.

use super::{Target, leaf_index, release};
use crate::budget::NoRoom;
use crate::cleaner::Want;
use crate::client::PoolCore;
use crate::context::Context;
use crate::engine::Engine;
use crate::entry::{BlockRef, Entry};
use crate::header::Header;
use crate::memory::Gather;
use crate::outcome::{ByteRange, Outcome, Rejection};
use crate::row::Class;
use crate::stats::Counter;
use crate::table::{LEAF_GRANULES, LeafRef, ObjectRef, Unmade};
use crate::units::{BLOCK_GRANULES, GRANULE_BYTES, Granule};
use tmem_codec::{Policy, Temperature, same_filled};

/// Why a piece stopped short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stall {
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

/// Bytes of the largest block that a put makes: what one fault may have to decode.
pub(crate) fn block_bytes(policy: Policy, range_bytes: u64) -> usize {
    match policy {
        Policy::Balanced if range_bytes >= 64 << 10 => 4 * GRANULE_BYTES,
        Policy::Dense if range_bytes >= 64 << 10 => 16 * GRANULE_BYTES,
        Policy::Fast | Policy::Balanced | Policy::Dense => GRANULE_BYTES,
    }
}

/// The entries of a piece before they are stored.
pub(super) struct Pending {
    entries: [Entry; LEAF_GRANULES as usize],
    from: u32,
    to: u32,
    /// Units of the blocks that were encoded since the last time entries were stored.
    units: u64,
    /// Bytes that the entries stand for.
    bytes: usize,
}

/// Where a piece is.
pub(super) struct Place {
    pub(super) object: ObjectRef,
    pub(super) leaf: LeafRef,
    pub(super) class: Class,
    /// Granules of the largest block.
    pub(super) block_granules: usize,
}

impl Engine {
    pub(crate) fn put(
        &self,
        context: &mut Context,
        target: Target<'_>,
        range: ByteRange,
        mut from: Gather<'_>,
    ) -> Outcome {
        let pool = target.pool;
        if target.is_frozen() && !self.replaces_all(context, target, range) {
            self.flush_range(context, target, range);
            return Outcome::Frozen;
        }
        let block_bytes = block_bytes(pool.policy(), range.len);
        let mut left = Some(range);
        let mut tries = Tries::default();
        while let Some(rest) = left {
            match self.put_piece(context, target, rest, from, block_bytes) {
                Ok(bytes) => {
                    from.skip(bytes);
                    left = rest.after(bytes as u64);
                    tries.progress(bytes);
                }
                Err(stall) => {
                    if let Some(failed) = self.unblock(context, target, rest, (stall, &mut tries)) {
                        self.flush_range(context, target, range);
                        return failed;
                    }
                }
            }
        }
        Outcome::Stored
    }

    /// Makes it possible to go on after a stall, or says how the put ends.
    fn unblock(
        &self,
        context: &mut Context,
        target: Target<'_>,
        rest: ByteRange,
        (stall, tries): (Stall, &mut Tries),
    ) -> Option<Outcome> {
        let pool = target.pool;
        let made = match stall {
            Stall::Again => return None,
            Stall::Frozen => return Some(Outcome::Frozen),
            Stall::Gone => return Some(Outcome::Refused(crate::Refusal::UnknownPool(pool.id))),
            Stall::NoRoom(NoRoom::Segment) => self.make_room(context, Want::Segment),
            Stall::NoRoom(NoRoom::Tables(bytes)) => self.make_room(context, Want::Tables(bytes)),
            // Only its own ephemeral blocks can make room for a client under its cap.
            Stall::Cap => self.make_room(context, Want::Cap(&pool.owner)),
        };
        if made.is_ok() && tries.again() {
            return None;
        }
        // What the rest replaces is unreachable already; letting go of it may be what is needed.
        if tries.flush_once() && self.flush_range(context, target, rest) > 0 {
            return None;
        }
        let why = if stall == Stall::Cap { Rejection::Cap } else { Rejection::Budget };
        Some(Outcome::Rejected(why))
    }

    /// Whether every granule of `range` is there.
    fn replaces_all(&self, context: &Context, target: Target<'_>, range: ByteRange) -> bool {
        let _pin = self.epochs.pin(context.slot);
        let object = self.tables.find(target.pool.id, target.id);
        object.is_some_and(|object| self.holds_all(object, range.first(), range.last()))
    }

    /// Whether every granule from `first` to `last` is there. The caller is pinned.
    fn holds_all(&self, object: ObjectRef, first: Granule, last: Granule) -> bool {
        (first.0..=last.0).map(Granule).all(|granule| {
            let leaf = self.tables.leaf(object, granule);
            leaf.is_some_and(|leaf| !self.tables.entry(leaf, leaf_index(granule)).is_missing())
        })
    }

    /// Puts the start of `range`, up to the end of its leaf. Returns the bytes put, at least one granule's.
    fn put_piece(
        &self,
        context: &mut Context,
        target: Target<'_>,
        range: ByteRange,
        mut from: Gather<'_>,
        block_bytes: usize,
    ) -> Result<usize, Stall> {
        let first = range.first();
        let _pin = self.epochs.pin(context.slot);
        let pool = target.pool;
        if pool.is_destroyed() {
            return Err(Stall::Gone);
        }
        let object = self.tables.find_or_make(pool.id, target.id, &self.budget)?;
        self.remember(context, ((pool.id, target.id), object), first);
        let leaf = self.tables.ensure_leaf(pool, object, first, &self.budget)?;
        self.tables.prefetch_change(leaf, leaf_index(first));
        let class = Class::of(pool.persistence);
        let place = Place { object, leaf, class, block_granules: block_bytes / GRANULE_BYTES };
        let start = leaf_index(first);
        let leaf_bytes = (LEAF_GRANULES - start) as usize * GRANULE_BYTES;
        let piece_bytes = usize::try_from(range.len).unwrap_or(usize::MAX).min(leaf_bytes);
        // Asked again for each piece, now that it is pinned: `Client::freeze` waits for the pieces before it.
        let last = Granule(first.0 + (piece_bytes.div_ceil(GRANULE_BYTES) - 1) as u64);
        if target.is_frozen() && !self.holds_all(object, first, last) {
            return Err(Stall::Frozen);
        }
        let mut pending = Pending::starting_at(start);
        let mut done = 0;
        let stall = loop {
            if done + pending.bytes == piece_bytes {
                break self.enter(context, pool, &place, &mut pending).map(|bytes| done += bytes).err();
            }
            let before = pending.bytes;
            if self.encode_next(context, pool, &place, (from, piece_bytes - done - before), &mut pending) {
                from.skip(pending.bytes - before);
                continue;
            }
            // The head is full: what it holds is entered before it is sealed.
            match self.enter(context, pool, &place, &mut pending) {
                Ok(bytes) => done += bytes,
                Err(stall) => break Some(stall),
            }
            if let Err(full) = self.next_head(context, class) {
                break Some(full.into());
            }
        };
        match stall {
            Some(stall) if done == 0 => Err(stall),
            _ => Ok(done),
        }
    }

    /// Encodes the next block of a piece of `left` bytes. Returns whether it fitted into the head.
    fn encode_next(
        &self,
        context: &mut Context,
        pool: &PoolCore,
        place: &Place,
        (from, left): (Gather<'_>, usize),
        pending: &mut Pending,
    ) -> bool {
        let granule_bytes = left.min(GRANULE_BYTES);
        let run = from.run().min(left);
        if run < granule_bytes {
            let mut granule = [0; GRANULE_BYTES];
            from.copy_to(&mut granule[..granule_bytes]);
            self.count(context, pool, Counter::BytesCopied, granule_bytes as u64);
            return self.encode_block(context, pool, place, &granule[..granule_bytes], pending);
        }
        if let Some(pattern) = short_pattern(from.peek(granule_bytes)) {
            pending.push(Entry::filled(pattern), granule_bytes);
            self.count(context, pool, Counter::GranulesFilledPut, 1);
            return true;
        }
        let most = place.block_granules - pending.to as usize % place.block_granules;
        let mut bytes = granule_bytes;
        while bytes < run && bytes < most * GRANULE_BYTES {
            let next = (run - bytes).min(GRANULE_BYTES);
            let whole = next == GRANULE_BYTES || bytes + next == left;
            if !whole || short_pattern(&from.peek(bytes + next)[bytes..]).is_some() {
                break;
            }
            bytes += next;
        }
        self.encode_block(context, pool, place, from.peek(bytes), pending)
    }

    fn encode_block(
        &self,
        context: &mut Context,
        pool: &PoolCore,
        place: &Place,
        raw: &[u8],
        pending: &mut Pending,
    ) -> bool {
        let Context { heads, workspace, .. } = context;
        let Some(head) = &mut heads[place.class as usize] else {
            return false;
        };
        if pending.units == 0 {
            head.rewind();
        }
        let room = head.payload(&self.log.segments);
        let most = room.len().min(raw.len());
        let encoded = tmem_codec::encode(workspace, pool.policy(), Temperature::Hot, raw, &mut room[..most]);
        let Some(encoded) = encoded else { return false };
        let header = Header {
            leaf: place.leaf.0,
            first: pending.to,
            raw_bytes: raw.len(),
            codec: encoded.codec,
            settled: false,
            stored_bytes: encoded.len,
        };
        let block = head.push(&self.log.segments, &header);
        pending.push_block(block, raw.len());
        self.count(context, pool, Counter::BlocksPut, 1);
        self.count(context, pool, Counter::BytesStored, encoded.len as u64);
        true
    }

    /// Stores the pending entries. Returns the bytes that they stand for.
    pub(super) fn enter(
        &self,
        context: &mut Context,
        pool: &PoolCore,
        place: &Place,
        pending: &mut Pending,
    ) -> Result<usize, Stall> {
        if pending.bytes == 0 {
            return Ok(0);
        }
        let leaf = self.tables.lock_leaf(place.leaf);
        let alive = leaf.object() == Some(place.object);
        let range = pending.from..pending.to;
        let share_of = |index: u32| leaf.get(index).as_block().map_or(0, |block| u64::from(block.share()));
        let leaving = if alive { range.clone().map(share_of).sum() } else { 0 };
        if !alive || !pool.owner.charge(pending.units, leaving, pool.persistence) {
            drop(leaf);
            self.forget(context, pending, place.class);
            return Err(if alive { Stall::Cap } else { Stall::Again });
        }
        if let Some(head) = context.head(place.class) {
            head.commit(&self.log.segments);
        }
        let mut replaced = 0;
        for index in range {
            let before = leaf.set(index, pending.entries[index as usize]);
            replaced += u64::from(!before.is_missing());
            release(&self.log, pool, before);
        }
        drop(leaf);
        self.count(context, pool, Counter::GranulesPut, u64::from(pending.to - pending.from));
        self.count(context, pool, Counter::GranulesReplaced, replaced);
        Ok(pending.restart())
    }

    /// Drops blocks that were encoded and will not be entered.
    fn forget(&self, context: &mut Context, pending: &mut Pending, class: Class) {
        if let Some(head) = context.head(class) {
            head.rewind();
        }
        pending.to = pending.from;
        pending.restart();
    }
}

/// The four bytes that a granule repeats, where it does. A ragged one reads as zeros after its end.
fn short_pattern(granule: &[u8]) -> Option<u32> {
    if granule.len() < GRANULE_BYTES {
        return granule.iter().all(|byte| *byte == 0).then_some(0);
    }
    let word = same_filled(granule)?;
    #[expect(clippy::cast_possible_truncation, reason = "the two halves of the word are compared")]
    let (low, high) = (word as u32, (word >> 32) as u32);
    (low == high).then_some(low)
}

impl Pending {
    pub(super) fn starting_at(index: u32) -> Self {
        Self { entries: [Entry::MISSING; LEAF_GRANULES as usize], from: index, to: index, units: 0, bytes: 0 }
    }

    pub(super) fn push(&mut self, entry: Entry, bytes: usize) {
        self.entries[self.to as usize] = entry;
        self.to += 1;
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

    /// Index within the leaf of the next granule.
    pub(super) fn next(&self) -> u32 {
        self.to
    }

    /// Begins anew after the entries so far. Returns the bytes that they stood for.
    fn restart(&mut self) -> usize {
        self.from = self.to;
        self.units = 0;
        std::mem::take(&mut self.bytes)
    }
}

/// How often a put may try to get room before it is rejected. Others may take the room that was made for it, but not
/// for ever: room is made a segment at a time, and a piece needs at most one.
#[derive(Debug, Default)]
pub(super) struct Tries {
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

    pub(super) fn again(&mut self) -> bool {
        self.without_progress += 1;
        self.without_progress <= Self::MOST
    }

    /// True once.
    fn flush_once(&mut self) -> bool {
        !std::mem::replace(&mut self.flushed, true)
    }
}
