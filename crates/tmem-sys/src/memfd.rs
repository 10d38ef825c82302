//! Shared memory with a fixed size.

use crate::{HUGE_PAGE_BYTES, PAGE_BYTES, SysError};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Why memory that another process has sent is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RegionError {
    /// The descriptor is of something else.
    #[error("the descriptor is no memfd ({errno}): send one of memfd_create with MFD_ALLOW_SEALING")]
    NotMemfd {
        /// What the kernel said.
        errno: Errno,
    },
    /// It could become shorter than what is mapped of it.
    #[error("the memfd can shrink: seal it with F_SEAL_SHRINK")]
    CanShrink,
    /// It cannot be written to.
    #[error("the memfd is sealed against writing: send one without F_SEAL_WRITE and F_SEAL_FUTURE_WRITE")]
    CannotWrite,
    /// It is empty, too long, or not whole pages.
    #[error("the memfd has {bytes} bytes: whole pages of 4096 are taken, at least one, at most {limit} bytes")]
    Size {
        /// Its size.
        bytes: u64,
        /// What is taken at most.
        limit: usize,
    },
    /// It could not be mapped.
    #[error(
        "cannot map the memfd's {bytes} bytes ({errno}): it has to be open for writing, and there must be room for it"
    )]
    Map {
        /// Its size.
        bytes: usize,
        /// What the kernel said.
        errno: Errno,
    },
}

/// Shared memory that nobody can shrink, so that no access to a mapping of it can fault past its end. Our own cannot
/// grow, either.
#[derive(Debug)]
pub struct Memfd {
    fd: OwnedFd,
    len: usize,
}

impl Memfd {
    /// Makes one of `len` bytes. It takes no memory until it is touched. `name` shows in `/proc/PID/maps`.
    ///
    /// # Errors
    /// [`SysError::Memfd`] when the process is out of descriptors or may not make one.
    pub fn sealed(name: &str, len: usize) -> Result<Self, SysError> {
        Self::new(name, len, MemfdFlags::empty()).map_err(|errno| SysError::Memfd { bytes: len, errno })
    }

    /// Makes one that holds `bytes`, which nobody can change: a copy of its descriptor can be given to anybody. To be read
    /// at offsets (`pread`), since all who have it share one position.
    ///
    /// # Errors
    /// As [`Self::sealed`]; [`SysError::NoMemory`].
    ///
    /// # Panics
    /// When there are no bytes.
    pub fn holding(name: &str, bytes: &[u8]) -> Result<Self, SysError> {
        assert!(!bytes.is_empty(), "a memfd is never empty");
        let len = bytes.len();
        let failed = |errno| SysError::Memfd { bytes: len, errno };
        let fd = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).map_err(failed)?;
        let no_memory = |error: io::Error| SysError::NoMemory {
            bytes: len,
            errno: Errno::from_io_error(&error).unwrap_or(Errno::NOMEM),
        };
        let mut file = File::from(fd);
        file.write_all(bytes).map_err(no_memory)?;
        let fd = OwnedFd::from(file);
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
        fcntl_add_seals(&fd, seals).map_err(failed)?;
        Ok(Self { fd, len })
    }

    /// As [`Self::sealed`], of huge pages from the system's pool; there need not be any yet.
    pub(crate) fn huge(name: &str, len: usize) -> Result<Self, Errno> {
        Self::new(name, len, MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB)
    }

    fn new(name: &str, len: usize, flags: MemfdFlags) -> Result<Self, Errno> {
        let fd = memfd_create(name, flags | MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&fd, len as u64)?;
        fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Ok(Self { fd, len })
    }

    /// Takes one that another process has made, as long as it is now. It may be anything.
    pub(crate) fn foreign(fd: OwnedFd, limit: usize) -> Result<Self, RegionError> {
        let seals = fcntl_get_seals(&fd).map_err(|errno| RegionError::NotMemfd { errno })?;
        // Seals stay, so the size that is read afterwards is one to rely on.
        if !seals.contains(SealFlags::SHRINK) {
            return Err(RegionError::CanShrink);
        }
        if seals.intersects(SealFlags::WRITE | SealFlags::FUTURE_WRITE) {
            return Err(RegionError::CannotWrite);
        }
        let stat = fstat(&fd).map_err(|errno| RegionError::NotMemfd { errno })?;
        let bytes = u64::try_from(stat.st_size).unwrap_or(0);
        match usize::try_from(bytes) {
            Ok(len) if len > 0 && len <= limit && len.is_multiple_of(PAGE_BYTES) => Ok(Self { fd, len }),
            _ => Err(RegionError::Size { bytes, limit }),
        }
    }

    /// For tests: one that can shrink.
    #[cfg(test)]
    pub(crate) fn unsealed(fd: OwnedFd, len: usize) -> Self {
        Self { fd, len }
    }

    /// What the start of a mapping has to be a multiple of, to be mapped by pages as large as it may have.
    pub(crate) fn alignment(&self) -> Result<usize, Errno> {
        // Of memory of huge pages, their size; of other memory, that of those it may get.
        let block = usize::try_from(fstat(&self.fd)?.st_blksize).unwrap_or(PAGE_BYTES);
        let page = if self.len >= HUGE_PAGE_BYTES { HUGE_PAGE_BYTES } else { PAGE_BYTES };
        Ok(block.next_power_of_two().max(page))
    }

    /// Its size in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a memfd is never empty")]
    pub fn len(&self) -> usize {
        self.len
    }
}

