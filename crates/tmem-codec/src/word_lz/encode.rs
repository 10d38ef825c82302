//! The encoder. The source may change under it: every length is bounded by positions, as in `lz4`.

use super::tokens::{ALPHABET, EIGHT_LITERALS, LONG_LITERALS, MIN_MATCH};
use super::{FIRST_GAPS, HEADER, MIN_DISTANCE};
use crate::MAX_BLOCK;
use crate::lz4::{TABLE_LEN, common_len, table_bits};
use crate::raw::{copy16, load32, load64};

/// A token covers at least a match, or 8 literals.
const TOKENS_MAX: usize = MAX_BLOCK / MIN_MATCH + 1;
/// Three bytes, a distance and an extension, for a match of 4 is the most that aux takes per byte of the block.
const AUX_MAX: usize = MAX_BLOCK / MIN_MATCH * 3 + 16;
/// Shorter blocks are not worth a header.
const SHORTEST: usize = 32;

/// Where matches are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Search {
    /// At every fourth byte: fields are 4 or 8 bytes.
    Words,
    /// At every byte: 3-6 % denser where there is text among the words, and a fifth slower.
    Bytes,
}

/// The streams that are put behind the literals when their lengths are known.
#[derive(Debug)]
pub(crate) struct Streams {
    tokens: [u8; TOKENS_MAX],
    aux: [u8; AUX_MAX],
}

impl Streams {
    pub(crate) const fn new() -> Self {
        Self { tokens: [0; TOKENS_MAX], aux: [0; AUX_MAX] }
    }
}

struct Output<'a> {
    dst: &'a mut [u8],
    streams: &'a mut Streams,
    literals_end: usize,
    tokens_len: usize,
    aux_len: usize,
    distances: [usize; 2],
}

impl Output<'_> {
    /// One or two tokens: the literals from `anchor` to `start`, then the match from `start` to `end`.
    ///
    /// Nearly without branches: how a match is written is as hard to foresee as the block itself.
    #[inline(always)]
    fn sequence(&mut self, src: &[u8], anchor: usize, start: usize, end: usize, distance: usize) -> Option<()> {
        let literals = start - anchor;
        copy_literals(src, (anchor, start), self.dst, self.literals_end)?;
        self.literals_end += literals;
        let row = if literals < LONG_LITERALS {
            self.streams.tokens[self.tokens_len] = EIGHT_LITERALS;
            self.tokens_len += literals / 8;
            literals % 8
        } else {
            self.aux_len = extension(&mut self.streams.aux, self.aux_len, literals - LONG_LITERALS);
            LONG_LITERALS
        };
        let mode = self.distance(distance);
        let (token, long) = ALPHABET.token(mode, row, end - start);
        let count = end - start - MIN_MATCH;
        if long && count >= 255 {
            self.aux_len = extension(&mut self.streams.aux, self.aux_len, count);
        } else {
            let [byte, ..] = count.to_le_bytes();
            self.streams.aux[self.aux_len] = byte;
            self.aux_len += usize::from(long);
        }
        self.streams.tokens[self.tokens_len] = token;
        self.tokens_len += 1;
        Some(())
    }

    /// The mode for a distance.
    #[inline(always)]
    fn distance(&mut self, distance: usize) -> usize {
        let [newest, older] = self.distances;
        let gap = distance - MIN_DISTANCE;
        let is_short = gap.is_multiple_of(8) && gap < 2048;
        let fresh = if is_short { 2 } else { 3 };
        let mode: usize = if distance == older { 1 } else { fresh };
        let mode = if distance == newest { 0 } else { mode };
        self.distances = [distance, if distance == newest { older } else { newest }];
        let [low, high, ..] = if is_short { gap / 8 } else { gap }.to_le_bytes();
        let place = &mut self.streams.aux[self.aux_len..self.aux_len + 2];
        place.copy_from_slice(&[low, high]);
        self.aux_len += mode.saturating_sub(1);
        mode
    }

    fn finish(mut self, src: &[u8], anchor: usize) -> Option<usize> {
        copy_literals(src, (anchor, src.len()), self.dst, self.literals_end)?;
        self.literals_end += src.len() - anchor;
        let aux_end = self.literals_end + self.aux_len;
        let end = aux_end + self.tokens_len;
        if end > self.dst.len() {
            return None;
        }
        let literals = u16::try_from(self.literals_end - HEADER).ok()?;
        let aux = u16::try_from(self.aux_len).ok()?;
        self.dst[self.literals_end..aux_end].copy_from_slice(&self.streams.aux[..self.aux_len]);
        self.dst[aux_end..end].copy_from_slice(&self.streams.tokens[..self.tokens_len]);
        self.dst[..2].copy_from_slice(&literals.to_le_bytes());
        self.dst[2..HEADER].copy_from_slice(&aux.to_le_bytes());
        Some(end)
    }
}

