//! Get, and take, which flushes what it got.
//!
//! A piece goes from granule to granule without any lock. What an entry refers to is immutable while the reader is
//! pinned, so a granule is seen as it was when its entry was loaded. A take then clears the entry under the leaf's
//! lock, if it is still the same, and otherwise starts that block over.

use super::{Target, clear, leaf_index};
use crate::client::PoolCore;
use crate::context::Context;
use crate::engine::Engine;
use crate::entry::{BlockRef, Entry, EntryKind};
use crate::epoch::Pin;
use crate::header::{Damaged, Header};
use crate::memory::Scatter;
use crate::outcome::{ByteRange, GranuleMap, Outcome};
use crate::stats::Counter;
use crate::table::{LEAF_GRANULES, LeafRef, ObjectRef, Reuse};
use crate::units::{GRANULE_BYTES, Granule};
use tmem_codec::MAX_BLOCK;

/// What becomes of the granules after they were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// They stay.
    Keep,
    /// They are flushed.
    Flush,
}

/// What a get has found so far.
struct Found {
    range: ByteRange,
    /// Made when the first granule turns out different from those before it.
    map: Option<GranuleMap>,
    done: usize,
    filled: usize,
    damaged: Option<Granule>,
}

/// A leaf, and a part of the range that lies in it.
struct Span {
    object: ObjectRef,
    leaf: LeafRef,
    /// Index of the first granule in the leaf.
    index: u32,
    /// First byte within that granule.
    skip: usize,
    /// Bytes of the range that lie in the leaf from there on.
    bytes: usize,
}

impl Span {
    /// Granules that the span touches.
    fn granules(&self) -> usize {
        (self.skip + self.bytes).div_ceil(GRANULE_BYTES)
    }

    /// Bytes of the span in its first `granules`.
    fn bytes_of(&self, granules: usize) -> usize {
        (granules * GRANULE_BYTES - self.skip).min(self.bytes)
    }

    /// Goes on by `granules`.
    fn advance(&mut self, granules: usize) {
        self.bytes -= self.bytes_of(granules);
        self.skip = 0;
        #[expect(clippy::cast_possible_truncation, reason = "at most LEAF_GRANULES")]
        {
            self.index += granules as u32;
        }
    }
}

/// What one step of a piece came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Filled(usize),
    Missing(usize),
    Damaged(usize),
    /// The entry changed before a take could clear it.
    Again,
}

impl Engine {
    pub(crate) fn get(
        &self,
        context: &mut Context,
        target: Target<'_>,
        range: ByteRange,
        (mut into, after): (Scatter<'_, '_>, After),
    ) -> Outcome {
        let mut found = Found::new(range);
        let mut left = Some(range);
        while let Some(rest) = left {
            let bytes = self.get_piece(context, target, rest, (&mut into, after), &mut found);
            left = rest.after(bytes as u64);
        }
        self.count(context, target.pool, Counter::GranulesGot, found.filled as u64);
        if after == After::Flush {
            self.tables.reclaim(&self.epochs, &self.budget, Reuse::WhenMuch);
        }
        found.outcome()
    }

    /// Gets the start of `range`, up to the end of its leaf. Returns the bytes dealt with.
    fn get_piece(
        &self,
        context: &mut Context,
        target: Target<'_>,
        range: ByteRange,
        (into, after): (&mut Scatter<'_, '_>, After),
        found: &mut Found,
    ) -> usize {
        let first = range.first();
        let pin = self.epochs.pin(context.slot);
        let index = leaf_index(first);
        #[expect(clippy::cast_possible_truncation, reason = "less than a granule")]
        let skip = (range.offset - first.offset()) as usize;
        let leaf_bytes = (LEAF_GRANULES - index) as usize * GRANULE_BYTES - skip;
        let bytes = usize::try_from(range.len).unwrap_or(usize::MAX).min(leaf_bytes);
        let name = (target.pool.id, target.id);
        let object = self.tables.find(name.0, name.1);
        let place = object.and_then(|object| {
            self.remember(context, (name, object), first);
            Some((object, self.tables.leaf(object, first)?))
        });
        let Some((object, leaf)) = place else {
            found.add(Step::Missing((skip + bytes).div_ceil(GRANULE_BYTES)));
            into.skip(bytes);
            return bytes;
        };
        let mut span = Span { object, leaf, index, skip, bytes };
        while span.bytes > 0 {
            let step = self.get_step(context, target.pool, &span, (into, after), &pin);
            let granules = match step {
                Step::Again => continue,
                Step::Filled(granules) => granules,
                Step::Missing(granules) => {
                    into.skip(span.bytes_of(granules));
                    granules
                }
                Step::Damaged(granules) => {
                    into.fill(0, 0, span.bytes_of(granules));
                    granules
                }
            };
            found.add(step);
            span.advance(granules);
        }
        bytes
    }

