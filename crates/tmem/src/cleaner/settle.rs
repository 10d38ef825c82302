//! Encoding anew: cold granules together with their neighbours, and what is left of blocks that are partly dead.

use super::heads::Kind;
use super::walk::{Live, refers_to};
use super::{Cleaner, Cold, Fate};
use crate::budget::NoRoom;
use crate::context::Context;
use crate::engine::Engine;
use crate::entry::{BlockRef, Entry};
use crate::epoch::Pin;
use crate::header::{HEADER_BYTES, Header};
use crate::segment::OpenSegment;
use crate::stats::Counter;
use crate::table::LeafRef;
use crate::units::{BLOCK_GRANULES, BLOCK_GRANULES_U32, GRANULE_BYTES, SEGMENT_BYTES};
use core::ops::Range;
use tmem_codec::{Policy, Temperature};

/// Granules that are encoded together when they are cold: what one fault may have to decode.
fn group_granules(policy: Policy) -> u32 {
    match policy {
        Policy::Fast => 1,
        Policy::Balanced => 4,
        Policy::Dense => 16,
    }
}

/// Neighbours in a leaf, decoded into the cleaner's buffer from its start.
struct Group {
    /// Index in the leaf of the buffer's first granule.
    base: u32,
    /// For each granule of the buffer the entry that it was decoded from; missing, where it was not.
    seen: [Entry; BLOCK_GRANULES],
}

/// Runs of a group, each with the block that it was encoded into.
type Parts = Vec<(Range<u32>, BlockRef)>;

impl Group {
    /// The longest run of decoded granules around `index`.
    fn run_around(&self, index: u32) -> Range<u32> {
        let there = |index: u32| !self.seen[(index - self.base) as usize].is_missing();
        let end = self.base + BLOCK_GRANULES_U32;
        let from = (self.base..=index).rev().take_while(|index| there(*index)).last().unwrap_or(index);
        let to = (index..end).take_while(|index| there(*index)).last().map_or(index, |last| last + 1);
        from..to
    }

    /// Units that the entries of `run` answer for.
    fn units(&self, run: &Range<u32>) -> u32 {
        let entries = run.clone().map(|index| self.seen[(index - self.base) as usize]);
        entries.filter_map(Entry::as_block).map(BlockRef::share).sum()
    }

    fn raw_range(&self, run: &Range<u32>) -> Range<usize> {
        (run.start - self.base) as usize * GRANULE_BYTES..(run.end - self.base) as usize * GRANULE_BYTES
    }
}

impl Engine {
    /// Encodes a block anew as cold, with those of its neighbours that are cold too, wherever they are. Returns
    /// whether nothing refers to the block any more; otherwise it is still to be copied.
    pub(super) fn settle(&self, cleaner: &mut Cleaner, live: &Live<'_>, cold: Cold) -> Result<bool, NoRoom> {
        let policy = live.pool.policy();
        if live.header.settled || policy == Policy::Fast {
            return self.leave(cleaner, live, live.header);
        }
        if cold == Cold::Unread && live.heat > 0 {
            self.move_block(cleaner, live, live.class, live.heat - 1)?;
            return Ok(true);
        }
        for index in live.header.first..live.header.first + live.block.granules {
            if !refers_to(self.tables.entry(live.leaf, index), live.block) {
                continue;
            }
            let group = self.decode_group(cleaner, live, index, (group_granules(policy), cold));
            let run = group.run_around(index);
            let most = group.units(&run);
            if run.is_empty() || !self.rewrite(cleaner, live, (&group, run), most)? {
                return self.leave(cleaner, live, Header { settled: true, ..live.header });
            }
        }
        Ok(true)
    }

    /// Moves a block that settling leaves as it is, unless a part of it is dead: that is to be split off.
    fn leave(&self, cleaner: &mut Cleaner, live: &Live<'_>, header: Header) -> Result<bool, NoRoom> {
        if live.dead_units == 0 {
            self.move_settled(cleaner, live, header)?;
        }
        Ok(live.dead_units == 0)
    }

