//! The server of an address space: reads its userfaultfd, applies events, gives pages.
//!
//! A fault on a page with a slot is answered with the slot's bytes, any other with zeros: whatever is registered and
//! has no slot was never touched or was discarded. That this is known for certain rests on the kernel: while an event
//! has not been read, or its cause is not over, it refuses to fill anything (`EAGAIN`), so no fault is answered out
//! of date.
//!
//! A fault that cannot be answered now is *parked*: the kernel said `EAGAIN`, or there is no room under the limit. It is
//! tried again when something happens that it may wait for ([`Space::feed`]), and besides at its own [`Pace`].
//! The server never waits for room itself, since the evictor may need it to read events.

use core::cell::Cell;
use core::ops::Range;
use core::sync::atomic::Ordering;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use tmem_agent::digest::{Digest, digest};
use tmem_agent::protocol::PAGE_BYTES;
use tmem_sys::{CpuOf, Event, Userfaultfd, Wake};

use crate::copies;
use crate::core::Core;
use crate::events::{Means, Read, has_moved, poll_until, read_told, wait_for_descriptor, withheld};
use crate::hands::Hands;
use crate::lock;
use crate::order;
use crate::pace::Pace;
use crate::placement::{self, Seat};
use crate::slots::{Freed, Place, Slot};
use crate::space::{Fault, Space, State};
use crate::streams::{Followed, WINDOW};
use crate::units::{PAGE, Page};
use crate::whole::{self, Restored};

/// A server rests when it was woken so often for faults that another one took; one that it takes itself makes up for
/// some.
const VAIN: u32 = 16;
const WORTH: u32 = 4;
/// Of so many faults, one is asked where it happened.
const ASKED: u32 = 32;
/// How soon a fault that waits for room is tried again, should nobody tell.
const NO_ROOM: Duration = Duration::from_millis(5);
/// How soon it is read again where nothing but faults was told that were told before.
const TOLD_AGAIN: Duration = Duration::from_millis(1);
/// How soon a fork is read again for which there was no descriptor.
const NO_DESCRIPTOR: Duration = Duration::from_millis(1);

/// How a fault ended, or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Given,
    /// The address space is changing.
    Again,
    /// There is no room.
    Full,
    /// The address space has gone.
    Gone,
    /// See [`Core::fail_closed`].
    Wrong(&'static str),
}

/// The thread's own belongings.
struct Server {
    core: Arc<Core>,
    space: Arc<Space>,
    buffer: Vec<u8>,
    zeros: Vec<u8>,
    /// Pages that were just given, which are to have copies: their slots, and digests.
    copies: Vec<(Page, Slot, Digest)>,
    /// When the kernel was about to wake whoever waited: the program may then run in this thread's place at once.
    woken: Cell<Option<Instant>>,
    parked: Vec<Fault>,
    /// One of them waits for something else than room. Of some of that nobody tells: that a thread which changes the address
    /// space is done with it, say.
    waits_untold: bool,
    /// How soon they are tried again, if nothing happens before.
    pace: Pace,
    /// A fork could not be read when it was last tried.
    short: bool,
    /// How often it was woken for nothing, as [`VAIN`] counts.
    vain: u32,
    /// It has just answered: whoever runs on this CPU has often faulted again by then, and it is read at once.
    goes_on: bool,
    /// Faults since one was asked where it happened, and what tells it, by thread.
    unasked: u32,
    cpus: HashMap<u32, CpuOf>,
    seat: Arc<Seat>,
}

/// Starts the servers of an address space, unless it has them.
pub(crate) fn start(core: &Arc<Core>, space: &Arc<Space>) {
    let mut seats = lock(&space.seats);
    if !seats.is_empty() {
        return;
    }
    let made = placement::seats(core);
    *seats = made.unwrap_or_else(|error| panic!("an address space cannot be served ({error})"));
    for seat in seats.iter() {
        let server = Server::new(core, space, seat);
        crate::spawn("server", move || server.run());
    }
}

