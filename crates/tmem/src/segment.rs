//! Segments: the memory of the log, the row that says what each one is, and the right to append to one.
//!
//! # A row
//! One packed word, so that a segment's state and its counts change together:
//!
//! | bits | field |
//! |---|---|
//! | 0-2 | state |
//! | 3-4 | class |
//! | 5-22 | live: units that entries refer to |
//! | 23-40 | filled: units that blocks have been committed to, from the segment's start |
//!
//! | state | value | memory | blocks | next |
//! |---|---|---|---|---|
//! | free | 0 | none | none | open, warm |
//! | warm | 1 | held | none | open, free |
//! | open | 2 | held | one owner appends | sealed; warm, if it is empty |
//! | sealed | 3 | held | immutable | victim |
//! | victim | 4 | held | the cleaner copies the live ones out | retired, sealed, damaged |
//! | retired | 5 | held | dead, perhaps still being read | warm, free |
//! | damaged | 6 | held | immutable; the walk from block to block is broken, the entries still work | (none) |
//!
//! Values 7 and above are illegal. `live <= filled <= SEGMENT_UNITS` in every state.
//!
//! # Who may touch the memory
//! The owner of an [`OpenSegment`] writes above `filled`. Nobody writes below it, so whoever found a block through an
//! entry may read it for as long as they are pinned: the segment is handed out again only after their pin's epoch has
//! passed. These two rules are what every `unsafe` block here rests on.

use crate::bits::Field;
use crate::entry::{BlockRef, MAX_SEGMENTS};
use crate::epoch::Pin;
use crate::header::{HEADER_BYTES, Header};
use crate::primitive::{AtomicU64, Ordering};
use crate::units::{SEGMENT_BYTES, SEGMENT_UNITS, SegmentId, unit_bytes};
use std::sync::OnceLock;
use tmem_sys::{Memfd, Pages, Reservation, SysError};

const STATE: Field = Field::lowest(3);
const CLASS: Field = Field::after(STATE, 2);
const LIVE: Field = Field::after(CLASS, 18);
const FILLED: Field = Field::after(LIVE, 18);
const _: () = assert!(LIVE.max() >= SEGMENT_UNITS as u64 && FILLED.max() >= SEGMENT_UNITS as u64);

/// What a segment is. The values stand in the module's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Free = 0,
    Warm = 1,
    Open = 2,
    Sealed = 3,
    Victim = 4,
    Retired = 5,
    Damaged = 6,
}

/// What kind of blocks a segment holds. They are apart so that dropping ephemeral blocks never means copying
/// persistent ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Blocks of persistent pools.
    Persistent = 0,
    /// Ephemeral blocks as they were put: the first to go.
    Probation = 1,
    /// Ephemeral blocks that had been got again when the cleaner came.
    Protected = 2,
}

/// A row's word, unpacked by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RowWord(u64);

impl RowWord {
    const FREE: Self = Self(0);

    pub(crate) fn state(self) -> State {
        match STATE.get(self.0) {
            0 => State::Free,
            1 => State::Warm,
            2 => State::Open,
            3 => State::Sealed,
            4 => State::Victim,
            5 => State::Retired,
            6 => State::Damaged,
            other => unreachable!("row state {other}"),
        }
    }

    pub(crate) fn class(self) -> Class {
        match CLASS.get(self.0) {
            0 => Class::Persistent,
            1 => Class::Probation,
            2 => Class::Protected,
            other => unreachable!("row class {other}"),
        }
    }

    pub(crate) fn live(self) -> u32 {
        LIVE.get32(self.0)
    }

    pub(crate) fn filled(self) -> u32 {
        FILLED.get32(self.0)
    }

    /// Units that cleaning would win back: dead blocks, and the tail that was never filled.
    pub(crate) fn reclaimable(self) -> u32 {
        SEGMENT_UNITS - self.live()
    }

    fn with_state(self, state: State) -> Self {
        Self(STATE.set(self.0, state as u64))
    }

