//! What clients and a daemon say to each other on the socket: one JSON text a packet, one reply for each request.
//!
//! The socket is for what happens seldom; operations go through queues. Descriptors travel with packets:
//!
//! | packet | descriptors |
//! |---|---|
//! | [`Request::Register`] | the region: a memfd sealed against shrinking |
//! | [`Reply::Queue`] | the queue's memory; the bell, a socket: a byte sent wakes the daemon, one received the client |
//! | [`Reply::Stat`] | a memfd with [`Stat`] as JSON |

use crate::operation::{ClientId, PoolId};
use serde::{Deserialize, Serialize};

/// The version of what is said here. A daemon refuses another one.
pub const VERSION: u32 = 1;

/// The longest packet.
pub const PACKET_BYTES: usize = 4096;

/// The longest name of a client.
pub const NAME_BYTES: usize = 64;

/// To a daemon. The first one is `Hello`, `Attach`, `Stat` or `Control`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// A new client.
    Hello {
        /// [`VERSION`].
        version: u32,
        /// For people, at most [`NAME_BYTES`].
        name: String,
        /// The most that it may hold; the daemon may have set less.
        cap_bytes: Option<u64>,
        /// Its weight; the daemon may have set less. 1 if not given.
        weight: Option<u32>,
    },
    /// A client that was here before, left pools that outlive it, and has no connection now.
    Attach {
        /// [`VERSION`].
        version: u32,
        /// Its number.
        client: ClientId,
        /// What it was given as it came.
        key: Key,
    },
    /// A new pool.
    CreatePool(PoolOptions),
    /// Another client's shared pool, which has authorised this one.
    JoinPool {
        /// Its number.
        pool: PoolId,
    },
    /// Lets another client join an own pool that is shared.
    Authorise {
        /// The pool.
        pool: PoolId,
        /// Who may join.
        client: ClientId,
    },
    /// Ends an own pool.
    DestroyPool {
        /// The pool.
        pool: PoolId,
    },
    /// Registers the memory that comes with this packet.
    Register {
        /// Under this number, which is free.
        region: u16,
    },
    /// Ends that. The memory is let go of when the operations on it have ended.
    Unregister {
        /// The number.
        region: u16,
    },
    /// A new queue.
    OpenQueue {
        /// A power of two, at most [`MOST_ENTRIES`](crate::MOST_ENTRIES).
        entries: u32,
    },
    /// Ends a queue: answered when nothing of it is in flight.
    CloseQueue {
        /// Its number.
        queue: u64,
    },
    /// What is there.
    Stat,
    /// Does something to a client. For root, and the user that the daemon runs as.
    Control {
        /// Which client.
        client: ClientId,
        /// What.
        verb: Verb,
    },
}

/// What can be done to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verb {
    /// Puts that would store something new fail.
    Freeze,
    /// Ends that.
    Thaw,
    /// The most that it may hold, in bytes; `u64::MAX`: as much as the store has.
    Cap(u64),
    /// Its weight.
    Weight(u32),
    /// Everything in its pools goes; the pools stay.
    Flush,
    /// It and its pools go, and its connection is closed.
    Destroy,
    /// It may join this shared pool of another client.
    Authorise(PoolId),
}

/// How a pool is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolOptions {
    /// Whether its data may vanish.
    pub kind: PoolKind,
    /// Whether clients that are authorised may join.
    pub shared: bool,
    /// How much time its data is worth.
    pub policy: Policy,
    /// Whether it stays when the client is gone, for a time when it attaches again.
    pub outlives: bool,
}

impl PoolOptions {
    /// A private pool for data that must be returned, with the default policy, which goes with its client.
    #[must_use]
    pub fn persistent() -> Self {
        Self { kind: PoolKind::Persistent, shared: false, policy: Policy::Balanced, outlives: false }
    }

    /// The same, for data that may vanish.
    #[must_use]
    pub fn ephemeral() -> Self {
        Self { kind: PoolKind::Ephemeral, ..Self::persistent() }
    }
}

/// Whether a pool's data may vanish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PoolKind {
    /// What was accepted is returned until it is flushed.
    Persistent,
    /// May vanish at any time.
    Ephemeral,
}

/// How much time data is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Policy {
    /// No entropy stage.
    Fast,
    /// The default.
    Balanced,
    /// zstd.
    Dense,
}

/// By which a client shows that it is the one that was here before: 128 random bits, as hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key(pub String);

impl core::fmt::Debug for Key {
    /// A secret is not for logs.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Key(...)")
    }
}

/// From a daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// To `Hello` and `Attach`.
    Welcome {
        /// The client's number.
        client: ClientId,
        /// For attaching again.
        key: Key,
        /// The pools that are there already: after `Attach`.
        pools: Vec<PoolId>,
    },
    /// To `CreatePool`.
    Pool {
        /// Its number.
        pool: PoolId,
    },
    /// To `OpenQueue`.
    Queue {
        /// Its number.
        queue: u64,
    },
    /// To `Stat`.
    Stat,
    /// It is done.
    Done,
    /// It is not, and nothing has changed.
    Failed {
        /// What went wrong and what to do, for people.
        message: String,
    },
}

/// What a daemon tells about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stat {
    /// The daemon's process.
    pub pid: u32,
    /// Bytes that the store may use, and uses.
    pub budget_bytes: u64,
    /// In all: blocks, headers, holes, tables, scratch.
    pub used_bytes: u64,
    /// Milliseconds since the daemon started: for rates.
    pub uptime_ms: u64,
    /// Worker threads, and how often one went to sleep.
    pub workers: u64,
    /// As above.
    pub worker_sleeps: u64,
    /// Each client, those without a connection too.
    pub clients: Vec<ClientStat>,
}

/// What a daemon tells about a client. Counts are since it came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientStat {
    /// Its number.
    pub client: ClientId,
    /// For people.
    pub name: String,
    /// Its process, while it is connected.
    pub pid: Option<u32>,
    /// Whose process it is or was.
    pub uid: u32,
    /// running, frozen or destroyed.
    pub state: String,
    /// The most that it may hold; none: as much as the store has.
    pub cap_bytes: Option<u64>,
    /// Its weight.
    pub weight: u64,
    /// Bytes that it is charged for.
    pub charged_bytes: u64,
    /// Operations carried out, and bytes of memory that they named.
    pub operations: u64,
    /// As above.
    pub operation_bytes: u64,
    /// Puts that were stored, and that were not.
    pub puts_stored: u64,
    /// As above.
    pub puts_failed: u64,
    /// Gets that found everything, some of it, nothing.
    pub gets_filled: u64,
    /// As above.
    pub gets_partly: u64,
    /// As above.
    pub gets_missing: u64,
    /// Gets that met damaged data.
    pub gets_corrupt: u64,
    /// Bytes of page data that were moved outside a codec.
    pub copied_bytes: u64,
    /// Doorbells that it has rung, and that were rung for it.
    pub doorbells_heard: u64,
    /// As above.
    pub doorbells_rung: u64,
    /// Worker time that its operations took, in microseconds.
    pub served_us: u64,
    /// Regions registered, and their bytes.
    pub regions: u64,
    /// As above.
    pub region_bytes: u64,
    /// Queues that are open.
    pub queues: u64,
    /// Its pools.
    pub pools: Vec<PoolStat>,
}

/// What a daemon tells about a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolStat {
    /// Its number.
    pub pool: PoolId,
    /// How it was made.
    pub options: PoolOptions,
    /// Granules that were put, and that were got.
    pub granules_put: u64,
    /// As above.
    pub granules_got: u64,
}
