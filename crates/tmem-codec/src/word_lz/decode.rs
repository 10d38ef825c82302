//! The decoder: one pass over the tokens.
//!
//! How far the three streams of the source are from their ends is looked at once for a *burst* of tokens, each of which
//! takes at most 8 literals and 3 bytes of aux; within it, a token is checked for its room in the destination and for
//! its distance, and for nothing else. What takes more than that is dealt with off the common path.

use super::tokens::{ALPHABET, LONG_LITERALS, Token};
use super::{FIRST_GAPS, HEADER, MIN_DISTANCE};
use crate::codec::Corrupt;
use crate::lz4::{copy_literals, copy_match};

/// Where the streams are read from: a block, or for aux and tokens the copy of their end.
struct Source<'a> {
    /// The block. Literals are read from it.
    block: &'a [u8],
    /// Aux, the tokens, and what may be read behind them.
    control: &'a [u8],
    tokens_end: usize,
}

/// Where the decoder stands in each stream.
#[derive(Clone, Copy)]
struct Cursor {
    literal: usize,
    aux: usize,
    token: usize,
    to: usize,
    gaps: [usize; 2],
}

/// The gap of the next match and the one before it, `pair` being the next two bytes of aux. Without branches.
#[inline(always)]
fn next_gaps(token: &Token, pair: usize, [newest, older]: [usize; 2]) -> [usize; 2] {
    let fresh = if token.is_odd() { pair } else { (pair & 255) * 8 };
    let again = if token.is_odd() { older } else { newest };
    let older = if token.is_same() { older } else { newest };
    [if token.is_fresh() { fresh } else { again }, older]
}

/// Bytes of aux and tokens that are copied to where more may be read behind them.
const TAIL: usize = 16;
/// What may be read behind them: as much as keeps all tokens of a tail in a burst.
const TAIL_ROOM: usize = AUX_READ + TAIL * AUX_BYTES;

/// Decompresses `src` into exactly `dst`.
pub(crate) fn decode(src: &[u8], dst: &mut [u8]) -> Result<(), Corrupt> {
    decode_by(src, dst, fast)
}

