//! What pages hold.
//!
//! Each page is its own: its number is in its first word. Its last word is a checksum of the others, so that any page
//! says by itself whether it is whole.

use crate::random::{Random, mix};
use anyhow::{Context, Result, ensure};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// Words of a page.
pub(crate) const PAGE_WORDS: usize = PAGE_BYTES / size_of::<u64>();
pub(crate) const PAGE_BYTES: usize = 4096;
/// Where the checksum is.
const SUM: usize = PAGE_WORDS - 1;

/// Room for five of the longest words.
const TEXT_BYTES: usize = 64;
/// What heap objects say.
const TEXT: &[&str] = &[
    "name",
    "value",
    "order",
    "customer",
    "address",
    "status",
    "pending",
    "shipped",
    "invoice",
    "amount",
    "street",
    "index",
    "count",
    "total",
    "message",
    "error",
    "warning",
    "created",
    "updated",
    "user",
    "session",
    "token",
    "product",
    "price",
    "stock",
    "category",
    "description",
    "north",
    "south",
    "winter",
    "summer",
    "green",
    "silver",
    "paper",
    "water",
    "letter",
    "number",
    "second",
    "minute",
    "window",
    "garden",
    "market",
    "bridge",
    "station",
];

/// Where the contents of pages come from.
#[derive(Debug)]
pub(crate) enum Contents {
    /// Made up like objects on a heap: pointers, small numbers, text.
    Heap,
    /// Pages of files, in turn.
    Files(Vec<(File, u64)>),
}

impl Contents {
    /// Heap objects for the word `content`; otherwise files of pages.
    pub(crate) fn new(names: &[PathBuf]) -> Result<Self> {
        if let [name] = names
            && name.as_os_str() == "content"
        {
            return Ok(Self::Heap);
        }
        let open = |name: &PathBuf| -> Result<(File, u64)> {
            let file = File::open(name).with_context(|| format!("cannot open {}", name.display()))?;
            let pages = file.metadata().context("cannot tell its size")?.len() / PAGE_BYTES as u64;
            ensure!(pages > 0, "{} holds no page", name.display());
            Ok((file, pages))
        };
        Ok(Self::Files(names.iter().map(open).collect::<Result<_>>()?))
    }

    /// Fills a page with what belongs to its number.
    pub(crate) fn fill(&self, page: &mut [u64], number: u64, seed: u64) -> Result<()> {
        match self {
            Self::Heap => fill_with_objects(&mut page[1..SUM], mix(number ^ seed.rotate_left(32))),
            Self::Files(files) => {
                let mut bytes = [0; PAGE_BYTES];
                let of_file = usize::try_from(number % files.len() as u64).unwrap_or(0);
                let (file, pages) = &files[of_file];
                let at = number / files.len() as u64 % pages * PAGE_BYTES as u64;
                file.read_exact_at(&mut bytes, at).context("cannot read a page")?;
                let (words, _) = bytes.as_chunks::<8>();
                page.iter_mut().zip(words).for_each(|(word, bytes)| *word = u64::from_le_bytes(*bytes));
            }
        }
        page[0] = number;
        page[SUM] = checksum(page);
        Ok(())
    }
}

/// Changes a page a little, as a program does.
pub(crate) fn write(page: &mut [u64], random: &mut Random) {
    let at = 1 + random.below(SUM - 1);
    page[at] = random.next() & 0xffff;
    page[SUM] = checksum(page);
}

/// The checksum of a page of this number; nothing when it is not what was written.
pub(crate) fn check(page: &[u64], number: u64) -> Option<u64> {
    let sum = checksum(page);
    (page[0] == number && page[SUM] == sum).then_some(sum)
}

