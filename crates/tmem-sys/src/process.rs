//! What the kernel says this process holds, or another.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

/// Resident memory of this process, in bytes, as `/proc/self/status` tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryUse {
    /// Private anonymous memory (`RssAnon`).
    pub anonymous: usize,
    /// Shared memory, memfds among it (`RssShmem`).
    pub shared: usize,
}

impl MemoryUse {
    /// Both kinds together.
    #[must_use]
    pub fn total(&self) -> usize {
        self.anonymous + self.shared
    }
}

/// Reads [`MemoryUse`] of this process.
///
/// # Errors
/// When `/proc` is not mounted or is not Linux's.
pub fn resident_bytes() -> io::Result<MemoryUse> {
    let held = ResidencyOf::open(std::process::id())?.read()?;
    let bytes = |count: u64| usize::try_from(count).map_err(io::Error::other);
    Ok(MemoryUse { anonymous: bytes(held.anonymous)?, shared: bytes(held.shared)? })
}

/// Resident memory of a process, in bytes. Each counter is exact since Linux 6.17; before, it may be late by 32 pages
/// (or twice the number of CPUs, if that is more) for each CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Residency {
    /// Private anonymous memory.
    pub anonymous: u64,
    /// Pages of files.
    pub file: u64,
    /// Shared memory, memfds among it.
    pub shared: u64,
    /// What of these is locked (`mlock`).
    pub locked: u64,
    /// Pages of hugetlbfs, which are in none of these.
    pub hugetlb: u64,
}

impl Residency {
    /// The first three together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.anonymous + self.file + self.shared
    }
}

/// Reads [`Residency`] of a process again and again: its files in `/proc`, kept open. They follow the process through
/// exec.
#[derive(Debug)]
pub struct ResidencyOf {
    status: File,
    statm: File,
}

impl ResidencyOf {
    /// For process `pid`.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn open(pid: u32) -> io::Result<Self> {
        let open = |name: &str| File::open(format!("/proc/{pid}/{name}"));
        Ok(Self { status: open("status")?, statm: open("statm")? })
    }

    /// All of it, in 9.5 µs (Linux 6.18, a virtual machine, as the other figures here).
    ///
    /// # Errors
    /// When the process is gone (`ESRCH`), or has exited and waits for its parent (`InvalidData`).
    pub fn read(&self) -> io::Result<Residency> {
        let mut text = [0; 4096];
        let len = self.status.read_at(&mut text, 0)?;
        let field = |name| kib_field(&text[..len], name);
        Ok(Residency {
            anonymous: field("RssAnon:")?,
            file: field("RssFile:")?,
            shared: field("RssShmem:")?,
            locked: field("VmLck:")?,
            // Not told by kernels without hugetlbfs.
            hugetlb: field("HugetlbPages:").unwrap_or(0),
        })
    }

    /// What is told in 1.3 µs.
    ///
    /// # Errors
    /// When the process is gone (`ESRCH`). One that waits for its parent has none.
    pub fn sizes(&self) -> io::Result<Sizes> {
        let mut text = [0; 256];
        let len = self.statm.read_at(&mut text, 0)?;
        // Pages: size, resident, and the part of those that is of files or shared.
        let mut fields = text[..len].split(|&byte| byte == b' ').map(number);
        let mut next = || fields.next().flatten();
        let (Some(size), Some(resident), Some(backed)) = (next(), next(), next()) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "no size, resident, shared in /proc/PID/statm"));
        };
        let bytes = |pages: u64| pages * crate::PAGE_BYTES as u64;
        let anonymous = bytes(resident.saturating_sub(backed));
        Ok(Sizes { mapped: bytes(size), anonymous, backed: bytes(backed) })
    }
}

/// Sizes of an address space, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sizes {
    /// All that is mapped.
    pub mapped: u64,
    /// Anonymous memory that is resident.
    pub anonymous: u64,
    /// What is resident of files and of shared memory.
    pub backed: u64,
}

/// Anonymous memory of a process, in bytes, each page divided by the number of processes that share it (`Pss_Anon`).
/// The kernel walks all page tables for it: 6 to 11 ms for 256 MiB in base pages, 0.24 ms in huge ones.
///
/// # Errors
/// When there is no such process, or no right to trace it.
pub fn proportional_anonymous(pid: u32) -> io::Result<u64> {
    kib_field(&fs::read(format!("/proc/{pid}/smaps_rollup"))?, "Pss_Anon:")
}

/// The user as which this process acts.
#[must_use]
pub fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The number in a line `name  N kB`, in bytes.
fn kib_field(text: &[u8], name: &str) -> io::Result<u64> {
    let mut lines = text.split(|&byte| byte == b'\n');
    let value = lines.find_map(|line| number(line.strip_prefix(name.as_bytes())?.strip_suffix(b" kB")?));
    let missing = || io::Error::new(io::ErrorKind::InvalidData, format!("no {name} in what /proc says"));
    value.map(|kib| kib * 1024).ok_or_else(missing)
}

/// A decimal number with blanks around it.
fn number(text: &[u8]) -> Option<u64> {
    str::from_utf8(text.trim_ascii()).ok()?.parse().ok()
}
