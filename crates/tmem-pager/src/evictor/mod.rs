//! The evictor: takes pages away when there is too little room.
//!
//! One thread for all address spaces. Its turns: choose the address space that has given least for its size; then,
//! there, give back staging memory that is garbage, or encode what has waited long enough, or move more out. The hand
//! goes round the registered memory of an address space; what came back since it last passed is passed once more
//! (second chance), and what is touched while it waits in staging goes straight back (the only sample of what is hot).
//!
//! # In line
//! An agent has two commands at a time, so that it goes from one to the next at once: while it encodes, the next pages
//! are chosen; while it moves those, what was encoded is entered. The commands of the address space whose turn it is
//! stand in [`Line`], in the order in which they were given, and are dealt with in that order.
//!
//! If a whole round frees nothing and the limit is passed, the store is made denser ([`press`]), or it is [`crate::full`].

mod encode;
mod family;
mod files;
mod gather;
mod press;

use core::sync::atomic::Ordering;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tmem::Loan;
use tmem_agent::protocol::{BUSY, CANCELLED, FREE, GONE, HUGE_BYTES, MOVE_OUT, MOVE_RANGE, PAGE_BYTES, TOUCH};
use tmem_sys::PageRun;

use self::gather::{Chosen, may_take, pages_of_chunk};
use crate::core::Core;
use crate::full;
use crate::hands::{AgentDied, Hands, Order, Ticket};
use crate::page_table::REFUSED;
use crate::robust;
use crate::slots::{Dropped, Freed, Slot, Staged, Unstaged};
use crate::space::{Flight, FlightKind, Space, State};
use crate::units::{CHUNK_PAGES, Page};
use crate::{lock, write};

/// How long the evictor sleeps when there is room.
const NAP: Duration = Duration::from_millis(20);
/// When nothing could be taken for so long, pages that are shared with children are copied to be taken.
const DESPERATE: Duration = Duration::from_millis(10);
/// As many at a time.
const COPIES: usize = 128;
/// Commands that an agent can have.
const MOST_GIVEN: usize = 2;
/// Turns of an address space in a row, so that its agent is kept at work.
const TURNS: u32 = 64;
/// Addresses that one look for candidates goes over.
const LOOK_BYTES: u64 = 64 << 20;
/// Address spaces smaller than this are left alone.
const SMALL_PAGES: u32 = 1024;

/// What a turn came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Pages were moved, encoded or given back.
    Progress,
    /// A command was given. What comes of it is told when it is dealt with.
    Given,
    /// There is nothing to take here now.
    Nothing,
    /// The store took no more.
    Full,
}

/// A command that an agent was given, and what is to be done when it is done.
enum Given {
    /// Pages move out: [`State::flight`].
    Move,
    /// Pages are encoded, into the room of the loan.
    Encode(Ticket, Vec<(Staged, Slot)>),
    /// The memory of a staging slot is given back.
    Free(Ticket, Staged),
}

/// The commands of one address space that were not dealt with yet.
struct Line {
    space: Arc<Space>,
    given: VecDeque<Given>,
    /// Turns that it may still have before others.
    turns: u32,
}

struct Evictor {
    core: Arc<Core>,
    loan: Loan,
    line: Option<Line>,
    runs: Vec<PageRun>,
    /// Since when nothing could be taken.
    barren: Option<Instant>,
    /// Nothing could be taken for a while, and there is no room yet.
    desperate: bool,
    /// When files had their last turn, and how many pages had been evicted then.
    files: (Instant, u64),
    /// Pages that had been evicted when the store was last pressed.
    pressed: u64,
    full: full::Full,
}

/// Starts it.
pub(crate) fn start(core: &Arc<Core>) {
    let loan = core.pool.lend();
    let evictor = Evictor {
        core: Arc::clone(core),
        loan,
        line: None,
        runs: Vec::new(),
        barren: None,
        desperate: false,
        files: (Instant::now(), 0),
        pressed: 0,
        full: full::Full::default(),
    };
    crate::spawn("evictor", move || evictor.run());
}