    /// Free or warm to open.
    fn opened(self, class: Class) -> Option<Self> {
        let idle = matches!(self.state(), State::Free | State::Warm);
        (idle && self.live() == 0).then(|| Self(CLASS.set(0, class as u64)).with_state(State::Open))
    }

    /// Free to warm: its memory was taken ahead of need.
    fn prepared(self) -> Option<Self> {
        (self == Self::FREE).then(|| self.with_state(State::Warm))
    }

    /// Open to warm: nothing was ever written to it.
    fn abandoned(self) -> Option<Self> {
        (self.state() == State::Open && self.filled() == 0)
            .then(|| Self::FREE.with_state(State::Warm))
    }

    /// Open to sealed.
    fn sealed(self) -> Option<Self> {
        (self.state() == State::Open).then(|| self.with_state(State::Sealed))
    }

    /// Sealed to victim.
    fn taken(self) -> Option<Self> {
        (self.state() == State::Sealed).then(|| self.with_state(State::Victim))
    }

    /// Victim back to sealed.
    fn put_back(self) -> Option<Self> {
        (self.state() == State::Victim).then(|| self.with_state(State::Sealed))
    }

    /// Victim to retired: every entry has left it.
    fn retired(self) -> Option<Self> {
        (self.state() == State::Victim && self.live() == 0).then(|| self.with_state(State::Retired))
    }

    /// Victim to damaged.
    fn damaged(self) -> Option<Self> {
        (self.state() == State::Victim).then(|| self.with_state(State::Damaged))
    }

    /// Retired to warm.
    fn warmed(self) -> Option<Self> {
        (self.state() == State::Retired).then(|| Self::FREE.with_state(State::Warm))
    }

    /// Warm to free.
    fn freed(self) -> Option<Self> {
        (self.state() == State::Warm).then_some(Self::FREE)
    }

    /// `units` more, committed and referred to.
    fn committed(self, units: u32) -> Option<Self> {
        let filled = self.filled() + units;
        let word = Self(LIVE.set(self.0, u64::from(self.live() + units)));
        (self.state() == State::Open && filled <= SEGMENT_UNITS)
            .then(|| Self(FILLED.set(word.0, u64::from(filled))))
    }

    /// `units` that no entry refers to any more.
    fn killed(self, units: u32) -> Option<Self> {
        let live = self.live().checked_sub(units)?;
        Some(Self(LIVE.set(self.0, u64::from(live))))
    }
}

/// A row of the segment table.
#[derive(Debug)]
pub(crate) struct Row {
    word: AtomicU64,
    /// When it was sealed, in seals of the whole log.
    sealed_at: AtomicU64,
    /// The generation of policies under which the cleaner took all of it as cold; 0: it did not.
    settled: AtomicU64,
}

impl Row {
    pub(crate) fn new() -> Self {
        Self {
            word: AtomicU64::new(RowWord::FREE.0),
            sealed_at: AtomicU64::new(0),
            settled: AtomicU64::new(0),
        }
    }

    /// Its word now.
    pub(crate) fn word(&self) -> RowWord {
        // Acquire: pairs with the AcqRel in `change`. Blocks below `filled` are seen as they were written.
        RowWord(self.word.load(Ordering::Acquire))
    }

    /// When it was sealed.
    pub(crate) fn sealed_at(&self) -> u64 {
        // Relaxed: a hint for choosing victims.
        self.sealed_at.load(Ordering::Relaxed)
    }

