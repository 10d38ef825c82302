//! Operations and completions, and how they are written as words.
//!
//! A submission is eight words:
//!
//! | word | bits | |
//! |---|---|---|
//! | 0 | 0-7 | opcode: 1 put, 2 get, 3 take, 4 flush, 5 flush object |
//! | | 8-13 | flags: bit 8: `memory` is the number of an annex, which holds a list of slices; the others are 0 |
//! | | 14, 15 | cancelled, taken: written by read-modify-write only |
//! | | 16-31 | region |
//! | | 32-63 | pool |
//! | 1 | | tag: comes back in the completion |
//! | 2-4 | | object |
//! | 5 | | offset in the object, in bytes |
//! | 6 | | length in bytes |
//! | 7 | | memory: first byte in the region, or an annex |
//!
//! A completion is four: tag; result (bits 0-31) and detail (32-63); value; map.

use crate::layout::{MAP_BITS, MOST_SLICES};
use crate::ring::{RawCompletion, RawSubmission};

/// Bytes of a granule.
pub const GRANULE_BYTES: u64 = 4096;

/// A pool, by number. The number is a name, not a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct PoolId(pub u32);

/// A client of a daemon, by number; never used twice in a daemon's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct ClientId(pub u32);

/// An object: 192 bits that mean nothing to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ObjectId(pub [u64; 3]);

impl From<u64> for ObjectId {
    fn from(number: u64) -> Self {
        Self([number, 0, 0])
    }
}

/// A part of a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    /// First byte in the region.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

/// The memory side of an operation: slices of one region, one behind the other. Slices of whole granules are encoded from
/// and decoded into without a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory<'s> {
    /// The region's number.
    pub region: u16,
    /// 1 to [`MOST_SLICES`] slices.
    pub slices: &'s [Slice],
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action<'s> {
    /// Store the memory at `offset` of the object, a multiple of 4096.
    Put {
        /// Bytes from the object's start.
        offset: u64,
        /// What to store.
        from: Memory<'s>,
    },
    /// Fill the memory from `offset` of the object on.
    Get {
        /// Bytes from the object's start.
        offset: u64,
        /// What to fill.
        into: Memory<'s>,
    },
    /// The same, and flush what was got. `offset` is a multiple of 4096.
    Take {
        /// Bytes from the object's start.
        offset: u64,
        /// What to fill.
        into: Memory<'s>,
    },
    /// Make a range missing. `offset` is a multiple of 4096.
    Flush {
        /// Bytes from the object's start.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// Make all of the object missing.
    FlushObject,
}

/// One operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operation<'s> {
    /// Comes back in the completion. Means nothing to the store; [`Queue::cancel`](crate::Queue::cancel) finds by it.
    pub tag: u64,
    /// A pool that the client created or joined.
    pub pool: PoolId,
    /// An object in it.
    pub object: ObjectId,
    /// What to do.
    pub action: Action<'s>,
}

/// The end of one operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    /// The operation's.
    pub tag: u64,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of an operation. No two kinds can be taken for each other.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a put may have been rejected and a get may have found nothing"]
pub enum Outcome {
    /// A put: the store has it.
    Stored,
    /// A put: the store does not have it, and the range is missing. The caller still holds the only copy.
    Rejected(Rejection),
    /// A put that would have stored something new for a frozen client: as rejected.
    Frozen,
    /// A get or take: every byte asked for.
    Filled,
    /// A get or take: the granules in the map were filled, the memory of the others was not touched.
    PartlyFilled(Map),
    /// A get or take: nothing was there, and the memory was not touched.
    Missing,
    /// A flush: it is done.
    Flushed {
        /// Granules that were there.
        granules: u64,
    },
    /// A get or take met bytes that are not those that were put. Never to be taken for missing.
    Corrupt {
        /// Offset in the object of the first granule that is damaged.
        offset: u64,
    },
    /// A tier below memory failed to deliver what it holds.
    TierFailed {
        /// Offset in the object of the first granule that could not be had.
        offset: u64,
    },
    /// It was cancelled before it was started. The range of a put is missing; nothing else has changed.
    Cancelled,
    /// It makes no sense, or the client may not do it. Nothing was changed.
    Refused(Refusal),
}

