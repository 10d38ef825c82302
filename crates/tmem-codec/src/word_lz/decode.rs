//! The decoder: one pass over the tokens, each proved in bounds by one fused comparison.

use super::tokens::{ALPHABET, LONG_LITERALS, MIN_MATCH, Token};
use super::{FIRST_DISTANCES, HEADER, MIN_DISTANCE};
use crate::codec::Corrupt;
use crate::lz4::copy_match;
use crate::raw::{load16, load64, store64};

/// Where the decoder stands in each stream.
#[derive(Clone, Copy)]
struct Cursor {
    literal: usize,
    aux: usize,
    to: usize,
    distances: [usize; 2],
}

/// The distance of the next match and the one before it, `pair` being the next two bytes of aux. Without branches.
#[inline(always)]
fn next_distances(token: &Token, pair: usize, [newest, older]: [usize; 2]) -> [usize; 2] {
    let fresh = if token.is_odd() { pair } else { ((pair & 255) + 1) * 8 };
    let again = if token.is_odd() { older } else { newest };
    let older = if token.is_same() { older } else { newest };
    [if token.is_fresh() { fresh } else { again }, older]
}

/// Decompresses `src` into exactly `dst`.
pub(crate) fn decode(src: &[u8], dst: &mut [u8]) -> Result<(), Corrupt> {
    let [a, b, c, d] = *src.first_chunk::<HEADER>().ok_or(Corrupt)?;
    let literals_end = HEADER + usize::from(u16::from_le_bytes([a, b]));
    let aux_end = literals_end + usize::from(u16::from_le_bytes([c, d]));
    let tokens = src.get(aux_end..).ok_or(Corrupt)?;
    let mut at = Cursor { literal: HEADER, aux: literals_end, to: 0, distances: FIRST_DISTANCES };
    let mut left = tokens;
    loop {
        left = fast(src, dst, left, &mut at)?;
        let Some((&token, rest)) = left.split_first() else {
            break;
        };
        sequence(src, dst, &mut at, &ALPHABET.decode[usize::from(token)])?;
        left = rest;
    }
    let rest = src.get(at.literal..literals_end).ok_or(Corrupt)?;
    let place = dst.get_mut(at.to..).ok_or(Corrupt)?;
    if at.aux != aux_end || place.len() != rest.len() {
        return Err(Corrupt);
    }
    place.copy_from_slice(rest);
    Ok(())
}

/// How many tokens without extensions can be decoded without a look at the ends of the source: each takes at most 8
/// literals and 2 bytes of aux. One extension's byte more is kept in reserve.
#[inline(always)]
fn safe_tokens(src: &[u8], literal: usize, aux: usize) -> usize {
    let literals = src.len().saturating_sub(literal) / 8;
    let aux = src.len().saturating_sub(aux + 1) / 2;
    literals.min(aux)
}

/// Bytes that are copied for every token, whatever its length.
const ALWAYS: usize = 16;

/// Decodes tokens while there is room for whole chunks on all sides, and no count takes three bytes; what it leaves.
#[inline(always)]
fn fast<'a>(src: &[u8], dst: &mut [u8], tokens: &'a [u8], at: &mut Cursor) -> Result<&'a [u8], Corrupt> {
    if at.to < MIN_DISTANCE || dst.len() < ALWAYS {
        return Ok(tokens);
    }
    let to_limit = dst.len() - ALWAYS;
    let Cursor { mut literal, mut aux, mut to, distances: [mut newest, mut older] } = *at;
    let mut done = 0;
    let mut safe = safe_tokens(src, literal, aux).min(tokens.len());
    while done < safe {
        let token = &ALPHABET.decode[usize::from(tokens[done])];
        let mut total = token.total();
        if token.is_long() {
            let Some(long) = Long::read(src, token, literal, aux) else {
                break;
            };
            if to + long.literals + long.total > to_limit {
                break;
            }
            if long.literals > 0 {
                dst[to..to + long.literals].copy_from_slice(&src[literal..literal + long.literals]);
                literal += long.literals;
                to += long.literals;
                aux += 1;
            }
            total = long.total;
        } else if to + total > to_limit {
            break;
        }
        // SAFETY: fewer than `safe` tokens were decoded since it was computed, so aux + 2 <= src.len(), even if this
        // token took the byte in reserve.
        let pair = usize::from(unsafe { load16(src, aux) });
        [newest, older] = next_distances(token, pair, [newest, older]);
        aux += token.aux();
        // With to >= 8, which was so at the start, this says 8 <= newest <= to.
        if newest.wrapping_sub(MIN_DISTANCE) > to - MIN_DISTANCE {
            return Err(Corrupt);
        }
        // SAFETY: as for aux: literal + 8 <= src.len(); `Long::read` has seen to it after its own literals.
        let fresh = unsafe { load64(src, literal) };
        // SAFETY: newest <= to, and to + 24 <= dst.len().
        let old = unsafe { load64(dst, to - newest) };
        // SAFETY: to + total + 24 <= dst.len().
        unsafe { store64(dst, to, old ^ (old ^ fresh) & token.mask) }
        copy_word(dst, to + 8, newest);
        if total > ALWAYS {
            copy_word(dst, to + 16, newest);
            copy_word(dst, to + 24, newest);
            if total > 32 {
                copy_chunks(dst, to + 32, newest, to + total);
            }
        }
        literal += token.literals();
        to += total;
        done += 1;
        if token.is_long() {
            aux += usize::from(token.has_long_match());
            safe = done + safe_tokens(src, literal, aux).min(tokens.len() - done);
        }
    }
    *at = Cursor { literal, aux, to, distances: [newest, older] };
    Ok(&tokens[done..])
}

