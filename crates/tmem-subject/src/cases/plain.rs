//! Memory that is filled and read, in several orders.

use crate::options::Options;
use crate::pattern::{Digest, Random};
use crate::pressure::Pressure;
use crate::region::{Region, check_zeros};
use crate::sys::{self, PAGE, RW};

/// How often the memory is gone through.
const ROUNDS: usize = 2;

/// First to last.
pub(crate) fn fill_sequential(options: &Options) -> u64 {
    in_order(options, |_, pages| (0..pages).collect())
}

/// Another random order each time.
pub(crate) fn fill_random(options: &Options) -> u64 {
    in_order(options, Random::shuffled)
}

/// Last to first.
pub(crate) fn fill_reverse(options: &Options) -> u64 {
    in_order(options, |_, pages| (0..pages).rev().collect())
}

fn in_order(options: &Options, order: impl Fn(&mut Random, usize) -> Vec<usize>) -> u64 {
    let mut random = Random::new(options.seed);
    let mut region = Region::new(options.mib << 8, options.seed);
    let mut pressure = Pressure::new(options);
    for _ in 0..ROUNDS {
        region.fill(order(&mut random, region.pages()));
        pressure.evict_half(&region);
        region.check_each(order(&mut random, region.pages()));
    }
    pressure.check();
    region.check_all()
}

/// First to last, again and again; each time every `count`-th page is written after it was read, another one each time, and
/// a few are discarded.
pub(crate) fn walk(options: &Options) -> u64 {
    const DISCARDED: usize = 16;
    let mut region = Region::filled(options.mib, options.seed);
    Pressure::new(options).await_eviction(&region, region.pages() / 4);
    let mut digest = 0;
    for time in 0..options.times {
        for index in region.all() {
            digest ^= region.check(index)[0];
            if (index + time) % options.count == 0 {
                region.write(index);
            }
        }
        let discarded = region.pages() / (time + 2)..region.pages() / (time + 2) + DISCARDED;
        let advised = sys::advise(region.address(discarded.start), DISCARDED * PAGE, libc::MADV_DONTNEED);
        sys::demand(advised, "madvise(MADV_DONTNEED)");
        region.zeroed(discarded);
    }
    digest ^ region.check_all()
}

/// Some pages are written again while evicted, others are not: the last version counts.
pub(crate) fn rewrite(options: &Options) -> u64 {
    let mut random = Random::new(options.seed);
    let mut region = Region::filled(options.mib, options.seed);
    let mut pressure = Pressure::new(options);
    for _ in 0..options.times {
        pressure.evict_half(&region);
        for _ in 0..region.pages() / 2 {
            let index = random.below(region.pages());
            region.write_or_check(index, random.below(2) == 0);
        }
    }
    region.check_all()
}

/// Pages that were only ever read are zeros, before and after pressure, and may be written later.
pub(crate) fn zero_pages(options: &Options) -> u64 {
    let mut region = Region::new(options.mib << 8, options.seed);
    region.check_all();
    let filled = Region::filled(options.mib, options.seed ^ 1);
    let mut pressure = Pressure::new(options);
    pressure.evict_half(&filled);
    region.check_all();
    region.fill((0..region.pages()).step_by(2));
    pressure.evict(&region, 0..region.pages(), region.pages() / 4);
    filled.check_all();
    region.check_all()
}

/// Bytes of a frame of the recursion.
const FRAME: usize = 8 << 10;

/// A stack of 6 MiB is filled, kept under pressure, and read on the way back.
pub(crate) fn deep_recursion(options: &Options) -> u64 {
    let mut pressure = Pressure::new(options);
    let other = Region::filled(options.mib, options.seed);
    let deep = descend((6 << 20) / FRAME, options.seed, &mut pressure, &other);
    let mut digest = Digest::new();
    digest.add(deep);
    digest.add(other.check_all());
    digest.value()
}

