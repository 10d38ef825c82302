//! What programs have mapped from files: the kernel takes it back, if asked.

use core::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tmem_agent::protocol::PAGE_BYTES;
use tmem_sys::MappingKind;

use super::Evictor;

/// How often files may have their turn.
const FILES: Duration = Duration::from_secs(1);

impl Evictor {
    /// What programs have mapped from files has its turn when as many other pages were evicted as the limit holds, or
    /// nothing else can be taken: the kernel takes back what no other process has mapped, and reads it again when it is
    /// touched.
    pub(super) fn let_files_go(&mut self) {
        let evicted = self.core.counters.evicted_pages.get();
        let (when, then) = self.files;
        let worn = (evicted - then) * PAGE_BYTES >= self.core.limit() || self.desperate;
        let much = self.core.files.load(Ordering::Relaxed) > self.core.limit() / 32; // Relaxed: an estimate
        if !worn || !much || when.elapsed() < FILES {
            return;
        }
        self.files = (Instant::now(), evicted);
        let mut mappings = Vec::new();
        for space in self.core.spaces() {
            let Some(hands) = space.hands.get() else { continue };
            mappings.clear();
            let _ = tmem_sys::mappings(hands.pid, &mut mappings); // one that has gone has none
            let files = mappings.iter().filter(|mapping| mapping.kind == MappingKind::File && !mapping.write);
            files.for_each(|mapping| hands.page_out(&mapping.range));
        }
    }
}
