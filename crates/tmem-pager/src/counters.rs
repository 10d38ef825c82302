//! What is counted for the report. All counters are independent of each other and publish nothing: every access is
//! relaxed.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// One counter.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Relaxed); // see the module's head
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Relaxed); // see the module's head
    }

    /// Keeps the largest value seen.
    pub(crate) fn raise(&self, value: u64) {
        self.0.fetch_max(value, Relaxed); // see the module's head
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed) // see the module's head
    }
}

/// Everything that is counted, over all address spaces.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Faults that a program waited for.
    pub(crate) faults: Counter,
    pub(crate) evicted_pages: Counter,
    pub(crate) unchanged_pages: Counter,
    pub(crate) refused_busy: Counter,
    pub(crate) refused_gone: Counter,
    pub(crate) refused_other: Counter,
    pub(crate) cancelled: Counter,
    pub(crate) copied_bytes: Counter,
    pub(crate) huge_restored: Counter,
    pub(crate) stalled_ns: Counter,
    pub(crate) processes: Counter,
    pub(crate) managed: Counter,
    pub(crate) unmanaged: Counter,
    pub(crate) resident_now: Counter,
    pub(crate) stored_peak: Counter,
    /// Bytes of programs per 1000 bytes of the store, when it held most of them.
    pub(crate) density: Counter,
    pub(crate) wanted_peak: Counter,
    pub(crate) given_peak: Counter,
    pub(crate) resident_peak: Counter,
    pub(crate) store_peak: Counter,
    pub(crate) shared_bytes: Counter,
    pub(crate) locked_bytes: Counter,
    pub(crate) hugetlb_bytes: Counter,
    pub(crate) latency: Histogram,
}

/// Sub-buckets of a power of two.
const STEPS: u64 = 8;
const BUCKETS: usize = 320;
const _: () = assert!(BUCKETS as u64 == 40 * STEPS);

/// Times, in buckets a ninth to an eighth wide.
#[derive(Debug)]
pub(crate) struct Histogram([AtomicU64; BUCKETS]);

impl Default for Histogram {
    fn default() -> Self {
        Self(core::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Histogram {
    pub(crate) fn add(&self, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.0[bucket(ns)].fetch_add(1, Relaxed); // see the module's head
    }

    /// The time in microseconds that a share of all times is not above.
    pub(crate) fn percentile_us(&self, share: f64) -> f64 {
        let counts: Vec<u64> = self.0.iter().map(|count| count.load(Relaxed)).collect(); // see the module's head
        let total: u64 = counts.iter().sum();
        let mut left = (total as f64 * share).ceil();
        for (bucket, count) in counts.iter().enumerate() {
            left -= *count as f64;
            if left <= 0.0 && total > 0 {
                return top_ns(bucket) / 1000.0;
            }
        }
        0.0
    }
}

/// Times below 8 ns have a bucket each; above, eight to a power of two.
fn bucket(ns: u64) -> usize {
    let power = ns.max(STEPS).ilog2();
    let step = (ns >> (power - 3)) % STEPS;
    let index = if ns < STEPS { ns } else { u64::from(power - 2) * STEPS + step };
    usize::try_from(index).unwrap_or(BUCKETS).min(BUCKETS - 1)
}

fn top_ns(bucket: usize) -> f64 {
    let (power, step) = (bucket as u64 / STEPS, bucket as u64 % STEPS);
    if power == 0 { (step + 1) as f64 } else { (STEPS + step + 1) as f64 * 2_f64.powf(power as f64 - 1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_what_it_says() {
        for ns in [0, 1, 7, 8, 9, 15, 16, 17, 100, 12345, 1 << 30] {
            let bucket = bucket(ns);
            assert!(top_ns(bucket) > ns as f64, "{ns}");
            assert!(bucket == 0 || top_ns(bucket - 1) <= ns as f64, "{ns}");
        }
    }

    #[test]
    fn percentiles_are_found() {
        let histogram = Histogram::default();
        assert_eq!(histogram.percentile_us(0.5), 0.0);
        (0..990).for_each(|_| histogram.add(Duration::from_micros(10)));
        (0..10).for_each(|_| histogram.add(Duration::from_micros(500)));
        assert!((10.0..12.0).contains(&histogram.percentile_us(0.5)));
        assert!((10.0..12.0).contains(&histogram.percentile_us(0.99)));
        assert!((500.0..570.0).contains(&histogram.percentile_us(0.999)));
    }
}
