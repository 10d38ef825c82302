//! `tmem bench churn`: a full store under random overwrites, flushes and puts. How much memory is in use for what is
//! held?
//!
//! The bench remembers which page each granule holds, and so knows to the byte what the blocks in the store come to.

use super::bare::pattern;
use super::clock::process_cpu;
use crate::cli::ChurnBench;
use crate::interrupt;
use crate::pages::{Corpus, load_all, made_up};
use crate::random::Random;
use crate::report;
use anyhow::{Context, Result, bail, ensure};
use indicatif::ProgressBar;
use serde::Serialize;
use std::time::{Duration, Instant};
use tmem::{ClientOptions, GRANULE_BYTES, HEADER_BYTES, Outcome, Pool, PoolOptions, Rejection, Store, StoreOptions};
use tmem_codec::{Temperature, Workspace, encode};

/// Pages that are made up where no files are given.
const MADE_UP_PAGES: usize = 8192;

/// The only object.
const OBJECT: u64 = 1;

/// Operations between two looks at what the process holds.
const LOOK_EVERY: usize = 4096;

/// In place of a page's number: the granule is missing.
const MISSING: u32 = u32::MAX;

#[derive(Debug, Serialize)]
struct Figures {
    policy: &'static str,
    budget_bytes: usize,
    operations: usize,
    seed: u64,
    granules: usize,
    memory_used_bytes: usize,
    /// Bytes of the blocks that are held, as the codec made them when they were put.
    compressed_bytes: usize,
    blocks: usize,
    /// Memory in use over compressed bytes and headers.
    ratio: f64,
    /// What the store charges for the blocks: headers and rounding included, and what the cleaner has made smaller.
    charged_bytes: usize,
    segment_bytes: usize,
    table_bytes: usize,
    rejected_share: f64,
    /// Puts a second, of the random part.
    puts_per_second: f64,
    put_gbps: f64,
    /// CPU time of the whole process, the cleaner's thread included, for each random operation.
    cpu_us_per_operation: f64,
    blocks_moved: u64,
    blocks_settled: u64,
    process_growth_bytes: usize,
    process_growth_over_budget: f64,
}

/// The pages that are put.
struct Pages {
    corpora: Vec<Corpus>,
    /// Encoded bytes of each page; `None` of those that take no block.
    encoded: Vec<Option<usize>>,
}

/// What the store holds, as the bench remembers it.
struct Remembered {
    /// For each granule the number of its page.
    page_of: Vec<u32>,
    /// Granules that hold something.
    held: Vec<u32>,
    /// Granules that were flushed or rejected.
    free: Vec<u32>,
}

/// Counts of the random part.
#[derive(Debug, Default)]
struct Tally {
    puts: u64,
    rejected: u64,
    putting: Duration,
    /// CPU time of the random part.
    cpu: Duration,
    /// Most that the process held.
    most_bytes: usize,
}

struct Churn {
    pool: Pool,
    pages: Pages,
    random: Random,
    remembered: Remembered,
    tally: Tally,
}

pub(crate) fn run(options: &ChurnBench) -> Result<()> {
    let corpora =
        if options.pages.is_empty() { vec![made_up(MADE_UP_PAGES, options.seed)] } else { load_all(&options.pages)? };
    let pages = Pages::new(corpora, options)?;
    // Taken and touched before the store is made, so that the process grows by the store alone.
    let most_granules = options.budget / GRANULE_BYTES * 16;
    let remembered = Remembered::with_room(most_granules);
    let before = resident()?;
    let store = Store::new(StoreOptions::with_budget(options.budget)).context("cannot make a store")?;
    let client = store.client(ClientOptions::named("churn"));
    let pool = client.create_pool(PoolOptions::persistent().policy(options.policy))?;
    let bar = report::progress(options.operations as u64);
    let mut churn = Churn { pool, pages, random: Random::new(options.seed), remembered, tally: Tally::default() };
    bar.set_message("filling");
    churn.fill(most_granules)?;
    bar.set_message("random operations");
    churn.tally = Tally::default();
    let cpu_before = process_cpu();
    churn.work(options.operations, &bar)?;
    churn.tally.cpu = process_cpu().saturating_sub(cpu_before);
    churn.tally.most_bytes = churn.tally.most_bytes.max(resident()?);
    bar.set_message("comparing");
    churn.verify()?;
    bar.finish_and_clear();
    let figures = churn.figures(options, &store, before);
    report::print(options.json.then_some(&figures), || figures.text())
}