    /// Decodes the cold granules of the aligned group around `index`, those from other segments only while there is
    /// room besides the reserve: what they leave there is dead, but no room until compaction comes by. And what lies
    /// in a younger segment may be what was just put.
    fn decode_group(&self, cleaner: &mut Cleaner, live: &Live<'_>, index: u32, (granules, cold): (u32, Cold)) -> Group {
        let leaf = live.leaf;
        let from_anywhere = self.budget.room() >= SEGMENT_BYTES;
        let base = index / granules * granules;
        let mut group = Group { base, seen: [Entry::MISSING; BLOCK_GRANULES] };
        let Cleaner { context, raw, .. } = cleaner;
        let pin = self.epochs.pin(context.slot);
        let mut held: Option<BlockRef> = None;
        for nth in 0..granules {
            let entry = self.tables.entry(leaf, base + nth);
            let Some(block) = entry.as_block() else {
                continue;
            };
            if cold == Cold::Unread && entry.heat() > 0 || !from_anywhere && block.segment != live.block.segment {
                continue;
            }
            let again = held.is_some_and(|held| held.same_block(block));
            if !again && !self.decode_block(context, leaf, (base + nth, block), &pin) {
                held = None;
                continue;
            }
            held = Some(block);
            let from = block.index as usize * GRANULE_BYTES;
            let to = nth as usize * GRANULE_BYTES;
            raw[to..to + GRANULE_BYTES].copy_from_slice(&context.scratch[from..from + GRANULE_BYTES]);
            group.seen[nth as usize] = entry;
        }
        group
    }

    /// Decodes a block that is not settled into the context's scratch, zeros behind it. Returns whether it did.
    fn decode_block(
        &self,
        context: &mut Context,
        leaf: LeafRef,
        (index, block): (u32, BlockRef),
        pin: &Pin<'_>,
    ) -> bool {
        let Some(bytes) = self.log.segments.block(block, pin) else {
            return false;
        };
        let Ok((header, payload)) = Header::verify(bytes) else {
            return false;
        };
        if header.settled || (header.leaf, header.first) != (leaf.0, index.wrapping_sub(block.index)) {
            return false;
        }
        let Context { workspace, scratch, .. } = context;
        let (raw, rest) = scratch.split_at_mut(header.raw_bytes);
        rest.fill(0);
        tmem_codec::decode(workspace, header.codec, payload, raw).is_ok()
    }

    /// Encodes a run of a group as one block and makes the entries refer to it that are still what they were. Returns
    /// false, and does nothing, if the block would have more than `most` units.
    fn rewrite(
        &self,
        cleaner: &mut Cleaner,
        live: &Live<'_>,
        (group, run): (&Group, Range<u32>),
        most: u32,
    ) -> Result<bool, NoRoom> {
        let Cleaner { context, heads, raw, .. } = cleaner;
        let raw = &raw[group.raw_range(&run)];
        let kind = Kind { class: live.class, settled: self.policy_generation(), since: live.since };
        // Room for the worst case, which is raw: encoding cannot fail then.
        let head = self.head_with(heads, kind, raw.len())?;
        let header = self.encode_block_as(context, head, live, (run.start, raw), Temperature::Cold);
        let Some(header) = header.filter(|header| header.units() <= most) else { return Ok(false) };
        let to = head.push(&self.log.segments, &header);
        head.commit(&self.log.segments);
        self.enter_run(cleaner, live, (group, run), to);
        live.pool.cells.add(cleaner.context.slot, Counter::BlocksSettled, 1);
        Ok(true)
    }

    /// Makes the entries of a run refer to the block it was encoded into, which is committed, as far as they are still
    /// what they were.
    fn enter_run(&self, cleaner: &Cleaner, live: &Live<'_>, (group, run): (&Group, Range<u32>), to: BlockRef) {
        let _pin = self.epochs.pin(cleaner.context.slot);
        let guard = self.tables.lock_leaf(live.leaf);
        let same_owner = guard.object() == Some(live.object) && self.tables.pool_of(live.object) == live.pool.id;
        for (nth, index) in (0..).zip(run) {
            let (seen, new) = (group.seen[(index - group.base) as usize], to.at(nth));
            if same_owner && guard.get(index).same_contents(seen) {
                live.pool.owner.recharge(u64::from(new.share()), live.pool.persistence);
                let before = guard.set(index, Entry::block(new).with_heat(seen.heat()));
                crate::ops::release(&self.log, &live.pool, before);
            } else {
                self.log.kill(new.segment, new.share());
            }
        }
    }