/// Why a put was rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// Nothing more can be freed within the store's budget.
    Budget = 1,
    /// The client is at its cap.
    Cap = 2,
}

/// What is wrong with an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The range is empty.
    #[error("the range is empty: put or get at least one byte")]
    EmptyRange = 1,
    /// The range does not start on a granule.
    #[error("the offset is not a multiple of 4096: only gets may start anywhere")]
    Misaligned = 2,
    /// The range goes beyond the end of an object.
    #[error("the range goes beyond the 2^64 bytes of an object")]
    BeyondEnd = 3,
    /// There is no such pool, it was destroyed, or this client has not joined it.
    #[error("no such pool for this client: it was destroyed, or never created or joined")]
    UnknownPool = 4,
    /// The client was destroyed.
    #[error("the client was destroyed")]
    ClientDestroyed = 5,
    /// No operation has this opcode, or a flag is set that means nothing.
    #[error("no operation has this opcode, or a flag is set that means nothing")]
    UnknownOperation = 16,
    /// No region has this number.
    #[error("no region is registered under this number")]
    UnknownRegion = 17,
    /// The memory goes beyond the end of its region.
    #[error("the memory goes beyond the end of its region")]
    BeyondRegion = 18,
    /// The list of slices is empty, too long, holds an empty slice, or its sum is not the length of the operation.
    #[error(
        "the list of slices is empty, too long, holds an empty slice, or does not add up to the operation's length"
    )]
    Slices = 19,
    /// The region's memory cannot be read any more: it was cut off, or the system has no more for it.
    #[error("the region's memory is gone: it was cut off, or the system has no more for it")]
    RegionLost = 20,
    /// Something that this version does not know.
    #[error("refused, for a reason that this version does not know")]
    Other = 255,
}

impl Refusal {
    #[cfg_attr(not(test), expect(dead_code, reason = "a test sees that none is missing"))]
    pub(crate) const ALL: [Self; 10] = [
        Self::EmptyRange,
        Self::Misaligned,
        Self::BeyondEnd,
        Self::UnknownPool,
        Self::ClientDestroyed,
        Self::UnknownOperation,
        Self::UnknownRegion,
        Self::BeyondRegion,
        Self::Slices,
        Self::RegionLost,
    ];

    fn from_number(number: u32) -> Self {
        match number {
            1 => Self::EmptyRange,
            2 => Self::Misaligned,
            3 => Self::BeyondEnd,
            4 => Self::UnknownPool,
            5 => Self::ClientDestroyed,
            16 => Self::UnknownOperation,
            17 => Self::UnknownRegion,
            18 => Self::BeyondRegion,
            19 => Self::Slices,
            20 => Self::RegionLost,
            _ => Self::Other,
        }
    }
}

/// Which granules of a get were filled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Map {
    pub(crate) words: Vec<u64>,
    /// Granules that the range touches.
    pub(crate) granules: u64,
    /// Granules that a bit stands for. It is set if all of them were filled.
    pub(crate) granules_a_bit: u64,
    /// Granules that were filled.
    pub(crate) filled: u64,
}

impl Map {
    /// Whether the granule at `index`, counted from the one that holds the range's first byte, was filled. In a range of
    /// more than 32 MiB a bit stands for [`Self::granules_a_bit`] granules, and says no if any of them was not.
    #[must_use]
    pub fn is_filled(&self, index: u64) -> bool {
        let bit = index / self.granules_a_bit;
        let word = usize::try_from(bit / 64).ok().and_then(|at| self.words.get(at));
        index < self.granules && word.is_some_and(|word| word & (1 << (bit % 64)) != 0)
    }

