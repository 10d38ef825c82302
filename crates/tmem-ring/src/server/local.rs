//! A queue in the process of its store, with plain memory.
//!
//! The queue owns the memory of an operation from when it is pushed until its completion is reaped, so safe code can
//! neither free it nor look at it meanwhile. It is the ring that other processes use, and the same workers.

use super::service::Service;
use super::tenant::{OWN_ADDRESSES, Tenant};
use crate::client::{Queue, QueueError};
use crate::operation::{Action, Memory, ObjectId, Operation, Outcome, PoolId, Slice};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tmem_sys::SysError;

/// What to do, with memory that the queue takes and gives back.
#[derive(Debug)]
pub enum LocalAction {
    /// Store the bytes at `offset`, a multiple of 4096.
    Put {
        /// Bytes from the object's start.
        offset: u64,
        /// What to store.
        from: Box<[u8]>,
    },
    /// Fill the bytes from `offset` on.
    Get {
        /// Bytes from the object's start.
        offset: u64,
        /// What to fill.
        into: Box<[u8]>,
    },
    /// The same, and flush what was got. `offset` is a multiple of 4096.
    Take {
        /// Bytes from the object's start.
        offset: u64,
        /// What to fill.
        into: Box<[u8]>,
    },
    /// Make a range missing. `offset` is a multiple of 4096.
    Flush {
        /// Bytes from the object's start.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// Make all of the object missing.
    FlushObject,
}

/// One operation.
#[derive(Debug)]
pub struct LocalOperation {
    /// Comes back in the completion.
    pub tag: u64,
    /// A pool that the client created or joined.
    pub pool: PoolId,
    /// An object in it.
    pub object: ObjectId,
    /// What to do.
    pub action: LocalAction,
}

/// The end of one operation, and its memory.
#[derive(Debug, PartialEq, Eq)]
pub struct LocalCompletion {
    /// The operation's.
    pub tag: u64,
    /// What became of it.
    pub outcome: Outcome,
    /// The operation's, if it had any.
    pub memory: Option<Box<[u8]>>,
}

/// A queue to a store in this process.
#[derive(Debug)]
pub struct LocalQueue {
    queue: Queue,
    number: u64,
    service: Arc<Service>,
    /// By the tag in `queue`: the operation's own tag, and where its memory is.
    lent: HashMap<u64, Lent>,
    next: u64,
}

/// What was lent for one operation: a box taken apart, so that nobody can say of it that it is not shared.
#[derive(Debug)]
struct Lent {
    tag: u64,
    memory: Option<*mut [u8]>,
}

// SAFETY: the pointers are boxes of bytes that only this queue owns.
unsafe impl Send for LocalQueue {}

impl Service {
    /// A queue of `entries` (a power of two, at most [`MOST_ENTRIES`](crate::MOST_ENTRIES)) to the store of `client`.
    ///
    /// # Errors
    /// When the system has no memory or descriptors for it.
    ///
    /// # Panics
    /// When `entries` is no such number.
    pub fn queue(self: &Arc<Self>, client: &tmem::Client, entries: u64) -> Result<LocalQueue, SysError> {
        assert!(crate::layout::Layout::new(entries).is_some(), "{entries} entries: a power of two, not too large");
        let tenant = Arc::new(Tenant::local(client.clone()));
        let (number, served, bell) = self.open(&tenant, entries)?;
        let queue = Queue::new(served.memory(), bell);
        let queue = queue.unwrap_or_else(|| unreachable!("we have just made the queue"));
        Ok(LocalQueue { queue, number, service: Arc::clone(self), lent: HashMap::new(), next: 0 })
    }
}

impl LocalQueue {
    /// Pushes an operation, and takes its memory.
    ///
    /// # Errors
    /// Gives the operation back, with why: [`QueueError::Full`], or [`QueueError::Refused`] for what can never be right.
    pub fn push(&mut self, operation: LocalOperation) -> Result<(), (QueueError, LocalOperation)> {
        let LocalOperation { tag, pool, object, action } = operation;
        let (memory, len) = match action {
            LocalAction::Put { ref from, .. } => (Some(from.as_ptr()), from.len()),
            LocalAction::Get { ref into, .. } | LocalAction::Take { ref into, .. } => (Some(into.as_ptr()), into.len()),
            LocalAction::Flush { .. } | LocalAction::FlushObject => (None, 0),
        };
        // Exposed when the box is taken apart below; the workers look at it only after `submit`.
        let slices = [Slice { offset: memory.map_or(0, <*const u8>::addr) as u64, len: len as u64 }];
        let memory = Memory { region: OWN_ADDRESSES, slices: &slices };
        let raw = match action {
            LocalAction::Put { offset, .. } => Action::Put { offset, from: memory },
            LocalAction::Get { offset, .. } => Action::Get { offset, into: memory },
            LocalAction::Take { offset, .. } => Action::Take { offset, into: memory },
            LocalAction::Flush { offset, len } => Action::Flush { offset, len },
            LocalAction::FlushObject => Action::FlushObject,
        };
        let number = self.next;
        if let Err(error) = self.queue.push(&Operation { tag: number, pool, object, action: raw }) {
            return Err((error, LocalOperation { tag, pool, object, action }));
        }
        self.next += 1;
        let memory = match action {
            LocalAction::Put { from: memory, .. }
            | LocalAction::Get { into: memory, .. }
            | LocalAction::Take { into: memory, .. } => {
                let memory = Box::into_raw(memory);
                let _ = memory.cast::<u8>().expose_provenance();
                Some(memory)
            }
            LocalAction::Flush { .. } | LocalAction::FlushObject => None,
        };
        self.lent.insert(number, Lent { tag, memory });
        Ok(())
    }

