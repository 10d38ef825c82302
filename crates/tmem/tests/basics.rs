//! The plain life of data in a store.

#![allow(clippy::unwrap_used, reason = "tests")]

use tmem::{
    Action, Cleaning, ClientOptions, Completion, Operation, Outcome, Policy, Pool, PoolOptions, Settling, Store,
    StoreOptions,
};

fn store(budget: usize) -> Store {
    Store::new(StoreOptions { cleaning: Cleaning::OnDemand, ..StoreOptions::with_budget(budget) }).unwrap()
}

fn pool(store: &Store, options: PoolOptions) -> Pool {
    store.client(ClientOptions::named("test")).create_pool(options).unwrap()
}

/// A page that compresses to about a quarter and is like no other.
fn page(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..4096u64)
        .map(|at| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            if at % 4 == 0 { u8::try_from(state & 255).unwrap() } else { u8::try_from(at / 4 % 7).unwrap() }
        })
        .collect()
}

#[test]
fn what_was_put_is_got_in_every_policy_and_size() {
    for policy in [Policy::Fast, Policy::Balanced, Policy::Dense] {
        let store = store(64 << 20);
        let pool = pool(&store, PoolOptions::persistent().policy(policy));
        for granules in [1, 2, 3, 16, 33, 512] {
            let data: Vec<u8> = (0..granules).flat_map(page).collect();
            for ragged in [0, 1, 7, 4095] {
                let data = &data[..data.len() - ragged];
                assert_eq!(pool.put(granules, 40960, data), Outcome::Stored);
                let mut back = vec![1; data.len()];
                assert_eq!(pool.get(granules, 40960, &mut back), Outcome::Filled);
                assert!(back == data);
                let mut tail = vec![1; data.len() + ragged - 3];
                assert_eq!(pool.get(granules, 40963, &mut tail), Outcome::Filled);
                let rest = data.get(3..).unwrap_or(&[]);
                assert!(tail[..rest.len()] == *rest && tail[rest.len()..].iter().all(|byte| *byte == 0));
            }
        }
        store.validate();
        store.settle_all();
        store.validate();
        for granules in [1, 2, 3, 16, 33, 512] {
            let data: Vec<u8> = (0..granules).flat_map(page).collect();
            let mut back = vec![1; data.len() - 4095];
            assert_eq!(pool.get(granules, 40960, &mut back), Outcome::Filled);
            assert!(back == data[..data.len() - 4095]);
        }
        assert_eq!(pool.flush_object(512), Outcome::Flushed { granules: 512 });
        assert_eq!(pool.get(512, 40960, &mut [0; 10]), Outcome::Missing);
        store.validate();
    }
}

#[test]
fn a_full_store_settles_unless_that_is_only_done_when_asked_for() {
    for (settling, settles) in [(Settling::WhenFull, true), (Settling::WhenAsked, false)] {
        let cleaning = Cleaning::OnDemand;
        let store = Store::new(StoreOptions { cleaning, settling, ..StoreOptions::with_budget(24 << 20) }).unwrap();
        let pool = pool(&store, PoolOptions::persistent());
        let mut next = 0;
        let mut fill = || {
            while pool.put(1, next * 4096, &page(next)) == Outcome::Stored {
                next += 1;
            }
        };
        fill();
        assert_eq!(store.stats().blocks_settled > 0, settles, "{settling:?}");
        store.settle_cold();
        assert!(store.stats().blocks_settled > 0, "{settling:?}");
        store.validate();
    }
}

