//! A program that touches memory in a pattern, checks each page it touches, and times each access.
//!
//! It fills its region first, timed apart. Each thread has a part of the region to itself. An access that took longer
//! than a microsecond is taken for a page fault: reading a page that is there takes a tenth of that.
#![forbid(unsafe_code)]

mod contents;
mod histogram;
mod pattern;
mod random;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use contents::{Contents, PAGE_BYTES, PAGE_WORDS};
use histogram::Histogram;
use memmap2::{Advice, MmapMut};
use pattern::{Order, Pattern};
use random::Random;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use std::hint::black_box;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Accesses that took longer are faults.
const FAULT: Duration = Duration::from_micros(1);
/// Of the huge pattern's memory, the part that is kept, in eighths.
const KEPT_EIGHTHS: usize = 3;

/// Touches memory in a pattern and prints how long that took
#[derive(Parser, Debug)]
#[command(after_help = "Prints one JSON object: fill_s, wall_s, cpu_s, accesses, faults, p50_us, p99_us, p999_us, \
    max_us, checksum; with `huge`, also huge_before_bytes and huge_after_bytes.")]
struct Options {
    pattern: Pattern,
    /// Bytes of memory
    #[arg(long)]
    size: usize,
    /// How many accesses, over all threads
    #[arg(long)]
    touches: usize,
    /// How many threads, each with its own part of the memory
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Another order and other contents
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// What pages hold: `content` is made up like heap objects; otherwise files of pages
    #[arg(long, default_value = "content", value_delimiter = ',')]
    pages: Vec<PathBuf>,
    /// Of 100 touched pages, how many are written to
    #[arg(long, default_value_t = 25)]
    writes: usize,
    /// Asks for huge pages
    #[arg(long)]
    huge: bool,
}

