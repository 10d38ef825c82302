//! What a store takes from the machine, as the kernel counts it, and who gets how much of it.

#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(clippy::cast_precision_loss, reason = "ratios in messages and comparisons")]

mod support;

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use support::pages::{Kind, page};
use support::random::Random;
use support::{GRANULE, MIB, pool_of, quiet_store};
use tmem::{ClientOptions, Outcome, Pool, PoolOptions, Rejection, SEGMENT_BYTES, Store, StoreOptions};

/// The process's memory is everybody's: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// Growth of the process since this was made.
struct Growth {
    before: usize,
    peak: usize,
    _alone: MutexGuard<'static, ()>,
}

/// Bytes that a process may hold for a while that are no store's: malloc's caches, stacks.
const PROCESS: usize = 2 * MIB;

impl Growth {
    fn start() -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        // What the first use of anything allocates is not the store's.
        drop(pool_of(&quiet_store(32 * MIB), "first", PoolOptions::persistent()).put(1, 0, &[1; 4096]));
        let before = tmem_sys::resident_bytes().unwrap().total();
        Self { before, peak: 0, _alone: alone }
    }

    fn now(&mut self) -> usize {
        let growth = tmem_sys::resident_bytes().unwrap().total().saturating_sub(self.before);
        self.peak = self.peak.max(growth);
        growth
    }

    /// The process holds no more than the budget, and what the store says that it holds.
    fn check(&mut self, store: &Store) {
        let (growth, memory) = (self.now(), store.memory());
        // The kernel may count less by what was allocated and is still untouched: codec scratch, the last segment.
        let (least, most) = (memory.used / 50 * 49, memory.used / 50 * 51);
        let agree = growth + 2 * PROCESS >= least && growth <= most + PROCESS;
        assert!(agree, "the kernel counts {growth} bytes, the store {memory:?}");
        let most = memory.budget + memory.budget / 50;
        assert!(self.peak <= most, "{} bytes of a budget of {}", self.peak, memory.budget);
    }

    /// All of it has gone back.
    fn check_end(&mut self, store: Store) {
        store.shrink(0);
        let memory = store.memory();
        assert!(memory.used < 8 * MIB, "{memory:?} in an empty store");
        self.check(&store);
        store.validate();
        drop(store);
        let left = self.now();
        assert!(left <= 4 * PROCESS, "{left} bytes are left after the store");
    }
}

#[test]
fn a_full_persistent_store_keeps_to_its_budget() {
    let mut growth = Growth::start();
    let store = quiet_store(128 * MIB);
    let pool = pool_of(&store, "full", PoolOptions::persistent());
    let mut rejected = 0;
    for nth in 0.. {
        match pool.put(nth % 3, nth * GRANULE, &page(Kind::Mixed, nth)) {
            Outcome::Rejected(Rejection::Budget) => rejected += 1,
            outcome => assert_eq!(outcome, Outcome::Stored),
        }
        if nth % 2000 == 0 {
            growth.check(&store);
        }
        if rejected == 500 {
            break;
        }
    }
    growth.check(&store);
    let memory = store.memory();
    assert!(memory.charged >= memory.budget / 100 * 85, "what is full is full of data: {memory:?}");
    for object in 0..3 {
        assert!(matches!(pool.flush_object(object), Outcome::Flushed { .. }));
    }
    growth.check_end(store);
}

#[test]
fn an_ephemeral_flood_keeps_to_its_budget() {
    let mut growth = Growth::start();
    let store = quiet_store(96 * MIB);
    let pool = pool_of(&store, "flood", PoolOptions::ephemeral());
    let mut random = Random::new(1);
    for nth in 0..150_000 {
        let kind = if random.one_in(3) { Kind::Noise } else { Kind::Mixed };
        assert_eq!(pool.put(nth % 50, nth * GRANULE, &page(kind, nth)), Outcome::Stored);
        if nth % 3000 == 0 {
            growth.check(&store);
        }
    }
    growth.check(&store);
    let half = store.shrink(48 * MIB);
    assert!(half <= 48 * MIB, "{half} bytes used after shrinking to 48 MiB");
    growth.check(&store);
    assert!(store.count_granules() > 5000, "shrinking drops no more than it must: {:?}", store.memory());
    pool.destroy().unwrap();
    growth.check_end(store);
}

