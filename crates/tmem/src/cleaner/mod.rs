//! The cleaner: the only one who rewrites what is stored.
//!
//! It takes a segment as its *victim*, walks it from block to block, and for each block that entries still refer to
//! copies it to a head of its own, encodes it anew as cold, or drops it. Each block's entries are changed under their
//! leaf's lock, and only if they still refer to the block. When no entry refers to the victim any more it is retired,
//! and reused when its readers are gone. Readers are never blocked.
//!
//! One pass serves four ends, which differ in the choice of the victim and in what becomes of a block ([`Fate`]):
//!
//! | end | victim | block |
//! |---|---|---|
//! | compaction | the one with the most to win back | copied |
//! | eviction | the oldest of its class | ephemeral, of a client over its share, cold: dropped; else copied, one degree colder |
//! | settling | the oldest not settled | cold: encoded anew with its neighbours, if that is smaller; else copied |
//! | shrinking | all of these | |
//!
//! Progress: a pass writes to segments of the budget's reserve, which nobody else can take, and gives back more than it
//! took before it takes again: it waits for the readers of its victim. Those are pinned for the length of one piece.
//!
//! Lock: [`Cleaner`] is behind the engine's first lock. Callers without room clean for themselves (`make_room`); the
//! background thread cleans ahead of need.

mod choose;
mod settle;
mod thread;
mod walk;

pub(crate) use thread::{Background, Signal};

use crate::budget::{Budget, Claim, NoRoom};
use crate::client::ClientId;
use crate::context::Context;
use crate::engine::Engine;
use crate::row::State;
use crate::segment::OpenSegment;
use crate::units::{SEGMENT_BYTES, SEGMENT_UNITS, SegmentId};
use choose::Drops;

/// What the cleaner needs, and what it has open.
#[derive(Debug)]
pub(crate) struct Cleaner {
    /// Its heads are not used: the cleaner's are below.
    context: Context,
    /// Where copies go, by class. A copy stays in its class, but for ephemeral blocks that survive an eviction.
    copies: [Option<OpenSegment>; 3],
    /// Where blocks go that were encoded anew, by class.
    settled: [Option<OpenSegment>; 3],
    /// A cold block before it is encoded.
    raw: Box<[u8; tmem_codec::MAX_BLOCK]>,
}

/// What a caller is short of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    /// Memory, from wherever.
    Anything,
    /// Room under the cap of this client, so from its own ephemeral blocks.
    From(ClientId),
}

/// What becomes of the blocks of a victim.
#[derive(Debug)]
enum Fate {
    /// Copied as they are.
    Copy,
    /// Dropped if they are ephemeral, cold, and of one of these clients; else copied.
    Drop(Drops),
    /// Encoded anew if they are cold; else copied.
    Settle(Cold),
}

/// Which blocks count as cold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cold {
    /// Those that were not got since the cleaner last saw them.
    Unread,
    /// All.
    Everything,
}

/// What compaction must win back from a segment when callers wait for room: a twenty-fourth of it, so that a full store
/// is 4 % dead at most. Copying 23 parts to win one takes about as long as encoding that one.
const LEAST_GAIN: u32 = SEGMENT_UNITS / 24;

/// What makes a segment worth compacting when nobody waits.
const LAZY_GAIN: u32 = SEGMENT_UNITS / 4;

impl Cleaner {
    /// With epoch slot and statistics cells number `slot`.
    pub(crate) fn new(slot: usize, budget: &Budget) -> Result<Self, NoRoom> {
        let context = Context::new(slot, budget, Claim::Put)?;
        budget.take(tmem_codec::MAX_BLOCK, crate::budget::Use::Scratch, Claim::Put)?;
        let raw = vec![0; tmem_codec::MAX_BLOCK].into_boxed_slice();
        let raw = raw.try_into().unwrap_or_else(|_| unreachable!("of that size"));
        Ok(Self { context, copies: [None, None, None], settled: [None, None, None], raw })
    }
}

impl Engine {
    /// Makes room for a caller, which is not pinned. `Ok` says that trying again is worth while.
    pub(crate) fn make_room(&self, want: Want) -> Result<(), NoRoom> {
        let waiting = self.signal.wait_for_cleaner();
        let mut cleaner = self.lock_cleaner();
        drop(waiting);
        match want {
            Want::From(client) => self.evict_from(&mut cleaner, client),
            Want::Anything => self.free_a_segment(&mut cleaner, LEAST_GAIN),
        }
    }

    /// Whether a put can open a segment.
    fn has_room(&self) -> bool {
        self.log.has_warm() && self.budget.room() > 0 || self.budget.room() >= SEGMENT_BYTES
    }

