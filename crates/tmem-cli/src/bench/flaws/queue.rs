//! The same through a queue of `tmem serve`.

use super::{Depth, GRANULE_BYTES, HUGE_BYTES, Huge, Pass, Rounds, latency};
use crate::bench::clock::process_cpu;
use crate::bench::daemon::Daemon;
use crate::bench::{gbps, median};
use anyhow::{Context, Result, bail, ensure};
use std::time::{Duration, Instant};
use tmem_ring::client::{Client, Hello, Region, stat};
use tmem_ring::wire::{Policy, PoolOptions};
use tmem_ring::{Action, Completion, ObjectId, Operation, Outcome, PoolId, Queue, Slice};
use tmem_sys::Backing;

/// Pages outstanding, of which the figures are told.
pub(super) const DEPTHS: [usize; 11] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024];

/// Entries of the queue, and what is outstanding where throughput is measured.
const ENTRIES: u32 = 4096;

/// Operations of 2 MiB outstanding.
const HUGE_DEPTH: usize = 16;

/// A completion may take so long; then something hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Put,
    Get,
}

/// A client with a queue. Its region holds the pages twice: those that are put, and those that are got.
pub(super) struct Queued {
    daemon: Daemon,
    client: Client,
    pool: PoolId,
    queue: Queue,
    region: Region,
    completions: Vec<Completion>,
    started: Vec<Instant>,
}

/// One pass: which memory, in which units, and how many at once.
#[derive(Debug, Clone, Copy)]
struct Plan {
    what: What,
    /// Of the sample.
    bytes: usize,
    unit: usize,
    depth: usize,
}

impl Queued {
    pub(super) fn start(pages: &[u8], budget: usize, policy: tmem::Policy) -> Result<Self> {
        let daemon = Daemon::start(budget, &["--workers", "1"])?;
        let hello = Hello { name: "bench flaws".to_owned(), cap_bytes: None, weight: None };
        let client = Client::connect(&daemon.socket(), &hello)?;
        let policy = match policy {
            tmem::Policy::Fast => Policy::Fast,
            tmem::Policy::Balanced => Policy::Balanced,
            tmem::Policy::Dense => Policy::Dense,
        };
        let pool = client.create_pool(PoolOptions { policy, ..PoolOptions::persistent() })?;
        let queue = client.open_queue(ENTRIES)?;
        // Huge pages, as the heap of the inline shape has them.
        let region = client.create_region(2 * pages.len(), Backing::TransparentHuge)?;
        let started = vec![Instant::now(); ENTRIES as usize];
        Ok(Self { daemon, client, pool, queue, region, completions: Vec::new(), started })
    }

    pub(super) fn round(&mut self, pages: &[u8], rounds: &mut Rounds) -> Result<()> {
        let depth = ENTRIES as usize;
        let copied = self.copied_bytes()?;
        self.prepare(pages);
        let plan = Plan { what: What::Put, bytes: pages.len(), unit: GRANULE_BYTES, depth };
        let put = self.pass(plan, &mut Vec::new())?;
        let get = self.pass(Plan { what: What::Get, ..plan }, &mut Vec::new())?;
        self.check(pages)?;
        rounds.copied_bytes += self.copied_bytes()? - copied;
        let alone = Plan { what: What::Get, depth: 1, ..plan };
        self.pass(alone, &mut rounds.latencies_us)?;
        self.flush()?;
        rounds.puts.push(put);
        rounds.gets.push(get);
        Ok(())
    }

