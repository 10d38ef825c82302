//! Loans: room in the log for blocks that another process encodes.
//!
//! That process maps the memory of the segments ([`Store::region`](crate::Store::region)) and encodes granules to
//! where [`Loan::room`] says; [`Loan::enter`] then checks sizes, writes headers, and stores entries, as a put does
//! for what it has encoded itself. The bytes are never copied.
//!
//! | room of a loan | who writes there | cleaner |
//! |---|---|---|
//! | none given out | nobody | may seal the segment, if it needs the room |
//! | given out by `room` | the other process | leaves it alone |
//! | ended by `enter` or `end`, or by the drop | nobody | as at first |
//!
//! # Trust
//! What the other process says is checked: blocks lie within the room given out, their codec is one that is known. What
//! it writes is covered by a checksum from `enter` on, so a later change of it is a granule that is
//! [corrupt](crate::Outcome::Corrupt) and never wrong bytes, unless it falls between the check and the decoding of one
//! get. Whoever has a region mapped can spoil every block in it this way, but no table.
//!
//! Lock: a loan's own, before that of a context. Whoever else wants a loan's lock only tries.

use crate::client_face::Pool;
use crate::engine::Engine;
use crate::ops::{Stall, Tries, class_of};
use crate::outcome::{Outcome, Refusal};
use crate::segment::OpenSegment;
use crate::table::ObjectId;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};

/// The most room that [`Loan::room`] can be asked for.
pub const MOST_ROOM_BYTES: usize = 1 << 20;

/// The right to have blocks encoded elsewhere and to enter them into one pool. See [`Pool::lend`].
///
/// A loan whose room is given out keeps a segment of 2 MiB open. Dropping it seals that.
#[derive(Debug)]
pub struct Loan {
    pool: Pool,
    lent: Arc<Mutex<Lent>>,
}

/// Where blocks go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Number of the region, for [`Store::region`](crate::Store::region).
    pub region: u32,
    /// First byte within the region; a multiple of [`UNIT_BYTES`](crate::UNIT_BYTES).
    pub offset_bytes: u64,
    /// Bytes. At least as many as were asked for: what is left of the segment.
    pub len: usize,
}

/// A granule to be entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LentBlock {
    /// Its object.
    pub object: ObjectId,
    /// Its offset in the object over 4096.
    pub granule: u64,
    /// What it holds.
    pub content: Content,
}

/// What a lent granule holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// These four bytes (little endian), repeated. It takes no room.
    Filled(u32),
    /// What was encoded into the room, as [`tmem_codec::encode`] says.
    Encoded {
        /// The codec's number.
        codec: u8,
        /// Bytes of payload, 1 to 4096.
        bytes: u32,
    },
}

/// The state of a loan.
#[derive(Debug, Default)]
pub(crate) struct Lent {
    pub(crate) head: Option<OpenSegment>,
    /// Bytes of it that are given out. Above 0, nobody but the loan's owner touches the head.
    pub(crate) given_bytes: usize,
}

impl Loan {
    pub(crate) fn new(pool: Pool) -> Self {
        let lent = Arc::default();
        pool.engine().loans.add(&lent);
        Self { pool, lent }
    }

    /// Where the next blocks go: at least `bytes` of room, [`HEADER_BYTES`](crate::HEADER_BYTES) for each block
    /// included. Opens another segment if this one has less, and cleans if there is none. Room that was given out
    /// before and not entered is forgotten.
    ///
    /// A segment's rest of less than `bytes` is left unused, so little should be asked for and much be filled.
    ///
    /// # Errors
    /// [`Outcome::Rejected`] when nothing can be freed; what the caller was going to replace is still there.
    /// [`Outcome::Refused`] for more than [`MOST_ROOM_BYTES`], or when the pool or client was destroyed.
    pub fn room(&mut self, bytes: usize) -> Result<Room, Outcome> {
        if bytes > MOST_ROOM_BYTES {
            return Err(Outcome::Refused(Refusal::BeyondRoom { bytes, room: MOST_ROOM_BYTES }));
        }
        let target = self.pool.target(ObjectId::default()).map_err(Outcome::Refused)?;
        let engine = self.pool.engine();
        let mut lent = lock(&self.lent);
        lent.given_bytes = 0;
        if let Some(full) = lent.head.take_if(|head| head.left_bytes() < bytes.max(1)) {
            engine.log.seal(full);
        }
        let mut head = match lent.head.take() {
            Some(head) => head,
            None => engine.open_lent(target.pool, bytes)?,
        };
        head.rewind();
        let (region, offset_bytes) = head.tail_place();
        let len = head.left_bytes();
        *lent = Lent { head: Some(head), given_bytes: len };
        Ok(Room { region, offset_bytes, len })
    }

