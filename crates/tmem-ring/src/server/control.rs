//! The thread that owns every connection and client.
//!
//! It waits for whatever comes next (a connection, a packet, an errand's end, an order of the [`Daemon`](super::Daemon)) and
//! hands it on; it never waits for a client. A client that sends before it has its answer, or does not read its answers, is
//! disconnected.

use super::DaemonOptions;
use super::clients::{Asker, Clients, failed};
use super::desk::{Answer, Beside};
use super::log::{About, Who};
use super::session::{Heard, Session, Why, tell};
use crate::wire::{Reply, Stat};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::time::{Duration, Instant};
use tmem_sys::{Channel, Doorbell, Epoll, Listener, Peer};
use tracing::Level;

/// Connections of a user that are no clients, at most: the oldest of them goes when another one comes. Those that ask for
/// one thing and go take microseconds.
const MOST_STRANGERS: usize = 64;

/// After this long the daemon looks again whether it has descriptors for those who want to connect.
const RETRY: Duration = Duration::from_millis(100);

const LISTENER: u64 = 0;
const NOTICE: u64 = 1;
const FIRST_SESSION: u64 = 2;

/// What the daemon is told by its owner.
#[derive(Debug)]
pub(crate) enum Order {
    /// Tell about everything.
    Stat(Sender<Stat>),
    /// Other options; tell when it is so.
    Reload(DaemonOptions, Sender<()>),
    /// Nobody new is taken; tell when it is so.
    Seclude(Sender<()>),
    /// The end.
    End,
}

/// All that the thread owns.
#[derive(Debug)]
pub(crate) struct Control {
    clients: Clients,
    sessions: BTreeMap<u64, Session>,
    next_session: u64,
    epoll: Epoll,
    listener: Option<Listener>,
    /// There were no descriptors for who wants to connect, so the listener is not waited for until then.
    full_until: Option<Instant>,
    notice: Arc<Doorbell>,
    orders: Receiver<Order>,
}

