//! `tmem run` on programs that do odd things with their memory, and on ordinary ones.
//!
//! The odd ones are the cases of `tmem-subject`, each of which checks its own bytes. Where tmem cannot page (see `tmem
//! doctor`), every test says that it is skipped, and passes.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod cases;
mod copies;
mod deaths;
mod full;
mod harness;
mod huge;
#[cfg(feature = "fault-injection")]
mod injected;
mod limits;
mod lives;
mod programs;
mod torture;
