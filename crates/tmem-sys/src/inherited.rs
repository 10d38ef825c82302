//! Descriptors that this process was started with, taken over.

use rustix::fd::{BorrowedFd, OwnedFd, RawFd};
use rustix::io::{Errno, fcntl_dupfd_cloexec};

/// Another descriptor for what this process was given as `number` when it was started. The number itself stays open.
///
/// # Errors
/// `BADF`: there is nothing. `MFILE`: no descriptors are left.
pub fn duplicate_inherited(number: RawFd) -> Result<OwnedFd, Errno> {
    if number < 0 {
        return Err(Errno::BADF);
    }
    // SAFETY: the number is not -1. Whether it is open is for the call to find out, which neither closes, reads nor
    // writes it.
    let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl_dupfd_cloexec(descriptor, 3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsRawFd;

    #[test]
    fn what_was_inherited_is_taken_over() {
        let file = File::open("/proc/self/status").unwrap();
        let taken = duplicate_inherited(file.as_raw_fd()).unwrap();
        assert_ne!(taken.as_raw_fd(), file.as_raw_fd());
        drop(file);
        assert!(std::io::read_to_string(File::from(taken)).unwrap().starts_with("Name:"));
        assert_eq!(duplicate_inherited(-1).unwrap_err(), Errno::BADF);
        assert_eq!(duplicate_inherited(RawFd::MAX).unwrap_err(), Errno::BADF);
    }
}
