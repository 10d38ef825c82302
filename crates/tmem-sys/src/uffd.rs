//! Page faults of another address space, served here.
//!
//! A [`Userfaultfd`] belongs to the address space that made it, whoever holds the descriptor. Ranges of private
//! anonymous memory are *registered* with it. A thread that touches a missing page of one sleeps until the holder
//! fills the page ([`Userfaultfd::copy`], [`Userfaultfd::zero`]) or wakes the thread to try again. Forks, moves and
//! losses of registered ranges are events; the thread that causes one sleeps until the event is read.
//!
//! Facts to hold on to (Linux 6.18):
//! - Nothing is awakened by an error: after `EXIST` (the page is there) the waiter sleeps on until
//!   [`Userfaultfd::wake`].
//! - `AGAIN` without progress: an event is queued, or was read and the thread that caused it has not run since. Read
//!   events, then try again.
//! - `NOENT`: the range is not wholly in one registered mapping. A run of pages that crosses into the next mapping
//!   gets this too, so one page at a time has to be tried before the mapping is called gone. `SRCH`: the address
//!   space is gone.
//! - The last close of a descriptor with ranges registered lets missing pages read as zeros.
//!
//! # Safety
//! These faces are safe to call for another address space. For our own they are as safe as what is registered: a missing
//! page is filled with bytes of the caller's choice, so memory that is registered must be memory that nobody believes to
//! hold something (zeros, say) before its faults are answered through this descriptor.

use crate::PAGE_BYTES;
use crate::injection::{self, Call};
use core::ops::{BitOr, Range};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::ioctl::{self, Ioctl, IoctlOutput, Opcode, Setter, Updater, opcode};
use rustix::mm::UserfaultfdFlags;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

/// The kernel's name for this interface, version included.
const API: u64 = 0xaa;
/// Group of all its ioctls.
const GROUP: u8 = 0xaa;

const IOC_NEW: Opcode = opcode::none(GROUP, 0x00);
const IOC_REGISTER: Opcode = opcode::read_write::<RawRegister>(GROUP, 0x00);
const IOC_UNREGISTER: Opcode = opcode::read::<RawRange>(GROUP, 0x01);
const IOC_WAKE: Opcode = opcode::read::<RawRange>(GROUP, 0x02);
const IOC_COPY: Opcode = opcode::read_write::<RawCopy>(GROUP, 0x03);
const IOC_ZERO: Opcode = opcode::read_write::<RawZero>(GROUP, 0x04);
const IOC_CONTINUE: Opcode = opcode::read_write::<RawZero>(GROUP, 0x07);
const IOC_POISON: Opcode = opcode::read_write::<RawZero>(GROUP, 0x08);
const IOC_API: Opcode = opcode::read_write::<RawApi>(GROUP, 0x3f);

const REGISTER_MISSING: u64 = 1;
/// Same bit for copy and zero.
const MODE_DONT_WAKE: u64 = 1;

const EVENT_PAGEFAULT: u64 = 0x12;
const EVENT_FORK: u64 = 0x13;
const EVENT_REMAP: u64 = 0x14;
const EVENT_REMOVE: u64 = 0x15;
const EVENT_UNMAP: u64 = 0x16;
const FAULT_WRITE: u64 = 1;

/// Messages of one read: 2 KiB on the stack.
const MESSAGES: usize = 64;
/// A message is four words: the event in the first byte, then up to three numbers.
const MESSAGE_BYTES: usize = 32;

