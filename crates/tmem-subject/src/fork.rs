//! Children.

use crate::sys;
use std::time::{Duration, Instant};

/// A child that has not ended by now never will.
const PATIENCE: Duration = Duration::from_secs(90);

/// A forked child, to be waited for.
#[derive(Debug)]
#[must_use]
pub(crate) struct Child(i32);

/// How a child comes to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// The C library's fork, with its handlers.
    Fork,
    /// The bare system call: nothing in the C library hears of it.
    RawClone,
}

/// Runs `work` in a child, which then exits with 0.
pub(crate) fn child(work: impl FnOnce()) -> Child {
    child_by(Way::Fork, work)
}

/// Runs `work` in a child that is made in this way.
pub(crate) fn child_by(way: Way, work: impl FnOnce()) -> Child {
    let made = match way {
        // SAFETY: the child uses no lock that another thread may hold, but malloc's, which the C library sees to.
        Way::Fork => unsafe { libc::fork() },
        // With no flags and no stack of its own this is fork; callers have one thread.
        Way::RawClone => sys::call(libc::SYS_clone, &[libc::SIGCHLD as usize, 0, 0, 0, 0]).map_or(-1, |id| id as i32),
    };
    match made {
        -1 => sys::fail(&format!("fork: {}", std::io::Error::last_os_error())),
        0 => {
            // A panic must not unwind into what the parent was doing.
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            sys::exit(if done.is_ok() { sys::OK } else { sys::FAILED })
        }
        id => Child(id),
    }
}

impl Child {
    /// One that was made in another way.
    pub(crate) fn made(id: i32) -> Self {
        Self(id)
    }

    /// Does not wait for it: it outlives this process.
    pub(crate) fn leave(self) {}

    /// Waits for its end, which must be exit 0; otherwise ends this process in the same way.
    pub(crate) fn join(self) {
        let id = self.0;
        let status = self.wait();
        if !libc::WIFEXITED(status) {
            sys::fail(&format!("child {id} died by signal {}", libc::WTERMSIG(status)));
        }
        if libc::WEXITSTATUS(status) != sys::OK {
            eprintln!("tmem-subject {}: child {id} failed", std::process::id());
            sys::exit(libc::WEXITSTATUS(status));
        }
    }

    /// Waits for its end; the status as the kernel tells it.
    pub(crate) fn wait(self) -> i32 {
        let end = Instant::now() + PATIENCE;
        loop {
            let mut status = 0;
            let place = &raw mut status as usize;
            let reaped = sys::call(libc::SYS_wait4, &[self.0 as usize, place, libc::WNOHANG as usize, 0]);
            match reaped {
                Ok(0) if Instant::now() > end => sys::fail(&format!("child {} does not end", self.0)),
                Err(error) if error.kind() != std::io::ErrorKind::Interrupted => sys::fail(&format!("wait4: {error}")),
                Ok(0) | Err(_) => sys::pause(),
                Ok(_) => return status,
            }
        }
    }
}

/// A pipe that processes tell each other with.
#[derive(Debug)]
pub(crate) struct Pipe {
    read: usize,
    write: usize,
}

impl Pipe {
    /// A new one.
    pub(crate) fn new() -> Self {
        let mut ends = [0_i32; 2];
        sys::demand(sys::call(libc::SYS_pipe2, &[&raw mut ends as usize, 0]), "pipe2");
        Self { read: ends[0] as usize, write: ends[1] as usize }
    }

    /// The descriptor to read from.
    pub(crate) fn reader(&self) -> usize {
        self.read
    }

    /// The descriptor to write to.
    pub(crate) fn writer(&self) -> usize {
        self.write
    }

    /// Says something.
    pub(crate) fn tell(&self, word: u64) {
        let done = sys::call(libc::SYS_write, &[self.write, &raw const word as usize, 8]);
        assert_eq!(sys::demand(done, "write to a pipe"), 8);
    }

    /// Waits until something is said.
    pub(crate) fn hear(&self) -> u64 {
        let mut word = 0_u64;
        let done = sys::call(libc::SYS_read, &[self.read, &raw mut word as usize, 8]);
        assert_eq!(sys::demand(done, "read from a pipe"), 8);
        word
    }
}
