//! Locating: where blocks lie, for another process to decode them (the way back of a [`crate::Loan`]).
//!
//! All granules are looked up and checked under one pin, which lasts until the caller's closure returns: what an
//! entry referred to is not moved or reused before.

use super::{Target, leaf_index};
use crate::engine::Engine;
use crate::entry::{BlockRef, EntryKind};
use crate::epoch::Pin;
use crate::header::{Damaged, HEADER_BYTES};
use crate::outcome::Outcome;
use crate::segment::place_in_region;
use crate::table::ObjectId;
use crate::units::{GRANULE_BYTES, Granule};

/// Where a granule's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Located {
    /// Nothing is there.
    Missing,
    /// These four bytes (little endian), repeated.
    Filled(u32),
    /// In a block of its own, encoded as [`tmem_codec::encode`] says, which decodes to 4096 bytes.
    Block {
        /// Number of the region, for [`Store::region`](crate::Store::region).
        region: u32,
        /// The payload's first byte within the region.
        offset_bytes: u64,
        /// The codec's number.
        codec: u8,
        /// Bytes of payload.
        bytes: u32,
    },
    /// In a block together with others, or in one of fewer bytes: get it.
    Other,
}

impl Engine {
    /// See [`crate::Pool::with_blocks`].
    pub(crate) fn with_blocks<R>(
        &self,
        target: Target<'_>,
        granules: &[u64],
        visit: impl FnOnce(&[Located]) -> R,
    ) -> Result<R, Outcome> {
        let mut located = Vec::with_capacity(granules.len());
        let context = self.contexts.take(&self.budget);
        let pin = self.epochs.pin(context.slot);
        for granule in granules.iter().copied().map(Granule) {
            let found = self.locate((target.pool.id, target.id), granule, &pin);
            located.push(found.map_err(|Damaged| Outcome::Corrupt { offset: granule.offset() })?);
        }
        Ok(visit(&located))
    }

    fn locate(&self, name: (crate::PoolId, ObjectId), granule: Granule, pin: &Pin<'_>) -> Result<Located, Damaged> {
        let object = self.tables.find(name.0, name.1);
        let Some(leaf) = object.and_then(|object| self.tables.leaf(object, granule)) else {
            return Ok(Located::Missing);
        };
        let index = leaf_index(granule);
        let block = match self.tables.entry(leaf, index).kind() {
            EntryKind::Missing => return Ok(Located::Missing),
            EntryKind::Lost => return Err(Damaged),
            EntryKind::Filled(pattern) => return Ok(Located::Filled(pattern)),
            EntryKind::Block(BlockRef { granules: 2.., .. }) => return Ok(Located::Other),
            EntryKind::Block(block) => block,
        };
        let (header, _) = self.verify((leaf, index), block, pin)?;
        if header.raw_bytes != GRANULE_BYTES {
            return Ok(Located::Other);
        }
        let (region, start) = place_in_region(block.segment, block.place);
        let offset_bytes = start + HEADER_BYTES as u64;
        #[expect(clippy::cast_possible_truncation, reason = "no more than it decodes to")]
        let bytes = header.stored_bytes as u32;
        Ok(Located::Block { region, offset_bytes, codec: header.codec as u8, bytes })
    }
}