/// With one of the versions of the fast loop.
#[inline(always)]
fn decode_by(
    src: &[u8],
    dst: &mut [u8],
    fast: impl Fn(&Source<'_>, &mut [u8], &mut Cursor) -> Result<(), Corrupt>,
) -> Result<(), Corrupt> {
    let [a, b, c, d] = *src.first_chunk::<HEADER>().ok_or(Corrupt)?;
    let literals_end = HEADER + usize::from(u16::from_le_bytes([a, b]));
    let mut aux_end = usize::from(u16::from_le_bytes([c, d]));
    let control = src.get(literals_end..).ok_or(Corrupt)?;
    let mut source = Source { block: src, control, tokens_end: control.len() };
    let mut at = Cursor { literal: HEADER, aux: 0, token: aux_end, to: 0, gaps: FIRST_GAPS };
    if aux_end > control.len() {
        return Err(Corrupt);
    }
    let mut tail = [0; TAIL + TAIL_ROOM];
    while at.token < source.tokens_end {
        fast(&source, dst, &mut at)?;
        let left = at.aux.min(at.token)..source.tokens_end;
        if left.len() <= TAIL && source.control.len() != tail.len() {
            // Aux that reached into the tokens is noticed at the end.
            aux_end = aux_end.checked_sub(left.start).ok_or(Corrupt)?;
            at.aux -= left.start;
            at.token -= left.start;
            tail[..left.len()].copy_from_slice(&control[left.clone()]);
            source = Source { block: src, control: &tail, tokens_end: left.len() };
        } else if at.token < source.tokens_end {
            sequence(&source, dst, &mut at)?;
        }
    }
    let rest = literals_end.checked_sub(at.literal).ok_or(Corrupt)?;
    if at.aux != aux_end || at.to + rest != dst.len() {
        return Err(Corrupt);
    }
    copy_literals(src, at.literal, dst, at.to, rest)
}

/// See [`fast_by`].
#[inline(always)]
fn fast(source: &Source<'_>, dst: &mut [u8], at: &mut Cursor) -> Result<(), Corrupt> {
    #[cfg(target_arch = "x86_64")]
    if crate::cpu::is_wide() {
        // SAFETY: just asked.
        return unsafe { fast_wide(source, dst, at) };
    }
    fast_portable(source, dst, at)
}

/// Not inlined: it needs every register.
#[inline(never)]
fn fast_portable(source: &Source<'_>, dst: &mut [u8], at: &mut Cursor) -> Result<(), Corrupt> {
    fast_by(source, dst, at)
}

/// The same, for the CPUs that most have.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
#[inline(never)]
fn fast_wide(source: &Source<'_>, dst: &mut [u8], at: &mut Cursor) -> Result<(), Corrupt> {
    fast_by(source, dst, at)
}

/// Bytes that are copied for every token, whatever its length.
const ALWAYS: usize = 16;
/// Bytes of literals that are read for every token, and that it takes at most.
const LITERAL_READ: usize = 8;
/// Bytes of aux that are read for every token.
const AUX_READ: usize = 4;
/// Bytes of aux that it takes at most.
const AUX_BYTES: usize = 3;
/// The extension of a count that two bytes more belong to.
const LONG_COUNT: u32 = 255;

/// Decodes tokens, while a burst of one is left and the destination has room for whole chunks.
#[inline(always)]
fn fast_by(source: &Source<'_>, dst: &mut [u8], at: &mut Cursor) -> Result<(), Corrupt> {
    if at.to < MIN_DISTANCE || dst.len() < ALWAYS {
        return Ok(());
    }
    let (start, block, control) = (dst.as_mut_ptr(), source.block.as_ptr(), source.control.as_ptr());
    // The highest place from which 16 bytes can be written.
    let to_limit = start.wrapping_add(dst.len() - ALWAYS);
    // The lowest place to which something can be copied from the least distance.
    let nearest = start.wrapping_add(MIN_DISTANCE);
    let mut now = Places {
        literal: block.wrapping_add(at.literal),
        aux: control.wrapping_add(at.aux),
        to: start.wrapping_add(at.to),
        gaps: at.gaps,
    };
    let mut place = control.wrapping_add(at.token);
    'bursts: loop {
        let burst_end = place.wrapping_add(source.burst(&now, place));
        if place == burst_end {
            break;
        }
        while place < burst_end {
            // SAFETY: place is below burst_end, which is not behind the tokens' end.
            let token = &ALPHABET.decode[usize::from(unsafe { place.read() })];
            // SAFETY: within a burst.
            let next = u32::from_le_bytes(unsafe { now.aux.cast::<[u8; AUX_READ]>().read() });
            // The match's length, if it is an extension, is behind the distance.
            let count = next >> token.distance_bits() & token.count_mask();
            let total = token.total() + count as usize;
            // Literals that are an extension have a total above any block's length.
            if now.to.addr() + total > to_limit.addr() {
                // SAFETY: these are places in the source's streams and in the destination.
                let after = unsafe { source.long_literals(token, now, [nearest, to_limit]) };
                let Some(after) = after else { break 'bursts };
                now = after;
                place = place.wrapping_add(1);
                // It took more of the streams than what a burst counts on.
                continue 'bursts;
            }
            let gaps = next_gaps(token, (next & 0xffff) as usize, now.gaps);
            let from = now.to.wrapping_sub(gaps[0]);
            if from < nearest {
                return Err(Corrupt);
            }
            let from = from.wrapping_sub(MIN_DISTANCE);
            // SAFETY: within a burst.
            let fresh = u64::from_le_bytes(unsafe { now.literal.cast::<[u8; LITERAL_READ]>().read() });
            // SAFETY: from is at least `start` and 8 below `to`, and to + 16 is inside the destination.
            let old = u64::from_le_bytes(unsafe { from.cast::<[u8; 8]>().read() });
            let merged = old ^ (old ^ fresh) & token.mask;
            // SAFETY: to + total + 16 is inside the destination.
            unsafe { now.to.cast::<[u8; 8]>().write(merged.to_le_bytes()) }
            // SAFETY: as above.
            unsafe { copy8(from, now.to, 8) }
            if total > ALWAYS {
                if count == LONG_COUNT {
                    // Nothing was taken yet, and what was written is written again.
                    break 'bursts;
                }
                // SAFETY: to + total + 16 is inside the destination.
                unsafe { copy_rest(from, now.to, total) }
            }
            now.gaps = gaps;
            now.literal = now.literal.wrapping_add(token.literals());
            now.aux = now.aux.wrapping_add(token.aux());
            now.to = now.to.wrapping_add(total);
            place = place.wrapping_add(1);
        }
    }
    *at = Cursor {
        literal: now.literal.addr() - block.addr(),
        aux: now.aux.addr() - control.addr(),
        token: place.addr() - control.addr(),
        to: now.to.addr() - start.addr(),
        gaps: now.gaps,
    };
    Ok(())
}

/// Where the fast loop stands, but for the token.
#[derive(Clone, Copy)]
struct Places {
    literal: *const u8,
    aux: *const u8,
    to: *mut u8,
    gaps: [usize; 2],
}

impl Source<'_> {
    /// How many tokens may be decoded from these places before the streams' ends have to be looked at again.
    #[inline(always)]
    fn burst(&self, now: &Places, place: *const u8) -> usize {
        let literals = (self.block.as_ptr().addr() + self.block.len()).saturating_sub(now.literal.addr());
        let aux = (self.control.as_ptr().addr() + self.control.len()).saturating_sub(now.aux.addr());
        let tokens = self.control.as_ptr().addr() + self.tokens_end - place.addr();
        // The last token of the burst, too, reads all that it may read.
        tokens.min(literals / LITERAL_READ).min(aux.saturating_sub(AUX_READ - AUX_BYTES) / AUX_BYTES)
    }

    /// Where the loop stands after `token`, if its literals are an extension of one byte, the match's length is none of
    /// three, and chunks of 32 may be copied for the literals; from the least distance, what is copied goes to the first of
    /// the two places or behind it, and 16 bytes can be written at the second.
    ///
    /// # Safety
    /// The places are in the streams and in the destination.
    #[inline(never)]
    unsafe fn long_literals(
        &self,
        token: &Token,
        mut now: Places,
        [nearest, to_limit]: [*mut u8; 2],
    ) -> Option<Places> {
        let rest = self.control.get(now.aux.addr() - self.control.as_ptr().addr()..)?;
        let [len, a, b, c, d] = *rest.first_chunk()?;
        let next = u32::from_le_bytes([a, b, c, d]);
        let count = next >> token.distance_bits() & token.count_mask();
        if !token.has_long_literals() || u32::from(len) == LONG_COUNT || count == LONG_COUNT {
            return None;
        }
        let (len, matched) = (LONG_LITERALS + usize::from(len), token.matched() + count as usize);
        let literals = (self.block.as_ptr().addr() + self.block.len()).checked_sub(now.literal.addr())?;
        let room = to_limit.addr().checked_sub(now.to.addr())?;
        if len + 32 > literals || len + matched.max(ALWAYS) > room {
            return None;
        }
        // SAFETY: there is room on both sides for 32 bytes more.
        unsafe { copy_by_32(now.literal, now.to, len) }
        now.literal = now.literal.wrapping_add(len);
        now.to = now.to.wrapping_add(len);
        now.gaps = next_gaps(token, (next & 0xffff) as usize, now.gaps);
        let from = now.to.wrapping_sub(now.gaps[0]);
        if from < nearest {
            return None;
        }
        let from = from.wrapping_sub(MIN_DISTANCE);
        // SAFETY: from is at least the destination's start and 8 below `to`, and to + 16 is inside the destination.
        unsafe { copy8(from, now.to, 0) }
        // SAFETY: as above.
        unsafe { copy8(from, now.to, 8) }
        if matched > ALWAYS {
            // SAFETY: to + matched + 16 is inside the destination.
            unsafe { copy_rest(from, now.to, matched) }
        }
        now.aux = now.aux.wrapping_add(1 + token.aux());
        now.to = now.to.wrapping_add(matched);
        Some(now)
    }
}

