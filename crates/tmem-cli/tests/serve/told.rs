//! What the daemon tells of its clients.

use crate::harness::{Guest, PATIENCE, Serving};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tmem_ring::wire::{self, PoolOptions, Reply, Request};
use tmem_sys::{Channel, Doorbell, Received, Words};

/// The word of a queue in which its client says how much it has submitted (LAYOUT.md).
const SUBMITTED: usize = 512 / 8;

/// A client that does not keep to the protocol.
struct Raw(Channel);

impl Raw {
    fn new(serving: &Serving, name: &str) -> Self {
        let raw = Self(Channel::connect_within(&serving.socket(), PATIENCE).unwrap());
        let hello = Request::Hello { version: wire::VERSION, name: name.to_owned(), cap_bytes: None, weight: None };
        assert!(matches!(raw.ask(&hello).0, Reply::Welcome { .. }));
        raw
    }

    fn ask(&self, request: &Request) -> (Reply, Received) {
        self.0.send(&serde_json::to_vec(request).unwrap(), &[]).unwrap();
        let mut packet = [0; wire::PACKET_BYTES];
        let received = self.0.receive(&mut packet).unwrap();
        (serde_json::from_slice(&packet[..received.len]).unwrap(), received)
    }
}

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
    let sent = (0..1_000_000).map(|_| deaf.0.send(&packet, &[])).find(Result::is_err);
    assert!(sent.is_some(), "it reads nothing, and is not thrown out");
    let told = line(&serving, "\"deaf\" of uid");
    assert!(told.contains("WARN") && told.contains("is thrown out: it does not read its answers"), "{told}");

    let broken = Raw::new(&serving, "broken");
    let (reply, received) = broken.ask(&Request::OpenQueue { entries: 8 });
    assert!(matches!(reply, Reply::Queue { .. }));
    let [memory, bell] = <[_; 2]>::try_from(received.fds).unwrap();
    let memory = Words::map(memory).unwrap();
    memory[SUBMITTED].store(9, Ordering::Release); // Release: as a client that wants to be believed
    Doorbell::from_fd(bell).ring();
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
    let stranger = Channel::connect_within(&quiet.socket(), Duration::from_secs(10)).unwrap();
    stranger.send(b"\x1b[2J", &[]).unwrap();
    let told = line(&quiet, "was refused");
    assert!(told.contains("WARN") && told.contains("one request as JSON"), "{told}");
    drop(Guest::connect(&quiet.socket(), "guest"));
    let log = quiet.end().log;
    assert_eq!(log.lines().count(), 1, "{log}");
}
