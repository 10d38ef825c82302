//! Random maps, moves, protections, discards and forks by many threads, under a limit that lets little of it stay.

use crate::harness::Run;
use std::time::{SystemTime, UNIX_EPOCH};

const SECONDS: &str = "20";

/// The seed is another one each time; `TMEM_TORTURE_SEED` runs one again.
#[test]
fn torture() {
    let Some(run) = Run::new("48M") else { return };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() % 100_000;
    let seed = std::env::var("TMEM_TORTURE_SEED").unwrap_or_else(|_| now.to_string());
    eprintln!("TMEM_TORTURE_SEED={seed}");
    let seconds = std::env::var("TMEM_TORTURE_SECONDS").unwrap_or_else(|_| SECONDS.to_owned());
    let arguments = ["--seed", &seed, "--seconds", &seconds, "--threads", "6", "--mib", "72"];
    let ended = run.option("--on-full", "exceed").subject("torture", &arguments).finish();
    eprintln!("{}", ended.story());
    assert_eq!(ended.code(), 0, "{}", ended.story());
    assert!(ended.stdout.contains("ok torture"), "{}", ended.story());
    ended.report().check_identities(0);
    assert!(ended.report().count("evicted_bytes") > 0, "{}", ended.story());
}

/// One thread, so that a failing seed fails again.
#[test]
fn torture_of_one_thread() {
    for seed in ["1", "2", "3"] {
        let Some(run) = Run::new("48M") else { return };
        let arguments = ["--seed", seed, "--seconds", "3", "--threads", "1", "--mib", "96"];
        let ended = run.option("--on-full", "exceed").subject("torture", &arguments).finish();
        assert_eq!(ended.code(), 0, "{}", ended.story());
        ended.report().check_identities(0);
    }
}
