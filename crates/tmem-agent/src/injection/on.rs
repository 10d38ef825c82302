//! The seam itself.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::Call;
use crate::protocol::{Comm, PAGE_BYTES};
use crate::sys;

/// What may go wrong, by number. The monitor's `TMEM_FAULTS` knows it by its name.
pub const NAMES: [&str; 10] = [
    "move EAGAIN",
    "move EAGAIN untold",
    "move part",
    "move EBUSY",
    "move ENOENT",
    "move EINVAL",
    "populate EFAULT",
    "populate part",
    "unregister ENOMEM",
    "mmap ENOMEM",
];
const MOVE_AGAIN: usize = 0;
const MOVE_AGAIN_UNTOLD: usize = 1;
const MOVE_PART: usize = 2;
const MOVE_BUSY: usize = 3;
const MOVE_GONE: usize = 4;
const MOVE_CROSSES: usize = 5;
const POPULATE_FAULT: usize = 6;
const POPULATE_PART: usize = 7;
const UNREGISTER: usize = 8;
const MMAP: usize = 9;

/// What is to go wrong, and how often it did. All accesses are relaxed: the welcome publishes what the monitor writes,
/// and the counts stand alone.
#[repr(C)]
#[derive(Debug)]
pub struct Injection {
    /// What is drawn depends on it, and changes it.
    pub state: AtomicU64,
    /// One call in so many goes wrong; 0: none.
    pub rate: AtomicU64,
    /// Bit n: what has number n is wanted.
    pub wanted: AtomicU64,
    /// How often what went wrong.
    pub counts: [AtomicU32; NAMES.len()],
}

impl Injection {
    /// What goes wrong with a call, if anything.
    fn draw(&self, among: &[usize]) -> Option<usize> {
        let rate = self.rate.load(Ordering::Relaxed); // see above
        let number = self.next();
        if rate == 0 || number >> 32 >= (1 << 32) / rate {
            return None;
        }
        let wanted = self.wanted.load(Ordering::Relaxed); // see above
        let fitting = || among.iter().filter(|kind| wanted >> **kind & 1 == 1);
        let nth = (number as u32 as usize).checked_rem(fitting().count())?;
        let kind = *fitting().nth(nth)?;
        self.counts[kind].fetch_add(1, Ordering::Relaxed); // see above
        Some(kind)
    }

    /// splitmix64: each bit depends on all of the state.
    fn next(&self) -> u64 {
        let mut number = self.state.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed); // see above
        number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ number >> 31
    }

    /// Bytes of one page, or more, but not of all.
    fn fewer(&self, bytes: u64) -> u64 {
        (1 + self.next() % (bytes / PAGE_BYTES - 1)) * PAGE_BYTES
    }
}

/// A move of so many bytes: the result, and the field that says how many were moved.
pub(crate) fn moving(comm: &Comm, bytes: u64, real: impl FnOnce(u64) -> (isize, i64)) -> (isize, i64) {
    let injection = &comm.injection;
    let several = [MOVE_AGAIN, MOVE_AGAIN_UNTOLD, MOVE_BUSY, MOVE_GONE, MOVE_PART, MOVE_CROSSES];
    let may = if bytes > PAGE_BYTES { &several[..] } else { &several[..4] };
    let fails = |error: isize| (error, error as i64);
    match injection.draw(may) {
        None => real(bytes),
        Some(MOVE_PART) => match real(injection.fewer(bytes)) {
            (0, moved) => (sys::EAGAIN, moved),
            other => other,
        },
        Some(MOVE_AGAIN_UNTOLD) => (sys::EAGAIN, 0),
        Some(MOVE_BUSY) => fails(sys::EBUSY),
        Some(MOVE_GONE) => fails(sys::ENOENT),
        Some(MOVE_CROSSES) => fails(sys::EINVAL),
        Some(_) => fails(sys::EAGAIN),
    }
}

/// Has so many bytes written to by the kernel, as they are.
pub(crate) fn populating(comm: &Comm, bytes: u64, real: impl FnOnce(u64) -> isize) -> isize {
    let injection = &comm.injection;
    let several = [POPULATE_FAULT, POPULATE_PART];
    let may = if bytes > PAGE_BYTES { &several[..] } else { &several[..1] };
    match injection.draw(may) {
        None => real(bytes),
        Some(POPULATE_PART) => match real(injection.fewer(bytes)) {
            0 => sys::EFAULT,
            other => other,
        },
        Some(_) => sys::EFAULT,
    }
}

/// A call that may be refused before it is made.
pub(crate) fn refused(comm: &Comm, call: Call, real: impl FnOnce() -> isize) -> isize {
    let kind = match call {
        Call::Unregister => UNREGISTER,
        Call::Mmap => MMAP,
    };
    if comm.injection.draw(&[kind]).is_some() { sys::ENOMEM } else { real() }
}
