//! Where threads run, and when.
//!
//! Where the server of a fault runs decides more than all else about how long the fault takes. On the CPU of the thread
//! that faulted, which sleeps from then on, it runs at once; another CPU has to be woken first, or is busy. So an
//! address space has a server on each CPU, which never leaves it, and a fault wakes them all:
//! - The one on the right CPU is the first to run.
//! - Servers run [last](Turn::Last): they interrupt nobody, and the kernel takes a CPU where only a server runs for
//!   idle, so that the thread that it wakes stays there instead of moving to where no server is awake.
//! - Those that come too late again and again *rest* for a while (`server`).
//! - What works for long at a time, the agents and the monitor's other threads, is kept off the CPUs where servers find
//!   faults, as long as there are others.
//!
//! A server that runs last may starve, since somebody else's program wants its CPU, and with what it has locked. So the
//! watch looks whether faults wait and no server gets on, and if so has them run as everybody does for a second.

use core::sync::atomic::{AtomicU32, Ordering};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use tmem_sys::Turn;

use crate::core::Core;
use crate::lock;
use crate::server::poll_until;
use crate::space::{Space, SpaceId};

/// More CPUs than this are not given a server each: a fault would wake too many.
const MOST_CPUS: usize = 8;
/// How often it is asked which CPUs have faults.
const PLACING: Duration = Duration::from_millis(20);
/// Fewer faults in that time say nothing.
const FEW: u32 = 20;
/// A CPU with a smaller part of the faults than this is not one of those where they happen.
const PART: u32 = 8;
/// How long servers that starved run as everybody does.
const HURRY: Duration = Duration::from_secs(1);

/// A server, as others see it.
#[derive(Debug)]
pub(crate) struct Seat {
    /// Wakes it.
    pub(crate) kick: OwnedFd,
    /// The CPU that it keeps to, if it does.
    cpu: Option<u32>,
    /// Its thread; 0: it has not started yet.
    thread: AtomicU32,
    /// Faults that it took, since last asked.
    took: AtomicU32,
}

impl Seat {
    fn new(cpu: Option<u32>) -> rustix::io::Result<Self> {
        Ok(Self { kick: crate::event_fd()?, cpu, thread: AtomicU32::new(0), took: AtomicU32::new(0) })
    }

    /// The calling thread is the server: it goes to its place.
    pub(crate) fn take(&self, core: &Core) {
        let own = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
        // Threads begin where and as those that start them: other servers, perhaps. Where a system forbids any of this,
        // faults are served all the same, later.
        let _ = tmem_sys::run_on(0, self.cpu.as_ref().map_or(&core.cpus, core::slice::from_ref));
        let _ = tmem_sys::take_turns(0, if self.cpu.is_some() { core.turn } else { Turn::Fair });
        self.thread.store(own, Ordering::Relaxed); // Relaxed, all here: numbers that stand alone
    }

    /// Its server took faults.
    pub(crate) fn took(&self) {
        self.took.fetch_add(1, Ordering::Relaxed); // as above
    }

    fn thread(&self) -> Option<u32> {
        Some(self.thread.load(Ordering::Relaxed)).filter(|thread| *thread != 0) // as above
    }
}

/// Seats for the servers of an address space.
pub(crate) fn seats(core: &Core) -> rustix::io::Result<Vec<Arc<Seat>>> {
    if core.cpus.len() > MOST_CPUS {
        return Ok(vec![Arc::new(Seat::new(None)?)]);
    }
    core.cpus.iter().map(|cpu| Seat::new(Some(*cpu)).map(Arc::new)).collect()
}

/// How servers share their CPUs: last, if we may take that back.
pub(crate) fn servers_turn() -> Turn {
    let trial = std::thread::spawn(|| {
        let there = tmem_sys::take_turns(0, Turn::Last);
        there.and_then(|()| tmem_sys::take_turns(0, Turn::Fair)).is_ok()
    });
    if trial.join().unwrap_or(false) { Turn::Last } else { Turn::Patient }
}

