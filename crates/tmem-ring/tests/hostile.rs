//! Clients that do not keep to the protocol: they are told so, or thrown out, and nobody else notices.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;
use support::{World, contents, hello, options};
use tmem_ring::client::{Client, ClientError};
use tmem_ring::server::DaemonOptions;
use tmem_ring::wire::{self, PoolOptions, Reply, Request};
use tmem_ring::{ClientId, Outcome, PoolId};
use tmem_sys::{Backing, Channel, Errno, Memfd};

/// A client made by hand.
struct Raw(Channel);

impl Raw {
    /// One that is no client yet.
    fn stranger(world: &World) -> Self {
        Self(Channel::connect_within(&world.path, Duration::from_secs(10)).unwrap())
    }

    fn client(world: &World) -> Self {
        let raw = Self::stranger(world);
        let hello = Request::Hello { version: wire::VERSION, name: "raw".into(), cap_bytes: None, weight: None };
        assert!(matches!(raw.ask(&hello, &[]), Some(Reply::Welcome { .. })));
        raw
    }

    fn say(&self, packet: &[u8], fds: &[BorrowedFd<'_>]) {
        self.0.send(packet, fds).unwrap();
    }

    /// The next reply; none if there is none within this time, or the daemon has hung up.
    fn hear_within(&self, timeout: Duration) -> Option<Reply> {
        let readable = tmem_sys::poll_readable(&[self.0.as_fd()], Some(timeout));
        if readable == Ok(1) { self.hear() } else { None }
    }

    /// The next reply; none if the daemon has hung up.
    fn hear(&self) -> Option<Reply> {
        let mut packet = [0; wire::PACKET_BYTES];
        let mut receive = || self.0.receive(&mut packet);
        let received = match receive() {
            Err(Errno::CONNRESET) => receive(),
            received => received,
        };
        match received {
            Ok(received) if received.len > 0 => Some(serde_json::from_slice(&packet[..received.len]).unwrap()),
            Err(Errno::AGAIN) => panic!("no answer: a hang"),
            _ => None,
        }
    }

    fn ask(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Option<Reply> {
        self.say(&serde_json::to_vec(request).unwrap(), fds);
        self.hear()
    }

    #[track_caller]
    fn assert_failed(&self, request: &Request, fds: &[BorrowedFd<'_>], expected: &str) {
        assert_failed(self.ask(request, fds), expected);
    }
}

#[track_caller]
fn assert_failed(reply: Option<Reply>, expected: &str) {
    match reply {
        Some(Reply::Failed { message }) if message.contains(expected) => {}
        other => panic!("not failed with {expected:?}: {other:?}"),
    }
}

/// That another client is served as ever.
#[track_caller]
fn assert_serves(world: &World) {
    let mut worker = world.worker("good", 1 << 20);
    let pool = worker.client.create_pool(PoolOptions::persistent()).unwrap();
    assert_eq!(worker.put(pool, 1, 0, &contents(1, 1 << 20)), Outcome::Stored);
    assert_eq!(worker.get(pool, 1, 0, 1 << 20).as_deref(), Ok(&contents(1, 1 << 20)[..]));
}

#[test]
fn packets_that_are_no_requests_are_refused_and_the_connection_goes_on() {
    let world = World::new();
    let raw = Raw::client(&world);
    let nested = "[".repeat(4000);
    for garbage in ["garbage", "{}", "[1,2,3]", "\"Bye\"", "\u{0}", "{\"Hello\":{}}", nested.as_str()] {
        raw.say(garbage.as_bytes(), &[]);
        assert_failed(raw.hear(), "one request as JSON");
    }
    raw.say(&[0xff; 100], &[]);
    assert_failed(raw.hear(), "one request as JSON");
    for len in [wire::PACKET_BYTES + 1, 100_000] {
        raw.say(&vec![b' '; len], &[]);
        assert_failed(raw.hear(), "at most 4096 bytes");
    }
    assert!(matches!(raw.ask(&Request::Stat, &[]), Some(Reply::Stat)));
    assert_serves(&world);
}

#[test]
fn requests_out_of_order_are_refused() {
    let world = World::new();
    let stranger = Raw::stranger(&world);
    let pool = PoolId(1);
    let for_clients = [
        Request::CreatePool(PoolOptions::persistent()),
        Request::JoinPool { pool },
        Request::Authorise { pool, client: ClientId(1) },
        Request::DestroyPool { pool },
        Request::Register { region: 1 },
        Request::Unregister { region: 1 },
        Request::OpenQueue { entries: 64 },
        Request::CloseQueue { queue: 1 },
    ];
    for request in for_clients {
        stranger.assert_failed(&request, &[], "say Hello or Attach first");
    }
    let hello = |version, name: &str| Request::Hello { version, name: name.into(), cap_bytes: None, weight: None };
    stranger.assert_failed(&hello(wire::VERSION + 1, "new"), &[], "use the same release");
    stranger.assert_failed(&hello(wire::VERSION, &"n".repeat(65)), &[], "at most 64 bytes");
    stranger.assert_failed(&hello(wire::VERSION, "\u{1b}[2J"), &[], "control characters");
    let client = Raw::client(&world);
    client.assert_failed(&hello(wire::VERSION, "again"), &[], "is client");
    client.assert_failed(&Request::Unregister { region: 1 }, &[], "no region is registered as 1");
    client.assert_failed(&Request::CloseQueue { queue: 77 }, &[], "no queue of this client");
    client.assert_failed(&Request::DestroyPool { pool: PoolId(77) }, &[], "this client's own");
    for entries in [0, 3, 1 << 16, u32::MAX] {
        client.assert_failed(&Request::OpenQueue { entries }, &[], "a power of two is wanted");
    }
}

#[test]
fn descriptors_that_are_no_regions_are_refused() {
    let world = World::new();
    let raw = Raw::client(&world);
    let register = Request::Register { region: 1 };
    let (pipe, _writer) = std::io::pipe().unwrap();
    raw.assert_failed(&register, &[pipe.as_fd()], "no memfd");
    let file = std::fs::File::open("/proc/self/exe").unwrap();
    raw.assert_failed(&register, &[file.as_fd()], "no memfd");
    raw.assert_failed(&register, &[raw.0.as_fd()], "no memfd");
    let unsealed = unsealed_memfd(4096);
    raw.assert_failed(&register, &[unsealed.as_fd()], "F_SEAL_SHRINK");
    let read_only = Memfd::holding("tmem-test", &[1; 4096]).unwrap();
    raw.assert_failed(&register, &[read_only.as_fd()], "F_SEAL_WRITE");
    let empty = Memfd::sealed("tmem-test", 0).unwrap();
    raw.assert_failed(&register, &[empty.as_fd()], "has 0 bytes");
    let ragged = Memfd::sealed("tmem-test", 5000).unwrap();
    raw.assert_failed(&register, &[ragged.as_fd()], "has 5000 bytes");
    let good = Memfd::sealed("tmem-test", 8192).unwrap();
    raw.assert_failed(&register, &[], "0 descriptors came");
    raw.assert_failed(&register, &[good.as_fd(); 2], "2 descriptors came");
    raw.assert_failed(&Request::Stat, &[good.as_fd()], "no descriptors come with this");
    raw.assert_failed(&Request::Register { region: u16::MAX }, &[good.as_fd()], "is taken, or for nobody");
    assert_eq!(raw.ask(&register, &[good.as_fd()]), Some(Reply::Done));
    raw.assert_failed(&register, &[good.as_fd()], "is taken");
    assert_serves(&world);
}

/// As a client makes it that knows nothing of seals: a file that only lives in memory.
fn unsealed_memfd(bytes: u64) -> OwnedFd {
    let fd = rustix::fs::memfd_create("tmem-test", rustix::fs::MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::fs::ftruncate(&fd, bytes).unwrap();
    fd
}

#[test]
fn who_does_not_read_its_answers_is_thrown_out() {
    let world = World::new();
    let raw = Raw::client(&world);
    raw.0.set_timeouts(Duration::from_secs(10)).unwrap();
    let packet = serde_json::to_vec(&Request::JoinPool { pool: PoolId(1 << 30) }).unwrap();
    let sent = (0..1_000_000).map(|_| raw.0.send(&packet, &[])).find(Result::is_err);
    assert!(matches!(sent, Some(Err(Errno::PIPE | Errno::CONNRESET))), "{sent:?}");
    assert_serves(&world);
    world.within_a_second("the hostile one is gone", |world| {
        world.daemon().stat().clients.iter().all(|client| client.name != "raw")
    });
}

#[test]
fn who_asks_before_it_has_its_answer_is_answered_or_thrown_out() {
    let world = World::new();
    for _ in 0..20 {
        let raw = Raw::client(&world);
        // Each is an errand; the answer to one may or may not be there when the next comes.
        let memory = Memfd::sealed("tmem-test", 4096).unwrap();
        let packet = |request: &Request| serde_json::to_vec(request).unwrap();
        let sent = (0..8).take_while(|_| {
            let register = raw.0.send(&packet(&Request::Register { region: 1 }), &[memory.as_fd()]);
            register.and_then(|()| raw.0.send(&packet(&Request::Unregister { region: 1 }), &[])).is_ok()
        });
        let sent = sent.count();
        let answers: Vec<Reply> = std::iter::from_fn(|| raw.hear_within(Duration::from_millis(200))).collect();
        let last = answers.last();
        let is_hasty =
            |reply: &Reply| matches!(reply, Reply::Failed { message } if message.contains("one request at a time"));
        assert!(last.is_some_and(is_hasty) || answers == vec![Reply::Done; 2 * sent], "{answers:?}");
    }
    assert_serves(&world);
    world.within_a_second("they are gone", |world| {
        world.daemon().stat().clients.iter().all(|client| client.name != "raw")
    });
}

#[test]
fn a_client_has_no_more_of_anything_than_it_may() {
    let world = World::with(DaemonOptions { most_clients: 3, ..options() });
    let client = world.client("greedy");
    let refused = |error: ClientError, expected: &str| {
        let message = error.to_string();
        assert!(message.contains(expected), "{message}");
    };
    let pools: Vec<_> = (0..256).map(|_| client.create_pool(PoolOptions::persistent()).unwrap()).collect();
    refused(client.create_pool(PoolOptions::persistent()).unwrap_err(), "has 256 pools");
    client.destroy_pool(pools[7]).unwrap();
    client.create_pool(PoolOptions::persistent()).unwrap();
    let mut regions: Vec<_> = (0..256).map(|_| client.create_region(4096, Backing::Small).unwrap()).collect();
    refused(client.create_region(4096, Backing::Small).unwrap_err(), "256 regions are registered");
    regions.pop();
    drop(client.create_region(4096, Backing::Small).unwrap());
    let queues: Vec<_> = (0..64).map(|_| client.open_queue(4).unwrap()).collect();
    refused(client.open_queue(4).unwrap_err(), "64 queues are open");
    drop(queues);
    world.within_a_second("closed", |world| world.stat_of(client.id()).unwrap().queues == 0);
    let longest = [(), ()].map(|()| client.open_queue(1 << 15).unwrap());
    refused(client.open_queue(1).unwrap_err(), "entries are open");
    drop(longest);
    let others = [world.client("second"), world.client("third")];
    refused(Client::connect(&world.path, &hello("fourth")).unwrap_err(), "3 clients are served");
    drop(others);
    world.within_a_second("room again", |world| Client::connect(&world.path, &hello("fourth")).is_ok());
}

#[test]
fn who_connects_and_says_nothing_is_in_nobodys_way() {
    let world = World::new();
    let silent: Vec<_> = (0..200).map(|_| Raw::stranger(&world)).collect();
    assert_serves(&world);
    // The oldest were sent away.
    assert_eq!(silent[0].hear(), None);
    assert!(matches!(silent[199].ask(&Request::Stat, &[]), Some(Reply::Stat)));
}