impl Control {
    pub(crate) fn new(
        clients: Clients,
        listener: Listener,
        notice: &Arc<Doorbell>,
        orders: Receiver<Order>,
    ) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        epoll.add(listener.as_fd(), LISTENER)?;
        epoll.add(notice.as_fd(), NOTICE)?;
        Ok(Self {
            clients,
            sessions: BTreeMap::new(),
            next_session: FIRST_SESSION,
            epoll,
            listener: Some(listener),
            full_until: None,
            notice: Arc::clone(notice),
            orders,
        })
    }

    /// Until the end is ordered. No operation is in flight afterwards.
    pub(crate) fn run(mut self) {
        let mut events = Vec::new();
        while self.obey() {
            let timeout = self.full_until.map(|until| until.saturating_duration_since(Instant::now()));
            // The descriptor is ours, and what it waits for; without it nobody is served.
            self.epoll.wait(&mut events, timeout).unwrap_or_else(|errno| panic!("cannot wait for clients: {errno}"));
            if self.full_until.is_some_and(|until| Instant::now() >= until) {
                self.listen_again();
            }
            for (token, _) in std::mem::take(&mut events) {
                match token {
                    LISTENER => self.accept(),
                    NOTICE => self.see_to_notice(),
                    session => self.hear(session),
                }
                self.dismiss();
            }
        }
        self.clients.close_all();
    }

    /// Returns whether there was no order to end.
    fn obey(&mut self) -> bool {
        loop {
            match self.orders.try_recv() {
                Ok(Order::Stat(to)) => {
                    let _ = to.send(self.clients.stat());
                }
                Ok(Order::Reload(options, done)) => {
                    let line = format_args!("who comes from now on is treated so: {options:?}");
                    self.clients.log.tell(Level::DEBUG, About::Daemon, line);
                    self.clients.options = options;
                    let _ = done.send(());
                }
                Ok(Order::Seclude(done)) => {
                    let line = format_args!("no new clients and queues are taken from now on");
                    self.clients.log.tell(Level::DEBUG, About::Daemon, line);
                    self.clients.ending = true;
                    if let Some(listener) = self.listener.take() {
                        // It is not in there when there are no descriptors.
                        let _ = self.epoll.remove(listener.as_fd());
                    }
                    let _ = done.send(());
                }
                Err(TryRecvError::Empty) => return true,
                Ok(Order::End) | Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    /// Takes one who wants to connect.
    fn accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        match listener.accept() {
            Ok(Some((channel, peer))) => self.admit(channel, peer),
            Ok(None) => {}
            Err(errno) => {
                let line = format_args!("whoever wants to connect waits: no descriptor is to be had ({errno})");
                self.clients.log.tell(Level::WARN, About::Daemon, line);
                // They would be told of again and again, with nothing to be done.
                let removed = self.epoll.remove(listener.as_fd());
                self.full_until = removed.is_ok().then(|| Instant::now() + RETRY);
            }
        }
    }

    fn listen_again(&mut self) {
        let again = self.listener.as_ref().map(|listener| self.epoll.add(listener.as_fd(), LISTENER));
        self.full_until = matches!(again, Some(Err(_))).then(|| Instant::now() + RETRY);
    }

    fn admit(&mut self, channel: Channel, peer: Peer) {
        if let Err(message) = self.clients.admits(peer.uid) {
            let line = format_args!("{} was not let in: {message}", Who(peer));
            self.clients.log.tell(Level::WARN, About::Stranger, line);
            // Who does not even hear that is sent away all the same.
            let _ = tell(&channel, &failed(message), &[]);
            return;
        }
        let is_alike = |session: &Session| session.client.is_none() && session.peer.uid == peer.uid;
        let mut strangers = self.sessions.iter().filter(|(_, session)| is_alike(session));
        if strangers.clone().count() >= MOST_STRANGERS
            && let Some(oldest) = strangers.next().map(|(number, _)| *number)
        {
            self.end(oldest, Why::Displaced);
        }
        let number = self.next_session;
        self.next_session += 1;
        let added = self.epoll.add(channel.as_fd(), number);
        self.sessions.insert(number, Session::new(channel, peer));
        if added.is_err() {
            self.end(number, Why::Unheard);
        }
    }

    /// A packet, or the end of a connection.
    fn hear(&mut self, number: u64) {
        let Some(session) = self.sessions.get_mut(&number) else { return };
        let asker = Asker { session: number, peer: session.peer, client: session.client };
        let waits = std::mem::replace(&mut session.waits, true);
        let (request, fds) = match session.hear() {
            Heard::Nothing => {
                session.waits = waits;
                return;
            }
            Heard::End => return self.end(number, Why::Closed),
            Heard::Packet(request, fds) => (request, fds),
        };
        if waits {
            let message = "one request at a time: this one came before the answer to the last, so the daemon hangs up";
            // It is sent away, whether it hears that or not.
            let _ = session.tell(&failed(message.to_owned()), &[]);
            let _ = self.clients.refuse(asker, fds, String::new());
            return self.end(number, Why::Hasty);
        }
        let answer = match request {
            Ok(request) => self.clients.on_request(asker, request, fds),
            Err(message) => self.clients.refuse(asker, fds, message),
        };
        if let Answer::Now(reply, beside) = answer {
            self.tell(number, &reply, &beside);
        }
    }

    /// Tells a session its answer, if it still is there and listens.
    fn tell(&mut self, number: u64, reply: &Reply, beside: &Beside) {
        let Some(session) = self.sessions.get_mut(&number) else {
            if let Reply::Welcome { client, .. } = reply {
                self.clients.on_end(*client, Why::Closed);
            }
            return;
        };
        session.waits = false;
        if let Reply::Welcome { client, .. } = reply {
            session.client = Some(*client);
        }
        if let Reply::Failed { message } = reply {
            // It quotes what it refuses.
            let line = format_args!("{} was refused: {message:?}", Who(session.peer));
            let level = if session.client.is_some() { Level::DEBUG } else { Level::WARN };
            self.clients.log.tell(level, About::User(session.peer.uid), line);
        }
        if let Err(why) = session.tell(reply, &beside.fds()) {
            self.end(number, why);
        }
    }

    fn see_to_notice(&mut self) {
        // Before looking: what comes later rings again.
        let _ = self.notice.clear();
        for (session, reply) in self.clients.on_notice() {
            self.tell(session, &reply, &Beside::Nothing);
        }
    }

    fn dismiss(&mut self) {
        for (session, why) in self.clients.take_dismissed() {
            self.end(session, why);
        }
    }

    fn end(&mut self, number: u64, why: Why) {
        let Some(session) = self.sessions.remove(&number) else { return };
        // Closing it would do, if the client had not perhaps a copy of our end.
        let _ = self.epoll.remove(session.channel.as_fd());
        if let Some(client) = session.client {
            self.clients.on_end(client, why);
        } else {
            let level = if why.is_thrown_out() { Level::WARN } else { Level::DEBUG };
            let line = format_args!("{} was no client and is gone: {why}", Who(session.peer));
            self.clients.log.tell(level, About::User(session.peer.uid), line);
        }
    }
}
