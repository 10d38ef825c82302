//! What the monitor knows of the pages of one address space.
//!
//! A page either has a slot (it was evicted: the kernel has nothing there) or it has none: it is resident, or was
//! never touched, and the kernel alone knows which. One that came back may have a *copy* instead: the slot that it had, of
//! which the store still holds the block ([`crate::copies`]). To everybody but the evictor that is as if it had none. Beside
//! that two bits a page:
//! - *recent*: the page came back, or was first given, since the hand of the evictor last passed. It passes once
//!   more.
//! - *kept*: the page stays where it is for a while, or until it comes through us again. The program has asked the
//!   kernel to discard it (`MADV_DONTNEED`, `MADV_FREE`), which tells us before it does so: what was taken away before
//!   the discarding would come back afterwards. Or the kernel would not have it moved just now.

use core::ops::Range;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::slots::Slot;
use crate::units::{CHUNK_PAGES, Page};

/// What the kernel would not have moved is not tried again for so long: it may not be written to, is locked, pinned, or
/// another process has it too.
pub(crate) const REFUSED: Duration = Duration::from_millis(100);

const BIT_WORDS: usize = CHUNK_PAGES / 64;

/// Set in the number of a slot that is a page's copy.
const COPY: u32 = Slot::END;

#[derive(Debug, Clone)]
struct Chunk {
    /// Slot numbers; 0 is none. With [`COPY`]: the page is resident.
    slots: [u32; CHUNK_PAGES],
    /// Slots of evicted pages.
    count: usize,
    recent: [u64; BIT_WORDS],
    kept: [u64; BIT_WORDS],
    /// When none is kept any more.
    kept_until: Option<Instant>,
    /// It left as a huge page, and nothing of it has come back: not even a page table is there. `count` is all.
    whole: bool,
}

impl Chunk {
    const EMPTY: Self = Self {
        slots: [0; CHUNK_PAGES],
        count: 0,
        recent: [0; BIT_WORDS],
        kept: [0; BIT_WORDS],
        kept_until: None,
        whole: false,
    };
}

/// The table.
#[derive(Debug, Default)]
pub(crate) struct PageTable {
    chunks: BTreeMap<u64, Box<Chunk>>,
    /// Copies of pages that were forgotten.
    let_go: Vec<Slot>,
}

impl PageTable {
    /// The slot of a page.
    pub(crate) fn slot(&self, page: Page) -> Option<Slot> {
        evicted(self.chunks.get(&page.chunk())?.slots[page.index()])
    }

    /// Gives a page that has none a slot.
    pub(crate) fn set(&mut self, page: Page, slot: Slot) {
        let chunk = self.chunk(page);
        let entry = &mut chunk.slots[page.index()];
        assert_eq!(*entry, 0, "{page:?} has a slot");
        *entry = slot.0;
        chunk.count += 1;
    }

    /// All pages of a chunk were given slots to leave as a huge page. True until any of them loses its own.
    pub(crate) fn set_whole(&mut self, chunk: u64) {
        let chunk = self.chunk(Page::in_chunk(chunk, 0));
        assert_eq!(chunk.count, CHUNK_PAGES, "a huge page has a slot for every page");
        chunk.whole = true;
    }

    /// Whether a chunk left as a huge page and nothing of it has come back.
    pub(crate) fn is_whole(&self, chunk: u64) -> bool {
        self.chunks.get(&chunk).is_some_and(|chunk| chunk.whole)
    }

    /// Takes the slot of a page away.
    pub(crate) fn clear(&mut self, page: Page) -> Option<Slot> {
        let chunk = self.chunks.get_mut(&page.chunk())?;
        let slot = evicted(chunk.slots[page.index()])?;
        chunk.slots[page.index()] = 0;
        chunk.count -= 1;
        chunk.whole = false;
        Some(slot)
    }

    /// A page that has just lost its slot keeps it as its copy.
    pub(crate) fn set_copy(&mut self, page: Page, slot: Slot) {
        let entry = &mut self.chunk(page).slots[page.index()];
        assert_eq!(*entry, 0, "{page:?} has a slot");
        *entry = COPY | slot.0;
    }

