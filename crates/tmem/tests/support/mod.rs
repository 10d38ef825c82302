//! What the tests of the engine share. Every part says what it is; no test uses all of them.

#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]

pub mod contents;
pub mod crowd;
pub mod described;
pub mod limits;
pub mod model;
pub mod own_memory;
pub mod pages;
pub mod plan;
pub mod random;
pub mod shared;

use std::sync::mpsc;
use std::time::Duration;
use tmem::{Cleaning, ClientOptions, Pool, PoolOptions, Store, StoreOptions};

/// A mebibyte.
pub const MIB: usize = 1 << 20;

/// Bytes of a granule, as offsets count them.
pub const GRANULE: u64 = tmem::GRANULE_BYTES as u64;

/// A store in which nothing happens but what the test asks for.
pub fn quiet_store(budget_bytes: usize) -> Store {
    Store::new(StoreOptions { cleaning: Cleaning::OnDemand, ..StoreOptions::with_budget(budget_bytes) }).unwrap()
}

/// A pool of a client of its own.
pub fn pool_of(store: &Store, name: &str, options: PoolOptions) -> Pool {
    store.client(ClientOptions::named(name)).create_pool(options).unwrap()
}

/// Runs `work` in a thread and fails if it has not ended after `limit`: a call that never returns must not stop the
/// other tests. What it panics with, the test panics with.
pub fn within(limit: Duration, work: impl FnOnce() + Send + 'static) {
    let (done, ended) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        work();
        let _ = done.send(());
    });
    match ended.recv_timeout(limit) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("still running after {limit:?}"),
        Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    }
}