    /// Granules that the range touches.
    #[must_use]
    pub fn granules(&self) -> u64 {
        self.granules
    }

    /// Granules that are told of together: 1 in ranges of up to 32 MiB.
    #[must_use]
    pub fn granules_a_bit(&self) -> u64 {
        self.granules_a_bit
    }

    /// The bits, from the lowest one of the first word on.
    #[must_use]
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// Granules that were filled, each counted.
    #[must_use]
    pub fn filled(&self) -> u64 {
        self.filled
    }
}

/// Granules that a bit of a map stands for, for a range of so many.
pub(crate) fn granules_a_bit(granules: u64) -> u64 {
    granules.div_ceil(MAP_BITS).next_power_of_two()
}

/// Granules that a range touches.
pub(crate) fn granules_of(offset: u64, len: u64) -> u64 {
    (offset % GRANULE_BYTES).saturating_add(len).div_ceil(GRANULE_BYTES)
}

/// The flag that `memory` is the number of an annex.
pub(crate) const LISTED: u64 = 1 << 8;

/// What an operation is, as a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opcode {
    Put = 1,
    Get = 2,
    Take = 3,
    Flush = 4,
    FlushObject = 5,
}

impl Opcode {
    /// Whether it has memory to read or to fill.
    pub(crate) fn has_memory(self) -> bool {
        matches!(self, Self::Put | Self::Get | Self::Take)
    }
}

/// Where the memory of a submission is said to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// From this byte of the region on.
    At(u64),
    /// In the slices that this annex lists. It will hold the map, too.
    Listed(u64),
}

/// A submission, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Submission {
    pub(crate) opcode: Opcode,
    pub(crate) region: u16,
    pub(crate) pool: PoolId,
    pub(crate) tag: u64,
    pub(crate) object: ObjectId,
    pub(crate) offset: u64,
    pub(crate) len: u64,
    pub(crate) place: Place,
}

impl Submission {
    pub(crate) fn to_words(self) -> RawSubmission {
        let (flag, memory) = match self.place {
            Place::At(byte) => (0, byte),
            Place::Listed(annex) => (LISTED, annex),
        };
        let first = self.opcode as u64 | flag | u64::from(self.region) << 16 | u64::from(self.pool.0) << 32;
        let [a, b, c] = self.object.0;
        [first, self.tag, a, b, c, self.offset, self.len, memory]
    }

    /// Of what a client wrote. The bits of cancelling are left out.
    #[expect(clippy::cast_possible_truncation, reason = "each part is cut out of its word")]
    #[cfg_attr(not(feature = "server"), allow(dead_code, reason = "the server's"))]
    pub(crate) fn from_words(words: &RawSubmission) -> Result<Self, Refusal> {
        let [first, tag, a, b, c, offset, len, memory] = *words;
        let opcode = match first & 0xff {
            1 => Opcode::Put,
            2 => Opcode::Get,
            3 => Opcode::Take,
            4 => Opcode::Flush,
            5 => Opcode::FlushObject,
            _ => return Err(Refusal::UnknownOperation),
        };
        let flags = first & 0x3f00;
        if flags & !LISTED != 0 {
            return Err(Refusal::UnknownOperation);
        }
        let place = if flags & LISTED == 0 { Place::At(memory) } else { Place::Listed(memory) };
        let (region, pool) = ((first >> 16) as u16, PoolId((first >> 32) as u32));
        Ok(Self { opcode, region, pool, tag, object: ObjectId([a, b, c]), offset, len, place })
    }
}

/// The operation's tag, wherever it is right or wrong.
#[cfg_attr(not(feature = "server"), allow(dead_code, reason = "the server's"))]
pub(crate) fn tag_of(words: &RawSubmission) -> u64 {
    words[1]
}

