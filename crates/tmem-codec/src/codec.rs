//! The modes a block can be stored in, and one door in and out for all of them.

use core::fmt;

use crate::planes::{self, Transform};
use crate::word_lz::Search;
use crate::workspace::Workspace;
use crate::{MAX_BLOCK, filled, huffman, lz4, raw, word_lz};

/// How a block is encoded. The number is stored with the block and never changes its meaning: its upper half says what
/// is done to the words first, its lower half what then compresses them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Codec {
    /// The bytes themselves.
    Raw = 0,
    /// One 8-byte little-endian word, repeated.
    Filled = 1,
    /// LZ4's block format.
    Lz4 = 2,
    /// An LZ made for memory words.
    WordLz = 3,
    /// A zstd frame; level 1 where one mode alone is asked for.
    Zstd = 4,
    /// The word LZ, its streams in static Huffman codes.
    WordHuff = 5,
    /// Byte planes of 8-byte words, then LZ4.
    PlanesLz4 = 0x12,
    /// Byte planes of 8-byte words, then zstd.
    PlanesZstd = 0x14,
    /// Byte planes of 8-byte words, then the word LZ in static Huffman codes.
    PlanesHuff = 0x15,
    /// Differences of 8-byte words in byte planes, then LZ4.
    DeltaLz4 = 0x22,
    /// Differences of 8-byte words in byte planes, then zstd.
    DeltaZstd = 0x24,
    /// Differences of 8-byte words in byte planes, then the word LZ in static Huffman codes.
    DeltaHuff = 0x25,
}

/// What a block goes through after its transform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Raw,
    Filled,
    Lz4,
    WordLz,
    Zstd,
    Huff,
}

impl Codec {
    /// Those that have no entropy stage.
    pub(crate) const WITHOUT_CODES: &[Self] = Self::KNOWN.split_at(6).0;

    /// Those and the ones with Huffman codes.
    pub(crate) const WITHOUT_ZSTD: &[Self] = Self::KNOWN.split_at(9).0;

    const KNOWN: [Self; 12] = [
        Self::Raw,
        Self::Filled,
        Self::Lz4,
        Self::WordLz,
        Self::PlanesLz4,
        Self::DeltaLz4,
        Self::WordHuff,
        Self::PlanesHuff,
        Self::DeltaHuff,
        Self::Zstd,
        Self::PlanesZstd,
        Self::DeltaZstd,
    ];

    /// Every codec that this build encodes and decodes: those with zstd only with the feature `zstd`.
    pub const ALL: &[Self] = if cfg!(feature = "zstd") { &Self::KNOWN } else { Self::WITHOUT_ZSTD };

    /// A short name for tables and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Filled => "filled",
            Self::Lz4 => "lz4",
            Self::WordLz => "word-lz",
            Self::Zstd => "zstd",
            Self::WordHuff => "word-huff",
            Self::PlanesHuff => "planes-huff",
            Self::DeltaHuff => "delta-huff",
            Self::PlanesLz4 => "planes-lz4",
            Self::PlanesZstd => "planes-zstd",
            Self::DeltaLz4 => "delta-lz4",
            Self::DeltaZstd => "delta-zstd",
        }
    }

    pub(crate) const fn transform(self) -> Transform {
        match self as u8 >> 4 {
            1 => Transform::Planes,
            2 => Transform::Delta,
            _ => Transform::None,
        }
    }

    const fn stage(self) -> Stage {
        match self as u8 & 15 {
            1 => Stage::Filled,
            2 => Stage::Lz4,
            3 => Stage::WordLz,
            4 => Stage::Zstd,
            5 => Stage::Huff,
            _ => Stage::Raw,
        }
    }
}

/// The number names no codec of this build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownCodec(pub u8);

impl fmt::Display for UnknownCodec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "codec number {} is unknown to this build", self.0)
    }
}

impl core::error::Error for UnknownCodec {}

impl TryFrom<u8> for Codec {
    type Error = UnknownCodec;

    fn try_from(number: u8) -> Result<Self, UnknownCodec> {
        Self::ALL.iter().copied().find(|codec| *codec as u8 == number).ok_or(UnknownCodec(number))
    }
}

/// The encoded bytes are not what any encoder wrote for a block of that length. What the destination holds is
/// unspecified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrupt;

impl fmt::Display for Corrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the encoded block is corrupt")
    }
}

impl core::error::Error for Corrupt {}

