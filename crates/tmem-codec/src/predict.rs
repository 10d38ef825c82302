//! What a block looks like, from a sample of 64 of its words: text, an array of numbers, or the usual mixture of a heap.
//!
//! A wrong answer costs density, never correctness. The constants were chosen on the `tune` half of the page files.

use crate::planes::Transform;
#[cfg(any(test, fuzzing, not(target_arch = "x86_64")))]
use crate::raw::load64;

/// Places in the block where words are looked at, spread evenly.
const GROUPS: u32 = 8;
/// Words counted at each place; two more before them are what they are compared with.
const GROUP_WORDS: u32 = 8;
const GROUP_SPAN: usize = GROUP_WORDS as usize + 2;
const _: () = assert!(GROUPS * GROUP_WORDS < 256);
const SAMPLED_BYTES: u32 = GROUPS * GROUP_WORDS * 8;

/// What [`crate::encode`] knows of a block when it chooses a mode: counts over 512 bytes of it.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Printable ASCII.
    text: u32,
    /// Bytes of words that are zero or the same as the word before: what an LZ handles without any transform.
    same: u32,
    /// Bytes that differ from the byte of equal weight in the word before: the literals of byte planes.
    planes: u32,
    /// The same of the differences.
    delta: u32,
}

#[cfg(any(test, fuzzing, not(target_arch = "x86_64")))]
const ONES: u64 = 0x0101_0101_0101_0101;
#[cfg(any(test, fuzzing, not(target_arch = "x86_64")))]
const LOW_BITS: u64 = 0x7f7f_7f7f_7f7f_7f7f;

/// Where a group starts, in words; `spread` words before the last place it can.
#[inline(always)]
fn group_start(spread: usize, group: u32) -> usize {
    spread * group as usize / (GROUPS as usize - 1)
}

/// The counts of a sample as sums in each of 8 bytes (there are 64 words, so none overflows), in the order of
/// [`Sample::from_counts`]. The caller has `spread + GROUP_SPAN` words in `src`.
#[cfg(any(test, fuzzing, not(target_arch = "x86_64")))]
fn counts_portable(src: &[u8], spread: usize) -> [u64; 4] {
    let (mut text, mut planes, mut deltas, mut same) = (0, 0, 0, 0);
    for group in 0..GROUPS {
        let start = group_start(spread, group);
        // SAFETY: start <= spread, and GROUP_SPAN words follow.
        let mut last = unsafe { load64(src, (start + 1) * 8) };
        // SAFETY: as above.
        let before = unsafe { load64(src, start * 8) };
        let mut last_delta = fold(last.wrapping_sub(before));
        for index in start + 2..start + GROUP_SPAN {
            // SAFETY: index < start + GROUP_SPAN.
            let word = unsafe { load64(src, index * 8) };
            let delta = fold(word.wrapping_sub(last));
            text += printable_bytes(word);
            planes += nonzero_bytes(word ^ last);
            deltas += nonzero_bytes(delta ^ last_delta) & nonzero_bytes(delta);
            same += if word == 0 || word == last { ONES } else { 0 };
            (last, last_delta) = (word, delta);
        }
    }
    [text, same, planes, deltas]
}
#[cfg(not(target_arch = "x86_64"))]
use counts_portable as counts;

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn counts(src: &[u8], spread: usize) -> [u64; 4] {
    #[cfg(fuzzing)]
    if crate::cpu::is_portable() {
        return counts_portable(src, spread);
    }
    // SAFETY: SSE2 is part of x86_64.
    unsafe { counts_sse2(src, spread) }
}

