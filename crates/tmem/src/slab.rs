//! Tables of small things, by number.
//!
//! A slab is one reservation of addresses, so that number `n` is at `base + n * size`. Memory is taken in chunks of 2
//! MiB of addresses, in base pages as numbers are first used (lowest first). A chunk that has been used to its end is
//! made a huge page, since the slab is large by then and its lookups would miss the TLB; one whose last number is
//! given back returns its memory to the system.
//!
//! The memory is *type-stable*: whatever number was ever in use can be looked at for the life of the slab and holds a
//! `T`, perhaps one that means nothing any more. That is why `T` must be made of atomics and be valid when all zero,
//! and why [`Slab::get`] is safe. That a number still means the same thing is the business of whoever holds it:
//! numbers are freed only after the epoch in which they could last be found has passed.
//!
//! Lock: `state` guards allocation and freeing. It is taken last, after every other lock.

use crate::budget::{Budget, Claim, NoRoom, Use};
use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tmem_sys::{HUGE_PAGE_BYTES, PAGE_BYTES, Pages, Reservation, SysError};

/// Bytes of a chunk.
const CHUNK_BYTES: usize = HUGE_PAGE_BYTES;

/// All numbers are in use, or the system refuses memory for more: freeing some is what helps.
const NO_NUMBERS: NoRoom = NoRoom::Tables(CHUNK_BYTES);

/// Types that a slab can hold.
///
/// # Safety
/// Every field is an atomic (so that shared references stay valid while others write), all bytes zero is a valid value,
/// and dropping it does nothing.
pub(crate) unsafe trait Stable: Sync {}

/// A table of `T` by number, from 1 on.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    memory: Reservation,
    /// Slots that chunks have been committed for; numbers below it may be looked at.
    committed: AtomicU32,
    state: Mutex<State>,
    _holds: PhantomData<T>,
}

#[derive(Debug)]
struct State {
    chunks: Vec<Chunk>,
    /// Chunks with a free slot.
    with_room: BTreeSet<usize>,
}

/// `used + freed + fresh == slots per chunk`, where `freed` are the clear bits below `touched`.
#[derive(Debug)]
struct Chunk {
    /// A bit for each slot below `touched`: whether it is in use.
    in_use: Vec<u64>,
    used: usize,
    /// Slots that were ever in use since the chunk last gave its memory back.
    touched: usize,
    /// Bytes counted in the budget.
    charged: usize,
}

impl<T: Stable> Slab<T> {
    const SLOTS: usize = CHUNK_BYTES / size_of::<T>();
    const _FITS: () = assert!(align_of::<T>() <= 64 && size_of::<T>() > 0 && size_of::<T>() <= PAGE_BYTES);

    /// With room for `capacity` numbers.
    pub(crate) fn new(capacity: u32) -> Result<Self, SysError> {
        let chunks = (capacity as usize + 1).div_ceil(Self::SLOTS);
        Ok(Self {
            memory: Reservation::new(chunks * CHUNK_BYTES)?,
            committed: AtomicU32::new(0),
            state: Mutex::new(State { chunks: Vec::new(), with_room: BTreeSet::new() }),
            _holds: PhantomData,
        })
    }

    /// Numbers below this may be looked at.
    pub(crate) fn numbers(&self) -> u32 {
        // Acquire: pairs with the Release in `add_chunk`. The memory was committed before its numbers could be known.
        self.committed.load(Ordering::Acquire)
    }

    /// Whether `id` may be looked at.
    pub(crate) fn contains(&self, id: u32) -> bool {
        id < self.numbers()
    }

    /// Number `id`, which was in use at some time.
    pub(crate) fn get(&self, id: u32) -> &T {
        assert!(self.contains(id), "no slot {id}");
        let at = id as usize;
        let offset = at / Self::SLOTS * CHUNK_BYTES + at % Self::SLOTS * size_of::<T>();
        // SAFETY: id < committed, so the offset lies within a committed chunk of the reservation.
        let slot = unsafe { self.memory.base().add(offset) };
        // SAFETY: chunks are aligned to 2 MiB and slots follow each other by size_of::<T>, a multiple of T's
        // alignment; the memory is zero or holds a T, is never unmapped while `self` lives, and is only changed
        // through atomics (`Stable`), the zeroing on release included.
        unsafe { slot.cast::<T>().as_ref() }
    }

    /// Takes a number. What it holds is what its last user left, or zeros.
    pub(crate) fn alloc(&self, budget: &Budget) -> Result<u32, NoRoom> {
        let mut state = self.lock();
        let at = match state.with_room.first() {
            Some(at) => *at,
            None => self.add_chunk(&mut state)?,
        };
        let chunk = &mut state.chunks[at];
        let slot = chunk.take_slot::<T>(budget)?;
        if slot + 1 == Self::SLOTS {
            // All its pages are in use: it takes no more memory this way. If there is no huge page, it works all the
            // same.
            self.memory.collapse(&(at * CHUNK_BYTES..(at + 1) * CHUNK_BYTES));
        }
        if chunk.used == Self::SLOTS {
            state.with_room.remove(&at);
        }
        u32::try_from(at * Self::SLOTS + slot).map_err(|_| NO_NUMBERS)
    }

