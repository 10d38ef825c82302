//! The private anonymous pages of a stopped process, as a file.
//!
//! What is taken: pages of writable, private mappings without a file (`[heap]`, `[stack]`, unnamed ones) that are
//! present now. What is left out: pages of files and of shared memory, and the kernel's one zero page, which a read of
//! untouched memory maps and which no swap ever stores.

use anyhow::{Context, Result, ensure};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes in a page; the files made here are sequences of these.
pub(super) const PAGE_BYTES: usize = 4096;
/// Pages kept together when a process has more than is wanted: 2 MiB, so that neighbours stay neighbours.
const RUN_PAGES: usize = 512;
/// Page map entries read at once: 512 KiB of them.
const ENTRIES_AT_ONCE: usize = 64 * 1024;
/// Bytes of the process read at once.
const READ_BYTES: usize = 1 << 20;

/// `/proc/PID/pagemap`: the page is in memory.
const PRESENT: u64 = 1 << 63;
/// `/proc/PID/pagemap`: the page belongs to a file or to shared memory.
const FILE_OR_SHARED: u64 = 1 << 61;
/// `/proc/PID/pagemap`: mapped once, here. Never set for the zero page.
const EXCLUSIVE: u64 = 1 << 56;

/// What a dump wrote.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dumped {
    /// Pages written.
    pub(super) pages: usize,
    /// Of those, pages that hold only zeros.
    pub(super) zero_pages: usize,
}

impl Dumped {
    /// The size of the file, in MiB.
    pub(super) fn mib(self) -> usize {
        (self.pages * PAGE_BYTES) >> 20
    }

    /// Hundredths of the pages that hold only zeros.
    pub(super) fn zero_percent(self) -> usize {
        (self.zero_pages * 100).checked_div(self.pages).unwrap_or(0)
    }

    /// Counts the pages of a file made earlier.
    pub(super) fn of_file(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        ensure!(bytes.len().is_multiple_of(PAGE_BYTES), "{} does not hold whole pages", path.display());
        let zero_pages = bytes.chunks_exact(PAGE_BYTES).filter(|page| is_zero(page)).count();
        Ok(Self { pages: bytes.len() / PAGE_BYTES, zero_pages })
    }
}

/// A page of the process: its address, and whether it may be the zero page.
#[derive(Debug, Clone, Copy)]
struct Page {
    address: u64,
    exclusive: bool,
}

/// Writes the private anonymous pages of `pid`, which must be stopped, to `out`: at most `limit_pages` of them, in
/// runs spread evenly over its memory when it has more.
pub(super) fn dump(pid: u32, out: &Path, limit_pages: usize) -> Result<Dumped> {
    let pages = spread(&present_pages(pid)?, limit_pages);
    let partial = out.with_extension("partial");
    let mem = File::open(format!("/proc/{pid}/mem")).with_context(|| format!("cannot read the memory of {pid}"))?;
    let file = File::create(&partial).with_context(|| format!("cannot write {}", partial.display()))?;
    let mut writer = BufWriter::with_capacity(READ_BYTES, file);
    let mut dumped = Dumped { pages: 0, zero_pages: 0 };
    let mut buffer = vec![0; READ_BYTES];
    for run in contiguous(&pages) {
        let bytes = &mut buffer[..run.len() * PAGE_BYTES];
        mem.read_exact_at(bytes, run[0].address)
            .with_context(|| format!("cannot read {} pages at {:#x} of {pid}", run.len(), run[0].address))?;
        for (page, bytes) in run.iter().zip(bytes.chunks_exact(PAGE_BYTES)) {
            let zero = is_zero(bytes);
            if zero && !page.exclusive {
                continue;
            }
            dumped.pages += 1;
            dumped.zero_pages += usize::from(zero);
            writer.write_all(bytes).context("cannot write a page")?;
        }
    }
    writer.flush().context("cannot write the last pages")?;
    fs::rename(&partial, out).with_context(|| format!("cannot name {}", out.display()))?;
    Ok(dumped)
}

fn is_zero(page: &[u8]) -> bool {
    page.iter().all(|&byte| byte == 0)
}

/// The ranges of addresses of `maps` that hold private anonymous writable memory.
fn private_anonymous(maps: &str) -> Vec<(u64, u64)> {
    maps.lines().filter_map(private_anonymous_line).collect()
}

fn private_anonymous_line(line: &str) -> Option<(u64, u64)> {
    // start-end perms offset device inode [name]
    let mut fields = line.split_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let permissions = fields.next()?.as_bytes();
    let inode = fields.nth(2)?;
    let name = fields.next().unwrap_or("");
    let anonymous =
        inode == "0" && (name.is_empty() || name == "[heap]" || name == "[stack]" || name.starts_with("[anon"));
    let writable_private = permissions.starts_with(b"rw") && permissions.get(3) == Some(&b'p');
    let start = u64::from_str_radix(start, 16).ok()?;
    let end = u64::from_str_radix(end, 16).ok()?;
    (anonymous && writable_private).then_some((start, end))
}

