//! The decoder: one pass over the tokens, each proved in bounds by one fused comparison.

use super::tokens::{ALPHABET, LONG_LITERALS, Token};
use super::{FIRST_DISTANCES, HEADER, MIN_DISTANCE};
use crate::codec::Corrupt;
use crate::lz4::{copy_literals, copy_match};

/// Where the decoder stands in each stream.
#[derive(Clone, Copy)]
struct Cursor {
    literal: usize,
    aux: usize,
    token: usize,
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
    if aux_end > src.len() {
        return Err(Corrupt);
    }
    let mut at = Cursor { literal: HEADER, aux: literals_end, token: aux_end, to: 0, distances: FIRST_DISTANCES };
    loop {
        fast(src, dst, &mut at)?;
        let Some(&token) = src.get(at.token) else {
            break;
        };
        at.token += 1;
        sequence(src, dst, &mut at, &ALPHABET.decode[usize::from(token)])?;
    }
    let rest = literals_end.checked_sub(at.literal).ok_or(Corrupt)?;
    if at.aux != aux_end || at.to + rest != dst.len() {
        return Err(Corrupt);
    }
    copy_literals(src, at.literal, dst, at.to, rest)
}

/// See [`fast_by`].
#[inline(always)]
fn fast(src: &[u8], dst: &mut [u8], at: &mut Cursor) -> Result<(), Corrupt> {
    #[cfg(target_arch = "x86_64")]
    if crate::cpu::is_wide() {
        // SAFETY: just asked.
        return unsafe { fast_wide(src, dst, at) };
    }
    fast_portable(src, dst, at)
}

/// Not inlined: it needs every register.
#[inline(never)]
fn fast_portable(src: &[u8], dst: &mut [u8], at: &mut Cursor) -> Result<(), Corrupt> {
    fast_by(src, dst, at)
}

/// The same, for the CPUs that most have.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
#[inline(never)]
fn fast_wide(src: &[u8], dst: &mut [u8], at: &mut Cursor) -> Result<(), Corrupt> {
    fast_by(src, dst, at)
}

/// Bytes that are copied for every token, whatever its length.
const ALWAYS: usize = 16;
/// Bytes of the source from a token on that the fast loop may read.
const TOKEN_ROOM: usize = 4;

/// Decodes tokens while there is room for whole chunks on all sides, and no count takes three bytes.
///
/// The source's end is far as long as tokens are left: aux is read up to `TOKEN_ROOM` bytes from where the tokens are,
/// and literals up to there too.
#[inline(always)]
fn fast_by(src: &[u8], dst: &mut [u8], at: &mut Cursor) -> Result<(), Corrupt> {
    if at.to < MIN_DISTANCE || dst.len() < ALWAYS {
        return Ok(());
    }
    let (start, source) = (dst.as_mut_ptr(), src.as_ptr());
    // The highest place from which 16 bytes can be written; the first that is too near the source's end for a token.
    let to_limit = start.wrapping_add(dst.len() - ALWAYS);
    let tokens_end = source.wrapping_add((src.len() + 1).saturating_sub(TOKEN_ROOM));
    let mut literal = source.wrapping_add(at.literal);
    let mut aux = source.wrapping_add(at.aux);
    let mut place = source.wrapping_add(at.token);
    let mut to = start.wrapping_add(at.to);
    let [mut newest, mut older] = at.distances;
    // The start plus 8, which `to` is not below.
    let nearest = start.addr() + MIN_DISTANCE;
    while place < tokens_end && aux <= place && literal.wrapping_add(8 - TOKEN_ROOM) <= place {
        // SAFETY: place < tokens_end, which is inside the source.
        let token = &ALPHABET.decode[usize::from(unsafe { place.read() })];
        // SAFETY: aux <= place, and 4 bytes from there are inside the source.
        let next = u32::from_le_bytes(unsafe { aux.cast::<[u8; 4]>().read() });
        // The match's length, if it is an extension, is behind the distance.
        let count = next >> token.distance_bits() & token.count_mask();
        let total = token.total() + count as usize;
        // Literals that are an extension have a total above any block's length.
        if to.addr() + total > to_limit.addr() {
            break;
        }
        let distances = next_distances(token, (next & 0xffff) as usize, [newest, older]);
        let [distance, _] = distances;
        // With `to` not below `nearest`, this says 8 <= distance <= to - start.
        if distance.wrapping_sub(MIN_DISTANCE) > to.addr() - nearest {
            return Err(Corrupt);
        }
        let from = to.wrapping_sub(distance);
        // SAFETY: literal + 4 <= place, and 4 bytes from there are inside the source.
        let fresh = u64::from_le_bytes(unsafe { literal.cast::<[u8; 8]>().read() });
        // SAFETY: distance <= to - start, and to + 16 is inside the destination.
        let old = u64::from_le_bytes(unsafe { from.cast::<[u8; 8]>().read() });
        let merged = old ^ (old ^ fresh) & token.mask;
        // SAFETY: to + total + 16 is inside the destination.
        unsafe { to.cast::<[u8; 8]>().write(merged.to_le_bytes()) }
        // SAFETY: distance >= 8, and as above.
        unsafe { copy8(from, to, 8) }
        if total > ALWAYS {
            if count == 255 {
                break;
            }
            // SAFETY: to + 32 < to + total + 16.
            unsafe { copy8(from, to, 16) }
            // SAFETY: as above.
            unsafe { copy8(from, to, 24) }
            if total > 32 {
                // SAFETY: to + total + 16 is inside the destination.
                unsafe { copy_chunks(from, to, total) }
            }
        }
        [newest, older] = distances;
        literal = literal.wrapping_add(token.literals());
        aux = aux.wrapping_add(token.aux());
        to = to.wrapping_add(total);
        place = place.wrapping_add(1);
    }
    *at = Cursor {
        literal: literal.addr() - source.addr(),
        aux: aux.addr() - source.addr(),
        token: place.addr() - source.addr(),
        to: to.addr() - start.addr(),
        distances: [newest, older],
    };
    Ok(())
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

/// One token with every step checked: the ends of the block.
#[inline(never)]
fn sequence(src: &[u8], dst: &mut [u8], at: &mut Cursor, token: &Token) -> Result<(), Corrupt> {
    let mut literals = token.literals();
    let mut matched = token.matched();
    if token.has_long_literals() {
        literals = LONG_LITERALS + extension(src, &mut at.aux)?;
    }
    let byte = |place: usize| src.get(place).copied().map_or(0, usize::from);
    at.distances = next_distances(token, byte(at.aux) | byte(at.aux + 1) << 8, at.distances);
    at.aux += token.distance_bits() as usize / 8;
    let [distance, _] = at.distances;
    if token.has_long_match() {
        matched += extension(src, &mut at.aux)?;
    }
    copy_literals(src, at.literal, dst, at.to, literals)?;
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
