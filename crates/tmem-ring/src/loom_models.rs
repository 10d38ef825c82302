//! Models of a queue between its two sides, for loom: every interleaving, and every value that a relaxed load may return.
//!
//! Both sides are the real ones, over a queue of two entries. What is around them is modelled: a bell as what `poll` makes
//! of a descriptor, the loops of who sleeps as in `Queue::wait` and `Service`, and lent memory as loom's cells, one an
//! entry: loom fails a model in which one side touches what the other may still be using, and one in which all sleep.
//!
//! A model that cannot fail shows nothing. Each of these changes was made in a copy, alone, and loom found it. The
//! models are: order, client (it sleeps), server (it sleeps), both, event (an event loop), cancel, close.
//!
//! | change | found by |
//! |---|---|
//! | `submitted` is stored or loaded relaxed; `reaped` is stored after it; a queue takes one entry too many | order |
//! | `completed` is stored or loaded relaxed | order |
//! | `publish` rings for who is awake | order |
//! | no fence in `publish` or in `arm`; `arm` does not look again | server, both |
//! | a fence in one of the two that only acquires and releases | server (the others were not tried) |
//! | no fence in `fall_asleep` or in `post` | client, both, event |
//! | a fence in one of the two that only acquires and releases | client (the others were not tried) |
//! | `fall_asleep` does not look again; `post` is one too late, or rings twice for one sleep | client |
//! | the bell is cleared after it was asked for | event |
//! | `cancel` or `start` loads and stores | cancel |
//! | `closed` is loaded relaxed | close |
//!
//! That `closed` is stored with Release is not among them: the fence in `post` orders the completions before it, too.

use crate::layout::Layout;
use crate::primitive::{AtomicU64, Ordering};
use crate::ring::{RawCompletion, RawSubmission, Submitter, Taker};
use loom::cell::UnsafeCell;
use loom::sync::{Arc, Condvar, Mutex, MutexGuard};
use loom::thread;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc as StdArc, PoisonError};

type Words = StdArc<[AtomicU64]>;

const ENTRIES: u64 = 2;

/// A queue's two sides.
fn queue() -> (Submitter<Words>, Taker<Words>) {
    let layout = Layout::new(ENTRIES).unwrap();
    let words: Words = (0..layout.words()).map(|_| AtomicU64::new(0)).collect();
    let taker = Taker::new(StdArc::clone(&words), layout);
    (Submitter::new(words).unwrap(), taker)
}

/// What the client submits as its `number`th operation.
fn submission(number: u64) -> RawSubmission {
    core::array::from_fn(|at| if at == 0 { 1 } else { number * 100 + at as u64 })
}

/// What the server completes it with.
fn completion(number: u64) -> RawCompletion {
    [1, 2, 3, 4].map(|at| number * 100 + at)
}

/// Memory of the client's, for each entry of the queue: an operation finds there what it was submitted with, and leaves
/// something else.
struct Lent([UnsafeCell<u64>; ENTRIES as usize]);

// SAFETY: loom checks every access, and fails the model where two of them may happen at once.
unsafe impl Sync for Lent {}

impl Lent {
    fn new() -> Arc<Self> {
        Arc::new(Self([UnsafeCell::new(0), UnsafeCell::new(0)]))
    }

    fn set(&self, number: u64, value: u64) {
        // SAFETY: loom lends a valid pointer, and has checked that nobody else may use it now.
        self.0[(number % ENTRIES) as usize].with_mut(|at| unsafe { *at = value });
    }

    fn get(&self, number: u64) -> u64 {
        // SAFETY: as above.
        self.0[(number % ENTRIES) as usize].with(|at| unsafe { *at })
    }
}

/// A bell: readable from when it is rung until it is cleared.
struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
    rings: AtomicUsize,
}

