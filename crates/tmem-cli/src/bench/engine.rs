//! `tmem bench engine`: the engine, the bare codec and zram on the same pages in the same rounds.

use super::bare::{Bare, Made};
use super::clock::{Clock, Lap};
use super::full::{Full, GetTimes, same_bytes};
use super::share::{Orders, Plan, Times};
use super::{geomean, median};
use crate::cli::{EngineBench, Rival};
use crate::interrupt;
use crate::pages::{Buffer, Corpus, load};
use crate::report::{self, Table};
use crate::zram::{Pass, Zram};
use anyhow::{Context, Result};
use indicatif::ProgressBar;
use serde::Serialize;
use tmem::GRANULE_BYTES;

/// Below this share of a CPU other processes were in the way.
const BUSY_SHARE: f64 = 0.9;

/// Everything that is printed.
#[derive(Debug, Serialize)]
struct Figures {
    rounds: u16,
    /// What speeds are told in.
    clock: &'static str,
    corpora: Vec<CorpusFigures>,
    geomean: Geomean,
}

#[derive(Debug, Serialize)]
struct CorpusFigures {
    name: String,
    bytes: usize,
    policy: &'static str,
    unit: &'static str,
    threads: usize,
    put_gbps: f64,
    get_gbps: f64,
    codec_put_gbps: f64,
    codec_get_gbps: f64,
    put_over_codec: f64,
    get_over_codec: f64,
    density: f64,
    density_cold: f64,
    table_bytes_per_granule: f64,
    get_us: GetTimes,
    same_filled: f64,
    /// How much of a CPU the engine's rounds had, where time goes by on the wall.
    cpu_share: f64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    zram: Vec<ZramFigures>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct ZramFigures {
    pub(crate) algorithm: String,
    pub(crate) put_gbps: f64,
    pub(crate) get_gbps: f64,
    pub(crate) density: f64,
}

#[derive(Debug, Serialize)]
struct Geomean {
    put_gbps: f64,
    get_gbps: f64,
    codec_put_gbps: f64,
    codec_get_gbps: f64,
    put_over_codec: f64,
    get_over_codec: f64,
    density: f64,
    density_cold: f64,
    table_bytes_per_granule: f64,
    #[serde(flatten)]
    over_zram: Option<OverZram>,
}

/// Over the better of the algorithms for each figure.
#[derive(Debug, Serialize)]
struct OverZram {
    density_over_zram: f64,
    density_cold_over_zram: f64,
    put_over_zram: f64,
    get_over_zram: f64,
}

/// What the rounds came to.
#[derive(Debug, Default)]
struct Rounds {
    put: Vec<Lap>,
    get: Vec<Lap>,
    codec_put: Vec<Lap>,
    codec_get: Vec<Lap>,
    /// For each algorithm.
    zram: Vec<Vec<Pass>>,
}

/// One corpus with the memory for working on it.
struct Work<'a> {
    plan: Plan,
    corpus: &'a Corpus,
    orders: Orders,
    bare: Bare,
    out: Buffer,
    zram: Option<&'a Zram>,
}

pub(crate) fn run(options: &EngineBench) -> Result<()> {
    let plan = Plan { policy: options.policy, unit: options.unit, threads: usize::from(options.threads) };
    let zram = match options.against {
        Some(Rival::Zram) => Some(Zram::claim().context("--against zram")?),
        None => None,
    };
    let bar = report::progress(options.pages.len() as u64 * (u64::from(options.rounds) + 1));
    let mut corpora = Vec::new();
    for path in &options.pages {
        let corpus = load(path)?;
        bar.set_message(corpus.name.clone());
        corpora.push(Work::new(plan, &corpus, zram.as_ref())?.figures(options, &bar)?);
    }
    bar.finish_and_clear();
    let clock = options.clock.name();
    let figures = Figures { rounds: options.rounds, clock, geomean: Geomean::of(&corpora), corpora };
    report::print(options.json.then_some(&figures), || figures.text())
}

impl<'a> Work<'a> {
    fn new(plan: Plan, corpus: &'a Corpus, zram: Option<&'a Zram>) -> Result<Self> {
        let bytes = corpus.pages.len();
        let orders = plan.orders(bytes)?;
        Ok(Self { plan, corpus, orders, bare: Bare::new(&plan, bytes), out: Buffer::new(bytes), zram })
    }

    fn figures(mut self, options: &EngineBench, bar: &ProgressBar) -> Result<CorpusFigures> {
        let mut measured = Rounds::default();
        let mut last = None;
        self.round(&mut Rounds::default())?;
        bar.inc(1);
        for _ in 0..options.rounds {
            // The store of the round before is gone before the next one is made.
            drop(last.take());
            last = Some(self.round(&mut measured)?);
            bar.inc(1);
        }
        let full = last.context("no round was run")?;
        self.compare_blocks(&full);
        self.sum_up(&full, &measured, options.clock)
    }