impl Server {
    fn new(core: &Arc<Core>, space: &Arc<Space>, seat: &Arc<Seat>) -> Self {
        Self {
            core: Arc::clone(core),
            space: Arc::clone(space),
            buffer: vec![0; WINDOW * PAGE],
            zeros: vec![0; WINDOW * PAGE],
            copies: Vec::new(),
            woken: Cell::new(None),
            parked: Vec::new(),
            waits_untold: false,
            pace: Pace::default(),
            short: false,
            vain: 0,
            goes_on: false,
            unasked: 0,
            cpus: HashMap::new(),
            seat: Arc::clone(seat),
        }
    }

    fn run(mut self) {
        self.seat.take(&self.core);
        if !self.seat.is_first {
            self.rest();
        }
        while !self.space.is_retired() && !self.core.is_stopping() {
            if !self.goes_on || !self.parked.is_empty() {
                self.seat.set_busy(false);
                self.wait();
                self.seat.set_busy(true);
            }
            let faults = match self.take_events() {
                Ok(faults) => faults,
                Err(why) => {
                    self.core.fail_closed(&self.space, why);
                    return self.space.hands.get().into_iter().for_each(Hands::kill); // nobody hears it any more
                }
            };
            self.goes_on = !faults.is_empty();
            self.park_new(faults);
            self.waits_untold = false;
            for fault in core::mem::take(&mut self.parked) {
                self.seat.get_on();
                self.woken.set(None);
                let answer = self.answer(fault);
                self.conclude(fault, answer);
            }
        }
    }

    /// What is to be done now that a fault was answered, or was not.
    fn conclude(&mut self, fault: Fault, answer: Answer) {
        match answer {
            Answer::Given => {
                self.count(fault);
                self.follow(fault.thread);
            }
            Answer::Again => self.park(fault),
            Answer::Full => {
                self.parked.push(fault);
                self.core.hunger();
            }
            Answer::Gone => self.space.end(),
            Answer::Wrong(why) => {
                self.core.fail_closed(&self.space, why);
                if !self.gives_up(fault) {
                    self.park(fault);
                }
            }
        }
    }

    /// Parks faults that came, but for those of threads that have told of them before: a signal makes a thread fault again,
    /// and one that waits in a system call does nothing else while a signal is pending.
    fn park_new(&mut self, mut faults: Vec<Fault>) {
        let is_new = |fault: &Fault| {
            !self.parked.iter().any(|parked| (parked.page, parked.thread) == (fault.page, fault.thread))
        };
        let came = faults.len();
        faults.retain(is_new);
        if faults.is_empty() && came > 0 {
            std::thread::sleep(TOLD_AGAIN);
        }
        self.parked.extend(faults);
    }

    /// A fault waits for something else than room.
    fn park(&mut self, fault: Fault) {
        self.parked.push(fault);
        self.waits_untold = true;
    }

    /// Waits for something to do.
    fn wait(&mut self) {
        if self.short {
            std::thread::sleep(NO_DESCRIPTOR); // it can be read all the time, but not by us
        }
        self.seat.set_hungry(!self.parked.is_empty());
        if self.vain >= VAIN && self.parked.is_empty() && self.space.may_rest() {
            // What ended the rest may be the address space's end, of which nobody tells twice.
            return self.rest();
        }
        let time = match self.parked.is_empty() {
            true => None,
            false if self.core.must_wait() && !self.waits_untold => Some(NO_ROOM),
            false => Some(self.pace.step()),
        };
        let mut fds = [PollFd::new(&self.space.faults, PollFlags::IN), PollFd::new(&self.seat.kick, PollFlags::IN)];
        if poll_until(&mut fds, time) {
            self.pace.reset();
        }
        if fds[1].revents().contains(PollFlags::IN) {
            self.hear_kick();
        }
    }

    /// Rests until somebody calls.
    fn rest(&mut self) {
        self.seat.set_rests();
        while self.seat.rests() && !self.space.is_retired() && !self.core.is_stopping() {
            poll_until(&mut [PollFd::new(&self.seat.kick, PollFlags::IN)], None);
            self.hear_kick();
        }
        self.space.awake.fetch_add(1, Ordering::Relaxed); // Relaxed: a count
        self.vain = 0;
    }

