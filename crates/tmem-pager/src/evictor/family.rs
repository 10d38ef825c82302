//! Pages that a parent and its children have in common.
//!
//! The kernel moves only what one process has alone, so such a page is copied and moved out for each of them in turn.
//! What is found to hold the same bytes as the page of a relative that is out already, at the same address, then joins
//! that one's slot, and is stored once however many have it.

use std::sync::Arc;

use crate::core::Core;
use crate::lock;
use crate::slots::{Dropped, Freed, Slot};
use crate::space::Space;
use crate::units::{PAGE, Page};

/// Has pages that were just moved out join the slots of relatives that hold the same.
pub(super) fn join(core: &Core, space: &Space, moved: &[(Page, Slot)]) {
    let relatives = relatives(core, space);
    for moved in moved {
        let mut ours = None;
        let _ = relatives.iter().any(|relative| join_one(core, space, relative, *moved, &mut ours));
    }
}

/// Relatives give the same pages next: as long as one of them has a page, nothing is gained.
pub(super) fn meet(core: &Core, space: &Space, address: Option<&u64>) {
    if let Some(address) = address {
        relatives(core, space).iter().for_each(|relative| lock(&relative.state).hand = *address);
    }
}

fn relatives(core: &Core, space: &Space) -> Vec<Arc<Space>> {
    let mut spaces = core.spaces();
    spaces.retain(|other| other.family == space.family && other.id != space.id && !other.is_gone());
    spaces
}

/// Returns whether the page joined; `ours` is what it holds, once it was read.
fn join_one(
    core: &Core,
    space: &Space,
    relative: &Space,
    (page, slot): (Page, Slot),
    ours: &mut Option<[u8; PAGE]>,
) -> bool {
    // Named by us from here on, so that it stays what it is.
    let other = {
        let state = lock(&relative.state);
        // Moves of two address spaces are not under way at once, but for one that will never end: its agent has died.
        let arrived = state.flight.is_none();
        let Some(other) = state.pages.slot(page).filter(|other| arrived && *other != slot) else { return false };
        lock(&core.slots).share(other);
        other
    };
    let mut state = lock(&space.state);
    // It may have been asked for meanwhile.
    let joins = state.pages.slot(page) == Some(slot) && holds_same(core, (slot, ours), other);
    let mut dead = Vec::new();
    if joins {
        state.pages.clear(page);
        state.pages.set(page, other);
        let dropped = lock(&core.slots).drop_name(slot);
        assert!(dropped == Dropped::Nothing, "a staged slot is freed by the evictor");
    } else {
        dead = core.unname(&[other]);
    }
    drop(state);
    core.flush(dead, Freed::Stored);
    joins
}

/// Whether two slots hold the same bytes. Not, if one cannot be read: that is told when it is asked for.
fn holds_same(core: &Core, (slot, ours): (Slot, &mut Option<[u8; PAGE]>), other: Slot) -> bool {
    let read = |slot| {
        let mut bytes = [0; PAGE];
        core.fetch(slot, &mut bytes).ok().map(|()| bytes)
    };
    if ours.is_none() {
        *ours = read(slot);
    }
    ours.is_some() && *ours == read(other)
}
