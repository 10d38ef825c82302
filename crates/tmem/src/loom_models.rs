//! Models of the protocols between readers, puts and the cleaner, for loom: every interleaving, and every value that a
//! relaxed load may return, up to a bound of preemptions.
//!
//! Epochs, rows and entry words are the real ones. Of a leaf there is one entry with the leaf's lock; a test holds its
//! orderings against those of `table::leaf`. A segment holds one block, a header and a payload, in loom's cells: loom
//! fails a model in which one thread writes what another may still be reading.
//!
//! A model that cannot fail shows nothing. Each of these changes was made in a copy, alone, and loom found it. The
//! models are: reuse, again (a reader that comes again), move, takes, row, short, pool.
//!
//! | change | found by |
//! |---|---|
//! | no fence in `pin`; none in `stamp`; both only acquire and release | reuse, again, move, pool |
//! | `pin` stores its slot relaxed | again |
//! | `Pin::drop` stores relaxed; `passed` loads relaxed | reuse, again, move |
//! | `passed` lets a pin of the stamp's own epoch pass for a later one | reuse, again, move, pool |
//! | a segment is stamped before it is unlinked | again |
//! | an entry is published relaxed, or with Acquire alone; or is loaded relaxed | reuse, move |
//! | an entry is published before its block is committed | reuse, move |
//! | units are killed after the leaf is unlocked | reuse, move |
//! | the cleaner redirects an entry without looking at it again | move |
//! | a reader stores a warmer entry instead of exchanging it | move, again, takes |
//! | a take does not look again, or looks before it has the lock; the comparison minds one side's heat | takes |
//! | a row is taken from any state | row |
//! | a row changes by a load and a store, or relaxed | row |
//! | the destroyer does not wait; a put looks at the mark before it is pinned | pool |
//!
//! That a row is retired only when nothing in it is live is not among them: it is an assertion that these rest on.

use crate::entry::{BlockRef, Entry};
use crate::epoch::{Epochs, Pin};
use crate::primitive::{AtomicU64, Ordering};
use crate::row::{Class, Row, RowWord, State};
use crate::units::SegmentId;
use loom::cell::UnsafeCell;
use loom::sync::{Arc, Mutex, MutexGuard};
use loom::thread;
use std::sync::atomic::AtomicUsize;

/// A segment's memory: room for one block, in two parts, so that a half-written one can be told from a whole one.
struct Memory {
    header: UnsafeCell<u64>,
    payload: UnsafeCell<u64>,
}

// SAFETY: loom checks every access, and fails the model where two of them may happen at once.
unsafe impl Sync for Memory {}

impl Memory {
    fn new() -> Self {
        Self { header: UnsafeCell::new(0), payload: UnsafeCell::new(0) }
    }

    fn write(&self, value: u64) {
        for part in [&self.header, &self.payload] {
            // SAFETY: loom lends a valid pointer, and has checked that nobody else may use it now.
            part.with_mut(|at| unsafe { *at = value });
        }
    }

    fn read(&self) -> u64 {
        // SAFETY: as above.
        let [header, payload] = [&self.header, &self.payload].map(|part| part.with(|at| unsafe { *at }));
        assert_eq!(header, payload, "half a block");
        header
    }
}

/// One entry and the segments that it may refer to. What is put is told apart by its size in units, which is also what
/// the block's memory holds: whoever reads through an entry knows what it should find.
struct Store {
    epochs: Epochs,
    rows: [Row; 3],
    memory: [Memory; 3],
    entry: AtomicU64,
    leaf: Mutex<()>,
}

/// What was put first, and what replaces it.
const OLD: u32 = 2;
const NEW: u32 = 3;
const NEWEST: u32 = 4;

/// Segments: of the old block, of whoever puts, of the cleaner.
const FIRST: u32 = 0;
const PUTS: u32 = 1;
const COPIES: u32 = 2;

