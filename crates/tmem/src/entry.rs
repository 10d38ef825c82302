//! The entry word: where one granule is.
//!
//! | bits | missing | filled | block | lost |
//! |---|---|---|---|---|
//! | 0-2 kind | 0 | 1 | 4 to 7: 4 more than its heat, the gets since the cleaner last looked, saturating | 2 |
//! | 3-6 index | 0 | 0 | which granule of its block this is | 0 |
//! | 7-10 count | 0 | 0 | granules in the block, less one | 0 |
//! | 11-25 size | 0 | 0 | units of the block, header included, less one | 0 |
//! | 26-44 place | 0 | 0 | first unit within the segment | 0 |
//! | 45-63 segment | 0 | 0 | row of the segment table | 0 |
//! | 32-63 pattern | 0 | the 4 bytes that repeat | (see above) | 0 |
//!
//! All other combinations are illegal. `lost` says that the bytes were accepted and then found damaged: it is never
//! mistaken for missing, and ends only by a later put or flush.
//!
//! The word names a segment, not a tier: where the segment is stands in the segment table.

use crate::bits::Field;
use crate::units::SegmentId;

const KIND: Field = Field::lowest(3);
const INDEX: Field = Field::after(KIND, 4);
const COUNT: Field = Field::after(INDEX, 4);
const SIZE: Field = Field::after(COUNT, 15);
const PLACE: Field = Field::after(SIZE, 19);
const SEGMENT: Field = Field::after(PLACE, 19);
const PATTERN: Field = Field::after(Field::lowest(32), 32);
const _: () = assert!(SEGMENT.end() == 64 && PATTERN.end() == 64);
const _: () = assert!(COUNT.max() + 1 == crate::units::BLOCK_GRANULES as u64);
const _: () = assert!(PLACE.max() + 1 == crate::units::SEGMENT_UNITS as u64);

/// Units of the largest block that an entry can name.
pub(crate) const MAX_UNITS: u32 = 1 << 15;
const _: () = assert!(SIZE.max() + 1 == MAX_UNITS as u64);

/// Segments that an entry can name.
pub(crate) const MAX_SEGMENTS: u32 = 1 << 19;
const _: () = assert!(SEGMENT.max() + 1 == MAX_SEGMENTS as u64);

/// The largest heat.
pub(crate) const MAX_HEAT: u32 = 3;

/// The kind of a block without heat. A block's kind is its heat more.
const COLD_BLOCK: u32 = 4;
const _: () = assert!(KIND.max() == (COLD_BLOCK + MAX_HEAT) as u64);

/// The packed word of the module's table.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry(u64);

/// Where a block lies and what part of it a granule is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockRef {
    pub(crate) segment: SegmentId,
    /// First unit within the segment.
    pub(crate) place: u32,
    /// Units of the block, header included.
    pub(crate) units: u32,
    /// Granules in the block, 1 to 16.
    pub(crate) granules: u32,
    /// Which of them this is, from 0.
    pub(crate) index: u32,
}

impl BlockRef {
    /// Units that this granule answers for: the block's units divided as evenly as whole units can be, the first ones
    /// rounded up. The shares of a block's granules add up to its units.
    pub(crate) fn share(self) -> u32 {
        self.units / self.granules + u32::from(self.index < self.units % self.granules)
    }

    /// The same block, seen from granule `index`.
    pub(crate) fn at(self, index: u32) -> Self {
        assert!(index < self.granules);
        Self { index, ..self }
    }

    /// Whether both are parts of one block.
    pub(crate) fn same_block(self, other: Self) -> bool {
        (self.segment, self.place) == (other.segment, other.place)
    }
}

/// An entry, unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryKind {
    /// Nothing is stored.
    Missing,
    /// The granule is these four bytes (little endian), repeated.
    Filled(u32),
    /// In a block of the log.
    Block(BlockRef),
    /// Accepted once, found damaged since.
    Lost,
}

impl Entry {
    /// Nothing is stored. The zero word, so that fresh tables are empty tables.
    pub(crate) const MISSING: Self = Self(0);
    /// Accepted once, found damaged since.
    pub(crate) const LOST: Self = Self(2);

    /// A granule of `pattern`, repeated.
    pub(crate) fn filled(pattern: u32) -> Self {
        Self(PATTERN.set(1, u64::from(pattern)))
    }

