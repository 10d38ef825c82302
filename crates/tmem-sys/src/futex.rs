//! Sleeping on a word of memory that several processes map.
//!
//! The word is looked up by what it is mapped from, not by its address. The kernel compares it with what the waiter
//! expects while it holds the word's queue, so a wake that follows a change of the word is never missed. It orders
//! nothing else: what a change publishes has to be ordered by the change itself and the load that sees it.

use core::sync::atomic::AtomicU32;
use core::time::Duration;
use rustix::fs::Timespec;
use rustix::io::Errno;
use rustix::thread::futex::{self, Flags};

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waited {
    /// Somebody called [`wake`], or a signal came: look at the word.
    Woken,
    /// The word was not what was expected; no sleep.
    Changed,
    /// The time is over.
    TimedOut,
}

/// Sleeps while `word` is `expected`, at most `timeout`.
pub fn wait(word: &AtomicU32, expected: u32, timeout: Option<Duration>) -> Waited {
    let timeout = timeout.map(|time| Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: time.subsec_nanos().into(),
    });
    match futex::wait(word, Flags::empty(), expected, timeout.as_ref()) {
        Ok(()) | Err(Errno::INTR) => Waited::Woken,
        Err(Errno::TIMEDOUT) => Waited::TimedOut,
        // AGAIN. What else there is (no such word, no such time) cannot be for a reference and a Duration; to look at
        // the word again is right for any of them.
        Err(_) => Waited::Changed,
    }
}

/// Wakes at most `count` of those who sleep on `word`, and returns how many there were.
pub fn wake(word: &AtomicU32, count: u32) -> usize {
    // The kernel's count is signed, and it takes one for zero.
    let count = count.min(i32::MAX.unsigned_abs());
    if count == 0 { 0 } else { futex::wake(word, Flags::empty(), count).unwrap_or(0) }
}
