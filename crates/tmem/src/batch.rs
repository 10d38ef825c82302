//! Many operations in one call.
//!
//! An [`Operation`] says everything that there is to say about one: it needs nothing but the client that it is
//! executed for. A queue, in this process or shared with another, carries the same operations and the same
//! completions.

use crate::outcome::Outcome;
use crate::table::{ObjectId, PoolId};

/// What to do, and with which memory. Memory is a list of slices, so that scattered pages form one range; slices that
/// are whole granules are encoded from and decoded into without a copy.
#[derive(Debug)]
pub enum Action<'m> {
    /// Store the slices, one behind the other, at `offset`.
    Put {
        /// Bytes from the object's start; a multiple of 4096.
        offset: u64,
        /// What to store.
        from: &'m [&'m [u8]],
    },
    /// Fill the slices, one behind the other, from `offset` on.
    Get {
        /// Bytes from the object's start.
        offset: u64,
        /// What to fill.
        into: &'m mut [&'m mut [u8]],
    },
    /// Fill the slices and flush what they were filled from.
    Take {
        /// Bytes from the object's start; a multiple of 4096.
        offset: u64,
        /// What to fill.
        into: &'m mut [&'m mut [u8]],
    },
    /// Make a range missing.
    Flush {
        /// Bytes from the object's start; a multiple of 4096.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// Make all of the object missing.
    FlushObject,
}

/// One operation of a batch.
#[derive(Debug)]
pub struct Operation<'m> {
    /// Comes back in the completion. Means nothing to the store.
    pub tag: u64,
    /// A pool that the client created or joined.
    pub pool: PoolId,
    /// An object in it.
    pub object: ObjectId,
    /// What to do.
    pub action: Action<'m>,
}

/// The end of one operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    /// The operation's.
    pub tag: u64,
    /// What became of it.
    pub outcome: Outcome,
}