impl Evictor {
    fn run(mut self) {
        self.core.evictor.store(rustix::thread::gettid().as_raw_nonzero().get(), Ordering::Relaxed); // Relaxed: a number
        while !self.core.is_stopping() {
            if self.core.spaces().iter().any(|space| space.is_gone()) {
                self.settle();
                self.retire();
            }
            self.store_awaited();
            self.discard_copies(|state| state.pages.take_let_go());
            if self.core.room() >= self.core.low_room() {
                self.full.recovered(&self.core);
                self.barren = None;
                self.desperate = false;
                self.settle();
                self.core.sleep(NAP);
                continue;
            }
            self.let_files_go();
            let turn = self.turn();
            if turn == Turn::Progress {
                self.core.exceed_less();
                self.barren = None;
                continue;
            }
            if turn == Turn::Full {
                self.core.store_is_short.store(true, Ordering::Relaxed); // Relaxed: noticed at some time
            }
            let barren = self.barren.get_or_insert_with(Instant::now).elapsed();
            self.desperate |= barren > DESPERATE;
            let freed = self.core.must_wait()
                && (self.desperate && self.discard_copies(|state| state.pages.take_copies()) || self.press(barren));
            if freed {
                self.barren = None;
                continue;
            }
            if barren > self.full.patience(&self.core) && self.core.must_wait() {
                self.full.happened(&self.core);
            }
            if turn != Turn::Given {
                self.settle();
                // What could be taken changes with time only: pins end, children exit, pages settle. Of programs that are
                // stopped, whoever is hungry stays so.
                match self.full.is_stopped() {
                    true => std::thread::sleep(NAP),
                    false => self.core.sleep(Duration::from_millis(2)),
                }
            }
        }
    }

    /// Gives copies up. Returns whether there were any.
    fn discard_copies(&self, take: impl Fn(&mut State) -> Vec<Slot>) -> bool {
        let taken = |space: &Arc<Space>| take(&mut lock(&space.state));
        let copies: Vec<Slot> = self.core.spaces().iter().flat_map(taken).collect();
        let any = !copies.is_empty();
        self.core.discard(copies);
        any
    }

    /// One turn: every address space is tried, the one that gave least for its size first, until one makes progress.
    fn turn(&mut self) -> Turn {
        let mut spaces = self.core.spaces();
        spaces.retain(|space| space.hands.get().is_some() && !space.is_gone() && is_worth_it(space));
        spaces.sort_by_cached_key(|space| {
            let stays = self.line.as_ref().is_some_and(|line| line.turns > 0 && line.space.id == space.id);
            let taken = u64::from(space.taken.load(Ordering::Relaxed)); // Relaxed: this thread's own
            let resident = u64::from(space.resident_pages.load(Ordering::Relaxed)); // Relaxed: an estimate
            (!stays, taken * 4096 / resident.max(1))
        });
        let mut turn = Turn::Nothing;
        for space in spaces {
            if self.line.as_ref().is_none_or(|line| line.space.id != space.id) {
                self.settle();
                self.line = Some(Line { space: Arc::clone(&space), given: VecDeque::new(), turns: TURNS });
            }
            match self.turn_of(&space) {
                Ok(done @ (Turn::Progress | Turn::Given)) => return done,
                Ok(Turn::Full) => turn = Turn::Full,
                Ok(Turn::Nothing) => {}
                Err(AgentDied) => self.give_up(&space),
            }
        }
        turn
    }

