//! Everybody who is served, and how they come and go. What they ask for is answered in [`desk`](super::desk).

use super::errand::{Done, Errands};
use super::limits::Limits;
use super::log::{About, Log, Who};
use super::member::{Member, Presence, Waiting, Wish};
use super::session::Why;
use super::tenant::Tenant;
use super::{DaemonOptions, Service};
use crate::operation::ClientId;
use crate::wire::{self, Key, Reply, Stat};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Instant;
use tmem::ClientOptions;
use tmem_sys::{Doorbell, Peer};
use tracing::Level;

/// Numbers of clients and pools that are never given out: a store ends when it has none left, and that nobody shall bring
/// about by making pools for some days.
const NUMBERS_KEPT: u32 = 1 << 20;

/// Everybody who is served.
#[derive(Debug)]
pub(crate) struct Clients {
    store: tmem::Store,
    pub(super) service: Arc<Service>,
    pub(super) options: DaemonOptions,
    pub(super) members: BTreeMap<ClientId, Member>,
    pub(super) errands: Errands,
    /// Rung when there is something to be seen to.
    pub(super) notice: Arc<Doorbell>,
    /// No more clients and queues are taken.
    pub(super) ending: bool,
    own_uid: u32,
    started: Instant,
    /// Sessions to be ended.
    dismissed: Vec<(u64, Why)>,
    pub(super) log: Log,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asker {
    pub(crate) session: u64,
    pub(crate) peer: Peer,
    /// Which client it is, when it has said.
    pub(crate) client: Option<ClientId>,
}

/// What `Hello` says.
#[derive(Debug)]
pub(crate) struct Newcomer {
    pub(crate) name: String,
    pub(crate) cap_bytes: Option<u64>,
    pub(crate) weight: Option<u32>,
}

impl Clients {
    pub(crate) fn new(
        store: tmem::Store,
        service: Arc<Service>,
        options: DaemonOptions,
        notice: &Arc<Doorbell>,
    ) -> Self {
        Self {
            store,
            service,
            options,
            members: BTreeMap::new(),
            errands: Errands::new(notice),
            notice: Arc::clone(notice),
            ending: false,
            own_uid: tmem_sys::own_uid(),
            started: Instant::now(),
            dismissed: Vec::new(),
            log: Log::default(),
        }
    }

    /// Whether a user may do more than use what is its own.
    pub(super) fn is_master(&self, uid: u32) -> bool {
        uid == 0 || uid == self.own_uid
    }

    /// Whether a user may connect at all.
    pub(crate) fn admits(&self, uid: u32) -> Result<(), String> {
        if self.is_master(uid) || self.options.allow.contains(&uid) {
            return Ok(());
        }
        Err(format!("uid {uid} may not use this daemon: whoever runs it has to allow it, by number"))
    }

    pub(super) fn limits(&self) -> Limits {
        Limits::of(self.options.most_clients)
    }

    /// Whether more clients and pools can be given numbers; `last` is one that was just given out.
    pub(super) fn has_numbers(last: u32) -> Result<(), String> {
        if last < u32::MAX - NUMBERS_KEPT {
            return Ok(());
        }
        Err("the daemon has no numbers left for clients and pools: it has to be started anew".to_owned())
    }

    /// A new client.
    pub(super) fn hello(&mut self, asker: Asker, newcomer: Newcomer) -> Result<Reply, String> {
        let Newcomer { name, cap_bytes, weight } = newcomer;
        self.check_entry(asker)?;
        if name.len() > wire::NAME_BYTES || name.chars().any(char::is_control) {
            return Err(format!("a client's name has at most {} bytes, and no control characters", wire::NAME_BYTES));
        }
        let most = self.options.most_clients;
        if self.members.len() >= most {
            return Err(format!(
                "{most} clients are served, which is the most: those without a connection, too, until they are destroyed"
            ));
        }
        let cap_bytes = match (cap_bytes, self.options.cap_bytes) {
            (Some(own), Some(most)) => Some(own.min(most)),
            (own, most) => own.or(most),
        };
        let weight = weight.unwrap_or(1).clamp(1, self.options.weight.max(1));
        let key = new_key()?;
        let client = self.store.client(ClientOptions {
            name: name.clone(),
            cap_bytes: cap_bytes.map_or(usize::MAX, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX)),
            weight,
        });
        if let Err(message) = Self::has_numbers(client.id().0) {
            client.destroy();
            return Err(message);
        }
        let id = ClientId(client.id().0);
        let member = Member {
            name,
            uid: asker.peer.uid,
            key,
            presence: Presence::Connected { session: asker.session, pid: asker.peer.pid },
            tenant: Arc::new(Tenant::remote(client.clone(), weight, &self.notice)),
            client,
            cap_bytes,
            pools: BTreeMap::new(),
            queues: BTreeMap::new(),
            closing: false,
        };
        let line = format_args!("{member} has come: {}", Who(asker.peer));
        self.log.tell(Level::INFO, About::User(member.uid), line);
        let reply = welcome(&member);
        self.members.insert(id, member);
        Ok(reply)
    }

