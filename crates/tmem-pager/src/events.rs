//! What the userfaultfd of an address space tells, and what it changes.
//! In which order: [`crate::order`].

use core::ops::Range;
use core::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use tmem_sys::{Event, Userfaultfd};

use crate::hands::Hands;
use crate::intervals::Intervals;
use crate::order;
use crate::slots::Slot;
use crate::space::{Fault, FlightKind, Space, State};
use crate::units::{Page, pages_of};

/// How long after a program has asked for pages to be discarded the kernel may still be at it.
const DISCARDING: Duration = Duration::from_secs(1);
/// How soon it is looked again for an event that is on its way.
const SOON: Duration = Duration::from_micros(50);
/// How long a fork that cannot be read is waited for by those who hold locks.
const SHORT: Duration = Duration::from_millis(1);
/// A thread that has changed the address space and does not tell it by then never will.
const LATE: Duration = Duration::from_secs(30);

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
}

/// Waits until one of them is ready, or for so long. Returns whether one is.
pub(crate) fn poll_until(fds: &mut [PollFd<'_>], time: Option<Duration>) -> bool {
    let time = time.map(|time| Timespec { tv_sec: 0, tv_nsec: i64::from(time.subsec_nanos()) });
    poll(fds, time.as_ref()).is_ok_and(|ready| ready > 0)
}

/// Whether memory has moved.
pub(crate) fn has_moved(told: &[Event]) -> bool {
    told.iter().any(|event| matches!(event, Event::Remap { .. }))
}

/// Reads what is there, in the order in which it is to be applied. Whatever was read is in `told`, even if an error says why
/// nobody can read on.
///
/// Where memory has moved it is read on until the kernel is quiet, since what was there before may be told late
/// ([`crate::order`]). Until then it would fill nothing anyway. A fork that cannot be read is waited for a while only: what
/// was told before it is in no order then, and not to be applied yet.
pub(crate) fn read_told(space: &Space, registered: &Intervals, told: &mut Vec<Event>) -> Result<Read, &'static str> {
    let faults = &space.faults;
    let mut since = None;
    loop {
        let read = match faults.read_events(told) {
            Ok(()) | Err(Errno::AGAIN | Errno::INTR) => Read::All,
            Err(Errno::MFILE | Errno::NFILE | Errno::NOMEM) => Read::UntilFork,
            Err(_) => return Err("its page faults cannot be read"),
        };
        if !has_moved(told) {
            return Ok(read);
        }
        let elapsed = since.get_or_insert_with(Instant::now).elapsed();
        if read == Read::UntilFork && elapsed > SHORT {
            return Ok(read);
        }
        // To go on would be to guess, for the children that were told of, too.
        let arranged = order::arrange(told, registered, space);
        if arranged.unwrap_or_else(|why| panic!("nobody can vouch for any memory any more: {why}")) {
            return Ok(Read::All);
        }
        if elapsed > LATE {
            return Err("a change of its address space came to no end");
        }
        poll_until(&mut [PollFd::new(faults, PollFlags::IN)], Some(SOON));
    }
}

/// Whether a fork that could not be read, `since` then, can be waited for: others may let go of descriptors.
pub(crate) fn wait_for_descriptor(read: Read, since: &mut Option<Instant>) -> Result<(), &'static str> {
    *since = (read == Read::UntilFork).then(|| since.unwrap_or_else(Instant::now));
    let late = since.is_some_and(|since| since.elapsed() > LATE);
    if late { Err("there is no descriptor for its child") } else { Ok(()) }
}

/// What a program keeps from its children.
pub(crate) fn withheld(hands: Option<&Hands>) -> Intervals {
    let mut withheld = Intervals::default();
    let ranges = hands.and_then(|hands| tmem_sys::withheld_from_children(hands.pid).ok());
    ranges.into_iter().flatten().for_each(|range| withheld.insert(range));
    withheld
}

/// Events on their way into a state.
struct Applying<'a> {
    state: &'a mut State,
    means: &'a Means<'a>,
    effects: Effects,
    now: Instant,
}

impl State {
    /// Applies what the userfaultfd told. The caller holds the gate: nothing is moved meanwhile.
    pub(crate) fn apply(&mut self, means: &Means<'_>, events: Vec<Event>) -> Effects {
        let mut effects = Effects::default();
        self.settle_landing(means.hands, &mut effects.dropped);
        let mut applying = Applying { state: self, means, effects, now: Instant::now() };
        events.into_iter().for_each(|event| applying.apply(event));
        applying.effects
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
    fn apply(&mut self, event: Event) {
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
    }

    fn forget(&mut self, range: &Range<u64>) {
        self.state.pages.forget(pages_of(range), |_, slot| self.effects.dropped.push(slot));
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
