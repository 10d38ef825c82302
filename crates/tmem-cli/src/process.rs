//! The memory of a live process: which pages are resident, private and anonymous, and what they hold.
//!
//! The process is neither stopped nor changed. Pages may come, go or change while they are read; what cannot be read
//! is counted and left out.

use crate::interrupt;
use crate::pages::{Buffer, Corpus};
use anyhow::{Context, Result, anyhow, bail, ensure};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use tmem::GRANULE_BYTES;

/// Pages that are read together, so that a sample has neighbours in it.
const CLUSTER_PAGES: usize = 16;

/// Pages whose state is looked up at once.
const LOOKUP_PAGES: usize = 8192;

/// Bits of a word of `/proc/PID/pagemap` (Linux, Documentation/admin-guide/mm/pagemap.rst).
const PRESENT: u64 = 1 << 63;
const FILE_OR_SHARED: u64 = 1 << 61;

/// What was read.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) corpus: Corpus,
    /// Resident private anonymous memory of the process.
    pub(crate) resident_bytes: usize,
    /// Pages that were chosen and were gone, or not to be read.
    pub(crate) unreadable_pages: usize,
}

/// Neighbouring pages, by page number.
type Run = Range<u64>;

/// Reads the resident private anonymous memory of a process, or about `sample_bytes` of it, spread evenly.
pub(crate) fn read(pid: u32, sample_bytes: usize) -> Result<Memory> {
    let runs = resident(pid)?;
    let count = |runs: &[Run]| runs.iter().map(|run| run.end - run.start).sum::<u64>();
    let resident_pages = usize::try_from(count(&runs)).context("more pages than addresses")?;
    ensure!(
        resident_pages > 0,
        "process {pid} has no resident private anonymous memory: it is a kernel thread, or gone"
    );
    let chosen = sample(&runs, resident_pages, (sample_bytes / GRANULE_BYTES).max(1));
    let chosen_pages = usize::try_from(count(&chosen)).context("more pages than addresses")?;
    let path = format!("/proc/{pid}/mem");
    let memory = File::open(&path).map_err(|error| denied(pid, &path, error))?;
    let mut pages = Buffer::new(chosen_pages * GRANULE_BYTES);
    let mut read_bytes = 0;
    for run in &chosen {
        interrupt::check()?;
        read_bytes += read_run(&memory, run, &mut pages[read_bytes..]);
    }
    pages.truncate(read_bytes);
    let unreadable_pages = chosen_pages - read_bytes / GRANULE_BYTES;
    if read_bytes == 0 {
        bail!("none of the {unreadable_pages} pages of process {pid} could be read: it has ended, or {}", permission());
    }
    let corpus = Corpus { name: format!("process {pid}"), pages };
    Ok(Memory { corpus, resident_bytes: resident_pages * GRANULE_BYTES, unreadable_pages })
}

/// Reads the pages of a run that can be read to the front of `into`. Returns their bytes.
fn read_run(memory: &File, run: &Run, into: &mut [u8]) -> usize {
    let mut bytes = 0;
    let mut page = run.start;
    while page < run.end {
        let most = usize::try_from(run.end - page).map_or(CLUSTER_PAGES, |left| left.min(CLUSTER_PAGES));
        let part = &mut into[bytes..bytes + most * GRANULE_BYTES];
        let offset = page * GRANULE_BYTES as u64;
        let all = memory.read_exact_at(part, offset).is_ok();
        if all || memory.read_exact_at(&mut part[..GRANULE_BYTES], offset).is_ok() {
            let pages = if all { most } else { 1 };
            bytes += pages * GRANULE_BYTES;
            page += pages as u64;
        } else {
            page += 1;
        }
    }
    bytes
}

/// The resident private anonymous pages, by address.
fn resident(pid: u32) -> Result<Vec<Run>> {
    let path = format!("/proc/{pid}/maps");
    let maps = fs::read_to_string(&path).map_err(|error| denied(pid, &path, error))?;
    let path = format!("/proc/{pid}/pagemap");
    let pagemap = File::open(&path).map_err(|error| denied(pid, &path, error))?;
    let mut runs = Vec::new();
    for line in maps.lines() {
        interrupt::check()?;
        if let Some(mapping) = private_mapping(line) {
            // A mapping that cannot be looked up is gone.
            let _ = look_up(&pagemap, mapping, &mut runs);
        }
    }
    Ok(runs)
}

/// The pages of a line of `/proc/PID/maps`, if they may be private and anonymous.
fn private_mapping(line: &str) -> Option<Run> {
    let mut fields = line.split_whitespace();
    let (from, to) = fields.next()?.split_once('-')?;
    let private = fields.next()?.as_bytes().get(3) == Some(&b'p');
    let kernels_own = fields.nth(3).is_some_and(|name| name.starts_with("[v"));
    let page = |hex: &str| u64::from_str_radix(hex, 16).ok().map(|address| address / GRANULE_BYTES as u64);
    (private && !kernels_own).then_some(page(from)?..page(to)?)
}