#[test]
fn many_small_objects_keep_to_the_budget() {
    let mut growth = Growth::start();
    let store = quiet_store(128 * MIB);
    let pool = pool_of(&store, "small", PoolOptions::persistent());
    let bytes = page(Kind::Noise, 1);
    for object in 0..100_000 {
        assert_eq!(pool.put(object, 0, &bytes[..100]), Outcome::Stored);
        if object % 5000 == 0 {
            growth.check(&store);
        }
    }
    growth.check(&store);
    let memory = store.memory();
    let each = (memory.tables + memory.index) / 100_000;
    assert!(each < 400, "{each} bytes of tables for an object of one granule: {memory:?}");
    for object in 0..100_000 {
        assert_eq!(pool.flush_object(object), Outcome::Flushed { granules: 1 });
    }
    growth.check_end(store);
}

#[test]
fn a_sparse_terabyte_keeps_to_the_budget_and_pays_for_no_holes() {
    let mut growth = Growth::start();
    let store = quiet_store(128 * MIB);
    let pool = pool_of(&store, "sparse", PoolOptions::persistent());
    let empty = store.memory().tables;
    for place in [0, 1 << 40, 1 << 63, u64::MAX - 4095] {
        assert_eq!(pool.put(1, place, &[1; 4096]), Outcome::Stored);
    }
    let tables = store.memory().tables - empty;
    assert!(tables < 64 << 10, "{tables} bytes of tables for four granules far apart");
    assert_eq!(pool.flush_object(1), Outcome::Flushed { granules: 4 });
    for nth in 0..65_536_u64 {
        assert_eq!(pool.put(2, nth << 24, &page(Kind::Filled32, nth)), Outcome::Stored);
        if nth % 4000 == 0 {
            growth.check(&store);
        }
    }
    growth.check(&store);
    let each = (store.memory().tables - empty) / 65_536;
    assert!(each < 700, "{each} bytes of tables for a granule on its own");
    assert_eq!(pool.flush(2, 0, u64::MAX), Outcome::Flushed { granules: 65_536 });
    growth.check_end(store);
}

#[test]
fn a_dense_object_costs_nine_bytes_a_granule() {
    let mut growth = Growth::start();
    let store = quiet_store(128 * MIB);
    let pool = pool_of(&store, "dense", PoolOptions::persistent());
    let empty = store.memory().tables;
    // Sixteen slab chunks of 7710 leaves of 32 granules, nearly.
    let granules = 16 * 7700 * 32;
    let filled = vec![0x55; 64 * 4096];
    for nth in 0..granules / 64 {
        assert_eq!(pool.put(1, nth * 64 * GRANULE, &filled), Outcome::Stored);
    }
    growth.check(&store);
    let each = (store.memory().tables - empty) as f64 / granules as f64;
    assert!((8.0..8.9).contains(&each), "{each} bytes of tables for each granule");
    assert_eq!(pool.flush_object(1), Outcome::Flushed { granules });
    growth.check_end(store);
}

/// Bytes that the kernel has taken for the store's first gigabyte of segments.
fn taken_for_segments(store: &Store) -> usize {
    let region = File::from(store.region(0).unwrap().try_clone_to_owned().unwrap());
    usize::try_from(region.metadata().unwrap().blocks() * 512).unwrap()
}

