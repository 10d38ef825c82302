//! The runs of one workload, and what they come to.

use super::Options;
use super::measure::{Bench, Measured, Setting};
use super::search::{self, Equal};
use super::workloads::Workload;
use anyhow::{Result, ensure};
use serde_json::{Value, json};
use std::time::Duration;

/// Compressors of zram that are tried; the better one counts, figure by figure.
const ALGORITHMS: [&str; 2] = ["lz4", "lzo-rle"];
/// How often a run is tried that others disturb.
const TRIES: u32 = 3;
/// Swap is never what is short.
const SWAP_OVER_PEAK: u64 = 2;
/// So much is enough for anybody.
const AMPLE_OVER_PEAK: u64 = 4;
/// How much longer than the program alone a run may take, and the least it may.
const SLOWEST: f64 = 40.0;
const LEAST_PATIENCE: Duration = Duration::from_secs(60);

/// Several runs with one setting.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) setting: Setting,
    pub(super) runs: Vec<Measured>,
}

/// A workload at a limit.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) limit_bytes: u64,
    pub(super) native: Series,
    /// None with `--only-kernel`.
    pub(super) tmem: Option<Series>,
    /// One for each compressor.
    pub(super) zram: Vec<Series>,
    /// Whether every run that finished printed the same.
    pub(super) same_output: bool,
}

/// What a workload came to apart from its rows.
#[derive(Debug)]
pub(super) struct Compared {
    pub(super) rows: Vec<Row>,
    /// Run time with ample memory over that of the program alone: of medians, and of the shortest.
    pub(super) overhead: Option<(f64, f64)>,
    /// The least memory with which it finished: `tmem run`'s, and the kernel's.
    pub(super) smallest_bytes: (Option<u64>, Option<u64>),
}

/// A workload under comparison.
struct Case<'a> {
    bench: &'a Bench,
    options: &'a Options,
    workload: &'a Workload,
    peak_bytes: u64,
    /// What it prints alone.
    output: String,
    patience: Duration,
}

/// Compares one workload; each row is told to `tell` when it is there.
pub(super) fn compare(bench: &Bench, options: &Options, workload: &Workload, tell: impl Fn(&Row)) -> Result<Compared> {
    // The first run also brings its files into memory.
    let alone = bench.run(workload, &Setting::Native, LEAST_PATIENCE * 10)?;
    ensure!(alone.finished(), "{} alone: {}", workload.name, alone.outcome.words());
    let patience = LEAST_PATIENCE.max(Duration::from_secs_f64(alone.wall_s * SLOWEST));
    let case = Case { bench, options, workload, peak_bytes: alone.program_peak_bytes, output: alone.output, patience };
    let mut rows = Vec::new();
    for &fraction in &options.limit_fraction {
        let row = case.row(fraction)?;
        tell(&row);
        rows.push(row);
    }
    let overhead = if options.only_kernel { None } else { case.overhead()? };
    let smallest_bytes = if options.smallest { case.smallest()? } else { (None, None) };
    Ok(Compared { rows, overhead, smallest_bytes })
}