    /// Gives number `id` back, which nobody can find any more.
    pub(crate) fn free(&self, id: u32, budget: &Budget) {
        let at = id as usize / Self::SLOTS;
        let slot = id as usize % Self::SLOTS;
        let mut state = self.lock();
        let chunk = &mut state.chunks[at];
        assert!(chunk.is_used(slot), "slot {id} is given back once");
        chunk.in_use[slot / 64] &= !(1 << (slot % 64));
        chunk.used -= 1;
        if chunk.used == 0 {
            let range = at * CHUNK_BYTES..(at + 1) * CHUNK_BYTES;
            // SAFETY: no number of the chunk is in use; stale references see atomics become zero (`Stable`).
            if unsafe { self.memory.release_private(range) }.is_ok() {
                budget.give_back(chunk.charged, Use::Tables);
                *chunk = Chunk::new::<T>(at);
            }
        }
        state.with_room.insert(at);
    }

    /// Calls `visit` with every number in use. Slow; for checks.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(u32)) {
        let used: Vec<usize> = {
            let state = self.lock();
            let ids = |at: usize, chunk: &Chunk| {
                (0..chunk.touched)
                    .filter(|slot| chunk.is_used(*slot))
                    .map(move |slot| at * Self::SLOTS + slot)
                    .collect()
            };
            state.chunks.iter().enumerate().flat_map(|(at, chunk)| -> Vec<usize> { ids(at, chunk) }).collect()
        };
        for id in used {
            if let (Ok(id), true) = (u32::try_from(id), id != 0) {
                visit(id);
            }
        }
    }

    fn add_chunk(&self, state: &mut State) -> Result<usize, NoRoom> {
        let at = state.chunks.len();
        let range = at * CHUNK_BYTES..(at + 1) * CHUNK_BYTES;
        if range.end > self.memory.len() {
            return Err(NO_NUMBERS);
        }
        self.memory.commit_private(range, Pages::Small).map_err(|_| NO_NUMBERS)?;
        let committed = u32::try_from((at + 1) * Self::SLOTS).map_err(|_| NO_NUMBERS)?;
        state.chunks.push(Chunk::new::<T>(at));
        state.with_room.insert(at);
        // Release: pairs with the Acquire in `get`.
        self.committed.store(committed, Ordering::Release);
        Ok(at)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Chunk {
    /// Chunk `at`, all free. Number 0 means "none" to everybody and is never given out.
    fn new<T: Stable>(at: usize) -> Self {
        let mut in_use = vec![0; Slab::<T>::SLOTS.div_ceil(64)];
        in_use[0] = u64::from(at == 0);
        let taken = usize::from(at == 0);
        Self { in_use, used: taken, touched: taken, charged: 0 }
    }

    fn is_used(&self, slot: usize) -> bool {
        slot < self.touched && self.in_use[slot / 64] & (1 << (slot % 64)) != 0
    }

    /// The lowest free slot, marked as used.
    fn take_slot<T: Stable>(&mut self, budget: &Budget) -> Result<usize, NoRoom> {
        let full = |word: &u64| *word == u64::MAX;
        let word = self.in_use.iter().take_while(|word| full(word)).count();
        let slot = word * 64 + self.in_use[word].trailing_ones() as usize;
        debug_assert!(slot < Slab::<T>::SLOTS && !self.is_used(slot));
        if slot >= self.touched {
            let bytes = (slot + 1) * size_of::<T>();
            let held = bytes.next_multiple_of(PAGE_BYTES);
            if held > self.charged {
                budget.take(held - self.charged, Use::Tables, Claim::Put)?;
                self.charged = held;
            }
            self.touched = slot + 1;
        }
        self.in_use[word] |= 1 << (slot % 64);
        self.used += 1;
        Ok(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    struct Cell(AtomicU64, [AtomicU64; 30]);
    // SAFETY: atomics only.
    unsafe impl Stable for Cell {}

    #[test]
    fn numbers_are_reused_and_chunks_go_back() {
        let budget = Budget::new(1 << 30);
        let slab = Slab::<Cell>::new(100_000).unwrap();
        let ids: Vec<u32> = (0..40_000).map(|_| slab.alloc(&budget).unwrap()).collect();
        for id in &ids {
            // Relaxed: one thread.
            slab.get(*id).0.store(u64::from(*id), Ordering::Relaxed);
            slab.get(*id).1[29].store(1, Ordering::Relaxed);
        }
        assert!(ids.iter().all(|id| *id != 0 && slab.get(*id).0.load(Ordering::Relaxed) == u64::from(*id)));
        let full = budget.used();
        assert!(full >= 40_000 * size_of::<Cell>());
        let mut seen = 0;
        slab.for_each(|_| seen += 1);
        assert_eq!(seen, 40_000);
        for id in ids.iter().rev() {
            slab.free(*id, &budget);
        }
        assert!(budget.used() <= CHUNK_BYTES, "{} bytes are still held", budget.used());
        assert!((0..40_000).all(|_| slab.alloc(&budget).is_ok()));
        assert_eq!(budget.used(), full);
    }

    #[test]
    fn a_full_budget_is_refused() {
        let budget = Budget::new(crate::budget::RESERVE_BYTES + 8192);
        let slab = Slab::<Cell>::new(100_000).unwrap();
        let taken = (0..100_000).take_while(|_| slab.alloc(&budget).is_ok()).count();
        assert_eq!(taken, 8192 / size_of::<Cell>() - 1, "number 0 is not given out");
    }
}
