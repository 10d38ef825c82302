//! Huge pages that come back whole.
//!
//! A chunk that left as a huge page ([`PageTable::set_whole`](crate::page_table::PageTable::set_whole)) and of which
//! nothing has come back since is given in one piece when the program comes to it in order: the agent decodes its 512
//! blocks out of the store's memory into a huge page of its own, which the kernel then moves into place. A page that is
//! given alone puts a page table where the huge page would have to go, so the first fault decides, and whoever gives
//! pages ahead stops before such a chunk.
//!
//! In order means: by the edge that a chunk has with one of the last few that had a fault.
//!
//! # How it is done
//! | step | locks | what else is held |
//! |---|---|---|
//! | choose, note [`Landing`], take the epoch | state | |
//! | look the blocks up, have them decoded | none | the blocks, by the store's pin; a context of the store |
//! | have the page moved | none | |
//! | drop the slots | state | |
//!
//! What the cleaner has encoded anew the agent cannot decode (zstd, and blocks of several pages). The monitor does, and the
//! kernel copies it into the agent's huge page before the agent is asked for the rest.
//!
//! What is still staged is stored first: the fault is parked, as it is for want of room, and the evictor told
//! ([`Space::awaited`]).
//!
//! # Who waits for whom
//! A server that waits for the agent holds no lock: the agent may be waiting for the gate, and whoever holds that for
//! the state. It does hold a context of the store until the blocks have been decoded, and whoever holds the state may be
//! waiting for a context (there may be one in all). So it asks, and unless the agent takes the question within
//! [`SOON`] takes it back; once it has taken it, the agent waits for nothing until the blocks are decoded, nor for
//! anything but the gate afterwards, when the context is free. The agent may even be waiting for this very server: in a
//! fault of its own (`TOUCH`). That ends in the same way.
//!
//! # What may happen meanwhile
//! While a chunk is landing its slots stay named by its pages, so that faults there find them: they wait until it has
//! landed. Events are applied as ever, and those about the chunk raise the epoch, which the agent compares under the
//! gate: the page is moved only if its chunk is what it was when it was chosen. That slots were dropped, or even given
//! to others, in between does no harm: the blocks last as long as the pin, and what was decoded is thrown away.
//!
//! Between the move and the dropping of the slots, events find slots of pages that are in place. So whoever applies
//! events settles that first ([`State::settle_landing`]): under the gate it is certain what has been moved.

use core::ops::Range;
use core::sync::atomic::Ordering;
use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use tmem::Located;
use tmem_agent::protocol::{
    BUSY, CANCELLED, DECODE, HUGE_BYTES, MOVED, PAGE_BYTES, REFUSED_BY_KERNEL, Source, UNDECODED,
};

use crate::core::{Core, OBJECT};
use crate::hands::{AgentDied, Hands, Order};
use crate::lock;
use crate::page_table::REFUSED;
use crate::slots::{Freed, Place, Slot};
use crate::space::{Fault, Space, State};
use crate::units::{CHUNK_PAGES, PAGE, Page, overlap};

/// How soon the agent must have taken a question: it looks between the pages that it encodes, but not within other
/// commands, the longest of which takes half a millisecond.
const SOON: Duration = Duration::from_millis(2);
/// How long a fault waits for a huge page, because there is no room yet or the agent is at another, before it is given
/// one page.
const PATIENCE: Duration = Duration::from_millis(50);
/// Chunks whose neighbours are in order.
const RECENT: usize = 8;
/// How often blocks are looked up, should the cleaner be at them.
const LOOKS: usize = 4;
/// Pages that are decoded and copied at once: a block of the cleaner's has no more.
const GROUP: usize = 16;
/// Pages from its edge by which a chunk is entered.
const EDGE: usize = 16;

/// What is known of it in one address space.
#[derive(Debug, Default)]
pub(crate) struct Whole {
    landing: Option<Landing>,
    /// The chunks that last had faults.
    recent: [u64; RECENT],
    /// The oldest of them.
    oldest: usize,
    /// A chunk that could not be given whole.
    passed: Option<u64>,
    /// When the kernel last refused.
    refused: Option<Instant>,
    /// The landing area may have a page table.
    anew: bool,
}

