//! Input that makes no sense, or that is not the caller's right: each is refused by name, with its numbers, and harms
//! nobody.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::time::{Duration, Instant};
use support::pages::{Kind, page};
use support::{GRANULE, MIB, pool_of, quiet_store};
use tmem::{
    Action, Client, ClientOptions, ClientState, Operation, Outcome, Pool, PoolId, PoolOptions, Refusal, Rejection,
    Store, StoreError, StoreOptions,
};

/// A store in which something is kept, that whatever happens must not touch.
struct Kept {
    store: Store,
    client: Client,
    pool: Pool,
}

const KEPT: u64 = 20;

impl Kept {
    fn new() -> Self {
        let store = quiet_store(32 * MIB);
        let client = store.client(ClientOptions::named("kept"));
        let pool = client.create_pool(PoolOptions::persistent().shared()).unwrap();
        for nth in 0..KEPT {
            assert_eq!(pool.put(1, nth * GRANULE, &page(Kind::Mixed, nth)), Outcome::Stored);
        }
        Self { store, client, pool }
    }

    fn check(&self) {
        for nth in 0..KEPT {
            let mut back = [0; 4096];
            assert_eq!(self.pool.get(1, nth * GRANULE, &mut back), Outcome::Filled);
            assert!(back == page(Kind::Mixed, nth));
        }
        self.store.validate();
    }
}

/// The text of a refusal, which names all of `numbers`.
fn refused(outcome: &Outcome, numbers: &[&str]) -> Refusal {
    let Outcome::Refused(refusal) = outcome else { panic!("{outcome:?} instead of a refusal") };
    let text = refusal.to_string();
    assert!(numbers.iter().all(|number| text.contains(number)), "{text:?} should name {numbers:?}");
    *refusal
}

fn execute(client: &Client, pool: PoolId, action: Action<'_>) -> Outcome {
    let mut completions = Vec::new();
    client.execute(&mut [Operation { tag: 77, pool, object: 1.into(), action }], &mut completions);
    assert_eq!((completions.len(), completions[0].tag), (1, 77));
    completions.remove(0).outcome
}

#[test]
fn empty_ranges_are_refused() {
    let kept = Kept::new();
    let pool = &kept.pool;
    let mut empty: [&mut [u8]; 2] = [&mut [], &mut []];
    for outcome in [
        pool.put(1, 0, &[]),
        pool.get(1, 5, &mut []),
        pool.take(1, 0, &mut []),
        pool.flush(1, 0, 0),
        execute(&kept.client, pool.id(), Action::Put { offset: 0, from: &[&[], &[]] }),
        execute(&kept.client, pool.id(), Action::Get { offset: 0, into: &mut empty }),
        execute(&kept.client, pool.id(), Action::Put { offset: 0, from: &[] }),
    ] {
        assert_eq!(refused(&outcome, &["empty"]), Refusal::EmptyRange);
    }
    kept.check();
}

#[test]
fn misaligned_ranges_are_refused_with_their_offset() {
    let kept = Kept::new();
    let pool = &kept.pool;
    for offset in [1, 8, 4095, 4097, u64::MAX] {
        let number = offset.to_string();
        for outcome in [pool.put(1, offset, &[1; 10]), pool.take(1, offset, &mut [1; 10]), pool.flush(1, offset, 10)] {
            assert_eq!(refused(&outcome, &[&number]), Refusal::Misaligned { offset });
        }
    }
    kept.check();
}

#[test]
fn ranges_beyond_the_end_are_refused_with_their_numbers() {
    let kept = Kept::new();
    let pool = &kept.pool;
    let last = u64::MAX - 4095;
    let (offset, len) = (last.to_string(), "4097");
    let mut memory = [9; 4097];
    for outcome in [
        pool.put(1, last, &memory.clone()),
        pool.get(1, last, &mut memory),
        pool.take(1, last, &mut memory),
        pool.flush(1, last, 4097),
    ] {
        assert_eq!(refused(&outcome, &[&offset, len]), Refusal::BeyondEnd { offset: last, len: 4097 });
    }
    let outcome = pool.get(1, u64::MAX, &mut [0; 2]);
    assert_eq!(
        refused(&outcome, &["18446744073709551615", "2 bytes"]),
        Refusal::BeyondEnd { offset: u64::MAX, len: 2 }
    );
    assert!(memory == [9; 4097], "memory of a refused get is not touched");
    assert!(matches!(pool.flush(1, 4096, u64::MAX), Outcome::Refused(Refusal::BeyondEnd { .. })));
    kept.check();
}

