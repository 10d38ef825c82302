//! The order of events.
//!
//! A thread that changes the address space tells of it when it has let the kernel's lock go, and then sleeps until that
//! is read. So the events of one thread come in order, but two threads may tell in another order than they acted, and no
//! event says whose it is. What one does where the other had nothing to do with it may come in any order. But addresses
//! that one has just left may be given to the other at once. If it is told first that memory moved there (`mremap`),
//! "unmapped", told late, would be taken to be about the newcomer, whose pages would be lost: they would read as zeros.
//!
//! So memory moves to a place only when what was known to be there has left, whenever that is told. Where memory has
//! moved, events are read until the kernel is *quiet*: nobody changes anything, and nothing is unread. (Until then it
//! refuses to fill or move anything.) Then whatever has happened has been told. Of those who are told to have left the place
//! some may be newcomers that have left it again. How many, is seen by counting: whoever comes makes one more, whoever
//! leaves one less, and in the end there is one or none, which the kernel tells ([`Arranging::surplus`]).
//!
//! What is known to be registered must then be all that is. What a mapping grows by (`mremap`) is registered, too, and
//! nobody tells: it is learned of when the program touches it ([`grown`]). What nobody has touched is not waited for.
//!
//! # What cannot be told apart
//! Where both leave a place, one unmapped and the other moved on, and one of them is late, either may be the one that moved.
//! That is not guessed at: it is an error. But what was told before the newcomer's thread went on is certainly of the other;
//! and to be later than that, the other must sleep in the kernel, done, while that thread comes back and works on.
//!
//! Discarding (`MADV_DONTNEED`) is told before it is done, so it cannot come too late.

use core::ops::Range;
use std::collections::VecDeque;
use std::sync::LazyLock;

use tmem_sys::{Event, MappingsOf};

use crate::intervals::Intervals;
use crate::rights;
use crate::space::{Space, State};
use crate::units::overlap;

/// What can be asked of an address space as it is now.
pub(crate) trait Now {
    /// Whether nobody changes it, and all that was told is read.
    fn is_quiet(&self) -> bool;
    /// Whether memory at an address is registered.
    fn is_registered(&self, address: u64) -> bool;
    /// The mapping that holds an address, if that is known.
    fn mapping(&self, address: u64) -> Option<Range<u64>>;
    /// Whether memory that shrinks as it moves (`MREMAP_FIXED`) is told of with the length that it had: before Linux 6.15.
    fn tells_old_lengths(&self) -> bool;
}

impl Now for Space {
    fn is_quiet(&self) -> bool {
        !self.faults.is_changing()
    }

    fn is_registered(&self, address: u64) -> bool {
        self.faults.is_registered(address)
    }

    fn mapping(&self, address: u64) -> Option<Range<u64>> {
        let mapping = MappingsOf::open(self.program.get()?.pid).ok()?.at(address).ok()??;
        Some(mapping.range)
    }

    fn tells_old_lengths(&self) -> bool {
        static IT_DOES: LazyLock<bool> = LazyLock::new(|| rights::kernel_version() < (6, 15));
        *IT_DOES
    }
}

/// The mapping that holds a page which faults, if nobody knew that it is registered: it has grown (`mremap`), and nothing
/// tells of that but its faults.
pub(crate) fn grown(space: &Space, state: &State, address: u64) -> Option<Range<u64>> {
    if state.registered.contains(address) {
        return None;
    }
    space.mapping(address).filter(|mapping| space.hands.get().is_none_or(|hands| !hands.is_own(mapping)))
}

/// Puts what was told since a quiet moment, when this was `registered`, into an order in which it may have happened. Returns
/// false, and leaves the order as it is, if it is not quiet now, too. If different things may have happened, says so.
pub(crate) fn arrange(told: &mut Vec<Event>, registered: &Intervals, now: &dyn Now) -> Result<bool, &'static str> {
    let lengths = if now.tells_old_lengths() { lengths(told, now) } else { Vec::new() };
    // All answers are of one moment if it is quiet when the last of them is there.
    if !lengths.is_empty() && !now.is_quiet() {
        return Ok(false);
    }
    for (event, length) in lengths {
        if let Event::Remap { bytes, .. } = &mut told[event] {
            *bytes = length;
        }
    }
    if !told.iter().enumerate().any(|(at, event)| is_moved_to_whom_leaves(event, &told[at..])) {
        return Ok(now.is_quiet());
    }
    let left = (0..told.len()).collect();
    let mut arranging = Arranging { told, now, left, known: registered.clone(), order: Vec::new() };
    let mut done = Ok(());
    while let (Ok(()), Some(event)) = (done, arranging.left.pop_front()) {
        done = arranging.place(event);
    }
    let Arranging { order, .. } = arranging;
    if !now.is_quiet() {
        return Ok(false);
    }
    done?;
    let mut events: Vec<Option<Event>> = core::mem::take(told).into_iter().map(Some).collect();
    told.extend(order.into_iter().filter_map(|event| events[event].take()));
    Ok(true)
}

/// Events on their way into an order.
struct Arranging<'a> {
    told: &'a [Event],
    now: &'a dyn Now,
    /// Those that have no place yet, as they were told.
    left: VecDeque<usize>,
    order: Vec<usize>,
    /// What is known to be registered after those that have a place.
    known: Intervals,
}

