//! A client in a test: a queue, a region, and a pool, used one operation at a time.

use super::PATIENCE;
use std::path::Path;
use tmem_ring::client::{Client, Hello, Region};
use tmem_ring::wire::PoolOptions;
use tmem_ring::{Action, Operation, Outcome, PoolId, Queue, QueueError, Slice};
use tmem_sys::Backing;

/// Bytes of a guest's region.
pub(crate) const REGION_BYTES: usize = 2 << 20;

/// A client.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) queue: Queue,
    pub(crate) region: Region,
    pub(crate) pool: PoolId,
    pub(crate) client: Client,
}

impl Guest {
    /// One with a private pool.
    #[track_caller]
    pub(crate) fn connect(socket: &Path, name: &str) -> Self {
        Self::with(socket, name, PoolOptions::persistent())
    }

    /// One with a pool of this kind.
    #[track_caller]
    pub(crate) fn with(socket: &Path, name: &str, options: PoolOptions) -> Self {
        Self::enter(socket, &Hello { name: name.to_owned(), ..Hello::default() }, options)
    }

    /// One that asks for a weight.
    #[track_caller]
    pub(crate) fn weighing(socket: &Path, name: &str, weight: u32) -> Self {
        let hello = Hello { name: name.to_owned(), weight: Some(weight), ..Hello::default() };
        Self::enter(socket, &hello, PoolOptions::persistent())
    }

    #[track_caller]
    fn enter(socket: &Path, hello: &Hello, options: PoolOptions) -> Self {
        let client = Client::connect(socket, hello).unwrap();
        let pool = client.create_pool(options).unwrap();
        let region = client.create_region(REGION_BYTES, Backing::Small).unwrap();
        let queue = client.open_queue(256).unwrap();
        Self { queue, region, pool, client }
    }

    pub(crate) fn id(&self) -> u32 {
        self.client.id().0
    }

    /// Carries out one operation.
    pub(crate) fn execute(&mut self, pool: PoolId, action: Action<'_>) -> Result<Outcome, QueueError> {
        self.queue.push(&Operation { tag: 1, pool, object: 1.into(), action })?;
        assert_eq!(self.queue.wait(1, Some(PATIENCE))?, 1, "the queue hangs");
        let completion = self.queue.reap_one()?.unwrap();
        assert_eq!(completion.tag, 1);
        Ok(completion.outcome)
    }

    pub(crate) fn put(&mut self, offset: u64, bytes: &[u8]) -> Outcome {
        self.region.write(0, bytes);
        let slices = [Slice { offset: 0, len: bytes.len() as u64 }];
        let from = self.region.memory(&slices);
        let put = Action::Put { offset, from };
        self.execute(self.pool, put).unwrap()
    }

    /// Gets so many bytes, from this pool.
    pub(crate) fn get_from(&mut self, pool: PoolId, offset: u64, len: usize) -> (Outcome, Vec<u8>) {
        let slices = [Slice { offset: 0, len: len as u64 }];
        let into = tmem_ring::Memory { region: self.region.number(), slices: &slices };
        let outcome = self.execute(pool, Action::Get { offset, into }).unwrap();
        let mut bytes = vec![0; len];
        self.region.read(0, &mut bytes);
        (outcome, bytes)
    }

    pub(crate) fn get(&mut self, offset: u64, len: usize) -> (Outcome, Vec<u8>) {
        self.get_from(self.pool, offset, len)
    }
}
