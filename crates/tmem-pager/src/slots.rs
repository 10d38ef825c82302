//! Slots: where evicted pages are, whoever refers to them.
//!
//! An evicted page is a slot, as in a swap area: the pages of address spaces name slots, slots count how often they
//! are named (`fork` makes a second name for each), and nothing in a slot says which address it came from, so that
//! `mremap` changes no slot.
//!
//! | state | named | the bytes are |
//! |---|---|---|
//! | free | 0 | nowhere |
//! | staged | 1.. | in a page of some address space's staging area, or still on their way there |
//! | abandoned | 0 | in a staging page that the evictor has not given up yet; it frees the slot |
//! | stored | 1.. | in the engine, at [`Slot::offset`] |
//! | copy | 0 | resident; what they were when they came back is in the engine still ([`crate::copies`]) |
//!
//! `named == 0` and stored does not occur: whoever drops the last name of a stored slot flushes it and frees it, or makes
//! it a copy. One that was a copy and is staged again keeps its digest until it is stored: the engine may still hold what it
//! was before, which is right if the page has not changed, and to be flushed if the slot is freed.

use std::collections::HashMap;

use tmem_agent::digest::Digest;

use crate::space::SpaceId;

/// An evicted page. Number 0 is not given out, so that a table of slots can say "none".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Slot(pub(crate) u32);

impl Slot {
    /// Numbers are less: a page table has one bit besides.
    pub(crate) const END: u32 = 1 << 31;

    /// Where its bytes are in the store's object.
    pub(crate) const fn offset(self) -> u64 {
        self.0 as u64 * 4096
    }
}

/// A page of an address space's staging area, counted from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Staged(pub(crate) u32);

/// Where the bytes of a slot are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Staged(SpaceId, Staged),
    Stored,
}

/// What is to be done by whoever dropped a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Dropped {
    /// Others name it still, or the evictor will free it.
    Nothing,
    /// It was the last name of a stored slot: flush it, then [`Slots::free`] it.
    Flush,
}

/// What is to be done with a slot that is not staged any more, and not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Unstaged {
    /// Nothing: it is free.
    Freed,
    /// The store may hold a block of it: flush it, then [`Slots::free`] it.
    Flush,
}

/// Set in a slot's word while it is staged or abandoned.
const STAGED: u32 = 1 << 31;
/// The word of a copy.
const COPY: u32 = 1 << 30;
/// The rest of a word: how often the slot is named.
const NAMES: u32 = COPY - 1;

/// All slots.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    /// By number: names, and [`STAGED`].
    words: Vec<u32>,
    /// A bit for each slot: 1 is free.
    free: Vec<u64>,
    /// Where the search for a free one goes on.
    cursor: usize,
    staged: HashMap<Slot, (SpaceId, Staged)>,
    /// What the store holds of copies, and of staged slots that were copies.
    digests: HashMap<Slot, Digest>,
    /// Slots that are not free.
    used: usize,
    /// Slots in the state stored.
    stored: usize,
    /// Slots in the state copy.
    copies: usize,
}

impl Slots {
    /// A slot for a page that is about to be staged, with one name. Slots made one after the other are neighbours, if
    /// they can be.
    pub(crate) fn stage(&mut self, space: SpaceId, at: Staged) -> Slot {
        let slot = self.take_free();
        self.words[slot.0 as usize] = STAGED | 1;
        self.staged.insert(slot, (space, at));
        slot
    }

    /// Stages a copy again, with one name.
    pub(crate) fn stage_copy(&mut self, slot: Slot, space: SpaceId, at: Staged) {
        self.end_copy(slot, STAGED | 1);
        self.staged.insert(slot, (space, at));
    }

    /// Makes a stored slot a copy of which the last name was just dropped. `digest` is that of its bytes.
    pub(crate) fn make_copy(&mut self, slot: Slot, digest: Digest) {
        let word = &mut self.words[slot.0 as usize];
        assert_eq!(*word, 0, "{slot:?} is in use");
        *word = COPY;
        self.digests.insert(slot, digest);
        self.stored -= 1;
        self.copies += 1;
    }

    /// Gives a copy up: flush it, then [`Self::free`] it.
    pub(crate) fn discard_copy(&mut self, slot: Slot) {
        self.end_copy(slot, 0);
        self.digests.remove(&slot);
    }

