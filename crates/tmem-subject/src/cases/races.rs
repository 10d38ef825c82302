//! Changes of the address space that meet eviction half-way: one thread changes and checks, another pushes, all the
//! time.

use crate::fork::child;
use crate::options::Options;
use crate::pattern::Random;
use crate::pressure::{Background, Pressure};
use crate::region::Region;
use crate::sys::{self, PAGE, RW};
use std::time::{Duration, Instant};

/// Pages that are dealt with at once.
const CHUNK: usize = 32;

/// Runs `step` on chunk after chunk until the time is over. Each visit finds what the last one left.
fn go_around(options: &Options, mut step: impl FnMut(&mut Region, usize, &mut Random)) -> u64 {
    let mut random = Random::new(options.seed);
    let mut region = Region::filled(options.mib, options.seed);
    let chunks = region.pages() / CHUNK;
    Pressure::new(options).evict_half(&region);
    let pressure = Pressure::in_background(options);
    let end = Instant::now() + Duration::from_secs(options.seconds);
    let mut visits = 0_u64;
    while Instant::now() < end {
        for chunk in 0..chunks {
            step(&mut region, chunk * CHUNK, &mut random);
        }
        visits += chunks as u64;
    }
    pressure.stop();
    region.check_all();
    eprintln!("{visits} visits of {CHUNK} pages");
    // How many there were is not the same each time, so neither is what the pages hold.
    region.versions.fill(0);
    region.fill(region.all());
    region.check_all()
}

/// Never anything older than the last MADV_DONTNEED.
pub(crate) fn dontneed(options: &Options) -> u64 {
    go_around(options, |region, start, random| {
        let pages = start..start + CHUNK;
        region.check_each(pages.clone());
        sys::discard(region.address(start), CHUNK * PAGE);
        // Versions go on from where they were, so that an older page never looks like a newer one.
        let versions: Vec<u32> = region.versions[pages.clone()].to_vec();
        region.zeroed(pages.clone());
        let first = random.below(3);
        region.check_each(pages.clone().skip(first).step_by(2));
        region.versions[pages.clone()].copy_from_slice(&versions);
        region.fill(pages);
    })
}

/// Unmapped, mapped again at the same place, and written.
pub(crate) fn unmap(options: &Options) -> u64 {
    go_around(options, |region, start, random| {
        let pages = start..start + CHUNK;
        region.check_each(pages.clone());
        let at = region.address(start);
        if random.below(2) == 0 {
            sys::unmap(at, CHUNK * PAGE);
        }
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        sys::demand(sys::map_at(at, CHUNK * PAGE, RW, flags, usize::MAX), "mmap(MAP_FIXED)");
        let versions: Vec<u32> = region.versions[pages.clone()].to_vec();
        region.zeroed(pages.clone());
        region.check_each(pages.clone().step_by(3));
        region.versions[pages.clone()].copy_from_slice(&versions);
        region.fill(pages);
    })
}

/// Somebody who reads pages all the time, whether they are mapped at the moment or not: what it waits for may leave
/// meanwhile.
struct Onlooker {
    at: usize,
    pages: usize,
    random: Random,
}

impl Onlooker {
    fn look(&mut self) {
        let mut buffer = [0_u8; PAGE];
        let from = [self.at + self.random.below(self.pages) * PAGE, PAGE];
        let into = [buffer.as_mut_ptr() as usize, PAGE];
        // An error says that nothing is mapped there.
        let own = std::process::id() as usize;
        let pieces = [own, into.as_ptr() as usize, 1, from.as_ptr() as usize, 1, 0];
        let _ = sys::call(libc::SYS_process_vm_readv, &pieces);
    }
}

/// Moved away, written there, and moved back, while somebody looks on.
pub(crate) fn remap(options: &Options) -> u64 {
    let away = sys::map(CHUNK * PAGE, RW, 0);
    let mut onlooker = None;
    let digest = go_around(options, |region, start, random| {
        onlooker.get_or_insert_with(|| {
            let onlooker = Onlooker { at: region.base, pages: region.pages(), random: Random::new(options.seed) };
            Background::start(onlooker, Onlooker::look, |_| {})
        });
        let (at, bytes) = (region.address(start), CHUNK * PAGE);
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        sys::demand(sys::remap(at, bytes, bytes, flags, away), "mremap away");
        let mut moved = Region { base: away.wrapping_sub(start * PAGE), ..region.clone() };
        moved.check(start + random.below(CHUNK));
        moved.fill((start..start + CHUNK).step_by(2));
        sys::demand(sys::remap(away, bytes, bytes, flags, at), "mremap back");
        region.versions = moved.versions;
        region.check_each(start..start + CHUNK);
        let place = sys::map_at(away, bytes, RW, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED, usize::MAX);
        sys::demand(place, "mmap(MAP_FIXED)");
    });
    onlooker.into_iter().for_each(Background::stop);
    digest
}

/// Forked in the midst of everything: the child is right, and so is the parent after it.
pub(crate) fn fork(options: &Options) -> u64 {
    let mut forks = 0;
    go_around(options, |region, start, random| {
        if start % (CHUNK * 64) == 0 && forks < 200 {
            forks += 1;
            let mut inherited = region.clone();
            let seed = random.next();
            child(|| {
                let mut random = Random::new(seed);
                inherited.check_some(&mut random, 200);
                for _ in 0..50 {
                    inherited.write(random.below(inherited.pages()));
                }
                inherited.check_some(&mut random, 200);
            })
            .join();
        }
        region.fill((start..start + CHUNK).step_by(2));
        region.check_each(start..start + CHUNK);
    })
}
