//! What pages hold: a function of (seed, index, version), so that a shadow is one number a page.
//!
//! A page starts with a tag that says which page it is, so a page that comes back from a wrong place or from an older
//! time can be named. 127 random words follow, and then copies of their 64-byte runs in random order: about 3:1 for
//! any LZ.

use crate::sys::{Page, WORDS};

/// Words that are random; the rest repeats them.
const RANDOM_WORDS: usize = 128;
/// Words of a run that is repeated.
const RUN: usize = 8;

/// A small generator (splitmix64): the same numbers everywhere.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// Numbers that follow from `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    /// The numbers below `end` in some order.
    pub(crate) fn shuffled(&mut self, end: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..end).collect();
        for at in (1..end).rev() {
            order.swap(at, self.below(at + 1));
        }
        order
    }
}

fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// The first word of a page: 12 bits of the seed, 20 of the version, 32 of the index.
pub(crate) fn tag(seed: u64, index: usize, version: u32) -> u64 {
    (mix(seed) & 0xfff) << 52 | u64::from(version & 0xf_ffff) << 32 | index as u64 & 0xffff_ffff
}

/// What a tag says.
pub(crate) fn describe(word: u64) -> String {
    format!("page {} version {} of seed hash {:03x}", word & 0xffff_ffff, word >> 32 & 0xf_ffff, word >> 52)
}

/// The page; version 0 is a page of zeros.
pub(crate) fn page(seed: u64, index: usize, version: u32) -> Page {
    let mut page = [0; WORDS];
    if version == 0 {
        return page;
    }
    let mut random = Random::new(mix(seed) ^ mix(index as u64 ^ u64::from(version) << 40));
    page[0] = tag(seed, index, version);
    for word in &mut page[1..RANDOM_WORDS] {
        *word = random.next();
    }
    for at in (RANDOM_WORDS..WORDS).step_by(RUN) {
        let from = random.below(RANDOM_WORDS / RUN) * RUN;
        page.copy_within(from..from + RUN, at);
    }
    page
}

/// A page that no codec makes smaller.
pub(crate) fn noise(seed: u64, index: usize) -> Page {
    let mut random = Random::new(mix(seed ^ 0x5eed) ^ mix(index as u64));
    let mut page = [0; WORDS];
    page.fill_with(|| random.next());
    page
}

/// A digest of words, in order.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Digest(u64);

impl Digest {
    /// Of nothing.
    pub(crate) fn new() -> Self {
        Self(0x5157_1a57)
    }

    /// With a word more.
    pub(crate) fn add(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(0x9fb2_1c65_1e98_df25);
    }

    /// With a page more.
    pub(crate) fn add_page(&mut self, page: &Page) {
        for word in page {
            self.add(*word);
        }
    }

    /// The number.
    pub(crate) fn value(self) -> u64 {
        mix(self.0)
    }
}