impl AsFd for Memfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    const LIMIT: usize = 1 << 20;

    #[track_caller]
    fn assert_refused(fd: impl Into<OwnedFd>, expected: &str) {
        let error = Memfd::foreign(fd.into(), LIMIT).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }

    /// A memfd as a client might make it.
    fn made(bytes: usize, seals: SealFlags) -> OwnedFd {
        let fd = memfd_create("tmem-test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&fd, bytes as u64).unwrap();
        fcntl_add_seals(&fd, seals).unwrap();
        fd
    }

    #[test]
    fn memory_of_others_is_taken_if_it_can_be_relied_on() {
        let taken = Memfd::foreign(made(LIMIT, SealFlags::SHRINK), LIMIT).unwrap();
        assert_eq!(taken.len(), LIMIT);
        let own = Memfd::sealed("tmem-test", PAGE_BYTES).unwrap();
        assert_eq!(Memfd::foreign(own.fd, LIMIT).unwrap().len(), PAGE_BYTES);
    }

    #[test]
    fn what_a_memfd_holds_can_be_read_and_not_changed() {
        let memfd = Memfd::holding("tmem-test", b"as it is").unwrap();
        assert_eq!(memfd.len(), 8);
        let file = File::from(memfd.fd);
        let mut read = [0; 8];
        file.read_exact_at(&mut read, 0).unwrap();
        assert_eq!(&read, b"as it is");
        assert!(file.write_at(b"X", 0).is_err());
        assert!(file.set_len(4).is_err());
    }

    #[test]
    fn other_descriptors_are_refused_with_what_to_do() {
        assert_refused(File::open("/dev/zero").unwrap(), "MFD_ALLOW_SEALING");
        assert_refused(File::open("/proc/self/status").unwrap(), "MFD_ALLOW_SEALING");
        assert_refused(made(PAGE_BYTES, SealFlags::empty()), "F_SEAL_SHRINK");
        assert_refused(made(PAGE_BYTES, SealFlags::GROW), "F_SEAL_SHRINK");
        assert_refused(memfd_create("tmem-test", MemfdFlags::CLOEXEC).unwrap(), "F_SEAL_SHRINK");
        assert_refused(made(PAGE_BYTES, SealFlags::SHRINK | SealFlags::WRITE), "F_SEAL_WRITE");
        assert_refused(made(PAGE_BYTES, SealFlags::SHRINK | SealFlags::FUTURE_WRITE), "F_SEAL_WRITE");
        assert_refused(made(0, SealFlags::SHRINK), "has 0 bytes");
        assert_refused(made(PAGE_BYTES + 1, SealFlags::SHRINK), "4097 bytes: whole pages");
        assert_refused(made(LIMIT + PAGE_BYTES, SealFlags::SHRINK), "at most 1048576");
    }
}
