//! Cases by name, and a model: threads that map, unmap, move and grow memory, and tell of it late.

use super::*;
use crate::events::{Effects, Means};
use crate::intervals::Intervals;
use crate::slots::Slot;
use crate::space::State;
use crate::units::Page;
use tmem_agent::protocol::PAGE_BYTES;

/// Two mappings of four pages, of which each has a slot: 1.. at `A`, 101.. at `B`.
const A: u64 = 64;
const B: u64 = 128;
const ELSEWHERE: u64 = 192;

/// What is registered, and where mappings begin.
#[derive(Default)]
struct Kernel {
    registered: Intervals,
    mappings: Vec<Range<u64>>,
    is_quiet: bool,
    is_old: bool,
}

impl Kernel {
    /// With one mapping at each of these places, all registered.
    fn with(places: &[u64]) -> Self {
        let mut kernel = Self { is_quiet: true, ..Self::default() };
        for place in places {
            kernel.registered.insert(bytes(*place));
            kernel.mappings.push(bytes(*place));
        }
        kernel
    }
}

impl Now for Kernel {
    fn is_quiet(&self) -> bool {
        self.is_quiet
    }

    fn is_registered(&self, address: u64) -> bool {
        self.registered.contains(address)
    }

    fn mapping(&self, address: u64) -> Option<Range<u64>> {
        self.mappings.iter().find(|mapping| mapping.contains(&address)).cloned()
    }

    fn tells_old_lengths(&self) -> bool {
        self.is_old
    }
}

fn pages(start: u64, count: u64) -> Range<u64> {
    start * PAGE_BYTES..(start + count) * PAGE_BYTES
}

fn bytes(start: u64) -> Range<u64> {
    pages(start, 4)
}

fn moved(from: u64, to: u64) -> Event {
    Event::Remap { from: bytes(from).start, to: bytes(to).start, bytes: 4 * PAGE_BYTES }
}

fn unmapped(start: u64) -> Event {
    Event::Unmap(bytes(start))
}

/// A state that knows of mappings with slots: the first number of each.
fn state(mappings: &[(u64, u32)]) -> State {
    let mut state = State::new(1);
    for (start, slot) in mappings {
        state.armed.insert(bytes(*start));
        state.registered.insert(bytes(*start));
        let slots = (*slot..slot + 4).map(Slot);
        (*start..).map(Page).zip(slots).for_each(|(page, slot)| state.pages.set(page, slot));
    }
    state
}

fn apply(state: &mut State, events: Vec<Event>) -> Vec<u32> {
    let means = Means { hands: None, share: &|_| {}, withheld: &Intervals::default };
    let Effects { dropped, .. } = state.apply(&means, events);
    let mut dropped: Vec<u32> = dropped.iter().map(|slot| slot.0).collect();
    dropped.sort_unstable();
    dropped
}

fn slots_at(state: &State, start: u64) -> Vec<u32> {
    (start..start + 4).filter_map(|page| Some(state.pages.slot(Page(page))?.0)).collect()
}

#[test]
fn memory_moves_to_where_other_memory_left_whatever_is_told_first() {
    for mut told in [
        vec![unmapped(B), moved(A, B), unmapped(A)],
        vec![moved(A, B), unmapped(B), unmapped(A)],
        vec![moved(A, B), unmapped(A), unmapped(B)],
        vec![moved(A, B), Event::Remove(bytes(ELSEWHERE)), unmapped(B), unmapped(A)],
    ] {
        let mut state = state(&[(A, 1), (B, 101)]);
        assert_eq!(arrange(&mut told, &state.registered, &Kernel::with(&[B])), Ok(true));
        assert_eq!(apply(&mut state, told), [101, 102, 103, 104]);
        assert_eq!(slots_at(&state, B), [1, 2, 3, 4]);
        assert!(slots_at(&state, A).is_empty());
        assert!(state.armed.contains(bytes(B).start) && !state.armed.contains(bytes(A).start));
    }
}

#[test]
fn memory_follows_other_memory_that_moved_on_whatever_is_told_first() {
    for mut told in [
        vec![moved(B, ELSEWHERE), unmapped(B), moved(A, B), unmapped(A)],
        vec![moved(A, B), moved(B, ELSEWHERE), unmapped(B), unmapped(A)],
        vec![moved(A, B), moved(B, ELSEWHERE), unmapped(A), unmapped(B)],
    ] {
        let mut state = state(&[(A, 1), (B, 101)]);
        assert_eq!(arrange(&mut told, &state.registered, &Kernel::with(&[B, ELSEWHERE])), Ok(true));
        assert!(apply(&mut state, told).is_empty());
        assert_eq!(slots_at(&state, B), [1, 2, 3, 4]);
        assert_eq!(slots_at(&state, ELSEWHERE), [101, 102, 103, 104]);
        assert!(slots_at(&state, A).is_empty());
    }
}

