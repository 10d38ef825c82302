//! Memory of other kinds beside private pages: locked, shared, of files, of huge pages.

use super::calls::scratch;
use crate::fork::child;
use crate::options::Options;
use crate::pressure::{Pressure, absent};
use crate::region::Region;
use crate::sys::{self, HUGE, PAGE, RW, WRONG, demand};
use std::fs;
use std::os::fd::AsRawFd;

/// Pages of the small regions that are locked.
const LOCKED: usize = 2048;

/// A locked region stays where it is, whatever happens around it.
pub(crate) fn locked(options: &Options) -> u64 {
    let mut held = Region::new(LOCKED, options.seed ^ 1);
    held.fill(held.all());
    demand(sys::call(libc::SYS_mlock, &[held.base, held.bytes()]), "mlock");
    let region = Region::filled(options.mib, options.seed);
    let mut pressure = Pressure::new(options);
    for _ in 0..options.times {
        pressure.evict_half(&region);
        demand_present(&held);
        region.check_each((0..region.pages()).step_by(3));
        held.fill((0..held.pages()).step_by(5));
    }
    region.check_all();
    held.check_all()
}

fn demand_present(region: &Region) {
    let away = absent(region.base, region.pages());
    if away != 0 {
        sys::fail(&format!("{away} locked pages are away"));
    }
}

/// mlock of what is evicted brings it in, and keeps it; munlock lets it go again.
pub(crate) fn locked_evicted(options: &Options) -> u64 {
    let mut region = Region::filled(options.mib, options.seed);
    let mut pressure = Pressure::new(options);
    for round in 0..options.times {
        pressure.evict(&region, 0..LOCKED, LOCKED / 2);
        demand(sys::call(libc::SYS_mlock, &[region.base, LOCKED * PAGE]), "mlock");
        let held = Region { versions: region.versions[..LOCKED].to_vec(), ..region.clone() };
        demand_present(&held);
        for _ in 0..8 {
            pressure.push();
        }
        demand_present(&held);
        region.check_each(0..LOCKED);
        demand(sys::call(libc::SYS_munlock, &[region.base, LOCKED * PAGE]), "munlock");
        region.fill((round..LOCKED).step_by(3));
    }
    pressure.evict_half(&region);
    region.check_all()
}

/// Everything locked, now and later, in a program that fits.
pub(crate) fn locked_all(options: &Options) -> u64 {
    let mut region = Region::new(LOCKED, options.seed);
    region.fill(region.all());
    let flags = (libc::MCL_CURRENT | libc::MCL_FUTURE) as usize;
    demand(sys::call(libc::SYS_mlockall, &[flags]), "mlockall");
    let mut later = Region::new(LOCKED, options.seed ^ 1);
    demand_present(&later);
    later.fill(later.all());
    demand_present(&region);
    demand_present(&later);
    region.check_all() ^ later.check_all()
}

/// Pages of the regions that are left alone: small enough to stay in memory beside the rest.
const SHARED: usize = 2048;

fn shared(options: &Options, fd: usize, flags: i32) -> u64 {
    let base = demand(sys::map_at(0, SHARED * PAGE, RW, libc::MAP_SHARED | flags, fd), "mmap");
    let mut common = Region::at(base, SHARED, options.seed ^ 1);
    common.fill(common.all());
    let region = Region::filled(options.mib, options.seed);
    let mut pressure = Pressure::new(options);
    for _ in 0..options.times {
        pressure.evict_half(&region);
        common.check_all();
        let mut theirs = common.clone();
        // What the child writes is seen here.
        child(|| theirs.fill((0..SHARED).step_by(3))).join();
        (0..SHARED).step_by(3).for_each(|index| common.versions[index] += 1);
        common.check_all();
        region.check_each((0..region.pages()).step_by(7));
    }
    common.check_all() ^ region.check_all()
}

/// MAP_SHARED | MAP_ANONYMOUS.
pub(crate) fn shared_anonymous(options: &Options) -> u64 {
    shared(options, usize::MAX, libc::MAP_ANONYMOUS)
}

/// A memfd, mapped shared; and mapped private beside it, where what is written is the mapping's own.
pub(crate) fn memfd(options: &Options) -> u64 {
    let fd = demand(sys::call(libc::SYS_memfd_create, &[c"subject".as_ptr() as usize, 0]), "memfd_create");
    demand(sys::call(libc::SYS_ftruncate, &[fd, SHARED * PAGE]), "ftruncate");
    let digest = shared(options, fd, 0);
    private(options, fd, SHARED) ^ digest
}

/// A file, mapped privately: some pages are the file's, those written are the program's own.
pub(crate) fn private_file(options: &Options) -> u64 {
    let file = scratch("private");
    let zeros = vec![0_u8; SHARED * PAGE];
    demand(std::io::Write::write_all(&mut &file, &zeros), "write a file");
    private(options, file.as_raw_fd() as usize, SHARED)
}

