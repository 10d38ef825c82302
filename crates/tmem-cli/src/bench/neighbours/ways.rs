//! What neighbours do: each is a process of its own.

use super::steady::{Steady, Waiting};
use super::{GRANULE_BYTES, Neighbour as Started};
use crate::pages::sample;
use crate::random::Random;
use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use serde::Serialize;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tmem_ring::client::{Client, Hello, Region};
use tmem_ring::wire::{self, PoolOptions, Reply, Request};
use tmem_ring::{Action, Operation, PoolId, Queue, QueueError, Slice};
use tmem_sys::{Backing, Channel, Doorbell, Words, poll_readable};

/// What the daemon knows neighbours by.
pub(super) const NAME: &str = "neighbour";

/// Bytes of the regions of those who misbehave.
const REGION_BYTES: usize = 16 << 20;

/// A second for the daemon to answer, and many more.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a neighbour is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Way {
    /// Well-behaved, and as greedy: what everything else is compared with.
    Equal,
    /// No client: it only uses a CPU.
    Burns,
    /// Writes random words to all of its shared memory, and connects again when it is thrown out.
    Scribbles,
    /// Writes to lent memory while it is being compressed and filled.
    Changes,
    /// Is killed while its operations are in flight, and starts again.
    Dies,
    /// Fills the most queues that it may have, and never reaps.
    Hoards,
    /// Keeps its queue full of operations of 2 MiB.
    Floods,
    /// Rings the doorbells of the most queues that it may have, all the time.
    Rings,
    /// Connects, makes pools, regions and a queue, and disconnects.
    Connects,
    /// Is many clients, each of which registers and unregisters a region.
    Asks,
}

