//! A daemon: a store, workers, and clients on a socket.

use super::Service;
use super::clients::Clients;
use super::control::{Control, Order};
use super::vital::vital;
use crate::wire::Stat;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tmem_sys::{Doorbell, Listener};
use tracing::warn;

/// How clients are treated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DaemonOptions {
    /// Threads that carry out operations.
    pub workers: usize,
    /// Users who may connect, besides root and the daemon's own; everybody else is refused.
    pub allow: Vec<u32>,
    /// The most that a client may hold, in bytes; none: as much as the store has.
    pub cap_bytes: Option<u64>,
    /// The most that a client may ask for as its weight.
    pub weight: u32,
    /// Clients that there may be, those without a connection, too. Each may have its part of the mappings and addresses of
    /// the process: a few hundred can have what they like.
    pub most_clients: usize,
}

/// A daemon. Dropping it ends it at once: what is being carried out is completed, what is only submitted is not.
///
/// Its process needs descriptors: two for each queue, one for each region and client (`ulimit -n`).
#[derive(Debug)]
pub struct Daemon {
    service: Arc<Service>,
    orders: Sender<Order>,
    notice: Arc<Doorbell>,
    control: Option<JoinHandle<()>>,
}

impl Daemon {
    /// Serves `store` to whoever connects to `listener` and may.
    ///
    /// # Errors
    /// When there are no descriptors or threads to be had.
    pub fn start(store: tmem::Store, listener: Listener, options: DaemonOptions) -> io::Result<Self> {
        let service = Arc::new(Service::start(options.workers)?);
        let notice = Arc::new(Doorbell::new()?);
        let (orders, received) = channel();
        let clients = Clients::new(store, Arc::clone(&service), options, &notice);
        let control = Control::new(clients, listener, &notice, received)?;
        let control =
            std::thread::Builder::new().name("tmem-control".to_owned()).spawn(move || vital(|| control.run()))?;
        Ok(Self { service, orders, notice, control: Some(control) })
    }

    /// Other options, for whoever comes from now on: clients that are there keep their caps and weights. The workers
    /// stay. It is so when this returns.
    pub fn reload(&self, options: DaemonOptions) {
        let (sender, done) = channel();
        self.order(Order::Reload(options, sender));
        answer(&done);
    }

    /// What there is.
    #[must_use]
    pub fn stat(&self) -> Stat {
        let (sender, told) = channel();
        self.order(Order::Stat(sender));
        answer(&told)
    }

    /// Takes no new connections and submissions, and ends when what is submitted is completed, or `timeout` is over.
    pub fn drain(self, timeout: Duration) {
        let end = Instant::now() + timeout;
        let (sender, done) = channel();
        self.order(Order::Seclude(sender));
        answer(&done);
        if !self.service.drain(end) {
            warn!("what was submitted was not completed within {timeout:?}: the rest of it is not carried out");
        }
    }

    fn order(&self, order: Order) {
        // It ends when it is told to, as this is dropped.
        let _ = self.orders.send(order);
        self.notice.ring();
    }
}

/// What the thread answers to an order.
fn answer<T>(told: &Receiver<T>) -> T {
    told.recv()
        .unwrap_or_else(|_| unreachable!("it obeys until it is told to end, and does not panic and live: `vital`"))
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.order(Order::End);
        // As above.
        let _ = self.control.take().map(JoinHandle::join);
    }
}
