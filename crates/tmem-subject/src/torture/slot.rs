//! A mapping with its shadow.

use crate::options::Sabotage;
use crate::pattern::Random;
use crate::region::Region;
use crate::sys::{self, HUGE, PAGE, RW, WORDS, demand};
use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::ops::Range;

/// Entries of a history.
const HISTORY: usize = 40;
/// Pages of slots that may be locked, at most.
const LOCKABLE: usize = 64;

/// What may be done to a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Anything.
    Write,
    /// Only reading.
    Read,
    /// Nothing.
    None,
}

impl Access {
    fn protection(self) -> i32 {
        match self {
            Self::Write => RW,
            Self::Read => libc::PROT_READ,
            Self::None => libc::PROT_NONE,
        }
    }
}

/// A mapping, what it must hold, and what was done to it.
#[derive(Debug)]
pub(super) struct Slot {
    region: Region,
    /// By page: given to the kernel by MADV_FREE and not written since, so it may be zeros.
    free: Vec<bool>,
    access: Access,
    locked: bool,
    /// One mapping of the kernel's, so that it can be moved; not once something was mapped over a part of it.
    whole: bool,
    history: VecDeque<String>,
}

impl Slot {
    /// New memory; large ones want huge pages at times.
    pub(super) fn new(pages: usize, seed: u64, random: &mut Random) -> Self {
        let huge = pages >= HUGE / PAGE && random.below(2) == 0;
        let base = if huge {
            let base = sys::map(pages * PAGE + HUGE, RW, 0);
            let start = base.next_multiple_of(HUGE);
            // What sticks out on both sides goes.
            [(base, start - base), (start + pages * PAGE, base + HUGE - start)]
                .into_iter()
                .filter(|(_, bytes)| *bytes > 0)
                .for_each(|(at, bytes)| sys::unmap(at, bytes));
            let _ = sys::advise(start, pages * PAGE, libc::MADV_HUGEPAGE);
            start
        } else {
            sys::map(pages * PAGE, RW, 0)
        };
        let region = Region::at(base, pages, seed);
        let mut slot = Self {
            region,
            free: vec![false; pages],
            access: Access::Write,
            locked: false,
            whole: true,
            history: VecDeque::new(),
        };
        slot.note(|| format!("mapped {pages} pages at {base:#x}, huge: {huge}"));
        slot
    }

    pub(super) fn pages(&self) -> usize {
        self.region.pages()
    }

    pub(super) fn access(&self) -> Access {
        self.access
    }

    fn note(&mut self, what: impl FnOnce() -> String) {
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        self.history.push_back(what());
    }

    fn run(&self, random: &mut Random) -> Range<usize> {
        let start = random.below(self.pages());
        start..(start + 1 + random.below(48)).min(self.pages())
    }

    /// Whether the mapping may be changed.
    fn is_free_to_change(&self) -> bool {
        self.access == Access::Write && !self.locked
    }

    /// Breaks every page, to see that it is noticed.
    pub(super) fn sabotage(&mut self, how: Sabotage) {
        if self.access == Access::Write {
            self.region.sabotage(self.region.all(), how);
        }
    }

    pub(super) fn unmap(self) {
        sys::unmap(self.region.base, self.region.bytes());
    }

    /// Unmaps the head or the tail.
    pub(super) fn cut(&mut self, random: &mut Random) {
        if self.pages() < 2 {
            return;
        }
        let pages = 1 + random.below(self.pages() / 2);
        let kept = self.pages() - pages;
        self.note(|| format!("cut {pages} pages"));
        // Only tails: pages are numbered from the head.
        sys::unmap(self.region.address(kept), pages * PAGE);
        self.region.versions.truncate(kept);
        self.free.truncate(kept);
    }

    /// Moves it to a new place.
    pub(super) fn relocate(&mut self) {
        if !self.whole || self.locked {
            return;
        }
        let bytes = self.region.bytes();
        let place = sys::map(bytes, libc::PROT_NONE, libc::MAP_NORESERVE);
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        let was = self.region.base;
        self.region.base = demand(sys::remap(was, bytes, bytes, flags, place), "mremap to another place");
        self.note(|| format!("moved from {was:#x} to {place:#x}"));
    }

    /// Makes it larger or smaller.
    pub(super) fn resize(&mut self, random: &mut Random, room: usize) {
        if !self.whole || !self.is_free_to_change() {
            return;
        }
        let (old, base) = (self.pages(), self.region.base);
        let new = if random.below(2) == 0 { old + random.below(64).min(room) } else { 1 + random.below(old) };
        let moved = sys::remap(base, old * PAGE, new * PAGE, libc::MREMAP_MAYMOVE, 0);
        self.region.base = demand(moved, "mremap to another size");
        self.note(|| format!("from {old} pages to {new}"));
        self.region.versions.resize(new, 0);
        self.free.resize(new, false);
        (old..new).for_each(|index| self.check(index));
    }