/// What an encoder did: `dst[..len]` holds the block in `codec`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// To be stored beside the bytes: they do not say it themselves.
    pub codec: Codec,
    /// Bytes of the destination that count.
    pub len: usize,
}

/// Encodes `src` (1 to [`MAX_BLOCK`] bytes) in one given mode. `None` if the mode does not apply (a block that is not
/// same-filled, or a codec this build lacks), or if the result fits neither `dst` nor `src.len()` bytes.
pub fn encode_as(workspace: &mut Workspace, codec: Codec, src: &[u8], dst: &mut [u8]) -> Option<Encoded> {
    encode_with(workspace, codec, Effort::LEAST, src, dst)
}

/// How hard an encoder tries. What it writes decodes the same.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// Where the word LZ looks for matches.
    pub(crate) search: Search,
    /// zstd's level.
    #[cfg_attr(not(feature = "zstd"), expect(dead_code, reason = "only zstd has levels"))]
    pub(crate) level: i32,
}

impl Effort {
    const LEAST: Self = Self { search: Search::Words, level: 1 };
}

/// As [`encode_as`], with an effort.
pub(crate) fn encode_with(
    workspace: &mut Workspace,
    codec: Codec,
    effort: Effort,
    src: &[u8],
    dst: &mut [u8],
) -> Option<Encoded> {
    if src.is_empty() || src.len() > MAX_BLOCK {
        return None;
    }
    let room = dst.len().min(src.len());
    let dst = &mut dst[..room];
    let Workspace { table, planes, plain, streams, lane, .. } = workspace;
    let planes = &mut planes[..src.len()];
    let src = match codec.transform() {
        Transform::None => src,
        transform => {
            planes::forward(transform, src, planes);
            planes
        }
    };
    let len = match codec.stage() {
        Stage::Raw => {
            dst.get_mut(..src.len())?.copy_from_slice(src);
            Some(src.len())
        }
        Stage::Filled => filled::encode(src, dst),
        Stage::Lz4 => lz4::encode(table, src, dst),
        Stage::WordLz => word_lz::encode(effort.search, table, streams, src, dst),
        Stage::Huff => {
            let len = word_lz::encode(effort.search, table, streams, src, &mut plain[..src.len()])?;
            huffman::encode(lane, &plain[..len], dst)
        }
        #[cfg(feature = "zstd")]
        Stage::Zstd => workspace.zstd.encode(effort.level, src, dst),
        #[cfg(not(feature = "zstd"))]
        Stage::Zstd => None,
    }?;
    Some(Encoded { codec, len })
}

/// Decodes `src` into `dst`, whose length is the block's exact raw length. On `Ok` every byte of `dst` was written.
///
/// # Errors
/// [`Corrupt`] if `src` is no encoding of `dst.len()` bytes. Nothing is ever read or written outside the two slices,
/// and the time is bounded by their lengths, whatever `src` holds.
pub fn decode(workspace: &mut Workspace, codec: Codec, src: &[u8], dst: &mut [u8]) -> Result<(), Corrupt> {
    // An encoder never writes more than it read.
    if dst.is_empty() || dst.len() > MAX_BLOCK || (src.len() > dst.len() && codec != Codec::Filled) {
        return Err(Corrupt);
    }
    // A CPU foresees a stream after a few lines of it. Here are several short ones, in memory that nobody has touched for
    // long: all that is stored is asked for at once, and so is the place that it goes to.
    raw::expect(src);
    raw::expect(dst);
    let transform = codec.transform();
    let len = dst.len();
    let target = if transform == Transform::None { &mut *dst } else { &mut workspace.planes[..len] };
    match codec.stage() {
        Stage::Raw => {
            if src.len() != target.len() {
                return Err(Corrupt);
            }
            target.copy_from_slice(src);
        }
        Stage::Filled => filled::decode(src, target)?,
        Stage::Lz4 => lz4::decode(src, target)?,
        Stage::WordLz => word_lz::decode(src, target)?,
        Stage::Huff => {
            // What the word LZ wrote was no longer than the block.
            let plain = &mut workspace.plain[..len];
            let plain_len = huffman::decode(src, plain)?;
            word_lz::decode(&plain[..plain_len], target)?;
        }
        #[cfg(feature = "zstd")]
        Stage::Zstd => workspace.zstd.decode(src, target)?,
        #[cfg(not(feature = "zstd"))]
        Stage::Zstd => return Err(Corrupt),
    }
    if transform != Transform::None {
        planes::inverse(transform, &workspace.planes[..len], dst);
    }
    Ok(())
}
