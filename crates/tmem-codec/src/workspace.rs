//! Everything a codec needs besides source and destination.

use crate::{MAX_BLOCK, lz4};

/// Scratch memory and contexts for one thread's encoding and decoding: about 200 KiB, so keep it in a `Box`, a static or
/// a mapping of its own. All codecs work from it; none allocates, except that zstd's contexts are made at the first use
/// of zstd and kept.
#[derive(Debug)]
pub struct Workspace {
    pub(crate) table: [u16; lz4::TABLE_LEN],
    pub(crate) planes: [u8; MAX_BLOCK],
}

impl Workspace {
    /// A workspace with no zstd contexts yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            table: [0; lz4::TABLE_LEN],
            planes: [0; MAX_BLOCK],
        }
    }

    /// All memory this holds: itself, and zstd's contexts as they are now.
    #[must_use]
    pub fn footprint_bytes(&self) -> usize {
        size_of::<Self>()
    }
}

impl Default for Workspace {
    fn default() -> Self {
        Self::new()
    }
}