/// Writes a count that has no token of its own; where aux ends then.
#[inline(never)]
fn extension(aux: &mut [u8; AUX_MAX], at: usize, count: usize) -> usize {
    match u8::try_from(count) {
        Ok(byte) if byte < 255 => {
            aux[at] = byte;
            at + 1
        }
        _ => {
            let [low, high, ..] = (count - 255).to_le_bytes();
            aux[at..at + 3].copy_from_slice(&[255, low, high]);
            at + 3
        }
    }
}

/// Copies `src[from..to]` to `dst[at..]`; `None` if there is no room.
#[inline(always)]
fn copy_literals(src: &[u8], (from, to): (usize, usize), dst: &mut [u8], at: usize) -> Option<()> {
    if to - from <= 16 && from + 16 <= src.len() && at + 16 <= dst.len() {
        // SAFETY: both ends were just compared.
        unsafe { copy16(src, from, dst, at) }
        return Some(());
    }
    copy_many_literals(src, (from, to), dst, at)
}

#[inline(never)]
fn copy_many_literals(src: &[u8], (from, to): (usize, usize), dst: &mut [u8], at: usize) -> Option<()> {
    let len = to - from;
    if to + 16 > src.len() || at + len + 16 > dst.len() {
        dst.get_mut(at..at + len)?.copy_from_slice(&src[from..to]);
        return Some(());
    }
    for done in (0..len).step_by(16) {
        // SAFETY: done < len, so both chunks end less than 16 bytes after `to` and `at + len`.
        unsafe { copy16(src, from + done, dst, at + done) }
    }
    Some(())
}

/// Positions by the hash of the 4 bytes there.
struct Finder<'a> {
    table: &'a mut [u16; TABLE_LEN],
    bits: u32,
}

impl Finder<'_> {
    /// The position last seen with this hash, and `at` put in its place. Never above `at`.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "positions of a block fit 16 bits")]
    fn swap(&mut self, word: u32, at: usize) -> usize {
        let slot = (word.wrapping_mul(2_654_435_761) >> (32 - self.bits)) as usize & (TABLE_LEN - 1);
        usize::from(core::mem::replace(&mut self.table[slot], at as u16))
    }

    /// Where the 8 bytes at `at` were seen, if they were and the hash of their first 4 still tells it.
    ///
    /// The caller has `at + 8 <= src.len()`.
    #[inline(always)]
    fn eight_bytes(&mut self, src: &[u8], at: usize) -> Option<usize> {
        // SAFETY: at + 8 <= src.len().
        let word = unsafe { load64(src, at) };
        #[expect(clippy::cast_possible_truncation, reason = "the lower half is what is hashed")]
        let candidate = self.swap(word as u32, at);
        // SAFETY: a position in the table is at most `at`.
        let seen = unsafe { load64(src, candidate) } == word && candidate + MIN_DISTANCE <= at;
        seen.then_some(candidate)
    }
}

/// A match before it is extended: 4 or more bytes at `at` equal those `distance` before.
#[derive(Clone, Copy)]
struct Found {
    at: usize,
    distance: usize,
}

