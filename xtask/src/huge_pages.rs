//! Huge pages in the system's pool, for the tests that want some.

use crate::process::Change;
use crate::steps::Verdict;
use anyhow::{Context, Result};
use std::fs;

const POOL: &str = "/proc/sys/vm/nr_hugepages";

/// 32 MiB: more than all tests that run at once.
const WANTED: u64 = 16;

/// Tests that find no huge pages fail instead of skipping where this is set.
pub(crate) const PROMISE: &str = "TMEM_HUGE_PAGES";

/// Adds them, until what is put into `held` is dropped.
pub(crate) fn add(held: &mut Option<Change>) -> Result<Verdict> {
    let before = size()?;
    if !rustix::process::geteuid().is_root() {
        return Ok(Verdict::Skipped("only root can set huge pages aside (vm.nr_hugepages)".into()));
    }
    let (now, change) = Change::make(|| {
        // What the kernel does not find it leaves out.
        fs::write(POOL, (before + WANTED).to_string()).with_context(|| format!("cannot write to {POOL}"))?;
        Ok((size(), Box::new(move || put_back(before))))
    })?;
    if now? < before + WANTED {
        return Ok(Verdict::Skipped(format!(
            "the kernel does not find {WANTED} huge pages: the memory is too split up"
        )));
    }
    *held = Some(change);
    Ok(Verdict::Passed)
}

fn size() -> Result<u64> {
    let text = fs::read_to_string(POOL).with_context(|| format!("cannot read {POOL}"))?;
    text.trim().parse().with_context(|| format!("{POOL} holds no number: {text}"))
}

/// An undo has nobody to tell but the person who watches.
fn put_back(before: u64) {
    if let Err(error) = fs::write(POOL, before.to_string()) {
        eprintln!("{POOL} could not be set to {before} again: {error}");
    }
}