    pub(super) fn at_depth(&mut self, depth: usize, rounds: usize, pages: &[u8]) -> Result<Depth> {
        let bytes = pages.len();
        let (mut puts, mut gets, mut us) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            self.prepare(pages);
            let plan = Plan { what: What::Put, bytes, unit: GRANULE_BYTES, depth };
            puts.push(gbps(bytes, self.pass(plan, &mut Vec::new())?.wall));
            gets.push(gbps(bytes, self.pass(Plan { what: What::Get, ..plan }, &mut us)?.wall));
            self.check(pages)?;
            self.flush()?;
        }
        Ok(Depth { depth, put_gbps: median(&puts), get_gbps: median(&gets), p99_us: latency(&us).p99 })
    }

    pub(super) fn huge(&mut self, pages: &[u8], rounds: usize) -> Result<Huge> {
        self.prepare(pages);
        let huge_pages_before = self.huge_pages()?;
        let (mut puts, mut gets, mut bells) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            let plan = Plan { what: What::Put, bytes: pages.len(), unit: HUGE_BYTES, depth: HUGE_DEPTH };
            let put = self.pass(plan, &mut Vec::new())?;
            let get = self.pass(Plan { what: What::Get, ..plan }, &mut Vec::new())?;
            self.check(pages)?;
            puts.push(gbps(pages.len(), put.wall));
            gets.push(gbps(pages.len(), get.wall));
            bells.push((put.doorbells + get.doorbells) as f64 / 2.0 * HUGE_BYTES as f64 / pages.len() as f64);
        }
        let huge_pages_after = self.huge_pages()?;
        self.flush()?;
        Ok(Huge {
            ops_per_2mib: 1.0,
            doorbells_per_2mib: median(&bells),
            put_gbps: median(&puts),
            get_gbps: median(&gets),
            huge_pages_before,
            huge_pages_after,
        })
    }

    /// The pages into the first half, and nothing of them in the second.
    fn prepare(&self, pages: &[u8]) {
        self.region.write(0, pages);
        self.region.write(pages.len(), &vec![0xa5; pages.len()]);
    }

    fn check(&self, pages: &[u8]) -> Result<()> {
        let mut back = vec![0; pages.len()];
        self.region.read(self.region.len() / 2, &mut back);
        ensure!(back == pages, "the daemon returned other bytes than were put");
        Ok(())
    }

    /// Everything once, with `depth` operations outstanding: whenever half of them have ended, as many are submitted.
    fn pass(&mut self, plan: Plan, latencies_us: &mut Vec<f64>) -> Result<Pass> {
        let count = plan.bytes / plan.unit;
        let bells = self.doorbells()?;
        let (start, cpu) = (Instant::now(), self.cpu()?);
        let (mut pushed, mut done) = (0, 0);
        while done < count {
            while pushed < count && self.queue.outstanding() < plan.depth {
                self.push(plan, pushed)?;
                pushed += 1;
            }
            let least = (plan.depth / 2).max(1);
            ensure!(
                self.queue.wait(least, Some(PATIENCE))? > 0,
                "the daemon did not answer for {} s",
                PATIENCE.as_secs()
            );
            self.completions.clear();
            self.queue.reap(&mut self.completions)?;
            let now = Instant::now();
            for Completion { tag, outcome } in &self.completions {
                let right = if plan.what == What::Put { Outcome::Stored } else { Outcome::Filled };
                ensure!(*outcome == right, "operation {tag} ended as {outcome:?}");
                let at = usize::try_from(*tag)? % self.started.len();
                latencies_us.push((now - self.started[at]).as_secs_f64() * 1e6);
            }
            done += self.completions.len();
        }
        let wall = start.elapsed();
        Ok(Pass { wall, cpu: self.cpu()?.saturating_sub(cpu), doorbells: self.doorbells()? - bells })
    }

    fn push(&mut self, plan: Plan, number: usize) -> Result<()> {
        let at = number * plan.unit;
        let half = if plan.what == What::Put { 0 } else { self.region.len() / 2 };
        let slices = [Slice { offset: (half + at) as u64, len: plan.unit as u64 }];
        let memory = self.region.memory(&slices);
        let offset = at as u64;
        let action = match plan.what {
            What::Put => Action::Put { offset, from: memory },
            What::Get => Action::Get { offset, into: memory },
        };
        let slot = number % self.started.len();
        self.started[slot] = Instant::now();
        let object = ObjectId::from(1);
        self.queue.push(&Operation { tag: number as u64, pool: self.pool, object, action })?;
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let operation = Operation { tag: 0, pool: self.pool, object: ObjectId::from(1), action: Action::FlushObject };
        self.queue.push(&operation)?;
        self.queue.wait(1, Some(PATIENCE))?;
        match self.queue.reap_one()? {
            Some(Completion { outcome: Outcome::Flushed { .. }, .. }) => Ok(()),
            other => bail!("a flush ended as {other:?}"),
        }
    }

    /// Of both processes.
    fn cpu(&self) -> Result<Duration> {
        Ok(process_cpu() + self.daemon.cpu()?)
    }

    /// Rung so far, both ways.
    fn doorbells(&self) -> Result<u64> {
        Ok(self.queue.doorbells() + self.own_stat()?.doorbells_rung)
    }

    fn copied_bytes(&self) -> Result<u64> {
        Ok(self.own_stat()?.copied_bytes)
    }

    fn own_stat(&self) -> Result<tmem_ring::wire::ClientStat> {
        let stat = stat(&self.daemon.socket())?;
        let own = stat.clients.into_iter().find(|client| client.client == self.client.id());
        own.context("the daemon does not know this client")
    }

    /// Huge pages that the region is mapped by here, as `/proc/self/smaps` tells.
    fn huge_pages(&self) -> Result<u64> {
        let smaps = std::fs::read_to_string("/proc/self/smaps").context("cannot read /proc/self/smaps")?;
        let start = format!("{:x}-", self.region.as_ptr().as_ptr().addr());
        let mapping = smaps.lines().skip_while(|line| !line.starts_with(&start));
        let kib = mapping.take(40).find_map(|line| line.strip_prefix("ShmemPmdMapped:"));
        let kib = kib.and_then(|kib| kib.trim().strip_suffix(" kB")).and_then(|kib| kib.parse::<u64>().ok());
        Ok(kib.context("/proc/self/smaps does not tell of the region")? * 1024 / HUGE_BYTES as u64)
    }
}
