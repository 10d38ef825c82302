//! The desk: bytes are requests of four connections, as JSON or as what JSON says, without descriptors.
//!
//! Whatever they say, nothing panics or goes on for ever, each request has its one answer, answers fit into a packet, and
//! nothing is left of the clients when they are gone.

use super::super::clients::{Asker, Clients};
use super::super::desk::Answer;
use super::super::session::Why;
use super::super::{DaemonOptions, Service};
use super::{Bytes, store};
use crate::operation::{ClientId, PoolId};
use crate::wire::{self, Key, Policy, PoolKind, PoolOptions, Reply, Request, Verb};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;
use tmem_sys::{Doorbell, Peer};

const SESSIONS: usize = 4;
const MOST_CLIENTS: usize = 3;

/// What an errand that takes longer hangs in.
const PATIENCE: Duration = Duration::from_secs(10);

struct World {
    clients: Clients,
    notice: Arc<Doorbell>,
    /// Whom each connection is.
    sessions: [Option<ClientId>; SESSIONS],
    /// Keys that were given out.
    keys: Vec<(ClientId, Key)>,
}

/// Answers what `bytes` ask.
pub fn answer(bytes: &[u8]) {
    let store = store();
    let service = Arc::new(Service::start(1).unwrap_or_else(|error| panic!("no worker: {error}")));
    let notice = Arc::new(Doorbell::new().unwrap_or_else(|error| panic!("no bell: {error}")));
    let options =
        DaemonOptions { workers: 1, allow: Vec::new(), cap_bytes: None, weight: 100, most_clients: MOST_CLIENTS };
    let clients = Clients::new(store.clone(), service, options, &notice);
    let mut world = World { clients, notice, sessions: [None; SESSIONS], keys: Vec::new() };
    let mut bytes = Bytes(bytes);
    while !bytes.is_empty() {
        world.step(&mut bytes);
    }
    world.empty();
    drop(world);
    assert_eq!(store.memory().charged, 0, "something is left of them");
}

impl World {
    fn asker(&self, session: usize) -> Asker {
        // The last one is of another user than the daemon.
        let uid = tmem_sys::own_uid() + u32::from(session == SESSIONS - 1);
        Asker { session: session as u64, peer: Peer { pid: 1, uid, gid: 0 }, client: self.sessions[session] }
    }

    fn step(&mut self, bytes: &mut Bytes<'_>) {
        let choice = usize::from(bytes.byte());
        let session = choice % SESSIONS;
        match choice / SESSIONS {
            0..3 => self.hang_up(session, Why::Closed),
            3..20 => {
                let len = usize::from(bytes.byte());
                if let Ok(request) = serde_json::from_slice(bytes.take(len)) {
                    self.ask(session, request);
                }
            }
            _ => {
                let request = self.request(bytes);
                let packet = serde_json::to_vec(&request).unwrap_or_else(|error| panic!("{error}"));
                assert_eq!(serde_json::from_slice::<Request>(&packet).ok(), Some(request.clone()));
                self.ask(session, request);
            }
        }
    }

    fn hang_up(&mut self, session: usize, why: Why) {
        if let Some(client) = self.sessions[session].take() {
            self.clients.on_end(client, why);
        }
    }

    /// Asks, and waits for the answer.
    fn ask(&mut self, session: usize, request: Request) {
        let answer = self.clients.on_request(self.asker(session), request, Vec::new());
        let mut reply = match answer {
            Answer::Now(reply, _) => Some(reply),
            Answer::Later => None,
        };
        loop {
            for (told, reply_later) in self.clients.on_notice() {
                assert!(told == session as u64 && reply.is_none(), "an answer to nothing: {reply_later:?}");
                reply = Some(reply_later);
            }
            for (session, why) in self.clients.take_dismissed() {
                self.hang_up(usize::try_from(session).unwrap_or(usize::MAX), why);
            }
            if reply.is_some() {
                break;
            }
            self.wait();
        }
        let packet = serde_json::to_vec(&reply).unwrap_or_else(|error| panic!("{error}"));
        if let Some(Reply::Welcome { client, key, .. }) = reply {
            assert!(packet.len() <= wire::PACKET_BYTES, "a Welcome fits into a packet");
            self.sessions[session] = Some(client);
            self.keys.push((client, key));
        }
    }

    /// Waits until an errand has ended.
    fn wait(&self) {
        let rung = tmem_sys::poll_readable(&[self.notice.as_fd()], Some(PATIENCE));
        assert_eq!(rung, Ok(1), "an errand hangs");
        let _ = self.notice.clear();
    }

    /// Everybody goes, and those who left something are destroyed.
    fn empty(&mut self) {
        for session in 0..SESSIONS {
            self.hang_up(session, Why::Closed);
        }
        while let Some(client) = self.clients.members.keys().next().copied() {
            self.ask(0, Request::Control { client, verb: Verb::Destroy });
        }
        assert!(self.clients.take_dismissed().is_empty());
    }

    fn request(&self, bytes: &mut Bytes<'_>) -> Request {
        let version = wire::VERSION;
        // A number that is likely to be of somebody.
        let id = |bytes: &mut Bytes<'_>| match bytes.byte() {
            0xff => u32::try_from(bytes.word() >> 32).unwrap_or(u32::MAX),
            small => u32::from(small % 8),
        };
        let client = |bytes: &mut Bytes<'_>| ClientId(id(bytes));
        let pool = |bytes: &mut Bytes<'_>| PoolId(id(bytes));
        match bytes.byte() % 16 {
            0 | 1 => {
                let (flags, len) = (bytes.byte(), usize::from(bytes.byte()));
                let name = String::from_utf8_lossy(bytes.take(len % 70)).into_owned();
                let cap_bytes = (flags & 1 != 0).then(|| bytes.edge());
                let weight = (flags & 2 != 0).then(|| id(bytes));
                Request::Hello { version: if flags < 0xf0 { version } else { id(bytes) }, name, cap_bytes, weight }
            }
            2 | 3 => {
                let known = self.keys.get(usize::from(bytes.byte()));
                let (client, key) = known.cloned().unwrap_or_else(|| (client(bytes), Key("0".repeat(32))));
                Request::Attach { version, client, key }
            }
            4 | 5 => {
                let flags = usize::from(bytes.byte());
                Request::CreatePool(PoolOptions {
                    kind: [PoolKind::Persistent, PoolKind::Ephemeral][flags & 1],
                    shared: flags & 2 != 0,
                    policy: [Policy::Fast, Policy::Balanced, Policy::Dense][flags / 4 % 3],
                    outlives: flags & 128 != 0,
                })
            }
            6 => Request::JoinPool { pool: pool(bytes) },
            7 => Request::Authorise { pool: pool(bytes), client: client(bytes) },
            8 => Request::DestroyPool { pool: pool(bytes) },
            9 => Request::Register { region: bytes.short() },
            10 => Request::Unregister { region: bytes.short() },
            11 => Request::OpenQueue { entries: 1_u32.checked_shl(id(bytes)).unwrap_or(3) },
            12 => Request::CloseQueue { queue: u64::from(id(bytes)) },
            13 => Request::Stat,
            _ => {
                let verb = match bytes.byte() % 8 {
                    0 => Verb::Freeze,
                    1 => Verb::Thaw,
                    2 => Verb::Flush,
                    3 => Verb::Destroy,
                    4 => Verb::Cap(bytes.edge()),
                    5 => Verb::Weight(id(bytes)),
                    _ => Verb::Authorise(pool(bytes)),
                };
                Request::Control { client: client(bytes), verb }
            }
        }
    }
}