impl Bell {
    fn new() -> Arc<Self> {
        Arc::new(Self { rung: Mutex::new(false), changed: Condvar::new(), rings: AtomicUsize::new(0) })
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.rung.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self) {
        self.rings.fetch_add(1, Ordering::Relaxed); // Relaxed: a count, outside the model
        *self.lock() = true;
        self.changed.notify_one();
    }

    fn clear(&self) {
        *self.lock() = false;
    }

    /// Sleeps until it is readable, and leaves it so.
    fn wait(&self) {
        let mut rung = self.lock();
        while !*rung {
            rung = self.changed.wait(rung).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn rings(&self) -> usize {
        self.rings.load(Ordering::Relaxed) // Relaxed: as above
    }
}

/// The client, and what it expects.
struct Client {
    ring: Submitter<Words>,
    lent: Arc<Lent>,
    /// Operations submitted, and reaped.
    submitted: u64,
    reaped: u64,
    /// How often it said that it sleeps.
    sleeps: usize,
}

/// The server, and what it has seen.
struct Server {
    ring: Taker<Words>,
    lent: Arc<Lent>,
    taken: u64,
    sleeps: usize,
}

fn sides() -> (Client, Server) {
    let ((submitter, taker), lent) = (queue(), Lent::new());
    let client = Client { ring: submitter, lent: Arc::clone(&lent), submitted: 0, reaped: 0, sleeps: 0 };
    (client, Server { ring: taker, lent, taken: 0, sleeps: 0 })
}

impl Client {
    /// Writes the next operation, if there is room.
    fn write(&mut self) -> bool {
        if self.ring.outstanding() == ENTRIES {
            assert_eq!(self.ring.write(&submission(self.submitted)), None, "a full ring is full");
            return false;
        }
        self.lent.set(self.submitted, self.submitted);
        assert_eq!(self.ring.write(&submission(self.submitted)), Some(self.submitted));
        self.submitted += 1;
        true
    }

    fn publish(&mut self, bell: &Bell) {
        if self.ring.publish() {
            bell.ring();
        }
    }

    /// Reaps what is there: each completion once, in order, with what it says and what it has brought.
    fn reap(&mut self) {
        while let Some(words) = self.ring.reap() {
            assert_eq!(words, completion(self.reaped), "not the completion that was posted");
            assert_eq!(self.lent.get(self.reaped), self.reaped + 1000, "memory without what was brought there");
            self.reaped += 1;
        }
    }

    /// `Queue::wait`, which sleeps at once, until `least` more can be reaped or the queue is closed.
    fn wait(&mut self, bell: &Bell, least: u64) {
        let least = least.min(self.ring.outstanding());
        loop {
            let closed = self.ring.closed();
            if self.ring.ready() >= least || closed != 0 {
                return;
            }
            self.sleeps += 1;
            if self.ring.fall_asleep(least) {
                bell.wait();
                bell.clear();
                self.ring.wake_up();
            }
        }
    }
}

impl Server {
    /// Takes what can be started, and completes it. Returns whether there was anything.
    fn take(&mut self) -> bool {
        let waiting = self.ring.look().unwrap();
        for _ in 0..waiting {
            self.take_one();
        }
        waiting > 0
    }

    /// Takes one operation, and completes it without posting: each once, in order, as it was submitted.
    fn take_one(&mut self) {
        assert_eq!(self.ring.peek(), submission(self.taken), "not the submission that was made");
        assert!(!self.ring.start(), "nobody has cancelled it");
        assert_eq!(self.lent.get(self.taken), self.taken, "memory without what was lent");
        self.lent.set(self.taken, self.taken + 1000);
        self.ring.complete(&completion(self.taken));
        self.taken += 1;
    }

    fn post(&mut self, bell: &Bell) {
        if self.ring.post() {
            bell.ring();
        }
    }

    /// Sleeps until there is something, as a worker that does not look for it before.
    fn sleep(&mut self, bell: &Bell) {
        self.sleeps += 1;
        if self.ring.arm().unwrap() {
            bell.wait();
            bell.clear();
            self.ring.disarm();
        }
    }

    /// Serves until it has taken so many, and sleeps whenever there is nothing.
    fn serve(&mut self, operations: u64, own: &Bell, clients: &Bell) {
        while self.taken < operations {
            if self.take() {
                self.post(clients);
            } else {
                self.sleep(own);
            }
        }
    }
}

/// Every interleaving.
const UNBOUNDED: usize = usize::MAX;

/// Runs `model` in every way that takes at most `preemptions` of them.
fn explore(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions).filter(|bound| *bound != UNBOUNDED);
    builder.check(model);
}

/// Counts how often a model came to the point that it is about.
struct Reached(AtomicUsize);

impl Reached {
    const fn new() -> Self {
        Self(AtomicUsize::new(0))
    }

