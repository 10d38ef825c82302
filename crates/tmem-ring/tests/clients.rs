//! Clients of a daemon: what they store, whom they share it with, and what stays when they go.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use support::{PATIENCE, Worker, World, contents, hello, options};
use tmem_ring::client::{Client, ClientError};
use tmem_ring::server::DaemonOptions;
use tmem_ring::wire::{Key, PoolOptions};
use tmem_ring::{Action, Memory, Outcome, PoolId, QueueError, Slice};

#[track_caller]
fn assert_refused<T: std::fmt::Debug>(result: Result<T, ClientError>, expected: &str) {
    match result {
        Err(ClientError::Refused { message }) if message.contains(expected) => {}
        other => panic!("not refused with {expected:?}: {other:?}"),
    }
}

fn shared() -> PoolOptions {
    PoolOptions { shared: true, ..PoolOptions::persistent() }
}

fn outliving() -> PoolOptions {
    PoolOptions { outlives: true, ..PoolOptions::persistent() }
}

#[test]
fn what_a_client_puts_it_gets_and_another_does_not() {
    let world = World::new();
    let (mut one, mut two) = (world.worker("one", 4 << 20), world.worker("two", 4 << 20));
    assert_ne!(one.client.id(), two.client.id());
    let pools = [&one, &two].map(|worker| worker.client.create_pool(PoolOptions::persistent()).unwrap());
    for (seed, len) in [(1, 4096), (2, 5000), (3, 1 << 20), (4, 3 << 20)] {
        assert_eq!(one.put(pools[0], seed, 8192, &contents(seed, len)), Outcome::Stored);
        assert_eq!(two.put(pools[1], seed, 8192, &contents(seed + 100, len)), Outcome::Stored);
    }
    for (seed, len) in [(1, 4096), (2, 5000), (3, 1 << 20), (4, 3 << 20)] {
        assert_eq!(one.get(pools[0], seed, 8192, len).as_deref(), Ok(&contents(seed, len)[..]));
        assert_eq!(two.get(pools[1], seed, 8192, len).as_deref(), Ok(&contents(seed + 100, len)[..]));
    }
    assert_eq!(one.get(pools[0], 9, 0, 4096), Err(Outcome::Missing));
    let foreign = one.get(pools[1], 1, 8192, 4096);
    assert_eq!(foreign, Err(Outcome::Refused(tmem_ring::Refusal::UnknownPool)));
    let stat = world.stat_of(one.client.id()).unwrap();
    // Four puts and gets, one of nothing and one of another's pool.
    assert_eq!((stat.name.as_str(), stat.operations, stat.queues), ("one", 10, 1));
    assert_eq!((stat.pid, stat.regions, stat.region_bytes), (Some(std::process::id()), 1, 4 << 20));
    assert_eq!(tmem_ring::client::stat(&world.path).unwrap().clients.len(), 2);
}

#[test]
fn private_pools_cannot_be_joined_and_shared_ones_by_who_is_authorised() {
    let world = World::new();
    let (mut owner, mut guest) = (world.worker("owner", 1 << 20), world.worker("guest", 1 << 20));
    let private = owner.client.create_pool(PoolOptions::persistent()).unwrap();
    let pool = owner.client.create_pool(shared()).unwrap();
    assert_eq!(owner.put(pool, 1, 0, &contents(1, 8192)), Outcome::Stored);
    assert_refused(guest.client.join_pool(private), "has not authorised");
    assert_refused(guest.client.join_pool(pool), "has not authorised");
    assert_refused(guest.client.join_pool(PoolId(999)), "there is no pool");
    assert_refused(guest.client.authorise(pool, guest.client.id()), "is this client's own");
    assert_refused(owner.client.authorise(private, guest.client.id()), "private");
    assert_refused(guest.client.destroy_pool(pool), "is this client's own");
    assert_eq!(guest.get(pool, 1, 0, 8192), Err(Outcome::Refused(tmem_ring::Refusal::UnknownPool)));
    owner.client.authorise(pool, guest.client.id()).unwrap();
    assert_eq!(guest.client.join_pool(pool).unwrap(), pool);
    assert_eq!(guest.get(pool, 1, 0, 8192).as_deref(), Ok(&contents(1, 8192)[..]));
    assert_eq!(guest.put(pool, 1, 4096, &contents(2, 4096)), Outcome::Stored);
    assert_eq!(owner.get(pool, 1, 4096, 4096).as_deref(), Ok(&contents(2, 4096)[..]));
    owner.client.destroy_pool(pool).unwrap();
    assert_eq!(guest.get(pool, 1, 0, 8192), Err(Outcome::Refused(tmem_ring::Refusal::UnknownPool)));
}

