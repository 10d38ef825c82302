//! An LZ made for memory words.
//!
//! What a heap repeats is words at a fixed distance: the same field of the object before. So a match may continue at
//! the distance of the one before it for no bytes at all, a distance that is a multiple of 8 costs one byte, and the
//! common case "the low bytes of this word are new, the high ones are as before" is one token.
//!
//! # Format
//! ```text
//! literals: u16 | aux: u16 | literal bytes | aux bytes | tokens, one byte each, up to the end
//!
//! token    mode << 6 | literals << 3 | match       copy `literals` bytes, then `match + 4` bytes from `distance` back
//!   mode   0  the distance of the match before                                    (at the start: 8)
//!          1  the distance that was in use before that one; the two change places (at the start: 16)
//!          2  8 * (b + 1), b the next byte of aux
//!          3  the next two bytes of aux, little end first; at least 8
//!   7 in a length field: an extension byte in aux is added; where that is 255, two more bytes are added as well.
//!   Order within aux: extension of the literals, distance, extension of the match.
//! ```
//! What the tokens leave of the block is literals. Three streams, since then neither the place of the next token nor
//! that of the next literal waits for a length to be decoded. No distance is below 8, so every copy is whole 8-byte
//! chunks.
//!
//! The source may change under the encoder: as in `lz4`, every length is bounded by positions.

use crate::MAX_BLOCK;
use crate::codec::Corrupt;
use crate::lz4::{TABLE_LEN, common_len, copy_match, table_bits};
use crate::raw::{copy16, load16, load32, load64, store64};

const MIN_MATCH: usize = 4;
const HEADER: usize = 4;
/// A token covers at least a match.
const TOKENS_MAX: usize = MAX_BLOCK / MIN_MATCH;
/// Two bytes for a match of 4 is the most that aux takes per byte of the block.
const AUX_MAX: usize = MAX_BLOCK / 2 + 16;

/// The streams that are put behind the literals when their lengths are known.
#[derive(Debug)]
pub(crate) struct Streams {
    tokens: [u8; TOKENS_MAX],
    aux: [u8; AUX_MAX],
}

