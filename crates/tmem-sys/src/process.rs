//! What the kernel says this process holds.

use std::fs;
use std::io;

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
    let status = fs::read_to_string("/proc/self/status")?;
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB")?.parse::<usize>().ok())
            .map(|kib| kib * 1024)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("no {name} in /proc/self/status")))
    };
    Ok(MemoryUse { anonymous: field("RssAnon:")?, shared: field("RssShmem:")? })
}
