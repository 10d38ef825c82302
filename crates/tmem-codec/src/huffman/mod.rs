//! Static Huffman codes over what the word LZ writes.
//!
//! A block of 4 KiB is too small to carry a code of its own: zstd spends its time, and some of its bytes, on headers and
//! on building tables. So the codes here are fixed. There are several for each of the three streams, made from many
//! programs' pages, and each block says which it uses: those in which it is shortest.
//!
//! What a byte is coded in depends on its stream, on the set of codes that the block chose for that stream, and on the
//! class of the byte before: there are four, and what follows bytes of one class is alike. That alone saves a twelfth of
//! the literals, and costs the decoder next to nothing, since a table's entry says where the next one is looked up.
//!
//! # Format
//! ```text
//! literals: u16 | aux: u16 | tokens: u16 | first pair: u16 | sets: u8 | lane 0 > < lane 1 | lane 2 > < lane 3
//! ```
//! The numbers are little end first; the first three are the bytes of the word LZ's streams. Of `sets` the lowest three
//! bits name the literals' set of codes, the next two that of aux, the highest three that of the tokens. The bits are in
//! four lanes, so that four symbols are looked up at a time. Two lanes share a run of bytes, the first of which has as
//! many as `first pair` says: one is read from its start on, the other from its end backwards, so that nothing need say
//! where the two meet.
//!
//! Each stream is cut in four quarters of equal length, a lane a quarter; the up to three bytes that remain come last, in
//! lane 0. In each lane there are first literals, then aux, then tokens, and each begins as if after a zero. A code's first
//! bit is the highest of the lane's first byte, or of its last where the lane goes backwards; what is left of a lane's last
//! byte is zeros.
//!
//! The codes are canonical: shorter before longer, and of one length by symbol. Their lengths and the classes, in
//! `lengths`, are part of the format.

mod decode;
mod encode;
mod lengths;
mod tables;
#[cfg(test)]
mod tests;
mod training;

pub(crate) use decode::decode;
pub(crate) use encode::{LANE_MAX, Lane, encode};
pub use training::streams_of;

/// Bytes before the lanes.
const HEADER: usize = 9;
/// The word LZ's own header.
const PLAIN_HEADER: usize = 4;
const LANES: usize = 4;
/// Symbols of a lane that are coded between two looks at where it is: as many as 56 bits hold.
const BURST: usize = 5;
const _: () = assert!(BURST * tables::LONGEST as usize <= 56);

/// Whether a lane goes from its end to its start.
const fn is_backward(lane: usize) -> bool {
    lane % 2 == 1
}