impl Case<'_> {
    /// Runs again, a few times, when others swapped meanwhile.
    fn run(&self, setting: &Setting) -> Result<Measured> {
        let run = || self.bench.run(self.workload, setting, self.patience);
        let mut measured = run()?;
        for _ in 1..TRIES {
            if !measured.is_disturbed() {
                break;
            }
            measured = run()?;
        }
        Ok(measured)
    }

    /// The compressors to try.
    fn algorithms(&self) -> Result<impl Iterator<Item = &'static str>> {
        let offered = self.bench.device.algorithms()?;
        let wanted = if self.options.quick { 1 } else { ALGORITHMS.len() };
        Ok(ALGORITHMS.into_iter().filter(move |name| offered.iter().any(|offered| offered == name)).take(wanted))
    }

    fn zram(&self, algorithm: &str, limit_bytes: u64) -> Setting {
        let swap_bytes = self.peak_bytes * SWAP_OVER_PEAK;
        Setting::Zram { algorithm: algorithm.to_owned(), limit_bytes, swap_bytes }
    }

    /// A limit of so much of the peak, in whole MiB.
    fn row(&self, fraction: f64) -> Result<Row> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of a memory's size")]
        let limit_bytes = ((self.peak_bytes as f64 * fraction) as u64 >> 20).max(1) << 20;
        let mut zram = Vec::new();
        for algorithm in self.algorithms()? {
            let Equal { limit_bytes: group_limit, given_bytes } =
                search::equal_memory(limit_bytes, self.peak_bytes, |limit| {
                    let setting = self.zram(algorithm, limit);
                    self.run(&setting).map(|measured| (setting, measured))
                })?;
            if self.options.verbose {
                let [group, given, wanted] = [group_limit, given_bytes, limit_bytes].map(|bytes| bytes >> 20);
                eprintln!("{} {algorithm}: {group} MiB in the group, {given} of {wanted} in all", self.workload.name);
            }
            zram.push(Series::new(self.zram(algorithm, group_limit)));
        }
        let mut native = Series::new(Setting::Native);
        let mut tmem = (!self.options.only_kernel).then(|| Series::new(Setting::Tmem { limit_bytes }));
        for _ in 0..self.options.rounds() {
            for series in tmem.iter_mut().chain(&mut zram).chain([&mut native]) {
                series.runs.push(self.run(&series.setting)?);
            }
        }
        let all = [&native].into_iter().chain(&tmem).chain(&zram);
        let same_output =
            all.flat_map(|series| &series.runs).filter(|run| run.finished()).all(|run| run.output == self.output);
        Ok(Row { name: self.workload.name.clone(), limit_bytes, native, tmem, zram, same_output })
    }

    /// What `tmem run` costs a program that needs nothing of it.
    fn overhead(&self) -> Result<Option<(f64, f64)>> {
        let mut native = Series::new(Setting::Native);
        let mut ample = Series::new(Setting::Tmem { limit_bytes: self.peak_bytes * AMPLE_OVER_PEAK });
        for _ in 0..self.options.ample_rounds() {
            for series in [&mut ample, &mut native] {
                series.runs.push(self.run(&series.setting)?);
            }
        }
        let wall = |run: &Measured| Some(run.wall_s);
        let (Some(ample_median), Some(native_median)) = (ample.median(wall), native.median(wall)) else {
            return Ok(None);
        };
        let least = |series: &Series| series.runs.iter().map(|run| run.wall_s).fold(f64::INFINITY, f64::min);
        Ok(Some((ample_median / native_median, least(&ample) / least(&native))))
    }

    fn smallest(&self) -> Result<(Option<u64>, Option<u64>)> {
        let finishes = |setting: Setting| -> Result<Option<u64>> {
            let measured = self.run(&setting)?;
            let well = measured.finished() && measured.output == self.output;
            Ok(well.then(|| match &setting {
                Setting::Tmem { limit_bytes } => *limit_bytes,
                _ => measured.given_bytes(&setting),
            }))
        };
        let tmem = match self.options.only_kernel {
            true => None,
            false => search::smallest(self.peak_bytes, |limit_bytes| finishes(Setting::Tmem { limit_bytes }))?,
        };
        let mut zram = None;
        for algorithm in self.algorithms()? {
            let found = search::smallest(self.peak_bytes, |limit| finishes(self.zram(algorithm, limit)))?;
            zram = [zram, found].into_iter().flatten().min();
        }
        Ok((tmem, zram))
    }
}

impl Series {
    const fn new(setting: Setting) -> Self {
        Self { setting, runs: Vec::new() }
    }

    /// The median of a figure of the runs; nothing unless all finished and have it.
    pub(super) fn median(&self, figure: impl Fn(&Measured) -> Option<f64>) -> Option<f64> {
        let values: Option<Vec<f64>> =
            self.runs.iter().map(|run| run.finished().then(|| figure(run)).flatten()).collect();
        median(values?)
    }

    /// The first outcome that is no success.
    pub(super) fn failure(&self) -> Option<&str> {
        self.runs.iter().find(|run| !run.finished()).map(|run| run.outcome.words())
    }

    fn json(&self) -> Value {
        let runs: Vec<Value> = self.runs.iter().map(|run| run.json(&self.setting)).collect();
        json!({ "setting": format!("{:?}", self.setting), "runs": runs })
    }
}

impl Row {
    /// The better of the compressors' medians of a figure of which less is better.
    pub(super) fn zram(&self, figure: impl Fn(&Measured) -> Option<f64>) -> Option<f64> {
        self.zram.iter().filter_map(|series| series.median(&figure)).reduce(f64::min)
    }

    /// The median of `tmem run`'s figure.
    pub(super) fn tmem(&self, figure: impl Fn(&Measured) -> Option<f64>) -> Option<f64> {
        self.tmem.as_ref()?.median(figure)
    }

    /// `tmem run`'s over zram's.
    pub(super) fn ratio(&self, figure: impl Fn(&Measured) -> Option<f64>) -> Option<f64> {
        Some(self.tmem(&figure)? / self.zram(&figure)?)
    }

    /// All runs, for the file of figures.
    pub(super) fn json(&self) -> Value {
        json!({
            "name": self.name,
            "limit_bytes": self.limit_bytes,
            "same_output": self.same_output,
            "native": self.native.json(),
            "tmem": self.tmem.as_ref().map(Series::json),
            "zram": self.zram.iter().map(Series::json).collect::<Vec<_>>(),
        })
    }
}

/// The middle one, or the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    Some(if values.len() % 2 == 1 { upper } else { upper.midpoint(values[values.len() / 2 - 1]) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_in_the_middle() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }
}
