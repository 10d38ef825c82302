//! A digest of a page, by which it is known again.
//!
//! It is NH (Black, Halevi, Krawczyk, Krovetz, Rogaway, "UMAC: Fast and Secure Message Authentication", CRYPTO 1999): for
//! key words k and the page's words m the sum of `(k[2i] + m[2i]) * (k[2i + 1] + m[2i + 1])`, the sums in brackets modulo
//! 2^64, that of the products modulo 2^128. Two pages that differ have the same digest under at most one key in 2^64,
//! whatever they hold. The key is made anew at random for each monitor.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::protocol::PAGE_BYTES;

/// Words of a key: as many as a page has.
pub const KEY_WORDS: usize = PAGE_BYTES as usize / 8;

/// The key, in memory that monitor and agent share. It is written before the agent starts.
pub type Key = [AtomicU64; KEY_WORDS];

/// A digest: the lower half, then the upper.
pub type Digest = [u64; 2];

/// The digest of a page.
#[must_use]
pub fn digest(page: &[u8; PAGE_BYTES as usize], key: &Key) -> Digest {
    let (words, _) = page.as_chunks::<8>();
    let keyed = |at: usize| {
        // Relaxed: written before the agent was started.
        u64::from_le_bytes(words[at]).wrapping_add(key[at].load(Ordering::Relaxed))
    };
    let product = |at: usize| u128::from(keyed(at)) * u128::from(keyed(at + 1));
    let sum = (0..KEY_WORDS).step_by(2).map(product).fold(0_u128, u128::wrapping_add);
    [sum as u64, (sum >> 64) as u64]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys and pages that look random: a Weyl sequence through a multiplier.
    fn word(seed: u64, at: usize) -> u64 {
        let x = (seed + at as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (x ^ x >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9)
    }

    fn key(seed: u64) -> Key {
        core::array::from_fn(|at| AtomicU64::new(word(seed, at)))
    }

    fn page(seed: u64) -> [u8; 4096] {
        core::array::from_fn(|at| word(seed, at / 8).to_le_bytes()[at % 8])
    }

    #[test]
    fn a_digest_is_what_its_definition_says() {
        let page: [u8; 4096] = core::array::from_fn(|at| if at % 8 == 0 { (at / 8 % 7) as u8 } else { 0 });
        let key: Key = core::array::from_fn(|at| AtomicU64::new(u64::MAX - at as u64));
        let (mut low, mut high) = (0_u64, 0_u64);
        for pair in 0..256_u64 {
            let [a, b] = [2 * pair, 2 * pair + 1].map(|at| (u64::MAX - at).wrapping_add(at % 7));
            let product = u128::from(a) * u128::from(b);
            let (sum, carry) = low.overflowing_add(product as u64);
            low = sum;
            high = high.wrapping_add((product >> 64) as u64).wrapping_add(u64::from(carry));
        }
        assert_eq!(digest(&page, &key), [low, high]);
    }

    #[test]
    fn every_bit_of_a_page_counts() {
        let (mut page, key) = (page(1), key(1000));
        let before = digest(&page, &key);
        for bit in 0..page.len() * 8 {
            page[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(digest(&page, &key), before, "bit {bit}");
            page[bit / 8] ^= 1 << (bit % 8);
        }
        assert_eq!(digest(&page, &key), before);
    }

    #[test]
    fn pages_with_words_exchanged_differ() {
        let (mut page, key) = (page(1), key(1000));
        let before = digest(&page, &key);
        for distance in [8, 16, 2048] {
            (0..8).for_each(|byte| page.swap(byte, byte + distance));
            assert_ne!(digest(&page, &key), before, "{distance}");
            (0..8).for_each(|byte| page.swap(byte, byte + distance));
        }
    }
}
