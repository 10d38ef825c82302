//! Block codecs for memory pages.
//!
//! A block is 1 to 16 granules of memory, the last of them perhaps ragged: any length from 1 to [`MAX_BLOCK`]. It is
//! encoded straight from its source into its resting place and decoded straight into its destination; what a codec
//! needs in between is in a [`Workspace`]. Nothing here allocates on the data path, and hostile input makes [`decode`]
//! return [`Corrupt`], never anything worse.
//!
//! The source of [`encode`] may be memory that somebody else still writes to: every access is bounded by positions,
//! never by a byte having the same value when it is read again. The encoded bytes are then unspecified, and decoding
//! them gives some bytes or [`Corrupt`].
#![no_std]

mod codec;
#[cfg(target_arch = "x86_64")]
mod cpu;
mod filled;
mod huffman;
mod lz4;
mod planes;
mod policy;
mod predict;
mod raw;
mod word_lz;
mod workspace;
#[cfg(feature = "zstd")]
mod zstd;

pub use codec::{Codec, Corrupt, Encoded, UnknownCodec, decode, encode_as};
#[cfg(all(fuzzing, target_arch = "x86_64"))]
pub use cpu::run_portable;
pub use filled::{same_filled, same_filled_half};
pub use huffman::streams_of;
pub use policy::{Policy, Temperature, UnknownPolicy, encode, smallest};
pub use predict::Sample;
pub use workspace::Workspace;

/// Bytes of the smallest unit that the engine keeps track of.
pub const GRANULE: usize = 4096;

/// Bytes of the longest block: 16 granules.
pub const MAX_BLOCK: usize = 16 * GRANULE;

/// The example in the README is a test.
#[cfg(all(doctest, feature = "zstd"))]
#[doc = include_str!("../README.md")]
struct Readme;
