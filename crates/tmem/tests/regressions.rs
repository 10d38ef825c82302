//! What went wrong once. Each test is named after the behaviour that was missing.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::time::Duration;
use support::pages::{Kind, page};
use support::random::Random;
use support::{GRANULE, MIB, pool_of, quiet_store, within};
use tmem::{ClientOptions, Outcome, Policy, PoolOptions, Store, StoreOptions};

const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_client_at_its_cap_gives_up_its_own_oldest_blocks_and_nobody_waits() {
    within(LONG, || {
        let store = quiet_store(64 * MIB);
        let other = pool_of(&store, "other", PoolOptions::ephemeral());
        for nth in 0..2000 {
            assert_eq!(other.put(1, nth * GRANULE, &page(Kind::Noise, nth)), Outcome::Stored);
        }
        let capped = store.client(ClientOptions { cap_bytes: MIB / 4, ..ClientOptions::named("capped") });
        let pool = capped.create_pool(PoolOptions::ephemeral()).unwrap();
        for nth in 0..500 {
            assert_eq!(pool.put(1, nth * GRANULE, &page(Kind::Noise, nth)), Outcome::Stored, "put {nth}");
            assert!(capped.charged_bytes() <= MIB / 4);
        }
        assert_eq!(pool.get(1, 499 * GRANULE, &mut [0; 4096]), Outcome::Filled, "the newest stays");
        for nth in 0..2000 {
            assert_eq!(other.get(1, nth * GRANULE, &mut [0; 4096]), Outcome::Filled, "another client's stays");
        }
        store.validate();
    });
}

#[test]
fn an_ephemeral_client_at_its_cap_keeps_storing() {
    within(LONG, || {
        let store = quiet_store(64 * MIB);
        let client = store.client(ClientOptions { cap_bytes: MIB / 4, ..ClientOptions::named("alone") });
        let pool = client.create_pool(PoolOptions::ephemeral()).unwrap();
        for nth in 0..500 {
            assert_eq!(pool.put(1, nth * GRANULE, &page(Kind::Noise, nth)), Outcome::Stored, "put {nth}");
        }
        store.validate();
    });
}

#[test]
fn cleaning_never_makes_a_client_hold_more() {
    within(LONG, || {
        let store = quiet_store(128 * MIB);
        let client = store.client(ClientOptions { cap_bytes: 12 * MIB, ..ClientOptions::named("dense") });
        let pool = client.create_pool(PoolOptions::persistent().policy(Policy::Dense)).unwrap();
        // Sixteen times the same noise: each block is worth one granule, and so is what is left of it.
        for block in 0..2000 {
            let same = page(Kind::Noise, block).repeat(16);
            assert_eq!(pool.put(1, block * 16 * GRANULE, &same), Outcome::Stored);
        }
        for granule in (0..2000 * 16).step_by(2) {
            assert_eq!(pool.flush(1, granule * GRANULE, GRANULE), Outcome::Flushed { granules: 1 });
        }
        let before = client.charged_bytes();
        // Scratch apart: the cleaner's codecs make their contexts when they are first needed.
        let used = store.memory().segments;
        store.shrink(0);
        store.settle_all();
        assert!(client.charged_bytes() <= 12 * MIB, "{before} bytes became {}", client.charged_bytes());
        assert!(store.memory().segments <= used + 2 * MIB, "{used} bytes became {}", store.memory().segments);
        for granule in (1..2000 * 16).step_by(2) {
            let mut back = [0; 4096];
            assert_eq!(pool.get(1, granule * GRANULE, &mut back), Outcome::Filled);
            assert!(back == page(Kind::Noise, granule / 16));
        }
        store.validate();
    });
}

#[test]
fn an_ephemeral_pool_of_small_objects_never_rejects() {
    within(LONG, || {
        for budget in [16, 64] {
            let store = quiet_store(budget * MIB);
            let pool = pool_of(&store, "small", PoolOptions::ephemeral());
            for object in 0..200_000 {
                let small = page(Kind::Noise, object);
                assert_eq!(pool.put(object, 0, &small[..256]), Outcome::Stored, "{object}: {:?}", store.memory());
            }
            store.validate();
        }
    });
}

#[test]
fn an_ephemeral_pool_of_zero_pages_never_rejects() {
    within(LONG, || {
        let store = quiet_store(16 * MIB);
        let pool = pool_of(&store, "zeros", PoolOptions::ephemeral());
        for object in 0..60_000 {
            assert_eq!(pool.put(object, 0, &[0; 4096]), Outcome::Stored, "{object}: {:?}", store.memory());
        }
        store.validate();
    });
}

#[test]
fn a_cap_holds_for_pages_that_live_in_tables_alone() {
    within(LONG, || {
        let store = quiet_store(32 * MIB);
        let greedy = store.client(ClientOptions { cap_bytes: MIB, ..ClientOptions::named("greedy") });
        let zeros = greedy.create_pool(PoolOptions::persistent()).unwrap();
        let stored = (0..60_000).filter(|object| zeros.put(*object, 0, &[0; 4096]) == Outcome::Stored).count();
        assert!(stored > 0 && store.memory().used < 8 * MIB, "{stored} stored: {:?}", store.memory());
        let pool = pool_of(&store, "modest", PoolOptions::persistent());
        assert_eq!(pool.put(1, 0, &page(Kind::Noise, 1)), Outcome::Stored);
        store.validate();
    });
}

