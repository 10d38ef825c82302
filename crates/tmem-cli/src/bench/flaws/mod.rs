//! `tmem bench flaws`: the interface of 2011 and the queue side by side, on the same pages and the same engine.
//!
//! | shape | a 4 KiB page | memory |
//! |---|---|---|
//! | legacy | one synchronous call to another process | copied through a bounce buffer, in and out |
//! | queue | one of many in a ring, to a `tmem serve` with one worker | compressed from and decompressed to where it lies |
//! | inline | one call of the engine in this process | as the queue |
//!
//! Each shape runs in each round, in turns. Whatever comes back is compared outside the timed parts.

pub(crate) mod legacy;
mod queue;

use super::clock::process_cpu;
use super::{gbps, median, percentile};
use crate::interrupt;
use crate::pages::{Buffer, sample};
use crate::report::{self, Table};
use anyhow::{Result, ensure};
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tmem::{ClientOptions, GRANULE_BYTES, Outcome, PoolOptions, Store, StoreOptions};
use tmem_sys::HUGE_PAGE_BYTES as HUGE_BYTES;

#[derive(Debug, Args)]
pub(crate) struct FlawsBench {
    /// Files of raw 4096-byte pages; pages are made up without.
    #[arg(long, num_args = 1.., value_name = "FILE")]
    pages: Vec<PathBuf>,
    /// How much is used of all files together.
    #[arg(long, default_value = "64m", value_parser = crate::cli::parse_size, value_name = "SIZE")]
    sample: usize,
    /// How much time the data is worth: fast, balanced or dense.
    #[arg(long, default_value_t)]
    policy: tmem::Policy,
    /// Rounds, of which medians are taken.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct LegacyServer {
    /// Where the caller listens.
    socket: PathBuf,
    /// Of the store, in bytes.
    budget: usize,
    /// Of the pool.
    policy: tmem::Policy,
}

/// What is told about a shape that goes to another process.
#[derive(Debug, Serialize)]
struct Shape {
    put_gbps: f64,
    get_gbps: f64,
    /// Whatever woke the other side, both ways together.
    doorbells_per_2mib_put: f64,
    doorbells_per_2mib_get: f64,
    /// Page data moved outside a codec, for a put and a get of each page, halved.
    copied_bytes_per_page: f64,
    /// Of all processes, for a put and a get of each page, halved.
    cpu_us_per_page: f64,
    /// Of a get of a page that waits for nothing else.
    latency_us: Latency,
}

#[derive(Debug, Clone, Copy, Default, Serialize)]
struct Latency {
    p50: f64,
    p99: f64,
}

/// The queue with so many pages outstanding.
#[derive(Debug, Serialize)]
struct Depth {
    depth: usize,
    put_gbps: f64,
    get_gbps: f64,
    p99_us: f64,
}

/// Operations of 2 MiB on memory of huge pages.
#[derive(Debug, Serialize)]
struct Huge {
    ops_per_2mib: f64,
    doorbells_per_2mib: f64,
    put_gbps: f64,
    get_gbps: f64,
    /// Huge pages in the client's memory before everything was put and got, and after.
    huge_pages_before: u64,
    huge_pages_after: u64,
}

#[derive(Debug, Serialize)]
struct Inline {
    put_gbps: f64,
    get_gbps: f64,
    cpu_us_per_page: f64,
}

/// The figures that are asked for.
#[derive(Debug, Serialize)]
struct Ratios {
    queue_put_over_inline: f64,
    queue_get_over_inline: f64,
    queue_get_over_legacy: f64,
    queue_put_over_legacy: f64,
    queue_cpu_over_inline: f64,
}

/// Everything that is printed.
#[derive(Debug, Serialize)]
struct Figures {
    pages: usize,
    policy: &'static str,
    rounds: u16,
    legacy: Shape,
    queue: Shape,
    inline: Inline,
    depth: Vec<Depth>,
    huge: Huge,
    ratios: Ratios,
}

/// A put of everything, or a get of everything.
#[derive(Debug, Clone, Copy, Default)]
struct Pass {
    wall: Duration,
    /// Of all processes.
    cpu: Duration,
    doorbells: u64,
}

/// What rounds of one shape came to.
#[derive(Debug, Default)]
struct Rounds {
    puts: Vec<Pass>,
    gets: Vec<Pass>,
    copied_bytes: u64,
    latencies_us: Vec<f64>,
}

