//! Workers' time is shared out by weight among clients that want all of it.

use crate::harness::{Guest, PATIENCE, Serving};
use std::sync::mpsc::{Receiver, Sender};
use tmem_ring::client::stat;
use tmem_ring::{Action, Operation, Outcome, Slice};

/// Bytes of an operation. A full queue of them is 16 MiB to be compressed, which takes longer than a client waits for a CPU.
const UNIT: u64 = 64 << 10;

/// What the lightest is served in a measurement.
const SERVED_US: u64 = 200_000;

/// Fills the region with what takes time to compress. Pages of zeros take so little that who does not get a CPU for some
/// milliseconds has an empty queue, and less than its share for good reason.
fn write_numbers(guest: &Guest) {
    let mut bits = 1_u64;
    let words = std::iter::repeat_with(|| {
        bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (bits >> 48).to_le_bytes()
    });
    let bytes: Vec<u8> = words.take(guest.region.len() / 8).flatten().collect();
    guest.region.write(0, &bytes);
}

/// Keeps at least three fourths of the queue full, and tells whenever it has filled it up, until nobody listens.
fn want_all(guest: &mut Guest, progress: &Sender<()>) {
    let slots = guest.region.len() as u64 / UNIT;
    let mut number = 0;
    while progress.send(()).is_ok() {
        while guest.queue.outstanding() < guest.queue.entries() {
            let offset = number % slots * UNIT;
            let slices = [Slice { offset, len: UNIT }];
            let put = Action::Put { offset, from: guest.region.memory(&slices) };
            guest.queue.push(&Operation { tag: number, pool: guest.pool, object: 1.into(), action: put }).unwrap();
            number += 1;
        }
        let fourth = guest.queue.entries() / 4;
        assert!(guest.queue.wait(fourth, Some(PATIENCE)).unwrap() >= fourth, "the queue hangs");
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

/// How many times as long as the first the second is served, from now on. It looks when there is progress, and leaves the
/// CPUs to those who are measured otherwise.
fn ratio(serving: &Serving, ids: [u32; 2], progress: &Receiver<()>) -> f64 {
    let before = served(serving, ids);
    loop {
        let now = served(serving, ids);
        let [one, two] = [0, 1].map(|nth| now[nth] - before[nth]);
        if one.min(two) >= SERVED_US {
            return two as f64 / one as f64;
        }
        progress.recv_timeout(PATIENCE).unwrap();
    }
}

#[test]
fn who_weighs_three_times_as_much_is_served_three_times_as_long() {
    for workers in ["1", "2"] {
        let serving = Serving::start(&["--client-weight", "3", "--workers", workers]);
        let socket = serving.socket();
        let mut guests = [Guest::weighing(&socket, "light", 1), Guest::weighing(&socket, "heavy", 3)];
        guests.iter().for_each(write_numbers);
        let ids = [guests[0].id(), guests[1].id()];
        let (tell, progress) = std::sync::mpsc::channel();
        let [asked, equal, turned] = std::thread::scope(|scope| {
            let progress = progress; // dropped in here, which ends them
            for guest in &mut guests {
                let tell = tell.clone();
                scope.spawn(move || want_all(guest, &tell));
            }
            let asked = ratio(&serving, ids, &progress);
            serving.control(&["weight", &ids[1].to_string(), "1"]);
            let equal = ratio(&serving, ids, &progress);
            serving.control(&["weight", &ids[0].to_string(), "3"]);
            let turned = ratio(&serving, ids, &progress);
            [asked, equal, 1.0 / turned]
        });
        println!("{workers} workers: {asked:.2} as asked for, {equal:.2} as equals, {turned:.2} the other way round");
        assert!((2.0..4.5).contains(&asked) && (2.0..4.5).contains(&turned), "{asked} and {turned} instead of 3");
        assert!((0.67..1.5).contains(&equal), "{equal} instead of 1");
    }
}