fn private(options: &Options, fd: usize, pages: usize) -> u64 {
    let base = demand(sys::map_at(0, pages * PAGE, RW, libc::MAP_PRIVATE, fd), "mmap");
    let shared = demand(sys::map_at(0, pages * PAGE, RW, libc::MAP_SHARED, fd), "mmap");
    let mut whole = Region::at(shared, pages, options.seed ^ 2);
    whole.fill(whole.all());
    let mut own = Region { base, ..whole.clone() };
    own.fill((0..pages).step_by(2));
    let region = Region::filled(options.mib, options.seed);
    let mut pressure = Pressure::new(options);
    for _ in 0..options.times {
        pressure.evict_half(&region);
        own.check_all();
        whole.check_all();
        own.fill((0..pages).step_by(4));
        // Discarded, a private page is the file's again.
        sys::discard(own.base, 8 * PAGE);
        own.versions[..8].fill(1);
        child(|| {
            own.check_all();
        })
        .join();
    }
    own.check_all() ^ whole.check_all() ^ region.check_all()
}

/// Pages of hugetlbfs are left alone.
pub(crate) fn hugetlb(options: &Options) -> u64 {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB;
    let base = match sys::map_at(0, 2 * HUGE, RW, flags, usize::MAX) {
        Ok(base) => base,
        Err(error) => sys::skip(&format!("no huge pages are reserved (vm.nr_hugepages): {error}")),
    };
    let mut huge = Region::at(base, 2 * HUGE / PAGE, options.seed ^ 1);
    huge.fill(huge.all());
    let region = Region::filled(options.mib, options.seed);
    let mut pressure = Pressure::new(options);
    for _ in 0..options.times {
        pressure.evict_half(&region);
        huge.check_all();
        huge.fill((0..huge.pages()).step_by(3));
        region.check_each((0..region.pages()).step_by(5));
    }
    huge.check_all() ^ region.check_all()
}

/// Memory of huge pages, not touched yet.
fn huge_region(options: &Options) -> Region {
    let bytes = (options.mib << 20).next_multiple_of(HUGE);
    let base = sys::map(bytes + HUGE, RW, libc::MAP_NORESERVE).next_multiple_of(HUGE);
    if let Err(error) = sys::advise(base, bytes, libc::MADV_HUGEPAGE) {
        sys::skip(&format!("madvise(MADV_HUGEPAGE): {error}"));
    }
    Region::at(base, bytes / PAGE, options.seed)
}

/// Huge pages that are walked over, again and again, and do not all fit: they leave whole, and come back whole. Of what
/// is there during the walks, nine tenths must be huge pages.
pub(crate) fn huge_walk(options: &Options) -> u64 {
    let mut region = huge_region(options);
    let (base, bytes) = (region.base, region.bytes());
    region.fill(region.all());
    if huge_kib(base, bytes) == 0 {
        sys::skip("the kernel gives no huge pages here");
    }
    // Somebody lowers the limit now: what is touched for the first time under pressure is given as small pages.
    println!("ready");
    Pressure::new(options).await_eviction(&region, region.pages() / 3);
    let (mut digest, mut huge, mut there) = (0, 0, 0);
    for walk in 0..options.times {
        for part in 0..4 {
            let pages = region.pages() / 4 * part..region.pages() / 4 * (part + 1);
            digest ^= region.check_each(pages.clone());
            if walk % 2 == 1 {
                region.fill(pages);
            }
            huge += huge_kib(base, bytes);
            there += (region.pages() - absent(base, region.pages())) * (PAGE >> 10);
        }
        println!("walk {walk}: {there} kB were there so far, {huge} kB of them as huge pages");
    }
    if huge * 10 < there * 9 && !options.native {
        eprintln!("tmem-subject: huge pages came back as small ones");
        sys::exit(WRONG);
    }
    digest ^ region.check_all()
}

/// A region of huge pages, evicted and read again; says how many there were before and are after.
pub(crate) fn huge_pages(options: &Options) -> u64 {
    let mut region = huge_region(options);
    let (base, bytes) = (region.base, region.bytes());
    region.fill(region.all());
    let before = huge_kib(base, bytes);
    if before == 0 {
        sys::skip("the kernel gives no huge pages here");
    }
    let mut pressure = Pressure::new(options);
    pressure.evict_half(&region);
    let between = huge_kib(base, bytes);
    region.check_all();
    let after = huge_kib(base, bytes);
    println!("AnonHugePages: {before} kB before, {between} kB evicted, {after} kB after");
    region.fill((0..region.pages()).step_by(600));
    pressure.evict_half(&region);
    region.check_all()
}

/// AnonHugePages of the mappings within `bytes` from `base`, in KiB.
fn huge_kib(base: usize, bytes: usize) -> usize {
    let text = demand(fs::read_to_string("/proc/self/smaps"), "read /proc/self/smaps");
    let mut inside = false;
    let mut sum = 0;
    for line in text.lines() {
        let first = line.split([' ', '-']).next().unwrap_or_default();
        if let Some(kib) = line.strip_prefix("AnonHugePages:").filter(|_| inside) {
            sum += kib.trim().trim_end_matches(" kB").parse::<usize>().unwrap_or(0);
        } else if let Ok(start) = usize::from_str_radix(first, 16).map_err(|_| ()) {
            inside = (base..base + bytes).contains(&start);
        }
    }
    sum
}