    /// Takes the copy of a page away.
    pub(crate) fn take_copy(&mut self, page: Page) -> Option<Slot> {
        let entry = &mut self.chunks.get_mut(&page.chunk())?.slots[page.index()];
        let copy = copy(*entry)?;
        *entry = 0;
        Some(copy)
    }

    /// Takes the copies of pages that were forgotten away.
    pub(crate) fn take_let_go(&mut self) -> Vec<Slot> {
        core::mem::take(&mut self.let_go)
    }

    /// Takes all copies away.
    pub(crate) fn take_copies(&mut self) -> Vec<Slot> {
        let mut copies = self.take_let_go();
        for entry in self.chunks.values_mut().flat_map(|chunk| &mut chunk.slots) {
            if let Some(slot) = copy(*entry) {
                *entry = 0;
                copies.push(slot);
            }
        }
        copies
    }

    /// Forgets everything about some pages, and tells their slots.
    pub(crate) fn forget(&mut self, pages: Range<Page>, mut each: impl FnMut(Page, Slot)) {
        let numbers: Vec<u64> = self.chunks.range(chunks_of(&pages)).map(|(number, _)| *number).collect();
        for number in numbers {
            let inside = indexes(&pages, number);
            let Some(chunk) = self.chunks.get_mut(&number) else { continue };
            chunk.whole = false;
            for index in inside.clone() {
                let entry = core::mem::take(&mut chunk.slots[index]);
                set_bit(&mut chunk.recent, index, false);
                set_bit(&mut chunk.kept, index, false);
                self.let_go.extend(copy(entry));
                if let Some(slot) = evicted(entry) {
                    chunk.count -= 1;
                    each(Page::in_chunk(number, index), slot);
                }
            }
            if inside.len() == CHUNK_PAGES {
                self.chunks.remove(&number);
            }
        }
    }

    /// Moves what is known of some pages to other addresses, of which nothing is known (it was forgotten before).
    pub(crate) fn relocate(&mut self, pages: Range<Page>, to: Page) {
        let mut moved = Vec::new();
        let first = pages.start;
        self.forget(pages, |page, slot| moved.push((Page(to.0 + (page.0 - first.0)), slot)));
        for (page, slot) in moved {
            self.set(page, slot);
            self.set_recent(page);
        }
    }

    /// What a child made by `fork` inherits: slots, no copies; `keep` is asked for each slot.
    pub(crate) fn fork(&self, mut keep: impl FnMut(Page, Slot) -> bool) -> Self {
        let mut child = Self::default();
        for (number, chunk) in self.chunks.iter().filter(|(_, chunk)| chunk.count > 0) {
            let mut inherited = Box::new(Chunk::EMPTY);
            for (index, slot) in
                chunk.slots.iter().enumerate().filter_map(|(index, entry)| Some((index, evicted(*entry)?)))
            {
                if keep(Page::in_chunk(*number, index), slot) {
                    inherited.slots[index] = slot.0;
                    inherited.count += 1;
                }
            }
            child.chunks.insert(*number, inherited);
        }
        child
    }

    /// Takes `slot` away from whatever page has it. Looks at every page: for what happens rarely.
    pub(crate) fn clear_slot(&mut self, slot: Slot) -> Option<Page> {
        for (number, chunk) in &mut self.chunks {
            if let Some(index) = chunk.slots.iter().position(|entry| *entry == slot.0) {
                chunk.slots[index] = 0;
                chunk.count -= 1;
                chunk.whole = false;
                return Some(Page::in_chunk(*number, index));
            }
        }
        None
    }

    /// The page has come through us: it is recent, and kept no more.
    pub(crate) fn set_recent(&mut self, page: Page) {
        let chunk = self.chunk(page);
        set_bit(&mut chunk.recent, page.index(), true);
        set_bit(&mut chunk.kept, page.index(), false);
    }

    /// Whether any page of a chunk is recent.
    pub(crate) fn has_recent(&self, chunk: u64) -> bool {
        self.chunks.get(&chunk).is_some_and(|chunk| chunk.recent != [0; BIT_WORDS])
    }