/// What the watch remembers about all this.
#[derive(Debug)]
pub(crate) struct Placement {
    placed: Instant,
    /// Where whatever is no server runs, and what was told so.
    others: Vec<u32>,
    told: BTreeSet<u32>,
    /// Address spaces in which somebody waited at the last look, and how far their servers were.
    waited: BTreeMap<SpaceId, u32>,
    hurried: BTreeMap<SpaceId, Instant>,
}

impl Placement {
    pub(crate) fn new(core: &Core) -> Self {
        Self {
            placed: Instant::now(),
            others: core.cpus.clone(),
            told: BTreeSet::new(),
            waited: BTreeMap::new(),
            hurried: BTreeMap::new(),
        }
    }

    /// To be called every millisecond or so while there are faults.
    pub(crate) fn look(&mut self, core: &Core, spaces: &[Arc<Space>]) {
        if core.turn == Turn::Last {
            spaces.iter().for_each(|space| self.help(core, space));
            self.waited.retain(|id, _| spaces.iter().any(|space| space.id == *id));
            self.hurried.retain(|id, _| spaces.iter().any(|space| space.id == *id));
        }
        if self.placed.elapsed() > PLACING {
            self.place(core, spaces);
            self.placed = Instant::now();
        }
    }

    /// Has servers run as everybody does if they starve.
    fn help(&mut self, core: &Core, space: &Space) {
        if self.hurried.get(&space.id).is_some_and(|since| since.elapsed() > HURRY) {
            self.hurried.remove(&space.id);
            turn(space, core.turn);
        }
        let waits = space.is_serving() || poll_until(&mut [PollFd::new(&space.faults, PollFlags::IN)], Some(Duration::ZERO));
        if !waits {
            self.waited.remove(&space.id);
            return;
        }
        let progress = space.progress();
        if self.waited.insert(space.id, progress) == Some(progress) && !self.hurried.contains_key(&space.id) {
            self.hurried.insert(space.id, Instant::now());
            turn(space, Turn::Fair);
        }
    }

    /// Keeps whatever is no server off the CPUs that have faults.
    fn place(&mut self, core: &Core, spaces: &[Arc<Space>]) {
        let seats: Vec<Arc<Seat>> = spaces.iter().flat_map(|space| lock(&space.seats).clone()).collect();
        let mut took: BTreeMap<u32, u32> = BTreeMap::new();
        for seat in &seats {
            let count = seat.took.swap(0, Ordering::Relaxed); // Relaxed: as above
            *took.entry(seat.cpu.unwrap_or(u32::MAX)).or_default() += count;
        }
        let all: u32 = took.values().sum();
        if all < FEW {
            return;
        }
        let has_faults = |cpu: &u32| took.get(cpu).is_some_and(|count| *count > all / PART);
        let mut others: Vec<u32> = core.cpus.iter().copied().filter(|cpu| !has_faults(cpu)).collect();
        if others.is_empty() {
            others.clone_from(&core.cpus);
        }
        if others != self.others {
            self.others = others;
            self.told.clear();
        }
        let mut threads = Vec::new();
        let _ = tmem_sys::threads(std::process::id(), &mut threads);
        threads.retain(|thread| seats.iter().all(|seat| seat.thread() != Some(*thread)));
        threads.extend(spaces.iter().filter_map(|space| space.hands.get()).map(|hands| hands.pid));
        for thread in threads {
            if self.told.insert(thread) {
                // One that has gone is no loss.
                let _ = tmem_sys::run_on(thread, &self.others);
            }
        }
    }
}

fn turn(space: &Space, turn: Turn) {
    for thread in lock(&space.seats).iter().filter(|seat| seat.cpu.is_some()).filter_map(|seat| seat.thread()) {
        let _ = tmem_sys::take_turns(thread, turn); // one that has gone is no loss
    }
}