    /// Applies a transition, and returns the word before it, or nothing where the transition is illegal.
    fn change(&self, transition: impl Fn(RowWord) -> Option<RowWord>) -> Option<RowWord> {
        // AcqRel, Acquire: publishes the blocks committed so far; pairs with `word`. Of two changes the later one sees
        // what the earlier one published.
        let step = |word| transition(RowWord(word)).map(|next| next.0);
        self.word
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, step)
            .ok()
            .map(RowWord)
    }

    /// As [`Self::change`], for a transition that our own bookkeeping says is legal.
    fn must(&self, what: &str, transition: impl Fn(RowWord) -> Option<RowWord>) -> RowWord {
        match self.change(transition) {
            Some(before) => before,
            None => unreachable!("a segment cannot be {what}: {:?}", self.word()),
        }
    }

    pub(crate) fn open(&self, class: Class) {
        self.must("opened", |word| word.opened(class));
    }

    /// Under which generation of policies all of it was taken as cold; 0: it was not.
    pub(crate) fn settled(&self) -> u64 {
        // Relaxed: a hint for choosing victims.
        self.settled.load(Ordering::Relaxed)
    }

    /// Seals it as the log's `nth`. Returns the word as it is afterwards.
    pub(crate) fn seal(&self, nth: u64, settled: u64) -> RowWord {
        // Relaxed: a hint for choosing victims.
        self.sealed_at.store(nth, Ordering::Relaxed);
        self.settled.store(settled, Ordering::Relaxed); // Relaxed: as above
        let before = self.must("sealed", RowWord::sealed);
        before.with_state(State::Sealed)
    }

    /// Takes it for cleaning, unless somebody has.
    pub(crate) fn take(&self) -> bool {
        self.change(RowWord::taken).is_some()
    }

    pub(crate) fn put_back(&self) {
        self.must("put back", RowWord::put_back);
    }

    pub(crate) fn retire(&self) {
        self.must("retired", RowWord::retired);
    }

    pub(crate) fn condemn(&self) {
        self.must("condemned", RowWord::damaged);
    }

    pub(crate) fn prepare(&self) {
        self.must("prepared", RowWord::prepared);
    }

    pub(crate) fn abandon(&self) {
        self.must("abandoned", RowWord::abandoned);
    }

    pub(crate) fn warm(&self) {
        self.must("warmed", RowWord::warmed);
    }

    pub(crate) fn free(&self) {
        self.must("freed", RowWord::freed);
    }

    pub(crate) fn commit(&self, units: u32) {
        self.must("committed to", |word| word.committed(units));
    }

    /// Takes `units` from the live ones. Returns the state it was in.
    pub(crate) fn kill(&self, units: u32) -> State {
        self.must("relieved", |word| word.killed(units)).state()
    }
}

/// Segments of one memfd.
const REGION_SEGMENTS: usize = 512;
const REGION_BYTES: usize = REGION_SEGMENTS * SEGMENT_BYTES;

/// Segments that a store can have: a terabyte's worth.
pub(crate) const CAPACITY_SEGMENTS: u32 = 1 << 19;
const _: () = assert!(CAPACITY_SEGMENTS <= MAX_SEGMENTS);

/// Bytes of bookkeeping for each region.
pub(crate) const REGION_ROWS_BYTES: usize = REGION_SEGMENTS * size_of::<Row>();

#[derive(Debug)]
struct Region {
    rows: Box<[Row]>,
    /// Keeps the memory alive, and can be handed to another process.
    _memfd: Memfd,
}

/// The segment table and the memory under it.
#[derive(Debug)]
pub(crate) struct Segments {
    memory: Reservation,
    regions: Box<[OnceLock<Region>]>,
}

impl Segments {
    pub(crate) fn new() -> Result<Self, SysError> {
        let regions = CAPACITY_SEGMENTS as usize / REGION_SEGMENTS;
        let memory = Reservation::new(regions * REGION_BYTES)?;
        Ok(Self {
            memory,
            regions: (0..regions).map(|_| OnceLock::new()).collect(),
        })
    }

    /// Makes the region of `segment`, unless it is there. One caller at a time. Returns whether it made it.
    pub(crate) fn add_region(&self, segment: SegmentId) -> Result<bool, SysError> {
        let at = segment.0 as usize / REGION_SEGMENTS;
        if self.regions[at].get().is_some() {
            return Ok(false);
        }
        let memfd = Memfd::sealed("tmem-segments", REGION_BYTES)?;
        self.memory.commit_shared(
            at * REGION_BYTES..(at + 1) * REGION_BYTES,
            &memfd,
            Pages::Huge,
        )?;
        let rows = (0..REGION_SEGMENTS).map(|_| Row::new()).collect();
        let added = self.regions[at]
            .set(Region {
                rows,
                _memfd: memfd,
            })
            .is_ok();
        assert!(added, "regions are added by one caller at a time");
        Ok(true)
    }

