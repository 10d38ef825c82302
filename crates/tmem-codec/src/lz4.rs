//! The LZ4 block format, made for blocks of at most 64 KiB.
//!
//! Every position fits 16 bits, so the hash table is 4 KiB for a page instead of the usual 16: clearing it costs a tenth
//! of what it costs elsewhere, and it leaves room in L1 for the page itself.
//!
//! The source may change while it is read. Positions and lengths come from comparisons that are bounded by the
//! *positions* of the block's end and of the match's start, never by a byte's value being the same in a second look; so
//! the output may then be nonsense, but no access leaves the slices.

use crate::codec::Corrupt;
use crate::raw::{copy16, load16, load32, load64, store64};

/// The largest table: 2^13 positions, for 64 KiB blocks.
pub(crate) const TABLE_LEN: usize = 1 << 13;
const MIN_MATCH: usize = 4;
/// The format ends in at least 5 literals, and its last match starts at least 12 bytes before the end.
const LAST_LITERALS: usize = 5;
const MATCH_START_LIMIT: usize = 12;

/// The table's size for a block: 2^11 slots for a page, up to 2^13 for 64 KiB.
pub(crate) fn table_bits(len: usize) -> u32 {
    match len {
        0..=8192 => 11,
        8193..=32768 => 12,
        _ => 13,
    }
}

/// How many bytes at `a` and at `b` (`a < b`) agree, not looking at `limit` and beyond.
///
/// The caller has `limit <= src.len()`.
#[inline(always)]
pub(crate) fn common_len(src: &[u8], mut a: usize, b: usize, limit: usize) -> usize {
    debug_assert!(a < b && limit <= src.len());
    let mut at = b;
    while at + 8 <= limit {
        // SAFETY: at + 8 <= limit <= src.len().
        let there = unsafe { load64(src, at) };
        // SAFETY: a < at, so it ends before `limit` too.
        let difference = there ^ unsafe { load64(src, a) };
        if difference != 0 {
            return at - b + (difference.trailing_zeros() / 8) as usize;
        }
        at += 8;
        a += 8;
    }
    while at < limit && src[at] == src[a] {
        at += 1;
        a += 1;
    }
    at - b
}

/// A length's share of the token: 15 says that more follows.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "at most 15")]
fn nibble(len: usize) -> u8 {
    len.min(15) as u8
}

/// Appends literals and, unless this is the end of the block, one match.
struct Output<'a> {
    dst: &'a mut [u8],
    at: usize,
}

impl Output<'_> {
    /// Writes a length that overflowed its 4 bits. `None` when the output is full.
    fn extend(&mut self, mut rest: usize) -> Option<()> {
        while rest >= 255 {
            *self.dst.get_mut(self.at)? = 255;
            self.at += 1;
            rest -= 255;
        }
        *self.dst.get_mut(self.at)? = u8::try_from(rest).ok()?;
        self.at += 1;
        Some(())
    }

    /// A token with the literals `src[from..to]`; `match_code` is the match's length less 4.
    #[inline(always)]
    fn literals(&mut self, src: &[u8], from: usize, to: usize, match_code: usize) -> Option<()> {
        let len = to - from;
        let token_at = self.at;
        let token = nibble(len) << 4 | nibble(match_code);
        if len < 15 && to + 16 <= src.len() && self.at + 17 <= self.dst.len() {
            self.dst[token_at] = token;
            // SAFETY: from <= to and to + 16 <= src.len(); at + 1 + 16 <= dst.len().
            unsafe { copy16(src, from, self.dst, token_at + 1) }
            self.at += 1 + len;
            return Some(());
        }
        *self.dst.get_mut(token_at)? = token;
        self.at += 1;
        if len >= 15 {
            self.extend(len - 15)?;
        }
        self.dst.get_mut(self.at..self.at + len)?.copy_from_slice(&src[from..to]);
        self.at += len;
        Some(())
    }

    #[inline(always)]
    fn sequence(&mut self, src: &[u8], literals: (usize, usize), offset: usize, len: usize) -> Option<()> {
        let code = len - MIN_MATCH;
        self.literals(src, literals.0, literals.1, code)?;
        let offset = u16::try_from(offset).ok()?;
        self.dst.get_mut(self.at..self.at + 2)?.copy_from_slice(&offset.to_le_bytes());
        self.at += 2;
        if code >= 15 {
            self.extend(code - 15)?;
        }
        Some(())
    }
}