/// Which of the 16 bytes at `at` equal those `distance` before, a bit each.
///
/// # Safety
/// `distance <= at` and `at + 16 <= src.len()`.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn equal_bytes(src: &[u8], at: usize, distance: usize) -> u32 {
    use core::arch::x86_64::{__m128i, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8};
    debug_assert!(distance <= at && at + 16 <= src.len());
    #[cfg(fuzzing)]
    if crate::cpu::is_portable() {
        // SAFETY: the contract is the same.
        return unsafe { equal_bytes_portable(src, at, distance) };
    }
    // SAFETY: at + 16 <= src.len() by the contract.
    let here = unsafe { src.as_ptr().add(at) };
    // SAFETY: distance <= at by the contract.
    let there = unsafe { here.sub(distance) };
    // SAFETY: 16 bytes from `at` are in the slice, and the load needs no alignment.
    let here = unsafe { _mm_loadu_si128(here.cast::<__m128i>()) };
    // SAFETY: it ends no later than the other.
    let there = unsafe { _mm_loadu_si128(there.cast::<__m128i>()) };
    // SAFETY: SSE2 is part of x86_64.
    let equal = unsafe { _mm_cmpeq_epi8(here, there) };
    // SAFETY: SSE2 is part of x86_64.
    unsafe { _mm_movemask_epi8(equal) }.cast_unsigned()
}

/// Which of the 16 bytes at `at` equal those `distance` before, a bit each.
///
/// # Safety
/// `distance <= at` and `at + 16 <= src.len()`.
#[cfg(any(test, fuzzing, not(target_arch = "x86_64")))]
unsafe fn equal_bytes_portable(src: &[u8], at: usize, distance: usize) -> u32 {
    let mut mask = 0;
    for half in [0, 8] {
        // SAFETY: at + 16 <= src.len() by the contract.
        let here = unsafe { load64(src, at + half) };
        // SAFETY: distance <= at by the contract.
        let difference = here ^ unsafe { load64(src, at + half - distance) };
        for byte in 0..8 {
            mask |= u32::from(difference >> (byte * 8) & 255 == 0) << (half + byte);
        }
    }
    mask
}
#[cfg(not(target_arch = "x86_64"))]
use equal_bytes_portable as equal_bytes;

/// Compresses `src` (at most 64 KiB) into `dst`; the length written, or `None` if it does not fit.
pub(crate) fn encode(
    search: Search,
    table: &mut [u16; TABLE_LEN],
    streams: &mut Streams,
    src: &[u8],
    dst: &mut [u8],
) -> Option<usize> {
    #[cfg(target_arch = "x86_64")]
    if crate::cpu::is_wide() {
        // SAFETY: just asked.
        return unsafe { encode_wide(search, table, streams, src, dst) };
    }
    encode_portable(search, table, streams, src, dst)
}

fn encode_portable(
    search: Search,
    table: &mut [u16; TABLE_LEN],
    streams: &mut Streams,
    src: &[u8],
    dst: &mut [u8],
) -> Option<usize> {
    match search {
        Search::Words => encode_by::<4>(table, streams, src, dst),
        Search::Bytes => encode_by::<1>(table, streams, src, dst),
    }
}

/// The same, for the CPUs that most have.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
fn encode_wide(
    search: Search,
    table: &mut [u16; TABLE_LEN],
    streams: &mut Streams,
    src: &[u8],
    dst: &mut [u8],
) -> Option<usize> {
    match search {
        Search::Words => encode_by::<4>(table, streams, src, dst),
        Search::Bytes => encode_by::<1>(table, streams, src, dst),
    }
}

