//! `tmem bench scale`: what a random put and get cost in a small store and in a large one.
//!
//! What a granule holds follows from its number: 7/8 are same-filled, 1/16 are holes, 1/16 hold a page. So tens of
//! gigabytes fit, the tables are as large as they would be, and everything can be compared without a copy.

use super::bare::pattern;
use super::clock::{Clock, Moment};
use super::{gbps, median};
use crate::cli::ScaleBench;
use crate::interrupt;
use crate::pages::{Corpus, load_all, made_up};
use crate::random::{Random, mix};
use crate::report;
use anyhow::{Context, Result, ensure};
use indicatif::ProgressBar;
use serde::Serialize;
use std::time::Instant;
use tmem::{
    Action, Client, ClientOptions, Completion, GRANULE_BYTES, ObjectId, Operation, Outcome, Policy, Pool, PoolOptions,
    Store, StoreOptions,
};
use tmem_codec::{Temperature, Workspace, encode};

/// Pages that are made up where no files are given.
const MADE_UP_PAGES: usize = 4096;

/// Different same-filled granules.
const PATTERNS: usize = 64;

/// Granules that are put in one range at most while a store is filled.
const RANGE_GRANULES: usize = 512;

/// Of the memory that the system says is available, the part that this may use.
const PART_OF_AVAILABLE: f64 = 0.6;

const OBJECT: u64 = 1;

#[derive(Debug, Serialize)]
struct Figures {
    rounds: u16,
    clock: &'static str,
    operations: usize,
    small: StoreFigures,
    large: StoreFigures,
    put_ratio: f64,
    get_ratio: f64,
}

#[derive(Debug, Serialize)]
struct StoreFigures {
    object_bytes: usize,
    granules: u64,
    memory_used_bytes: usize,
    table_bytes_per_granule: f64,
    fill_gbps: f64,
    put_ns: f64,
    get_ns: f64,
}

/// What granules hold.
struct Contents {
    corpora: Vec<Corpus>,
    /// Where the pages are that take a block.
    pages: Vec<(usize, usize)>,
    filled: Vec<[u8; GRANULE_BYTES]>,
}

struct Subject {
    store: Store,
    client: Client,
    pool: Pool,
    granules: u64,
    held: u64,
    fill_gbps: f64,
    put_ns: Vec<f64>,
    get_ns: Vec<f64>,
    clock: Clock,
}

pub(crate) fn run(options: &ScaleBench) -> Result<()> {
    ensure!(options.small <= options.large, "--small is larger than --large");
    let corpora = if options.pages.is_empty() { vec![made_up(MADE_UP_PAGES, 1)] } else { load_all(&options.pages)? };
    let contents = Contents::new(corpora)?;
    let policy = Policy::default();
    let page_bytes = contents.encoded_bytes(policy)?;
    let [small_bytes, large_bytes] = [options.small, options.large].map(|bytes| budget(bytes, page_bytes));
    check_room(options, small_bytes + large_bytes)?;
    let bar = report::progress(((options.small + options.large) / GRANULE_BYTES) as u64);
    bar.set_message("filling");
    let mut small = Subject::new(options.small, small_bytes, &contents, &bar)?;
    let mut large = Subject::new(options.large, large_bytes, &contents, &bar)?;
    bar.set_message("measuring");
    (small.clock, large.clock) = (options.clock, options.clock);
    for round in 0..=options.rounds {
        for subject in [&mut small, &mut large] {
            subject.put_some(options.operations, &contents, u64::from(round))?;
        }
        for subject in [&mut small, &mut large] {
            subject.get_some(options.operations, &contents, u64::from(round))?;
        }
        if round == 0 {
            // The warm-up.
            for subject in [&mut small, &mut large] {
                subject.put_ns.clear();
                subject.get_ns.clear();
            }
        }
    }
    bar.finish_and_clear();
    let (small, large) = (small.figures(), large.figures());
    let figures = Figures {
        rounds: options.rounds,
        clock: options.clock.name(),
        operations: options.operations,
        put_ratio: large.put_ns / small.put_ns,
        get_ratio: large.get_ns / small.get_ns,
        small,
        large,
    };
    report::print(options.json.then_some(&figures), || figures.text())
}

