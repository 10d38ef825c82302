//! A queue, as it is served.

use super::run::{Claim, Job, MOST_BYTES, MOST_OPERATIONS, Todo, granules, let_go};
use super::tenant::{Reached, Slices, Tenant};
use super::wide::Wide;
use crate::layout::{Layout, MOST_SLICES, SLICE_WORDS, at};
use crate::memory::QueueMemory;
use crate::operation::{Opcode, Outcome, Place, Refusal, Submission, completion_words, tag_of};
use crate::ring::{Broken, Closed, Taker};
use smallvec::smallvec;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tmem_sys::{Doorbell, SysError, Words};

/// A queue that workers serve.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) tenant: Arc<Tenant>,
    memory: QueueMemory,
    /// Rings at the client, and is rung from there.
    pub(crate) bell: Doorbell,
    state: Mutex<State>,
    /// Something in flight has ended, or the queue was closed.
    ended: Condvar,
    /// As `Taker::started` was when last somebody looked: to see without the lock whether there is more.
    started: AtomicU64,
    /// A wide operation has pieces left.
    has_pieces: AtomicBool,
    /// The next submission waits for something that is in flight.
    blocked: AtomicBool,
    /// It sleeps: not to be looked at before its doorbell is rung.
    armed: AtomicBool,
    closed: AtomicBool,
}

#[derive(Debug)]
struct State {
    taker: Taker<QueueMemory>,
    /// What each worker has in flight of this queue.
    flights: Vec<Vec<Claim>>,
    /// Wide operations that have not ended, in their order; only the last can have pieces left.
    wides: Vec<Wide>,
    next_wide: u64,
    /// The doorbell was rung while nobody slept, and is still to be cleared.
    rung_in_vain: bool,
    /// Workers that carry out something of it.
    busy: usize,
    /// Nothing more is taken, and then it is closed.
    stopping: bool,
    closed: Option<Closed>,
}

/// What a worker got when it wanted to claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claimed {
    /// Nothing: there is nothing, or it has to wait for something that is in flight.
    Nothing,
    /// Jobs. `more`: there is as much again for another worker.
    Jobs {
        /// Whether another worker should be called.
        more: bool,
    },
}

impl Served {
    /// One, and the client's end of its bell, which is to be kept by nobody else.
    pub(crate) fn new(tenant: Arc<Tenant>, entries: u64, workers: usize) -> Result<(Self, Doorbell), SysError> {
        let layout = Layout::new(entries).unwrap_or_else(|| unreachable!("checked by who asks for a queue"));
        let memory =
            QueueMemory::new(Words::create("tmem-queue", layout.bytes().next_multiple_of(tmem_sys::PAGE_BYTES))?);
        let (bell, client_bell) = Doorbell::pair().map_err(|errno| SysError::Memfd { bytes: 0, errno })?;
        let state = State {
            taker: Taker::new(memory.clone(), layout),
            flights: vec![Vec::new(); workers],
            wides: Vec::new(),
            next_wide: 0,
            rung_in_vain: false,
            busy: 0,
            stopping: false,
            closed: None,
        };
        let served = Self {
            tenant,
            memory,
            bell,
            state: Mutex::new(state),
            ended: Condvar::new(),
            started: AtomicU64::new(0),
            has_pieces: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
            armed: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        };
        Ok((served, client_bell))
    }

