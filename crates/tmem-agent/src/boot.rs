//! How an agent comes to be: in a thread of the program, before `main`, or in a child right after `fork`.
//!
//! The thread connects to the monitor, makes the userfaultfd (which belongs to the address space of whoever makes
//! it), maps what the agent needs, starts it, and waits until it has closed the descriptors that it got a copy of and
//! the monitor has said "go". Whatever fails, the program goes on without an agent, and is not managed.
//!
//! # What is mapped
//! | part | bytes | at fork |
//! |---|---|---|
//! | tripwire: registered first of all; a child finds it empty, and the monitor fills in its birth number | 4 KiB | wiped |
//! | comm | [`crate::protocol::COMM_BYTES`] | not there |
//! | staging, from a boundary of 2 MiB | as the monitor says | not there |
//! | window: the segment that blocks are written to | 2 MiB | not there |
//! | landing: where huge pages are decoded to, never registered; empty but for moments | 2 MiB | not there |
//! | stack, [`Hands`], the codec's workspace | 300 KiB, of which a quarter is touched | not there |

use core::sync::atomic::{AtomicI32, AtomicU8, AtomicU64, Ordering};

use tmem_codec::Workspace;

use crate::hands::{self, Hands};
use crate::protocol::{COMM_BYTES, Comm, HELLO, HUGE_BYTES, MAGIC, PAGE_BYTES, Packet, SOCKET_VARIABLE, WELCOME};
use crate::{sys, wire};

/// `struct sockaddr_un`: family, a 0 for "abstract", and the name.
const ADDRESS: usize = 2 + 1 + 64;
// Statics are in a file's pages, which are never moved away: the agent must not wait for its own memory.

/// The monitor's address, for fork children. Bytes are atomics to be safe statics; one thread writes them, before
/// `main`.
#[unsafe(link_section = ".data")]
static NAME: [AtomicU8; 64] = [const { AtomicU8::new(0) }; 64];
/// Address of the tripwire; 0: none.
#[unsafe(link_section = ".data")]
static TRIPWIRE: AtomicU64 = AtomicU64::new(0);
/// The program, for whoever has to stop it.
#[unsafe(link_section = ".data")]
pub(crate) static PROGRAM: AtomicI32 = AtomicI32::new(0);

const STACK_BYTES: u64 = 64 << 10;
const HANDS_BYTES: u64 = (size_of::<Hands>() as u64).next_multiple_of(PAGE_BYTES);
const WORKSPACE_BYTES: u64 = (size_of::<Workspace>() as u64).next_multiple_of(PAGE_BYTES);
/// Guard page, stack, hands, workspace.
const PRIVATE_BYTES: u64 = PAGE_BYTES + STACK_BYTES + HANDS_BYTES + WORKSPACE_BYTES;

/// Starts an agent in a program that has just been loaded, if it is to have one.
///
/// # Safety
/// `environment` is the program's: an array of pointers to strings that end with a 0, and a null pointer at its end.
pub unsafe fn at_start(environment: *const *const u8) {
    // SAFETY: the caller's contract.
    if unsafe { find_name(environment) } {
        boot(0);
    }
}

/// Starts an agent in a child that was just forked from a program that has one.
pub fn at_fork() {
    // Relaxed: written before the fork.
    let tripwire = TRIPWIRE.load(Ordering::Relaxed);
    if tripwire == 0 {
        return;
    }
    // SAFETY: a page that `boot` mapped in the parent, and that a child keeps. It reads as 0, or waits until the
    // monitor has filled it.
    let birth = unsafe { core::ptr::with_exposed_provenance::<u64>(tripwire as usize).read_volatile() };
    boot(birth);
}

/// Stops the program: for what must not happen.
pub fn fail_closed() -> ! {
    // Relaxed: written before the agent was started.
    sys::kill(PROGRAM.load(Ordering::Relaxed));
    sys::exit()
}

