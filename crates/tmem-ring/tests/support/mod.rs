//! A daemon in this process, and clients of it.

#![allow(dead_code, reason = "each test uses some of it")]
#![allow(unreachable_pub, reason = "a module of each test")]

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tmem::{Store, StoreOptions};
use tmem_ring::client::{Client, Hello, Region};
use tmem_ring::server::{Daemon, DaemonOptions};
use tmem_ring::wire::ClientStat;
use tmem_ring::{Action, ClientId, Memory, ObjectId, Operation, Outcome, PoolId, Queue, Slice};
use tmem_sys::{Backing, Listener};

/// What must happen within this is a hang otherwise.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A daemon, with a socket in a folder of its own.
pub struct World {
    pub store: Store,
    pub daemon: Option<Daemon>,
    pub path: PathBuf,
}

pub fn options() -> DaemonOptions {
    DaemonOptions { workers: 2, allow: Vec::new(), cap_bytes: None, weight: 100, most_clients: 16 }
}

impl World {
    pub fn new() -> Self {
        Self::with(options())
    }

    pub fn with(options: DaemonOptions) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed); // Relaxed: only the number matters
        let folder = std::env::temp_dir().join(format!("tmem-ring-{}-{number}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let path = folder.join("socket");
        let listener = Listener::bind(&path, 0o666).unwrap();
        let store = Store::new(StoreOptions::with_budget(128 << 20)).unwrap();
        let daemon = Daemon::start(store.clone(), listener, options).unwrap();
        Self { store, daemon: Some(daemon), path }
    }

    pub fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().unwrap()
    }

    /// A new client.
    pub fn client(&self, name: &str) -> Client {
        Client::connect(&self.path, &hello(name)).unwrap()
    }

    /// One with a region of `bytes` and a queue.
    pub fn worker(&self, name: &str, bytes: usize) -> Worker {
        Worker::new(self.client(name), bytes)
    }

    pub fn stat_of(&self, client: ClientId) -> Option<ClientStat> {
        self.daemon().stat().clients.into_iter().find(|stat| stat.client == client)
    }

    /// Waits until `is_so`, which it has to be within a second.
    #[track_caller]
    pub fn within_a_second(&self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let start = Instant::now();
        while !is_so(self) {
            assert!(start.elapsed() < Duration::from_secs(1), "not within a second: {what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Bytes that all clients are charged for.
    pub fn charged(&self) -> usize {
        self.store.memory().charged
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.daemon = None;
        let _ = std::fs::remove_dir_all(self.path.parent().unwrap());
    }
}

pub fn hello(name: &str) -> Hello {
    Hello { name: name.to_owned(), ..Hello::default() }
}

/// A client with memory and a queue.
pub struct Worker {
    // First, so that it goes last: regions and queues do not need it.
    pub queue: Queue,
    pub region: Region,
    pub client: Client,
}

impl Worker {
    pub fn new(client: Client, bytes: usize) -> Self {
        let region = client.create_region(bytes, Backing::Small).unwrap();
        let queue = client.open_queue(64).unwrap();
        Self { queue, region, client }
    }

    /// Carries out one operation and waits for it.
    pub fn run(&mut self, pool: PoolId, object: u64, action: Action<'_>) -> Outcome {
        self.push(1, pool, object, action);
        assert_eq!(self.queue.wait(1, Some(PATIENCE)), Ok(1), "a hang");
        self.queue.reap_one().unwrap().unwrap().outcome
    }

    pub fn push(&mut self, tag: u64, pool: PoolId, object: u64, action: Action<'_>) {
        self.queue.push(&Operation { tag, pool, object: ObjectId::from(object), action }).unwrap();
    }

    pub fn put(&mut self, pool: PoolId, object: u64, offset: u64, bytes: &[u8]) -> Outcome {
        self.region.write(0, bytes);
        let slices = [Slice { offset: 0, len: bytes.len() as u64 }];
        let from = Memory { region: self.region.number(), slices: &slices };
        self.run(pool, object, Action::Put { offset, from })
    }

    /// What is there, if it all is.
    pub fn get(&mut self, pool: PoolId, object: u64, offset: u64, len: usize) -> Result<Vec<u8>, Outcome> {
        self.region.write(0, &vec![0xee; len]);
        let slices = [Slice { offset: 0, len: len as u64 }];
        let into = Memory { region: self.region.number(), slices: &slices };
        match self.run(pool, object, Action::Get { offset, into }) {
            Outcome::Filled => {
                let mut bytes = vec![0; len];
                self.region.read(0, &mut bytes);
                Ok(bytes)
            }
            other => Err(other),
        }
    }
}

/// Bytes that differ from seed to seed and offset to offset, and do not compress well.
pub fn contents(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes: Vec<u8> = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