/// A chunk that is on its way.
#[derive(Debug)]
struct Landing {
    chunk: u64,
    /// Its slots were dropped, of so many pages, by whoever applied an event.
    settled: Option<usize>,
}

/// What became of a fault.
pub(crate) enum Restored<'a> {
    /// It is to be given its page alone.
    No(MutexGuard<'a, State>),
    Given,
    /// It is to be tried again.
    Later,
    NoRoom,
    /// The agent died.
    Gone,
}

impl Whole {
    /// Notes a fault. Returns whether it is in order.
    fn follow(&mut self, page: Page) -> bool {
        let chunk = page.chunk();
        let was = |neighbour: u64| self.recent.contains(&neighbour);
        let upwards = page.index() < EDGE && was(chunk.wrapping_sub(1));
        let downwards = page.index() >= CHUNK_PAGES - EDGE && was(chunk + 1);
        if !was(chunk) {
            self.recent[self.oldest] = chunk;
            self.oldest = (self.oldest + 1) % RECENT;
        }
        upwards || downwards
    }

    /// Whether a range has a part of what is on its way back.
    pub(crate) fn is_landing(&self, range: &Range<u64>) -> bool {
        let place = |chunk: u64| chunk * HUGE_BYTES..(chunk + 1) * HUGE_BYTES;
        self.landing.as_ref().is_some_and(|landing| overlap(&place(landing.chunk), range))
    }

    fn is_passed(&self, chunk: u64) -> bool {
        self.passed == Some(chunk) || self.refused.is_some_and(|since| since.elapsed() < REFUSED)
    }
}

impl State {
    /// Drops the slots of what has landed. The caller holds the gate, or knows that the agent is done.
    pub(crate) fn settle_landing(&mut self, hands: Option<&Hands>, dropped: &mut Vec<Slot>) {
        let Some((landing, hands)) = self.whole.landing.as_mut().zip(hands) else { return };
        if landing.settled.is_some() {
            return;
        }
        let moved = hands.landed();
        if moved == 0 {
            return;
        }
        landing.settled = Some(moved);
        for page in (0..moved).map(|index| Page::in_chunk(landing.chunk, index)) {
            dropped.extend(self.pages.clear(page));
            self.pages.set_recent(page);
        }
    }

    /// The slots of a chunk that can be given whole, and whether all of them are stored.
    fn whole_slots(&self, core: &Core, chunk: u64) -> Option<(Vec<Slot>, bool)> {
        let pages = || (0..CHUNK_PAGES).map(|index| Page::in_chunk(chunk, index));
        let armed = self.armed_from(Page::in_chunk(chunk, 0))?;
        if !self.pages.is_whole(chunk) || armed.end < (chunk + 1) * HUGE_BYTES {
            return None;
        }
        let slots: Vec<Slot> = pages().filter_map(|page| self.pages.slot(page)).collect();
        let places = lock(&core.slots);
        let stored = slots.iter().all(|slot| places.place(*slot) == Place::Stored);
        (slots.len() == CHUNK_PAGES).then_some((slots, stored))
    }
}