#[repr(C)]
struct RawApi {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct RawRange {
    start: u64,
    bytes: u64,
}

#[repr(C)]
struct RawRegister {
    range: RawRange,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
struct RawCopy {
    to: u64,
    from: u64,
    bytes: u64,
    mode: u64,
    done: i64,
}

#[repr(C)]
struct RawZero {
    range: RawRange,
    mode: u64,
    done: i64,
}

impl From<Range<u64>> for RawRange {
    /// A range that ends before it starts becomes empty, which the kernel refuses (`INVAL`).
    fn from(range: Range<u64>) -> Self {
        Self { start: range.start, bytes: range.end.saturating_sub(range.start) }
    }
}

/// What a userfaultfd can do: a set of the kernel's feature bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Features(u64);

impl Features {
    /// None.
    pub const NONE: Self = Self(0);
    /// A child made by fork keeps the registration and sends a descriptor of its own. Wants `CAP_SYS_PTRACE`.
    pub const EVENT_FORK: Self = Self(1 << 1);
    /// `mremap` is told.
    pub const EVENT_REMAP: Self = Self(1 << 2);
    /// `madvise` that discards pages is told.
    pub const EVENT_REMOVE: Self = Self(1 << 3);
    /// Shared memory can be registered.
    pub const MISSING_SHMEM: Self = Self(1 << 5);
    /// `munmap`, and what maps over a range, is told.
    pub const EVENT_UNMAP: Self = Self(1 << 6);
    /// A fault says which thread it is of.
    pub const THREAD_ID: Self = Self(1 << 8);
    /// Pages can be moved within the address space (Linux 6.8).
    pub const MOVE: Self = Self(1 << 16);

