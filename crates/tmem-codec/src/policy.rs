//! Which modes are tried for a block.

use core::fmt;
use core::str::FromStr;

use crate::codec::{Codec, Encoded, encode_as, encode_at_level};
use crate::planes::Transform;
use crate::predict::Sample;
use crate::workspace::Workspace;

/// What a pool wants its memory to cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Policy {
    /// No entropy stage ever.
    Fast,
    /// As [`Policy::Fast`] when data comes in; zstd's lowest level when the cleaner finds it cold.
    #[default]
    Balanced,
    /// zstd from the start, and everything that helps once the data is cold.
    Dense,
}

impl Policy {
    /// Every policy.
    pub const ALL: [Self; 3] = [Self::Fast, Self::Balanced, Self::Dense];

    /// The name that [`FromStr`] takes.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Balanced => "balanced",
            Self::Dense => "dense",
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The text names no policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownPolicy;

impl fmt::Display for UnknownPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no such policy: it is one of fast, balanced, dense")
    }
}

impl core::error::Error for UnknownPolicy {}

impl FromStr for Policy {
    type Err = UnknownPolicy;

    fn from_str(text: &str) -> Result<Self, UnknownPolicy> {
        Self::ALL
            .into_iter()
            .find(|policy| policy.name() == text)
            .ok_or(UnknownPolicy)
    }
}

/// When a block is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Temperature {
    /// At put time: somebody waits.
    Hot,
    /// The cleaner recompresses what nobody asked for in a while.
    Cold,
}

/// Encodes `src` (1 to [`crate::MAX_BLOCK`] bytes) in the mode that `policy` prefers, straight into `dst`.
///
/// The result is at most `src.len()` bytes: [`Codec::Raw`] is what remains when nothing helps. `None` only if it does
/// not fit `dst` (never with `dst.len() >= src.len()`), or if `src` is empty or longer than a block. What follows the
/// encoded bytes in `dst` is unspecified.
pub fn encode(
    workspace: &mut Workspace,
    policy: Policy,
    temperature: Temperature,
    src: &[u8],
    dst: &mut [u8],
) -> Option<Encoded> {
    if let Some(filled) = encode_as(workspace, Codec::Filled, src, dst) {
        return Some(filled);
    }
    let packed = match (policy, temperature) {
        (Policy::Fast, _) | (Policy::Balanced, Temperature::Hot) => {
            encode_fast(workspace, src, dst)
        }
        (Policy::Balanced, Temperature::Cold) | (Policy::Dense, Temperature::Hot) => {
            encode_dense(workspace, 1, src, dst)
        }
        (Policy::Dense, Temperature::Cold) => encode_dense(workspace, 3, src, dst),
    };
    packed.or_else(|| encode_as(workspace, Codec::Raw, src, dst))
}

/// Without an entropy stage: one mode, by the look of the block.
fn encode_fast(workspace: &mut Workspace, src: &[u8], dst: &mut [u8]) -> Option<Encoded> {
    let sample = Sample::of(src);
    let codec = match sample.and_then(Sample::array) {
        Some(Transform::Planes8) => Codec::Planes8Lz4,
        Some(_) => Codec::Delta8Lz4,
        None if sample.is_some_and(Sample::is_text) => Codec::Lz4,
        None => Codec::WordLz,
    };
    encode_as(workspace, codec, src, dst)
}

/// zstd, and where the block may be an array, zstd on its planes too: the smaller stays.
fn encode_dense(
    workspace: &mut Workspace,
    level: i32,
    src: &[u8],
    dst: &mut [u8],
) -> Option<Encoded> {
    if !cfg!(feature = "zstd") {
        return encode_fast(workspace, src, dst);
    }
    let array = match Sample::of(src).and_then(Sample::likely_array) {
        Some(Transform::Planes8) => Codec::Planes8Zstd,
        Some(_) => Codec::Delta8Zstd,
        None => return encode_at_level(workspace, Codec::Zstd, level, src, dst),
    };
    let turned = encode_at_level(workspace, array, level, src, dst);
    let plain = encode_at_level(workspace, Codec::Zstd, level, src, dst);
    match (turned, plain) {
        (Some(turned), Some(plain)) if plain.len <= turned.len => Some(plain),
        // The second try has overwritten the first.
        (Some(_), _) => encode_at_level(workspace, array, level, src, dst),
        (None, plain) => plain,
    }
}
