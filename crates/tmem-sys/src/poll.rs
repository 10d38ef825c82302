//! Waiting for descriptors.

use core::mem::MaybeUninit;
use core::time::Duration;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Events that one [`Epoll::wait`] tells at most. Who is left out is told next time: the kernel takes turns.
const EVENTS: usize = 64;

/// Waits until one of `fds` (at most 64) is readable or hung up, or has an error; bit `i` of the result says that
/// `fds[i]` is. 0 after `timeout`, or when a signal came.
///
/// # Errors
/// `NOMEM`; `INVAL`: more than the process may have open.
///
/// # Panics
/// More than 64 descriptors.
pub fn poll_readable(fds: &[BorrowedFd<'_>], timeout: Option<Duration>) -> Result<u64, Errno> {
    assert!(fds.len() <= 64, "{} descriptors for 64 bits", fds.len());
    let mut polled: Vec<PollFd<'_>> = fds.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    match poll(&mut polled, timespec(timeout).as_ref()) {
        Ok(_) => {
            let ready = polled.iter().enumerate().filter(|(_, fd)| !fd.revents().is_empty());
            Ok(ready.fold(0, |bits, (at, _)| bits | 1 << at))
        }
        Err(Errno::INTR) => Ok(0),
        Err(errno) => Err(errno),
    }
}

/// None for a time that the kernel cannot count either: for ever.
fn timespec(timeout: Option<Duration>) -> Option<Timespec> {
    timeout.and_then(|timeout| Timespec::try_from(timeout).ok())
}

/// Waits for many descriptors. They stay listed between waits, and leave when they are closed everywhere: one that was
/// given away to another process has to be removed before it is closed.
#[derive(Debug)]
pub struct Epoll(OwnedFd);

impl Epoll {
    /// Makes one.
    ///
    /// # Errors
    /// `MFILE`, `NFILE`, `NOMEM`.
    pub fn new() -> Result<Self, Errno> {
        epoll::create(CreateFlags::CLOEXEC).map(Self)
    }

    /// From now on `token` is told as long as `fd` is readable or hung up.
    ///
    /// # Errors
    /// `EXIST`: it is listed already. `PERM`: it is of a kind that cannot be waited for. `NOSPC`, `NOMEM`.
    pub fn add(&self, fd: BorrowedFd<'_>, token: u64) -> Result<(), Errno> {
        epoll::add(&self.0, fd, EventData::new_u64(token), EventFlags::IN | EventFlags::RDHUP)
    }

    /// The same, but `token` is told once whenever more has come, and not again for what is left: whoever sends and sends
    /// without being read is told of no more once its buffer is full.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn add_edges(&self, fd: BorrowedFd<'_>, token: u64) -> Result<(), Errno> {
        epoll::add(&self.0, fd, EventData::new_u64(token), EventFlags::IN | EventFlags::RDHUP | EventFlags::ET)
    }

    /// It is told no more.
    ///
    /// # Errors
    /// `NOENT`: it is not listed.
    pub fn remove(&self, fd: BorrowedFd<'_>) -> Result<(), Errno> {
        epoll::delete(&self.0, fd)
    }

    /// Waits at most `timeout`. Afterwards `events` holds the tokens of those who are ready, and whether the other side
    /// has hung up (what it sent before can still be read). Empty: the time is over, or a signal came.
    ///
    /// # Errors
    /// None that a caller could cause.
    pub fn wait(&self, events: &mut Vec<(u64, bool)>, timeout: Option<Duration>) -> Result<(), Errno> {
        let mut space = [const { MaybeUninit::uninit() }; EVENTS];
        events.clear();
        let told = match epoll::wait(&self.0, &mut space[..], timespec(timeout).as_ref()) {
            Ok((told, _)) => told,
            Err(Errno::INTR) => return Ok(()),
            Err(errno) => return Err(errno),
        };
        let gone = EventFlags::HUP | EventFlags::RDHUP | EventFlags::ERR;
        // Copied out: the kernel packs events closer than their alignment.
        events.extend(told.iter().map(|event| {
            let (data, flags) = (event.data, event.flags);
            (data.u64(), flags.intersects(gone))
        }));
        Ok(())
    }
}

