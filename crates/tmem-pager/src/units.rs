//! Pages, and the chunks of 512 of them that a huge page would cover.

use core::ops::Range;
use tmem_agent::protocol::{BLOCK_HEADER_BYTES, BLOCK_UNIT_BYTES, PAGE_BYTES};

/// Bytes of a page, for slices.
pub(crate) const PAGE: usize = 4096;
const _: () = assert!(PAGE as u64 == PAGE_BYTES);

// What the agent leaves room for is what the engine writes.
const _: () = assert!(BLOCK_HEADER_BYTES == tmem::HEADER_BYTES as u64 && BLOCK_UNIT_BYTES == tmem::UNIT_BYTES as u64);

/// Pages of a chunk.
pub(crate) const CHUNK_PAGES: usize = 512;

/// A page of an address space, by its number: address / 4096.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Page(pub(crate) u64);

impl Page {
    /// The page that holds an address.
    pub(crate) const fn of(address: u64) -> Self {
        Self(address / PAGE_BYTES)
    }

    /// Its first address.
    pub(crate) const fn address(self) -> u64 {
        self.0 * PAGE_BYTES
    }

    /// The one after it.
    pub(crate) const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The one so far from it.
    pub(crate) const fn step(self, pages: i64) -> Self {
        Self(self.0.wrapping_add_signed(pages))
    }

    /// `count` pages from this one on, as addresses.
    pub(crate) const fn bytes(self, count: u64) -> Range<u64> {
        self.address()..self.address() + count * PAGE_BYTES
    }

    /// Number of its chunk.
    pub(crate) const fn chunk(self) -> u64 {
        self.0 / CHUNK_PAGES as u64
    }

    /// Which page of its chunk it is.
    #[expect(clippy::cast_possible_truncation, reason = "less than CHUNK_PAGES")]
    pub(crate) const fn index(self) -> usize {
        (self.0 % CHUNK_PAGES as u64) as usize
    }

    /// A page of a chunk.
    pub(crate) const fn in_chunk(chunk: u64, index: usize) -> Self {
        Self(chunk * CHUNK_PAGES as u64 + index as u64)
    }
}

/// Whether two ranges of addresses have anything in common.
pub(crate) const fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

/// The pages that a range of addresses touches.
pub(crate) fn pages_of(range: &Range<u64>) -> Range<Page> {
    Page(range.start / PAGE_BYTES)..Page(range.end.div_ceil(PAGE_BYTES))
}
