//! Shared memory with a fixed size.

use crate::SysError;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Shared memory that nobody can grow or shrink, so that no access to a mapping of it can fault past its end.
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
        let failed = |errno| SysError::Memfd { bytes: len, errno };
        let fd = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).map_err(failed)?;
        ftruncate(&fd, len as u64).map_err(failed)?;
        fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL).map_err(failed)?;
        Ok(Self { fd, len })
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
