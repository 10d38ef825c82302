//! Descriptors that this process was started with: taken over, or kept from some of those that it starts.

use rustix::fd::{BorrowedFd, OwnedFd, RawFd};
use rustix::io::{Errno, FdFlags, fcntl_dupfd_cloexec, fcntl_getfd, fcntl_setfd};
use std::fs;

/// Runs `start`; a process that it starts has none of the descriptors that this process was started with, but for the
/// standard three. Other threads must not start processes meanwhile: theirs would lack them too.
///
/// Where `/proc` is not mounted nothing is kept back.
pub fn without_inherited<T>(start: impl FnOnce() -> T) -> T {
    let listed = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let numbers = listed.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(|number| *number > 2);
    // Collected first: the listing has a descriptor of its own, which is gone after it.
    let numbers: Vec<i32> = numbers.collect();
    let kept: Vec<i32> = numbers.into_iter().filter(|number| mark(*number, FdFlags::CLOEXEC)).collect();
    let started = start();
    for number in kept {
        mark(number, FdFlags::empty());
    }
    started
}

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

/// Changes the flags of a descriptor. Returns whether it was open and had others.
fn mark(number: i32, flags: FdFlags) -> bool {
    // SAFETY: the number is not -1. Whether it is open is for the two calls below to find out; they fail if not, and
    // neither closes, reads nor writes it.
    let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl_getfd(descriptor).is_ok_and(|old| old != flags) && fcntl_setfd(descriptor, flags).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsRawFd;
    use std::process::Command;

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

    #[test]
    fn what_was_inherited_stays_here() {
        let file = File::open("/proc/self/status").unwrap();
        fcntl_setfd(&file, FdFlags::empty()).unwrap();
        let has = || Command::new("sh").arg("-c").arg("ls -l /proc/self/fd").output().unwrap().stdout;
        let shown = |listing: Vec<u8>| String::from_utf8(listing).unwrap().contains("/status");
        assert!(shown(has()));
        assert!(!shown(without_inherited(has)));
        assert!(shown(has()), "and is back afterwards");
    }
}
