//! Looking ahead in a batch.
//!
//! A get of a block that is in no cache waits for memory two times, for its entry and for its bytes. In a batch it is
//! known what comes next: while one operation is carried out, the entry of the one after the next is on its way, and so
//! are the bytes of the next one.
//!
//! These are hints. They are given without a pin: tables are type-stable and what they lead to may be out of date.

use super::leaf_index;
use crate::batch::{Action, Operation};
use crate::engine::Engine;
use crate::table::{LeafRef, ObjectId, ObjectRef, PoolId};
use crate::units::Granule;

/// What is known of the operations to come.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    /// The object that was looked up last.
    object: Option<((PoolId, ObjectId), ObjectRef)>,
}

impl Ahead {
    /// Asks for the bytes of `next` and for the entry of `after`.
    pub(crate) fn look(&mut self, engine: &Engine, next: Option<&Operation<'_>>, after: Option<&Operation<'_>>) {
        let next = next.and_then(|operation| self.find(engine, operation));
        if let Some(block) = next.and_then(|(leaf, index)| engine.tables.entry(leaf, index).as_block()) {
            engine.log.segments.prefetch(block);
        }
        if let Some((leaf, index)) = after.and_then(|operation| self.find(engine, operation)) {
            engine.tables.prefetch(leaf, index);
        }
    }

    /// The entry of the first granule that a get or take wants.
    fn find(&mut self, engine: &Engine, operation: &Operation<'_>) -> Option<(LeafRef, u32)> {
        let (Action::Get { offset, .. } | Action::Take { offset, .. }) = operation.action else {
            return None;
        };
        let name = (operation.pool, operation.object);
        let object = match self.object {
            Some((known, object)) if known == name => object,
            _ => {
                let object = engine.tables.find(operation.pool, operation.object)?;
                self.object = Some((name, object));
                object
            }
        };
        let granule = Granule::holding(offset);
        Some((engine.tables.leaf(object, granule)?, leaf_index(granule)))
    }
}