/// Private and shared memory of this process.
fn resident() -> Result<usize> {
    Ok(tmem_sys::resident_bytes().context("cannot tell what this process holds")?.total())
}

impl Pages {
    fn new(corpora: Vec<Corpus>, options: &ChurnBench) -> Result<Self> {
        let mut workspace = Workspace::boxed();
        let mut room = [0; GRANULE_BYTES];
        let mut encoded = Vec::new();
        for page in corpora.iter().flat_map(|corpus| corpus.pages.chunks(GRANULE_BYTES)) {
            let block = match pattern(page) {
                Some(_) => None,
                None => Some(encode(&mut workspace, options.policy, Temperature::Hot, page, &mut room)),
            };
            encoded.push(
                block.map(|block| block.context("the codec found no encoding").map(|made| made.len)).transpose()?,
            );
        }
        Ok(Self { corpora, encoded })
    }

    fn page(&self, number: u32) -> &[u8] {
        let mut offset = number as usize * GRANULE_BYTES;
        for corpus in &self.corpora {
            if offset < corpus.pages.len() {
                return &corpus.pages[offset..offset + GRANULE_BYTES];
            }
            offset -= corpus.pages.len();
        }
        unreachable!("page {number} of {}", self.encoded.len())
    }
}

impl Remembered {
    fn with_room(granules: usize) -> Self {
        let touched = || {
            let mut list = vec![MISSING; granules];
            list.clear();
            list
        };
        Self { page_of: touched(), held: touched(), free: touched() }
    }
}

impl Churn {
    /// Puts new granules until one is rejected.
    fn fill(&mut self, most: usize) -> Result<()> {
        while self.remembered.page_of.len() < most {
            if self.remembered.page_of.len().is_multiple_of(LOOK_EVERY) {
                interrupt::check()?;
            }
            let granule = u32::try_from(self.remembered.page_of.len()).context("too many granules")?;
            self.remembered.page_of.push(MISSING);
            if !self.put(granule)? {
                self.remembered.free.push(granule);
                return Ok(());
            }
            self.remembered.held.push(granule);
        }
        bail!("the budget holds {most} of these pages and more: give pages that compress less, with --pages")
    }

    fn work(&mut self, operations: usize, bar: &ProgressBar) -> Result<()> {
        for at in 0..operations {
            if at.is_multiple_of(LOOK_EVERY) {
                interrupt::check()?;
                bar.set_position(at as u64);
                self.tally.most_bytes = self.tally.most_bytes.max(resident()?);
            }
            match self.random.below(8) {
                0 => self.flush_one()?,
                1 => self.put_new()?,
                _ => self.overwrite_one()?,
            }
        }
        Ok(())
    }

    fn overwrite_one(&mut self) -> Result<()> {
        if self.remembered.held.is_empty() {
            return self.put_new();
        }
        let at = self.random.below(self.remembered.held.len());
        let granule = self.remembered.held[at];
        if !self.put(granule)? {
            self.remembered.held.swap_remove(at);
            self.remembered.free.push(granule);
        }
        Ok(())
    }

    /// Into a granule that was flushed, as a swap area would, or the next one.
    fn put_new(&mut self) -> Result<()> {
        let granule = match self.remembered.free.len() {
            0 => {
                self.remembered.page_of.push(MISSING);
                u32::try_from(self.remembered.page_of.len() - 1).context("too many granules")?
            }
            free => self.remembered.free.swap_remove(self.random.below(free)),
        };
        let stored = self.put(granule)?;
        if stored { &mut self.remembered.held } else { &mut self.remembered.free }.push(granule);
        Ok(())
    }

    fn flush_one(&mut self) -> Result<()> {
        if self.remembered.held.is_empty() {
            return Ok(());
        }
        let at = self.random.below(self.remembered.held.len());
        let granule = self.remembered.held.swap_remove(at);
        let outcome = self.pool.flush(OBJECT, offset(granule), GRANULE_BYTES as u64);
        ensure!(outcome == Outcome::Flushed { granules: 1 }, "a flush of one granule ended as {outcome:?}");
        self.remembered.page_of[granule as usize] = MISSING;
        self.remembered.free.push(granule);
        Ok(())
    }