/// Copies 8 bytes from `from + offset` to `to + offset`.
///
/// # Safety
/// Both may be accessed there, by one provenance.
#[inline(always)]
unsafe fn copy8(from: *const u8, to: *mut u8, offset: usize) {
    // SAFETY: by the contract.
    let word = unsafe { from.wrapping_add(offset).cast::<[u8; 8]>().read() };
    // SAFETY: by the contract.
    unsafe { to.wrapping_add(offset).cast::<[u8; 8]>().write(word) }
}

/// Copies what a token has beyond 16 bytes, and up to 16 more.
///
/// # Safety
/// `from` is at least 8 before `to`, `total` above 16, and everything from there to `to + total + 16` may be accessed.
#[inline(always)]
unsafe fn copy_rest(from: *const u8, to: *mut u8, total: usize) {
    // SAFETY: to + 32 < to + total + 16.
    unsafe { copy8(from, to, 16) }
    // SAFETY: as above.
    unsafe { copy8(from, to, 24) }
    if total > 32 {
        // SAFETY: by the contract.
        unsafe { copy_chunks(from, to, total) }
    }
}

/// Copies what a match has beyond 32 bytes, and up to 15 more.
///
/// # Safety
/// `from` is at least 8 before `to`, and everything from there to `to + total + 16` may be accessed.
#[inline(never)]
unsafe fn copy_chunks(from: *const u8, to: *mut u8, total: usize) {
    let mut done = 32;
    while done < total {
        // SAFETY: done < total.
        unsafe { copy8(from, to, done) }
        // SAFETY: done + 16 < total + 16.
        unsafe { copy8(from, to, done + 8) }
        done += 16;
    }
}

/// Copies `len` bytes, and up to 31 more.
///
/// # Safety
/// `len + 32` bytes may be read at `from` and written at `to`, and the two do not overlap.
#[inline(always)]
unsafe fn copy_by_32(from: *const u8, to: *mut u8, len: usize) {
    let mut done = 0;
    while done < len {
        // SAFETY: done + 32 < len + 32.
        let bytes = unsafe { from.wrapping_add(done).cast::<[u8; 32]>().read() };
        // SAFETY: as above.
        unsafe { to.wrapping_add(done).cast::<[u8; 32]>().write(bytes) }
        done += 32;
    }
}