/// As `counts_portable`, two words at a time.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse2")]
#[inline]
fn counts_sse2(src: &[u8], spread: usize) -> [u64; 4] {
    use core::arch::x86_64::{
        __m128i, _mm_add_epi8, _mm_add_epi64, _mm_and_si128, _mm_cmpeq_epi8, _mm_cmpeq_epi32, _mm_cmpgt_epi8,
        _mm_cvtsi128_si64, _mm_loadu_si128, _mm_or_si128, _mm_set1_epi8, _mm_setzero_si128, _mm_shuffle_epi32,
        _mm_srai_epi32, _mm_sub_epi8, _mm_sub_epi64, _mm_unpackhi_epi64, _mm_xor_si128,
    };
    let zero = _mm_setzero_si128();
    let fold = |difference: __m128i| {
        let sign = _mm_shuffle_epi32::<0b11_11_01_01>(_mm_srai_epi32::<31>(difference));
        _mm_xor_si128(_mm_add_epi64(difference, difference), sign)
    };
    let whole = |halves: __m128i| _mm_and_si128(halves, _mm_shuffle_epi32::<0b10_11_00_01>(halves));
    // What is equal is counted down from all, as comparisons say -1.
    let all = _mm_set1_epi8(32);
    let (mut text, mut same, mut planes, mut deltas) = (zero, zero, all, all);
    for group in 0..GROUPS {
        let start = group_start(spread, group);
        debug_assert!((start + GROUP_SPAN) * 8 <= src.len());
        let place = src[start * 8..].as_ptr();
        for pair in 0..GROUP_WORDS as usize / 2 {
            let place = place.wrapping_add(pair * 16).cast::<__m128i>();
            // SAFETY: GROUP_SPAN words from `start` on are in `src`; these are the first two of the pair's four.
            let before = unsafe { _mm_loadu_si128(place) };
            // SAFETY: the last two of them.
            let word = unsafe { _mm_loadu_si128(place.wrapping_add(1)) };
            // SAFETY: the two in the middle.
            let last = unsafe { _mm_loadu_si128(place.cast::<u64>().wrapping_add(1).cast::<__m128i>()) };
            let (delta, last_delta) = (fold(_mm_sub_epi64(word, last)), fold(_mm_sub_epi64(last, before)));
            text = _mm_sub_epi8(text, _mm_cmpgt_epi8(word, _mm_set1_epi8(0x1f)));
            planes = _mm_add_epi8(planes, _mm_cmpeq_epi8(word, last));
            let cheap = _mm_or_si128(_mm_cmpeq_epi8(delta, last_delta), _mm_cmpeq_epi8(delta, zero));
            deltas = _mm_add_epi8(deltas, cheap);
            let known = _mm_or_si128(whole(_mm_cmpeq_epi32(word, zero)), whole(_mm_cmpeq_epi32(word, last)));
            same = _mm_sub_epi8(same, known);
        }
    }
    // Both words' bytes together: at most 64 in each.
    let both = |pair: __m128i| _mm_cvtsi128_si64(_mm_add_epi8(pair, _mm_unpackhi_epi64(pair, pair))).cast_unsigned();
    [both(text), both(same), both(planes), both(deltas)]
}

/// A 1 in each byte that is not zero.
#[cfg(any(test, fuzzing, not(target_arch = "x86_64")))]
#[inline(always)]
fn nonzero_bytes(word: u64) -> u64 {
    ((((word & LOW_BITS) + LOW_BITS) | word) & !LOW_BITS) >> 7
}

/// A 1 in each byte that is in `0x20..0x80`.
#[cfg(any(test, fuzzing, not(target_arch = "x86_64")))]
#[inline(always)]
fn printable_bytes(word: u64) -> u64 {
    let at_least_space = (word | !LOW_BITS) - 0x2020_2020_2020_2020;
    (at_least_space & !word & !LOW_BITS) >> 7
}

/// The sum of the 8 bytes.
#[inline(always)]
fn sum_bytes(lanes: u64) -> u32 {
    lanes.to_le_bytes().into_iter().map(u32::from).sum()
}

#[cfg(any(test, fuzzing, not(target_arch = "x86_64")))]
#[inline(always)]
fn fold(difference: u64) -> u64 {
    difference << 1 ^ (difference >> 63).wrapping_neg()
}

impl Sample {
    /// What is said of a block that is too short to be told: nothing that leads to a transform.
    const UNKNOWN: Self = Self { text: 0, same: SAMPLED_BYTES, planes: SAMPLED_BYTES, delta: SAMPLED_BYTES };

