//! Programs for the tests of what happens from outside: a full store, and deaths.

use crate::options::Options;
use crate::pattern::{self, Digest, Random};
use crate::pressure::Pressure;
use crate::region::Region;
use crate::sys;
use std::io::Write;
use std::time::{Duration, Instant};

/// Data that no codec makes smaller, more than the limit if `--mib` says so.
pub(crate) fn noise(options: &Options) -> u64 {
    let region = Region::new(options.mib << 8, options.seed);
    for index in region.all() {
        sys::poke_page(region.address(index), &pattern::noise(options.seed, index));
    }
    let mut digest = Digest::new();
    for index in region.all() {
        let found = sys::peek_page(region.address(index));
        if found != pattern::noise(options.seed, index) {
            eprintln!("wrong in page {index} of noise at {:#x}", region.address(index));
            sys::exit(sys::WRONG);
        }
        digest.add_page(&found);
    }
    digest.value()
}

/// Discards what is staged in this process, which is not the program's: those pages are lost. Whoever vouches for its memory
/// has to stop it then. It must not find zeros.
pub(crate) fn discard_staged(options: &Options) -> u64 {
    let region = Region::filled(options.mib, options.seed);
    let mut pressure = Pressure::new(options);
    for _ in 0..options.times {
        pressure.evict_half(&region);
        let maps = sys::demand(std::fs::read_to_string("/proc/self/maps"), "/proc/self/maps");
        let staged: Vec<&str> = maps.lines().filter(|line| line.contains("[anon:tmem staging]")).collect();
        if staged.is_empty() && !options.native {
            sys::skip("no mapping has the name of staging: CONFIG_ANON_VMA_NAME");
        }
        for line in staged {
            let range = line.split(' ').next().and_then(|range| range.split_once('-'));
            let number = |text: &str| usize::from_str_radix(text, 16).ok();
            if let Some((Some(start), Some(end))) = range.map(|(start, end)| (number(start), number(end))) {
                sys::discard(start, end - start);
            }
        }
        region.check_all();
    }
    region.check_all()
}

/// Says `ready` once half of its memory is elsewhere, and then reads and writes it for some seconds.
pub(crate) fn hold(options: &Options) -> u64 {
    let mut region = Region::filled(options.mib, options.seed);
    let mut pressure = Pressure::new(options);
    pressure.evict_half(&region);
    println!("ready");
    sys::demand(std::io::stdout().flush(), "flush");
    let mut random = Random::new(options.seed);
    let end = Instant::now() + Duration::from_secs(options.seconds);
    while Instant::now() < end {
        region.check_some(&mut random, 500);
        for _ in 0..100 {
            region.write(random.below(region.pages()));
        }
        pressure.push();
    }
    region.check_all();
    region.versions.fill(0);
    region.fill(region.all());
    region.check_all()
}
