//! What a process has mapped.
//!
//! `/proc/PID/maps`, line by line, and `PROCMAP_QUERY` (Linux 6.11) for one address. A list is not a snapshot:
//! mappings that change while it is read may be seen in either state, or twice.

use crate::injection::{self, Call};
use core::ops::Range;
use rustix::io::Errno;
use rustix::ioctl::{self, Opcode, Updater, opcode};
use std::fs::File;
use std::io::{self, BufRead, BufReader};

const QUERY: Opcode = opcode::read_write::<RawQuery>(b'f', 17);

const QUERY_READ: u64 = 1;
const QUERY_WRITE: u64 = 2;
const QUERY_EXEC: u64 = 4;
const QUERY_SHARED: u64 = 8;

/// The kernel fills its buffer by pages, and returns at most one a read.
const READ_BYTES: usize = crate::PAGE_BYTES;

/// Room for a name in a query: a path of the kernel's greatest length.
const NAME_BYTES: usize = 4096;

/// The kernel's `struct procmap_query`.
#[repr(C)]
#[derive(Default)]
struct RawQuery {
    size: u64,
    flags: u64,
    address: u64,
    start: u64,
    end: u64,
    mapping_flags: u64,
    page_bytes: u64,
    offset: u64,
    inode: u64,
    device: [u32; 2],
    name_bytes: u32,
    build_id_bytes: u32,
    name: u64,
    build_id: u64,
}

/// What is behind a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MappingKind {
    /// Anonymous memory, with or without a name.
    Anonymous,
    /// Anonymous memory below the program break.
    Heap,
    /// The main thread's stack.
    Stack,
    /// A file, or a device.
    File,
    /// Shared anonymous memory: a memfd, `/dev/shm`, `/dev/zero`, System V.
    Shmem,
    /// Huge pages of a pool (`MAP_HUGETLB`). Of a memfd, the list cannot tell; [`MappingsOf::at`] can.
    Hugetlb,
    /// The kernel's own: vdso, vvar, vsyscall, rings.
    Special,
    /// Made by tmem: its name says so.
    Ours,
}

/// One line of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// Addresses.
    pub range: Range<u64>,
    /// May be read.
    pub read: bool,
    /// May be written.
    pub write: bool,
    /// May be executed.
    pub exec: bool,
    /// Writes go to what is behind it, not to a private copy.
    pub shared: bool,
    /// What is behind it.
    pub kind: MappingKind,
}

/// Appends the mappings of a process in order of address.
///
/// # Errors
/// When there is no such process, or no right to trace it; `InvalidData` when a line makes no sense.
pub fn mappings(pid: u32, into: &mut Vec<Mapping>) -> io::Result<()> {
    let mut list = List::open(pid)?;
    while let Some(mapping) = list.next()? {
        into.push(mapping);
    }
    Ok(())
}

/// The mappings of a process, to be asked for one by one.
#[derive(Debug)]
pub struct MappingsOf {
    pid: u32,
    file: File,
    /// Where the kernel cannot be asked.
    list: Option<List>,
}

impl MappingsOf {
    /// Opens them.
    ///
    /// # Errors
    /// When there is no such process, or no right to trace it.
    pub fn open(pid: u32) -> io::Result<Self> {
        Ok(Self { pid, file: open(pid)?, list: None })
    }

    /// The mapping that holds `address`, if there is one. Before Linux 6.11 that is what the list says, which is read on
    /// from one address to the next, if that is higher.
    ///
    /// # Errors
    /// As [`mappings`].
    pub fn at(&mut self, address: u64) -> io::Result<Option<Mapping>> {
        match query(&self.file, address) {
            Ok(mapping) => Ok(Some(mapping)),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::NOTTY) => self.listed(address),
            Err(errno) => Err(errno.into()),
        }
    }

    fn listed(&mut self, address: u64) -> io::Result<Option<Mapping>> {
        let passed = |list: &List| list.last.as_ref().is_some_and(|last| last.range.start > address);
        let list = match self.list.take().filter(|list| !passed(list)) {
            Some(list) => self.list.insert(list),
            None => self.list.insert(List::open(self.pid)?),
        };
        while list.last.as_ref().is_none_or(|last| last.range.end <= address) {
            if list.next()?.is_none() {
                self.list = None;
                return Ok(None);
            }
        }
        Ok(list.last.clone().filter(|last| last.range.start <= address))
    }
}