/// Four lanes, so that a page takes a fraction of a microsecond.
fn checksum(page: &[u64]) -> u64 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut lanes = [1, 2, 3, 4u64];
    let (fours, rest) = page[..SUM].as_chunks::<4>();
    for words in fours {
        lanes
            .iter_mut()
            .zip(words)
            .for_each(|(lane, word)| *lane = (*lane ^ word).wrapping_mul(FACTOR).rotate_left(29));
    }
    rest.iter().chain(&lanes).fold(0, |sum, &word| mix(sum ^ word))
}

fn fill_with_objects(words: &mut [u64], seed: u64) {
    let mut random = Random::new(seed);
    let heap = 0x7f3a_4000_0000 + (random.next() & 0x0fff_0000);
    let kinds = 0x55d0_1234_0000 + 0x180 * (random.next() & 7);
    let mut left = words;
    while !left.is_empty() {
        let used = put_object(left, &mut random, heap, kinds);
        left = &mut left[used..];
    }
}

/// Puts an object at the beginning of `words`, or as much of it as there is room for; how many words that took.
fn put_object(words: &mut [u64], random: &mut Random, heap: u64, kinds: u64) -> usize {
    // Objects point to their neighbours, and often to the same few.
    let mut pointer = || {
        let draw = random.next();
        heap + if draw & 0x3000 == 0 { draw & 0xff0 } else { draw >> 32 & 0x70 }
    };
    let (near, far) = (pointer(), pointer());
    let draw = random.next();
    let references = 1 + (draw & draw >> 2 & 3);
    let number = draw >> 8 & 0xff;
    match draw >> 20 & 15 {
        0..5 => put(words, &[references, kinds, near, far, 0, number]),
        5..8 => put(words, &[references, kinds + 0x180, near, 3, 3, 0, 0, 0]),
        // Part of a hash table.
        8..11 => put(words, &[number << 20 | draw >> 40, near, 0, 0, 0, 0, 0, 0, far, 0, 0, 0]),
        11 => put(words, &[references, kinds + 0x300, ((draw >> 32 & 0xffff) as f64 / 100.0).to_bits()]),
        12..14 => put(words, &[references, kinds + 0x480, 1, number]),
        _ => {
            let header = put(words, &[references, kinds + 0x600, 24, draw]);
            header + put_text(&mut words[header..], random)
        }
    }
}

fn put(words: &mut [u64], object: &[u64]) -> usize {
    let length = object.len().min(words.len());
    words[..length].copy_from_slice(&object[..length]);
    length
}

/// Some words of prose, zeros behind them up to a whole word.
fn put_text(words: &mut [u64], random: &mut Random) -> usize {
    let mut letters = [0; TEXT_BYTES];
    let mut length = 0;
    for _ in 0..2 + random.below(4) {
        let text = TEXT[random.below(TEXT.len())].as_bytes();
        letters[length..length + text.len()].copy_from_slice(text);
        length += text.len() + 1;
        letters[length - 1] = b' ';
    }
    let (eights, _) = letters[..length.next_multiple_of(8)].as_chunks::<8>();
    let text = words.iter_mut().zip(eights);
    text.map(|(word, bytes)| *word = u64::from_le_bytes(*bytes)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_page_is_noticed() {
        let mut page = vec![0; PAGE_WORDS];
        Contents::Heap.fill(&mut page, 5, 1).unwrap();
        assert!(check(&page, 5).is_some() && check(&page, 6).is_none());
        write(&mut page, &mut Random::new(3));
        assert!(check(&page, 5).is_some());
        for at in [1, 77, 509, 510] {
            page[at] ^= 1 << 40;
            assert!(check(&page, 5).is_none(), "word {at}");
            page[at] ^= 1 << 40;
        }
    }

    #[test]
    fn pages_differ() {
        let mut pages = [vec![0; PAGE_WORDS], vec![0; PAGE_WORDS]];
        for (number, page) in pages.iter_mut().enumerate() {
            Contents::Heap.fill(page, number as u64, 1).unwrap();
        }
        let same = pages[0].iter().zip(&pages[1]).filter(|(a, b)| a == b).count();
        assert!(same < PAGE_WORDS / 4, "{same} words");
    }
}
