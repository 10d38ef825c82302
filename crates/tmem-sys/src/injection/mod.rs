//! Errors of the kernel, made up: the seam by which tests force what otherwise takes a race.
//!
//! It is there with the feature `fault-injection` only; without, each function of its face does nothing, and nothing of
//! it is left in what is built. With it, nothing happens either until [`start`] is given a [`Plan`], of which
//! `TMEM_FAULTS=seed:rate[:which]` is the text: from then on one in `rate` calls, as `seed` draws them, goes wrong in one
//! of the ways below, or in those of them whose names begin with one of `which` (a list with commas).
//!
//! # What may be made up
//! What is told must be what the kernel could have said then and there, or what was not broken would be called so. So an
//! error comes before anything was done, a part is really done and no more, and what the kernel says about what *is*
//! there it says itself.
//!
//! | call | made up | what is really done | why the kernel might |
//! |---|---|---|---|
//! | `COPY`, `ZEROPAGE` | `EAGAIN`, field -11 | nothing | a thread changes the address space |
//! | | `EAGAIN`, field untouched | nothing | the same; an older kernel |
//! | | `ENOENT`, field -2 | nothing | another thread has unmapped the page, and is about to map it again |
//! | `COPY` | `EAGAIN`, field n | n bytes, whole pages | it was interrupted, or the page after them could not be filled |
//! | asked whether the address space changes | yes | nothing | a thread does |
//! | `read` | `EAGAIN` | nothing | the message comes a moment later |
//! | | `EINTR` | nothing | a signal |
//! | | fewer messages than there are | they are read | the others come a moment later |
//! | | a fault is told twice | it is read once | a signal has interrupted the thread that waits, and it faults again |
//! | | `EMFILE`, while the address space changes | nothing | there is no descriptor for the child's; the fork stays told |
//! | `REGISTER` | `ENOMEM` | nothing | it would split a mapping, and there are as many as there may be |
//! | `PAGEMAP_SCAN` | it ends earlier | as far as that | its buffer is full |
//! | | `ENOMEM` | nothing | there is no memory for its buffer |
//! | `read` of `pagemap` | fewer entries | they are read | as any `read` |
//! | `PROCMAP_QUERY` | `EINTR` | nothing | its lock is waited for, and a signal comes |
//! | `process_vm_writev` | fewer bytes | whole pages of them | the page after them could not be had |
//! | | `EFAULT` | nothing | the first could not |
//! | `process_madvise(PAGEOUT)` | `EINTR` | nothing | a signal |
//!
//! Agents have a table of their own, in `tmem-agent`.
//!
//! # What may not
//! - *`EEXIST`*: it says that a page is there, and then there must be one. Faults that are told twice make the kernel say
//!   it: the second finds the page of the first.
//! - *`ESRCH`*: it says that the address space is gone. Who believes it lets go of memory that a living program still
//!   wants.
//! - *`ZEROPAGE` in part*: the monitor asks for one page at a time.
//! - *`WAKE`*: it has no errors but for ranges that make no sense.
//! - *`process_vm_readv`*: it reads one page, or a word, so there is no part of it; and that a page which is there cannot be
//!   read would be news that ends the program.
//!
//! These the kernel is heard to say, with `EAGAIN` and `ENOENT` of its own: what it answered is counted too.

#[cfg(not(feature = "fault-injection"))]
mod off;
#[cfg(feature = "fault-injection")]
mod on;

#[cfg(not(feature = "fault-injection"))]
pub(crate) use off::{filling, refused, refused_if, repeat, shorter};
#[cfg(feature = "fault-injection")]
pub use on::{BadPlan, Plan, counts, plan, start};
#[cfg(feature = "fault-injection")]
pub(crate) use on::{filling, refused, refused_if, repeat, shorter};

/// A place where the kernel may refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Copy,
    Zero,
    /// Whether the address space is changing.
    Changing,
    /// `read` of a userfaultfd.
    Read,
    /// The same, of a fork, while the address space is changing.
    ReadOfFork,
    /// A message that was read.
    Message,
    Register,
    Scan,
    /// `read` of `pagemap`.
    Entries,
    Query,
    /// `process_vm_writev`.
    Write,
    PageOut,
}
