//! SIGHUP reads the settings again.

use crate::harness::{Guest, Scratch, Serving, text};
use rustix::process::Signal;
use tmem_ring::{Outcome, Rejection};

/// A daemon with these settings.
fn start(settings: &str) -> Serving {
    let scratch = Scratch::new();
    let file = scratch.write("tmem.toml", settings);
    let file = text(&file).to_owned();
    Serving::start_in(scratch, &["--config", &file])
}

/// Gives it others, and waits until it has read them.
fn change(serving: &Serving, settings: &str) {
    serving.scratch.write("tmem.toml", settings);
    serving.signal(Signal::HUP);
    let told = serving.manager.hears("RELOADING=1");
    assert!(told.contains("MONOTONIC_USEC="), "{told}");
    serving.manager.hears("READY=1");
}

#[test]
fn a_hangup_changes_the_budget_and_the_caps_of_who_comes_then() {
    let serving = start("budget = \"64m\"\nclient-cap = \"32m\"\n");
    let mut first = Guest::connect(&serving.socket(), "first");
    assert_eq!(serving.stat_of(&first)["cap_bytes"], 32 << 20);
    change(&serving, "budget = \"48m\"\nclient-cap = \"64k\"\n");
    assert_eq!(serving.stat()["budget_bytes"], 48 << 20);
    let mut second = Guest::connect(&serving.socket(), "second");
    assert_eq!(serving.stat_of(&second)["cap_bytes"], 64 << 10);
    assert_eq!(second.put(0, &noise(1 << 20)), Outcome::Rejected(Rejection::Cap));
    assert_eq!(serving.stat_of(&first)["cap_bytes"], 32 << 20, "who was there keeps what it was given");
    assert_eq!(first.put(0, &noise(1 << 20)), Outcome::Stored);
    change(&serving, "budget = \"64m\"\n");
    let mut third = Guest::connect(&serving.socket(), "third");
    assert!(serving.stat_of(&third)["cap_bytes"].is_null());
    assert_eq!(third.put(0, &noise(1 << 20)), Outcome::Stored);
    assert_eq!(serving.end().status.code(), Some(0));
}

#[test]
fn wrong_settings_change_nothing() {
    let serving = start("budget = \"64m\"\nclient-cap = \"32m\"\n");
    let mut guest = Guest::connect(&serving.socket(), "guest");
    for (wrong, named) in [
        ("budget = \"48m\"\nclinet-cap = \"1m\"\n", "clinet-cap"),
        ("budget = \"900t\"\nclient-cap = \"1m\"\n", "900.0 TiB"),
        ("budget = \"8k\"\nclient-cap = \"1m\"\n", "too small"),
        ("client-cap = \"1m\"\n", "--budget SIZE"),
    ] {
        change(&serving, wrong);
        assert_eq!(serving.stat()["budget_bytes"], 64 << 20, "{wrong}");
        assert_eq!(serving.stat_of(&guest)["cap_bytes"], 32 << 20, "{wrong}");
        let log = serving.log();
        let last = log.lines().rfind(|line| line.contains("ERROR")).unwrap_or_default().to_owned();
        assert!(log.contains("the settings stay as they were") && log.contains(named), "{last}");
    }
    assert_eq!(guest.put(0, &noise(1 << 20)), Outcome::Stored, "it serves as before");
}

#[test]
fn what_needs_a_restart_is_told() {
    let serving = start("budget = \"64m\"\nworkers = 1\n");
    change(&serving, "budget = \"64m\"\nworkers = 2\n");
    assert!(serving.log().contains("WARN socket, mode and workers change only when"), "{}", serving.log());
    assert_eq!(serving.stat()["workers"], 1);
}

/// Bytes that take as much room as they are.
fn noise(len: usize) -> Vec<u8> {
    let mut random = crate::harness::Random::new(1);
    (0..len / 8).flat_map(|_| random.next().to_le_bytes()).collect()
}
