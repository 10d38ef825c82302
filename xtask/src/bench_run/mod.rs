//! `cargo xtask bench-run`: `tmem run` beside the kernel's own, with the same memory.
//!
//! The kernel's own is a memory group with a limit, and swap on zram. Its limit is sought so that the limit and zram's
//! memory together come to what `tmem run` is given. Everything a run starts is in a control group of its own, also
//! the monitor of `tmem run` and servers that leave their parent: CPU time and memory are that group's.
//!
//! Memory given is, of `tmem run`, the most at once of anonymous memory and memory files (which the store is in),
//! looked at every 5 ms; of the kernel, the most that was charged, page cache and page tables too, with zram's peak.
//!
//! The machine is left as it was: the zram device is added for the comparison and removed, also on Ctrl-C.

mod cgroup;
mod compare;
mod goals;
mod measure;
mod search;
mod swap;
mod workloads;

use crate::process::Scratch;
use crate::tasks;
use anyhow::{Context, Result};
use clap::Args;
use compare::{Compared, Row};
use measure::{Bench, Measured};
use serde_json::json;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use workloads::Workload;

/// Runs with each setting, and with ample memory.
const ROUNDS: u32 = 5;
const AMPLE_ROUNDS: u32 = 9;
const QUICK_ROUNDS: u32 = 2;
const QUICK_AMPLE_ROUNDS: u32 = 3;

/// `tmem run` beside the kernel's memory groups with swap on zram; needs root
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cargo xtask bench-run --quick                    small patterns: some minutes
  cargo xtask bench-run --json run.json            everything: hours
  cargo xtask bench-run --only random-1,sort --rounds 3
  cargo xtask bench-run --quick --only-kernel      the kernel's half alone")]
pub(crate) struct Options {
    /// Only these workloads
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Runs with each setting; medians are told [default: 5, or 2 with --quick]
    #[arg(long)]
    rounds: Option<u32>,
    /// Memory given, as parts of what the program has at its peak
    #[arg(long, value_delimiter = ',', default_value = "0.5")]
    limit_fraction: Vec<f64>,
    /// Patterns only, small, with few rounds
    #[arg(long)]
    quick: bool,
    /// Also seeks the least memory with which each workload finishes
    #[arg(long)]
    smallest: bool,
    /// Without `tmem run`
    #[arg(long)]
    only_kernel: bool,
    /// Memory of a pattern, in MiB [default: 512, or 128 with --quick]
    #[arg(long)]
    size_mib: Option<usize>,
    /// What pages of patterns hold: `content`, made up, or files of `cargo xtask pages`, with commas between
    #[arg(long, default_value = "content")]
    pages: OsString,
    /// The policy that `tmem run` is given
    #[arg(long)]
    policy: Option<String>,
    /// Writes every run's figures to a file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Says what the search for equal memory found
    #[arg(long)]
    verbose: bool,
}

impl Options {
    fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(if self.quick { QUICK_ROUNDS } else { ROUNDS }).max(1)
    }

    const fn ample_rounds(&self) -> u32 {
        if self.quick { QUICK_AMPLE_ROUNDS } else { AMPLE_ROUNDS }
    }
}

/// Compares.
pub(crate) fn run(options: &Options) -> Result<()> {
    let hierarchy = cgroup::Hierarchy::find()?;
    for package in ["tmem-patterns", "tmem-cli"].into_iter().take(if options.only_kernel { 1 } else { 2 }) {
        tasks::run(tasks::cargo().args(["build", "--quiet", "--release", "--package", package]))?;
    }
    let scratch = Scratch::new("tmem-bench-run")?;
    let workloads = workloads::prepare(options, &scratch.path)?;
    let bench = Bench {
        hierarchy,
        device: swap::Device::add()?,
        tmem: tasks::target().join("release/tmem"),
        policy: options.policy.clone(),
        scratch: scratch.path.clone(),
    };
    println!("{:?} rounds; seconds, medians; zram: the better of its compressors", options.rounds());
    println!("{HEADING}");
    let mut compared = Vec::new();
    for workload in &workloads {
        compared.extend(compare_one(&bench, options, workload));
    }
    tell_goals(options, &compared)?;
    if let Some(path) = &options.json {
        write_figures(path, options, &workloads, &compared)?;
    }
    Ok(())
}

/// One that fails does not keep the others from running.
fn compare_one(bench: &Bench, options: &Options, workload: &Workload) -> Option<Compared> {
    match compare::compare(bench, options, workload, |row| println!("{}", line(row))) {
        Ok(compared) => {
            if let Some((median, least)) = compared.overhead {
                println!("{:<13} no pressure: {median:.3} of native, shortest {least:.3}", workload.name);
            }
            if options.smallest {
                let mib = |bytes: Option<u64>| bytes.map_or("-".to_owned(), |bytes| format!("{} MiB", bytes >> 20));
                let (tmem, zram) = compared.smallest_bytes;
                println!("{:<13} smallest: tmem {}, zram {}", workload.name, mib(tmem), mib(zram));
            }
            Some(compared)
        }
        Err(error) => {
            println!("{:<13} failed: {error:#}", workload.name);
            None
        }
    }
}

