//! What becomes of an operation. No two kinds of result can be taken for each other.

use crate::units::GRANULE_BYTES;

/// The result of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a put may have been rejected and a get may have found nothing"]
pub enum Outcome {
    /// A put: the store has it.
    Stored,
    /// A put: the store does not have it, and the range is missing. The caller still holds the only copy.
    Rejected(Rejection),
    /// A put that would have stored something new for a frozen client: as [`Outcome::Rejected`].
    Frozen,
    /// A get or take: every byte asked for.
    Filled,
    /// A get or take: the granules in the map were filled, the memory of the others was not touched.
    PartlyFilled(GranuleMap),
    /// A get or take: nothing was there, and the memory was not touched.
    Missing,
    /// A flush: it is done.
    Flushed {
        /// Granules that were there.
        granules: u64,
    },
    /// A get or take met bytes that are not those that were put. What was intact was filled, what was damaged is
    /// zeroed. Never to be taken for [`Outcome::Missing`]: the data was accepted, and is lost.
    Corrupt {
        /// Offset in the object of the first granule that is damaged.
        offset: u64,
    },
    /// A tier below memory failed to deliver what it holds. Memory is the only tier so far, and does not fail this
    /// way.
    TierFailed {
        /// Offset in the object of the first granule that could not be had.
        offset: u64,
    },
    /// The operation makes no sense, or the caller may not do it. Nothing was changed.
    Refused(Refusal),
}

/// Why a put was rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// Nothing more can be freed within the store's budget.
    Budget,
    /// The client is at its cap.
    Cap,
}

/// What is wrong with an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The range is empty.
    #[error("the range is empty: put or get at least one byte")]
    EmptyRange,
    /// The range does not start on a granule.
    #[error("offset {offset} is not a multiple of 4096: only gets may start anywhere")]
    Misaligned {
        /// The offset.
        offset: u64,
    },
    /// The range goes beyond the end of an object.
    #[error("{len} bytes at offset {offset} go beyond the 2^64 bytes of an object")]
    BeyondEnd {
        /// The offset.
        offset: u64,
        /// Bytes asked for.
        len: u64,
    },
    /// There is no such pool, it was destroyed, or this client has not joined it.
    #[error("no pool {0:?} for this client: it was destroyed, or never created or joined")]
    UnknownPool(crate::PoolId),
    /// The client was destroyed.
    #[error("the client was destroyed")]
    ClientDestroyed,
    /// More room than a loan gives, or blocks that take more than the room that was given.
    #[error("{bytes} bytes of blocks with their headers: the room for them is {room} bytes")]
    BeyondRoom {
        /// Bytes asked for, or taken by the blocks up to the first that is too much.
        bytes: usize,
        /// Bytes that there are.
        room: usize,
    },
    /// A lent block in a codec that the engine does not know.
    #[error("no codec has the number {0}")]
    UnknownCodec(u8),
    /// A lent block that is empty, or longer than what it was made from.
    #[error("a block of {0} bytes: a granule takes 1 to 4096")]
    BlockSize(u32),
}

/// Which granules of a get were filled: a bit for each granule that the range touches, in order.
#[derive(Clone, PartialEq, Eq)]
pub struct GranuleMap {
    words: Vec<u64>,
    len: usize,
}

impl GranuleMap {
    /// None of `len` granules.
    pub(crate) fn empty(len: usize) -> Self {
        Self { words: vec![0; len.div_ceil(64)], len }
    }

    pub(crate) fn set(&mut self, range: core::ops::Range<usize>) {
        assert!(range.end <= self.len);
        for at in range {
            self.words[at / 64] |= 1 << (at % 64);
        }
    }

    /// Whether the granule at `index`, counted from the one that holds the range's first byte, was filled.
    #[must_use]
    pub fn is_filled(&self, index: usize) -> bool {
        index < self.len && self.words[index / 64] & (1 << (index % 64)) != 0
    }

    /// Granules that the range touches.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a range touches at least one granule")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Granules that were filled.
    #[must_use]
    pub fn filled(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }
}

impl core::fmt::Debug for GranuleMap {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} of {} granules", self.filled(), self.len)
    }
}

/// A range of bytes of an object that lies within 2^64 and is not empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ByteRange {
    pub(crate) offset: u64,
    /// At least 1; `offset + len - 1` does not overflow.
    pub(crate) len: u64,
}

impl ByteRange {
    /// Any range of bytes, for gets.
    pub(crate) fn any(offset: u64, len: u64) -> Result<Self, Refusal> {
        if len == 0 {
            return Err(Refusal::EmptyRange);
        }
        offset.checked_add(len - 1).map(|_| Self { offset, len }).ok_or(Refusal::BeyondEnd { offset, len })
    }

    /// A range that starts on a granule, for everything that changes what is stored. Its last granule may be ragged.
    pub(crate) fn of_granules(offset: u64, len: u64) -> Result<Self, Refusal> {
        if !offset.is_multiple_of(GRANULE_BYTES as u64) {
            return Err(Refusal::Misaligned { offset });
        }
        Self::any(offset, len)
    }

    /// The first granule that it touches.
    pub(crate) fn first(self) -> crate::units::Granule {
        crate::units::Granule::holding(self.offset)
    }

    /// The last granule that it touches.
    pub(crate) fn last(self) -> crate::units::Granule {
        crate::units::Granule::holding(self.offset + (self.len - 1))
    }

    /// How many granules it touches.
    pub(crate) fn granules(self) -> u64 {
        self.last().0 - self.first().0 + 1
    }

    /// What is left after its first `bytes`, if anything is.
    pub(crate) fn after(self, bytes: u64) -> Option<Self> {
        (bytes < self.len).then(|| Self { offset: self.offset + bytes, len: self.len - bytes })
    }
}