impl Rounds {
    fn middle(passes: &[Pass], of: impl Fn(&Pass) -> f64) -> f64 {
        median(&passes.iter().map(of).collect::<Vec<_>>())
    }

    fn gbps(passes: &[Pass], bytes: usize) -> f64 {
        Self::middle(passes, |pass| gbps(bytes, pass.wall))
    }

    fn cpu_us_per_page(&self, pages: usize) -> f64 {
        let us = |passes: &[Pass]| Self::middle(passes, |pass| pass.cpu.as_secs_f64() * 1e6);
        (us(&self.puts) + us(&self.gets)) / 2.0 / pages as f64
    }

    fn shape(&self, bytes: usize) -> Shape {
        let pages = bytes / GRANULE_BYTES;
        let bells =
            |passes: &[Pass]| Self::middle(passes, |pass| pass.doorbells as f64) * HUGE_BYTES as f64 / bytes as f64;
        let copies = 2 * pages * self.puts.len();
        Shape {
            put_gbps: Self::gbps(&self.puts, bytes),
            get_gbps: Self::gbps(&self.gets, bytes),
            doorbells_per_2mib_put: bells(&self.puts),
            doorbells_per_2mib_get: bells(&self.gets),
            copied_bytes_per_page: self.copied_bytes as f64 / copies as f64,
            cpu_us_per_page: self.cpu_us_per_page(pages),
            latency_us: latency(&self.latencies_us),
        }
    }
}

fn latency(us: &[f64]) -> Latency {
    let mut sorted = us.to_vec();
    sorted.sort_by(f64::total_cmp);
    Latency { p50: percentile(&sorted, 0.5), p99: percentile(&sorted, 0.99) }
}

pub(crate) fn run(options: &FlawsBench) -> Result<()> {
    let sample = sample(&options.pages, options.sample)?;
    let bar = report::progress(u64::from(options.rounds) * 3 + queue::DEPTHS.len() as u64 + 1);
    let budget = budget_for(sample.pages.len());
    let mut legacy = legacy::Legacy::start(&sample.pages, budget, options.policy)?;
    let mut queue = queue::Queued::start(&sample.pages, budget, options.policy)?;
    let inline = Inlined::new(budget, options.policy)?;
    let (mut legacies, mut queues, mut inlines) = (Rounds::default(), Rounds::default(), Rounds::default());
    let mut into = Buffer::new(sample.pages.len());
    for _ in 0..options.rounds {
        bar.set_message("one call a page");
        legacy.round(&sample.pages, &mut legacies)?;
        bar.inc(1);
        bar.set_message("queue");
        queue.round(&sample.pages, &mut queues)?;
        bar.inc(1);
        bar.set_message("inline");
        inline.round(&sample.pages, &mut into, &mut inlines)?;
        bar.inc(1);
        interrupt::check()?;
    }
    let mut depth = Vec::new();
    for outstanding in queue::DEPTHS {
        bar.set_message(format!("queue, {outstanding} outstanding"));
        depth.push(queue.at_depth(outstanding, usize::from(options.rounds), &sample.pages)?);
        bar.inc(1);
        interrupt::check()?;
    }
    bar.set_message("huge pages");
    let huge = queue.huge(&sample.pages, usize::from(options.rounds))?;
    bar.finish_and_clear();
    let bytes = sample.pages.len();
    let (legacy, queue) = (legacies.shape(bytes), queues.shape(bytes));
    let inline = Inline {
        put_gbps: Rounds::gbps(&inlines.puts, bytes),
        get_gbps: Rounds::gbps(&inlines.gets, bytes),
        cpu_us_per_page: inlines.cpu_us_per_page(bytes / GRANULE_BYTES),
    };
    let ratios = Ratios {
        queue_put_over_inline: queue.put_gbps / inline.put_gbps,
        queue_get_over_inline: queue.get_gbps / inline.get_gbps,
        queue_get_over_legacy: queue.get_gbps / legacy.get_gbps,
        queue_put_over_legacy: queue.put_gbps / legacy.put_gbps,
        queue_cpu_over_inline: queue.cpu_us_per_page / inline.cpu_us_per_page,
    };
    let (pages, policy, rounds) = (bytes / GRANULE_BYTES, options.policy.name(), options.rounds);
    let figures = Figures { pages, policy, rounds, legacy, queue, inline, depth, huge, ratios };
    report::print(options.json.then_some(&figures), || figures.text())
}

