//! System calls whose buffers are elsewhere: the kernel takes the fault, and must get the page too.

use crate::fork::{Pipe, child};
use crate::options::Options;
use crate::pattern::Digest;
use crate::pressure::{Pressure, absent};
use crate::region::Region;
use crate::sys::{self, PAGE, demand};
use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

/// Pages of one call.
const SPAN: usize = 37;

/// A file of our own that is gone from its folder at once.
pub(super) fn scratch(name: &str) -> File {
    let path = scratch_path(name);
    let made = fs::OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path);
    let file = demand(made, "create a file");
    demand(fs::remove_file(&path), "remove a file");
    file
}

/// A name in the temporary folder.
pub(super) fn scratch_path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("tmem-subject-{name}-{}", std::process::id()))
}

fn evicted(options: &Options) -> (Region, Pressure) {
    let region = Region::filled(options.mib, options.seed);
    let mut pressure = Pressure::new(options);
    pressure.evict_half(&region);
    (region, pressure)
}

/// Calls `number` until all of `bytes` at `at` is through.
fn through(number: libc::c_long, fd: usize, at: usize, bytes: usize) {
    let mut done = 0;
    while done < bytes {
        match demand(sys::call(number, &[fd, at + done, bytes - done]), "read or write") {
            0 => sys::fail("end of file"),
            count => done += count,
        }
    }
}

/// write(2) out of evicted pages, and read(2) into others.
pub(crate) fn file(options: &Options) -> u64 {
    let (mut region, mut pressure) = evicted(options);
    let file = scratch("file");
    let fd = file.as_raw_fd() as usize;
    // Every second span goes out; what is read into the one behind it is that.
    for first in (0..region.pages() - 2 * SPAN).step_by(2 * SPAN) {
        let offset = first / 2 * PAGE;
        demand(sys::call(libc::SYS_lseek, &[fd, offset, 0]), "lseek");
        through(libc::SYS_write, fd, region.address(first), SPAN * PAGE);
    }
    region.check_each((0..region.pages()).step_by(3));
    pressure.evict_half(&region);
    for first in (0..region.pages() - 2 * SPAN).step_by(2 * SPAN) {
        demand(sys::call(libc::SYS_lseek, &[fd, first / 2 * PAGE, 0]), "lseek");
        through(libc::SYS_read, fd, region.address(first + SPAN), SPAN * PAGE);
        check_copies(&region, first, first + SPAN, SPAN);
    }
    let mut digest = Digest::new();
    region.all().for_each(|index| digest.add_page(&sys::peek_page(region.address(index))));
    for first in (0..region.pages() - 2 * SPAN).step_by(2 * SPAN) {
        region.fill(first + SPAN..first + 2 * SPAN);
    }
    digest.add(region.check_all());
    digest.value()
}

/// Checks that pages from `copy` hold what those from `original` must.
fn check_copies(region: &Region, original: usize, copy: usize, pages: usize) {
    (0..pages).for_each(|page| check_copy(region, original + page, region.address(copy + page)));
}

/// Checks that the page at `copy` holds what page `original` must.
fn check_copy(region: &Region, original: usize, copy: usize) {
    let found = sys::peek_page(copy);
    if found != region.expected(original) {
        let zeros = found.iter().filter(|&&word| word == 0).count();
        eprintln!("wrong at {copy:#x}: not the copy of page {original}; {zeros} words are 0");
        sys::exit(sys::WRONG);
    }
}

