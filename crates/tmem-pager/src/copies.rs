//! Copies: blocks of pages that came back, kept in case they leave again unchanged. What the kernel's swap cache is for.
//!
//! To encode a page takes longer than all else about its eviction, and a block that is given up leaves a hole in the store
//! that the cleaner must close. Both are spared for a page whose copy is still right.
//!
//! | who | does what |
//! |---|---|
//! | server | has given a page, and its slot has no other name: makes that its copy, with a digest of what it gave |
//! | evictor | takes the page: it gets the same slot again, and the agent is told the digest |
//! | agent | finds that digest in what was moved to staging, and leaves it at that; or encodes |
//! | evictor | makes the slot stored: by what the store still holds, or by the new block, which replaces that |
//!
//! **Nothing is ever read from a copy** before the agent has found its digest in the page, after the page was moved, when
//! the program cannot change it any more. So whatever happens to the page or its address in between makes a copy useless
//! and never wrong: who forgets a page lets its copy go, a child inherits none, and nobody else needs to know that there
//! are any. Two pages that differ have the same digest under one key in 2^64 at most ([`tmem_agent::digest`]).
//!
//! # When it is worth it
//! A copy takes memory in which another page could be resident. For pages that come in order that is no loss: those of a
//! sequence longer than memory are gone when it comes round again, however many are resident, and while it goes on the
//! evictor is what it waits for. Pages that come one by one wait for their faults, of which there are more if less is
//! resident: with copies of them, random touches took a tenth longer (512 MiB in 256), and two threads as long. So only
//! pages that a sequence has come to ([`crate::streams`]) have copies, while
//! - evicted pages are twice as many as resident ones, at least: in more memory than that, what is resident counts,
//! - the store is small enough for it ([`Core::is_ample`]),
//! - half of them or more turn out to be unchanged. If less do, one in [`SAMPLE`] is made, to notice when that changes.
//!
//! A page that is touched while it waits in staging loses its copy: it is in use, and will stay. When there is no room and
//! nothing else helps, all copies are given up.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use tmem_agent::protocol::PAGE_BYTES;

use crate::core::Core;
use crate::lock;

/// Tests of the kernel's errors are to meet copies of all that comes back.
pub(crate) const OF_ALL: bool = cfg!(feature = "fault-injection");

/// Of so many pages, one is given a copy where most turn out to be changed.
const SAMPLE: u32 = 16;
/// Evicted pages for each resident one, at least.
const EVICTED_FOR_RESIDENT: u64 = 2;
/// Copies that are looked back on.
const MEMORY: u64 = 4096;

/// Whether copies are worth it. All numbers are estimates, and publish nothing: every access is relaxed.
#[derive(Debug, Default)]
pub(crate) struct Worth {
    /// One page in so many is given a copy; 0: none.
    one_in: AtomicU32,
    asked: AtomicU32,
    /// Copies whose pages were evicted again, and how many of those were unchanged. The evictor's.
    tried: AtomicU64,
    same: AtomicU64,
}

impl Worth {
    /// Whether the next page is to be given a copy.
    pub(crate) fn is_due(&self) -> bool {
        match self.one_in.load(Relaxed) {
            0 => false,
            1 => true,
            one_in => self.asked.fetch_add(1, Relaxed).is_multiple_of(one_in), // see the type
        }
    }

    /// So many pages that had copies were evicted, and so many of those were as they had been.
    pub(crate) fn learn(&self, tried: usize, same: usize) {
        // Relaxed, all: see the type.
        let (tried, same) = (self.tried.load(Relaxed) + tried as u64, self.same.load(Relaxed) + same as u64);
        let halves = u32::from(tried > MEMORY);
        self.tried.store(tried >> halves, Relaxed); // see the type
        self.same.store(same >> halves, Relaxed); // see the type
    }

    /// Works out anew whether copies are to be made.
    pub(crate) fn judge(&self, core: &Core) {
        let resident = core.counters.resident_now.get() / PAGE_BYTES;
        let evicted = lock(&core.slots).stored() as u64;
        let much = evicted >= resident * EVICTED_FOR_RESIDENT;
        let pays = self.same.load(Relaxed) * 2 >= self.tried.load(Relaxed); // see the type
        let one_in = if OF_ALL {
            1
        } else if !much || !core.is_ample() {
            0
        } else if pays {
            1
        } else {
            SAMPLE
        };
        self.one_in.store(one_in, Relaxed); // see the type
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(worth: &Worth, of: usize) -> usize {
        (0..of).filter(|_| worth.is_due()).count()
    }

    #[test]
    fn one_page_in_so_many_is_given_a_copy() {
        let worth = Worth::default();
        assert_eq!(due(&worth, 160), 0);
        worth.one_in.store(1, Relaxed); // see the type, here and below
        assert_eq!(due(&worth, 160), 160);
        worth.one_in.store(SAMPLE, Relaxed); // as above
        assert_eq!(due(&worth, 160), 10);
    }

    #[test]
    fn what_was_long_ago_counts_little() {
        let worth = Worth::default();
        worth.learn(1_000_000, 0);
        (0..20).for_each(|_| worth.learn(5000, 5000));
        let (tried, same) = (worth.tried.load(Relaxed), worth.same.load(Relaxed)); // see the type
        assert!(same * 10 > tried * 9, "{same} of {tried}");
    }
}
