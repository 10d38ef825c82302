//! What the userfaultfd of an address space tells, and what it changes.
//!
//! # The order of events
//! A thread that changes the address space tells of it when it has let the kernel's lock go, and then sleeps until that
//! is read. So the events of one thread come in order, but two threads may tell in another order than they acted. What
//! one does where the other had nothing to do with it may come in any order. But addresses that one has just left may
//! be given to the other at once: if it is told first that memory moved there, what is told of those who left would be
//! taken to be about the newcomer. So memory moves to a place only when what was there has left ([`Applying::vacate`]),
//! and until then nothing else is applied but how it leaves. That somebody is still on the way with an event the kernel
//! tells, by refusing to fill anything.
//!
//! Discarding (`MADV_DONTNEED`) is told before it is done, so it cannot come too late.

use core::ops::Range;
use core::sync::atomic::Ordering;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use tmem_sys::{Event, Userfaultfd};

use crate::hands::Hands;
use crate::intervals::Intervals;
use crate::slots::Slot;
use crate::space::{Fault, FlightKind, State};
use crate::units::{Page, overlap, pages_of};

/// How long after a program has asked for pages to be discarded the kernel may still be at it.
const DISCARDING: Duration = Duration::from_secs(1);
/// How soon it is looked again for an event that is on its way.
const SOON: Duration = Duration::from_micros(50);
/// A thread that has changed the address space and does not tell it by then never will.
pub(crate) const LATE: Duration = Duration::from_secs(30);

/// How far reading came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Read {
    /// All that was there.
    All,
    /// As far as a fork, for whose child there is no descriptor now. It stays told, and nothing is filled until it is read.
    UntilFork,
}

/// What applying events has left to be done outside the locks.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// Slots that lost a name.
    pub(crate) dropped: Vec<Slot>,
    /// Children, with the slots that they share with this address space counted already.
    pub(crate) children: Vec<(Userfaultfd, State)>,
    /// Faults, in the order in which they came.
    pub(crate) faults: Vec<Fault>,
    /// Whether the move under way is to be given up.
    pub(crate) changed: bool,
}

/// What events are applied with.
pub(crate) struct Means<'a> {
    pub(crate) hands: Option<&'a Hands>,
    /// Gives a slot one more name.
    pub(crate) share: &'a dyn Fn(Slot),
    /// What the program keeps from its children (`MADV_DONTFORK`, `MADV_WIPEONFORK`).
    pub(crate) withheld: &'a dyn Fn() -> Intervals,
    /// Waits for further events; there are none if nobody is about to tell any. An error says why they cannot be had.
    pub(crate) more: &'a dyn Fn() -> Result<Vec<Event>, &'static str>,
}

/// Waits until one of them is ready, or for so long. Returns whether one is.
pub(crate) fn poll_until(fds: &mut [PollFd<'_>], time: Option<Duration>) -> bool {
    let time = time.map(|time| Timespec { tv_sec: 0, tv_nsec: i64::from(time.subsec_nanos()) });
    poll(fds, time.as_ref()).is_ok_and(|ready| ready > 0)
}

/// What is there to be read; an error says why nobody can.
pub(crate) fn read_events(faults: &Userfaultfd, into: &mut Vec<Event>) -> Result<Read, &'static str> {
    match faults.read_events(into) {
        Ok(()) | Err(Errno::AGAIN | Errno::INTR) => Ok(Read::All),
        Err(Errno::MFILE | Errno::NFILE | Errno::NOMEM) => Ok(Read::UntilFork),
        Err(_) => Err("its page faults cannot be read"),
    }
}

/// [`Means::more`], from the kernel.
pub(crate) fn await_events(faults: &Userfaultfd) -> Result<Vec<Event>, &'static str> {
    let end = Instant::now() + LATE;
    let mut read = Vec::new();
    loop {
        // Asked first: what was told before the answer was no is there to be read.
        let is_changing = faults.is_changing();
        let done = read_events(faults, &mut read)?;
        if !read.is_empty() || !is_changing && done == Read::All {
            return Ok(read);
        }
        if Instant::now() > end {
            return Err("a change of its address space came to no end");
        }
        match done {
            Read::All => _ = poll_until(&mut [PollFd::new(faults, PollFlags::IN)], Some(SOON)),
            Read::UntilFork => std::thread::sleep(SOON), // it could be read, if there was a descriptor
        }
    }
}

/// Events on their way into a state.
struct Applying<'a> {
    state: &'a mut State,
    means: &'a Means<'a>,
    events: VecDeque<Event>,
    effects: Effects,
    now: Instant,
}