/// writev(2) and readv(2): pieces of odd lengths here and there.
pub(crate) fn vectors(options: &Options) -> u64 {
    let (mut region, mut pressure) = evicted(options);
    let file = scratch("vectors");
    let fd = file.as_raw_fd() as usize;
    let half = region.pages() / 2;
    for round in 0..options.times * 4 {
        let offset = round * 13 % 64;
        // Pages of the first half, each in two pieces, go to the same pages of the second.
        let pages: Vec<usize> = (0..256).map(|at| (at * 47 + offset) % half).collect();
        let pieces = |base: usize| -> Vec<[usize; 2]> {
            let cut = |&page: &usize| [[base + page * PAGE, 1000], [base + page * PAGE + 1000, PAGE - 1000]];
            pages.iter().flat_map(cut).collect()
        };
        let (from, to) = (pieces(region.base), pieces(region.address(half)));
        for (number, list) in [(libc::SYS_pwritev, from), (libc::SYS_preadv, to)] {
            let done = sys::call(number, &[fd, list.as_ptr() as usize, list.len(), 0, 0]);
            if demand(done, "pwritev or preadv") != pages.len() * PAGE {
                sys::fail("pwritev or preadv did less than asked");
            }
        }
        pages.iter().for_each(|&page| check_copies(&region, page, half + page, 1));
        pages.iter().for_each(|&page| region.write(half + page));
        pressure.evict_half(&region);
    }
    region.check_all()
}

/// Through a pipe: one thread writes out of evicted pages, the other reads into them.
pub(crate) fn pipe(options: &Options) -> u64 {
    let pipe = Pipe::new();
    stream(options, pipe.writer(), pipe.reader(), libc::SYS_write, libc::SYS_read)
}

/// Through a pair of sockets.
pub(crate) fn socket(options: &Options) -> u64 {
    let mut ends = [0_i32; 2];
    let kind = [libc::AF_UNIX as usize, libc::SOCK_STREAM as usize, 0, &raw mut ends as usize];
    demand(sys::call(libc::SYS_socketpair, &kind), "socketpair");
    stream(options, ends[0] as usize, ends[1] as usize, libc::SYS_sendto, libc::SYS_recvfrom)
}

fn stream(options: &Options, to: usize, from: usize, send: libc::c_long, receive: libc::c_long) -> u64 {
    let (mut region, mut pressure) = evicted(options);
    let half = region.pages() / 2;
    for _ in 0..options.times {
        let (source, target) = (region.base, region.address(half));
        std::thread::scope(|scope| {
            scope.spawn(move || through(send, to, source, half * PAGE));
            scope.spawn(move || through(receive, from, target, half * PAGE));
        });
        check_copies(&region, 0, half, half);
        region.fill(region.all());
        pressure.evict_half(&region);
    }
    region.check_all()
}

/// Words to wait on.
const FUTEXES: usize = 64;

/// Futexes in evicted pages: a wait finds the value, a wake finds the waiter.
pub(crate) fn futex(options: &Options) -> u64 {
    let (region, mut pressure) = evicted(options);
    let words = sys::map(FUTEXES * PAGE, sys::RW, 0);
    let place = |number: usize| words + number * PAGE + 512;
    (0..FUTEXES).for_each(|number| sys::poke(place(number), 7));
    pressure.evict_range(words, FUTEXES, FUTEXES / 2);
    // A value that is not there is refused; of a page that reads as zeros this would sleep for ever.
    for number in 0..FUTEXES {
        let wait = [place(number), libc::FUTEX_WAIT as usize, 0, 0];
        match sys::call(libc::SYS_futex, &wait) {
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {}
            other => sys::fail(&format!("futex wait for 0 on a 7: {other:?}")),
        }
    }
    pressure.evict_range(words, FUTEXES, FUTEXES / 2);
    std::thread::scope(|scope| {
        for number in 0..FUTEXES {
            scope.spawn(move || {
                // SeqCst: not a place to be clever.
                while sys::atomic32(place(number)).load(Ordering::SeqCst) == 7 {
                    let _ = sys::call(libc::SYS_futex, &[place(number), libc::FUTEX_WAIT as usize, 7, 0]);
                }
            });
        }
        pressure.evict_half(&region);
        eprintln!("{} of {FUTEXES} pages with waiters are away", absent(words, FUTEXES));
        for number in 0..FUTEXES {
            // SeqCst: as above.
            sys::atomic32(place(number)).store(8, Ordering::SeqCst);
            demand(sys::call(libc::SYS_futex, &[place(number), libc::FUTEX_WAKE as usize, 100]), "futex wake");
        }
    });
    region.check_all()
}

