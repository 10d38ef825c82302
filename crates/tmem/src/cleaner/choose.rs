//! Which segment is next, and whose blocks may go.

use crate::client::ClientId;
use crate::engine::Engine;
use crate::row::{Class, RowWord, State};
use crate::units::SegmentId;
use std::collections::HashSet;

/// The clients whose cold ephemeral granules are dropped.
#[derive(Debug)]
pub(super) struct Drops(HashSet<ClientId>);

impl Drops {
    /// Those of one client.
    pub(super) fn of(client: ClientId) -> Self {
        Self(HashSet::from([client]))
    }

    /// Whether granules of this client are dropped.
    pub(super) fn concern(&self, client: ClientId) -> bool {
        self.0.contains(&client)
    }
}

impl Engine {
    /// Sealed segments with their words and when they were sealed.
    fn sealed(&self) -> impl Iterator<Item = (SegmentId, RowWord, u64)> {
        let rows = self.log.ids().map(|id| (id, self.log.segments.row(id)));
        rows.map(|(id, row)| (id, row.word(), row.sealed_at())).filter(|(_, word, _)| word.state() == State::Sealed)
    }

    /// The segment from which compaction wins the most, if that is at least `least_gain` units.
    pub(super) fn emptiest(&self, least_gain: u32) -> Option<SegmentId> {
        if self.log.reclaimable_bytes() < crate::units::unit_bytes(least_gain) && !self.log.has_dead_short() {
            return None;
        }
        let gains = self.sealed().map(|(id, ..)| (self.log.segments.row(id).gain(), id));
        gains.max().filter(|(gain, _)| *gain >= least_gain).map(|(_, id)| id)
    }

    /// The ephemeral segment to go through next, and whose blocks to drop from it: those of the clients that hold more
    /// than their weight gives them a right to.
    ///
    /// Blocks are put into probation segments; those that were got again by the time the cleaner comes go on into
    /// protected ones. Probation goes first as long as it has more than a tenth of the ephemeral memory: a scan fills
    /// probation and is dropped from there, and what is hot stays (S3-FIFO, SOSP'23, by segments).
    pub(super) fn next_to_evict(&self) -> Option<(SegmentId, Drops)> {
        let drops = self.over_share()?;
        let live_of = |class| -> u64 { self.of_class(class).map(|(_, word, _)| u64::from(word.live())).sum() };
        let (probation, protected) = (live_of(Class::Probation), live_of(Class::Protected));
        let oldest = |class| self.of_class(class).min_by_key(|(.., sealed_at)| *sealed_at).map(|(id, ..)| id);
        let victim = if probation * 10 > probation + protected {
            oldest(Class::Probation).or_else(|| oldest(Class::Protected))
        } else {
            oldest(Class::Protected).or_else(|| oldest(Class::Probation))
        };
        victim.map(|victim| (victim, drops))
    }

    fn of_class(&self, class: Class) -> impl Iterator<Item = (SegmentId, RowWord, u64)> {
        self.sealed().filter(move |(_, word, _)| word.class() == class)
    }

    /// Clients with ephemeral memory that have at least their share of all of it, by weight. There is one if there is
    /// any ephemeral memory: not all can have less than their share.
    pub(super) fn over_share(&self) -> Option<Drops> {
        let held: Vec<_> = self
            .registry
            .clients()
            .iter()
            .map(|account| (account.id, u128::from(account.ephemeral_units()), u128::from(account.weight())))
            .filter(|(_, units, _)| *units > 0)
            .collect();
        let units: u128 = held.iter().map(|(_, units, _)| units).sum();
        let weights: u128 = held.iter().map(|(.., weight)| weight).sum();
        let over = held.into_iter().filter(|(_, own, weight)| own * weights >= units * weight);
        let clients: HashSet<_> = over.map(|(id, ..)| id).collect();
        (!clients.is_empty()).then_some(Drops(clients))
    }

    /// The oldest segment that settling may make smaller.
    pub(super) fn next_to_settle(&self) -> Option<SegmentId> {
        self.oldest_unsettled(u64::MAX)
    }

    /// The same among those sealed before `upto`.
    pub(super) fn oldest_unsettled(&self, upto: u64) -> Option<SegmentId> {
        let now = self.policy_generation();
        let due = |id| self.log.segments.row(id).settled() < now;
        let unsettled = self.sealed().filter(|(id, _, sealed_at)| *sealed_at < upto && due(*id));
        unsettled.min_by_key(|(.., sealed_at)| *sealed_at).map(|(id, ..)| id)
    }
}