impl AsFd for Epoll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Doorbell;
    use std::time::Instant;

    #[test]
    fn poll_says_which_are_ready() {
        let bells: Vec<Doorbell> = (0..64).map(|_| Doorbell::new().unwrap()).collect();
        let fds: Vec<_> = bells.iter().map(AsFd::as_fd).collect();
        let start = Instant::now();
        assert_eq!(poll_readable(&fds, Some(Duration::from_millis(20))), Ok(0));
        assert!(start.elapsed() >= Duration::from_millis(20));
        bells[63].ring();
        bells[2].ring();
        assert_eq!(poll_readable(&fds, None), Ok(1 << 63 | 1 << 2));
        assert_eq!(poll_readable(&[], Some(Duration::ZERO)), Ok(0));
    }

    #[test]
    fn edges_are_told_once_whether_they_are_read_or_not() {
        let (one, other) = Doorbell::pair().unwrap();
        let (epoll, mut events) = (Epoll::new().unwrap(), Vec::new());
        epoll.add_edges(one.as_fd(), 5).unwrap();
        let mut told = || {
            epoll.wait(&mut events, Some(Duration::ZERO)).unwrap();
            events.clone()
        };
        other.ring();
        assert_eq!((told(), told()), (vec![(5, false)], vec![]));
        other.ring();
        other.ring();
        assert_eq!((told(), told()), (vec![(5, false)], vec![]));
        assert!(one.clear());
        other.ring();
        assert_eq!(told(), [(5, false)]);
        drop(other);
        assert_eq!((told(), told()), (vec![(5, true)], vec![]));
    }

    #[test]
    fn poll_tells_of_an_end() {
        let (one, other) = Doorbell::pair().unwrap();
        drop(other);
        assert_eq!(poll_readable(&[one.as_fd()], Some(Duration::MAX)), Ok(1));
    }

    #[test]
    fn epoll_tells_as_long_as_it_is_so() {
        let (epoll, bell) = (Epoll::new().unwrap(), Doorbell::new().unwrap());
        let (one, other) = Doorbell::pair().unwrap();
        epoll.add(bell.as_fd(), 7).unwrap();
        epoll.add(one.as_fd(), u64::MAX).unwrap();
        assert_eq!(epoll.add(one.as_fd(), 8), Err(Errno::EXIST));
        let told = |timeout| {
            let mut events = vec![(1, true)];
            epoll.wait(&mut events, timeout).unwrap();
            events.sort_unstable();
            events
        };
        let at_once = Some(Duration::ZERO);
        assert_eq!(told(at_once), []);
        bell.ring();
        other.ring();
        for _ in 0..2 {
            assert_eq!(told(None), [(7, false), (u64::MAX, false)]);
        }
        assert!(bell.clear());
        drop(other);
        assert_eq!(told(None), [(u64::MAX, true)]);
        epoll.remove(one.as_fd()).unwrap();
        assert_eq!(epoll.remove(one.as_fd()), Err(Errno::NOENT));
        assert_eq!(told(at_once), []);
    }

    #[test]
    fn more_than_a_waits_worth_are_told_in_turn() {
        let epoll = Epoll::new().unwrap();
        let bells: Vec<Doorbell> = (0..EVENTS + 10).map(|_| Doorbell::new().unwrap()).collect();
        for (token, bell) in (0..).zip(&bells) {
            epoll.add(bell.as_fd(), token).unwrap();
            bell.ring();
        }
        let (mut seen, mut events) = (vec![false; bells.len()], Vec::new());
        for _ in 0..2 {
            epoll.wait(&mut events, None).unwrap();
            assert_eq!(events.len(), EVENTS);
            events.iter().for_each(|(token, _)| seen[usize::try_from(*token).unwrap()] = true);
        }
        assert!(seen.iter().all(|seen| *seen));
    }
}
