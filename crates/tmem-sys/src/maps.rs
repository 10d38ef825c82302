//! The mappings of a process, from `/proc/PID/maps`.

use core::ops::Range;
use std::fs::File;
use std::io::{self, BufRead, BufReader};

/// What a mapping is of, as far as its line tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MappingKind {
    /// Anonymous memory.
    Anonymous,
    /// What `brk` grows.
    Heap,
    /// The first thread's stack.
    Stack,
    /// A file.
    File,
    /// Shared memory: memfds, `/dev/shm`, shared anonymous memory, System V.
    Shmem,
    /// hugetlbfs.
    Hugetlb,
    /// The kernel's: vdso and the like.
    Special,
    /// What tmem has mapped.
    Ours,
}

/// A mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// Its addresses.
    pub range: Range<u64>,
    /// It can be read.
    pub read: bool,
    /// It can be written.
    pub write: bool,
    /// It can be executed.
    pub exec: bool,
    /// What is written to it others see.
    pub shared: bool,
    /// What it is of.
    pub kind: MappingKind,
}

/// Reads all mappings of a process, in the order of their addresses, into `into`, which is cleared first.
///
/// # Errors
/// Where the process may not be looked into, or has gone.
pub fn mappings(pid: u32, into: &mut Vec<Mapping>) -> io::Result<()> {
    into.clear();
    let mut file = BufReader::with_capacity(64 << 10, File::open(format!("/proc/{pid}/maps"))?);
    let mut line = Vec::new();
    while file.read_until(b'\n', &mut line)? > 0 {
        into.extend(mapping(&String::from_utf8_lossy(&line)));
        line.clear();
    }
    Ok(())
}

/// `start-end rwxp offset major:minor inode   name`
fn mapping(line: &str) -> Option<Mapping> {
    let mut fields = line.trim_end().splitn(6, ' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let range = u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?;
    let access = fields.next()?.as_bytes();
    let inode = fields.nth(2)?;
    let name = fields.next().unwrap_or_default().trim_start();
    let shared = *access.get(3)? == b's';
    Some(Mapping {
        range,
        read: access[0] == b'r',
        write: access[1] == b'w',
        exec: access[2] == b'x',
        shared,
        kind: kind(name, inode != "0", shared),
    })
}

fn kind(name: &str, has_inode: bool, shared: bool) -> MappingKind {
    match name {
        "[heap]" => MappingKind::Heap,
        "[stack]" => MappingKind::Stack,
        _ if name.starts_with("[anon:tmem") || name.starts_with("/memfd:tmem-") => MappingKind::Ours,
        "" => MappingKind::Anonymous,
        _ if name.starts_with("[anon:") => MappingKind::Anonymous,
        _ if name.starts_with('[') => MappingKind::Special,
        _ if name.starts_with("/anon_hugepage") || name.contains("hugepages/") => MappingKind::Hugetlb,
        _ if name.starts_with("/memfd:") || name.starts_with("/dev/shm/") || name.starts_with("/SYSV") => {
            MappingKind::Shmem
        }
        _ if name.starts_with("/dev/zero") || (shared && !has_inode) => MappingKind::Shmem,
        _ => MappingKind::File,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_understood() {
        let line = "7f0000000000-7f0000400000 rw-p 00000000 00:00 0 \n";
        let found = mapping(line).unwrap();
        assert_eq!(found.range, 0x7f00_0000_0000..0x7f00_0040_0000);
        assert!(found.read && found.write && !found.exec && !found.shared);
        assert_eq!(found.kind, MappingKind::Anonymous);
        let kind = |name: &str| mapping(&format!("1000-2000 rw-p 0 00:00 12   {name}\n")).unwrap().kind;
        assert_eq!(kind("[heap]"), MappingKind::Heap);
        assert_eq!(kind("[stack]"), MappingKind::Stack);
        assert_eq!(kind("[anon:scudo:primary]"), MappingKind::Anonymous);
        assert_eq!(kind("[anon:tmem staging]"), MappingKind::Ours);
        assert_eq!(kind("[vdso]"), MappingKind::Special);
        assert_eq!(kind("/memfd:x (deleted)"), MappingKind::Shmem);
        assert_eq!(kind("/memfd:tmem-segments (deleted)"), MappingKind::Ours);
        assert_eq!(kind("/usr/lib/a file with spaces.so"), MappingKind::File);
        assert_eq!(kind("/anon_hugepage (deleted)"), MappingKind::Hugetlb);
        assert_eq!(mapping("nonsense"), None);
    }

    #[test]
    fn our_own_stack_and_heap_are_there() {
        let mut found = Vec::new();
        mappings(std::process::id(), &mut found).unwrap();
        assert!(found.iter().any(|mapping| mapping.kind == MappingKind::Stack));
        assert!(found.windows(2).all(|pair| pair[0].range.end <= pair[1].range.start));
    }
}
