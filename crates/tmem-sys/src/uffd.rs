//! Userfaultfd: page faults of an address space, told and answered through a descriptor (`Documentation/admin-guide/mm/userfaultfd.rst`).
//!
//! The descriptor belongs to the address space of whoever made it; others who hold it may do all of this from outside, but for
//! moving pages. Ranges are whole pages, addresses are the other address space's.
//!
//! Structures and numbers are those of `include/uapi/linux/userfaultfd.h`.

use core::ops::{BitOr, Range};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

const API: u64 = 0xAA;
const UFFDIO_API: libc::c_ulong = 0xC018_AA3F;
const UFFDIO_REGISTER: libc::c_ulong = 0xC020_AA00;
const UFFDIO_UNREGISTER: libc::c_ulong = 0x8010_AA01;
const UFFDIO_WAKE: libc::c_ulong = 0x8010_AA02;
const UFFDIO_COPY: libc::c_ulong = 0xC028_AA03;
const UFFDIO_ZEROPAGE: libc::c_ulong = 0xC020_AA04;
/// Makes a descriptor through the device.
const USERFAULTFD_IOC_NEW: libc::c_ulong = 0xAA00;
const REGISTER_MODE_MISSING: u64 = 1;
const MODE_DONTWAKE: u64 = 1;

const EVENT_PAGEFAULT: u8 = 0x12;
const EVENT_FORK: u8 = 0x13;
const EVENT_REMAP: u8 = 0x14;
const EVENT_REMOVE: u8 = 0x15;
const EVENT_UNMAP: u8 = 0x16;
const PAGEFAULT_FLAG_WRITE: u64 = 1;

/// Bytes of a message.
const MESSAGE: usize = 32;
/// Messages of one read.
const MESSAGES: usize = 32;

/// What a descriptor is to tell and to be able to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features(u64);

impl Features {
    /// Everything that paging an unmodified program needs: events of `fork`, `mremap`, `madvise`, `munmap`; which thread faults; moving.
    pub const PAGER: Self = Self(1 << 1 | 1 << 2 | 1 << 3 | 1 << 6 | 1 << 8 | 1 << 16);
    /// Nothing but faults.
    pub const NONE: Self = Self(0);
}

impl BitOr for Features {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Whether threads that wait for a page are woken when it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// They are.
    Yes,
    /// [`Userfaultfd::wake`] comes later.
    No,
}

/// A range was filled in part, or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partial {
    /// Bytes from its start that are filled.
    pub done_bytes: usize,
    /// Why the next page is not. `AGAIN`: the address space is changing, and an event about it is to be read; `EXIST`: a page is there;
    /// `NOENT`: nothing is registered there; `SRCH`: the address space has gone.
    pub errno: Errno,
}

/// What has happened in the address space.
#[derive(Debug)]
pub enum Event {
    /// A thread waits for a page.
    Fault {
        /// In the page.
        address: u64,
        /// Whether it wants to write.
        write: bool,
        /// Who.
        thread: u32,
    },
    /// It was copied by `fork`; the descriptor is the child's.
    Fork(Userfaultfd),
    /// Mappings were moved.
    Remap {
        /// Where they were.
        from: u64,
        /// Where they are.
        to: u64,
        /// Their old length.
        bytes: u64,
    },
    /// The contents of a range are about to be discarded.
    Remove(Range<u64>),
    /// A range is not mapped any more.
    Unmap(Range<u64>),
}

/// A userfaultfd.
#[derive(Debug)]
pub struct Userfaultfd(OwnedFd);

#[repr(C)]
#[derive(Default)]
struct ApiArg {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
#[derive(Default)]
struct RangeArg {
    start: u64,
    len: u64,
}

#[repr(C)]
#[derive(Default)]
struct RegisterArg {
    range: RangeArg,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
#[derive(Default)]
struct CopyArg {
    dst: u64,
    src: u64,
    len: u64,
    mode: u64,
    copy: i64,
}

#[repr(C)]
#[derive(Default)]
struct ZeroArg {
    range: RangeArg,
    mode: u64,
    zeroed: i64,
}

impl Userfaultfd {
    /// The descriptor of some address space, made there.
    #[must_use]
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// One for this process: by the device, or else by the system call.
    ///
    /// # Errors
    /// `PERM` when neither is allowed.
    pub fn new() -> Result<Self, Errno> {
        use rustix::fs::{Mode, OFlags};
        let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
        let raw = match rustix::fs::open("/dev/userfaultfd", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
            // SAFETY: the request takes the flags themselves, no pointer.
            Ok(device) => unsafe { libc::ioctl(device.as_raw_fd(), USERFAULTFD_IOC_NEW, flags) },
            // SAFETY: the system call takes flags and touches no memory.
            Err(_) => i32::try_from(unsafe { libc::syscall(libc::SYS_userfaultfd, flags) }).unwrap_or(-1),
        };
        if raw < 0 {
            return Err(last_errno());
        }
        // SAFETY: the kernel has just given us this descriptor.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(raw) }))
    }

    /// Turns a fresh one on.
    ///
    /// # Errors
    /// `INVAL`: the kernel lacks a feature (the youngest, moving, came with Linux 6.8). `PERM`: to be told of forks wants
    /// `CAP_SYS_PTRACE`.
    pub fn enable(&self, wanted: Features) -> Result<(), Errno> {
        let mut arg = ApiArg { api: API, features: wanted.0, ioctls: 0 };
        self.ioctl(UFFDIO_API, &mut arg)
    }

