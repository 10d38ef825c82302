//! How runs end: exit statuses, and programs that outlive their parents.

use crate::harness::{Run, pause};
use std::fs;
use std::time::{Duration, Instant};

const LIMIT: &str = "64M";

#[test]
fn exit_status_of_the_program() {
    for status in ["0", "7", "255"] {
        let Some(run) = Run::new(LIMIT) else { return };
        let ended = run.subject("exit", &["--number", status]).finish();
        assert_eq!(ended.code().to_string(), status, "{}", ended.story());
        ended.report().check(LIMIT, ended.code());
    }
}

#[test]
fn death_of_the_program() {
    for (signal, number) in [("15", 15), ("9", 9), ("6", 6)] {
        let Some(run) = Run::new(LIMIT) else { return };
        let ended = run.subject("die", &["--number", signal]).finish();
        assert_eq!(ended.code(), 128 + number, "{}", ended.story());
        ended.report().check(LIMIT, 128 + number);
    }
}

#[test]
fn arguments_and_environment_arrive() {
    let Some(run) = Run::new(LIMIT) else { return };
    let script = "printf '%s|' \"$0\" \"$@\" \"$GREETING\"";
    let run =
        run.environment("GREETING", "good day").program("/bin/sh", &["-c", script, "a b", "", "-- c", "--memory"]);
    let ended = run.finish();
    assert_eq!((ended.code(), &*ended.stdout), (0, "a b||-- c|--memory|good day|"), "{}", ended.story());
}

/// The case must write that all was well to a file, some time after the program has ended.
#[track_caller]
fn outlives(case: &str) {
    let Some(run) = Run::new(LIMIT) else { return };
    let file = std::env::temp_dir().join(format!("tmem-{case}-{}", std::process::id()));
    let path = file.display().to_string();
    let mut run = run.with_survivors().subject(case, &["--file", &path, "--mib", "32"]).start();
    run.until("ok of the program", |run| run.stdout().contains("ok "));
    let end = Instant::now() + Duration::from_secs(60);
    let told = loop {
        match fs::read_to_string(&file) {
            Ok(told) if told.ends_with('\n') => break told,
            _ => assert!(Instant::now() < end, "the child says nothing: {}", run.stderr()),
        }
        pause();
    };
    fs::remove_file(&file).unwrap();
    assert!(told.starts_with("ok outlived"), "{told}");
    run.gone_within(Duration::from_secs(5));
    let ended = run.finish();
    assert_eq!(ended.code(), 0, "{}", ended.story());
}

#[test]
fn a_child_outlives_the_program() {
    outlives("orphan");
}

#[test]
fn a_daemon_outlives_the_program() {
    outlives("daemon");
}