/// A mapping that grew in place, or was not armed yet, was not waited for: what had moved there when it was told to have
/// left lost its pages to it, and read as zeros.
#[test]
fn who_leaves_may_be_registered_and_not_armed() {
    for mut told in [vec![moved(A, B), unmapped(B), unmapped(A)], vec![moved(A, B), unmapped(A), unmapped(B)]] {
        let mut state = state(&[(A, 1)]);
        state.registered.insert(bytes(B));
        assert_eq!(arrange(&mut told, &state.registered, &Kernel::with(&[B])), Ok(true));
        assert!(apply(&mut state, told).is_empty());
        assert_eq!(slots_at(&state, B), [1, 2, 3, 4]);
    }
}

/// Who is known to have been there may have left in a life before, that of the parent.
#[test]
fn a_place_that_nobody_leaves_any_more_is_taken() {
    let mut state = state(&[(A, 1), (B, 101)]);
    let mut told = vec![moved(A, B), unmapped(A)];
    assert_eq!(arrange(&mut told, &state.registered, &Kernel::with(&[B])), Ok(true));
    assert_eq!(apply(&mut state, told), [101, 102, 103, 104]);
    assert_eq!(slots_at(&state, B), [1, 2, 3, 4]);
}

/// The second move of who came was taken for the late departure of who was there before, or the other way round.
#[test]
fn who_came_may_leave_while_who_was_there_is_late() {
    let leaves = || vec![moved(A, B), unmapped(A), unmapped(B)];
    let mut told = leaves();
    let mut known = state(&[(A, 1)]);
    assert_eq!(arrange(&mut told, &known.registered, &Kernel::with(&[])), Ok(true));
    assert_eq!(apply(&mut known, told), [1, 2, 3, 4]);

    let mut told = leaves();
    told.push(unmapped(B));
    let mut known = state(&[(A, 1), (B, 101)]);
    assert_eq!(arrange(&mut told, &known.registered, &Kernel::with(&[])), Ok(true));
    assert_eq!(apply(&mut known, told), [1, 2, 3, 4, 101, 102, 103, 104]);

    // Told before the thread that moved it went on, it is that of who was there.
    let mut told = vec![moved(A, B), unmapped(B), unmapped(A), moved(B, ELSEWHERE), unmapped(B)];
    let mut known = state(&[(A, 1), (B, 101)]);
    assert_eq!(arrange(&mut told, &known.registered, &Kernel::with(&[ELSEWHERE])), Ok(true));
    assert_eq!(apply(&mut known, told), [101, 102, 103, 104]);
    assert_eq!(slots_at(&known, ELSEWHERE), [1, 2, 3, 4]);

    // Either may be the one that moved on; or who came left the place mapped (`MREMAP_DONTUNMAP`).
    let known = state(&[(A, 1), (B, 101)]);
    let mut told = vec![moved(A, B), unmapped(A), moved(B, ELSEWHERE), unmapped(B), unmapped(B)];
    assert!(arrange(&mut told, &known.registered, &Kernel::with(&[ELSEWHERE])).is_err());
    let mut told = vec![moved(A, B), unmapped(A), moved(B, ELSEWHERE), unmapped(B)];
    assert!(arrange(&mut told, &known.registered, &Kernel::with(&[B, ELSEWHERE])).is_err());
}

#[test]
fn nothing_is_arranged_unless_it_is_quiet() {
    for is_old in [false, true] {
        let kernel = Kernel { is_quiet: false, is_old, ..Kernel::with(&[B]) };
        let mut told = vec![moved(A, B), unmapped(A), unmapped(B)];
        assert_eq!(arrange(&mut told, &state(&[(A, 1)]).registered, &kernel), Ok(false));
        assert!(matches!(&told[2], Event::Unmap(range) if *range == bytes(B)), "{told:?}");
    }
}

/// As Linux tells it before 6.15: a mapping of eight pages becomes one of four, elsewhere.
#[test]
fn what_shrinks_as_it_moves_is_as_long_as_it_is() {
    let told = || {
        let length = 8 * PAGE_BYTES;
        vec![
            Event::Remap { from: bytes(A).start, to: bytes(B).start, bytes: length },
            Event::Unmap(bytes(A + 4)),
            unmapped(A),
        ]
    };
    let mut known = state(&[(A, 1), (A + 4, 5), (B + 4, 101)]);
    let mut events = told();
    let kernel = Kernel { is_old: true, ..Kernel::with(&[B, B + 4]) };
    assert_eq!(arrange(&mut events, &known.registered, &kernel), Ok(true));
    assert_eq!(apply(&mut known, events), [5, 6, 7, 8]);
    assert_eq!([slots_at(&known, B), slots_at(&known, B + 4)], [vec![1, 2, 3, 4], vec![101, 102, 103, 104]]);

    // What was left behind (`MREMAP_DONTUNMAP`) goes in two parts.
    let mut kernel = Kernel { is_old: true, ..Kernel::with(&[]) };
    kernel.mappings.push(pages(B, 8));
    let mut events = told();
    assert_eq!(arrange(&mut events, &known.registered, &kernel), Ok(true));
    assert!(matches!(events[0], Event::Remap { bytes, .. } if bytes == 8 * PAGE_BYTES));
}

mod model;
