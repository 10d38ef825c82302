//! The row of a segment: what it is, and how much of it is in use.
//!
//! One packed word, so that a segment's state and its counts change together:
//!
//! | bits | field |
//! |---|---|
//! | 0-2 | state |
//! | 3-4 | class |
//! | 5-24 | live: units that entries refer to |
//! | 25-44 | filled: units that blocks have been committed to, from the segment's start |
//! | 45 | short: the memory behind the pages that blocks are in was given back |
//!
//! | state | value | memory | blocks | next |
//! |---|---|---|---|---|
//! | free | 0 | none | none | open, warm |
//! | warm | 1 | held | none | open, free |
//! | open | 2 | held | one owner appends | sealed; warm, if it is empty |
//! | sealed | 3 | held | immutable | victim; open, if it is short |
//! | victim | 4 | held | the cleaner copies the live ones out | retired, sealed, damaged |
//! | retired | 5 | held | dead, perhaps still being read | warm; free, if it is short |
//! | damaged | 6 | held | immutable; some have no header that could be found | retired |
//!
//! Values 7 and above are illegal. `live <= filled <= held <= SEGMENT_UNITS` in every state. An open segment is short for
//! a moment only, while its owner gives the memory back or takes it again.

use crate::bits::Field;
use crate::primitive::{AtomicU64, Ordering};
use crate::units::{PAGE_UNITS, SEGMENT_UNITS};

const STATE: Field = Field::lowest(3);
const CLASS: Field = Field::after(STATE, 2);
const LIVE: Field = Field::after(CLASS, 20);
const FILLED: Field = Field::after(LIVE, 20);
const SHORT: Field = Field::after(FILLED, 1);
const _: () = assert!(LIVE.max() >= SEGMENT_UNITS as u64 && FILLED.max() >= SEGMENT_UNITS as u64);

/// What a segment is. The values stand in the module's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Free = 0,
    Warm = 1,
    Open = 2,
    Sealed = 3,
    Victim = 4,
    Retired = 5,
    Damaged = 6,
}

/// What kind of blocks a segment holds. They are apart so that dropping ephemeral blocks never means copying
/// persistent ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Blocks of persistent pools.
    Persistent = 0,
    /// Ephemeral blocks as they were put: the first to go.
    Probation = 1,
    /// Ephemeral blocks that had been got again when the cleaner came.
    Protected = 2,
}

/// A row's word, unpacked by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RowWord(u64);

impl RowWord {
    const FREE: Self = Self(0);

    pub(crate) fn state(self) -> State {
        match STATE.get(self.0) {
            0 => State::Free,
            1 => State::Warm,
            2 => State::Open,
            3 => State::Sealed,
            4 => State::Victim,
            5 => State::Retired,
            6 => State::Damaged,
            other => unreachable!("row state {other}"),
        }
    }

    pub(crate) fn class(self) -> Class {
        match CLASS.get(self.0) {
            0 => Class::Persistent,
            1 => Class::Probation,
            2 => Class::Protected,
            other => unreachable!("row class {other}"),
        }
    }

    pub(crate) fn live(self) -> u32 {
        LIVE.get32(self.0)
    }

    pub(crate) fn filled(self) -> u32 {
        FILLED.get32(self.0)
    }

    /// Whether the memory behind the pages that blocks are in was given back.
    pub(crate) fn is_short(self) -> bool {
        SHORT.get(self.0) != 0
    }

    /// Units whose memory is held, if the segment's is.
    pub(crate) fn held(self) -> u32 {
        if self.is_short() { self.filled().next_multiple_of(PAGE_UNITS) } else { SEGMENT_UNITS }
    }

    /// Units that cleaning would win back: dead blocks, and the tail that was never filled.
    pub(crate) fn reclaimable(self) -> u32 {
        self.held() - self.live()
    }

    fn with_state(self, state: State) -> Self {
        Self(STATE.set(self.0, state as u64))
    }

    /// Free or warm to open.
    fn opened(self, class: Class) -> Option<Self> {
        let idle = matches!(self.state(), State::Free | State::Warm);
        (idle && self.live() == 0).then(|| Self(CLASS.set(0, class as u64)).with_state(State::Open))
    }

    /// Free to warm: its memory was taken ahead of need.
    fn prepared(self) -> Option<Self> {
        (self == Self::FREE).then(|| self.with_state(State::Warm))
    }

    /// Open to warm: nothing was ever written to it.
    fn abandoned(self) -> Option<Self> {
        (self.state() == State::Open && self.filled() == 0).then(|| Self::FREE.with_state(State::Warm))
    }

    /// The memory behind its last page is given back.
    fn shortened(self) -> Option<Self> {
        let long = self.state() == State::Open && !self.is_short() && self.filled() > 0;
        long.then(|| Self(SHORT.set(self.0, 1)))
    }

    /// And taken again.
    fn lengthened(self) -> Option<Self> {
        (self.state() == State::Open && self.is_short()).then(|| Self(SHORT.set(self.0, 0)))
    }