impl Streams {
    pub(crate) const fn new() -> Self {
        Self {
            tokens: [0; TOKENS_MAX],
            aux: [0; AUX_MAX],
        }
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
    #[inline(always)]
    fn aux(&mut self, byte: u8) {
        self.streams.aux[self.aux_len] = byte;
        self.aux_len += 1;
    }

    #[inline(never)]
    fn extend(&mut self, rest: usize) {
        if rest < 255 {
            self.aux(rest as u8);
        } else {
            self.aux(255);
            let [low, high] = ((rest - 255) as u16).to_le_bytes();
            self.aux(low);
            self.aux(high);
        }
    }

    #[inline(always)]
    fn literals(&mut self, src: &[u8], from: usize, to: usize) -> Option<()> {
        let at = self.literals_end;
        self.literals_end += to - from;
        if to - from <= 8 && from + 8 <= src.len() && at + 8 <= self.dst.len() {
            let word = unsafe { load64(src, from) };
            unsafe { store64(self.dst, at, word) };
            return Some(());
        }
        self.dst
            .get_mut(at..self.literals_end)?
            .copy_from_slice(&src[from..to]);
        Some(())
    }

    #[inline(always)]
    fn sequence(
        &mut self,
        src: &[u8],
        anchor: usize,
        start: usize,
        end: usize,
        distance: usize,
    ) -> Option<()> {
        let literals = start - anchor;
        self.literals(src, anchor, start)?;
        if literals >= 7 {
            self.extend(literals - 7);
        }
        let mode = if distance == self.distances[0] {
            0
        } else if distance == self.distances[1] {
            self.distances.swap(0, 1);
            1
        } else {
            self.distances = [distance, self.distances[0]];
            if distance % 8 == 0 && distance <= 2048 {
                self.aux((distance / 8 - 1) as u8);
                2
            } else {
                let [low, high] = (distance as u16).to_le_bytes();
                self.aux(low);
                self.aux(high);
                3
            }
        };
        let len = end - start - MIN_MATCH;
        if len >= 7 {
            self.extend(len - 7);
        }
        self.streams.tokens[self.tokens_len] =
            (mode << 6 | literals.min(7) << 3 | len.min(7)) as u8;
        self.tokens_len += 1;
        Some(())
    }

    fn finish(mut self, src: &[u8], anchor: usize) -> Option<usize> {
        self.literals(src, anchor, src.len())?;
        let aux_end = self.literals_end + self.aux_len;
        let end = aux_end + self.tokens_len;
        self.dst
            .get_mut(self.literals_end..aux_end)?
            .copy_from_slice(&self.streams.aux[..self.aux_len]);
        self.dst
            .get_mut(aux_end..end)?
            .copy_from_slice(&self.streams.tokens[..self.tokens_len]);
        self.dst[..2].copy_from_slice(&((self.literals_end - HEADER) as u16).to_le_bytes());
        self.dst[2..4].copy_from_slice(&(self.aux_len as u16).to_le_bytes());
        Some(end)
    }
}

#[inline(always)]
fn slot(word: u32, bits: u32) -> usize {
    (word.wrapping_mul(2_654_435_761) >> (32 - bits)) as usize & (TABLE_LEN - 1)
}

/// Which of the 16 bytes at `at` equal those `distance` before, a bit each.
#[inline(always)]
fn equal_bytes(src: &[u8], at: usize, distance: usize) -> u32 {
    use core::arch::x86_64::*;
    debug_assert!(distance <= at && at + 16 <= src.len());
    unsafe {
        let a = _mm_loadu_si128(src.as_ptr().add(at).cast());
        let b = _mm_loadu_si128(src.as_ptr().add(at - distance).cast());
        _mm_movemask_epi8(_mm_cmpeq_epi8(a, b)) as u32
    }
}

const STEP: usize = 4;
pub(crate) fn encode(
    table: &mut [u16; TABLE_LEN],
    streams: &mut Streams,
    src: &[u8],
    dst: &mut [u8],
) -> Option<usize> {
    if src.len() < 32 || dst.len() < 16 {
        return None;
    }
    let mut out = Output {
        dst,
        streams,
        literals_end: HEADER,
        tokens_len: 0,
        aux_len: 0,
        distances: [8, 16],
    };
    let bits = table_bits(src.len());
    table[..1 << bits].fill(0);
    let len = src.len();
    let last_start = len - 8;
    let mut anchor = 0;
    let mut at = 8;
    'block: loop {
        let mut misses = 8;
        let (found, distance) = loop {
            if at > last_start {
                break 'block;
            }
            let word = unsafe { load32(src, at) };
            let entry = &mut table[slot(word, bits)];
            let candidate = usize::from(*entry);
            *entry = at as u16;
            let repeat = out.distances[0];
            if repeat <= at && unsafe { load32(src, at - repeat) } == word {
                break (at, repeat);
            }
            if candidate + 8 <= at && unsafe { load32(src, candidate) } == word {
                break (at, at - candidate);
            }
            at += STEP * (misses >> 3);
            misses += 1;
        };
        let (mut found, mut distance) = (found, distance);
        loop {
            let mut start = found;
            while start > anchor && start > distance && src[start - 1] == src[start - 1 - distance]
            {
                start -= 1;
            }
            let end = found + 4 + common_len(src, found + 4 - distance, found + 4, len);
            out.sequence(src, anchor, start, end, distance)?;
            anchor = end;
            at = end;
            if end + 16 > len {
                break;
            }
            // A long match elsewhere, or else the same distance again within this word.
            let word = unsafe { load32(src, end) };
            let entry = &mut table[slot(word, bits)];
            let candidate = usize::from(*entry);
            *entry = end as u16;
            if candidate + 8 <= end
                && unsafe { load64(src, candidate) } == unsafe { load64(src, end) }
            {
                found = end;
                distance = end - candidate;
                continue;
            }
            let equal = equal_bytes(src, end, distance);
            let runs = equal & equal >> 1 & equal >> 2 & equal >> 3;
            if runs != 0 && runs.trailing_zeros() < 8 {
                found = end + runs.trailing_zeros() as usize;
                continue;
            }
            break;
        }
        if STEP == 4 {
            at = (at + 3) & !3;
        }
    }
    out.finish(src, anchor)
}

