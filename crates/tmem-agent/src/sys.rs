//! The system calls of the agent, raw: no libc, no errno, no thread-local storage. x86-64 Linux.
//!
//! A negative result is an error number, negated.

use core::arch::asm;
use core::sync::atomic::AtomicU32;

pub(crate) const EAGAIN: isize = -11;
pub(crate) const EBUSY: isize = -16;
pub(crate) const ENOENT: isize = -2;
pub(crate) const EINVAL: isize = -22;
pub(crate) const EEXIST: isize = -17;
pub(crate) const EINTR: isize = -4;
#[cfg(feature = "fault-injection")]
pub(crate) const ENOMEM: isize = -12;
#[cfg(feature = "fault-injection")]
pub(crate) const EFAULT: isize = -14;

pub(crate) const PROT_NONE: usize = 0;
pub(crate) const PROT_READ: usize = 1;
pub(crate) const PROT_RW: usize = 3;
pub(crate) const MAP_SHARED: usize = 1;
pub(crate) const MAP_FIXED: usize = 0x10;
/// Private, anonymous, not reserved.
pub(crate) const MAP_MEMORY: usize = 0x2 | 0x20 | 0x4000;
pub(crate) const MADV_DONTNEED: usize = 4;
pub(crate) const MADV_DONTFORK: usize = 10;
pub(crate) const MADV_HUGEPAGE: usize = 14;
pub(crate) const MADV_DONTDUMP: usize = 16;
pub(crate) const MADV_POPULATE_WRITE: usize = 23;
pub(crate) const MADV_WIPEONFORK: usize = 18;

const MMAP: usize = 9;
const MPROTECT: usize = 10;
const RT_SIGPROCMASK: usize = 14;
const MUNLOCK: usize = 150;
const IOCTL: usize = 16;
const MADVISE: usize = 28;
const CLOSE: usize = 3;
const GETPID: usize = 39;
const SOCKET: usize = 41;
const CONNECT: usize = 42;
const SENDMSG: usize = 46;
const RECVMSG: usize = 47;
const CLONE: usize = 56;
const EXIT_GROUP: usize = 231;
const WAIT4: usize = 61;
const KILL: usize = 62;
const GETPPID: usize = 110;
const SETSID: usize = 112;
const PRCTL: usize = 157;
const FUTEX: usize = 202;
const USERFAULTFD: usize = 323;
const CLOSE_RANGE: usize = 436;