    /// Has faults on missing pages of a range told here.
    ///
    /// # Errors
    /// `BUSY`: another descriptor is told of them. `INVAL`: not memory of a kind that can be. `NOMEM`: the address space has gone, or has
    /// too many mappings.
    pub fn register(&self, range: Range<u64>) -> Result<(), Errno> {
        let mut arg = RegisterArg { range: range_arg(&range), mode: REGISTER_MODE_MISSING, ioctls: 0 };
        self.ioctl(UFFDIO_REGISTER, &mut arg)
    }

    /// Has them told no more; whoever waits is woken.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn unregister(&self, range: Range<u64>) -> Result<(), Errno> {
        self.ioctl(UFFDIO_UNREGISTER, &mut range_arg(&range))
    }

    /// Fills missing pages from `to` on with copies of `pages`. For registered memory of another process, or of this one as long as
    /// nobody holds a reference into it: it changes from untouched to filled.
    ///
    /// # Errors
    /// [`Partial`].
    pub fn copy(&self, to: u64, pages: &[u8], wake: Wake) -> Result<(), Partial> {
        let mut done = 0;
        while done < pages.len() {
            let rest = &pages[done..];
            let (src, len) = (rest.as_ptr().addr() as u64, rest.len() as u64);
            let mut arg = CopyArg { dst: to + done as u64, src, len, mode: mode(wake), copy: 0 };
            // SAFETY: UFFDIO_COPY reads `len` bytes at `src`, which `rest` borrows, and writes the struct.
            let result = unsafe { self.ioctl_raw(UFFDIO_COPY, &raw mut arg) };
            done += advance(result, arg.copy).map_err(|errno| Partial { done_bytes: done, errno })?;
        }
        Ok(())
    }

    /// Fills the missing pages of a range with the kernel's page of zeros.
    ///
    /// # Errors
    /// [`Partial`].
    pub fn zero(&self, range: Range<u64>, wake: Wake) -> Result<(), Partial> {
        let mut start = range.start;
        while start < range.end {
            let mut arg = ZeroArg { range: range_arg(&(start..range.end)), mode: mode(wake), zeroed: 0 };
            let result = self.ioctl(UFFDIO_ZEROPAGE, &mut arg);
            let done_bytes = usize::try_from(start - range.start).unwrap_or(usize::MAX);
            start += advance(result, arg.zeroed).map_err(|errno| Partial { done_bytes, errno })? as u64;
        }
        Ok(())
    }

    /// Wakes whoever waits for a page of the range: they look again.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn wake(&self, range: Range<u64>) -> Result<(), Errno> {
        self.ioctl(UFFDIO_WAKE, &mut range_arg(&range))
    }

    /// Adds all messages that are there. The descriptor must not block (`O_NONBLOCK`).
    ///
    /// # Errors
    /// As the kernel says, but for there being no more.
    pub fn read_events(&self, into: &mut Vec<Event>) -> Result<(), Errno> {
        let mut bytes = [0; MESSAGE * MESSAGES];
        loop {
            let len = match rustix::io::read(&self.0, &mut bytes) {
                Ok(len) => len,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno),
            };
            into.extend(bytes[..len].as_chunks::<MESSAGE>().0.iter().filter_map(event));
            if len < bytes.len() {
                return Ok(());
            }
        }
    }

    fn ioctl<T>(&self, request: libc::c_ulong, arg: &mut T) -> Result<(), Errno> {
        // SAFETY: all requests but UFFDIO_COPY, which does not come this way, access nothing but their struct.
        unsafe { self.ioctl_raw(request, arg) }
    }

    /// # Safety
    /// `arg` is what the request wants, and so is what it points to.
    unsafe fn ioctl_raw<T>(&self, request: libc::c_ulong, arg: *mut T) -> Result<(), Errno> {
        // SAFETY: the caller's contract.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), request, arg) };
        if result < 0 { Err(last_errno()) } else { Ok(()) }
    }
}

impl AsFd for Userfaultfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn mode(wake: Wake) -> u64 {
    if wake == Wake::No { MODE_DONTWAKE } else { 0 }
}

/// Bytes by which a request that may end early has come forward. The kernel says so in the struct, or a negative error.
fn advance(result: Result<(), Errno>, field: i64) -> Result<usize, Errno> {
    match (result, usize::try_from(field)) {
        (_, Ok(done)) if done > 0 => Ok(done),
        (Err(Errno::AGAIN), Err(_)) => {
            let code = i32::try_from(-field).unwrap_or(Errno::AGAIN.raw_os_error());
            Err(Errno::from_raw_os_error(code))
        }
        (Err(errno), _) => Err(errno),
        (Ok(()), _) => Err(Errno::INVAL),
    }
}

fn range_arg(range: &Range<u64>) -> RangeArg {
    RangeArg { start: range.start, len: range.end - range.start }
}

fn event(message: &[u8; MESSAGE]) -> Option<Event> {
    let word = |at: usize| u64::from_le_bytes(core::array::from_fn(|byte| message[at + byte]));
    let half = |at: usize| u32::from_le_bytes(core::array::from_fn(|byte| message[at + byte]));
    Some(match message[0] {
        EVENT_PAGEFAULT => {
            Event::Fault { write: word(8) & PAGEFAULT_FLAG_WRITE != 0, address: word(16), thread: half(24) }
        }
        // SAFETY: with this message the kernel has given us the descriptor, and a message is read once.
        EVENT_FORK => Event::Fork(Userfaultfd(unsafe { OwnedFd::from_raw_fd(half(8).cast_signed()) })),
        EVENT_REMAP => Event::Remap { from: word(8), to: word(16), bytes: word(24) },
        EVENT_REMOVE => Event::Remove(word(8)..word(16)),
        EVENT_UNMAP => Event::Unmap(word(8)..word(16)),
        _ => return None,
    })
}

pub(crate) fn last_errno() -> Errno {
    std::io::Error::last_os_error().raw_os_error().map_or(Errno::INVAL, Errno::from_raw_os_error)
}
