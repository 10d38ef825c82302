//! The memory of a queue, as both its sides in a process hold it.

use core::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tmem_sys::Words;

/// Shared words; cloning shares them once more.
#[derive(Debug, Clone)]
pub(crate) struct QueueMemory(Arc<Words>);

impl QueueMemory {
    pub(crate) fn new(words: Words) -> Self {
        Self(Arc::new(words))
    }

    /// Whether the client has taken the memory away (a hole punched, and nothing left to fill it with).
    #[cfg(feature = "server")]
    pub(crate) fn is_lost(&self) -> bool {
        self.0.is_lost()
    }

    #[cfg(feature = "server")]
    pub(crate) fn memfd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.memfd()
    }
}

impl Deref for QueueMemory {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        &self.0
    }
}
