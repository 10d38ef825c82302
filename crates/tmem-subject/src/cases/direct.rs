//! O_DIRECT: the device itself reads and writes the program's pages, which are pinned meanwhile.

use super::calls::scratch_path;
use crate::options::Options;
use crate::pattern::Digest;
use crate::pressure::Pressure;
use crate::region::Region;
use crate::sys::{self, PAGE, demand};
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

/// Pages of one transfer.
const SPAN: usize = 256;
/// Transfers that go on at once.
const THREADS: usize = 3;

/// Out of pages under eviction, and back into them, while pressure goes on.
pub(crate) fn direct_io(options: &Options) -> u64 {
    let path = scratch_path("direct");
    let mut open = fs::OpenOptions::new();
    open.read(true).write(true).create(true).truncate(true).custom_flags(libc::O_DIRECT);
    let file = match open.open(&path) {
        Ok(file) => file,
        Err(error) => sys::skip(&format!("O_DIRECT in {}: {error}", path.display())),
    };
    demand(fs::remove_file(&path), "remove a file");
    let fd = file.as_raw_fd() as usize;
    let mut region = Region::filled(options.mib, options.seed);
    Pressure::new(options).evict_half(&region);
    let pressure = Pressure::in_background(options);
    let mut digest = Digest::new();
    for _ in 0..options.times {
        transfer(libc::SYS_pwrite64, fd, &region);
        region.check_all();
        // Other contents, so that what the device brings can be told from what was there.
        let written = region.clone();
        region.fill(region.all());
        region.check_each((0..region.pages()).step_by(5));
        transfer(libc::SYS_pread64, fd, &region);
        digest.add(written.check_all());
        region.fill(region.all());
    }
    pressure.stop();
    digest.add(region.check_all());
    digest.value()
}

/// Every whole span of the region, to or from the same place in the file.
fn transfer(number: libc::c_long, fd: usize, region: &Region) {
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                let first = (0..region.pages()).step_by(SPAN).skip(thread).step_by(THREADS);
                first.for_each(|first| transfer_span(number, fd, region, first));
            });
        }
    });
}

fn transfer_span(number: libc::c_long, fd: usize, region: &Region, first: usize) {
    let pages = SPAN.min(region.pages() - first);
    match sys::call(number, &[fd, region.address(first), pages * PAGE, first * PAGE]) {
        Ok(bytes) if bytes == pages * PAGE => {}
        Ok(bytes) => sys::fail(&format!("a direct transfer of {bytes} bytes")),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => sys::skip("no direct transfers here"),
        Err(error) => sys::fail(&format!("a direct transfer: {error}")),
    }
}
