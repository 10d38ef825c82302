//! Segments: the memory of the log, and the right to append to a segment.
//!
//! # Who may touch the memory
//! The owner of an [`OpenSegment`] writes above `filled`. Nobody writes below it, so whoever found a block through an
//! entry may read it for as long as they are pinned: the segment is handed out again only after their pin's epoch has
//! passed. These two rules are what every `unsafe` block here rests on.
//!
//! The owner may let another process write there (a [`Loan`](crate::Loan)), and does not look until that has said that
//! it is done. Nothing can stop that process from writing at other times and in other places. What is read here is
//! therefore bytes of any value: checked against a checksum, and used as a length or an index only after a check.

use crate::entry::{BlockRef, MAX_SEGMENTS};
use crate::epoch::Pin;
use crate::header::{HEADER_BYTES, Header, TAIL_BYTES};
use crate::row::{Row, State};
use crate::units::{PAGE_UNITS, SEGMENT_BYTES, SEGMENT_UNITS, SegmentId, unit_bytes};
use std::sync::OnceLock;
use tmem_sys::{CACHE_LINE_BYTES, Memfd, Pages, Reservation, SysError};

/// Segments of one memfd.
const REGION_SEGMENTS: usize = 512;

/// Bytes of a region: of one memfd of segments.
pub const REGION_BYTES: usize = REGION_SEGMENTS * SEGMENT_BYTES;

/// Segments that a store can have: a terabyte's worth.
pub(crate) const CAPACITY_SEGMENTS: u32 = 1 << 19;
const _: () = assert!(CAPACITY_SEGMENTS <= MAX_SEGMENTS);

/// Where a unit of a segment is: region, and byte within it.
pub(crate) fn place_in_region(segment: SegmentId, unit: u32) -> (u32, u64) {
    #[expect(clippy::cast_possible_truncation, reason = "a segment's number has 32 bits")]
    let (region, nth) = (segment.0 / REGION_SEGMENTS as u32, segment.0 as usize % REGION_SEGMENTS);
    (region, (nth * SEGMENT_BYTES + unit_bytes(unit)) as u64)
}

/// Bytes of bookkeeping for each region.
pub(crate) const REGION_ROWS_BYTES: usize = REGION_SEGMENTS * size_of::<Row>();

#[derive(Debug)]
struct Region {
    rows: Box<[Row]>,
    /// Can be handed to another process.
    memfd: Memfd,
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
        Ok(Self { memory, regions: (0..regions).map(|_| OnceLock::new()).collect() })
    }

    /// Makes the region of `segment`, unless it is there. One caller at a time. Returns whether it made it.
    pub(crate) fn add_region(&self, segment: SegmentId) -> Result<bool, SysError> {
        let at = segment.0 as usize / REGION_SEGMENTS;
        if self.regions[at].get().is_some() {
            return Ok(false);
        }
        let memfd = Memfd::sealed("tmem-segments", REGION_BYTES)?;
        self.memory.commit_shared(at * REGION_BYTES..(at + 1) * REGION_BYTES, &memfd, Pages::Huge)?;
        let rows = (0..REGION_SEGMENTS).map(|_| Row::new()).collect();
        let added = self.regions[at].set(Region { rows, memfd }).is_ok();
        assert!(added, "regions are added by one caller at a time");
        Ok(true)
    }

    /// The memory of a region, if it exists.
    pub(crate) fn region(&self, number: u32) -> Option<&Memfd> {
        Some(&self.regions.get(number as usize)?.get()?.memfd)
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

    /// Gives the memory of `segment`, which is warm, or retired and its readers gone, back to the system.
    pub(crate) fn release(&self, segment: SegmentId) -> Result<(), SysError> {
        assert!(matches!(self.row(segment).word().state(), State::Warm | State::Retired));
        // SAFETY: such a segment has no blocks, its last readers are gone, and nobody owns its tail.
        unsafe { self.memory.release_shared(byte_range(segment)) }
    }

    /// Gives the memory of the pages behind the last committed block of `open` back to the system. Returns how many
    /// bytes.
    pub(crate) fn release_tail(&self, open: &mut OpenSegment) -> Result<usize, SysError> {
        let mut range = byte_range(open.id);
        range.start += unit_bytes(open.committed.next_multiple_of(PAGE_UNITS));
        // SAFETY: `&mut` shows us to be the owner, the only one who uses what is above `committed`.
        unsafe { self.memory.release_shared(range.clone()) }?;
        Ok(range.len())
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

    /// Asks for the start of a block's bytes, so that a get that follows soon does not wait for them. The reference
    /// may be out of date by then.
    pub(crate) fn prefetch(&self, block: BlockRef) {
        /// What is asked for; the hardware goes on from there.
        const LINES: usize = 16;
        let start = block.segment.0 as usize * SEGMENT_BYTES + unit_bytes(block.place);
        for line in 0..unit_bytes(block.units).div_ceil(CACHE_LINE_BYTES).min(LINES) {
            tmem_sys::prefetch(self.memory.base().as_ptr().wrapping_add(start + line * CACHE_LINE_BYTES));
        }
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

    /// Flips bits of a stored byte, as failing memory would. For tests.
    #[cfg(test)]
    pub(crate) fn damage(&self, block: BlockRef, byte: usize, flips: u8) {
        assert!(byte < unit_bytes(block.units));
        let start = block.segment.0 as usize * SEGMENT_BYTES + unit_bytes(block.place) + byte;
        // SAFETY: within the block, as just asserted.
        let at = unsafe { self.memory.base().add(start) };
        // SAFETY: the test that calls this has no reader running.
        unsafe { *at.as_ptr() ^= flips };
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
    /// Units of dead granules in blocks that were copied whole because they take less room so.
    pub(crate) stuck: u64,
    /// When the youngest of the blocks copied to it was sealed, in seals of the log; none: it holds what was just put.
    pub(crate) since: Option<u64>,
}

impl OpenSegment {
    /// The owner of `id`, which the caller has just opened.
    pub(crate) fn new(id: SegmentId, settled: u64) -> Self {
        Self { id, tail: 0, committed: 0, settled, stuck: 0, since: None }
    }

    /// The owner of `id`, which the caller has just reopened: what is in it is committed up to `filled`.
    pub(crate) fn again(id: SegmentId, filled: u32, stuck: u64) -> Self {
        Self { id, tail: filled, committed: filled, settled: 0, stuck, since: None }
    }

    /// Bytes that the payload of one more block may have.
    pub(crate) fn room(&self) -> usize {
        self.left_bytes().saturating_sub(HEADER_BYTES + TAIL_BYTES)
    }

    /// Bytes in all for more blocks with their headers.
    pub(crate) fn left_bytes(&self) -> usize {
        unit_bytes(SEGMENT_UNITS - self.tail)
    }

    /// Where the next block goes: region, and byte within it.
    pub(crate) fn tail_place(&self) -> (u32, u64) {
        place_in_region(self.id, self.tail)
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
        header.seal(self.tail_bytes(segments));
        self.advance(header)
    }

    /// Appends a copy of a whole block, header included, for which there is room.
    pub(crate) fn push_copy(&mut self, segments: &Segments, header: &Header, block: &[u8]) -> BlockRef {
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
