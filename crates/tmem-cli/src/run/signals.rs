//! Signals to `tmem run`, which stands where the program would stand.
//!
//! What a process sends goes on to the program. What the kernel sends comes from the terminal and went to the whole
//! process group, the program included, so it is dropped here. Handlers do it and not a mask: a program inherits
//! masks, handlers it does not. Signals that were ignored at the start stay so, for the program too, as `nohup` wants
//! it.

use anyhow::{Context, Result};
use rustix::process::Signal;
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::origin::WithOrigin;
use signal_hook::low_level::siginfo::Cause;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

/// What is passed on.
const PASSED: [Signal; 11] = [
    Signal::HUP,
    Signal::INT,
    Signal::QUIT,
    Signal::TERM,
    Signal::USR1,
    Signal::USR2,
    Signal::ALARM,
    Signal::WINCH,
    Signal::TSTP,
    Signal::TTOU,
    Signal::CONT,
];
/// Those that usually end a program.
const ENDING: [Signal; 4] = [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM];

/// Where they arrive.
#[derive(Debug)]
pub(crate) struct Signals {
    delivery: SignalDelivery<UnixStream, WithOrigin>,
}

/// What has arrived.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrived {
    /// Which.
    pub(crate) signal: Signal,
    /// Whether the terminal sent it to the program as well.
    pub(crate) from_terminal: bool,
}

impl Arrived {
    /// Whether it usually ends a program.
    pub(crate) fn is_ending(self) -> bool {
        ENDING.contains(&self.signal)
    }
}

impl Signals {
    /// From now on they arrive here.
    pub(crate) fn watch() -> Result<Self> {
        let ignored = ignored();
        let passed = PASSED.iter().filter(|signal| ignored >> (signal.as_raw() - 1) & 1 == 0);
        // Children are waited for even where whoever started us does not care about theirs.
        let numbers = passed.chain([&Signal::CHILD]).map(|signal| signal.as_raw());
        let (read, write) = UnixStream::pair().context("cannot watch for signals")?;
        write.set_nonblocking(true).context("cannot watch for signals")?;
        let delivery = SignalDelivery::with_pipe(read, write, WithOrigin::default(), numbers);
        Ok(Self { delivery: delivery.context("cannot watch for signals")? })
    }

    /// Those that came since the last call.
    pub(crate) fn arrived(&mut self) -> Vec<Arrived> {
        let named = |number| Signal::from_named_raw(number);
        let origins = self.delivery.pending();
        origins
            .filter_map(|origin| {
                Some(Arrived { signal: named(origin.signal)?, from_terminal: origin.cause == Cause::Kernel })
            })
            .collect()
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.delivery.get_read().as_fd()
    }
}

/// A bit for each signal that this process was started to ignore, from 1.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let hex = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    hex.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
}