/// The numbers of results.
pub(crate) mod result {
    pub(crate) const STORED: u64 = 1;
    pub(crate) const REJECTED: u64 = 2;
    pub(crate) const FROZEN: u64 = 3;
    pub(crate) const FILLED: u64 = 4;
    pub(crate) const PARTLY_FILLED: u64 = 5;
    pub(crate) const MISSING: u64 = 6;
    pub(crate) const FLUSHED: u64 = 7;
    pub(crate) const CORRUPT: u64 = 8;
    pub(crate) const TIER_FAILED: u64 = 9;
    pub(crate) const CANCELLED: u64 = 10;
    pub(crate) const REFUSED: u64 = 11;
}

/// The words of a completion. A map of up to 64 granules is in the last one; a longer one is in the operation's annex.
#[cfg_attr(not(feature = "server"), allow(dead_code, reason = "the server's"))]
pub(crate) fn completion_words(tag: u64, outcome: &Outcome) -> RawCompletion {
    let (result, detail, value, map) = match outcome {
        Outcome::Stored => (result::STORED, 0, 0, 0),
        Outcome::Rejected(why) => (result::REJECTED, *why as u64, 0, 0),
        Outcome::Frozen => (result::FROZEN, 0, 0, 0),
        Outcome::Filled => (result::FILLED, 0, 0, 0),
        Outcome::PartlyFilled(map) => {
            let word = if map.granules <= 64 { map.words[0] } else { 0 };
            (result::PARTLY_FILLED, 0, map.filled, word)
        }
        Outcome::Missing => (result::MISSING, 0, 0, 0),
        Outcome::Flushed { granules } => (result::FLUSHED, 0, *granules, 0),
        Outcome::Corrupt { offset } => (result::CORRUPT, 0, *offset, 0),
        Outcome::TierFailed { offset } => (result::TIER_FAILED, 0, *offset, 0),
        Outcome::Cancelled => (result::CANCELLED, 0, 0, 0),
        Outcome::Refused(why) => (result::REFUSED, *why as u64, 0, 0),
    };
    [tag, result | detail << 32, value, map]
}

/// What a completion says of an operation on so many granules. None: nothing that this version knows. `annex` reads a
/// word of the operation's annex.
pub(crate) fn outcome_of(words: &RawCompletion, granules: u64, annex: impl Fn(usize) -> u64) -> Option<Outcome> {
    let [_, first, value, map] = *words;
    let detail = (first >> 32) as u32;
    Some(match first & 0xffff_ffff {
        result::STORED => Outcome::Stored,
        result::REJECTED if detail == Rejection::Cap as u32 => Outcome::Rejected(Rejection::Cap),
        result::REJECTED => Outcome::Rejected(Rejection::Budget),
        result::FROZEN => Outcome::Frozen,
        result::FILLED => Outcome::Filled,
        result::PARTLY_FILLED => {
            let granules_a_bit = granules_a_bit(granules);
            let words = match granules {
                0..=64 => vec![map],
                _ => (0..words_of_map(granules)).map(annex).collect(),
            };
            Outcome::PartlyFilled(Map { words, granules, granules_a_bit, filled: value })
        }
        result::MISSING => Outcome::Missing,
        result::FLUSHED => Outcome::Flushed { granules: value },
        result::CORRUPT => Outcome::Corrupt { offset: value },
        result::TIER_FAILED => Outcome::TierFailed { offset: value },
        result::CANCELLED => Outcome::Cancelled,
        result::REFUSED => Outcome::Refused(Refusal::from_number(detail)),
        _ => return None,
    })
}

/// Words of the map of a range of so many granules, at most an annex.
#[expect(clippy::cast_possible_truncation, reason = "at most ANNEX_WORDS")]
pub(crate) fn words_of_map(granules: u64) -> usize {
    granules.div_ceil(granules_a_bit(granules)).div_ceil(64) as usize
}

