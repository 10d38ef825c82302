//! A program that has a userfaultfd of its own.

use crate::options::Options;
use crate::pattern::Random;
use crate::pressure::Pressure;
use crate::region::Region;
use crate::sys::{self, PAGE, Page, demand};
use std::sync::atomic::{AtomicU64, Ordering};

/// `UFFDIO_API`, `UFFDIO_REGISTER`, `UFFDIO_COPY` and the version, from `linux/userfaultfd.h`.
const API: usize = 0xc018_aa3f;
const REGISTER: usize = 0xc020_aa00;
const COPY: usize = 0xc028_aa03;
const VERSION: u64 = 0xaa;
/// Register: missing pages.
const MISSING: u64 = 1;
/// Words of a message, of which the third is the address.
const MESSAGE_WORDS: usize = 4;
/// Pages of the region that the program itself serves.
const PAGES: usize = 4096;

/// Faults that the program served itself.
static SERVED: AtomicU64 = AtomicU64::new(0);

/// The program serves faults of one region itself, while another is under pressure.
pub(crate) fn own(options: &Options) -> u64 {
    let fd = match sys::call(libc::SYS_userfaultfd, &[libc::O_CLOEXEC as usize]) {
        Ok(fd) => fd,
        Err(error) => sys::skip(&format!("userfaultfd: {error}")),
    };
    let mut api = [VERSION, 0, 0];
    control(fd, API, api.as_mut_ptr() as usize, "UFFDIO_API");
    let mut own = Region::new(PAGES, options.seed ^ 1);
    own.versions.fill(1);
    let mut register = [own.base as u64, own.bytes() as u64, MISSING, 0];
    control(fd, REGISTER, register.as_mut_ptr() as usize, "UFFDIO_REGISTER");
    let served = own.clone();
    std::thread::spawn(move || serve(fd, &served));
    let region = Region::filled(options.mib, options.seed);
    let mut pressure = Pressure::new(options);
    let mut random = Random::new(options.seed);
    for _ in 0..options.times {
        own.check_some(&mut random, PAGES);
        pressure.evict_half(&region);
        own.check_all();
        // Discarded by the program, a page comes from the program again.
        sys::discard(own.address(PAGES / 4), PAGES / 4 * PAGE);
        region.check_each((0..region.pages()).step_by(5));
    }
    // SeqCst: not a place to be clever.
    let count = SERVED.load(Ordering::SeqCst);
    eprintln!("{count} faults served by the program itself");
    if count < (PAGES + (options.times - 1) * PAGES / 4) as u64 {
        sys::fail("somebody else served the program's own faults");
    }
    own.check_all() ^ region.check_all()
}

fn control(fd: usize, request: usize, argument: usize, what: &str) {
    demand(sys::call(libc::SYS_ioctl, &[fd, request, argument]), what);
}

fn serve(fd: usize, region: &Region) {
    let mut message = [0_u64; MESSAGE_WORDS];
    while let Ok(32) = sys::call(libc::SYS_read, &[fd, message.as_mut_ptr() as usize, 32]) {
        let index = (message[2] as usize - region.base) / PAGE;
        let page: Page = region.expected(index);
        // SeqCst: not a place to be clever. Counted first: whoever waits for the page may be the one that asks.
        SERVED.fetch_add(1, Ordering::SeqCst);
        let mut copy = [region.address(index) as u64, page.as_ptr() as u64, PAGE as u64, 0, 0];
        let copied = sys::call(libc::SYS_ioctl, &[fd, COPY, copy.as_mut_ptr() as usize]);
        match copied {
            Err(error) if error.raw_os_error() != Some(libc::EEXIST) => sys::fail(&format!("UFFDIO_COPY: {error}")),
            _ => {}
        }
    }
}