impl State {
    /// Applies what the userfaultfd told, or as much as can be, and says why not more: the rest is lost. The caller holds
    /// the gate: nothing is moved meanwhile.
    pub(crate) fn apply(&mut self, means: &Means<'_>, events: Vec<Event>) -> (Effects, Result<(), &'static str>) {
        let mut effects = Effects::default();
        self.settle_landing(means.hands, &mut effects.dropped);
        let mut applying = Applying { state: self, means, events: events.into(), effects, now: Instant::now() };
        let mut done = Ok(());
        while let (Ok(()), Some(event)) = (done, applying.events.pop_front()) {
            done = applying.apply(event);
        }
        (applying.effects, done)
    }

    /// What a child inherits. Pages of a move under way that are still at their addresses were copied by the fork
    /// itself. `withheld` is what the program keeps from its children (`MADV_DONTFORK`, `MADV_WIPEONFORK`).
    fn fork(&self, hands: Option<&Hands>, share: &dyn Fn(Slot), withheld: &Intervals) -> Self {
        let unmoved = self.unmoved(hands);
        let pages = self.pages.fork(|page, slot| {
            let keep = !unmoved.contains(&slot) && !withheld.contains(page.address());
            if keep {
                share(slot);
            }
            keep
        });
        let (armed, registered) = (self.armed.clone(), self.registered.clone());
        Self { pages, armed, registered, excluded: self.excluded.clone(), common: true, ..Self::new(0) }
    }

    /// Takes the pages of a range out of the move under way. Returns false if that cannot be done page by page.
    fn cancel(&self, hands: Option<&Hands>, range: &Range<u64>) -> bool {
        if self.whole.is_landing(range) {
            return false;
        }
        let (Some(flight), Some(hands)) = (&self.flight, hands) else { return true };
        if flight.kind == FlightKind::Whole {
            return false;
        }
        let command = hands.command(flight.ticket);
        for (address, (page, _)) in command.pages.iter().zip(&flight.pages) {
            if range.contains(&page.address()) {
                address.store(0, Ordering::Relaxed); // Relaxed: the agent reads it under the gate, which publishes it
            }
        }
        true
    }

    /// Slots of the move under way whose pages are still at their addresses.
    fn unmoved(&self, hands: Option<&Hands>) -> Vec<Slot> {
        let (Some(flight), Some(hands)) = (&self.flight, hands) else { return Vec::new() };
        let pages = flight.pages.iter().enumerate();
        pages.filter(|(index, _)| !flight.moved(hands, *index)).map(|(_, (_, slot))| *slot).collect()
    }
}

