//! Deaths at a bad moment. Whoever dies, no program goes on with memory that is not its own, and nothing hangs.

use crate::harness::{Process, Run, Running, pause};
use rustix::process::Signal;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

const LIMIT: &str = "64M";
/// A program whose memory is lost is dead by now.
const KILLED_WITHIN: Duration = Duration::from_secs(2);
/// Exit status of the subject when it has seen a wrong byte.
const WRONG: i32 = 99;
/// And when it cannot do what it is for here.
const SKIPPED: i32 = 77;

/// A run whose program has half of its memory elsewhere, and goes on for so many seconds.
#[track_caller]
fn held(seconds: &str) -> Option<Running> {
    let mut run = Run::new(LIMIT)?.subject("hold", &["--seconds", seconds]).start();
    run.until_ready();
    Some(run)
}

#[track_caller]
fn dead_within(process: Process, limit: Duration) {
    let end = Instant::now() + limit;
    while process.is_alive() {
        assert!(Instant::now() < end, "process {} still lives", process.0);
        pause();
    }
}

#[test]
fn a_program_dies_with_its_monitor() {
    let Some(run) = held("60") else { return };
    let (program, monitor) = (run.program(), run.monitor());
    monitor.signal(Signal::KILL);
    dead_within(program, KILLED_WITHIN);
    let ended = run.finish();
    assert!(ended.code() != 0 && ended.code() != WRONG && !ended.stdout.contains("ok hold"), "{}", ended.story());
    assert!(ended.stderr.contains("monitor"), "nobody said why: {}", ended.story());
}

#[test]
fn a_tree_of_programs_dies_with_its_monitor() {
    let Some(run) = Run::new(LIMIT) else { return };
    let mut run = run.program("/bin/sh", &["-c", "sleep 60 & sleep 60 & sleep 60 & wait"]).start();
    run.until("a shell and its children", |run| run.programs().len() >= 4);
    let programs = run.programs();
    run.monitor().signal(Signal::KILL);
    programs.into_iter().for_each(|program| dead_within(program, KILLED_WITHIN));
    let ended = run.finish();
    assert!(ended.code() != 0 && ended.stderr.contains("monitor"), "{}", ended.story());
}

#[test]
fn a_program_without_its_agent_is_right_or_stopped() {
    let Some(run) = held("3") else { return };
    let agents = run.agents();
    assert!(!agents.is_empty(), "no agent");
    agents.iter().for_each(|agent| agent.signal(Signal::KILL));
    let ended = run.finish();
    match ended.code() {
        0 => assert!(ended.stdout.contains("ok hold"), "{}", ended.story()),
        WRONG => panic!("wrong bytes: {}", ended.story()),
        _ => assert!(ended.stderr.contains("agent"), "nobody said why: {}", ended.story()),
    }
}

/// Its agent, or a server, misses a page in staging; nobody waits for that for ever, and nobody reads it as zeros.
#[test]
fn a_program_that_discards_what_is_staged_is_stopped() {
    let Some(run) = Run::new(LIMIT) else { return };
    let ended = run.subject("discard-staged", &["--mib", "48", "--times", "20"]).finish();
    if ended.code() == SKIPPED {
        eprintln!("{}", ended.stdout.trim());
        return;
    }
    assert_eq!(ended.code(), 128 + 9, "{}", ended.story());
    assert!(ended.stderr.contains("could not vouch for its memory: a staged page"), "{}", ended.story());
}

#[test]
fn nothing_is_left_of_a_killed_program() {
    let Some(mut run) = held("60") else { return };
    run.program().signal(Signal::KILL);
    run.gone_within(Duration::from_secs(1));
    let ended = run.finish();
    assert_eq!(ended.code(), 128 + 9, "{}", ended.story());
    ended.report().check(LIMIT, 128 + 9);
}

#[test]
fn nothing_hangs_when_the_front_is_killed() {
    let Some(mut run) = held("3") else { return };
    let program = run.program();
    run.front().signal(Signal::KILL);
    // It goes on and is right, or it dies; and then the monitor goes too.
    dead_within(program, Duration::from_secs(60));
    run.gone_within(Duration::from_secs(5));
    let wrong = run.stderr().contains("wrong at");
    assert!(!wrong, "wrong bytes: {}{}", run.stdout(), run.stderr());
}

#[test]
fn a_test_that_fails_leaves_nothing_behind() {
    let Some(run) = Run::new(LIMIT) else { return };
    let script = "env -i /bin/sleep 60 & sleep 60 & wait";
    let mut run = run.with_survivors().program("/bin/sh", &["-c", script]).start();
    run.until("a child without the run's environment", |run| run.tree().len() > run.processes().len());
    let processes = run.tree();
    let failed = catch_unwind(AssertUnwindSafe(move || {
        run.monitor().signal(Signal::STOP);
        run.until("a failure", |_| panic!("as a test that fails"));
    }));
    assert!(failed.is_err());
    processes.into_iter().for_each(|process| assert!(!process.is_alive(), "{process:?} is left"));
}

#[test]
fn a_stopped_program_can_be_killed() {
    let Some(mut run) = held("60") else { return };
    run.program().signal(Signal::STOP);
    run.until("stopped", |run| run.programs().first().is_none_or(|program| program.is_stopped()));
    run.program().signal(Signal::KILL);
    run.gone_within(Duration::from_secs(1));
}

#[test]
fn signals_to_the_front_reach_the_program() {
    for (signal, number) in [(Signal::TERM, 15), (Signal::INT, 2), (Signal::HUP, 1)] {
        let Some(run) = held("60") else { return };
        run.front().signal(signal);
        let ended = run.finish();
        assert_eq!(ended.code(), 128 + number, "{}", ended.story());
    }
}
