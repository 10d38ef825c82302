//! Threads that change an address space, and tell of it when they come to it; what is worked out of what they tell is
//! held against what they did.

use super::*;

const PAGES: usize = 24;
const THREADS: usize = 3;

/// A mapping; each is one thread's, which alone changes it.
#[derive(Clone)]
struct Mapping {
    pages: Range<usize>,
    thread: usize,
    registered: bool,
}

/// What really is, and what was told of it.
struct World {
    threads: usize,
    /// Mappings grow in place, or as they move.
    grow: bool,
    /// Moves leave the old place mapped at times.
    stay: bool,
    seed: u64,
    mappings: Vec<Mapping>,
    slots: [u32; PAGES],
    next_slot: u32,
    /// By thread: what it has to tell before it does something else.
    untold: [VecDeque<Event>; THREADS],
    /// It has told, and not run since.
    asleep: [bool; THREADS],
    /// It has touched what a mapping grew by, and waits for the page.
    faults: [bool; THREADS],
    told: Vec<Event>,
    state: State,
}

fn addresses(pages: &Range<usize>) -> Range<u64> {
    pages.start as u64 * PAGE_BYTES..pages.end as u64 * PAGE_BYTES
}

impl Now for World {
    fn is_quiet(&self) -> bool {
        self.asleep == [false; THREADS] && self.untold.iter().all(VecDeque::is_empty)
    }

    fn is_registered(&self, address: u64) -> bool {
        self.holding(address).is_some_and(|mapping| mapping.registered)
    }

    fn mapping(&self, address: u64) -> Option<Range<u64>> {
        Some(addresses(&self.holding(address)?.pages))
    }

    fn tells_old_lengths(&self) -> bool {
        false
    }
}

impl World {
    fn new((threads, grow, stay): (usize, bool, bool), seed: u64) -> Self {
        Self {
            threads,
            grow,
            stay,
            seed,
            mappings: Vec::new(),
            slots: [0; PAGES],
            next_slot: 1,
            untold: Default::default(),
            asleep: [false; THREADS],
            faults: [false; THREADS],
            told: Vec::new(),
            state: State::new(1),
        }
    }