/// Makes a system call.
///
/// # Safety
/// The arguments are what the call wants; what it writes to is not referred to otherwise.
unsafe fn call(number: usize, args: [usize; 6]) -> isize {
    let result: isize;
    // SAFETY: the kernel's calling convention: it changes rax, rcx, r11 and what the call itself writes to.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") args[0],
            in("rsi") args[1],
            in("rdx") args[2],
            in("r10") args[3],
            in("r8") args[4],
            in("r9") args[5],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// Makes a call that changes no memory of which Rust knows.
fn simple(number: usize, args: [usize; 6]) -> isize {
    // SAFETY: the callers below pass numbers, addresses that are not Rust's, and names, which are read and never change.
    unsafe { call(number, args) }
}

pub(crate) fn socket() -> isize {
    const AF_UNIX: usize = 1;
    const SEQPACKET_CLOEXEC: usize = 5 | 0o2_000_000;
    simple(SOCKET, [AF_UNIX, SEQPACKET_CLOEXEC, 0, 0, 0, 0])
}

pub(crate) fn connect(fd: i32, address: &[u8]) -> isize {
    // SAFETY: the call reads the address, which the slice borrows.
    unsafe { call(CONNECT, [fd.cast_unsigned() as usize, address.as_ptr().addr(), address.len(), 0, 0, 0]) }
}

/// `struct msghdr`.
#[repr(C)]
pub(crate) struct Message {
    name: usize,
    name_len: u64,
    parts: *const Part,
    part_count: usize,
    control: *mut u8,
    control_len: usize,
    flags: u64,
}

impl Message {
    /// One part, and `control_len` bytes of descriptors beside it.
    pub(crate) fn new(part: *const Part, control: *mut u8, control_len: usize) -> Self {
        Self { name: 0, name_len: 0, parts: part, part_count: 1, control, control_len, flags: 0 }
    }
}

/// `struct iovec`.
#[repr(C)]
pub(crate) struct Part {
    pub(crate) base: *mut u8,
    pub(crate) len: usize,
}

/// # Safety
/// What the message points to may be read.
pub(crate) unsafe fn sendmsg(fd: i32, message: &Message) -> isize {
    const NOSIGNAL: usize = 0x4000;
    // SAFETY: the caller's contract.
    unsafe { call(SENDMSG, [fd.cast_unsigned() as usize, core::ptr::from_ref(message).addr(), NOSIGNAL, 0, 0, 0]) }
}

/// # Safety
/// What the message points to may be written.
pub(crate) unsafe fn recvmsg(fd: i32, message: &mut Message, flags: usize) -> isize {
    const CMSG_CLOEXEC: usize = 0x4000_0000;
    let args = [fd.cast_unsigned() as usize, core::ptr::from_mut(message).addr(), CMSG_CLOEXEC | flags, 0, 0, 0];
    // SAFETY: the caller's contract.
    unsafe { call(RECVMSG, args) }
}

/// # Safety
/// With [`MAP_FIXED`], nobody relies on what is mapped in the range.
pub(crate) unsafe fn mmap(address: u64, len: u64, prot: usize, flags: usize, fd: i32, offset: u64) -> isize {
    let fd = fd as isize as usize;
    // SAFETY: the caller's contract; a new mapping elsewhere touches nothing that exists.
    unsafe { call(MMAP, [address as usize, len as usize, prot, flags, fd, offset as usize]) }
}

/// Makes a part of the agent's own memory accessible, that is, mapped with [`PROT_NONE`] so far.
pub(crate) fn protect(address: u64, len: u64, prot: usize) -> isize {
    simple(MPROTECT, [address as usize, len as usize, prot, 0, 0, 0])
}

/// What the program may have locked by `mlockall` is locked no more.
pub(crate) fn munlock(address: u64, len: u64) -> isize {
    simple(MUNLOCK, [address as usize, len as usize, 0, 0, 0, 0])
}

/// For advice that changes no contents but those of the agent's own memory.
pub(crate) fn madvise(address: u64, len: u64, advice: usize) -> isize {
    simple(MADVISE, [address as usize, len as usize, advice, 0, 0, 0])
}

/// Shows in `/proc/PID/maps`; `name` ends with a 0.
pub(crate) fn name_memory(address: u64, len: u64, name: &'static [u8]) {
    const PR_SET_VMA: usize = 0x5356_4d41;
    simple(PRCTL, [PR_SET_VMA, 0, address as usize, len as usize, name.as_ptr().addr(), 0]);
}

pub(crate) fn name_process(name: &'static [u8]) {
    const PR_SET_NAME: usize = 15;
    simple(PRCTL, [PR_SET_NAME, name.as_ptr().addr(), 0, 0, 0, 0]);
}

/// # Safety
/// `arg` is what the request wants.
pub(crate) unsafe fn ioctl<T>(fd: i32, request: usize, arg: *mut T) -> isize {
    // SAFETY: the caller's contract.
    unsafe { call(IOCTL, [fd.cast_unsigned() as usize, request, arg.addr(), 0, 0, 0]) }
}

/// A userfaultfd by the device.
pub(crate) fn userfaultfd_of_device(device: i32) -> isize {
    const USERFAULTFD_IOC_NEW: usize = 0xAA00;
    simple(IOCTL, [device.cast_unsigned() as usize, USERFAULTFD_IOC_NEW, UFFD_FLAGS, 0, 0, 0])
}

/// A userfaultfd by the system call.
pub(crate) fn userfaultfd() -> isize {
    simple(USERFAULTFD, [UFFD_FLAGS, 0, 0, 0, 0, 0])
}

/// Close on exec, do not block; of all faults, those of the kernel among them.
const UFFD_FLAGS: usize = 0o2_000_000 | 0o4000;

pub(crate) fn close(fd: i32) {
    simple(CLOSE, [fd.cast_unsigned() as usize, 0, 0, 0, 0, 0]);
}

pub(crate) fn close_range(first: u32, last: u32) {
    if first <= last {
        simple(CLOSE_RANGE, [first as usize, last as usize, 0, 0, 0, 0]);
    }
}

pub(crate) fn getpid() -> i32 {
    simple(GETPID, [0; 6]) as i32
}

pub(crate) fn getppid() -> i32 {
    simple(GETPPID, [0; 6]) as i32
}

pub(crate) fn setsid() {
    simple(SETSID, [0; 6]);
}

pub(crate) fn kill(pid: i32) {
    const SIGKILL: usize = 9;
    simple(KILL, [pid as isize as usize, SIGKILL, 0, 0, 0, 0]);
}

/// Whether a child has died, which takes note of it: it is asked once after that. Children that signal nobody are meant.
pub(crate) fn has_died(child: i32) -> bool {
    const NOHANG_ALL: usize = 1 | 0x4000_0000;
    simple(WAIT4, [child as isize as usize, 0, NOHANG_ALL, 0, 0, 0]) == child as isize
}

pub(crate) fn exit() -> ! {
    loop {
        simple(EXIT_GROUP, [0; 6]);
    }
}

/// Blocks all signals, or sets the mask that it returned before. Returns the old one.
pub(crate) fn set_signal_mask(mask: u64) -> u64 {
    const SIG_SETMASK: usize = 2;
    let mut old = 0_u64;
    let args = [SIG_SETMASK, (&raw const mask).addr(), (&raw mut old).addr(), size_of::<u64>(), 0, 0];
    // SAFETY: reads one mask, writes the other.
    unsafe { call(RT_SIGPROCMASK, args) };
    old
}

/// Sleeps while the word is `expected`, at most `milliseconds`. The futex is shared between processes.
pub(crate) fn futex_wait(word: &AtomicU32, expected: u32, milliseconds: i64) {
    let time = [milliseconds / 1000, milliseconds % 1000 * 1_000_000];
    let args = [core::ptr::from_ref(word).addr(), 0, expected as usize, time.as_ptr().addr(), 0, 0];
    // SAFETY: reads the word and the time.
    unsafe { call(FUTEX, args) };
}

pub(crate) fn futex_wake(word: &AtomicU32) {
    const WAKE: usize = 1;
    let args = [core::ptr::from_ref(word).addr(), WAKE, i32::MAX as usize, 0, 0, 0];
    // SAFETY: the kernel uses the address as a name.
    unsafe { call(FUTEX, args) };
}

/// Starts a process that shares the address space: no thread of the program, no signal at its end. It runs
/// `body(arg)` on the stack that ends at `stack`.
///
/// # Safety
/// The stack is nobody else's, aligned to 16 bytes, and large enough; `body` touches nothing that is the calling thread's.
pub(crate) unsafe fn spawn(stack: u64, body: extern "C" fn(u64) -> !, arg: u64) -> isize {
    const CLONE_VM: usize = 0x100;
    let result: isize;
    // SAFETY: the child has a stack of its own and leaves this code by calling `body`, which does not return; the
    // parent goes on as after any system call.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") CLONE => result,
            in("rdi") CLONE_VM,
            in("rsi") stack,
            in("rdx") 0_usize,
            in("r10") 0_usize,
            in("r8") 0_usize,
            in("r12") arg,
            in("r13") body,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    result
}