/// Adds those pages of a mapping that are resident and anonymous.
fn look_up(pagemap: &File, mapping: Run, runs: &mut Vec<Run>) -> std::io::Result<()> {
    let mut words = vec![0; LOOKUP_PAGES * 8];
    let mut from = mapping.start;
    while from < mapping.end {
        let pages = usize::try_from(mapping.end - from).map_or(LOOKUP_PAGES, |left| left.min(LOOKUP_PAGES));
        let bytes = &mut words[..pages * 8];
        pagemap.read_exact_at(bytes, from * 8)?;
        for (word, page) in bytes.as_chunks::<8>().0.iter().zip(from..) {
            #[expect(clippy::host_endian_bytes, reason = "the kernel of this host wrote it")]
            let state = u64::from_ne_bytes(*word);
            if state & (PRESENT | FILE_OR_SHARED) != PRESENT {
                continue;
            }
            match runs.last_mut() {
                Some(last) if last.end == page => last.end += 1,
                _ => runs.push(page..page + 1),
            }
        }
        from += pages as u64;
    }
    Ok(())
}

/// At most `wanted` of `resident` pages, in clusters that are spread evenly over them. The same each time.
fn sample(runs: &[Run], resident: usize, wanted: usize) -> Vec<Run> {
    if wanted >= resident {
        return runs.to_vec();
    }
    let clusters = resident.div_ceil(CLUSTER_PAGES);
    let picks = (wanted / CLUSTER_PAGES).max(1);
    let mut chosen: Vec<Run> = Vec::new();
    let mut runs = runs.iter().cloned();
    // Of the current run what was not passed yet, and how many resident pages come before it.
    let (mut rest, mut passed) = (0..0, 0);
    for pick in 0..picks {
        let first = (pick * clusters / picks * CLUSTER_PAGES) as u64;
        let (mut skip, mut want) = (first - passed, CLUSTER_PAGES as u64);
        while want > 0 {
            if rest.is_empty() {
                match runs.next() {
                    Some(next) => rest = next,
                    None => return chosen,
                }
            }
            let skipped = skip.min(rest.end - rest.start);
            rest.start += skipped;
            skip -= skipped;
            let taken = if skip == 0 { want.min(rest.end - rest.start) } else { 0 };
            if taken > 0 {
                chosen.push(rest.start..rest.start + taken);
            }
            rest.start += taken;
            want -= taken;
            passed += skipped + taken;
        }
    }
    chosen
}

fn denied(pid: u32, path: &str, error: std::io::Error) -> anyhow::Error {
    match error.kind() {
        ErrorKind::NotFound => anyhow!("there is no process {pid}: `ps` lists those that there are"),
        ErrorKind::PermissionDenied => anyhow!("may not read the memory of process {pid} ({path}): {}", permission()),
        // What a process that has just ended answers with.
        _ => anyhow::Error::new(error).context(format!("cannot read {path}: has process {pid} ended?")),
    }
}

fn permission() -> &'static str {
    "run tmem as the same user or as root; where /proc/sys/kernel/yama/ptrace_scope is not 0, as root"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_mappings_are_told_from_others() {
        let heap = "55d0c6a00000-55d0c6a21000 rw-p 00000000 00:00 0                          [heap]";
        assert_eq!(private_mapping(heap), Some(0x0005_5d0c_6a00..0x0005_5d0c_6a21));
        let anonymous = "7f0000000000-7f0000002000 rw-p 00000000 00:00 0";
        assert_eq!(private_mapping(anonymous), Some(0x0007_f000_0000..0x0007_f000_0002));
        for other in [
            "7f0000000000-7f0000002000 rw-s 00000000 00:01 7 /memfd:x (deleted)",
            "7ffd00000000-7ffd00004000 r--p 00000000 00:00 0 [vvar]",
            "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]",
            "nonsense",
            "",
        ] {
            assert_eq!(private_mapping(other), None, "{other}");
        }
    }

    #[test]
    fn a_sample_is_spread_evenly_and_holds_no_page_twice() {
        let runs = [100..103, 200..1000, 5000..5001, 7000..9000];
        let all: Vec<u64> = runs.iter().cloned().flatten().collect();
        for wanted in [1, 16, 17, 100, 333, 2000, 2803] {
            let chosen: Vec<u64> = sample(&runs, all.len(), wanted).into_iter().flatten().collect();
            assert!(chosen.len() <= wanted.max(CLUSTER_PAGES) && chosen.len() + CLUSTER_PAGES > wanted, "{wanted}");
            assert!(chosen.is_sorted_by(|left, right| left < right), "{wanted}: {chosen:?}");
            assert!(chosen.iter().all(|page| all.contains(page)), "{wanted}");
        }
        assert_eq!(sample(&runs, all.len(), all.len()), runs);
        let few = sample(&runs, all.len(), 64);
        assert!(
            few.first().is_some_and(|run| run.start == 100) && few.last().is_some_and(|run| run.end > 8000),
            "{few:?}"
        );
    }

    #[test]
    fn our_own_memory_is_read_as_it_is() {
        let mut mine = Buffer::new(64 * GRANULE_BYTES);
        for (page, number) in mine.chunks_mut(GRANULE_BYTES).zip(0u64..) {
            page.as_chunks_mut::<8>().0.fill((number ^ 0x1234_5678_9abc_def0).to_le_bytes());
        }
        let memory = read(std::process::id(), 1 << 30).unwrap();
        assert!(memory.resident_bytes >= mine.len());
        let pages: Vec<_> = memory.corpus.pages.chunks(GRANULE_BYTES).collect();
        assert!(mine.chunks(GRANULE_BYTES).all(|page| pages.contains(&page)));
    }

    #[test]
    fn a_process_that_is_not_there_is_told_so() {
        let error = read(u32::MAX, 1 << 20).unwrap_err();
        assert!(error.to_string().contains("no process"), "{error}");
    }
}
