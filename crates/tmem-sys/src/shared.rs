//! A value that other processes see too.

use crate::mapped::Mapped;
use crate::{Memfd, PAGE_BYTES, SysError};
use core::marker::PhantomData;
use core::ops::Deref;
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

/// A memfd, mapped in this process as a `T`. It starts as zeros, and stays mapped until this is dropped; a child made
/// by fork shares it.
#[derive(Debug)]
pub struct Shared<T: SharedMemory> {
    mapped: Mapped,
    memfd: Memfd,
    value: PhantomData<T>,
}

// SAFETY: it is a reference to a `T`, which is Sync, and what may be dropped in any thread.
unsafe impl<T: SharedMemory> Send for Shared<T> {}

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
        let mapped = Mapped::new(&memfd).map_err(|errno| SysError::NoMemory { bytes: Self::BYTES, errno })?;
        Ok(Self { mapped, memfd, value: PhantomData })
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
        // SAFETY: mapped until drop, page-aligned, long enough (BYTES), never shorter (sealed); any bytes are a `T`,
        // and what other processes write is atomics only.
        unsafe { self.mapped.start().cast().as_ref() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::futex::{Waited, wait, wake};
    use core::sync::atomic::{AtomicU32, Ordering};
    use core::time::Duration;
    use rustix::mm::{MapFlags, ProtFlags};
    use std::time::Instant;

    #[repr(C)]
    struct Words {
        first: AtomicU32,
        last: [AtomicU32; 1500],
    }

    // SAFETY: atomics alone.
    unsafe impl SharedMemory for Words {}

    #[test]
    fn a_word_is_the_same_wherever_it_is_mapped() {
        let shared = Shared::<Words>::new("tmem-test").unwrap();
        assert_eq!(Shared::<Words>::BYTES, 2 * PAGE_BYTES);
        let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a new mapping at an address that the kernel chooses.
        let other =
            unsafe { rustix::mm::mmap(core::ptr::null_mut(), Shared::<Words>::BYTES, prot, flags, shared.memfd(), 0) };
        let other = other.unwrap();
        // SAFETY: mapped as long as the memfd, and until the end of this test.
        let there = unsafe { &*other.cast::<Words>().cast_const() };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // Relaxed here and below: the word is all that is told.
                while there.last[1499].load(Ordering::Relaxed) == 0 {
                    wait(&there.last[1499], 0, Some(Duration::from_secs(10)));
                }
                there.first.store(7, Ordering::Relaxed); // as above
                wake(&there.first, 1);
            });
            shared.last[1499].store(1, Ordering::Relaxed); // as above
            wake(&shared.last[1499], u32::MAX);
            // as above
            while shared.first.load(Ordering::Relaxed) == 0 {
                wait(&shared.first, 0, Some(Duration::from_secs(10)));
            }
        });
        assert_eq!(shared.first.load(Ordering::Relaxed), 7); // as above
        // SAFETY: mapped above; `there` is used no more.
        unsafe { rustix::mm::munmap(other, Shared::<Words>::BYTES) }.unwrap();
    }

    #[test]
    fn a_wait_ends_when_the_word_differs_or_the_time_is_over() {
        let word = Shared::<AtomicU32>::new("tmem-test").unwrap();
        assert_eq!(wait(&word, 1, None), Waited::Changed);
        let start = Instant::now();
        assert_eq!(wait(&word, 0, Some(Duration::from_millis(20))), Waited::TimedOut);
        assert!(start.elapsed() >= Duration::from_millis(20));
        assert_eq!((wake(&word, 1), wake(&word, 0)), (0, 0));
        std::thread::scope(|scope| {
            let sleeper = scope.spawn(|| wait(&word, 0, None));
            while wake(&word, 1) == 0 {
                std::thread::yield_now();
            }
            assert_eq!(sleeper.join().unwrap(), Waited::Woken);
        });
    }
}
