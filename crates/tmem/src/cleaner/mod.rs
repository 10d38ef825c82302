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
//! | eviction | the oldest of its class | cold and ephemeral, of a client over its share: dropped; else copied, colder |
//! | settling | the oldest not settled | cold: encoded anew with its neighbours, if that is smaller; else copied |
//! | shrinking | all of these | |
//!
//! What has no block, or must go by client and not by segment, is found by a sweep through the leaves (`sweep`).
//!
//! Progress: a pass writes to segments of the budget's reserve, which nobody else can take, and gives back more than
//! it took before it takes again: it waits for the readers of its victim. Those are pinned for the length of one
//! piece. Where it writes to is told in `heads`.
//!
//! Lock: [`Cleaner`] is behind the engine's first lock. Callers without room clean for themselves (`make_room`); the
//! background thread cleans ahead of need.

mod choose;
mod heads;
mod settle;
mod sweep;
mod thread;
mod walk;
#[cfg(test)]
mod walk_tests;

pub(crate) use thread::{Background, Signal};

use crate::budget::{Budget, Claim, NoRoom, RESERVE_BYTES};
use crate::client::Account;
use crate::context::Context;
use crate::engine::Engine;
use crate::header::MAX_BLOCK_UNITS;
use crate::row::State;
use crate::segment::OpenSegment;
use crate::store::Settling;
use crate::table::PIECE_UNITS;
use crate::units::{SEGMENT_BYTES, SEGMENT_UNITS, SegmentId};
use choose::Drops;
use heads::Heads;

/// What the cleaner needs, and what it has open.
#[derive(Debug)]
pub(crate) struct Cleaner {
    /// Its heads are not used: the cleaner's are below.
    context: Context,
    heads: Heads,
    /// A cold block before it is encoded.
    raw: Box<[u8; tmem_codec::MAX_BLOCK]>,
    /// The leaf at which the last sweep ended.
    hand: u32,
}

/// What a caller is short of.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Want<'a> {
    /// A segment to append to.
    Segment,
    /// So many bytes of tables, or a few leaves and objects.
    Tables(usize),
    /// Room under this client's cap, which only its own ephemeral data can make.
    Cap(&'a Account),
}

/// Nothing more can be freed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exhausted;

impl From<NoRoom> for Exhausted {
    fn from(_: NoRoom) -> Self {
        Self
    }
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

/// What compaction must win back from a segment when callers wait for room: a twentieth of it, so that a full store is
/// 5 % dead at most. Copying 19 parts to win one takes about as long as encoding that one.
const LEAST_GAIN: u32 = SEGMENT_UNITS / 20;

/// Leaves, or what takes as much, that a sweep frees for a caller that is short of tables.
const SWEEP_PIECES: u32 = 64;

/// The least that a sweep frees for a client at its cap: the largest block, a leaf, and the nodes above it.
const LEAST_SWEEP_UNITS: usize = (MAX_BLOCK_UNITS + 12 * PIECE_UNITS) as usize;

/// What makes a segment worth compacting when nobody waits.
pub(crate) const LAZY_GAIN: u32 = SEGMENT_UNITS / 4;

impl Cleaner {
    /// With epoch slot and statistics cells number `slot`.
    pub(crate) fn new(slot: usize, budget: &Budget) -> Result<Self, NoRoom> {
        let context = Context::new(slot, budget, Claim::Put)?;
        budget.take(tmem_codec::MAX_BLOCK, crate::budget::Use::Scratch, Claim::Put)?;
        let raw = vec![0; tmem_codec::MAX_BLOCK].into_boxed_slice();
        let raw = raw.try_into().unwrap_or_else(|_| unreachable!("of that size"));
        Ok(Self { context, heads: Heads::default(), raw, hand: 0 })
    }
}

impl Engine {
    /// Makes room for a caller, which is not pinned. `Ok` says that trying again is worth while.
    pub(crate) fn make_room(&self, context: &mut Context, want: Want<'_>) -> Result<(), Exhausted> {
        let waiting = self.signal.wait_for_cleaner();
        let mut cleaner = self.lock_cleaner();
        drop(waiting);
        self.await_readers();
        match want {
            Want::Segment => self.free_until(&mut cleaner, Some(context), || self.can_open_segment()),
            Want::Tables(bytes) => {
                let done = || self.budget.room() >= bytes;
                self.free_until(&mut cleaner, Some(context), done).or_else(|_| {
                    let drops = self.over_share().ok_or(Exhausted)?;
                    self.sweep(&mut cleaner, &drops, u64::from(SWEEP_PIECES * PIECE_UNITS))
                })
            }
            Want::Cap(account) => {
                if account.ephemeral_units() == 0 {
                    return Err(Exhausted);
                }
                let goal = account.cap_bytes() / crate::units::UNIT_BYTES / 16;
                let goal = goal.clamp(LEAST_SWEEP_UNITS, SEGMENT_UNITS as usize / 16);
                self.sweep(&mut cleaner, &Drops::of(account.id), goal as u64)
            }
        }
    }

