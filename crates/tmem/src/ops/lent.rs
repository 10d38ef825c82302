//! Entering what a loan's other side has encoded.
//!
//! The blocks lie at the tail of the loan's head. They are entered in runs: consecutive ones of one leaf, under one
//! lock.

use super::enter::{Pending, Stall, Tries};
use super::{Target, leaf_index};
use crate::client_face::Pool;
use crate::context::Context;
use crate::engine::Engine;
use crate::entry::Entry;
use crate::header::{HEADER_BYTES, Header};
use crate::loan::{Content, Lent, LentBlock};
use crate::outcome::{ByteRange, Outcome, Refusal};
use crate::segment::OpenSegment;
use crate::stats::Counter;
use crate::table::LEAF_GRANULES;
use crate::units::{GRANULE_BYTES, Granule, unit_bytes, units_for};
use tmem_codec::Codec;

/// Blocks that are entered together.
#[derive(Clone, Copy)]
struct Run<'b> {
    blocks: &'b [LentBlock],
    /// What they take in the room.
    bytes: usize,
}

impl Engine {
    /// See [`crate::Loan::enter`].
    pub(crate) fn enter_lent(&self, pool: &Pool, lent: &mut Lent, blocks: &[LentBlock]) -> (usize, Option<Outcome>) {
        let mut context = self.contexts.take(&self.budget);
        let (mut done, mut failed) = (0, None);
        let mut tries = Tries::default();
        while failed.is_none() && done < blocks.len() {
            let rest = &blocks[done..];
            let let_go = |context: &Context| self.let_go(context, pool, rest);
            let target = pool.target(rest[0].object);
            match target.and_then(|target| Ok((target, next_run(target, rest, lent.given_bytes)?))) {
                Err(refusal) => failed = Some(Outcome::Refused(refusal)),
                Ok((target, run)) => match self.enter_lent_run(&mut context, target, lent.head.as_mut(), run) {
                    Ok(bytes) => {
                        done += run.blocks.len();
                        lent.given_bytes -= run.bytes;
                        tries.progress(bytes);
                    }
                    Err(stall) => failed = self.unblock(&mut context, target.pool, (stall, &mut tries), let_go),
                },
            }
        }
        if failed.is_some() {
            self.let_go(&context, pool, &blocks[done..]);
        }
        let counter = match &failed {
            None => Counter::PutsStored,
            Some(Outcome::Rejected(_)) => Counter::PutsRejected,
            Some(Outcome::Frozen) => Counter::PutsFrozen,
            Some(_) => Counter::PutsRefused,
        };
        for counter in [Counter::Puts, counter] {
            self.count(&context, pool.core(), counter, 1);
        }
        (done, failed)
    }

    /// Makes the granules of `blocks` missing. Returns how many were there.
    fn let_go(&self, context: &Context, pool: &Pool, blocks: &[LentBlock]) -> u64 {
        let flush = |block: &LentBlock| {
            let target = pool.target(block.object).ok()?;
            Some(self.flush_range(context, target, range_of(block).ok()?))
        };
        blocks.iter().filter_map(flush).sum()
    }

    /// Enters a run, the blocks of which are next in `head`. Returns the bytes of memory that it stands for.
    fn enter_lent_run(
        &self,
        context: &mut Context,
        target: Target<'_>,
        head: Option<&mut OpenSegment>,
        run: Run<'_>,
    ) -> Result<usize, Stall> {
        let _pin = self.epochs.pin(context.slot);
        let pool = target.pool;
        let granules = || run.blocks.iter().map(|block| Granule(block.granule));
        let place = self.place(context, target, Granule(run.blocks[0].granule), 1)?;
        // Asked now that the run is pinned: `Client::freeze` waits for those before it.
        if target.is_frozen() && !self.holds_all(place.object, granules()) {
            return Err(Stall::Frozen);
        }
        let mut pending = Pending::starting_at(0);
        let (mut blocks, mut stored_bytes) = (0, 0);
        let mut head = head;
        if let Some(head) = &mut head {
            head.rewind();
        }
        for block in run.blocks {
            pending.go_to(leaf_index(Granule(block.granule)));
            match (block.content, &mut head) {
                (Content::Filled(pattern), _) => pending.push(Entry::filled(pattern), GRANULE_BYTES),
                (Content::Encoded { codec, bytes }, Some(head)) => {
                    let codec = Codec::try_from(codec).unwrap_or_else(|_| unreachable!("a run's codecs are known"));
                    let header = Header {
                        leaf: place.leaf.0,
                        first: pending.next(),
                        raw_bytes: GRANULE_BYTES,
                        codec,
                        settled: false,
                        stored_bytes: bytes as usize,
                    };
                    pending.push_block(head.push(&self.log.segments, &header), GRANULE_BYTES);
                    blocks += 1;
                    stored_bytes += u64::from(bytes);
                }
                (Content::Encoded { .. }, None) => unreachable!("room is given out of a head"),
            }
        }
        let bytes = self.enter(context.slot, pool, &place, (head, &mut pending))?;
        self.count(context, pool, Counter::BlocksPut, blocks);
        self.count(context, pool, Counter::BytesStored, stored_bytes);
        self.count(context, pool, Counter::GranulesFilledPut, run.blocks.len() as u64 - blocks);
        Ok(bytes)
    }
}

/// The blocks at the start of `rest` that can be entered together, which fit into `room` and make sense; or what is
/// wrong with the first. A frozen client's are entered one by one: each may or may not replace something.
fn next_run<'b>(target: Target<'_>, rest: &'b [LentBlock], room: usize) -> Result<Run<'b>, Refusal> {
    let most = if target.is_frozen() { 1 } else { rest.len() };
    let leaf_of = |block: &LentBlock| (block.object, block.granule / u64::from(LEAF_GRANULES));
    let mut run = Run { blocks: &rest[..0], bytes: 0 };
    let mut seen = 0_u32;
    for (nth, block) in rest[..most].iter().enumerate() {
        let bit = 1 << leaf_index(Granule(block.granule));
        if leaf_of(block) != leaf_of(&rest[0]) || seen & bit != 0 {
            break;
        }
        match room_of(block, room - run.bytes) {
            Err(refusal) if nth == 0 => return Err(refusal),
            Err(_) => break,
            Ok(bytes) => run = Run { blocks: &rest[..=nth], bytes: run.bytes + bytes },
        }
        seen |= bit;
    }
    Ok(run)
}

/// What a block takes of `room` bytes, if it makes sense.
fn room_of(block: &LentBlock, room: usize) -> Result<usize, Refusal> {
    range_of(block)?;
    let Content::Encoded { codec, bytes } = block.content else {
        return Ok(0);
    };
    Codec::try_from(codec).map_err(|_| Refusal::UnknownCodec(codec))?;
    if bytes == 0 || bytes as usize > GRANULE_BYTES {
        return Err(Refusal::BlockSize(bytes));
    }
    let taken = unit_bytes(units_for(HEADER_BYTES + bytes as usize));
    if taken > room { Err(Refusal::BeyondRoom { bytes: taken, room }) } else { Ok(taken) }
}

/// The bytes of its object that a block is.
fn range_of(block: &LentBlock) -> Result<ByteRange, Refusal> {
    let len = GRANULE_BYTES as u64;
    let offset = block.granule.checked_mul(len).ok_or(Refusal::BeyondEnd { offset: u64::MAX, len })?;
    ByteRange::of_granules(offset, len)
}
