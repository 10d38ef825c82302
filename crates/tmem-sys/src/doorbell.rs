//! Waking who waits for a descriptor to become readable.
//!
//! A ring says "look" and nothing more: what there is to see is published by the memory that both sides share, and
//! ordered there. So a ring too many is harmless, and one that could not be delivered because earlier ones were not
//! cleared yet has been delivered with them.
//!
//! Between a daemon and a client that it does not trust, bells come in pairs. An eventfd will not do: a client to which
//! it was given shares the *file description*, may take `O_NONBLOCK` from it and fill its counter, and then the
//! daemon's next ring would wait until the client reads. The ends of a socket pair are descriptions of their own, and
//! their calls are told one by one not to wait. For the same reason a daemon makes the bells, and takes none from clients.

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{Errno, ReadWriteFlags, preadv2, write};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair, sockopt};
use std::io::IoSliceMut;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Rings that one [`Doorbell::clear`] takes off a socket: more than fit into it with the usual buffers (212992 bytes, of
/// which each ring takes some 768).
const RINGS: usize = 512;

/// A bell: readable (`poll`) once it was rung, until it is cleared.
#[derive(Debug)]
pub struct Doorbell {
    fd: OwnedFd,
    kind: Kind,
}

/// What a bell is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// An eventfd: all who have it ring and hear the same bell.
    Counter,
    /// An end of a stream socket pair: it rings at the other end.
    End,
}

impl Doorbell {
    /// A bell that rings where it is rung. For threads of one process, or processes that trust one another; see the
    /// module's head.
    ///
    /// # Errors
    /// `MFILE`, `NFILE`, `NOMEM`.
    pub fn new() -> Result<Self, Errno> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { fd, kind: Kind::Counter })
    }

    /// Two bells, each of which rings at the other: one to keep, one to give away to whom one does not trust.
    ///
    /// # Errors
    /// `MFILE`, `NFILE`, `NOMEM`.
    pub fn pair() -> Result<(Self, Self), Errno> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (one, other) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        Ok((Self { fd: one, kind: Kind::End }, Self { fd: other, kind: Kind::End }))
    }

    /// A bell that somebody else has made, by [`Self::new`] or [`Self::pair`]. Anything else is safe to have here, but
    /// may wait when it is rung.
    #[must_use]
    pub fn from_fd(fd: OwnedFd) -> Self {
        let kind = if sockopt::socket_type(&fd).is_ok() { Kind::End } else { Kind::Counter };
        Self { fd, kind }
    }

    /// Rings. There is nothing to be done about a failure: a full bell is rung already (`AGAIN`), and one whose other
    /// end is closed has nobody to hear it, which its owner learns from the socket that it came by.
    pub fn ring(&self) {
        let _ = match self.kind {
            Kind::Counter => write(&self.fd, &1_u64.to_le().to_le_bytes()),
            Kind::End => send(&self.fd, &[1], SendFlags::DONTWAIT | SendFlags::NOSIGNAL),
        };
    }

    /// Makes it unreadable again, and returns whether it had been rung. Never waits. To be called *before* looking at what
    /// the bell is about, so that what comes later rings again. When the other end is closed, or this is no bell: false.
    #[must_use = "or say why it does not matter"]
    pub fn clear(&self) -> bool {
        match self.kind {
            Kind::Counter => {
                let mut count = [0; 8];
                // The flag for this one read, since whoever shares the description may change it. Offset -1: a read
                // at no position, as of a stream.
                let into = &mut [IoSliceMut::new(&mut count)];
                preadv2(&self.fd, into, u64::MAX, ReadWriteFlags::NOWAIT).is_ok_and(|bytes| bytes == 8)
            }
            Kind::End => {
                let mut rings = [0; RINGS];
                // What is left, should somebody have a larger buffer, rings once more.
                recv(&self.fd, &mut rings[..], RecvFlags::DONTWAIT).is_ok_and(|(bytes, _)| bytes > 0)
            }
        }
    }
}

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::poll_readable;
    use core::time::Duration;
    use rustix::fs::{OFlags, fcntl_setfl};
    use std::fs::File;

    #[track_caller]
    fn assert_readable(bell: &Doorbell, expected: bool) {
        assert_eq!(poll_readable(&[bell.as_fd()], Some(Duration::ZERO)), Ok(u64::from(expected)));
    }

    #[test]
    fn a_bell_is_readable_from_ring_to_clear() {
        let bell = Doorbell::new().unwrap();
        let copy = Doorbell::from_fd(bell.as_fd().try_clone_to_owned().unwrap());
        assert_readable(&bell, false);
        assert!(!bell.clear());
        bell.ring();
        copy.ring();
        assert_readable(&copy, true);
        assert!(copy.clear());
        assert!(!bell.clear());
        assert_readable(&bell, false);
    }

    #[test]
    fn a_pair_rings_at_the_other_end() {
        let (daemon, client) = Doorbell::pair().unwrap();
        let client = Doorbell::from_fd(client.fd);
        daemon.ring();
        daemon.ring();
        assert_readable(&daemon, false);
        assert_readable(&client, true);
        assert!(client.clear());
        assert!(!client.clear());
        client.ring();
        assert!(daemon.clear());
        drop(client);
        daemon.ring();
        assert!(!daemon.clear(), "an end is no ring");
    }

    #[test]
    fn nobody_waits_for_who_does_not_clear() {
        let (daemon, client) = Doorbell::pair().unwrap();
        // What a client can do to its end, and to the bell of both.
        fcntl_setfl(&client, OFlags::empty()).unwrap();
        for _ in 0..10_000 {
            daemon.ring();
        }
        assert!(client.clear());
        assert!(!client.clear(), "all of them, by one");
        assert!(!client.clear());
        let shared = Doorbell::new().unwrap();
        fcntl_setfl(&shared, OFlags::empty()).unwrap();
        assert!(!shared.clear());
    }

    #[test]
    fn a_full_counter_counts_as_rung() {
        let bell = Doorbell::new().unwrap();
        rustix::io::write(&bell, &(u64::MAX - 1).to_le().to_le_bytes()).unwrap();
        bell.ring();
        assert!(bell.clear());
        assert!(!bell.clear());
    }

    #[test]
    fn what_is_no_bell_is_never_rung() {
        for path in ["/dev/null", "/"] {
            let bell = Doorbell::from_fd(File::open(path).unwrap().into());
            bell.ring();
            assert!(!bell.clear(), "{path}");
        }
    }
}
