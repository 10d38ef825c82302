//! Addresses first, memory later.
//!
//! A [`Reservation`] is one `PROT_NONE` mapping. Parts of it are *committed*: made private anonymous memory, or
//! replaced by a mapping of a [`Memfd`]. Committed parts are *released* to give their memory back; the addresses stay
//! valid and read as zeros. The whole is unmapped on drop. A child made by `fork` does not inherit it: two processes
//! would believe that they own the same log.

use crate::mapped::{collapse, touch};
use crate::{HUGE_PAGE_BYTES, Memfd, PAGE_BYTES, SysError};
use core::ffi::c_void;
use core::ops::Range;
use core::ptr::NonNull;
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags};

/// Which pages a commit asks the kernel for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pages {
    /// Base pages, taken one by one as they are touched.
    Small,
    /// Huge pages where the system gives them (`MADV_HUGEPAGE`).
    Huge,
}

/// A stretch of addresses, aligned to [`HUGE_PAGE_BYTES`].
#[derive(Debug)]
pub struct Reservation {
    base: NonNull<u8>,
    len: usize,
    /// What was really mapped, alignment slack included.
    mapped: (NonNull<u8>, usize),
}

// SAFETY: a reservation is a number of addresses; its methods are system calls, which may be made from any thread.
unsafe impl Send for Reservation {}
// SAFETY: no method changes the reservation's own fields; the kernel serialises changes to the mapping.
unsafe impl Sync for Reservation {}

impl Reservation {
    /// Reserves `len` bytes (a multiple of [`HUGE_PAGE_BYTES`]).
    ///
    /// # Errors
    /// [`SysError::Reserve`] when the process may not have so many addresses.
    pub fn new(len: usize) -> Result<Self, SysError> {
        assert!(len > 0 && len.is_multiple_of(HUGE_PAGE_BYTES), "a reservation is whole huge pages: {len}");
        let mapped_len = len + HUGE_PAGE_BYTES;
        let failed = |errno| SysError::Reserve { bytes: mapped_len, errno };
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping at an address that the kernel chooses touches nothing that exists.
        let start = unsafe { rustix::mm::mmap_anonymous(core::ptr::null_mut(), mapped_len, ProtFlags::empty(), flags) };
        let start = NonNull::new(start.map_err(failed)?.cast::<u8>()).ok_or_else(|| failed(Errno::NOMEM))?;
        let slack = start.as_ptr().align_offset(HUGE_PAGE_BYTES);
        // SAFETY: slack < HUGE_PAGE_BYTES, and the mapping is that much longer than len.
        let base = unsafe { start.add(slack) };
        Ok(Self { base, len, mapped: (start, mapped_len) })
    }

    /// The first address.
    #[must_use]
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Bytes reserved.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a reservation is never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Makes `range` (bytes, whole pages) readable and writable private memory, zero until written.
    ///
    /// # Errors
    /// [`SysError::NoMemory`] when the overcommit policy refuses.
    pub fn commit_private(&self, range: Range<usize>, pages: Pages) -> Result<(), SysError> {
        let bytes = range.len();
        let address = self.address(&range);
        let prot = MprotectFlags::READ | MprotectFlags::WRITE;
        // SAFETY: the range lies in our own mapping (`address` asserts it), and more access breaks no reference into
        // it.
        let protected = unsafe { rustix::mm::mprotect(address, bytes, prot) };
        protected.map_err(|errno| SysError::NoMemory { bytes, errno })?;
        self.advise_new(&range, pages);
        Ok(())
    }

    /// Replaces `range` (bytes, whole huge pages, never committed before) by a mapping of the whole of `memfd`.
    ///
    /// # Errors
    /// [`SysError::NoMemory`] when the kernel refuses the mapping.
    ///
    /// # Panics
    /// When the memfd's size is not that of the range.
    pub fn commit_shared(&self, range: Range<usize>, memfd: &Memfd, pages: Pages) -> Result<(), SysError> {
        assert_eq!(range.len(), memfd.len(), "a memfd is mapped whole");
        let bytes = range.len();
        let address = self.address(&range);
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::FIXED | MapFlags::NORESERVE;
        // SAFETY: MAP_FIXED replaces a part of our own PROT_NONE mapping, into which no reference can exist.
        let mapped = unsafe { rustix::mm::mmap(address, bytes, prot, flags, memfd, 0) };
        mapped.map_err(|errno| SysError::NoMemory { bytes, errno })?;
        self.advise_new(&range, pages);
        Ok(())
    }

    /// Takes the memory for a committed `range` (bytes, whole huge pages) now, as huge pages if there are any. A later
    /// touch then cannot fail, where it would be a SIGBUS or the out-of-memory killer.
    ///
    /// Shared memory gets huge pages at a fault only where the system's `shmem_enabled` says so, and by default it
    /// does not. To collapse a range of which one page is there works in any case, and takes 0.19 ms for 2 MiB where
    /// 512 base pages take 1.8 ms (Linux 6.18, a virtual machine).
    ///
    /// # Errors
    /// [`SysError::NoMemory`] when there is none; kernels before 5.14 take it at the first touch instead.
    pub fn populate(&self, range: Range<usize>) -> Result<(), SysError> {
        let first = range.start..range.start + PAGE_BYTES;
        self.touch(&first)?;
        if self.collapse(&range) { Ok(()) } else { self.touch(&range) }
    }