impl Store {
    /// With the old block in a sealed segment, and the other two segments open.
    fn new(slots: usize) -> Arc<Self> {
        let store = Self {
            epochs: Epochs::new(slots),
            rows: [Row::new(), Row::new(), Row::new()],
            memory: [Memory::new(), Memory::new(), Memory::new()],
            entry: AtomicU64::new(Entry::MISSING.word()),
            leaf: Mutex::new(()),
        };
        for row in &store.rows {
            row.open(Class::Persistent);
        }
        let block = store.append(FIRST, OLD);
        store.set(&store.lock(), Entry::block(block));
        store.row(FIRST).seal(1, (0, 0));
        Arc::new(store)
    }

    fn row(&self, segment: u32) -> &Row {
        &self.rows[segment as usize]
    }

    /// Writes a block of so many units to an open segment that is empty, and commits it.
    fn append(&self, segment: u32, units: u32) -> BlockRef {
        self.memory[segment as usize].write(u64::from(units));
        self.row(segment).commit(units);
        BlockRef { segment: SegmentId(segment), place: 0, units, granules: 1, index: 0 }
    }

    /// What the block holds, if it lies within what was committed: `Segments::block`.
    fn read(&self, block: BlockRef, _pin: &Pin<'_>) -> Option<u64> {
        if block.place + block.units > self.row(block.segment.0).word().filled() {
            return None;
        }
        Some(self.memory[block.segment.0 as usize].read())
    }

    /// `Leaf::load`.
    fn load(&self) -> Entry {
        // Acquire: pairs with the Release in `set`.
        Entry::from_word(self.entry.load(Ordering::Acquire))
    }

    /// `LeafGuard::set`.
    fn set(&self, _leaf: &MutexGuard<'_, ()>, entry: Entry) -> Entry {
        // AcqRel: pairs with the Acquire in `load`.
        Entry::from_word(self.entry.swap(entry.word(), Ordering::AcqRel))
    }

