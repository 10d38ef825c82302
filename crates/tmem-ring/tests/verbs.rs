//! What can be done to a client from outside, as its operations feel it.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use support::{PATIENCE, World, contents};
use tmem_ring::client::{Client, ClientError, control};
use tmem_ring::wire::{PoolOptions, Verb};
use tmem_ring::{Action, ClientId, Outcome, PoolId, QueueError, Rejection};

#[test]
fn a_frozen_client_replaces_and_stores_nothing_new_until_it_is_thawed() {
    let world = World::new();
    let mut worker = world.worker("frozen", 1 << 20);
    let (id, pool) = (worker.client.id(), worker.client.create_pool(PoolOptions::persistent()).unwrap());
    assert_eq!(worker.put(pool, 1, 0, &contents(1, 4096)), Outcome::Stored);
    control(&world.path, id, Verb::Freeze).unwrap();
    assert_eq!(world.stat_of(id).unwrap().state, "frozen");
    assert_eq!(worker.put(pool, 2, 0, &contents(2, 4096)), Outcome::Frozen);
    assert_eq!(worker.put(pool, 1, 0, &contents(3, 4096)), Outcome::Stored);
    assert_eq!(worker.get(pool, 1, 0, 4096).as_deref(), Ok(&contents(3, 4096)[..]));
    assert_eq!(worker.get(pool, 2, 0, 4096), Err(Outcome::Missing));
    control(&world.path, id, Verb::Thaw).unwrap();
    assert_eq!(worker.put(pool, 2, 0, &contents(2, 4096)), Outcome::Stored);
    assert_eq!(world.stat_of(id).unwrap().puts_failed, 1);
}

#[test]
fn a_client_at_its_cap_is_rejected_until_the_cap_is_raised() {
    let world = World::new();
    let mut worker = world.worker("capped", 1 << 20);
    let (id, pool) = (worker.client.id(), worker.client.create_pool(PoolOptions::persistent()).unwrap());
    control(&world.path, id, Verb::Cap(64 << 10)).unwrap();
    assert_eq!(worker.put(pool, 1, 0, &contents(1, 32 << 10)), Outcome::Stored);
    assert_eq!(worker.put(pool, 2, 0, &contents(2, 128 << 10)), Outcome::Rejected(Rejection::Cap));
    control(&world.path, id, Verb::Cap(1 << 20)).unwrap();
    assert_eq!(worker.put(pool, 2, 0, &contents(2, 128 << 10)), Outcome::Stored);
    control(&world.path, id, Verb::Weight(7)).unwrap();
    let stat = world.stat_of(id).unwrap();
    assert_eq!((stat.cap_bytes, stat.weight), (Some(1 << 20), 7));
}

#[test]
fn what_was_flushed_is_missing_and_the_pools_stay() {
    let world = World::new();
    let (mut worker, mut other) = (world.worker("flushed", 1 << 20), world.worker("other", 1 << 20));
    let pools = [(), ()].map(|()| worker.client.create_pool(PoolOptions::persistent()).unwrap());
    let others = other.client.create_pool(PoolOptions::persistent()).unwrap();
    for pool in pools {
        assert_eq!(worker.put(pool, 1, 0, &contents(1, 1 << 20)), Outcome::Stored);
    }
    assert_eq!(other.put(others, 1, 0, &contents(2, 1 << 20)), Outcome::Stored);
    control(&world.path, worker.client.id(), Verb::Flush).unwrap();
    assert_eq!(world.stat_of(worker.client.id()).unwrap().charged_bytes, 0);
    for pool in pools {
        assert_eq!(worker.get(pool, 1, 0, 4096), Err(Outcome::Missing));
        assert_eq!(worker.put(pool, 1, 0, &contents(3, 4096)), Outcome::Stored);
        assert_eq!(worker.get(pool, 1, 0, 4096).as_deref(), Ok(&contents(3, 4096)[..]));
    }
    assert_eq!(other.get(others, 1, 0, 1 << 20).as_deref(), Ok(&contents(2, 1 << 20)[..]));
}

#[test]
fn a_destroyed_client_finds_its_queue_closed_and_its_connection_gone() {
    let world = World::new();
    let mut worker = world.worker("destroyed", 1 << 20);
    let outliving = PoolOptions { outlives: true, ..PoolOptions::persistent() };
    let pool = worker.client.create_pool(outliving).unwrap();
    assert_eq!(worker.put(pool, 1, 0, &contents(1, 1 << 20)), Outcome::Stored);
    let (id, key) = (worker.client.id(), worker.client.key().clone());
    control(&world.path, id, Verb::Destroy).unwrap();
    // It is all gone when that returns.
    assert_eq!((world.stat_of(id), world.charged()), (None, 0));
    worker.push(1, pool, 1, Action::FlushObject);
    assert!(matches!(worker.queue.wait(1, Some(PATIENCE)), Err(QueueError::Closed | QueueError::Gone)));
    assert!(matches!(worker.client.create_pool(outliving), Err(ClientError::Gone)));
    assert!(matches!(Client::attach(&world.path, id, &key), Err(ClientError::Refused { .. })));
    let again = control(&world.path, id, Verb::Destroy);
    assert!(again.unwrap_err().to_string().contains("there is no client"));
}

#[test]
fn a_client_that_is_away_can_be_destroyed() {
    let world = World::new();
    let mut worker = world.worker("away", 1 << 20);
    let outliving = PoolOptions { outlives: true, ..PoolOptions::persistent() };
    let (id, pool) = (worker.client.id(), worker.client.create_pool(outliving).unwrap());
    assert_eq!(worker.put(pool, 1, 0, &contents(1, 1 << 20)), Outcome::Stored);
    drop(worker);
    control(&world.path, id, Verb::Destroy).unwrap();
    assert_eq!((world.stat_of(id), world.charged()), (None, 0));
}

#[test]
fn who_was_authorised_from_outside_may_join() {
    let world = World::new();
    let (mut owner, mut guest) = (world.worker("owner", 1 << 20), world.worker("guest", 1 << 20));
    let shared = PoolOptions { shared: true, ..PoolOptions::persistent() };
    let [pool, private] = [shared, PoolOptions::persistent()].map(|options| owner.client.create_pool(options).unwrap());
    assert_eq!(owner.put(pool, 1, 0, &contents(1, 4096)), Outcome::Stored);
    assert!(guest.client.join_pool(pool).is_err());
    control(&world.path, guest.client.id(), Verb::Authorise(pool)).unwrap();
    guest.client.join_pool(pool).unwrap();
    assert_eq!(guest.get(pool, 1, 0, 4096).as_deref(), Ok(&contents(1, 4096)[..]));
    for (client, pool) in [(guest.client.id(), private), (guest.client.id(), PoolId(999)), (ClientId(999), pool)] {
        let refused = control(&world.path, client, Verb::Authorise(pool));
        assert!(matches!(refused, Err(ClientError::Refused { .. })), "{client:?} {pool:?}");
    }
}
