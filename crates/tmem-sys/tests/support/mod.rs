//! Memory to page, and one test at a time: a fork or a mapping of one test would be an event, or a page, of another.

#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(clippy::unwrap_used, reason = "a test ends there")]

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mm::{MapFlags, ProtFlags};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tmem_sys::{Event, PAGE_BYTES, Userfaultfd};

pub(crate) const PAGE: u64 = PAGE_BYTES as u64;

static ALONE: Mutex<()> = Mutex::new(());

/// While it is held, no other test of this binary runs.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Private anonymous memory that was never touched, with room in front of it so that it has neighbours of its own
/// only.
pub(crate) struct Area {
    base: u64,
    bytes: usize,
    mapped: (usize, usize),
}

impl Area {
    pub(crate) fn pages(pages: usize) -> Self {
        Self::aligned(pages * PAGE_BYTES, PAGE_BYTES)
    }

    pub(crate) fn aligned(bytes: usize, align: usize) -> Self {
        let len = bytes + 2 * align;
        // SAFETY: a new mapping where the kernel likes.
        let guard =
            unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), len, ProtFlags::empty(), MapFlags::PRIVATE) };
        let guard = guard.unwrap();
        let base = (guard.addr() + align).next_multiple_of(align).min(guard.addr() + len - bytes);
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
        // SAFETY: replaces a part of the mapping just made.
        unsafe { rustix::mm::mmap_anonymous(guard.with_addr(base), bytes, prot, flags).unwrap() };
        Self { base: base as u64, bytes, mapped: (guard.expose_provenance(), len) }
    }

    pub(crate) fn range(&self) -> Range<u64> {
        self.base..self.base + self.bytes as u64
    }

    pub(crate) fn page(&self, page: u64) -> u64 {
        self.base + page * PAGE
    }

    pub(crate) fn pages_range(&self, pages: Range<u64>) -> Range<u64> {
        self.page(pages.start)..self.page(pages.end)
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: ours, and the tests keep no references into it. A test may have unmapped a part.
        let _ = unsafe { rustix::mm::munmap(pointer(self.mapped.0 as u64).cast(), self.mapped.1) };
    }
}

fn pointer(address: u64) -> *mut u8 {
    std::ptr::with_exposed_provenance_mut(usize::try_from(address).unwrap())
}

/// Reads a byte of an [`Area`].
pub(crate) fn load(address: u64) -> u8 {
    // SAFETY: the tests pass addresses of areas that are mapped.
    unsafe { pointer(address).read_volatile() }
}

/// Writes a byte of an [`Area`].
pub(crate) fn store(address: u64, value: u8) {
    // SAFETY: as for `load`; tests write a byte from one thread at a time.
    unsafe { pointer(address).write_volatile(value) }
}

/// The kernel's advice for a range of an [`Area`].
pub(crate) fn advise(range: Range<u64>, advice: libc::c_int) -> bool {
    let len = usize::try_from(range.end - range.start).unwrap();
    // SAFETY: the range is an area's; no test relies on what it discards.
    unsafe { libc::madvise(pointer(range.start).cast(), len, advice) == 0 }
}

/// Makes a range of an [`Area`] read-only.
pub(crate) fn write_protect(range: Range<u64>) {
    let len = usize::try_from(range.end - range.start).unwrap();
    // SAFETY: the range is an area's, and nobody writes to it any more.
    assert_eq!(unsafe { libc::mprotect(pointer(range.start).cast(), len, libc::PROT_READ) }, 0);
}

/// Unmaps a range of an [`Area`].
pub(crate) fn unmap(range: Range<u64>) {
    let len = usize::try_from(range.end - range.start).unwrap();
    // SAFETY: the range is an area's, and nobody refers to it.
    unsafe { rustix::mm::munmap(pointer(range.start).cast(), len).unwrap() };
}

/// Moves a range of an [`Area`] to another place of one.
pub(crate) fn remap(from: Range<u64>, to: u64) {
    let len = usize::try_from(from.end - from.start).unwrap();
    let flags = rustix::mm::MremapFlags::MAYMOVE;
    let (from, to) = (pointer(from.start).cast(), pointer(to).cast());
    // SAFETY: both are areas', and nobody refers to them.
    unsafe { rustix::mm::mremap_fixed(from, len, len, flags, to).unwrap() };
}

/// A child that is a copy of this process, runs `child`, and exits with what it returns. `child` may not allocate,
/// nor may a thread that has to read the fork's event before this returns: fork holds the allocator's locks.
pub(crate) fn fork(child: impl FnOnce() -> u8) -> libc::pid_t {
    // SAFETY: the child makes no call that takes a lock.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let status = child();
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(status.into()) }
    }
    assert!(pid > 0);
    pid
}

/// The exit status of a child.
pub(crate) fn wait_for(pid: libc::pid_t) -> i32 {
    let mut status = 0;
    // SAFETY: `status` is ours.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    assert!(libc::WIFEXITED(status), "{status:#x}");
    libc::WEXITSTATUS(status)
}

/// The calling thread's number.
pub(crate) fn own_thread() -> u32 {
    rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs()
}

/// Waits for messages, at most ten seconds.
pub(crate) fn events(uffd: &Userfaultfd) -> Vec<Event> {
    let mut fds = [PollFd::new(uffd, PollFlags::IN)];
    assert_eq!(poll(&mut fds, Some(&Timespec { tv_sec: 10, tv_nsec: 0 })), Ok(1), "no event came");
    let mut events = Vec::new();
    uffd.read_events(&mut events).unwrap();
    events
}
