//! Address spaces that change while parts of them are elsewhere.

use crate::options::Options;
use crate::pattern::{Digest, Random};
use crate::pressure::Pressure;
use crate::region::{Region, check_zeros};
use crate::sys::{self, PAGE, RW};
use std::ops::Range;

/// Pages of the runs that are cut out of regions.
const RUN: usize = 16;

fn evicted(options: &Options) -> (Region, Pressure) {
    let region = Region::filled(options.mib, options.seed);
    let mut pressure = Pressure::new(options);
    pressure.evict_half(&region);
    (region, pressure)
}

/// Moves the region to a new place.
fn relocate(region: &mut Region) {
    let place = sys::map(region.bytes(), libc::PROT_NONE, libc::MAP_NORESERVE);
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    region.base = sys::demand(sys::remap(region.base, region.bytes(), region.bytes(), flags, place), "mremap");
}

/// Moved as a whole, and back under pressure.
pub(crate) fn remap_move(options: &Options) -> u64 {
    let (mut region, mut pressure) = evicted(options);
    let was = region.base;
    relocate(&mut region);
    region.check_each((0..region.pages()).step_by(3));
    region.fill((0..region.pages()).step_by(5));
    // Something else in the old place is something else.
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    let other = sys::demand(sys::map_at(was, region.bytes() / 4, RW, flags, usize::MAX), "mmap");
    check_zeros(other, region.pages() / 4);
    pressure.evict_half(&region);
    relocate(&mut region);
    pressure.push();
    region.check_all()
}

/// Grown in place: the old part is as it was, the new one is zeros.
pub(crate) fn remap_grow(options: &Options) -> u64 {
    let half = (options.mib << 8) / 2;
    let place = sys::map(half * 2 * PAGE, RW, 0);
    sys::unmap(place + half * PAGE, half * PAGE);
    let mut region = Region::at(place, half, options.seed);
    region.fill(region.all());
    let mut pressure = Pressure::new(options);
    pressure.evict_half(&region);
    let mut pages = half;
    while pages < half * 2 {
        let more = (half / options.times).min(half * 2 - pages);
        sys::demand(sys::remap(place, pages * PAGE, (pages + more) * PAGE, 0, 0), "mremap in place");
        region.versions.resize(pages + more, 0);
        // Every other new page is read before it is written.
        region.check_each((pages..pages + more).step_by(2));
        region.fill((pages..pages + more).step_by(3));
        pressure.evict(&region, 0..pages, pages / 2);
        pages += more;
        region.check_each((0..pages).step_by(7));
    }
    region.check_all()
}

/// Shrunk, and grown again: what was cut off is gone.
pub(crate) fn remap_shrink(options: &Options) -> u64 {
    let (mut region, mut pressure) = evicted(options);
    let (pages, kept) = (region.pages(), region.pages() / 2);
    for _ in 0..options.times {
        sys::demand(sys::remap(region.base, pages * PAGE, kept * PAGE, 0, 0), "mremap to less");
        region.versions.truncate(kept);
        pressure.push();
        region.check_each((0..kept).step_by(3));
        let grown = sys::remap(region.base, kept * PAGE, pages * PAGE, libc::MREMAP_MAYMOVE, 0);
        region.base = sys::demand(grown, "mremap to more");
        region.versions.resize(pages, 0);
        check_zeros(region.address(kept), pages - kept);
        region.fill(kept..pages);
        pressure.evict_half(&region);
    }
    region.check_all()
}

/// Moved with the old mapping left behind: that reads as zeros.
pub(crate) fn remap_dontunmap(options: &Options) -> u64 {
    let (mut region, mut pressure) = evicted(options);
    let mut digest = Digest::new();
    for _ in 0..options.times {
        let (was, bytes) = (region.base, region.bytes());
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_DONTUNMAP;
        region.base = sys::demand(sys::remap(was, bytes, bytes, flags, 0), "mremap(MREMAP_DONTUNMAP)");
        let mut left = Region::at(was, region.pages(), options.seed ^ 7);
        left.check_each((0..left.pages()).step_by(2));
        left.fill((0..left.pages()).step_by(4));
        pressure.evict_half(&region);
        digest.add(left.check_all());
        digest.add(region.check_all());
        sys::unmap(was, bytes);
        region.fill((0..region.pages()).step_by(3));
        pressure.evict_half(&region);
    }
    digest.value()
}

/// Parts are moved to and fro while pressure goes on, so that some are moved in the midst of being taken.
pub(crate) fn remap_repeatedly(options: &Options) -> u64 {
    let mut random = Random::new(options.seed);
    let pages = options.mib << 8;
    let mut parts: Vec<Region> = (0..8).map(|part| Region::new(pages / 8, options.seed + part)).collect();
    for part in &mut parts {
        part.fill(part.all());
    }
    Pressure::new(options).evict_half(&parts[0]);
    let pressure = Pressure::in_background(options);
    for _ in 0..options.times * 50 {
        let which = random.below(parts.len());
        relocate(&mut parts[which]);
        let part = &mut parts[which];
        part.check_some(&mut random, 50);
        for _ in 0..50 {
            part.write(random.below(part.pages()));
        }
    }
    pressure.stop();
    let mut digest = Digest::new();
    parts.iter().for_each(|part| digest.add(part.check_all()));
    digest.value()
}

