//! The seam itself.
//!
//! What is drawn depends on the seed and on how many draws came before, so the threads of a process get the same numbers
//! each time, but not each the same.

use super::Call;
use crate::PAGE_BYTES;
use crate::uffd::Event;
use core::str::FromStr;
use core::sync::atomic::{AtomicU64, Ordering};
use rustix::io::Errno;
use std::sync::OnceLock;

/// What a call that fills pages returned, and its field that says how many bytes.
type Filled = (Result<(), Errno>, i64);

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Nothing is done.
    Fails(Errno),
    /// The same, and the field says nothing.
    FailsUntold(Errno),
    /// A part is done.
    Part,
    /// A message comes twice.
    Twice,
}

/// A way in which a call may go wrong, and what it is called.
type Row = (Call, Kind, &'static str);

const ROWS: [Row; 22] = [
    (Call::Copy, Kind::Fails(Errno::AGAIN), "copy EAGAIN"),
    (Call::Copy, Kind::FailsUntold(Errno::AGAIN), "copy EAGAIN untold"),
    (Call::Copy, Kind::Fails(Errno::NOENT), "copy ENOENT"),
    (Call::Copy, Kind::Part, "copy part"),
    (Call::Zero, Kind::Fails(Errno::AGAIN), "zero EAGAIN"),
    (Call::Zero, Kind::FailsUntold(Errno::AGAIN), "zero EAGAIN untold"),
    (Call::Zero, Kind::Fails(Errno::NOENT), "zero ENOENT"),
    (Call::Changing, Kind::Fails(Errno::AGAIN), "changing yes"),
    (Call::Read, Kind::Fails(Errno::AGAIN), "read EAGAIN"),
    (Call::Read, Kind::Fails(Errno::INTR), "read EINTR"),
    (Call::Read, Kind::Part, "read part"),
    (Call::ReadOfFork, Kind::Fails(Errno::MFILE), "read EMFILE"),
    (Call::Message, Kind::Twice, "read twice"),
    (Call::Register, Kind::Fails(Errno::NOMEM), "register ENOMEM"),
    (Call::Scan, Kind::Part, "scan part"),
    (Call::Scan, Kind::Fails(Errno::NOMEM), "scan ENOMEM"),
    (Call::Entries, Kind::Part, "entries part"),
    (Call::Query, Kind::Fails(Errno::INTR), "query EINTR"),
    (Call::Write, Kind::Part, "write part"),
    (Call::Write, Kind::Fails(Errno::FAULT), "write EFAULT"),
    (Call::PageOut, Kind::Fails(Errno::INTR), "pageout EINTR"),
    (Call::PageOut, Kind::Fails(Errno::NOMEM), "pageout ENOMEM"),
];

/// What the kernel itself is heard to say.
const HEARD: [(Call, Errno, &str); 7] = [
    (Call::Copy, Errno::AGAIN, "kernel: copy EAGAIN"),
    (Call::Copy, Errno::EXIST, "kernel: copy EEXIST"),
    (Call::Copy, Errno::NOENT, "kernel: copy ENOENT"),
    (Call::Copy, Errno::SRCH, "kernel: copy ESRCH"),
    (Call::Zero, Errno::AGAIN, "kernel: zero EAGAIN"),
    (Call::Zero, Errno::EXIST, "kernel: zero EEXIST"),
    (Call::Zero, Errno::NOENT, "kernel: zero ENOENT"),
];

// All counters are independent of each other and publish nothing: every access is relaxed.
static MADE_UP: [AtomicU64; ROWS.len()] = [const { AtomicU64::new(0) }; ROWS.len()];
static SAID: [AtomicU64; HEARD.len()] = [const { AtomicU64::new(0) }; HEARD.len()];
static DRAWS: AtomicU64 = AtomicU64::new(0);
static PLAN: OnceLock<Plan> = OnceLock::new();

/// How much goes wrong, and what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What is drawn depends on it.
    pub seed: u64,
    /// One in so many.
    pub rate: u64,
    which: Vec<String>,
}

/// The text says no plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is seed:rate or seed:rate:name,name, and the rate is at least 2: what always fails never ends")]
pub struct BadPlan;

impl FromStr for Plan {
    type Err = BadPlan;

    fn from_str(text: &str) -> Result<Self, BadPlan> {
        let mut parts = text.splitn(3, ':');
        let mut number = || parts.next().and_then(|part| part.parse().ok()).ok_or(BadPlan);
        let (seed, rate) = (number()?, number()?);
        let which = parts.next().map(|names| names.split(',').map(str::to_owned).collect()).unwrap_or_default();
        if rate < 2 { Err(BadPlan) } else { Ok(Self { seed, rate, which }) }
    }
}

impl Plan {
    /// Whether what has this name is to go wrong.
    #[must_use]
    pub fn wants(&self, name: &str) -> bool {
        self.which.is_empty() || self.which.iter().any(|wanted| name.starts_with(&**wanted))
    }
}

/// From now on calls of this process go wrong. Only the first plan counts.
pub fn start(plan: Plan) {
    let _ = PLAN.set(plan);
}

