//! The model of a pool's contents: a map, and what may become of an operation on it.

use super::GRANULE;
use super::pages::PAGE;
use super::plan::{Plan, UNTOUCHED, What};
use std::collections::BTreeMap;
use tmem::{GranuleMap, ObjectId, Outcome, Refusal};

/// Whether puts that store something new fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freezing {
    No,
    Yes,
}

/// Every granule that is there, or was when it was last seen.
#[derive(Debug, Default)]
pub struct Contents {
    /// What is there must be returned.
    pub persistent: bool,
    granules: BTreeMap<(ObjectId, u64), Box<[u8; PAGE]>>,
}

impl Contents {
    pub fn new(persistent: bool) -> Self {
        Self { persistent, granules: BTreeMap::new() }
    }

    /// Everything that is there: object and granule.
    pub fn names(&self) -> Vec<(ObjectId, u64)> {
        self.granules.keys().copied().collect()
    }

    pub fn len(&self) -> usize {
        self.granules.len()
    }

    pub fn clear(&mut self) {
        self.granules.clear();
    }

    /// Checks what became of `plan`, and does the same to the model.
    pub fn settle(&mut self, plan: &Plan, outcome: &Outcome, freezing: Freezing) -> Result<(), String> {
        if let Some(refusal) = plan.nonsense() {
            return expect(*outcome == Outcome::Refused(refusal), || format!("{outcome:?} instead of {refusal:?}"));
        }
        match plan.what {
            What::Put => self.settle_put(plan, outcome, freezing),
            What::Get | What::Take => self.settle_get(plan, outcome),
            What::Flush { .. } | What::FlushObject => {
                let Outcome::Flushed { granules } = outcome else {
                    return Err(format!("a flush came to {outcome:?}"));
                };
                let there = self.remove(plan);
                let right = if self.persistent { *granules == there } else { *granules <= there };
                expect(right, || format!("{granules} granules were flushed of {there}"))
            }
        }
    }

    fn settle_put(&mut self, plan: &Plan, outcome: &Outcome, freezing: Freezing) -> Result<(), String> {
        let replaces = plan.granules().all(|granule| self.granules.contains_key(&(plan.object, granule)));
        let frozen = match (freezing, replaces) {
            (Freezing::No, _) => Some(false),
            (Freezing::Yes, false) => Some(true),
            (Freezing::Yes, true) if self.persistent => Some(false),
            // It may have vanished.
            (Freezing::Yes, true) => None,
        };
        self.remove(plan);
        if frozen == Some(true) || *outcome == Outcome::Frozen {
            return expect(*outcome == Outcome::Frozen && frozen != Some(false), || {
                format!("{outcome:?} when {freezing:?}, and all of it was there: {replaces}")
            });
        }
        match outcome {
            Outcome::Rejected(_) => {}
            Outcome::Stored => {
                for (granule, bytes) in plan.granules().zip(plan.memory.chunks(PAGE)) {
                    let mut page = Box::new([0; PAGE]);
                    page[..bytes.len()].copy_from_slice(bytes);
                    self.granules.insert((plan.object, granule), page);
                }
            }
            other => return Err(format!("a put came to {other:?}")),
        }
        Ok(())
    }

    fn settle_get(&mut self, plan: &Plan, outcome: &Outcome) -> Result<(), String> {
        let first = plan.offset / GRANULE;
        let skip = usize::try_from(plan.offset % GRANULE).unwrap();
        let count = usize::try_from(plan.granules().end() - first + 1).unwrap();
        let filled = filled_of(outcome, count)?;
        for (index, granule) in plan.granules().enumerate() {
            let start = (index * PAGE).saturating_sub(skip);
            let end = ((index + 1) * PAGE - skip).min(plan.memory.len());
            let got = &plan.memory[start..end];
            let within = if index == 0 { skip } else { 0 };
            let name = (plan.object, granule);
            let known = self.granules.get(&name);
            match (known, filled(index)) {
                (None, true) => return Err(format!("granule {granule:#x} is there and should not be")),
                (Some(page), true) if *got != page[within..within + got.len()] => {
                    let at = got.iter().zip(&page[within..]).position(|(got, put)| got != put);
                    return Err(format!("granule {granule:#x} came back wrong from byte {at:?} on"));
                }
                (Some(_), false) if self.persistent => return Err(format!("granule {granule:#x} was lost")),
                (_, false) if got.iter().any(|byte| *byte != UNTOUCHED) => {
                    return Err(format!("granule {granule:#x} is missing and its memory was touched"));
                }
                (Some(_), false) => drop(self.granules.remove(&name)),
                _ => {}
            }
        }
        if plan.what == What::Take {
            self.remove(plan);
        }
        Ok(())
    }

    /// Removes what a plan touches. Returns how much of it was there.
    fn remove(&mut self, plan: &Plan) -> u64 {
        let range = plan.granules();
        let names = (plan.object, *range.start())..=(plan.object, *range.end());
        let there: Vec<_> = self.granules.range(names).map(|(name, _)| *name).collect();
        for name in &there {
            self.granules.remove(name);
        }
        there.len() as u64
    }
}

/// Which granules of a get were filled, by index.
fn filled_of(outcome: &Outcome, count: usize) -> Result<impl Fn(usize) -> bool + '_, String> {
    let map: Result<Option<&GranuleMap>, bool> = match outcome {
        Outcome::Filled => Err(true),
        Outcome::Missing => Err(false),
        Outcome::PartlyFilled(map) => Ok(Some(map)),
        other => return Err(format!("a get came to {other:?}")),
    };
    if let Ok(Some(map)) = map {
        let some = map.filled() > 0 && map.filled() < count;
        let beyond = map.is_filled(count);
        expect(map.len() == count && some && !beyond, || format!("a map of {map:?} for {count} granules"))?;
    }
    Ok(move |index| match map {
        Err(all) => all,
        Ok(map) => map.is_some_and(|map| map.is_filled(index)),
    })
}

/// Whether that is how an operation ends for a client or pool that was destroyed or is not this client's.
pub fn is_shut_out(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Refused(Refusal::UnknownPool(_) | Refusal::ClientDestroyed))
}

/// An error with that text unless `right`.
pub fn expect(right: bool, text: impl FnOnce() -> String) -> Result<(), String> {
    if right { Ok(()) } else { Err(text()) }
}