/// What a process keeps from its children: mappings that they do not inherit (`MADV_DONTFORK`) or find empty
/// (`MADV_WIPEONFORK`). The kernel tells it only beside what it counts by walking all pages: some 10 ms for a
/// gigabyte.
///
/// # Errors
/// Where the process may not be looked into, or has gone.
pub fn withheld_from_children(pid: u32) -> io::Result<Vec<Range<u64>>> {
    let mut withheld = Vec::new();
    let mut current = None;
    for line in BufReader::with_capacity(READ_BYTES, File::open(format!("/proc/{pid}/smaps"))?).lines() {
        let line = line?;
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            let kept = flags.split_whitespace().any(|flag| flag == "dc" || flag == "wf");
            withheld.extend(current.take().filter(|_| kept));
        } else if let Some((start, end)) = line.split(' ').next().and_then(|range| range.split_once('-')) {
            let range = u64::from_str_radix(start, 16).and_then(|start| Ok(start..u64::from_str_radix(end, 16)?));
            current = range.ok().or(current);
        }
    }
    Ok(withheld)
}

fn open(pid: u32) -> io::Result<File> {
    File::open(format!("/proc/{pid}/maps"))
}

/// A list that is being read.
#[derive(Debug)]
struct List {
    lines: BufReader<File>,
    line: Vec<u8>,
    /// What was read last.
    last: Option<Mapping>,
}

impl List {
    fn open(pid: u32) -> io::Result<Self> {
        let lines = BufReader::with_capacity(READ_BYTES, open(pid)?);
        Ok(Self { lines, line: Vec::with_capacity(256), last: None })
    }

    fn next(&mut self) -> io::Result<Option<Mapping>> {
        self.line.clear();
        self.last = match self.lines.read_until(b'\n', &mut self.line)? {
            0 => None,
            _ => Some(parse(self.line.trim_ascii_end()).ok_or_else(|| {
                let text = String::from_utf8_lossy(&self.line);
                io::Error::new(io::ErrorKind::InvalidData, format!("no mapping: {text:?}"))
            })?),
        };
        Ok(self.last.clone())
    }
}

/// One line: `start-end rwxp offset device inode  name`.
fn parse(line: &[u8]) -> Option<Mapping> {
    let (start, rest) = hex(line)?;
    let (end, rest) = hex(rest.strip_prefix(b"-")?)?;
    let (flags, rest) = rest.strip_prefix(b" ")?.split_at_checked(4)?;
    // Offset, device and inode hold no spaces; what follows them is the name, which may.
    let name = rest.strip_prefix(b" ")?.splitn(4, |&byte| byte == b' ').nth(3).unwrap_or(b"");
    Some(Mapping {
        range: start..end,
        read: flags[0] == b'r',
        write: flags[1] == b'w',
        exec: flags[2] == b'x',
        shared: flags[3] == b's',
        kind: kind(name.trim_ascii_start()),
    })
}

/// A hexadecimal number, and what follows it.
fn hex(text: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    let mut digits = 0;
    for &byte in text {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => break,
        };
        value = value << 4 | u64::from(digit);
        digits += 1;
    }
    (1..=16).contains(&digits).then(|| (value, &text[digits..]))
}

/// What a name says.
fn kind(name: &[u8]) -> MappingKind {
    let begins = |prefix: &[u8]| name.starts_with(prefix);
    match name {
        b"" => MappingKind::Anonymous,
        b"[heap]" => MappingKind::Heap,
        _ if begins(b"[stack") => MappingKind::Stack,
        _ if begins(b"[anon:tmem") || begins(b"[anon_shmem:tmem") || begins(b"/memfd:tmem") => MappingKind::Ours,
        _ if begins(b"[anon:") => MappingKind::Anonymous,
        _ if begins(b"/anon_hugepage") => MappingKind::Hugetlb,
        _ if begins(b"[anon_shmem:") || begins(b"/memfd:") || begins(b"/SYSV") => MappingKind::Shmem,
        _ if begins(b"/dev/shm/") || begins(b"/dev/zero") => MappingKind::Shmem,
        _ if begins(b"[") || begins(b"/[") || begins(b"anon_inode:") => MappingKind::Special,
        _ => MappingKind::File,
    }
}

