//! `tmem bench neighbours`: what is left for well-behaved clients while another one misbehaves.
//!
//! In each round the well-behaved clients, their queues always full, run beside one neighbour of each [`Way`] in turn. A
//! neighbour is a process of one busy thread, *also the one that is their equal* (it looks for its completions instead of
//! sleeping): what a busy process takes of a machine's CPUs is the kernel's to share out, and the same beside all. So
//! what differs is what the daemon does.
//!
//! **Fair share** is what all clients together put and get beside an equal, divided by their number, in the same round.
//! Whoever takes the workers' time leaves others that much; who takes none of it leaves more.

mod steady;
pub(crate) mod ways;

use super::daemon::Daemon;
use super::median;
use super::scratch::Process;
use crate::interrupt;
use crate::pages::sample;
use crate::report::{self, Table};
use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use serde::Serialize;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use steady::{Steady, Waiting};
use tmem::GRANULE_BYTES;
use tmem_ring::client::stat;
use tmem_ring::wire::Stat;
use ways::Way;

/// So much for each client: more than any of them needs.
const CAP_BYTES: usize = 256 << 20;

/// Before it is measured: the queues are full, and the neighbour is at it.
const WARM_UP: Duration = Duration::from_millis(200);

/// What a neighbour leaves behind is cleared away within this.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub(crate) struct NeighboursBench {
    /// Files of raw 4096-byte pages; pages are made up without.
    #[arg(long, num_args = 1.., value_name = "FILE")]
    pages: Vec<PathBuf>,
    /// How much is used of all files together, at least 8m.
    #[arg(long, default_value = "16m", value_parser = crate::cli::parse_size, value_name = "SIZE")]
    sample: usize,
    /// Well-behaved clients, beside one neighbour.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    clients: u16,
    /// Only these neighbours, besides the equal one.
    #[arg(long, num_args = 1..)]
    ways: Vec<Way>,
    /// Rounds, of which medians are taken.
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,
    /// How long each is measured in each round.
    #[arg(long, default_value_t = 1500, value_parser = clap::value_parser!(u64).range(1..), value_name = "MS")]
    time: u64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// A neighbour's process, killed on drop.
#[derive(Debug)]
struct Neighbour(Process);

