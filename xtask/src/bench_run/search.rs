//! Limits that are found by trying.

use super::measure::{Measured, Setting};
use anyhow::Result;

/// How near the memory given must come to what is wanted.
const TOLERANCE: f64 = 0.03;
const TRIES: u32 = 4;
/// What memory is taken to compress to before it was seen.
const FIRST_DENSITY: f64 = 3.0;
/// No program starts in less.
const LEAST_BYTES: u64 = 4 << 20;
/// Steps of the search for the smallest limit: to 1/32 of what the program has.
const STEPS: u32 = 5;

/// The limit of a group that makes its limit and zram's memory come to what is wanted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Equal {
    /// The group's limit.
    pub(super) limit_bytes: u64,
    /// What both were, with that.
    pub(super) given_bytes: u64,
}

/// Finds the group's limit for `wanted_bytes` in all, for a program that has `peak_bytes`. `measure` runs it with a
/// limit; its setting is told too.
pub(super) fn equal_memory(
    wanted_bytes: u64,
    peak_bytes: u64,
    mut measure: impl FnMut(u64) -> Result<(Setting, Measured)>,
) -> Result<Equal> {
    let mut density = FIRST_DENSITY;
    let mut best: Option<Equal> = None;
    for _ in 0..TRIES {
        let limit_bytes = group_limit(wanted_bytes, peak_bytes, density);
        let (setting, measured) = measure(limit_bytes)?;
        let given_bytes = measured.given_bytes(&setting);
        let tried = Equal { limit_bytes, given_bytes };
        if best.is_none_or(|best| tried.error(wanted_bytes) < best.error(wanted_bytes)) {
            best = Some(tried);
        }
        let away = peak_bytes.saturating_sub(limit_bytes);
        let done = tried.error(wanted_bytes) <= TOLERANCE || measured.zram_peak_bytes == 0 || away == 0;
        if done || limit_bytes == LEAST_BYTES {
            break;
        }
        density = (away as f64 / measured.zram_peak_bytes as f64).clamp(1.02, 100.0);
    }
    Ok(best.unwrap_or(Equal { limit_bytes: wanted_bytes, given_bytes: wanted_bytes }))
}

impl Equal {
    fn error(self, wanted_bytes: u64) -> f64 {
        (self.given_bytes as f64 / wanted_bytes as f64 - 1.0).abs()
    }
}

/// Solves `limit + (peak - limit) / density = wanted`.
fn group_limit(wanted_bytes: u64, peak_bytes: u64, density: f64) -> u64 {
    let limit = (wanted_bytes as f64 - peak_bytes as f64 / density) / (1.0 - 1.0 / density);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the size of a memory")]
    let limit = limit.clamp(0.0, wanted_bytes as f64) as u64;
    // Limits are whole pages.
    (limit & !4095).max(LEAST_BYTES)
}

/// The smallest limit between nothing and `peak_bytes` with which `finishes` says yes, and what it then tells; nothing
/// when it says no to all that were tried.
pub(super) fn smallest(peak_bytes: u64, mut finishes: impl FnMut(u64) -> Result<Option<u64>>) -> Result<Option<u64>> {
    let (mut low, mut high, mut found) = (0u64, peak_bytes, None);
    for _ in 0..STEPS {
        let middle = low.midpoint(high) & !4095;
        match finishes(middle)? {
            Some(told) => {
                found = Some(told);
                high = middle;
            }
            None => low = middle,
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench_run::measure::Outcome;
    use serde_json::Value;

    /// A program whose memory compresses to `density`.
    fn model(peak_bytes: u64, density: u64, limit_bytes: u64) -> (Setting, Measured) {
        let setting = Setting::Zram { algorithm: "lz4".into(), limit_bytes, swap_bytes: 0 };
        let measured = Measured {
            outcome: Outcome::Finished,
            wall_s: 1.0,
            work_s: 1.0,
            cpu_s: 1.0,
            program_peak_bytes: limit_bytes,
            charged_peak_bytes: limit_bytes,
            foreign_peak_bytes: 0,
            zram_peak_bytes: (peak_bytes - limit_bytes) / density,
            output: String::new(),
            told: Value::Null,
            report: Value::Null,
        };
        (setting, measured)
    }

    #[test]
    fn equal_memory_is_found_in_few_runs() {
        for density in [2, 3, 8] {
            let mut runs = 0;
            let equal = equal_memory(600 << 20, 1000 << 20, |limit| {
                runs += 1;
                Ok(model(1000 << 20, density, limit))
            });
            assert!(equal.unwrap().error(600 << 20) <= TOLERANCE && runs <= 2, "{density}: {runs} runs");
        }
    }

    #[test]
    fn what_cannot_be_equal_comes_as_near_as_it_can() {
        let equal = equal_memory(300 << 20, 1000 << 20, |limit| Ok(model(1000 << 20, 2, limit))).unwrap();
        assert_eq!(equal.limit_bytes, LEAST_BYTES);
    }

    #[test]
    fn the_smallest_limit_is_found_to_a_step() {
        let found = smallest(320 << 20, |limit| Ok((limit >= 100 << 20).then_some(limit))).unwrap();
        assert_eq!(found, Some(100 << 20));
        assert_eq!(smallest(320 << 20, |_| Ok(None)).unwrap(), None);
    }
}
