//! Queues to a store of transcendent memory: submit any number of operations with one call, reap their completions in any
//! order, with the data in memory that both sides see.
//!
//! # What a queue is
//! A [`Queue`] is two rings in shared memory (LAYOUT.md): submissions of 64 bytes one way, completions of 32 bytes back.
//! Each operation that was accepted has exactly one completion. A full ring is an error that the caller sees, never a
//! wait and never a loss. Whoever has nothing to do sleeps until the other side rings its doorbell, and who is awake is
//! not rung for.
//!
//! # Order
//! Operations of one queue on ranges that overlap take effect in the order in which they were submitted. Between queues
//! there is no order, but each granule is seen whole.
//!
//! # Memory
//! The memory of an operation lies in a *region* that was registered before, and is named by number and offset: the store
//! compresses straight from there and decompresses straight to there. From submission to completion it is lent: what is put
//! while it changes is unspecified, and nothing else is harmed.

#![cfg_attr(loom, allow(dead_code, reason = "the models are of the rings alone, and who uses the rest is not built"))]

#[cfg(not(loom))]
pub mod client;
#[cfg(all(test, not(loom)))]
mod document;
mod layout;
#[cfg(all(test, loom))]
mod loom_models;
#[cfg(not(loom))]
mod memory;
mod operation;
mod primitive;
mod ring;
#[cfg(all(feature = "server", not(loom)))]
pub mod server;
#[cfg(not(loom))]
pub mod wire;

#[cfg(not(loom))]
pub use client::{Client, Queue, QueueError};
pub use layout::{MOST_ENTRIES, MOST_SLICES};
pub use operation::{
    Action, ClientId, Completion, GRANULE_BYTES, Map, Memory, ObjectId, Operation, Outcome, PoolId, Refusal, Rejection,
    Slice,
};
