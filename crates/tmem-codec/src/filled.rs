//! Blocks that are one 8-byte word over and over: zeroed memory, poison patterns, initialised arrays.

use crate::codec::Corrupt;

/// `Some(word)` if `block` is one 8-byte little-endian word repeated. The length must be a positive multiple of 8,
/// otherwise the answer is `None`. Ordinary data is told apart by its first 64 bytes.
#[must_use]
pub fn same_filled(block: &[u8]) -> Option<u64> {
    let (words, tail) = block.as_chunks::<8>();
    let first = u64::from_le_bytes(*words.first()?);
    if !tail.is_empty() {
        return None;
    }
    // Eight words at a time: few enough to leave early, enough for the compiler to use vectors.
    let (lines, rest) = words.as_chunks::<8>();
    for line in lines {
        let difference = line.iter().fold(0, |all, word| all | (u64::from_le_bytes(*word) ^ first));
        if difference != 0 {
            return None;
        }
    }
    rest.iter().all(|word| u64::from_le_bytes(*word) == first).then_some(first)
}

/// As [`same_filled`], for a word that repeats its own half: `Some` of the four bytes (little endian) that the whole block
/// repeats.
#[must_use]
pub fn same_filled_half(block: &[u8]) -> Option<u32> {
    let word = same_filled(block)?;
    #[expect(clippy::cast_possible_truncation, reason = "the two halves of the word are compared")]
    let (low, high) = (word as u32, (word >> 32) as u32);
    (low == high).then_some(low)
}

/// The encoding of a same-filled block: the word itself.
pub(crate) fn encode(src: &[u8], dst: &mut [u8]) -> Option<usize> {
    let word = same_filled(src)?;
    dst.first_chunk_mut::<8>()?.copy_from_slice(&word.to_le_bytes());
    Some(8)
}

/// Writes the word of `src` all over `dst`.
pub(crate) fn decode(src: &[u8], dst: &mut [u8]) -> Result<(), Corrupt> {
    let word: [u8; 8] = src.try_into().map_err(|_| Corrupt)?;
    let (words, tail) = dst.as_chunks_mut::<8>();
    if !tail.is_empty() {
        return Err(Corrupt);
    }
    words.fill(word);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_differing_byte_anywhere_is_seen() {
        let mut block = [0xabu8; 4096];
        assert_eq!(same_filled(&block), Some(0xabab_abab_abab_abab));
        for at in 0..block.len() {
            block[at] ^= 1;
            assert_eq!(same_filled(&block), None, "byte {at}");
            block[at] ^= 1;
        }
    }

    #[test]
    fn ragged_and_empty_blocks_are_not_filled() {
        assert_eq!(same_filled(&[]), None);
        assert_eq!(same_filled(&[0; 7]), None);
        assert_eq!(same_filled(&[0; 12]), None);
        assert_eq!(same_filled(&[0; 8]), Some(0));
        assert_eq!(same_filled(&[0; 72]), Some(0));
    }
}
