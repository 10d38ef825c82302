//! What `tmem client` does to a client, as the client finds out.

use crate::harness::{Guest, PATIENCE, Random, Serving, fails, text};
use tmem_ring::wire::PoolOptions;
use tmem_ring::{Outcome, QueueError, Rejection};

#[test]
fn a_frozen_client_puts_nothing_new_until_it_is_thawed() {
    let serving = Serving::start(&[]);
    let mut guest = Guest::connect(&serving.socket(), "guest");
    let id = guest.id().to_string();
    assert_eq!(guest.put(0, &[1; 4096]), Outcome::Stored);
    serving.control(&["freeze", &id]);
    assert_eq!(serving.stat_of(&guest)["state"], "frozen");
    assert_eq!(guest.put(4096, &[2; 4096]), Outcome::Frozen);
    assert_eq!(guest.get(0, 4096), (Outcome::Filled, vec![1; 4096]));
    serving.control(&["thaw", &id]);
    assert_eq!(serving.stat_of(&guest)["state"], "running");
    assert_eq!(guest.put(4096, &[2; 4096]), Outcome::Stored);
}

#[test]
fn a_cap_rejects_what_is_beyond_it() {
    let serving = Serving::start(&[]);
    let mut guest = Guest::connect(&serving.socket(), "guest");
    let id = guest.id().to_string();
    let mut random = Random::new(1);
    let noise: Vec<u8> = (0..(1 << 20) / 8).flat_map(|_| random.next().to_le_bytes()).collect();
    serving.control(&["cap", &id, "1536k"]);
    assert_eq!(serving.stat_of(&guest)["cap_bytes"], 1536 << 10);
    assert_eq!(guest.put(0, &noise), Outcome::Stored);
    assert_eq!(guest.put(1 << 30, &noise), Outcome::Rejected(Rejection::Cap));
    serving.control(&["cap", &id, "none"]);
    assert!(serving.stat_of(&guest)["cap_bytes"].is_null());
    assert_eq!(guest.put(1 << 30, &noise), Outcome::Stored);
    assert!(serving.stat_of(&guest)["charged_bytes"].as_u64().unwrap() > 2 << 20);
}

#[test]
fn a_weight_is_shown() {
    let serving = Serving::start(&[]);
    let guest = Guest::connect(&serving.socket(), "guest");
    assert_eq!(serving.stat_of(&guest)["weight"], 1);
    serving.control(&["weight", &guest.id().to_string(), "40"]);
    assert_eq!(serving.stat_of(&guest)["weight"], 40);
}

#[test]
fn a_flush_leaves_the_pools_and_nothing_in_them() {
    let serving = Serving::start(&[]);
    let mut guest = Guest::connect(&serving.socket(), "guest");
    let mut another = Guest::connect(&serving.socket(), "another");
    assert_eq!(guest.put(0, &[1; 8192]), Outcome::Stored);
    assert_eq!(another.put(0, &[2; 8192]), Outcome::Stored);
    serving.control(&["flush", &guest.id().to_string()]);
    assert_eq!(guest.get(0, 8192).0, Outcome::Missing);
    assert_eq!(another.get(0, 8192), (Outcome::Filled, vec![2; 8192]));
    assert_eq!(guest.put(0, &[3; 8192]), Outcome::Stored);
    assert_eq!(guest.get(0, 8192), (Outcome::Filled, vec![3; 8192]));
}

#[test]
fn a_destroyed_client_is_closed_and_gone() {
    let serving = Serving::start(&[]);
    let mut guest = Guest::connect(&serving.socket(), "guest");
    let mut another = Guest::connect(&serving.socket(), "another");
    assert_eq!(guest.put(0, &[1; 8192]), Outcome::Stored);
    assert_eq!(another.put(0, &[2; 8192]), Outcome::Stored);
    serving.control(&["destroy", &guest.id().to_string()]);
    let clients = serving.stat()["clients"].clone();
    assert_eq!(clients.as_array().unwrap().len(), 1);
    assert_eq!(clients[0]["client"], another.id());
    let slices = [tmem_ring::Slice { offset: 0, len: 4096 }];
    let memory = tmem_ring::Memory { region: guest.region.number(), slices: &slices };
    let put = tmem_ring::Action::Put { offset: 0, from: memory };
    let operation = tmem_ring::Operation { tag: 0, pool: guest.pool, object: 1.into(), action: put };
    guest.queue.push(&operation).unwrap();
    assert_eq!(guest.queue.wait(1, Some(PATIENCE)), Err(QueueError::Closed));
    assert_eq!(another.get(0, 8192), (Outcome::Filled, vec![2; 8192]));
}

#[test]
fn who_is_authorised_can_join() {
    let serving = Serving::start(&[]);
    let shared = PoolOptions { shared: true, ..PoolOptions::persistent() };
    let mut owner = Guest::with(&serving.socket(), "owner", shared);
    let mut guest = Guest::connect(&serving.socket(), "guest");
    assert_eq!(owner.put(0, &[1; 4096]), Outcome::Stored);
    assert!(guest.client.join_pool(owner.pool).is_err());
    serving.control(&["authorise", &owner.pool.0.to_string(), &guest.id().to_string()]);
    guest.client.join_pool(owner.pool).unwrap();
    assert_eq!(guest.get_from(owner.pool, 0, 4096), (Outcome::Filled, vec![1; 4096]));
}

#[test]
fn what_cannot_be_done_is_told() {
    let serving = Serving::start(&[]);
    let guest = Guest::connect(&serving.socket(), "guest");
    let socket = serving.socket();
    let client = |verb: &[&str], saying: &[&str]| {
        fails(&[&["client", "--socket", text(&socket)], verb].concat(), saying);
    };
    client(&["freeze", "4000"], &["4000"]);
    client(&["authorise", "4000", &guest.id().to_string()], &["4000"]);
    client(&["cap", "1", "many"], &["`many` is not a size"]);
    client(&["weight", "1", "0"], &["<WEIGHT>"]);
    client(&["freeze"], &["<ID>"]);
    let nowhere = serving.scratch.path("nowhere");
    fails(&["client", "--socket", text(&nowhere), "freeze", "1"], &[text(&nowhere), "tmem serve"]);
}
