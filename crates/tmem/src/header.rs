//! The header in front of every block of the log.
//!
//! A little-endian 64-bit word and a checksum, then the payload, then, if the last granule is ragged, its length; padded
//! to a whole unit:
//!
//! | word, bits | field |
//! |---|---|
//! | 0-27 | leaf: with `first` it finds the block's entries again |
//! | 28-32 | first: index within the leaf of the block's first granule |
//! | 33-36 | granules in the block, less one |
//! | 37-52 | bytes of payload, less one |
//! | 53-55, 56-57 | codec: stage and transform, the lowest bits of both halves of its number |
//! | 58 | settled: the cleaner has taken it as cold already |
//! | 59 | ragged: behind the payload stand the bytes put into the last granule, u16. The rest of it reads as zeros |
//! | 60-63 | [`MAGIC`] |
//!
//! The checksum is the CRC-32C of the word, the payload, and the length behind it. It covers the owner too: a block that
//! is intact but belongs to somebody else is as corrupt as a damaged one.

use crate::bits::Field;
use crate::entry::MAX_UNITS;
use crate::units::{BLOCK_GRANULES, GRANULE_BYTES, UNIT_BYTES, units_for};
use tmem_codec::Codec;

/// Bytes of a header.
pub const HEADER_BYTES: usize = 12;
const _: () = assert!(HEADER_BYTES.is_multiple_of(UNIT_BYTES));

/// Bytes of the length behind the payload of a ragged block.
pub(crate) const TAIL_BYTES: usize = 2;

/// Units of the largest block.
pub(crate) const MAX_BLOCK_UNITS: u32 = units_for(HEADER_BYTES + tmem_codec::MAX_BLOCK + TAIL_BYTES);
const _: () = assert!(MAX_BLOCK_UNITS <= MAX_UNITS);

/// Marks a header, and says which version of this format it is. A word of zeros is no header.
const MAGIC: u64 = 11;

const LEAF: Field = Field::lowest(28);
const FIRST: Field = Field::after(LEAF, 5);
const COUNT: Field = Field::after(FIRST, 4);
const STORED: Field = Field::after(COUNT, 16);
const STAGE: Field = Field::after(STORED, 3);
const TRANSFORM: Field = Field::after(STAGE, 2);
const SETTLED: Field = Field::after(TRANSFORM, 1);
const RAGGED: Field = Field::after(SETTLED, 1);
const MAGIC_FIELD: Field = Field::after(RAGGED, 4);
const _: () = assert!(MAGIC_FIELD.end() == 64);
const _: () = assert!(COUNT.max() + 1 == BLOCK_GRANULES as u64);
const _: () = assert!(STORED.max() + 1 >= tmem_codec::MAX_BLOCK as u64);

/// Leaves that a header can name.
pub(crate) const MAX_LEAVES: u32 = 1 << 28;
const _: () = assert!(LEAF.max() + 1 == MAX_LEAVES as u64);

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) leaf: u32,
    /// Index within the leaf of the first granule.
    pub(crate) first: u32,
    /// Bytes that the payload decodes to, 1 to 65536. The last granule's rest reads as zeros.
    pub(crate) raw_bytes: usize,
    pub(crate) codec: Codec,
    /// Whether the cleaner has taken the block as cold: doing it again would gain nothing.
    pub(crate) settled: bool,
    /// Bytes of payload.
    pub(crate) stored_bytes: usize,
}

/// The bytes do not hold the block that they should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Damaged;

