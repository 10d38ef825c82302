//! Children made by fork, of parents whose memory is elsewhere.

use crate::fork::{Child, Pipe, Way, child, child_by};
use crate::options::Options;
use crate::pattern::{Digest, Random};
use crate::pressure::Pressure;
use crate::region::{Region, check_zeros};
use crate::sys::{self, PAGE};

/// With half of the memory evicted both sides write, each its own pages, and both check all.
pub(crate) fn both_write(options: &Options) -> u64 {
    both_sides(options, Way::Fork)
}

/// The same after the bare system call, which runs no handlers of the C library.
pub(crate) fn raw_clone(options: &Options) -> u64 {
    both_sides(options, Way::RawClone)
}

fn both_sides(options: &Options, way: Way) -> u64 {
    let mut region = Region::filled(options.mib, options.seed);
    let mut pressure = Pressure::new(options);
    pressure.evict_half(&region);
    let mut inherited = region.clone();
    let child = child_by(way, || {
        // The odd pages change here; the even ones must stay as they were at the fork.
        let odd = (1..inherited.pages()).step_by(2);
        inherited.fill(odd);
        inherited.check_all();
        let mut pressure = Pressure::new(options);
        pressure.push();
        inherited.check_all();
    });
    region.fill((0..region.pages()).step_by(2));
    pressure.push();
    region.check_all();
    child.join();
    // What only the other side still needed is gone; ours is not.
    region.fill((0..region.pages()).step_by(3));
    pressure.evict_half(&region);
    region.check_all()
}

/// A child's child's child, each with a fifth of the pages changed before the next is born.
pub(crate) fn grandchildren(options: &Options) -> u64 {
    let region = Region::filled(options.mib, options.seed);
    let mut pressure = Pressure::new(options);
    pressure.evict_half(&region);
    generation(options, region.clone(), options.times);
    region.check_all()
}

fn generation(options: &Options, mut region: Region, left: usize) {
    if left == 0 {
        return;
    }
    let child = child(|| {
        region.check_each((0..region.pages()).step_by(7));
        region.fill((left..region.pages()).step_by(5));
        Pressure::new(options).push();
        generation(options, region.clone(), left - 1);
        region.check_all();
    });
    child.join();
}

/// A small process forks before there is any pressure, and the child grows.
pub(crate) fn early(options: &Options) -> u64 {
    let mut small = Region::new(64, options.seed);
    small.fill(small.all());
    let mut digest = Digest::new();
    for round in 0..2 {
        let seed = options.seed + 1 + round;
        child(|| {
            let mut region = Region::filled(options.mib, seed);
            let mut pressure = Pressure::new(options);
            pressure.evict_half(&region);
            region.check_all();
            region.fill((0..region.pages()).step_by(2));
            pressure.evict_half(&region);
            region.check_all();
            small.check_all();
        })
        .join();
        digest.add(small.check_all());
    }
    digest.value()
}

/// Many children one after another, some alive at the same time, while the parent goes on writing.
pub(crate) fn repeatedly(options: &Options) -> u64 {
    let mut random = Random::new(options.seed);
    let mut region = Region::filled(options.mib, options.seed);
    let mut pressure = Pressure::new(options);
    pressure.evict_half(&region);
    let mut alive: Vec<Child> = Vec::new();
    for round in 0..options.times * 4 {
        if alive.len() == 3 {
            alive.remove(0).join();
        }
        let mut inherited = region.clone();
        alive.push(child(|| {
            let mut random = Random::new(round as u64);
            for _ in 0..inherited.pages() / 8 {
                let index = random.below(inherited.pages());
                inherited.write_or_check(index, random.below(4) == 0);
            }
        }));
        for _ in 0..region.pages() / 16 {
            region.write(random.below(region.pages()));
        }
        pressure.push();
    }
    alive.into_iter().for_each(Child::join);
    region.check_all()
}

/// MADV_WIPEONFORK: the child reads zeros where the parent has evicted pages.
pub(crate) fn wipe(options: &Options) -> u64 {
    let region = Region::filled(options.mib, options.seed);
    let secret = region.pages() / 4..region.pages() / 2;
    let (at, bytes) = (region.address(secret.start), secret.len() * PAGE);
    sys::demand(sys::advise(at, bytes, libc::MADV_WIPEONFORK), "madvise(MADV_WIPEONFORK)");
    let mut pressure = Pressure::new(options);
    pressure.evict(&region, secret.clone(), secret.len() / 2);
    let mut inherited = region.clone();
    child(|| {
        check_zeros(at, secret.len());
        inherited.zeroed(secret.clone());
        inherited.fill(secret.clone().step_by(2));
        Pressure::new(options).push();
        inherited.check_all();
    })
    .join();
    region.check_all()
}

/// MADV_DONTFORK: the child has nothing there, and everything elsewhere.
pub(crate) fn dontfork(options: &Options) -> u64 {
    let region = Region::filled(options.mib, options.seed);
    let own = region.pages() / 4..region.pages() / 2;
    let (at, bytes) = (region.address(own.start), own.len() * PAGE);
    sys::demand(sys::advise(at, bytes, libc::MADV_DONTFORK), "madvise(MADV_DONTFORK)");
    let mut pressure = Pressure::new(options);
    pressure.evict_half(&region);
    child(|| {
        let mut seen = vec![0_u8; own.len()];
        if sys::call(libc::SYS_mincore, &[at, bytes, seen.as_mut_ptr() as usize]).is_ok() {
            sys::fail("the child has memory that it must not inherit");
        }
        // New memory in the same place is new.
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
        sys::demand(sys::map_at(at, bytes, sys::RW, flags, usize::MAX), "mmap");
        check_zeros(at, own.len());
        region.check_each((0..own.start).chain(own.end..region.pages()));
    })
    .join();
    region.check_all()
}

/// Bytes of each of many processes.
const SMALL_PAGES: usize = 64;

/// Many small processes at once: together below any limit, so nothing of them is evicted.
pub(crate) fn many_processes(options: &Options) -> u64 {
    let (born, go) = (Pipe::new(), Pipe::new());
    let children: Vec<Child> = (0..options.count as u64)
        .map(|number| {
            child(|| {
                let mut region = Region::new(SMALL_PAGES, number);
                region.fill(region.all());
                born.tell(region.check_all());
                go.hear();
                region.check_all();
            })
        })
        .collect();
    // They are all alive when the last has said so. The sum does not depend on their order.
    let sum = children.iter().fold(0_u64, |sum, _| sum.wrapping_add(born.hear()));
    children.iter().for_each(|_| go.tell(1));
    children.into_iter().for_each(Child::join);
    sum
}