#[inline(never)]
fn descend(depth: usize, seed: u64, pressure: &mut Pressure, other: &Region) -> u64 {
    if depth == 0 {
        pressure.evict_half(other);
        return 0;
    }
    let mut frame = [0_u64; FRAME / 8];
    let mut random = Random::new(seed ^ depth as u64);
    frame.fill_with(|| random.next());
    let below = descend(depth - 1, seed, pressure, std::hint::black_box(other));
    let mut random = Random::new(seed ^ depth as u64);
    for (at, word) in std::hint::black_box(&frame).iter().enumerate() {
        let expected = random.next();
        if *word != expected {
            eprintln!("wrong on the stack, depth {depth}, word {at}: expected {expected:#x}, found {word:#x}");
            sys::exit(sys::WRONG);
        }
    }
    below.rotate_left(1) ^ random.next()
}

/// Allocations of many sizes from the C library, freed and made again.
pub(crate) fn heap(options: &Options) -> u64 {
    let mut random = Random::new(options.seed);
    let mut pressure = Pressure::new(options);
    let mut blocks: Vec<(u64, Vec<u64>)> = Vec::new();
    let mut digest = Digest::new();
    for round in 0..options.times {
        let mut bytes: usize = blocks.iter().map(|(_, block)| block.len() * 8).sum();
        while bytes < options.mib << 20 {
            // From a few words to half a MiB: the heap and mappings of their own.
            let words = 1 << random.below(17);
            blocks.push(block(random.next(), words));
            bytes += words * 8;
        }
        let (at, words) = blocks
            .iter()
            .map(|(_, block)| (block.as_ptr() as usize, block.len()))
            .max_by_key(|b| b.1)
            .unwrap_or((0, 0));
        let first = at.next_multiple_of(PAGE);
        let pages = (at + words * 8 - first) / PAGE;
        pressure.evict_range(first, pages, pages / 2);
        for (seed, held) in &blocks {
            if block(*seed, held.len()).1 != *held {
                eprintln!("wrong in a block of {} words at {:p}", held.len(), held.as_ptr());
                sys::exit(sys::WRONG);
            }
            digest.add(*seed);
        }
        let mut keep = Random::new(round as u64);
        blocks.retain(|_| keep.below(3) == 0);
    }
    digest.value()
}

/// A quarter random, the rest small numbers.
fn block(seed: u64, words: usize) -> (u64, Vec<u64>) {
    let mut random = Random::new(seed);
    (seed, (0..words).map(|at| if at % 4 == 0 { random.next() } else { seed >> 48 }).collect())
}

/// The program break goes up, down and up again: what was given back reads as zeros.
pub(crate) fn program_break(options: &Options) -> u64 {
    let mut pressure = Pressure::new(options);
    // The allocator keeps away from the break: everything beyond its first few pages is mapped.
    // SAFETY: a setting.
    unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, 1024) };
    let start = move_break(0).next_multiple_of(PAGE);
    let bytes = options.mib << 20;
    move_break(start - move_break(0) + bytes);
    let mut digest = Digest::new();
    for round in 0..options.times {
        let mut region = Region::at(start, bytes / PAGE, options.seed + round as u64);
        let kept = if round == 0 { 0 } else { region.pages() / 2 };
        check_zeros(region.address(kept), region.pages() - kept);
        region.fill(region.all());
        pressure.evict_half(&region);
        digest.add(region.check_all());
        if move_break(0) != start + bytes {
            sys::skip("something else moved the program break");
        }
        move_break(0_usize.wrapping_sub(bytes / 2));
        pressure.push();
        region.check_each(0..region.pages() / 2);
        move_break(bytes / 2);
    }
    sys::protect(start, bytes, RW);
    digest.value()
}

/// Moves the program break; where it was.
fn move_break(by: usize) -> usize {
    // SAFETY: what lies above the break that the allocator knows is used through addresses only.
    let was = unsafe { libc::sbrk(by.cast_signed()) } as usize;
    if was == usize::MAX { sys::fail("sbrk") } else { was }
}
