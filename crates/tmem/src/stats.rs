//! Counters.
//!
//! Every context counts in cells of its own, so counting costs a load and a store and nobody shares a line; whoever
//! wants to know adds the cells up. The identities that [`Stats::check`] asserts hold whenever no operation is
//! running.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($name:ident $field:ident $doc:literal),* $(,)?) => {
        /// What is counted.
        #[derive(Debug, Clone, Copy)]
        pub(crate) enum Counter { $($name),* }

        const COUNTERS: usize = [$(Counter::$name),*].len();

        /// Counts since the pool was created; of a client or a store, the sums over its pools, destroyed ones
        /// included.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Stats { $(#[doc = $doc] pub $field: u64),* }

        impl Stats {
            fn from_counts(counts: &[u64; COUNTERS]) -> Self {
                Self { $($field: counts[Counter::$name as usize]),* }
            }

            /// Adds `other` to it.
            pub fn add(&mut self, other: &Self) {
                $(self.$field += other.$field;)*
            }

            /// Every count with its name, in a fixed order.
            #[must_use]
            pub fn fields(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($field), self.$field)),*]
            }
        }
    };
}

counters! {
    Puts puts "Puts, and times that a loan's blocks were entered.",
    PutsStored puts_stored "Puts that were stored.",
    PutsRejected puts_rejected "Puts that were rejected: no room within the budget or the cap.",
    PutsFrozen puts_frozen "Puts that failed because the client is frozen.",
    PutsRefused puts_refused "Puts that made no sense.",
    Gets gets "Gets, takes included.",
    GetsFilled gets_filled "Gets that found everything.",
    GetsPartly gets_partly "Gets that found a part.",
    GetsMissing gets_missing "Gets that found nothing.",
    GetsCorrupt gets_corrupt "Gets that met damaged bytes.",
    GetsRefused gets_refused "Gets that made no sense.",
    Takes takes "Gets that flushed what they got.",
    Flushes flushes "Flushes of a range or of an object.",
    FlushesRefused flushes_refused "Flushes that made no sense.",
    GranulesPut granules_put "Granules that puts brought in.",
    GranulesFilledPut granules_same_filled "Of those, the ones that are one word repeated and live in the table alone.",
    GranulesReplaced granules_replaced "Granules that a put took the place of.",
    GranulesFlushed granules_flushed "Granules that flushes, takes and failing puts removed, and destruction.",
    GranulesEvicted granules_evicted "Granules that the cleaner dropped.",
    GranulesLost granules_lost "Granules that the cleaner found damaged.",
    GranulesGot granules_got "Granules that gets filled.",
    BlocksPut blocks_put "Blocks that puts wrote.",
    BlocksMoved blocks_moved "Blocks that the cleaner copied.",
    BlocksSettled blocks_settled "Blocks that the cleaner encoded anew as cold.",
    BytesStored bytes_stored "Bytes of payload that puts wrote.",
    BytesCopied bytes_copied "Bytes of clients' pages moved outside a codec.",
}

/// The cells of one pool.
#[derive(Debug)]
pub(crate) struct Cells(Box<[Cell]>);

#[derive(Debug)]
#[repr(align(128))]
struct Cell([AtomicU64; COUNTERS]);

impl Cells {
    /// For contexts 0 to `contexts - 1`.
    pub(crate) fn new(contexts: usize) -> Self {
        Self((0..contexts).map(|_| Cell([const { AtomicU64::new(0) }; COUNTERS])).collect())
    }

    /// Bytes that they take.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.0)
    }

    /// Counts `n` more. `context` is the caller's own.
    pub(crate) fn add(&self, context: usize, counter: Counter, n: u64) {
        let cell = &self.0[context].0[counter as usize];
        // Relaxed: a count publishes nothing. Load and store, not an addition: the cell has one writer at a time, and
        // the context's lock orders one after the other.
        cell.store(cell.load(Ordering::Relaxed) + n, Ordering::Relaxed);
    }

    /// The sums.
    pub(crate) fn sum(&self) -> Stats {
        let mut counts = [0; COUNTERS];
        for cell in &self.0 {
            for (sum, count) in counts.iter_mut().zip(&cell.0) {
                *sum += count.load(Ordering::Relaxed); // Relaxed: see `add`
            }
        }
        Stats::from_counts(&counts)
    }
}

impl Stats {
    /// Whether the counts fit together, given how many granules are held. For moments when no operation is running.
    ///
    /// # Errors
    /// Says which identity does not hold.
    pub fn check(&self, granules_held: u64) -> Result<(), String> {
        let puts = self.puts_stored + self.puts_rejected + self.puts_frozen + self.puts_refused;
        let gets = self.gets_filled + self.gets_partly + self.gets_missing + self.gets_corrupt + self.gets_refused;
        let gone = self.granules_replaced + self.granules_flushed + self.granules_evicted;
        for (what, left, right) in [
            ("puts = stored + rejected + frozen + refused", self.puts, puts),
            ("gets = filled + partly + missing + corrupt + refused", self.gets, gets),
            ("granules put = held + replaced + flushed + evicted", self.granules_put, granules_held + gone),
        ] {
            if left != right {
                return Err(format!("{what} does not hold: {left} != {right} in {self:?}"));
            }
        }
        Ok(())
    }
}
