//! The subject by itself: every case is right where nobody pages it, and notices when its memory is broken.

use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Exit statuses of the subject.
const SKIPPED: i32 = 77;
const WRONG: i32 = 99;
/// Cases with an end of their own kind.
const OTHERWISE: &[&str] = &["exit", "die", "orphan", "daemon"];
/// Cases that check no region which could be broken in place of being evicted.
const UNBROKEN: &[&str] = &["heap", "many-processes", "arguments", "locked-all", "noise"];

fn subject(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tmem-subject"));
    command.args(arguments).stdin(Stdio::null()).output().expect("the subject starts")
}

/// Runs `each` on every case, on both processors.
fn cases(each: impl Fn(&str) + Sync) {
    let text = String::from_utf8(subject(&["list"]).stdout).expect("names");
    let names: Vec<&str> = text.lines().filter(|name| !OTHERWISE.contains(name)).collect();
    assert!(names.len() > 60, "{names:?}");
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            // Relaxed: each number is taken once, and nothing else is shared.
            scope.spawn(|| {
                while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
                    each(name);
                }
            });
        }
    });
}

fn told(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    format!("{}: {} {}", output.status, text(&output.stdout), text(&output.stderr))
}

#[test]
fn every_case_is_right_by_itself() {
    cases(|name| {
        let output = subject(&[name, "--native", "--seconds", "1", "--count", "8"]);
        if output.status.code() == Some(SKIPPED) {
            println!("{name} {}", String::from_utf8_lossy(&output.stdout).trim());
            return;
        }
        let stdout = String::from_utf8_lossy(&output.stdout);
        let last = stdout.lines().last().unwrap_or_default();
        assert!(output.status.success() && last.starts_with(&format!("ok {name} ")), "{name}: {}", told(&output));
    });
}

#[test]
fn every_case_notices_what_is_wrong() {
    for sabotage in ["zeros", "elsewhere", "stale", "bit"] {
        cases(|name| {
            let arguments = [name, "--native", "--seconds", "1", "--count", "8", "--mib", "16", "--break", sabotage];
            let output = subject(&arguments);
            let noticed = [WRONG, SKIPPED].map(Some).contains(&output.status.code());
            assert_eq!(noticed, !UNBROKEN.contains(&name), "{name} {sabotage}: {}", told(&output));
        });
    }
}

#[test]
fn exit_statuses() {
    assert_eq!(subject(&["exit", "--native", "--mib", "1", "--number", "7"]).status.code(), Some(7));
    assert_eq!(subject(&["die", "--native", "--mib", "1", "--number", "15"]).status.code(), None);
    assert_eq!(subject(&["nonsense"]).status.code(), Some(2));
}
