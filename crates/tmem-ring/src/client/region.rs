//! Memory for operations, which the daemon has mapped, too.

use super::connection::Connection;
use crate::operation::{Memory, Slice};
use crate::wire::Request;
use core::ptr::NonNull;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Memory that operations name by its number. Dropping it unregisters it; the daemon lets go of it when the operations on
/// it have ended.
#[derive(Debug)]
pub struct Region {
    number: u16,
    memory: tmem_sys::Region,
    /// Not kept open by regions.
    connection: Weak<Connection>,
    taken: Arc<Mutex<BTreeSet<u16>>>,
}

impl Region {
    pub(super) fn new(
        number: u16,
        memory: tmem_sys::Region,
        connection: &Arc<Connection>,
        taken: &Arc<Mutex<BTreeSet<u16>>>,
    ) -> Self {
        Self { number, memory, connection: Arc::downgrade(connection), taken: Arc::clone(taken) }
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }

    /// Its size in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a region is never empty")]
    pub fn len(&self) -> usize {
        self.memory.len()
    }

    /// Copies bytes at `offset` out of it. What an operation fills is all there when its completion was reaped.
    ///
    /// # Panics
    /// When not all of them are within the region.
    pub fn read(&self, offset: usize, into: &mut [u8]) {
        self.memory.read(offset, into);
    }

    /// Copies bytes to `offset` in it. What is lent to a put meanwhile is stored as it was, as it is, or as a mixture.
    ///
    /// # Panics
    /// When not all of them would be within the region.
    pub fn write(&self, offset: usize, from: &[u8]) {
        self.memory.write(offset, from);
    }

    /// Its first byte, for who knows what is lent. The memory is there until this is dropped; while an operation fills a
    /// part of it, there may be no references into that.
    #[must_use]
    pub fn as_ptr(&self) -> NonNull<u8> {
        self.memory.as_ptr()
    }

    /// Parts of it, for an operation.
    #[must_use]
    pub fn memory<'s>(&self, slices: &'s [Slice]) -> Memory<'s> {
        Memory { region: self.number, slices }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        let Some(connection) = self.connection.upgrade() else { return };
        // A daemon that does not know it, or is gone, has let go of it.
        let unregistered = connection.order(&Request::Unregister { region: self.number }, &[]);
        if unregistered.is_ok() {
            self.taken.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
        }
    }
}
