//! Everything a codec needs besides source and destination.

#[cfg(feature = "zstd")]
extern crate alloc;
#[cfg(feature = "zstd")]
use alloc::boxed::Box;
use core::fmt;

#[cfg(feature = "zstd")]
use crate::zstd;
use crate::{MAX_BLOCK, huffman, lz4, word_lz};

/// Scratch memory and contexts for one thread's encoding and decoding: about 230 KiB, so keep it in a `Box`, a static
/// or a mapping of its own, of which blocks of 4 KiB touch a fifth. All codecs work from it and none allocates, except that
/// zstd's contexts (about 750 KiB for 64 KiB blocks) are made at the first use of zstd and kept.
pub struct Workspace {
    /// Positions by hash, cleared for every block by the LZ that uses it.
    pub(crate) table: [u16; lz4::TABLE_LEN],
    /// A block between its transform and its LZ.
    pub(crate) planes: [u8; MAX_BLOCK],
    /// What the word LZ wrote, before or after its Huffman codes.
    pub(crate) plain: [u8; MAX_BLOCK],
    pub(crate) streams: word_lz::Streams,
    pub(crate) lane: huffman::Lane,
    #[cfg(feature = "zstd")]
    pub(crate) zstd: zstd::Contexts,
}

impl Workspace {
    /// A workspace with no zstd contexts yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            table: [0; lz4::TABLE_LEN],
            planes: [0; MAX_BLOCK],
            plain: [0; MAX_BLOCK],
            streams: word_lz::Streams::new(),
            lane: [0; huffman::LANE_MAX],
            #[cfg(feature = "zstd")]
            zstd: zstd::Contexts::new(),
        }
    }

    /// A workspace on the heap that was never on a stack, and whose memory nobody has touched yet.
    #[cfg(feature = "zstd")]
    #[must_use]
    pub fn boxed() -> Box<Self> {
        let mut place = Box::<Self>::new_zeroed();
        // SAFETY: it is fresh, aligned, and zeroed.
        unsafe { Self::init_zeroed(place.as_mut_ptr()) };
        // SAFETY: just made.
        unsafe { place.assume_init() }
    }

    /// Makes a workspace where there are only zeros, without one on the stack.
    ///
    /// # Safety
    /// `place` is aligned, may be written, and its bytes are zero.
    pub unsafe fn init_zeroed(place: *mut Self) {
        // The rest are numbers, of which all are to be zero.
        #[cfg(feature = "zstd")]
        // SAFETY: the field is inside what may be written.
        let contexts = unsafe { &raw mut (*place).zstd };
        #[cfg(feature = "zstd")]
        // SAFETY: as above.
        unsafe {
            contexts.write(zstd::Contexts::new());
        };
        #[cfg(not(feature = "zstd"))]
        let _ = place;
    }

    /// All memory this holds, in bytes: itself, and zstd's contexts as they are now.
    #[must_use]
    pub fn footprint_bytes(&self) -> usize {
        size_of::<Self>() + self.heap_bytes()
    }

    #[cfg(feature = "zstd")]
    fn heap_bytes(&self) -> usize {
        self.zstd.heap_bytes()
    }

    #[cfg(not(feature = "zstd"))]
    #[expect(clippy::unused_self, reason = "the sibling with zstd needs it")]
    fn heap_bytes(&self) -> usize {
        0
    }
}

impl Default for Workspace {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Workspace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workspace").field("footprint_bytes", &self.footprint_bytes()).finish_non_exhaustive()
    }
}
