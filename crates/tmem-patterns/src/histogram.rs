//! Counts of durations in buckets of about 3 %.

use std::time::Duration;

/// Buckets for each doubling.
const STEPS: u64 = 1 << STEP_BITS;
const STEP_BITS: u32 = 5;
/// Up to 2^40 ns, a quarter of an hour; what is longer counts as that.
const BUCKETS: usize = 40 << STEP_BITS;

/// How many durations were how long.
#[derive(Debug, Clone)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    longest: Duration,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0, longest: Duration::ZERO }
    }

    pub(crate) fn add(&mut self, time: Duration) {
        self.counts[bucket(time)] += 1;
        self.total += 1;
        self.longest = self.longest.max(time);
    }

    /// Adds all that another one counted.
    pub(crate) fn join(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(mine, theirs)| *mine += theirs);
        self.total += other.total;
        self.longest = self.longest.max(other.longest);
    }

    pub(crate) const fn total(&self) -> u64 {
        self.total
    }

    pub(crate) const fn longest(&self) -> Duration {
        self.longest
    }

    /// The time that a share of all durations do not exceed, in µs, to the width of a bucket; 0 when there are none.
    pub(crate) fn quantile_us(&self, share: f64) -> f64 {
        let mut left = share * self.total as f64;
        for (at, &count) in self.counts.iter().enumerate() {
            left -= count as f64;
            if left <= 0.0 && count > 0 {
                return middle_ns(at) / 1000.0;
            }
        }
        0.0
    }
}

/// The first `STEPS` buckets are one nanosecond wide; then each doubling has `STEPS` of them.
fn bucket(time: Duration) -> usize {
    let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    if ns < STEPS {
        return usize::try_from(ns).unwrap_or(0);
    }
    let shift = ns.ilog2() - STEP_BITS;
    let index = (u64::from(shift) << STEP_BITS) + (ns >> shift);
    usize::try_from(index).unwrap_or(BUCKETS).min(BUCKETS - 1)
}

fn middle_ns(bucket: usize) -> f64 {
    let steps = 1 << STEP_BITS;
    if bucket < 2 * steps {
        return bucket as f64;
    }
    let shift = bucket / steps - 1;
    ((bucket % steps + steps) as f64 + 0.5) * f64::powi(2.0, i32::try_from(shift).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_what_is_within_3_percent_of_its_middle() {
        for ns in [1, 31, 32, 33, 63, 64, 65, 100, 1000, 12_345, 1_000_000, 3_000_000_000] {
            let middle = middle_ns(bucket(Duration::from_nanos(ns)));
            assert!((middle / ns as f64 - 1.0).abs() < 0.032, "{ns} ns in a bucket around {middle} ns");
        }
    }

    #[test]
    fn quantiles_count_what_was_added() {
        let mut histogram = Histogram::new();
        (1..=1000).for_each(|us| histogram.add(Duration::from_micros(us)));
        let mut other = Histogram::new();
        other.add(Duration::from_secs(1));
        histogram.join(&other);
        assert!((histogram.quantile_us(0.5) / 500.0 - 1.0).abs() < 0.04);
        assert!((histogram.quantile_us(0.99) / 990.0 - 1.0).abs() < 0.04);
        assert_eq!((histogram.total(), histogram.longest()), (1001, Duration::from_secs(1)));
    }
}
