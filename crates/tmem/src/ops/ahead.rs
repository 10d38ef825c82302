//! Looking ahead: in a batch, and within an operation.
//!
//! A get of a block that is in no cache waits for memory three times, for its entry, for its bytes, and for where
//! they go. In a batch it is known what comes next: while one operation is carried out, the entry of the one after
//! the next is on its way, and so are the bytes of the next one and the start of its memory.
//!
//! These are hints: what they lead to may be out of date by the time it is wanted.

use super::leaf_index;
use crate::batch::{Action, Operation};
use crate::context::Context;
use crate::engine::Engine;
use crate::table::{LeafRef, ObjectId, ObjectRef, PoolId};
use crate::units::Granule;

/// The object of an operation that was looked up before, for as long as the caller stays pinned.
type Known = Option<((PoolId, ObjectId), ObjectRef)>;

impl Engine {
    /// Asks for the bytes and the memory of the operation after `at`, and for the entry of the one after that.
    pub(crate) fn look_ahead(&self, context: &Context, batch: &[Operation<'_>], at: usize) {
        if let Some(next) = batch.get(at + 1) {
            prefetch_memory(&next.action);
        }
        let wanted = [1, 2].map(|ahead| batch.get(at + ahead).and_then(wanted));
        if wanted == [None, None] {
            return;
        }
        let _pin = self.epochs.pin(context.slot);
        let mut known = None;
        let [next, after] = wanted.map(|wanted| self.place_of(wanted?, &mut known));
        if let Some(block) = next.and_then(|(leaf, index)| self.tables.entry(leaf, index).as_block()) {
            self.log.segments.prefetch(block);
        }
        if let Some((leaf, index)) = after {
            self.tables.prefetch(leaf, index);
        }
    }

    /// Asks for what a single operation is going to need, if it is on the object of the last one and that is still
    /// there: what a dead object leads to may be anything by now.
    pub(crate) fn look_at(&self, context: &Context, name: (PoolId, ObjectId), action: &Action<'_>) {
        let (Action::Put { offset, .. } | Action::Get { offset, .. } | Action::Take { offset, .. }) = action else {
            return;
        };
        if let Some((last, object)) = context.last
            && last == name
        {
            let _pin = self.epochs.pin(context.slot);
            if self.tables.is_still(object, name) {
                self.tables.prefetch_path(object, Granule::holding(*offset));
            }
        }
    }

    /// Remembers the object of an operation on `granule`. If it is another than that of the last operation, nobody
    /// could look ahead, and what the operation is going to need is asked for now. The caller is pinned.
    pub(crate) fn remember(&self, context: &mut Context, found: ((PoolId, ObjectId), ObjectRef), granule: Granule) {
        if context.last != Some(found) {
            context.last = Some(found);
            self.tables.prefetch_path(found.1, granule);
        }
    }

    fn place_of(&self, (name, granule): Wanted, known: &mut Known) -> Option<(LeafRef, u32)> {
        let object = match *known {
            Some((other, object)) if other == name => object,
            _ => self.tables.find(name.0, name.1)?,
        };
        *known = Some((name, object));
        Some((self.tables.leaf(object, granule)?, leaf_index(granule)))
    }
}

/// An object's name and a granule in it.
type Wanted = ((PoolId, ObjectId), Granule);

/// The first granule that a get or take wants.
fn wanted(operation: &Operation<'_>) -> Option<Wanted> {
    match operation.action {
        Action::Get { offset, .. } | Action::Take { offset, .. } => {
            Some(((operation.pool, operation.object), Granule::holding(offset)))
        }
        Action::Put { .. } | Action::Flush { .. } | Action::FlushObject => None,
    }
}

/// Asks for the start of an operation's memory: its address has to be translated, and what follows is soon foreseen.
/// More than a few lines would be in the way of the operation that is under way.
fn prefetch_memory(action: &Action<'_>) {
    const LINES: usize = 4;
    let first: &[u8] = match action {
        Action::Put { from, .. } => from.first().copied().unwrap_or_default(),
        Action::Get { into, .. } | Action::Take { into, .. } => into.first().map_or(&[], |slice| &**slice),
        Action::Flush { .. } | Action::FlushObject => &[],
    };
    for line in first.chunks(tmem_sys::CACHE_LINE_BYTES).take(LINES) {
        tmem_sys::prefetch(line.as_ptr());
    }
}
