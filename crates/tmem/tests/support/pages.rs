//! Contents of pages, of the kinds that memory has.

use super::random::Random;

pub const PAGE: usize = tmem::GRANULE_BYTES;

/// A kind of contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Zeros,
    /// A 32-bit word repeated.
    Filled32,
    /// A 64-bit word repeated.
    Filled64,
    /// Numbers that grow slowly.
    Array,
    /// Floating-point numbers that are near each other.
    Floats,
    /// Addresses near each other, and small numbers.
    Pointers,
    Text,
    /// One byte in four is random.
    Mixed,
    Noise,
    /// One of a few pages of noise, with a few bytes changed.
    NearDuplicate,
}

pub const KINDS: [Kind; 10] = [
    Kind::Zeros,
    Kind::Filled32,
    Kind::Filled64,
    Kind::Array,
    Kind::Floats,
    Kind::Pointers,
    Kind::Text,
    Kind::Mixed,
    Kind::Noise,
    Kind::NearDuplicate,
];

const WORDS: [&str; 12] =
    ["the ", "store ", "page ", "of ", "memory\n", "{\"id\": ", "segment ", "is ", "cold ", "\", ", "42 ", "granule "];

/// A page of that kind.
pub fn page(kind: Kind, seed: u64) -> [u8; PAGE] {
    let mut page = [0; PAGE];
    fill(kind, seed, &mut page);
    page
}

/// Fills `to`, at most a page, with contents of that kind.
pub fn fill(kind: Kind, seed: u64, to: &mut [u8]) {
    let mut random = Random::new(seed);
    match kind {
        Kind::Zeros => to.fill(0),
        Kind::Filled32 => {
            let word = random.next().to_le_bytes();
            repeat(to, &word[..4]);
        }
        Kind::Filled64 => repeat(to, &random.next().to_le_bytes()),
        Kind::Array => {
            let mut at = random.below(1 << 40);
            words(to, |_| {
                at += random.below(16);
                at
            });
        }
        Kind::Floats => words(to, |nth| (1000.0 + f64::from(nth) * 0.25).to_bits() ^ random.below(256)),
        Kind::Pointers => {
            let base = 0x7F00_0000_0000 + (random.below(1 << 20) << 12);
            words(to, |nth| if nth % 3 == 0 { random.below(100) } else { base + random.below(1 << 12) * 8 });
        }
        Kind::Text => {
            let mut text = Vec::with_capacity(to.len() + 16);
            while text.len() < to.len() {
                text.extend(random.pick(&WORDS).as_bytes());
            }
            to.copy_from_slice(&text[..to.len()]);
        }
        Kind::Mixed => words(to, |nth| random.next() & 0xFF00_0000_00FF | u64::from(nth / 4 % 7) << 16),
        Kind::Noise => random.fill(to),
        Kind::NearDuplicate => {
            Random::new(seed % 4).fill(to);
            for _ in 0..4 {
                let at = random.index(to.len());
                to[at] ^= 1;
            }
        }
    }
}

/// `len` bytes, the granules of which have kinds drawn from `random`: often one kind for a whole run of them.
pub fn range(random: &mut Random, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut kind = random.pick(&KINDS);
    for granule in bytes.chunks_mut(PAGE) {
        if random.one_in(6) {
            kind = random.pick(&KINDS);
        }
        fill(kind, random.next(), granule);
    }
    bytes
}

fn repeat(to: &mut [u8], word: &[u8]) {
    for (byte, from) in to.iter_mut().zip(word.iter().cycle()) {
        *byte = *from;
    }
}

fn words(to: &mut [u8], mut word: impl FnMut(u32) -> u64) {
    for (nth, chunk) in (0..).zip(to.chunks_mut(8)) {
        chunk.copy_from_slice(&word(nth).to_le_bytes()[..chunk.len()]);
    }
}
