//! Memory under test with its shadow: which version of which page stands where.

use crate::options::Sabotage;
use crate::pattern::{self, Digest, Random};
use crate::sys::{self, PAGE, Page, RW, WRONG};
use std::ops::Range;

/// Pages and what they must hold. Not unmapped on drop: a case does that itself, or the end of the process does.
#[derive(Debug, Clone)]
pub(crate) struct Region {
    /// Address of the first page.
    pub(crate) base: usize,
    /// Makes its pages different from those of other regions.
    pub(crate) seed: u64,
    /// By page: which version it holds; 0 is zeros.
    pub(crate) versions: Vec<u32>,
}

impl Region {
    /// New memory, not touched yet.
    pub(crate) fn new(pages: usize, seed: u64) -> Self {
        Self::at(sys::map(pages * PAGE, RW, 0), pages, seed)
    }

    /// New memory of this many MiB, filled.
    pub(crate) fn filled(mib: usize, seed: u64) -> Self {
        let mut region = Self::new(mib << 8, seed);
        region.fill(0..region.pages());
        region
    }

    /// Memory that is there and reads as zeros.
    pub(crate) fn at(base: usize, pages: usize, seed: u64) -> Self {
        Self { base, seed, versions: vec![0; pages] }
    }

    /// How many pages it has.
    pub(crate) fn pages(&self) -> usize {
        self.versions.len()
    }

    /// How many bytes it has.
    pub(crate) fn bytes(&self) -> usize {
        self.pages() * PAGE
    }

    /// The numbers of its pages.
    pub(crate) fn all(&self) -> Range<usize> {
        0..self.pages()
    }

    /// Where a page is.
    pub(crate) fn address(&self, index: usize) -> usize {
        self.base + index * PAGE
    }

    /// What a page must hold.
    pub(crate) fn expected(&self, index: usize) -> Page {
        pattern::page(self.seed, index, self.versions[index])
    }

    /// Writes the next version of a page.
    pub(crate) fn write(&mut self, index: usize) {
        self.versions[index] += 1;
        sys::poke_page(self.address(index), &self.expected(index));
    }

    /// One of the two.
    pub(crate) fn write_or_check(&mut self, index: usize, write: bool) {
        if write {
            self.write(index);
        } else {
            self.check(index);
        }
    }

    /// Writes the next version of some pages.
    pub(crate) fn fill(&mut self, indices: impl IntoIterator<Item = usize>) {
        for index in indices {
            self.write(index);
        }
    }

    /// From now on these pages must read as zeros.
    pub(crate) fn zeroed(&mut self, indices: Range<usize>) {
        self.versions[indices].fill(0);
    }

    /// Checks a page; what it holds.
    pub(crate) fn check(&self, index: usize) -> Page {
        let found = sys::peek_page(self.address(index));
        let expected = self.expected(index);
        if found != expected {
            self.complain(index, &expected, &found);
        }
        found
    }

    /// Checks a page that may be as it was or zeros, and remembers which.
    pub(crate) fn check_or_zeros(&mut self, index: usize) {
        let found = sys::peek_page(self.address(index));
        let expected = self.expected(index);
        if found == [0; sys::WORDS] {
            self.versions[index] = 0;
        } else if found != expected {
            self.complain(index, &expected, &found);
        }
    }

    /// Checks some pages; their digest.
    pub(crate) fn check_each(&self, indices: impl IntoIterator<Item = usize>) -> u64 {
        let mut digest = Digest::new();
        for index in indices {
            digest.add_page(&self.check(index));
        }
        digest.value()
    }

    /// Checks every page; their digest.
    pub(crate) fn check_all(&self) -> u64 {
        self.check_each(self.all())
    }

    /// Checks `count` pages here and there.
    pub(crate) fn check_some(&self, random: &mut Random, count: usize) {
        for _ in 0..count {
            self.check(random.below(self.pages()));
        }
    }

    /// Does to some pages what a wrong pager would do, to see that the case notices.
    pub(crate) fn sabotage(&self, pages: Range<usize>, how: Sabotage) {
        for index in pages.clone() {
            let other = pages.start + (index + 1 - pages.start) % pages.len();
            match how {
                Sabotage::None => return,
                Sabotage::Zeros => sys::poke_page(self.address(index), &[0; sys::WORDS]),
                Sabotage::Elsewhere => sys::poke_page(self.address(index), &self.expected(other)),
                Sabotage::Stale => {
                    let version = self.versions[index].saturating_sub(1);
                    sys::poke_page(self.address(index), &pattern::page(self.seed, index, version));
                }
                Sabotage::Bit => {
                    let word = index % sys::WORDS;
                    sys::poke(self.address(index) + word * 8, self.expected(index)[word] ^ 1 << (index % 64));
                }
            }
        }
    }

    /// Says what is wrong with a page, and ends the process.
    fn complain(&self, index: usize, expected: &Page, found: &Page) -> ! {
        let again = sys::peek_page(self.address(index));
        let wrong: Vec<usize> = (0..sys::WORDS).filter(|&at| expected[at] != found[at]).collect();
        let at = wrong[0];
        eprintln!(
            "tmem-subject {} thread {}: wrong at {:#x}: expected {:#018x}, found {:#018x}; {} of {} words of page {index} \
             ({:#x}) differ",
            std::process::id(),
            sys::thread_id(),
            self.address(index) + at * 8,
            expected[at],
            found[at],
            wrong.len(),
            sys::WORDS,
            self.address(index),
        );
        let zeros = found.iter().all(|&word| word == 0);
        let holds = if zeros { "zeros".to_owned() } else { format!("tag: {}", pattern::describe(found[0])) };
        let wants = if expected[0] == 0 { "zeros".to_owned() } else { pattern::describe(expected[0]) };
        eprintln!(
            "expected {wants}; found {holds}; read again it is {}",
            if again == *expected {
                "right"
            } else if again == *found {
                "the same"
            } else {
                "different again"
            }
        );
        sys::exit(WRONG)
    }
}

/// Checks that memory reads as zeros.
pub(crate) fn check_zeros(base: usize, pages: usize) {
    Region::at(base, pages, 0).check_all();
}