    /// Whether all of `others` are among these.
    #[must_use]
    pub fn contain(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// What the kernel offers to this process, asked of a descriptor made for the purpose.
    ///
    /// # Errors
    /// As [`Userfaultfd::new`].
    pub fn offered() -> Result<Self, Errno> {
        Userfaultfd::new()?.handshake(Self::NONE)
    }
}

impl BitOr for Features {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Whether those who sleep on a page are awakened when it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// They are.
    Yes,
    /// They are not: a later [`Userfaultfd::wake`] does it.
    No,
}

impl Wake {
    fn mode(self) -> u64 {
        if self == Self::Yes { 0 } else { MODE_DONT_WAKE }
    }
}

/// A range was filled in part or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("only {done_bytes} bytes were filled ({errno})")]
pub struct Partial {
    /// Bytes that were filled from the start of the range: whole pages.
    pub done_bytes: usize,
    /// Why not the page after them.
    pub errno: Errno,
}

/// Something that happened in the address space.
#[derive(Debug)]
pub enum Event {
    /// A thread sleeps on a missing page. The same access is told again when a signal interrupts the sleep.
    Fault {
        /// Address of the page.
        address: u64,
        /// Whether it was a write.
        write: bool,
        /// The thread, in the reader's pid namespace; 0 without [`Features::THREAD_ID`].
        thread: u32,
    },
    /// The address space was copied for a child; this is the child's descriptor, enabled as its parent's is.
    Fork(Userfaultfd),
    /// A range was moved. If it shrank or left its old place, [`Event::Unmap`] of that follows.
    Remap {
        /// Where it was.
        from: u64,
        /// Where it is.
        to: u64,
        /// Its length.
        bytes: u64,
    },
    /// Pages of a range are being discarded: those that are not filled after this read as zeros.
    Remove(Range<u64>),
    /// A range is no longer mapped.
    Unmap(Range<u64>),
}

/// A descriptor for the page faults of one address space.
#[derive(Debug)]
pub struct Userfaultfd(OwnedFd);

impl Userfaultfd {
    /// Takes over a descriptor that came from elsewhere. It has to be nonblocking for [`Userfaultfd::read_events`] to
    /// return; a descriptor that is no userfaultfd answers every call with an error.
    #[must_use]
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Makes one for this process, from `/dev/userfaultfd` if it may be opened, by the system call otherwise. Faults
    /// from within system calls are handled too; the descriptor is nonblocking and closed by exec.
    ///
    /// # Errors
    /// `PERM`: neither a right to open the device nor `CAP_SYS_PTRACE` nor `vm.unprivileged_userfaultfd=1`. `NOSYS`:
    /// the kernel is built without it.
    pub fn new() -> Result<Self, Errno> {
        let device = rustix::fs::open("/dev/userfaultfd", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
        if let Ok(device) = device {
            // SAFETY: opcode and argument are those of USERFAULTFD_IOC_NEW; any other file refuses the number.
            if let Ok(fd) = unsafe { ioctl::ioctl(device, NewDescriptor) } {
                return Ok(Self(fd));
            }
        }
        let flags = UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::NONBLOCK;
        // SAFETY: a fresh descriptor has no range registered; the module's head says what registering one asks for.
        unsafe { rustix::mm::userfaultfd(flags) }.map(Self)
    }

    /// Enables `wanted` and [`Features::MOVE`] on a fresh descriptor, and returns all that the kernel offers. Nothing
    /// else works before.
    ///
    /// # Errors
    /// `PERM`: [`Features::EVENT_FORK`] without `CAP_SYS_PTRACE`. `INVAL`: the kernel lacks a feature (compare
    /// [`Features::offered`]), or the descriptor is enabled already.
    pub fn enable(&self, wanted: Features) -> Result<Features, Errno> {
        let offered = self.handshake(wanted | Features::MOVE)?;
        if offered.contain(wanted | Features::MOVE) { Ok(offered) } else { Err(Errno::INVAL) }
    }

    fn handshake(&self, wanted: Features) -> Result<Features, Errno> {
        let mut raw = RawApi { api: API, features: wanted.0, ioctls: 0 };
        // SAFETY: RawApi is the kernel's struct uffdio_api, for this opcode.
        let call = unsafe { Updater::<IOC_API, _>::new(&mut raw) };
        // SAFETY: it sets up the descriptor, and writes to `raw` alone.
        unsafe { ioctl::ioctl(self, call) }?;
        Ok(Features(raw.features))
    }

    /// Registers a range (whole pages, mapped): missing pages are told from now on.
    ///
    /// # Errors
    /// `BUSY`: a part is registered with another descriptor. `INVAL`: a part is not mapped, or cannot be registered.
    /// `NOMEM`: the address space is gone, or has as many mappings as it may (`vm.max_map_count`).
    pub fn register(&self, range: Range<u64>) -> Result<(), Errno> {
        injection::refused(Call::Register)?;
        let mut raw = RawRegister { range: range.into(), mode: REGISTER_MISSING, ioctls: 0 };
        // SAFETY: RawRegister is the kernel's struct uffdio_register, for this opcode.
        let call = unsafe { Updater::<IOC_REGISTER, _>::new(&mut raw) };
        // SAFETY: what is mapped keeps its contents; the module's head says what may be registered.
        unsafe { ioctl::ioctl(self, call) }
    }

    /// Ends the registration of a range and wakes those who sleep in it: missing pages read as zeros.
    ///
    /// # Errors
    /// As [`Userfaultfd::register`].
    pub fn unregister(&self, range: Range<u64>) -> Result<(), Errno> {
        // SAFETY: RawRange is the kernel's struct uffdio_range, for this opcode.
        let call = unsafe { Setter::<IOC_UNREGISTER, _>::new(RawRange::from(range)) };
        // SAFETY: what is mapped keeps its contents, and what is missing becomes what it was before: zeros on touch.
        unsafe { ioctl::ioctl(self, call) }
    }

    /// Fills missing pages at `to` with `pages` (whole pages). A call that the kernel cut short is continued.
    ///
    /// # Errors
    /// [`Partial`]; the module's head says what each errno asks for.
    pub fn copy(&self, to: u64, pages: &[u8], wake: Wake) -> Result<(), Partial> {
        fill(Call::Copy, pages.len(), |part| {
            let from = pages[part.clone()].as_ptr().expose_provenance() as u64;
            let to = to + part.start as u64;
            let mut raw = RawCopy { to, from, bytes: part.len() as u64, mode: wake.mode(), done: 0 };
            // SAFETY: RawCopy is the kernel's struct uffdio_copy, for this opcode.
            let call = unsafe { Updater::<IOC_COPY, _>::new(&mut raw) };
            // SAFETY: `from` is readable for `bytes`; only missing pages of registered memory are written, about which
            // the module's head says the rest.
            let result = unsafe { ioctl::ioctl(self, call) };
            (result, raw.done)
        })
    }

    /// Fills missing pages of a range with zeros; a read-only zero page until written.
    ///
    /// # Errors
    /// As [`Userfaultfd::copy`].
    pub fn zero(&self, range: Range<u64>, wake: Wake) -> Result<(), Partial> {
        let total = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
        fill(Call::Zero, total, |part| {
            let part = range.start + part.start as u64..range.start + part.end as u64;
            let mut raw = RawZero { range: part.into(), mode: wake.mode(), done: 0 };
            // SAFETY: RawZero is the kernel's struct uffdio_zeropage, for this opcode.
            let call = unsafe { Updater::<IOC_ZERO, _>::new(&mut raw) };
            // SAFETY: only missing pages of registered memory are filled, and with what they held before: zeros.
            let result = unsafe { ioctl::ioctl(self, call) };
            (result, raw.done)
        })
    }

    /// Whether the address space is changing: a thread changes it, or has, and its event has not been read. Nothing can
    /// be filled or moved until then.
    #[must_use]
    pub fn is_changing(&self) -> bool {
        injection::refused(Call::Changing).is_err() || self.changes()
    }

    fn changes(&self) -> bool {
        // The kernel says so before it looks at what is asked for, and that is nothing.
        let mut raw = RawZero { range: (0..0).into(), mode: 0, done: 0 };
        // SAFETY: RawZero is the kernel's struct uffdio_zeropage, for this opcode.
        let call = unsafe { Updater::<IOC_ZERO, _>::new(&mut raw) };
        // SAFETY: an empty range is refused.
        let answer = unsafe { ioctl::ioctl(self, call) };
        answer == Err(Errno::AGAIN)
    }

    /// Whether the mapping that holds a page of private anonymous memory is registered. Changes nothing. While the address
    /// space is changing ([`Userfaultfd::is_changing`]) nobody knows, and it is not.
    #[must_use]
    pub fn is_registered(&self, page: u64) -> bool {
        // The kernel is asked for what can be had of files only. It looks first whether the mapping is registered.
        let mut raw = RawZero { range: (page..page + PAGE_BYTES as u64).into(), mode: MODE_DONT_WAKE, done: 0 };
        // SAFETY: RawZero is laid out as the kernel's struct uffdio_continue, for this opcode.
        let call = unsafe { Updater::<IOC_CONTINUE, _>::new(&mut raw) };
        // SAFETY: anonymous memory is refused, and of a registered file a page becomes mapped that is in it.
        let answer = unsafe { ioctl::ioctl(self, call) };
        answer == Err(Errno::INVAL)
    }

    /// Makes missing pages of a range ones that cannot be had: whoever touches them, or waits for them, gets `SIGBUS`, or
    /// `FAULT` from the kernel (Linux 6.6).
    ///
    /// # Errors
    /// The errno of [`Partial`], as the module's head has it.
    pub fn poison(&self, range: Range<u64>) -> Result<(), Errno> {
        let mut raw = RawZero { range: range.into(), mode: Wake::Yes.mode(), done: 0 };
        // SAFETY: RawZero is laid out as the kernel's struct uffdio_poison, for this opcode.
        let call = unsafe { Updater::<IOC_POISON, _>::new(&mut raw) };
        // SAFETY: only missing pages of registered memory are changed, from ones that nobody can read to such.
        unsafe { ioctl::ioctl(self, call) }
    }

    /// Wakes those who sleep in a range; they try again, and may fault again.
    ///
    /// # Errors
    /// `INVAL`: the range is empty or not whole pages.
    pub fn wake(&self, range: Range<u64>) -> Result<(), Errno> {
        // SAFETY: RawRange is the kernel's struct uffdio_range, for this opcode.
        let call = unsafe { Setter::<IOC_WAKE, _>::new(RawRange::from(range)) };
        // SAFETY: it touches no memory.
        unsafe { ioctl::ioctl(self, call) }
    }

    /// Appends all messages that are there, in the kernel's order: it hands out waiting faults before events, so
    /// events have to be applied first. None is not an error.
    ///
    /// # Errors
    /// `MFILE`, `NFILE`: no descriptor for a fork's; the event stays queued, and what was read before it is in `into`.
    /// `INVAL`: not enabled yet. `PROTO`: a message of unknown kind was dropped.
    pub fn read_events(&self, into: &mut Vec<Event>) -> Result<(), Errno> {
        loop {
            let mut words = [0u64; MESSAGES * MESSAGE_BYTES / 8];
            let start = words.as_mut_ptr().cast::<u8>();
            // SAFETY: the words are initialised, any bytes are valid words, and nothing else uses them meanwhile.
            let bytes = unsafe { core::slice::from_raw_parts_mut(start, MESSAGES * MESSAGE_BYTES) };
            let read = match self.read_messages(bytes) {
                Ok(0) | Err(Errno::AGAIN) => return Ok(()),
                Ok(read) => read,
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno),
            };
            let (messages, _) = words[..read / 8].as_chunks::<4>();
            let before = into.len();
            let known = messages.iter().filter_map(event).map(|event| into.push(event)).count();
            injection::repeat(Call::Message, into, before);
            if known < messages.len() {
                return Err(Errno::PROTO);
            }
            if messages.len() < MESSAGES {
                return Ok(()); // the kernel went on until there was no more
            }
        }
    }

