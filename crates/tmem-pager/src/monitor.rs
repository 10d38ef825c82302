//! The monitor that does nothing yet: it refuses programs, and keeps the limit that it is told.

use crate::control::{from_bytes, to_bytes};
use crate::{Live, Options, Report};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, accept_with, recv, send};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::thread;
use tmem_agent::protocol::{CONTROL, MAGIC, Packet, REFUSED};

/// A monitor could not start.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// A thread could not be made.
    #[error("cannot start a thread ({0})")]
    Thread(std::io::Error),
}

/// Owns the store and serves a tree of programs.
#[derive(Debug)]
pub struct Monitor {
    limit_bytes: Arc<AtomicU64>,
    notes: std::sync::Mutex<Vec<String>>,
}

impl Monitor {
    /// Starts its threads.
    ///
    /// # Errors
    /// When they cannot be.
    pub fn start(options: &Options, listener: OwnedFd) -> Result<Self, MonitorError> {
        let limit_bytes = Arc::new(AtomicU64::new(options.limit_bytes));
        let limit = Arc::clone(&limit_bytes);
        thread::Builder::new().spawn(move || listen(&listener, &limit)).map_err(MonitorError::Thread)?;
        Ok(Self { limit_bytes, notes: std::sync::Mutex::default() })
    }

    /// This moment.
    #[must_use]
    pub fn live(&self) -> Live {
        // Relaxed: a number that stands for itself.
        Live { limit_bytes: self.limit_bytes.load(Ordering::Relaxed), ..Live::default() }
    }

    /// From the start until now.
    #[must_use]
    pub fn report(&self) -> Report {
        Report { limit_bytes: self.live().limit_bytes, ..Report::default() }
    }

    /// What people are to be told, since the last call.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        std::mem::take(&mut *self.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the limit; returns the old one.
    #[must_use]
    pub fn set_limit(&self, bytes: u64) -> u64 {
        // Relaxed: as above.
        self.limit_bytes.swap(bytes, Ordering::Relaxed)
    }

    /// Address spaces that still live.
    #[must_use]
    pub fn managed(&self) -> usize {
        0
    }

    /// Ends the threads.
    pub fn stop(self) {}
}

fn listen(listener: &OwnedFd, limit_bytes: &AtomicU64) {
    loop {
        match accept_with(listener, SocketFlags::CLOEXEC) {
            Ok(peer) => drop(answer(&peer, limit_bytes)),
            Err(Errno::INTR | Errno::CONNABORTED) => {}
            Err(_) => return,
        }
    }
}

fn answer(peer: &OwnedFd, limit_bytes: &AtomicU64) -> Result<(), Errno> {
    let mut bytes = [0; Packet::BYTES];
    let (_, length) = recv(peer, &mut bytes, RecvFlags::empty())?;
    let answer = match from_bytes(&bytes[..length.min(Packet::BYTES)]) {
        Some(mut asked) if asked.kind == CONTROL => {
            // Relaxed: as above.
            asked.words[1] = limit_bytes.swap(asked.words[0], Ordering::Relaxed);
            asked
        }
        _ => Packet { magic: MAGIC, kind: REFUSED, words: [0; 7] },
    };
    send(peer, &to_bytes(&answer), SendFlags::NOSIGNAL).map(drop)
}