    /// Sealed and short to open, if it has so many units left.
    fn reopened(self, class: Class, left: u32) -> Option<Self> {
        let fits = self.class() == class && SEGMENT_UNITS - self.filled() >= left;
        (self.state() == State::Sealed && self.is_short() && fits).then(|| self.with_state(State::Open))
    }

    /// Open to sealed.
    fn sealed(self) -> Option<Self> {
        (self.state() == State::Open).then(|| self.with_state(State::Sealed))
    }

    /// Sealed to victim.
    fn taken(self) -> Option<Self> {
        (self.state() == State::Sealed).then(|| self.with_state(State::Victim))
    }

    /// Victim back to sealed.
    fn put_back(self) -> Option<Self> {
        (self.state() == State::Victim).then(|| self.with_state(State::Sealed))
    }

    /// Victim to retired: every entry has left it.
    fn retired(self) -> Option<Self> {
        (self.state() == State::Victim && self.live() == 0).then(|| self.with_state(State::Retired))
    }

    /// Victim to damaged.
    fn damaged(self) -> Option<Self> {
        (self.state() == State::Victim).then(|| self.with_state(State::Damaged))
    }

    /// Damaged to retired: every entry has left it.
    fn buried(self) -> Option<Self> {
        (self.state() == State::Damaged && self.live() == 0).then(|| self.with_state(State::Retired))
    }

    /// Retired to warm.
    fn warmed(self) -> Option<Self> {
        (self.state() == State::Retired && !self.is_short()).then(|| Self::FREE.with_state(State::Warm))
    }

    /// Warm to free, or retired and short.
    fn freed(self) -> Option<Self> {
        let short = self.state() == State::Retired && self.is_short();
        (self.state() == State::Warm || short).then_some(Self::FREE)
    }

    /// `units` more, committed and referred to.
    fn committed(self, units: u32) -> Option<Self> {
        let filled = self.filled() + units;
        let word = Self(LIVE.set(self.0, u64::from(self.live() + units)));
        (self.state() == State::Open && filled <= SEGMENT_UNITS).then(|| Self(FILLED.set(word.0, u64::from(filled))))
    }

    /// `units` that no entry refers to any more.
    fn killed(self, units: u32) -> Option<Self> {
        let live = self.live().checked_sub(units)?;
        Some(Self(LIVE.set(self.0, u64::from(live))))
    }
}

/// A row of the segment table.
#[derive(Debug)]
pub(crate) struct Row {
    word: AtomicU64,
    /// When it was sealed, in seals of the whole log; or if it holds copies, when the youngest of them was.
    sealed_at: AtomicU64,
    /// The generation of policies under which the cleaner took all of it as cold; 0: it did not.
    settled: AtomicU64,
    /// Dead units in it that cleaning would not win back: granules of blocks that take less room whole than in parts.
    stuck: AtomicU64,
}

impl Row {
    pub(crate) fn new() -> Self {
        Self {
            word: AtomicU64::new(RowWord::FREE.0),
            sealed_at: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            stuck: AtomicU64::new(0),
        }
    }

    /// Its word now.
    pub(crate) fn word(&self) -> RowWord {
        // Acquire: pairs with the AcqRel in `change`. Blocks below `filled` are seen as they were written.
        RowWord(self.word.load(Ordering::Acquire))
    }

    /// When it was sealed.
    pub(crate) fn sealed_at(&self) -> u64 {
        // Relaxed: a hint for choosing victims.
        self.sealed_at.load(Ordering::Relaxed)
    }