    fn read_messages(&self, into: &mut [u8]) -> Result<usize, Errno> {
        injection::refused(Call::Read)?;
        injection::refused_if(Call::ReadOfFork, || self.changes())?;
        let messages = injection::shorter(Call::Read, into.len() / MESSAGE_BYTES);
        rustix::io::read(self, &mut into[..messages * MESSAGE_BYTES])
    }
}

/// Calls `step` with the part that is left until all is done; it returns the outcome and how many bytes the kernel says
/// it did.
fn fill(
    call: Call,
    total: usize,
    mut step: impl FnMut(Range<usize>) -> (Result<(), Errno>, i64),
) -> Result<(), Partial> {
    let mut done_bytes = 0;
    loop {
        match injection::filling(call, total - done_bytes, |bytes| step(done_bytes..done_bytes + bytes)) {
            (Ok(()), _) => return Ok(()),
            (Err(Errno::AGAIN), done) if done > 0 => {
                done_bytes += usize::try_from(done).unwrap_or(0);
                if done_bytes >= total {
                    return Ok(());
                }
            }
            (Err(errno), _) => return Err(Partial { done_bytes, errno }),
        }
    }
}

/// What a message says; `None` if its kind is unknown.
fn event(&[kind, first, second, third]: &[u64; 4]) -> Option<Event> {
    Some(match kind.to_le() & 0xff {
        EVENT_PAGEFAULT => Event::Fault { address: second, write: first & FAULT_WRITE != 0, thread: first_half(third) },
        EVENT_FORK => {
            let raw = i32::try_from(first_half(first)).ok()?;
            // SAFETY: the kernel has just made this descriptor for the reader of the message, who is us; a message is
            // read once.
            Event::Fork(Userfaultfd(unsafe { OwnedFd::from_raw_fd(raw) }))
        }
        EVENT_REMAP => Event::Remap { from: first, to: second, bytes: third },
        EVENT_REMOVE => Event::Remove(first..second),
        EVENT_UNMAP => Event::Unmap(first..second),
        _ => return None,
    })
}

/// The first four bytes of a word in memory, as a number.
#[expect(clippy::cast_possible_truncation, reason = "the other four bytes are not part of the number")]
fn first_half(word: u64) -> u32 {
    u32::from_le(word.to_le() as u32)
}

impl AsFd for Userfaultfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<Userfaultfd> for OwnedFd {
    fn from(uffd: Userfaultfd) -> Self {
        uffd.0
    }
}

/// `USERFAULTFD_IOC_NEW`: the argument is the flags, the result a descriptor.
struct NewDescriptor;

// SAFETY: the opcode takes a number, not a pointer, and returns a descriptor that is the caller's.
unsafe impl Ioctl for NewDescriptor {
    type Output = OwnedFd;

    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        IOC_NEW
    }

    fn as_ptr(&mut self) -> *mut core::ffi::c_void {
        let flags = UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::NONBLOCK;
        core::ptr::without_provenance_mut(flags.bits() as usize)
    }

    unsafe fn output_from_ptr(out: IoctlOutput, _: *mut core::ffi::c_void) -> Result<OwnedFd, Errno> {
        // SAFETY: the call succeeded, so this is a new descriptor that nobody else owns.
        Ok(unsafe { OwnedFd::from_raw_fd(out) })
    }
}