    /// The engine, the bare codec, zram. The store is still full.
    fn round(&mut self, rounds: &mut Rounds) -> Result<Full> {
        interrupt::check()?;
        let bytes = self.corpus.pages.len();
        let pages = &self.corpus.pages;
        let full = Full::new(&self.plan, bytes)?;
        self.out.poison();
        let Times { put, get } = full.put_and_get(&self.orders, pages, &mut self.out)?;
        same_bytes(pages, &self.out, "the engine")?;
        rounds.put.push(put);
        rounds.get.push(get);
        self.out.poison();
        let Times { put, get } = self.bare.run(&self.plan, &self.orders, pages, &mut self.out)?;
        same_bytes(pages, &self.out, "the bare codec")?;
        rounds.codec_put.push(put);
        rounds.codec_get.push(get);
        if let Some(zram) = self.zram {
            let order = self.orders.granules(&self.plan, bytes);
            rounds.zram.resize_with(zram.algorithms.len(), Vec::new);
            for (algorithm, passes) in zram.algorithms.iter().zip(&mut rounds.zram) {
                passes.push(zram.pass(algorithm, pages, &order, &mut self.out)?);
            }
        }
        Ok(full)
    }

    /// The comparison is fair only if both made the same blocks.
    fn compare_blocks(&self, full: &Full) {
        let stats = full.store.stats();
        let bare = self.bare.made();
        let engine =
            Made { blocks: stats.blocks_put, stored_bytes: stats.bytes_stored, filled: stats.granules_same_filled };
        let near = |left: u64, right: u64| left.abs_diff(right) * 1000 <= left.max(right);
        if !near(bare.blocks, engine.blocks) || !near(bare.stored_bytes, engine.stored_bytes) {
            eprintln!("tmem: {}: the engine made {engine:?}, the bare loop {bare:?}", self.corpus.name);
        }
    }

    fn sum_up(mut self, full: &Full, rounds: &Rounds, clock: Clock) -> Result<CorpusFigures> {
        let pages = &self.corpus.pages;
        let bytes = pages.len();
        let density = full.density(bytes);
        let tables = full.store.memory().tables;
        let get_us = full.single_gets(&self.orders, pages, &mut self.out)?;
        full.store.settle_all();
        let density_cold = full.density(bytes);
        full.verify(&self.orders, pages, &mut self.out).context("after everything was settled as cold")?;
        let algorithms = self.zram.map_or(&[][..], |zram| &zram.algorithms);
        let zram = algorithms.iter().zip(&rounds.zram);
        let zram = zram.map(|(name, passes)| ZramFigures::of(name, passes, bytes, clock)).collect();
        let speed = |laps: &[Lap]| median_gbps(laps, bytes, clock);
        let (put_gbps, get_gbps) = (speed(&rounds.put), speed(&rounds.get));
        let (codec_put_gbps, codec_get_gbps) = (speed(&rounds.codec_put), speed(&rounds.codec_get));
        let shares: Vec<_> = rounds.put.iter().chain(&rounds.get).map(|lap| lap.cpu_share()).collect();
        let granules = bytes / GRANULE_BYTES;
        Ok(CorpusFigures {
            name: self.corpus.name.clone(),
            bytes,
            policy: self.plan.policy.name(),
            unit: self.plan.unit.name(),
            threads: self.plan.threads,
            put_gbps,
            get_gbps,
            codec_put_gbps,
            codec_get_gbps,
            put_over_codec: put_gbps / codec_put_gbps,
            get_over_codec: get_gbps / codec_get_gbps,
            density,
            density_cold,
            table_bytes_per_granule: tables as f64 / granules as f64,
            get_us,
            cpu_share: median(&shares),
            same_filled: self.bare.made().filled as f64 / granules as f64,
            zram,
        })
    }
}

impl ZramFigures {
    /// Medians over passes of `bytes` of pages, of the better kind of writes.
    pub(crate) fn of(algorithm: &str, passes: &[Pass], bytes: usize, clock: Clock) -> Self {
        let speed = |lap: fn(&Pass) -> Lap| median_gbps(&passes.iter().map(lap).collect::<Vec<_>>(), bytes, clock);
        Self {
            algorithm: algorithm.to_owned(),
            put_gbps: speed(|pass| pass.put_large).max(speed(|pass| pass.put_small)),
            get_gbps: speed(|pass| pass.get),
            density: median(&passes.iter().map(|pass| pass.density).collect::<Vec<_>>()),
        }
    }
}

/// The speed of the round in the middle.
pub(crate) fn median_gbps(laps: &[Lap], bytes: usize, clock: Clock) -> f64 {
    median(&laps.iter().map(|lap| lap.gbps(bytes, clock)).collect::<Vec<_>>())
}

impl CorpusFigures {
    /// One of zram's figures, from the algorithm that is best at it.
    fn best_zram(&self, figure: fn(&ZramFigures) -> f64) -> f64 {
        self.zram.iter().map(figure).fold(0.0, f64::max)
    }

    fn over_zram(&self) -> OverZram {
        OverZram {
            density_over_zram: self.density / self.best_zram(|zram| zram.density),
            density_cold_over_zram: self.density_cold / self.best_zram(|zram| zram.density),
            put_over_zram: self.put_gbps / self.best_zram(|zram| zram.put_gbps),
            get_over_zram: self.get_gbps / self.best_zram(|zram| zram.get_gbps),
        }
    }
}

