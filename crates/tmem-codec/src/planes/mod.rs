//! Byte planes: arrays of numbers turned so that the bytes of equal weight stand side by side.
//!
//! A block of `n` whole words of 8 bytes and a ragged tail becomes
//! ```text
//! n bytes: the lowest byte of every word | n bytes: the next higher | ... | the tail as it was
//! ```
//! With `Delta`, each word is first replaced by its difference from the word before (the first by itself), folded so
//! that small negative differences are small too: `d << 1 ^ d >> 63`, the shift of the sign being arithmetic.

mod vector;

use crate::raw::{load64, store64};

/// What is done to the words before an LZ sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transform {
    None,
    Planes,
    Delta,
}

/// Transposes a square of 8 by 8 bytes, a row a word.
#[inline(always)]
fn transpose(mut rows: [u64; 8]) -> [u64; 8] {
    // Swap quarters of 4 by 4 bytes, then of 2 by 2, then single bytes.
    for (distance, shift, mask) in
        [(4, 32, 0xffff_ffff_u64), (2, 16, 0x0000_ffff_0000_ffff), (1, 8, 0x00ff_00ff_00ff_00ff)]
    {
        for row in 0..8 {
            if row & distance == 0 {
                let swap = (rows[row] >> shift ^ rows[row + distance]) & mask;
                rows[row] ^= swap << shift;
                rows[row + distance] ^= swap;
            }
        }
    }
    rows
}

#[inline(always)]
fn fold64(difference: u64) -> u64 {
    difference << 1 ^ (difference >> 63).wrapping_neg()
}

#[inline(always)]
fn unfold64(folded: u64) -> u64 {
    folded >> 1 ^ (folded & 1).wrapping_neg()
}

/// Where a transform stands: the next word, and the one before it.
#[derive(Clone, Copy, Default)]
struct Position {
    at: usize,
    last: u64,
}

/// From `position` to the end, in portable code.
fn turn<const DELTA: bool>(Position { mut at, mut last }: Position, src: &[u8], dst: &mut [u8]) {
    let words = src.len() / 8;
    while at + 8 <= words {
        let mut rows = [0; 8];
        for (row, word) in rows.iter_mut().enumerate() {
            // SAFETY: at + row < words, so the word ends at or before 8 * words <= src.len().
            let value = unsafe { load64(src, (at + row) * 8) };
            *word = if DELTA { fold64(value.wrapping_sub(last)) } else { value };
            last = value;
        }
        for (plane, bytes) in transpose(rows).into_iter().enumerate() {
            // SAFETY: at + 8 <= words and plane < 8: this ends at or before 8 * words <= dst.len() (asserted by the caller).
            unsafe { store64(dst, plane * words + at, bytes) }
        }
        at += 8;
    }
    for index in at..words {
        let value = u64::from_le_bytes(core::array::from_fn(|byte| src[index * 8 + byte]));
        let word = if DELTA { fold64(value.wrapping_sub(last)) } else { value };
        last = value;
        for (plane, byte) in word.to_le_bytes().into_iter().enumerate() {
            dst[plane * words + index] = byte;
        }
    }
    dst[words * 8..src.len()].copy_from_slice(&src[words * 8..]);
}

/// From `position` to the end, in portable code.
fn turn_back<const DELTA: bool>(Position { mut at, mut last }: Position, src: &[u8], dst: &mut [u8]) {
    let words = src.len() / 8;
    while at + 8 <= words {
        let mut rows = [0; 8];
        for (plane, bytes) in rows.iter_mut().enumerate() {
            // SAFETY: at + 8 <= words and plane < 8: this ends at or before 8 * words <= src.len().
            *bytes = unsafe { load64(src, plane * words + at) };
        }
        for (row, word) in transpose(rows).into_iter().enumerate() {
            last = if DELTA { unfold64(word).wrapping_add(last) } else { word };
            // SAFETY: at + row < words, so the word ends at or before 8 * words <= dst.len() (asserted by the caller).
            unsafe { store64(dst, (at + row) * 8, last) }
        }
        at += 8;
    }
    for index in at..words {
        let word = u64::from_le_bytes(core::array::from_fn(|plane| src[plane * words + index]));
        last = if DELTA { unfold64(word).wrapping_add(last) } else { word };
        dst[index * 8..index * 8 + 8].copy_from_slice(&last.to_le_bytes());
    }
    dst[words * 8..src.len()].copy_from_slice(&src[words * 8..]);
}