#[test]
fn a_pool_that_outlives_its_client_is_found_again_by_who_has_the_key() {
    let world = World::new();
    let mut worker = world.worker("first", 1 << 20);
    let (id, key) = (worker.client.id(), worker.client.key().clone());
    let [kept, lost] =
        [outliving(), PoolOptions::persistent()].map(|options| worker.client.create_pool(options).unwrap());
    for pool in [kept, lost] {
        assert_eq!(worker.put(pool, 7, 0, &contents(u64::from(pool.0), 1 << 20)), Outcome::Stored);
    }
    let charged = world.charged();
    assert_refused(Client::attach(&world.path, id, &key), "has a connection");
    drop(worker);
    // Attaching waits until what was left is cleared away.
    let mut again = Worker::new(Client::attach(&world.path, id, &key).unwrap(), 1 << 20);
    assert_eq!((again.client.id(), again.client.pools()), (id, &[kept][..]));
    assert_eq!(again.get(kept, 7, 0, 1 << 20).as_deref(), Ok(&contents(u64::from(kept.0), 1 << 20)[..]));
    assert_eq!(again.get(lost, 7, 0, 4096), Err(Outcome::Refused(tmem_ring::Refusal::UnknownPool)));
    assert!(world.charged() < charged * 3 / 5, "half of it is gone");
    let stat = world.stat_of(id).unwrap();
    // Counted on: those of its first session, too.
    assert_eq!((stat.operations, stat.regions), (4, 1));
    drop(again);
    world.within_a_second("away", |world| world.stat_of(id).unwrap().pid.is_none());
    assert_refused(Client::attach(&world.path, id, &Key("0".repeat(32))), "key is not its");
    assert_refused(Client::attach(&world.path, tmem_ring::ClientId(id.0 + 1), &key), "is gone");
    assert!(world.stat_of(id).unwrap().charged_bytes > 1 << 20);
}

#[test]
fn without_a_pool_that_outlives_it_a_client_goes_with_all_it_had() {
    let world = World::new();
    let (mut other, mut worker) = (world.worker("other", 1 << 20), world.worker("worker", 4 << 20));
    let others = other.client.create_pool(PoolOptions::persistent()).unwrap();
    assert_eq!(other.put(others, 1, 0, &contents(1, 1 << 20)), Outcome::Stored);
    let charged = world.charged();
    let pool = worker.client.create_pool(PoolOptions::persistent()).unwrap();
    for object in 0..8 {
        assert_eq!(worker.put(pool, object, 0, &contents(object, 4 << 20)), Outcome::Stored);
    }
    let used = world.store.used_bytes();
    let (id, key) = (worker.client.id(), worker.client.key().clone());
    drop(worker);
    world.within_a_second("all free", |world| {
        world.stat_of(id).is_none() && world.charged() == charged && world.store.used_bytes() < used - (24 << 20)
    });
    assert_refused(Client::attach(&world.path, id, &key), "is gone");
    assert_eq!(other.get(others, 1, 0, 1 << 20).as_deref(), Ok(&contents(1, 1 << 20)[..]));
}

#[test]
fn a_client_that_disappears_with_operations_in_flight_harms_nobody() {
    let world = World::new();
    let mut other = world.worker("other", 1 << 20);
    let others = other.client.create_pool(PoolOptions::persistent()).unwrap();
    let charged = world.charged();
    for round in 0..20 {
        let mut worker = world.worker("worker", 16 << 20);
        let pool = worker.client.create_pool(PoolOptions::persistent()).unwrap();
        worker.region.write(0, &contents(round, 16 << 20));
        for tag in 0..60 {
            // Wide ones between.
            let len = if tag % 8 == 0 { 8 << 20 } else { 64 << 10 };
            let slices = [Slice { offset: tag * 4096, len }];
            let from = Memory { region: worker.region.number(), slices: &slices };
            worker.push(tag, pool, tag, Action::Put { offset: 0, from });
        }
        worker.queue.submit();
        if round % 2 == 0 {
            worker.queue.wait(1, Some(PATIENCE)).unwrap();
        }
        let id = worker.client.id();
        drop(worker);
        assert_eq!(other.put(others, round, 0, &contents(round, 4096)), Outcome::Stored);
        world.within_a_second("free", |world| world.stat_of(id).is_none());
    }
    for round in 0..20 {
        assert_eq!(other.get(others, round, 0, 4096).as_deref(), Ok(&contents(round, 4096)[..]));
    }
    // What is left is the other one's: 20 pages and their tables.
    assert!(world.charged() < charged + (256 << 10), "{}", world.charged());
}

