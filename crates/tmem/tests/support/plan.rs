//! Operations before they are carried out, with the memory that they will lend.

use super::GRANULE;
use super::pages;
use super::random::Random;
use tmem::{Action, Client, Completion, ObjectId, Operation, Outcome, Pool, PoolId, Refusal};

/// What the memory of gets holds before: what was not filled must still be this.
pub const UNTOUCHED: u8 = 0xA5;

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Put,
    Get,
    Take,
    Flush { len: u64 },
    FlushObject,
}

/// An operation to be.
#[derive(Debug)]
pub struct Plan {
    pub tag: u64,
    pub pool: PoolId,
    pub object: ObjectId,
    pub offset: u64,
    pub what: What,
    pub memory: Vec<u8>,
    /// Where `memory` is cut into slices: ascending, some of them equal.
    pub cuts: Vec<usize>,
}

/// A plan's memory, lent.
enum Lent<'m> {
    Nothing,
    Read(Vec<&'m [u8]>),
    Write(Vec<&'m mut [u8]>),
}

impl<'m> Lent<'m> {
    fn action(&'m mut self, what: What, offset: u64) -> Action<'m> {
        match (what, self) {
            (What::Put, Self::Read(from)) => Action::Put { offset, from },
            (What::Get, Self::Write(into)) => Action::Get { offset, into },
            (What::Take, Self::Write(into)) => Action::Take { offset, into },
            (What::Flush { len }, _) => Action::Flush { offset, len },
            _ => Action::FlushObject,
        }
    }
}

impl Plan {
    /// Bytes that it names.
    pub fn len(&self) -> u64 {
        match self.what {
            What::Flush { len } => len,
            What::FlushObject => u64::MAX,
            What::Put | What::Get | What::Take => self.memory.len() as u64,
        }
    }

    /// Why it makes no sense, if it does not.
    pub fn nonsense(&self) -> Option<Refusal> {
        let (offset, len) = (self.offset, self.len());
        if self.what == What::FlushObject {
            None
        } else if self.what != What::Get && !offset.is_multiple_of(GRANULE) {
            Some(Refusal::Misaligned { offset })
        } else if len == 0 {
            Some(Refusal::EmptyRange)
        } else if offset.checked_add(len - 1).is_none() {
            Some(Refusal::BeyondEnd { offset, len })
        } else {
            None
        }
    }

    /// The granules that it touches, first and last. For one that makes sense.
    pub fn granules(&self) -> core::ops::RangeInclusive<u64> {
        if self.what == What::FlushObject {
            return 0..=u64::MAX;
        }
        self.offset / GRANULE..=(self.offset + (self.len() - 1)) / GRANULE
    }

    /// For a message.
    pub fn name(&self) -> String {
        let (what, offset, len) = (self.what, self.offset, self.len());
        format!("{what:?} of {len} bytes at {offset:#x} of {:?} {:?}", self.pool, self.object)
    }

    fn lend(&mut self) -> Lent<'_> {
        let bounds: Vec<usize> = self.cuts.iter().copied().chain([self.memory.len()]).collect();
        match self.what {
            What::Flush { .. } | What::FlushObject => Lent::Nothing,
            What::Put => {
                let starts = [0].into_iter().chain(self.cuts.iter().copied());
                Lent::Read(starts.zip(bounds).map(|(from, to)| &self.memory[from..to]).collect())
            }
            What::Get | What::Take => {
                let (mut rest, mut at) = (self.memory.as_mut_slice(), 0);
                let mut slices = Vec::new();
                for end in bounds {
                    let (slice, after) = rest.split_at_mut(end - at);
                    slices.push(slice);
                    (rest, at) = (after, end);
                }
                Lent::Write(slices)
            }
        }
    }
}

/// Carries the plans out as one batch. Every plan has one completion.
pub fn execute(client: &Client, plans: &mut [Plan]) -> Vec<Outcome> {
    let heads: Vec<_> = plans.iter().map(|plan| (plan.tag, plan.pool, plan.object, plan.offset, plan.what)).collect();
    let mut completions: Vec<Completion> = Vec::new();
    {
        let mut lent: Vec<Lent<'_>> = plans.iter_mut().map(Plan::lend).collect();
        let mut batch = Vec::new();
        for ((tag, pool, object, offset, what), lent) in heads.iter().copied().zip(&mut lent) {
            batch.push(Operation { tag, pool, object, action: lent.action(what, offset) });
        }
        client.execute(&mut batch, &mut completions);
    }
    assert_eq!(completions.len(), plans.len(), "one completion for each operation");
    let outcome_of = |plan: &Plan| {
        let mut own = completions.iter().filter(|completion| completion.tag == plan.tag);
        let outcome = own.next().unwrap_or_else(|| panic!("tag {} has no completion", plan.tag)).outcome.clone();
        assert!(own.next().is_none(), "tag {} has two completions", plan.tag);
        outcome
    };
    plans.iter().map(outcome_of).collect()
}

/// Carries one plan out by the pool's own functions, its memory in one piece.
pub fn call(pool: &Pool, plan: &mut Plan) -> Outcome {
    match plan.what {
        What::Put => pool.put(plan.object, plan.offset, &plan.memory),
        What::Get => pool.get(plan.object, plan.offset, &mut plan.memory),
        What::Take => pool.take(plan.object, plan.offset, &mut plan.memory),
        What::Flush { len } => pool.flush(plan.object, plan.offset, len),
        What::FlushObject => pool.flush_object(plan.object),
    }
}

/// Where plans may go.
#[derive(Debug, Clone)]
pub struct Field {
    pub objects: Vec<ObjectId>,
    /// Granules of the dense part of an object.
    pub granules: u64,
    /// Granules of the largest range.
    pub longest: u64,
}

/// Regions of an object that are dense, by the offset of their start.
const REGIONS: [u64; 8] = [0, 0, 0, 0, 0, 1 << 30, 1 << 45, (1 << 63) + (1 << 20)];

impl Field {
    /// A plan drawn from `random`.
    pub fn draw(&self, random: &mut Random, (tag, pool): (u64, PoolId)) -> Plan {
        let what = match random.below(100) {
            0..45 => What::Put,
            45..78 => What::Get,
            78..88 => What::Take,
            88..98 => What::Flush { len: 0 },
            98 => What::FlushObject,
            _ => What::Flush { len: u64::MAX },
        };
        let object = random.pick(&self.objects);
        let granules = self.draw_length(random);
        let mut offset = (random.below(self.granules) + random.pick(&REGIONS) / GRANULE) * GRANULE;
        if random.one_in(40) {
            offset = 0_u64.wrapping_sub(granules * GRANULE);
        }
        let mut len = granules * GRANULE;
        if random.one_in(4) {
            len -= random.below(len.min(2 * GRANULE));
        }
        if what == What::Get && random.one_in(3) {
            let skip = random.below(len);
            (offset, len) = (offset.wrapping_add(skip), len - skip);
        }
        if random.one_in(80) {
            (offset, len) = self.spoil(random, offset, len);
        }
        let plan = Plan { tag, pool, object, offset, what, memory: Vec::new(), cuts: Vec::new() };
        Self::furnish(random, plan, len)
    }

    fn draw_length(&self, random: &mut Random) -> u64 {
        let most = match random.below(20) {
            0..8 => 1,
            8..13 => 8,
            13..16 => 33,
            16..19 => 80,
            _ => self.longest,
        };
        1 + random.below(most.min(self.longest))
    }

    /// Makes a range senseless, in most cases.
    fn spoil(&self, random: &mut Random, offset: u64, len: u64) -> (u64, u64) {
        match random.below(3) {
            0 => (offset, 0),
            1 => (offset | (1 + random.below(GRANULE - 1)), len),
            _ => (0_u64.wrapping_sub(GRANULE), len),
        }
    }

    fn furnish(random: &mut Random, mut plan: Plan, len: u64) -> Plan {
        let bytes = usize::try_from(len).unwrap();
        match plan.what {
            What::Flush { len: 0 } => plan.what = What::Flush { len },
            What::Flush { .. } => {
                // All that there is behind a granule.
                plan.offset = plan.offset / GRANULE * GRANULE;
                plan.what = What::Flush { len: u64::MAX - plan.offset };
            }
            What::FlushObject => {}
            What::Put => plan.memory = pages::range(random, bytes),
            What::Get | What::Take => plan.memory = vec![UNTOUCHED; bytes],
        }
        plan.cuts = draw_cuts(random, plan.memory.len());
        plan
    }
}

/// Where to cut memory of `len` bytes: nowhere, between pages, or anywhere.
fn draw_cuts(random: &mut Random, len: usize) -> Vec<usize> {
    let page = pages::PAGE;
    match random.below(4) {
        0 if len > page => (1..len.div_ceil(page)).map(|nth| nth * page).collect(),
        1 if len > 0 => {
            let count = 1 + random.below(9);
            let mut cuts: Vec<usize> = (0..count).map(|_| random.index(len + 1)).collect();
            cuts.push(cuts[0]);
            cuts.sort_unstable();
            cuts
        }
        2 if len > 2 * page => {
            let mut cuts: Vec<usize> = (0..3).map(|_| random.index(len / page) * page).collect();
            cuts.sort_unstable();
            cuts
        }
        _ => Vec::new(),
    }
}
