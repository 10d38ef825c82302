//! What a block looks like, from a sample of 64 of its words: text, an array of numbers, or the usual mixture of a heap.
//!
//! A wrong answer costs density, never correctness. The constants were chosen on the `tune` half of the page files.

use crate::planes::Transform;
use crate::raw::load64;

/// Places in the block where words are looked at, spread evenly.
const GROUPS: u32 = 8;
/// Words counted at each place; two more before them are what they are compared with.
const GROUP_WORDS: u32 = 8;
const GROUP_SPAN: usize = GROUP_WORDS as usize + 2;
const SAMPLED_BYTES: u32 = GROUPS * GROUP_WORDS * 8;

/// Counts over the sample. All are in bytes of [`SAMPLED_BYTES`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    /// Printable ASCII.
    text: u32,
    /// Bytes of words that are zero or the same as the word before: what an LZ handles without any transform.
    same: u32,
    /// Bytes that differ from the byte of equal weight in the word before: the literals of byte planes.
    planes: u32,
    /// The same of the differences.
    delta: u32,
}

const LOW_BITS: u64 = 0x7f7f_7f7f_7f7f_7f7f;

/// How many of the 8 bytes are not zero.
#[inline(always)]
fn nonzero_bytes(word: u64) -> u32 {
    ((((word & LOW_BITS) + LOW_BITS) | word) & !LOW_BITS).count_ones()
}

/// How many of the 8 bytes are in `0x20..0x80`.
#[inline(always)]
fn printable_bytes(word: u64) -> u32 {
    let at_least_space = (word | !LOW_BITS) - 0x2020_2020_2020_2020;
    (at_least_space & !word & !LOW_BITS).count_ones()
}

#[inline(always)]
fn fold(difference: u64) -> u64 {
    difference << 1 ^ (difference >> 63).wrapping_neg()
}

impl Sample {
    /// `None` if the block is too short to be told.
    pub(crate) fn of(src: &[u8]) -> Option<Self> {
        let words = src.len() / 8;
        let spread = words.checked_sub(GROUP_SPAN)?;
        let mut sample = Self::default();
        for group in 0..GROUPS {
            let start = spread * group as usize / (GROUPS as usize - 1);
            // SAFETY: start <= words - GROUP_SPAN.
            let mut last = unsafe { load64(src, (start + 1) * 8) };
            // SAFETY: as above.
            let before = unsafe { load64(src, start * 8) };
            let mut last_delta = fold(last.wrapping_sub(before));
            for index in start + 2..start + GROUP_SPAN {
                // SAFETY: index < start + GROUP_SPAN <= words.
                let word = unsafe { load64(src, index * 8) };
                let delta = fold(word.wrapping_sub(last));
                sample.text += printable_bytes(word);
                sample.planes += nonzero_bytes(word ^ last);
                sample.delta += nonzero_bytes(delta ^ last_delta).min(nonzero_bytes(delta));
                sample.same += if word == 0 || word == last { 8 } else { 0 };
                (last, last_delta) = (word, delta);
            }
        }
        Some(sample)
    }

    /// Mostly text: matches start anywhere, and there are no words.
    pub(crate) fn is_text(self) -> bool {
        self.text > SAMPLED_BYTES * 65 / 100
    }

    /// An array of numbers, and which transform makes it small.
    pub(crate) fn array(self) -> Option<Transform> {
        if self.same >= SAMPLED_BYTES * 30 / 100 {
            return None;
        }
        if self.planes <= self.delta {
            (self.planes < SAMPLED_BYTES * 35 / 100).then_some(Transform::Planes8)
        } else {
            (self.delta < SAMPLED_BYTES * 25 / 100).then_some(Transform::Delta8)
        }
    }

    /// The transform that is worth trying with an entropy stage behind it.
    pub(crate) fn likely_array(self) -> Option<Transform> {
        let (least, transform) = if self.planes <= self.delta {
            (self.planes, Transform::Planes8)
        } else {
            (self.delta, Transform::Delta8)
        };
        (least < SAMPLED_BYTES * 60 / 100).then_some(transform)
    }
}