/// Asks for one address. `NOENT`: nothing is mapped there. `NOTTY`: the kernel cannot be asked.
fn query(file: &File, address: u64) -> Result<Mapping, Errno> {
    injection::refused(Call::Query)?;
    let mut name = [0u8; NAME_BYTES];
    let mut raw = RawQuery {
        size: size_of::<RawQuery>() as u64,
        address,
        name_bytes: u32::try_from(NAME_BYTES).unwrap_or(0),
        name: name.as_mut_ptr().expose_provenance() as u64,
        ..RawQuery::default()
    };
    // SAFETY: RawQuery is the kernel's struct procmap_query, for this opcode.
    let call = unsafe { Updater::<QUERY, _>::new(&mut raw) };
    // SAFETY: it writes to `raw`, and at most NAME_BYTES to `name`, which lives on; it changes nothing else.
    unsafe { ioctl::ioctl(file, call) }?;
    let named = usize::try_from(raw.name_bytes).unwrap_or(0).min(NAME_BYTES);
    let name = name[..named].strip_suffix(&[0]).unwrap_or_default();
    let has = |flag| raw.mapping_flags & flag != 0;
    let pool = raw.page_bytes > crate::PAGE_BYTES as u64;
    Ok(Mapping {
        range: raw.start..raw.end,
        read: has(QUERY_READ),
        write: has(QUERY_WRITE),
        exec: has(QUERY_EXEC),
        shared: has(QUERY_SHARED),
        kind: if pool { MappingKind::Hugetlb } else { kind(name) },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_spaces_and_none_are_told_apart() {
        let line = b"7f00-8f00 rw-s 00000000 00:01 77                         /dev/shm/a b (deleted)";
        let mapping = parse(line).unwrap();
        assert_eq!((mapping.range.clone(), mapping.kind), (0x7f00..0x8f00, MappingKind::Shmem));
        assert!(mapping.read && mapping.write && !mapping.exec && mapping.shared);
        let plain = parse(b"ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0").unwrap();
        assert_eq!((plain.range.end, plain.kind), (0xffff_ffff_ff60_1000, MappingKind::Anonymous));
        assert!(plain.exec && !plain.read);
    }

    #[test]
    fn a_list_that_is_read_on_says_what_the_kernel_says() {
        let mut of = MappingsOf::open(std::process::id()).unwrap();
        let mut all = Vec::new();
        mappings(of.pid, &mut all).unwrap();
        // The lowest are the program's own file, which other threads leave alone.
        let addresses: Vec<u64> = all.iter().take(4).flat_map(|one| [one.range.start, one.range.end - 1]).collect();
        for &address in addresses.iter().chain(addresses.iter().rev()).chain([&0, &u64::MAX]) {
            let listed = of.listed(address).unwrap();
            assert_eq!(listed, all.iter().find(|one| one.range.contains(&address)).cloned(), "{address:x}");
        }
    }

    #[test]
    fn lines_that_are_none_are_refused() {
        for line in [&b""[..], b"7f00", b"7f00-", b"7f00-8f00", b"7f00-8f00 rw", b"-8f00 rw-p 0 0 0", b"x-y rw-p 0 0 0"]
        {
            assert_eq!(parse(line), None, "{line:?}");
        }
        assert_eq!(hex(b"12345678123456789"), None);
    }

    #[test]
    fn a_name_says_what_is_behind_it() {
        let expected = [
            ("", MappingKind::Anonymous),
            ("[anon:glibc: malloc]", MappingKind::Anonymous),
            ("[heap]", MappingKind::Heap),
            ("[stack]", MappingKind::Stack),
            ("/usr/lib/libc.so.6", MappingKind::File),
            ("/memfd:x (deleted)", MappingKind::Shmem),
            ("/SYSV00000000 (deleted)", MappingKind::Shmem),
            ("/dev/zero (deleted)", MappingKind::Shmem),
            ("[anon_shmem:x]", MappingKind::Shmem),
            ("/anon_hugepage (deleted)", MappingKind::Hugetlb),
            ("[vvar_vclock]", MappingKind::Special),
            ("anon_inode:[io_uring]", MappingKind::Special),
            ("/[aio] (deleted)", MappingKind::Special),
            ("[anon:tmem staging]", MappingKind::Ours),
            ("/memfd:tmem-comm (deleted)", MappingKind::Ours),
        ];
        for (name, kind_of) in expected {
            assert_eq!(kind(name.as_bytes()), kind_of, "{name}");
        }
    }
}
