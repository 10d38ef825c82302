//! What the daemon tells of its clients.

use crate::harness::{Guest, Raw, Serving};
use std::sync::atomic::Ordering;
use tmem_ring::wire::{PoolOptions, Reply, Request};
use tmem_sys::{Doorbell, Words};

/// The word of a queue in which its client says how much it has submitted (LAYOUT.md).
const SUBMITTED: usize = 512 / 8;

/// The line with these words, when it is there.
#[track_caller]
fn line(serving: &Serving, words: &str) -> String {
    serving.tells(words).lines().rfind(|line| line.contains(words)).unwrap().to_owned()
}

#[test]
fn who_comes_and_goes_is_told_with_what_becomes_of_its_pools() {
    let serving = Serving::start(&[]);
    let guest = Guest::connect(&serving.socket(), "a \"guest\"");
    guest.client.create_pool(PoolOptions { outlives: true, ..PoolOptions::persistent() }).unwrap();
    let uid = rustix::process::getuid().as_raw();
    let who = format!("client {} \"a \\\"guest\\\"\" of uid {uid}", guest.id());
    let come = line(&serving, "has come");
    let process = format!("process {} of uid {uid}", std::process::id());
    assert!(come.contains("INFO") && come.contains(&who) && come.contains(&process), "{come}");
    let (id, key) = (guest.client.id(), guest.client.key().clone());
    drop(guest);
    let gone = line(&serving, "is gone");
    assert!(gone.contains(&format!("INFO {who}")) && gone.ends_with("pools emptied: 1, kept: 1"), "{gone}");
    let back = tmem_ring::client::Client::attach(&serving.socket(), id, &key).unwrap();
    assert!(line(&serving, "is back").contains(&who));
    serving.control(&["destroy", &id.0.to_string()]);
    drop(back);
    assert!(line(&serving, "does to").contains(&format!("{who}: Destroy")));
    let destroyed = line(&serving, "it was destroyed");
    assert!(destroyed.contains(&who) && destroyed.ends_with("pools emptied: 1, kept: 0"), "{destroyed}");
}

#[test]
fn who_is_thrown_out_is_told_with_what_for() {
    let serving = Serving::start(&[]);
    let deaf = Raw::new(&serving, "deaf");
    let packet = serde_json::to_vec(&Request::Stat).unwrap();
    let sent = (0..1_000_000).map(|_| deaf.channel.send(&packet, &[])).find(Result::is_err);
    assert!(sent.is_some(), "it reads nothing, and is not thrown out");
    let told = line(&serving, "is thrown out: it does not read its answers");
    assert!(told.contains("WARN") && told.contains("\"deaf\" of uid"), "{told}");

    let broken = Raw::new(&serving, "broken");
    let (reply, received) = broken.ask(&Request::OpenQueue { entries: 8 });
    assert!(matches!(reply, Reply::Queue { .. }));
    let [memory, bell] = <[_; 2]>::try_from(received.fds).unwrap();
    let memory = Words::map(memory).unwrap();
    memory[SUBMITTED].store(9, Ordering::Release); // Release: as a client that wants to be believed
    // Kept: who hangs up has ended, whatever its counts are.
    let bell = Doorbell::from_fd(bell);
    bell.ring();
    let told = line(&serving, "is thrown out: the counts of a queue");
    assert!(told.contains("WARN") && told.contains("\"broken\" of uid"), "{told}");
}

#[test]
fn what_is_refused_is_told_and_nobody_fills_the_log() {
    const ASKED: usize = 2000;
    let serving = Serving::start(&["--log", "debug"]);
    let raw = Raw::new(&serving, "greedy");
    for _ in 0..ASKED {
        let (reply, _) = raw.ask(&Request::DestroyPool { pool: tmem_ring::PoolId(4000) });
        assert!(matches!(reply, Reply::Failed { .. }));
    }
    let log = serving.tells("the rest of them is left out");
    let refused = log.lines().filter(|line| line.contains("DEBUG") && line.contains("was refused: \"no pool 4000"));
    let refused = refused.count();
    // Lines of a minute; of two, if one ends meanwhile.
    assert!((200..=500).contains(&refused), "{refused} of {ASKED} are told");
    // Who wants to be a client and may not is told at any level, below which nothing is.
    let quiet = Serving::start(&["--log", "warn"]);
    let stranger = Raw::stranger(&quiet);
    stranger.channel.send(b"\x1b[2J", &[]).unwrap();
    let told = line(&quiet, "was refused");
    assert!(told.contains("WARN") && told.contains("one request as JSON"), "{told}");
    drop(Guest::connect(&quiet.socket(), "guest"));
    let log = quiet.end().log;
    assert_eq!(log.lines().count(), 1, "{log}");
}
