//! Huge pages: they leave whole, and come back whole.

use crate::harness::{Run, TMEM};
use std::process::Command;

/// What the subject walks over: 32 huge pages.
const MIB: &str = "64";
const CHUNKS: u64 = 32;
const HUGE_BYTES: u64 = 2 << 20;

#[test]
#[cfg_attr(
    debug_assertions,
    ignore = "nine tenths come back whole in release builds, and a little less where all is slower"
)]
fn huge_pages_that_are_walked_over_come_back_whole() {
    // Room at first: under pressure, what is touched for the first time comes as small pages.
    let Some(run) = Run::new("256M") else { return };
    let mut run = run.subject("huge-walk", &["--mib", MIB, "--times", "8"]).start();
    run.until("the memory is filled", |run| run.stdout().contains("ready") || run.stdout().contains("skipped"));
    if run.stdout().contains("skipped") {
        eprintln!("{}", run.stdout().trim());
        return;
    }
    let front = run.front().0.to_string();
    let output = Command::new(TMEM).args(["limit", &front, "56M"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let ended = run.finish();
    eprintln!("{}", ended.story());
    // The subject has checked every byte, and that nine tenths of what was there were huge pages.
    assert_eq!(ended.code(), 0, "{}", ended.story());
    let restored = ended.report().count("huge_pages_restored");
    let evicted = ended.report().count("evicted_bytes") / HUGE_BYTES;
    assert!(evicted > 2 * CHUNKS, "{}", ended.story());
    // What is out at the end never came back.
    assert!(restored <= evicted && restored * 10 >= (evicted - CHUNKS) * 9, "{}", ended.story());
}