#[test]
fn what_shrinking_seals_keeps_no_memory_that_it_does_not_fill_and_is_filled_on() {
    let _growth = Growth::start();
    let store = quiet_store(64 * MIB);
    let pool = pool_of(&store, "short", PoolOptions::persistent());
    let put = |nth: u64| assert_eq!(pool.put(1, nth * GRANULE, &page(Kind::Noise, nth)), Outcome::Stored);
    let count = |segments: usize| segments.div_ceil(SEGMENT_BYTES);
    let mut rounds = 0;
    for nth in 0..2000 {
        put(nth);
        if nth % 97 == 0 {
            let whole = store.memory().segments;
            assert_eq!(whole, taken_for_segments(&store), "as the kernel counts");
            store.shrink(usize::MAX);
            let memory = store.memory();
            assert_eq!(memory.segments, taken_for_segments(&store), "as the kernel counts");
            let most = memory.charged + count(whole) * SEGMENT_BYTES / 16;
            assert!(memory.segments <= most, "{memory:?} after shrinking");
            rounds += usize::from(memory.segments < whole);
        }
    }
    assert!(rounds > 10, "{rounds} times there was something to give back");
    assert!(count(store.memory().segments) <= 5, "each goes on where the last one ended: {:?}", store.memory());
    for nth in 0..2000 {
        let mut back = [0; 4096];
        assert_eq!(pool.get(1, nth * GRANULE, &mut back), Outcome::Filled);
        assert!(back == page(Kind::Noise, nth));
    }
    store.validate();
    // Little is left in a short segment, then nothing.
    store.shrink(usize::MAX);
    assert_eq!(pool.flush(1, 0, 1999 * GRANULE), Outcome::Flushed { granules: 1999 });
    store.shrink(0);
    assert_eq!(pool.get(1, 1999 * GRANULE, &mut [0; 4096]), Outcome::Filled);
    store.validate();
    assert_eq!(pool.flush_object(1), Outcome::Flushed { granules: 1 });
    store.shrink(0);
    store.validate();
    assert_eq!((store.memory().segments, taken_for_segments(&store)), (0, 0));
}

#[test]
fn stores_that_come_and_go_leave_nothing_behind() {
    let mut growth = Growth::start();
    for _ in 0..12 {
        let store = Store::new(StoreOptions::with_budget(32 * MIB)).unwrap();
        let pools =
            [PoolOptions::persistent(), PoolOptions::ephemeral()].map(|options| pool_of(&store, "short", options));
        for nth in 0..8000 {
            assert_eq!(pools[1].put(nth, 0, &page(Kind::Mixed, nth)), Outcome::Stored);
            drop(pools[0].put(nth, nth << 20, &page(Kind::Filled32, nth)));
        }
        drop((store, pools));
        let left = growth.now();
        assert!(left <= 2 * PROCESS, "{left} bytes are left after a store");
    }
}

/// How many of the first `hot` granules of object 1 are there.
fn survivors(pool: &Pool, hot: u64) -> u64 {
    (0..hot).filter(|nth| pool.get(1, nth * GRANULE, &mut [0; 4096]) == Outcome::Filled).count() as u64
}

#[test]
fn what_is_got_again_and_again_survives_a_scan() {
    let _growth = Growth::start();
    let store = quiet_store(32 * MIB);
    let pool = pool_of(&store, "cache", PoolOptions::ephemeral());
    let hot = 1500;
    for nth in 0..hot {
        assert_eq!(pool.put(1, nth * GRANULE, &page(Kind::Mixed, nth)), Outcome::Stored);
    }
    // Ten times what fits, each page once. By the time that the cache has turned over once, every hot page has been got
    // a few times: a queue (FIFO) would keep none of them.
    for nth in 0..200_000 {
        assert_eq!(pool.put(2, nth * GRANULE, &page(Kind::Mixed, nth)), Outcome::Stored);
        if nth % 2 == 0 {
            drop(pool.get(1, nth / 2 % hot * GRANULE, &mut [0; 4096]));
        }
    }
    let left = survivors(&pool, hot);
    assert!(left >= hot * 9 / 10, "{left} of {hot} hot pages survived");
    store.validate();
}

