//! `tmem estimate`: what tmem would make of the memory of a program, policy by policy.

use crate::bench::bare::Bare;
use crate::bench::clock::Clock;
use crate::bench::engine::ZramFigures;
use crate::bench::full::{Full, same_bytes};
use crate::bench::share::Plan;
use crate::cli::{Estimate, Unit};
use crate::pages::{Buffer, Corpus, load};
use crate::process;
use crate::report::{self, Table};
use crate::zram::Zram;
use anyhow::Result;
use indicatif::ProgressBar;
use serde::Serialize;
use std::collections::BTreeMap;
use tmem::{GRANULE_BYTES, Policy};

/// Everything that is printed.
#[derive(Debug, Serialize)]
struct Figures {
    estimates: Vec<Estimated>,
}

/// What is known of one source of pages.
#[derive(Debug, Serialize)]
struct Estimated {
    name: String,
    /// What the estimate is for: a process's resident private anonymous memory, or a file.
    resident_bytes: usize,
    /// What it was made from.
    read_bytes: usize,
    /// Pages that were gone when they were to be read.
    unreadable_pages: usize,
    unit: &'static str,
    /// Share of the granules that repeat four bytes, and take no memory but their entries.
    same_filled: f64,
    policies: Vec<PolicyFigures>,
    zram: Vec<ZramFigures>,
    /// Why there are no figures of zram.
    #[serde(skip_serializing_if = "Option::is_none")]
    no_zram: Option<String>,
}

#[derive(Debug, Serialize)]
struct PolicyFigures {
    policy: &'static str,
    density: f64,
    density_cold: f64,
    /// Of the resident bytes.
    saved_bytes: u64,
    saved_bytes_cold: u64,
    /// By CPU time of one thread.
    put_gbps: f64,
    get_gbps: f64,
    /// Share of the granules that each codec took when they were put.
    codecs: BTreeMap<&'static str, f64>,
}

/// Pages, and what they are a part of.
struct Source {
    corpus: Corpus,
    resident_bytes: usize,
    unreadable_pages: usize,
}

pub(crate) fn run(options: &Estimate) -> Result<()> {
    let sources = options.source.pages.iter().map(|path| load(path).map(Source::whole));
    let process = options.source.pid.map(|pid| {
        let memory = process::read(pid, options.sample)?;
        let (resident_bytes, unreadable_pages) = (memory.resident_bytes, memory.unreadable_pages);
        Ok(Source { corpus: memory.corpus, resident_bytes, unreadable_pages })
    });
    let bar = report::progress((options.source.pages.len().max(1) * 3 * Policy::ALL.len()) as u64);
    let zram = Zram::claim();
    let mut figures = Figures { estimates: Vec::new() };
    for source in sources.chain(process) {
        figures.estimates.push(source?.estimate(options.unit, &zram, &bar)?);
    }
    bar.finish_and_clear();
    report::print(options.json.then_some(&figures), || {
        figures.estimates.iter().map(Estimated::text).collect::<Vec<_>>().join("\n")
    })
}

impl Source {
    /// All of a file.
    fn whole(corpus: Corpus) -> Self {
        Self { resident_bytes: corpus.pages.len(), corpus, unreadable_pages: 0 }
    }

    fn estimate(&self, unit: Unit, zram: &Result<Zram>, bar: &ProgressBar) -> Result<Estimated> {
        let pages = &self.corpus.pages;
        let mut out = Buffer::new(pages.len());
        let mut policies = Vec::new();
        let mut filled = 0.0;
        for policy in Policy::ALL {
            bar.set_message(format!("{}, policy {policy}", self.corpus.name));
            let plan = Plan { policy, unit, threads: 1 };
            let mut bare = Bare::new(&plan, pages.len());
            bare.run(&plan, &plan.orders(pages.len())?, pages, &mut out)?;
            same_bytes(pages, &out, "the codec")?;
            bar.inc(1);
            filled = bare.made().filled as f64 / (pages.len() / GRANULE_BYTES) as f64;
            policies.push(self.with_policy(&plan, bare.codecs(), &mut out, bar)?);
        }
        let (zram, no_zram) = match zram {
            Ok(zram) => (self.with_zram(zram, &mut out, bar)?, None),
            Err(reason) => (Vec::new(), Some(format!("{reason:#}"))),
        };
        Ok(Estimated {
            name: self.corpus.name.clone(),
            resident_bytes: self.resident_bytes,
            read_bytes: pages.len(),
            unreadable_pages: self.unreadable_pages,
            unit: unit.name(),
            same_filled: filled,
            policies,
            zram,
            no_zram,
        })
    }