    /// `Leaf::warm`.
    fn warm(&self, seen: Entry) {
        if let Some(warmer) = seen.warmed() {
            // Relaxed: as in `Leaf::warm`.
            let _ = self.entry.compare_exchange(seen.word(), warmer.word(), Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.leaf.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// `ops::release`: under the leaf's lock.
    fn release(&self, _leaf: &MutexGuard<'_, ()>, before: Entry) {
        if let Some(block) = before.as_block() {
            self.row(block.segment.0).kill(block.share());
        }
    }

    /// A get: whatever is found is whole, and what was put.
    fn get(&self, slot: usize) -> Option<u32> {
        let pin = self.epochs.pin(slot);
        let entry = self.load();
        let block = entry.as_block()?;
        assert_eq!(self.read(block, &pin), Some(u64::from(block.units)), "wrong bytes");
        self.warm(entry);
        Some(block.units)
    }

    /// A put of `units` into an open, empty segment.
    fn put(&self, slot: usize, segment: u32, units: u32) {
        let _pin = self.epochs.pin(slot);
        self.memory[segment as usize].write(u64::from(units));
        let leaf = self.lock();
        self.row(segment).commit(units);
        let block = BlockRef { segment: SegmentId(segment), place: 0, units, granules: 1, index: 0 };
        let before = self.set(&leaf, Entry::block(block));
        self.release(&leaf, before);
    }

    /// A take: the bytes, if it was this one that flushed them.
    fn take(&self, slot: usize) -> Option<u32> {
        let pin = self.epochs.pin(slot);
        loop {
            let seen = self.load();
            let block = seen.as_block()?;
            assert_eq!(self.read(block, &pin), Some(u64::from(block.units)), "wrong bytes");
            let leaf = self.lock();
            if self.load().same_contents(seen) {
                let before = self.set(&leaf, Entry::MISSING);
                self.release(&leaf, before);
                return Some(block.units);
            }
        }
    }

    /// Retires a victim that nothing refers to and, once nobody can be reading it, writes to its memory again. Returns
    /// whether that was so.
    fn retire_and_reuse(&self, victim: u32, units: u32) -> Option<BlockRef> {
        self.row(victim).retire();
        let stamp = self.epochs.stamp();
        self.epochs.passed(stamp).then(|| {
            self.row(victim).warm();
            self.row(victim).open(Class::Persistent);
            self.append(victim, units)
        })
    }

    fn live(&self) -> [u32; 3] {
        [FIRST, PUTS, COPIES].map(|segment| self.row(segment).word().live())
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

/// Reader, put and cleaner on one entry: the put replaces it, the cleaner finds the old segment empty, waits for the
/// readers, and puts something else there.
#[test]
fn memory_is_reused_only_when_nobody_reads_it() {
    static REUSED: Reached = Reached::new();
    explore(4, || {
        let store = Store::new(3);
        let [reader, putter] = [Arc::clone(&store), Arc::clone(&store)];
        let reader = thread::spawn(move || reader.get(0));
        let putter = thread::spawn(move || putter.put(1, PUTS, NEW));
        assert!(store.row(FIRST).take());
        // The cleaner's look-up, under the leaf's lock: what it finds dead there has been counted as dead.
        let leaf = store.lock();
        let gone = store.load().as_block().is_none_or(|block| block.segment.0 != FIRST);
        drop(leaf);
        if !gone {
            store.row(FIRST).put_back();
        } else if let Some(block) = store.retire_and_reuse(FIRST, NEWEST) {
            REUSED.here();
            let leaf = store.lock();
            let before = store.set(&leaf, Entry::block(block));
            store.release(&leaf, before);
        }
        assert!(reader.join().is_ok_and(|got| got.is_some()), "the granule is never missing");
        assert!(putter.join().is_ok());
    });
    REUSED.check();
}

/// A reader that unpins and pins again at once: what it read before is read before the memory is reused.
#[test]
fn a_reader_that_comes_again_has_ended_its_first_read() {
    static REUSED: Reached = Reached::new();
    explore(UNBOUNDED, || {
        let store = Store::new(1);
        let reader = Arc::clone(&store);
        let reader = thread::spawn(move || [reader.get(0), reader.get(0)]);
        let leaf = store.lock();
        let before = store.set(&leaf, Entry::MISSING);
        store.release(&leaf, before);
        drop(leaf);
        assert!(store.row(FIRST).take());
        if store.retire_and_reuse(FIRST, NEWEST).is_some() {
            REUSED.here();
        }
        let got = reader.join();
        assert!(got.is_ok_and(|got| got != [None, Some(OLD)]), "a miss stays a miss");
    });
    REUSED.check();
}

/// The cleaner moves a block while a put replaces it and a reader counts a get of it.
#[test]
fn a_block_that_is_moved_and_replaced_ends_as_the_new_one() {
    static MOVED: Reached = Reached::new();
    static REUSED: Reached = Reached::new();
    explore(3, || {
        let store = Store::new(3);
        let [reader, putter] = [Arc::clone(&store), Arc::clone(&store)];
        let reader = thread::spawn(move || reader.get(0));
        let putter = thread::spawn(move || putter.put(1, PUTS, NEW));
        assert!(store.row(FIRST).take());
        let victim = |entry: Entry| entry.as_block().filter(|block| block.segment.0 == FIRST);
        let leaf = store.lock();
        let live = victim(store.load());
        drop(leaf);
        if let Some(block) = live {
            let copy = store.memory[FIRST as usize].read();
            assert_eq!(copy, u64::from(block.units));
            let to = store.append(COPIES, block.units);
            let leaf = store.lock();
            if let Some(block) = victim(store.load()) {
                MOVED.here();
                store.set(&leaf, Entry::block(to));
                store.row(block.segment.0).kill(block.share());
            } else {
                store.row(COPIES).kill(to.share());
            }
        }
        if store.retire_and_reuse(FIRST, NEWEST).is_some() {
            REUSED.here();
            store.row(FIRST).kill(NEWEST);
        }
        assert!(reader.join().is_ok_and(|got| got.is_some()), "the granule is never missing");
        assert!(putter.join().is_ok());
        let end = store.load().as_block().map(|block| (block.segment.0, block.units));
        assert_eq!(end, Some((PUTS, NEW)), "the put is the last word");
        assert_eq!(store.live(), [0, NEW, 0]);
    });
    MOVED.check();
    REUSED.check();
}

/// Two takes of one granule, and a get of it.
#[test]
fn of_two_takes_one_has_it() {
    explore(5, || {
        let store = Store::new(3);
        let [reader, taker] = [Arc::clone(&store), Arc::clone(&store)];
        let reader = thread::spawn(move || reader.get(0));
        let taker = thread::spawn(move || taker.take(1));
        let own = store.take(2);
        let [Ok(other), Ok(_)] = [taker.join(), reader.join()] else { unreachable!("loom reports the panic itself") };
        assert!(matches!((own, other), (Some(OLD), None) | (None, Some(OLD))), "{own:?} and {other:?}");
        assert!(store.load().is_missing());
        assert_eq!(store.live(), [0, 0, 0]);
    });
}

/// Whether a row's word is one that the table of states allows.
fn check_word(word: RowWord) {
    assert!(word.live() <= word.filled(), "{word:?}");
    let idle = matches!(word.state(), State::Free | State::Warm | State::Retired);
    assert!(!idle || word.live() == 0, "{word:?}");
}

/// One thread appends and seals, another lets go of what was appended; then both want to clean it, which begins with
/// reading the blocks one after the other, without any entry.
#[test]
fn a_row_keeps_its_ledger_and_is_taken_once() {
    static RETIRED: Reached = Reached::new();
    explore(UNBOUNDED, || {
        let row = Arc::new(Row::new());
        let blocks = Arc::new([Memory::new(), Memory::new()]);
        row.open(Class::Persistent);
        // What has been entered: units that the other may kill.
        let entered = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        let clean = |row: &Row, blocks: &[Memory; 2]| {
            if !row.take() {
                return false;
            }
            let word = row.word();
            check_word(word);
            assert_eq!(blocks.each_ref().map(Memory::read), [2, 3], "the walk sees what was committed");
            if word.live() == 0 {
                RETIRED.here();
                row.retire();
            }
            true
        };
        let other = {
            let (row, entered, blocks) = (Arc::clone(&row), Arc::clone(&entered), Arc::clone(&blocks));
            thread::spawn(move || {
                let kill = |units: &AtomicU64| {
                    // AcqRel: an entry is swapped under its leaf's lock.
                    match units.swap(0, Ordering::AcqRel) {
                        0 => 0,
                        dead => {
                            let dead = u32::try_from(dead).unwrap_or(u32::MAX);
                            row.kill(dead);
                            check_word(row.word());
                            dead
                        }
                    }
                };
                let dead: u32 = entered.iter().map(kill).sum();
                (dead, clean(&row, &blocks))
            })
        };
        for (units, at) in [(2, 0), (3, 1)] {
            blocks[at].write(u64::from(units));
            row.commit(units);
            // AcqRel: as above.
            entered[at].swap(u64::from(units), Ordering::AcqRel);
        }
        row.seal(1, (0, 0));
        let own = clean(&row, &blocks);
        let Ok((dead, others)) = other.join() else { unreachable!("loom reports the panic itself") };
        assert!(own ^ others, "taken by one of them: {own} {others}");
        let word = row.word();
        check_word(word);
        assert_eq!((word.live(), word.filled()), (5 - dead, 5));
        assert!(matches!(word.state(), State::Victim | State::Retired));
    });
    RETIRED.check();
}

/// A short segment is there for who puts and for the cleaner, and one of them gets it; what could be won back of it is
/// counted right, whatever dies meanwhile.
#[test]
fn a_short_row_is_reopened_or_taken_and_keeps_its_ledger() {
    static REOPENED: Reached = Reached::new();
    static TAKEN: Reached = Reached::new();
    explore(UNBOUNDED, || {
        // A sum that is exact in the end only, as in `Log`. It is none of loom's: the order of additions does not matter.
        let shared = Arc::new((Row::new(), std::sync::atomic::AtomicU64::new(0)));
        let (row, ledger) = &*shared;
        row.open(Class::Persistent);
        row.commit(5);
        row.shorten();
        ledger.store(u64::from(row.seal(1, (0, 0)).reclaimable()), Ordering::Relaxed); // Relaxed: see above
        let [killer, putter] = [(); 2].map(|()| Arc::clone(&shared));
        let killer = thread::spawn(move || {
            let (row, ledger) = &*killer;
            if matches!(row.kill(2).state(), State::Sealed | State::Victim) {
                ledger.fetch_add(2, Ordering::Relaxed); // Relaxed: see above
            }
        });
        let putter = thread::spawn(move || {
            let (row, ledger) = &*putter;
            let Some(before) = row.reopen(Class::Persistent, 1) else { return };
            REOPENED.here();
            ledger.fetch_sub(u64::from(before.reclaimable()), Ordering::Relaxed); // Relaxed: see above
            row.lengthen();
            row.commit(1);
            let word = row.seal(2, (0, 0));
            check_word(word);
            ledger.fetch_add(u64::from(word.reclaimable()), Ordering::Relaxed); // Relaxed: see above
        });
        let short = row.take().then(|| row.word().is_short());
        if short == Some(true) {
            TAKEN.here();
        }
        assert!(killer.join().is_ok() && putter.join().is_ok());
        let word = row.word();
        check_word(word);
        assert_eq!((word.filled(), word.live()), if word.is_short() { (5, 3) } else { (6, 4) });
        assert!(short.is_none_or(|short| short == word.is_short()), "what is taken is not reopened");
        // Relaxed: see above; all is done.
        assert_eq!(ledger.load(Ordering::Relaxed), u64::from(word.reclaimable()), "{word:?}");
    });
    REOPENED.check();
    TAKEN.check();
}

/// A pool is marked as destroyed, then the pins of before are waited for, then it is emptied: no put lands after that.
#[test]
fn no_put_lands_in_a_destroyed_pool() {
    static EMPTIED: Reached = Reached::new();
    static REFUSED: Reached = Reached::new();
    explore(UNBOUNDED, || {
        let store = Store::new(1);
        let destroyed = Arc::new(AtomicU64::new(0));
        let putter = {
            let (store, destroyed) = (Arc::clone(&store), Arc::clone(&destroyed));
            thread::spawn(move || {
                for (segment, units) in [(PUTS, NEW), (COPIES, NEWEST)] {
                    let _pin = store.epochs.pin(0);
                    // Relaxed: as in `PoolCore::is_destroyed`; the fence in `pin` is what counts.
                    if destroyed.load(Ordering::Relaxed) != 0 {
                        REFUSED.here();
                        return;
                    }
                    let leaf = store.lock();
                    let block = store.append(segment, units);
                    let before = store.set(&leaf, Entry::block(block));
                    store.release(&leaf, before);
                }
            })
        };
        // Relaxed: as in `PoolCore::mark_destroyed`.
        destroyed.store(1, Ordering::Relaxed);
        let stamp = store.epochs.stamp();
        let passed = store.epochs.passed(stamp);
        if passed {
            EMPTIED.here();
            let leaf = store.lock();
            let before = store.set(&leaf, Entry::MISSING);
            store.release(&leaf, before);
        }
        assert!(putter.join().is_ok());
        if passed {
            assert!(store.load().is_missing(), "a put landed in a pool that had been emptied");
            assert_eq!(store.live(), [0, 0, 0]);
        }
    });
    EMPTIED.check();
    REFUSED.check();
}

/// The model's entry works as the leaf's do.
#[test]
fn the_orderings_are_those_of_the_leaf() {
    let leaf = include_str!("table/leaf.rs");
    for line in [
        "Entry::from_word(self.entries[index as usize].load(Ordering::Acquire))",
        "self.leaf.entries[index as usize].swap(entry.word(), Ordering::AcqRel)",
        "cell.compare_exchange(seen.word(), warmer.word(), Ordering::Relaxed, Ordering::Relaxed)",
    ] {
        assert!(leaf.contains(line), "table/leaf.rs has changed: bring the models after it\n{line}");
    }
}