impl Action<'_> {
    /// Opcode, offset, length, and memory if it has any; or what is wrong with it.
    pub(crate) fn parts(&self) -> Result<(Opcode, u64, u64, Option<Memory<'_>>), Refusal> {
        let (opcode, offset, memory) = match *self {
            Self::Put { offset, from } => (Opcode::Put, offset, from),
            Self::Get { offset, into } => (Opcode::Get, offset, into),
            Self::Take { offset, into } => (Opcode::Take, offset, into),
            Self::Flush { offset, len } => return Ok((Opcode::Flush, offset, len, None)),
            Self::FlushObject => return Ok((Opcode::FlushObject, 0, 0, None)),
        };
        if memory.slices.is_empty() || memory.slices.len() > MOST_SLICES {
            return Err(Refusal::Slices);
        }
        let sum = memory.slices.iter().try_fold(0_u64, |sum, slice| sum.checked_add(slice.len));
        Ok((opcode, offset, sum.ok_or(Refusal::Slices)?, Some(memory)))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_comes_through_the_words() {
        let map = |granules: u64, words: Vec<u64>, filled| {
            Outcome::PartlyFilled(Map { words, granules, granules_a_bit: granules_a_bit(granules), filled })
        };
        let refused = Refusal::ALL.map(Outcome::Refused);
        let others = [
            Outcome::Stored,
            Outcome::Rejected(Rejection::Budget),
            Outcome::Rejected(Rejection::Cap),
            Outcome::Frozen,
            Outcome::Filled,
            map(3, vec![0b101], 2),
            map(130, vec![7, u64::MAX, 1], 68),
            Outcome::Missing,
            Outcome::Flushed { granules: 1 << 40 },
            Outcome::Corrupt { offset: u64::MAX - 4095 },
            Outcome::TierFailed { offset: 4096 },
            Outcome::Cancelled,
        ];
        for outcome in others.iter().chain(&refused) {
            let words = completion_words(9, outcome);
            let (granules, annex) = match outcome {
                Outcome::PartlyFilled(map) => (map.granules, map.words.clone()),
                _ => (1, vec![]),
            };
            assert_eq!(outcome_of(&words, granules, |at| annex[at]).as_ref(), Some(outcome));
        }
        assert_eq!(outcome_of(&[9, 0, 0, 0], 1, |_| 0), None);
        assert_eq!(outcome_of(&[9, 12, 0, 0], 1, |_| 0), None);
    }

    #[test]
    fn a_map_of_a_long_range_tells_of_several_granules_a_bit() {
        assert_eq!((granules_a_bit(1), granules_a_bit(MAP_BITS), granules_a_bit(MAP_BITS + 1)), (1, 1, 2));
        let gigabyte = 1 << 18;
        assert_eq!((granules_a_bit(gigabyte), words_of_map(gigabyte)), (32, 128));
        let map = Map { words: vec![0b10], granules: 100, granules_a_bit: 32, filled: 40 };
        assert_eq!(
            [0, 31, 32, 63, 64, 99, 100].map(|at| map.is_filled(at)),
            [false, false, true, true, false, false, false]
        );
    }

    #[test]
    fn submissions_come_through_the_words_and_nonsense_is_refused() {
        let submission = Submission {
            opcode: Opcode::Take,
            region: 0xfffe,
            pool: PoolId(u32::MAX),
            tag: u64::MAX,
            object: ObjectId([1, 2, 3]),
            offset: 4096,
            len: 8192,
            place: Place::Listed(7),
        };
        assert_eq!(Submission::from_words(&submission.to_words()), Ok(submission));
        let mut words = submission.to_words();
        words[0] |= crate::layout::CANCELLED | crate::layout::TAKEN;
        assert_eq!(Submission::from_words(&words), Ok(submission));
        for first in [0, 6, 0xff, 1 | 1 << 9, 1 | 1 << 13] {
            words[0] = first;
            assert_eq!(Submission::from_words(&words), Err(Refusal::UnknownOperation), "{first:#x}");
        }
    }
}