fn present_pages(pid: u32) -> Result<Vec<Page>> {
    let maps =
        fs::read_to_string(format!("/proc/{pid}/maps")).with_context(|| format!("cannot read the maps of {pid}"))?;
    let pagemap =
        File::open(format!("/proc/{pid}/pagemap")).with_context(|| format!("cannot read the page map of {pid}"))?;
    let page_bytes = PAGE_BYTES as u64;
    let mut pages = Vec::new();
    let mut buffer = vec![0; ENTRIES_AT_ONCE * 8];
    for (start, end) in private_anonymous(&maps) {
        let mut address = start;
        while address < end {
            let count =
                usize::try_from((end - address) / page_bytes).map_or(ENTRIES_AT_ONCE, |n| n.min(ENTRIES_AT_ONCE));
            let entries = &mut buffer[..count * 8];
            pagemap.read_exact_at(entries, address / page_bytes * 8).context("cannot read the page map")?;
            for entry in entries.chunks_exact(8) {
                // The kernel writes entries in the machine's order; every machine we build for is little-endian.
                let entry = entry.iter().rev().fold(0_u64, |word, &byte| word << 8 | u64::from(byte));
                if entry & PRESENT != 0 && entry & FILE_OR_SHARED == 0 {
                    pages.push(Page { address, exclusive: entry & EXCLUSIVE != 0 });
                }
                address += page_bytes;
            }
        }
    }
    Ok(pages)
}

/// At most about `limit` pages, in runs of [`RUN_PAGES`] spread evenly.
fn spread(pages: &[Page], limit: usize) -> Vec<Page> {
    let runs: Vec<&[Page]> = pages.chunks(RUN_PAGES).collect();
    let wanted = limit.div_ceil(RUN_PAGES).min(runs.len());
    (0..wanted).flat_map(|i| runs[i * runs.len() / wanted].iter().copied()).collect()
}

/// Cuts a list of pages where addresses jump, and where a read would be over [`READ_BYTES`].
fn contiguous(pages: &[Page]) -> impl Iterator<Item = &[Page]> {
    pages
        .chunk_by(|a, b| a.address + PAGE_BYTES as u64 == b.address)
        .flat_map(|run| run.chunks(READ_BYTES / PAGE_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{self, Program};
    use std::process::Command;
    use std::time::Duration;

    #[test]
    fn only_private_anonymous_writable_mappings_are_taken() {
        let maps = "\
5600-5700 rw-p 00000000 00:00 0                    [heap]
5700-5800 r--p 00000000 00:00 0
5800-5900 rw-s 00000000 00:00 0
5900-5a00 rw-p 00001000 08:01 1234                 /usr/lib/libc.so.6
5a00-5b00 rw-p 00000000 00:00 0
5b00-5c00 rw-p 00000000 00:00 0                    [anon:v8]
5c00-5d00 r--p 00000000 00:00 0                    [vvar]
";
        assert_eq!(private_anonymous(maps), [(0x5600, 0x5700), (0x5a00, 0x5b00), (0x5b00, 0x5c00)]);
    }

    #[test]
    fn a_dump_holds_what_the_program_held() {
        let held = "x=$(yes memory-4711 | head -c 1200000); echo ready; read line";
        let mut program = Program::start(Command::new("sh").args(["-c", held])).unwrap();
        program.wait_for_line("ready", Duration::from_secs(10)).unwrap();
        process::stop(program.id()).unwrap();
        let file = std::env::temp_dir().join(format!("tmem-dump-test-{}", std::process::id()));
        let dumped = dump(program.id(), &file, usize::MAX).unwrap();
        let again = Dumped::of_file(&file).unwrap();
        let bytes = fs::read(&file).unwrap();
        fs::remove_file(&file).unwrap();
        assert_eq!((dumped.pages, dumped.zero_pages), (again.pages, again.zero_pages));
        let holds = |page: &&[u8]| page.windows(11).any(|window| window == b"memory-4711");
        assert!(bytes.chunks(PAGE_BYTES).filter(holds).count() >= 1_200_000 / PAGE_BYTES);
    }

    #[test]
    fn a_limit_takes_whole_runs_spread_over_the_memory() {
        let pages: Vec<Page> =
            (0..10 * RUN_PAGES as u64).map(|i| Page { address: i * PAGE_BYTES as u64, exclusive: true }).collect();
        let taken = spread(&pages, 4 * RUN_PAGES);
        assert_eq!(taken.len(), 4 * RUN_PAGES);
        let firsts: Vec<u64> =
            taken.chunks(RUN_PAGES).map(|r| r[0].address / (RUN_PAGES * PAGE_BYTES) as u64).collect();
        assert_eq!(firsts, [0, 2, 5, 7]);
        assert!(contiguous(&taken).all(|run| run.len() * PAGE_BYTES <= READ_BYTES));
        assert_eq!(contiguous(&taken).map(<[Page]>::len).sum::<usize>(), taken.len());
    }
}
