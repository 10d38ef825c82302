//! Futexes in memory that processes share.

use core::sync::atomic::AtomicU32;
use core::time::Duration;

use rustix::thread::futex::{Flags, Timespec};

/// Sleeps while `word` is `expected`, until it is woken or `timeout` is over; or for no reason.
pub fn wait(word: &AtomicU32, expected: u32, timeout: Option<Duration>) {
    let timeout = timeout.map(|timeout| Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(timeout.subsec_nanos()),
    });
    // Whatever the reason for its end, the caller looks at the word again.
    let _ = rustix::thread::futex::wait(word, Flags::empty(), expected, timeout.as_ref());
}

/// Wakes at most `count` of those who sleep on `word`.
pub fn wake(word: &AtomicU32, count: u32) {
    let _ = rustix::thread::futex::wake(word, Flags::empty(), count);
}
