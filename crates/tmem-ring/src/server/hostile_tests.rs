//! Clients that do what they like with their side of the memory, beside one that behaves.
//!
//! The one that behaves puts and gets, and compares every byte. `TMEM_SEED` runs one seed, `TMEM_SECONDS` runs for longer.

#[path = "../../../tmem/tests/support/random.rs"]
#[allow(dead_code, unreachable_pub, reason = "the engine's tests use more of it, in several files")]
pub(super) mod random;

use super::queue::Served;
use super::service::Service;
use super::tenant::Tenant;
use super::{LocalAction, LocalOperation, LocalQueue};
use crate::layout::{Layout, at};
use crate::memory::QueueMemory;
use crate::operation::{ObjectId, Opcode, Outcome, Place, PoolId, Submission};
use random::Random;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tmem::{ClientOptions, Store, StoreOptions};
use tmem_sys::{Backing, Doorbell, Epoll, Region};

const ENTRIES: u64 = 16;
const REGION_BYTES: usize = 1 << 20;

/// A number that is likely to be at an edge of something.
fn edge(random: &mut Random) -> u64 {
    let near = [0, 1, 4096, 1 << 17, 1 << 18, REGION_BYTES as u64, 1 << 32, 1 << 63, u64::MAX, u64::MAX - 4095];
    let base = random.pick(&near);
    if random.one_in(3) { random.next() } else { base.wrapping_add(random.below(3)).wrapping_sub(1) }
}

/// A store with one client that behaves; others come and go.
struct World {
    store: Store,
    service: Arc<Service>,
    good: LocalQueue,
    pool: PoolId,
}

impl World {
    fn new(workers: usize) -> Self {
        let store = Store::new(StoreOptions::with_budget(64 << 20)).unwrap();
        let service = Arc::new(Service::start(workers).unwrap());
        let client = store.client(ClientOptions::named("good"));
        let pool = PoolId(client.create_pool(tmem::PoolOptions::persistent()).unwrap().id().0);
        let good = service.queue(&client, 64).unwrap();
        Self { store, service, good, pool }
    }

    /// Puts and gets `rounds` times, and compares.
    fn behave(&mut self, rounds: u64) {
        for round in 0..rounds {
            for tag in 0..32 {
                let from: Box<[u8]> = page(round, tag);
                self.push(tag, LocalAction::Put { offset: tag * 4096, from });
            }
            for tag in 0..32 {
                self.push(32 + tag, LocalAction::Get { offset: tag * 4096, into: vec![0; 4096].into() });
            }
            let mut left = 64;
            while left > 0 {
                assert!(self.good.wait(1, Some(Duration::from_secs(60))).unwrap() > 0, "a client that behaves hangs");
                while let Some(done) = self.good.reap_one().unwrap() {
                    left -= 1;
                    let right = [Outcome::Stored, Outcome::Filled];
                    assert_eq!(done.outcome, right[usize::from(done.tag >= 32)]);
                    assert!(done.memory.unwrap() == page(round, done.tag % 32), "a wrong byte");
                }
            }
        }
    }

    fn push(&mut self, tag: u64, action: LocalAction) {
        let operation = LocalOperation { tag, pool: self.pool, object: ObjectId::from(1), action };
        assert!(self.good.push(operation).is_ok(), "there is room");
    }
}

fn page(round: u64, tag: u64) -> Box<[u8]> {
    (0..512_u64).flat_map(|word| ((round << 40) | (tag << 20) | (word / 5)).to_le_bytes()).collect()
}

/// A client that does what it likes.
struct Hostile {
    random: Random,
    number: u64,
    memory: QueueMemory,
    bell: Doorbell,
    layout: Layout,
    tenant: Arc<Tenant>,
    pool: PoolId,
}

impl Hostile {
    fn new(world: &World, seed: u64) -> Self {
        let client = world.store.client(ClientOptions { cap_bytes: 8 << 20, ..ClientOptions::named("hostile") });
        let pool = PoolId(client.create_pool(tmem::PoolOptions::ephemeral()).unwrap().id().0);
        let tenant = Arc::new(Tenant::remote(client, 1, &Arc::new(Doorbell::new().unwrap())));
        assert!(tenant.register(3, Region::create("tmem-hostile", REGION_BYTES, Backing::Small).unwrap()));
        let (number, served, bell) = world.service.open(&tenant, ENTRIES).unwrap();
        let layout = Layout::new(ENTRIES).unwrap();
        Self { random: Random::new(seed), number, memory: served.memory(), bell, layout, tenant, pool }
    }

    fn store(&self, at: usize, value: u64) {
        self.memory[at].store(value, Ordering::Release); // Release: as a client that wants to be believed
    }

