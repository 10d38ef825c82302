//! Workers' time is shared out by weight among clients that want all of it.

use crate::harness::{Guest, PATIENCE, Serving};
use std::sync::atomic::{AtomicBool, Ordering};
use tmem_ring::client::stat;
use tmem_ring::{Action, Operation, Outcome, Slice};

/// Bytes of an operation: a full queue is a hundred milliseconds' work, whatever else the machine does meanwhile.
const UNIT: u64 = 64 << 10;

/// What the lightest is served in a measurement.
const SERVED_US: u64 = 200_000;

/// Keeps the queue full until it is told to end.
fn want_all(guest: &mut Guest, ended: &AtomicBool) {
    let slots = guest.region.len() as u64 / UNIT;
    let mut number = 0;
    // Relaxed: publishes nothing but itself.
    while !ended.load(Ordering::Relaxed) {
        while guest.queue.outstanding() < guest.queue.entries() {
            let offset = number % slots * UNIT;
            let slices = [Slice { offset, len: UNIT }];
            let put = Action::Put { offset, from: guest.region.memory(&slices) };
            guest.queue.push(&Operation { tag: number, pool: guest.pool, object: 1.into(), action: put }).unwrap();
            number += 1;
        }
        assert!(guest.queue.wait(1, Some(PATIENCE)).unwrap() > 0, "the queue hangs");
        while let Some(completion) = guest.queue.reap_one().unwrap() {
            assert_eq!(completion.outcome, Outcome::Stored);
        }
    }
}

/// Microseconds that each of them has been served so far.
fn served(serving: &Serving, ids: [u32; 2]) -> [u64; 2] {
    let stat = stat(&serving.socket()).unwrap();
    ids.map(|id| stat.clients.iter().find(|one| one.client.0 == id).unwrap().served_us)
}

/// How many times as long as the first the second is served, from now on.
fn ratio(serving: &Serving, ids: [u32; 2]) -> f64 {
    let before = served(serving, ids);
    loop {
        let now = served(serving, ids);
        let [one, two] = [0, 1].map(|nth| now[nth] - before[nth]);
        if one.min(two) >= SERVED_US {
            return two as f64 / one as f64;
        }
        std::thread::yield_now();
    }
}

#[test]
fn who_weighs_three_times_as_much_is_served_three_times_as_long() {
    for workers in ["1", "2"] {
        let serving = Serving::start(&["--client-weight", "3", "--workers", workers]);
        let socket = serving.socket();
        let mut guests = [Guest::weighing(&socket, "light", 1), Guest::weighing(&socket, "heavy", 3)];
        let ids = [guests[0].id(), guests[1].id()];
        let ended = AtomicBool::new(false);
        let [asked, equal, turned] = std::thread::scope(|scope| {
            for guest in &mut guests {
                scope.spawn(|| want_all(guest, &ended));
            }
            let asked = ratio(&serving, ids);
            serving.control(&["weight", &ids[1].to_string(), "1"]);
            let equal = ratio(&serving, ids);
            serving.control(&["weight", &ids[0].to_string(), "3"]);
            let turned = ratio(&serving, ids);
            ended.store(true, Ordering::Relaxed); // Relaxed: as where it is loaded
            [asked, equal, 1.0 / turned]
        });
        println!("{workers} workers: {asked:.2} as asked for, {equal:.2} as equals, {turned:.2} the other way round");
        assert!((2.0..4.5).contains(&asked) && (2.0..4.5).contains(&turned), "{asked} and {turned} instead of 3");
        assert!((0.67..1.5).contains(&equal), "{equal} instead of 1");
    }
}