    /// Whether a put can open a segment.
    fn can_open_segment(&self) -> bool {
        self.budget.room() >= SEGMENT_BYTES || (self.budget.is_reserve_whole() && self.log.has_warm())
    }

    /// Compacts, then evicts, then settles (if that is not only done when asked for), until there is enough. `own` is the
    /// caller's context, if it has one.
    fn free_until(
        &self,
        cleaner: &mut Cleaner,
        mut own: Option<&mut Context>,
        is_enough: impl Fn() -> bool,
    ) -> Result<(), Exhausted> {
        let mut evictions = 0;
        loop {
            if is_enough() {
                return Ok(());
            }
            // Kept warm, a segment serves nobody but those who want a segment.
            self.log.cool(0, &self.budget);
            if is_enough() {
                return Ok(());
            }
            if self.free_some(cleaner, self.settling, &mut evictions).is_err() {
                self.seal_roomy_heads(cleaner, own.take().ok_or(Exhausted)?)?;
            }
        }
    }

    /// Seals the heads that nobody is appending to, if they have a segment's worth of room between them: compaction
    /// then makes fewer of them. The cleaner's stay open where compaction would have nothing else to copy to.
    fn seal_roomy_heads(&self, cleaner: &mut Cleaner, own: &mut Context) -> Result<(), Exhausted> {
        let whole = self.budget.can_clean();
        let cleaners = cleaner.heads.open().filter(|_| whole);
        let room: usize = own.heads.iter().flatten().chain(cleaners).map(OpenSegment::room).sum();
        if room + self.contexts.idle_room() + self.loans.idle_room() < SEGMENT_BYTES {
            return Err(Exhausted);
        }
        let idle = own.heads.iter_mut().filter_map(Option::take).chain(self.take_idle_heads());
        let cleaners = whole.then(|| cleaner.heads.take()).into_iter().flatten();
        for head in idle.chain(cleaners) {
            self.log.seal(head);
        }
        Ok(())
    }