#[test]
fn the_far_end_of_an_object_is_as_good_as_any_place() {
    let kept = Kept::new();
    let (last, bytes) = (u64::MAX - 4095, page(Kind::Text, 1));
    for pool in [&kept.pool, &pool_of(&kept.store, "cache", PoolOptions::ephemeral())] {
        assert_eq!(pool.put(9, last, &bytes), Outcome::Stored);
        assert_eq!(pool.put(9, last - GRANULE, &bytes[..100]), Outcome::Stored);
        let mut byte = [0];
        assert_eq!(pool.get(9, u64::MAX, &mut byte), Outcome::Filled);
        assert_eq!(byte[0], bytes[4095]);
        kept.store.settle_all();
        let mut both = [1; 8192];
        assert_eq!(pool.get(9, last - GRANULE, &mut both), Outcome::Filled);
        assert!(both[..100] == bytes[..100] && both[100..4096] == [0; 3996] && both[4096..] == bytes);
        assert_eq!(pool.take(9, last, &mut both[..10]), Outcome::Filled);
        assert_eq!(pool.get(9, last, &mut byte), Outcome::Missing, "a ragged take takes the whole granule");
        assert_eq!(pool.flush(9, last - GRANULE, 2 * GRANULE), Outcome::Flushed { granules: 1 });
    }
    kept.check();
}

#[test]
fn a_flush_of_everything_takes_no_longer_than_what_is_there() {
    let kept = Kept::new();
    let places: Vec<u64> = (12..64).flat_map(|bit| [1_u64 << bit, (1 << bit) - GRANULE]).collect();
    for place in &places {
        assert_eq!(kept.pool.put(5, *place, &page(Kind::Mixed, *place)), Outcome::Stored);
    }
    let there = kept.store.count_granules() - KEPT;
    let start = Instant::now();
    for object in 100..200 {
        assert_eq!(kept.pool.flush(object, 0, u64::MAX), Outcome::Flushed { granules: 0 });
    }
    assert_eq!(kept.pool.flush(5, 0, u64::MAX), Outcome::Flushed { granules: there });
    assert_eq!(kept.pool.flush(5, 0, u64::MAX), Outcome::Flushed { granules: 0 });
    assert!(start.elapsed() < Duration::from_secs(1), "took {:?}", start.elapsed());
    kept.check();
}

#[test]
fn pools_that_are_not_the_callers_are_refused_by_number() {
    let kept = Kept::new();
    let stranger = kept.store.client(ClientOptions::named("stranger"));
    let secret = kept.client.create_pool(PoolOptions::persistent()).unwrap();
    for id in [kept.pool.id(), secret.id(), PoolId(987_654)] {
        let number = id.0.to_string();
        let mut memory = [3; 4096];
        for outcome in [
            execute(&stranger, id, Action::Put { offset: 0, from: &[&[1; 4096]] }),
            execute(&stranger, id, Action::Get { offset: 0, into: &mut [&mut memory] }),
            execute(&stranger, id, Action::Flush { offset: 0, len: u64::MAX }),
            execute(&stranger, id, Action::FlushObject),
        ] {
            assert_eq!(refused(&outcome, &[&number]), Refusal::UnknownPool(id));
        }
        assert!(memory == [3; 4096]);
    }
    kept.check();
}

#[test]
fn nobody_joins_without_an_invitation() {
    let kept = Kept::new();
    let stranger = kept.store.client(ClientOptions::named("stranger"));
    let friend = kept.store.client(ClientOptions::named("friend"));
    let secret = kept.client.create_pool(PoolOptions::persistent()).unwrap();
    kept.pool.authorise(friend.id()).unwrap();
    for id in [kept.pool.id(), secret.id()] {
        let error = stranger.join_pool(id).unwrap_err();
        assert!(matches!(error, StoreError::NotAuthorised { pool, client } if pool == id && client == stranger.id()));
        let text = error.to_string();
        assert!(text.contains(&id.0.to_string()) && text.contains(&stranger.id().0.to_string()), "{text}");
    }
    let error = stranger.join_pool(PoolId(424_242)).unwrap_err();
    assert!(matches!(error, StoreError::NoSuchPool(_)) && error.to_string().contains("424242"), "{error}");
    let joined = friend.join_pool(kept.pool.id()).unwrap();
    assert_eq!(joined.get(1, 0, &mut [0; 4096]), Outcome::Filled);
    for error in [joined.authorise(stranger.id()).unwrap_err(), joined.destroy().unwrap_err()] {
        assert!(matches!(error, StoreError::NotOwner(id) if id == kept.pool.id()), "{error}");
        assert!(error.to_string().contains(&kept.pool.id().0.to_string()));
    }
    assert!(stranger.join_pool(kept.pool.id()).is_err(), "a guest invites nobody");
    kept.check();
}

