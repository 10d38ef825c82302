//! Descriptors that clients send and nobody has asked for.

use crate::harness::{Guest, PATIENCE, Raw, Serving};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};
use tmem_ring::Outcome;
use tmem_ring::wire::{Reply, Request};
use tmem_sys::Memfd;

/// As many as the kernel lets one packet have.
const MOST: usize = 253;

/// Descriptors that the daemon has open.
fn open(serving: &Serving) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", serving.child.id())).unwrap().count()
}

/// Waits until its first thread sleeps: the socket by which that has said that it is ready is closed then.
fn await_rest(serving: &Serving) {
    let start = Instant::now();
    loop {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", serving.child.id())).unwrap();
        // Behind the name, which ends with the last bracket.
        if stat.rsplit(") ").next().unwrap().starts_with('S') {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "it does not come to rest: {stat}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Sends a request with so many descriptors beside it.
fn send(raw: &Raw, request: &Request, count: usize) {
    let memory = Memfd::sealed("tmem-test", 4096).unwrap();
    let fds = vec![memory.as_fd(); count];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    assert!(beside.push(SendAncillaryMessage::ScmRights(&fds)));
    let packet = serde_json::to_vec(request).unwrap();
    sendmsg(raw.channel.as_fd(), &[IoSlice::new(&packet)], &mut beside, SendFlags::NOSIGNAL).unwrap();
}

#[test]
fn more_descriptors_than_a_packet_may_have_are_refused_and_closed() {
    let serving = Serving::start(&[]);
    let raw = Raw::new(&serving, "generous");
    await_rest(&serving);
    let before = open(&serving);
    for request in [Request::Register { region: 1 }, Request::Stat] {
        for count in [2, 4, 5, 6, 64, MOST] {
            send(&raw, &request, count);
            let (Reply::Failed { message }, _) = raw.hear() else { panic!("{count} descriptors are taken") };
            let too_many = "at most 4096 bytes and one descriptor";
            assert_eq!(message.contains(too_many), count > 4, "{count}: {message}");
            assert_eq!(open(&serving), before, "{count} descriptors with {request:?} are not closed");
        }
    }
    assert!(matches!(raw.ask(&Request::Stat).0, Reply::Stat));
    drop(raw);

    // Whoever is thrown out, whatever it has sent.
    for _ in 0..20 {
        let raw = Raw::new(&serving, "hasty");
        for _ in 0..4 {
            let packet = serde_json::to_vec(&Request::Unregister { region: 1 }).unwrap();
            if raw.channel.send(&packet, &[]).is_ok() {
                let _ = raw.channel.send(&packet, &[Memfd::sealed("tmem-test", 4096).unwrap().as_fd()]);
            }
        }
    }
    // One fewer: the connection of the first one.
    let start = Instant::now();
    while open(&serving) != before - 1 {
        assert!(start.elapsed() < PATIENCE, "{} descriptors are open, of {before}", open(&serving));
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(Guest::connect(&serving.socket(), "guest").put(0, &[7; 4096]), Outcome::Stored);
}