/// Writes the planes of `src` to `dst`, which is as long.
pub(crate) fn forward(transform: Transform, src: &[u8], dst: &mut [u8]) {
    assert_eq!(src.len(), dst.len());
    match transform {
        Transform::None => dst.copy_from_slice(src),
        Transform::Planes => turn::<false>(vector::turn::<false>(src, dst), src, dst),
        Transform::Delta => turn::<true>(vector::turn::<true>(src, dst), src, dst),
    }
}

/// Undoes [`forward`].
pub(crate) fn inverse(transform: Transform, src: &[u8], dst: &mut [u8]) {
    assert_eq!(src.len(), dst.len());
    match transform {
        Transform::None => dst.copy_from_slice(src),
        Transform::Planes => turn_back::<false>(vector::turn_back::<false>(src, dst), src, dst),
        Transform::Delta => turn_back::<true>(vector::turn_back::<true>(src, dst), src, dst),
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec;
    use std::vec::Vec;

    const ALL: [Transform; 2] = [Transform::Planes, Transform::Delta];

    #[test]
    fn the_portable_turns_agree_with_the_vector_ones() {
        let src: Vec<u8> = (0..4200u32).map(|at| (at * at * 77).to_le_bytes()[1]).collect();
        let start = Position::default();
        for len in [0, 8, 127, 128, 136, 1000, 4096, 4200] {
            let (src, mut portable, mut vector) = (&src[..len], vec![0; len], vec![0; len]);
            turn::<false>(start, src, &mut portable);
            forward(Transform::Planes, src, &mut vector);
            assert!(portable == vector, "planes {len}");
            turn::<true>(start, src, &mut portable);
            forward(Transform::Delta, src, &mut vector);
            assert!(portable == vector, "delta {len}");
            turn_back::<false>(start, src, &mut portable);
            inverse(Transform::Planes, src, &mut vector);
            assert!(portable == vector, "back from planes {len}");
            turn_back::<true>(start, src, &mut portable);
            inverse(Transform::Delta, src, &mut vector);
            assert!(portable == vector, "back from delta {len}");
        }
    }

    #[test]
    fn planes_stand_where_the_format_says() {
        let src: Vec<u8> = (0..211u8).collect();
        let mut dst = vec![0; src.len()];
        forward(Transform::Planes, &src, &mut dst);
        assert!((0..208).all(|at| dst[at % 8 * 26 + at / 8] == src[at]) && dst[208..] == src[208..]);
    }

    #[test]
    fn small_steps_of_either_sign_leave_the_upper_planes_zero() {
        let words = [1000u64, 1001, 999, 1120, 1000, 990, 991, 992, 1000, 1001];
        let src: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
        let mut dst = vec![0; src.len()];
        forward(Transform::Delta, &src, &mut dst);
        assert_eq!(dst[..10], [208, 2, 3, 242, 239, 19, 2, 2, 16, 2]);
        assert!(dst[10] == 7 && dst[11..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn every_transform_is_undone_at_every_length() {
        let src: Vec<u8> = (0..4200u32).map(|at| (at * at).to_le_bytes()[1]).collect();
        let mut dst = vec![0; src.len()];
        let mut back = vec![0; src.len()];
        for transform in ALL {
            for len in 0..src.len() {
                forward(transform, &src[..len], &mut dst[..len]);
                inverse(transform, &dst[..len], &mut back[..len]);
                assert!(back[..len] == src[..len], "{transform:?} {len}");
            }
        }
    }
}
