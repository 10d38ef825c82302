//! A client that puts, gets and flushes at random, in batches, and knows what every get must find.

use super::guest::REGION_BYTES;
use super::{Guest, Random};
use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;
use tmem_ring::{Action, Memory, Operation, Outcome, QueueError, Slice};

/// Granules that it uses.
const GRANULES: u64 = 4096;
/// Bytes of one.
const BYTES: usize = 4096;
/// Operations at once.
const BATCH: usize = 32;
/// A batch takes less; a daemon that is gone is told of sooner.
const BATCH_LIMIT: Duration = Duration::from_secs(10);

const _: () = assert!(BATCH * BYTES <= REGION_BYTES, "a page for each");

/// The client, and what it knows.
#[derive(Debug)]
pub(crate) struct Churn {
    pub(crate) guest: Guest,
    random: Random,
    /// What was put last, by granule.
    stored: HashMap<u64, u64>,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Put { version: u64 },
    Get,
    Flush,
}

impl Churn {
    pub(crate) fn new(socket: &Path, name: &str, seed: u64) -> Self {
        Self { guest: Guest::connect(socket, name), random: Random::new(seed), stored: HashMap::new() }
    }

    /// A batch of operations on granules of which no two are the same.
    pub(crate) fn step(&mut self) -> Result<(), QueueError> {
        let first = self.random.below(GRANULES);
        let mut steps = Vec::new();
        for nth in 0..BATCH {
            let granule = (first + nth as u64 * 37) % GRANULES;
            let step = match self.random.below(8) {
                0..4 => Step::Put { version: self.random.next() },
                4..7 => Step::Get,
                _ => Step::Flush,
            };
            self.push(nth, granule, step)?;
            steps.push((granule, step));
        }
        let ready = self.guest.queue.wait(BATCH, Some(BATCH_LIMIT))?;
        assert_eq!(ready, BATCH, "the queue hangs");
        for _ in 0..BATCH {
            let completion = self.guest.queue.reap_one()?.unwrap();
            let place = usize::try_from(completion.tag).unwrap();
            let (granule, step) = steps[place];
            self.judge(place, granule, step, &completion.outcome);
        }
        Ok(())
    }

    fn push(&mut self, nth: usize, granule: u64, step: Step) -> Result<(), QueueError> {
        let (start, offset, len) = (nth * BYTES, granule * BYTES as u64, BYTES as u64);
        let slices = [Slice { offset: start as u64, len }];
        let memory = Memory { region: self.guest.region.number(), slices: &slices };
        let action = match step {
            Step::Put { version } => {
                self.guest.region.write(start, &page(granule, version));
                Action::Put { offset, from: memory }
            }
            Step::Get => Action::Get { offset, into: memory },
            Step::Flush => Action::Flush { offset, len },
        };
        self.guest.queue.push(&Operation { tag: nth as u64, pool: self.guest.pool, object: 1.into(), action })
    }

    fn judge(&mut self, place: usize, granule: u64, step: Step, outcome: &Outcome) {
        let known = self.stored.get(&granule).copied();
        match (step, outcome) {
            (Step::Put { version }, Outcome::Stored) => drop(self.stored.insert(granule, version)),
            (Step::Put { .. }, Outcome::Rejected(_)) | (Step::Flush, Outcome::Flushed { .. }) => {
                self.stored.remove(&granule);
            }
            (Step::Get, Outcome::Missing) => assert_eq!(known, None, "granule {granule} is missing"),
            (Step::Get, Outcome::Filled) => {
                let mut bytes = vec![0; BYTES];
                self.guest.region.read(place * BYTES, &mut bytes);
                let version = known.unwrap_or_else(|| panic!("granule {granule} was never put, or flushed"));
                assert!(bytes == page(granule, version), "wrong bytes in granule {granule}");
            }
            (step, outcome) => panic!("{step:?} of granule {granule}: {outcome:?}"),
        }
    }

    /// Gets everything that it has put and looks at it.
    pub(crate) fn verify(&mut self) {
        let stored: Vec<(u64, u64)> = self.stored.iter().map(|(granule, version)| (*granule, *version)).collect();
        for (granule, version) in stored {
            let (outcome, bytes) = self.guest.get(granule * BYTES as u64, BYTES);
            assert_eq!(outcome, Outcome::Filled, "granule {granule}");
            assert!(bytes == page(granule, version), "wrong bytes in granule {granule}");
        }
    }
}

/// What is put: half of it noise, so that it takes room.
fn page(granule: u64, version: u64) -> Vec<u8> {
    let mut noise = Random::new(granule ^ version);
    let words = (0..BYTES as u64 / 8).map(|word| if word % 2 == 0 { noise.next() } else { granule + word });
    words.flat_map(u64::to_le_bytes).collect()
}
