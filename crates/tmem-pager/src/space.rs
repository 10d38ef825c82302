//! One address space: what is known of it. What events change in it: [`crate::events`].
//!
//! # Who does what
//! Its *servers* ([`crate::server`]), threads, read its userfaultfd, apply events and serve faults. The *evictor*
//! takes its
//! pages away. Both change [`State`] under its lock.
//!
//! # Locks, outermost first
//! taking > gate (of the agent; only servers take it) > state > reading (of any address space) > slots. The evictor never
//! takes a gate, and waits for
//! an agent without any lock. No lock of one address space's state is held while another's is taken, but for a
//! child's that nobody else knows yet.
//!
//! # A move under way
//! Pages get their slots before the agent is told to move them, so a fault always finds them. Until the evictor has
//! seen the
//! results ([`Flight`]), whether a page is at its address or in staging is told by the command's own results, which
//! are written
//! before the agent lets the gate go. Cancelled moves lose their slots.
//!
//! # A huge page on its way back
//! See [`crate::whole`]: its slots stay named until it is in place, and whoever applies events drops them first if it is.
//!
//! # Staged pages of another address space
//! A fork child's slots may lie in its parent's staging area. Whoever reads staging holds `reading`; the evictor takes
//! it for writing, for a moment, between making slots stored and giving their staging memory back.

use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, RwLock};
use std::time::Instant;

use tmem_agent::protocol::MOVED;
use tmem_sys::{Event, Pagemap, Pidfd, Present, Userfaultfd};

use crate::hands::{Hands, Ticket};
use crate::intervals::Intervals;
use crate::lock;
use crate::page_table::PageTable;
use crate::placement::Seat;
use crate::slots::{Slot, Staged};
use crate::staging::Staging;
use crate::streams::Streams;
use crate::units::Page;
use crate::whole::Whole;

/// Number of an address space; a fork child learns its own from its tripwire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SpaceId(pub(crate) u64);

/// The process that runs in an address space.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) pid: u32,
    pub(crate) life: Pidfd,
}

impl Program {
    pub(crate) fn has_exited(&self) -> bool {
        self.life.has_exited().unwrap_or(true)
    }
}

/// One address space.
#[derive(Debug)]
pub(crate) struct Space {
    pub(crate) id: SpaceId,
    pub(crate) faults: Userfaultfd,
    /// Who takes pages from it. None yet, or never: a child made by a bare `clone` is served and nothing more.
    pub(crate) hands: OnceLock<Hands>,
    pub(crate) program: OnceLock<Program>,
    pub(crate) pagemap: OnceLock<Pagemap>,
    /// Reads what is staged.
    pub(crate) present: OnceLock<Present>,
    /// Address of the page that tells a fork child its number; 0: not known yet.
    pub(crate) tripwire: AtomicU64,
    pub(crate) state: Mutex<State>,
    /// See the module's head.
    pub(crate) reading: RwLock<()>,
    /// Its servers. None: nothing in it was ever registered.
    pub(crate) seats: Mutex<Vec<Arc<Seat>>>,
    /// Held while what the userfaultfd tells is read and applied: outermost of all locks, and only ever tried.
    pub(crate) taking: Mutex<Taking>,
    /// Servers that wait for faults: one at first. The others rest.
    pub(crate) awake: AtomicUsize,
    /// The first of the address spaces that come from each other by forks: itself, if it was not forked.
    pub(crate) family: SpaceId,
    /// Its program has gone, or is about to.
    gone: AtomicBool,
    /// Nobody uses it any more: its servers end.
    retired: AtomicBool,
    /// Pages that are resident, as of the last look; evictions and restores change it in between.
    pub(crate) resident_pages: AtomicU32,
    /// Pages may be refused because another process has them too: it, or its parent, was forked.
    pub(crate) forked: AtomicBool,
    /// A fault waits for what is staged to be stored.
    pub(crate) awaited: AtomicBool,
    /// Addresses of its threads' lists of robust mutexes, as of the last look.
    pub(crate) robust: Mutex<Vec<u64>>,
    /// Pages taken so far.
    pub(crate) taken: AtomicU32,
}

/// A fork was told of for whose child there is no descriptor: until it is read, the kernel fills and moves nothing.
#[derive(Debug, Default)]
pub(crate) struct Taking {
    /// What was told before it, not applied yet.
    pub(crate) told: Vec<Event>,
    /// Since when there is none.
    pub(crate) since: Option<Instant>,
}

/// What its lock guards.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) pages: PageTable,
    /// What is registered for certain, staging and tripwire not among it.
    pub(crate) armed: Intervals,
    /// What is registered, or was until something that was not told yet: when it leaves, the kernel tells. Without what
    /// mappings have grown by since.
    pub(crate) registered: Intervals,
    pub(crate) staging: Staging,
    pub(crate) flight: Option<Flight>,
    pub(crate) streams: Streams,
    pub(crate) whole: Whole,
    /// Where the evictor goes on.
    pub(crate) hand: u64,
    /// Since the hand began its round, pages were seen that another process has too, or was given.
    pub(crate) common: bool,
    /// What is not to be taken: the ends of stacks, what the kernel writes when a thread exits.
    pub(crate) excluded: Intervals,
}