impl Applying<'_> {
    fn apply(&mut self, event: Event) -> Result<(), &'static str> {
        match event {
            Event::Fault { address, write, thread } => {
                self.effects.faults.push(Fault { page: Page::of(address), write, thread, since: self.now });
            }
            Event::Fork(child) => {
                let Means { hands, share, withheld, .. } = self.means;
                let inherited = self.state.fork(*hands, share, &withheld());
                self.effects.children.push((child, inherited));
                self.state.common = true;
                self.effects.changed = true;
            }
            Event::Remap { from, to, bytes } => {
                self.vacate(&(to..to + bytes))?;
                self.remap(from, to, bytes);
                self.effects.changed = true;
            }
            Event::Remove(range) => {
                self.forget(&range);
                self.state.pages.keep(pages_of(&range), DISCARDING);
                self.effects.changed |= !self.state.cancel(self.means.hands, &range);
            }
            Event::Unmap(range) => {
                self.forget(&range);
                self.state.armed.remove(&range);
                self.state.registered.remove(&range);
                self.effects.changed |= !self.state.cancel(self.means.hands, &range);
            }
        }
        Ok(())
    }

    fn forget(&mut self, range: &Range<u64>) {
        self.state.pages.forget(pages_of(range), |_, slot| self.effects.dropped.push(slot));
    }

    /// Applies how what was at a place left it: see the module's head.
    fn vacate(&mut self, place: &Range<u64>) -> Result<(), &'static str> {
        let is_about = |event: &Event| match event {
            Event::Unmap(range) => overlap(range, place),
            Event::Remap { from, bytes, .. } => overlap(&(*from..from + bytes), place),
            _ => false,
        };
        while !self.state.registered.overlaps(place).is_empty() {
            let at = self.events.iter().position(is_about);
            if let Some(event) = at.and_then(|at| self.events.remove(at)) {
                self.apply(event)?;
                continue;
            }
            let more = (self.means.more)()?;
            if more.is_empty() {
                break; // nobody is on the way: it left in a life before, that of the parent
            }
            self.events.extend(more);
        }
        Ok(())
    }

    fn remap(&mut self, from: u64, to: u64, bytes: u64) {
        let (old, new) = (from..from + bytes, to..to + bytes);
        self.forget(&new);
        self.state.pages.relocate(pages_of(&old), Page::of(to));
        for known in [&mut self.state.armed, &mut self.state.registered] {
            for range in known.overlaps(&old) {
                known.insert(range.start - from + to..range.end - from + to);
            }
        }
        // `mremap` without MREMAP_DONTUNMAP is followed by an unmap of the old addresses.
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::RefCell;
    use tmem_agent::protocol::PAGE_BYTES;

    /// Two mappings of four pages, of which each has a slot: 1.. at `A`, 101.. at `B`.
    const A: u64 = 64;
    const B: u64 = 128;
    const ELSEWHERE: u64 = 192;

    fn state() -> State {
        let mut state = State::new(1);
        for (start, slot) in [(A, 1), (B, 101)] {
            state.armed.insert(bytes(start));
            state.registered.insert(bytes(start));
            (start..).map(Page).zip((slot..slot + 4).map(Slot)).for_each(|(page, slot)| state.pages.set(page, slot));
        }
        state
    }

    fn bytes(start: u64) -> Range<u64> {
        start * PAGE_BYTES..(start + 4) * PAGE_BYTES
    }

    fn remap(from: u64, to: u64) -> Event {
        Event::Remap { from: bytes(from).start, to: bytes(to).start, bytes: 4 * PAGE_BYTES }
    }

    fn unmap(start: u64) -> Event {
        Event::Unmap(bytes(start))
    }

    /// Applies events, and then, when they are waited for, those that are late. Returns slots that lost a name.
    fn apply(state: &mut State, events: Vec<Event>, late: Vec<Vec<Event>>) -> Vec<u32> {
        let late = RefCell::new(VecDeque::from(late));
        let more = || Ok(late.borrow_mut().pop_front().unwrap_or_default());
        let means = Means { hands: None, share: &|_| {}, withheld: &Intervals::default, more: &more };
        let (Effects { dropped, .. }, done) = state.apply(&means, events);
        assert_eq!(done, Ok(()));
        let mut dropped: Vec<u32> = dropped.iter().map(|slot| slot.0).collect();
        dropped.sort_unstable();
        dropped
    }

    fn slots_at(state: &State, start: u64) -> Vec<u32> {
        (start..start + 4).filter_map(|page| Some(state.pages.slot(Page(page))?.0)).collect()
    }

    #[test]
    fn memory_moves_to_where_other_memory_left_whatever_is_told_first() {
        for (events, late) in [
            (vec![unmap(B), remap(A, B), unmap(A)], vec![]),
            (vec![remap(A, B), unmap(B), unmap(A)], vec![]),
            (vec![remap(A, B), unmap(A), unmap(B)], vec![]),
            (vec![remap(A, B), unmap(A)], vec![vec![unmap(B)]]),
            (vec![remap(A, B)], vec![vec![Event::Remove(bytes(ELSEWHERE))], vec![unmap(B), unmap(A)]]),
        ] {
            let mut state = state();
            assert_eq!(apply(&mut state, events, late), [101, 102, 103, 104]);
            assert_eq!(slots_at(&state, B), [1, 2, 3, 4]);
            assert!(slots_at(&state, A).is_empty());
            assert!(state.armed.contains(bytes(B).start) && !state.armed.contains(bytes(A).start));
        }
    }

    #[test]
    fn memory_follows_other_memory_that_moved_on_whatever_is_told_first() {
        for (events, late) in [
            (vec![remap(B, ELSEWHERE), unmap(B), remap(A, B), unmap(A)], vec![]),
            (vec![remap(A, B), remap(B, ELSEWHERE), unmap(B), unmap(A)], vec![]),
            (vec![remap(A, B), unmap(A)], vec![vec![remap(B, ELSEWHERE)], vec![unmap(B)]]),
        ] {
            let mut state = state();
            assert!(apply(&mut state, events, late).is_empty());
            assert_eq!(slots_at(&state, B), [1, 2, 3, 4]);
            assert_eq!(slots_at(&state, ELSEWHERE), [101, 102, 103, 104]);
            assert!(slots_at(&state, A).is_empty());
        }
    }

    /// Who arms registers first, and finds out afterwards what came of it. A mapping that left in between was forgotten
    /// when others had moved there already: their pages became zeros.
    #[test]
    fn what_leaves_before_it_is_armed_is_waited_for_too() {
        for (events, late) in
            [(vec![remap(A, B), unmap(B), unmap(A)], vec![]), (vec![remap(A, B), unmap(A)], vec![vec![unmap(B)]])]
        {
            let mut state = state();
            state.armed.remove(&bytes(B));
            assert_eq!(apply(&mut state, events, late), [101, 102, 103, 104]);
            assert_eq!(slots_at(&state, B), [1, 2, 3, 4]);
        }
    }

    #[test]
    fn a_place_that_nobody_leaves_any_more_is_taken() {
        let mut state = state();
        assert_eq!(apply(&mut state, vec![remap(A, B), unmap(A)], vec![]), [101, 102, 103, 104]);
        assert_eq!(slots_at(&state, B), [1, 2, 3, 4]);
    }
}
