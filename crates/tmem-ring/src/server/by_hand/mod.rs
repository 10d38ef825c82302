//! The serving side moved by hand, one step at a time, as bytes say: for fuzzers, which must be able to repeat what they
//! found. `fuzz/` has the targets; the tests here run the same with random bytes.

#![cfg_attr(not(fuzzing), allow(unreachable_pub, reason = "exported for fuzzers only"))]

mod desk;
mod queue;

pub use desk::answer;
pub use queue::serve;

use tmem::{Store, StoreOptions};

/// A store small enough to be filled.
fn store() -> Store {
    Store::new(StoreOptions::with_budget(16 << 20)).unwrap_or_else(|error| panic!("no store: {error}"))
}

/// Bytes, taken from the front; zeros behind their end.
struct Bytes<'b>(&'b [u8]);

impl<'b> Bytes<'b> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn short(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    fn word(&mut self) -> u64 {
        u64::from_le_bytes(core::array::from_fn(|_| self.byte()))
    }

    /// At most so many.
    fn take(&mut self, most: usize) -> &'b [u8] {
        let (taken, rest) = self.0.split_at(most.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// A number that is likely to be at an edge of something.
    fn edge(&mut self) -> u64 {
        const EDGES: [u64; 8] = [0, 4096, 1 << 17, 1 << 18, 1 << 19, 1 << 32, 1 << 63, u64::MAX];
        let choice = self.byte();
        if choice >= 0xf0 {
            return self.word();
        }
        EDGES[usize::from(choice % 8)].wrapping_add(u64::from(choice / 8 % 3)).wrapping_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use crate::server::hostile_tests::random::Random;

    /// Runs it with random bytes.
    fn with_random_bytes(run: fn(&[u8])) {
        for seed in 0..200 {
            let mut bytes = vec![0; 600];
            Random::new(seed).fill(&mut bytes);
            run(&bytes);
        }
    }

    #[test]
    fn a_queue_takes_whatever_bytes_make_of_its_memory() {
        with_random_bytes(super::serve);
    }

    #[test]
    fn a_desk_answers_whatever_bytes_ask() {
        with_random_bytes(super::answer);
    }
}