    /// The row of a segment whose region exists.
    pub(crate) fn row(&self, segment: SegmentId) -> &Row {
        let region = self.regions[segment.0 as usize / REGION_SEGMENTS].get();
        let region = region.unwrap_or_else(|| unreachable!("{segment:?} has no region"));
        &region.rows[segment.0 as usize % REGION_SEGMENTS]
    }

    /// Takes the memory of `segment`.
    pub(crate) fn populate(&self, segment: SegmentId) -> Result<(), SysError> {
        self.memory.populate(byte_range(segment))
    }

    /// Gives the memory of a warm `segment` back to the system.
    pub(crate) fn release(&self, segment: SegmentId) -> Result<(), SysError> {
        assert_eq!(self.row(segment).word().state(), State::Warm);
        // SAFETY: a warm segment has no blocks, its last readers are gone, and nobody owns its tail.
        unsafe { self.memory.release_shared(byte_range(segment)) }
    }

    /// The bytes of a block that the caller found through an entry while pinned, header included. Whatever the
    /// reference says, what comes back lies within one segment's committed blocks, or is nothing.
    pub(crate) fn block<'a>(&'a self, block: BlockRef, _pin: &'a Pin<'_>) -> Option<&'a [u8]> {
        let word = self.row(block.segment).word();
        if block.place + block.units > word.filled() {
            return None;
        }
        Some(self.bytes(block.segment, block.place, block.units))
    }

    /// All committed blocks of a victim, which stays one while the caller looks.
    pub(crate) fn victim_bytes(&self, segment: SegmentId) -> &[u8] {
        let word = self.row(segment).word();
        assert_eq!(word.state(), State::Victim);
        self.bytes(segment, 0, word.filled())
    }

    fn bytes(&self, segment: SegmentId, place: u32, units: u32) -> &[u8] {
        let start = segment.0 as usize * SEGMENT_BYTES + unit_bytes(place);
        assert!(start + unit_bytes(units) <= self.memory.len());
        // SAFETY: within the reservation, as just asserted.
        let at = unsafe { self.memory.base().add(start) };
        // SAFETY: callers give ranges below `filled` of a segment that is not reused while they look (module head):
        // committed memory, initialised, that nobody writes to.
        unsafe { core::slice::from_raw_parts(at.as_ptr(), unit_bytes(units)) }
    }

    /// Breaks a stored byte, as failing memory would. For tests.
    #[cfg(test)]
    pub(crate) fn damage(&self, block: BlockRef, byte: usize) {
        assert!(byte < unit_bytes(block.units));
        let start = block.segment.0 as usize * SEGMENT_BYTES + unit_bytes(block.place) + byte;
        // SAFETY: within the block, as just asserted.
        let at = unsafe { self.memory.base().add(start) };
        // SAFETY: the test that calls this has no reader running.
        unsafe { *at.as_ptr() ^= 0x10 };
    }
}

fn byte_range(segment: SegmentId) -> core::ops::Range<usize> {
    let start = segment.0 as usize * SEGMENT_BYTES;
    start..start + SEGMENT_BYTES
}

/// The right to append to an open segment. There is one for each; whoever holds it must seal it in the end.
///
/// `committed <= tail <= SEGMENT_UNITS`: blocks below `committed` are in entries, those up to `tail` are written but
/// nobody knows of them yet.
#[derive(Debug)]
pub(crate) struct OpenSegment {
    pub(crate) id: SegmentId,
    tail: u32,
    committed: u32,
    /// The generation of policies under which everything in it is being taken as cold; 0: it is not.
    pub(crate) settled: u64,
}

