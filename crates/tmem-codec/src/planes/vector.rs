//! Planes of 16 words at a time, with SSE2.
//!
//! Eight registers of two words each hold 128 bytes, a byte's place being `w w w w b b b`: four bits say which word, three
//! which byte of it. Interleaving the upper four registers with the lower four turns that number left by one bit; four
//! such steps make `b b b w w w w` of it, a register a plane, and three more lead back.

use super::Position;

/// As many words as make whole steps, from the start. Returns where the portable code goes on.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn turn<const DELTA: bool>(_src: &[u8], _dst: &mut [u8]) -> Position {
    Position::default()
}

/// As many words as make whole steps, from the start. Returns where the portable code goes on.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn turn_back<const DELTA: bool>(_src: &[u8], _dst: &mut [u8]) -> Position {
    Position::default()
}

#[cfg(target_arch = "x86_64")]
pub(super) use sse2::{turn, turn_back};

#[cfg(target_arch = "x86_64")]
mod sse2 {
    use super::Position;
    use crate::raw::load64;
    use core::arch::x86_64::{
        __m128i, _mm_add_epi64, _mm_and_si128, _mm_loadu_si128, _mm_set_epi64x, _mm_set1_epi64x, _mm_setzero_si128,
        _mm_shuffle_epi32, _mm_slli_si128, _mm_srai_epi32, _mm_srli_epi64, _mm_storeu_si128, _mm_sub_epi64,
        _mm_unpackhi_epi8, _mm_unpackhi_epi64, _mm_unpacklo_epi8, _mm_unpacklo_epi64, _mm_xor_si128,
    };

    /// Words of a step.
    const STEP: usize = 16;

    /// As many words as make whole steps, from the start. Returns where the portable code goes on.
    pub(crate) fn turn<const DELTA: bool>(src: &[u8], dst: &mut [u8]) -> Position {
        assert!(src.len() <= dst.len());
        if crate::cpu::is_portable() {
            return Position::default();
        }
        // SAFETY: SSE2 is part of x86_64, and `dst` is as long.
        unsafe { turn_steps::<DELTA>(src, dst) }
    }

    /// As many words as make whole steps, from the start. Returns where the portable code goes on.
    pub(crate) fn turn_back<const DELTA: bool>(src: &[u8], dst: &mut [u8]) -> Position {
        assert!(src.len() <= dst.len());
        if crate::cpu::is_portable() {
            return Position::default();
        }
        // SAFETY: SSE2 is part of x86_64, and `dst` is as long.
        unsafe { turn_steps_back::<DELTA>(src, dst) }
    }

    /// One step of the turn.
    #[target_feature(enable = "sse2")]
    #[inline]
    fn interleave(rows: [__m128i; 8]) -> [__m128i; 8] {
        core::array::from_fn(|row| {
            let (low, high) = (rows[row / 2], rows[row / 2 + 4]);
            if row % 2 == 0 { _mm_unpacklo_epi8(low, high) } else { _mm_unpackhi_epi8(low, high) }
        })
    }

    /// # Safety
    /// `dst` is as long as `src`.
    #[target_feature(enable = "sse2")]
    unsafe fn turn_steps<const DELTA: bool>(src: &[u8], dst: &mut [u8]) -> Position {
        let words = src.len() / 8;
        let mut now = Position::default();
        while now.at + STEP <= words {
            let place = src[now.at * 8..].as_ptr().cast::<__m128i>();
            let mut last = _mm_set_epi64x(now.last.cast_signed(), 0);
            let rows = core::array::from_fn(|row| {
                // SAFETY: the step's 128 bytes are in `src`.
                let pair = unsafe { _mm_loadu_si128(place.wrapping_add(row)) };
                if !DELTA {
                    return pair;
                }
                let before = _mm_unpacklo_epi64(_mm_unpackhi_epi64(last, last), pair);
                last = pair;
                let difference = _mm_sub_epi64(pair, before);
                let sign = _mm_shuffle_epi32::<0b11_11_01_01>(_mm_srai_epi32::<31>(difference));
                _mm_xor_si128(_mm_add_epi64(difference, difference), sign)
            });
            let planes = interleave(interleave(interleave(interleave(rows))));
            for (plane, bytes) in planes.into_iter().enumerate() {
                let place = dst[plane * words + now.at..].as_mut_ptr();
                // SAFETY: at + 16 <= words, so this ends at or before 8 * words.
                unsafe { _mm_storeu_si128(place.cast::<__m128i>(), bytes) }
            }
            now.at += STEP;
            // SAFETY: that word was among those loaded.
            now.last = unsafe { load64(src, now.at * 8 - 8) };
        }
        now
    }

    /// # Safety
    /// `dst` is as long as `src`.
    #[target_feature(enable = "sse2")]
    unsafe fn turn_steps_back<const DELTA: bool>(src: &[u8], dst: &mut [u8]) -> Position {
        let words = src.len() / 8;
        let mut now = Position::default();
        let one = _mm_set1_epi64x(1);
        // The last word, twice.
        let mut last = _mm_setzero_si128();
        while now.at + STEP <= words {
            let planes = core::array::from_fn(|plane| {
                let place = src[plane * words + now.at..].as_ptr();
                // SAFETY: at + 16 <= words, so this ends at or before 8 * words.
                unsafe { _mm_loadu_si128(place.cast::<__m128i>()) }
            });
            let rows = interleave(interleave(interleave(planes)));
            let place = dst[now.at * 8..].as_mut_ptr().cast::<__m128i>();
            for (row, mut pair) in rows.into_iter().enumerate() {
                if DELTA {
                    let sign = _mm_sub_epi64(_mm_setzero_si128(), _mm_and_si128(pair, one));
                    let difference = _mm_xor_si128(_mm_srli_epi64::<1>(pair), sign);
                    pair = _mm_add_epi64(difference, _mm_slli_si128::<8>(difference));
                    pair = _mm_add_epi64(pair, last);
                    last = _mm_unpackhi_epi64(pair, pair);
                }
                // SAFETY: the step's 128 bytes are in `dst`.
                unsafe { _mm_storeu_si128(place.wrapping_add(row), pair) }
            }
            now.at += STEP;
        }
        if now.at > 0 {
            // SAFETY: that word was just written.
            now.last = unsafe { load64(dst, now.at * 8 - 8) };
        }
        now
    }
}
