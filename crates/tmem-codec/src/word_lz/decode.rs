//! The decoder: one pass over the tokens, each proved in bounds by one fused comparison.

use super::tokens::{ALPHABET, LONG_LITERALS, MIN_MATCH, Token};
use super::{FIRST_DISTANCES, HEADER, MIN_DISTANCE};
use crate::codec::Corrupt;
use crate::lz4::copy_match;
use crate::raw::{copy16, load16, load64, store64};

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
    fn distance(&mut self, mode: usize, pair: usize) -> usize {
        let [newest, older] = self.distances;
        let fresh = if mode & 1 == 0 { ((pair & 255) + 1) * 8 } else { pair };
        let again = if mode & 1 == 0 { newest } else { older };
        let distance = if mode & 2 == 0 { again } else { fresh };
        self.distances = [distance, if mode == 0 { older } else { newest }];
        self.aux += mode.saturating_sub(1);
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
    let mut at = Cursor { literal: HEADER, aux: literals_end, to: 0, distances: FIRST_DISTANCES };
    let mut left = tokens;
    loop {
        left = fast(src, dst, left, &mut at);
        let Some((&token, rest)) = left.split_first() else { break };
        let token = ALPHABET.decode[usize::from(token)];
        if long_sequence(src, dst, &mut at, token).is_none() {
            sequence(src, dst, &mut at, token)?;
        }
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

/// How many tokens can be decoded without looking at the ends of the source: each takes fewer than 8 literals and at
/// most 2 bytes of aux.
#[inline(always)]
fn unchecked_tokens(src: &[u8], at: &Cursor) -> usize {
    let literals = (src.len() - at.literal) / 8;
    let aux = (src.len() - at.aux) / 2;
    literals.min(aux)
}

/// Decodes tokens that have no extension, while there is room for whole chunks on all sides; what it leaves.
#[inline(always)]
fn fast<'a>(src: &[u8], dst: &mut [u8], tokens: &'a [u8], at: &mut Cursor) -> &'a [u8] {
    let batch = unchecked_tokens(src, at).min(tokens.len());
    if at.to < MIN_DISTANCE || dst.len() < 16 {
        return tokens;
    }
    let to_limit = dst.len() - 16;
    let mut cursor = *at;
    let mut done = 0;
    while done < batch {
        let token = ALPHABET.decode[usize::from(tokens[done])];
        if token.is_long() {
            break;
        }
        // SAFETY: fewer than `batch` tokens took at most 2 bytes of aux each, so aux + 2 <= src.len().
        let pair = usize::from(unsafe { load16(src, cursor.aux) });
        let mut next = cursor;
        let distance = next.distance(token.mode(), pair);
        let (to, total) = (cursor.to, token.total());
        // With to >= 8, which was so at the start, the first of these says 8 <= distance <= to.
        if (distance.wrapping_sub(MIN_DISTANCE) > to - MIN_DISTANCE) | (to + total > to_limit) {
            break;
        }
        // SAFETY: fewer than `batch` tokens took fewer than 8 literals each, so literal + 8 <= src.len().
        let fresh = unsafe { load64(src, cursor.literal) };
        // SAFETY: distance <= to, and to + 16 <= dst.len().
        let old = unsafe { load64(dst, to - distance) };
        let word = old ^ (old ^ fresh) & MASKS[token.literals() & 7];
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
        next.literal += token.literals();
        next.to += total;
        cursor = next;
        done += 1;
    }
    *at = cursor;
    &tokens[done..]
}

/// Copies 8 bytes from `distance` before. The callers have `8 <= distance <= to` and `to + 8 <= dst.len()`.
#[inline(always)]
fn copy_word(dst: &mut [u8], to: usize, distance: usize) {
    // SAFETY: distance <= to, and it ends at or before `to`.
    let word = unsafe { load64(dst, to - distance) };
    // SAFETY: to + 8 <= dst.len().
    unsafe { store64(dst, to, word) }
}

/// Copies from `distance` before, in 8-byte chunks, until `end` is reached or passed by up to 8 bytes.
///
/// The callers have `8 <= distance <= to` and `end + 16 <= dst.len()`.
#[inline(never)]
fn copy_chunks(dst: &mut [u8], mut to: usize, distance: usize, end: usize) {
    debug_assert!((MIN_DISTANCE..=to).contains(&distance) && end + 16 <= dst.len());
    while to < end {
        copy_word(dst, to, distance);
        to += 8;
    }
}

/// Any token, where there is room. `None`: there is not, or it is corrupt, and nothing has moved.
#[inline(never)]
fn long_sequence(src: &[u8], dst: &mut [u8], at: &mut Cursor, token: Token) -> Option<()> {
    let mut next = *at;
    let mut literals = token.literals();
    let mut matched = token.total() - literals;
    if literals == LONG_LITERALS {
        literals += extension(src, &mut next.aux).ok()?;
    }
    let [low, high] = *src.get(next.aux..)?.first_chunk()?;
    let distance = next.distance(token.mode(), usize::from(u16::from_le_bytes([low, high])));
    if token.is_long_match() {
        matched = MIN_MATCH + extension(src, &mut next.aux).ok()?;
    }
    let start = next.to + literals;
    let end = start + matched;
    if next.literal + literals + 16 > src.len() || end + 16 > dst.len() || !(MIN_DISTANCE..=start).contains(&distance)
    {
        return None;
    }
    for done in (0..literals).step_by(16) {
        // SAFETY: done < literals, so the chunks end less than 16 bytes after the literals, in `src` and in `dst`.
        unsafe { copy16(src, next.literal + done, dst, next.to + done) }
    }
    copy_chunks(dst, start, distance, end);
    next.literal += literals;
    next.to = end;
    *at = next;
    Some(())
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
    let distance = at.distance(token.mode(), byte(at.aux) | byte(at.aux + 1) << 8);
    if token.is_long_match() {
        matched = MIN_MATCH + extension(src, &mut at.aux)?;
    }
    let bytes = src.get(at.literal..at.literal + literals).ok_or(Corrupt)?;
    dst.get_mut(at.to..at.to + literals).ok_or(Corrupt)?.copy_from_slice(bytes);
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
    let [low, high] = *src.get(*aux..).and_then(|rest| rest.first_chunk()).ok_or(Corrupt)?;
    *aux += 2;
    Ok(255 + usize::from(u16::from_le_bytes([low, high])))
}