impl Geomean {
    fn of(corpora: &[CorpusFigures]) -> Self {
        let mean = |figure: fn(&CorpusFigures) -> f64| geomean(corpora.iter().map(figure));
        let with_zram = corpora.iter().all(|corpus| !corpus.zram.is_empty());
        Self {
            put_gbps: mean(|corpus| corpus.put_gbps),
            get_gbps: mean(|corpus| corpus.get_gbps),
            codec_put_gbps: mean(|corpus| corpus.codec_put_gbps),
            codec_get_gbps: mean(|corpus| corpus.codec_get_gbps),
            put_over_codec: mean(|corpus| corpus.put_over_codec),
            get_over_codec: mean(|corpus| corpus.get_over_codec),
            density: mean(|corpus| corpus.density),
            density_cold: mean(|corpus| corpus.density_cold),
            table_bytes_per_granule: mean(|corpus| corpus.table_bytes_per_granule),
            over_zram: with_zram.then(|| OverZram {
                density_over_zram: mean(|corpus| corpus.over_zram().density_over_zram),
                density_cold_over_zram: mean(|corpus| corpus.over_zram().density_cold_over_zram),
                put_over_zram: mean(|corpus| corpus.over_zram().put_over_zram),
                get_over_zram: mean(|corpus| corpus.over_zram().get_over_zram),
            }),
        }
    }
}

/// With two digits behind the point.
fn two(value: f64) -> String {
    format!("{value:.2}")
}

impl Figures {
    fn text(&self) -> String {
        let mut text = String::new();
        if let Some(first) = self.corpora.first() {
            text += &format!(
                "policy {}, unit {}, threads {}, medians of {} rounds, GB/s of pages by {} time\n",
                first.policy, first.unit, first.threads, self.rounds, self.clock
            );
            let share = self.corpora.iter().map(|corpus| corpus.cpu_share).fold(1.0, f64::min);
            if share < BUSY_SHARE {
                let advice = if self.clock == "cpu" { "" } else { ": speeds are too low, use --clock cpu" };
                text += &format!("the machine is busy: a thread had {} of a CPU{advice}\n", report::percent(share));
            }
            text.push('\n');
        }
        text += &self.engine_table().text();
        if self.geomean.over_zram.is_some() {
            text += "\ntmem over the best of zram's algorithms for each figure\n";
            text += &self.zram_table().text();
        }
        text
    }

    fn engine_table(&self) -> Table {
        let mut table = Table::new(&[
            "pages",
            "MiB",
            "put",
            "codec",
            "put/codec",
            "get",
            "codec",
            "get/codec",
            "density",
            "cold",
            "table B",
            "get us p50",
            "p99",
            "p99.9",
        ]);
        for corpus in &self.corpora {
            let speeds = [
                corpus.put_gbps,
                corpus.codec_put_gbps,
                corpus.put_over_codec,
                corpus.get_gbps,
                corpus.codec_get_gbps,
                corpus.get_over_codec,
                corpus.density,
                corpus.density_cold,
                corpus.table_bytes_per_granule,
                corpus.get_us.p50,
                corpus.get_us.p99,
                corpus.get_us.p999,
            ];
            let mut cells = vec![corpus.name.clone(), (corpus.bytes >> 20).to_string()];
            cells.extend(speeds.map(two));
            table.row(cells);
        }
        let mean = &self.geomean;
        let means = [
            mean.put_gbps,
            mean.codec_put_gbps,
            mean.put_over_codec,
            mean.get_gbps,
            mean.codec_get_gbps,
            mean.get_over_codec,
            mean.density,
            mean.density_cold,
            mean.table_bytes_per_granule,
        ];
        let mut cells = vec!["geomean".to_owned(), String::new()];
        cells.extend(means.map(two));
        cells.resize(14, String::new());
        table.row(cells);
        table
    }

    fn zram_table(&self) -> Table {
        let mut table =
            Table::new(&["pages", "zram", "put", "get", "density", "put x", "get x", "density x", "cold x"]);
        let ratios = |over: &OverZram| {
            [over.put_over_zram, over.get_over_zram, over.density_over_zram, over.density_cold_over_zram].map(two)
        };
        for corpus in &self.corpora {
            for zram in &corpus.zram {
                let mut cells = vec![corpus.name.clone(), zram.algorithm.clone()];
                cells.extend([zram.put_gbps, zram.get_gbps, zram.density].map(two));
                cells.resize(9, String::new());
                table.row(cells);
            }
            let mut cells = vec![corpus.name.clone(), "best".to_owned()];
            let best: [fn(&ZramFigures) -> f64; 3] = [|zram| zram.put_gbps, |zram| zram.get_gbps, |zram| zram.density];
            cells.extend(best.map(|figure| two(corpus.best_zram(figure))));
            cells.extend(ratios(&corpus.over_zram()));
            table.row(cells);
        }
        if let Some(over) = &self.geomean.over_zram {
            let mut cells = vec![String::new(); 5];
            "geomean".clone_into(&mut cells[0]);
            cells.extend(ratios(over));
            table.row(cells);
        }
        table
    }
}
