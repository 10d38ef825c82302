//! The units that sizes and places are counted in.

/// Bytes of a granule, the smallest thing that has contents of its own.
pub const GRANULE_BYTES: usize = tmem_codec::GRANULE;

/// Bytes of a segment, the unit of allocation and of cleaning: one huge page.
pub const SEGMENT_BYTES: usize = 2 << 20;

/// Bytes of a unit: blocks start at multiples of it within their segment.
pub const UNIT_BYTES: usize = 4;

/// Units in a segment.
pub(crate) const SEGMENT_UNITS: u32 = 524_288;

/// Units in a page of the system.
pub(crate) const PAGE_UNITS: u32 = units_for(tmem_sys::PAGE_BYTES);

/// Granules in the largest block.
pub(crate) const BLOCK_GRANULES: usize = tmem_codec::MAX_BLOCK / GRANULE_BYTES;

const _: () = assert!(SEGMENT_UNITS as usize * UNIT_BYTES == SEGMENT_BYTES);

/// The same, for counts of 32 bits.
pub(crate) const BLOCK_GRANULES_U32: u32 = 16;
const _: () = assert!(BLOCK_GRANULES_U32 as usize == BLOCK_GRANULES);

/// A granule of an object: its byte offset over 4096, so below 2^52.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Granule(pub(crate) u64);

impl Granule {
    /// The granule that holds byte `offset`.
    pub(crate) const fn holding(offset: u64) -> Self {
        Self(offset / GRANULE_BYTES as u64)
    }

    /// Its first byte.
    pub(crate) const fn offset(self) -> u64 {
        self.0 * GRANULE_BYTES as u64
    }
}

/// A row of the segment table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SegmentId(pub(crate) u32);

/// Units that `bytes` take, the last one counted whole.
pub(crate) const fn units_for(bytes: usize) -> u32 {
    let units = bytes.div_ceil(UNIT_BYTES);
    assert!(units <= SEGMENT_UNITS as usize);
    #[expect(clippy::cast_possible_truncation, reason = "asserted on the line above")]
    {
        units as u32
    }
}

/// Bytes in `units`.
pub(crate) const fn unit_bytes(units: u32) -> usize {
    units as usize * UNIT_BYTES
}