    /// Gives the agent one more command, or deals with the oldest.
    fn turn_of(&mut self, space: &Arc<Space>) -> Result<Turn, AgentDied> {
        let Some(hands) = space.hands.get() else { return Ok(Turn::Nothing) };
        let Some(line) = &mut self.line else { return Ok(Turn::Nothing) };
        line.turns = line.turns.saturating_sub(1);
        if line.given.len() == MOST_GIVEN {
            return self.deal_with_oldest();
        }
        let encodes = line.given.iter().any(|given| matches!(given, Given::Encode(..)));
        let frees = line.given.iter().any(|given| matches!(given, Given::Free(..)));
        let quarantine = usize::try_from(self.core.limit() / PAGE_BYTES / 64).unwrap_or(0).min(CHUNK_PAGES * 8);
        self.core.copies.judge(&self.core);
        let (waiting, moving, room, garbage) = {
            let mut state = lock(&space.state);
            let moving = state.flight.as_ref().map_or(0, |flight| flight.pages.len());
            (state.staging.waiting(), moving, state.staging.room().is_some(), state.staging.garbage())
        };
        if let Some(at) = garbage.filter(|_| !frees) {
            return Ok(self.order_free(space, hands, at));
        }
        let much = if room { (waiting + moving).saturating_sub(quarantine) } else { waiting };
        if !encodes && much.min(waiting) > 0 {
            return self.encode(space, hands, much.min(waiting).min(CHUNK_PAGES));
        }
        let idle = self.is_idle();
        // Relaxed: a server sets it. To choose among pages that were shared takes a command too.
        let forked = space.forked.load(Ordering::Relaxed);
        if moving == 0 && room && (idle || !forked) && self.choose(space, hands, forked)? {
            return Ok(self.give(Given::Move));
        }
        if !idle {
            return self.deal_with_oldest();
        }
        // There is nothing else to take: what was to wait for a while goes now.
        if waiting > 0 { self.encode(space, hands, waiting.min(CHUNK_PAGES)) } else { Ok(Turn::Nothing) }
    }

    /// Whether all commands were dealt with.
    fn is_idle(&self) -> bool {
        self.line.as_ref().is_none_or(|line| line.given.is_empty())
    }

    fn give(&mut self, given: Given) -> Turn {
        if let Some(line) = &mut self.line {
            line.given.push_back(given);
        }
        Turn::Given
    }

    /// Waits for the oldest command, and does what is to be done then.
    fn deal_with_oldest(&mut self) -> Result<Turn, AgentDied> {
        let Some(line) = &mut self.line else { return Ok(Turn::Nothing) };
        let space = Arc::clone(&line.space);
        let (Some(hands), Some(given)) = (space.hands.get(), line.given.pop_front()) else { return Ok(Turn::Nothing) };
        match given {
            Given::Move => {
                let moved = self.land(&space, hands)?;
                // Relaxed: an estimate.
                if space.forked.load(Ordering::Relaxed) {
                    family::join(&self.core, &space, &moved);
                }
                if moved.is_empty() {
                    return Ok(Turn::Nothing);
                }
                let _ = robust::touch_held(&space, hands);
                Ok(Turn::Progress)
            }
            Given::Encode(ticket, pages) => self.enter(&space, hands, ticket, &pages),
            Given::Free(ticket, at) => self.freed(&space, hands, ticket, at),
        }
    }

    /// Deals with all commands that were given. Afterwards every agent is idle.
    fn settle(&mut self) {
        while let Some(line) = self.line.as_ref().filter(|line| !line.given.is_empty()) {
            let space = Arc::clone(&line.space);
            if self.deal_with_oldest() == Err(AgentDied) {
                self.give_up(&space);
            }
        }
        self.line = None;
    }

    /// The agent of an address space has died: nothing that it was told is done any more.
    fn give_up(&mut self, space: &Space) {
        self.line = None;
        self.loan.end();
        self.core.agent_died(space);
    }

    /// Gives the memory of a staging slot back that holds nothing but garbage.
    fn order_free(&mut self, space: &Space, hands: &Hands, at: Staged) -> Turn {
        // Whoever reads staging has looked the page up before it was made stored; they end now.
        drop(write(&space.reading));
        lock(&space.state).staging.set_freeing(at);
        let args = [hands.staged(at), HUGE_BYTES, 0, 0];
        let ticket = hands.give(&Order { op: FREE, args, ..Order::default() });
        self.give(Given::Free(ticket, at))
    }

    fn freed(&self, space: &Space, hands: &Hands, ticket: Ticket, at: Staged) -> Result<Turn, AgentDied> {
        hands.wait(ticket)?;
        let pages = lock(&space.state).staging.freed(at);
        self.core.add_room(i64::from(pages) * PAGE_BYTES.cast_signed());
        self.core.spaces().iter().for_each(|space| space.feed());
        // Where nothing had arrived, nothing is gained.
        Ok(if pages > 0 { Turn::Progress } else { Turn::Nothing })
    }

    // --- moving out