/// Gives a fault's chunk back whole, if that can and should be done.
pub(crate) fn restore<'a>(core: &Core, space: &Space, mut state: MutexGuard<'a, State>, fault: Fault) -> Restored<'a> {
    let chunk = fault.page.chunk();
    if state.whole.landing.as_ref().is_some_and(|landing| landing.chunk == chunk) {
        return Restored::Later;
    }
    let in_order = state.whole.follow(fault.page);
    // Relaxed: set before the first page was taken.
    let is_evictor = core.evictor.load(Ordering::Relaxed).cast_unsigned() == fault.thread;
    let hands = space.hands.get().filter(|hands| hands.pid != fault.thread && !is_evictor);
    let may = in_order && !state.whole.is_passed(chunk);
    let slots = may.then(|| state.whole_slots(core, chunk)).flatten();
    let Some((hands, (slots, stored))) = hands.zip(slots) else { return Restored::No(state) };
    let waits = fault.since.elapsed() < PATIENCE;
    if !stored {
        // It is still on its way out. To encode it and decode it again takes less than 512 faults.
        space.awaited.store(waits, Ordering::Relaxed); // Relaxed: noticed at some time
        return if waits { Restored::NoRoom } else { Restored::No(state) };
    }
    if state.whole.landing.is_some() {
        return if waits { Restored::Later } else { Restored::No(state) };
    }
    if !core.has_room(HUGE_BYTES) {
        return if waits { Restored::NoRoom } else { Restored::No(state) };
    }
    core.add_room(-HUGE_BYTES.cast_signed());
    hands.nothing_landed();
    state.whole.landing = Some(Landing { chunk, settled: None });
    let (epoch, anew) = (hands.epoch(), core::mem::take(&mut state.whole.anew));
    drop(state);
    let renewed = if anew { hands.renew(SOON) } else { Ok(true) };
    let result = match renewed {
        Ok(true) => have_landed(core, hands, &slots, (chunk * HUGE_BYTES, epoch)),
        Ok(false) => Ok(BUSY),
        Err(AgentDied) => Err(AgentDied),
    };
    match result {
        Ok(result) => finish(core, space, (hands, result), fault),
        Err(AgentDied) => {
            core.agent_died(space);
            Restored::Gone
        }
    }
}

/// What a look at the blocks came to.
enum Asked {
    /// The agent has decoded them, or could not.
    Answered,
    /// The agent is busy.
    Busy,
    /// These it cannot decode.
    Beyond(Vec<usize>),
}

/// Has the agent decode the slots and move them to `to`. Returns why not ([`BUSY`]: the agent did not come to it), or
/// [`MOVED`]. No lock is held.
fn have_landed(core: &Core, hands: &Hands, slots: &[Slot], (to, epoch): (u64, u32)) -> Result<u32, AgentDied> {
    let granules: Vec<u64> = slots.iter().map(|slot| u64::from(slot.0)).collect();
    let mut written = [false; CHUNK_PAGES];
    for _ in 0..LOOKS {
        let asked = core.pool.with_blocks(OBJECT, &granules, |located| {
            let words: Vec<Option<u64>> = located.iter().zip(written).map(word).collect();
            let beyond: Vec<usize> = (0..words.len()).filter(|index| words[*index].is_none()).collect();
            if !beyond.is_empty() {
                return Ok(Asked::Beyond(beyond));
            }
            tell_regions(core, hands, located)?;
            let pages: Vec<u64> = words.into_iter().flatten().collect();
            hands.ask(&Order { op: DECODE, epoch, args: [to, 0, 0, 0], pages: &pages, ..Order::default() });
            Ok(if hands.await_decoded(SOON)? { Asked::Answered } else { Asked::Busy })
        });
        match asked {
            Ok(Ok(Asked::Answered)) => return hands.await_done(),
            Ok(Ok(Asked::Beyond(beyond))) if write_some(core, hands, slots, &beyond, &mut written) => {}
            Ok(Err(AgentDied)) => return Err(AgentDied),
            Ok(Ok(Asked::Busy)) => return Ok(BUSY),
            // Whatever is wrong with a block is told when its page is asked for alone.
            Ok(Ok(Asked::Beyond(_))) | Err(_) => break,
        }
    }
    Ok(UNDECODED)
}

/// Decodes pages that the agent cannot, those that the cleaner has taken as cold, and has the kernel copy them into the
/// landing area. Neighbours go together: they are likely to be in one block.
fn write_some(core: &Core, hands: &Hands, slots: &[Slot], pages: &[usize], written: &mut [bool; CHUNK_PAGES]) -> bool {
    let mut buffer = [0; GROUP * PAGE];
    let follows = |a: usize, b: usize| a + 1 == b && slots[a].0 + 1 == slots[b].0;
    for run in pages.chunk_by(|a, b| follows(*a, *b)) {
        for group in run.chunks(GROUP) {
            let bytes = &mut buffer[..group.len() * PAGE];
            let to = hands.places.landing + (group[0] * PAGE) as u64;
            let got = core.get(slots[group[0]], bytes).is_ok();
            if !got || tmem_sys::write_memory(hands.pid, to, bytes) != Ok(bytes.len()) {
                return false;
            }
            group.iter().for_each(|page| written[*page] = true);
            core.counters.copied_bytes.add(bytes.len() as u64);
        }
    }
    true
}

