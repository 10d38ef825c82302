//! Orders in which pages are touched.

use crate::random::{Random, mix};
use clap::ValueEnum;

/// Pages between two touches of the strided pattern.
const STRIDE: usize = 17;
/// How often the working set moves in a run.
const PHASES: usize = 8;
/// The whole over the working set of a phase.
const WHOLE_OVER_WORKING_SET: usize = 4;
/// Skew of the zipf pattern, as in YCSB.
const THETA: f64 = 0.99;

/// Which page comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Pattern {
    /// From the first page to the last, and again
    Sequential,
    /// Any page, each as likely
    Random,
    /// Few pages often and many seldom, all over the region
    Zipf,
    /// Every 17th page, then those after them
    Strided,
    /// Any page of a quarter of the region, which is another quarter eight times in a run
    Phases,
    /// Fill huge pages, push them out with others, free those, and read the first again
    Huge,
}

/// The sequence of one thread's pages.
#[derive(Debug)]
pub(crate) struct Order {
    pattern: Pattern,
    pages: usize,
    touches: usize,
    done: usize,
    random: Random,
    zipf: Option<Zipf>,
}

impl Order {
    /// An order of `touches` touches of `pages` pages.
    pub(crate) fn new(pattern: Pattern, pages: usize, touches: usize, seed: u64) -> Self {
        let zipf = (pattern == Pattern::Zipf).then(|| Zipf::new(pages));
        Self { pattern, pages, touches, done: 0, random: Random::new(seed), zipf }
    }

    fn page(&mut self) -> usize {
        match self.pattern {
            Pattern::Sequential | Pattern::Huge => self.done % self.pages,
            Pattern::Random => self.random.below(self.pages),
            Pattern::Zipf => {
                let rank = self.zipf.as_ref().map_or(0, |zipf| zipf.rank(self.random.unit()));
                // The frequent ones lie anywhere.
                usize::try_from(mix(rank as u64 + 1) % self.pages as u64).unwrap_or(0)
            }
            Pattern::Strided => {
                let columns = self.pages.div_ceil(STRIDE);
                let (row, column) = (self.done / columns % STRIDE, self.done % columns);
                (column * STRIDE + row) % self.pages
            }
            Pattern::Phases => {
                let phase = self.done * PHASES / self.touches.max(1);
                let window = (self.pages / WHOLE_OVER_WORKING_SET).max(1);
                // Steps of 3/8 of the region: neighbouring phases share nothing, and eight cover all of it.
                (phase * 3 * self.pages / PHASES + self.random.below(window)) % self.pages
            }
        }
    }
}

impl Iterator for Order {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.done == self.touches {
            return None;
        }
        let page = self.page();
        self.done += 1;
        Some(page)
    }
}

/// Ranks by Zipf's law: Gray et al., "Quickly generating billion-record synthetic databases", SIGMOD 1994.
#[derive(Debug)]
struct Zipf {
    count: f64,
    zeta: f64,
    eta: f64,
}

impl Zipf {
    fn new(count: usize) -> Self {
        let zeta = |limit: usize| (1..=limit).map(|rank| (rank as f64).powf(-THETA)).sum::<f64>();
        let (whole, two) = (zeta(count), zeta(2));
        let count = count as f64;
        Self { count, zeta: whole, eta: (1.0 - (2.0 / count).powf(1.0 - THETA)) / (1.0 - two / whole) }
    }

    /// The rank, from 0, that belongs to a number in 0..1.
    fn rank(&self, unit: f64) -> usize {
        let scaled = unit * self.zeta;
        if scaled < 1.0 {
            return 0;
        }
        if scaled < 1.0 + 0.5f64.powf(THETA) {
            return 1;
        }
        let rank = self.count * (self.eta * unit - self.eta + 1.0).powf(1.0 / (1.0 - THETA));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in 0..=count, a number of pages")]
        let rank = rank as usize;
        rank
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const ALL: [Pattern; 6] =
        [Pattern::Sequential, Pattern::Random, Pattern::Zipf, Pattern::Strided, Pattern::Phases, Pattern::Huge];

    #[test]
    fn every_touch_is_of_a_page_there_is() {
        for pattern in ALL {
            for pages in [1, 2, 17, 1000] {
                let touched: Vec<usize> = Order::new(pattern, pages, 5000, 7).collect();
                assert!(touched.len() == 5000 && touched.iter().all(|&page| page < pages), "{pattern:?} of {pages}");
            }
        }
    }

    #[test]
    fn strides_and_phases_come_to_every_page() {
        let strided: HashSet<usize> = Order::new(Pattern::Strided, 1000, 17 * 59, 7).collect();
        assert_eq!(strided.len(), 1000);
        let phases: HashSet<usize> = Order::new(Pattern::Phases, 1000, 50_000, 7).collect();
        assert_eq!(phases.len(), 1000);
    }

    #[test]
    fn a_tenth_of_the_zipf_pages_gets_most_touches() {
        let mut counts = vec![0; 10_000];
        Order::new(Pattern::Zipf, 10_000, 100_000, 7).for_each(|page| counts[page] += 1);
        counts.sort_unstable_by(|a, b| b.cmp(a));
        assert!(counts[..1000].iter().sum::<i32>() > 70_000);
    }
}