    fn below(&mut self, end: usize) -> usize {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.seed >> 33).unwrap() % end
    }

    fn holding(&self, address: u64) -> Option<&Mapping> {
        self.mappings.iter().find(|mapping| addresses(&mapping.pages).contains(&address))
    }

    fn is_free(&self, pages: &Range<usize>) -> bool {
        let pages = addresses(pages);
        pages.end <= addresses(&(0..PAGES)).end
            && self.mappings.iter().all(|mapping| !overlap(&addresses(&mapping.pages), &pages))
    }

    /// A hole of so many pages, if a random look finds one.
    fn hole(&mut self, count: usize) -> Option<Range<usize>> {
        let start = self.below(PAGES);
        Some(start..start + count).filter(|pages| self.is_free(pages))
    }

    /// One thing that one thread does.
    fn step(&mut self) {
        let thread = self.below(self.threads);
        if let Some(event) = self.untold[thread].pop_front() {
            self.told.push(event);
            self.asleep[thread] = true;
            return;
        }
        if core::mem::take(&mut self.asleep[thread]) {
            return;
        }
        if self.faults[thread] {
            return;
        }
        let own: Vec<usize> = (0..self.mappings.len()).filter(|at| self.mappings[*at].thread == thread).collect();
        let action = self.below(6);
        if own.is_empty() || action == 0 {
            let count = 1 + self.below(4);
            if let Some(pages) = self.hole(count) {
                self.mappings.push(Mapping { pages, thread, registered: false });
            }
            return;
        }
        let at = own[self.below(own.len())];
        match action {
            1 => self.unmap(at),
            2 if self.grow => self.grow(at),
            _ => self.relocate(at),
        }
    }

    fn tell(&mut self, thread: usize, registered: bool, event: Event) {
        if registered {
            self.untold[thread].push_back(event);
        }
    }

    /// Unmaps it, or its tail.
    fn unmap(&mut self, at: usize) {
        let Mapping { pages, thread, registered } = self.mappings[at].clone();
        let gone = pages.start + self.below(pages.len())..pages.end;
        match gone == pages {
            true => _ = self.mappings.swap_remove(at),
            false => self.mappings[at].pages.end = gone.start,
        }
        self.slots[gone.clone()].fill(0);
        self.tell(thread, registered, Event::Unmap(addresses(&gone)));
    }

    /// In place, of which nothing is told. What it grew by is touched at once.
    fn grow(&mut self, at: usize) {
        let end = self.mappings[at].pages.end;
        if self.is_free(&(end..end + 1)) {
            self.mappings[at].pages.end += 1;
            self.faults[self.mappings[at].thread] = self.mappings[at].registered;
        }
    }

    /// Moves it, at times by leaving the old place mapped, or to a larger place.
    fn relocate(&mut self, at: usize) {
        let Mapping { pages: from, thread, registered } = self.mappings[at].clone();
        let stays = self.stay && self.below(6) == 0;
        let count = if stays { from.len() } else { from.len() + usize::from(self.grow) * self.below(3) / 2 };
        let Some(to) = self.hole(count) else { return };
        let held: Vec<u32> = self.slots[from.clone()].to_vec();
        self.slots[from.clone()].fill(0);
        self.slots[to.start..to.start + held.len()].copy_from_slice(&held);
        let bytes = (from.len() as u64) * PAGE_BYTES;
        let (old, new) = (addresses(&from), addresses(&to));
        self.tell(thread, registered, Event::Remap { from: old.start, to: new.start, bytes });
        self.faults[thread] = registered && to.len() > from.len();
        match stays {
            true => self.mappings.push(Mapping { pages: to, thread, registered }),
            false => {
                self.mappings[at].pages = to;
                self.tell(thread, registered, Event::Unmap(old));
            }
        }
    }

    /// Applies what was told, answers faults, registers what is not, and moves pages out. Returns false if it is not known
    /// what has happened.
    fn settle(&mut self) -> bool {
        let mut told = core::mem::take(&mut self.told);
        match arrange(&mut told, &self.state.registered, self) {
            Ok(quiet) => assert!(quiet),
            Err(_) => return false,
        }
        let all = format!("{told:?}");
        apply(&mut self.state, told);
        for page in 0..PAGES {
            let known = self.state.pages.slot(Page(page as u64)).map_or(0, |slot| slot.0);
            assert_eq!(known, self.slots[page], "page {page} after {all}");
            let address = page as u64 * PAGE_BYTES;
            assert!(!self.state.armed.contains(address) || self.is_registered(address), "page {page} after {all}");
        }
        for Mapping { pages, thread, registered } in &self.mappings {
            if self.faults[*thread] && *registered {
                self.state.registered.insert(addresses(pages));
            }
        }
        self.faults = [false; THREADS];
        for at in 0..self.mappings.len() {
            if self.below(2) == 0 {
                self.mappings[at].registered = true;
                self.state.armed.insert(addresses(&self.mappings[at].pages));
                self.state.registered.insert(addresses(&self.mappings[at].pages));
            }
        }
        for page in 0..PAGES {
            if self.slots[page] == 0 && self.state.armed.contains(page as u64 * PAGE_BYTES) && self.below(2) == 0 {
                self.slots[page] = self.next_slot;
                self.state.pages.set(Page(page as u64), Slot(self.next_slot));
                self.next_slot += 1;
            }
        }
        true
    }
}

/// Returns how often the kernel was quiet, and how often it was not known then what had happened.
fn run(kind: (usize, bool, bool)) -> (u32, u32) {
    let (mut settled, mut unknown) = (0, 0);
    for seed in 1..500 {
        let mut world = World::new(kind, seed);
        for _ in 0..400 {
            world.step();
            if world.is_quiet() && world.below(3) == 0 {
                settled += 1;
                if !world.settle() {
                    unknown += 1;
                    break;
                }
            }
        }
    }
    eprintln!("{kind:?}: {settled} settled, {unknown} unknown");
    (settled, unknown)
}

#[test]
fn whatever_threads_do_and_whenever_they_tell_pages_stay_where_they_are() {
    for (grow, stay) in [(false, false), (false, true), (true, false), (true, true)] {
        let (settled, unknown) = run((THREADS, grow, stay));
        assert!(unknown * 40 < settled, "{unknown} of {settled} cannot be told apart");
    }
    assert_eq!(run((1, true, true)).1, 0);
}