/// What a thread, or all of them, came to.
#[derive(Debug)]
struct Touched {
    faults: Histogram,
    checksum: u64,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(figures) => {
            println!("{figures}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("tmem-patterns: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<Value> {
    let pages = options.size / PAGE_BYTES / options.threads.max(1);
    ensure!(pages > 0 && options.threads > 0, "no memory or no thread to touch it");
    let contents = Contents::new(&options.pages)?;
    if options.pattern == Pattern::Huge { cycle(options, &contents) } else { touch(options, &contents, pages) }
}

/// Fills the region and follows the pattern in it.
fn touch(options: &Options, contents: &Contents, pages_each: usize) -> Result<Value> {
    let start = Instant::now();
    let mut region = Region::new(options, pages_each * options.threads)?;
    let region = region.words();
    fill(options, contents, region)?;
    let fill = start.elapsed();
    let (start, cpu) = (Instant::now(), cpu_time());
    let touched = follow(options, region)?;
    Ok(figures(options, &touched, fill, start.elapsed(), cpu_time().saturating_sub(cpu)))
}

/// Fills huge pages, pushes them out by filling others, frees those, and reads the first ones twice.
fn cycle(options: &Options, contents: &Contents) -> Result<Value> {
    let pages = options.size / PAGE_BYTES;
    let kept_pages = pages * KEPT_EIGHTHS / 8;
    ensure!(options.threads == 1 && kept_pages > 0, "this pattern is of one thread, and of some pages");
    let start = Instant::now();
    let mut kept = Region::new(options, kept_pages)?;
    let kept = kept.words();
    fill(options, contents, kept)?;
    let before = huge_bytes()?;
    let mut other = Region::new(options, pages - kept_pages)?;
    fill(options, contents, other.words())?;
    drop(other);
    let fill = start.elapsed();
    let (start, cpu) = (Instant::now(), cpu_time());
    let touched = follow(options, kept)?;
    let mut figures = figures(options, &touched, fill, start.elapsed(), cpu_time().saturating_sub(cpu));
    figures["huge_before_bytes"] = before.into();
    figures["huge_after_bytes"] = huge_bytes()?.into();
    Ok(figures)
}

fn figures(options: &Options, touched: &Touched, fill: Duration, wall: Duration, cpu: Duration) -> Value {
    let faults = &touched.faults;
    json!({
        "fill_s": fill.as_secs_f64(),
        "wall_s": wall.as_secs_f64(),
        "cpu_s": cpu.as_secs_f64(),
        "accesses": options.touches / options.threads * options.threads,
        "faults": faults.total(),
        "p50_us": faults.quantile_us(0.5),
        "p99_us": faults.quantile_us(0.99),
        "p999_us": faults.quantile_us(0.999),
        "max_us": faults.longest().as_secs_f64() * 1e6,
        "checksum": format!("{:016x}", touched.checksum),
    })
}

/// Memory of its own, from the kernel.
struct Region(MmapMut);

impl Region {
    fn new(options: &Options, pages: usize) -> Result<Self> {
        let memory = MmapMut::map_anon(pages * PAGE_BYTES).context("cannot map memory")?;
        if options.huge || options.pattern == Pattern::Huge {
            memory.advise(Advice::HugePage).context("cannot ask for huge pages")?;
        }
        Ok(Self(memory))
    }

    /// Its words.
    fn words(&mut self) -> &mut [u64] {
        bytemuck::cast_slice_mut(&mut self.0)
    }
}

/// Fills each thread's part, by that thread.
fn fill(options: &Options, contents: &Contents, region: &mut [u64]) -> Result<()> {
    in_parts(options, region, |first, part| {
        for (number, page) in (first..).zip(part.chunks_exact_mut(PAGE_WORDS)) {
            contents.fill(page, number, options.seed)?;
        }
        Ok(())
    })
    .map(|_| ())
}

fn follow(options: &Options, region: &mut [u64]) -> Result<Touched> {
    let parts = in_parts(options, region, |first, part| follow_part(options, first, part))?;
    let mut all = Touched { faults: Histogram::new(), checksum: 0 };
    for part in &parts {
        all.faults.join(&part.faults);
        all.checksum = all.checksum.wrapping_add(part.checksum);
    }
    Ok(all)
}

fn follow_part(options: &Options, first: u64, part: &mut [u64]) -> Result<Touched> {
    let mut touched = Touched { faults: Histogram::new(), checksum: 0 };
    let seed = options.seed.wrapping_add(first);
    let mut random = Random::new(!seed);
    let order = Order::new(options.pattern, part.len() / PAGE_WORDS, options.touches / options.threads, seed);
    for index in order {
        let page = &mut part[index * PAGE_WORDS..(index + 1) * PAGE_WORDS];
        let word = random.below(PAGE_WORDS);
        let start = Instant::now();
        // Opaque on both sides, so that the read stays between the two looks at the clock.
        black_box(black_box(&mut *page)[word]);
        let time = start.elapsed();
        if time > FAULT {
            touched.faults.add(time);
        }
        let number = first + index as u64;
        let sum = contents::check(page, number).with_context(|| format!("page {number} is not what was written"))?;
        touched.checksum = random::mix(touched.checksum ^ sum);
        if random.below(100) < options.writes {
            contents::write(page, &mut random);
        }
    }
    Ok(touched)
}

/// Calls `work` in a thread for each part of the region, with the number of the part's first page.
fn in_parts<T: Send>(
    options: &Options,
    region: &mut [u64],
    work: impl Fn(u64, &mut [u64]) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let words_each = region.len() / options.threads;
    if options.threads == 1 {
        return Ok(vec![work(0, region)?]);
    }
    std::thread::scope(|scope| {
        let work = &work;
        let start =
            |(part, words): (usize, _)| scope.spawn(move || work((part * words_each / PAGE_WORDS) as u64, words));
        let threads: Vec<_> = region.chunks_exact_mut(words_each).enumerate().map(start).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| bail!("a thread panicked"))).collect()
    })
}

fn cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}

/// Bytes of this process in huge pages now.
fn huge_bytes() -> Result<u64> {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").context("cannot read smaps_rollup")?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("AnonHugePages:")).context("no AnonHugePages")?;
    let kib = line.trim().trim_end_matches(" kB").parse::<u64>().context("AnonHugePages is no number")?;
    Ok(kib << 10)
}