    /// Something that looks like a submission.
    fn submission(&mut self) -> [u64; 8] {
        let random = &mut self.random;
        let opcodes = [Opcode::Put, Opcode::Get, Opcode::Take, Opcode::Flush, Opcode::FlushObject];
        let opcode = random.pick(&opcodes);
        let small = |random: &mut Random, end| if random.one_in(8) { edge(random) } else { random.below(end) };
        let place = if random.one_in(3) {
            Place::Listed(small(random, ENTRIES))
        } else {
            Place::At(small(random, REGION_BYTES as u64))
        };
        let submission = Submission {
            opcode,
            region: if random.one_in(10) { u16::try_from(random.below(1 << 16)).unwrap() } else { 3 },
            pool: if random.one_in(10) { PoolId(u32::try_from(random.below(9)).unwrap()) } else { self.pool },
            tag: random.next(),
            object: ObjectId::from(random.below(3)),
            offset: if random.one_in(4) { edge(random) } else { random.below(64) * 4096 },
            len: small(random, 600 << 10),
            place,
        };
        let mut words = submission.to_words();
        if random.one_in(10) {
            words[random.index(8)] = edge(random);
        }
        words
    }

    /// One deed.
    fn act(&mut self) {
        let words = self.submission();
        let entry = self.random.below(ENTRIES);
        for (nth, word) in words.iter().enumerate() {
            self.store(self.layout.submission(entry) + nth, *word);
        }
        let annex = self.layout.annex(self.random.below(ENTRIES));
        for nth in 0..8 {
            let value = if self.random.one_in(2) { self.random.below(5) * 4096 } else { edge(&mut self.random) };
            self.store(annex + nth, value);
        }
        let count = self.random.below(5);
        self.store(annex, count);
        let (submitted, reaped) = (at::SUBMITTED, at::REAPED);
        // Relaxed: whatever is there.
        let now = |at: usize| self.memory[at].load(Ordering::Relaxed); // as above
        let small = self.random.below(4);
        match self.random.below(40) {
            // As it should be, nearly always: what is behind the counts is to be reached.
            0..=35 => {
                let (completed, next) = (now(at::COMPLETED), now(submitted));
                self.store(reaped, completed);
                self.store(submitted, next.wrapping_add(small).min(completed.wrapping_add(ENTRIES)));
            }
            36 => {
                let word = self.random.below(self.memory.len() as u64);
                let value = edge(&mut self.random);
                self.store(usize::try_from(word).unwrap(), value);
            }
            37 => self.store(submitted, now(submitted).wrapping_sub(1)),
            38 => self.store(at::WAKE_AT, small * 9),
            _ => self.store(at::ARMED, small % 2),
        }
        self.bell.ring();
    }
}

/// What seeds to run, and for how long in all.
fn seeds(usual: u64) -> (std::ops::Range<u64>, Option<Instant>) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match (number("TMEM_SEED"), number("TMEM_SECONDS")) {
        (Some(seed), _) => (seed..seed + 1, None),
        (None, Some(seconds)) => (0..u64::MAX, Some(Instant::now() + Duration::from_secs(seconds))),
        (None, None) => (0..usual, None),
    }
}

#[test]
fn whatever_a_client_writes_others_are_served_and_right() {
    let (seeds, end) = seeds(40);
    let (mut broken, mut carried_out) = (0, 0);
    for seed in seeds.take_while(|_| end.is_none_or(|end| Instant::now() < end)) {
        println!("seed {seed}");
        let mut world = World::new(1 + usize::try_from(seed % 3).unwrap());
        let mut hostile = Hostile::new(&world, seed);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // Relaxed: it says stop, and nothing else.
                while !stop.load(Ordering::Relaxed) && !hostile.tenant.is_broken() {
                    hostile.act();
                }
            });
            world.behave(12);
            stop.store(true, Ordering::Relaxed); // as above
        });
        broken += u64::from(hostile.tenant.is_broken());
        carried_out += hostile.tenant.operations.load(Ordering::Relaxed); // Relaxed: a sum
        world.service.close(hostile.number);
        hostile.tenant.client.destroy();
        world.store.validate();
    }
    println!("{carried_out} operations of hostile clients, {broken} of them broke the protocol");
    assert!(carried_out > 0, "nothing of the hostile was believed");
}