impl Way {
    /// Whether it does what no client should.
    pub(super) const fn misbehaves(self) -> bool {
        !matches!(self, Self::Equal | Self::Burns)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Neighbour {
    /// What it does.
    way: Way,
    /// Where the daemon is.
    socket: PathBuf,
    /// As the bench has them.
    #[arg(long, num_args = 1..)]
    pages: Vec<PathBuf>,
    /// The same.
    #[arg(long)]
    sample: usize,
}

/// Is one, until it is killed.
pub(crate) fn run(options: &Neighbour) -> Result<()> {
    // It does not outlive who has started it, however that ends.
    set_parent_process_death_signal(Some(Signal::KILL)).context("cannot ask to be killed with the bench")?;
    ensure!(getppid().is_some_and(|parent| !parent.is_init()), "the bench is gone");
    let pages = sample(&options.pages, options.sample)?.pages;
    let socket = &options.socket;
    match options.way {
        Way::Equal => {
            let mut steady = Steady::connect(socket, NAME, &pages, Waiting::Spins)?;
            ready()?;
            steady.run(Duration::MAX)?;
        }
        Way::Burns => {
            ready()?;
            burn();
        }
        Way::Scribbles => scribble(socket)?,
        Way::Changes => change(socket, &pages)?,
        Way::Dies => die(options)?,
        Way::Hoards => hoard(socket)?,
        Way::Floods => flood(socket, &pages)?,
        Way::Rings => ring(socket)?,
        Way::Connects => connect(socket)?,
        Way::Asks => ask_and_ask(socket)?,
    }
    bail!("a neighbour goes on until it is killed")
}

/// Tells the bench that it is at it.
fn ready() -> Result<()> {
    let mut out = std::io::stdout();
    out.write_all(b"ready\n").and_then(|()| out.flush()).context("the bench is gone")
}

fn burn() -> ! {
    loop {
        core::hint::spin_loop();
    }
}

fn hello() -> Hello {
    Hello { name: NAME.to_owned(), ..Hello::default() }
}

/// A client with a queue, a pool, and a region.
struct Own {
    queue: Queue,
    region: Region,
    pool: PoolId,
    client: Client,
}

impl Own {
    fn connect(socket: &Path, entries: u32, pages: &[u8]) -> Result<Self> {
        let client = Client::connect(socket, &hello())?;
        let pool = client.create_pool(PoolOptions::persistent())?;
        let region = client.create_region(REGION_BYTES, Backing::TransparentHuge)?;
        region.write(0, &pages[..pages.len().min(REGION_BYTES)]);
        Ok(Self { queue: client.open_queue(entries)?, region, pool, client })
    }

    /// Pushes puts and gets of `unit` bytes, in turns, until the queue is full.
    fn fill(&mut self, unit: usize, number: &mut u64) -> Result<()> {
        loop {
            let slots = (REGION_BYTES / unit) as u64;
            let offset = *number / 2 % slots * unit as u64;
            let slices = [Slice { offset, len: unit as u64 }];
            let memory = self.region.memory(&slices);
            let action = if number.is_multiple_of(2) {
                Action::Put { offset, from: memory }
            } else {
                Action::Get { offset, into: memory }
            };
            match self.queue.push(&Operation { tag: 0, pool: self.pool, object: 1.into(), action }) {
                Ok(()) => *number += 1,
                Err(QueueError::Full) => break,
                Err(error) => return Err(error.into()),
            }
        }
        self.queue.submit();
        Ok(())
    }

    /// Takes what has ended, whatever it ended as.
    fn reap(&mut self) -> Result<()> {
        while self.queue.reap_one()?.is_some() {}
        Ok(())
    }
}

fn flood(socket: &Path, pages: &[u8]) -> Result<()> {
    let (mut own, mut number) = (Own::connect(socket, 64, pages)?, 0);
    own.fill(2 << 20, &mut number)?;
    ready()?;
    loop {
        own.reap()?;
        own.fill(2 << 20, &mut number)?;
    }
}

fn change(socket: &Path, pages: &[u8]) -> Result<()> {
    let (mut own, mut number, mut random) = (Own::connect(socket, 64, pages)?, 0, Random::new(1));
    ready()?;
    loop {
        own.reap()?;
        own.fill(64 << 10, &mut number)?;
        for _ in 0..1024 {
            let word = random.next().to_le_bytes();
            own.region.write(random.below(REGION_BYTES / 8) * 8, &word);
        }
    }
}

fn die(options: &Neighbour) -> Result<()> {
    let mut random = Random::new(2);
    ready()?;
    loop {
        let flooding = Started::start(Way::Floods, &options.socket, &options.pages, options.sample)?;
        // Any moment of what it does then.
        std::thread::sleep(Duration::from_micros(random.next() % 20_000));
        drop(flooding);
    }
}

/// As many as a client may have.
fn queues(client: &Client, entries: u32) -> Vec<Queue> {
    std::iter::from_fn(|| client.open_queue(entries).ok()).collect()
}

fn hoard(socket: &Path) -> Result<()> {
    let mut own = Own::connect(socket, 64, &[])?;
    let mut all = queues(&own.client, 1024);
    for queue in &mut all {
        std::mem::swap(&mut own.queue, queue);
        own.fill(GRANULE_BYTES, &mut 0)?;
    }
    ready()?;
    burn()
}

fn ring(socket: &Path) -> Result<()> {
    let client = Client::connect(socket, &hello())?;
    let all = queues(&client, 64);
    let bell = |queue: &Queue| queue.bell().try_clone_to_owned().map(Doorbell::from_fd);
    let bells = all.iter().map(bell).collect::<Result<Vec<_>, _>>()?;
    ready()?;
    loop {
        bells.iter().for_each(Doorbell::ring);
    }
}

fn connect(socket: &Path) -> Result<()> {
    ready()?;
    loop {
        let client = Client::connect(socket, &hello())?;
        for _ in 0..4 {
            client.create_pool(PoolOptions::persistent())?;
        }
        let region = || client.create_region(2 << 20, Backing::Small);
        let _regions = (0..4).map(|_| region()).collect::<Result<Vec<_>, _>>()?;
        client.open_queue(64)?;
    }
}

/// Words of a queue, as LAYOUT.md of `tmem-ring` has them.
mod at {
    pub(super) const SUBMITTED: usize = 512 / 8;
    pub(super) const REAPED: usize = 640 / 8;
    pub(super) const COMPLETED: usize = 1152 / 8;
    pub(super) const CLOSED: usize = 1408 / 8;
    pub(super) const SUBMISSIONS: usize = 4096 / 8;
}

/// A client that holds its queue's memory in its own hands.
struct Raw {
    channel: Channel,
    words: Words,
    bell: Doorbell,
    region: tmem_sys::Region,
    pool: PoolId,
}

impl Raw {
    const ENTRIES: u32 = 64;

    fn connect(socket: &Path) -> Result<Self> {
        let channel = channel(socket)?;
        let (Reply::Pool { pool }, _) = ask(&channel, &Request::CreatePool(PoolOptions::persistent()), &[])? else {
            bail!("no pool")
        };
        let region = tmem_sys::Region::create("tmem-neighbour", REGION_BYTES, Backing::Small)?;
        ask(&channel, &Request::Register { region: 1 }, &[region.fd()])?;
        let (_, fds) = ask(&channel, &Request::OpenQueue { entries: Self::ENTRIES }, &[])?;
        let [memory, bell] = <[OwnedFd; 2]>::try_from(fds).ok().context("no queue")?;
        Ok(Self { channel, words: Words::map(memory)?, bell: Doorbell::from_fd(bell), region, pool })
    }

    fn store(&self, at: usize, value: u64) {
        self.words[at].store(value, Ordering::Release); // Release: as a client that wants to be believed
    }

    fn load(&self, at: usize) -> u64 {
        self.words[at].load(Ordering::Relaxed) // Relaxed: whatever is there
    }

    /// A submission that could be one, with one word of it perhaps that could not.
    fn submission(&self, random: &mut Random) -> [u64; 8] {
        let len = 1 + random.next() % (256 << 10);
        let (opcode, page) = (1 + random.next() % 5, random.next() % 1024 * GRANULE_BYTES as u64);
        let mut words = [opcode | 1 << 16 | u64::from(self.pool.0) << 32, 0, 1, 0, 0, page, len, page];
        if random.below(2) == 0 {
            words[random.below(8)] = random.next();
        }
        words
    }

    /// Random bytes everywhere, and then the counts so that they are taken for submissions; all but one in some hundred
    /// times.
    fn scribble(&self, random: &mut Random) {
        for _ in 0..256 {
            self.region.write(random.below(REGION_BYTES / 8) * 8, &random.next().to_le_bytes());
            let behind = self.words.len() - at::SUBMISSIONS;
            self.store(at::SUBMISSIONS + random.below(behind), random.next());
        }
        for entry in 0..Self::ENTRIES as usize {
            for (nth, word) in self.submission(random).into_iter().enumerate() {
                self.store(at::SUBMISSIONS + entry * 8 + nth, word);
            }
        }
        let completed = self.load(at::COMPLETED);
        self.store(at::REAPED, completed);
        self.store(at::SUBMITTED, completed + u64::from(Self::ENTRIES));
        if random.below(500) == 0 {
            self.store(random.below(self.words.len()), random.next());
            self.store(random.below(at::SUBMISSIONS), random.next());
            self.store(at::SUBMITTED, random.next());
        }
        self.bell.ring();
    }

    fn is_thrown_out(&self) -> bool {
        self.load(at::CLOSED) != 0 && poll_readable(&[self.channel.as_fd()], Some(Duration::ZERO)) != Ok(0)
    }
}

/// A client's connection.
fn channel(socket: &Path) -> Result<Channel> {
    let channel = Channel::connect_within(socket, PATIENCE)?;
    let hello = Request::Hello { version: wire::VERSION, name: NAME.to_owned(), cap_bytes: None, weight: None };
    ask(&channel, &hello, &[])?;
    Ok(channel)
}

fn ask(channel: &Channel, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<(Reply, Vec<OwnedFd>)> {
    channel.send(&serde_json::to_vec(request)?, fds)?;
    let mut packet = [0; wire::PACKET_BYTES];
    let received = channel.receive(&mut packet)?;
    match serde_json::from_slice(&packet[..received.len])? {
        Reply::Failed { message } => bail!(message),
        reply => Ok((reply, received.fds)),
    }
}

fn ask_and_ask(socket: &Path) -> Result<()> {
    let channels = (0..64).map(|_| channel(socket)).collect::<Result<Vec<_>>>()?;
    let region = tmem_sys::Region::create("tmem-neighbour", 2 << 20, Backing::Small)?;
    let register = serde_json::to_vec(&Request::Register { region: 1 })?;
    let unregister = serde_json::to_vec(&Request::Unregister { region: 1 })?;
    channels.iter().try_for_each(|channel| channel.send(&register, &[region.fd()]))?;
    let mut has_registered = [true; 64];
    ready()?;
    let fds: Vec<_> = channels.iter().map(AsFd::as_fd).collect();
    loop {
        let answered = poll_readable(&fds, Some(PATIENCE))?;
        for (nth, channel) in channels.iter().enumerate().filter(|(nth, _)| answered & 1 << nth != 0) {
            ensure!(channel.receive(&mut [0; wire::PACKET_BYTES])?.len > 0, "the daemon has hung up");
            has_registered[nth] = !has_registered[nth];
            if has_registered[nth] {
                channel.send(&register, &[region.fd()])?;
            } else {
                channel.send(&unregister, &[])?;
            }
        }
    }
}

fn scribble(socket: &Path) -> Result<()> {
    let mut random = Random::new(3);
    let mut raw = Raw::connect(socket)?;
    ready()?;
    loop {
        raw.scribble(&mut random);
        if raw.is_thrown_out() {
            raw = Raw::connect(socket)?;
        }
    }
}
