//! The monitor's side of an agent: commands, and the gate.

use core::ops::Range;
use core::sync::atomic::{AtomicU32, Ordering};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tmem_agent::digest::Digest;
use tmem_agent::protocol::{
    ASKED, Comm, Command, DECODED, DONE, DOORBELL, GATE_FREE, GATE_HELD, GATE_WAITED, IDLE, MAGIC, MOVED, PAGE_BYTES,
    Packet, REGION, RENEW,
};
use tmem_sys::{Pidfd, Shared, futex};

use crate::slots::Staged;
use crate::units::overlap;
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
    /// Where it decodes huge pages to: empty but while it is asked to.
    pub(crate) landing: u64,
    /// Its stack, scratch and windows.
    pub(crate) private: Range<u64>,
}

/// An agent, to be commanded by one thread, and asked by one.
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

/// What a command says; what an op does not use is left as it is by default.
#[derive(Debug, Default)]
pub(crate) struct Order<'a> {
    pub(crate) op: u32,
    pub(crate) epoch: u32,
    pub(crate) args: [u64; 4],
    pub(crate) pages: &'a [u64],
    /// What is known of the pages; as many, or none.
    pub(crate) known: &'a [Digest],
}

impl Order<'_> {
    /// Writes it to a command, which is the monitor's. All relaxed: whoever hands the command over publishes it.
    fn write(&self, command: &Command) {
        command.op.store(self.op, Ordering::Relaxed); // as above
        command.epoch.store(self.epoch, Ordering::Relaxed); // as above
        command.progress.store(0, Ordering::Relaxed); // as above
        for (field, value) in command.args.iter().zip(self.args) {
            field.store(value, Ordering::Relaxed); // as above
        }
        for (field, value) in command.pages.iter().zip(self.pages) {
            field.store(*value, Ordering::Relaxed); // as above
        }
        for (field, value) in command.known.iter().flatten().zip(self.known.iter().flatten()) {
            field.store(*value, Ordering::Relaxed); // as above
        }
        // One result at least: some orders have no pages, and a result all the same.
        for result in command.results.iter().take(self.pages.len().max(1)) {
            result.store(0, Ordering::Relaxed); // as above
        }
        let count = u32::try_from(self.pages.len()).unwrap_or(u32::MAX);
        command.count.store(count, Ordering::Relaxed); // as above
    }
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
        order.write(self.command(ticket));
        sent.commands = sent.commands.wrapping_add(1);
        // SeqCst, here and at `sleeps`: the agent stores `sleeps`, then loads `submitted`; we store `submitted`, then
        // load `sleeps`. One of the two sees the other. It also publishes the command.
        self.comm.submitted.store(sent.commands, Ordering::SeqCst);
        self.ring();
        ticket
    }

    /// Wakes the agent if it sleeps; the caller has just stored what it is to see.
    fn ring(&self) {
        if self.comm.sleeps.load(Ordering::SeqCst) == 1 {
            // SeqCst: as the caller says. A dead agent is noticed by whoever waits for the result.
            let _ = self.send(DOORBELL, 0, None);
        }
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

    // --- the second channel: one thread at a time, from `nothing_landed` to the end of a wait

    /// Nothing has landed of what is going to be asked for.
    pub(crate) fn nothing_landed(&self) {
        // Relaxed: `landed` is asked under the state's lock, or by this thread.
        self.comm.second.progress.store(0, Ordering::Relaxed);
    }

    /// Pages that have landed so far. For certain only under the gate, or when the agent is done.
    pub(crate) fn landed(&self) -> usize {
        // Acquire: pairs with the agent's store after the move; the pages are in place.
        self.comm.second.progress.load(Ordering::Acquire) as usize
    }

    /// Asks the agent to decode.
    pub(crate) fn ask(&self, order: &Order<'_>) {
        order.write(&self.comm.second);
        // SeqCst: as in `give`.
        self.comm.asked.store(ASKED, Ordering::SeqCst);
        self.ring();
    }

    /// Has the landing area mapped anew. False: the agent had not begun `soon`.
    pub(crate) fn renew(&self, soon: Duration) -> Result<bool, AgentDied> {
        self.ask(&Order { op: RENEW, ..Order::default() });
        Ok(self.await_decoded(soon)? && self.await_done()? == MOVED)
    }

    /// Waits until the agent reads no blocks any more. False: it had not begun `soon`, and will not.
    pub(crate) fn await_decoded(&self, soon: Duration) -> Result<bool, AgentDied> {
        let asked = &self.comm.asked;
        let end = Instant::now() + soon;
        loop {
            // Acquire: pairs with the agent's release; it has read the blocks.
            let state = asked.load(Ordering::Acquire);
            let left = end.saturating_duration_since(Instant::now());
            match state {
                DECODED | DONE => return Ok(true),
                ASKED if left.is_zero() => {
                    // Relaxed, both: nothing is published by taking it back, nor seen if that fails.
                    if asked.compare_exchange(ASKED, IDLE, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                        return Ok(false);
                    }
                }
                ASKED => _ = futex::wait(asked, state, Some(left)),
                _ if self.is_dead() => return Err(AgentDied),
                _ => _ = futex::wait(asked, state, Some(PATIENCE)),
            }
        }
    }

    /// Waits until the agent is done. Returns its result.
    pub(crate) fn await_done(&self) -> Result<u32, AgentDied> {
        let asked = &self.comm.asked;
        loop {
            // Acquire: pairs with the agent's release; the results are visible.
            let state = asked.load(Ordering::Acquire);
            if state == DONE {
                asked.store(IDLE, Ordering::Relaxed); // Relaxed: the agent looks for ASKED only
                return Ok(self.comm.second.results[0].load(Ordering::Relaxed)); // as above
            }
            if self.is_dead() {
                return Err(AgentDied);
            }
            futex::wait(asked, state, Some(PATIENCE));
        }
    }

    // --- regions, and ends

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

    /// Has the kernel take back what it can of a range that is mapped from a file.
    pub(crate) fn page_out(&self, range: &Range<u64>) {
        let _ = self.life.page_out(range); // whatever does not go stays, and is counted
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
        let Places { tripwire, staging, private, .. } = &self.places;
        [staging, private, &(*tripwire..tripwire + PAGE_BYTES)].into_iter().any(|own| overlap(own, range))
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

#[cfg(feature = "fault-injection")]
impl Hands {
    /// What goes wrong with the agent's calls.
    pub(crate) fn injection(&self) -> &tmem_agent::injection::Injection {
        &self.comm.injection
    }
}

#[cfg(feature = "fault-injection")]
impl Drop for Hands {
    fn drop(&mut self) {
        crate::injection::keep(&self.comm.injection);
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
