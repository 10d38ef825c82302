//! The log: which segments are in use, and the way of each from free to free again.
//!
//! Ledger: every segment below `fresh` is in exactly one place: `free`, `warm`, `limbo` (retired), an owner's hands
//! (open), or the table alone (sealed, victim, damaged). The memory of all but the free ones is counted in the budget.
//!
//! A segment that is sealed because its memory is wanted, and not because it is full, is made *short*: what is behind its
//! last page is given back. Who next needs a segment to append to reopens it. `short` has their numbers, and some more
//! whose segments have since been cleaned.
//!
//! Lock: `state`. It guards the lists, not the rows, and is held for a few instructions, never over a system call but
//! the one that makes a region. It is taken after every other lock but the slabs'.

use crate::budget::{Budget, Claim, NoRoom, Use};
use crate::cleaner::LAZY_GAIN;
use crate::epoch::{Epochs, Stamp};
use crate::header::MAX_BLOCK_UNITS;
use crate::row::{Class, State};
use crate::segment::{CAPACITY_SEGMENTS, OpenSegment, REGION_ROWS_BYTES, Segments};
use crate::units::{SEGMENT_BYTES, SegmentId, unit_bytes, units_for};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tmem_sys::SysError;

/// Free segments whose memory is kept, so that a put seldom waits for the kernel to clear two megabytes.
const WARM_SEGMENTS: usize = 2;

/// Segments that may be short at a time: enough for the heads of a few threads. Each is without its huge page, and too
/// little of it may be dead to be worth cleaning.
const SHORT_SEGMENTS: usize = 16;

/// The least that a segment is made short by, so that whoever reopens it has room for any block.
const LEAST_SHORTENING: usize = SEGMENT_BYTES / 16;
const _: () = assert!(LEAST_SHORTENING >= unit_bytes(MAX_BLOCK_UNITS));

/// The log of one store.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) segments: Segments,
    state: Mutex<Lists>,
    /// Seals so far.
    seals: AtomicU64,
    /// Units of sealed segments and victims that cleaning would win back. A hint: it may be below 0 for a moment,
    /// where one thread has sealed a segment and another has cleaned it before the first could count it.
    reclaimable: AtomicI64,
    /// Segments that were set aside.
    condemned: AtomicUsize,
    /// A sealed segment has come to be worth cleaning though nobody waits.
    ripe: AtomicBool,
}

#[derive(Debug, Default)]
struct Lists {
    free: Vec<SegmentId>,
    warm: Vec<SegmentId>,
    limbo: VecDeque<(Stamp, SegmentId)>,
    short: Vec<SegmentId>,
    /// Segments from here on were never used.
    fresh: u32,
}

impl Log {
    pub(crate) fn new() -> Result<Self, SysError> {
        let state = Mutex::new(Lists::default());
        Ok(Self {
            segments: Segments::new()?,
            state,
            seals: AtomicU64::new(0),
            reclaimable: AtomicI64::new(0),
            condemned: AtomicUsize::new(0),
            ripe: AtomicBool::new(false),
        })
    }

    /// Opens a segment: a warm one, or one whose memory the budget and the system have to spare. What is appended to
    /// it is settled under the generation of policies given, or not (0).
    pub(crate) fn open(
        &self,
        (class, settled): (Class, u64),
        budget: &Budget,
        claim: Claim,
    ) -> Result<OpenSegment, NoRoom> {
        let may_take = claim == Claim::Cleaner || budget.is_reserve_whole();
        let warm = if may_take { self.lock().warm.pop() } else { None };
        let id = match warm {
            Some(id) => id,
            None => self.take_memory(budget, claim)?,
        };
        self.segments.row(id).open(class);
        Ok(OpenSegment::new(id, settled))
    }

    /// Opens a segment again that is short, of that class, and has `least_bytes` left, with memory that the budget and the
    /// system have to spare.
    pub(crate) fn reopen(&self, class: Class, least_bytes: usize, budget: &Budget) -> Option<OpenSegment> {
        let reopened = |id| Some((id, self.segments.row(id).reopen(class, units_for(least_bytes))?));
        let (id, before) = self.short().into_iter().find_map(reopened)?;
        self.uncount(before.reclaimable());
        let row = self.segments.row(id);
        let bytes = SEGMENT_BYTES - unit_bytes(before.held());
        let taken = budget.take(bytes, Use::Segments, Claim::Put).is_ok();
        if taken && self.segments.populate(id).is_ok() {
            row.lengthen();
            return Some(OpenSegment::again(id, before.filled(), row.stuck()));
        }
        if taken {
            budget.give_back(bytes, Use::Segments);
        }
        let word = row.close();
        // Relaxed: a hint of how much cleaning would bring.
        self.reclaimable.fetch_add(i64::from(word.reclaimable()), Ordering::Relaxed);
        None
    }