/// Bytes that a store needs for an object of `bytes` whose pages take `page_bytes` each.
fn budget(bytes: usize, page_bytes: usize) -> usize {
    let granules = bytes / GRANULE_BYTES;
    let tables = granules * 12;
    // Overwriting needs room for what is replaced until it is cleaned away.
    let blocks = granules / 16 * (page_bytes + 32);
    tables + blocks + blocks / 4 + (96 << 20)
}

/// Fails if the machine has no room for `bytes`.
fn check_room(options: &ScaleBench, bytes: usize) -> Result<()> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB"));
    let available = line.and_then(|kib| kib.parse::<usize>().ok()).context("no MemAvailable in /proc/meminfo")? * 1024;
    let part = bytes as f64 / (available as f64 * PART_OF_AVAILABLE);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "advice for people")]
    let advice = (options.large as f64 / part / f64::from(1 << 30)) as u64;
    ensure!(
        part <= 1.0,
        "this needs {} and may use 60 % of the {} that are available: try --large {}g, or free memory first",
        report::bytes(bytes as u64),
        report::bytes(available as u64),
        advice.max(1)
    );
    Ok(())
}

impl Contents {
    fn new(corpora: Vec<Corpus>) -> Result<Self> {
        let mut pages = Vec::new();
        for (corpus, of) in corpora.iter().enumerate() {
            let starts = (0..of.pages.len()).step_by(GRANULE_BYTES);
            let blocks = starts.filter(|start| pattern(&of.pages[*start..*start + GRANULE_BYTES]).is_none());
            pages.extend(blocks.map(|start| (corpus, start)));
        }
        ensure!(!pages.is_empty(), "all pages are same-filled: give others with --pages");
        let of_word = |word: u64| {
            let mut page = [0; GRANULE_BYTES];
            let half = if word == 0 { 0 } else { mix(word) & 0xffff_ffff };
            page.as_chunks_mut::<8>().0.fill((half | half << 32).to_le_bytes());
            page
        };
        Ok(Self { corpora, pages, filled: (0..PATTERNS as u64).map(of_word).collect() })
    }

    /// The bytes that belong into a granule, if any do.
    fn of(&self, granule: u64) -> Option<&[u8]> {
        let pick = mix(granule.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1));
        let which = (pick >> 8) as usize;
        match pick % 16 {
            0 => None,
            1 => {
                let (corpus, start) = self.pages[which % self.pages.len()];
                Some(&self.corpora[corpus].pages[start..start + GRANULE_BYTES])
            }
            _ => Some(&self.filled[which % PATTERNS]),
        }
    }

    /// Bytes that a page takes in the mean.
    fn encoded_bytes(&self, policy: Policy) -> Result<usize> {
        let mut workspace = Workspace::boxed();
        let mut room = [0; GRANULE_BYTES];
        let mut sum = 0;
        for (corpus, start) in &self.pages {
            let page = &self.corpora[*corpus].pages[*start..*start + GRANULE_BYTES];
            let made = encode(&mut workspace, policy, Temperature::Hot, page, &mut room);
            sum += made.context("the codec found no encoding")?.len;
        }
        Ok(sum.div_ceil(self.pages.len()))
    }
}

impl Subject {
    fn new(object_bytes: usize, budget_bytes: usize, contents: &Contents, bar: &ProgressBar) -> Result<Self> {
        let store = Store::new(StoreOptions::with_budget(budget_bytes)).context("cannot make a store")?;
        let client = store.client(ClientOptions::named("scale"));
        let pool = client.create_pool(PoolOptions::persistent())?;
        let granules = (object_bytes / GRANULE_BYTES) as u64;
        let (put_ns, get_ns, clock) = (Vec::new(), Vec::new(), Clock::Wall);
        let mut subject = Self { store, client, pool, granules, held: 0, fill_gbps: 0.0, put_ns, get_ns, clock };
        subject.fill(contents, bar)?;
        Ok(subject)
    }