    /// Puts a random page. Returns whether it was stored; the granule is missing otherwise.
    fn put(&mut self, granule: u32) -> Result<bool> {
        let number = u32::try_from(self.random.below(self.pages.encoded.len())).context("too many pages")?;
        let start = Instant::now();
        let outcome = self.pool.put(OBJECT, offset(granule), self.pages.page(number));
        self.tally.putting += start.elapsed();
        self.tally.puts += 1;
        let stored = match outcome {
            Outcome::Stored => true,
            Outcome::Rejected(Rejection::Budget) => false,
            other => bail!("a put ended as {other:?}"),
        };
        self.tally.rejected += u64::from(!stored);
        self.remembered.page_of[granule as usize] = if stored { number } else { MISSING };
        Ok(stored)
    }

    /// Gets every granule, those that must be missing too.
    fn verify(&self) -> Result<()> {
        let mut back = [0; GRANULE_BYTES];
        for (granule, number) in (0u32..).zip(&self.remembered.page_of) {
            if granule.is_multiple_of(4096) {
                interrupt::check()?;
            }
            let outcome = self.pool.get(OBJECT, offset(granule), &mut back);
            let expected = if *number == MISSING { Outcome::Missing } else { Outcome::Filled };
            ensure!(outcome == expected, "granule {granule}: {outcome:?} instead of {expected:?}");
            let same = *number == MISSING || back == self.pages.page(*number);
            ensure!(same, "granule {granule} came back with wrong bytes");
        }
        Ok(())
    }

    fn figures(&self, options: &ChurnBench, store: &Store, before: usize) -> Figures {
        let held = self.remembered.page_of.iter().filter(|number| **number != MISSING);
        let blocks = held.clone().filter_map(|number| self.pages.encoded[*number as usize]);
        let (blocks, compressed_bytes) = blocks.fold((0, 0), |(count, sum), bytes| (count + 1, sum + bytes));
        let memory = store.memory();
        let puts_per_second = self.tally.puts as f64 / self.tally.putting.as_secs_f64().max(1e-9);
        let process_growth_bytes = self.tally.most_bytes.saturating_sub(before);
        Figures {
            policy: options.policy.name(),
            budget_bytes: options.budget,
            operations: options.operations,
            seed: options.seed,
            granules: held.count(),
            memory_used_bytes: memory.used,
            compressed_bytes,
            blocks,
            ratio: memory.used as f64 / (compressed_bytes + HEADER_BYTES * blocks).max(1) as f64,
            charged_bytes: memory.charged,
            segment_bytes: memory.segments,
            table_bytes: memory.tables,
            rejected_share: self.tally.rejected as f64 / self.tally.puts.max(1) as f64,
            puts_per_second,
            put_gbps: puts_per_second * GRANULE_BYTES as f64 / 1e9,
            cpu_us_per_operation: self.tally.cpu.as_secs_f64() * 1e6 / options.operations as f64,
            blocks_moved: store.stats().blocks_moved,
            blocks_settled: store.stats().blocks_settled,
            process_growth_bytes,
            process_growth_over_budget: process_growth_bytes as f64 / options.budget as f64,
        }
    }
}

fn offset(granule: u32) -> u64 {
    u64::from(granule) * GRANULE_BYTES as u64
}

impl Figures {
    fn text(&self) -> String {
        let bytes = |count: usize| report::bytes(count as u64);
        let lines = [
            ("policy", self.policy.to_owned()),
            ("budget", bytes(self.budget_bytes)),
            ("random operations", self.operations.to_string()),
            ("granules held", self.granules.to_string()),
            ("memory in use", bytes(self.memory_used_bytes)),
            ("  segments", bytes(self.segment_bytes)),
            ("  tables", bytes(self.table_bytes)),
            ("blocks", self.blocks.to_string()),
            ("compressed bytes", bytes(self.compressed_bytes)),
            ("charged", bytes(self.charged_bytes)),
            ("memory / (compressed + headers)", format!("{:.4}", self.ratio)),
            ("puts rejected", report::percent(self.rejected_share)),
            ("puts a second", format!("{:.0}", self.puts_per_second)),
            ("put GB/s", format!("{:.3}", self.put_gbps)),
            ("CPU us an operation, cleaner incl.", format!("{:.1}", self.cpu_us_per_operation)),
            ("blocks settled by the cleaner", self.blocks_settled.to_string()),
            ("blocks moved by the cleaner", self.blocks_moved.to_string()),
            ("the process grew by", bytes(self.process_growth_bytes)),
            ("  over the budget", format!("{:.4}", self.process_growth_over_budget)),
        ];
        lines.iter().map(|(name, value)| format!("{name:<35} {value}\n")).collect()
    }
}
