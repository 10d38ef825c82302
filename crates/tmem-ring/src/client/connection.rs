//! What a client says to its daemon, one request after the other.

use super::error::ClientError;
use crate::wire::{PACKET_BYTES, Reply, Request};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tmem_sys::{Channel, Errno, poll_readable};

/// What a daemon has for an answer. It has them in microseconds: one that takes longer is stopped or overwhelmed.
const ANSWER: Duration = Duration::from_secs(5);

/// What it has where data goes or operations end: about the time that a terabyte takes.
const LONG_ANSWER: Duration = Duration::from_secs(60);

/// A connection. Threads take turns.
#[derive(Debug)]
pub(super) struct Connection(Mutex<State>);

#[derive(Debug)]
struct State {
    channel: Channel,
    /// An answer may come that nobody waits for any more, and would be taken for another one.
    is_lost: bool,
}

impl Connection {
    pub(super) fn open(path: &Path) -> Result<Self, ClientError> {
        let channel = Channel::connect_within(path, ANSWER).map_err(|error| {
            let path = path.to_owned();
            match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NoDaemon { path },
                io::ErrorKind::PermissionDenied => ClientError::NoPermission { path },
                io::ErrorKind::WouldBlock => ClientError::Silent { waited: ANSWER },
                _ => ClientError::Connect { path, source: error },
            }
        })?;
        Ok(Self(Mutex::new(State { channel, is_lost: false })))
    }

    /// Asks, and waits for the answer.
    pub(super) fn ask(
        &self,
        request: &Request,
        beside: &[BorrowedFd<'_>],
    ) -> Result<(Reply, Vec<OwnedFd>), ClientError> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.is_lost {
            return Err(ClientError::Gone);
        }
        let answer = state.ask(request, beside);
        state.is_lost = matches!(answer, Err(ClientError::Gone | ClientError::Silent { .. } | ClientError::Nonsense));
        match answer? {
            (Reply::Failed { message }, _) => Err(ClientError::Refused { message }),
            answered => Ok(answered),
        }
    }

    /// The same, where `Done` is the answer.
    pub(super) fn order(&self, request: &Request, beside: &[BorrowedFd<'_>]) -> Result<(), ClientError> {
        match self.ask(request, beside)? {
            (Reply::Done, _) => Ok(()),
            _ => Err(ClientError::Nonsense),
        }
    }
}

impl State {
    fn ask(&self, request: &Request, beside: &[BorrowedFd<'_>]) -> Result<(Reply, Vec<OwnedFd>), ClientError> {
        let takes_long = matches!(
            request,
            Request::DestroyPool { .. } | Request::CloseQueue { .. } | Request::Attach { .. } | Request::Control { .. }
        );
        let waited = if takes_long { LONG_ANSWER } else { ANSWER };
        let end = Instant::now() + waited;
        let packet = serde_json::to_vec(request).unwrap_or_else(|_| unreachable!("a request is numbers and text"));
        if packet.len() > PACKET_BYTES {
            let message = format!("a request has at most {PACKET_BYTES} bytes, and this has {}", packet.len());
            return Err(ClientError::Refused { message });
        }
        loop {
            match self.channel.send(&packet, beside) {
                Err(Errno::INTR) if Instant::now() < end => {}
                Err(Errno::AGAIN | Errno::INTR) => return Err(ClientError::Silent { waited }),
                // Whoever has hung up may have said why.
                Ok(()) | Err(_) => return self.hear(end, waited),
            }
        }
    }

    fn hear(&self, end: Instant, waited: Duration) -> Result<(Reply, Vec<OwnedFd>), ClientError> {
        let mut packet = [0; PACKET_BYTES];
        let mut was_reset = false;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ClientError::Silent { waited });
            }
            // What poll can fail for (memory) passes.
            if poll_readable(&[self.channel.as_fd()], Some(left)) == Ok(0) {
                continue;
            }
            match self.channel.receive(&mut packet) {
                Err(Errno::INTR | Errno::AGAIN) => {}
                // It hung up before it read all that we said: what it said first is there behind this.
                Err(Errno::CONNRESET) if !was_reset => was_reset = true,
                Err(_) => return Err(ClientError::Gone),
                Ok(received) if received.len == 0 => return Err(ClientError::Gone),
                Ok(received) => {
                    let reply = serde_json::from_slice(&packet[..received.len]).map_err(|_| ClientError::Nonsense)?;
                    return Ok((reply, received.fds));
                }
            }
        }
    }
}