/// Runs of every third are unmapped, and later mapped anew.
pub(crate) fn unmap_parts(options: &Options) -> u64 {
    let (mut region, mut pressure) = evicted(options);
    let runs: Vec<Range<usize>> = (0..region.pages() / RUN).step_by(3).map(|run| run * RUN..(run + 1) * RUN).collect();
    for run in &runs {
        sys::unmap(region.address(run.start), RUN * PAGE);
    }
    let is_kept = |index: &usize| !(index / RUN).is_multiple_of(3) || index / RUN >= region.pages() / RUN;
    let kept: Vec<usize> = region.all().filter(is_kept).collect();
    region.check_each(kept.iter().copied().step_by(3));
    pressure.push();
    for run in &runs {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
        sys::demand(sys::map_at(region.address(run.start), RUN * PAGE, RW, flags, usize::MAX), "mmap");
        region.zeroed(run.clone());
        region.check(run.start);
        region.write(run.end - 1);
    }
    region.check_each(kept);
    pressure.evict_half(&region);
    region.check_all()
}

/// MAP_FIXED over what is evicted: new memory.
pub(crate) fn map_over(options: &Options) -> u64 {
    let (mut region, mut pressure) = evicted(options);
    let mut random = Random::new(options.seed);
    for _ in 0..options.times * 20 {
        let pages = 1 + random.below(RUN * 8);
        let start = random.below(region.pages() - pages);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        let made = sys::map_at(region.address(start), pages * PAGE, RW, flags, usize::MAX);
        sys::demand(made, "mmap(MAP_FIXED)");
        region.zeroed(start..start + pages);
        region.check_each((start..start + pages).step_by(2));
        region.fill((start..start + pages).step_by(3));
        pressure.push();
    }
    pressure.evict_half(&region);
    region.check_all()
}

/// Mappings of one or two pages side by side, which the kernel keeps apart: what is done to the last page of one must
/// not run into the next.
pub(crate) fn neighbours(options: &Options) -> u64 {
    let mut region = Region::new(options.mib << 8, options.seed);
    // Executable ones are apart from their neighbours, and so are those that a core dump leaves out.
    let odd: Vec<usize> = (0..2000).map(|at| at * 5 % region.pages()).collect();
    for (number, &index) in odd.iter().enumerate() {
        if number % 2 == 0 {
            sys::protect(region.address(index), PAGE, RW | libc::PROT_EXEC);
        } else {
            sys::demand(sys::advise(region.address(index), PAGE, libc::MADV_DONTDUMP), "madvise(MADV_DONTDUMP)");
        }
    }
    region.fill(region.all());
    let mut pressure = Pressure::new(options);
    for _ in 0..options.times {
        pressure.evict_half(&region);
        region.check_each(region.all().rev());
        region.fill((0..region.pages()).step_by(5));
    }
    region.check_all()
}

/// MADV_DONTNEED: zeros, whatever was there and wherever it was.
pub(crate) fn dontneed(options: &Options) -> u64 {
    let (mut region, mut pressure) = evicted(options);
    let mut random = Random::new(options.seed);
    for _ in 0..options.times * 20 {
        let pages = 1 + random.below(RUN * 8);
        let start = random.below(region.pages() - pages);
        sys::discard(region.address(start), pages * PAGE);
        region.zeroed(start..start + pages);
        region.check_each((start..start + pages).step_by(2));
        region.fill((start..start + pages).step_by(4));
        pressure.push();
    }
    pressure.evict_half(&region);
    region.check_all()
}

/// MADV_FREE: a page is as it was or zeros, and what is written afterwards stays.
pub(crate) fn madv_free(options: &Options) -> u64 {
    let (mut region, mut pressure) = evicted(options);
    let middle = region.pages() / 4..region.pages() / 2;
    for _ in 0..options.times {
        let (at, bytes) = (region.address(middle.start), middle.len() * PAGE);
        sys::demand(sys::advise(at, bytes, libc::MADV_FREE), "madvise(MADV_FREE)");
        pressure.push();
        region.fill(middle.clone().step_by(2));
        for index in middle.clone().skip(1).step_by(2) {
            region.check_or_zeros(index);
        }
        // The free pages are written too, so that all are known.
        region.fill(middle.clone().skip(1).step_by(2));
        pressure.evict_half(&region);
        region.check_all();
    }
    // Versions of pages depend on what the kernel did with free ones.
    region.fill(middle.clone());
    region.check_all();
    region.check_each((0..middle.start).chain(middle.end..region.pages()))
}

/// MADV_POPULATE_READ and MADV_POPULATE_WRITE bring everything in.
pub(crate) fn populate(options: &Options) -> u64 {
    let (mut region, mut pressure) = evicted(options);
    for advice in [libc::MADV_POPULATE_READ, libc::MADV_POPULATE_WRITE] {
        for chunk in 0..region.pages() / 256 {
            sys::demand(sys::advise(region.address(chunk * 256), 256 * PAGE, advice), "madvise(MADV_POPULATE_*)");
            region.check_each(chunk * 256..(chunk + 1) * 256);
        }
        region.fill((0..region.pages()).step_by(3));
        pressure.evict_half(&region);
    }
    region.check_all()
}
