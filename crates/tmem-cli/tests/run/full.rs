//! A program that needs more than there is, of data that no codec makes smaller: each way of `--on-full`.

use crate::harness::{Run, Running, TMEM};
use crate::programs::find;
use rustix::process::Signal;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

const LIMIT: &str = "64M";
const NOISE: [&str; 2] = ["--mib", "96"];

fn noise(on_full: &str) -> Option<Run> {
    Some(Run::new(LIMIT)?.option("--on-full", on_full).subject("noise", &NOISE))
}

/// `tmem limit`.
fn limit(id: i32, size: &str) -> Output {
    Command::new(TMEM).args(["limit", &id.to_string(), size]).stdin(Stdio::null()).output().unwrap()
}

/// Whether tmem has said that it is full: the limit, and how to raise it.
fn is_said(run: &Running) -> bool {
    let said = run.stderr();
    said.contains("64") && said.contains("tmem limit")
}

fn stops_and_goes_on(raise: impl Fn(&Running) -> i32) {
    let Some(run) = noise("stop") else { return };
    let mut run = run.start();
    run.until("stopped with a message", |run| {
        is_said(run) && run.programs().first().is_some_and(|program| program.is_stopped())
    });
    let raised = limit(raise(&run), "160M");
    assert!(raised.status.success(), "{}", String::from_utf8_lossy(&raised.stderr));
    let ended = run.finish();
    assert_eq!(ended.code(), 0, "{}", ended.story());
    assert!(ended.stdout.contains("ok noise"), "{}", ended.story());
    ended.report().check("160M", 0);
}

#[test]
fn stop_then_raise_the_limit_of_the_run() {
    stops_and_goes_on(|run| run.front().0);
}

#[test]
fn stop_then_raise_the_limit_of_the_program() {
    stops_and_goes_on(|run| run.program().0);
}

#[test]
fn stop_is_the_default() {
    let Some(run) = Run::new(LIMIT) else { return };
    let mut run = run.subject("noise", &NOISE).start();
    run.until("stopped with a message", |run| {
        is_said(run) && run.programs().first().is_some_and(|program| program.is_stopped())
    });
}

/// With a signal pending, a thread that waits for a page in a system call looks for it all the time, and tells of it each
/// time: a program that was to stop took a CPU, and the monitor another one and more and more memory.
#[test]
fn a_program_that_waits_in_a_system_call_waits_asleep() {
    let (Some(python), Some(run)) = (find("python3"), Run::new(LIMIT)) else { return };
    let read = "a = bytearray(96 << 20); print(open('/dev/urandom', 'rb', 0).readinto(a))";
    let mut run = run.program(python, &["-c", read]).start();
    run.until("full", is_said);
    let used = |run: &Running| run.program().cpu_ticks() + run.monitor().cpu_ticks();
    let before = used(&run);
    std::thread::sleep(Duration::from_secs(2)); // the time over which it is measured
    let ticks = used(&run) - before;
    assert!(ticks < 100, "{ticks} ticks in two seconds");
    assert!(limit(run.front().0, "160M").status.success());
    let ended = run.finish();
    assert_eq!((ended.code(), ended.stdout.as_str()), (0, "100663296\n"), "{}", ended.story());
}

#[test]
fn kill_says_why() {
    let Some(run) = noise("kill") else { return };
    let ended = run.finish();
    assert_eq!(ended.code(), 128 + 9, "{}", ended.story());
    assert!(ended.stderr.contains("64"), "nobody said why: {}", ended.story());
    ended.report().check(LIMIT, 128 + 9);
}

/// 85 MiB of words: encoded a page at a time they need more than the limit, many pages together less.
#[test]
fn what_only_a_denser_store_can_hold_is_held() {
    let (Some(python), Some(run)) = (find("python3"), Run::new(LIMIT)) else { return };
    let words = ["-c", include_str!("programs/words.py")];
    let ended = run.option("--on-full", "kill").program(python, &words).finish();
    assert_eq!(ended.code(), 0, "{}", ended.story());
    assert_eq!(ended.stdout, "85 2880926874\n");
    ended.report().check(LIMIT, 0);
}

#[test]
fn exceed_goes_on() {
    let Some(run) = noise("exceed") else { return };
    let ended = run.finish();
    assert_eq!(ended.code(), 0, "{}", ended.story());
    assert!(ended.stdout.contains("ok noise"), "{}", ended.story());
    ended.report().check_identities(0);
    assert!(ended.report().count("given_peak_bytes") > 64 << 20, "{}", ended.story());
}

/// The ancestors of a run are not under it: neither who started it, nor the first process of all.
#[test]
fn limit_of_nobody_is_an_error() {
    let Some(run) = Run::new(LIMIT) else { return };
    let mut run = run.program("/bin/sleep", &["60"]).start();
    run.until("a program", |run| !run.programs().is_empty());
    for (id, why) in [(std::process::id().cast_signed(), "not under `tmem run`"), (1, "process 1 is ")] {
        let output = limit(id, "1G");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(why), "{output:?}");
    }
    run.front().signal(Signal::TERM);
    run.finish().report().check(LIMIT, 128 + 15);
}