/// As [`encode`], with `STEP` bytes between two looks.
#[inline(always)]
fn encode_by<const STEP: usize>(
    table: &mut [u16; TABLE_LEN],
    streams: &mut Streams,
    src: &[u8],
    dst: &mut [u8],
) -> Option<usize> {
    assert!(src.len() <= MAX_BLOCK);
    if src.len() < SHORTEST || dst.len() <= HEADER {
        return None;
    }
    let bits = table_bits(src.len());
    table[..1 << bits].fill(0);
    let mut finder = Finder { table, bits };
    let distances = FIRST_GAPS.map(|gap| gap + MIN_DISTANCE);
    let mut out = Output { dst, streams, literals_end: HEADER, tokens_len: 0, aux_len: 0, distances };
    let mut anchor = 0;
    let mut at = MIN_DISTANCE;
    while let Some(found) = look::<STEP>(&mut finder, src, at, out.distances[0]) {
        let Found { at: mut same, mut distance } = found;
        at = same + STEP;
        let mut start = extend_back(src, anchor, found);
        let mut view = View::new(src, same, distance, 0xf);
        loop {
            let end = view.end_of_match(src, same, distance);
            if distance > anchor {
                let Some(later) = reachable(anchor, start, end, distance) else { break };
                start = later;
            }
            out.sequence(src, anchor, start, end, distance)?;
            anchor = end;
            at = end.next_multiple_of(STEP);
            if end + 16 > src.len() {
                break;
            }
            if let Some(candidate) = finder.eight_bytes(src, end) {
                distance = end - candidate;
                view = View::new(src, end, distance, 0xff);
                same = end;
            } else if let Some(next) = view.next_match(src, end, distance) {
                same = next;
            } else {
                // What starts at `end` was looked for, and is in the table itself by now.
                at = (end + 1).next_multiple_of(STEP);
                break;
            }
            start = same;
        }
    }
    out.finish(src, anchor)
}

/// Of the literals before a match, how many are copied before the rest is merged with the match's first word.
#[inline(always)]
fn merged_from(literals: usize) -> usize {
    if literals < LONG_LITERALS { literals & 8 } else { literals }
}

/// Near the block's start a match may reach back further than the decoder's merging can, and then begins after more
/// literals; `None` if nothing is left of it by then. It is short in that case, so that asking again soon costs little.
#[inline(never)]
fn reachable(anchor: usize, start: usize, end: usize, distance: usize) -> Option<usize> {
    if distance <= anchor + merged_from(start - anchor) {
        return Some(start);
    }
    let later = anchor + if distance <= anchor + 8 { 8 } else { LONG_LITERALS };
    (later + MIN_MATCH <= end).then_some(later)
}

/// Looks for 4 bytes seen before, at `at` and then further and further on; `None` at the end of the block.
#[inline(always)]
fn look<const STEP: usize>(finder: &mut Finder, src: &[u8], mut at: usize, repeat: usize) -> Option<Found> {
    debug_assert!((MIN_DISTANCE..=at).contains(&repeat));
    let mut misses = 32;
    while at + 8 <= src.len() {
        // SAFETY: at + 8 <= src.len().
        let word = unsafe { load32(src, at) };
        let candidate = finder.swap(word, at);
        // SAFETY: repeat <= at: it is 8 at first, and then the distance of a match that ended at `at` or before.
        let repeats = unsafe { load32(src, at - repeat) } == word;
        // SAFETY: a position in the table is at most `at`.
        let seen = unsafe { load32(src, candidate) } == word && candidate + MIN_DISTANCE <= at;
        if repeats | seen {
            return Some(Found { at, distance: if repeats { repeat } else { at - candidate } });
        }
        at += STEP * (misses >> 5);
        misses += 1;
    }
    None
}

/// Where the match starts, not before `anchor`.
#[inline(always)]
fn extend_back(src: &[u8], anchor: usize, Found { at, distance }: Found) -> usize {
    let mut start = at;
    if distance + 8 <= at {
        // SAFETY: 8 <= at, which is inside the block.
        let here = unsafe { load64(src, at - 8) };
        // SAFETY: distance + 8 <= at.
        let difference = here ^ unsafe { load64(src, at - 8 - distance) };
        let same = (difference.leading_zeros() / 8) as usize;
        start -= same.min(at - anchor);
        if same < 8 {
            return start;
        }
    }
    while start > anchor && start > distance && src[start - 1] == src[start - 1 - distance] {
        start -= 1;
    }
    start
}

/// Which of 64 bytes equal those one distance before. Half of all matches follow one of the same distance after a few
/// bytes: where those start and end is read off here, without another look at the block.
struct View {
    /// Where the 64 bytes start.
    base: usize,
    /// A bit for each that is equal; none for what is behind the block's end.
    equal: u64,
}

impl View {
    const LEN: usize = 64;
    /// How far ahead a match is looked for: it starts within a word, and has at least 4 bytes.
    const AHEAD: usize = 8 + MIN_MATCH - 1;