    /// Whether a connection may become a client.
    fn check_entry(&self, asker: Asker) -> Result<(), String> {
        if let Some(client) = asker.client {
            return Err(format!(
                "this connection is client {} already: make another connection for another one",
                client.0
            ));
        }
        if self.ending { Err("the daemon is ending: try again when it is back".to_owned()) } else { Ok(()) }
    }

    /// A client that was here before. None: it is answered when what it left is cleared away.
    pub(super) fn attach(&mut self, asker: Asker, client: ClientId, key: &Key) -> Result<Option<Reply>, String> {
        self.check_entry(asker)?;
        let known = self.members.get_mut(&client);
        let own = known.filter(|member| is_same(&member.key, key) && member.uid == asker.peer.uid);
        // Who does not know the key need not know whether there is such a client.
        let gone = || {
            format!(
                "client {} is gone, or it was another user's, or the key is not its: say Hello for a new one",
                client.0
            )
        };
        let member = own.ok_or_else(gone)?;
        let pid = asker.peer.pid;
        match &mut member.presence {
            Presence::Connected { .. } => Err(format!("client {} has a connection: end that first", client.0)),
            Presence::Leaving { waiting } => {
                waiting.push(Waiting { session: asker.session, wish: Wish::Attach { pid } });
                Ok(None)
            }
            Presence::Away => {
                member.attach(asker.session, pid, &self.notice);
                Ok(Some(welcome_back(member, pid, &mut self.log)))
            }
        }
    }

    /// The session of a client is over.
    pub(crate) fn on_end(&mut self, client: ClientId, why: Why) {
        if self.members.get(&client).is_some_and(|member| matches!(member.presence, Presence::Connected { .. })) {
            self.clear_away(client, why, Vec::new());
        }
    }

    /// Destroys a client, for a session that waits for it.
    pub(super) fn destroy(&mut self, client: ClientId, waiting: Waiting) {
        let Some(member) = self.members.get_mut(&client) else { return };
        match &mut member.presence {
            Presence::Leaving { waiting: all } => all.push(waiting),
            Presence::Connected { session, .. } => {
                self.dismissed.push((*session, Why::Destroyed));
                self.clear_away(client, Why::Destroyed, vec![waiting]);
            }
            Presence::Away => self.clear_away(client, Why::Destroyed, vec![waiting]),
        }
    }

    fn clear_away(&mut self, client: ClientId, why: Why, waiting: Vec<Waiting>) {
        let Some(member) = self.members.get_mut(&client) else { return };
        let remains = member.leave(why == Why::Destroyed, waiting);
        let (level, gone) = if why.is_thrown_out() { (Level::WARN, "is thrown out") } else { (Level::INFO, "is gone") };
        let (emptied, kept) = (remains.pools(), member.pools.len());
        let line = format_args!("{member} {gone}: {why}; pools emptied: {emptied}, kept: {kept}");
        self.log.tell(level, About::User(member.uid), line);
        let service = Arc::clone(&self.service);
        self.errands.run(move || Done::Buried { client, gone: remains.bury(&service) });
    }

    /// Sessions to be ended: their clients were destroyed, or broke the protocol.
    pub(crate) fn take_dismissed(&mut self) -> Vec<(u64, Why)> {
        std::mem::take(&mut self.dismissed)
    }

