//! The decoder: one pass over the tokens, each proved in bounds by one fused comparison.

use super::tokens::{ALPHABET, LONG_LITERALS, MIN_MATCH, Token};
use super::{FIRST_DISTANCES, HEADER, MIN_DISTANCE};
use crate::codec::Corrupt;
use crate::lz4::copy_match;
use crate::raw::{copy16, load8, load16, load64, store64};

/// Where the decoder stands in each stream.
#[derive(Clone, Copy)]
struct Cursor {
    literal: usize,
    aux: usize,
    to: usize,
    distances: [usize; 2],
}

impl Cursor {
    /// The distance of the next match, `pair` being the next two bytes of aux. Without branches.
    #[inline(always)]
    fn distance(&mut self, token: Token, pair: usize) -> usize {
        let [newest, older] = self.distances;
        let fresh = if token.is_odd() {
            pair
        } else {
            ((pair & 255) + 1) * 8
        };
        let again = if token.is_odd() { older } else { newest };
        let distance = if token.is_fresh() { fresh } else { again };
        self.distances = [distance, if token.is_same() { older } else { newest }];
        self.aux += token.aux();
        distance
    }
}

/// The low `n` bytes (`n < 8`) set.
const MASKS: [u64; 8] = [
    0,
    0xff,
    0xffff,
    0xff_ffff,
    0xffff_ffff,
    0xff_ffff_ffff,
    0xffff_ffff_ffff,
    0xff_ffff_ffff_ffff,
];

/// Decompresses `src` into exactly `dst`.
pub(crate) fn decode(src: &[u8], dst: &mut [u8]) -> Result<(), Corrupt> {
    let [a, b, c, d] = *src.first_chunk::<HEADER>().ok_or(Corrupt)?;
    let literals_end = HEADER + usize::from(u16::from_le_bytes([a, b]));
    let aux_end = literals_end + usize::from(u16::from_le_bytes([c, d]));
    let tokens = src.get(aux_end..).ok_or(Corrupt)?;
    let mut at = Cursor {
        literal: HEADER,
        aux: literals_end,
        to: 0,
        distances: FIRST_DISTANCES,
    };
    let mut left = tokens;
    loop {
        left = fast(src, dst, left, &mut at);
        let Some((&token, rest)) = left.split_first() else {
            break;
        };
        sequence(src, dst, &mut at, ALPHABET.decode[usize::from(token)])?;
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

/// Decodes tokens while there is room for whole chunks on all sides, and no count takes three bytes; what it leaves.
#[inline(always)]
fn fast<'a>(src: &[u8], dst: &mut [u8], tokens: &'a [u8], at: &mut Cursor) -> &'a [u8] {
    if at.to < MIN_DISTANCE || dst.len() < 32 || src.len() < 32 {
        return tokens;
    }
    let (source_limit, to_limit) = (src.len() - 16, dst.len() - 16);
    let mut cursor = *at;
    let mut done = 0;
    while done < tokens.len() {
        let token = ALPHABET.decode[usize::from(tokens[done])];
        let mut next = cursor;
        let mut literals = token.literals();
        let mut total = token.total();
        if (next.literal > source_limit) | (next.aux > source_limit) {
            break;
        }
        if token.is_long() {
            // SAFETY: aux + 16 <= src.len().
            let count = usize::from(unsafe { load8(src, next.aux) });
            next.aux += 1;
            literals += count;
            let room = (next.literal + literals <= source_limit) & (next.to + literals <= to_limit);
            if count == 255 || !room {
                break;
            }
            copy_literals(src, next.literal, dst, next.to, literals);
            next.literal += literals;
            next.to += literals;
            total -= LONG_LITERALS;
            literals = 0;
        }
        // SAFETY: aux was 16 bytes before the end and has moved by at most 1.
        let pair = usize::from(unsafe { load16(src, next.aux) });
        let distance = next.distance(token, pair);
        if token.is_long_match() {
            // SAFETY: aux was 16 bytes before the end and has moved by at most 3.
            let count = usize::from(unsafe { load8(src, next.aux) });
            next.aux += 1;
            total += MIN_MATCH + count;
            if count == 255 {
                break;
            }
        }
        let to = next.to;
        // With to >= 8, which was so at the start, the first of these says 8 <= distance <= to.
        if (distance.wrapping_sub(MIN_DISTANCE) > to - MIN_DISTANCE) | (to + total > to_limit) {
            break;
        }
        // SAFETY: literal + 8 <= src.len().
        let fresh = unsafe { load64(src, next.literal) };
        // SAFETY: distance <= to, and to + 16 <= dst.len().
        let old = unsafe { load64(dst, to - distance) };
        let word = old ^ (old ^ fresh) & MASKS[literals & 7];
        // SAFETY: to + 16 <= dst.len().
        unsafe { store64(dst, to, word) }
        copy_word(dst, to + 8, distance);
        if total > 16 {
            // to + total + 16 <= dst.len(), so this ends inside.
            copy_word(dst, to + 16, distance);
            copy_word(dst, to + 24, distance);
            if total > 32 {
                copy_chunks(dst, to + 32, distance, to + total);
            }
        }
        next.literal += literals;
        next.to += total;
        cursor = next;
        done += 1;
    }
    *at = cursor;
    &tokens[done..]
}

/// Copies literals in chunks of 16. The callers have 16 bytes to spare on both sides.
#[inline(always)]
fn copy_literals(src: &[u8], from: usize, dst: &mut [u8], to: usize, len: usize) {
    let mut done = 0;
    while done < len {
        // SAFETY: done < len, and both slices reach 16 bytes further than the literals.
        unsafe { copy16(src, from + done, dst, to + done) }
        done += 16;
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
#[inline(always)]
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
fn sequence(src: &[u8], dst: &mut [u8], at: &mut Cursor, token: Token) -> Result<(), Corrupt> {
    let mut literals = token.literals();
    let mut matched = token.total() - literals;
    if literals == LONG_LITERALS {
        literals += extension(src, &mut at.aux)?;
    }
    let byte = |place: usize| src.get(place).copied().map_or(0, usize::from);
    let distance = at.distance(token, byte(at.aux) | byte(at.aux + 1) << 8);
    if token.is_long_match() {
        matched = MIN_MATCH + extension(src, &mut at.aux)?;
    }
    let bytes = src.get(at.literal..at.literal + literals).ok_or(Corrupt)?;
    dst.get_mut(at.to..at.to + literals)
        .ok_or(Corrupt)?
        .copy_from_slice(bytes);
    at.literal += literals;
    at.to += literals;
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
    let [low, high] = *src
        .get(*aux..)
        .and_then(|rest| rest.first_chunk())
        .ok_or(Corrupt)?;
    *aux += 2;
    Ok(255 + usize::from(u16::from_le_bytes([low, high])))
}
