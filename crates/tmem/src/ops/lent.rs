//! Blocks that somebody else has encoded, entered as a put would have.
//!
//! The loan's own head stands in for the context's while they are entered, so that everything from [`Pending`] on is as in a put: a
//! head is sealed only when all its blocks have been entered, and what is not entered is forgotten by rewinding it. The payloads
//! lie where the head would have put them: each behind the gap for its header, one after the other.

use super::put::{Pending, Place, Stall, Tries};
use super::{Target, leaf_index};
use crate::budget::{Claim, NoRoom};
use crate::cleaner::Want;
use crate::context::Context;
use crate::engine::Engine;
use crate::entry::Entry;
use crate::header::{HEADER_BYTES, Header};
use crate::loan::{Content, LentBlock};
use crate::outcome::{Outcome, Rejection};
use crate::row::Class;
use crate::segment::OpenSegment;
use crate::stats::Counter;
use crate::table::LEAF_GRANULES;
use crate::units::{GRANULE_BYTES, Granule};
use tmem_codec::Codec;

/// Granules of one leaf in a row, each with a block of its own.
type Run<'a> = &'a [LentBlock];

impl Engine {
    /// A new head for a loan.
    pub(crate) fn open_lent(&self, context: &mut Context, class: Class) -> Result<OpenSegment, Outcome> {
        let mut tries = Tries::default();
        loop {
            match self.log.open((class, 0), &self.budget, Claim::Put) {
                Ok(head) => {
                    self.signal.nudge();
                    return Ok(head);
                }
                Err(_) if self.make_room(context, Want::Segment).is_ok() && tries.again() => {}
                Err(_) => return Err(Outcome::Rejected(Rejection::Budget)),
            }
        }
    }

    /// Enters blocks whose payloads lie at the tail of `head`, in order. Returns how many, and why not more.
    pub(crate) fn enter_lent(
        &self,
        context: &mut Context,
        target: Target<'_>,
        head: &mut Option<OpenSegment>,
        blocks: &[LentBlock],
    ) -> (usize, Option<Outcome>) {
        let class = Class::of(target.pool.persistence);
        core::mem::swap(context.head(class), head);
        let mut done = 0;
        let mut tries = Tries::default();
        let mut stopped = None;
        while done < blocks.len() && stopped.is_none() {
            let run = first_run(&blocks[done..]);
            match self.enter_lent_run(context, Target { id: run[0].object, ..target }, class, run) {
                Ok(granules) => {
                    done += granules;
                    tries.progress(granules);
                    if granules < run.len() {
                        stopped = Some(Outcome::Refused(crate::Refusal::BadBlock));
                    }
                }
                Err(stall) => stopped = self.unblock_lent(context, target, stall, &mut tries),
            }
        }
        core::mem::swap(context.head(class), head);
        self.flush_lent(context, target, &blocks[done..]);
        (done, stopped)
    }

    /// Enters blocks of one leaf. Returns how many; less than all if one makes no sense.
    fn enter_lent_run(
        &self,
        context: &mut Context,
        target: Target<'_>,
        class: Class,
        run: Run<'_>,
    ) -> Result<usize, Stall> {
        let first = Granule(run[0].granule);
        let _pin = self.epochs.pin(context.slot);
        let pool = target.pool;
        if pool.is_destroyed() {
            return Err(Stall::Gone);
        }
        if target.is_frozen() {
            return Err(Stall::Frozen);
        }
        let object = self.tables.find_or_make(pool.id, target.id, &self.budget)?;
        let leaf = self.tables.ensure_leaf(pool, object, first, &self.budget)?;
        let place = Place { object, leaf, class, block_granules: 1 };
        let mut pending = Pending::starting_at(leaf_index(first));
        let sound = run.iter().take_while(|block| self.push_lent(context, &place, block.content, &mut pending)).count();
        self.enter(context, pool, &place, &mut pending)?;
        self.count(
            context,
            pool,
            Counter::BlocksPut,
            run[..sound].iter().filter(|block| block.is_encoded()).count() as u64,
        );
        Ok(sound)
    }

    /// Puts the header before a payload. Returns whether the block made sense.
    fn push_lent(&self, context: &mut Context, place: &Place, content: Content, pending: &mut Pending) -> bool {
        let (codec, bytes) = match content {
            Content::Filled(pattern) => {
                pending.push(Entry::filled(pattern), GRANULE_BYTES);
                return true;
            }
            Content::Encoded { codec, bytes } => (Codec::try_from(codec), bytes as usize),
        };
        let (Ok(codec), Some(head)) = (codec, context.head(place.class)) else { return false };
        if bytes > GRANULE_BYTES || bytes > head.room() {
            return false;
        }
        let header = Header {
            leaf: place.leaf.0,
            first: pending.next(),
            raw_bytes: GRANULE_BYTES,
            codec,
            settled: false,
            stored_bytes: bytes,
        };
        let block = head.push(&self.log.segments, &header);
        pending.push_block(block, GRANULE_BYTES);
        true
    }

    fn unblock_lent(
        &self,
        context: &mut Context,
        target: Target<'_>,
        stall: Stall,
        tries: &mut Tries,
    ) -> Option<Outcome> {
        let made = match stall {
            Stall::Again => Ok(()),
            Stall::Frozen => return Some(Outcome::Frozen),
            Stall::Gone => return Some(Outcome::Refused(crate::Refusal::UnknownPool(target.pool.id))),
            Stall::NoRoom(NoRoom::Segment) => self.make_room(context, Want::Segment),
            Stall::NoRoom(NoRoom::Tables(bytes)) => self.make_room(context, Want::Tables(bytes)),
            Stall::Cap => self.make_room(context, Want::Cap(&target.pool.owner)),
        };
        if made.is_ok() && tries.again() {
            return None;
        }
        Some(Outcome::Rejected(if stall == Stall::Cap { Rejection::Cap } else { Rejection::Budget }))
    }

    /// What is not entered is missing, as after a put that failed.
    fn flush_lent(&self, context: &mut Context, target: Target<'_>, blocks: &[LentBlock]) {
        for block in blocks {
            let target = Target { id: block.object, ..target };
            let range =
                crate::outcome::ByteRange { offset: Granule(block.granule).offset(), len: GRANULE_BYTES as u64 };
            self.flush_range(context, target, range);
        }
    }
}

/// The granules at the start that follow each other in one leaf.
fn first_run(blocks: &[LentBlock]) -> Run<'_> {
    let leaf = |block: &LentBlock| block.granule / u64::from(LEAF_GRANULES);
    let follows = |pair: &[LentBlock]| {
        let [before, after] = pair else { return false };
        before.object == after.object && before.granule + 1 == after.granule && leaf(before) == leaf(after)
    };
    let len = 1 + blocks.windows(2).take_while(|pair| follows(pair)).count();
    &blocks[..len]
}

const _: () = assert!(HEADER_BYTES == crate::loan::GAP_BYTES);