    /// Chooses candidates, gives them slots, and orders the move. Returns whether there were any.
    fn choose(&mut self, space: &Arc<Space>, hands: &Hands, forked: bool) -> Result<bool, AgentDied> {
        let held = robust::touch_held(space, hands);
        let mut state = lock(&space.state);
        held.into_iter().for_each(|page| state.pages.keep(page..page.next(), REFUSED));
        drop(state);
        match self.gather(space) {
            Chosen::Pages(mut pages) => {
                if forked {
                    self.make_own(space, hands, &mut pages)?;
                }
                Ok(self.order_pages(&mut lock(&space.state), space, hands, pages))
            }
            Chosen::Chunk(chunk) => Ok(self.order_chunk(&mut lock(&space.state), space, hands, chunk)),
        }
    }

    /// Pages that the program has in common with a child cannot be moved. Those that were in common stay marked as
    /// such until they are written to, so the kernel is made to. When there are no others left, a few that are still
    /// in common are made two: then either can go.
    fn make_own(&self, space: &Space, hands: &Hands, pages: &mut Vec<Page>) -> Result<(), AgentDied> {
        let Some(pagemap) = space.pagemap.get() else { return Ok(()) };
        let addresses: Vec<u64> = pages.iter().map(|page| page.address()).collect();
        let (mut own, mut common) = (Vec::new(), Vec::new());
        pagemap.exclusive(&addresses, |address, alone| if alone { own.push(address) } else { common.push(address) });
        if !common.is_empty() {
            lock(&space.state).common = true;
        }
        if own.is_empty() && self.desperate {
            own.extend(common.into_iter().take(COPIES));
            family::meet(&self.core, space, own.first());
        }
        if !own.is_empty() {
            assert!(self.is_idle(), "the results of a command would be overwritten");
            let ticket = hands.give(&Order { op: TOUCH, pages: &own, ..Order::default() });
            hands.wait(ticket)?;
        }
        *pages = own.into_iter().map(Page::of).collect();
        Ok(())
    }

    fn order_pages(&self, state: &mut State, space: &Space, hands: &Hands, mut pages: Vec<Page>) -> bool {
        let Some((first, room)) = state.staging.room() else { return false };
        // Asked again: the state was unlocked between the looks.
        pages.retain(|page| state.is_candidate(*page));
        pages.truncate(room as usize);
        if pages.is_empty() {
            return false;
        }
        let addresses: Vec<u64> = pages.iter().map(|page| page.address()).collect();
        let pages = self.give_slots(state, space, first, pages.into_iter());
        let args = [hands.staged(first), 0, 0, 0];
        let ticket =
            hands.give(&Order { op: MOVE_OUT, epoch: hands.epoch(), args, pages: &addresses, ..Order::default() });
        state.flight = Some(Flight { ticket, first, pages, kind: FlightKind::Pages });
        true
    }

    fn order_chunk(&self, state: &mut State, space: &Space, hands: &Hands, chunk: u64) -> bool {
        if !may_take(state, chunk) {
            return false;
        }
        let Some(first) = state.staging.whole() else { return false };
        let pages = self.give_slots(state, space, first, pages_of_chunk(chunk));
        state.pages.set_whole(chunk);
        let args = [hands.staged(first), chunk * HUGE_BYTES, HUGE_BYTES, 0];
        let ticket = hands.give(&Order { op: MOVE_RANGE, epoch: hands.epoch(), args, ..Order::default() });
        state.flight = Some(Flight { ticket, first, pages, kind: FlightKind::Whole });
        true
    }

    /// Gives each page a slot, staged from `first` on.
    fn give_slots(
        &self,
        state: &mut State,
        space: &Space,
        first: Staged,
        pages: impl Iterator<Item = Page>,
    ) -> Vec<(Page, Slot)> {
        let mut slots = lock(&self.core.slots);
        let mut given = Vec::new();
        for (at, page) in (first.0..).map(Staged).zip(pages) {
            let copy = state.pages.take_copy(page).inspect(|slot| slots.stage_copy(*slot, space.id, at));
            let slot = copy.unwrap_or_else(|| slots.stage(space.id, at));
            state.pages.set(page, slot);
            given.push((page, slot));
        }
        state.staging.hand_out(u32::try_from(given.len()).unwrap_or(u32::MAX));
        given
    }

