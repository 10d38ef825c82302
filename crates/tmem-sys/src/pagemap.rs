//! Which pages of a process are in memory.
//!
//! `PAGEMAP_SCAN` (Linux 6.7) on `/proc/PID/pagemap`. An open [`Pagemap`] stays with the address space that the
//! process had when it was opened: after exec or exit a scan finds nothing.

use crate::PAGE_BYTES;
use crate::injection::{self, Call};
use core::ops::Range;
use rustix::io::Errno;
use rustix::ioctl::{self, Ioctl, IoctlOutput, Opcode, opcode};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const SCAN: Opcode = opcode::read_write::<RawScan>(b'f', 16);

const IS_FILE: u64 = 1 << 2;
const IS_PRESENT: u64 = 1 << 3;
const IS_ZERO_PAGE: u64 = 1 << 5;
const IS_HUGE: u64 = 1 << 6;

/// Runs that one call can return: 6 KiB on the stack.
const RUNS: usize = 256;

/// The kernel's `struct pm_scan_arg`.
#[repr(C)]
#[derive(Default)]
struct RawScan {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    runs: u64,
    runs_len: u64,
    max_pages: u64,
    inverted: u64,
    all_of: u64,
    any_of: u64,
    returned: u64,
}

/// The kernel's `struct page_region`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct RawRun {
    start: u64,
    end: u64,
    categories: u64,
}

/// Neighbouring pages of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRun {
    /// Their addresses.
    pub range: Range<u64>,
    /// Whether they are mapped as huge pages.
    pub huge: bool,
}

/// The page tables of one address space.
#[derive(Debug)]
pub struct Pagemap(File);

impl Pagemap {
    /// Opens that of the address space that `pid` has now.
    ///
    /// # Errors
    /// When there is no such process, or no right to trace it.
    pub fn open(pid: u32) -> io::Result<Self> {
        File::open(format!("/proc/{pid}/pagemap")).map(Self)
    }

    /// Appends the runs of present private anonymous pages in `range`: neither a file's, nor shared memory's, nor the
    /// zero page, nor swapped out. Stops after `max_pages` pages. Returns where the walk ended: `range.end`, if it
    /// saw all.
    ///
    /// # Errors
    /// `NOTTY`: the kernel is older than 6.7. `INVAL`: the range is not whole pages, or ends before it starts.
    pub fn present(&self, range: Range<u64>, max_pages: u64, into: &mut Vec<PageRun>) -> Result<u64, Errno> {
        let mut at = range.start;
        let mut pages_left = max_pages;
        while at < range.end && pages_left > 0 {
            let mut runs = [RawRun::default(); RUNS];
            let found: usize;
            (found, at) = self.scan(at..range.end, pages_left, &mut runs)?;
            for run in &runs[..found] {
                pages_left = pages_left.saturating_sub((run.end - run.start) / PAGE_BYTES as u64);
                append(into, PageRun { range: run.start..run.end, huge: run.categories & IS_HUGE != 0 });
            }
            if found < RUNS {
                break;
            }
        }
        Ok(at)
    }

    /// Tells of each page (an address, in ascending order) whether it is mapped here and nowhere else.
    pub fn exclusive(&self, pages: &[u64], mut each: impl FnMut(u64, bool)) {
        /// Bit 56 of an entry: "page exclusively mapped".
        const EXCLUSIVE: u64 = 1 << 56;
        for run in pages.chunk_by(|a, b| a + PAGE_BYTES as u64 == *b) {
            let mut entries = vec![0; run.len() * 8];
            let asked = injection::shorter(Call::Entries, run.len()) * 8;
            let read = self.0.read_at(&mut entries[..asked], run[0] / PAGE_BYTES as u64 * 8).unwrap_or(0);
            for (page, entry) in run.iter().zip(entries[..read].as_chunks::<8>().0) {
                each(*page, u64::from_le_bytes(*entry) & EXCLUSIVE != 0);
            }
        }
    }

    /// One call: how many runs were found, and where the walk ended.
    fn scan(&self, range: Range<u64>, max_pages: u64, runs: &mut [RawRun; RUNS]) -> Result<(usize, u64), Errno> {
        injection::refused(Call::Scan)?;
        let pages = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX) / PAGE_BYTES;
        let unseen = (pages - injection::shorter(Call::Scan, pages)) * PAGE_BYTES;
        let mut scan = Scan(RawScan {
            size: size_of::<RawScan>() as u64,
            start: range.start,
            end: range.end - unseen as u64,
            runs: runs.as_mut_ptr().expose_provenance() as u64,
            runs_len: RUNS as u64,
            max_pages,
            inverted: IS_FILE | IS_ZERO_PAGE,
            all_of: IS_PRESENT | IS_FILE | IS_ZERO_PAGE,
            returned: IS_HUGE,
            ..RawScan::default()
        });
        // SAFETY: RawScan is the kernel's struct for this opcode, `runs` is writable for `runs_len` of them and
        // borrowed until the call is over; without flags it changes nothing in the process.
        let found = unsafe { ioctl::ioctl(&self.0, &mut scan) }?;
        Ok((found, scan.0.walk_end))
    }
}

/// Adds a run, or makes the last one longer.
fn append(into: &mut Vec<PageRun>, run: PageRun) {
    match into.last_mut() {
        Some(last) if last.range.end == run.range.start && last.huge == run.huge => last.range.end = run.range.end,
        _ => into.push(run),
    }
}

/// The call's argument; its result is a count.
struct Scan(RawScan);

// SAFETY: the opcode is computed from the struct's size, the pointer is to that struct, which is borrowed mutably.
unsafe impl Ioctl for &mut Scan {
    type Output = usize;

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        SCAN
    }

    fn as_ptr(&mut self) -> *mut core::ffi::c_void {
        (&raw mut self.0).cast()
    }

    unsafe fn output_from_ptr(out: IoctlOutput, _: *mut core::ffi::c_void) -> Result<usize, Errno> {
        usize::try_from(out).map_err(|_| Errno::INVAL)
    }
}
