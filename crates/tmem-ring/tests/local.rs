//! A queue within a process: every kind of operation, order, cancelling, awaiting, and what dropping it does.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;
use tmem::{ClientOptions, Store, StoreOptions};
use tmem_ring::server::{LocalAction, LocalCompletion, LocalOperation, LocalQueue, Service};
use tmem_ring::{ObjectId, Outcome, PoolId, QueueError, Refusal};

struct World {
    store: Store,
    client: tmem::Client,
    service: Arc<Service>,
    pool: PoolId,
}

impl World {
    fn new(workers: usize) -> Self {
        let store = Store::new(StoreOptions::with_budget(64 << 20)).unwrap();
        let client = store.client(ClientOptions::named("test"));
        let pool = PoolId(client.create_pool(tmem::PoolOptions::persistent()).unwrap().id().0);
        Self { store, client, service: Arc::new(Service::start(workers).unwrap()), pool }
    }

    fn queue(&self, entries: u64) -> LocalQueue {
        self.service.queue(&self.client, entries).unwrap()
    }

    fn operation(&self, tag: u64, object: u64, action: LocalAction) -> LocalOperation {
        LocalOperation { tag, pool: self.pool, object: ObjectId::from(object), action }
    }
}

/// Bytes that differ from offset to offset and compress.
fn contents(seed: u64, len: usize) -> Box<[u8]> {
    let word = |at: usize| (seed << 32) + (at as u64 / 24) * 3;
    (0..len.div_ceil(8)).flat_map(|at| word(at).to_le_bytes()).take(len).collect()
}

fn put(offset: u64, from: Box<[u8]>) -> LocalAction {
    LocalAction::Put { offset, from }
}

fn get(offset: u64, len: usize) -> LocalAction {
    LocalAction::Get { offset, into: vec![0xee; len].into() }
}

/// Waits for all that is outstanding; by tag.
fn all(queue: &mut LocalQueue) -> Vec<LocalCompletion> {
    let mut completions = Vec::new();
    while queue.outstanding() > 0 {
        assert!(queue.wait(1, Some(Duration::from_secs(60))).unwrap() > 0, "a hang");
        while let Some(completion) = queue.reap_one().unwrap() {
            completions.push(completion);
        }
    }
    completions.sort_by_key(|completion| completion.tag);
    completions
}

fn one(world: &World, queue: &mut LocalQueue, action: LocalAction) -> LocalCompletion {
    queue.push(world.operation(0, 1, action)).unwrap();
    all(queue).pop().unwrap()
}

#[test]
fn every_kind_of_operation_does_what_it_says() {
    for workers in [1, 3] {
        let world = World::new(workers);
        let mut queue = world.queue(8);
        for len in [100, 4096, 10_000, 300 << 10, 3 << 20] {
            let bytes = contents(len as u64, len);
            assert_eq!(one(&world, &mut queue, get(0, len)).outcome, Outcome::Missing);
            assert_eq!(one(&world, &mut queue, put(0, bytes.clone())).outcome, Outcome::Stored);
            let got = one(&world, &mut queue, get(0, len));
            assert_eq!((got.outcome, got.memory.unwrap() == bytes), (Outcome::Filled, true), "{len} bytes");
            let part = one(&world, &mut queue, get(13, 50));
            assert_eq!((part.outcome, &part.memory.unwrap()[..]), (Outcome::Filled, &bytes[13..63]));
            let take = LocalAction::Take { offset: 0, into: vec![0; len].into() };
            let taken = one(&world, &mut queue, take);
            assert_eq!((taken.outcome, taken.memory.unwrap() == bytes), (Outcome::Filled, true));
            assert_eq!(one(&world, &mut queue, get(0, len)).outcome, Outcome::Missing);
            assert_eq!(one(&world, &mut queue, put(0, bytes)).outcome, Outcome::Stored);
            let granules = len.div_ceil(4096) as u64;
            let flush = LocalAction::Flush { offset: 4096, len: 1 << 40 };
            assert_eq!(one(&world, &mut queue, flush).outcome, Outcome::Flushed { granules: granules - 1 });
            let flushed = one(&world, &mut queue, LocalAction::FlushObject).outcome;
            assert_eq!(flushed, Outcome::Flushed { granules: 1 });
        }
        drop(queue);
        world.store.validate();
    }
}