impl Arranging<'_> {
    /// Puts an event behind those that have a place, and before it how those left who were where memory moves to.
    fn place(&mut self, event: usize) -> Result<(), &'static str> {
        match &self.told[event] {
            Event::Remap { from, to, bytes } => {
                let (source, place) = (*from..*from + *bytes, *to..*to + *bytes);
                while let Some(departure) = self.late_departure(&source, &place)? {
                    for event in departure {
                        self.left.retain(|left| *left != event);
                        self.place(event)?;
                    }
                }
                self.known.insert(place);
            }
            Event::Unmap(gone) => self.known.remove(gone),
            Event::Fault { .. } | Event::Fork(_) | Event::Remove(_) => {}
        }
        self.order.push(event);
        Ok(())
    }

    /// What tells of somebody who left `place`, and had to before memory moved there from `source`.
    fn late_departure(&self, source: &Range<u64>, place: &Range<u64>) -> Result<Option<Vec<usize>>, &'static str> {
        let mut either = None;
        for part in self.known.overlaps(place) {
            for page in self.edges(&part).filter(|page| self.surplus(*page) > 0) {
                let mut may_be = (0..self.left.len()).filter(|at| self.may_be_late(*at, place, page));
                match (may_be.next(), may_be.next()) {
                    (Some(at), None) => return self.departure(at, source, place).map(Some),
                    (first, _) => either = either.or(first),
                }
            }
        }
        // Where two are gone that were at the same pages, it is the same which of them goes first.
        either.map(|at| self.departure(at, source, place)).transpose()
    }

    /// Whether the event at `at` is that somebody left `page`, and who was there before may be gone wherever it says so.
    fn may_be_late(&self, at: usize, place: &Range<u64>, page: u64) -> bool {
        let Event::Unmap(gone) = &self.told[self.left[at]] else { return false };
        gone.contains(&page) && self.edges(&common(gone, place)).all(|page| self.surplus(page) > 0)
    }

    /// The event at `at`, and before it how what is gone had moved, if it had: if that is of who was at `place` before.
    fn departure(&self, at: usize, source: &Range<u64>, place: &Range<u64>) -> Result<Vec<usize>, &'static str> {
        let Event::Unmap(gone) = &self.told[self.left[at]] else { return Ok(Vec::new()) };
        let moved = self.first(|event| is_moved(event, |range| range == gone)).filter(|moved| *moved < at);
        // Until this is read, the thread that moved the newcomer does nothing else, and nobody else knows where that is.
        let goes_on = self.first(|event| is_unmapped(event, |range| range == source));
        let is_sure = goes_on.is_some_and(|goes_on| moved.unwrap_or(at) < goes_on);
        if !is_sure && self.first(|event| is_moved(event, |range| overlap(range, &common(gone, place)))).is_some() {
            return Err("of two mappings that were at one place, one has moved, and it is not known which");
        }
        Ok(moved.into_iter().chain([at]).map(|at| self.left[at]).collect())
    }

    /// How often somebody leaves a page, or stays there, beyond how often somebody comes, the newcomer among them.
    fn surplus(&self, page: u64) -> usize {
        let count =
            |is_it: &dyn Fn(&Event) -> bool| self.left.iter().filter(|event| is_it(&self.told[**event])).count();
        let leave = count(&|event| is_unmapped(event, |range| range.contains(&page)));
        let come =
            1 + count(&|event| matches!(event, Event::Remap { to, bytes, .. } if (*to..*to + *bytes).contains(&page)));
        (leave + usize::from(self.now.is_registered(page))).saturating_sub(come)
    }

    /// The first page of a range, and those in it where what is left begins or ends something.
    fn edges(&self, range: &Range<u64>) -> impl Iterator<Item = u64> {
        let edges = self.left.iter().flat_map(|event| match &self.told[*event] {
            Event::Unmap(gone) => [gone.start, gone.end],
            Event::Remap { to, bytes, .. } => [*to, *to + *bytes],
            Event::Fault { .. } | Event::Fork(_) | Event::Remove(_) => [0; 2],
        });
        let inside = range.clone();
        edges.chain([range.start]).filter(move |page| inside.contains(page))
    }

    fn first(&self, is_it: impl Fn(&Event) -> bool) -> Option<usize> {
        self.left.iter().position(|event| is_it(&self.told[*event]))
    }
}

/// What two ranges have in common.
fn common(a: &Range<u64>, b: &Range<u64>) -> Range<u64> {
    a.start.max(b.start)..a.end.min(b.end)
}

/// Whether memory has moved to a place that somebody leaves later, as it was told.
fn is_moved_to_whom_leaves(event: &Event, later: &[Event]) -> bool {
    let Event::Remap { to, bytes, .. } = event else { return false };
    later.iter().any(|event| is_unmapped(event, |gone| overlap(gone, &(*to..*to + *bytes))))
}

fn is_unmapped(event: &Event, which: impl Fn(&Range<u64>) -> bool) -> bool {
    matches!(event, Event::Unmap(range) if which(range))
}

fn is_moved(event: &Event, which: impl Fn(&Range<u64>) -> bool) -> bool {
    matches!(event, Event::Remap { from, bytes, .. } if which(&(*from..*from + *bytes)))
}

/// Which memory shrank as it moved, and how long it is now. What was cut off, and what was left then, are told after it, as
/// two; of any other move as one, or not at all.
fn lengths(told: &[Event], now: &dyn Now) -> Vec<(usize, u64)> {
    let shrunk = |(event, after): (usize, &Event)| {
        let Event::Remap { from, to, bytes } = *after else { return None };
        let later = &told[event..];
        let is_gone = |range: Range<u64>| later.iter().any(|event| is_unmapped(event, |gone| *gone == range));
        let cuts = later.iter().filter_map(|event| match event {
            Event::Unmap(tail) if tail.start > from && tail.end == from + bytes => Some(tail.start),
            _ => None,
        });
        let cut = cuts.filter(|cut| is_gone(from..*cut)).find(|_| !is_gone(from..from + bytes))?;
        let length = cut - from;
        (now.mapping(to)?.end == to + length).then_some((event, length))
    };
    told.iter().enumerate().filter_map(shrunk).collect()
}

#[cfg(test)]
mod tests;
