//! Torture: threads that map, unmap, move, protect, discard, write and read at random, and fork now and then; children
//! check everything they inherited. A failing run prints its seed and the history of the mapping that is wrong.
//!
//! Each thread has an arena of slots. An operation holds the gate for reading and its arena's lock. Every other fork holds
//! the gate for writing, so its child is born between operations and finds every arena consistent. The others happen in
//! the middle of what other threads do, and their children look at the arena of their own thread only.

mod slot;

use crate::fork::{Child, child};
use crate::options::{Options, Sabotage};
use crate::pattern::{Digest, Random};
use crate::sys;
use slot::{Access, Slot};
use std::sync::{Mutex, RwLock};
use std::time::{Duration, Instant};

/// Children that live at the same time.
const CHILDREN: usize = 3;
/// One operation in so many is a fork of either kind.
const FORK_ONE_IN: usize = 800;

/// Which arenas a child finds consistent.
#[derive(Debug, Clone, Copy)]
enum Born {
    /// All.
    BetweenOperations,
    /// This one's.
    Beside(usize),
}

/// Pages of most slots, at most.
const SMALL: usize = 256;
/// Pages of the others, at most.
const LARGE: usize = 1536;

/// What one thread owns.
#[derive(Debug)]
struct Arena {
    slots: Vec<Slot>,
    random: Random,
    /// Seeds of slots follow from it.
    made: u64,
    operations: u64,
    sabotage: Sabotage,
}

struct World {
    gate: RwLock<()>,
    arenas: Vec<Mutex<Arena>>,
    children: Mutex<Vec<Child>>,
    pages_each: usize,
    end: Instant,
}

/// Runs until the time is over, and checks everything at the end.
pub(crate) fn run(options: &Options) -> u64 {
    eprintln!("torture --seed {} --threads {} --mib {}", options.seed, options.count, options.mib);
    let arena = |thread: u64| Arena {
        slots: Vec::new(),
        random: Random::new(options.seed << 16 | thread),
        made: (options.seed << 16 | thread) << 24,
        operations: 0,
        sabotage: options.sabotage,
    };
    let world = World {
        gate: RwLock::new(()),
        arenas: (0..options.count as u64).map(|thread| Mutex::new(arena(thread))).collect(),
        children: Mutex::new(Vec::new()),
        pages_each: (options.mib << 8) / options.count,
        end: Instant::now() + Duration::from_secs(options.seconds),
    };
    std::thread::scope(|scope| {
        for thread in 0..options.count {
            let world = &world;
            scope.spawn(move || world.work(thread));
        }
    });
    std::mem::take(&mut *world.children.lock().expect("no panic")).into_iter().for_each(Child::join);
    let operations: u64 = world.arenas.iter().map(|arena| arena.lock().expect("no panic").operations).sum();
    eprintln!("{operations} operations");
    world.check(Born::BetweenOperations);
    let mut digest = Digest::new();
    digest.add(options.seed);
    digest.value()
}

impl World {
    fn work(&self, thread: usize) {
        while Instant::now() < self.end {
            let drawn = {
                let _open = self.gate.read().expect("no panic");
                let mut arena = self.arenas[thread].lock().expect("no panic");
                arena.step(self.pages_each);
                arena.random.below(FORK_ONE_IN)
            };
            match drawn {
                0 => {
                    let _shut = self.gate.write().expect("no panic");
                    self.fork(thread, Born::BetweenOperations);
                }
                1 => self.fork(thread, Born::Beside(thread)),
                _ => {}
            }
        }
    }

    fn fork(&self, thread: usize, born: Born) {
        let mut children = self.children.lock().expect("no panic");
        if children.len() == CHILDREN {
            children.remove(0).join();
        }
        children.push(child(|| self.live_as_child(thread, born)));
    }

    /// A child checks what it inherited, changes some of it, has a child of its own at times, and checks again.
    fn live_as_child(&self, thread: usize, born: Born) {
        self.check(born);
        let grandchild = {
            let mut arena = self.arenas[thread].lock().expect("no panic");
            (0..100).for_each(|_| arena.step(self.pages_each));
            arena.random.below(4) == 0
        };
        if grandchild {
            child(|| self.check(born)).join();
        }
        self.check(born);
    }

    fn check(&self, born: Born) {
        let arenas = match born {
            Born::BetweenOperations => &self.arenas[..],
            Born::Beside(thread) => &self.arenas[thread..=thread],
        };
        for arena in arenas {
            arena.lock().expect("no panic").slots.iter_mut().for_each(Slot::check_all);
        }
    }
}

impl Arena {
    /// One operation, at random.
    fn step(&mut self, most_pages: usize) {
        self.operations += 1;
        let pages: usize = self.slots.iter().map(Slot::pages).sum();
        let room = most_pages.saturating_sub(pages);
        if self.slots.is_empty() || room > 0 && self.random.below(8) == 0 {
            return self.map(room.max(1));
        }
        let at = self.random.below(self.slots.len());
        let (slot, random) = (&mut self.slots[at], &mut self.random);
        if self.operations.is_multiple_of(100) {
            slot.sabotage(self.sabotage);
        }
        match random.below(24) {
            0 if pages > most_pages / 2 => self.slots.swap_remove(at).unmap(),
            1 => slot.cut(random),
            2 => slot.relocate(),
            3 => slot.resize(random, room),
            4 => slot.leave_behind(random),
            5 => slot.discard(random),
            6 => slot.free(random),
            7 => slot.protect(if random.below(2) == 0 { Access::Read } else { Access::None }),
            8 => slot.map_over(random),
            9 => slot.lock(),
            10 => slot.read_zeros(random),
            11..=15 => slot.write_run(random),
            16 => slot.check_all(),
            17..=19 if slot.access() != Access::Write => slot.protect(Access::Write),
            _ => slot.check_run(random),
        }
    }

    fn map(&mut self, room: usize) {
        let most = if self.random.below(16) == 0 { LARGE } else { SMALL };
        let pages = 1 + self.random.below(most.min(room));
        self.made += 1;
        let mut slot = Slot::new(pages, self.made, &mut self.random);
        slot.write_run(&mut self.random);
        self.slots.push(slot);
        if self.slots.len() > 4096 {
            sys::fail("a torture with so many slots is not meant");
        }
    }
}