#[test]
fn a_get_that_finds_a_part_says_which() {
    let world = World::new(2);
    let mut queue = world.queue(8);
    let granules = 600_u64;
    let is_there = |at: u64| at.is_multiple_of(3) || (100..200).contains(&at);
    for at in (0..granules).filter(|at| is_there(*at)) {
        assert_eq!(one(&world, &mut queue, put(at * 4096, contents(at, 4096))).outcome, Outcome::Stored);
    }
    for (first, count) in [(1, 2), (0, 64), (1, 65), (0, granules)] {
        let got = one(&world, &mut queue, get(first * 4096, usize::try_from(count).unwrap() * 4096));
        let Outcome::PartlyFilled(map) = got.outcome else {
            assert!((first..first + count).all(|at| !is_there(at)), "{first} {count} {:?}", got.outcome);
            continue;
        };
        let memory = got.memory.unwrap();
        for (at, granule) in (first..first + count).zip(memory.chunks(4096)) {
            assert_eq!(map.is_filled(at - first), is_there(at), "{at} of {first}+{count}");
            let right = if is_there(at) { contents(at, 4096) } else { vec![0xee; 4096].into() };
            assert!(granule == &right[..], "{at}");
        }
        assert_eq!(map.filled(), (first..first + count).filter(|at| is_there(*at)).count() as u64);
    }
}

#[test]
fn operations_that_overlap_take_effect_in_order_whoever_carries_them_out() {
    let world = World::new(4);
    let mut queue = world.queue(256);
    for round in 0..30_u64 {
        // Wide ones among them, whose pieces spread over workers.
        let len = if round % 3 == 0 { 1 << 20 } else { 8192 };
        let mut tag = 0;
        for turn in 0..40_u64 {
            let object = turn % 3;
            for action in [put(0, contents(round * 1000 + turn, len)), get(0, len)] {
                queue.push(world.operation(tag, object, action)).unwrap();
                tag += 1;
            }
            queue.submit();
        }
        for (nth, completion) in all(&mut queue).into_iter().enumerate() {
            let turn = nth as u64 / 2;
            if nth % 2 == 0 {
                assert_eq!(completion.outcome, Outcome::Stored);
            } else {
                assert_eq!(completion.outcome, Outcome::Filled);
                let right = contents(round * 1000 + turn, len);
                assert!(completion.memory.unwrap() == right, "round {round}, turn {turn}: not what was put before it");
            }
        }
    }
}

#[test]
fn a_full_queue_gives_the_operation_back() {
    let world = World::new(1);
    let mut queue = world.queue(4);
    for tag in 0..4 {
        queue.push(world.operation(tag, 1, put(tag * 4096, contents(tag, 4096)))).unwrap();
    }
    let (error, operation) = queue.push(world.operation(9, 1, put(0, contents(9, 4096)))).unwrap_err();
    assert_eq!((error, operation.tag), (QueueError::Full, 9));
    assert!(matches!(operation.action, LocalAction::Put { from, .. } if from == contents(9, 4096)));
    assert_eq!(all(&mut queue).len(), 4);
    queue.push(world.operation(9, 1, get(0, 4096))).unwrap();
    assert_eq!(all(&mut queue)[0].outcome, Outcome::Filled);
}

#[test]
fn what_was_not_submitted_can_be_cancelled_and_leaves_its_range_missing() {
    let world = World::new(2);
    let mut queue = world.queue(64);
    assert_eq!(one(&world, &mut queue, put(0, contents(1, 4096))).outcome, Outcome::Stored);
    queue.push(world.operation(5, 1, put(0, contents(2, 4096)))).unwrap();
    queue.push(world.operation(6, 1, get(0, 4096))).unwrap();
    queue.push(world.operation(7, 1, put(0, contents(3, 1 << 20)))).unwrap();
    queue.push(world.operation(8, 1, get(0, 4096))).unwrap();
    assert_eq!((queue.cancel(5), queue.cancel(7), queue.cancel(1)), (1, 1, 0));
    let outcomes: Vec<_> = all(&mut queue).into_iter().map(|completion| completion.outcome).collect();
    assert_eq!(outcomes, [Outcome::Cancelled, Outcome::Missing, Outcome::Cancelled, Outcome::Missing]);
}