pub(crate) fn decode(src: &[u8], dst: &mut [u8]) -> Result<(), Corrupt> {
    let header: [u8; HEADER] = *src.first_chunk().ok_or(Corrupt)?;
    let [a, b, c, d] = header;
    let literals_end = HEADER + usize::from(u16::from_le_bytes([a, b]));
    let aux_end = literals_end + usize::from(u16::from_le_bytes([c, d]));
    let tokens = src.get(aux_end..).ok_or(Corrupt)?;
    let mut at = Cursor {
        literal: HEADER,
        aux: literals_end,
        to: 0,
        distances: [8, 16],
    };
    let mut done = 0;
    // The fast loop wants 8 readable bytes at the literals and 2 at aux, and room for chunks that overshoot.
    if src.len() >= 16 && dst.len() >= 64 {
        let literal_limit = src.len() - 8;
        let aux_limit = src.len() - 2;
        let to_limit = dst.len() - 32;
        while done < tokens.len() {
            let token = usize::from(tokens[done]);
            let mut next = at;
            let literals = token >> 3 & 7;
            let matched = (token & 7) + MIN_MATCH;
            let long = (literals == 7) | (matched == 7 + MIN_MATCH);
            if long {
                if long_sequence(src, dst, &mut at, token).is_none() {
                    break;
                }
                done += 1;
                continue;
            }
            if (next.aux > aux_limit) | (next.literal > literal_limit) | (next.to > to_limit) {
                break;
            }
            let raw = usize::from(unsafe { load16(src, next.aux) });
            let distance = next.distance(token >> 6, raw);
            let word = unsafe { load64(src, next.literal) };
            unsafe { store64(dst, next.to, word) };
            next.literal += literals;
            next.to += literals;
            if (distance < 8) | (distance > next.to) {
                return Err(Corrupt);
            }
            let word = unsafe { load64(dst, next.to - distance) };
            unsafe { store64(dst, next.to, word) };
            let word = unsafe { load64(dst, next.to - distance + 8) };
            unsafe { store64(dst, next.to + 8, word) };
            next.to += matched;
            at = next;
            done += 1;
        }
    }
    for &token in &tokens[done..] {
        sequence(src, dst, &mut at, usize::from(token))?;
    }
    let rest = src.get(at.literal..literals_end).ok_or(Corrupt)?;
    let place = dst.get_mut(at.to..).ok_or(Corrupt)?;
    if at.aux != aux_end || place.len() != rest.len() {
        return Err(Corrupt);
    }
    place.copy_from_slice(rest);
    Ok(())
}

#[derive(Clone, Copy)]
struct Cursor {
    literal: usize,
    aux: usize,
    to: usize,
    distances: [usize; 2],
}

impl Cursor {
    #[inline(always)]
    fn distance(&mut self, mode: usize, raw: usize) -> usize {
        let [newest, older] = self.distances;
        let fresh = if mode & 1 == 0 {
            ((raw & 255) + 1) * 8
        } else {
            raw
        };
        let again = if mode & 1 == 0 { newest } else { older };
        let distance = if mode & 2 == 0 { again } else { fresh };
        self.distances = [distance, if mode == 0 { older } else { newest }];
        self.aux += mode.saturating_sub(1);
        distance
    }
}

/// `None`: not near enough ends; nothing moved.
#[inline(always)]
fn long_sequence(src: &[u8], dst: &mut [u8], at: &mut Cursor, token: usize) -> Option<()> {
    let mut next = *at;
    let mut literals = token >> 3 & 7;
    let mut matched = (token & 7) + MIN_MATCH;
    if literals == 7 {
        literals += extension(src, &mut next.aux).ok()?;
    }
    if next.aux + 2 > src.len() {
        return None;
    }
    let raw = usize::from(unsafe { load16(src, next.aux) });
    let distance = next.distance(token >> 6, raw);
    if matched == 7 + MIN_MATCH {
        matched += extension(src, &mut next.aux).ok()?;
    }
    let match_at = next.to + literals;
    if next.literal + literals + 16 > src.len()
        || match_at + matched + 32 > dst.len()
        || distance < 8
        || distance > match_at
    {
        return None;
    }
    let mut moved = 0;
    while {
        unsafe { copy16(src, next.literal + moved, dst, next.to + moved) };
        moved += 16;
        moved < literals
    } {}
    let mut to = match_at;
    let end = match_at + matched;
    if distance >= 16 {
        while {
            let low = unsafe { load64(dst, to - distance) };
            let high = unsafe { load64(dst, to - distance + 8) };
            unsafe { store64(dst, to, low) };
            unsafe { store64(dst, to + 8, high) };
            to += 16;
            to < end
        } {}
    } else {
        while {
            let word = unsafe { load64(dst, to - distance) };
            unsafe { store64(dst, to, word) };
            to += 8;
            to < end
        } {}
    }
    next.literal += literals;
    next.to = end;
    *at = next;
    Some(())
}

/// One token with every step checked.
#[inline(never)]
fn sequence(src: &[u8], dst: &mut [u8], at: &mut Cursor, token: usize) -> Result<(), Corrupt> {
    let mut literals = token >> 3 & 7;
    let mut matched = (token & 7) + MIN_MATCH;
    if literals == 7 {
        literals += extension(src, &mut at.aux)?;
    }
    let byte = |place: usize| src.get(place).copied().map_or(0, usize::from);
    let distance = at.distance(token >> 6, byte(at.aux) | byte(at.aux + 1) << 8);
    if matched == 7 + MIN_MATCH {
        matched += extension(src, &mut at.aux)?;
    }
    let bytes = src.get(at.literal..at.literal + literals).ok_or(Corrupt)?;
    dst.get_mut(at.to..at.to + literals)
        .ok_or(Corrupt)?
        .copy_from_slice(bytes);
    at.literal += literals;
    at.to += literals;
    if distance < 8 {
        return Err(Corrupt);
    }
    copy_match(dst, at.to, distance, matched)?;
    at.to += matched;
    Ok(())
}

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
