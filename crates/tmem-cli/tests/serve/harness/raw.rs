//! A client made by hand, which does not keep to the protocol.

use super::{PATIENCE, Serving};
use tmem_ring::wire::{self, Reply, Request};
use tmem_sys::{Channel, Received};

/// A connection.
#[derive(Debug)]
pub(crate) struct Raw {
    pub(crate) channel: Channel,
}

impl Raw {
    /// One that is a client.
    #[track_caller]
    pub(crate) fn new(serving: &Serving, name: &str) -> Self {
        let raw = Self::stranger(serving);
        let hello = Request::Hello { version: wire::VERSION, name: name.to_owned(), cap_bytes: None, weight: None };
        assert!(matches!(raw.ask(&hello).0, Reply::Welcome { .. }));
        raw
    }

    /// One that is none yet.
    #[track_caller]
    pub(crate) fn stranger(serving: &Serving) -> Self {
        Self { channel: Channel::connect_within(&serving.socket(), PATIENCE).unwrap() }
    }

    #[track_caller]
    pub(crate) fn ask(&self, request: &Request) -> (Reply, Received) {
        self.channel.send(&serde_json::to_vec(request).unwrap(), &[]).unwrap();
        self.hear()
    }

    /// The next answer, and what is beside it.
    #[track_caller]
    pub(crate) fn hear(&self) -> (Reply, Received) {
        let mut packet = [0; wire::PACKET_BYTES];
        let received = self.channel.receive(&mut packet).unwrap();
        (serde_json::from_slice(&packet[..received.len]).unwrap(), received)
    }
}
