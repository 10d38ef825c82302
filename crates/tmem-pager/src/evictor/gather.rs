//! Candidates: what the evictor's hand finds as it goes round the registered memory of an address space.

use core::ops::Range;
use core::sync::atomic::Ordering;

use tmem_agent::protocol::{HUGE_BYTES, PAGE_BYTES};

use super::{Evictor, LOOK_BYTES};
use crate::lock;
use crate::space::{Space, State};
use crate::units::{CHUNK_PAGES, PAGE, Page};

/// What is to be moved.
pub(super) enum Chosen {
    /// These, in this order.
    Pages(Vec<Page>),
    /// A huge page.
    Chunk(u64),
}

impl Evictor {
    /// Looks for candidates: enough of them for an order, or a huge page. Twice round at most: what is passed over
    /// the first time for being recent is found the second time.
    pub(super) fn gather(&mut self, space: &Space) -> Chosen {
        let mut pages = Vec::new();
        for _ in 0..self.looks(space) {
            let (Some(range), Some(pagemap)) = (self.next_look(space), space.pagemap.get()) else { break };
            if pages.last().is_some_and(|last: &Page| last.address() >= range.start) {
                break; // once round: these were looked at already
            }
            self.runs.clear();
            let most = (CHUNK_PAGES - pages.len()) as u64;
            let end = pagemap.present(range.clone(), most, &mut self.runs).unwrap_or(range.end);
            let mut state = lock(&space.state);
            let huge = self.runs.iter().position(|run| run.huge);
            state.hand = huge.map_or(end, |at| self.runs[at].range.start).max(range.start + PAGE_BYTES);
            if huge == Some(0) {
                let start = self.runs[0].range.start;
                if !pages.is_empty() {
                    state.hand = start;
                    break; // it is next
                }
                let chunk = start / HUGE_BYTES;
                state.hand = (chunk + 1) * HUGE_BYTES;
                match look_at_chunk(&mut state, chunk) {
                    Look::Take if start.is_multiple_of(HUGE_BYTES) => return Chosen::Chunk(chunk),
                    Look::Pass => continue,
                    Look::Take | Look::Part => self.runs[0].range.end = state.hand,
                }
            }
            // What is in huge pages behind these is looked at when its turn comes.
            self.runs.truncate(huge.map_or(usize::MAX, |at| at.max(1)));
            let found = self.runs.iter().flat_map(|run| run.range.clone().step_by(PAGE).map(Page::of));
            pages.extend(found.filter(|page| state.is_candidate(*page)));
            if pages.len() > CHUNK_PAGES / 2 {
                break;
            }
        }
        Chosen::Pages(pages)
    }

    /// Looks that make two rounds.
    fn looks(&self, space: &Space) -> u64 {
        let state = lock(&space.state);
        let looks: u64 = state.armed.iter().map(|range| (range.end - range.start) / LOOK_BYTES + 1).sum();
        let resident = u64::from(space.resident_pages.load(Ordering::Relaxed)); // Relaxed: an estimate
        2 * (looks + resident / CHUNK_PAGES as u64 + 1)
    }

    /// The addresses to look at next.
    fn next_look(&self, space: &Space) -> Option<Range<u64>> {
        let mut state = lock(&space.state);
        let range = state.armed.at_or_after(state.hand).or_else(|| {
            state.hand = 0;
            if !core::mem::take(&mut state.common) {
                space.forked.store(false, Ordering::Relaxed); // Relaxed: noticed at some time
            }
            state.armed.at_or_after(0)
        })?;
        let start = range.start.max(state.hand);
        Some(start..range.end.min(start + LOOK_BYTES))
    }
}

pub(super) fn pages_of_chunk(chunk: u64) -> impl Iterator<Item = Page> {
    (0..CHUNK_PAGES).map(move |index| Page::in_chunk(chunk, index))
}

/// What may be taken of a huge page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// All of it.
    Take,
    /// Nothing this time: it is recent.
    Pass,
    /// Some of its pages must stay.
    Part,
}

/// Looks at a chunk, all pages of which are then recent no more.
fn look_at_chunk(state: &mut State, chunk: u64) -> Look {
    let recent = state.pages.has_recent(chunk);
    match may_take(state, chunk) {
        true => Look::Take,
        false if recent => Look::Pass,
        false => Look::Part,
    }
}

/// Whether every page of a chunk may be taken. All are asked: to ask makes a page recent no more.
pub(super) fn may_take(state: &mut State, chunk: u64) -> bool {
    pages_of_chunk(chunk).filter(|page| state.is_candidate(*page)).count() == CHUNK_PAGES
}