    /// From `base` on; `known` bits are set in any case, also if the block has changed meanwhile.
    #[inline(always)]
    fn new(src: &[u8], base: usize, distance: usize, known: u64) -> Self {
        debug_assert!((MIN_DISTANCE..=base).contains(&distance));
        if base + Self::LEN > src.len() {
            return Self { base, equal: equal_bytes_at_end(src, base, distance) | known };
        }
        let mut equal = known;
        for part in 0..Self::LEN / 16 {
            // SAFETY: distance <= base, and base + 64 <= src.len().
            let bits = unsafe { equal_bytes(src, base + part * 16, distance) };
            equal |= u64::from(bits) << (part * 16);
        }
        Self { base, equal }
    }

    /// Where the match ends that has a byte at `at`.
    #[inline(always)]
    fn end_of_match(&mut self, src: &[u8], at: usize, distance: usize) -> usize {
        let end = at + (self.equal >> (at - self.base)).trailing_ones() as usize;
        if end < self.base + Self::LEN {
            return end;
        }
        self.end_of_long_match(src, distance)
    }

    #[inline(never)]
    fn end_of_long_match(&mut self, src: &[u8], distance: usize) -> usize {
        let from = self.base + Self::LEN;
        let end = from + common_len(src, from - distance, from, src.len());
        *self = Self::new(src, end, distance, 0);
        end
    }

    /// Where within the next 8 bytes another match of this distance starts.
    #[inline(always)]
    fn next_match(&mut self, src: &[u8], end: usize, distance: usize) -> Option<usize> {
        if end + Self::AHEAD > self.base + Self::LEN {
            *self = Self::new(src, end, distance, 0);
        }
        let equal = self.equal >> (end - self.base);
        let pairs = equal & equal >> 1;
        let runs = pairs & pairs >> 2 & 255;
        (runs != 0).then(|| end + runs.trailing_zeros() as usize)
    }
}

/// As `View::new` where fewer bytes are left.
#[inline(never)]
fn equal_bytes_at_end(src: &[u8], base: usize, distance: usize) -> u64 {
    let pairs = src[base..].iter().zip(&src[base - distance..]).enumerate();
    pairs.fold(0, |equal, (at, (here, there))| equal | u64::from(here == there) << at)
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    extern crate std;
    use super::*;
    use std::boxed::Box;
    use std::vec;
    use std::vec::Vec;

    #[test]
    fn both_versions_write_the_same_bytes() {
        if !crate::cpu::is_wide() {
            return;
        }
        let (mut table, mut streams) = (Box::new([0; TABLE_LEN]), Box::new(Streams::new()));
        let mut state = 1u64;
        for round in 0..400 {
            let mut next = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) as usize
            };
            let len = 32 + next() % 9000;
            let words: Vec<[u8; 8]> = (0..1 + next() % 60).map(|_| (next() * next()).to_le_bytes()).collect();
            let src: Vec<u8> = (0..=len / 8).flat_map(|_| words[next() % words.len()]).take(len).collect();
            for search in [Search::Words, Search::Bytes] {
                let (mut one, mut other) = (vec![0; len], vec![0; len]);
                let portable = encode_portable(search, &mut table, &mut streams, &src, &mut one);
                // SAFETY: just asked.
                let wide = unsafe { encode_wide(search, &mut table, &mut streams, &src, &mut other) };
                assert_eq!(portable, wide, "{round}");
                let written = wide.unwrap_or(0);
                assert_eq!(one[..written], other[..written], "{round}");
            }
        }
    }

    #[test]
    fn the_portable_comparison_agrees_with_the_vector_one() {
        let mut src = [0u8; 256];
        for (at, byte) in src.iter_mut().enumerate() {
            *byte = u8::from(at * at % 7 > 2);
        }
        for at in 8..240 {
            for distance in 8..=at {
                // SAFETY: distance <= at, at + 16 <= 256.
                let vector = unsafe { equal_bytes(&src, at, distance) };
                // SAFETY: as above.
                let portable = unsafe { equal_bytes_portable(&src, at, distance) };
                assert_eq!(vector, portable, "{at} {distance}");
            }
        }
    }
}