    /// The queue's memory, for the client to map.
    pub(crate) fn memfd(&self) -> BorrowedFd<'_> {
        self.memory.memfd()
    }

    /// The queue's memory, for a client in this process.
    pub(crate) fn memory(&self) -> QueueMemory {
        self.memory.clone()
    }

    /// Whether it may have work. A guess, without the lock; `claim` knows.
    // Relaxed in here: hints, which are looked at again before anybody sleeps.
    pub(crate) fn seems_busy(&self) -> bool {
        let flag = |flag: &AtomicBool| flag.load(Ordering::Relaxed); // Relaxed: a hint
        if flag(&self.armed) || flag(&self.blocked) || flag(&self.closed) {
            return false;
        }
        let submitted = self.memory[at::SUBMITTED].load(Ordering::Relaxed); // Relaxed: a hint
        flag(&self.has_pieces) || submitted != self.started.load(Ordering::Relaxed) // Relaxed: a hint
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims what `worker` is to do next.
    pub(crate) fn claim(&self, worker: usize, jobs: &mut Vec<Job>) -> Claimed {
        let mut state = self.lock();
        if state.closed.is_some() {
            return Claimed::Nothing;
        }
        if self.memory.is_lost() {
            self.close_locked(&mut state, Closed::Broken);
            return Claimed::Nothing;
        }
        debug_assert!(state.flights[worker].is_empty(), "a worker claims when it has finished");
        let claimed = self.claim_locked(&mut state, worker, jobs);
        self.show(&state);
        state.busy += usize::from(!jobs.is_empty());
        match claimed {
            Ok(more) if !jobs.is_empty() => Claimed::Jobs { more },
            Ok(_) => Claimed::Nothing,
            Err(Broken) => {
                self.close_locked(&mut state, Closed::Broken);
                // What was started before is carried out.
                if jobs.is_empty() { Claimed::Nothing } else { Claimed::Jobs { more: false } }
            }
        }
    }

    /// Renews what `seems_busy` and people go by.
    fn show(&self, state: &State) {
        self.started.store(state.taker.started(), Ordering::Relaxed); // Relaxed: a hint
        state.taker.show_started();
        let pieces = state.wides.last().is_some_and(Wide::has_more);
        self.has_pieces.store(pieces, Ordering::Relaxed); // Relaxed: a hint
    }

    /// Returns whether there is enough left to call another worker for.
    fn claim_locked(&self, state: &mut State, worker: usize, jobs: &mut Vec<Job>) -> Result<bool, Broken> {
        if let Some(wide) = state.wides.last_mut().filter(|wide| wide.has_more()) {
            jobs.push(piece_of(wide));
            return Ok(wide.has_more());
        }
        let waiting = state.taker.look()?;
        // Workers share what is there.
        let share = usize::try_from(waiting).unwrap_or(usize::MAX).div_ceil(state.flights.len());
        let most = share.clamp(1, MOST_OPERATIONS);
        let (mut bytes, mut left) = (0, waiting);
        while left > 0 && jobs.len() < most && bytes < MOST_BYTES {
            let words = state.taker.peek();
            let parsed = Submission::from_words(&words).and_then(|submission| self.todo(state, submission));
            let (claim, todo) = match parsed {
                Ok(parsed) => parsed,
                Err(refusal) => {
                    state.taker.start();
                    left -= 1;
                    jobs.push(job(tag_of(&words), Err(refusal)));
                    continue;
                }
            };
            let wide = is_wide(&todo.submission);
            if wide && !jobs.is_empty() {
                break;
            }
            if state.flights[worker].iter().any(|own| own.lends_same(&claim)) {
                // They are carried out in order, but lent at the same time.
                break;
            }
            if state.conflicts(worker, &claim) {
                let blocked = jobs.is_empty();
                self.blocked.store(blocked, Ordering::Relaxed); // Relaxed: a hint; changed under the lock
                return Ok(false);
            }
            let cancelled = state.taker.start();
            left -= 1;
            bytes += todo.submission.len.min(MOST_BYTES);
            let todo = Todo { cancelled, ..todo };
            if wide && !cancelled {
                return Ok(state.begin_wide(claim, todo, jobs));
            }
            state.flights[worker].push(claim);
            let annex = annex_of(&todo.submission);
            jobs.push(Job { annex, ..job(todo.submission.tag, Ok(todo)) });
        }
        // Waking an idle CPU costs as much as a dozen operations.
        Ok(left >= MOST_OPERATIONS as u64 / 2)
    }

    /// What is to be done for a submission, and what it touches.
    fn todo(&self, state: &State, submission: Submission) -> Result<(Claim, Todo), Refusal> {
        let slices = slices_of(state, &submission)?;
        let claim = Claim::of(&submission, &slices);
        let reach = |&(offset, len): &(u64, u64)| self.tenant.reach(submission.region, offset, len);
        let memory = slices.iter().map(reach).collect::<Result<Slices<Reached>, _>>()?;
        if submission.opcode != Opcode::FlushObject
            && submission.offset.checked_add(submission.len.max(1) - 1).is_none()
        {
            return Err(Refusal::BeyondEnd);
        }
        Ok((claim, Todo { submission, memory, cancelled: false }))
    }

    /// Ends what `worker` has claimed. Returns whether the client is to be rung for.
    #[must_use]
    pub(crate) fn finish(&self, worker: usize, jobs: &mut Vec<Job>) -> bool {
        let mut state = self.lock();
        let mut to_let_go = None;
        for job in jobs.drain(..) {
            let outcome = job.outcome.unwrap_or(Outcome::Refused(Refusal::Other));
            let Some(piece) = job.piece else {
                state.complete(job.tag, job.annex, &outcome);
                continue;
            };
            let wide = state.wides.iter_mut().find(|wide| wide.number == piece.wide);
            let wide = wide.unwrap_or_else(|| unreachable!("a wide operation ends after its pieces"));
            wide.end_piece(piece, outcome);
            if wide.has_ended() {
                to_let_go = wide.to_let_go().map(|submission| (piece.wide, submission));
                if to_let_go.is_none() {
                    state.end_wide(piece.wide);
                }
            }
        }
        state.flights[worker].clear();
        if let Some((number, submission)) = to_let_go {
            // It stays in flight meanwhile, so nothing later that overlaps is started.
            drop(state);
            let_go(&submission, &self.tenant);
            state = self.lock();
            state.end_wide(number);
        }
        let ring = state.taker.post();
        state.busy -= 1;
        self.blocked.store(false, Ordering::Relaxed); // Relaxed: a hint; changed under the lock
        self.show(&state);
        self.close_if_done(&mut state);
        drop(state);
        self.ended.notify_all();
        ring
    }

    /// Wakes the client.
    pub(crate) fn ring(&self) {
        self.bell.ring();
        self.tenant.rung.fetch_add(1, Ordering::Relaxed); // Relaxed: a sum
    }

    /// Whether its doorbell will be rung.
    pub(crate) fn is_armed(&self) -> bool {
        let flag = |flag: &AtomicBool| flag.load(Ordering::Relaxed); // Relaxed: as in `arm`
        flag(&self.armed) || flag(&self.closed)
    }

    /// Says in the queue that we sleep. Returns whether we may.
    pub(crate) fn arm(&self) -> bool {
        // Relaxed in here: `armed` is changed under the lock, or read as a hint.
        if self.armed.load(Ordering::Relaxed) || self.closed.load(Ordering::Relaxed) {
            return true;
        }
        let mut state = self.lock();
        if std::mem::take(&mut state.rung_in_vain) {
            // Before the look: what comes later rings again. If it was cleared since, as good.
            let _ = self.bell.clear();
        }
        // Pieces are work that no doorbell will tell of.
        let has_pieces = state.wides.last().is_some_and(Wide::has_more);
        let armed = if has_pieces { Ok(false) } else { state.taker.arm() };
        match armed {
            Ok(may) => {
                self.armed.store(may, Ordering::Relaxed); // Relaxed: as above
                may
            }
            Err(Broken) => {
                self.close_locked(&mut state, Closed::Broken);
                true
            }
        }
    }

    /// The doorbell was rung. It is not cleared where nobody sleeps: a client that rings and rings fills it, and then
    /// nobody is told of it any more.
    pub(crate) fn heard(&self) {
        let mut state = self.lock();
        // Under the lock: whoever arms it has done so to the end. Relaxed: as in `arm`.
        if !self.armed.load(Ordering::Relaxed) {
            state.rung_in_vain = true;
            return;
        }
        // Another worker may have been faster.
        let _ = self.bell.clear();
        state.taker.disarm();
        self.armed.store(false, Ordering::Relaxed); // Relaxed: as in `arm`
        drop(state);
        self.tenant.heard.fetch_add(1, Ordering::Relaxed); // Relaxed: a sum
    }

    /// The client has closed its end: nobody will submit or reap any more.
    pub(crate) fn hung_up(&self) {
        self.close_locked(&mut self.lock(), Closed::Ended);
    }

    fn close_locked(&self, state: &mut State, why: Closed) {
        if state.closed.is_some() {
            return;
        }
        state.closed = Some(why);
        self.closed.store(true, Ordering::Relaxed); // Relaxed: a hint
        state.taker.close(why);
        self.ring();
        self.ended.notify_all();
        self.tenant.tell_of_closing(why == Closed::Broken);
    }

    /// Starts nothing more, and returns when nothing is in flight. What was submitted to be put and is not carried out to
    /// its end is missing then, as after any put that fails. Not for workers.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        self.close_locked(&mut state, Closed::Ended);
        while state.busy > 0 {
            state = self.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let left = state.take_rest();
        drop(state);
        for submission in left.iter().filter(|submission| submission.opcode == Opcode::Put) {
            let_go(submission, &self.tenant);
        }
    }

    /// Takes no more submissions: the queue is closed when what is submitted now is completed.
    pub(crate) fn stop(&self) {
        let mut state = self.lock();
        state.stopping = true;
        if let Err(Broken) = state.taker.stop() {
            self.close_locked(&mut state, Closed::Broken);
        }
        self.close_if_done(&mut state);
    }

    fn close_if_done(&self, state: &mut State) {
        if state.stopping && state.is_idle() {
            self.close_locked(state, Closed::Ended);
        }
    }

    /// Waits until the queue is closed, and returns whether it is, before `end`.
    pub(crate) fn await_closed(&self, end: Instant) -> bool {
        let mut state = self.lock();
        while state.closed.is_none() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.ended.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Whether it is served no more.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed) // Relaxed: asked after the tenant's notice, whose system call publishes it
    }
}

