//! Words that two processes share.

use crate::mapped::Mapped;
use crate::{Memfd, SysError};
use core::ops::Deref;
use core::slice;
use core::sync::atomic::AtomicU64;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Bytes of a memfd of words at most.
const LIMIT_BYTES: usize = 1 << 30;

/// A memfd, mapped in this process as words. It starts as zeros, cannot shrink, and stays mapped until this is dropped.
///
/// One side makes them and gives the memfd to the other. Whoever distrusts the other is the one to make them: the
/// other can write whatever it likes to them, and nothing more. It cannot even end the maker by taking their memory away
/// (see [`Self::is_lost`]).
#[derive(Debug)]
pub struct Words {
    mapped: Mapped,
    memfd: Memfd,
}

impl Words {
    /// Makes `bytes` of zeros. `name` shows in `/proc/PID/maps`.
    ///
    /// # Errors
    /// [`SysError::Memfd`] or [`SysError::NoMemory`].
    ///
    /// # Panics
    /// When `bytes` is not whole pages, at least one and at most 1 GiB.
    pub fn create(name: &str, bytes: usize) -> Result<Self, SysError> {
        let whole = bytes > 0 && bytes.is_multiple_of(crate::PAGE_BYTES);
        assert!(whole && bytes <= LIMIT_BYTES, "{bytes} bytes of words: whole pages, at most 1 GiB");
        let memfd = Memfd::sealed(name, bytes)?;
        let mapped = Mapped::new(&memfd).map_err(|errno| SysError::NoMemory { bytes, errno })?;
        Ok(Self { mapped: mapped.guarded(), memfd })
    }

    /// Maps what another process has made. Whoever does trusts the maker not to take their memory away: that would
    /// end this process by SIGBUS.
    ///
    /// # Errors
    /// [`SysError::Foreign`]: this is not what [`Self::create`] makes. [`SysError::NoMemory`].
    pub fn map(fd: OwnedFd) -> Result<Self, SysError> {
        let memfd = Memfd::foreign(fd, LIMIT_BYTES)?;
        let mapped = Mapped::new(&memfd).map_err(|errno| SysError::NoMemory { bytes: memfd.len(), errno })?;
        Ok(Self { mapped, memfd })
    }

    /// What another process maps.
    #[must_use]
    pub fn memfd(&self) -> BorrowedFd<'_> {
        self.memfd.as_fd()
    }

    /// Whether the other side has punched a hole into words that we made, for which there was no memory when they were
    /// touched. They are zeros of our own since then, which nobody else sees.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.mapped.is_lost()
    }
}

impl Deref for Words {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        let words = self.mapped.start().cast::<AtomicU64>().as_ptr();
        // SAFETY: mapped until drop, page-aligned, as long as the memfd, which never is shorter; any bytes are words, and
        // what others write to them this process sees as atomics only.
        unsafe { slice::from_raw_parts(words, self.mapped.len() / size_of::<AtomicU64>()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PAGE_BYTES;
    use core::sync::atomic::Ordering::Relaxed;
    use std::fs::File;

    #[test]
    fn words_are_the_same_wherever_they_are_mapped() {
        let ours = Words::create("tmem-test", 2 * PAGE_BYTES).unwrap();
        assert_eq!(ours.len(), 1024);
        // Relaxed, here and below: one thread.
        assert!(ours.iter().all(|word| word.load(Relaxed) == 0));
        let theirs = Words::map(ours.memfd().try_clone_to_owned().unwrap()).unwrap();
        assert_eq!(theirs.len(), ours.len());
        theirs[1023].store(7, Relaxed); // one thread
        assert_eq!(ours[1023].fetch_add(1, Relaxed), 7); // one thread
        drop(ours);
        assert_eq!(theirs[1023].load(Relaxed), 8); // one thread
    }

    #[test]
    fn what_is_not_made_for_words_is_refused() {
        let null = File::open("/dev/null").unwrap();
        assert!(matches!(Words::map(null.into()), Err(SysError::Foreign(_))));
        let long = Memfd::sealed("tmem-test", LIMIT_BYTES + PAGE_BYTES).unwrap();
        let long = long.as_fd().try_clone_to_owned().unwrap();
        assert!(matches!(Words::map(long), Err(SysError::Foreign(crate::RegionError::Size { .. }))));
    }
}