    /// The segments that are short now.
    fn short(&self) -> Vec<SegmentId> {
        let mut lists = self.lock();
        lists.short.retain(|id| self.segments.row(*id).word().is_short());
        lists.short.clone()
    }

    /// Whether nothing refers to some short segment any more.
    pub(crate) fn has_dead_short(&self) -> bool {
        self.short().iter().any(|id| self.segments.row(*id).word().live() == 0)
    }

    /// Readies a warm segment ahead of need, if there is none and the budget has room for more than one.
    pub(crate) fn prepare(&self, budget: &Budget) {
        if self.has_warm() || budget.room() < 4 * SEGMENT_BYTES {
            return;
        }
        if let Ok(id) = self.take_memory(budget, Claim::Put) {
            self.segments.row(id).prepare();
            self.lock().warm.push(id);
        }
    }

    /// Takes a free segment and memory for it.
    fn take_memory(&self, budget: &Budget, claim: Claim) -> Result<SegmentId, NoRoom> {
        budget.take(SEGMENT_BYTES, Use::Segments, claim).map_err(|_| NoRoom::Segment)?;
        let taken = self.take_free(budget).and_then(|id| {
            self.segments.populate(id).map_err(|_| {
                self.lock().free.push(id);
                NoRoom::Segment
            })?;
            Ok(id)
        });
        if taken.is_err() {
            budget.give_back(SEGMENT_BYTES, Use::Segments);
        }
        taken
    }

    fn take_free(&self, budget: &Budget) -> Result<SegmentId, NoRoom> {
        let mut lists = self.lock();
        if let Some(id) = lists.free.pop() {
            return Ok(id);
        }
        if lists.fresh == CAPACITY_SEGMENTS {
            return Err(NoRoom::Segment);
        }
        let id = SegmentId(lists.fresh);
        if self.segments.add_region(id).map_err(|_| NoRoom::Segment)? {
            budget.take_anyway(REGION_ROWS_BYTES, Use::Tables);
        }
        lists.fresh += 1;
        Ok(id)
    }

    /// Seals what `open` holds. One that nothing was written to becomes warm again instead.
    pub(crate) fn seal(&self, mut open: OpenSegment) {
        open.rewind();
        if open.is_empty() {
            self.segments.row(open.id).abandon();
            self.lock().warm.push(open.id);
            return;
        }
        // Relaxed: a counter.
        let nth = self.seals.fetch_add(1, Ordering::Relaxed);
        let word = self.segments.row(open.id).seal(open.since.unwrap_or(nth), (open.settled, open.stuck));
        // Relaxed: a hint of how much cleaning would bring.
        self.reclaimable.fetch_add(i64::from(word.reclaimable()), Ordering::Relaxed);
    }

    /// Seals what `open` holds and gives the memory that it does not need back to the system.
    pub(crate) fn seal_short(&self, mut open: OpenSegment, budget: &Budget) {
        open.rewind();
        let worth_while = !open.is_empty() && open.left_bytes() >= LEAST_SHORTENING;
        if worth_while
            && self.short().len() < SHORT_SEGMENTS
            && let Ok(bytes) = self.segments.release_tail(&mut open)
        {
            self.segments.row(open.id).shorten();
            budget.give_back(bytes, Use::Segments);
            self.lock().short.push(open.id);
        }
        self.seal(open);
    }

    /// An entry has let go of `units` of a segment.
    pub(crate) fn kill(&self, segment: SegmentId, units: u32) {
        let before = self.segments.row(segment).kill(units);
        if matches!(before.state(), State::Sealed | State::Victim) {
            // Relaxed: a hint of how much cleaning would bring.
            self.reclaimable.fetch_add(i64::from(units), Ordering::Relaxed);
        }
        let dead = before.reclaimable();
        if before.state() == State::Sealed && dead < LAZY_GAIN && dead + units >= LAZY_GAIN {
            self.ripe.store(true, Ordering::Relaxed); // Relaxed: a hint
        }
    }