    /// As [`Queue::submit`].
    pub fn submit(&mut self) {
        self.queue.submit();
    }

    /// As [`Queue::wait`].
    ///
    /// # Errors
    /// As there.
    pub fn wait(&mut self, least: usize, timeout: Option<Duration>) -> Result<usize, QueueError> {
        self.queue.wait(least, timeout)
    }

    /// The next completion, with the operation's memory.
    ///
    /// # Errors
    /// As [`Queue::reap_one`].
    pub fn reap_one(&mut self) -> Result<Option<LocalCompletion>, QueueError> {
        let completion = self.queue.reap_one()?;
        Ok(completion.map(|completion| self.give_back(completion)))
    }

    /// The next completion, awaited; none if nothing is outstanding.
    ///
    /// # Errors
    /// As [`Queue::next`].
    pub async fn next(&mut self) -> Option<Result<LocalCompletion, QueueError>> {
        let completion = self.queue.next().await?;
        Some(completion.map(|completion| self.give_back(completion)))
    }

    fn give_back(&mut self, completion: crate::Completion) -> LocalCompletion {
        let lent = self.lent.remove(&completion.tag);
        let Lent { tag, memory } = lent.unwrap_or_else(|| unreachable!("a completion for what was pushed"));
        // SAFETY: from `Box::into_raw` in `push`; the operation has ended, so no worker looks at it any more.
        let memory = memory.map(|memory| unsafe { Box::from_raw(memory) });
        LocalCompletion { tag, outcome: completion.outcome, memory }
    }

    /// Cancels the operations with this tag that were not started. Returns how many there were; each still has its
    /// completion.
    pub fn cancel(&mut self, tag: u64) -> usize {
        let numbers: Vec<u64> =
            self.lent.iter().filter(|(_, lent)| lent.tag == tag).map(|(number, _)| *number).collect();
        numbers.into_iter().map(|number| self.queue.cancel(number)).sum()
    }

    /// Operations that were pushed and not reaped.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.queue.outstanding()
    }

    /// Doorbells that were rung for the workers.
    #[must_use]
    pub fn doorbells(&self) -> u64 {
        self.queue.doorbells()
    }
}

impl Drop for LocalQueue {
    /// What was not started is not carried out; what was is waited for, and then the memory is freed.
    fn drop(&mut self) {
        self.service.close(self.number);
        for (_, lent) in self.lent.drain() {
            if let Some(memory) = lent.memory {
                // SAFETY: from `Box::into_raw` in `push`, not given back; no worker looks at it after `close`.
                drop(unsafe { Box::from_raw(memory) });
            }
        }
    }
}