#[test]
fn what_was_destroyed_is_gone_for_everybody() {
    let kept = Kept::new();
    let doomed = kept.store.client(ClientOptions::named("doomed"));
    let (pool, other) = (
        doomed.create_pool(PoolOptions::persistent().shared()).unwrap(),
        doomed.create_pool(PoolOptions::ephemeral()).unwrap(),
    );
    pool.authorise(kept.client.id()).unwrap();
    let guest = kept.client.join_pool(pool.id()).unwrap();
    for pool in [&pool, &other] {
        assert_eq!(pool.put(1, 0, &page(Kind::Noise, 1)), Outcome::Stored);
    }
    other.destroy().unwrap();
    other.destroy().unwrap();
    let number = other.id().0.to_string();
    assert_eq!(refused(&other.get(1, 0, &mut [0; 9]), &[&number]), Refusal::UnknownPool(other.id()));
    assert_eq!(refused(&other.put(1, 0, &[0; 9]), &[&number]), Refusal::UnknownPool(other.id()));
    doomed.destroy();
    doomed.destroy();
    assert_eq!(doomed.state(), ClientState::Destroyed);
    assert_eq!(pool.put(1, 0, &[1]), Outcome::Refused(Refusal::ClientDestroyed));
    assert!(matches!(guest.get(1, 0, &mut [0; 9]), Outcome::Refused(Refusal::UnknownPool(id)) if id == pool.id()));
    let id = doomed.id();
    let errors = [
        doomed.freeze().unwrap_err(),
        doomed.thaw().unwrap_err(),
        doomed.create_pool(PoolOptions::persistent()).unwrap_err(),
        doomed.join_pool(kept.pool.id()).unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, StoreError::ClientDestroyed(dead) if dead == id), "{error}");
        assert!(error.to_string().contains(&id.0.to_string()), "{error}");
    }
    assert_eq!((doomed.charged_bytes(), kept.store.clients().len()), (0, 1));
    kept.check();
}

#[test]
fn budgets_without_room_to_work_are_refused_with_the_least_that_works() {
    let kept = Kept::new();
    for budget_bytes in [0, 1, MIB, 4 * MIB] {
        let options = StoreOptions::with_budget(budget_bytes);
        for error in [Store::new(options).unwrap_err(), kept.store.set_budget(budget_bytes).unwrap_err()] {
            let StoreError::BudgetTooSmall { bytes, least } = error else { panic!("{error}") };
            assert_eq!(bytes, budget_bytes);
            let text = error.to_string();
            assert!(text.contains(&bytes.to_string()) && text.contains(&least.to_string()), "{text}");
            let smallest = quiet_store(least);
            let pool = pool_of(&smallest, "smallest", PoolOptions::persistent());
            for nth in 0..300 {
                assert_eq!(pool.put(nth, 0, &page(Kind::Noise, nth)), Outcome::Stored, "{:?}", smallest.memory());
            }
            smallest.validate();
        }
    }
    assert_eq!(kept.store.memory().budget, 32 * MIB);
    kept.check();
}

#[test]
fn a_client_with_no_room_at_all_is_told_so() {
    let kept = Kept::new();
    let poor = kept.store.client(ClientOptions { cap_bytes: 0, ..ClientOptions::named("poor") });
    for options in [PoolOptions::persistent(), PoolOptions::ephemeral()] {
        let pool = poor.create_pool(options).unwrap();
        assert_eq!(pool.put(1, 0, &page(Kind::Noise, 1)), Outcome::Rejected(Rejection::Cap));
        assert_eq!(pool.put(1, 0, &page(Kind::Noise, 1).repeat(600)), Outcome::Rejected(Rejection::Cap));
        assert_eq!(pool.get(1, 0, &mut [0; 9]), Outcome::Missing);
        assert_eq!(pool.flush(1, 0, u64::MAX), Outcome::Flushed { granules: 0 });
    }
    poor.set_cap(MIB);
    let pool = poor.create_pool(PoolOptions::persistent()).unwrap();
    assert_eq!(pool.put(1, 0, &page(Kind::Noise, 1)), Outcome::Stored);
    poor.set_cap(0);
    assert_eq!(pool.get(1, 0, &mut [0; 9]), Outcome::Filled, "a lower cap takes nothing away");
    kept.check();
}

#[test]
fn a_batch_of_nothing_completes_nothing() {
    let kept = Kept::new();
    let mut completions = Vec::new();
    kept.client.execute(&mut [], &mut completions);
    assert!(completions.is_empty());
    kept.check();
}
