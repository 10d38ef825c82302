//! A connection to the daemon.

use crate::operation::ClientId;
use crate::wire::{PACKET_BYTES, Reply, Request};
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

/// The other side is gone, or does not read what it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deaf;

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

    /// Sends a reply. Never waits.
    pub(crate) fn tell(&self, reply: &Reply, beside: &[BorrowedFd<'_>]) -> Result<(), Deaf> {
        tell(&self.channel, reply, beside)
    }
}

/// Sends a reply to whoever is there. Never waits.
pub(crate) fn tell(channel: &Channel, reply: &Reply, beside: &[BorrowedFd<'_>]) -> Result<(), Deaf> {
    let mut packet = serde_json::to_vec(reply).unwrap_or_else(|_| unreachable!("a reply is numbers and text"));
    if packet.len() > PACKET_BYTES {
        // It quotes what it refuses.
        let message = "refused; what is wrong does not fit into a packet".to_owned();
        packet = serde_json::to_vec(&Reply::Failed { message }).unwrap_or_else(|_| unreachable!("as above"));
    }
    match channel.send(&packet, beside) {
        Ok(()) => Ok(()),
        // The system call is not one that signals end halfway: what is interrupted was not sent, since it does not wait.
        Err(_) => Err(Deaf),
    }
}