    /// Makes huge pages of a committed `range` (bytes, whole huge pages) whose memory is in use already. Returns
    /// whether it did: there may be none to be had, or the kernel may be older than 6.1.
    pub fn collapse(&self, range: &Range<usize>) -> bool {
        // SAFETY: the range lies in our own mapping.
        unsafe { collapse(self.address(range), range.len()) }
    }

    fn touch(&self, range: &Range<usize>) -> Result<(), SysError> {
        // SAFETY: the range lies in our own mapping.
        unsafe { touch(self.address(range), range.len()) }
    }

    /// Gives the memory of a privately committed `range` back to the system. It reads as zeros afterwards.
    ///
    /// # Safety
    /// Nobody relies on the contents of the range, and references into it, if there are any, are to atomics only.
    ///
    /// # Errors
    /// [`SysError::Release`]; the memory is then still held.
    pub unsafe fn release_private(&self, range: Range<usize>) -> Result<(), SysError> {
        self.release(&range, Advice::LinuxDontNeed)
    }

    /// Gives the memory of a shared committed `range` back to the system, by a hole in its memfd.
    ///
    /// # Safety
    /// Nobody relies on the contents of the range, and no reference into it exists.
    ///
    /// # Errors
    /// [`SysError::Release`]; the memory is then still held.
    pub unsafe fn release_shared(&self, range: Range<usize>) -> Result<(), SysError> {
        self.release(&range, Advice::LinuxRemove)
    }

    fn release(&self, range: &Range<usize>, advice: Advice) -> Result<(), SysError> {
        let bytes = range.len();
        let address = self.address(range);
        // SAFETY: the range lies in our own mapping; the callers' contract says that nobody needs what it holds.
        let released = unsafe { rustix::mm::madvise(address, bytes, advice) };
        released.map_err(|errno| SysError::Release { bytes, errno })
    }

    /// What a fresh part is to be like. Both are advice: a kernel that knows neither still gives correct memory.
    fn advise_new(&self, range: &Range<usize>, pages: Pages) {
        let address = self.address(range);
        if pages == Pages::Huge {
            // SAFETY: page size is invisible to whoever reads or writes.
            let _ = unsafe { rustix::mm::madvise(address, range.len(), Advice::LinuxHugepage) };
        }
        // SAFETY: concerns children of a later fork only.
        let _ = unsafe { rustix::mm::madvise(address, range.len(), Advice::LinuxDontFork) };
    }

    /// The address of a range, which is asserted to be whole pages of this reservation.
    fn address(&self, range: &Range<usize>) -> *mut c_void {
        assert!(range.start < range.end && range.end <= self.len, "{range:?} is not within {} bytes", self.len);
        assert!(
            range.start.is_multiple_of(PAGE_BYTES) && range.end.is_multiple_of(PAGE_BYTES),
            "{range:?}: whole pages"
        );
        // SAFETY: start < len, so the result lies in the same mapping.
        unsafe { self.base.add(range.start) }.as_ptr().cast()
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let (start, len) = self.mapped;
        // SAFETY: the mapping is ours, and whoever holds pointers into it borrows or owns the reservation.
        let unmapped = unsafe { rustix::mm::munmap(start.as_ptr().cast(), len) };
        debug_assert!(unmapped.is_ok(), "munmap of our own mapping failed: {unmapped:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A byte of the reservation.
    fn byte(reservation: &Reservation, offset: usize) -> &core::sync::atomic::AtomicU8 {
        assert!(offset < reservation.len());
        // SAFETY: offset is within the mapping.
        let at = unsafe { reservation.base().add(offset) };
        // SAFETY: the tests commit what they look at, and look at it as atomics only.
        unsafe { at.cast().as_ref() }
    }

    #[test]
    fn private_memory_reads_as_zero_after_release() {
        let reservation = Reservation::new(4 * HUGE_PAGE_BYTES).unwrap();
        assert!(reservation.base().as_ptr().addr().is_multiple_of(HUGE_PAGE_BYTES));
        let range = HUGE_PAGE_BYTES..2 * HUGE_PAGE_BYTES;
        reservation.commit_private(range.clone(), Pages::Huge).unwrap();
        let cell = byte(&reservation, HUGE_PAGE_BYTES + 77);
        cell.store(7, core::sync::atomic::Ordering::Relaxed); // one thread: nothing to order
        // SAFETY: only `cell`, an atomic, refers to the range.
        unsafe { reservation.release_private(range) }.unwrap();
        assert_eq!(cell.load(core::sync::atomic::Ordering::Relaxed), 0); // one thread: nothing to order
    }

    #[test]
    fn shared_memory_takes_and_gives_back_what_it_holds() {
        let before = crate::resident_bytes().unwrap().shared;
        let reservation = Reservation::new(16 * HUGE_PAGE_BYTES).unwrap();
        let memfd = Memfd::sealed("tmem-test", 16 * HUGE_PAGE_BYTES).unwrap();
        let range = 0..16 * HUGE_PAGE_BYTES;
        reservation.commit_shared(range.clone(), &memfd, Pages::Huge).unwrap();
        reservation.populate(range.clone()).unwrap();
        assert!(crate::resident_bytes().unwrap().shared >= before + range.len());
        // SAFETY: nothing refers to the range.
        unsafe { reservation.release_shared(range.clone()) }.unwrap();
        assert!(crate::resident_bytes().unwrap().shared < before + range.len());
    }
}