#[test]
fn cancelling_while_it_runs_either_works_or_comes_too_late_and_says_so() {
    let world = World::new(2);
    let mut queue = world.queue(256);
    let (mut early, mut late) = (0, 0);
    for round in 0..50_u64 {
        for tag in 0..200 {
            queue.push(world.operation(tag, 1, put(tag * 4096, contents(round, 4096)))).unwrap();
        }
        queue.submit();
        let cancelled: Vec<bool> = (0..200).rev().map(|tag| queue.cancel(tag) == 1).rev().collect();
        for (completion, cancelled) in all(&mut queue).into_iter().zip(cancelled) {
            let right = if cancelled { Outcome::Cancelled } else { Outcome::Stored };
            assert_eq!(completion.outcome, right);
            *(if cancelled { &mut early } else { &mut late }) += 1;
        }
    }
    assert!(early > 0 && late > 0, "{early} early, {late} late: both were to be tried");
}

#[test]
fn nonsense_is_refused_by_its_name() {
    let world = World::new(1);
    let mut queue = world.queue(8);
    let mut refused = |action| match one(&world, &mut queue, action).outcome {
        Outcome::Refused(refusal) => refusal,
        outcome => panic!("{outcome:?}"),
    };
    assert_eq!(refused(put(1, contents(0, 10))), Refusal::Misaligned);
    assert_eq!(refused(put(0, Box::new([]))), Refusal::EmptyRange);
    assert_eq!(refused(get(u64::MAX, 2)), Refusal::BeyondEnd);
    assert_eq!(refused(get(u64::MAX - 4095, 1 << 20)), Refusal::BeyondEnd);
    assert_eq!(refused(LocalAction::Flush { offset: 4096, len: u64::MAX }), Refusal::BeyondEnd);
    let mut operation = world.operation(0, 1, get(0, 1));
    operation.pool = PoolId(99);
    queue.push(operation).unwrap();
    assert_eq!(all(&mut queue)[0].outcome, Outcome::Refused(Refusal::UnknownPool));
}

/// The smallest executor: a thread that sleeps until it is woken.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            std::task::Poll::Ready(output) => return output,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}

#[test]
fn completions_can_be_awaited_without_a_runtime() {
    let world = World::new(1);
    let mut queue = world.queue(64);
    for round in 0..200_u64 {
        for tag in 0..10 {
            queue.push(world.operation(tag, 1, put(tag * 4096, contents(round, 4096)))).unwrap();
        }
        let count = block_on(async {
            let mut count = 0;
            while let Some(completion) = queue.next().await {
                assert_eq!(completion.unwrap().outcome, Outcome::Stored);
                count += 1;
            }
            count
        });
        assert_eq!(count, 10);
        // The queue is idle: the server falls asleep, or is about to.
        if round % 10 == 0 {
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_wait_ends_when_its_time_is_over() {
    let world = World::new(1);
    let mut queue = world.queue(8);
    assert_eq!(queue.wait(1, None).unwrap(), 0, "with nothing outstanding there is nothing to wait for");
    queue.push(world.operation(0, 1, put(0, contents(0, 32 << 20)))).unwrap();
    assert_eq!(queue.wait(1, Some(Duration::ZERO)).unwrap(), 0);
    assert_eq!(all(&mut queue)[0].outcome, Outcome::Stored);
}

#[test]
fn a_queue_that_is_dropped_in_mid_flight_leaves_nothing_behind() {
    let world = World::new(2);
    for round in 0..20 {
        let mut queue = world.queue(64);
        for tag in 0..64 {
            let len = if tag % 8 == 0 { 1 << 20 } else { 4096 };
            queue.push(world.operation(tag, tag, put(0, contents(round, len)))).unwrap();
        }
        queue.submit();
        drop(queue);
    }
    world.store.validate();
}