    /// Looks at `src`. This is all that choosing costs, but for a second mode where the first did badly.
    #[must_use]
    pub fn of(src: &[u8]) -> Self {
        let words = src.len() / 8;
        let Some(spread) = words.checked_sub(GROUP_SPAN) else { return Self::UNKNOWN };
        Self::from_counts(counts(src, spread))
    }

    fn from_counts([text, same, planes, deltas]: [u64; 4]) -> Self {
        Self { text: sum_bytes(text), same: sum_bytes(same), planes: sum_bytes(planes), delta: sum_bytes(deltas) }
    }

    /// Mostly text: matches start anywhere, and there are no words.
    pub(crate) fn is_text(self) -> bool {
        self.text > SAMPLED_BYTES * 65 / 100
    }

    /// There is text among the words.
    pub(crate) fn has_text(self) -> bool {
        self.text > SAMPLED_BYTES * 40 / 100
    }

    /// An array of numbers, and which transform makes it small.
    pub(crate) fn array(self) -> Option<Transform> {
        let (least, transform) = self.best_transform();
        let most = if transform == Transform::Planes { 35 } else { 25 };
        let sure = self.same < SAMPLED_BYTES * 30 / 100 && least < SAMPLED_BYTES * most / 100;
        sure.then_some(transform)
    }

    /// The better transform, if the literals it leaves are fewer than `permille` thousandths of the block.
    pub(crate) fn array_below(self, permille: usize) -> Option<Transform> {
        let (least, transform) = self.best_transform();
        (u64::from(least) * 1000 < u64::from(SAMPLED_BYTES) * permille as u64).then_some(transform)
    }

    /// At least half of the words need no transform to be cheap.
    pub(crate) fn is_repetitive(self) -> bool {
        self.same >= SAMPLED_BYTES / 2
    }

    fn best_transform(self) -> (u32, Transform) {
        if self.planes <= self.delta { (self.planes, Transform::Planes) } else { (self.delta, Transform::Delta) }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    fn words(word: impl Fn(u64) -> u64) -> Vec<u8> {
        (0..512).flat_map(|at| word(at).to_le_bytes()).collect()
    }

    #[test]
    fn the_portable_counts_agree_with_the_vector_ones() {
        let mut state = 1u64;
        for round in 0..2000 {
            let mut next = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 11) ^ state << 40
            };
            let len = 80 + (next() % 700) as usize;
            let mask = if round % 2 == 0 { next() & next() } else { 0x8000_0000_0000_ff01 };
            let bytes: Vec<u8> = (0..=len / 8).flat_map(|_| (next() & mask).to_le_bytes()).take(len).collect();
            let spread = len / 8 - GROUP_SPAN;
            assert_eq!(counts(&bytes, spread), counts_portable(&bytes, spread), "{round}");
        }
    }

    #[test]
    fn short_blocks_are_not_told() {
        assert_eq!(Sample::of(&[1; 79]).array_below(999), None);
        assert_eq!(Sample::of(&[1; 80]).array_below(999), Some(Transform::Planes));
    }

    #[test]
    fn text_is_text_and_words_are_not() {
        let text: Vec<u8> = b"the granule, and 4096 other things. ".iter().copied().cycle().take(4096).collect();
        assert!(Sample::of(&text).is_text() && Sample::of(&text).has_text());
        let pointers = words(|at| 0x7f12_3400_0000 + at * 7919 % 65536 * 16);
        assert!(!Sample::of(&pointers).is_text());
    }

    #[test]
    fn arrays_are_told_by_what_their_words_share() {
        assert_eq!(Sample::of(&words(|at| 1_000_000_007 * (at + 1))).array(), Some(Transform::Delta));
        let floats = words(|at| (1000.0 + (at * 7919 % 97) as f64).to_bits());
        assert_eq!(Sample::of(&floats).array(), Some(Transform::Planes));
        assert_eq!(Sample::of(&words(|at| (at * at + 1).wrapping_mul(at * 77 + 0x9e37_79b9_7f4a_7c15))).array(), None);
    }
}
