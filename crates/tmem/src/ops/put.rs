//! Put.
//!
//! A piece encodes its blocks into the context's head and enters them (`enter`) when the piece or the head ends.
//!
//! Whatever goes wrong, the range of a put that is not stored is missing afterwards.

use super::enter::{Pending, Place, Stall, Tries};
use super::{Target, leaf_index};
use crate::client::PoolCore;
use crate::context::Context;
use crate::engine::Engine;
use crate::entry::Entry;
use crate::header::Header;
use crate::memory::Gather;
use crate::outcome::{ByteRange, Outcome};
use crate::stats::Counter;
use crate::table::LEAF_GRANULES;
use crate::units::{GRANULE_BYTES, Granule};
use tmem_codec::{Policy, Temperature, same_filled_half};

/// Bytes of the largest block that a put makes: what one fault may have to decode.
pub(crate) fn block_bytes(policy: Policy, range_bytes: u64) -> usize {
    match policy {
        Policy::Balanced if range_bytes >= 64 << 10 => 4 * GRANULE_BYTES,
        Policy::Dense if range_bytes >= 64 << 10 => 16 * GRANULE_BYTES,
        Policy::Fast | Policy::Balanced | Policy::Dense => GRANULE_BYTES,
    }
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
                    let let_go = |context: &Context| self.flush_range(context, target, rest);
                    if let Some(failed) = self.unblock(context, pool, (stall, &mut tries), let_go) {
                        self.flush_range(context, target, range);
                        return failed;
                    }
                }
            }
        }
        Outcome::Stored
    }

    /// Whether every granule of `range` is there.
    fn replaces_all(&self, context: &Context, target: Target<'_>, range: ByteRange) -> bool {
        let _pin = self.epochs.pin(context.slot);
        let object = self.tables.find(target.pool.id, target.id);
        object.is_some_and(|object| self.holds_all(object, (range.first().0..=range.last().0).map(Granule)))
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
        let place = self.place(context, target, first, block_bytes / GRANULE_BYTES)?;
        let start = leaf_index(first);
        let leaf_bytes = (LEAF_GRANULES - start) as usize * GRANULE_BYTES;
        let piece_bytes = usize::try_from(range.len).unwrap_or(usize::MAX).min(leaf_bytes);
        // Asked again for each piece, now that it is pinned: `Client::freeze` waits for the pieces before it.
        let last = Granule(first.0 + (piece_bytes.div_ceil(GRANULE_BYTES) - 1) as u64);
        if target.is_frozen() && !self.holds_all(place.object, (first.0..=last.0).map(Granule)) {
            return Err(Stall::Frozen);
        }
        let mut pending = Pending::starting_at(start);
        let mut done = 0;
        let stall = loop {
            if done + pending.bytes == piece_bytes {
                break self.enter_own(context, pool, &place, &mut pending).map(|bytes| done += bytes).err();
            }
            let before = pending.bytes;
            if self.encode_next(context, pool, &place, (from, piece_bytes - done - before), &mut pending) {
                from.skip(pending.bytes - before);
                continue;
            }
            // The head is full: what it holds is entered before it is sealed.
            match self.enter_own(context, pool, &place, &mut pending) {
                Ok(bytes) => done += bytes,
                Err(stall) => break Some(stall),
            }
            if let Err(full) = self.next_head(context, place.class) {
                break Some(full.into());
            }
        };
        match stall {
            Some(stall) if done == 0 => Err(stall),
            _ => Ok(done),
        }
    }

    /// Enters what is at the tail of the context's head.
    fn enter_own(
        &self,
        context: &mut Context,
        pool: &PoolCore,
        place: &Place,
        pending: &mut Pending,
    ) -> Result<usize, Stall> {
        let slot = context.slot;
        self.enter(slot, pool, place, (context.head(place.class).as_mut(), pending))
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
        let most = place.block_granules - pending.next() as usize % place.block_granules;
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
        if pending.has_no_blocks() {
            head.rewind();
        }
        let room = head.payload(&self.log.segments);
        let most = room.len().min(raw.len());
        let encoded = tmem_codec::encode(workspace, pool.policy(), Temperature::Hot, raw, &mut room[..most]);
        let Some(encoded) = encoded else { return false };
        let header = Header {
            leaf: place.leaf.0,
            first: pending.next(),
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
}

/// The four bytes that a granule repeats, where it does. A ragged one reads as zeros after its end.
fn short_pattern(granule: &[u8]) -> Option<u32> {
    if granule.len() < GRANULE_BYTES {
        return granule.iter().all(|byte| *byte == 0).then_some(0);
    }
    same_filled_half(granule)
}