/// The counts of a token with extensions of one byte each.
struct Long {
    /// Literals, if their count is an extension, else 0.
    literals: usize,
    /// What is left of the token: the match, and literals that are not in the other count.
    total: usize,
}

impl Long {
    /// `None` if a count takes more than a byte, or the literals are not 16 bytes from the source's end.
    #[inline(always)]
    fn read(src: &[u8], token: &Token, literal: usize, aux: usize) -> Option<Self> {
        let mut long = Self { literals: 0, total: token.total() };
        let mut match_count_at = aux + token.aux();
        if token.has_long_literals() {
            let count = usize::from(*src.get(aux)?);
            match_count_at += 1;
            long.literals = LONG_LITERALS + count;
            if count == 255 || literal + long.literals + 16 > src.len() {
                return None;
            }
        }
        if token.has_long_match() {
            let count = usize::from(*src.get(match_count_at)?);
            long.total += MIN_MATCH + count;
            if count == 255 {
                return None;
            }
        }
        Some(long)
    }
}

/// Copies 8 bytes from `distance` before. The callers have `8 <= distance <= to` and `to + 8 <= dst.len()`.
#[inline(always)]
fn copy_word(dst: &mut [u8], to: usize, distance: usize) {
    // SAFETY: distance <= to, and it ends at or before `to`.
    let word = unsafe { load64(dst, to - distance) };
    // SAFETY: to + 8 <= dst.len().
    unsafe { store64(dst, to, word) }
}

/// Copies from `distance` before until `end` is reached or passed by less than 16 bytes.
///
/// The callers have `8 <= distance <= to` and `end + 16 <= dst.len()`.
#[inline(never)]
fn copy_chunks(dst: &mut [u8], mut to: usize, distance: usize, end: usize) {
    debug_assert!((MIN_DISTANCE..=to).contains(&distance) && end + 16 <= dst.len());
    // SAFETY: distance <= to, and it ends at or before `to`.
    let first = unsafe { load64(dst, to - distance) };
    if distance == 8 {
        // One word over and over: nothing has to be read again.
        while to < end {
            // SAFETY: to < end and end + 16 <= dst.len().
            unsafe { store64(dst, to, first) }
            // SAFETY: as above.
            unsafe { store64(dst, to + 8, first) }
            to += 16;
        }
    }
    while to < end {
        copy_word(dst, to, distance);
        copy_word(dst, to + 8, distance);
        to += 16;
    }
}

/// One token with every step checked: the ends of the block.
#[inline(never)]
fn sequence(src: &[u8], dst: &mut [u8], at: &mut Cursor, token: &Token) -> Result<(), Corrupt> {
    let mut literals = token.literals();
    let mut matched = token.total() - literals;
    if token.has_long_literals() {
        literals = LONG_LITERALS + extension(src, &mut at.aux)?;
    }
    let byte = |place: usize| src.get(place).copied().map_or(0, usize::from);
    at.distances = next_distances(token, byte(at.aux) | byte(at.aux + 1) << 8, at.distances);
    at.aux += token.aux();
    let [distance, _] = at.distances;
    if token.has_long_match() {
        matched = MIN_MATCH + extension(src, &mut at.aux)?;
    }
    let bytes = src.get(at.literal..at.literal + literals).ok_or(Corrupt)?;
    dst.get_mut(at.to..at.to + literals).ok_or(Corrupt)?.copy_from_slice(bytes);
    at.literal += literals;
    at.to += literals;
    if matched == 0 {
        return Ok(());
    }
    if distance < MIN_DISTANCE {
        return Err(Corrupt);
    }
    copy_match(dst, at.to, distance, matched)?;
    at.to += matched;
    Ok(())
}

/// A count in aux.
fn extension(src: &[u8], aux: &mut usize) -> Result<usize, Corrupt> {
    let byte = *src.get(*aux).ok_or(Corrupt)?;
    *aux += 1;
    if byte < 255 {
        return Ok(usize::from(byte));
    }
    let [low, high] = *src.get(*aux..).and_then(|rest| rest.first_chunk()).ok_or(Corrupt)?;
    *aux += 2;
    Ok(255 + usize::from(u16::from_le_bytes([low, high])))
}
