//! A set of addresses, as ranges that neither touch nor overlap.

use core::ops::Range;
use std::collections::BTreeMap;

/// The set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Intervals {
    /// End by start.
    ends: BTreeMap<u64, u64>,
}

impl Intervals {
    /// Adds a range.
    pub(crate) fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let Range { mut start, mut end } = range;
        let touching: Vec<u64> = self.touching(start..end).map(|range| range.start).collect();
        for key in touching {
            let its_end = self.ends.remove(&key).unwrap_or(end);
            start = start.min(key);
            end = end.max(its_end);
        }
        self.ends.insert(start, end);
    }

    /// Takes a range away.
    pub(crate) fn remove(&mut self, range: &Range<u64>) {
        if range.is_empty() {
            return;
        }
        let touching: Vec<Range<u64>> = self.touching(range.clone()).collect();
        for old in touching {
            self.ends.remove(&old.start);
            if old.start < range.start {
                self.ends.insert(old.start, old.end.min(range.start));
            }
            if old.end > range.end {
                self.ends.insert(old.start.max(range.end), old.end);
            }
        }
    }

    /// Whether an address is in the set.
    pub(crate) fn contains(&self, address: u64) -> bool {
        self.at_or_after(address).is_some_and(|range| range.start <= address)
    }

    /// The range that holds an address or, if there is none, the next one.
    pub(crate) fn at_or_after(&self, address: u64) -> Option<Range<u64>> {
        let before = self.ends.range(..=address).next_back().filter(|(_, end)| **end > address);
        before.or_else(|| self.ends.range(address..).next()).map(|(start, end)| *start..*end)
    }

    /// The parts of `range` that are not in the set.
    pub(crate) fn gaps(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut from = range.start;
        for taken in self.touching(range.clone()) {
            if taken.start > from {
                gaps.push(from..taken.start);
            }
            from = from.max(taken.end);
        }
        if from < range.end {
            gaps.push(from..range.end);
        }
        gaps
    }

    /// The parts of `range` that are in the set.
    pub(crate) fn overlaps(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let clipped = |part: Range<u64>| part.start.max(range.start)..part.end.min(range.end);
        self.touching(range.clone()).map(clipped).filter(|part| !part.is_empty()).collect()
    }

    /// All of them, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.ends.iter().map(|(start, end)| *start..*end)
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The ranges that overlap or touch `range`, in order.
    fn touching(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let before = self.ends.range(..range.start).next_back().filter(move |(_, end)| **end >= range.start);
        before.into_iter().chain(self.ends.range(range.start..=range.end)).map(|(start, end)| *start..*end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(ranges: &[Range<u64>]) -> Intervals {
        let mut set = Intervals::default();
        ranges.iter().for_each(|range| set.insert(range.clone()));
        set
    }

    #[test]
    fn it_agrees_with_a_set_of_numbers() {
        let mut seed = 1_u64;
        let mut next = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        let (mut set, mut model) = (Intervals::default(), [false; 64]);
        for _ in 0..5000 {
            let start = next(60);
            let range = start..start + next(64 - start);
            let insert = next(2) == 0;
            if insert {
                set.insert(range.clone())
            } else {
                set.remove(&range)
            }
            range.for_each(|at| model[usize::try_from(at).unwrap()] = insert);
            for (at, inside) in (0..).zip(model) {
                assert_eq!(set.contains(at), inside, "{at} in {set:?}");
            }
            let ranges: Vec<_> = set.iter().collect();
            assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start), "{set:?}");
            let gaps: u64 = set.gaps(0..64).iter().map(|gap| gap.end - gap.start).sum();
            assert_eq!(gaps, model.iter().filter(|inside| !**inside).count() as u64);
        }
    }

    #[test]
    fn the_next_range_is_found() {
        let set = of(&[10..20, 30..40]);
        assert_eq!(set.at_or_after(0), Some(10..20));
        assert_eq!(set.at_or_after(15), Some(10..20));
        assert_eq!(set.at_or_after(20), Some(30..40));
        assert_eq!(set.at_or_after(40), None);
    }
}