#[test]
fn a_full_store_rejects_and_keeps_what_it_accepted() {
    let store = store(32 << 20);
    let pool = pool(&store, PoolOptions::persistent());
    let mut stored = Vec::new();
    for at in 0..40_000u64 {
        match pool.put(1, at * 4096, &page(at)) {
            Outcome::Stored => stored.push(at),
            Outcome::Rejected(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(stored.len() > 10_000 && stored.len() < 40_000, "{} stored", stored.len());
    assert!(store.memory().used <= 32 << 20);
    store.validate();
    for at in &stored {
        let mut back = [0; 4096];
        assert_eq!(pool.get(1, at * 4096, &mut back), Outcome::Filled);
        assert!(back[..] == page(*at));
    }
}

#[test]
fn an_ephemeral_pool_makes_room_for_what_is_new() {
    let store = store(32 << 20);
    let pool = pool(&store, PoolOptions::ephemeral());
    for at in 0..40_000u64 {
        assert_eq!(pool.put(1, at * 4096, &page(at)), Outcome::Stored, "put {at}");
    }
    let mut back = [0; 4096];
    assert_eq!(pool.get(1, 39_999 * 4096, &mut back), Outcome::Filled);
    assert_eq!(pool.get(1, 0, &mut back), Outcome::Missing);
    assert!(pool.stats().granules_evicted > 0);
    store.validate();
}

#[test]
fn whole_granules_are_never_copied() {
    for policy in [Policy::Fast, Policy::Balanced, Policy::Dense] {
        let store = store(64 << 20);
        let client = store.client(ClientOptions::named("test"));
        let pool = client.create_pool(PoolOptions::persistent().policy(policy)).unwrap();
        let data: Vec<u8> = (0..512).flat_map(page).collect();
        // One operation of 2 MiB from one slice, one from 512 scattered pages.
        assert_eq!(pool.put(1, 0, &data), Outcome::Stored);
        let pages: Vec<&[u8]> = data.chunks(4096).rev().collect();
        let put = Action::Put { offset: 0, from: &pages };
        let mut done = Vec::new();
        client.execute(&mut [Operation { tag: 9, pool: pool.id(), object: 2.into(), action: put }], &mut done);
        assert_eq!(done, [Completion { tag: 9, outcome: Outcome::Stored }]);
        let mut back = vec![0; data.len()];
        assert_eq!(pool.get(1, 0, &mut back), Outcome::Filled);
        assert!(back == data);
        assert_eq!(pool.get(2, 0, &mut back), Outcome::Filled);
        assert!(back.chunks(4096).eq(data.chunks(4096).rev()));
        assert_eq!(pool.stats().bytes_copied, 0, "{policy:?}");
        assert_eq!(pool.get(1, 100, &mut back[..50]), Outcome::Filled);
        assert_eq!(pool.stats().bytes_copied, 50, "a part of a granule goes through scratch, and is counted");
    }
}

#[test]
fn flushing_all_empties_the_pool_and_no_other() {
    let store = store(64 << 20);
    let client = store.client(ClientOptions::named("test"));
    let [pool, other] = [(), ()].map(|()| client.create_pool(PoolOptions::persistent()).unwrap());
    for object in 0..100 {
        for pool in [&pool, &other] {
            assert_eq!(pool.put(object, object << 20, &page(object)), Outcome::Stored);
        }
    }
    assert_eq!(pool.put(7, 0, &[7; 3 * 4096]), Outcome::Stored);
    let charged = client.charged_bytes();
    assert_eq!(pool.flush_all(), Outcome::Flushed { granules: 103 });
    assert!(client.charged_bytes() <= charged / 2);
    let mut back = vec![0; 4096];
    for object in 0..100 {
        assert_eq!(pool.get(object, object << 20, &mut back), Outcome::Missing);
        assert_eq!(other.get(object, object << 20, &mut back), Outcome::Filled);
        assert!(back == page(object));
    }
    assert_eq!(pool.flush_all(), Outcome::Flushed { granules: 0 });
    assert_eq!(pool.put(7, 0, &page(7)), Outcome::Stored);
    store.validate();
    pool.destroy().unwrap();
    assert_eq!(pool.flush_all(), Outcome::Refused(tmem::Refusal::UnknownPool(pool.id())));
    store.validate();
}
