//! Staging: where evicted pages wait to be encoded.
//!
//! A part of the paged program's address space, in slots of 2 MiB. A page is moved there, waits in a queue (its
//! quarantine: whoever touches it gets it back), is encoded, and then is garbage; a slot that holds nothing but
//! garbage is given back as a whole.
//!
//! `handed >= live` for each slot: positions below `handed` were given to moves, `live` of them hold, or may come to
//! hold, a page that somebody needs.

use std::collections::VecDeque;

use crate::slots::{Slot, Staged};
use crate::units::CHUNK_PAGES;

/// Positions of a staging slot.
const POSITIONS: u32 = 512;
const _: () = assert!(POSITIONS as usize == CHUNK_PAGES);

#[derive(Debug, Clone, Copy, Default)]
struct Stage {
    handed: u32,
    live: u32,
    /// Pages that have arrived.
    arrived: u32,
    /// Its memory is being given back.
    freeing: bool,
}

/// The staging area of one address space.
#[derive(Debug)]
pub(crate) struct Staging {
    stages: Vec<Stage>,
    /// The slot whose positions are being handed out.
    open: Option<usize>,
    /// What waits to be encoded, oldest first.
    queue: VecDeque<(Staged, Slot)>,
}

impl Staging {
    /// An area of so many slots, all of them empty.
    pub(crate) fn new(stages: usize) -> Self {
        Self { stages: vec![Stage::default(); stages], open: None, queue: VecDeque::new() }
    }

    /// Positions that can be handed out in a row now, from the first one. None: every slot is in use.
    pub(crate) fn room(&mut self) -> Option<(Staged, u32)> {
        let index = self.open.filter(|index| self.stages[*index].handed < POSITIONS).or_else(|| self.empty())?;
        self.open = Some(index);
        let handed = self.stages[index].handed;
        Some((position(index, handed), POSITIONS - handed))
    }

    /// As [`Self::room`], but a whole slot, for a huge page.
    pub(crate) fn whole(&mut self) -> Option<Staged> {
        let index = self.empty()?;
        self.open = Some(index);
        Some(position(index, 0))
    }

    fn empty(&self) -> Option<usize> {
        self.stages.iter().position(|stage| stage.handed == 0)
    }

    /// Hands out the next `count` positions of [`Self::room`].
    pub(crate) fn hand_out(&mut self, count: u32) {
        let stage = &mut self.stages[self.open.unwrap_or_else(|| unreachable!("room was asked for"))];
        stage.handed += count;
        stage.live += count;
        assert!(stage.handed <= POSITIONS);
    }

    /// A page has arrived.
    pub(crate) fn arrived(&mut self, at: Staged, slot: Slot) {
        self.stages[(at.0 / POSITIONS) as usize].arrived += 1;
        self.queue.push_back((at, slot));
    }

    /// Whatever is at a position is garbage now.
    pub(crate) fn vacate(&mut self, at: Staged) {
        let stage = &mut self.stages[(at.0 / POSITIONS) as usize];
        assert!(stage.live > 0, "{at:?} was vacated before");
        stage.live -= 1;
    }

    /// The oldest pages, at most `most`.
    pub(crate) fn oldest(&mut self, most: usize) -> Vec<(Staged, Slot)> {
        self.queue.drain(..most.min(self.queue.len())).collect()
    }

    /// Puts pages back that could not be encoded, as the oldest.
    pub(crate) fn put_back(&mut self, pages: &[(Staged, Slot)]) {
        pages.iter().rev().for_each(|page| self.queue.push_front(*page));
    }

    /// Pages that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// A slot that holds nothing but garbage, to be given back and then [`Self::freed`]. One that is still being
    /// filled only if nothing waits.
    pub(crate) fn garbage(&self) -> Option<Staged> {
        let idle = self.queue.is_empty();
        let index = self.stages.iter().position(|stage| {
            let full = stage.handed == POSITIONS;
            !stage.freeing && stage.live == 0 && (full || (idle && stage.handed > 0))
        })?;
        Some(position(index, 0))
    }

    /// The memory of a slot of garbage is about to be given back.
    pub(crate) fn set_freeing(&mut self, at: Staged) {
        let index = (at.0 / POSITIONS) as usize;
        self.stages[index].freeing = true;
        if self.open == Some(index) {
            self.open = None;
        }
    }

    /// The memory of a slot was given back. Returns how many pages that were.
    pub(crate) fn freed(&mut self, at: Staged) -> u32 {
        let index = (at.0 / POSITIONS) as usize;
        assert_eq!(self.stages[index].live, 0, "slot {index} is in use");
        if self.open == Some(index) {
            self.open = None;
        }
        core::mem::take(&mut self.stages[index]).arrived
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a staging area has far fewer than 2^23 slots")]
fn position(index: usize, page: u32) -> Staged {
    Staged(index as u32 * POSITIONS + page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_garbage_when_all_its_pages_are() {
        let mut staging = Staging::new(2);
        let (first, room) = staging.room().unwrap();
        assert_eq!((first, room), (Staged(0), 512));
        staging.hand_out(500);
        assert_eq!(staging.room(), Some((Staged(500), 12)));
        staging.hand_out(12);
        assert_eq!(staging.room(), Some((Staged(512), 512)));
        (0..512).for_each(|at| staging.arrived(Staged(at), Slot(at + 1)));
        assert_eq!(staging.oldest(511).len(), 511);
        (0..511).for_each(|at| staging.vacate(Staged(at)));
        assert_eq!(staging.garbage(), None);
        assert_eq!(staging.oldest(511), [(Staged(511), Slot(512))]);
        staging.vacate(Staged(511));
        assert_eq!(staging.garbage(), Some(Staged(0)));
        assert_eq!(staging.freed(Staged(0)), 512);
        assert_eq!(staging.garbage(), None);
    }

    #[test]
    fn a_slot_half_filled_is_given_back_only_when_nothing_waits() {
        let mut staging = Staging::new(1);
        staging.room().unwrap();
        staging.hand_out(2);
        staging.arrived(Staged(0), Slot(1));
        staging.vacate(Staged(1));
        assert_eq!(staging.garbage(), None);
        staging.oldest(1);
        staging.vacate(Staged(0));
        assert_eq!(staging.garbage(), Some(Staged(0)));
        assert_eq!(staging.whole(), None);
        assert_eq!(staging.freed(Staged(0)), 1);
        assert_eq!(staging.whole(), Some(Staged(0)));
    }
}