    fn end_copy(&mut self, slot: Slot, then: u32) {
        let word = core::mem::replace(&mut self.words[slot.0 as usize], then);
        assert_eq!(word, COPY, "{slot:?} is no copy");
        self.copies -= 1;
    }

    /// What the store holds of a staged slot, if that is known.
    pub(crate) fn digest(&self, slot: Slot) -> Option<Digest> {
        self.digests.get(&slot).copied()
    }

    /// What the store holds of a staged slot is out of date.
    pub(crate) fn set_changed(&mut self, slot: Slot) {
        self.digests.remove(&slot);
    }

    fn take_free(&mut self) -> Slot {
        let count = self.free.len();
        let found = (self.cursor..count).chain(0..self.cursor.min(count)).find(|word| self.free[*word] != 0);
        let word = found.unwrap_or_else(|| {
            // Slot 0 is never free.
            self.free.push(if count == 0 { !1 } else { !0 });
            self.words.resize(self.free.len() * 64, 0);
            count
        });
        self.cursor = word;
        let bit = self.free[word].trailing_zeros();
        self.free[word] &= !(1 << bit);
        self.used += 1;
        let number = u32::try_from(word * 64).unwrap_or(u32::MAX) + bit;
        assert!(number < Slot::END, "8 TiB are evicted at most");
        Slot(number)
    }

    /// Where a named slot's bytes are.
    pub(crate) fn place(&self, slot: Slot) -> Place {
        let word = self.words[slot.0 as usize];
        assert!(word & NAMES > 0, "{slot:?} is not named");
        if word & STAGED == 0 {
            return Place::Stored;
        }
        let (space, at) = self.staged[&slot];
        Place::Staged(space, at)
    }

    /// Gives a slot one more name.
    pub(crate) fn share(&mut self, slot: Slot) {
        let word = &mut self.words[slot.0 as usize];
        assert!(*word & NAMES > 0, "{slot:?} is not named");
        *word += 1;
    }

    /// Takes a name from a slot.
    pub(crate) fn drop_name(&mut self, slot: Slot) -> Dropped {
        let word = &mut self.words[slot.0 as usize];
        assert!(*word & NAMES > 0, "{slot:?} is not named");
        *word -= 1;
        if *word == 0 { Dropped::Flush } else { Dropped::Nothing }
    }

    /// Names of a slot; 0: abandoned.
    pub(crate) fn names(&self, slot: Slot) -> u32 {
        self.words[slot.0 as usize] & NAMES
    }

    /// A staged slot's bytes are in the store now. Returns false if nobody names it any more: flush it, then
    /// [`Self::free`] it.
    pub(crate) fn store(&mut self, slot: Slot) -> bool {
        let word = &mut self.words[slot.0 as usize];
        assert!(*word & STAGED != 0, "{slot:?} is not staged");
        *word &= !STAGED;
        self.staged.remove(&slot);
        self.digests.remove(&slot);
        let named = *word > 0;
        self.stored += usize::from(named);
        named
    }

    /// A staged slot whose page never came, or has gone back.
    pub(crate) fn unstage(&mut self, slot: Slot) -> Unstaged {
        assert!(self.words[slot.0 as usize] & STAGED != 0, "{slot:?} is not staged");
        assert_eq!(self.names(slot), 0, "{slot:?} is named");
        self.staged.remove(&slot);
        self.words[slot.0 as usize] = 0;
        if self.digests.remove(&slot).is_some() {
            return Unstaged::Flush;
        }
        self.put_free(slot);
        Unstaged::Freed
    }

    /// Frees a slot that is named no more, and has been flushed.
    pub(crate) fn free(&mut self, slot: Slot, was: Freed) {
        assert_eq!(self.words[slot.0 as usize], 0, "{slot:?} is in use");
        self.stored -= usize::from(was == Freed::Stored);
        self.put_free(slot);
    }

    fn put_free(&mut self, slot: Slot) {
        let (word, bit) = (slot.0 as usize / 64, slot.0 % 64);
        assert_eq!(self.free[word] & (1 << bit), 0, "{slot:?} is free");
        self.free[word] |= 1 << bit;
        self.cursor = self.cursor.min(word);
        self.used -= 1;
    }

    /// Slots whose bytes are in the store.
    pub(crate) fn stored(&self) -> usize {
        self.stored
    }