/// One token with every step checked: the ends of the block, and counts of three bytes.
#[inline(never)]
fn sequence(source: &Source<'_>, dst: &mut [u8], at: &mut Cursor) -> Result<(), Corrupt> {
    let control = source.control;
    let token = &ALPHABET.decode[usize::from(control[at.token])];
    at.token += 1;
    let mut literals = token.literals();
    let mut matched = token.matched();
    if token.has_long_literals() {
        literals = LONG_LITERALS + extension(control, &mut at.aux)?;
    }
    let byte = |place: usize| control.get(place).copied().map_or(0, usize::from);
    at.gaps = next_gaps(token, byte(at.aux) | byte(at.aux + 1) << 8, at.gaps);
    at.aux += token.distance_bits() as usize / 8;
    if token.has_long_match() {
        matched += extension(control, &mut at.aux)?;
    }
    copy_literals(source.block, at.literal, dst, at.to, literals)?;
    at.literal += literals;
    at.to += literals;
    if matched > 0 {
        copy_match(dst, at.to, at.gaps[0] + MIN_DISTANCE, matched)?;
        at.to += matched;
    }
    Ok(())
}

/// A count in aux.
fn extension(control: &[u8], aux: &mut usize) -> Result<usize, Corrupt> {
    let byte = *control.get(*aux).ok_or(Corrupt)?;
    *aux += 1;
    if byte < 255 {
        return Ok(usize::from(byte));
    }
    let [low, high] = *control.get(*aux..).and_then(|rest| rest.first_chunk()).ok_or(Corrupt)?;
    *aux += 2;
    Ok(255 + usize::from(u16::from_le_bytes([low, high])))
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::lz4::TABLE_LEN;
    use crate::word_lz::{Search, Streams, encode};
    use std::boxed::Box;
    use std::vec;
    use std::vec::Vec;

    /// A number below `limit`, which is at most 65536.
    fn below(seed: &mut u64, limit: usize) -> usize {
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        let [low, high, ..] = (*seed >> 20).to_le_bytes();
        (usize::from(u16::from_le_bytes([low, high])) * limit) >> 16
    }

    /// Words of a few kinds, runs, and repeats of what was before: every kind of token.
    fn words(seed: &mut u64, len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < len {
            match below(seed, 16) {
                0..8 => bytes.extend_from_slice(&(0x7f00_1234_5000 + below(seed, 4096) * 8).to_le_bytes()),
                8..10 => bytes.extend((0..8).map(|_| below(seed, 256).to_le_bytes()[0])),
                10 => bytes.extend((0..below(seed, 128)).map(|_| below(seed, 256).to_le_bytes()[0])),
                11 => bytes.resize(bytes.len() + below(seed, 1024), 0),
                _ => {
                    let from = below(seed, bytes.len().min(65536));
                    bytes.extend_from_within(from..bytes.len().min(from + below(seed, 64)));
                }
            }
        }
        bytes.truncate(len);
        bytes
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn both_versions_read_the_same_from_sound_and_from_damaged_blocks() {
        if !crate::cpu::is_wide() {
            std::eprintln!("skipped: this CPU has only one version");
            return;
        }
        let wide = |source: &Source<'_>, dst: &mut [u8], at: &mut Cursor| {
            // SAFETY: just asked.
            unsafe { fast_wide(source, dst, at) }
        };
        let mut table = Box::new([0; TABLE_LEN]);
        let mut streams = Box::new(Streams::new());
        let mut seed = 0x5eed;
        let mut sound = 0;
        for round in 0..600 {
            let len = if round % 8 == 0 { 65536 } else { 64 + below(&mut seed, 4033) };
            let src = words(&mut seed, len);
            let mut room = vec![0; len];
            let search = if round % 2 == 0 { Search::Words } else { Search::Bytes };
            let Some(stored) = encode(search, &mut table, &mut streams, &src, &mut room) else { continue };
            for damage in 0..8 {
                let mut block = room[..stored].to_vec();
                for _ in 0..damage {
                    block[below(&mut seed, stored)] ^= 1 << below(&mut seed, 8);
                }
                let (mut one, mut other) = (vec![0x55; len], vec![0x55; len]);
                let portable = decode_by(&block, &mut one, fast_portable);
                assert_eq!(portable, decode_by(&block, &mut other, wide), "{round} {damage}");
                assert!(one == other, "{round} {damage}");
                if damage == 0 {
                    assert!(portable == Ok(()) && one == src, "{round}");
                    sound += 1;
                }
            }
        }
        assert!(sound > 500, "{sound}");
    }
}
