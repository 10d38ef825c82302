//! Errors of the kernel, made up: the agent's part of the seam that `tmem-sys` has in its module of the same name, and
//! which says what may be made up.
//!
//! It is there with the feature `fault-injection` only. What is drawn, and how often what went wrong, stands in memory
//! that the monitor shares.
//!
//! | call | made up | what is really done | why the kernel might |
//! |---|---|---|---|
//! | `MOVE` | `EAGAIN`, field -11 | nothing | a thread changes the address space |
//! | | `EAGAIN`, field untouched | nothing | the same; an older kernel |
//! | | `EAGAIN`, field n | n bytes, whole pages | the page after them could not be moved |
//! | | `EBUSY`, field -16 | nothing | the first page is pinned, or a child has it too |
//! | | `ENOENT`, field -2 | nothing | another thread has just discarded the first page |
//! | | `EINVAL`, of several pages | nothing | a mapping ends among them |
//! | `madvise(POPULATE_WRITE)` | `EFAULT` | nothing | the first page may not be written to at the moment |
//! | | `EFAULT` | some pages | one of the others may not |
//! | `UNREGISTER` | `ENOMEM` | nothing | it would split a mapping, and there are as many as there may be |
//! | `mmap` of a region | `ENOMEM` | nothing | the same |
//!
//! Not made up: *`EEXIST`* of `MOVE`, which says that there is a page where none must be; *`REGISTER`* after an
//! `UNREGISTER` of the same range, which splits nothing any more; *`mmap`* over staging or the
//! landing area, which would lose them.

#[cfg(not(feature = "fault-injection"))]
mod off;
#[cfg(feature = "fault-injection")]
mod on;

#[cfg(not(feature = "fault-injection"))]
pub(crate) use off::{moving, populating, refused};
#[cfg(feature = "fault-injection")]
pub use on::{Injection, NAMES};
#[cfg(feature = "fault-injection")]
pub(crate) use on::{moving, populating, refused};

/// A place where the kernel may refuse, besides `MOVE` and `madvise`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Unregister,
    Mmap,
}
