//! Which pages of a process are present (`PAGEMAP_SCAN`, Linux 6.7; `Documentation/admin-guide/mm/pagemap.rst`).

use core::ops::Range;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use rustix::io::Errno;

use crate::uffd::last_errno;

const PAGEMAP_SCAN: libc::c_ulong = 0xC060_6610;
const PAGE_IS_FILE: u64 = 1 << 2;
const PAGE_IS_PRESENT: u64 = 1 << 3;
const PAGE_IS_PFNZERO: u64 = 1 << 5;
const PAGE_IS_HUGE: u64 = 1 << 6;
/// Runs of one request.
const RUNS: usize = 128;

/// Pages in a row that are alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRun {
    /// Their addresses.
    pub range: Range<u64>,
    /// Whether they are mapped as huge pages.
    pub huge: bool,
}

/// The page map of a process. It stays that of the address space which the process had when it was opened.
#[derive(Debug)]
pub struct Pagemap(File);

#[repr(C)]
#[derive(Default)]
struct ScanArg {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

#[repr(C)]
#[derive(Default, Clone, Copy)]
struct Region {
    start: u64,
    end: u64,
    categories: u64,
}

impl Pagemap {
    /// Opens it.
    ///
    /// # Errors
    /// Where the process may not be looked into, or has gone.
    pub fn open(pid: u32) -> io::Result<Self> {
        File::open(format!("/proc/{pid}/pagemap")).map(Self)
    }

    /// Adds the present anonymous pages of `range`, at most `max_pages`; the page of zeros is not among them. Returns where it stopped.
    ///
    /// # Errors
    /// As the kernel says; `NOTTY` before Linux 6.7.
    pub fn present(&self, range: Range<u64>, max_pages: u64, into: &mut Vec<PageRun>) -> Result<u64, Errno> {
        let mut regions = [Region::default(); RUNS];
        let mut arg = ScanArg {
            size: size_of::<ScanArg>() as u64,
            start: range.start,
            end: range.end,
            vec: regions.as_mut_ptr().addr() as u64,
            vec_len: RUNS as u64,
            max_pages,
            // Present, and neither of a file nor the page of zeros: those two inverted.
            category_inverted: PAGE_IS_FILE | PAGE_IS_PFNZERO,
            category_mask: PAGE_IS_PRESENT | PAGE_IS_FILE | PAGE_IS_PFNZERO,
            return_mask: PAGE_IS_HUGE,
            ..ScanArg::default()
        };
        // SAFETY: the request writes at most `vec_len` regions to `vec`, which is our array, and the struct.
        let found = unsafe { libc::ioctl(self.0.as_raw_fd(), PAGEMAP_SCAN, &raw mut arg) };
        let Ok(found) = usize::try_from(found) else { return Err(last_errno()) };
        let runs = regions.iter().take(found);
        into.extend(runs.map(|run| PageRun { range: run.start..run.end, huge: run.categories & PAGE_IS_HUGE != 0 }));
        Ok(arg.walk_end)
    }
}
