//! Surviving memory that another process can take away.
//!
//! A memfd that cannot shrink can still fault for ever: a huge page that its owner has punched out and of which there is
//! no other, a full tmpfs or memory group, a page with an error of the hardware. The kernel then sends SIGBUS, which by
//! default ends the process: one client's doing would be the end of all. A [`Guard`] over a range makes such a fault
//! the end of that range only: the handler replaces *all of it* by private zero memory, so that no later access can
//! fault, marks it as lost, and the interrupted instruction runs again.
//!
//! A system call that is given a guarded range is not a fault of this kind: it fails with `FAULT`, and nothing is lost.
//!
//! # The table
//! A list of slots, pushed at its head and never freed; slots of dropped guards are used again. The handler walks it
//! without a lock. A slot's range is one word, so that no torn range is ever seen:
//!
//! | word | meaning |
//! |---|---|
//! | 0 | the slot is free |
//! | first page (36 bits), pages - 1 (28 bits) | a guarded range; page 0 is never mapped |
//!
//! The handler runs in the thread that faults. That thread holds a reference to what it accesses, so *its* range is
//! neither dropped nor registered meanwhile, and no other live range contains the address; what becomes of other slots
//! during the walk does not matter.
//!
//! # The handler
//! It is installed when the first guard is made, and stays. A SIGBUS that is no fault of a guarded range goes to the
//! handler that was there before; one that is installed later has to do the same for ours. A thread that touches guarded
//! memory must not block SIGBUS: the kernel would end the process.

use crate::PAGE_BYTES;
use core::ffi::{c_int, c_void};
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
use std::sync::{Mutex, Once, PoisonError};

/// Bits of a range's length; the others are those of its first page.
const LENGTH_BITS: u32 = 28;
/// Bytes of the longest range: a tebibyte.
pub(crate) const LONGEST_BYTES: usize = PAGE_BYTES << LENGTH_BITS;
/// Addresses that the kernel gives without being asked for more end here.
const ADDRESSES: usize = 1 << 48;
const _: () = assert!((ADDRESSES / PAGE_BYTES).trailing_zeros() + LENGTH_BITS <= u64::BITS);

/// Keeps faults of a range from ending the process.
#[derive(Debug)]
pub(crate) struct Guard(&'static Slot);

#[derive(Debug)]
struct Slot {
    range: AtomicU64,
    lost: AtomicBool,
    /// Written before the slot is in the list, and never again.
    next: *const Slot,
}

// SAFETY: `next` is not written once others can see the slot, and points to a slot that lives for ever; the rest is
// atomics.
unsafe impl Sync for Slot {}
// SAFETY: as above.
unsafe impl Send for Slot {}

/// The slot made last.
static SLOTS: AtomicPtr<Slot> = AtomicPtr::new(null_mut());
/// Slots that no guard has. Its lock is also held to push to the list.
static FREE: Mutex<Vec<&'static Slot>> = Mutex::new(Vec::new());
static INSTALLED: Once = Once::new();
/// What was there before our handler.
static PREVIOUS: AtomicPtr<libc::sigaction> = AtomicPtr::new(null_mut());

impl Guard {
    /// Guards `bytes` at `start`: whole pages, at most [`LONGEST_BYTES`].
    ///
    /// # Safety
    /// The range is a mapping of the caller's, and stays so until this is dropped. Any access to it that faults may find
    /// all of it zero. Nobody accesses it while this is dropped.
    pub(crate) unsafe fn new(start: NonNull<u8>, bytes: usize) -> Self {
        INSTALLED.call_once(install);
        let range = packed(start.as_ptr().addr(), bytes);
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = free.pop().unwrap_or_else(push);
        // Relaxed: both reach whoever accesses the range as the range itself does, and matter to nobody else.
        slot.lost.store(false, Relaxed);
        slot.range.store(range, Relaxed); // as above
        Self(slot)
    }

    pub(crate) fn is_lost(&self) -> bool {
        // Pairs with the store in `make_zeros`: whoever has read its zeros sees it.
        self.0.lost.load(Acquire)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Relaxed: nobody accesses the range any more, so no walk looks for it; and whoever registers these addresses
        // anew takes the lock below after us.
        self.0.range.store(0, Relaxed);
        FREE.lock().unwrap_or_else(PoisonError::into_inner).push(self.0);
    }
}

/// A new slot, in the list. The lock of [`FREE`] is held.
fn push() -> &'static Slot {
    // Relaxed: all pushes are ordered by the lock.
    let next = SLOTS.load(Relaxed);
    let slot = Box::leak(Box::new(Slot { range: AtomicU64::new(0), lost: AtomicBool::new(false), next }));
    // Pairs with the load in `find`: publishes `next`.
    SLOTS.store(slot, Release);
    slot
}

fn packed(start: usize, bytes: usize) -> u64 {
    let whole = start.is_multiple_of(PAGE_BYTES) && bytes.is_multiple_of(PAGE_BYTES);
    assert!(whole && bytes > 0 && bytes <= LONGEST_BYTES, "{bytes} bytes at {start:#x}: whole pages, at most 1 TiB");
    assert!((PAGE_BYTES..ADDRESSES).contains(&start), "{start:#x} is an address that was asked for");
    ((start / PAGE_BYTES) as u64) << LENGTH_BITS | (bytes / PAGE_BYTES - 1) as u64
}

