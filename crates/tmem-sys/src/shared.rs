//! A value that other processes see too.

use crate::{Memfd, PAGE_BYTES, SysError};
use core::ops::Deref;
use core::ptr::NonNull;
use rustix::mm::{MapFlags, ProtFlags};
use std::os::fd::{AsFd, BorrowedFd};

/// A type that can lie in memory which other processes write to.
///
/// # Safety
/// It is `repr(C)`, consists of atomics alone (arrays and structs of them, and padding), any bytes are a value of it, and
/// it needs no drop. Its alignment is at most a page's.
pub unsafe trait SharedMemory: Sync {}

// SAFETY: an atomic; any bytes are a number.
unsafe impl SharedMemory for core::sync::atomic::AtomicU32 {}
// SAFETY: an atomic; any bytes are a number.
unsafe impl SharedMemory for core::sync::atomic::AtomicU64 {}
// SAFETY: an array is its elements side by side, each of which is fit.
unsafe impl<T: SharedMemory, const N: usize> SharedMemory for [T; N] {}

/// A memfd, mapped in this process as a `T`. It starts as zeros, and stays mapped until this is dropped; a child made by
/// fork shares it.
#[derive(Debug)]
pub struct Shared<T: SharedMemory> {
    value: NonNull<T>,
    memfd: Memfd,
}

// SAFETY: it is a reference to a `T`, which is Sync, and a descriptor; whoever drops it unmaps from any thread.
unsafe impl<T: SharedMemory> Send for Shared<T> {}
// SAFETY: it only gives out `&T`, and `T` is Sync.
unsafe impl<T: SharedMemory> Sync for Shared<T> {}

impl<T: SharedMemory> Shared<T> {
    /// Bytes of the memfd: whole pages.
    pub const BYTES: usize = {
        assert!(size_of::<T>() > 0 && align_of::<T>() <= PAGE_BYTES, "a value that fits a mapping");
        size_of::<T>().next_multiple_of(PAGE_BYTES)
    };

    /// Makes one, all zeros. `name` shows in `/proc/PID/maps`.
    ///
    /// # Errors
    /// [`SysError::Memfd`] or [`SysError::NoMemory`].
    pub fn new(name: &str) -> Result<Self, SysError> {
        let memfd = Memfd::sealed(name, Self::BYTES)?;
        let failed = |errno| SysError::NoMemory { bytes: Self::BYTES, errno };
        let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a new mapping at an address that the kernel chooses touches nothing that exists.
        let address = unsafe { rustix::mm::mmap(core::ptr::null_mut(), Self::BYTES, prot, flags, &memfd, 0) };
        let value = NonNull::new(address.map_err(failed)?.cast()).ok_or_else(|| failed(rustix::io::Errno::NOMEM))?;
        Ok(Self { value, memfd })
    }

    /// What other processes map: [`Self::BYTES`] long, sealed at that size.
    #[must_use]
    pub fn memfd(&self) -> BorrowedFd<'_> {
        self.memfd.as_fd()
    }
}

impl<T: SharedMemory> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: mapped until drop, page-aligned, long enough (BYTES), never shorter (sealed); any bytes are a `T`, and
        // what other processes write is atomics only.
        unsafe { self.value.as_ref() }
    }
}

impl<T: SharedMemory> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and references into it have borrowed `self`.
        let unmapped = unsafe { rustix::mm::munmap(self.value.as_ptr().cast(), Self::BYTES) };
        debug_assert!(unmapped.is_ok(), "munmap of our own mapping failed: {unmapped:?}");
    }
}
