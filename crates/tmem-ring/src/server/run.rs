//! What a worker has claimed of one queue, and carries out.

use super::tenant::{Reached, Slices, Tenant};
use super::wide::PieceOf;
use crate::operation::{
    GRANULE_BYTES, Map, Opcode, Outcome, Refusal, Rejection, Submission, granules_a_bit, granules_of, words_of_map,
};

/// The most operations that are claimed at once.
pub(crate) const MOST_OPERATIONS: usize = 32;

/// Bytes at which no more is claimed, and the most that an operation has that is not wide.
pub(crate) const MOST_BYTES: u64 = 256 << 10;

/// What a claimed operation touches, to be compared with others of its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claim {
    pool: u32,
    object: [u64; 3],
    /// Bytes of the object, first and last.
    range: (u64, u64),
    changes_object: bool,
    /// Region, and bytes of it, first and last; a list's slices with all that is between them.
    memory: Option<(u16, u64, u64)>,
    fills_memory: bool,
}

impl Claim {
    /// Of an operation whose memory is `slices` (offset, bytes).
    pub(crate) fn of(submission: &Submission, slices: &[(u64, u64)]) -> Self {
        let opcode = submission.opcode;
        let last = submission.offset.saturating_add(submission.len.saturating_sub(1));
        let range = if opcode == Opcode::FlushObject { (0, u64::MAX) } else { (submission.offset, last) };
        // Granules are seen whole: what ends within one touches all of it.
        let range = (range.0 / GRANULE_BYTES, range.1 / GRANULE_BYTES);
        let first = slices.iter().map(|slice| slice.0).min();
        let end = slices.iter().map(|slice| slice.0.saturating_add(slice.1)).max();
        let memory = first.zip(end).map(|(first, end)| (submission.region, first, end.saturating_sub(1)));
        Self {
            pool: submission.pool.0,
            object: submission.object.0,
            range,
            changes_object: opcode != Opcode::Get,
            memory,
            fills_memory: matches!(opcode, Opcode::Get | Opcode::Take),
        }
    }

    /// Whether the two may not run at the same time, nor in another order.
    pub(crate) fn conflicts(&self, other: &Self) -> bool {
        let meet = |one: (u64, u64), two: (u64, u64)| one.0 <= two.1 && two.0 <= one.1;
        let same_data = (self.changes_object || other.changes_object)
            && (self.pool, self.object) == (other.pool, other.object)
            && meet(self.range, other.range);
        same_data || self.lends_same(other)
    }

    /// Whether the two lend memory that one of them fills.
    pub(crate) fn lends_same(&self, other: &Self) -> bool {
        (self.fills_memory || other.fills_memory) && self.shares_memory(other)
    }

    fn shares_memory(&self, other: &Self) -> bool {
        match (self.memory, other.memory) {
            (Some(one), Some(two)) => one.0 == two.0 && one.1 <= two.2 && two.1 <= one.2,
            _ => false,
        }
    }
}

/// A claimed operation, or a piece of one.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) tag: u64,
    /// What is wrong with it, and nothing is to be done.
    pub(crate) todo: Result<Todo, Refusal>,
    /// Where a map of more than 64 granules goes.
    pub(crate) annex: Option<u64>,
    /// It is a piece of a wide operation.
    pub(crate) piece: Option<PieceOf>,
    pub(crate) outcome: Option<Outcome>,
}

/// What there is to do.
#[derive(Debug)]
pub(crate) struct Todo {
    pub(crate) submission: Submission,
    pub(crate) memory: Slices<Reached>,
    /// It was cancelled in time: the old contents of a put's range go, and nothing else is done.
    pub(crate) cancelled: bool,
}

/// Carries out jobs in their order, in the calling thread, as one batch of the engine.
pub(crate) fn carry_out(jobs: &mut [Job], tenant: &Tenant) {
    let (mut from, mut into) = (Vec::with_capacity(jobs.len()), Vec::with_capacity(jobs.len()));
    for todo in jobs.iter().filter_map(|job| job.todo.as_ref().ok()) {
        match todo.does() {
            // SAFETY: who fills the same memory is not claimed while this is (`Claim::lends_same`); the rest is told at
            // the function.
            Does::Put => from.extend(todo.memory.iter().map(|part| unsafe { part.as_slice() })),
            // SAFETY: as above, and the slices of one operation do not overlap (`queue::slices_of`).
            Does::Get | Does::Take => into.extend(todo.memory.iter().map(|part| unsafe { part.as_mut_slice() })),
            Does::Flush | Does::FlushObject | Does::Nothing => {}
        }
    }
    let mut batch = Vec::with_capacity(jobs.len());
    let (mut from, mut into) = (&from[..], &mut into[..]);
    for (number, job) in jobs.iter().enumerate() {
        let Ok(todo) = &job.todo else { continue };
        let Submission { pool, object, offset, len, .. } = todo.submission;
        let action = match todo.does() {
            Does::Put => {
                let (own, rest) = from.split_at(todo.memory.len());
                from = rest;
                tmem::Action::Put { offset, from: own }
            }
            does @ (Does::Get | Does::Take) => {
                let (own, rest) = into.split_at_mut(todo.memory.len());
                into = rest;
                if does == Does::Get {
                    tmem::Action::Get { offset, into: own }
                } else {
                    tmem::Action::Take { offset, into: own }
                }
            }
            Does::Flush => tmem::Action::Flush { offset, len },
            Does::FlushObject => tmem::Action::FlushObject,
            Does::Nothing => continue,
        };
        let (pool, object) = (tmem::PoolId(pool.0), tmem::ObjectId(object.0));
        batch.push(tmem::Operation { tag: number as u64, pool, object, action });
    }
    let mut completions = Vec::with_capacity(batch.len());
    tenant.client.execute(&mut batch, &mut completions);
    for completion in completions {
        #[expect(clippy::cast_possible_truncation, reason = "an index that became the tag above")]
        let job = &mut jobs[completion.tag as usize];
        job.outcome = Some(told(&completion.outcome));
    }
    for job in jobs {
        job.settle(tenant);
    }
}

