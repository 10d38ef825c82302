//! Memory that is shared with another process, as a type made of atomics.

use core::ops::Deref;
use core::ptr::NonNull;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::mm::{MapFlags, ProtFlags};

use crate::{Memfd, PAGE_BYTES, SysError};

/// What may lie in memory that another process writes to at any time.
///
/// # Safety
/// The type consists of atomics only, is valid whatever its bytes are, and is not aligned to more than a page.
pub unsafe trait SharedMemory {}

/// A `T` in a memfd of its own, zeroed at first.
#[derive(Debug)]
pub struct Shared<T: SharedMemory> {
    memfd: Memfd,
    at: NonNull<T>,
}

// SAFETY: a T consists of atomics, which may be used from any thread.
unsafe impl<T: SharedMemory> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: SharedMemory> Sync for Shared<T> {}

impl<T: SharedMemory> Shared<T> {
    /// Makes one; `name` shows in `/proc/PID/maps`.
    ///
    /// # Errors
    /// [`SysError`].
    pub fn new(name: &str) -> Result<Self, SysError> {
        const { assert!(align_of::<T>() <= PAGE_BYTES) };
        let len = size_of::<T>().next_multiple_of(PAGE_BYTES);
        let memfd = Memfd::sealed(name, len)?;
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        let no_memory = |errno| SysError::NoMemory { bytes: len, errno };
        // SAFETY: a new mapping at an address that the kernel chooses touches nothing that exists.
        let at = unsafe { rustix::mm::mmap(core::ptr::null_mut(), len, prot, MapFlags::SHARED, &memfd, 0) };
        let at = NonNull::new(at.map_err(no_memory)?.cast::<T>());
        let at = at.ok_or_else(|| no_memory(rustix::io::Errno::NOMEM))?;
        Ok(Self { memfd, at })
    }

    /// For the other process.
    #[must_use]
    pub fn memfd(&self) -> BorrowedFd<'_> {
        self.memfd.as_fd()
    }
}

impl<T: SharedMemory> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: mapped for as long as `self` lives, of T's size and alignment, sealed against shrinking; any bytes are a T, and what
        // others write they write to atomics (the trait's contract).
        unsafe { self.at.as_ref() }
    }
}

impl<T: SharedMemory> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and references into it borrow `self`.
        let unmapped = unsafe { rustix::mm::munmap(self.at.as_ptr().cast(), self.memfd.len()) };
        debug_assert!(unmapped.is_ok(), "munmap of our own mapping failed: {unmapped:?}");
    }
}