/// What was started.
#[must_use]
pub fn plan() -> Option<&'static Plan> {
    PLAN.get()
}

/// How often each thing went wrong so far, and how often the kernel itself said what is listened to.
#[must_use]
pub fn counts() -> Vec<(&'static str, u64)> {
    let names = ROWS.iter().map(|row| row.2).chain(HEARD.iter().map(|heard| heard.2));
    let counts = MADE_UP.iter().chain(&SAID).map(|count| count.load(Ordering::Relaxed)); // see above
    names.zip(counts).collect()
}

/// What goes wrong with a call, if anything, among what `may`.
fn draw(call: Call, may: impl Fn(Kind) -> bool) -> Option<Kind> {
    let plan = PLAN.get()?;
    let number = next(plan.seed);
    if number >> 32 >= (1 << 32) / plan.rate {
        return None;
    }
    let fits = |row: &Row| row.0 == call && may(row.1) && plan.wants(row.2);
    let fitting = || ROWS.iter().enumerate().filter(|(_, row)| fits(row));
    let (index, (_, kind, _)) = fitting().nth(below(number, fitting().count())?)?;
    MADE_UP[index].fetch_add(1, Ordering::Relaxed); // see above
    Some(*kind)
}

/// The next number of a seed: splitmix64, of which each bit depends on all.
fn next(seed: u64) -> u64 {
    // Relaxed: a number, and nothing more.
    let mut number = seed.wrapping_add(DRAWS.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

/// The lower half of a number as one of 0 to `count - 1`.
fn below(number: u64, count: usize) -> Option<usize> {
    usize::try_from(number & 0xffff_ffff).ok()?.checked_rem(count)
}

/// One to `count - 1` things, of two or more.
fn fewer(count: usize) -> usize {
    1 + below(next(0), count - 1).unwrap_or(0)
}

/// A call that fills pages of `bytes` bytes.
pub(crate) fn filling(call: Call, bytes: usize, real: impl FnOnce(usize) -> Filled) -> Filled {
    let pages = bytes / PAGE_BYTES;
    match draw(call, |kind| pages > 1 || kind != Kind::Part) {
        Some(Kind::Fails(errno)) => (Err(errno), -i64::from(errno.raw_os_error())),
        Some(Kind::FailsUntold(errno)) => (Err(errno), 0),
        Some(Kind::Part) => match real(fewer(pages) * PAGE_BYTES) {
            (Ok(()), done) => (Err(Errno::AGAIN), done),
            other => other,
        },
        Some(Kind::Twice) | None => {
            let filled = real(bytes);
            let heard = HEARD.iter().position(|heard| heard.0 == call && filled.0 == Err(heard.1) && filled.1 <= 0);
            heard.map(|index| SAID[index].fetch_add(1, Ordering::Relaxed)); // see above
            filled
        }
    }
}

/// A call that may be refused before it is made.
pub(crate) fn refused(call: Call) -> Result<(), Errno> {
    match draw(call, |kind| matches!(kind, Kind::Fails(_))) {
        Some(Kind::Fails(errno)) => Err(errno),
        _ => Ok(()),
    }
}

/// The same, if the kernel could say so now.
pub(crate) fn refused_if(call: Call, may: impl FnOnce() -> bool) -> Result<(), Errno> {
    if PLAN.get().is_some() && may() { refused(call) } else { Ok(()) }
}

/// How many of `count` things are done.
pub(crate) fn shorter(call: Call, count: usize) -> usize {
    match draw(call, |kind| kind == Kind::Part && count > 1) {
        Some(_) => fewer(count),
        None => count,
    }
}

/// Tells faults from `first` on again.
pub(crate) fn repeat(call: Call, events: &mut Vec<Event>, first: usize) {
    for at in first..events.len() {
        if let Event::Fault { address, write, thread } = events[at]
            && draw(call, |kind| kind == Kind::Twice).is_some()
        {
            events.push(Event::Fault { address, write, thread });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_says_what_is_wanted() {
        let all: Plan = "7:4".parse().unwrap();
        assert_eq!((all.seed, all.rate, all.wants("copy part")), (7, 4, true));
        let some: Plan = "7:4:copy,read EINTR".parse().unwrap();
        assert!(some.wants("copy part") && some.wants("read EINTR") && !some.wants("read part"));
        for text in ["", "7", "7:", "7:x", "7:1", "-1:4"] {
            assert_eq!(text.parse::<Plan>(), Err(BadPlan), "{text}");
        }
    }

    #[test]
    fn without_a_plan_nothing_goes_wrong() {
        assert_eq!((refused(Call::Register), shorter(Call::Scan, 8)), (Ok(()), 8));
        let real = |bytes: usize| (Ok(()), i64::try_from(bytes).unwrap());
        assert_eq!(filling(Call::Copy, 8 * PAGE_BYTES, real), (Ok(()), 8 * 4096));
    }

    #[test]
    fn a_part_is_never_all_nor_nothing() {
        assert!((2..100).all(|count| (1..count).contains(&fewer(count))));
    }
}