impl Header {
    /// Granules in the block.
    pub(crate) fn granules(&self) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "raw_bytes is at most MAX_BLOCK")]
        {
            self.raw_bytes.div_ceil(GRANULE_BYTES) as u32
        }
    }

    /// Whether the last granule is not a whole one.
    fn is_ragged(&self) -> bool {
        !self.raw_bytes.is_multiple_of(GRANULE_BYTES)
    }

    /// Bytes of the whole block.
    pub(crate) fn block_bytes(&self) -> usize {
        HEADER_BYTES + self.stored_bytes + if self.is_ragged() { TAIL_BYTES } else { 0 }
    }

    /// Units of the whole block.
    pub(crate) fn units(&self) -> u32 {
        units_for(self.block_bytes())
    }

    /// Completes the block at the start of `bytes`, where its payload stands already: writes what is in front of that and
    /// behind it.
    pub(crate) fn seal(&self, bytes: &mut [u8]) {
        assert!(self.raw_bytes >= 1 && self.stored_bytes >= 1);
        let number = u64::from(self.codec as u8);
        let word = LEAF.set(0, u64::from(self.leaf));
        let word = FIRST.set(word, u64::from(self.first));
        let word = COUNT.set(word, u64::from(self.granules() - 1));
        let word = STORED.set(word, self.stored_bytes as u64 - 1);
        let word = STAGE.set(word, number & 15);
        let word = TRANSFORM.set(word, number >> 4);
        let word = SETTLED.set(word, u64::from(self.settled));
        let word = RAGGED.set(word, u64::from(self.is_ragged()));
        let word = MAGIC_FIELD.set(word, MAGIC).to_le_bytes();
        let (head, rest) = bytes[..self.block_bytes()].split_at_mut(HEADER_BYTES);
        if self.is_ragged() {
            #[expect(clippy::cast_possible_truncation, reason = "less than a granule")]
            let tail = (self.raw_bytes % GRANULE_BYTES) as u16;
            rest[self.stored_bytes..].copy_from_slice(&tail.to_le_bytes());
        }
        head[..8].copy_from_slice(&word);
        head[8..].copy_from_slice(&checksum(word, rest).to_le_bytes());
    }

    /// Reads the header at the start of `bytes`, without looking at the payload.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Damaged> {
        let (word, rest) = bytes.split_first_chunk::<8>().ok_or(Damaged)?;
        let (_, rest) = rest.split_first_chunk::<4>().ok_or(Damaged)?;
        let word = u64::from_le_bytes(*word);
        #[expect(clippy::cast_possible_truncation, reason = "fields of at most 16 bits")]
        let (granules, stored_bytes) = (COUNT.get(word) as usize + 1, STORED.get(word) as usize + 1);
        #[expect(clippy::cast_possible_truncation, reason = "a field of 2 bits and one of 3")]
        let codec = Codec::try_from((TRANSFORM.get(word) << 4 | STAGE.get(word)) as u8).map_err(|_| Damaged)?;
        let ragged_by = match RAGGED.get(word) {
            0 => 0,
            _ => {
                let tail = rest.get(stored_bytes..).and_then(|behind| behind.first_chunk()).ok_or(Damaged)?;
                let tail = usize::from(u16::from_le_bytes(*tail));
                GRANULE_BYTES - Some(tail).filter(|tail| (1..GRANULE_BYTES).contains(tail)).ok_or(Damaged)?
            }
        };
        let raw_bytes = granules * GRANULE_BYTES - ragged_by;
        if MAGIC_FIELD.get(word) != MAGIC || stored_bytes > rest.len() || stored_bytes > raw_bytes {
            return Err(Damaged);
        }
        let settled = SETTLED.get(word) != 0;
        Ok(Self { leaf: LEAF.get32(word), first: FIRST.get32(word), raw_bytes, codec, settled, stored_bytes })
    }

    /// Reads the header at the start of `bytes` and checks it and the payload, which it returns, against the checksum.
    pub(crate) fn verify(bytes: &[u8]) -> Result<(Self, &[u8]), Damaged> {
        let header = Self::parse(bytes)?;
        let (word, rest) = bytes.split_first_chunk::<8>().ok_or(Damaged)?;
        let (found, _) = rest.split_first_chunk::<4>().ok_or(Damaged)?;
        let covered = &bytes[HEADER_BYTES..header.block_bytes()];
        if checksum(*word, covered) != u32::from_le_bytes(*found) {
            return Err(Damaged);
        }
        Ok((header, &covered[..header.stored_bytes]))
    }
}

/// Of the word and of what stands behind the header.
fn checksum(word: [u8; 8], covered: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&word), covered)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::unit_bytes;

    fn sample(stored_bytes: usize, raw_bytes: usize) -> Header {
        Header { leaf: MAX_LEAVES - 1, first: 31, raw_bytes, codec: Codec::Lz4, settled: true, stored_bytes }
    }

    /// A block of that header around a payload.
    fn sealed(header: &Header, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; header.block_bytes()];
        bytes[HEADER_BYTES..][..payload.len()].copy_from_slice(payload);
        header.seal(&mut bytes);
        bytes
    }

    #[test]
    fn a_header_survives_sealing_at_the_corners() {
        for (stored, raw) in [(1, 1), (8, 4096), (4096, 4096), (5, 4097), (4095, 4095), (65536, 65536), (100, 61441)] {
            for codec in Codec::ALL {
                let payload = vec![7; stored];
                let header = Header { codec: *codec, ..sample(stored, raw) };
                let bytes = sealed(&header, &payload);
                assert!(bytes.len() <= unit_bytes(MAX_BLOCK_UNITS));
                assert_eq!(Header::verify(&bytes), Ok((header, payload.as_slice())));
            }
        }
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let payload: Vec<u8> = (0..100).collect();
        for raw in [4096, 4000] {
            let mut bytes = sealed(&sample(100, raw), &payload);
            for bit in 0..bytes.len() * 8 {
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Header::verify(&bytes), Err(Damaged), "bit {bit}");
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            assert!(Header::verify(&bytes).is_ok());
        }
    }

    #[test]
    fn short_and_empty_bytes_are_damaged() {
        for raw in [4096, 4000] {
            let bytes = sealed(&sample(50, raw), &[1; 50]);
            for len in 0..bytes.len() {
                assert_eq!(Header::verify(&bytes[..len]), Err(Damaged), "{len} bytes");
            }
        }
        assert_eq!(Header::verify(&[0; 64]), Err(Damaged));
    }
}