    /// Whether a segment has come to be worth cleaning since this was last asked.
    pub(crate) fn has_ripened(&self) -> bool {
        // Relaxed, both: a hint. Mostly it is not, and then nothing is written.
        self.ripe.load(Ordering::Relaxed) && self.ripe.swap(false, Ordering::Relaxed)
    }

    /// Bytes that cleaning could win back, if it copied everything.
    pub(crate) fn reclaimable_bytes(&self) -> usize {
        // Relaxed: a hint.
        let units = self.reclaimable.load(Ordering::Relaxed);
        usize::try_from(units).unwrap_or(0) * unit_bytes(1)
    }

    /// Retires a victim whose blocks have all been moved or dropped.
    pub(crate) fn retire(&self, victim: SegmentId, epochs: &Epochs) {
        let before = self.segments.row(victim).retire();
        self.uncount(before.held());
        let stamp = epochs.stamp();
        self.lock().limbo.push_back((stamp, victim));
    }

    /// Sets a victim aside of which not all blocks could be found.
    pub(crate) fn condemn(&self, victim: SegmentId) {
        self.condemned.fetch_add(1, Ordering::Relaxed); // Relaxed: a hint
        let before = self.segments.row(victim).condemn();
        self.uncount(before.reclaimable());
    }

    /// Retires what was set aside and is not referred to any more.
    pub(crate) fn bury_condemned(&self, epochs: &Epochs) {
        // Relaxed: a hint that spares the walk.
        if self.condemned.load(Ordering::Relaxed) == 0 {
            return;
        }
        for id in self.ids() {
            if self.segments.row(id).bury() {
                self.condemned.fetch_sub(1, Ordering::Relaxed); // Relaxed: a hint
                let stamp = epochs.stamp();
                self.lock().limbo.push_back((stamp, id));
            }
        }
    }

    fn uncount(&self, units: u32) {
        // Relaxed: a hint.
        self.reclaimable.fetch_sub(i64::from(units), Ordering::Relaxed);
    }

    /// Makes retired segments usable again whose readers are gone, and gives the memory of all but a few back to the
    /// system. Returns how many became usable.
    pub(crate) fn reclaim(&self, epochs: &Epochs, budget: &Budget) -> usize {
        let mut count = 0;
        loop {
            let mut lists = self.lock();
            let Some((stamp, id)) = lists.limbo.front().copied() else {
                break;
            };
            if !epochs.passed(stamp) {
                break;
            }
            lists.limbo.pop_front();
            count += 1;
            let row = self.segments.row(id);
            if row.word().is_short() {
                drop(lists);
                self.free_short(id, budget);
                continue;
            }
            row.warm();
            lists.warm.push(id);
            drop(lists);
            self.cool(WARM_SEGMENTS, budget);
        }
        count
    }

    /// Frees a retired segment that is short: part of its memory is gone already. What the system does not take stays
    /// counted.
    fn free_short(&self, id: SegmentId, budget: &Budget) {
        let held = unit_bytes(self.segments.row(id).word().held());
        if self.segments.release(id).is_ok() {
            budget.give_back(held, Use::Segments);
        }
        self.segments.row(id).free();
        self.lock().free.push(id);
    }

    /// Whether a segment can be opened without taking memory.
    pub(crate) fn has_warm(&self) -> bool {
        !self.lock().warm.is_empty()
    }

    /// Seals so far: the next segment to be sealed is this one.
    pub(crate) fn seals(&self) -> u64 {
        // Relaxed: a counter.
        self.seals.load(Ordering::Relaxed)
    }

    /// Whether segments wait for their readers.
    pub(crate) fn has_limbo(&self) -> bool {
        !self.lock().limbo.is_empty()
    }

    /// Gives the memory of warm segments back to the system until `keep` are left.
    pub(crate) fn cool(&self, keep: usize, budget: &Budget) {
        loop {
            let mut lists = self.lock();
            if lists.warm.len() <= keep {
                return;
            }
            let Some(id) = lists.warm.pop() else { return };
            drop(lists);
            if self.segments.release(id).is_err() {
                self.lock().warm.push(id);
                return;
            }
            self.segments.row(id).free();
            budget.give_back(SEGMENT_BYTES, Use::Segments);
            self.lock().free.push(id);
        }
    }

    /// Every segment that was ever used.
    pub(crate) fn ids(&self) -> impl Iterator<Item = SegmentId> + use<> {
        (0..self.lock().fresh).map(SegmentId)
    }

    fn lock(&self) -> MutexGuard<'_, Lists> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