/// Makes the range of a put missing that was not carried out, or failed.
pub(crate) fn let_go(submission: &Submission, tenant: &Tenant) {
    let Submission { pool, object, offset, len, .. } = *submission;
    let (pool, object) = (tmem::PoolId(pool.0), tmem::ObjectId(object.0));
    let flush = tmem::Operation { tag: 0, pool, object, action: tmem::Action::Flush { offset, len } };
    // It is refused where there is no such pool, and so nothing in it.
    tenant.client.execute(&mut [flush], &mut Vec::with_capacity(1));
}

/// What the engine is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Does {
    Put,
    Get,
    Take,
    Flush,
    FlushObject,
    Nothing,
}

impl Todo {
    fn does(&self) -> Does {
        match self.submission.opcode {
            Opcode::Put if self.cancelled => Does::Flush,
            _ if self.cancelled => Does::Nothing,
            Opcode::Put => Does::Put,
            Opcode::Get => Does::Get,
            Opcode::Take => Does::Take,
            Opcode::Flush => Does::Flush,
            Opcode::FlushObject => Does::FlushObject,
        }
    }
}

impl Job {
    /// Decides what is told, once the engine has answered.
    fn settle(&mut self, tenant: &Tenant) {
        let todo = match &self.todo {
            Ok(todo) => todo,
            Err(refusal) => {
                self.outcome = Some(Outcome::Refused(*refusal));
                return;
            }
        };
        let refused = matches!(self.outcome, Some(Outcome::Refused(_)));
        if todo.cancelled && !refused {
            self.outcome = Some(Outcome::Cancelled);
        } else if todo.memory.iter().any(Reached::is_lost) {
            // What was put may be zeros that were never there.
            if todo.submission.opcode == Opcode::Put {
                let_go(&todo.submission, tenant);
            }
            self.outcome = Some(Outcome::Refused(Refusal::RegionLost));
        }
    }
}

/// What the engine says, in the words of a queue.
fn told(outcome: &tmem::Outcome) -> Outcome {
    match outcome {
        tmem::Outcome::Stored => Outcome::Stored,
        tmem::Outcome::Rejected(tmem::Rejection::Budget) => Outcome::Rejected(Rejection::Budget),
        tmem::Outcome::Rejected(tmem::Rejection::Cap) => Outcome::Rejected(Rejection::Cap),
        tmem::Outcome::Frozen => Outcome::Frozen,
        tmem::Outcome::Filled => Outcome::Filled,
        tmem::Outcome::PartlyFilled(map) => Outcome::PartlyFilled(told_map(map)),
        tmem::Outcome::Missing => Outcome::Missing,
        tmem::Outcome::Flushed { granules } => Outcome::Flushed { granules: *granules },
        tmem::Outcome::Corrupt { offset } => Outcome::Corrupt { offset: *offset },
        tmem::Outcome::TierFailed { offset } => Outcome::TierFailed { offset: *offset },
        tmem::Outcome::Refused(refusal) => Outcome::Refused(match refusal {
            tmem::Refusal::EmptyRange => Refusal::EmptyRange,
            tmem::Refusal::Misaligned { .. } => Refusal::Misaligned,
            tmem::Refusal::BeyondEnd { .. } => Refusal::BeyondEnd,
            tmem::Refusal::UnknownPool(_) => Refusal::UnknownPool,
            tmem::Refusal::ClientDestroyed => Refusal::ClientDestroyed,
            // Of loans, which no queue has.
            tmem::Refusal::BeyondRoom { .. } | tmem::Refusal::UnknownCodec(_) | tmem::Refusal::BlockSize(_) => {
                Refusal::Other
            }
        }),
    }
}

/// The map of a range that is not wide: a bit for each granule.
fn told_map(map: &tmem::GranuleMap) -> Map {
    let granules = map.len() as u64;
    debug_assert_eq!(granules_a_bit(granules), 1, "a piece is shorter than what a map can tell of");
    let mut words = vec![0; words_of_map(granules)];
    for at in (0..map.len()).filter(|at| map.is_filled(*at)) {
        words[at / 64] |= 1 << (at % 64);
    }
    Map { words, granules, granules_a_bit: 1, filled: map.filled() as u64 }
}

/// Granules that an operation touches.
pub(crate) fn granules(submission: &Submission) -> u64 {
    granules_of(submission.offset, submission.len)
}
