//! Other processes, and this one: what they hold, whether they live, what is in their memory.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::PAGE_BYTES;
use crate::uffd::last_errno;

const KCMP_VM: libc::c_int = 1;

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
    let residency = ResidencyOf::open(std::process::id())?.read()?;
    let bytes = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
    Ok(MemoryUse { anonymous: bytes(residency.anonymous), shared: bytes(residency.shared) })
}

/// Resident memory of an address space, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Residency {
    /// Private anonymous memory.
    pub anonymous: u64,
    /// Pages of files.
    pub file: u64,
    /// Shared memory.
    pub shared: u64,
}

/// `/proc/PID/status` of a process, kept open: reading it takes some 20 µs.
#[derive(Debug)]
pub struct ResidencyOf(File);

impl ResidencyOf {
    /// Opens it.
    ///
    /// # Errors
    /// When the process has gone.
    pub fn open(pid: u32) -> io::Result<Self> {
        File::open(format!("/proc/{pid}/status")).map(Self)
    }

    /// Reads it.
    ///
    /// # Errors
    /// When the process has gone, or `/proc` is not Linux's.
    pub fn read(&self) -> io::Result<Residency> {
        let mut bytes = [0; 4096];
        let len = self.0.read_at(&mut bytes, 0)?;
        let status = String::from_utf8_lossy(&bytes[..len]);
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
            kib.map(|kib| kib * 1024).ok_or_else(|| io::Error::other(format!("no {name} in /proc/PID/status")))
        };
        Ok(Residency { anonymous: field("RssAnon:")?, file: field("RssFile:")?, shared: field("RssShmem:")? })
    }
}

/// A process, by a descriptor: never mistaken for another that got its number later.
#[derive(Debug)]
pub struct Pidfd(OwnedFd);

impl Pidfd {
    /// Opens it.
    ///
    /// # Errors
    /// `SRCH`: there is none.
    pub fn open(pid: u32) -> Result<Self, Errno> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
        pidfd_open(pid, PidfdFlags::empty()).map(Self)
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// `SRCH`: it has gone.
    pub fn kill(&self, signal: Signal) -> Result<(), Errno> {
        pidfd_send_signal(&self.0, signal)
    }

    /// Whether it has exited.
    #[must_use]
    pub fn has_exited(&self) -> bool {
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        matches!(poll(&mut fds, Some(&now)), Ok(ready) if ready > 0)
    }
}

impl AsFd for Pidfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whether two processes share an address space.
///
/// # Errors
/// `SRCH`: one has gone. `PERM`: they may not be looked into.
pub fn same_memory(a: u32, b: u32) -> Result<bool, Errno> {
    // SAFETY: the system call takes numbers only.
    match unsafe { libc::syscall(libc::SYS_kcmp, a, b, KCMP_VM, 0_u64, 0_u64) } {
        0 => Ok(true),
        order if order > 0 => Ok(false),
        _ => Err(last_errno()),
    }
}

/// Reads memory of another process. Returns the bytes read; fewer than asked for if a part is not mapped.
///
/// # Errors
/// `SRCH`: it has gone. `FAULT`: nothing is mapped there.
pub fn read_memory(pid: u32, address: u64, into: &mut [u8]) -> Result<usize, Errno> {
    let pid = i32::try_from(pid).map_err(|_| Errno::SRCH)?;
    let local = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    let address = usize::try_from(address).map_err(|_| Errno::FAULT)?;
    let remote = libc::iovec { iov_base: core::ptr::without_provenance_mut(address), iov_len: into.len() };
    // SAFETY: the kernel writes at most `iov_len` bytes into `into`, and checks the other process's addresses itself.
    let read = unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) };
    usize::try_from(read).map_err(|_| last_errno())
}

/// The address of a thread's list of robust mutexes, in its own address space. In glibc and musl it lies in the thread's
/// control block.
///
/// # Errors
/// `SRCH`: there is no such thread. `PERM`: it may not be looked into. `NOENT`: it has none.
pub fn robust_list_head(thread: u32) -> Result<u64, Errno> {
    let (mut head, mut len) = (0_usize, 0_usize);
    // SAFETY: the system call writes the two words that it is given.
    let result = unsafe { libc::syscall(libc::SYS_get_robust_list, thread, &raw mut head, &raw mut len) };
    match (result, head) {
        (0, 0) => Err(Errno::NOENT),
        (0, head) => Ok(head as u64),
        _ => Err(last_errno()),
    }
}

/// The threads of a process, added to `into`.
///
/// # Errors
/// When it has gone.
pub fn threads(pid: u32, into: &mut Vec<u32>) -> io::Result<()> {
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        into.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    Ok(())
}

/// A process's share of anonymous memory (`Pss_Anon`), in bytes: what it has in common with others counts for each in part. Takes
/// some 20 ms for a gigabyte.
///
/// # Errors
/// Where the process may not be looked into, or has gone.
pub fn proportional_anonymous(pid: u32) -> io::Result<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss_Anon:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| io::Error::other("no Pss_Anon in smaps_rollup"))
}

/// Bytes of a page, for sizes told in pages.
const _: () = assert!(PAGE_BYTES == 4096);

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_child_has_memory_of_its_own_and_exits() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let life = Pidfd::open(child.id()).unwrap();
        assert!(!life.has_exited());
        assert_eq!(same_memory(child.id(), std::process::id()), Ok(false));
        assert_eq!(same_memory(std::process::id(), std::process::id()), Ok(true));
        life.kill(Signal::KILL).unwrap();
        child.wait().unwrap();
        assert!(life.has_exited());
        assert_eq!(life.kill(Signal::KILL), Err(Errno::SRCH));
    }

    #[test]
    fn memory_of_a_process_can_be_read() {
        let there = [7_u8; 100];
        let mut here = [0; 100];
        let read = read_memory(std::process::id(), there.as_ptr().addr() as u64, &mut here);
        assert_eq!((read, here), (Ok(100), there));
        assert_eq!(read_memory(std::process::id(), 4096, &mut here), Err(Errno::FAULT));
    }

    #[test]
    fn threads_have_robust_lists() {
        let mut found = Vec::new();
        threads(std::process::id(), &mut found).unwrap();
        assert!(found.contains(&std::process::id()));
        assert!(found.iter().any(|thread| robust_list_head(*thread).is_ok()));
    }

    #[test]
    fn touched_memory_is_resident() {
        let residency = ResidencyOf::open(std::process::id()).unwrap();
        let before = residency.read().unwrap();
        let touched = vec![1_u8; 16 << 20];
        let after = residency.read().unwrap();
        assert!(after.anonymous >= before.anonymous + (15 << 20), "{before:?} {after:?} {}", touched.len());
        assert!(proportional_anonymous(std::process::id()).unwrap() >= 15 << 20);
    }
}