impl State {
    /// Whether nothing is submitted that is not completed.
    fn is_idle(&mut self) -> bool {
        self.busy == 0 && self.wides.is_empty() && self.taker.look().is_ok_and(|waiting| waiting == 0)
    }

    fn conflicts(&self, worker: usize, claim: &Claim) -> bool {
        // Its own it carries out one after the other.
        let others = self.flights.iter().enumerate().filter(|(whose, _)| *whose != worker);
        others.flat_map(|(_, flight)| flight).any(|other| other.conflicts(claim))
            || self.wides.iter().any(|wide| wide.claim.conflicts(claim))
    }

    /// Takes what is not carried out to its end and never will be; of a client that has broken the protocol, as much as
    /// makes sense.
    fn take_rest(&mut self) -> Vec<Submission> {
        let mut left: Vec<Submission> = self.wides.drain(..).map(|wide| wide.submission()).collect();
        while self.taker.look().is_ok_and(|waiting| waiting > 0) {
            left.extend(Submission::from_words(&self.taker.peek()));
            let _ = self.taker.start();
        }
        left
    }

    fn begin_wide(&mut self, claim: Claim, todo: Todo, jobs: &mut Vec<Job>) -> bool {
        let annex = annex_of(&todo.submission);
        let number = self.next_wide;
        self.next_wide += 1;
        let mut wide = Wide::new(number, claim, todo, annex);
        jobs.push(piece_of(&mut wide));
        let more = wide.has_more();
        self.wides.push(wide);
        more
    }