const HEADING: &str = "workload       limit |  native    tmem    zram   t/z |  CPU t    CPU z   t/z | given t given z \
                       | p50 us t       z | p99 us t       z | output";

fn line(row: &Row) -> String {
    let seconds = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.2}"));
    let micros = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.1}"));
    let work = |run: &Measured| Some(run.work_s);
    let cpu = |run: &Measured| Some(run.cpu_s);
    let told = |name: &'static str| move |run: &Measured| run.told(name);
    let given = |series: &compare::Series| {
        series.median(|run| Some(run.given_bytes(&series.setting) as f64 / row.limit_bytes as f64))
    };
    // The farthest from equal.
    let zram_given = row.zram.iter().filter_map(given).max_by(|a, b| (a - 1.0).abs().total_cmp(&(b - 1.0).abs()));
    let mut line = format!(
        "{:<13} {:>5}M | {:>7} {:>7} {:>7} {:>5} | {:>6} {:>8} {:>5} | {:>7} {:>7} | {:>8} {:>7} | {:>8} {:>7} | {}",
        row.name,
        row.limit_bytes >> 20,
        seconds(row.native.median(work)),
        seconds(row.tmem(work)),
        seconds(row.zram(work)),
        seconds(row.ratio(work)),
        seconds(row.tmem(cpu)),
        seconds(row.zram(cpu)),
        seconds(row.ratio(cpu)),
        seconds(row.tmem.as_ref().and_then(given)),
        seconds(zram_given),
        micros(row.tmem(told("p50_us"))),
        micros(row.zram(told("p50_us"))),
        micros(row.tmem(told("p99_us"))),
        micros(row.zram(told("p99_us"))),
        if row.same_output { "same" } else { "DIFFERS" },
    );
    let huge = [("tmem", row.tmem(goals::huge)), ("zram", row.zram(goals::huge))];
    for (who, kept) in huge {
        line.push_str(&kept.map_or(String::new(), |kept| format!("; huge pages {who} {kept:.2}")));
    }
    for series in row.tmem.iter().chain(&row.zram) {
        line.push_str(&series.failure().map_or(String::new(), |why| format!("\n    {:?}: {why}", series.setting)));
    }
    let runs = row.zram.iter().flat_map(|series| &series.runs);
    if let Some(foreign) = runs.filter(|run| run.is_disturbed()).map(|run| run.foreign_peak_bytes).max() {
        line.push_str(&format!("\n    others of this machine swapped too, up to {} MiB", foreign >> 20));
    }
    line
}

fn tell_goals(options: &Options, compared: &[Compared]) -> Result<()> {
    let over_native = compared
        .iter()
        .flat_map(|compared| &compared.rows)
        .filter_map(|row| Some(row.zram(|run| Some(run.work_s))? / row.native.median(|run| Some(run.work_s))?));
    let mean = goals::geometric_mean(over_native).context("no workload finished with zram")?;
    println!("\nzram over native, geometric mean: {mean:.2}");
    if !options.only_kernel {
        goals::goals(compared).iter().for_each(|goal| println!("{}", goal.line()));
    }
    Ok(())
}

fn write_figures(path: &PathBuf, options: &Options, workloads: &[Workload], compared: &[Compared]) -> Result<()> {
    let rows: Vec<_> = compared.iter().flat_map(|compared| &compared.rows).map(Row::json).collect();
    let apart: Vec<_> = compared
        .iter()
        .map(|compared| {
            let name = compared.rows.first().map(|row| &row.name);
            let (tmem, zram) = compared.smallest_bytes;
            json!({
                "name": name,
                "no_pressure": compared.overhead.map(|(median, least)| json!({ "median": median, "least": least })),
                "smallest_bytes": { "tmem": tmem, "zram": zram },
            })
        })
        .collect();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let figures = json!({
        "kernel": kernel.trim(),
        "cpus": std::thread::available_parallelism().map_or(1, usize::from),
        "options": format!("{options:?}"),
        "workloads": workloads.iter().map(|workload| format!("{workload:?}")).collect::<Vec<_>>(),
        "rows": rows,
        "apart": apart,
        "goals": goals::goals(compared).iter().map(goals::Goal::json).collect::<Vec<_>>(),
    });
    fs::write(path, format!("{figures:#}\n")).with_context(|| format!("cannot write {}", path.display()))
}
