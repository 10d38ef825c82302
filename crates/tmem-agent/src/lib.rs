//! The hands of tmem inside a paged program, and what they and the monitor say to each other.
//!
//! `tmem run` has every program load a shared object (`preload.rs`, which `tmem-pager` builds and carries). Its
//! constructor starts the *agent*: a process that shares the program's address space and is none of its threads
//! ([`at_start`], [`at_fork`]). The agent obeys commands ([`protocol`]): only from inside an address space can its
//! pages be moved away.
//!
//! no_std, no libc, no allocation, no thread-local storage: it runs beside code of which it knows nothing, on that
//! code's thread register.
#![no_std]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "x86-64 only: addresses are usize, and the kernel's numbers are small"
)]

mod boot;
pub mod digest;
mod hands;
#[cfg(not(feature = "fault-injection"))]
mod injection;
#[cfg(feature = "fault-injection")]
pub mod injection;
mod landing;
pub mod protocol;
mod sys;
mod wire;

pub use boot::{at_fork, at_start, fail_closed};
