//! The client's side of `tmem-ring`, for C: `libtmem_client`, with `include/tmem_client.h`.
//!
//! Each function checks what can be checked of its arguments, does what the function of the same name does in
//! `tmem_ring::client`, and translates. What fails returns a negative number, and [`tmem_last_error`] says in words
//! what happened; a panic, which would be a bug, is caught and returned as [`TMEM_E_PANIC`].

#![allow(non_camel_case_types, reason = "names of a C interface")]

mod client;
mod completion;
mod error;
mod pointer;
mod queue;
mod region;

pub use client::*;
pub use completion::*;
pub use error::*;
pub use queue::*;
pub use region::*;

/// The version of this interface. A program compares it with what tmem_client_version() returns: they are of
/// different releases of the library otherwise.
pub const TMEM_CLIENT_VERSION: u32 = 1;

/// The version of the library that is linked: TMEM_CLIENT_VERSION, as it was when that was built.
#[unsafe(no_mangle)]
pub extern "C" fn tmem_client_version() -> u32 {
    TMEM_CLIENT_VERSION
}
