//! An LZ made for memory words.
//!
//! What a heap repeats is words at a fixed distance: the same field of the object before. So a match may continue at
//! the distance of the one before it for no bytes at all, a distance that is a multiple of 8 costs one byte, and the
//! common case "the low bytes of this word are new, the high ones are as before" is one token.
//!
//! # Format
//! ```text
//! literals: u16 | aux: u16 | literal bytes | aux bytes | tokens, one byte each, up to the end
//! ```
//! The two lengths are in bytes, little end first. A token stands for three numbers (the alphabet is in `tokens`): the
//! mode, the count of literals to copy, and the length of the match to copy after them. The mode says how far back the
//! match lies:
//! ```text
//! 0  the distance of the match before                                    (at the start: 8)
//! 1  the distance that was in use before that one; the two change places (at the start: 16)
//! 2  8 + 8 * b, b the next byte of aux
//! 3  8 + the next two bytes of aux, little end first
//! ```
//! Aux has, in this order and where the token says so: the count of literals less 16, the distance, the match's length
//! less 4. A count is one byte, or 255 and two bytes of the count less 255. What the tokens leave of the block is
//! literals.
//!
//! One token is "8 literals and no match"; another with up to 7 literals then makes 8 to 15. Those up to 7 are merged
//! with the match's first word, so that its distance may not reach back further than the block's start *from the first
//! of them*. 16 and more are copied beforehand.
//!
//! # Why it is fast
//! Three streams: neither the place of the next token nor that of the next literal waits for a length to be decoded.
//! No distance is below 8, so every copy is whole 8-byte chunks. And literals and match are *merged in a register* and
//! stored once: the word the match came from was stored in one piece too, so the load is served from the store buffer,
//! where a load across two smaller stores would have to wait for the cache.

mod decode;
mod encode;
mod tokens;

pub(crate) use decode::decode;
pub(crate) use encode::{Search, Streams, encode};

/// Bytes before the literals.
const HEADER: usize = 4;
/// No match is nearer, so that copies can go by 8 bytes. What a distance has beyond that is its *gap*.
const MIN_DISTANCE: usize = 8;
/// The two gaps that a block starts with.
const FIRST_GAPS: [usize; 2] = [0, 8];