impl OpenSegment {
    /// The owner of `id`, which the caller has just opened.
    pub(crate) fn new(id: SegmentId, settled: u64) -> Self {
        Self {
            id,
            tail: 0,
            committed: 0,
            settled,
        }
    }

    /// Bytes that the payload of one more block may have.
    pub(crate) fn room(&self) -> usize {
        unit_bytes(SEGMENT_UNITS - self.tail).saturating_sub(HEADER_BYTES)
    }

    /// Where the payload of the next block goes: all of [`Self::room`].
    pub(crate) fn payload<'a>(&'a mut self, segments: &'a Segments) -> &'a mut [u8] {
        let room = self.room();
        if room == 0 {
            return &mut [];
        }
        &mut self.tail_bytes(segments)[HEADER_BYTES..HEADER_BYTES + room]
    }

    /// Finishes the block whose payload was written to [`Self::payload`].
    pub(crate) fn push(&mut self, segments: &Segments, header: &Header) -> BlockRef {
        let bytes = self.tail_bytes(segments);
        let (head, rest) = bytes.split_at_mut(HEADER_BYTES);
        head.copy_from_slice(&header.seal(&rest[..header.stored_bytes]));
        self.advance(header)
    }

    /// Appends a copy of a whole block, header included, for which there is room.
    pub(crate) fn push_copy(
        &mut self,
        segments: &Segments,
        header: &Header,
        block: &[u8],
    ) -> BlockRef {
        assert!(header.stored_bytes <= self.room());
        self.tail_bytes(segments)[..block.len()].copy_from_slice(block);
        self.advance(header)
    }

    fn advance(&mut self, header: &Header) -> BlockRef {
        let block = BlockRef {
            segment: self.id,
            place: self.tail,
            units: header.units(),
            granules: header.granules(),
            index: 0,
        };
        self.tail += block.units;
        assert!(self.tail <= SEGMENT_UNITS);
        block
    }

    /// Makes all blocks so far known: to be called before their entries are stored.
    pub(crate) fn commit(&mut self, segments: &Segments) {
        if self.tail > self.committed {
            segments.row(self.id).commit(self.tail - self.committed);
            self.committed = self.tail;
        }
    }

    /// Forgets the blocks that were not committed.
    pub(crate) fn rewind(&mut self) {
        self.tail = self.committed;
    }

    /// Whether no block was ever committed.
    pub(crate) fn is_empty(&self) -> bool {
        self.committed == 0
    }

    fn tail_bytes<'a>(&'a mut self, segments: &'a Segments) -> &'a mut [u8] {
        let start = self.id.0 as usize * SEGMENT_BYTES + unit_bytes(self.tail);
        let len = unit_bytes(SEGMENT_UNITS - self.tail);
        // SAFETY: tail <= SEGMENT_UNITS, so this lies within the segment, or at its end with a length of 0.
        let at = unsafe { segments.memory.base().add(start) };
        // SAFETY: the segment is open, its memory committed, and above `filled` (at most `tail`) its only user is the
        // owner of this value, which `&mut self` shows us to be (module head).
        unsafe { core::slice::from_raw_parts_mut(at.as_ptr(), len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_goes_only_where_its_table_says() {
        let row = Row::new();
        assert!(!row.take());
        row.open(Class::Protected);
        row.commit(100);
        assert_eq!(row.kill(40), State::Open);
        let word = row.seal(7, 0);
        assert_eq!(
            (word.live(), word.filled(), word.class()),
            (60, 100, Class::Protected)
        );
        assert!(row.take() && !row.take());
        assert!(row.change(RowWord::retired).is_none(), "60 units are live");
        row.kill(60);
        row.retire();
        row.warm();
        row.free();
        assert_eq!(row.word(), RowWord::FREE);
    }

    #[test]
    #[should_panic(expected = "cannot be relieved")]
    fn more_cannot_die_than_lived() {
        let row = Row::new();
        row.open(Class::Persistent);
        row.commit(10);
        row.kill(11);
    }
}
