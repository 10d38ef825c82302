//! The limit, as somebody else measures it: what the kernel says of each process of a run, added up.

use crate::harness::{Run, Running, TMEM};
use std::process::Command;

/// Private memory of the monitor that is not the store, and pages that were written since the last look.
const SLACK_KIB: u64 = 16 << 10;

/// KiB that all processes of a run have: private pages, each counted once, and shared ones by share. An agent's
/// memory is its program's.
fn used_kib(run: &Running) -> u64 {
    let own = run.front();
    let processes = run.processes().into_iter().filter(|process| *process != own && !process.is_agent());
    processes.map(|process| process.kib("smaps_rollup", "Pss_Anon") + process.kib("smaps_rollup", "Pss_Shmem")).sum()
}

#[test]
fn memory_stays_within_the_limit() {
    let Some(run) = Run::new("64M") else { return };
    let mut run = run.subject("hold", &["--seconds", "5"]).start();
    let mut most = 0;
    run.until("the end", |run| {
        most = most.max(used_kib(run));
        run.stdout().contains("ok hold")
    });
    let ended = run.finish();
    ended.ok("64M");
    let reported = ended.report().count("given_peak_bytes") >> 10;
    eprintln!("{most} KiB seen, {reported} KiB reported");
    assert!(most <= (64 << 10) + SLACK_KIB, "{most} KiB: {}", ended.story());
    // The report tells what others see.
    assert!(most <= reported + SLACK_KIB, "{most} KiB seen: {}", ended.story());
    // And the memory is used: a limit is not a reason to keep everything away.
    assert!(reported >= 48 << 10, "{}", ended.story());
}

#[test]
fn a_lower_limit_takes_memory_away() {
    let Some(run) = Run::new("160M") else { return };
    let mut run = run.subject("hold", &["--seconds", "8", "--ballast", "160"]).start();
    run.until_ready();
    let front = run.front().0.to_string();
    let limit = |size: &str| {
        let output = Command::new(TMEM).args(["limit", &front, size]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    assert!(used_kib(&run) > 100 << 10, "{} KiB", used_kib(&run));
    limit("96M");
    run.until("less than 96 MiB", |run| used_kib(run) <= (96 << 10) + SLACK_KIB);
    limit("192M");
    let ended = run.finish();
    assert_eq!(ended.code(), 0, "{}", ended.story());
}

#[test]
fn below_the_limit_nothing_is_evicted() {
    let Some(run) = Run::new("256M") else { return };
    let ended = run.subject("fill-random", &["--native"]).finish();
    ended.ok("256M");
    assert_eq!((ended.report().count("evicted_bytes"), ended.report().count("faults")), (0, 0), "{}", ended.story());
}

#[test]
fn wanted_is_what_the_program_has_without_a_limit() {
    let Some(run) = Run::new("64M") else { return };
    let ended = run.subject("fill-random", &["--mib", "112"]).finish();
    ended.ok("64M");
    // All of it is touched, and a little ballast, should less than half of it be evicted by then.
    let wanted = ended.report().count("wanted_peak_bytes") >> 20;
    assert!((112..=124).contains(&wanted), "{wanted} MiB: {}", ended.story());
    assert!(ended.report().number("density") > 2.0, "{}", ended.story());
}