/// A position as the table holds it.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "positions of a block fit 16 bits")]
fn position(at: usize) -> u16 {
    debug_assert!(at < crate::MAX_BLOCK);
    at as u16
}

#[inline(always)]
fn slot(word: u32, bits: u32) -> usize {
    (word.wrapping_mul(2_654_435_761) >> (32 - bits)) as usize & (TABLE_LEN - 1)
}

/// Compresses `src` (at most 64 KiB) into `dst`; the length written, or `None` if it does not fit.
pub(crate) fn encode(table: &mut [u16; TABLE_LEN], src: &[u8], dst: &mut [u8]) -> Option<usize> {
    assert!(src.len() <= crate::MAX_BLOCK);
    let mut out = Output { dst, at: 0 };
    let mut anchor = 0;
    if src.len() > MATCH_START_LIMIT {
        let bits = table_bits(src.len());
        table[..1 << bits].fill(0);
        let last_start = src.len() - MATCH_START_LIMIT;
        let limit = src.len() - LAST_LITERALS;
        let mut at = 1;
        'block: loop {
            let mut misses = 1 << 6;
            let candidate = loop {
                if at > last_start {
                    break 'block;
                }
                // SAFETY: at <= last_start, 12 bytes before the end.
                let word = unsafe { load32(src, at) };
                let entry = &mut table[slot(word, bits)];
                let candidate = usize::from(*entry);
                *entry = position(at);
                // An entry is 0 or an earlier position of this block.
                debug_assert!(candidate < at);
                // SAFETY: candidate < at <= last_start.
                if unsafe { load32(src, candidate.min(at)) } == word {
                    break candidate;
                }
                at += misses >> 6;
                misses += 1;
            };
            let (mut start, mut from) = (at, candidate);
            while start > anchor && from > 0 && src[start - 1] == src[from - 1] {
                start -= 1;
                from -= 1;
            }
            let end = at + MIN_MATCH + common_len(src, candidate + MIN_MATCH, at + MIN_MATCH, limit);
            out.sequence(src, (anchor, start), start - from, end - start)?;
            anchor = end;
            at = end;
            if end <= last_start {
                // SAFETY: end - 2 < last_start, 12 bytes before the end.
                let word = unsafe { load32(src, end - 2) };
                table[slot(word, bits)] = position(end - 2);
            }
        }
    }
    out.literals(src, anchor, src.len(), 0)?;
    Some(out.at)
}

/// Decompresses `src` into exactly `dst`.
pub(crate) fn decode(src: &[u8], dst: &mut [u8]) -> Result<(), Corrupt> {
    let mut at = Cursor { from: 0, to: 0 };
    loop {
        fast(src, dst, &mut at)?;
        if sequence(src, dst, &mut at)? {
            return Ok(());
        }
    }
}

/// Where the decoder stands.
#[derive(Clone, Copy)]
struct Cursor {
    from: usize,
    to: usize,
}

/// The most literals, and the longest match, that a token alone says.
const SHORT_LITERALS: usize = 14;
const SHORT_MATCH: usize = 14 + MIN_MATCH;
/// Bytes of the source that a sequence without extensions reads: a token, a chunk of literals, and the offset in it or
/// right behind it.
const SOURCE_ROOM: usize = 1 + 16;
/// Bytes of the destination that it writes: the literals, and three chunks of 8.
const ROOM: usize = SHORT_LITERALS + 24;

/// Decodes sequences while there is room for whole chunks on both sides.
#[inline(always)]
fn fast(src: &[u8], dst: &mut [u8], at: &mut Cursor) -> Result<(), Corrupt> {
    let (Some(last_from), Some(last_to)) = (src.len().checked_sub(SOURCE_ROOM), dst.len().checked_sub(ROOM)) else {
        return Ok(());
    };
    let mut now = *at;
    while now.from <= last_from && now.to <= last_to {
        // Where a sequence cannot be finished here, it is begun anew.
        *at = now;
        // SAFETY: now.from <= last_from.
        let token = usize::from(unsafe { *src.get_unchecked(now.from) });
        let (literals, code) = (token >> 4, token & 15);
        now.from += 1;
        if literals <= SHORT_LITERALS {
            // SAFETY: now.from - 1 <= last_from and now.to <= last_to.
            unsafe { copy16(src, now.from, dst, now.to) }
            now.from += literals;
            now.to += literals;
        } else {
            match long_literals(src, dst, now) {
                Some(after) => now = after,
                None => return Ok(()),
            }
        }
        // SAFETY: SOURCE_ROOM ends 2 bytes behind SHORT_LITERALS; `long_literals` leaves 16 bytes.
        let offset = usize::from(unsafe { load16(src, now.from) });
        now.from += 2;
        if offset.wrapping_sub(1) >= now.to {
            return Err(Corrupt);
        }
        if code + MIN_MATCH <= SHORT_MATCH && offset >= 8 {
            copy_8_8_8(dst, now.to, offset);
            now.to += code + MIN_MATCH;
        } else {
            match long_match(src, dst, now, offset, code + MIN_MATCH) {
                Some(after) => now = after,
                None => return Ok(()),
            }
        }
    }
    *at = now;
    Ok(())
}