#[test]
fn a_small_store_is_not_filled_by_open_heads() {
    within(LONG, || {
        let store = quiet_store(16 * MIB);
        let keep = pool_of(&store, "keep", PoolOptions::persistent().policy(Policy::Dense));
        let cache = pool_of(&store, "cache", PoolOptions::ephemeral().policy(Policy::Dense));
        // Every head that there is comes into use: blocks that are copied, settled and got again, of every class.
        for round in 0..4 {
            for nth in 0..12_000 {
                let at = nth * GRANULE;
                assert_eq!(cache.put(1, at, &page(Kind::Mixed, nth)), Outcome::Stored);
                let _ = cache.get(1, at / 2, &mut [0; 4096]);
                if nth < 200 {
                    assert_eq!(keep.put(1, at, &page(Kind::Text, nth + round)), Outcome::Stored);
                }
            }
            store.settle_cold();
            assert_eq!(keep.flush(1, 0, 100 * GRANULE), Outcome::Flushed { granules: 100 });
        }
        let _ = cache.flush_object(1);
        for nth in 0..1500 {
            let outcome = keep.put(2, nth * GRANULE, &page(Kind::Noise, nth));
            assert_eq!(outcome, Outcome::Stored, "put {nth}: {:?}", store.memory());
        }
        store.validate();
    });
}

#[test]
fn a_lowered_budget_leaves_room_to_clean() {
    within(LONG, || {
        let store = quiet_store(64 * MIB);
        let keep = pool_of(&store, "keep", PoolOptions::persistent());
        let cache = pool_of(&store, "cache", PoolOptions::ephemeral());
        for nth in 0..12_000 {
            assert_eq!(cache.put(1, nth * GRANULE, &page(Kind::Noise, nth)), Outcome::Stored);
            if nth < 5000 && nth % 2 == 0 {
                assert_eq!(keep.put(1, nth * GRANULE, &page(Kind::Noise, nth)), Outcome::Stored);
            }
        }
        for budget in [40, 24, 16] {
            store.set_budget(budget * MIB).unwrap();
        }
        for nth in (0..5000).step_by(4) {
            assert_eq!(keep.flush(1, nth * GRANULE, GRANULE), Outcome::Flushed { granules: 1 });
        }
        // 1250 granules of noise are kept: 5 MB of 16.
        for nth in 0..500 {
            let outcome = keep.put(2, nth * GRANULE, &page(Kind::Noise, nth));
            assert_eq!(outcome, Outcome::Stored, "put {nth}: {:?}", store.memory());
        }
        assert!(store.memory().used <= 16 * MIB, "{:?}", store.memory());
        for nth in (2..5000).step_by(4) {
            assert_eq!(keep.get(1, nth * GRANULE, &mut [0; 4096]), Outcome::Filled);
        }
        store.validate();
    });
}

/// Fills a store of 24 MiB with text until a put is rejected, then overwrites granules at random, as many as it held.
/// Returns how many those were and how many are left: a rejected put leaves its granule missing.
fn overwrite_full(policy: Policy) -> (u64, u64) {
    let store = quiet_store(24 * MIB);
    let pool = pool_of(&store, "keep", PoolOptions::persistent().policy(policy));
    let pages: Vec<_> = (0..1024).map(|seed| page(Kind::Text, seed)).collect();
    let mut random = Random::new(1);
    let full = (0..).find(|nth| pool.put(1, nth * GRANULE, &pages[random.index(1024)]) != Outcome::Stored).unwrap();
    let mut held: Vec<_> = (0..full).collect();
    for _ in 0..full {
        let at = random.index(held.len());
        if pool.put(1, held[at] * GRANULE, &pages[random.index(1024)]) != Outcome::Stored {
            held.swap_remove(at);
        }
    }
    store.validate();
    assert_eq!(store.count_granules(), held.len() as u64);
    (full, store.count_granules())
}

#[test]
fn a_full_dense_store_does_not_run_out_of_what_the_cleaner_copies_to() {
    within(LONG, || {
        // It was left with a tenth, and hardly anything but dead blocks.
        let (full, left) = overwrite_full(Policy::Dense);
        assert!(left * 4 >= full * 3, "{left} of {full}");
    });
}

#[test]
fn what_is_left_of_settled_blocks_takes_no_more_than_its_room() {
    within(LONG, || {
        // Three quarters were left.
        let (full, left) = overwrite_full(Policy::Balanced);
        assert!(left * 100 >= full * 82, "{left} of {full}");
    });
}

#[test]
fn what_was_flushed_is_given_back_although_nothing_more_is_put() {
    within(LONG, || {
        let store = Store::new(StoreOptions::with_budget(256 * MIB)).unwrap();
        let pool = pool_of(&store, "flushed", PoolOptions::persistent());
        let pages = 64 * MIB as u64 / GRANULE;
        for nth in 0..pages {
            assert_eq!(pool.put(1, nth * GRANULE, &page(Kind::Noise, nth)), Outcome::Stored);
        }
        // One page of eight stays, in every segment.
        for nth in (0..pages).filter(|nth| nth % 8 != 0) {
            assert_eq!(pool.flush(1, nth * GRANULE, GRANULE), Outcome::Flushed { granules: 1 });
        }
        // 8 MiB are alive; an eighth more may be dead, and a few segments are open or warm.
        while store.used_bytes() > 24 * MIB {
            std::thread::yield_now();
        }
        for nth in (0..pages).step_by(8) {
            let mut back = [0; 4096];
            assert_eq!((pool.get(1, nth * GRANULE, &mut back), back), (Outcome::Filled, page(Kind::Noise, nth)));
        }
        store.validate();
    });
}