/// Looks for the monitor's name in the environment.
///
/// # Safety
/// As [`at_start`].
unsafe fn find_name(environment: *const *const u8) -> bool {
    let wanted = SOCKET_VARIABLE.as_bytes();
    let mut at = environment;
    loop {
        // SAFETY: before the null pointer at the end, by the contract of `at_start`.
        let entry = unsafe { *at };
        if entry.is_null() {
            return false;
        }
        // SAFETY: the entries of an environment are strings that end with a 0.
        let entry = unsafe { core::ffi::CStr::from_ptr(entry.cast()) }.to_bytes();
        if let Some(name) = entry.strip_prefix(wanted).and_then(|rest| rest.strip_prefix(b"=")) {
            if name.is_empty() || name.len() > NAME.len() {
                return false;
            }
            // Relaxed: one thread so far.
            NAME.iter().zip(name).for_each(|(to, from)| to.store(*from, Ordering::Relaxed));
            return true;
        }
        // SAFETY: not the last one yet.
        at = unsafe { at.add(1) };
    }
}

fn boot(birth: u64) {
    let mask = sys::set_signal_mask(u64::MAX);
    // Relaxed: read by the agent, which is started afterwards.
    PROGRAM.store(sys::getpid(), Ordering::Relaxed);
    if let Some(socket) = connect() {
        start(socket, birth);
        sys::close(socket);
    }
    sys::set_signal_mask(mask);
}

fn connect() -> Option<i32> {
    const AF_UNIX: u8 = 1;
    let socket = i32::try_from(sys::socket()).ok().filter(|fd| *fd >= 0)?;
    let mut address = [0; ADDRESS];
    address[0] = AF_UNIX;
    let mut len = 3;
    for (to, from) in address[3..].iter_mut().zip(&NAME) {
        *to = from.load(Ordering::Relaxed); // Relaxed: written long ago
        len += usize::from(*to != 0);
    }
    if sys::connect(socket, &address[..len]) < 0 {
        sys::close(socket);
        return None;
    }
    Some(socket)
}

/// Everything between the greeting and "go".
fn start(socket: i32, birth: u64) {
    let hello = Packet { magic: MAGIC, kind: HELLO, words: [birth, 0, 0, 0, 0, 0, 0] };
    if !wire::send(socket, &hello, -1) {
        return;
    }
    let Some(welcome) = wire::receive(socket).filter(|received| received.packet.kind == WELCOME) else { return };
    let [memfd, second] = welcome.fds;
    let faults = match welcome.packet.words[1] {
        1 => second,
        2 => {
            let made = sys::userfaultfd_of_device(second);
            sys::close(second);
            i32::try_from(made).unwrap_or(-1)
        }
        _ => i32::try_from(sys::userfaultfd()).unwrap_or(-1),
    };
    if faults >= 0
        && let Some(hands) = prepare(memfd, welcome.packet.words[0], (socket, faults), birth)
    {
        launch(hands);
    }
    sys::close(faults);
    sys::close(memfd);
}

