//! Loans: room in the log for blocks that somebody else encodes, another process perhaps.
//!
//! A [`Loan`] is the right to append to one open segment, like a context's head, held for longer than a call. Its [`Room`] is told by
//! region and offset, so that whoever has mapped the region's memfd ([`crate::Store::region`]) can write there: for each block a gap of 16
//! bytes, the payload, and padding to a multiple of 16. [`Loan::enter`] then makes the headers, with their checksums, and enters the
//! blocks as a put does. Nothing that the other side says is believed: a block that does not fit or is in an unknown codec is
//! refused. What it writes there after the blocks were entered is found by their checksums.

use crate::client_face::Pool;
use crate::outcome::Outcome;
use crate::row::Class;
use crate::segment::OpenSegment;
use crate::table::ObjectId;

/// Bytes in front of each payload, left for its header.
pub(crate) const GAP_BYTES: usize = 16;

/// Where blocks may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Number of the region.
    pub region: u32,
    /// First byte in the region's memfd.
    pub offset_bytes: u64,
    /// Bytes from there on; within one segment.
    pub len: usize,
}

/// A granule of 4096 bytes that somebody has encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LentBlock {
    /// Whose it is.
    pub object: ObjectId,
    /// Which one.
    pub granule: u64,
    /// What it is.
    pub content: Content,
}

/// What a granule was encoded to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Four bytes that it repeats; takes no room.
    Filled(u32),
    /// The next payload in the room.
    Encoded {
        /// Number of the codec ([`tmem_codec::Codec`]).
        codec: u8,
        /// Bytes of the payload.
        bytes: u32,
    },
}

impl LentBlock {
    pub(crate) fn is_encoded(&self) -> bool {
        matches!(self.content, Content::Encoded { .. })
    }
}

/// The right to append to a segment. Dropping it seals the segment.
#[derive(Debug)]
pub struct Loan {
    pool: Pool,
    head: Option<OpenSegment>,
}

impl Loan {
    pub(crate) fn new(pool: Pool) -> Self {
        Self { pool, head: None }
    }

    /// Room for at least `bytes` (at most a mebibyte): in the segment that is open or, when it is full, in another one. What was
    /// written to the room before and not entered is forgotten.
    ///
    /// # Errors
    /// [`Outcome::Rejected`] when the store has no segment left and can make none.
    pub fn room(&mut self, bytes: usize) -> Result<Room, Outcome> {
        assert!(bytes <= 1 << 20, "a room is at most a mebibyte: {bytes}");
        if self.head.as_ref().is_none_or(|head| head.room() < bytes) {
            self.end();
            let engine = self.pool.engine();
            let class = Class::of(self.pool.persistence());
            let mut context = engine.contexts.take(&engine.budget);
            self.head = Some(engine.open_lent(&mut context, class)?);
        }
        let head = self.head.as_mut().unwrap_or_else(|| unreachable!("a head was just opened"));
        head.rewind();
        let (region, offset_bytes) = head.place();
        Ok(Room { region, offset_bytes, len: head.room() + GAP_BYTES })
    }

    /// Enters blocks that were written to the room, in their order, each in place of what was there. Returns how many were entered,
    /// and why not more; the others' granules are missing then.
    pub fn enter(&mut self, blocks: &[LentBlock]) -> (usize, Option<Outcome>) {
        self.pool.enter_lent(&mut self.head, blocks)
    }

    /// Seals what is open.
    pub fn end(&mut self) {
        if let Some(head) = self.head.take() {
            self.pool.engine().log.seal(head);
        }
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.end();
    }
}
