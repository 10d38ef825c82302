//! What waits in staging is encoded and entered into the store.

use core::sync::atomic::Ordering;
use std::collections::VecDeque;
use std::sync::Arc;

use tmem::{Content, LentBlock, Room};
use tmem_agent::digest::Digest;
use tmem_agent::protocol::{ENCODE, FILLED, SAME, UNKNOWN, decoded};

use super::{Evictor, Given, Line, Turn};
use crate::core::OBJECT;
use crate::hands::{AgentDied, Hands, Order, Ticket};
use crate::lock;
use crate::slots::{Freed, Slot, Staged, Unstaged};
use crate::space::Space;
use crate::units::CHUNK_PAGES;

/// Room in a segment that an order to encode starts with, at least.
const LEAST_ROOM: usize = 32 << 10;

impl Evictor {
    /// Has the oldest pages of the quarantine encoded.
    pub(super) fn encode(&mut self, space: &Arc<Space>, hands: &Hands, most: usize) -> Result<Turn, AgentDied> {
        let oldest = lock(&space.state).staging.oldest(most);
        let pages = self.still_named(space, oldest);
        if pages.is_empty() {
            return Ok(Turn::Progress);
        }
        let Ok(room) = self.loan.room(LEAST_ROOM) else {
            lock(&space.state).staging.put_back(&pages);
            return Ok(Turn::Full);
        };
        let ticket = self.order_encoding(hands, &pages, &room)?;
        Ok(self.give(Given::Encode(ticket, pages)))
    }

    /// Has all that waits in staging encoded where a fault waits for that.
    pub(super) fn store_awaited(&mut self) {
        for space in self.core.spaces() {
            // Relaxed: a server sets it, and asks again.
            let Some(hands) = space.hands.get().filter(|_| space.awaited.swap(false, Ordering::Relaxed)) else {
                continue;
            };
            self.settle();
            if self.drain(&space, hands) == Err(AgentDied) {
                self.give_up(&space);
            }
            self.line = None;
            space.feed();
        }
    }

    /// Drops the pages that nobody wants any more.
    pub(super) fn still_named(&self, space: &Space, pages: Vec<(Staged, Slot)>) -> Vec<(Staged, Slot)> {
        let mut state = lock(&space.state);
        let mut slots = lock(&self.core.slots);
        let (named, abandoned): (Vec<_>, Vec<_>) = pages.into_iter().partition(|(_, slot)| slots.names(*slot) > 0);
        let mut dead = Vec::new();
        for (at, slot) in abandoned {
            dead.extend((slots.unstage(slot) == Unstaged::Flush).then_some(slot));
            state.staging.vacate(at);
        }
        drop(slots);
        drop(state);
        self.core.flush(dead, Freed::Other);
        named
    }

    fn order_encoding(&self, hands: &Hands, pages: &[(Staged, Slot)], room: &Room) -> Result<Ticket, AgentDied> {
        let region = self.core.store.region(room.region).ok_or(AgentDied)?;
        hands.tell_region(room.region, region)?;
        let addresses: Vec<u64> = pages.iter().map(|(at, _)| hands.staged(*at)).collect();
        let known: Vec<Digest> = {
            let slots = lock(&self.core.slots);
            pages.iter().map(|(_, slot)| slots.digest(*slot).unwrap_or(UNKNOWN)).collect()
        };
        let args = [u64::from(room.region), room.offset_bytes, room.len as u64, self.core.policy_now() as u64];
        Ok(hands.give(&Order { op: ENCODE, args, pages: &addresses, known: &known, ..Order::default() }))
    }

    /// Enters what was encoded into the store.
    pub(super) fn enter(
        &mut self,
        space: &Space,
        hands: &Hands,
        ticket: Ticket,
        pages: &[(Staged, Slot)],
    ) -> Result<Turn, AgentDied> {
        let command = hands.wait(ticket)?;
        // Relaxed, all: the command is done.
        let done = (command.progress.load(Ordering::Relaxed) as usize).min(pages.len());
        let result = |index: usize| command.results[index].load(Ordering::Relaxed); // as above
        let (same, changed): (Vec<usize>, Vec<usize>) = (0..done).partition(|index| result(*index) == SAME);
        self.learn(pages, &same, &changed);
        let content = |index: usize| {
            let result = result(index);
            if result == FILLED {
                return Content::Filled(command.extra[index].load(Ordering::Relaxed)); // as above
            }
            let (codec, bytes) = decoded(result);
            Content::Encoded { codec, bytes }
        };
        let block = |index: &usize| {
            let granule = u64::from(pages[*index].1.0);
            LentBlock { object: OBJECT.into(), granule, content: content(*index) }
        };
        let blocks: Vec<LentBlock> = changed.iter().map(block).collect();
        let (entered, stopped) = self.loan.enter(&blocks);
        let (entered, refused) = changed.split_at(entered);
        let stored: Vec<_> = same.iter().chain(entered).map(|index| pages[*index]).collect();
        let left: Vec<_> = refused.iter().copied().chain(done..pages.len()).map(|index| pages[index]).collect();
        self.make_stored(space, &stored);
        lock(&space.state).staging.put_back(&left);
        self.core.counters.evicted_pages.add(stored.len() as u64);
        let stuck = stored.is_empty() && (stopped.is_some() || blocks.is_empty());
        Ok(if stuck { Turn::Full } else { Turn::Progress })
    }

    /// Notes which pages are what the store holds of them. What it holds of the others is about to be replaced, or to go.
    fn learn(&self, pages: &[(Staged, Slot)], same: &[usize], changed: &[usize]) {
        let mut slots = lock(&self.core.slots);
        let mut tried = same.len();
        for slot in changed.iter().map(|index| pages[*index].1) {
            tried += usize::from(slots.digest(slot).is_some());
            slots.set_changed(slot);
        }
        drop(slots);
        self.core.copies.learn(tried, same.len());
        self.core.counters.unchanged_pages.add(same.len() as u64);
    }

    /// The store has these now: their staging pages are garbage.
    fn make_stored(&self, space: &Space, pages: &[(Staged, Slot)]) {
        let mut dead = Vec::new();
        let mut state = lock(&space.state);
        let mut slots = lock(&self.core.slots);
        for (at, slot) in pages {
            if !slots.store(*slot) {
                dead.push(*slot);
            }
            state.staging.vacate(*at);
        }
        drop(slots);
        drop(state);
        self.core.flush(dead, Freed::Other);
    }

    /// Encodes what is staged and still named.
    pub(super) fn drain(&mut self, space: &Arc<Space>, hands: &Hands) -> Result<Turn, AgentDied> {
        self.line = Some(Line { space: Arc::clone(space), given: VecDeque::new(), turns: 0 });
        while lock(&space.state).staging.waiting() > 0 {
            let turn = self.encode(space, hands, CHUNK_PAGES)?;
            if turn == Turn::Full || self.deal_with_oldest()? == Turn::Full {
                return Ok(Turn::Full);
            }
        }
        Ok(Turn::Nothing)
    }
}
