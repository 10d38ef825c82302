//! The monitor's side of an agent: commands, and the gate.

use core::ops::Range;
use core::sync::atomic::{AtomicU32, Ordering};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;
use std::time::Duration;

use tmem_agent::protocol::{
    Comm, Command, DOORBELL, GATE_FREE, GATE_HELD, GATE_WAITED, MAGIC, PAGE_BYTES, Packet, REGION,
};
use tmem_sys::{Pidfd, Shared, futex};

use crate::slots::Staged;
use crate::wire;

/// Looks at the gate before one goes to sleep over it: some 100 microseconds, a few times what a move takes.
const SPINS: u32 = 6000;
/// How long a wait for an agent lasts before its life is checked.
const PATIENCE: Duration = Duration::from_millis(100);

/// The agent is dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AgentDied;

/// Where an agent has put things, as it told.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    /// One page, registered before anything else, which a fork child finds empty.
    pub(crate) tripwire: u64,
    pub(crate) staging: Range<u64>,
    /// Its stack, scratch and windows.
    pub(crate) private: Range<u64>,
}

/// An agent, to be commanded by one thread.
#[derive(Debug)]
pub(crate) struct Hands {
    pub(crate) pid: u32,
    pub(crate) places: Places,
    comm: Shared<Comm>,
    socket: OwnedFd,
    life: Pidfd,
    sent: Mutex<Sent>,
}

#[derive(Debug, Default)]
struct Sent {
    commands: u32,
    regions: u64,
}

/// What a command says; `pages` may be empty.
#[derive(Debug)]
pub(crate) struct Order<'a> {
    pub(crate) op: u32,
    pub(crate) epoch: u32,
    pub(crate) args: [u64; 4],
    pub(crate) pages: &'a [u64],
}

/// A command that was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket(u32);

impl Hands {
    pub(crate) fn new(pid: u32, places: Places, comm: Shared<Comm>, socket: OwnedFd, life: Pidfd) -> Self {
        Self { pid, places, comm, socket, life, sent: Mutex::default() }
    }

    /// Gives a command. At most two are under way: the one before the last must have been waited for.
    pub(crate) fn give(&self, order: &Order<'_>) -> Ticket {
        let mut sent = crate::lock(&self.sent);
        let ticket = Ticket(sent.commands);
        let command = self.command(ticket);
        // Relaxed for all the fields: `submitted` publishes them.
        command.op.store(order.op, Ordering::Relaxed);
        command.epoch.store(order.epoch, Ordering::Relaxed);
        command.progress.store(0, Ordering::Relaxed); // as above
        for (field, value) in command.args.iter().zip(order.args) {
            field.store(value, Ordering::Relaxed); // as above
        }
        for (field, value) in command.pages.iter().zip(order.pages) {
            field.store(*value, Ordering::Relaxed); // as above
        }
        // One result at least: some orders have no pages, and a result all the same.
        for result in command.results.iter().take(order.pages.len().max(1)) {
            result.store(0, Ordering::Relaxed); // as above
        }
        let count = u32::try_from(order.pages.len()).unwrap_or(u32::MAX);
        command.count.store(count, Ordering::Relaxed); // as above
        sent.commands = sent.commands.wrapping_add(1);
        // SeqCst, here and at `sleeps`: the agent stores `sleeps`, then loads `submitted`; we store `submitted`, then
        // load `sleeps`. One of the two sees the other. It also publishes the command.
        self.comm.submitted.store(sent.commands, Ordering::SeqCst);
        if self.comm.sleeps.load(Ordering::SeqCst) == 1 {
            // A dead agent is noticed by whoever waits for the result.
            let _ = self.send(DOORBELL, 0, None);
        }
        ticket
    }

    /// Waits until a command is done.
    pub(crate) fn wait(&self, ticket: Ticket) -> Result<&Command, AgentDied> {
        loop {
            // Acquire: pairs with the agent's release of `completed`; the results are visible.
            let done = self.comm.completed.load(Ordering::Acquire);
            if done.wrapping_sub(ticket.0).cast_signed() > 0 {
                return Ok(self.command(ticket));
            }
            if self.is_dead() {
                return Err(AgentDied);
            }
            futex::wait(&self.comm.completed, done, Some(PATIENCE));
        }
    }

