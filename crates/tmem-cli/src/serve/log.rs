//! What the daemon tells: lines on standard error.

use std::env;
use std::io::{IsTerminal, stderr};
use tracing_subscriber::filter::LevelFilter;

/// From now on, up to this level.
pub(crate) fn start(level: LevelFilter) {
    let lines = tracing_subscriber::fmt().with_writer(stderr).with_max_level(level).with_target(false);
    let lines = lines.with_ansi(stderr().is_terminal());
    if goes_to_journal() {
        // It has its own times.
        lines.without_time().init();
    } else {
        lines.init();
    }
}

/// Whether standard error is the stream that systemd has connected with the journal (systemd.exec(5), `$JOURNAL_STREAM`).
fn goes_to_journal() -> bool {
    let Ok(stream) = env::var("JOURNAL_STREAM") else { return false };
    rustix::fs::fstat(stderr()).is_ok_and(|file| stream == format!("{}:{}", file.st_dev, file.st_ino))
}
