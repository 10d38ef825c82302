//! What a daemon tells of its clients, as lines of `tracing`. Nothing here is on the way of an operation.
//!
//! | level | |
//! |---|---|
//! | warn | who was not let in, who was thrown out and for what, that there are no descriptors |
//! | info | who came, who went and what became of its pools, what was done to clients |
//! | debug | what else was refused, connections that were no clients', what the daemon's owner changes |
//!
//! Clients make lines as they like: by coming and going, or by asking for what they cannot have. So no user makes more than
//! [`MOST_LINES`] in a [`PERIOD`], of which the last says that the rest is left out.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};
use tmem_sys::Peer;
use tracing::level_filters::LevelFilter;
use tracing::{Level, debug, info, warn};

/// Lines about one user in a period at most: more than a hundred clients make that come and go at once.
const MOST_LINES: u32 = 250;

const PERIOD: Duration = Duration::from_secs(60);

/// Whom a line is about, and so whose number of lines it counts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum About {
    /// The daemon.
    Daemon,
    /// A user who may connect. There are as many as whoever runs the daemon has allowed.
    User(u32),
    /// Any other one.
    Stranger,
}

/// Counts lines.
#[derive(Debug, Default)]
pub(crate) struct Log {
    counts: BTreeMap<About, Count>,
}

/// Lines about somebody.
#[derive(Debug)]
struct Count {
    since: Instant,
    lines: u32,
}

impl Log {
    /// Tells, unless nobody wants to know or there were too many lines before.
    pub(crate) fn tell(&mut self, level: Level, about: About, line: fmt::Arguments<'_>) {
        if level > LevelFilter::current() {
            return;
        }
        let lines = self.count(about, Instant::now());
        if lines > MOST_LINES {
            return;
        }
        match level {
            Level::WARN => warn!("{line}"),
            Level::INFO => info!("{line}"),
            _ => debug!("{line}"),
        }
        if lines == MOST_LINES {
            warn!("that were {lines} lines about {about} within {PERIOD:?}: the rest of them is left out");
        }
    }

    /// Counts one more. Returns how many there were in this period, it included.
    fn count(&mut self, about: About, now: Instant) -> u32 {
        let count = self.counts.entry(about).or_insert(Count { since: now, lines: 0 });
        if now.duration_since(count.since) >= PERIOD {
            *count = Count { since: now, lines: 0 };
        }
        count.lines = count.lines.saturating_add(1);
        count.lines
    }
}

impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Daemon => write!(f, "the daemon"),
            Self::User(uid) => write!(f, "uid {uid}"),
            Self::Stranger => write!(f, "users who may not connect"),
        }
    }
}

/// Who it is, for a line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Who(pub(crate) Peer);

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} of uid {}", self.0.pid, self.0.uid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_for_each_user_and_anew_in_each_period() {
        let (mut log, start) = (Log::default(), Instant::now());
        for line in 1..=MOST_LINES + 9 {
            assert_eq!(log.count(About::User(1), start), line);
        }
        assert_eq!(log.count(About::User(2), start), 1);
        assert_eq!(log.count(About::Stranger, start), 1);
        assert!(log.count(About::User(1), start + PERIOD / 2) > MOST_LINES);
        assert_eq!(log.count(About::User(1), start + PERIOD), 1);
        assert_eq!(log.count(About::User(1), start + PERIOD * 3 / 2), 2);
    }
}