/// Small structures and strings in evicted pages: paths, stat, getrandom, times, poll.
pub(crate) fn small(options: &Options) -> u64 {
    let (region, mut pressure) = evicted(options);
    let pages = sys::map(8 * PAGE, sys::RW, 0);
    let place = |page: usize| pages + page * PAGE + 1024;
    let path = scratch_path("small");
    demand(fs::write(&path, vec![1_u8; 12_345]), "write a file");
    let name = CString::new(path.display().to_string()).expect("no zeros inside");
    for _ in 0..options.times {
        (0..8).for_each(|page| sys::poke(pages + page * PAGE, page as u64 + 1));
        sys::poke_bytes(place(0), name.as_bytes_with_nul());
        // 20 ms; and a descriptor to poll, number 1 for output.
        sys::poke(place(1), 0);
        sys::poke(place(1) + 8, 20_000_000);
        sys::poke(place(2), 1 | (libc::POLLOUT as u64) << 32);
        pressure.evict_range(pages, 8, 8);
        demand(sys::call(libc::SYS_newfstatat, &[libc::AT_FDCWD as usize, place(0), place(3), 0]), "newfstatat");
        let size = sys::peek(place(3) + std::mem::offset_of!(libc::stat, st_size));
        demand(sys::call(libc::SYS_nanosleep, &[place(1), place(4)]), "nanosleep");
        let polled = demand(sys::call(libc::SYS_poll, &[place(2), 1, 1000]), "poll");
        let random = demand(sys::call(libc::SYS_getrandom, &[place(5), 2000, 0]), "getrandom");
        demand(sys::call(libc::SYS_uname, &[place(6)]), "uname");
        let system = sys::peek(place(6)).to_le_bytes();
        let zeros = (0..250).filter(|word| sys::peek(place(5) + word * 8) == 0).count();
        if (size, polled, random, zeros, &system[..5]) != (12_345, 1, 2000, 0, b"Linux") {
            eprintln!("size {size}, polled {polled}, random {random} with {zeros} zeros, system {system:?}");
            sys::exit(sys::WRONG);
        }
        (0..8).for_each(|page| assert_eq!(sys::peek(pages + page * PAGE), page as u64 + 1));
        pressure.evict_half(&region);
    }
    demand(fs::remove_file(&path), "remove a file");
    region.check_all()
}

/// Another process reads and writes evicted pages with process_vm_readv and process_vm_writev.
pub(crate) fn vm_readv(options: &Options) -> u64 {
    let mut region = Region::filled(options.mib, options.seed);
    let go = Pipe::new();
    let parent = std::process::id() as usize;
    // Born before there is pressure, so that nothing it inherits is elsewhere.
    let reader = child(|| {
        go.hear();
        let copy = sys::map(SPAN * PAGE, sys::RW, 0);
        for first in (0..region.pages() - SPAN).step_by(SPAN) {
            let (local, remote) = ([copy, SPAN * PAGE], [region.address(first), SPAN * PAGE]);
            let pieces = [parent, local.as_ptr() as usize, 1, remote.as_ptr() as usize, 1, 0];
            let done = demand(sys::call(libc::SYS_process_vm_readv, &pieces), "process_vm_readv");
            assert_eq!(done, SPAN * PAGE, "process_vm_readv did less than asked");
            (0..SPAN).for_each(|page| check_copy(&region, first + page, copy + page * PAGE));
            // The first page of each span comes back as the next version.
            let mut next = region.clone();
            next.versions[first] += 1;
            sys::poke_page(copy, &next.expected(first));
            let (local, remote) = ([copy, PAGE], [region.address(first), PAGE]);
            let pieces = [parent, local.as_ptr() as usize, 1, remote.as_ptr() as usize, 1, 0];
            demand(sys::call(libc::SYS_process_vm_writev, &pieces), "process_vm_writev");
        }
    });
    let mut pressure = Pressure::new(options);
    pressure.evict_half(&region);
    go.tell(1);
    reader.join();
    for first in (0..region.pages() - SPAN).step_by(SPAN) {
        region.versions[first] += 1;
    }
    region.check_all();
    pressure.evict_half(&region);
    region.check_all()
}