    fn here(&self) {
        self.0.fetch_add(1, Ordering::Relaxed); // Relaxed: a count, outside the model
    }

    fn check(&self) {
        assert!(self.0.load(Ordering::Relaxed) > 0, "the model is vacuous"); // Relaxed: as above
    }
}

/// Five operations through two entries, twice around and more. Nobody sleeps.
#[test]
fn each_operation_is_taken_once_and_reaped_once_in_order() {
    const OPERATIONS: u64 = 5;
    static FULL: Reached = Reached::new();
    explore(3, || {
        let (mut client, mut server) = sides();
        let server = thread::spawn(move || {
            while server.taken < OPERATIONS {
                if server.take() {
                    assert!(!server.ring.post(), "the client does not sleep");
                } else {
                    thread::yield_now();
                }
            }
        });
        while client.reaped < OPERATIONS {
            while client.submitted < OPERATIONS && client.write() {}
            if client.ring.outstanding() == ENTRIES {
                FULL.here();
            }
            assert!(!client.ring.publish(), "the server does not sleep");
            let before = client.reaped;
            client.reap();
            if client.reaped == before {
                thread::yield_now();
            }
        }
        assert!(server.join().is_ok());
    });
    FULL.check();
}

/// Completions are posted one by one. The client sleeps for one and then the other, or for both.
#[test]
fn a_client_that_sleeps_is_rung_for() {
    static RUNG: Reached = Reached::new();
    static AWAKE: Reached = Reached::new();
    for waits in [&[1, 1][..], &[2]] {
        explore(4, move || {
            let (mut client, mut server) = sides();
            let bell = Bell::new();
            assert!(client.write() && client.write() && !client.ring.publish());
            let clients = Arc::clone(&bell);
            let server = thread::spawn(move || {
                assert_eq!(server.ring.look(), Ok(ENTRIES));
                for _ in 0..ENTRIES {
                    server.take_one();
                    server.post(&clients);
                }
            });
            for least in waits {
                client.wait(&bell, *least);
                client.reap();
            }
            assert!(server.join().is_ok());
            assert_eq!(client.reaped, ENTRIES);
            // At most once a sleep, and not before there are as many as it sleeps for.
            assert!(bell.rings() <= client.sleeps.min(waits.len()), "rung for nothing");
            if bell.rings() == waits.len() { RUNG.here() } else { AWAKE.here() }
        });
    }
    RUNG.check();
    AWAKE.check();
}

/// Submissions are published one by one, to a server that sleeps whenever there is none.
#[test]
fn a_server_that_sleeps_is_rung_for() {
    static RUNG: Reached = Reached::new();
    static AWAKE: Reached = Reached::new();
    explore(3, || {
        let (mut client, mut server) = sides();
        let bell = Bell::new();
        let servers = Arc::clone(&bell);
        let server = thread::spawn(move || {
            while server.taken < ENTRIES {
                if !server.take() {
                    server.sleep(&servers);
                }
            }
            server.sleeps
        });
        for _ in 0..ENTRIES {
            assert!(client.write());
            client.publish(&bell);
        }
        let sleeps = server.join().unwrap();
        assert!(bell.rings() <= sleeps, "rung for nothing");
        if bell.rings() == 2 { RUNG.here() } else { AWAKE.here() }
    });
    RUNG.check();
    AWAKE.check();
}

/// Three operations through two entries, with a server and a client that sleep whenever they can.
#[test]
fn no_work_is_left_when_both_sleep() {
    const OPERATIONS: u64 = 3;
    explore(3, || {
        let (mut client, mut server) = sides();
        let [servers, clients] = [Bell::new(), Bell::new()];
        let [own, other] = [Arc::clone(&servers), Arc::clone(&clients)];
        let server = thread::spawn(move || server.serve(OPERATIONS, &own, &other));
        while client.reaped < OPERATIONS {
            while client.submitted < OPERATIONS && client.write() {}
            client.publish(&servers);
            client.wait(&clients, 1);
            client.reap();
        }
        assert!(server.join().is_ok());
    });
}

/// An event loop: it asks for the bell, sleeps by it, and reaps what there is.
#[test]
fn who_asks_for_the_bell_hears_it() {
    static SLEPT: Reached = Reached::new();
    explore(4, || {
        let (mut client, mut server) = sides();
        let bell = Bell::new();
        assert!(client.write() && client.write() && !client.ring.publish());
        let clients = Arc::clone(&bell);
        let server = thread::spawn(move || {
            assert_eq!(server.ring.look(), Ok(ENTRIES));
            for _ in 0..ENTRIES {
                server.take_one();
                server.post(&clients);
            }
        });
        while client.reaped < ENTRIES {
            // `Queue::ask_for_bell`
            bell.clear();
            if client.ring.fall_asleep(1) && client.ring.closed() == 0 {
                SLEPT.here();
                bell.wait();
            }
            client.reap();
        }
        assert!(server.join().is_ok());
    });
    SLEPT.check();
}

/// An operation is cancelled while the server may be starting it; the one that uses its entry next has nothing of that.
#[test]
fn an_operation_is_either_cancelled_or_started() {
    static CANCELLED: Reached = Reached::new();
    static STARTED: Reached = Reached::new();
    explore(UNBOUNDED, || {
        let (mut client, mut server) = queue();
        for number in 0..ENTRIES {
            assert_eq!(client.write(&submission(number)), Some(number));
        }
        assert!(!client.publish());
        let server = thread::spawn(move || {
            assert_eq!(server.look(), Ok(ENTRIES));
            let cancelled = server.start();
            server.complete(&completion(0));
            server.post();
            assert!(!server.start());
            while server.look() == Ok(0) {
                thread::yield_now();
            }
            assert_eq!(server.peek(), submission(ENTRIES));
            assert!(!server.start(), "what was cancelled was another operation");
            cancelled
        });
        let cancelled = client.cancel(0);
        while client.reap().is_none() {
            thread::yield_now();
        }
        assert_eq!(client.write(&submission(ENTRIES)), Some(ENTRIES));
        client.publish();
        assert_eq!(server.join().unwrap(), cancelled, "both know");
        if cancelled { CANCELLED.here() } else { STARTED.here() }
    });
    CANCELLED.check();
    STARTED.check();
}

/// The queue is closed while the client sleeps for more than there will be.
#[test]
fn who_learns_that_the_queue_is_closed_sees_what_was_completed() {
    static SLEPT: Reached = Reached::new();
    explore(UNBOUNDED, || {
        let (mut client, mut server) = sides();
        let bell = Bell::new();
        assert!(client.write() && client.write() && !client.ring.publish());
        let clients = Arc::clone(&bell);
        let server = thread::spawn(move || {
            assert_eq!(server.ring.look(), Ok(ENTRIES));
            server.take_one();
            server.post(&clients);
            server.ring.close(crate::ring::Closed::Ended);
            clients.ring();
        });
        client.wait(&bell, ENTRIES);
        client.reap();
        assert_eq!(client.reaped, 1);
        if client.sleeps > 0 {
            SLEPT.here();
        }
        assert!(server.join().is_ok());
    });
    SLEPT.check();
}
