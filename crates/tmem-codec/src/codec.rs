//! The modes a block can be stored in, and one door in and out for all of them.

use core::fmt;

use crate::workspace::Workspace;
use crate::{MAX_BLOCK, filled, lz4};

/// How a block is encoded. The number is stored with the block and never changes its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Codec {
    /// The bytes themselves.
    Raw = 0,
    /// One 8-byte little-endian word, repeated.
    Filled = 1,
    /// LZ4's block format.
    Lz4 = 2,
}

impl Codec {
    /// Every codec this build can decode.
    pub const ALL: &[Self] = &[Self::Raw, Self::Filled, Self::Lz4];

    /// A short name for tables and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Filled => "filled",
            Self::Lz4 => "lz4",
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
        Self::ALL
            .iter()
            .copied()
            .find(|codec| *codec as u8 == number)
            .ok_or(UnknownCodec(number))
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
pub fn encode_as(
    workspace: &mut Workspace,
    codec: Codec,
    src: &[u8],
    dst: &mut [u8],
) -> Option<Encoded> {
    if src.is_empty() || src.len() > MAX_BLOCK {
        return None;
    }
    let room = dst.len().min(src.len());
    let dst = &mut dst[..room];
    let len = match codec {
        Codec::Raw => {
            dst.get_mut(..src.len())?.copy_from_slice(src);
            Some(src.len())
        }
        Codec::Filled => filled::encode(src, dst),
        Codec::Lz4 => lz4::encode(&mut workspace.table, src, dst),
    }?;
    Some(Encoded { codec, len })
}

/// Decodes `src` into `dst`, whose length is the block's exact raw length. On `Ok` every byte of `dst` was written.
///
/// # Errors
/// [`Corrupt`] if `src` is no encoding of `dst.len()` bytes. Nothing is ever read or written outside the two slices,
/// and the time is bounded by their lengths, whatever `src` holds.
pub fn decode(
    workspace: &mut Workspace,
    codec: Codec,
    src: &[u8],
    dst: &mut [u8],
) -> Result<(), Corrupt> {
    let _ = workspace;
    if dst.is_empty() || dst.len() > MAX_BLOCK {
        return Err(Corrupt);
    }
    match codec {
        Codec::Raw => {
            if src.len() != dst.len() {
                return Err(Corrupt);
            }
            dst.copy_from_slice(src);
            Ok(())
        }
        Codec::Filled => filled::decode(src, dst),
        Codec::Lz4 => lz4::decode(src, dst),
    }
}