#[test]
fn a_queue_that_is_dropped_is_closed_and_counts_no_more() {
    let world = World::new();
    let client = world.client("queues");
    for _ in 0..200 {
        drop(client.open_queue(1024).unwrap());
        world.within_a_second("closed", |world| world.stat_of(client.id()).unwrap().queues < 64);
    }
    world.within_a_second("all closed", |world| world.stat_of(client.id()).unwrap().queues == 0);
    let queue = client.open_queue(64).unwrap();
    client.close_queue(queue).unwrap();
    assert_eq!(world.stat_of(client.id()).unwrap().queues, 0);
}

#[test]
fn drained_queues_have_completed_what_was_submitted() {
    let mut world = World::new();
    let mut worker = world.worker("worker", 16 << 20);
    let pool = worker.client.create_pool(PoolOptions::persistent()).unwrap();
    worker.region.write(0, &contents(3, 16 << 20));
    for tag in 0..60 {
        let slices = [Slice { offset: tag * 4096, len: if tag % 20 == 0 { 4 << 20 } else { 16 << 10 } }];
        let from = Memory { region: worker.region.number(), slices: &slices };
        worker.push(tag, pool, tag, Action::Put { offset: 0, from });
    }
    worker.queue.submit();
    world.daemon.take().unwrap().drain(PATIENCE);
    let mut completions = Vec::new();
    assert_eq!(worker.queue.reap(&mut completions), Ok(60));
    assert!(completions.iter().all(|completion| completion.outcome == Outcome::Stored), "{completions:?}");
    // What comes afterwards is never started.
    worker.push(99, pool, 1, Action::FlushObject);
    assert!(matches!(worker.queue.wait(1, Some(PATIENCE)), Err(QueueError::Closed | QueueError::Gone)));
    let refused = Client::connect(&world.path, &hello("late"));
    assert!(matches!(refused, Err(ClientError::NoDaemon { .. })), "{refused:?}");
    let error = refused.unwrap_err().to_string();
    assert!(error.contains("is `tmem serve` running?"), "{error}");
}

#[test]
fn a_client_of_a_daemon_that_ends_learns_it_at_once() {
    let mut world = World::new();
    let mut worker = world.worker("worker", 1 << 20);
    let pool = worker.client.create_pool(PoolOptions::persistent()).unwrap();
    assert_eq!(worker.put(pool, 1, 0, &contents(1, 4096)), Outcome::Stored);
    let start = std::time::Instant::now();
    world.daemon = None;
    worker.push(1, pool, 1, Action::FlushObject);
    assert!(matches!(worker.queue.wait(1, Some(PATIENCE)), Err(QueueError::Closed | QueueError::Gone)));
    assert!(matches!(worker.client.create_pool(PoolOptions::persistent()), Err(ClientError::Gone)));
    assert!(start.elapsed() < std::time::Duration::from_secs(1));
}

#[test]
fn caps_and_weights_are_what_was_asked_for_and_the_daemon_allows() {
    let world = World::with(DaemonOptions { cap_bytes: Some(1 << 20), weight: 5, ..options() });
    let ask = |cap_bytes, weight| {
        let hello = tmem_ring::client::Hello { cap_bytes, weight, ..hello("asks") };
        let client = Client::connect(&world.path, &hello).unwrap();
        let stat = world.stat_of(client.id()).unwrap();
        (stat.cap_bytes, stat.weight)
    };
    assert_eq!(ask(None, None), (Some(1 << 20), 1));
    assert_eq!(ask(Some(1 << 30), Some(100)), (Some(1 << 20), 5));
    assert_eq!(ask(Some(1 << 16), Some(3)), (Some(1 << 16), 3));
    world.daemon().reload(DaemonOptions { cap_bytes: None, ..options() });
    assert_eq!(ask(Some(1 << 30), Some(100)), (Some(1 << 30), 100));
}
