//! Protections that change, and address space that is reserved first and used in pieces.

use crate::fork::child;
use crate::options::Options;
use crate::pattern::Random;
use crate::pressure::Pressure;
use crate::region::{Region, check_zeros};
use crate::sys::{self, PAGE, RW};

/// Read-only while evicted: reads are right, writes are refused, and writing works again later.
pub(crate) fn protect(options: &Options) -> u64 {
    let mut region = Region::filled(options.mib, options.seed);
    let mut pressure = Pressure::new(options);
    pressure.evict_half(&region);
    for round in 0..options.times {
        let (start, pages) = (region.pages() / 4, region.pages() / 2);
        sys::protect(region.address(start), pages * PAGE, libc::PROT_READ);
        region.check_each((start..start + pages).step_by(1 + round));
        pressure.push();
        let place = region.address(start + pages / 2 + round);
        let status = child(|| sys::poke(place, 1)).wait();
        if !libc::WIFSIGNALED(status) || libc::WTERMSIG(status) != libc::SIGSEGV {
            sys::fail("a write to read-only memory was let through");
        }
        region.check_each(start..start + pages);
        sys::protect(region.address(start), pages * PAGE, RW);
        region.fill((0..region.pages()).step_by(3));
        pressure.evict_half(&region);
    }
    region.check_all()
}

/// No access at all for a while, under pressure, and then as before.
pub(crate) fn protect_none(options: &Options) -> u64 {
    let mut region = Region::filled(options.mib, options.seed);
    let mut pressure = Pressure::new(options);
    pressure.evict_half(&region);
    for round in 0..options.times {
        let (start, pages) = (region.pages() / 4, region.pages() / 4);
        sys::protect(region.address(start), pages * PAGE, libc::PROT_NONE);
        pressure.push();
        region.check_each((0..start).step_by(2));
        // A part comes back on its own, and the rest later.
        sys::protect(region.address(start + pages / 2), pages / 2 * PAGE, RW);
        region.check_each(start + pages / 2..start + pages);
        pressure.push();
        sys::protect(region.address(start), pages * PAGE, libc::PROT_READ);
        region.check_each((start..start + pages).step_by(1 + round));
        sys::protect(region.address(start), pages * PAGE, RW);
        region.fill((0..region.pages()).step_by(3));
        pressure.evict_half(&region);
    }
    region.check_all()
}

/// Pages that are committed and decommitted at once.
const CHUNK: usize = 64;
/// Bytes of the reservation.
const RESERVED: usize = 1 << 30;

/// As V8 and the JVM do it: a large reservation without access, committed and decommitted in pieces, in three ways.
pub(crate) fn reserve_commit(options: &Options) -> u64 {
    let mut random = Random::new(options.seed);
    let base = sys::map(RESERVED, libc::PROT_NONE, libc::MAP_NORESERVE);
    let chunks = RESERVED / PAGE / CHUNK;
    let mut region = Region::at(base, RESERVED / PAGE, options.seed);
    let mut pressure = Pressure::new(options);
    let most = (options.mib << 8) / CHUNK;
    let mut committed: Vec<usize> = Vec::new();
    for _ in 0..options.times * 200 {
        if committed.len() < most && random.below(3) > 0 {
            let chunk = random.below(chunks);
            if !committed.contains(&chunk) {
                sys::protect(base + chunk * CHUNK * PAGE, CHUNK * PAGE, RW);
                check_zeros(base + chunk * CHUNK * PAGE, 2);
                region.fill(chunk * CHUNK..(chunk + 1) * CHUNK);
                committed.push(chunk);
            }
        } else if !committed.is_empty() {
            let chunk = committed.swap_remove(random.below(committed.len()));
            region.check_each((chunk * CHUNK..(chunk + 1) * CHUNK).step_by(7));
            decommit(base + chunk * CHUNK * PAGE, random.below(3));
            region.zeroed(chunk * CHUNK..(chunk + 1) * CHUNK);
        }
        if random.below(16) == 0 {
            pressure.push();
        }
    }
    if let Some(&chunk) = committed.first() {
        pressure.evict(&region, chunk * CHUNK..(chunk + 1) * CHUNK, CHUNK / 2);
    }
    committed.sort_unstable();
    region.check_each(committed.iter().flat_map(|chunk| chunk * CHUNK..(chunk + 1) * CHUNK))
}

fn decommit(at: usize, way: usize) {
    let bytes = CHUNK * PAGE;
    match way {
        0 => {
            sys::discard(at, bytes);
            sys::protect(at, bytes, libc::PROT_NONE);
        }
        1 => {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
            sys::demand(sys::map_at(at, bytes, libc::PROT_NONE, flags, usize::MAX), "mmap(MAP_FIXED)");
        }
        _ => {
            sys::protect(at, bytes, libc::PROT_NONE);
            sys::discard(at, bytes);
        }
    }
}
