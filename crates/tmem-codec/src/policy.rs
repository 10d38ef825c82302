//! Which modes are tried for a block.

use core::fmt;
use core::str::FromStr;

use crate::codec::{Codec, Effort, Encoded, encode_as, encode_with};
use crate::planes::Transform;
use crate::predict::Sample;
use crate::raw;
use crate::word_lz::Search;
use crate::workspace::Workspace;

/// What a pool wants its memory to cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Policy {
    /// No entropy stage ever.
    Fast,
    /// Static Huffman codes when data comes in; zstd's lowest level when the cleaner finds it cold.
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
        Self::ALL.into_iter().find(|policy| policy.name() == text).ok_or(UnknownPolicy)
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
    raw::expect(src);
    if let Some(filled) = encode_as(workspace, Codec::Filled, src, dst) {
        return Some(filled);
    }
    let sample = Sample::of(src);
    let packed = match (policy, temperature) {
        (Policy::Fast, Temperature::Hot) => encode_fast(workspace, sample, src, dst),
        (Policy::Fast, Temperature::Cold) => encode_thorough(workspace, sample, src, dst),
        (Policy::Balanced, Temperature::Hot) => encode_coded(workspace, sample, src, dst),
        (Policy::Balanced, Temperature::Cold) | (Policy::Dense, Temperature::Hot) => {
            encode_entropy(workspace, sample, 1, src, dst)
        }
        (Policy::Dense, Temperature::Cold) => encode_entropy(workspace, sample, 3, src, dst),
    };
    packed.or_else(|| encode_as(workspace, Codec::Raw, src, dst))
}

/// The least that any mode makes of `src` which the policy may use: those without an entropy stage, for balanced also
/// those with Huffman codes, and where there is zstd all of them, each with the effort that the policy puts into it.
///
/// It tries them all: this is what the choice that [`encode`] makes is measured against. `None` is said as there; what
/// `dst` then holds is unspecified.
pub fn smallest(
    workspace: &mut Workspace,
    policy: Policy,
    temperature: Temperature,
    src: &[u8],
    dst: &mut [u8],
) -> Option<Encoded> {
    let thorough = |level| Effort { search: Search::Bytes, level };
    let (modes, effort) = match (policy, temperature) {
        (Policy::Fast, Temperature::Hot) => {
            (Codec::WITHOUT_CODES, Effort { search: search_for(Sample::of(src)), level: 0 })
        }
        (Policy::Fast, Temperature::Cold) => (Codec::WITHOUT_CODES, thorough(0)),
        (Policy::Balanced, Temperature::Hot) => (Codec::WITHOUT_ZSTD, thorough(0)),
        (Policy::Balanced, Temperature::Cold) | (Policy::Dense, Temperature::Hot) => (Codec::ALL, thorough(1)),
        (Policy::Dense, Temperature::Cold) => (Codec::ALL, thorough(3)),
    };
    let encoded = modes.iter().filter_map(|codec| encode_with(workspace, *codec, effort, src, dst));
    encoded.min_by_key(|encoded| encoded.len)
}

/// One mode by the look of the block; a second one where the first did badly and the block looks like an array.
fn encode_fast(workspace: &mut Workspace, sample: Sample, src: &[u8], dst: &mut [u8]) -> Option<Encoded> {
    let search = search_for(sample);
    let first = encode_first(workspace, sample, search, src, dst);
    if sample.is_repetitive() {
        return first;
    }
    second_look(workspace, sample, first, (1300, search), src, dst)
}

/// How *fast* looks for matches.
fn search_for(sample: Sample) -> Search {
    if sample.has_text() { Search::Bytes } else { Search::Words }
}

/// Still without an entropy stage, but at every byte, and with more second looks.
fn encode_thorough(workspace: &mut Workspace, sample: Sample, src: &[u8], dst: &mut [u8]) -> Option<Encoded> {
    let first = encode_first(workspace, sample, Search::Bytes, src, dst);
    second_look(workspace, sample, first, (1100, Search::Bytes), src, dst)
}