    fn end_wide(&mut self, number: u64) {
        let at = self.wides.iter().position(|wide| wide.number == number);
        let wide = self.wides.remove(at.unwrap_or_else(|| unreachable!("it has just ended")));
        let (tag, annex) = (wide.submission().tag, wide.annex);
        self.complete(tag, annex, &wide.outcome());
    }

    /// Writes a completion, and the map where one is long.
    fn complete(&mut self, tag: u64, annex: Option<u64>, outcome: &Outcome) {
        if let (Outcome::PartlyFilled(map), Some(annex)) = (outcome, annex)
            && map.granules > 64
        {
            let start = self.taker.layout().annex(annex);
            for (at, word) in map.words.iter().enumerate() {
                self.taker.words()[start + at].store(*word, Ordering::Relaxed); // published by `Taker::post`
            }
        }
        self.taker.complete(&completion_words(tag, outcome));
    }
}

fn is_wide(submission: &Submission) -> bool {
    submission.opcode.has_memory() && submission.len > MOST_BYTES
}

fn annex_of(submission: &Submission) -> Option<u64> {
    match submission.place {
        Place::Listed(annex) if granules(submission) > 64 => Some(annex),
        _ => None,
    }
}

fn job(tag: u64, todo: Result<Todo, Refusal>) -> Job {
    Job { tag, todo, annex: None, piece: None, outcome: None }
}

fn piece_of(wide: &mut Wide) -> Job {
    let (piece, todo) = wide.claim_piece();
    Job { piece: Some(piece), ..job(wide.submission().tag, Ok(todo)) }
}

