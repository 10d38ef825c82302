//! What the front of `tmem run` and its monitor say to each other: one JSON text a packet.
//!
//! Neither ever waits for the other to read. End of file means that the other one is dead.

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use tmem_pager::{Live, Report};

/// A packet is smaller: notes are lines, a report some forty numbers.
const PACKET_BYTES: usize = 16 << 10;

/// From the monitor.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToFront {
    /// Programs can be started, with these in their environment.
    Ready {
        /// The name of the socket that agents connect to.
        socket: String,
        /// The path of the agent; none in a build without one.
        agent: Option<String>,
    },
    /// It cannot work, and why.
    Failed(String),
    /// A line for people.
    Note(String),
    /// The answer to [`ToMonitor::Live`].
    Live(Live),
    /// The answer to [`ToMonitor::Finish`].
    Report(Box<Report>),
}

/// From the front.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToMonitor {
    /// How are things?
    Live,
    /// The program has ended: how was it?
    Finish,
}

/// What there is to receive.
#[derive(Debug)]
pub(crate) enum Received<T> {
    /// A message.
    Message(T),
    /// Nothing yet.
    Nothing,
    /// The other one is dead.
    End,
}

/// One end.
#[derive(Debug)]
pub(crate) struct Link(OwnedFd);

impl Link {
    /// Both ends.
    pub(crate) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self(ours), theirs))
    }

    /// The end that another process left us.
    pub(crate) fn new(end: OwnedFd) -> Self {
        Self(end)
    }

    /// Sends, if there is room.
    pub(crate) fn send(&self, message: &impl Serialize) -> io::Result<()> {
        let text = serde_json::to_vec(message)?;
        send(&self.0, &text, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Takes what has come, if anything has.
    pub(crate) fn receive<T: DeserializeOwned>(&self) -> Received<T> {
        let mut text = vec![0; PACKET_BYTES];
        match recv(&self.0, &mut text[..], RecvFlags::DONTWAIT) {
            Err(Errno::AGAIN | Errno::INTR) => Received::Nothing,
            Ok((length, _)) if length > 0 => {
                // Both ends are the same file; what cannot be read was not written by the other.
                serde_json::from_slice(&text[..length]).map_or(Received::End, Received::Message)
            }
            Ok(_) | Err(_) => Received::End,
        }
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_and_the_end_is_seen() {
        let (front, monitor) = Link::pair().unwrap();
        let monitor = Link::new(monitor);
        assert!(matches!(monitor.receive::<ToMonitor>(), Received::Nothing));
        front.send(&ToMonitor::Finish).unwrap();
        assert!(matches!(monitor.receive(), Received::Message(ToMonitor::Finish)));
        monitor.send(&ToFront::Report(Box::default())).unwrap();
        drop(monitor);
        assert!(matches!(front.receive(), Received::Message(ToFront::Report(_))));
        assert!(matches!(front.receive::<ToFront>(), Received::End));
        assert!(front.send(&ToMonitor::Live).is_err());
    }
}
