//! `tmem serve`, `tmem stat` and `tmem client`: real daemons, with clients in this process and in others.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod control;
mod deaths;
mod descriptors;
mod harness;
mod life;
mod reload;
mod stat;
mod told;
mod units;
mod weights;
