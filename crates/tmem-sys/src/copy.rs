//! A copy of this process, for what has to be ready before a program could be loaded.

use rustix::fd::{AsRawFd, OwnedFd};
use rustix::io::Errno;
use rustix::process::Pid;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::peer::last_errno;

/// What a program in Rust exits with after a panic.
const PANICKED: i32 = 101;

/// Starts a copy of this process that runs `work` and exits with what that returns. Of all descriptors of this process it
/// has the standard three and `kept`, which is closed here.
///
/// # Errors
/// `BUSY`: this process has other threads, which the copy would lack, though not the locks that they hold; or `/proc` is
/// not mounted. `AGAIN`, `NOMEM`: no more processes, or no memory.
pub fn start_copy(kept: OwnedFd, work: impl FnOnce(OwnedFd) -> i32) -> Result<Pid, Errno> {
    // A folder has a link to itself, one from above, and one from each folder in it.
    if !fs::metadata("/proc/self/task").is_ok_and(|folder| folder.nlink() == 3) {
        return Err(Errno::BUSY);
    }
    // SAFETY: there is no other thread that could hold a lock in the copy for ever.
    match unsafe { libc::fork() } {
        0 => {
            close_all_but(&kept);
            // A panic has been told by then. It must not unwind into the caller, whose descriptors are closed here.
            let status = catch_unwind(AssertUnwindSafe(|| work(kept)));
            std::process::exit(status.unwrap_or(PANICKED))
        }
        number => Pid::from_raw(number).filter(|_| number > 0).ok_or_else(last_errno),
    }
}

/// Closes all descriptors above the standard three but one. Whoever owns them in this process must never come to use them.
fn close_all_but(kept: &OwnedFd) {
    let close = |first: u32, last: u32| {
        // SAFETY: the callers of `start_copy` never get to run in this process, and `work` knows only `kept`.
        unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    };
    let kept = kept.as_raw_fd().cast_unsigned();
    if kept > 3 {
        close(3, kept - 1);
    }
    close(kept.max(2) + 1, u32::MAX);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_is_not_copied() {
        // Tests run in threads.
        let null = fs::File::open("/dev/null").unwrap();
        assert_eq!(start_copy(null.into(), |_| 0).unwrap_err(), Errno::BUSY);
    }
}
