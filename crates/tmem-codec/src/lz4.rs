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
    let (mut from, mut to) = (0, 0);
    loop {
        let token = usize::from(*src.get(from).ok_or(Corrupt)?);
        from += 1;
        let mut len = token >> 4;
        if len < 15 && from + 16 <= src.len() && to + 16 <= dst.len() {
            // SAFETY: both ends were just compared.
            unsafe { copy16(src, from, dst, to) }
            from += len;
            to += len;
        } else {
            if len == 15 {
                len += extension(src, &mut from)?;
            }
            copy_literals(src, from, dst, to, len)?;
            from += len;
            to += len;
            if from == src.len() {
                return if to == dst.len() { Ok(()) } else { Err(Corrupt) };
            }
        }
        if from + 2 > src.len() {
            return Err(Corrupt);
        }
        // SAFETY: just compared.
        let offset = usize::from(unsafe { load16(src, from) });
        from += 2;
        let mut len = (token & 15) + MIN_MATCH;
        if offset.wrapping_sub(1) >= to {
            return Err(Corrupt);
        }
        if len < 15 + MIN_MATCH && offset >= 8 && to + 24 <= dst.len() {
            copy_8_8_8(dst, to, offset);
        } else {
            if len == 15 + MIN_MATCH {
                len += extension(src, &mut from)?;
            }
            copy_match(dst, to, offset, len)?;
        }
        to += len;
    }
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

/// A match of any length and any offset in `1..=to`.
#[inline(always)]
pub(crate) fn copy_match(dst: &mut [u8], to: usize, offset: usize, len: usize) -> Result<(), Corrupt> {
    let end = to + len;
    if end > dst.len() || offset.wrapping_sub(1) >= to {
        return Err(Corrupt);
    }
    if offset < 8 || end + 16 > dst.len() {
        return copy_match_exactly(dst, to, offset, end);
    }
    let mut at = to;
    while at < end {
        for half in [0, 8] {
            // SAFETY: 8 <= offset <= to <= at, so this ends at or before `at + half`.
            let word = unsafe { load64(dst, at - offset + half) };
            // SAFETY: at < end and end + 16 <= dst.len().
            unsafe { store64(dst, at + half, word) }
        }
        at += 16;
    }
    Ok(())
}

/// Short distances, and the end of the block.
#[inline(never)]
fn copy_match_exactly(dst: &mut [u8], to: usize, offset: usize, end: usize) -> Result<(), Corrupt> {
    if offset == 1 {
        let byte = dst[to - 1];
        dst[to..end].fill(byte);
        return Ok(());
    }
    // Each round doubles what repeats, so that the next can copy twice as much.
    let mut at = to;
    while at < end {
        let len = (at - to + offset).min(end - at);
        dst.copy_within(to - offset..to - offset + len, at);
        at += len;
    }
    Ok(())
}
