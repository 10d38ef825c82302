//! Huge pages that come back: decoded into the landing area, which is one huge page then, and moved from there into
//! place. See [`crate::protocol`], "The second channel".
//!
//! The landing area is empty between commands. Where the kernel had no huge page for it, or took it apart on the way,
//! a page table is left, where no huge page can be any more: the monitor, which can see that, has it mapped anew
//! ([`RENEW`]).
//!
//! Regions are mapped whole, read-only, when first read from: address space and nothing more, for what was read is let
//! go after each command. It would be counted as the program's own otherwise.

use core::sync::atomic::Ordering;

use tmem_codec::{Codec, GRANULE};

use crate::hands::{Hands, LANDING_NAME, Own};
use crate::injection::{self, Call};
use crate::protocol::{
    ASKED, BATCH, Command, DECODE, DECODED, DONE, HUGE_BYTES, MOVED, PAGE_BYTES, REGION_BYTES, RENEW, Source, TAKEN,
    UNDECODED,
};
use crate::{boot, sys};

const _: () = assert!(GRANULE as u64 == PAGE_BYTES && BATCH as u64 * PAGE_BYTES == HUGE_BYTES);

impl Hands {
    /// Does what the second channel asks for, if anything.
    pub(crate) fn answer(&self, own: &mut Own) {
        let asked = &self.comm.asked;
        // Relaxed: a look, which shows nothing.
        if asked.load(Ordering::Relaxed) != ASKED {
            return;
        }
        // Acquire: pairs with the monitor's store of ASKED; the command is visible. Relaxed: it was taken back.
        if asked.compare_exchange(ASKED, TAKEN, Ordering::Acquire, Ordering::Relaxed).is_err() {
            return;
        }
        let command = &self.comm.second;
        // Relaxed, all: `asked` published them.
        let count = command.count.load(Ordering::Relaxed) as usize;
        let to = command.args[0].load(Ordering::Relaxed); // as above
        match command.op.load(Ordering::Relaxed) {
            // as above
            DECODE if count == BATCH => self.land(command, to, own),
            RENEW => self.renew(command),
            _ => {}
        }
        self.tell(DONE);
    }

    fn land(&self, command: &Command, to: u64, own: &mut Own) {
        let decoded = self.decode_all(command, own);
        self.tell(DECODED);
        if !decoded {
            command.results[0].store(UNDECODED, Ordering::Relaxed); // Relaxed: DONE publishes it
        }
        if !decoded || self.move_landed(command, to) != MOVED {
            sys::madvise(self.layout.landing, HUGE_BYTES, sys::MADV_DONTNEED);
        }
    }

    fn tell(&self, state: u32) {
        // Release: pairs with the monitor's acquire; the blocks have been read, or the results are visible.
        self.comm.asked.store(state, Ordering::Release);
        sys::futex_wake(&self.comm.asked);
    }

    fn renew(&self, command: &Command) {
        let landing = self.layout.landing;
        let flags = sys::MAP_MEMORY | sys::MAP_FIXED;
        // SAFETY: the landing area is ours, and holds nothing between commands.
        let mapped = unsafe { sys::mmap(landing, HUGE_BYTES, sys::PROT_RW, flags, -1, 0) };
        sys::name_memory(landing, HUGE_BYTES, LANDING_NAME);
        sys::madvise(landing, HUGE_BYTES, sys::MADV_HUGEPAGE);
        let kept = sys::madvise(landing, HUGE_BYTES, sys::MADV_DONTFORK);
        if mapped < 0 || kept < 0 {
            boot::fail_closed();
        }
        command.results[0].store(MOVED, Ordering::Relaxed); // Relaxed: DONE publishes it
    }

    /// Decodes all pages of a command into the landing area.
    fn decode_all(&self, command: &Command, own: &mut Own) -> bool {
        let mut read = 0_u64;
        let mut decoded = true;
        for (word, at) in command.pages.iter().zip((self.layout.landing..).step_by(GRANULE)) {
            // SAFETY: a page of the landing area, which is writable, and the agent's alone until it is moved.
            let to: &mut [u8; GRANULE] = unsafe { &mut *core::ptr::with_exposed_provenance_mut(at as usize) };
            let source = Source::of_word(word.load(Ordering::Relaxed)); // Relaxed: `asked` published it
            if let Source::Block { region, .. } = source {
                read |= 1 << region;
            }
            if !self.decode_page(source, to, own) {
                decoded = false;
                break;
            }
        }
        for (region, at) in own.readable.iter().enumerate() {
            if read >> region & 1 == 1 && *at != 0 {
                sys::madvise(*at, REGION_BYTES, sys::MADV_DONTNEED);
            }
        }
        decoded
    }

    fn decode_page(&self, source: Source, to: &mut [u8; GRANULE], own: &mut Own) -> bool {
        let (region, offset_bytes, codec, bytes) = match source {
            Source::Filled(pattern) => {
                to.as_chunks_mut::<4>().0.fill(pattern.to_le_bytes());
                return true;
            }
            Source::There => return true,
            Source::Block { region, offset_bytes, codec, bytes } => (region, offset_bytes, codec, bytes),
        };
        let Ok(codec) = Codec::try_from(codec) else { return false };
        if offset_bytes + u64::from(bytes) > REGION_BYTES {
            return false;
        }
        let Some(start) = self.readable(u64::from(region), own) else { return false };
        let block = core::ptr::with_exposed_provenance::<u8>((start + offset_bytes) as usize);
        // SAFETY: within the region, all of which is mapped. The monitor keeps the block as it is until DECODED.
        let block = unsafe { core::slice::from_raw_parts(block, bytes as usize) };
        tmem_codec::decode(own.workspace, codec, block, to).is_ok()
    }

    /// Where a region is mapped to be read.
    fn readable(&self, region: u64, own: &mut Own) -> Option<u64> {
        let known = own.readable[region as usize];
        if known != 0 {
            return Some(known);
        }
        let fd = self.await_region(region)?;
        // Without access at first: after `mlockall(MCL_FUTURE)` the kernel would bring all of it in.
        let mapped = injection::refused(self.comm, Call::Mmap, || {
            // SAFETY: a new mapping, wherever the kernel likes.
            unsafe { sys::mmap(0, REGION_BYTES, sys::PROT_NONE, sys::MAP_SHARED, fd, 0) }
        });
        let start = u64::try_from(mapped).ok()?;
        sys::munlock(start, REGION_BYTES);
        sys::madvise(start, REGION_BYTES, sys::MADV_DONTDUMP);
        let usable = sys::madvise(start, REGION_BYTES, sys::MADV_DONTFORK) >= 0
            && sys::protect(start, REGION_BYTES, sys::PROT_READ) >= 0;
        if !usable {
            return None;
        }
        own.readable[region as usize] = start;
        Some(start)
    }
}