/// First address and length in bytes.
fn unpacked(range: u64) -> (u64, u64) {
    let page = PAGE_BYTES as u64;
    ((range >> LENGTH_BITS) * page, ((range & ((1 << LENGTH_BITS) - 1)) + 1) * page)
}

/// The slot of the guarded range that `address` is in, and that range. Async-signal-safe.
fn find(address: u64) -> Option<(&'static Slot, u64)> {
    // Pairs with the store in `push`.
    let mut at = SLOTS.load(Acquire).cast_const();
    // SAFETY: null, or a slot, which lives for ever.
    while let Some(slot) = unsafe { at.as_ref() } {
        // Relaxed: the range of the address was registered before this thread could access it; others do not matter.
        let range = slot.range.load(Relaxed);
        let (start, bytes) = unpacked(range);
        if range != 0 && (start..start + bytes).contains(&address) {
            return Some((slot, range));
        }
        at = slot.next;
    }
    None
}

/// Makes the range of a slot zeros that cannot fault. Async-signal-safe, leaves errno alone. Threads that fault in it at
/// once all do so: to make zeros of zeros again is harmless.
fn make_zeros(slot: &Slot, range: u64) -> bool {
    let (start, bytes) = unpacked(range);
    let (Ok(start), Ok(bytes)) = (usize::try_from(start), usize::try_from(bytes)) else {
        return false;
    };
    // Before there are zeros to be read; pairs with the load in `is_lost`.
    slot.lost.store(true, Release);
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
    let prot = ProtFlags::READ | ProtFlags::WRITE;
    let at = core::ptr::without_provenance_mut(start);
    // SAFETY: `Guard::new`'s contract: the range is a mapping of whoever made the guard, who expects zeros. It is still
    // mapped: the thread that this has interrupted is accessing it.
    unsafe { mmap_anonymous(at, bytes, prot, flags) }.is_ok()
}

fn install() {
    // SAFETY: all zeros is a sigaction: no flags, an empty mask, the default action.
    let mut previous: libc::sigaction = unsafe { core::mem::zeroed() };
    // SAFETY: writes to `previous` only.
    let asked = unsafe { libc::sigaction(libc::SIGBUS, core::ptr::null(), &raw mut previous) };
    assert_eq!(asked, 0, "SIGBUS is a signal");
    // Before the handler can run, which needs it. Pairs with the load in `pass_on`.
    PREVIOUS.store(Box::leak(Box::new(previous)), Release);
    // SAFETY: as above.
    let mut ours: libc::sigaction = unsafe { core::mem::zeroed() };
    let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = on_sigbus;
    ours.sa_sigaction = handler as usize;
    ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
    // SAFETY: the handler is of the kind that SA_SIGINFO says, and async-signal-safe: it makes system calls, reads and
    // writes atomics, and takes no lock.
    let set = unsafe { libc::sigaction(libc::SIGBUS, &raw const ours, null_mut()) };
    assert_eq!(set, 0, "SIGBUS may be handled");
}

extern "C" fn on_sigbus(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel's, for as long as this runs.
    let told = unsafe { &*info };
    // SAFETY: called for the codes of faults below, which have an address.
    let guarded = || find(unsafe { told.si_addr() }.addr() as u64);
    let done = match told.si_code {
        libc::BUS_ADRERR | libc::BUS_MCEERR_AR => guarded().is_some_and(|(slot, range)| make_zeros(slot, range)),
        // A broken page that nobody has touched yet; to touch it is a fault of the kind above.
        libc::BUS_MCEERR_AO => guarded().is_some(),
        // Misaligned, or sent by a process: nothing of ours.
        _ => false,
    };
    if !done {
        pass_on(signal, info, context);
    }
}

/// What would have become of the signal without us.
fn pass_on(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // Pairs with the store in `install`.
    let previous = PREVIOUS.load(Acquire);
    // SAFETY: set before the handler was installed, and never freed.
    let previous = unsafe { &*previous };
    // SAFETY: the kernel's, for as long as this runs.
    let is_fault = unsafe { (*info).si_code } > 0;
    match previous.sa_sigaction {
        libc::SIG_IGN if !is_fault => {}
        // The kernel does not let faults be ignored.
        libc::SIG_DFL | libc::SIG_IGN => {
            // SAFETY: all zeros is the default action.
            let default: libc::sigaction = unsafe { core::mem::zeroed() };
            // SAFETY: takes a handler away.
            unsafe { libc::sigaction(signal, &raw const default, null_mut()) };
            // A fault recurs by itself, and would end the process as well. The signal is blocked until we return.
            // SAFETY: takes no pointers.
            unsafe { libc::raise(signal) };
        }
        handler if previous.sa_flags & libc::SA_SIGINFO != 0 => {
            type Handler = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);
            // SAFETY: the kernel would have called it as this type, says the flag.
            let handler = unsafe { core::mem::transmute::<usize, Handler>(handler) };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: the kernel would have called it as this type, since the flag is not set.
            let handler = unsafe { core::mem::transmute::<usize, extern "C" fn(c_int)>(handler) };
            handler(signal);
        }
    }
}