/// A move that the evictor has not seen the end of.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) ticket: Ticket,
    /// The first position in staging; page i goes to the i-th from there.
    pub(crate) first: Staged,
    /// What is moved, as it was when the move was ordered.
    pub(crate) pages: Vec<(Page, Slot)>,
    pub(crate) kind: FlightKind,
}

/// How a move tells its results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FlightKind {
    /// Each page has one.
    Pages,
    /// In one piece: as many as `progress` says.
    Whole,
}

impl Flight {
    /// Whether the page for that position has been moved there. None: the position is not of this flight.
    pub(crate) fn has_moved(&self, hands: &Hands, at: Staged) -> Option<bool> {
        let index = at.0.checked_sub(self.first.0)? as usize;
        (index < self.pages.len()).then(|| self.moved(hands, index))
    }

    /// Whether page `index` has been moved.
    pub(crate) fn moved(&self, hands: &Hands, index: usize) -> bool {
        let command = hands.command(self.ticket);
        // Acquire, both: pair with the agent's stores after the move; the page is in staging.
        match self.kind {
            FlightKind::Pages => command.results[index].load(Ordering::Acquire) == MOVED,
            FlightKind::Whole => index < command.progress.load(Ordering::Acquire) as usize,
        }
    }
}

impl Space {
    pub(crate) fn new(id: SpaceId, faults: Userfaultfd, state: State, family: Option<SpaceId>) -> Self {
        Self {
            id,
            faults,
            hands: OnceLock::new(),
            program: OnceLock::new(),
            pagemap: OnceLock::new(),
            present: OnceLock::new(),
            tripwire: AtomicU64::new(0),
            state: Mutex::new(state),
            reading: RwLock::new(()),
            seats: Mutex::default(),
            taking: Mutex::default(),
            awake: AtomicUsize::new(1),
            family: family.unwrap_or(id),
            gone: AtomicBool::new(false),
            retired: AtomicBool::new(false),
            resident_pages: AtomicU32::new(0),
            forked: AtomicBool::new(false),
            awaited: AtomicBool::new(false),
            robust: Mutex::default(),
            taken: AtomicU32::new(0),
        }
    }

    /// Whether its program has gone.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire) // pairs with `end`
    }

    /// Its program has gone. The evictor retires it when what its relatives still name is stored; until then its agent
    /// may fault, and so may the evictor, which reads its memory.
    pub(crate) fn end(&self) {
        self.gone.store(true, Ordering::Release); // pairs with `is_gone`; publishes nothing else
    }

    /// Whether its servers are to end.
    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire) // pairs with `retire`
    }

    /// Nobody uses it any more: its servers are to end.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Ordering::Release); // pairs with `is_retired`; publishes nothing else
        self.kick();
    }

    /// Counts a server that wants to rest as resting, unless nobody would be left.
    pub(crate) fn may_rest(&self) -> bool {
        let others = |awake: usize| awake.checked_sub(1).filter(|left| *left > 0);
        // Relaxed, both: a count, on which nothing else depends.
        self.awake.fetch_update(Ordering::Relaxed, Ordering::Relaxed, others).is_ok()
    }

    /// Calls the server of a CPU, if it rests.
    pub(crate) fn call_server(&self, cpu: u32) {
        lock(&self.seats).iter().filter(|seat| seat.cpu == Some(cpu)).for_each(|seat| seat.call());
    }

    /// Wakes those of its servers that have faults which wait: for room, or for what has just happened.
    pub(crate) fn feed(&self) {
        lock(&self.seats).iter().for_each(|seat| seat.feed());
    }

    /// Wakes its servers.
    pub(crate) fn kick(&self) {
        // One that is just being started is in the list, or sees all that was stored before the lock was taken.
        for seat in lock(&self.seats).iter() {
            let _ = rustix::io::write(&seat.kick, &1_u64.to_le_bytes());
        }
    }

    /// Stops the program for good.
    pub(crate) fn kill_program(&self) {
        if let Some(program) = self.program.get() {
            let _ = program.life.kill(rustix::process::Signal::KILL);
        }
    }
}

/// A thread waits for a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) page: Page,
    pub(crate) write: bool,
    pub(crate) thread: u32,
    pub(crate) since: Instant,
}

impl State {
    pub(crate) fn new(staging_slots: usize) -> Self {
        Self {
            pages: PageTable::default(),
            armed: Intervals::default(),
            registered: Intervals::default(),
            staging: Staging::new(staging_slots),
            flight: None,
            streams: Streams::default(),
            whole: Whole::default(),
            hand: 0,
            common: false,
            excluded: Intervals::default(),
        }
    }

    /// Whether a page may be taken, as far as is known here.
    pub(crate) fn is_candidate(&mut self, page: Page) -> bool {
        self.armed.contains(page.address()) && !self.excluded.contains(page.address()) && self.pages.is_candidate(page)
    }

    /// The armed part of `range` that holds `page`.
    pub(crate) fn armed_from(&self, page: Page) -> Option<Range<u64>> {
        self.armed.at_or_after(page.address()).filter(|range| range.start <= page.address())
    }
}