    /// Applies a transition, and returns the word before it, or nothing where the transition is illegal.
    fn change(&self, transition: impl Fn(RowWord) -> Option<RowWord>) -> Option<RowWord> {
        // AcqRel, Acquire: publishes the blocks committed so far; pairs with `word`. Of two changes the later one sees
        // what the earlier one published.
        let step = |word| transition(RowWord(word)).map(|next| next.0);
        self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, step).ok().map(RowWord)
    }

    /// As [`Self::change`], for a transition that our own bookkeeping says is legal.
    fn must(&self, what: &str, transition: impl Fn(RowWord) -> Option<RowWord>) -> RowWord {
        match self.change(transition) {
            Some(before) => before,
            None => unreachable!("a segment cannot be {what}: {:?}", self.word()),
        }
    }

    pub(crate) fn open(&self, class: Class) {
        self.must("opened", |word| word.opened(class));
    }

    /// Under which generation of policies all of it was taken as cold; 0: it was not.
    pub(crate) fn settled(&self) -> u64 {
        // Relaxed: a hint for choosing victims.
        self.settled.load(Ordering::Relaxed)
    }

    /// Dead units in it that cleaning would not win back.
    pub(crate) fn stuck(&self) -> u64 {
        // Relaxed: a hint for choosing victims.
        self.stuck.load(Ordering::Relaxed)
    }

    /// Units that cleaning it would really win back, as far as is known.
    pub(crate) fn gain(&self) -> u32 {
        let word = self.word();
        if word.live() == 0 {
            // Nothing is copied for it.
            return SEGMENT_UNITS;
        }
        word.reclaimable().saturating_sub(u32::try_from(self.stuck()).unwrap_or(u32::MAX))
    }

    /// Seals it, as old as the log's `nth`. Returns the word as it is afterwards.
    pub(crate) fn seal(&self, nth: u64, (settled, stuck): (u64, u64)) -> RowWord {
        // Relaxed: a hint for choosing victims.
        self.sealed_at.store(nth, Ordering::Relaxed);
        self.settled.store(settled, Ordering::Relaxed); // Relaxed: as above
        self.stuck.store(stuck, Ordering::Relaxed); // Relaxed: as above
        let before = self.must("sealed", RowWord::sealed);
        before.with_state(State::Sealed)
    }

    /// See [`RowWord::is_short`].
    pub(crate) fn shorten(&self) {
        self.must("shortened", RowWord::shortened);
    }

    pub(crate) fn lengthen(&self) {
        self.must("lengthened", RowWord::lengthened);
    }

    /// Opens it again, if it is sealed, short, of that class, and has so many units left. Returns the word as it was.
    pub(crate) fn reopen(&self, class: Class, left: u32) -> Option<RowWord> {
        self.change(|word| word.reopened(class, left))
    }

    /// Seals what was reopened and not written to, as it was. Returns the word as it is but for its state.
    pub(crate) fn close(&self) -> RowWord {
        self.must("closed", RowWord::sealed)
    }

    /// Takes it for cleaning, unless somebody has.
    pub(crate) fn take(&self) -> bool {
        self.change(RowWord::taken).is_some()
    }

    pub(crate) fn put_back(&self) {
        self.must("put back", RowWord::put_back);
    }

    /// Returns the word as it was.
    pub(crate) fn retire(&self) -> RowWord {
        self.must("retired", RowWord::retired)
    }

    /// Returns the word as it was.
    pub(crate) fn condemn(&self) -> RowWord {
        self.must("condemned", RowWord::damaged)
    }

    /// Retires a damaged segment that nothing refers to any more, if it is one.
    pub(crate) fn bury(&self) -> bool {
        self.change(RowWord::buried).is_some()
    }

    pub(crate) fn prepare(&self) {
        self.must("prepared", RowWord::prepared);
    }

    pub(crate) fn abandon(&self) {
        self.must("abandoned", RowWord::abandoned);
    }

    pub(crate) fn warm(&self) {
        self.must("warmed", RowWord::warmed);
    }

    pub(crate) fn free(&self) {
        self.must("freed", RowWord::freed);
    }

    pub(crate) fn commit(&self, units: u32) {
        self.must("committed to", |word| word.committed(units));
    }

    /// Takes `units` from the live ones. Returns the word as it was.
    pub(crate) fn kill(&self, units: u32) -> RowWord {
        self.must("relieved", |word| word.killed(units))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_row_goes_only_where_its_table_says() {
        let row = Row::new();
        assert!(!row.take());
        row.open(Class::Protected);
        row.commit(100);
        assert_eq!(row.kill(40).state(), State::Open);
        let word = row.seal(7, (0, 0));
        assert_eq!((word.live(), word.filled(), word.class()), (60, 100, Class::Protected));
        assert!(row.take() && !row.take());
        assert!(row.change(RowWord::retired).is_none(), "60 units are live");
        row.kill(60);
        row.retire();
        row.warm();
        row.free();
        assert_eq!(row.word(), RowWord::FREE);
    }

    #[test]
    fn a_short_row_holds_whole_pages_and_is_opened_again_or_freed() {
        let row = Row::new();
        row.open(Class::Persistent);
        assert!(row.change(RowWord::shortened).is_none(), "it is empty");
        row.commit(PAGE_UNITS + 1);
        row.shorten();
        let word = row.seal(1, (0, 0));
        assert_eq!((word.held(), word.reclaimable()), (2 * PAGE_UNITS, PAGE_UNITS - 1));
        let left = SEGMENT_UNITS - PAGE_UNITS - 1;
        assert!(row.reopen(Class::Probation, left).is_none() && row.reopen(Class::Persistent, left + 1).is_none());
        assert!(row.reopen(Class::Persistent, left).is_some() && row.reopen(Class::Persistent, 0).is_none());
        row.close();
        assert!(row.reopen(Class::Persistent, 0).is_some());
        row.lengthen();
        row.commit(left);
        assert_eq!(row.seal(2, (0, 0)).held(), SEGMENT_UNITS);
        assert!(row.reopen(Class::Persistent, 0).is_none(), "it is not short any more");

        let row = Row::new();
        row.open(Class::Persistent);
        row.commit(1);
        row.shorten();
        row.seal(3, (0, 0));
        row.kill(1);
        assert!(row.take());
        row.retire();
        assert!(row.change(RowWord::warmed).is_none(), "a part of its memory is gone");
        row.free();
        assert_eq!(row.word(), RowWord::FREE);
    }

    #[test]
    #[should_panic(expected = "cannot be relieved")]
    fn more_cannot_die_than_lived() {
        let row = Row::new();
        row.open(Class::Persistent);
        row.commit(10);
        row.kill(11);
    }
}
