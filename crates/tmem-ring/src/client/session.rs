//! A client of a daemon.

use super::connection::Connection;
use super::error::ClientError;
use super::queue::Queue;
use super::region::Region;
use crate::memory::QueueMemory;
use crate::operation::{ClientId, PoolId};
use crate::wire::{self, Key, PoolOptions, Reply, Request, Stat, Verb};
use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tmem_sys::{Backing, Doorbell, Words};

/// What a new client says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hello {
    /// For people, at most [`wire::NAME_BYTES`].
    pub name: String,
    /// The most that it is to hold; the daemon may have set less.
    pub cap_bytes: Option<u64>,
    /// Its weight; the daemon may have set less.
    pub weight: Option<u32>,
}

/// A client of a daemon, as its process holds it. Dropping it ends its session: operations that are outstanding may or
/// may not be carried out, and what is in pools that do not outlive it is gone.
#[derive(Debug)]
pub struct Client {
    connection: Arc<Connection>,
    id: ClientId,
    key: Key,
    pools: Vec<PoolId>,
    /// Numbers of regions that are taken.
    regions: Arc<Mutex<BTreeSet<u16>>>,
}

impl Client {
    /// A new client of the daemon at `path`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn connect(path: &Path, hello: &Hello) -> Result<Self, ClientError> {
        let Hello { name, cap_bytes, weight } = hello.clone();
        Self::enter(path, &Request::Hello { version: wire::VERSION, name, cap_bytes, weight })
    }

    /// A client that was here before and has no connection now: for the user that it was. Its pools that outlive it are
    /// [`Self::pools`], and it may use those that it had joined; its regions and queues are gone.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn attach(path: &Path, client: ClientId, key: &Key) -> Result<Self, ClientError> {
        Self::enter(path, &Request::Attach { version: wire::VERSION, client, key: key.clone() })
    }

    fn enter(path: &Path, request: &Request) -> Result<Self, ClientError> {
        let connection = Connection::open(path)?;
        match connection.ask(request, &[])? {
            (Reply::Welcome { client, key, pools }, _) => {
                Ok(Self { connection: Arc::new(connection), id: client, key, pools, regions: Arc::default() })
            }
            _ => Err(ClientError::Nonsense),
        }
    }

    /// Its number, which others need to authorise it.
    #[must_use]
    pub fn id(&self) -> ClientId {
        self.id
    }

    /// For [`Self::attach`]. Whoever of the same user has it can take the client's place.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Its own pools that were there when it attached.
    #[must_use]
    pub fn pools(&self) -> &[PoolId] {
        &self.pools
    }

    /// A new pool.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn create_pool(&self, options: PoolOptions) -> Result<PoolId, ClientError> {
        self.ask_for_pool(&Request::CreatePool(options))
    }

    /// Another client's shared pool, which has authorised this one.
    ///
    /// # Errors
    /// [`ClientError::Refused`] when it has not.
    pub fn join_pool(&self, pool: PoolId) -> Result<PoolId, ClientError> {
        self.ask_for_pool(&Request::JoinPool { pool })
    }

    fn ask_for_pool(&self, request: &Request) -> Result<PoolId, ClientError> {
        match self.connection.ask(request, &[])? {
            (Reply::Pool { pool }, _) => Ok(pool),
            _ => Err(ClientError::Nonsense),
        }
    }

    /// Lets another client join an own pool that is shared.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn authorise(&self, pool: PoolId, client: ClientId) -> Result<(), ClientError> {
        self.connection.order(&Request::Authorise { pool, client }, &[])
    }

    /// Ends an own pool for everybody: all that is in it is gone when this returns.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn destroy_pool(&self, pool: PoolId) -> Result<(), ClientError> {
        self.connection.order(&Request::DestroyPool { pool }, &[])
    }

    /// Makes memory for operations, of whole pages of its backing.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn create_region(&self, bytes: usize, backing: Backing) -> Result<Region, ClientError> {
        self.announce(tmem_sys::Region::create("tmem-region", bytes, backing)?)
    }

    /// Makes memory of the caller's usable for operations: a memfd of whole pages, sealed against shrinking.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn register(&self, memfd: OwnedFd) -> Result<Region, ClientError> {
        let memory = tmem_sys::Region::map_foreign(memfd);
        self.announce(memory.map_err(tmem_sys::SysError::from)?)
    }

    fn announce(&self, memory: tmem_sys::Region) -> Result<Region, ClientError> {
        let region = self.free_number().ok_or(ClientError::NoNumber)?;
        let announced = self.connection.order(&Request::Register { region }, &[memory.fd()]);
        if let Err(error) = announced {
            self.regions.lock().unwrap_or_else(PoisonError::into_inner).remove(&region);
            return Err(error);
        }
        Ok(Region::new(region, memory, &self.connection, &self.regions))
    }

    /// Takes a number for a region.
    fn free_number(&self) -> Option<u16> {
        let mut taken = self.regions.lock().unwrap_or_else(PoisonError::into_inner);
        let number = (0..u16::MAX).find(|number| !taken.contains(number))?;
        taken.insert(number);
        Some(number)
    }

    /// A new queue of `entries`: a power of two, at most [`MOST_ENTRIES`](crate::MOST_ENTRIES).
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn open_queue(&self, entries: u32) -> Result<Queue, ClientError> {
        let (Reply::Queue { queue: number }, fds) = self.connection.ask(&Request::OpenQueue { entries }, &[])? else {
            return Err(ClientError::Nonsense);
        };
        let [memory, bell] = <[OwnedFd; 2]>::try_from(fds).map_err(|_| ClientError::Nonsense)?;
        let memory = QueueMemory::new(Words::map(memory)?);
        let mut queue = Queue::new(memory, Doorbell::from_fd(bell)).ok_or(ClientError::Nonsense)?;
        queue.number = number;
        Ok(queue)
    }

    /// Ends a queue: when this returns, nothing of it is in flight. Just to drop it ends it, too, by and by.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn close_queue(&self, queue: Queue) -> Result<(), ClientError> {
        // The queue lives until then: what is dropped first would be found closed already.
        let closed = self.connection.order(&Request::CloseQueue { queue: queue.number }, &[]);
        drop(queue);
        closed
    }
}

/// What the daemon at `path` tells about itself and its clients.
///
/// # Errors
/// [`ClientError`].
pub fn stat(path: &Path) -> Result<Stat, ClientError> {
    let (Reply::Stat, fds) = Connection::open(path)?.ask(&Request::Stat, &[])? else {
        return Err(ClientError::Nonsense);
    };
    let [memfd] = <[OwnedFd; 1]>::try_from(fds).map_err(|_| ClientError::Nonsense)?;
    let file = File::from(memfd);
    let len = file.metadata().map_err(|_| ClientError::Nonsense)?.len();
    let mut text = vec![0; usize::try_from(len).map_err(|_| ClientError::Nonsense)?];
    file.read_exact_at(&mut text, 0).map_err(|_| ClientError::Nonsense)?;
    serde_json::from_slice(&text).map_err(|_| ClientError::Nonsense)
}

/// Does something to a client of the daemon at `path`. For root, and the user that the daemon runs as.
///
/// # Errors
/// [`ClientError`].
pub fn control(path: &Path, client: ClientId, verb: Verb) -> Result<(), ClientError> {
    Connection::open(path)?.order(&Request::Control { client, verb }, &[])
}