impl Neighbour {
    /// Returns when it is at it.
    fn start(way: Way, socket: &Path, pages: &[PathBuf], sample: usize) -> Result<Self> {
        let name = way.to_possible_value().context("each way has a name")?;
        let mut command = Command::new(std::env::current_exe().context("cannot find this program itself")?);
        command.args(["bench", "neighbour", name.get_name()]).arg(socket).arg("--sample").arg(sample.to_string());
        if !pages.is_empty() {
            command.arg("--pages").args(pages);
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot start a neighbour")?;
        let mut neighbour = Self(Process(child));
        let out = neighbour.0.0.stdout.take().context("a neighbour has an output")?;
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        ensure!(line == "ready\n", "a neighbour that {} did not start", name.get_name());
        Ok(neighbour)
    }

    /// Fails if it has ended by itself.
    fn goes_on(&mut self) -> Result<()> {
        let ended = self.0.0.try_wait()?;
        ensure!(ended.is_none(), "the neighbour ended by itself: {ended:?}");
        Ok(())
    }
}

/// Beside one neighbour, once.
#[derive(Debug, Clone, Copy)]
struct Lap {
    /// Of a well-behaved client, on average.
    gbps: f64,
    /// Of all clients together, the neighbour too.
    all_gbps: f64,
    daemon_cpus: f64,
    /// Of the workers' time.
    neighbour_served: f64,
}

/// What is told of one way.
#[derive(Debug, Serialize)]
struct Beside {
    way: Way,
    /// Of a well-behaved client: median.
    gbps: f64,
    /// Over its fair share of the same round: median, and of each.
    share: f64,
    shares: Vec<f64>,
    /// CPU seconds that the daemon used in a second.
    daemon_cpus: f64,
    /// Part of the workers' time that the neighbour had, as far as it stayed the same client.
    neighbour_served: f64,
}

/// Everything that is printed.
#[derive(Debug, Serialize)]
struct Figures {
    pages: usize,
    clients: u16,
    workers: u64,
    rounds: u16,
    fair_share_gbps: f64,
    beside: Vec<Beside>,
    /// The least of those that misbehave.
    worst_share: f64,
}

pub(crate) fn run(options: &NeighboursBench) -> Result<()> {
    let pages = sample(&options.pages, options.sample)?.pages;
    let budget = CAP_BYTES * (usize::from(options.clients) + 2);
    let daemon = Daemon::start(budget, &["--client-cap", &CAP_BYTES.to_string()])?;
    let connect = |_| Steady::connect(&daemon.socket(), "well-behaved", &pages, Waiting::Sleeps);
    let mut clients = (0..options.clients).map(connect).collect::<Result<Vec<_>>>()?;
    let wanted = |way: &Way| *way == Way::Equal || options.ways.is_empty() || options.ways.contains(way);
    let ways: Vec<Way> = Way::value_variants().iter().copied().filter(wanted).collect();
    let bar = report::progress(u64::from(options.rounds) * ways.len() as u64);
    let mut laps = vec![Vec::new(); ways.len()];
    for _ in 0..options.rounds {
        for (way, laps) in ways.iter().zip(&mut laps) {
            bar.set_message(format!("{way:?}"));
            laps.push(lap(&daemon, &mut clients, *way, options)?);
            bar.inc(1);
            interrupt::check()?;
        }
    }
    bar.finish_and_clear();
    let workers = stat(&daemon.socket())?.workers;
    let parts = f64::from(options.clients) + 1.0;
    let fair: Vec<f64> = laps[0].iter().map(|lap: &Lap| lap.all_gbps / parts).collect();
    let beside = ways.iter().zip(&laps).map(|(way, laps)| Beside::of(*way, laps, &fair)).collect::<Vec<_>>();
    let worst = beside.iter().filter(|beside| beside.way.misbehaves()).map(|beside| beside.share);
    let figures = Figures {
        pages: pages.len() / GRANULE_BYTES,
        clients: options.clients,
        workers,
        rounds: options.rounds,
        fair_share_gbps: median(&fair),
        worst_share: worst.fold(f64::INFINITY, f64::min),
        beside,
    };
    report::print(options.json.then_some(&figures), || figures.text())
}

fn lap(daemon: &Daemon, clients: &mut [Steady<'_>], way: Way, options: &NeighboursBench) -> Result<Lap> {
    let socket = daemon.socket();
    let mut neighbour = Neighbour::start(way, &socket, &options.pages, options.sample)?;
    run_all(clients, WARM_UP)?;
    let (before, cpu, start) = (stat(&socket)?, daemon.cpu_of_all()?, Instant::now());
    let gbps = run_all(clients, Duration::from_millis(options.time))?;
    let (after, cpu, time) = (stat(&socket)?, daemon.cpu_of_all()? - cpu, start.elapsed());
    neighbour.goes_on()?;
    drop(neighbour);
    let start = Instant::now();
    while stat(&socket)?.clients.len() > clients.len() {
        ensure!(start.elapsed() < PATIENCE, "the daemon did not clear away what a neighbour left");
        std::thread::sleep(Duration::from_millis(1));
    }
    let seconds = time.as_secs_f64();
    // What clients had that are gone is not among it; the equal one stays.
    let gained = |sum: fn(&Stat) -> u64| sum(&after).saturating_sub(sum(&before)) as f64;
    let all_gbps = gained(operation_bytes) / seconds / 1e9;
    let neighbour_served = gained(neighbour_served_us) / gained(served_us);
    Ok(Lap { gbps, all_gbps, daemon_cpus: cpu.as_secs_f64() / seconds, neighbour_served })
}

/// All of them at once. Returns what each had, on average.
fn run_all(clients: &mut [Steady<'_>], time: Duration) -> Result<f64> {
    let count = clients.len() as f64;
    std::thread::scope(|scope| {
        let threads: Vec<_> = clients.iter_mut().map(|client| scope.spawn(move || client.run(time))).collect();
        let rates =
            threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow::anyhow!("a client panicked"))?);
        let sum: Result<f64> = rates.sum();
        Ok(sum? / count / 1e9)
    })
}

fn operation_bytes(stat: &Stat) -> u64 {
    stat.clients.iter().map(|client| client.operation_bytes).sum()
}

fn served_us(stat: &Stat) -> u64 {
    stat.clients.iter().map(|client| client.served_us).sum()
}

fn neighbour_served_us(stat: &Stat) -> u64 {
    let neighbours = stat.clients.iter().filter(|client| client.name == ways::NAME);
    neighbours.map(|client| client.served_us).sum()
}

impl Beside {
    fn of(way: Way, laps: &[Lap], fair: &[f64]) -> Self {
        let shares: Vec<f64> = laps.iter().zip(fair).map(|(lap, fair)| lap.gbps / fair).collect();
        let middle = |of: fn(&Lap) -> f64| median(&laps.iter().map(of).collect::<Vec<_>>());
        Self {
            way,
            gbps: middle(|lap| lap.gbps),
            share: median(&shares),
            shares,
            daemon_cpus: middle(|lap| lap.daemon_cpus),
            neighbour_served: middle(|lap| lap.neighbour_served),
        }
    }
}

impl Figures {
    fn text(&self) -> String {
        let mut table = Table::new(&[
            "beside one that",
            "GB/s",
            "of its fair share",
            "least",
            "daemon's CPUs",
            "its part of workers",
        ]);
        for beside in &self.beside {
            let name = match beside.way {
                Way::Equal => "is its equal",
                Way::Burns => "is no client, and busy",
                Way::Scribbles => "scribbles over its memory",
                Way::Changes => "changes lent memory",
                Way::Dies => "is killed, over and over",
                Way::Hoards => "never reaps",
                Way::Floods => "floods",
                Way::Rings => "rings all the time",
                Way::Connects => "connects all the time",
                Way::Asks => "asks all the time, as 64",
            };
            let Beside { gbps, share, shares, daemon_cpus, neighbour_served, .. } = beside;
            let least = shares.iter().copied().fold(f64::INFINITY, f64::min);
            table.row(vec![
                name.to_owned(),
                format!("{gbps:.3}"),
                format!("{share:.2}"),
                format!("{least:.2}"),
                format!("{daemon_cpus:.2}"),
                format!("{neighbour_served:.2}"),
            ]);
        }
        let Self { clients, workers, rounds, fair_share_gbps, worst_share, .. } = self;
        format!(
            "{}\n{clients} well-behaved, {workers} workers, {rounds} rounds; fair share {fair_share_gbps:.3} GB/s, \
             worst {worst_share:.2} of it\n",
            table.text()
        )
    }
}