    /// Asks now and then where a fault happened, and calls the server there, if it rests.
    fn follow(&mut self, thread: u32) {
        self.unasked = (self.unasked + 1) % ASKED;
        if self.unasked != 1 {
            return;
        }
        if self.cpus.len() > 256 {
            self.cpus.clear(); // threads come and go
        }
        let entry = self.cpus.entry(thread);
        let cpu_of = match entry {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => match CpuOf::open(thread) {
                Ok(cpu_of) => entry.insert(cpu_of),
                Err(_) => return, // it has gone
            },
        };
        match cpu_of.read() {
            Ok(cpu) => self.space.call_server(cpu),
            Err(_) => _ = self.cpus.remove(&thread),
        }
    }

    fn hear_kick(&self) {
        let _ = rustix::io::read(&self.seat.kick, &mut [0; 8]);
    }

    /// Reads what is there and applies it, under the gate; faults are left to be answered.
    fn take_events(&mut self) -> Result<Vec<Fault>, &'static str> {
        let Ok(mut taking) = self.space.taking.try_lock() else {
            self.vain = self.vain.saturating_add(u32::from(!self.goes_on));
            std::thread::yield_now();
            return Ok(Vec::new()); // somebody else reads all that is there
        };
        let hands = self.space.hands.get();
        let gate = hands.map(Hands::gate);
        let mut state = lock(&self.space.state);
        let read = read_told(&self.space, &state.registered, &mut taking.told);
        self.short = read == Ok(Read::UntilFork);
        let read = read.and_then(|read| wait_for_descriptor(read, &mut taking.since));
        if taking.told.is_empty() {
            self.vain = self.vain.saturating_add(u32::from(!self.goes_on));
        }
        if taking.told.is_empty() || read.is_ok() && self.short && has_moved(&taking.told) {
            return read.map(|()| Vec::new());
        }
        let told = core::mem::take(&mut taking.told);
        self.vain = self.vain.saturating_sub(WORTH);
        self.seat.get_on();
        let changes = told.iter().any(|event| !matches!(event, Event::Fault { .. }));
        let means = Means { hands, share: &|slot| lock(&self.core.slots).share(slot), withheld: &|| withheld(hands) };
        let effects = state.apply(&means, told);
        let dead = self.core.unname(&effects.dropped);
        // Before the state is let go: an order that is made from it has the new epoch, one from before the old.
        if let Some(gate) = gate.as_ref().filter(|_| effects.changed) {
            gate.changed();
        }
        drop(state);
        drop(gate);
        if changes {
            self.space.feed(); // until these were read, the kernel let nobody answer
        }
        for (child, state) in effects.children {
            self.adopt(child, state);
        }
        self.core.flush(dead, Freed::Stored);
        // What was read before an error is applied, and who forks while nothing can be read dies with its child.
        read.map(|()| effects.faults)
    }

    /// A child was forked: it gets a number, which it reads from its tripwire, and a server.
    fn adopt(&self, faults: Userfaultfd, state: State) {
        let core = &self.core;
        let child = Arc::new(Space::new(core.new_id(), faults, state, Some(self.space.family)));
        child.tripwire.store(self.space.tripwire.load(Ordering::Relaxed), Ordering::Relaxed); // one thread so far
        for space in [&self.space, &child] {
            space.forked.store(true, Ordering::Relaxed); // Relaxed: noticed at some time
        }
        core.add(&child);
        start(core, &child);
    }

    fn answer(&mut self, fault: Fault) -> Answer {
        if self.is_lost(fault) {
            return Answer::Wrong("a staged page was missing");
        }
        let space = Arc::clone(&self.space);
        let state = lock(&space.state);
        // Relaxed: set before the server was started.
        if fault.page.address() == space.tripwire.load(Ordering::Relaxed) {
            return self.give_birth_number(fault.page);
        }
        match state.pages.slot(fault.page) {
            Some(slot) => self.restore(state, fault, slot),
            None => self.fill(state, fault),
        }
    }

    /// Whether the agent looks for a page in staging and finds none: what it reads would be taken for the program's own
    /// bytes. Threads of ours do not wait for what is missing there ([`Core::fetch`]); anybody else may look (a debugger
    /// that writes a core), and finds zeros.
    fn is_lost(&self, fault: Fault) -> bool {
        self.agent_in(fault).is_some_and(|hands| hands.places.staging.contains(&fault.page.address()))
    }

    /// The agent, if it is the one that waits.
    fn agent_in(&self, fault: Fault) -> Option<&Hands> {
        self.space.hands.get().filter(|hands| hands.pid == fault.thread)
    }

    fn give_birth_number(&mut self, page: Page) -> Answer {
        self.zeros[..8].copy_from_slice(&self.space.id.0.to_le_bytes());
        let copied = self.space.faults.copy(page.address(), &self.zeros[..PAGE], Wake::Yes);
        self.zeros[..8].fill(0);
        self.outcome(page, copied.map_err(|partial| partial.errno), true)
    }

    /// Gives a page its bytes back.
    fn restore(&mut self, mut state: MutexGuard<'_, State>, fault: Fault, slot: Slot) -> Answer {
        if self.must_wait(fault) {
            return Answer::Full;
        }
        let space = Arc::clone(&self.space);
        state = match whole::restore(&self.core, &space, state, fault) {
            Restored::No(state) => state,
            Restored::Given => return Answer::Given,
            Restored::Later => return Answer::Again,
            Restored::NoRoom => return Answer::Full,
            Restored::Gone => return Answer::Gone,
        };
        let place = lock(&self.core.slots).place(slot);
        if let Place::Staged(owner, at) = place
            && owner == space.id
            && let (Some(flight), Some(hands)) = (&state.flight, space.hands.get())
            && flight.has_moved(hands, at) == Some(false)
        {
            // It has not left yet: the fault is out of date.
            return self.wake(fault.page, 1);
        }
        // Named by us too, it stays what it is while others have the state.
        lock(&self.core.slots).share(slot);
        drop(state);
        if let Err(why) = self.core.fetch(slot, &mut self.buffer[..PAGE]) {
            return Answer::Wrong(why);
        }
        let mut state = lock(&space.state);
        let mut dropped = vec![slot];
        let given = self.give(&mut state, fault, slot, &mut dropped);
        let mut dead = self.core.unname(&dropped);
        self.make_copies(&mut state, &mut dead);
        drop(state);
        // Nothing is locked: whoever wakes takes this CPU, and others would wait for the lock until he sleeps again.
        let answer = match given {
            Ok(last) => self.wake(last.min(fault.page), fault.page.0.abs_diff(last.0) + 1),
            Err(answer) => answer,
        };
        self.core.flush(dead, Freed::Stored);
        answer
    }

    /// Has the kernel copy a page that was fetched into place, and those after it, if faults come in order. Whoever
    /// waits for them, up to the one that is returned, is to be woken then. `dropped` gets the slots that lost a name.
    fn give(&mut self, state: &mut State, fault: Fault, slot: Slot, dropped: &mut Vec<Slot>) -> Result<Page, Answer> {
        if state.pages.slot(fault.page) != Some(slot) {
            return Ok(fault.page); // somebody else was faster, or it has left
        }
        if state.whole.is_landing(&fault.page.bytes(1)) {
            return Err(Answer::Again);
        }
        let copied = self.space.faults.copy(fault.page.address(), &self.buffer[..PAGE], Wake::No);
        match copied.map_err(|partial| partial.errno) {
            Ok(()) => {}
            // It has moved, which has not been read yet.
            Err(Errno::NOENT) => return Err(Answer::Again),
            Err(errno) => return Err(self.outcome(fault.page, Err(errno), false)),
        }
        state.pages.clear(fault.page);
        dropped.push(slot);
        state.pages.set_recent(fault.page);
        self.core.add_room(-PAGE_BYTES.cast_signed());
        let followed = state.streams.follow(fault.page);
        if followed.is_some() || copies::OF_ALL {
            self.note_copy(fault.page, slot, 0);
        }
        Ok(followed.map_or(fault.page, |followed| self.restore_ahead(state, fault.page, followed, dropped)))
    }

    /// The pages of a sequence after one that was restored, if they are stored too. Returns the last of them.
    fn restore_ahead(&mut self, state: &mut State, page: Page, followed: Followed, dropped: &mut Vec<Slot>) -> Page {
        let stride = followed.stride;
        let mut found = Vec::new();
        let mut next = page.step(stride);
        while found.len() < followed.window - 1 {
            let alone = state.pages.slot(next).filter(|_| !state.pages.is_whole(next.chunk()));
            let Some(slot) = alone else { break };
            if lock(&self.core.slots).place(slot) != Place::Stored {
                break;
            }
            let into = &mut self.buffer[found.len() * PAGE..][..PAGE];
            if self.core.get(slot, into).is_err() {
                break; // told when it is asked for
            }
            found.push((next, slot));
            next = next.step(stride);
        }
        // Neighbours go in one piece.
        let piece = if stride == 1 { WINDOW } else { 1 };
        let mut given = 0;
        for (pages, bytes) in found.chunks(piece).zip(self.buffer.chunks(piece * PAGE)) {
            let bytes = &bytes[..pages.len() * PAGE];
            let done = match self.space.faults.copy(pages[0].0.address(), bytes, Wake::No) {
                Ok(()) => pages.len(),
                Err(partial) => partial.done_bytes / PAGE,
            };
            given += done;
            if done < pages.len() {
                break;
            }
        }
        for (index, (page, slot)) in found[..given].iter().enumerate() {
            state.pages.clear(*page);
            state.pages.set_recent(*page);
            dropped.push(*slot);
            self.note_copy(*page, *slot, index);
        }
        self.core.add_room(-((given * PAGE) as u64).cast_signed());
        let last = page.step(stride * (given as u64).cast_signed());
        state.streams.expect(followed, last.step(stride));
        last
    }

    /// Notes a page that was given, the one at `index` of the buffer, if it is to have a copy.
    fn note_copy(&mut self, page: Page, slot: Slot, index: usize) {
        let bytes = self.buffer[index * PAGE..].first_chunk();
        if let Some(bytes) = bytes.filter(|_| self.space.hands.get().is_some() && self.core.copies.is_due()) {
            self.copies.push((page, slot, digest(bytes, &self.core.key)));
        }
    }

    /// Makes copies of those slots of the pages noted that are `dead`: had no other name, and were stored.
    fn make_copies(&mut self, state: &mut State, dead: &mut Vec<Slot>) {
        for (page, slot, digest) in self.copies.drain(..) {
            if let Some(at) = dead.iter().position(|dead| *dead == slot) {
                dead.swap_remove(at);
                lock(&self.core.slots).make_copy(slot, digest);
                state.pages.set_copy(page, slot);
            }
        }
    }

    /// Gives a page of zeros; more of them if pages are written in order. Whoever waits is woken when nothing is locked: he
    /// takes this CPU, and others would wait for the lock until he sleeps again.
    fn fill(&mut self, mut state: MutexGuard<'_, State>, fault: Fault) -> Answer {
        let page = fault.page;
        // Found out before, it is so if the kernel fills the page.
        let grown = order::grown(&self.space, &state, page.address());
        if !fault.write {
            // The kernel's page of zeros: takes no memory until it is written to.
            let zeroed = self.space.faults.zero(page.bytes(1), Wake::No);
            if zeroed.is_ok() {
                grown.into_iter().for_each(|mapping| state.registered.insert(mapping));
            }
            drop(state);
            return self.wake_after(page, 1, zeroed.map_err(|partial| partial.errno));
        }
        if self.must_wait(fault) {
            return Answer::Full;
        }
        let followed = state.streams.follow(page).filter(|followed| followed.stride == 1);
        let window = followed.map_or(1, |followed| followed.window as u64);
        let mut count = 1;
        let armed = state.armed_from(page).unwrap_or(page.bytes(1));
        let ahead: Range<u64> = page.0..(page.0 + window).min(Page::of(armed.end).0);
        for next in ahead.skip(1) {
            if state.pages.slot(Page(next)).is_some() {
                break;
            }
            count += 1;
        }
        let (done, filled) = match self.space.faults.copy(page.address(), &self.zeros[..count * PAGE], Wake::No) {
            Ok(()) => (count, Ok(())),
            Err(partial) if partial.done_bytes > 0 => (partial.done_bytes / PAGE, Ok(())),
            Err(partial) => (0, Err(partial.errno)),
        };
        for done in 0..done as u64 {
            state.pages.set_recent(Page(page.0 + done));
        }
        if done > 0 {
            grown.into_iter().for_each(|mapping| state.registered.insert(mapping));
        }
        if let Some(followed) = followed {
            state.streams.expect(followed, Page(page.0 + done.max(1) as u64));
        }
        drop(state);
        self.core.add_room(-((done * PAGE) as u64).cast_signed());
        self.wake_after(page, done as u64, filled)
    }

    /// Wakes whoever waits for pages that were filled.
    fn wake_after(&self, page: Page, count: u64, filled: Result<(), Errno>) -> Answer {
        match filled {
            Ok(()) => self.wake(page, count),
            refused => self.outcome(page, refused, true),
        }
    }

    /// Whether a fault waits for room. The evictor never does, nor the agent, for which the evictor waits.
    fn must_wait(&self, fault: Fault) -> bool {
        // Relaxed: set before the first page was taken.
        let is_evictor = || self.core.evictor.load(Ordering::Relaxed).cast_unsigned() == fault.thread;
        self.core.must_wait() && self.agent_in(fault).is_none() && !is_evictor()
    }

    /// Whoever waits for a page that cannot be had would do so for ever: the agent is killed, and others, threads of ours or
    /// who shares the program's memory, are told that it is broken. Returns false if that cannot be done yet.
    fn gives_up(&self, fault: Fault) -> bool {
        if let Some(agent) = self.agent_in(fault) {
            agent.kill();
            return true;
        }
        match self.space.faults.poison(fault.page.bytes(1)) {
            Ok(()) => true,
            Err(Errno::AGAIN | Errno::NOMEM) => false,
            Err(_) => {
                self.wake(fault.page, 1); // it is there, or its mapping has gone
                true
            }
        }
    }

    fn wake(&self, page: Page, count: u64) -> Answer {
        self.woken.set(Some(Instant::now()));
        let woken = self.space.faults.wake(page.bytes(count));
        if woken.is_ok() { Answer::Given } else { Answer::Gone }
    }

    /// What the kernel's answer means for the fault.
    fn outcome(&self, page: Page, done: Result<(), Errno>, may_exist: bool) -> Answer {
        match done {
            Ok(()) => Answer::Given,
            Err(Errno::AGAIN) => Answer::Again,
            // Somebody else's fault brought it, but the thread may still be asleep.
            Err(Errno::EXIST) if may_exist => self.wake(page, 1),
            Err(Errno::EXIST) => Answer::Wrong("an evicted page was there"),
            // The mapping has gone: whoever waits gets what the kernel has for them.
            Err(Errno::NOENT) => self.wake(page, 1),
            Err(Errno::SRCH) => Answer::Gone,
            Err(Errno::NOMEM) => Answer::Again,
            Err(_) => Answer::Wrong("the kernel refused a page"),
        }
    }

    fn count(&self, fault: Fault) {
        let time = self.woken.take().unwrap_or_else(Instant::now) - fault.since;
        let counters = &self.core.counters;
        counters.faults.add(1);
        counters.latency.add(time);
        counters.stalled_ns.add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }
}

#[cfg(test)]
mod tests;