/// The slices that a submission names: fetched once, and not empty, overlapping or of another length than it says.
fn slices_of(state: &State, submission: &Submission) -> Result<Slices<(u64, u64)>, Refusal> {
    if !submission.opcode.has_memory() {
        return Ok(Slices::new());
    }
    let annex = match submission.place {
        Place::At(offset) => return Ok(smallvec![(offset, submission.len)]),
        Place::Listed(annex) => annex,
    };
    let layout = state.taker.layout();
    if annex >= layout.entries {
        return Err(Refusal::Slices);
    }
    let words = &state.taker.words()[layout.annex(annex)..];
    let word = |at: usize| words[at].load(Ordering::Relaxed); // Relaxed: ordered by `Taker::look`
    let count = usize::try_from(word(0)).unwrap_or(usize::MAX);
    if !(1..=MOST_SLICES).contains(&count) {
        return Err(Refusal::Slices);
    }
    let slice = |nth: usize| (word((nth + 1) * SLICE_WORDS), word((nth + 1) * SLICE_WORDS + 1));
    let slices: Slices<(u64, u64)> = (0..count).map(slice).collect();
    let mut left = submission.len;
    for slice in &slices {
        left = left.checked_sub(slice.1).filter(|_| slice.1 > 0).ok_or(Refusal::Slices)?;
    }
    let apart = submission.opcode == Opcode::Put || are_apart(&slices);
    if left == 0 && apart { Ok(slices) } else { Err(Refusal::Slices) }
}

/// Whether no two slices overlap.
fn are_apart(slices: &[(u64, u64)]) -> bool {
    let mut sorted = slices.to_vec();
    sorted.sort_unstable();
    sorted.windows(2).all(|pair| pair[0].0.checked_add(pair[0].1).is_some_and(|end| end <= pair[1].0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::{ObjectId, PoolId};
    use crate::ring::Submitter;
    use tmem::{ClientOptions, Outcome as Told, PoolOptions, Store, StoreOptions};
    use tmem_sys::{Backing, Region};

    /// A queue of two workers that do not run, its client's side, and the pool.
    fn queue() -> (Served, Submitter<QueueMemory>, tmem::Pool, Store) {
        let store = Store::new(StoreOptions::with_budget(64 << 20)).unwrap();
        let client = store.client(ClientOptions::named("test"));
        let pool = client.create_pool(PoolOptions::persistent()).unwrap();
        let tenant = Tenant::remote(client, 1, &Arc::new(Doorbell::new().unwrap()));
        assert!(tenant.register(1, Region::create("tmem-test", 4 << 20, Backing::Small).unwrap()));
        let (served, _) = Served::new(Arc::new(tenant), 8, 2).unwrap();
        let submitter = Submitter::new(served.memory()).unwrap();
        (served, submitter, pool, store)
    }

    fn put(pool: &tmem::Pool, object: u64, len: u64) -> Submission {
        Submission {
            opcode: Opcode::Put,
            region: 1,
            pool: PoolId(pool.id().0),
            tag: 0,
            object: ObjectId::from(object),
            offset: 0,
            len,
            place: Place::At(0),
        }
    }

    #[test]
    fn nobody_sleeps_while_pieces_are_left() {
        let (served, mut client, pool, _store) = queue();
        client.write(&put(&pool, 1, 2 << 20).to_words()).unwrap();
        assert!(!client.publish(), "nobody slept yet");
        let mut jobs = Vec::new();
        assert_eq!(served.claim(0, &mut jobs), Claimed::Jobs { more: true });
        assert!(!served.arm(), "seven pieces are left, of which no doorbell will tell");
        assert!(served.seems_busy());
    }

    #[test]
    fn what_was_submitted_to_be_put_is_missing_when_a_queue_is_closed_before() {
        let (served, mut client, pool, store) = queue();
        let bytes = vec![7; 2 << 20];
        for object in [1, 2, 3] {
            assert_eq!(pool.put(object, 0, &bytes), Told::Stored);
        }
        client.write(&put(&pool, 1, 2 << 20).to_words()).unwrap();
        client.write(&put(&pool, 2, 4096).to_words()).unwrap();
        client.publish();
        // A piece of the first is carried out, and nothing of the second.
        let mut jobs = Vec::new();
        served.claim(0, &mut jobs);
        super::super::run::carry_out(&mut jobs, &served.tenant);
        assert!(!served.finish(0, &mut jobs), "the client does not sleep");
        served.close();
        let mut back = vec![0; 2 << 20];
        assert_eq!(pool.get(1, 0, &mut back), Told::Missing);
        assert_eq!(pool.get(2, 0, &mut back[..4096]), Told::Missing);
        assert_eq!(pool.get(2, 4096, &mut back[..4096]), Told::Filled);
        assert_eq!(pool.get(3, 0, &mut back), Told::Filled);
        store.validate();
    }
}
