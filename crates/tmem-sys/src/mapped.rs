//! Shared memory in this process's address space.

use crate::guard::Guard;
use crate::{HUGE_PAGE_BYTES, Memfd, PAGE_BYTES, SysError};
use core::ffi::c_void;
use core::ptr::NonNull;
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};

/// The whole of a memfd, mapped readable and writable until this is dropped.
#[derive(Debug)]
pub(crate) struct Mapped {
    start: NonNull<u8>,
    len: usize,
    guard: Option<Guard>,
}

// SAFETY: an address and a length. Whoever drops it may unmap from any thread.
unsafe impl Send for Mapped {}
// SAFETY: no method changes anything; what is at the address is for those to order who use it.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// Maps it where the kernel likes. Of huge pages it reserves as many as it takes.
    pub(crate) fn new(memfd: &Memfd) -> Result<Self, Errno> {
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address that the kernel chooses touches nothing that exists.
        let start = unsafe { mmap(core::ptr::null_mut(), memfd.len(), prot, MapFlags::SHARED, memfd, 0) }?;
        Ok(Self { start: NonNull::new(start.cast()).ok_or(Errno::NOMEM)?, len: memfd.len(), guard: None })
    }

    /// Maps it at a multiple of `align` (a power of two, at least a page); reserves no memory.
    pub(crate) fn aligned(memfd: &Memfd, align: usize) -> Result<Self, Errno> {
        let len = memfd.len();
        let with_slack = len + (align - PAGE_BYTES);
        let nowhere = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping at an address that the kernel chooses touches nothing that exists.
        let free = unsafe { mmap_anonymous(core::ptr::null_mut(), with_slack, ProtFlags::empty(), nowhere) }?;
        let before = free.cast::<u8>().align_offset(align);
        // SAFETY: both are page-aligned, so `before` is at most the slack.
        let start = unsafe { free.byte_add(before) };
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::NORESERVE | MapFlags::FIXED;
        // SAFETY: replaces a part of our own mapping, into which nothing refers yet.
        let mapped = unsafe { mmap(start, len, prot, flags, memfd, 0) };
        if let Err(errno) = mapped {
            // SAFETY: our own mapping, into which nothing refers.
            unsafe { unmap(free, with_slack) };
            return Err(errno);
        }
        // SAFETY: what lies before the memfd is our own, and nothing refers into it.
        unsafe { unmap(free, before) };
        // SAFETY: the end of the memfd's mapping, which is at most the end of ours.
        let end = unsafe { start.byte_add(len) };
        // SAFETY: as before it, so after it.
        unsafe { unmap(end, with_slack - before - len) };
        Ok(Self { start: NonNull::new(start.cast()).ok_or(Errno::NOMEM)?, len, guard: None })
    }

    /// From now on a fault in it does not end the process: see [`Guard`].
    pub(crate) fn guarded(mut self) -> Self {
        // SAFETY: a mapping of our own, which stays until after the guard is gone (`drop`); what is in memory that
        // others write to may be zeros at any time.
        self.guard = Some(unsafe { Guard::new(self.start, self.len) });
        self
    }

    /// Whether a fault has made zeros of it.
    pub(crate) fn is_lost(&self) -> bool {
        self.guard.as_ref().is_some_and(Guard::is_lost)
    }

    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Takes its memory now, as huge pages if there are any.
    pub(crate) fn populate(&self) -> Result<(), SysError> {
        let start = self.start.as_ptr();
        for at in (0..self.len).step_by(HUGE_PAGE_BYTES) {
            // SAFETY: below the mapping's length.
            let first = unsafe { start.add(at) };
            // SAFETY: our own mapping, a page of it.
            unsafe { touch(first.cast(), PAGE_BYTES) }?;
        }
        let start = start.cast();
        // SAFETY: our own mapping.
        let _ = unsafe { collapse(start, self.len) };
        // What could not be collapsed: all, or what is less than a huge page at the end.
        // SAFETY: our own mapping.
        unsafe { touch(start, self.len) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // First: the addresses may be somebody else's as soon as they are unmapped.
        self.guard = None;
        // SAFETY: our own mapping, and references into it have borrowed `self`.
        unsafe { unmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// # Safety
/// The range is mapped by us, and nothing refers into it; or it is empty.
unsafe fn unmap(address: *mut c_void, bytes: usize) {
    if bytes == 0 {
        return;
    }
    // SAFETY: the caller's contract.
    let unmapped = unsafe { munmap(address, bytes) };
    debug_assert!(unmapped.is_ok(), "munmap of our own mapping failed: {unmapped:?}");
}

/// Takes base pages for a range that has none yet; kernels before 5.14 take them at the first touch instead.
///
/// # Safety
/// The range is whole pages of a mapping of the caller's.
pub(crate) unsafe fn touch(address: *mut c_void, bytes: usize) -> Result<(), SysError> {
    // SAFETY: mapped (the caller's contract), and what it holds stays as it is.
    match unsafe { madvise(address, bytes, Advice::LinuxPopulateWrite) } {
        Ok(()) | Err(Errno::INVAL) => Ok(()),
        Err(errno) => Err(SysError::NoMemory { bytes, errno }),
    }
}

/// Makes huge pages of a range, and returns whether it did: there may be none to be had, or the kernel may be older than
/// 6.1.
///
/// # Safety
/// The range is whole pages of a mapping of the caller's.
pub(crate) unsafe fn collapse(address: *mut c_void, bytes: usize) -> bool {
    // SAFETY: mapped (the caller's contract); page size is invisible to whoever reads or writes.
    unsafe { libc::madvise(address, bytes, libc::MADV_COLLAPSE) == 0 }
}