    /// Slots of which the store holds the bytes: stored ones, and copies.
    pub(crate) fn held(&self) -> usize {
        self.stored + self.copies
    }

    /// Slots in use, staged ones among them.
    #[cfg(test)]
    pub(crate) fn used(&self) -> usize {
        self.used
    }
}

/// Which ledger a freed slot leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Freed {
    /// It was counted as stored.
    Stored,
    /// It was not: [`Slots::store`] found it without names, it was unstaged, or it was a copy.
    Other,
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPACE: SpaceId = SpaceId(1);

    #[test]
    fn slots_made_in_a_row_are_neighbours_and_zero_is_none() {
        let mut slots = Slots::default();
        let made: Vec<_> = (0..200).map(|at| slots.stage(SPACE, Staged(at)).0).collect();
        assert_eq!(made, (1..=200).collect::<Vec<_>>());
        assert_eq!(slots.used(), 200);
    }

    #[test]
    fn the_last_name_of_a_stored_slot_asks_for_its_flush() {
        let mut slots = Slots::default();
        let slot = slots.stage(SPACE, Staged(7));
        assert_eq!(slots.place(slot), Place::Staged(SPACE, Staged(7)));
        slots.share(slot);
        assert!(slots.store(slot));
        assert_eq!((slots.place(slot), slots.stored()), (Place::Stored, 1));
        assert_eq!(slots.drop_name(slot), Dropped::Nothing);
        assert_eq!(slots.drop_name(slot), Dropped::Flush);
        slots.free(slot, Freed::Stored);
        assert_eq!((slots.used(), slots.stored()), (0, 0));
        assert_eq!(slots.stage(SPACE, Staged(0)), slot);
    }

    /// A slot that was evicted, came back, and is a copy.
    fn copy(slots: &mut Slots) -> Slot {
        let slot = slots.stage(SPACE, Staged(7));
        assert!(slots.store(slot));
        assert_eq!(slots.drop_name(slot), Dropped::Flush);
        slots.make_copy(slot, [1, 2]);
        assert_eq!((slots.stored(), slots.held()), (0, 1));
        slot
    }

    #[test]
    fn a_copy_that_is_staged_again_is_known_until_it_is_stored_or_has_changed() {
        let mut slots = Slots::default();
        let slot = copy(&mut slots);
        slots.stage_copy(slot, SPACE, Staged(8));
        assert_eq!(slots.place(slot), Place::Staged(SPACE, Staged(8)));
        assert_eq!((slots.held(), slots.digest(slot)), (0, Some([1, 2])));
        assert!(slots.store(slot));
        assert_eq!((slots.place(slot), slots.stored(), slots.digest(slot)), (Place::Stored, 1, None));
        let mut slots = Slots::default();
        let changed = copy(&mut slots);
        slots.stage_copy(changed, SPACE, Staged(9));
        slots.set_changed(changed);
        assert_eq!(slots.digest(changed), None);
    }

    #[test]
    fn what_the_store_may_hold_of_a_slot_is_flushed_before_it_is_free() {
        let mut slots = Slots::default();
        let slot = copy(&mut slots);
        slots.discard_copy(slot);
        slots.free(slot, Freed::Other);
        assert_eq!((slots.used(), slots.held()), (0, 0));
        let slot = copy(&mut slots);
        slots.stage_copy(slot, SPACE, Staged(8));
        assert_eq!(slots.drop_name(slot), Dropped::Nothing);
        assert_eq!(slots.unstage(slot), Unstaged::Flush);
        assert_eq!(slots.used(), 1);
        slots.free(slot, Freed::Other);
        let new = slots.stage(SPACE, Staged(9));
        assert_eq!(slots.drop_name(new), Dropped::Nothing);
        assert_eq!(slots.unstage(new), Unstaged::Freed);
        assert_eq!((slots.used(), slots.stored()), (0, 0));
    }

    #[test]
    fn a_staged_slot_that_lost_its_names_is_freed_by_the_evictor() {
        let mut slots = Slots::default();
        let slot = slots.stage(SPACE, Staged(7));
        assert_eq!(slots.drop_name(slot), Dropped::Nothing);
        assert_eq!(slots.names(slot), 0);
        assert!(!slots.store(slot));
        slots.free(slot, Freed::Other);
        assert_eq!((slots.used(), slots.stored()), (0, 0));
    }
}
