//! System calls of tmem, each behind a small safe face.
//!
//! - [`Reservation`]: a stretch of addresses that costs nothing until parts of it are committed. Tables and segments
//!   live in reservations, so that an index turns into an address by one multiplication and never moves.
//! - [`Memfd`]: a sealed piece of shared memory, which another process can be given.
//! - [`prefetch`]: a hint, not a system call, but as far below.
//! - [`start_copy`]: a process that is a copy of this one. [`duplicate_inherited`]: a descriptor that we were started with.
//! - [`resident_bytes`]: what the kernel says this process holds, to check our own ledger against.
//!
//! For other processes, their page faults first:
//! - [`Userfaultfd`]: serves faults of another address space, and tells what becomes of it.
//! - [`Pagemap`], [`mappings`], [`ResidencyOf`]: what it has in memory, and where.
//! - [`Pidfd`], [`read_memory`], [`write_memory`], [`same_memory`]: the process.
//! - [`threads`], [`robust_list_head`]: its threads.
//! - [`Shared`], [`futex`]: memory that it shares with us, and sleep on a word of it.
//! - [`run_on`], [`take_turns`], [`CpuOf`], [`is_runnable`]: where threads run, and when.
//!
//! For a daemon and clients that it does not trust:
//! - [`Words`], [`Region`]: memory that they share; a client that takes it away loses it, and ends nobody.
//! - [`Doorbell`]: wakes who waits for it.
//! - [`Listener`], [`Channel`]: packets with descriptors beside them, and who is at the other end.
//! - [`poll_readable`], [`Epoll`]: waiting for descriptors.
//! - [`random_bytes`]: for keys. [`own_uid`]: who we are.

mod channel;
mod copy;
mod doorbell;
pub mod futex;
mod guard;
mod inherited;
#[cfg(not(feature = "fault-injection"))]
mod injection;
#[cfg(feature = "fault-injection")]
pub mod injection;
mod listener;
mod mapped;
mod maps;
mod memfd;
mod pagemap;
mod peer;
mod poll;
mod prefetch;
mod process;
mod random;
mod region;
mod reservation;
mod shared;
mod thread;
pub mod uffd;
mod words;

pub use channel::{Channel, MAX_DESCRIPTORS, Peer, Received};
pub use copy::start_copy;
pub use doorbell::Doorbell;
pub use inherited::duplicate_inherited;
pub use listener::{ListenError, Listener};
pub use maps::{Mapping, MappingKind, MappingsOf, mappings, withheld_from_children};
pub use memfd::{Memfd, RegionError};
pub use pagemap::{PageRun, Pagemap};
pub use peer::{Pidfd, Present, READ_PAGES, read_memory, read_pages, same_memory, write_memory};
pub use poll::{Epoll, poll_readable};
pub use prefetch::prefetch;
pub use process::{MemoryUse, Residency, ResidencyOf, Sizes, own_uid, proportional_anonymous, resident_bytes};
pub use random::random_bytes;
pub use region::{Backing, Region};
pub use reservation::{Pages, Reservation};
pub use rustix::io::Errno;
pub use rustix::process::Signal;
pub use shared::{Shared, SharedMemory};
pub use thread::{
    CpuOf, Turn, faults_in_system_call, is_runnable, own_cpus, robust_list_head, run_on, take_turns, threads,
};
pub use uffd::{Event, Features, Partial, Userfaultfd, Wake};
pub use words::Words;

/// Bytes of a cache line.
pub const CACHE_LINE_BYTES: usize = 64;

/// Bytes of a base page, the unit in which memory is committed and released.
pub const PAGE_BYTES: usize = 4096;

/// Bytes of a huge page. Reservations start on this boundary.
pub const HUGE_PAGE_BYTES: usize = 2 << 20;

/// A system call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SysError {
    /// Address space could not be reserved.
    #[error("cannot reserve {bytes} bytes of address space ({errno}): raise `ulimit -v`")]
    Reserve {
        /// Bytes asked for.
        bytes: usize,
        /// What the kernel said.
        errno: Errno,
    },
    /// Memory could not be had: the machine, the control group or the overcommit policy has no more.
    #[error("cannot get {bytes} bytes of memory ({errno}): the machine or the memory control group is full")]
    NoMemory {
        /// Bytes asked for.
        bytes: usize,
        /// What the kernel said.
        errno: Errno,
    },
    /// A memfd could not be made.
    #[error("cannot make a memfd of {bytes} bytes ({errno}): raise `ulimit -n`, or allow memfd_create")]
    Memfd {
        /// Bytes asked for.
        bytes: usize,
        /// What the kernel said.
        errno: Errno,
    },
    /// The system's pool has not enough huge pages.
    #[error(
        "cannot get {bytes} bytes of huge pages ({errno}): raise the sysctl vm.nr_hugepages by {} pages of 2 MiB",
        .bytes.div_ceil(HUGE_PAGE_BYTES)
    )]
    HugePages {
        /// Bytes asked for.
        bytes: usize,
        /// What the kernel said.
        errno: Errno,
    },
    /// Memory that another process has sent is not what it should be.
    #[error(transparent)]
    Foreign(#[from] RegionError),
    /// Memory could not be given back.
    #[error("cannot give {bytes} bytes back to the system ({errno})")]
    Release {
        /// Bytes to be given back.
        bytes: usize,
        /// What the kernel said.
        errno: Errno,
    },
}
