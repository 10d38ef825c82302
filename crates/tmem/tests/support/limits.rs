//! How long a random test runs, from which seed, and what it says when it fails.

use std::time::{Duration, Instant};

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a number, and is {text:?}")))
}

/// The seeds to run: `TMEM_SEED` alone, or as many as fit into `TMEM_SECONDS` (so many `seconds`, where that is not set).
pub fn seeds(seconds: u64) -> impl Iterator<Item = u64> {
    let only = number("TMEM_SEED");
    let end = Instant::now() + Duration::from_secs(number("TMEM_SECONDS").unwrap_or(seconds));
    let first = only.unwrap_or_else(|| number("TMEM_FIRST_SEED").unwrap_or(1));
    (first..)
        .take_while(move |seed| if only.is_some() { *seed == first } else { *seed == first || Instant::now() < end })
}

/// `TMEM_SECONDS`, or so many.
pub fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(number("TMEM_SECONDS").unwrap_or(seconds))
}

/// `TMEM_SEED`, or 1.
pub fn seed() -> u64 {
    number("TMEM_SEED").unwrap_or(1)
}

/// Says where a random test was when it failed.
#[derive(Debug)]
pub struct Where {
    pub seed: u64,
    pub step: u64,
}

impl Drop for Where {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed at step {} of seed {}: TMEM_SEED={} repeats it", self.step, self.seed, self.seed);
        }
    }
}