    fn with_policy(
        &self,
        plan: &Plan,
        codecs: BTreeMap<&'static str, f64>,
        out: &mut Buffer,
        bar: &ProgressBar,
    ) -> Result<PolicyFigures> {
        let pages = &self.corpus.pages;
        let orders = plan.orders(pages.len())?;
        let full = Full::new(plan, pages.len())?;
        out.poison();
        let times = full.put_and_get(&orders, pages, out)?;
        same_bytes(pages, out, "the engine")?;
        bar.inc(1);
        let density = full.density(pages.len());
        full.store.settle_all();
        let density_cold = full.density(pages.len());
        full.verify(&orders, pages, out)?;
        bar.inc(1);
        Ok(PolicyFigures {
            policy: plan.policy.name(),
            density,
            density_cold,
            saved_bytes: saved(self.resident_bytes, density),
            saved_bytes_cold: saved(self.resident_bytes, density_cold),
            put_gbps: times.put.gbps(pages.len(), Clock::Cpu),
            get_gbps: times.get.gbps(pages.len(), Clock::Cpu),
            codecs,
        })
    }

    fn with_zram(&self, zram: &Zram, out: &mut Buffer, bar: &ProgressBar) -> Result<Vec<ZramFigures>> {
        let pages = &self.corpus.pages;
        let plan = Plan { policy: Policy::default(), unit: Unit::Granule, threads: 1 };
        let order = plan.orders(pages.len())?.granules(&plan, pages.len());
        let figures = zram.algorithms.iter().map(|algorithm| {
            bar.set_message(format!("{}, zram {algorithm}", self.corpus.name));
            let pass = zram.pass(algorithm, pages, &order, out)?;
            Ok(ZramFigures::of(algorithm, &[pass], pages.len(), Clock::Cpu))
        });
        figures.collect()
    }
}

/// What is left of `bytes` when they are stored at a density.
fn saved(bytes: usize, density: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to `bytes`")]
    {
        (bytes as f64 * (1.0 - 1.0 / density)).max(0.0) as u64
    }
}

impl Estimated {
    fn text(&self) -> String {
        let mut text = format!("{}: {} read", self.name, report::bytes(self.read_bytes as u64));
        if self.read_bytes < self.resident_bytes {
            text += &format!(" of {}", report::bytes(self.resident_bytes as u64));
        }
        text += " of resident private anonymous memory";
        if self.unreadable_pages > 0 {
            text += &format!("; {} pages were gone or could not be read", self.unreadable_pages);
        }
        text += &format!("\nsame-filled: {}\n\n", report::percent(self.same_filled));
        text += &self.table().text();
        text.push('\n');
        for policy in &self.policies {
            let mut shares: Vec<_> = policy.codecs.iter().collect();
            shares.sort_by(|left, right| right.1.total_cmp(left.1));
            let shares: Vec<_> =
                shares.iter().map(|(name, share)| format!("{name} {}", report::percent(**share))).collect();
            text += &format!("codecs of {}: {}\n", policy.policy, shares.join(", "));
        }
        if let Some(reason) = &self.no_zram {
            text += &format!("zram was left out: {reason}\n");
        }
        text
    }

    fn table(&self) -> Table {
        let mut table = Table::new(&["policy", "density", "saves", "cold", "saves", "put GB/s", "get GB/s"]);
        let two = |value: f64| format!("{value:.2}");
        for policy in &self.policies {
            table.row(vec![
                policy.policy.to_owned(),
                two(policy.density),
                report::bytes(policy.saved_bytes),
                two(policy.density_cold),
                report::bytes(policy.saved_bytes_cold),
                two(policy.put_gbps),
                two(policy.get_gbps),
            ]);
        }
        for zram in &self.zram {
            table.row(vec![
                format!("zram {}", zram.algorithm),
                two(zram.density),
                report::bytes(saved(self.resident_bytes, zram.density)),
                String::new(),
                String::new(),
                two(zram.put_gbps),
                two(zram.get_gbps),
            ]);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved() {
        assert_eq!(saved(1 << 20, 2.0), 1 << 19);
        assert_eq!(saved(1 << 20, 0.5), 0);
        assert_eq!(saved(1 << 20, 1e12), (1 << 20) - 1);
    }
}
