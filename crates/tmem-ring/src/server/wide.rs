//! Operations of many bytes, cut into pieces that any worker takes.
//!
//! | state | |
//! |---|---|
//! | `next < len` | pieces are left to be claimed; nothing later of the queue is |
//! | `next == len`, `running > 0` | all are claimed, some are being carried out |
//! | `next == len`, `running == 0` | it has ended, and its completion is posted |
//!
//! A put of which a piece failed makes all of its range missing before it ends (`to_let_go`), and the pieces that are left
//! are not carried out.

use super::run::{Claim, MOST_BYTES, Todo};
use super::tenant::{Reached, Slices};
use crate::operation::{GRANULE_BYTES, Map, Opcode, Outcome, Submission, granules_a_bit, granules_of, words_of_map};

/// Bytes of a piece, and what pieces are aligned to in their object: whole leaves of the engine's tables.
const PIECE_BYTES: u64 = MOST_BYTES;

/// Which piece of which wide operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PieceOf {
    pub(crate) wide: u64,
    /// First byte of the operation's range.
    pub(crate) skip: u64,
    pub(crate) len: u64,
}

/// An operation that is claimed piece by piece.
#[derive(Debug)]
pub(crate) struct Wide {
    /// Its number in its queue.
    pub(crate) number: u64,
    pub(crate) claim: Claim,
    whole: Todo,
    pub(crate) annex: Option<u64>,
    next: u64,
    running: u32,
    /// The first thing that went wrong.
    failed: Option<Outcome>,
    flushed: u64,
    filled: u64,
    /// Bits of granules of which none is known to be missing.
    map: Vec<u64>,
}

impl Wide {
    pub(crate) fn new(number: u64, claim: Claim, whole: Todo, annex: Option<u64>) -> Self {
        let granules = granules_of(whole.submission.offset, whole.submission.len);
        let map = vec![u64::MAX; words_of_map(granules)];
        Self { number, claim, whole, annex, next: 0, running: 0, failed: None, flushed: 0, filled: 0, map }
    }

    pub(crate) fn submission(&self) -> Submission {
        self.whole.submission
    }

    /// Whether there are pieces to be claimed.
    pub(crate) fn has_more(&self) -> bool {
        self.next < self.whole.submission.len
    }

    /// Whether all of it is done.
    pub(crate) fn has_ended(&self) -> bool {
        !self.has_more() && self.running == 0
    }

    /// Claims the next piece.
    pub(crate) fn claim_piece(&mut self) -> (PieceOf, Todo) {
        let Submission { offset, len, .. } = self.whole.submission;
        let skip = self.next;
        let at = offset + skip;
        let piece_len = (PIECE_BYTES - at % PIECE_BYTES).min(len - skip);
        self.next += piece_len;
        self.running += 1;
        let submission = Submission { offset: at, len: piece_len, ..self.whole.submission };
        let todo = Todo { submission, memory: cut(&self.whole.memory, skip, piece_len), cancelled: false };
        (PieceOf { wide: self.number, skip, len: piece_len }, todo)
    }

    /// Takes in what became of a piece.
    pub(crate) fn end_piece(&mut self, piece: PieceOf, outcome: Outcome) {
        self.running -= 1;
        let granules = granules_of(self.whole.submission.offset + piece.skip, piece.len);
        match outcome {
            Outcome::Stored => {}
            Outcome::Filled => self.filled += granules,
            Outcome::Flushed { granules } => self.flushed += granules,
            Outcome::Missing => self.clear(piece, |_| false),
            Outcome::PartlyFilled(map) => {
                self.filled += map.filled();
                self.clear(piece, |at| map.is_filled(at));
            }
            failure => {
                self.failed.get_or_insert(failure);
                if self.whole.submission.opcode == Opcode::Put {
                    self.next = self.whole.submission.len;
                }
            }
        }
    }

    /// Clears the bits of a piece's granules that were not filled.
    fn clear(&mut self, piece: PieceOf, is_filled: impl Fn(u64) -> bool) {
        let Submission { offset, len, .. } = self.whole.submission;
        let granules_a_bit = granules_a_bit(granules_of(offset, len));
        let first = (offset + piece.skip) / GRANULE_BYTES - offset / GRANULE_BYTES;
        for at in (0..granules_of(offset + piece.skip, piece.len)).filter(|at| !is_filled(*at)) {
            let bit = (first + at) / granules_a_bit;
            let word = usize::try_from(bit / 64).ok().and_then(|word| self.map.get_mut(word));
            if let Some(word) = word {
                *word &= !(1 << (bit % 64));
            }
        }
    }

    /// What is to be made missing before it ends: the range of a put that failed.
    pub(crate) fn to_let_go(&self) -> Option<Submission> {
        let failed = self.failed.is_some() && self.whole.submission.opcode == Opcode::Put;
        failed.then_some(self.whole.submission)
    }

    /// What became of all of it.
    pub(crate) fn outcome(mut self) -> Outcome {
        assert!(self.has_ended(), "a wide operation ends with its last piece");
        if let Some(failed) = self.failed {
            return failed;
        }
        let Submission { opcode, offset, len, .. } = self.whole.submission;
        let granules = granules_of(offset, len);
        match opcode {
            Opcode::Put => Outcome::Stored,
            Opcode::Flush | Opcode::FlushObject => Outcome::Flushed { granules: self.flushed },
            Opcode::Get | Opcode::Take if self.filled == granules => Outcome::Filled,
            Opcode::Get | Opcode::Take if self.filled == 0 => Outcome::Missing,
            Opcode::Get | Opcode::Take => {
                let granules_a_bit = granules_a_bit(granules);
                // No bits beyond the last granule.
                let spare = granules.div_ceil(granules_a_bit) % 64;
                if let Some(last) = self.map.last_mut().filter(|_| spare != 0) {
                    *last &= (1 << spare) - 1;
                }
                Outcome::PartlyFilled(Map { words: self.map, granules, granules_a_bit, filled: self.filled })
            }
        }
    }
}

/// The part of `memory` from `skip` bytes on.
fn cut(memory: &[Reached], skip: u64, len: u64) -> Slices<Reached> {
    let mut parts = Slices::new();
    let (mut skip, mut left) = (skip, len);
    for reached in memory {
        let bytes = reached.len as u64;
        let within = skip.min(bytes);
        skip -= within;
        let part = left.min(bytes - within);
        if part > 0 {
            left -= part;
            #[expect(clippy::cast_possible_truncation, reason = "both at most the length of memory that is mapped")]
            parts.push(reached.part(within as usize, part as usize));
        }
    }
    parts
}