/// Copies literals whose number is an extension, if there is room for chunks of 16 and for a whole match after them.
#[inline(always)]
fn long_literals(src: &[u8], dst: &mut [u8], Cursor { mut from, to }: Cursor) -> Option<Cursor> {
    let len = SHORT_LITERALS + 1 + extension(src, &mut from).ok()?;
    if from + len + 16 > src.len() || to + len + ROOM > dst.len() {
        return None;
    }
    let mut done = 0;
    while done < len {
        // SAFETY: done < len, so this ends less than 16 bytes after the literals, on both sides.
        unsafe { copy16(src, from + done, dst, to + done) }
        done += 16;
    }
    Some(Cursor { from: from + len, to: to + len })
}

/// Copies a match whose length is an extension or whose offset is below 8, if there is room for chunks of 16.
#[inline(always)]
fn long_match(src: &[u8], dst: &mut [u8], at: Cursor, offset: usize, mut len: usize) -> Option<Cursor> {
    let Cursor { mut from, to } = at;
    if len > SHORT_MATCH {
        len += extension(src, &mut from).ok()?;
    }
    if to + len + 16 > dst.len() {
        return None;
    }
    copy_chunks(dst, to, offset, to + len);
    Some(Cursor { from, to: to + len })
}

/// One sequence with every step checked. Returns whether it was the last.
#[inline(never)]
fn sequence(src: &[u8], dst: &mut [u8], at: &mut Cursor) -> Result<bool, Corrupt> {
    let token = usize::from(*src.get(at.from).ok_or(Corrupt)?);
    at.from += 1;
    let mut len = token >> 4;
    if len > SHORT_LITERALS {
        len += extension(src, &mut at.from)?;
    }
    copy_literals(src, at.from, dst, at.to, len)?;
    at.from += len;
    at.to += len;
    if at.from == src.len() {
        return if at.to == dst.len() { Ok(true) } else { Err(Corrupt) };
    }
    let offset: [u8; 2] = *src.get(at.from..).and_then(|rest| rest.first_chunk()).ok_or(Corrupt)?;
    at.from += 2;
    let mut len = (token & 15) + MIN_MATCH;
    if len > SHORT_MATCH {
        len += extension(src, &mut at.from)?;
    }
    copy_match(dst, at.to, usize::from(u16::from_le_bytes(offset)), len)?;
    at.to += len;
    Ok(false)
}

/// Literals of any length: in chunks where both sides have 16 bytes to spare.
#[inline(always)]
pub(crate) fn copy_literals(src: &[u8], from: usize, dst: &mut [u8], to: usize, len: usize) -> Result<(), Corrupt> {
    if from + len + 16 > src.len() || to + len + 16 > dst.len() {
        let literals = src.get(from..from + len).ok_or(Corrupt)?;
        dst.get_mut(to..to + len).ok_or(Corrupt)?.copy_from_slice(literals);
        return Ok(());
    }
    let mut done = 0;
    while done < len {
        // SAFETY: done < len, so both chunks end less than 16 bytes after the literals.
        unsafe { copy16(src, from + done, dst, to + done) }
        done += 16;
    }
    Ok(())
}

/// The bytes after a length of 15: each adds its value, and one below 255 is the last.
fn extension(src: &[u8], from: &mut usize) -> Result<usize, Corrupt> {
    let mut sum = 0;
    loop {
        let byte = *src.get(*from).ok_or(Corrupt)?;
        *from += 1;
        sum += usize::from(byte);
        if byte != 255 {
            return Ok(sum);
        }
    }
}

