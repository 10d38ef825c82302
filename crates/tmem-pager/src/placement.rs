//! Where threads run, and when.
//!
//! Where the server of a fault runs decides more than all else about how long the fault takes. On the CPU of the thread
//! that faulted, which sleeps from then on, it runs at once; another CPU has to be woken first, or is busy. So an
//! address space has a server on each CPU, which never leaves it, and a fault wakes them all:
//! - The one on the right CPU is the first to run.
//! - Servers run [last](Turn::Last): they interrupt nobody, and the kernel takes a CPU where only a server runs for
//!   idle, so that the thread that it wakes stays there instead of moving to where no server is awake.
//! - Those that come too late again and again *rest* (`server`): to wake an idle CPU for nothing costs the thread that
//!   faults as much as the fault. Now and then a server asks where a fault happened, and calls the one that rests there.
//!
//! To keep the agents and the monitor's other threads off the CPUs where faults happen was tried too: it gains a tenth for
//! a thread that faults at random, and loses as much where a program waits for room, and its CPU is free.
//!
//! A server that runs last may starve, since somebody else wants its CPU, and with it whoever waits for what it has
//! locked. So a thread of its own looks whether servers have something to do and do not get on with it, and if so has
//! them run as everybody does for a while. It waits for no lock, which one that starves may hold: it remembers what it
//! saw when there was nobody. On a CPU that many want, as everybody does would still be too late, so where they may they
//! step forward then.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use tmem_sys::Turn;

use crate::core::Core;
use crate::events::poll_until;
use crate::space::{Space, SpaceId};

/// More CPUs than this are not given a server each: a fault would wake too many.
const MOST_CPUS: usize = 8;
/// How long servers that starved run as everybody does.
const HURRY: Duration = Duration::from_secs(1);
/// How often it is looked whether servers starve: while something was to be done at the last look, and while not.
const LOOK: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(5));
/// And while there are no servers.
const NO_SERVERS: Duration = Duration::from_millis(20);

/// A server, as others see it.
#[derive(Debug)]
pub(crate) struct Seat {
    /// Wakes it.
    pub(crate) kick: OwnedFd,
    /// The CPU that it keeps to, if it does.
    pub(crate) cpu: Option<u32>,
    /// It is the one that does not begin with a rest.
    pub(crate) is_first: bool,
    /// Its server rests, and nobody has called it.
    rests: AtomicBool,
    /// It has faults that wait.
    hungry: AtomicBool,
    /// It does something, and how often it got on with it.
    busy: AtomicBool,
    steps: AtomicU32,
    /// Its thread; 0: it has not started yet.
    thread: AtomicU32,
}

impl Seat {
    fn new(cpu: Option<u32>, is_first: bool) -> rustix::io::Result<Self> {
        let kick = crate::event_fd()?;
        let [rests, hungry, busy] = [const { AtomicBool::new(false) }; 3];
        let [steps, thread] = [const { AtomicU32::new(0) }; 2];
        Ok(Self { kick, cpu, is_first, rests, hungry, busy, steps, thread })
    }

    /// Calls its server, should it rest.
    pub(crate) fn call(&self) {
        // Relaxed, all: the kick comes after it, and is kept until the server hears it.
        if self.rests.swap(false, Ordering::Relaxed) {
            let _ = rustix::io::write(&self.kick, &1_u64.to_le_bytes());
        }
    }

    /// Tells its server that there is room, or whatever else it may wait for, should it have faults that wait.
    pub(crate) fn feed(&self) {
        if self.hungry.load(Ordering::Relaxed) {
            let _ = rustix::io::write(&self.kick, &1_u64.to_le_bytes());
        }
    }

    /// Its server has faults that wait, or has none any more. The two of us may miss each other while it says so: it looks
    /// again soon. Afterwards it looks under the lock of what it waits for, and whoever feeds it has held that since.
    pub(crate) fn set_hungry(&self, hungry: bool) {
        self.hungry.store(hungry, Ordering::Relaxed); // as above
    }

    /// Its server rests until it is called.
    pub(crate) fn set_rests(&self) {
        self.rests.store(true, Ordering::Relaxed); // as above
    }

    pub(crate) fn rests(&self) -> bool {
        self.rests.load(Ordering::Relaxed) // as above
    }

    /// Its server begins or ends to do something.
    pub(crate) fn set_busy(&self, busy: bool) {
        self.busy.store(busy, Ordering::Relaxed); // as above
    }

    /// Its server got on.
    pub(crate) fn get_on(&self) {
        self.steps.fetch_add(1, Ordering::Relaxed); // as above
    }

    /// How far its server is, if it does something.
    fn steps(&self) -> Option<u32> {
        self.busy.load(Ordering::Relaxed).then(|| self.steps.load(Ordering::Relaxed)) // as above
    }

