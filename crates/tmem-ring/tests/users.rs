//! Who may use a daemon, and who may control it: told by the kernel, not by the client. Needs root, to be somebody else.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use support::{World, hello, options};
use tmem_ring::ClientId;
use tmem_ring::client::{Client, ClientError, control, stat};
use tmem_ring::server::DaemonOptions;
use tmem_ring::wire::{PoolOptions, Verb};

/// Does something as another user; in a thread of its own, which alone is that user.
fn as_user<R: Send>(uid: u32, work: impl FnOnce() -> R + Send) -> R {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let uid = rustix::process::Uid::from_raw(uid);
            rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
            work()
        });
        thread.join().unwrap()
    })
}

#[track_caller]
fn assert_refused<T: std::fmt::Debug>(result: Result<T, ClientError>, expected: &str) {
    match result {
        Err(ClientError::Refused { message }) if message.contains(expected) => {}
        other => panic!("not refused with {expected:?}: {other:?}"),
    }
}

#[test]
fn users_do_what_they_are_allowed_to() {
    if tmem_sys::own_uid() != 0 {
        eprintln!("skipped: needs root, to connect as other users");
        return;
    }
    let world = World::with(DaemonOptions { allow: vec![1001, 1002], ..options() });
    let outliving = PoolOptions { outlives: true, ..PoolOptions::persistent() };
    for _ in 0..20 {
        let stranger = as_user(1003, || Client::connect(&world.path, &hello("stranger")));
        assert_refused(stranger, "uid 1003 may not use this daemon");
    }
    let (id, key) = as_user(1001, || {
        let client = Client::connect(&world.path, &hello("allowed")).unwrap();
        client.create_pool(outliving).unwrap();
        assert_eq!(stat(&world.path).unwrap().clients.len(), 1);
        assert_refused(control(&world.path, client.id(), Verb::Thaw), "uid 1001 may not control clients");
        (client.id(), client.key().clone())
    });
    assert_eq!(world.stat_of(id).map(|stat| stat.uid), Some(1001));
    world.within_a_second("away", |world| world.stat_of(id).unwrap().pid.is_none());
    // The key alone is not enough, not even for root.
    assert_refused(as_user(1002, || Client::attach(&world.path, id, &key)), "another user's");
    assert_refused(Client::attach(&world.path, id, &key), "another user's");
    as_user(1001, || Client::attach(&world.path, id, &key).map(drop)).unwrap();
    world.daemon().reload(DaemonOptions { allow: vec![1002], ..options() });
    assert_refused(as_user(1001, || Client::attach(&world.path, id, &key)), "uid 1001 may not use");
    assert_refused(control(&world.path, ClientId(999), Verb::Thaw), "there is no client 999");
    control(&world.path, id, Verb::Destroy).unwrap();
}