/// 24 bytes from `offset` back; in chunks of 8, since a chunk may reach what the chunk before it wrote.
#[inline(always)]
fn copy_8_8_8(dst: &mut [u8], to: usize, offset: usize) {
    debug_assert!((8..=to).contains(&offset) && to + 24 <= dst.len());
    for step in [0, 8, 16] {
        // SAFETY: the callers have 8 <= offset <= to and to + 24 <= dst.len(), so this starts in the slice and ends
        // at or before `to + step`.
        let word = unsafe { load64(dst, to - offset + step) };
        // SAFETY: to + step + 8 <= to + 24 <= dst.len().
        unsafe { store64(dst, to + step, word) }
    }
}

/// What repeats some number of bytes below 8 all over a word, multiplied by them.
const REPEATED: [u64; 8] = [
    0,
    0x0101_0101_0101_0101,
    0x0001_0001_0001_0001,
    0x0001_0000_0100_0001,
    0x0000_0001_0000_0001,
    0x0000_0100_0000_0001,
    0x0001_0000_0000_0001,
    0x0100_0000_0000_0001,
];

/// Up to 15 bytes more than a match that goes from `to` to `end`.
///
/// A load that reaches across two recent stores has to wait until both are in the cache. So what repeats within a word
/// is not loaded again, and else what has been written is taken from as far back as it can be.
#[inline(always)]
fn copy_chunks(dst: &mut [u8], to: usize, mut offset: usize, end: usize) {
    debug_assert!((1..=to).contains(&offset) && end + 16 <= dst.len());
    let mut at = to;
    let mut first = to - offset;
    if offset < 8 {
        // SAFETY: to - offset + 8 <= end + 8.
        let before = unsafe { load64(dst, to - offset) };
        let mask = (1 << (8 * offset)) - 1;
        let mut repeated = before & mask;
        let turned = 8 * (8 % offset);
        // After as many words as the offset has bytes, it begins again with the first.
        for _ in 0..offset {
            if at >= end {
                return;
            }
            // SAFETY: at < end and end + 16 <= dst.len().
            unsafe { store64(dst, at, repeated.wrapping_mul(REPEATED[offset])) }
            repeated = (repeated >> turned | repeated << (8 * offset - turned)) & mask;
            at += 8;
        }
        first = to;
        offset *= 8;
    }
    while at < end {
        for half in [0, 8] {
            // SAFETY: 8 <= offset <= at, so this ends at or before `at + half`.
            let word = unsafe { load64(dst, at - offset + half) };
            // SAFETY: at < end and end + 16 <= dst.len().
            unsafe { store64(dst, at + half, word) }
        }
        at += 16;
        if at - first >= 2 * offset {
            offset *= 2;
        }
    }
}

/// A match of any length and any offset in `1..=to`.
#[inline(always)]
pub(crate) fn copy_match(dst: &mut [u8], mut to: usize, offset: usize, len: usize) -> Result<(), Corrupt> {
    let end = to + len;
    if end > dst.len() || offset.wrapping_sub(1) >= to {
        return Err(Corrupt);
    }
    let chunks_end = end.min(dst.len().saturating_sub(16));
    if to < chunks_end {
        copy_chunks(dst, to, offset, chunks_end);
        to = chunks_end;
    }
    for place in to..end {
        dst[place] = dst[place - offset];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    /// `before` after a match of `len` bytes to `to`, copied byte by byte.
    fn copied(before: &[u8], to: usize, offset: usize, len: usize) -> Vec<u8> {
        let mut bytes = before[..to].to_vec();
        (0..len).for_each(|at| bytes.push(bytes[to + at - offset]));
        bytes
    }

    #[test]
    fn a_match_is_what_copying_byte_by_byte_makes_of_it() {
        const LEN: usize = 420;
        let before: Vec<u8> = (0..LEN).map(|at| (at * 37 % 251).to_le_bytes()[0]).collect();
        let places = (MIN_MATCH..=LEN - 70).flat_map(|len| [(70, len), (LEN - len, len)]);
        for ((to, len), offset) in places.flat_map(|place| (1..=70).map(move |offset| (place, offset))) {
            let mut bytes = before.clone();
            copy_match(&mut bytes, to, offset, len).unwrap();
            assert!(bytes[..to + len] == copied(&before, to, offset, len), "offset {offset}, {len} bytes to {to}");
        }
    }
}
