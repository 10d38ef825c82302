//! A connection to the daemon.

use crate::operation::ClientId;
use crate::wire::{PACKET_BYTES, Reply, Request};
use std::fmt;
use std::os::fd::{BorrowedFd, OwnedFd};
use tmem_sys::{Channel, Errno, Peer};

/// A connection.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) channel: Channel,
    pub(crate) peer: Peer,
    /// Who it is, after `Hello` or `Attach`.
    pub(crate) client: Option<ClientId>,
    /// It waits for the answer to a request.
    pub(crate) waits: bool,
}

/// What came.
#[derive(Debug)]
pub(crate) enum Heard {
    /// Nothing, after all.
    Nothing,
    /// A packet, and what was beside it.
    Packet(Result<Request, String>, Vec<OwnedFd>),
    /// The other side has closed.
    End,
}

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// The client has closed it, or its process has ended: the kernel tells no difference.
    Closed,
    /// The client was destroyed.
    Destroyed,
    /// It was no client, and the oldest of too many such connections of its user.
    Displaced,
    /// It has sent something before it had its answer.
    Hasty,
    /// It does not read what it is told.
    Deaf,
    /// The counts of one of its queues make no sense.
    Broken,
    /// The daemon has no means to listen to it.
    Unheard,
}

impl Why {
    /// Whether it was thrown out, for what it did or the daemon lacked.
    pub(crate) fn is_thrown_out(self) -> bool {
        !matches!(self, Self::Closed | Self::Destroyed)
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "it has closed its connection, or its process has ended",
            Self::Destroyed => "it was destroyed",
            Self::Displaced => "its user has too many connections that are no clients",
            Self::Hasty => "it has sent a request before it had the answer to the last",
            Self::Deaf => "it does not read its answers",
            Self::Broken => "the counts of a queue of it make no sense",
            Self::Unheard => "the system has no memory to listen to it",
        })
    }
}

impl Session {
    pub(crate) fn new(channel: Channel, peer: Peer) -> Self {
        Self { channel, peer, client: None, waits: false }
    }

    /// The next packet.
    pub(crate) fn hear(&self) -> Heard {
        let mut packet = [0; PACKET_BYTES];
        match self.channel.receive(&mut packet) {
            Err(Errno::AGAIN | Errno::INTR) => Heard::Nothing,
            Err(_) => Heard::End,
            Ok(received) if received.len == 0 && received.fds.is_empty() => Heard::End,
            Ok(received) => {
                let request = if received.truncated {
                    Err(format!(
                        "a packet has at most {PACKET_BYTES} bytes and one descriptor; or the daemon has no descriptors left"
                    ))
                } else {
                    serde_json::from_slice(&packet[..received.len])
                        .map_err(|error| format!("a packet holds one request as JSON, and this is none: {error}"))
                };
                Heard::Packet(request, received.fds)
            }
        }
    }

    /// Sends a reply. Never waits. An error is why the connection is to be ended.
    pub(crate) fn tell(&self, reply: &Reply, beside: &[BorrowedFd<'_>]) -> Result<(), Why> {
        tell(&self.channel, reply, beside)
    }
}

/// Sends a reply to whoever is there. Never waits. An error is why the connection is to be ended.
pub(crate) fn tell(channel: &Channel, reply: &Reply, beside: &[BorrowedFd<'_>]) -> Result<(), Why> {
    let mut packet = serde_json::to_vec(reply).unwrap_or_else(|_| unreachable!("a reply is numbers and text"));
    if packet.len() > PACKET_BYTES {
        // It quotes what it refuses.
        let message = "refused; what is wrong does not fit into a packet".to_owned();
        packet = serde_json::to_vec(&Reply::Failed { message }).unwrap_or_else(|_| unreachable!("as above"));
    }
    match channel.send(&packet, beside) {
        Ok(()) => Ok(()),
        Err(Errno::PIPE | Errno::CONNRESET) => Err(Why::Closed),
        // Its buffers are full, of packets or of descriptors. (The system call does not wait, so no signal ends it halfway.)
        Err(_) => Err(Why::Deaf),
    }
}