    /// The calling thread is the server: it goes to its place.
    pub(crate) fn take(&self, core: &Core) {
        let own = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
        // Threads begin where and as those that start them: other servers, or the watch. Where a system forbids any of
        // this, faults are served all the same, later.
        crate::step_as_the_monitor();
        let turn = if self.cpu.is_some() { core.turn } else { Turn::Fair };
        if turn == Turn::Last {
            crate::step_forward(); // counts when it is helped: the program's threads may be many
        }
        let _ = tmem_sys::run_on(0, self.cpu.as_ref().map_or(&core.cpus, core::slice::from_ref));
        let _ = tmem_sys::take_turns(0, turn);
        self.thread.store(own, Ordering::Relaxed); // Relaxed, all here: numbers that stand alone
    }

    /// Whether its server runs, or would if it could, instead of waiting for somebody.
    fn wants_to_run(&self) -> bool {
        self.thread().is_some_and(|thread| tmem_sys::is_runnable(thread).unwrap_or(false))
    }

    fn thread(&self) -> Option<u32> {
        Some(self.thread.load(Ordering::Relaxed)).filter(|thread| *thread != 0) // as above
    }
}

/// Seats for the servers of an address space.
pub(crate) fn seats(core: &Core) -> rustix::io::Result<Vec<Arc<Seat>>> {
    let seat = |(at, cpu): (usize, Option<u32>)| Seat::new(cpu, at == 0).map(Arc::new);
    places(&core.cpus).into_iter().enumerate().map(seat).collect()
}

/// The CPUs that servers keep to. One that keeps to none if there are too many, or the system does not tell.
fn places(cpus: &[u32]) -> Vec<Option<u32>> {
    match cpus.len() {
        1..=MOST_CPUS => cpus.iter().copied().map(Some).collect(),
        _ => vec![None],
    }
}

/// How servers share their CPUs: last, if we may take that back.
pub(crate) fn servers_turn() -> Turn {
    let trial = std::thread::spawn(|| {
        let there = tmem_sys::take_turns(0, Turn::Last);
        there.and_then(|()| tmem_sys::take_turns(0, Turn::Fair)).is_ok()
    });
    if trial.join().unwrap_or(false) { Turn::Last } else { Turn::Patient }
}

/// Starts the thread that looks after servers, if they run last.
pub(crate) fn start(core: &Arc<Core>) {
    let core = Arc::clone(core);
    if core.turn == Turn::Last {
        crate::spawn("helper", move || Helper::default().run(&core));
    }
}

/// What the helper remembers.
#[derive(Debug, Default)]
struct Helper {
    seen: BTreeMap<SpaceId, Seen>,
}

/// Of one address space.
#[derive(Debug, Default)]
struct Seen {
    seats: Vec<Arc<Seat>>,
    /// How far its servers were.
    steps: Vec<Option<u32>>,
    /// Whether there were faults that nobody had read.
    unread: bool,
    /// Since when its servers run as everybody does.
    hurried: Option<Instant>,
}

impl Helper {
    fn run(mut self, core: &Core) {
        crate::step_forward();
        let mut spaces = Vec::new();
        while !core.is_stopping() {
            spaces = core.try_spaces().unwrap_or(spaces);
            self.seen.retain(|id, _| spaces.iter().any(|space| space.id == *id));
            let mut nap = NO_SERVERS;
            for space in &spaces {
                let seen = self.seen.entry(space.id).or_default();
                if seen.seats.is_empty() {
                    // Made once, all at once.
                    seen.seats = space.seats.try_lock().map(|seats| seats.clone()).unwrap_or_default();
                }
                if seen.seats.is_empty() {
                    continue;
                }
                let waits = seen.look(core, space);
                nap = nap.min(if waits { LOOK.0 } else { LOOK.1 });
            }
            std::thread::sleep(nap);
        }
    }
}

impl Seen {
    /// Has servers run as everybody does if one of them starves. Returns whether they have something to do.
    fn look(&mut self, core: &Core, space: &Space) -> bool {
        if self.hurried.is_some_and(|since| since.elapsed() > HURRY) {
            self.hurried = None;
            turn(&self.seats, core.turn);
        }
        let unread = poll_until(&mut [PollFd::new(&space.faults, PollFlags::IN)], Some(Duration::ZERO));
        let steps: Vec<_> = self.seats.iter().map(|seat| seat.steps()).collect();
        let mut pairs = steps.iter().zip(&self.steps);
        let stuck = pairs.clone().any(|(now, before)| now.is_some() && now == before);
        let unheard = unread && self.unread && pairs.all(|(now, before)| now == before);
        let waits = unread || steps.iter().any(Option::is_some);
        (self.steps, self.unread) = (steps, unread);
        if self.hurried.is_none() && (stuck || unheard) && self.seats.iter().any(|seat| seat.wants_to_run()) {
            self.hurried = Some(Instant::now());
            turn(&self.seats, Turn::Fair);
        }
        waits
    }
}

fn turn(seats: &[Arc<Seat>], turn: Turn) {
    for thread in seats.iter().filter(|seat| seat.cpu.is_some()).filter_map(|seat| seat.thread()) {
        let _ = tmem_sys::take_turns(thread, turn); // one that has gone is no loss
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_always_a_server() {
        assert_eq!(places(&[]), [None]);
        assert_eq!(places(&[3, 7]), [Some(3), Some(7)]);
        let many: Vec<u32> = (0..=8).collect();
        assert_eq!((places(&many[..8]).len(), places(&many)), (8, vec![None]));
    }
}