fn encode_first(
    workspace: &mut Workspace,
    sample: Sample,
    search: Search,
    src: &[u8],
    dst: &mut [u8],
) -> Option<Encoded> {
    let codec = match sample.array() {
        Some(transform) => turned(transform, Codec::PlanesLz4, Codec::DeltaLz4),
        None if sample.is_text() => Codec::Lz4,
        None => Codec::WordLz,
    };
    encode_with(workspace, codec, Effort { search, level: 0 }, src, dst)
}

/// After the word LZ: planes, if they promise to be smaller by the factor `doubt / 1000`. The smaller stays.
fn second_look(
    workspace: &mut Workspace,
    sample: Sample,
    first: Option<Encoded>,
    (doubt, search): (usize, Search),
    src: &[u8],
    dst: &mut [u8],
) -> Option<Encoded> {
    let first_len = first.map_or(src.len(), |first| first.len);
    if first.is_some_and(|first| first.codec != Codec::WordLz) {
        return first;
    }
    let Some(transform) = sample.array_below(first_len * 1_000_000 / (src.len() * doubt)) else { return first };
    let codec = turned(transform, Codec::PlanesLz4, Codec::DeltaLz4);
    let effort = Effort { search, level: 0 };
    smaller(workspace, first, (codec, effort), src, dst)
}

/// A second try, which overwrites what the first made of the block: the smaller stays.
fn smaller(
    workspace: &mut Workspace,
    first: Option<Encoded>,
    (codec, effort): (Codec, Effort),
    src: &[u8],
    dst: &mut [u8],
) -> Option<Encoded> {
    let room = dst.len().min(first.map_or(src.len(), |first| first.len) - 1);
    encode_with(workspace, codec, effort, src, &mut dst[..room])
        .or_else(|| first.and_then(|first| encode_with(workspace, first.codec, effort, src, dst)))
}

/// The word LZ in Huffman codes, and where the block may be an array, of its planes: the smaller stays.
fn encode_coded(workspace: &mut Workspace, sample: Sample, src: &[u8], dst: &mut [u8]) -> Option<Encoded> {
    let effort = Effort { search: Search::Bytes, level: 0 };
    let coded = |transform| turned(transform, Codec::PlanesHuff, Codec::DeltaHuff);
    if let Some(transform) = sample.array() {
        return encode_with(workspace, coded(transform), effort, src, dst);
    }
    let first = encode_with(workspace, Codec::WordHuff, effort, src, dst);
    let first_len = first.map_or(src.len(), |first| first.len);
    let Some(transform) = sample.array_below(first_len * CODED_ARRAY_PERMILLE / src.len()) else { return first };
    smaller(workspace, first, (coded(transform), effort), src, dst)
}

/// Literals that a transform may leave for its planes to be tried, in thousandths of what came out without. Codes make
/// them smaller still: with 1100 the mean density is 0.3 % higher, and encoding takes a tenth longer.
const CODED_ARRAY_PERMILLE: usize = 900;

/// zstd, and where the block may be an array, zstd on its planes too: the smaller stays.
fn encode_entropy(
    workspace: &mut Workspace,
    sample: Sample,
    level: i32,
    src: &[u8],
    dst: &mut [u8],
) -> Option<Encoded> {
    if !cfg!(feature = "zstd") {
        return encode_thorough(workspace, sample, src, dst);
    }
    let effort = Effort { search: Search::Bytes, level };
    let Some(transform) = sample.array_below(ENTROPY_ARRAY_PERMILLE) else {
        return encode_with(workspace, Codec::Zstd, effort, src, dst);
    };
    let codec = turned(transform, Codec::PlanesZstd, Codec::DeltaZstd);
    let Some(first) = encode_with(workspace, codec, effort, src, dst) else {
        return encode_with(workspace, Codec::Zstd, effort, src, dst);
    };
    smaller(workspace, Some(first), (Codec::Zstd, effort), src, dst)
}

/// Literals that a transform may leave, in thousandths of the block, for zstd to be tried on it.
const ENTROPY_ARRAY_PERMILLE: usize = 500;

fn turned(transform: Transform, planes: Codec, delta: Codec) -> Codec {
    if transform == Transform::Delta { delta } else { planes }
}