    /// Moves it and keeps the old mapping for a moment, which must be empty.
    pub(super) fn leave_behind(&mut self, random: &mut Random) {
        if !self.whole || !self.is_free_to_change() {
            return;
        }
        let (was, bytes) = (self.region.base, self.region.bytes());
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_DONTUNMAP;
        self.region.base = demand(sys::remap(was, bytes, bytes, flags, 0), "mremap(MREMAP_DONTUNMAP)");
        self.note(|| format!("left {was:#x} behind"));
        let mut left = Region::at(was, self.pages(), !self.region.seed);
        left.check_some(random, 4);
        left.write(random.below(left.pages()));
        self.check_run(random);
        left.check_some(random, 4);
        sys::unmap(was, bytes);
    }

    /// MADV_DONTNEED.
    pub(super) fn discard(&mut self, random: &mut Random) {
        let run = self.run(random);
        if self.locked {
            return;
        }
        sys::discard(self.region.address(run.start), run.len() * PAGE);
        self.note(|| format!("DONTNEED {run:?}"));
        self.forget(run);
    }

    /// These pages are zeros now.
    fn forget(&mut self, run: Range<usize>) {
        self.region.zeroed(run.clone());
        self.free[run].fill(false);
    }

    /// MADV_FREE.
    pub(super) fn free(&mut self, random: &mut Random) {
        let run = self.run(random);
        if self.locked {
            return;
        }
        demand(sys::advise(self.region.address(run.start), run.len() * PAGE, libc::MADV_FREE), "madvise(MADV_FREE)");
        self.note(|| format!("FREE {run:?}"));
        self.free[run].fill(true);
    }

    /// Changes what may be done to it.
    pub(super) fn protect(&mut self, access: Access) {
        if self.locked {
            return;
        }
        sys::protect(self.region.base, self.region.bytes(), access.protection());
        self.note(|| format!("{access:?}"));
        self.access = access;
    }

    /// Maps new memory over a part.
    pub(super) fn map_over(&mut self, random: &mut Random) {
        if !self.is_free_to_change() {
            return;
        }
        let run = self.run(random);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        demand(sys::map_at(self.region.address(run.start), run.len() * PAGE, RW, flags, usize::MAX), "mmap(MAP_FIXED)");
        self.note(|| format!("mapped over {run:?}"));
        self.whole = false;
        self.forget(run);
    }

    /// Locks it, or lets it go.
    pub(super) fn lock(&mut self) {
        if self.access != Access::Write || self.pages() > LOCKABLE {
            return;
        }
        let number = if self.locked { libc::SYS_munlock } else { libc::SYS_mlock };
        demand(sys::call(number, &[self.region.base, self.region.bytes()]), "mlock or munlock");
        self.locked = !self.locked;
        let locked = self.locked;
        self.note(|| format!("locked: {locked}"));
    }

    /// Has the kernel write zeros.
    pub(super) fn read_zeros(&mut self, random: &mut Random) {
        if self.access != Access::Write {
            return;
        }
        let run = self.run(random);
        let mut zeros = vec![1_u8; run.len() * PAGE];
        demand(File::open("/dev/zero").and_then(|mut file| file.read_exact(&mut zeros)), "read /dev/zero");
        let (local, remote) =
            ([zeros.as_ptr() as usize, zeros.len()], [self.region.address(run.start), run.len() * PAGE]);
        let pieces = [std::process::id() as usize, local.as_ptr() as usize, 1, remote.as_ptr() as usize, 1, 0];
        let done = demand(sys::call(libc::SYS_process_vm_writev, &pieces), "process_vm_writev");
        assert_eq!(done, zeros.len(), "process_vm_writev did less than asked");
        self.note(|| format!("zeros by the kernel {run:?}"));
        self.forget(run);
    }

    pub(super) fn write_run(&mut self, random: &mut Random) {
        if self.access != Access::Write {
            return;
        }
        let run = self.run(random);
        self.note(|| format!("wrote {run:?}"));
        for index in run {
            // A version is not used twice: what comes back must not be what was written and discarded.
            self.region.versions[index] = (random.next() as u32 & 0xf_fffe) + 1;
            sys::poke_page(self.region.address(index), &self.region.expected(index));
            self.free[index] = false;
        }
    }

    pub(super) fn check_run(&mut self, random: &mut Random) {
        let run = self.run(random);
        run.for_each(|index| self.check(index));
    }

    pub(super) fn check_all(&mut self) {
        (0..self.pages()).for_each(|index| self.check(index));
    }

    fn check(&mut self, index: usize) {
        if self.access == Access::None {
            return;
        }
        let found = sys::peek_page(self.region.address(index));
        if self.free[index] && found == [0; WORDS] {
            self.forget(index..index + 1);
        } else if found != self.region.expected(index) {
            eprintln!("history: {:#?}", self.history);
            eprintln!(
                "access {:?}, locked {}, whole {}, free {}",
                self.access, self.locked, self.whole, self.free[index]
            );
            self.region.check(index);
            sys::exit(sys::WRONG);
        }
    }
}
