//! The last resort before a limit is said not to hold: time for room.
//!
//! Everything has been moved out, so the limit holds the store and little else, and only a denser store makes room. What
//! comes back from it then takes longer, a block of several pages being decoded for each: the program is slowed, not
//! stopped.

use std::time::Duration;

use tmem::Policy;
use tmem_agent::protocol::{HUGE_BYTES, PAGE_BYTES};

use super::Evictor;

/// How long nothing could be taken before it comes to this.
const PATIENCE: Duration = Duration::from_millis(200);
/// As much as this part of the limit was evicted since it was last done: less is not worth it.
const WORTH: u64 = 16;

impl Evictor {
    /// Nothing could be taken for so long: has all that is stored encoded as densely as can be. Returns whether that
    /// freed memory.
    pub(super) fn press(&mut self, barren: Duration) -> bool {
        let evicted = self.core.counters.evicted_pages.get();
        if barren < PATIENCE || (evicted - self.pressed) * PAGE_BYTES < self.core.limit() / WORTH {
            return false;
        }
        self.settle();
        self.loan.end();
        let before = self.core.store.used_bytes();
        // Each time, so that what was settled before is due again: pages that came back since have left holes in its blocks.
        // To leave those alone was tried: less room is found, and a program at the edge takes a seventh longer.
        self.core.pool.set_policy(Policy::Dense);
        self.core.store.settle_all();
        self.pressed = self.core.counters.evicted_pages.get();
        before.saturating_sub(self.core.store.used_bytes()) as u64 >= HUGE_BYTES
    }
}
