//! The header in front of every block of the log.
//!
//! Two little-endian 64-bit words, then the payload, padded to a whole unit:
//!
//! | word | bits | field |
//! |---|---|---|
//! | 0 | 0-27 | leaf: with `first` it finds the block's entries again |
//! | 0 | 28-32 | first: index within the leaf of the block's first granule |
//! | 0 | 33-36 | granules in the block, less one |
//! | 0 | 37-48 | bytes put into the last granule, less one (the rest of it reads as zeros) |
//! | 0 | 49-56 | codec |
//! | 0 | 57-62 | version of the codec's tables (0: none) |
//! | 0 | 63 | settled: the cleaner has taken it as cold already |
//! | 1 | 0-16 | bytes of payload |
//! | 1 | 17-31 | [`MAGIC`] |
//! | 1 | 32-63 | CRC-32C of everything above and of the payload |
//!
//! The checksum covers the owner too: a block that is intact but belongs to somebody else is as corrupt as a damaged
//! one.

use crate::bits::Field;
use crate::units::{BLOCK_GRANULES, GRANULE_BYTES, UNIT_BYTES, units_for};
use tmem_codec::Codec;

/// Bytes of a header.
pub(crate) const HEADER_BYTES: usize = 16;
const _: () = assert!(HEADER_BYTES == UNIT_BYTES);

/// Marks a header, and says which version of this format it is.
const MAGIC: u64 = 0x5A01;

const LEAF: Field = Field::lowest(28);
const FIRST: Field = Field::after(LEAF, 5);
const COUNT: Field = Field::after(FIRST, 4);
const TAIL: Field = Field::after(COUNT, 12);
const CODEC: Field = Field::after(TAIL, 8);
const TABLES: Field = Field::after(CODEC, 6);
const SETTLED: Field = Field::after(TABLES, 1);
const STORED: Field = Field::lowest(17);
const MAGIC_FIELD: Field = Field::after(STORED, 15);
const _: () = assert!(SETTLED.end() == 64 && MAGIC_FIELD.end() == 32);
const _: () = assert!(COUNT.max() + 1 == BLOCK_GRANULES as u64 && TAIL.max() + 1 == GRANULE_BYTES as u64);
const _: () = assert!(STORED.max() >= tmem_codec::MAX_BLOCK as u64);

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

    /// Units of the whole block.
    pub(crate) fn units(&self) -> u32 {
        units_for(HEADER_BYTES + self.stored_bytes)
    }

    /// The header's bytes in front of `payload`, which is `stored_bytes` long.
    pub(crate) fn seal(&self, payload: &[u8]) -> [u8; HEADER_BYTES] {
        assert!(payload.len() == self.stored_bytes && self.raw_bytes >= 1);
        let tail = (self.raw_bytes - 1) % GRANULE_BYTES;
        let word0 = LEAF.set(0, u64::from(self.leaf));
        let word0 = FIRST.set(word0, u64::from(self.first));
        let word0 = COUNT.set(word0, u64::from(self.granules() - 1));
        let word0 = TAIL.set(word0, tail as u64);
        let word0 = CODEC.set(word0, u64::from(self.codec as u8));
        let word0 = SETTLED.set(word0, u64::from(self.settled));
        let low1 = MAGIC_FIELD.set(STORED.set(0, self.stored_bytes as u64), MAGIC);
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&word0.to_le_bytes());
        bytes[8..].copy_from_slice(&low1.to_le_bytes());
        let checksum = checksum(&bytes, payload);
        bytes[12..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads the header at the start of `bytes`, without looking at the payload.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Damaged> {
        let (word0, rest) = bytes.split_first_chunk::<8>().ok_or(Damaged)?;
        let (word1, rest) = rest.split_first_chunk::<8>().ok_or(Damaged)?;
        let (word0, word1) = (u64::from_le_bytes(*word0), u64::from_le_bytes(*word1));
        #[expect(clippy::cast_possible_truncation, reason = "fields of at most 17 bits")]
        let (count, tail, stored) = (COUNT.get(word0) as usize, TAIL.get(word0) as usize, STORED.get(word1) as usize);
        #[expect(clippy::cast_possible_truncation, reason = "a field of 8 bits")]
        let codec = Codec::try_from(CODEC.get(word0) as u8).map_err(|_| Damaged)?;
        let raw_bytes = count * GRANULE_BYTES + tail + 1;
        let sane =
            MAGIC_FIELD.get(word1) == MAGIC && TABLES.get(word0) == 0 && stored <= rest.len() && stored <= raw_bytes;
        let first = FIRST.get32(word0);
        if !sane || stored == 0 {
            return Err(Damaged);
        }
        let settled = SETTLED.get(word0) != 0;
        Ok(Self { leaf: LEAF.get32(word0), first, raw_bytes, codec, settled, stored_bytes: stored })
    }

    /// Reads the header at the start of `bytes` and checks it and the payload, which it returns, against the checksum.
    pub(crate) fn verify(bytes: &[u8]) -> Result<(Self, &[u8]), Damaged> {
        let header = Self::parse(bytes)?;
        let (head, rest) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or(Damaged)?;
        let payload = &rest[..header.stored_bytes];
        let (_, found) = head.split_last_chunk::<4>().ok_or(Damaged)?;
        if checksum(head, payload) != u32::from_le_bytes(*found) {
            return Err(Damaged);
        }
        Ok((header, payload))
    }
}

/// Of the first 12 bytes of the header and of the payload.
fn checksum(header: &[u8; HEADER_BYTES], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&header[..12]), payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(stored_bytes: usize, raw_bytes: usize) -> Header {
        Header { leaf: MAX_LEAVES - 1, first: 31, raw_bytes, codec: Codec::Lz4, settled: true, stored_bytes }
    }

    #[test]
    fn a_header_survives_sealing_at_the_corners() {
        for (stored, raw) in [(1, 1), (8, 4096), (4096, 4096), (5, 4097), (65536, 65536), (100, 61441)] {
            let payload = vec![7; stored];
            let header = sample(stored, raw);
            let mut bytes = header.seal(&payload).to_vec();
            bytes.extend(&payload);
            assert_eq!(Header::verify(&bytes), Ok((header, payload.as_slice())));
        }
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let payload: Vec<u8> = (0..100).collect();
        let mut bytes = sample(100, 4096).seal(&payload).to_vec();
        bytes.extend(&payload);
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::verify(&bytes), Err(Damaged), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        assert!(Header::verify(&bytes).is_ok());
    }

    #[test]
    fn short_and_empty_bytes_are_damaged() {
        let payload = [1; 50];
        let mut bytes = sample(50, 4096).seal(&payload).to_vec();
        bytes.extend(payload);
        for len in 0..bytes.len() {
            assert_eq!(Header::verify(&bytes[..len]), Err(Damaged), "{len} bytes");
        }
        assert_eq!(Header::verify(&[0; 64]), Err(Damaged));
    }
}
