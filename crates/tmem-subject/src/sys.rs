//! System calls and raw memory.
//!
//! The memory under test is mapped by hand, named by address, and touched only through the functions below: no
//! reference of Rust ever points into it. So whatever a call does to it (unmaps it, fills it, changes its protection)
//! breaks no rule of the language; at worst a later access is a fault, which is what a test wants to see.

use std::io;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

/// Bytes of a page.
pub(crate) const PAGE: usize = 4096;
/// Words of a page.
pub(crate) const WORDS: usize = PAGE / 8;
/// Bytes of a huge page.
pub(crate) const HUGE: usize = 2 << 20;
/// The contents of a page.
pub(crate) type Page = [u64; WORDS];

/// Exit status: right to the last byte.
pub(crate) const OK: i32 = 0;
/// Exit status: cannot be tried here.
pub(crate) const SKIPPED: i32 = 77;
/// Exit status: something that must happen did not (a join, a wake-up, an error number).
pub(crate) const FAILED: i32 = 96;
/// Exit status: the memory was not taken away, so nothing was tested.
pub(crate) const NOT_EVICTED: i32 = 98;
/// Exit status: a wrong byte.
pub(crate) const WRONG: i32 = 99;

/// Any system call, by its number.
pub(crate) fn call(number: libc::c_long, args: &[usize]) -> io::Result<usize> {
    let mut all = [0; 6];
    all[..args.len()].copy_from_slice(args);
    let [a, b, c, d, e, f] = all;
    // SAFETY: see the module's head; calls that end or double this thread are made through the functions below.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as usize) }
}

/// Fails with what the C library returns as a number.
pub(crate) fn demand_zero(number: i32, what: &str) {
    if number != 0 {
        fail(&format!("{what}: {}", io::Error::from_raw_os_error(number)));
    }
}

/// The value, or the end of the program with what went wrong.
pub(crate) fn demand<T>(result: io::Result<T>, what: &str) -> T {
    result.unwrap_or_else(|error| fail(&format!("{what}: {error}")))
}

/// Ends the process: something that must happen did not.
pub(crate) fn fail(what: &str) -> ! {
    eprintln!("tmem-subject {}: {what}", std::process::id());
    exit(FAILED)
}

/// Ends the process: this machine cannot do it.
pub(crate) fn skip(why: &str) -> ! {
    println!("skipped: {why}");
    exit(SKIPPED)
}

/// Ends the process at once: no destructors, no handlers, as a forked child must.
pub(crate) fn exit(status: i32) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(status) }
}

/// New private memory; `flags` beside `MAP_PRIVATE | MAP_ANONYMOUS`.
pub(crate) fn map(bytes: usize, protection: i32, flags: i32) -> usize {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags;
    demand(map_at(0, bytes, protection, flags, usize::MAX), "mmap")
}

/// mmap.
pub(crate) fn map_at(at: usize, bytes: usize, protection: i32, flags: i32, fd: usize) -> io::Result<usize> {
    call(libc::SYS_mmap, &[at, bytes, protection as usize, flags as usize, fd, 0])
}

/// munmap.
pub(crate) fn unmap(at: usize, bytes: usize) {
    demand(call(libc::SYS_munmap, &[at, bytes]), "munmap");
}

/// mremap; `to` counts with `MREMAP_FIXED`.
pub(crate) fn remap(at: usize, old: usize, new: usize, flags: i32, to: usize) -> io::Result<usize> {
    call(libc::SYS_mremap, &[at, old, new, flags as usize, to])
}

/// mprotect.
pub(crate) fn protect(at: usize, bytes: usize, protection: i32) {
    demand(call(libc::SYS_mprotect, &[at, bytes, protection as usize]), "mprotect");
}

/// madvise.
pub(crate) fn advise(at: usize, bytes: usize, advice: i32) -> io::Result<usize> {
    call(libc::SYS_madvise, &[at, bytes, advice as usize])
}

/// madvise(MADV_DONTNEED), which must work.
pub(crate) fn discard(at: usize, bytes: usize) {
    demand(advise(at, bytes, libc::MADV_DONTNEED), "madvise(MADV_DONTNEED)");
}

/// Readable and writable.
pub(crate) const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// A word of the memory under test.
pub(crate) fn peek(at: usize) -> u64 {
    // SAFETY: see the module's head; every caller names an aligned word of memory it mapped.
    unsafe { std::ptr::read_volatile(at as *const u64) }
}

/// Writes a word of the memory under test.
pub(crate) fn poke(at: usize, word: u64) {
    // SAFETY: as for `peek`.
    unsafe { std::ptr::write_volatile(at as *mut u64, word) }
}

/// A page of the memory under test.
pub(crate) fn peek_page(at: usize) -> Page {
    let mut page = [0; WORDS];
    // SAFETY: as for `peek`, for a whole page; the other side is a page of our own.
    unsafe { std::ptr::copy_nonoverlapping(at as *const u64, page.as_mut_ptr(), WORDS) };
    page
}

/// Writes a page of the memory under test.
pub(crate) fn poke_page(at: usize, page: &Page) {
    // SAFETY: as for `peek_page`.
    unsafe { std::ptr::copy_nonoverlapping(page.as_ptr(), at as *mut u64, WORDS) }
}

/// Writes bytes to the memory under test.
pub(crate) fn poke_bytes(at: usize, bytes: &[u8]) {
    // SAFETY: as for `peek`; bytes have no alignment.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), at as *mut u8, bytes.len()) }
}

/// A half word of the memory under test that threads and the kernel share: a futex.
pub(crate) fn atomic32(at: usize) -> &'static AtomicU32 {
    // SAFETY: the callers' words are aligned, and mapped to the end.
    unsafe { AtomicU32::from_ptr(at as *mut u32) }
}

/// This thread's id.
pub(crate) fn thread_id() -> usize {
    demand(call(libc::SYS_gettid, &[]), "gettid")
}

/// Waits a moment between two looks at something that another process does.
pub(crate) fn pause() {
    std::thread::sleep(Duration::from_millis(2));
}

/// Installs a signal handler.
pub(crate) fn handle(signal: i32, handler: extern "C" fn(i32), flags: i32) {
    // SAFETY: all zeros is a valid sigaction.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as *const () as usize;
    action.sa_flags = flags;
    // SAFETY: the handlers of this program only touch atomics and memory under test.
    let result = unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
    demand_zero(result, "sigaction");
}