    /// Puts everything, holes left out, in ranges as long as they get.
    fn fill(&mut self, contents: &Contents, bar: &ProgressBar) -> Result<()> {
        let start = Instant::now();
        let mut completions = Vec::new();
        for first in (0..self.granules).step_by(RANGE_GRANULES) {
            let end = self.granules.min(first + RANGE_GRANULES as u64);
            interrupt::check()?;
            bar.inc(end - first);
            let held: Vec<_> = (first..end).filter_map(|granule| Some((granule, contents.of(granule)?))).collect();
            let pages: Vec<&[u8]> = held.iter().map(|(_, page)| *page).collect();
            let mut batch = Vec::new();
            let mut from = 0;
            for run in held.chunk_by(|left, right| left.0 + 1 == right.0) {
                let pages = &pages[from..from + run.len()];
                batch.push(self.operation(Action::Put { offset: run[0].0 * GRANULE_BYTES as u64, from: pages }));
                from += run.len();
            }
            self.client.execute(&mut batch, &mut completions);
            let stored = |completion: &Completion| completion.outcome == Outcome::Stored;
            ensure!(completions.drain(..).all(|completion| stored(&completion)), "a put into a store with room failed");
            self.held += held.len() as u64;
        }
        self.fill_gbps = gbps(usize::try_from(self.held)? * GRANULE_BYTES, start.elapsed());
        Ok(())
    }

    fn operation<'m>(&self, action: Action<'m>) -> Operation<'m> {
        Operation { tag: 0, pool: self.pool.id(), object: ObjectId::from(OBJECT), action }
    }

    /// Random granules, holes left out, and what they hold.
    fn picks<'a>(&self, count: usize, contents: &'a Contents, seed: u64) -> Result<Vec<(u64, &'a [u8])>> {
        let mut random = Random::new(seed);
        let granules = usize::try_from(self.granules)?;
        let picks = std::iter::repeat_with(|| random.below(granules) as u64);
        Ok(picks
            .filter_map(|granule| Some((granule * GRANULE_BYTES as u64, contents.of(granule)?)))
            .take(count)
            .collect())
    }

    fn put_some(&mut self, count: usize, contents: &Contents, seed: u64) -> Result<()> {
        interrupt::check()?;
        let picks = self.picks(count, contents, seed)?;
        let start = Moment::now();
        let mut stored = 0;
        for (offset, page) in &picks {
            stored += usize::from(self.pool.put(OBJECT, *offset, page) == Outcome::Stored);
        }
        self.put_ns.push(start.elapsed().by(self.clock).as_secs_f64() * 1e9 / count as f64);
        ensure!(stored == count, "{} of {count} puts failed in a store with room", count - stored);
        Ok(())
    }

    /// Times gets, and then does them again to compare.
    fn get_some(&mut self, count: usize, contents: &Contents, seed: u64) -> Result<()> {
        interrupt::check()?;
        let picks = self.picks(count, contents, !seed)?;
        let mut back = [0; GRANULE_BYTES];
        let start = Moment::now();
        let mut filled = 0;
        for (offset, _) in &picks {
            filled += usize::from(self.pool.get(OBJECT, *offset, &mut back) == Outcome::Filled);
        }
        self.get_ns.push(start.elapsed().by(self.clock).as_secs_f64() * 1e9 / count as f64);
        ensure!(filled == count, "{} of {count} gets found nothing", count - filled);
        for (offset, page) in &picks {
            let outcome = self.pool.get(OBJECT, *offset, &mut back);
            ensure!(outcome == Outcome::Filled && back == **page, "wrong bytes at offset {offset}: {outcome:?}");
        }
        Ok(())
    }

    fn figures(&self) -> StoreFigures {
        let memory = self.store.memory();
        StoreFigures {
            object_bytes: usize::try_from(self.granules).unwrap_or(usize::MAX).saturating_mul(GRANULE_BYTES),
            granules: self.held,
            memory_used_bytes: memory.used,
            table_bytes_per_granule: memory.tables as f64 / self.held.max(1) as f64,
            fill_gbps: self.fill_gbps,
            put_ns: median(&self.put_ns),
            get_ns: median(&self.get_ns),
        }
    }
}

impl Figures {
    fn text(&self) -> String {
        let headings = ["object", "granules", "memory in use", "table B", "fill GB/s", "put ns", "get ns"];
        let mut table = report::Table::new(&headings);
        for store in [&self.small, &self.large] {
            table.row(vec![
                report::bytes(store.object_bytes as u64),
                store.granules.to_string(),
                report::bytes(store.memory_used_bytes as u64),
                format!("{:.2}", store.table_bytes_per_granule),
                format!("{:.2}", store.fill_gbps),
                format!("{:.0}", store.put_ns),
                format!("{:.0}", store.get_ns),
            ]);
        }
        let (put, get) = (self.put_ratio, self.get_ratio);
        let clock = self.clock;
        format!("{}\nlarge over small, by {clock} time: put {put:.3}, get {get:.3}\n", table.text())
    }
}