    /// Encodes `raw` to where the head's next block goes, and returns the header that is to be pushed.
    fn encode_block_as(
        &self,
        context: &mut Context,
        head: &mut OpenSegment,
        live: &Live<'_>,
        (first, raw): (u32, &[u8]),
        temperature: Temperature,
    ) -> Option<Header> {
        let room = &mut head.payload(&self.log.segments)[..raw.len()];
        let encoded = tmem_codec::encode(&mut context.workspace, live.pool.policy(), temperature, raw, room)?;
        Some(Header {
            leaf: live.leaf.0,
            first,
            raw_bytes: raw.len(),
            codec: encoded.codec,
            settled: temperature == Temperature::Cold,
            stored_bytes: encoded.len,
        })
    }

    /// Copies a block that settling leaves as it is to where the settled ones are.
    fn move_settled(&self, cleaner: &mut Cleaner, live: &Live<'_>, header: Header) -> Result<(), NoRoom> {
        let kind = Kind { class: live.class, settled: self.policy_generation(), since: live.since };
        let head = self.head_with(&mut cleaner.heads, kind, header.stored_bytes)?;
        let payload = live.payload();
        head.payload(&self.log.segments)[..payload.len()].copy_from_slice(payload);
        let to = head.push(&self.log.segments, &header);
        head.commit(&self.log.segments);
        head.stuck += u64::from(live.dead_units);
        self.redirect(cleaner, live, to, live.heat);
        Ok(())
    }

    /// Encodes what is left of a block that is partly dead, run by run; or copies it whole, where that takes less
    /// room: granules that compress well only together.
    pub(super) fn split(&self, cleaner: &mut Cleaner, live: &Live<'_>, fate: &Fate) -> Result<(), NoRoom> {
        let mut group = Group { base: live.header.first, seen: [Entry::MISSING; BLOCK_GRANULES] };
        let (raw, rest) = cleaner.raw.split_at_mut(live.header.raw_bytes);
        rest.fill(0);
        let decoded = tmem_codec::decode(&mut cleaner.context.workspace, live.header.codec, live.payload(), raw);
        if decoded.is_err() {
            self.lose(cleaner, live);
            return Ok(());
        }
        for nth in 0..live.block.granules {
            let entry = self.tables.entry(live.leaf, live.header.first + nth);
            if refers_to(entry, live.block) {
                group.seen[nth as usize] = entry;
            }
        }
        match self.encode_runs(cleaner, live, &group, fate)? {
            Some(parts) => {
                for (run, to) in parts {
                    self.enter_run(cleaner, live, (&group, run), to);
                }
                Ok(())
            }
            None if matches!(fate, Fate::Settle(_)) => {
                self.move_settled(cleaner, live, Header { settled: true, ..live.header })
            }
            None => self.move_block(cleaner, live, live.class, live.heat),
        }
    }

    /// Encodes each run of a group as a block of its own and commits them, unless they take more room than the whole.
    /// What was settled stays so.
    fn encode_runs(
        &self,
        cleaner: &mut Cleaner,
        live: &Live<'_>,
        group: &Group,
        fate: &Fate,
    ) -> Result<Option<Parts>, NoRoom> {
        let Cleaner { context, heads, raw, .. } = cleaner;
        let temperature = if live.header.settled { Temperature::Cold } else { Temperature::Hot };
        let settled = if live.header.settled && matches!(fate, Fate::Settle(_)) { self.policy_generation() } else { 0 };
        let worst = tmem_codec::MAX_BLOCK + BLOCK_GRANULES * HEADER_BYTES;
        let kind = Kind { class: live.class, settled, since: live.since };
        let head = self.head_with(heads, kind, worst)?;
        let mut parts = Vec::new();
        let mut index = group.base;
        while index < group.base + live.block.granules {
            let run = group.run_around(index);
            index = run.end.max(index + 1);
            if run.is_empty() {
                continue;
            }
            let raw = &raw[group.raw_range(&run)];
            let Some(header) = self.encode_block_as(context, head, live, (run.start, raw), temperature) else {
                head.rewind();
                return Ok(None);
            };
            parts.push((run, head.push(&self.log.segments, &header)));
        }
        let units: u32 = parts.iter().map(|(_, to)| to.units).sum();
        if units > live.block.units {
            head.rewind();
            return Ok(None);
        }
        head.commit(&self.log.segments);
        Ok(Some(parts))
    }
}
