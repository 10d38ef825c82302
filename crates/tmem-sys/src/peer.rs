//! Another process: whether it lives, and what is in its memory.
//!
//! Each of these wants the right to trace the process (`PERM` otherwise), [`Pidfd`] that to signal it. `SRCH`: it is
//! gone.

use crate::PAGE_BYTES;
use crate::injection::{self, Call};
use core::ops::Range;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

/// Pages that one [`read_pages`] can take: the kernel's limit for the pieces of one call.
pub const READ_PAGES: usize = 1024;

/// A process that keeps its identity: its number is not given to another while this lives. Readable (`poll`) when it
/// has exited.
#[derive(Debug)]
pub struct Pidfd(OwnedFd);

impl Pidfd {
    /// Opens process `pid`.
    ///
    /// # Errors
    /// `SRCH`: there is none. `INVAL`: a thread's number that is no process's.
    pub fn open(pid: u32) -> Result<Self, Errno> {
        let pid = Pid::from_raw(raw_pid(pid)?).ok_or(Errno::SRCH)?;
        pidfd_open(pid, PidfdFlags::empty()).map(Self)
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// `SRCH`: it has exited. `PERM`: no right to.
    pub fn kill(&self, signal: Signal) -> Result<(), Errno> {
        pidfd_send_signal(self, signal)
    }

    /// Has the kernel take back what it can of a range of its memory now (`MADV_PAGEOUT`): pages of files that no other
    /// process has mapped, which are read again when they are touched. Nothing is lost, whatever is there.
    ///
    /// # Errors
    /// `PERM`: no `CAP_SYS_NICE`, or no right to trace it. `NOMEM`: not all of the range is mapped; the rest was taken.
    pub fn page_out(&self, range: &Range<u64>) -> Result<(), Errno> {
        injection::refused(Call::PageOut)?;
        let bytes = usize::try_from(range.end - range.start).map_err(|_| Errno::INVAL)?;
        let piece = piece(range.start, bytes);
        let fd = self.0.as_raw_fd();
        // SAFETY: reads one piece, which lives; the advice changes no byte of anybody's memory.
        let done = unsafe {
            libc::syscall(libc::SYS_process_madvise, fd, &raw const piece, 1_usize, libc::MADV_PAGEOUT, 0_u32)
        };
        if done < 0 { Err(last_errno()) } else { Ok(()) }
    }

    /// Whether all of its threads have exited; its parent may not have been told yet.
    ///
    /// # Errors
    /// `NOMEM`.
    pub fn has_exited(&self) -> Result<bool, Errno> {
        let mut fds = [PollFd::new(self, PollFlags::IN)];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        loop {
            match poll(&mut fds, Some(&at_once)) {
                Ok(ready) => return Ok(ready > 0),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
}

impl AsFd for Pidfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whether two processes share one address space (vfork, or clone with `CLONE_VM`).
///
/// # Errors
/// `NOSYS`: a kernel without `CONFIG_KCMP`.
pub fn same_memory(a: u32, b: u32) -> Result<bool, Errno> {
    const KCMP_VM: libc::c_ulong = 1;
    let none: libc::c_ulong = 0;
    let (a, b) = (raw_pid(a)?, raw_pid(b)?);
    // SAFETY: the call takes five numbers, and no pointers.
    let order = unsafe { libc::syscall(libc::SYS_kcmp, a, b, KCMP_VM, none, none) };
    if order < 0 { Err(last_errno()) } else { Ok(order == 0) }
}

/// Memory of a process, as far as it is there: a page that would have to wait for a userfaultfd is an error instead.
#[derive(Debug)]
pub struct Present(File);

impl Present {
    /// Opens that of process `pid`: of the address space that it has now, whatever becomes of the process.
    ///
    /// # Errors
    /// When there is no such process, or no right to trace it.
    pub fn open(pid: u32) -> io::Result<Self> {
        File::open(format!("/proc/{pid}/mem")).map(Self)
    }

    /// Copies memory at `address`, all of `into` or nothing that counts. The kernel looks such pages up in a way in which
    /// it cannot wait for them (`access_remote_vm`).
    ///
    /// # Errors
    /// `EIO`: a page is not mapped, or missing and registered with a userfaultfd. `UnexpectedEof`: the address space is
    /// gone.
    pub fn read(&self, address: u64, into: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(into, address)
    }
}

/// Copies memory of a process at `address`, up to the first page that is not readable; returns the bytes copied. A
/// page that waits for a userfaultfd makes this wait too.
///
/// # Errors
/// `FAULT`: not even the first page is readable.
pub fn read_memory(pid: u32, address: u64, into: &mut [u8]) -> Result<usize, Errno> {
    let from = [piece(address, into.len())];
    read_pieces(pid, &from, into)
}

/// Copies bytes to memory of a process at `address`, up to the first page that is not writable; returns the bytes
/// copied. A page that waits for a userfaultfd makes this wait too.
///
/// # Errors
/// `FAULT`: not even the first page is writable.
pub fn write_memory(pid: u32, address: u64, from: &[u8]) -> Result<usize, Errno> {
    injection::refused(Call::Write)?;
    let pages = from.len() / PAGE_BYTES;
    let from = &from[..from.len() - (pages - injection::shorter(Call::Write, pages)) * PAGE_BYTES];
    let own = libc::iovec { iov_base: from.as_ptr().cast_mut().cast(), iov_len: from.len() };
    let to = piece(address, from.len());
    let pid = raw_pid(pid)?;
    // SAFETY: reads `from`, which is borrowed, and one piece of each side; what it writes to belongs to another process.
    let copied = unsafe { libc::process_vm_writev(pid, &raw const own, 1, &raw const to, 1, 0) };
    usize::try_from(copied).map_err(|_| last_errno())
}

/// Copies whole pages at `addresses` (at most [`READ_PAGES`]) of a process to `into`, side by side, up to the first
/// that is not readable; returns the bytes copied. Waits as [`read_memory`] does.
///
/// # Errors
/// `FAULT`: not even the first is readable. `INVAL`: too many, or `into` is not of their size.
pub fn read_pages(pid: u32, addresses: &[u64], into: &mut [u8]) -> Result<usize, Errno> {
    if addresses.len() > READ_PAGES || into.len() != addresses.len() * PAGE_BYTES {
        return Err(Errno::INVAL);
    }
    let mut from = [piece(0, 0); READ_PAGES];
    for (piece_of, &address) in from.iter_mut().zip(addresses) {
        *piece_of = piece(address, PAGE_BYTES);
    }
    read_pieces(pid, &from[..addresses.len()], into)
}

fn piece(address: u64, bytes: usize) -> libc::iovec {
    // An address of another process: never used as a pointer here.
    let base = core::ptr::without_provenance_mut(usize::try_from(address).unwrap_or(usize::MAX));
    libc::iovec { iov_base: base, iov_len: bytes }
}

fn read_pieces(pid: u32, from: &[libc::iovec], into: &mut [u8]) -> Result<usize, Errno> {
    let pid = raw_pid(pid)?;
    let to = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    let pieces = from.len() as libc::c_ulong;
    // SAFETY: `to` describes `into`, which is borrowed for writing; `from` is only read, and the addresses in it are
    // looked up in the other process by the kernel.
    let copied = unsafe { libc::process_vm_readv(pid, &raw const to, 1, from.as_ptr(), pieces, 0) };
    usize::try_from(copied).map_err(|_| last_errno())
}

/// A pid as the kernel takes it; one that it could not have given out is nobody's.
pub(crate) fn raw_pid(pid: u32) -> Result<i32, Errno> {
    i32::try_from(pid).map_err(|_| Errno::SRCH)
}

/// Why the libc call just made has failed.
pub(crate) fn last_errno() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}