    /// One step of freeing memory: the cheapest that there is.
    fn free_some(&self, cleaner: &mut Cleaner, settling: Settling, evictions: &mut usize) -> Result<(), Exhausted> {
        if let Some(victim) = self.emptiest(LEAST_GAIN) {
            return Ok(self.clean(cleaner, victim, &Fate::Copy)?);
        }
        // One round through the ephemeral segments drops what is cold. Where that is not enough, those over their
        // share hold what is hot, or what is not in sealed segments.
        let cold = if *evictions < self.log.ids().count() { self.next_to_evict() } else { None };
        if let Some((victim, drops)) = cold {
            *evictions += 1;
            return Ok(self.clean(cleaner, victim, &Fate::Drop(drops))?);
        }
        let swept = self.over_share().map(|drops| self.sweep(cleaner, &drops, u64::from(SEGMENT_UNITS)));
        if swept == Some(Ok(())) {
            return Ok(());
        }
        let victim = (settling == Settling::WhenFull).then(|| self.next_to_settle()).flatten().ok_or(Exhausted)?;
        if self.clean(cleaner, victim, &Fate::Settle(Cold::Unread)).is_err() {
            // Neighbours from other segments used the reserve up; what they left is dead.
            let victim = self.emptiest(LEAST_GAIN).ok_or(Exhausted)?;
            self.clean(cleaner, victim, &Fate::Copy)?;
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
        self.log.bury_condemned(&self.epochs);
        self.reclaim_now();
        while self.log.has_limbo() {
            std::thread::yield_now();
            self.reclaim_now();
        }
    }

    /// Changes the budget, and shrinks to it, the reserve left free.
    pub(crate) fn lower_or_raise(&self, budget_bytes: usize) {
        if budget_bytes > self.budget.limit() && budget_bytes >= self.budget.used() {
            // Whatever of the reserve is in use, the cleaner gives back in its own time.
            self.budget.raise_limit(budget_bytes);
            return;
        }
        self.budget.set_limit(budget_bytes);
        if !self.budget.is_reserve_whole() {
            self.shrink(budget_bytes - RESERVE_BYTES);
        }
        self.budget.end_shrinking();
    }

    /// Gives memory back until no more than `target_bytes` are used, or nothing more can be freed.
    pub(crate) fn shrink(&self, target_bytes: usize) {
        self.shorten_idle_heads(&mut self.lock_cleaner());
        let mut evictions = 0;
        loop {
            // Let go of between two segments: callers that wait for room come first.
            let mut cleaner = self.lock_cleaner();
            self.await_readers();
            self.log.cool(0, &self.budget);
            if self.budget.used() <= target_bytes {
                return;
            }
            if self.free_some(&mut cleaner, Settling::WhenFull, &mut evictions).is_err() {
                return;
            }
        }
    }

    /// Takes `cold` as cold and encodes it anew wherever a pool's policy says so, then compacts what that has left.
    pub(crate) fn settle_all(&self, cold: Cold) {
        self.seal_idle_heads(&mut self.lock_cleaner());
        let upto = self.log.seals();
        loop {
            // Let go of between two segments: callers that wait for room come first.
            let mut cleaner = self.lock_cleaner();
            let unsettled = || self.oldest_unsettled(upto);
            let Some(victim) = self.emptiest(LAZY_GAIN).or_else(unsettled).or_else(|| self.emptiest(LEAST_GAIN)) else {
                break;
            };
            let old = self.log.segments.row(victim).sealed_at() < upto;
            let fate = if old { Fate::Settle(cold) } else { Fate::Copy };
            if self.clean(&mut cleaner, victim, &fate).is_err() {
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
                State::Warm | State::Retired => u64::from(word.held()),
                State::Free | State::Open | State::Damaged => 0,
            })
            .sum();
        let ephemeral: u64 = self.registry.clients().iter().map(|account| account.ephemeral_units()).sum();
        usize::try_from(units + ephemeral).unwrap_or(usize::MAX) * crate::units::UNIT_BYTES
    }
}

#[cfg(test)]
mod tests {
    use crate::budget::Use;
    use crate::{Store, StoreOptions};
    use std::sync::{Arc, mpsc};
    use std::time::Duration;

    #[test]
    #[allow(clippy::unwrap_used, reason = "a test ends there")]
    fn a_budget_is_raised_at_once_while_the_cleaner_uses_its_reserve() {
        let store = Arc::new(Store::new(StoreOptions::with_budget(32 << 20)).unwrap());
        let budget = &store.engine.budget;
        budget.take_anyway(budget.limit() - budget.used(), Use::Scratch);
        let cleaner = store.engine.lock_cleaner();
        let (raised, done) = mpsc::channel();
        let raising = Arc::clone(&store);
        std::thread::spawn(move || raised.send(raising.set_budget(33 << 20)));
        assert!(done.recv_timeout(Duration::from_secs(60)).unwrap().is_ok());
        assert_eq!(store.memory().budget, 33 << 20);
        drop(cleaner);
    }
}