    /// Gets the first granule of the span, and those after it that are in the same block.
    fn get_step(
        &self,
        context: &mut Context,
        pool: &PoolCore,
        span: &Span,
        (into, after): (&mut Scatter<'_, '_>, After),
        pin: &Pin<'_>,
    ) -> Step {
        let entry = self.tables.entry(span.leaf, span.index);
        let block = match entry.kind() {
            EntryKind::Missing => return Step::Missing(1),
            EntryKind::Lost => return Step::Damaged(1),
            EntryKind::Filled(pattern) => {
                if after == After::Flush && !self.take_entries(pool, context, span, &[entry]) {
                    return Step::Again;
                }
                into.fill(pattern, span.skip, span.bytes_of(1));
                return Step::Filled(1);
            }
            EntryKind::Block(block) => block,
        };
        let mut entries = [entry; crate::units::BLOCK_GRANULES];
        let mut granules = 1;
        while granules < span.granules().min((block.granules - block.index) as usize) {
            #[expect(clippy::cast_possible_truncation, reason = "at most BLOCK_GRANULES")]
            let next = self.tables.entry(span.leaf, span.index + granules as u32);
            if !next.as_block().is_some_and(|next| next.same_block(block)) {
                break;
            }
            entries[granules] = next;
            granules += 1;
        }
        let entries = &entries[..granules];
        let Ok(verified) = self.verify((span.leaf, span.index), block, pin) else {
            return Step::Damaged(granules);
        };
        if after == After::Flush && !self.take_entries(pool, context, span, entries) {
            return Step::Again;
        }
        let bytes = span.bytes_of(granules);
        if self.decode(context, pool, (block, span.skip, bytes), verified, into).is_err() {
            return Step::Damaged(granules);
        }
        if after == After::Keep {
            for (index, entry) in (span.index..).zip(entries) {
                self.tables.warm(span.leaf, index, *entry);
            }
        }
        Step::Filled(granules)
    }

    /// The header and payload of a block, if they are intact and the block is the one that the entry at that place of
    /// its leaf meant.
    pub(super) fn verify<'a>(
        &'a self,
        (leaf, index): (LeafRef, u32),
        block: BlockRef,
        pin: &'a Pin<'_>,
    ) -> Result<(Header, &'a [u8]), Damaged> {
        let bytes = self.log.segments.block(block, pin).ok_or(Damaged)?;
        let (header, payload) = Header::verify(bytes)?;
        let owner = (leaf.0, index - block.index);
        let same = (header.leaf, header.first) == owner && header.granules() == block.granules;
        if same { Ok((header, payload)) } else { Err(Damaged) }
    }

    /// Decodes `bytes` bytes of a block, from `skip` bytes into the granule that it is seen from. On an error, `into`
    /// has not moved.
    fn decode(
        &self,
        context: &mut Context,
        pool: &PoolCore,
        (block, skip, bytes): (BlockRef, usize, usize),
        (header, payload): (Header, &[u8]),
        into: &mut Scatter<'_, '_>,
    ) -> Result<(), Damaged> {
        let start = block.index as usize * GRANULE_BYTES + skip;
        let whole = start == 0 && bytes >= header.raw_bytes && into.run() >= header.raw_bytes;
        if whole {
            let to = into.peek(header.raw_bytes);
            tmem_codec::decode(&mut context.workspace, header.codec, payload, to).map_err(|_| Damaged)?;
            into.skip(header.raw_bytes);
            into.fill(0, 0, bytes - header.raw_bytes);
            return Ok(());
        }
        let Context { workspace, scratch, .. } = context;
        let raw = &mut scratch[..header.raw_bytes.min(MAX_BLOCK)];
        tmem_codec::decode(workspace, header.codec, payload, raw).map_err(|_| Damaged)?;
        let there = raw.len().min(start + bytes).saturating_sub(start);
        if there > 0 {
            into.write(&raw[start..start + there]);
        }
        into.fill(0, 0, bytes - there);
        self.count(context, pool, Counter::BytesCopied, bytes as u64);
        Ok(())
    }

    /// Clears the entries of a take, if they are still the same.
    fn take_entries(&self, pool: &PoolCore, context: &Context, span: &Span, entries: &[Entry]) -> bool {
        let guard = self.tables.lock_leaf(span.leaf);
        let at = || (span.index..).zip(entries);
        if guard.object() != Some(span.object) || !at().all(|(index, entry)| guard.get(index).same_contents(*entry)) {
            return false;
        }
        for (index, _) in at() {
            clear(&self.log, pool, &guard, index);
        }
        let empty = guard.is_empty();
        drop(guard);
        self.count(context, pool, Counter::GranulesFlushed, entries.len() as u64);
        if empty {
            self.tables.prune(pool, span.object, span.leaf, &self.epochs, &self.budget);
        }
        self.tell_of_waste();
        true
    }
}

impl Found {
    fn new(range: ByteRange) -> Self {
        Self { range, map: None, done: 0, filled: 0, damaged: None }
    }

    fn add(&mut self, step: Step) {
        let (granules, filled) = match step {
            Step::Filled(granules) => (granules, granules),
            Step::Missing(granules) => (granules, 0),
            Step::Damaged(granules) => {
                let at = Granule(self.range.first().0 + self.done as u64);
                self.damaged.get_or_insert(at);
                (granules, 0)
            }
            Step::Again => return,
        };
        let all_so_far = self.filled == self.done;
        let none_so_far = self.filled == 0;
        let uniform = if filled > 0 { all_so_far } else { none_so_far };
        if self.map.is_none() && !uniform {
            let mut map = GranuleMap::empty(usize::try_from(self.range.granules()).unwrap_or(usize::MAX));
            if all_so_far {
                map.set(0..self.done);
            }
            self.map = Some(map);
        }
        if let Some(map) = self.map.as_mut().filter(|_| filled > 0) {
            map.set(self.done..self.done + filled);
        }
        self.done += granules;
        self.filled += filled;
    }

    fn outcome(self) -> Outcome {
        match (self.damaged, self.map) {
            (Some(granule), _) => Outcome::Corrupt { offset: granule.offset() },
            (None, Some(map)) => Outcome::PartlyFilled(map),
            (None, None) if self.filled == 0 => Outcome::Missing,
            (None, None) => Outcome::Filled,
        }
    }
}
