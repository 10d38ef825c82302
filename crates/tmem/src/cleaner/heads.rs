//! Where the cleaner writes to: for each class a head for copies and one for what is settled.
//!
//! Progress: what a pass moves without taking neighbours along from elsewhere comes to no more than it frees, so the
//! reserve and the room in the heads of a class never get less between them. That room may all be in one of the two
//! heads, though, with the reserve used up; then that one takes everything. What it is sealed as is what holds for all
//! of it: settled if all of it is, and as old as the youngest.

use super::Cleaner;
use crate::budget::{Claim, NoRoom};
use crate::engine::Engine;
use crate::row::Class;
use crate::segment::OpenSegment;

/// The cleaner's heads, by class.
#[derive(Debug, Default)]
pub(super) struct Heads {
    /// A copy stays in its class, but for ephemeral blocks that survive an eviction.
    copies: [Option<OpenSegment>; 3],
    /// Blocks that were encoded anew, and those that settling left as they were.
    settled: [Option<OpenSegment>; 3],
}

/// What is to be appended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind {
    pub(super) class: Class,
    /// The generation of policies under which it is settled; 0: it is not.
    pub(super) settled: u64,
    /// When it was put or last seen in use, in seals of the whole log.
    pub(super) since: u64,
}

impl Heads {
    /// Those that are open.
    pub(super) fn open(&self) -> impl Iterator<Item = &OpenSegment> {
        self.copies.iter().chain(&self.settled).flatten()
    }

    /// Takes all that are open.
    pub(super) fn take(&mut self) -> impl Iterator<Item = OpenSegment> {
        self.copies.iter_mut().chain(&mut self.settled).filter_map(Option::take)
    }
}

impl Engine {
    /// A head with room for a payload of `bytes`.
    pub(super) fn head_with<'h>(
        &self,
        heads: &'h mut Heads,
        kind: Kind,
        bytes: usize,
    ) -> Result<&'h mut OpenSegment, NoRoom> {
        let (copies, settled) = (&mut heads.copies[kind.class as usize], &mut heads.settled[kind.class as usize]);
        let (slot, other) = if kind.settled > 0 { (settled, copies) } else { (copies, settled) };
        if let Some(full) = slot.take_if(|head| head.room() < bytes) {
            self.log.seal(full);
        }
        if slot.is_none() {
            match self.log.open((kind.class, kind.settled), &self.budget, Claim::Cleaner) {
                Ok(open) => *slot = Some(open),
                Err(full) => {
                    return other.as_mut().filter(|head| head.room() >= bytes).map(|head| kind.join(head)).ok_or(full);
                }
            }
        }
        slot.as_mut().map(|head| kind.join(head)).ok_or(NoRoom::Segment)
    }

    /// Takes the heads that nobody is appending to, but for the cleaner's.
    pub(super) fn take_idle_heads(&self) -> impl Iterator<Item = OpenSegment> + use<> {
        self.contexts.take_idle_heads().into_iter().chain(self.loans.take_idle_heads())
    }

    /// Seals the heads that nobody is appending to, the cleaner's among them.
    pub(super) fn seal_idle_heads(&self, cleaner: &mut Cleaner) {
        self.take_idle_heads().chain(cleaner.heads.take()).for_each(|head| self.log.seal(head));
    }

    /// The same, and gives back what they do not fill.
    pub(super) fn shorten_idle_heads(&self, cleaner: &mut Cleaner) {
        let heads = self.take_idle_heads().chain(cleaner.heads.take());
        heads.for_each(|head| self.log.seal_short(head, &self.budget));
    }
}

impl Kind {
    fn join(self, head: &mut OpenSegment) -> &mut OpenSegment {
        head.settled = head.settled.min(self.settled);
        head.since = head.since.max(Some(self.since));
        head
    }
}