/// Maps everything. The result lies in the agent's own memory.
fn prepare(memfd: i32, staging_bytes: u64, (socket, faults): (i32, i32), birth: u64) -> Option<&'static Hands> {
    // SAFETY: a new mapping of the comm memfd, wherever the kernel likes.
    let comm = unsafe { sys::mmap(0, COMM_BYTES as u64, sys::PROT_RW, sys::MAP_SHARED, memfd, 0) };
    let arena_bytes = staging_bytes + 2 * HUGE_BYTES + PRIVATE_BYTES;
    // SAFETY: a new mapping.
    let arena = unsafe { sys::mmap(0, arena_bytes + HUGE_BYTES, sys::PROT_NONE, sys::MAP_MEMORY, -1, 0) };
    let (comm, arena) = (u64::try_from(comm).ok()?, u64::try_from(arena).ok()?);
    let staging = arena.next_multiple_of(HUGE_BYTES);
    let window = staging + staging_bytes;
    let landing = window + HUGE_BYTES;
    let private = landing + HUGE_BYTES;
    let stack = private + PAGE_BYTES;
    let tripwire = tripwire()?;
    let writable = sys::protect(staging, staging_bytes, sys::PROT_RW) >= 0
        && sys::protect(landing, HUGE_BYTES, sys::PROT_RW) >= 0
        && sys::protect(stack, PRIVATE_BYTES - PAGE_BYTES, sys::PROT_RW) >= 0
        && sys::madvise(arena, arena_bytes + HUGE_BYTES, sys::MADV_DONTFORK) >= 0
        && sys::madvise(comm, COMM_BYTES as u64, sys::MADV_DONTFORK) >= 0;
    if !writable {
        return None;
    }
    sys::madvise(landing, HUGE_BYTES, sys::MADV_HUGEPAGE); // a kernel without huge pages gives small ones
    sys::name_memory(staging, staging_bytes, hands::STAGING_NAME);
    sys::name_memory(landing, HUGE_BYTES, hands::LANDING_NAME);
    sys::name_memory(stack, PRIVATE_BYTES - PAGE_BYTES, b"tmem agent\0");
    let place = core::ptr::with_exposed_provenance_mut::<Hands>((stack + STACK_BYTES) as usize);
    let workspace = core::ptr::with_exposed_provenance_mut((stack + STACK_BYTES + HANDS_BYTES) as usize);
    // SAFETY: the comm memfd is of that size, sealed, and consists of atomics.
    let comm: &'static Comm = unsafe { &*core::ptr::with_exposed_provenance(comm as usize) };
    // Relaxed: set by this thread just before.
    let program = PROGRAM.load(Ordering::Relaxed);
    let end = private + PRIVATE_BYTES;
    let layout = hands::Layout { tripwire, staging, staging_bytes, window, landing, private: window, end };
    // SAFETY: fresh memory, aligned to pages, of at least the size of each, nobody else's, never unmapped.
    unsafe { Hands::init((place, workspace), comm, (socket, faults), (program, birth), layout) };
    // SAFETY: just written; lives as long as the address space.
    Some(unsafe { &*place })
}

/// The tripwire, made when first wanted.
fn tripwire() -> Option<u64> {
    // Relaxed: one thread, at start and in a fork child.
    let there = TRIPWIRE.load(Ordering::Relaxed);
    if there != 0 {
        return Some(there);
    }
    // SAFETY: a new mapping.
    let made = unsafe { sys::mmap(0, PAGE_BYTES, sys::PROT_RW, sys::MAP_MEMORY, -1, 0) };
    let made = u64::try_from(made).ok()?;
    sys::name_memory(made, PAGE_BYTES, b"tmem tripwire\0");
    if sys::madvise(made, PAGE_BYTES, sys::MADV_WIPEONFORK) < 0 {
        return None;
    }
    TRIPWIRE.store(made, Ordering::Relaxed); // as above
    Some(made)
}

/// Starts the agent, and waits until the program may go on.
fn launch(hands: &'static Hands) {
    let at = core::ptr::from_ref(hands).expose_provenance() as u64;
    // SAFETY: the stack lies just below, and is the agent's alone; the agent touches its own memory, comm, staging,
    // and nothing of this thread's.
    let agent = unsafe { sys::spawn(at, hands::run, at) };
    if agent <= 0 {
        return;
    }
    // Acquire: pairs with the agent's release; its descriptors are closed.
    while hands.comm.go.load(Ordering::Acquire) == 0 {
        sys::futex_wait(&hands.comm.go, 0, 1000);
        // The monitor has gone, and so will the agent; or it was killed before it could say anything.
        if wire::has_closed(hands.socket()) || i32::try_from(agent).is_ok_and(sys::has_died) {
            return;
        }
    }
}