    /// Waits for the end of the move, and takes back the slots of what did not go. Returns the pages that went.
    fn land(&mut self, space: &Arc<Space>, hands: &Hands) -> Result<Vec<(Page, Slot)>, AgentDied> {
        let ticket = lock(&space.state).flight.as_ref().map(|flight| flight.ticket);
        let Some(ticket) = ticket else { return Ok(Vec::new()) };
        let command = hands.wait(ticket)?;
        let mut state = lock(&space.state);
        let Some(flight) = state.flight.take() else { return Ok(Vec::new()) };
        let counters = &self.core.counters;
        let (mut moved, mut dead) = (Vec::new(), Vec::new());
        for (index, (page, slot)) in flight.pages.iter().enumerate() {
            let at = Staged(flight.first.0 + u32::try_from(index).unwrap_or(u32::MAX));
            if flight.moved(hands, index) {
                state.staging.arrived(at, *slot);
                moved.push((*page, *slot));
                continue;
            }
            // Acquire is not needed: the command is done.
            let result =
                command.results[if flight.kind == FlightKind::Pages { index } else { 0 }].load(Ordering::Relaxed);
            match result {
                BUSY => {
                    counters.refused_busy.add(1);
                    space.forked.store(true, Ordering::Relaxed); // Relaxed: this thread's own
                    state.common = true;
                }
                GONE => counters.refused_gone.add(1),
                CANCELLED => counters.cancelled.add(1),
                _ => counters.refused_other.add(1),
            }
            if !matches!(result, GONE | CANCELLED) {
                state.pages.keep(*page..page.next(), REFUSED);
            }
            dead.extend(self.take_back(&mut state, *page, *slot));
            state.staging.vacate(at);
        }
        drop(state);
        self.core.flush(dead, Freed::Other);
        // Relaxed: this thread's own.
        space.taken.fetch_add(u32::try_from(moved.len()).unwrap_or(0), Ordering::Relaxed);
        Ok(moved)
    }

    /// A page has not left: its slot is none. Returns that, if it is to be flushed and freed.
    fn take_back(&self, state: &mut State, page: Page, slot: Slot) -> Option<Slot> {
        let mut slots = lock(&self.core.slots);
        if slots.names(slot) > 0 {
            if state.pages.slot(page) == Some(slot) {
                state.pages.clear(page);
            } else {
                // Its page was remapped meanwhile.
                state.pages.clear_slot(slot);
            }
            assert!(slots.drop_name(slot) == Dropped::Nothing, "a staged slot is freed by the evictor");
        }
        (slots.unstage(slot) == Unstaged::Flush).then_some(slot)
    }

    // --- ends

    /// Address spaces whose program has gone: what children still name is encoded, the rest is let go.
    fn retire(&mut self) {
        for space in self.core.spaces().iter().filter(|space| space.is_gone()) {
            if let Some(hands) = space.hands.get() {
                self.let_go(space);
                let drained = if hands.is_dead() { Err(AgentDied) } else { self.drain(space, hands) };
                self.line = None;
                match drained {
                    Ok(Turn::Full) => continue,
                    Ok(_) => {}
                    Err(AgentDied) => self.loan.end(),
                }
                // Of a dead agent's staging nothing can be encoded: what nobody names is let go all the same.
                let left = lock(&space.state).staging.oldest(usize::MAX);
                self.still_named(space, left);
                hands.kill();
            } else {
                self.let_go(space);
            }
            self.core.remove(space.id);
        }
    }

    fn let_go(&self, space: &Space) {
        let mut dropped = Vec::new();
        let mut state = lock(&space.state);
        state.pages.forget(Page(0)..Page(u64::MAX / PAGE_BYTES), |_, slot| dropped.push(slot));
        let dead = self.core.unname(&dropped);
        let copies = state.pages.take_let_go();
        drop(state);
        self.core.flush(dead, Freed::Stored);
        self.core.discard(copies);
    }
}

fn is_worth_it(space: &Space) -> bool {
    // Relaxed: an estimate.
    space.resident_pages.load(Ordering::Relaxed) >= SMALL_PAGES || lock(&space.state).staging.waiting() > 0
}