    /// Sees to queues that were closed, by clients that let go of them or broke the protocol, and to errands that have
    /// ended. Returns what is to be told to whom.
    pub(crate) fn on_notice(&mut self) -> Vec<(u64, Reply)> {
        let mut replies = Vec::new();
        while let Some(done) = self.errands.next_done() {
            match done {
                Done::Answered { session, reply } => replies.push((session, reply)),
                Done::Closed { client } => {
                    self.members.get_mut(&client).into_iter().for_each(|member| member.closing = false);
                }
                Done::Buried { client, gone } => replies.extend(self.on_buried(client, gone)),
            }
        }
        for (client, member) in &mut self.members {
            let Presence::Connected { session, .. } = member.presence else { continue };
            if member.tenant.is_broken() {
                self.dismissed.push((session, Why::Broken));
                continue;
            }
            // One errand at a time: a client that opens and lets go gets no more threads than others.
            let closed = if member.closing { Vec::new() } else { member.take_closed() };
            if !closed.is_empty() {
                member.closing = true;
                let (service, client) = (Arc::clone(&self.service), *client);
                self.errands.run(move || {
                    closed.into_iter().for_each(|queue| service.close(queue));
                    Done::Closed { client }
                });
            }
        }
        replies
    }

    fn on_buried(&mut self, client: ClientId, gone: bool) -> Vec<(u64, Reply)> {
        let Some(member) = self.members.get_mut(&client) else { return Vec::new() };
        let presence = std::mem::replace(&mut member.presence, Presence::Away);
        let Presence::Leaving { waiting } = presence else { return Vec::new() };
        if !gone && waiting.iter().any(|waiting| waiting.wish == Wish::Destroyed) {
            self.clear_away(client, Why::Destroyed, waiting);
            return Vec::new();
        }
        let mut replies = Vec::new();
        for Waiting { session, wish } in waiting {
            let reply = match wish {
                Wish::Destroyed => Reply::Done,
                Wish::Attach { pid } if !gone && member.presence == Presence::Away => {
                    member.attach(session, pid, &self.notice);
                    welcome_back(member, pid, &mut self.log)
                }
                Wish::Attach { .. } => {
                    failed(format!("client {} is gone, or was faster: say Hello for a new one", client.0))
                }
            };
            replies.push((session, reply));
        }
        if gone {
            self.members.remove(&client);
        }
        replies
    }

    /// Tells about everything.
    pub(crate) fn stat(&self) -> Stat {
        let (memory, service) = (self.store.memory(), self.service.stats());
        Stat {
            pid: std::process::id(),
            budget_bytes: memory.budget as u64,
            used_bytes: memory.used as u64,
            uptime_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            workers: service.workers as u64,
            worker_sleeps: service.sleeps,
            clients: self.members.values().map(Member::stat).collect(),
        }
    }

    /// Ends all queues: nothing is in flight afterwards.
    pub(crate) fn close_all(&mut self) {
        for member in self.members.values_mut() {
            std::mem::take(&mut member.queues).into_keys().for_each(|queue| self.service.close(queue));
        }
    }
}

fn welcome(member: &Member) -> Reply {
    let pools = member.pools.keys().copied().collect();
    Reply::Welcome { client: member.id(), key: member.key.clone(), pools }
}

fn welcome_back(member: &Member, pid: u32, log: &mut Log) -> Reply {
    log.tell(Level::INFO, About::User(member.uid), format_args!("{member} is back: process {pid}"));
    welcome(member)
}

pub(super) fn failed(message: String) -> Reply {
    Reply::Failed { message }
}

fn new_key() -> Result<Key, String> {
    let bytes: [u8; 16] = tmem_sys::random_bytes()
        .map_err(|errno| format!("the system gives the daemon no random bits for a key ({errno})"))?;
    let mut text = String::with_capacity(32);
    for byte in bytes {
        // To a string, which takes everything.
        let _ = write!(text, "{byte:02x}");
    }
    Ok(Key(text))
}

/// In a time that does not tell how much of it is right.
fn is_same(key: &Key, other: &Key) -> bool {
    let differences = key.0.bytes().zip(other.0.bytes()).fold(0, |all, (one, other)| all | (one ^ other));
    key.0.len() == other.0.len() && std::hint::black_box(differences) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_128_bits_and_compared_whole() {
        let [key, other] = [(), ()].map(|()| new_key().unwrap_or_else(|message| panic!("{message}")));
        assert_eq!(key.0.len(), 32);
        assert!(key.0.bytes().all(|digit| digit.is_ascii_hexdigit()));
        assert!(is_same(&key, &key) && !is_same(&key, &other));
        assert!(!is_same(&key, &Key(key.0[..31].to_owned())) && !is_same(&key, &Key(String::new())));
        assert!(!is_same(&key, &Key(format!("{}0", key.0))));
    }
}