/// A budget in which everything finds room, whatever it holds.
fn budget_for(bytes: usize) -> usize {
    2 * bytes + (64 << 20)
}

/// The engine in this process, one thread.
struct Inlined {
    _store: Store,
    pool: tmem::Pool,
}

impl Inlined {
    fn new(budget: usize, policy: tmem::Policy) -> Result<Self> {
        let store = Store::new(StoreOptions::with_budget(budget))?;
        let pool = store.client(ClientOptions::named("bench")).create_pool(PoolOptions::persistent().policy(policy))?;
        Ok(Self { _store: store, pool })
    }

    fn round(&self, pages: &[u8], into: &mut Buffer, rounds: &mut Rounds) -> Result<()> {
        let offset = |page: usize| (page * GRANULE_BYTES) as u64;
        let (start, cpu) = (Instant::now(), process_cpu());
        for (at, page) in pages.chunks_exact(GRANULE_BYTES).enumerate() {
            ensure!(self.pool.put(1, offset(at), page) == Outcome::Stored, "page {at} was not stored");
        }
        rounds.puts.push(Pass { wall: start.elapsed(), cpu: process_cpu().saturating_sub(cpu), doorbells: 0 });
        into.poison();
        let (start, cpu) = (Instant::now(), process_cpu());
        for (at, page) in into.chunks_exact_mut(GRANULE_BYTES).enumerate() {
            ensure!(self.pool.get(1, offset(at), page) == Outcome::Filled, "page {at} was not filled");
        }
        rounds.gets.push(Pass { wall: start.elapsed(), cpu: process_cpu().saturating_sub(cpu), doorbells: 0 });
        ensure!(into[..] == *pages, "the engine returned other bytes than were put");
        let _ = self.pool.flush_object(1);
        Ok(())
    }
}

impl Figures {
    fn text(&self) -> String {
        let mut table = Table::new(&["", "one call a page (2011)", "queue", "inline"]);
        let (legacy, queue, inline) = (&self.legacy, &self.queue, &self.inline);
        let mut row = |name: &str, cells: [String; 3]| {
            table.row([name.to_owned()].into_iter().chain(cells).collect());
        };
        let three = |one: f64, two: f64, three: f64| [one, two, three].map(|value| format!("{value:.3}"));
        let two = |one: f64, two: f64| [format!("{one:.2}"), format!("{two:.2}"), "-".to_owned()];
        row("put, GB/s", three(legacy.put_gbps, queue.put_gbps, inline.put_gbps));
        row("get, GB/s", three(legacy.get_gbps, queue.get_gbps, inline.get_gbps));
        row("doorbells a 2 MiB put", two(legacy.doorbells_per_2mib_put, queue.doorbells_per_2mib_put));
        row("doorbells a 2 MiB get", two(legacy.doorbells_per_2mib_get, queue.doorbells_per_2mib_get));
        row("bytes copied a page", two(legacy.copied_bytes_per_page, queue.copied_bytes_per_page));
        row("CPU us a page", three(legacy.cpu_us_per_page, queue.cpu_us_per_page, inline.cpu_us_per_page));
        row("get alone, us, p50", two(legacy.latency_us.p50, queue.latency_us.p50));
        row("get alone, us, p99", two(legacy.latency_us.p99, queue.latency_us.p99));
        let mut depths = Table::new(&["outstanding", "put, GB/s", "get, GB/s", "get p99, us"]);
        for depth in &self.depth {
            let cells = [depth.put_gbps, depth.get_gbps].map(|value| format!("{value:.3}"));
            let [put, get] = cells;
            depths.row(vec![depth.depth.to_string(), put, get, format!("{:.0}", depth.p99_us)]);
        }
        let huge = &self.huge;
        format!(
            "{}\n{}\n2 MiB an operation: put {:.3} GB/s, get {:.3} GB/s, {:.2} operations and {:.2} doorbells a 2 MiB; \
             huge pages before {}, after {}\n",
            table.text(),
            depths.text(),
            huge.put_gbps,
            huge.get_gbps,
            huge.ops_per_2mib,
            huge.doorbells_per_2mib,
            huge.huge_pages_before,
            huge.huge_pages_after,
        )
    }
}