    /// The fields of a command, before or after it is done.
    pub(crate) fn command(&self, ticket: Ticket) -> &Command {
        &self.comm.commands[(ticket.0 % 2) as usize]
    }

    /// Makes sure that the agent knows a region of the store.
    pub(crate) fn tell_region(&self, number: u32, memfd: BorrowedFd<'_>) -> Result<(), AgentDied> {
        let mut sent = crate::lock(&self.sent);
        if sent.regions >> number & 1 == 0 {
            self.send(REGION, u64::from(number), Some(memfd))?;
            sent.regions |= 1 << number;
        }
        Ok(())
    }

    fn send(&self, kind: u32, word: u64, fd: Option<BorrowedFd<'_>>) -> Result<(), AgentDied> {
        let packet = Packet { magic: MAGIC, kind, words: [word, 0, 0, 0, 0, 0, 0] };
        wire::send(self.socket.as_fd(), &packet, fd.as_slice()).map_err(|_| AgentDied)
    }

    /// Whether it has exited.
    pub(crate) fn is_dead(&self) -> bool {
        self.life.has_exited().unwrap_or(true)
    }

    /// Ends it, and with it the address space, if the program has gone.
    pub(crate) fn kill(&self) {
        let _ = self.life.kill(rustix::process::Signal::KILL);
    }

    /// Whether a range touches what the agent has mapped for itself.
    pub(crate) fn is_own(&self, range: &Range<u64>) -> bool {
        let Places { tripwire, staging, private } = &self.places;
        let overlaps = |own: &Range<u64>| range.start < own.end && own.start < range.end;
        overlaps(staging) || overlaps(private) || overlaps(&(*tripwire..tripwire + PAGE_BYTES))
    }

    /// The first address of a staged page.
    pub(crate) fn staged(&self, at: Staged) -> u64 {
        self.places.staging.start + u64::from(at.0) * PAGE_BYTES
    }

    /// The number of changes of the address space so far.
    pub(crate) fn epoch(&self) -> u32 {
        // Relaxed: written by the monitor only, under the lock of the address space's state, which the caller holds.
        self.comm.epoch.load(Ordering::Relaxed)
    }

    /// Closes the gate to the agent until the guard is dropped.
    pub(crate) fn gate(&self) -> Gate<'_> {
        // Relaxed, here and below: a hint.
        self.comm.gate_wanted.fetch_add(1, Ordering::Relaxed);
        self.take_gate();
        self.comm.gate_wanted.fetch_sub(1, Ordering::Relaxed); // as above
        Gate { gate: &self.comm.gate, epoch: &self.comm.epoch }
    }

    fn take_gate(&self) {
        let gate = &self.comm.gate;
        for _ in 0..SPINS {
            // Acquire: pairs with the release of whoever opened the gate; what it moved is in its results. Relaxed: a
            // failure shows nothing.
            if gate.compare_exchange_weak(GATE_FREE, GATE_HELD, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                return;
            }
            core::hint::spin_loop();
        }
        // Whoever waited leaves the gate as waited for, since others may wait too. Acquire: as above.
        while gate.swap(GATE_WAITED, Ordering::Acquire) != GATE_FREE {
            futex::wait(gate, GATE_WAITED, Some(PATIENCE));
            if self.is_dead() {
                break; // nobody moves anything any more
            }
        }
    }
}

/// The gate is closed.
#[derive(Debug)]
pub(crate) struct Gate<'a> {
    gate: &'a AtomicU32,
    epoch: &'a AtomicU32,
}

impl Gate<'_> {
    /// The address space has changed: what is under way must not move anything any more.
    pub(crate) fn changed(&self) {
        // Relaxed: the agent compares it under the gate, which publishes it.
        self.epoch.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Gate<'_> {
    fn drop(&mut self) {
        // Release: pairs with the agent's acquire of the gate: it sees the epoch.
        if self.gate.swap(GATE_FREE, Ordering::Release) == GATE_WAITED {
            futex::wake(self.gate, 1);
        }
    }
}