/// A page as the agent is told of it, if it can decode it.
fn word((located, written): (&Located, bool)) -> Option<u64> {
    let source = match *located {
        _ if written => Source::There,
        Located::Missing | Located::Other => return None,
        Located::Filled(pattern) => Source::Filled(pattern),
        Located::Block { region, offset_bytes, codec, bytes } => Source::Block { region, offset_bytes, codec, bytes },
    };
    source.to_word()
}

fn tell_regions(core: &Core, hands: &Hands, located: &[Located]) -> Result<(), AgentDied> {
    let mut told = None;
    for located in located {
        if let Located::Block { region, .. } = *located
            && told != Some(region)
        {
            hands.tell_region(region, core.store.region(region).ok_or(AgentDied)?)?;
            told = Some(region);
        }
    }
    Ok(())
}

/// The agent is done: drops the slots of what landed.
fn finish(core: &Core, space: &Space, (hands, result): (&Hands, u32), fault: Fault) -> Restored<'static> {
    let chunk = fault.page.chunk();
    let mut dropped = Vec::new();
    let mut state = lock(&space.state);
    state.settle_landing(Some(hands), &mut dropped);
    let landed = state.whole.landing.take().and_then(|landing| landing.settled).unwrap_or(0);
    let huge = result == MOVED && is_huge(space, chunk);
    state.whole.anew = !huge;
    // What hindered it may be over soon; but it is not tried for ever.
    let again = matches!(result, BUSY | CANCELLED) && fault.since.elapsed() < PATIENCE;
    state.whole.passed = (result != MOVED && !again).then_some(chunk);
    if result == REFUSED_BY_KERNEL {
        state.whole.refused = Some(Instant::now());
    }
    let dead = core.unname(&dropped);
    drop(state);
    core.flush(dead, Freed::Stored);
    core.add_room((HUGE_BYTES - (landed * PAGE) as u64).cast_signed());
    space.feed(); // other faults may wait for this one's chunk, or for the agent
    core.counters.huge_restored.add(u64::from(huge));
    core.counters.cancelled.add(u64::from(result == CANCELLED));
    // Whoever waited for a page that landed was awakened by the move.
    if fault.page.index() < landed { Restored::Given } else { Restored::Later }
}

/// Whether a chunk is a huge page: what was moved may have been taken apart on the way.
fn is_huge(space: &Space, chunk: u64) -> bool {
    let range = chunk * HUGE_BYTES..(chunk + 1) * HUGE_BYTES;
    let mut runs = Vec::new();
    let looked = space.pagemap.get().map(|pagemap| pagemap.present(range.clone(), HUGE_BYTES / PAGE_BYTES, &mut runs));
    looked.is_some_and(|looked| looked.is_ok()) && runs.first().is_some_and(|run| run.huge && run.range == range)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn followed(whole: &mut Whole, chunk: u64, index: usize) -> bool {
        whole.follow(Page::in_chunk(chunk, index))
    }

    #[test]
    fn a_chunk_entered_by_its_neighbours_edge_is_in_order() {
        let mut whole = Whole::default();
        assert!(!followed(&mut whole, 100, 0));
        assert!(followed(&mut whole, 101, 0), "upwards");
        assert!(followed(&mut whole, 99, CHUNK_PAGES - 1), "downwards");
        assert!(!followed(&mut whole, 102, EDGE), "not by the edge");
        assert!(!followed(&mut whole, 98, 0), "by the wrong edge");
    }

    #[test]
    fn several_walks_go_on_beside_each_other() {
        let mut whole = Whole::default();
        let walks = [1000_u64, 2000, 3000, 4000];
        walks.iter().for_each(|walk| assert!(!followed(&mut whole, *walk, 0)));
        for step in 1..10 {
            walks.iter().for_each(|walk| assert!(followed(&mut whole, walk + step, 0)));
        }
    }
}