    /// A granule in a block, with no heat.
    pub(crate) fn block(block: BlockRef) -> Self {
        assert!(block.granules >= 1 && block.index < block.granules && block.units >= 2);
        let word = KIND.set(0, u64::from(COLD_BLOCK));
        let word = INDEX.set(word, u64::from(block.index));
        let word = COUNT.set(word, u64::from(block.granules - 1));
        let word = SIZE.set(word, u64::from(block.units - 1));
        let word = PLACE.set(word, u64::from(block.place));
        Self(SEGMENT.set(word, u64::from(block.segment.0)))
    }

    /// From its word.
    pub(crate) fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// Its word.
    pub(crate) fn word(self) -> u64 {
        self.0
    }

    /// Whether nothing is stored.
    pub(crate) fn is_missing(self) -> bool {
        self == Self::MISSING
    }

    /// Unpacked.
    pub(crate) fn kind(self) -> EntryKind {
        match KIND.get32(self.0) {
            0 => EntryKind::Missing,
            1 => EntryKind::Filled(PATTERN.get32(self.0)),
            COLD_BLOCK.. => EntryKind::Block(BlockRef {
                segment: SegmentId(SEGMENT.get32(self.0)),
                place: PLACE.get32(self.0),
                units: SIZE.get32(self.0) + 1,
                granules: COUNT.get32(self.0) + 1,
                index: INDEX.get32(self.0),
            }),
            _ => EntryKind::Lost,
        }
    }

    /// Its block, if it is in one.
    pub(crate) fn as_block(self) -> Option<BlockRef> {
        match self.kind() {
            EntryKind::Block(block) => Some(block),
            _ => None,
        }
    }

    fn is_block(self) -> bool {
        KIND.get32(self.0) >= COLD_BLOCK
    }

    /// Gets since the cleaner last looked, up to [`MAX_HEAT`].
    pub(crate) fn heat(self) -> u32 {
        KIND.get32(self.0).saturating_sub(COLD_BLOCK)
    }

    /// The same with `heat`. Only blocks have any.
    pub(crate) fn with_heat(self, heat: u32) -> Self {
        if self.is_block() { Self(KIND.set(self.0, u64::from(COLD_BLOCK + heat.min(MAX_HEAT)))) } else { self }
    }

    /// One get more, or nothing if that changes nothing.
    pub(crate) fn warmed(self) -> Option<Self> {
        let heat = self.heat();
        (self.is_block() && heat < MAX_HEAT).then(|| self.with_heat(heat + 1))
    }

    /// Whether both name the same contents, whatever their heat.
    pub(crate) fn same_contents(self, other: Self) -> bool {
        self.with_heat(0) == other.with_heat(0)
    }
}

impl core::fmt::Debug for Entry {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:?} heat {}", self.kind(), self.heat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_survives_packing_at_the_corners() {
        for (segment, place, units, granules) in
            [(0, 0, 4, 1), (MAX_SEGMENTS - 1, crate::units::SEGMENT_UNITS - 1, 32768, 16), (77, 1234, 16388, 16)]
        {
            for index in 0..granules {
                let block = BlockRef { segment: SegmentId(segment), place, units, granules, index };
                let entry = Entry::block(block);
                assert_eq!(entry.as_block(), Some(block));
                assert_eq!(entry.with_heat(3).as_block(), Some(block));
                assert!(entry.same_contents(entry.with_heat(2)));
            }
        }
    }

    #[test]
    fn shares_add_up_to_the_block() {
        for units in 2..200 {
            for granules in 1..=16 {
                let block = BlockRef { segment: SegmentId(1), place: 0, units, granules, index: 0 };
                let sum: u32 = (0..granules).map(|index| block.at(index).share()).sum();
                assert_eq!(sum, units);
            }
        }
    }

    #[test]
    fn kinds_are_never_confused() {
        let kinds = [Entry::MISSING, Entry::LOST, Entry::filled(0), Entry::filled(3), Entry::filled(u32::MAX)];
        for (i, a) in kinds.iter().enumerate() {
            assert_eq!(Entry::from_word(a.word()), *a);
            assert_eq!(a.warmed(), None);
            for b in &kinds[i + 1..] {
                assert!(!a.same_contents(*b));
            }
        }
    }
}