    /// Enters granules of which the blocks were encoded, in this order, from the start of the room on: each as
    /// [`HEADER_BYTES`](crate::HEADER_BYTES) for its header, the payload, and what it takes to a multiple of
    /// [`UNIT_BYTES`](crate::UNIT_BYTES). Replaces what was there, as puts do.
    ///
    /// Returns how many were entered, from the first on, and why the next one was not. That one and all after it are
    /// missing then, as after a put that failed, unless the pool or client was destroyed. Either way the room ends
    /// here.
    #[must_use = "what was not entered is missing"]
    pub fn enter(&mut self, blocks: &[LentBlock]) -> (usize, Option<Outcome>) {
        let engine = self.pool.engine();
        let mut lent = lock(&self.lent);
        let done = engine.enter_lent(&self.pool, &mut lent, blocks);
        lent.given_bytes = 0;
        done
    }

    /// Takes the room back, what was written to it and not entered forgotten, and seals the segment. Nobody may be
    /// writing there any more. The loan can go on afterwards.
    pub fn end(&mut self) {
        let mut lent = lock(&self.lent);
        lent.given_bytes = 0;
        if let Some(head) = lent.head.take() {
            self.pool.engine().log.seal(head);
        }
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.end();
    }
}

/// Every loan of a store.
#[derive(Debug, Default)]
pub(crate) struct Loans(Mutex<Vec<Weak<Mutex<Lent>>>>);

impl Loans {
    fn add(&self, lent: &Arc<Mutex<Lent>>) {
        let mut loans = lock(&self.0);
        loans.retain(|loan| loan.strong_count() > 0);
        loans.push(Arc::downgrade(lent));
    }

    /// Bytes that are left in the heads of which no room is given out.
    pub(crate) fn idle_room(&self) -> usize {
        let mut room = 0;
        self.for_each_idle(|head| room += head.as_ref().map_or(0, OpenSegment::room));
        room
    }

    /// Takes the heads of which no room is given out, so that they can be sealed.
    pub(crate) fn take_idle_heads(&self) -> Vec<OpenSegment> {
        let mut heads = Vec::new();
        self.for_each_idle(|head| heads.extend(head.take()));
        heads
    }

    fn for_each_idle(&self, mut visit: impl FnMut(&mut Option<OpenSegment>)) {
        for loan in lock(&self.0).iter().filter_map(Weak::upgrade) {
            let mut lent = match loan.try_lock() {
                Ok(lent) => lent,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => continue,
            };
            if lent.given_bytes == 0 {
                visit(&mut lent.head);
            }
        }
    }
}

impl Engine {
    /// A segment for a loan on `pool` with `bytes` of room.
    fn open_lent(&self, pool: &crate::client::PoolCore, bytes: usize) -> Result<OpenSegment, Outcome> {
        if let Some(open) = self.log.reopen(class_of(pool), bytes, &self.budget) {
            return Ok(open);
        }
        let mut tries = Tries::default();
        loop {
            let full = match self.log.open((class_of(pool), 0), &self.budget, crate::budget::Claim::Put) {
                Ok(open) => {
                    self.signal.opened();
                    return Ok(open);
                }
                Err(full) => full,
            };
            let mut context = self.contexts.take(&self.budget);
            if let Some(failed) = self.unblock(&mut context, pool, (Stall::NoRoom(full), &mut tries), |_| 0) {
                return Err(failed);
            }
        }
    }
}

/// A loan whose user panicked is as good as any: what was not committed is rewound when its head is next used.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