    /// Compacts, then evicts, then settles, until a put can open a segment.
    fn free_a_segment(&self, cleaner: &mut Cleaner, least_gain: u32) -> Result<(), NoRoom> {
        self.await_readers();
        while !self.has_room() {
            if let Some(victim) = self.emptiest(least_gain) {
                self.clean(cleaner, victim, &Fate::Copy)?;
            } else if let Some((victim, drops)) = self.next_to_evict(None) {
                self.clean(cleaner, victim, &Fate::Drop(drops))?;
            } else if let Some(victim) = self.next_to_settle() {
                self.clean(cleaner, victim, &Fate::Settle(Cold::Unread))?;
                if self.signal.is_wanted() {
                    // It was put back half done; whoever waits goes on from there.
                    return Ok(());
                }
            } else {
                return Err(NoRoom);
            }
        }
        Ok(())
    }

    /// Drops ephemeral blocks of one client until a sixteenth of a segment of it is gone.
    fn evict_from(&self, cleaner: &mut Cleaner, client: ClientId) -> Result<(), NoRoom> {
        self.await_readers();
        let account = self.registry.clients().into_iter().find(|account| account.id == client).ok_or(NoRoom)?;
        let goal = account.ephemeral_units().saturating_sub(u64::from(SEGMENT_UNITS / 16));
        if account.ephemeral_units() == 0 {
            return Err(NoRoom);
        }
        // Unsealed heads may hold all that the client has.
        self.seal_idle_heads(cleaner);
        while account.ephemeral_units() > goal {
            let (victim, drops) = self.next_to_evict(Some(client)).ok_or(NoRoom)?;
            self.clean(cleaner, victim, &Fate::Drop(drops))?;
        }
        Ok(())
    }

    /// Cleans `victim` and waits until its memory can be used again.
    fn clean(&self, cleaner: &mut Cleaner, victim: SegmentId, fate: &Fate) -> Result<(), NoRoom> {
        if self.log.segments.row(victim).take() {
            self.clean_victim(cleaner, victim, fate)?;
            self.await_readers();
        }
        cleaner.context.recount(&self.budget);
        Ok(())
    }

    /// Waits for the readers of retired segments, each of which is pinned for the length of one piece.
    fn await_readers(&self) {
        self.reclaim_now();
        while self.log.has_limbo() {
            std::thread::yield_now();
            self.reclaim_now();
        }
    }

    /// Seals the heads that nobody is appending to.
    fn seal_idle_heads(&self, cleaner: &mut Cleaner) {
        for head in self.contexts.take_idle_heads() {
            self.log.seal(head);
        }
        for head in cleaner.copies.iter_mut().chain(&mut cleaner.settled).filter_map(Option::take) {
            self.log.seal(head);
        }
    }

    /// Uses as little memory as it can without dropping what must stay, or `target_bytes`, whichever is more. Ephemeral
    /// blocks are dropped only as far as the target asks for it.
    pub(crate) fn shrink(&self, target_bytes: usize) {
        let mut cleaner = self.lock_cleaner();
        self.await_readers();
        self.seal_idle_heads(&mut cleaner);
        self.log.cool(0, &self.budget);
        while self.budget.used() > target_bytes {
            let cleaned = if let Some(victim) = self.emptiest(LEAST_GAIN) {
                self.clean(&mut cleaner, victim, &Fate::Copy)
            } else if let Some((victim, drops)) = self.next_to_evict(None) {
                self.clean(&mut cleaner, victim, &Fate::Drop(drops))
            } else if let Some(victim) = self.next_to_settle() {
                self.clean(&mut cleaner, victim, &Fate::Settle(Cold::Unread))
            } else {
                break;
            };
            self.log.cool(0, &self.budget);
            if cleaned.is_err() {
                break;
            }
        }
    }

    /// Takes `cold` as cold and encodes it anew wherever a pool's policy says so, then compacts what that has left.
    pub(crate) fn settle_all(&self, cold: Cold) {
        let mut cleaner = self.lock_cleaner();
        self.await_readers();
        self.seal_idle_heads(&mut cleaner);
        let upto = self.log.seals();
        while let Some(victim) = self.emptiest(LAZY_GAIN).or_else(|| self.oldest_unsettled(upto)) {
            let fate = if self.log.segments.row(victim).sealed_at() < upto { Fate::Settle(cold) } else { Fate::Copy };
            if self.clean(&mut cleaner, victim, &fate).is_err() {
                break;
            }
        }
        while let Some(victim) = self.emptiest(LEAST_GAIN) {
            if self.clean(&mut cleaner, victim, &Fate::Copy).is_err() {
                break;
            }
        }
        self.log.cool(0, &self.budget);
    }

    /// Bytes that shrinking could free: what is dead, what is ephemeral, and what is kept warm.
    pub(crate) fn freeable_bytes(&self) -> usize {
        let rows = self.log.ids().map(|id| self.log.segments.row(id).word());
        let units: u64 = rows
            .map(|word| match word.state() {
                State::Sealed | State::Victim => u64::from(word.reclaimable()),
                State::Warm | State::Retired => u64::from(SEGMENT_UNITS),
                State::Free | State::Open | State::Damaged => 0,
            })
            .sum();
        let ephemeral: u64 = self.registry.clients().iter().map(|account| account.ephemeral_units()).sum();
        usize::try_from(units + ephemeral).unwrap_or(usize::MAX) * crate::units::UNIT_BYTES
    }
}