#[test]
fn what_was_got_before_a_scan_survives_what_would_turn_over_a_list_of_recent_use() {
    let _growth = Growth::start();
    let store = quiet_store(32 * MIB);
    let pool = pool_of(&store, "cache", PoolOptions::ephemeral());
    let hot = 1500;
    for nth in 0..hot {
        assert_eq!(pool.put(1, nth * GRANULE, &page(Kind::Mixed, nth)), Outcome::Stored);
    }
    for _ in 0..3 {
        assert_eq!(survivors(&pool, hot), hot);
    }
    // Half as much again as the cache holds, and no get of a hot page meanwhile: least recently used would drop them all.
    let fits = 28 * MIB / 2100;
    for nth in 0..fits as u64 * 3 / 2 {
        assert_eq!(pool.put(2, nth * GRANULE, &page(Kind::Mixed, nth)), Outcome::Stored);
    }
    let left = survivors(&pool, hot);
    assert!(left >= hot * 9 / 10, "{left} of {hot} hot pages survived");
}

#[test]
fn ephemeral_memory_is_shared_by_weight() {
    let _growth = Growth::start();
    let store = quiet_store(64 * MIB);
    let client = |weight| store.client(ClientOptions { weight, ..ClientOptions::named("flood") });
    let clients = [client(1), client(3)];
    let pools = clients.each_ref().map(|client| client.create_pool(PoolOptions::ephemeral()).unwrap());
    for nth in 0..60_000 {
        for pool in &pools {
            assert_eq!(pool.put(nth % 7, nth * GRANULE, &page(Kind::Mixed, nth)), Outcome::Stored);
        }
    }
    let [light, heavy] = clients.each_ref().map(|client| client.charged_bytes() as f64);
    let ratio = heavy / light;
    assert!((2.5..3.5).contains(&ratio), "weights of 1 and 3 hold 1 to {ratio:.2}: {light} and {heavy}");
    store.validate();
}

#[test]
fn a_client_over_its_cap_loses_its_own_data_only() {
    let _growth = Growth::start();
    let store = quiet_store(64 * MIB);
    let modest = pool_of(&store, "modest", PoolOptions::ephemeral());
    let capped = store.client(ClientOptions { cap_bytes: 8 * MIB, ..ClientOptions::named("capped") });
    let greedy = capped.create_pool(PoolOptions::ephemeral()).unwrap();
    for nth in 0..5000 {
        assert_eq!(modest.put(1, nth * GRANULE, &page(Kind::Mixed, nth)), Outcome::Stored);
    }
    for nth in 0..30_000 {
        assert_eq!(greedy.put(1, nth * GRANULE, &page(Kind::Mixed, nth)), Outcome::Stored);
        assert!(capped.charged_bytes() <= 8 * MIB);
    }
    assert_eq!(survivors(&modest, 5000), 5000);
    let kept = survivors(&greedy, 30_000);
    assert!(kept > 2000, "{kept} granules within a cap of 8 MiB: {} bytes", capped.charged_bytes());
    store.validate();
}

#[test]
fn persistent_data_outlives_every_flood_and_every_shrinking() {
    let _growth = Growth::start();
    let store = quiet_store(48 * MIB);
    let client = store.client(ClientOptions::named("both"));
    let keep = client.create_pool(PoolOptions::persistent()).unwrap();
    let cache = client.create_pool(PoolOptions::ephemeral()).unwrap();
    for nth in 0..5000 {
        assert_eq!(keep.put(1, nth * GRANULE, &page(Kind::Mixed, nth)), Outcome::Stored);
    }
    for nth in 0..60_000 {
        assert_eq!(cache.put(1, nth * GRANULE, &page(Kind::Mixed, nth)), Outcome::Stored);
    }
    store.set_budget(20 * MIB).unwrap();
    store.shrink(0);
    for nth in 0..5000 {
        let mut back = [0; 4096];
        assert_eq!(keep.get(1, nth * GRANULE, &mut back), Outcome::Filled);
        assert!(back == page(Kind::Mixed, nth));
    }
    assert_eq!(keep.stats().granules_evicted, 0);
    store.validate();
}
