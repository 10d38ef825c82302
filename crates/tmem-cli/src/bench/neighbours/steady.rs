//! A well-behaved client: it puts and gets pages for as long as it is told, with its queue full, and compares every byte.
//!
//! Turn `t` puts a page into slot `t % pages` of the object, and gets what turn `t - LAG` has put. Which page that is
//! changes each time round, so what is left of the last one is never taken for what should have come.

use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::time::{Duration, Instant};
use tmem::GRANULE_BYTES;
use tmem_ring::client::{Client, Hello, Region};
use tmem_ring::wire::PoolOptions;
use tmem_ring::{Action, Completion, ObjectId, Operation, Outcome, PoolId, Queue, Slice};
use tmem_sys::Backing;

/// Operations outstanding: half of them are some milliseconds' work.
const DEPTH: usize = 1024;

/// Operations that are submitted at once.
const BATCH: usize = 64;

/// Turns between a put and its get.
const LAG: u64 = 128;

/// A completion may take so long; then something hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a client does that has to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waiting {
    Sleeps,
    /// It uses all of a CPU, as those do that misbehave.
    Spins,
}

/// The client. Its region holds the pages that are put, and those that are got behind them.
pub(super) struct Steady<'p> {
    pages: &'p [u8],
    queue: Queue,
    region: Region,
    /// Ends its session as it is dropped.
    _client: Client,
    pool: PoolId,
    turn: u64,
    waiting: Waiting,
}

impl<'p> Steady<'p> {
    pub(super) fn connect(socket: &Path, name: &str, pages: &'p [u8], waiting: Waiting) -> Result<Self> {
        ensure!(
            pages.len() >= 2 * DEPTH * GRANULE_BYTES,
            "less than {} pages: slots would be used again too soon",
            2 * DEPTH
        );
        let client = Client::connect(socket, &Hello { name: name.to_owned(), ..Hello::default() })?;
        let pool = client.create_pool(PoolOptions::persistent())?;
        let queue = client.open_queue(u32::try_from(DEPTH)?)?;
        let region = client.create_region(2 * pages.len(), Backing::TransparentHuge)?;
        region.write(0, pages);
        Ok(Self { pages, queue, region, _client: client, pool, turn: 0, waiting })
    }

    /// Goes on for `time`. Returns the bytes put and got in a second.
    pub(super) fn run(&mut self, time: Duration) -> Result<f64> {
        let start = Instant::now();
        let mut operations = 0;
        while start.elapsed() < time {
            operations += self.step()?;
        }
        Ok((operations * GRANULE_BYTES) as f64 / start.elapsed().as_secs_f64())
    }

    /// Waits for what has ended, and takes it. Returns how many operations that were.
    fn step(&mut self) -> Result<usize> {
        self.fill()?;
        let least = if self.waiting == Waiting::Sleeps { DEPTH / 2 } else { 0 };
        let ready = self.queue.wait(least, Some(PATIENCE))?;
        ensure!(ready >= least, "the daemon did not answer for {} s", PATIENCE.as_secs());
        for _ in 0..ready {
            let completion = self.queue.reap_one()?.context("a completion that was there is not")?;
            self.check(&completion)?;
            // Workers are not left without work while everything is looked at.
            if self.queue.outstanding() + BATCH <= DEPTH {
                self.fill()?;
            }
        }
        Ok(ready)
    }

    fn fill(&mut self) -> Result<()> {
        while self.queue.outstanding() + 2 <= DEPTH {
            self.push_turn()?;
        }
        self.queue.submit();
        Ok(())
    }

    fn push_turn(&mut self) -> Result<()> {
        let turn = self.turn;
        let put = [self.slice(self.page_of(turn))];
        let from = self.region.memory(&put);
        self.push(turn * 2, Action::Put { offset: self.offset_of(turn), from })?;
        if let Some(earlier) = turn.checked_sub(LAG) {
            let get = [self.slice(self.count() + earlier % self.count())];
            let into = self.region.memory(&get);
            self.push(earlier * 2 + 1, Action::Get { offset: self.offset_of(earlier), into })?;
        }
        self.turn += 1;
        Ok(())
    }

    fn push(&mut self, tag: u64, action: Action<'_>) -> Result<()> {
        let object = ObjectId::from(1);
        Ok(self.queue.push(&Operation { tag, pool: self.pool, object, action })?)
    }

    fn check(&self, completion: &Completion) -> Result<()> {
        let (turn, is_get) = (completion.tag / 2, completion.tag % 2 == 1);
        let right = if is_get { Outcome::Filled } else { Outcome::Stored };
        ensure!(completion.outcome == right, "turn {turn} ended as {:?} instead of {right:?}", completion.outcome);
        if is_get {
            let mut back = [0; GRANULE_BYTES];
            let place = |page: u64| usize::try_from(page).map(|page| page * GRANULE_BYTES);
            self.region.read(place(self.count() + turn % self.count())?, &mut back);
            let expected = place(self.page_of(turn))?;
            ensure!(back == self.pages[expected..][..GRANULE_BYTES], "turn {turn} returned other bytes than were put");
        }
        Ok(())
    }

    fn count(&self) -> u64 {
        (self.pages.len() / GRANULE_BYTES) as u64
    }

    /// Which page a turn puts.
    fn page_of(&self, turn: u64) -> u64 {
        (turn + turn / self.count()) % self.count()
    }

    fn offset_of(&self, turn: u64) -> u64 {
        turn % self.count() * GRANULE_BYTES as u64
    }

    /// A page of the region.
    fn slice(&self, page: u64) -> Slice {
        Slice { offset: page * GRANULE_BYTES as u64, len: GRANULE_BYTES as u64 }
    }
}
