//! What became of operations.

use crate::error::guarded;
use crate::pointer::{borrow, borrow_many};
use tmem_ring::{Completion, Map, Outcome};

/// A put: the store has it.
pub const TMEM_STORED: u32 = 1;
/// A put: the store does not have it, and the range is missing. `detail` says why: TMEM_REJECTED_*.
pub const TMEM_REJECTED: u32 = 2;
/// A put of a frozen client: as rejected.
pub const TMEM_FROZEN: u32 = 3;
/// A get or take: every byte that was asked for.
pub const TMEM_FILLED: u32 = 4;
/// A get or take: `value` granules were filled, those in the map; the memory of the others was not touched.
pub const TMEM_PARTLY_FILLED: u32 = 5;
/// A get or take: nothing was there, and the memory was not touched.
pub const TMEM_MISSING: u32 = 6;
/// A flush: `value` granules were there.
pub const TMEM_FLUSHED: u32 = 7;
/// A get or take met bytes that are not those that were put, at offset `value` of the object. Never to be taken for
/// missing.
pub const TMEM_CORRUPT: u32 = 8;
/// A tier below memory failed to deliver what is at offset `value` of the object.
pub const TMEM_TIER_FAILED: u32 = 9;
/// It was cancelled before it was started. The range of a put is missing; nothing else has changed.
pub const TMEM_CANCELLED: u32 = 10;
/// It makes no sense, or the client may not do it; nothing was changed. `detail` says why: TMEM_REFUSED_*.
pub const TMEM_REFUSED: u32 = 11;

/// Nothing more can be freed within the store's budget.
pub const TMEM_REJECTED_BUDGET: u32 = 1;
/// The client is at its cap.
pub const TMEM_REJECTED_CAP: u32 = 2;

/// The range is empty.
pub const TMEM_REFUSED_EMPTY_RANGE: u32 = 1;
/// The offset is no multiple of 4096.
pub const TMEM_REFUSED_MISALIGNED: u32 = 2;
/// The range goes beyond the end of an object.
pub const TMEM_REFUSED_BEYOND_END: u32 = 3;
/// There is no such pool for this client.
pub const TMEM_REFUSED_UNKNOWN_POOL: u32 = 4;
/// The client was destroyed.
pub const TMEM_REFUSED_CLIENT_DESTROYED: u32 = 5;
/// No operation has this opcode.
pub const TMEM_REFUSED_UNKNOWN_OPERATION: u32 = 16;
/// The region was unregistered.
pub const TMEM_REFUSED_UNKNOWN_REGION: u32 = 17;
/// The slices go beyond the end of the region.
pub const TMEM_REFUSED_BEYOND_REGION: u32 = 18;
/// A slice is empty, or slices to be filled overlap.
pub const TMEM_REFUSED_SLICES: u32 = 19;
/// The region's memory is gone.
pub const TMEM_REFUSED_REGION_LOST: u32 = 20;
/// Something that this version does not know.
pub const TMEM_REFUSED_OTHER: u32 = 255;

/// The end of an operation.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct tmem_completion {
    /// The operation's.
    pub tag: u64,
    /// TMEM_STORED and so on.
    pub result: u32,
    /// Why, where there is a why.
    pub detail: u32,
    /// What it means depends on the result; 0 otherwise.
    pub value: u64,
    /// Of TMEM_PARTLY_FILLED: granules that the range touches; 0 otherwise.
    pub granules: u64,
    /// Granules that a bit of the map stands for, which is set if all of them were filled: 1 in ranges of up to 32
    /// MiB.
    pub granules_a_bit: u64,
    /// Of TMEM_PARTLY_FILLED: which of them were filled, from the one that holds the range's first byte, in bits from
    /// the lowest one of the first word on. There until the next tmem_reap() of the queue, and until it is closed.
    /// NULL otherwise.
    pub map: *const u64,
    /// Words of the map.
    pub map_words: usize,
}

impl tmem_completion {
    /// `map` of one that is partly filled has to be where it stays.
    pub(crate) fn of(completion: &Completion, map: Option<&Map>) -> Self {
        let (result, detail, value) = match &completion.outcome {
            Outcome::Stored => (TMEM_STORED, 0, 0),
            Outcome::Rejected(why) => (TMEM_REJECTED, *why as u32, 0),
            Outcome::Frozen => (TMEM_FROZEN, 0, 0),
            Outcome::Filled => (TMEM_FILLED, 0, 0),
            Outcome::PartlyFilled(map) => (TMEM_PARTLY_FILLED, 0, map.filled()),
            Outcome::Missing => (TMEM_MISSING, 0, 0),
            Outcome::Flushed { granules } => (TMEM_FLUSHED, 0, *granules),
            Outcome::Corrupt { offset } => (TMEM_CORRUPT, 0, *offset),
            Outcome::TierFailed { offset } => (TMEM_TIER_FAILED, 0, *offset),
            Outcome::Cancelled => (TMEM_CANCELLED, 0, 0),
            Outcome::Refused(why) => (TMEM_REFUSED, *why as u32, 0),
        };
        Self {
            tag: completion.tag,
            result,
            detail,
            value,
            granules: map.map_or(0, Map::granules),
            granules_a_bit: map.map_or(1, Map::granules_a_bit),
            map: map.map_or(core::ptr::null(), |map| map.words().as_ptr()),
            map_words: map.map_or(0, |map| map.words().len()),
        }
    }
}

/// Whether a get or take has filled the granule at `index`, counted from the one that holds the range's first byte:
/// 1, or 0. In a range of more than 32 MiB, 0 also for granules of whose bit others were not filled.
///
/// # Safety
/// `completion` is NULL, or from tmem_reap(), and its map is still there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tmem_is_filled(completion: *const tmem_completion, index: u64) -> i32 {
    guarded(|| {
        // SAFETY: this function's contract.
        let completion = unsafe { borrow(completion, "completion") }?;
        if completion.result != TMEM_PARTLY_FILLED {
            return Ok(i32::from(completion.result == TMEM_FILLED));
        }
        // SAFETY: the same.
        let words = unsafe { borrow_many(completion.map, completion.map_words, "map") }?;
        let bit = index / completion.granules_a_bit.max(1);
        let word = usize::try_from(bit / 64).ok().and_then(|at| words.get(at));
        let is_filled = index < completion.granules && word.is_some_and(|word| word & (1 << (bit % 64)) != 0);
        Ok(i32::from(is_filled))
    })
}