    /// Some pages are not to be taken for so long.
    pub(crate) fn keep(&mut self, pages: Range<Page>, time: Duration) {
        let until = Some(Instant::now() + time);
        for number in chunks_of(&pages) {
            let inside = indexes(&pages, number);
            let chunk = self.chunks.entry(number).or_insert_with(|| Box::new(Chunk::EMPTY));
            inside.for_each(|index| set_bit(&mut chunk.kept, index, true));
            chunk.kept_until = chunk.kept_until.max(until);
        }
    }

    /// Whether the evictor may take a page, as far as the table knows; if it is recent, not this time.
    pub(crate) fn is_candidate(&mut self, page: Page) -> bool {
        let Some(chunk) = self.chunks.get_mut(&page.chunk()) else { return true };
        if chunk.kept_until.is_some_and(|until| Instant::now() > until) {
            chunk.kept = [0; BIT_WORDS];
            chunk.kept_until = None;
        }
        let index = page.index();
        let recent = bit(&chunk.recent, index);
        set_bit(&mut chunk.recent, index, false);
        !recent && !bit(&chunk.kept, index) && evicted(chunk.slots[index]).is_none()
    }

    fn chunk(&mut self, page: Page) -> &mut Chunk {
        self.chunks.entry(page.chunk()).or_insert_with(|| Box::new(Chunk::EMPTY))
    }
}

/// The slot of an evicted page.
fn evicted(entry: u32) -> Option<Slot> {
    (entry != 0 && entry & COPY == 0).then_some(Slot(entry))
}

/// The copy of a resident page.
fn copy(entry: u32) -> Option<Slot> {
    (entry & COPY != 0).then_some(Slot(entry & !COPY))
}

fn chunks_of(pages: &Range<Page>) -> Range<u64> {
    pages.start.chunk()..pages.end.0.div_ceil(CHUNK_PAGES as u64)
}

/// The part of a chunk that lies in a range of pages.
fn indexes(pages: &Range<Page>, chunk: u64) -> Range<usize> {
    let first = Page::in_chunk(chunk, 0);
    let start = if pages.start > first { pages.start.index() } else { 0 };
    let last = Page::in_chunk(chunk, CHUNK_PAGES);
    let end = if pages.end < last { pages.end.index() } else { CHUNK_PAGES };
    start..end
}

fn bit(words: &[u64; BIT_WORDS], index: usize) -> bool {
    words[index / 64] >> (index % 64) & 1 == 1
}

