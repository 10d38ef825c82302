//! Objects that many threads put, get, take and flush at the same time, and what may be seen of them.
//!
//! Every put has a version of its own, drawn from one counter when it begins; its end is drawn from the same counter. From
//! this follows what a get may not see:
//! - a version that was superseded before the get began: a later put, take or flush of the granule began after the version's
//!   put had ended, and has itself ended;
//! - a version whose put was rejected, or that was taken, before the get began;
//! - anything that is not one whole page of that granule.
//!
//! And no version is taken twice.

use super::described::{self, Description};
use super::pages::PAGE;
use super::random::Random;
use super::{GRANULE, plan};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tmem::{Outcome, Pool};

/// Versions of a granule that are remembered.
const MEMORY: usize = 4096;

/// What is known about one granule.
#[derive(Debug, Default)]
struct History {
    /// Versions that may still be seen, and when their puts ended.
    visible: Vec<(u64, Option<u64>)>,
    /// What ended before this is superseded.
    floor: u64,
    taken: VecDeque<u64>,
    /// When versions were about to be put.
    begun: VecDeque<(u64, u64)>,
}

/// One object.
#[derive(Debug)]
pub struct Shared {
    pub pool: Pool,
    object: u64,
    histories: Vec<Mutex<History>>,
    clock: AtomicU64,
}

impl Shared {
    pub fn new(pool: Pool, object: u64, granules: usize) -> Self {
        let histories = (0..granules).map(|_| Mutex::default()).collect();
        Self { pool, object, histories, clock: AtomicU64::new(1) }
    }

    /// One random operation of thread `thread`, through its own handle.
    pub fn step(&self, random: &mut Random, (thread, pool): (u64, &Pool)) -> Result<(), String> {
        let first = random.index(self.histories.len());
        let most = (self.histories.len() - first).min(if random.one_in(8) { 40 } else { 4 });
        let range = first..first + 1 + random.index(most);
        match random.below(100) {
            0..40 => self.put(thread, pool, range),
            40..75 => self.get(pool, range, plan::What::Get),
            75..90 => self.get(pool, range, plan::What::Take),
            90..99 => self.flush(|| pool.flush(self.object, offset(range.start), offset(range.len())), range.clone()),
            _ => self.flush(|| pool.flush_object(self.object), 0..self.histories.len()),
        }
    }

    fn tick(&self) -> u64 {
        // SeqCst: whoever draws a larger number comes later for every thread; all else that is shared is behind locks.
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    fn history(&self, granule: usize) -> MutexGuard<'_, History> {
        self.histories[granule].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, thread: u64, pool: &Pool, range: core::ops::Range<usize>) -> Result<(), String> {
        let version = self.tick();
        let mut memory = vec![0; range.len() * PAGE];
        for (granule, page) in range.clone().zip(memory.chunks_mut(PAGE)) {
            let description = Description { object: self.object, granule: granule as u64, version, thread };
            described::write(description, page);
            let mut history = self.history(granule);
            history.begin(version, self.tick());
        }
        let outcome = pool.put(self.object, offset(range.start), &memory);
        let end = self.tick();
        let stored = match outcome {
            Outcome::Stored => true,
            Outcome::Rejected(_) => false,
            other => return Err(format!("a put came to {other:?}")),
        };
        for granule in range {
            let mut history = self.history(granule);
            if let Some(own) = history.visible.iter().position(|(seen, _)| *seen == version) {
                if stored {
                    history.visible[own].1 = Some(end);
                } else {
                    history.visible.swap_remove(own);
                }
            }
            history.supersede(version);
        }
        Ok(())
    }

    fn flush(&self, flush: impl FnOnce() -> Outcome, range: core::ops::Range<usize>) -> Result<(), String> {
        let start = self.tick();
        let outcome = flush();
        for granule in range {
            self.history(granule).supersede(start);
        }
        if matches!(outcome, Outcome::Flushed { .. }) { Ok(()) } else { Err(format!("a flush came to {outcome:?}")) }
    }

    fn get(&self, pool: &Pool, range: core::ops::Range<usize>, what: plan::What) -> Result<(), String> {
        let start = self.tick();
        let visible: Vec<Vec<u64>> = range.clone().map(|granule| self.history(granule).versions()).collect();
        let mut memory = vec![plan::UNTOUCHED; range.len() * PAGE];
        let outcome = if what == plan::What::Take {
            pool.take(self.object, offset(range.start), &mut memory)
        } else {
            pool.get(self.object, offset(range.start), &mut memory)
        };
        for (index, (granule, page)) in range.zip(memory.chunks(PAGE)).enumerate() {
            let filled = match &outcome {
                Outcome::Filled => true,
                Outcome::Missing => false,
                Outcome::PartlyFilled(map) => map.is_filled(index),
                other => return Err(format!("a get came to {other:?}")),
            };
            if !filled {
                let untouched = page.iter().all(|byte| *byte == plan::UNTOUCHED);
                if !untouched {
                    return Err(format!("granule {granule} is missing and its memory was touched"));
                }
                continue;
            }
            let found = described::read(page)?;
            let wrong = |what: &str| Err(format!("granule {granule} of {}: {what}: {found:?}", self.object));
            if (found.object, found.granule) != (self.object, granule as u64) {
                return wrong("another granule's page");
            }
            if !visible[index].contains(&found.version) && !self.history(granule).has_begun_after(start, found.version)
            {
                return wrong("a page that was superseded, rejected or taken before");
            }
            if what == plan::What::Take && !self.history(granule).take(found.version) {
                return wrong("taken twice");
            }
        }
        Ok(())
    }
}

impl History {
    fn versions(&self) -> Vec<u64> {
        self.visible.iter().map(|(version, _)| *version).collect()
    }

    /// Something that began at `start` has replaced or removed the granule.
    fn supersede(&mut self, start: u64) {
        self.floor = self.floor.max(start);
        let floor = self.floor;
        self.visible.retain(|(_, end)| end.is_none_or(|end| end >= floor));
    }

    /// Returns whether nobody has taken it before.
    fn take(&mut self, version: u64) -> bool {
        if self.taken.contains(&version) {
            return false;
        }
        self.visible.retain(|(seen, _)| *seen != version);
        remember(&mut self.taken, version);
        true
    }

    /// A put is about to begin.
    fn begin(&mut self, version: u64, now: u64) {
        self.visible.push((version, None));
        remember(&mut self.begun, (version, now));
    }

    fn has_begun_after(&self, start: u64, version: u64) -> bool {
        self.begun.iter().any(|(begun, at)| *begun == version && *at > start)
    }
}

fn remember<T>(memory: &mut VecDeque<T>, new: T) {
    memory.push_back(new);
    if memory.len() > MEMORY {
        memory.pop_front();
    }
}

fn offset(granules: usize) -> u64 {
    granules as u64 * GRANULE
}
