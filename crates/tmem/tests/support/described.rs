//! Pages that say what they are, so that whoever gets one can tell whether it is whole and the right one.

use super::pages::PAGE;
use super::random::Random;

/// What a page says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Description {
    pub object: u64,
    pub granule: u64,
    /// Unlike that of every other put.
    pub version: u64,
    /// Who put it.
    pub thread: u64,
}

const MAGIC: u64 = 0x7465_7374_7061_6765;

/// Fills `page` with what says so. Every word of it depends on the description.
pub fn write(description: Description, page: &mut [u8]) {
    assert_eq!(page.len(), PAGE);
    let Description { object, granule, version, thread } = description;
    let head = [MAGIC, object, granule, version, thread];
    let sum = head.iter().fold(0, |sum: u64, word| sum.rotate_left(13).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ word);
    // Some versions compress well, others hardly.
    let mask = if version % 3 == 0 { u64::MAX } else { 0xFFFF };
    let mut random = Random::new(sum);
    let words = head.into_iter().chain([sum]).chain(std::iter::repeat_with(move || random.next() & mask ^ version));
    for (chunk, word) in page.chunks_exact_mut(8).zip(words) {
        chunk.copy_from_slice(&word.to_le_bytes());
    }
}

/// What `page` says of itself, if every byte of it agrees.
pub fn read(page: &[u8]) -> Result<Description, String> {
    let word = |nth: usize| u64::from_le_bytes(page[nth * 8..nth * 8 + 8].try_into().unwrap());
    let found = Description { object: word(1), granule: word(2), version: word(3), thread: word(4) };
    let mut whole = [0; PAGE];
    write(found, &mut whole);
    match whole.iter().zip(page).position(|(should, is)| should != is) {
        None => Ok(found),
        Some(at) => Err(format!("a page that begins like {found:?} differs from it at byte {at}")),
    }
}