#[test]
fn lent_memory_that_changes_harms_nobody_else() {
    let mut world = World::new(2);
    let hostile = Hostile::new(&world, 5);
    let stop = AtomicBool::new(false);
    let changed = AtomicU64::new(0);
    let region = Region::create("tmem-hostile", REGION_BYTES, Backing::Small).unwrap();
    let same = Region::map_foreign(region.fd().try_clone_to_owned().unwrap()).unwrap();
    assert!(hostile.tenant.register(4, same));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = Random::new(77);
            // Relaxed in here: it says stop, and counts.
            while !stop.load(Ordering::Relaxed) {
                let word = random.next().to_le_bytes();
                region.write(random.index(REGION_BYTES - 8), &word);
                changed.fetch_add(1, Ordering::Relaxed); // as above
            }
        });
        scope.spawn(|| {
            let mut number = 0;
            // Relaxed: as above.
            while !stop.load(Ordering::Relaxed) {
                let completed = hostile.memory[at::COMPLETED].load(Ordering::Acquire); // pairs with `Taker::post`
                if completed + ENTRIES <= number {
                    std::thread::yield_now();
                    continue;
                }
                let opcode = if number % 2 == 0 { Opcode::Put } else { Opcode::Get };
                let submission = Submission {
                    opcode,
                    region: 4,
                    pool: hostile.pool,
                    tag: number,
                    object: ObjectId::from(1),
                    offset: 0,
                    len: REGION_BYTES as u64 / 4 * (1 + number / 2 % 4),
                    place: Place::At(0),
                };
                for (nth, word) in submission.to_words().iter().enumerate() {
                    hostile.store(hostile.layout.submission(number) + nth, *word);
                }
                number += 1;
                hostile.store(at::REAPED, completed);
                hostile.store(at::SUBMITTED, number);
                hostile.bell.ring();
            }
        });
        world.behave(60);
        stop.store(true, Ordering::Relaxed); // as above
    });
    assert!(!hostile.tenant.is_broken(), "it kept to the protocol");
    let carried_out = hostile.tenant.operations.load(Ordering::Relaxed); // Relaxed: a sum
    assert!(changed.into_inner() > 0 && carried_out > 0);
    world.service.close(hostile.number);
    world.store.validate();
}

#[test]
fn one_that_floods_gets_no_more_than_its_share() {
    let mut world = World::new(1);
    let served = |tenant: &Tenant| tenant.served_ns.load(Ordering::Relaxed); // Relaxed: a sum
    let hostile = Hostile::new(&world, 9);
    let stop = AtomicBool::new(false);
    let refused = [0xff_u64, 1, 0, 0, 0, 0, 0, 0];
    for entry in 0..ENTRIES {
        for (nth, word) in refused.iter().enumerate() {
            hostile.store(hostile.layout.submission(entry) + nth, *word);
        }
    }
    let alone = {
        world.behave(5);
        let start = Instant::now();
        world.behave(60);
        start.elapsed()
    };
    let beside = std::thread::scope(|scope| {
        scope.spawn(|| {
            // Relaxed: it says stop, and nothing else.
            while !stop.load(Ordering::Relaxed) {
                let completed = hostile.memory[at::COMPLETED].load(Ordering::Acquire); // pairs with `Taker::post`
                hostile.store(at::REAPED, completed);
                hostile.store(at::SUBMITTED, completed + ENTRIES);
                // Relaxed: a hint.
                if hostile.memory[at::ARMED].load(Ordering::Relaxed) != 0 {
                    hostile.bell.ring();
                }
            }
        });
        let start = Instant::now();
        world.behave(60);
        stop.store(true, Ordering::Relaxed); // as above
        start.elapsed()
    });
    let operations = hostile.tenant.operations.load(Ordering::Relaxed); // Relaxed: a sum
    println!("alone {alone:?}, beside {operations} refused operations {beside:?}");
    assert!(operations >= 4 * ENTRIES && served(&hostile.tenant) > 0, "{operations} operations were a flood");
    // Its fair share is a half; the rest is for a machine whose two CPUs three threads share.
    assert!(beside < alone * 6, "alone {alone:?}, beside a flood {beside:?}");
}

#[test]
fn who_rings_all_the_time_is_heard_when_somebody_sleeps() {
    let store = Store::new(StoreOptions::with_budget(16 << 20)).unwrap();
    let tenant = Arc::new(Tenant::local(store.client(ClientOptions::named("hostile"))));
    let (served, bell) = Served::new(Arc::clone(&tenant), ENTRIES, 1).unwrap();
    let bells = Epoll::new().unwrap();
    bells.add_edges(served.bell.as_fd(), 7).unwrap();
    let mut events = Vec::new();
    let mut hear = || {
        bells.wait(&mut events, Some(Duration::ZERO)).unwrap();
        events.iter().for_each(|_| served.heard());
        events.len()
    };
    for _ in 0..3 {
        let told = (0..10_000).map(|_| {
            bell.ring();
            hear()
        });
        let told: usize = told.sum();
        assert!(told > 0 && told < 5_000, "told {told} times of 10000: its bell should be full before");
        assert!(served.arm(), "there is nothing to be done");
        bell.ring();
        assert_eq!(hear(), 1, "whoever sleeps is woken, however often it was rung before");
        assert!(!served.is_armed());
        // Rung, and not told of yet, before somebody falls asleep.
        bell.ring();
        assert!(served.arm());
        assert_eq!((hear(), served.is_armed()), (1, false));
    }
    assert_eq!(tenant.heard.load(Ordering::Relaxed), 6); // Relaxed: one thread
}