fn set_bit(words: &mut [u64; BIT_WORDS], index: usize, value: bool) {
    let mask = 1 << (index % 64);
    if value { words[index / 64] |= mask } else { words[index / 64] &= !mask }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(slots: &[(u64, u32)]) -> PageTable {
        let mut table = PageTable::default();
        slots.iter().for_each(|(page, slot)| table.set(Page(*page), Slot(*slot)));
        table
    }

    #[test]
    fn forgetting_tells_the_slots_of_the_range_and_no_others() {
        let mut table = table(&[(511, 1), (512, 2), (1023, 3), (1024, 4), (5000, 5)]);
        let mut told = Vec::new();
        table.forget(Page(512)..Page(1024), |page, slot| told.push((page.0, slot.0)));
        assert_eq!(told, [(512, 2), (1023, 3)]);
        assert_eq!(table.slot(Page(511)), Some(Slot(1)));
        assert_eq!(table.slot(Page(1024)), Some(Slot(4)));
        assert_eq!(table.slot(Page(512)), None);
    }

    #[test]
    fn relocating_keeps_slots_at_odd_distances() {
        let mut table = table(&[(10, 1), (700, 2)]);
        table.relocate(Page(0)..Page(1000), Page(12345));
        assert_eq!(table.slot(Page(12355)), Some(Slot(1)));
        assert_eq!(table.slot(Page(13045)), Some(Slot(2)));
        assert_eq!(table.slot(Page(10)), None);
    }

    #[test]
    fn a_recent_page_is_passed_once() {
        let mut table = PageTable::default();
        assert!(table.is_candidate(Page(3)));
        table.set_recent(Page(3));
        assert!(!table.is_candidate(Page(3)));
        assert!(table.is_candidate(Page(3)));
    }

    #[test]
    fn a_kept_page_stays_for_a_while_or_until_it_came_through_us() {
        let mut table = PageTable::default();
        table.keep(Page(3)..Page(4), Duration::from_secs(3600));
        assert!(!table.is_candidate(Page(3)));
        assert!(!table.is_candidate(Page(3)));
        table.set_recent(Page(3));
        assert!(!table.is_candidate(Page(3)));
        assert!(table.is_candidate(Page(3)));
        let mut table = PageTable::default();
        table.keep(Page(3)..Page(4), Duration::ZERO);
        assert!(table.is_candidate(Page(3)));
        table.keep(Page(3)..Page(4), Duration::from_secs(3600));
        table.keep(Page(4)..Page(5), Duration::ZERO);
        assert!(!table.is_candidate(Page(3)), "the longer time counts");
    }

    #[test]
    fn a_page_with_a_copy_is_resident_to_everybody_else() {
        let mut table = table(&[(1, 1), (2, 2)]);
        table.set_copy(Page(3), Slot(3));
        assert_eq!((table.slot(Page(3)), table.clear(Page(3))), (None, None));
        assert!(table.is_candidate(Page(3)));
        assert_eq!(table.clear_slot(Slot(3)), None);
        let mut child = table.fork(|_, _| true);
        assert_eq!((child.slot(Page(1)), child.take_copy(Page(3))), (Some(Slot(1)), None));
        assert_eq!(
            (table.take_copy(Page(1)), table.take_copy(Page(3)), table.take_copy(Page(3))),
            (None, Some(Slot(3)), None)
        );
        table.set(Page(3), Slot(3));
        assert_eq!(table.slot(Page(3)), Some(Slot(3)));
    }

    #[test]
    fn copies_of_pages_that_are_forgotten_or_move_are_let_go() {
        let mut table = table(&[(1, 1)]);
        (2..8).for_each(|page| table.set_copy(Page(page), Slot(u32::try_from(page).unwrap())));
        let mut told = Vec::new();
        table.forget(Page(0)..Page(4), |_, slot| told.push(slot));
        assert_eq!((told, table.take_let_go()), (vec![Slot(1)], vec![Slot(2), Slot(3)]));
        table.relocate(Page(4)..Page(6), Page(1000));
        assert_eq!((table.take_copy(Page(1000)), table.take_copy(Page(4))), (None, None));
        let mut copies = table.take_copies();
        copies.sort_unstable();
        assert_eq!(copies, [4, 5, 6, 7].map(Slot));
        assert!(table.take_copies().is_empty() && table.take_let_go().is_empty());
    }

    #[test]
    fn a_chunk_is_whole_until_a_page_of_it_is_touched() {
        let all: Vec<_> = (512..1024).zip(1..).collect();
        let whole = || {
            let mut table = table(&all);
            table.set_whole(1);
            assert!(table.is_whole(1) && !table.is_whole(0));
            table
        };
        let mut cleared = whole();
        cleared.clear(Page(600));
        let mut cleared_by_slot = whole();
        cleared_by_slot.clear_slot(Slot(7));
        let mut forgotten = whole();
        forgotten.forget(Page(1000)..Page(2000), |_, _| {});
        let mut moved = whole();
        moved.relocate(Page(512)..Page(1024), Page(5120));
        let forked = whole().fork(|_, _| true);
        for table in [cleared, cleared_by_slot, forgotten, moved, forked] {
            assert!(!table.is_whole(1) && !table.is_whole(10));
        }
    }

    #[test]
    fn a_forked_table_has_the_slots_that_were_kept() {
        let table = table(&[(1, 1), (2, 2), (600, 3)]);
        let child = table.fork(|_, slot| slot.0 != 2);
        assert_eq!(child.slot(Page(1)), Some(Slot(1)));
        assert_eq!(child.slot(Page(2)), None);
        assert_eq!(child.slot(Page(600)), Some(Slot(3)));
    }
}
