//! Memory full of pages: buffers that are aligned and already faulted in, page files, and pages made up.

use crate::random::Random;
use anyhow::{Context, Result, bail, ensure};
use std::fs::File;
use std::io::Read;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use tmem::GRANULE_BYTES;
use tmem_sys::HUGE_PAGE_BYTES;

/// What buffers are filled with before something is read into them, so that bytes never written are noticed.
const POISON: u8 = 0xa5;

/// Bytes at an address that is a multiple of 4096, as direct I/O wants them. Every page of it has been touched, so
/// that no timed part pays for page faults of a benchmark's own buffers.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl Buffer {
    /// A buffer of `len` bytes.
    pub(crate) fn new(len: usize) -> Self {
        let bytes = vec![POISON; len + GRANULE_BYTES];
        let start = bytes.as_ptr().align_offset(GRANULE_BYTES);
        assert!(start <= GRANULE_BYTES, "a byte can be aligned to a page");
        Self { bytes, start, len }
    }

    /// Makes what it holds unlike anything that was in it before.
    pub(crate) fn poison(&mut self) {
        self.fill(POISON);
    }

    /// Lets go of all but the first `len` bytes.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }
}

/// Pages of one source.
#[derive(Debug)]
pub(crate) struct Corpus {
    /// For people.
    pub(crate) name: String,
    /// One page behind the other; at least one.
    pub(crate) pages: Buffer,
}

/// Reads page files.
pub(crate) fn load_all(paths: &[PathBuf]) -> Result<Vec<Corpus>> {
    paths.iter().map(|path| load(path)).collect()
}

/// Reads a file of pages.
pub(crate) fn load(path: &Path) -> Result<Corpus> {
    let shown = path.display();
    let mut file = File::open(path).with_context(|| format!("cannot open the page file {shown}"))?;
    let kind = file.metadata().with_context(|| format!("cannot look at {shown}"))?;
    ensure!(kind.is_file(), "{shown} is not a regular file: --pages wants files of raw 4096-byte pages");
    let len = usize::try_from(kind.len()).context("the file is larger than the address space")?;
    ensure!(len > 0, "{shown} is empty: --pages wants files of raw 4096-byte pages");
    if !len.is_multiple_of(GRANULE_BYTES) {
        bail!("{shown} has {len} bytes, which is not a multiple of 4096: --pages wants files of raw 4096-byte pages");
    }
    let mut pages = Buffer::new(len);
    file.read_exact(&mut pages).with_context(|| format!("cannot read {shown}"))?;
    let name = path.file_stem().map_or_else(|| shown.to_string(), |stem| stem.to_string_lossy().into_owned());
    Ok(Corpus { name, pages })
}

/// Pages that are made up where no files are given for a sample.
const MADE_UP_PAGES: usize = 16 << 10;

/// At most `bytes` in whole huge pages of memory, from all files alike; made up where there are none.
pub(crate) fn sample(paths: &[PathBuf], bytes: usize) -> Result<Corpus> {
    let whole = |bytes: usize| bytes / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
    if paths.is_empty() {
        return Ok(made_up(MADE_UP_PAGES.min(whole(bytes) / GRANULE_BYTES), 1));
    }
    let share = bytes / paths.len() / GRANULE_BYTES * GRANULE_BYTES;
    let mut all = Vec::new();
    for path in paths {
        let corpus = load(path)?;
        all.extend_from_slice(&corpus.pages[..share.min(corpus.pages.len())]);
    }
    let len = whole(all.len());
    ensure!(len > 0, "the page files hold less than 2 MiB together: give more, or a larger --sample");
    let mut pages = Buffer::new(len);
    pages.copy_from_slice(&all[..len]);
    Ok(Corpus { name: "sample".to_owned(), pages })
}

/// Pages made up: heap-like words (pointers, small numbers, zeros, text), so that codecs find about half of it
/// predictable. For benchmarks that are about the engine and not about what the pages hold.
pub(crate) fn made_up(count: usize, seed: u64) -> Corpus {
    const TEXT: &[u8; 64] = b"{\"id\": 17, \"name\": \"transcendent\", \"tags\": [\"memory\", \"pages\"]} ";
    let mut random = Random::new(seed);
    let mut pages = Buffer::new(count * GRANULE_BYTES);
    for page in pages.chunks_exact_mut(GRANULE_BYTES) {
        let heap = 0x7f00_0000_0000 | (random.next() & 0xffff_f000);
        for word in page.as_chunks_mut::<8>().0 {
            let pick = random.next();
            let text = random.below(TEXT.len() / 8) * 8;
            *word = match pick % 8 {
                0..3 => (heap + (pick >> 32) % 4096 * 16).to_le_bytes(),
                3..5 => 0u64.to_le_bytes(),
                5 => ((pick >> 32) % 1000).to_le_bytes(),
                6 => TEXT[text..].first_chunk().copied().unwrap_or_default(),
                _ => random.next().to_le_bytes(),
            };
        }
    }
    Corpus { name: "made-up".to_owned(), pages }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_as_long_as_asked_for() {
        for len in [0, 1, 4096, 10_000] {
            let buffer = Buffer::new(len);
            assert_eq!(buffer.len(), len);
            assert_eq!(buffer.as_ptr().align_offset(GRANULE_BYTES), 0);
        }
    }

    #[test]
    fn made_up_pages_compress_but_not_to_nothing() {
        let corpus = made_up(64, 1);
        let mut workspace = tmem_codec::Workspace::boxed();
        let mut out = [0; GRANULE_BYTES];
        let (policy, hot) = (tmem::Policy::Fast, tmem_codec::Temperature::Hot);
        let stored: usize = corpus
            .pages
            .chunks(GRANULE_BYTES)
            .map(|page| tmem_codec::encode(&mut workspace, policy, hot, page, &mut out).unwrap().len)
            .sum();
        let density = corpus.pages.len() as f64 / stored as f64;
        assert!((1.3..6.0).contains(&density), "{density}");
    }
}
