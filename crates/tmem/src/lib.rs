//! Transcendent memory: a store that a program *puts* data into and *gets* it back from, compressed.
//!
//! ```
//! use tmem::{ClientOptions, Outcome, PoolOptions, Store, StoreOptions};
//!
//! let store = Store::new(StoreOptions::with_budget(64 << 20))?;
//! let client = store.client(ClientOptions::named("example"));
//! let pool = client.create_pool(PoolOptions::persistent())?;
//!
//! let page = [42; 4096];
//! assert_eq!(pool.put(7, 0, &page), Outcome::Stored);
//! let mut back = [0; 4096];
//! assert_eq!(pool.get(7, 0, &mut back), Outcome::Filled);
//! assert_eq!(back, page);
//! # Ok::<(), tmem::StoreError>(())
//! ```
//!
//! # The model
//! A [`Store`] has a budget of memory. A [`Client`] is charged for what it stores and has a cap and a weight. A [`Pool`]
//! is *persistent* (what was accepted is returned until it is flushed) or *ephemeral* (may vanish at any time). An object
//! is a sparse space of 2^64 bytes, named by 192 bits. A range is any number of bytes of an object; it is stored in
//! granules of 4096 bytes. An operation names a range and the memory to take it from or bring it to, as a list of slices.
//!
//! # What holds, always
//! 1. Once a put on a range is submitted, the old contents are gone, whatever becomes of the put. One that fails leaves
//!    the range missing.
//! 2. A miss stays a miss until a later put succeeds.
//! 3. A batch's operations take effect in their order. Between threads there is no order, but each granule is seen
//!    whole: before or after.
//! 4. Memory is lent for the length of the call.
//! 5. Each operation of a batch has exactly one completion.
//! 6. Accepted persistent data is never dropped to make room; when nothing can be freed, puts are rejected.
//! 7. A get never returns wrong bytes: blocks are checked before their bytes count as returned.
//!
//! How it works inside stands in the heads of the modules, and in ARCHITECTURE.md.

#![cfg_attr(loom, allow(dead_code, reason = "only what the models use is compiled with its users"))]

#[cfg(not(loom))]
mod batch;
mod bits;
#[cfg(not(loom))]
mod budget;
#[cfg(not(loom))]
mod cleaner;
#[cfg(not(loom))]
mod client;
#[cfg(not(loom))]
mod client_face;
#[cfg(not(loom))]
mod context;
#[cfg(not(loom))]
mod engine;
mod entry;
mod epoch;
#[cfg(not(loom))]
mod header;
#[cfg(not(loom))]
mod loan;
#[cfg(not(loom))]
mod log;
#[cfg(all(test, loom))]
mod loom_models;
#[cfg(not(loom))]
mod memory;
#[cfg(not(loom))]
mod ops;
#[cfg(not(loom))]
mod outcome;
mod primitive;
mod row;
#[cfg(not(loom))]
mod segment;
#[cfg(not(loom))]
mod slab;
#[cfg(not(loom))]
mod stats;
#[cfg(not(loom))]
mod store;
#[cfg(not(loom))]
mod table;
mod units;
#[cfg(not(loom))]
mod validate;

#[cfg(not(loom))]
pub use batch::{Action, Completion, Operation};
#[cfg(not(loom))]
pub use client::{ClientId, ClientState, Persistence, Sharing};
#[cfg(not(loom))]
pub use client_face::{Client, Pool, PoolOptions};
#[cfg(not(loom))]
pub use header::HEADER_BYTES;
#[cfg(not(loom))]
pub use loan::{Content, LentBlock, Loan, MOST_ROOM_BYTES, Room};
#[cfg(not(loom))]
pub use ops::Located;
#[cfg(not(loom))]
pub use outcome::{GranuleMap, Outcome, Refusal, Rejection};
#[cfg(not(loom))]
pub use segment::REGION_BYTES;
#[cfg(not(loom))]
pub use stats::Stats;
#[cfg(not(loom))]
pub use store::{Cleaning, ClientOptions, MemoryUsage, Settling, Store, StoreError, StoreOptions};
#[cfg(not(loom))]
pub use table::{ObjectId, PoolId};
pub use tmem_codec::Policy;
pub use units::{GRANULE_BYTES, SEGMENT_BYTES, UNIT_BYTES};
