//! Ctrl-C, SIGTERM and SIGHUP: long work looks here now and then and ends with an error, so that whoever holds
//! something gives it back on the way out.

use anyhow::{Context, Result, ensure};
use std::sync::atomic::{AtomicBool, Ordering};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Catches the signals from now on.
pub(crate) fn install() -> Result<()> {
    // Relaxed: the flag publishes nothing but itself.
    ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::Relaxed)).context("cannot catch Ctrl-C")
}

/// Whether one of them came.
pub(crate) fn is_set() -> bool {
    INTERRUPTED.load(Ordering::Relaxed) // Relaxed: as above
}

/// Fails once one of them came.
pub(crate) fn check() -> Result<()> {
    ensure!(!is_set(), "interrupted; nothing is left behind");
    Ok(())
}
