//! What the monitor and an agent say to each other.
//!
//! # Packets
//! Over a `SOCK_SEQPACKET` Unix socket, one [`Packet`] each, some with descriptors beside it. End of file means that
//! the
//! other side is dead.
//!
//! | packet | from | descriptors | means |
//! |---|---|---|---|
//! | [`HELLO`] | program's thread | | it has started or forked; word 0: its birth number, 0 if none |
//! | [`WELCOME`] | monitor | comm memfd, and a second one | words: bytes of staging, what the second one is |
//! | [`REFUSED`] | monitor | | the program goes on, not managed |
//! | [`READY`] | agent | userfaultfd, if birth is 0 | words: tripwire, staging, its bytes, private range, pid, landing |
//! | [`GO`] | monitor | | the program may go on |
//! | [`REGION`] | monitor | memfd | keep it as segment region `words[0]` |
//! | [`DOORBELL`] | monitor | | there is a command |
//! | [`CONTROL`] | `tmem limit` | | word 0: new limit; answered with the same, and the old one as word 1 |
//!
//! A birth number is what a child of a managed program reads from its tripwire. The second descriptor of a welcome is the
//! child's userfaultfd (1), `/dev/userfaultfd` (2), or not there (0): then the system call makes one.
//!
//! # Commands
//! In [`Comm`], a page run that both map. The monitor fills `commands[n % 2]`, then raises `submitted` to n + 1, then
//! rings
//! the doorbell if the agent `sleeps`. The agent raises `completed` when command n is done, and wakes its futex.
//! Between the
//! two the command is the agent's; otherwise it is the monitor's.
//!
//! # The second channel
//! Those commands are the evictor's. A server has `second` to itself, for [`DECODE`] and [`RENEW`], and the agent looks
//! at it between
//! commands and between the pages of an [`ENCODE`]. `asked` says whose it is:
//!
//! | `asked` | who goes on | to |
//! |---|---|---|
//! | [`IDLE`] | monitor, when the command stands there; it rings the doorbell if the agent `sleeps` | [`ASKED`] |
//! | [`ASKED`] | agent; or monitor, which takes it back | [`TAKEN`]; [`IDLE`] |
//! | [`TAKEN`] | agent, when it will read no block any more, whether it could decode them or not | [`DECODED`] |
//! | [`DECODED`] | agent, when the pages are in place, or are not going to be | [`DONE`] |
//! | [`DONE`] | monitor, when it has read the results | [`IDLE`] |
//!
//! From [`TAKEN`] on the agent waits for nothing but the gate, and until [`DECODED`] not for that either.
//!
//! # The gate
//! To take a page from an address is only right while nobody has unmapped or remapped it. Events about that are told
//! by the userfaultfd, and reading one lets the program go on. So both are done under the gate: the agent holds it
//! over each MOVE
//! and first compares `epoch` with that of its command; the monitor holds it while it reads and applies events, and
//! takes the
//! pages that they are about out of the command, by storing 0 for their addresses, or raises
//! `epoch` if they are about more. What an agent does not move for that reason is [`CANCELLED`].
//! The page count moved so far (`progress`) and `results` are written before the gate is let go: whoever holds it
//! knows where each page is. The agent holds the gate for one MOVE at a time, and lets the monitor in between: a fault
//! may be waiting.

use core::sync::atomic::{AtomicU32, AtomicU64};

use crate::digest::{Digest, Key};

/// Set in the environment of a paged program: the abstract name of the monitor's socket.
pub const SOCKET_VARIABLE: &str = "TMEM_AGENT";

/// First word of every packet, and of [`Comm`]: which protocol this is, and its version.
pub const MAGIC: u32 = 0x746d_0001;

/// One message.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Packet {
    /// [`MAGIC`].
    pub magic: u32,
    /// One of the kinds below.
    pub kind: u32,
    /// By kind; the rest are 0.
    pub words: [u64; 7],
}

impl Packet {
    /// Bytes on the wire.
    pub const BYTES: usize = 64;

    /// As it goes over the wire: little-endian words, in order, which is how the agent's machine keeps the struct.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..4].copy_from_slice(&self.magic.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.kind.to_le_bytes());
        for (into, word) in bytes[8..].as_chunks_mut::<8>().0.iter_mut().zip(self.words) {
            *into = word.to_le_bytes();
        }
        bytes
    }

    /// What came over the wire; `None` if it is of another length, or not of this protocol.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::BYTES] = bytes.try_into().ok()?;
        let half = |at: usize| bytes[at..].first_chunk::<4>().map(|half| u32::from_le_bytes(*half));
        let mut words = [0; 7];
        for (word, from) in words.iter_mut().zip(bytes[8..].as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*from);
        }
        Some(Self { magic: half(0)?, kind: half(4)?, words }).filter(|packet| packet.magic == MAGIC)
    }
}

const _: () = assert!(size_of::<Packet>() == Packet::BYTES);

/// See the module's head.
pub const HELLO: u32 = 1;
/// See the module's head.
pub const WELCOME: u32 = 2;
/// See the module's head.
pub const REFUSED: u32 = 3;
/// See the module's head.
pub const READY: u32 = 4;
/// See the module's head.
pub const GO: u32 = 5;
/// See the module's head.
pub const REGION: u32 = 6;
/// See the module's head.
pub const DOORBELL: u32 = 7;
/// See the module's head.
pub const CONTROL: u32 = 8;

/// Bytes of a page.
pub const PAGE_BYTES: u64 = 4096;
/// Bytes of a huge page, of a segment, and of a staging slot.
pub const HUGE_BYTES: u64 = 2 << 20;
/// Pages of a command.
pub const BATCH: usize = 512;
/// Pages of one MOVE: the gate is held so long.
pub const MOVE_PAGES: usize = 64;
/// Bytes in front of each block that [`ENCODE`] writes, left for the engine's header.
pub const BLOCK_HEADER_BYTES: u64 = 12;
/// Blocks start at multiples of it.
pub const BLOCK_UNIT_BYTES: u64 = 4;

/// Nobody holds the gate.
pub const GATE_FREE: u32 = 0;
/// Somebody holds the gate.
pub const GATE_HELD: u32 = 1;
/// Somebody holds the gate, and somebody sleeps on it.
pub const GATE_WAITED: u32 = 2;

/// Moves each page `pages[i]` (an address, or 0: not any more) to `args[0] + i * PAGE_BYTES`, which is empty.
/// `results[i]` is [`MOVED`],
/// or why not.
pub const MOVE_OUT: u32 = 1;
/// Moves `args[2]` bytes from `args[1]` to `args[0]` in one piece: whole huge pages, or pages back to where they were.
/// `results[0]`.
pub const MOVE_RANGE: u32 = 2;
/// Encodes each page `pages[i]` (an address in staging) under policy `args[3]` into region `args[0]`, from byte
/// `args[1]`, at most `args[2]` bytes, all of them within one segment. `results[i]` is [`encoded`]; for [`FILLED`]
/// `extra[i]` is the 4-byte pattern. A page whose [`digest`](crate::digest::digest) is `known[i]` is not encoded: [`SAME`].
/// Stops before the page that does not fit; `progress` says how many were dealt with.
pub const ENCODE: u32 = 3;
/// Gives the memory of the staging slot at `args[0]` (of `args[1]` bytes) back: unregister, map anew, register;
/// or DONTNEED, where no mapping can be split.
pub const FREE: u32 = 4;

/// Has the kernel write to each page `pages[i]` of the program, leaving it as it is: what was shared with a child
/// that has gone is the program's own again, and can be moved.
pub const TOUCH: u32 = 5;

/// On the second channel. Decodes each page as `pages[i]` says ([`Source`]) into the agent's landing area, which is one
/// huge page if the kernel has one, then moves all of it to `args[0]` in one piece and wakes who waits for it.
/// `results[0]`; `progress`: pages in place.
pub const DECODE: u32 = 6;
/// On the second channel. Maps the landing area anew: not even a page table is left, so a huge page can be there.
/// `results[0]`.
pub const RENEW: u32 = 7;

/// The page was moved.
pub const MOVED: u32 = 1;
/// The page is pinned, shared with a child, or locked by the kernel for a moment.
pub const BUSY: u32 = 2;
/// There is no page, or no mapping.
pub const GONE: u32 = 3;
/// The address space has changed since the command was made.
pub const CANCELLED: u32 = 4;
/// The mapping does not allow it: its protection, or that it is locked.
pub const REFUSED_BY_KERNEL: u32 = 5;
/// There is a page already.
pub const OCCUPIED: u32 = 6;
/// A block could not be decoded, or its region not be mapped.
pub const UNDECODED: u32 = 7;

/// Stands for the digest of a page of which none is known.
pub const UNKNOWN: Digest = [0; 2];

/// Values of `asked`: see the module's head.
pub const IDLE: u32 = 0;
/// See the module's head.
pub const ASKED: u32 = 1;
/// See the module's head.
pub const TAKEN: u32 = 2;
/// See the module's head.
pub const DECODED: u32 = 3;
/// See the module's head.
pub const DONE: u32 = 4;

/// `results` of [`ENCODE`]: the page is one 4-byte pattern.
pub const FILLED: u32 = 1 << 31;

/// `results` of [`ENCODE`]: the page is the one that is known.
pub const SAME: u32 = 1 << 30;

/// `results` of [`ENCODE`] for a block of `bytes` bytes in the codec with that number.
#[must_use]
pub const fn encoded(codec: u8, bytes: u32) -> u32 {
    (codec as u32) << 20 | bytes
}

/// The codec's number and the bytes of a result made by [`encoded`].
#[must_use]
pub const fn decoded(result: u32) -> (u8, u32) {
    ((result >> 20 & 0xff) as u8, result & 0xf_ffff)
}

/// Regions of the store that an agent can know: 64 GiB.
pub const REGIONS: usize = 64;
/// Bytes of a region.
pub const REGION_BYTES: u64 = 1 << 30;

/// Set in a page of [`DECODE`] that is one 4-byte pattern, its lower half.
const IS_FILLED: u64 = 1 << 63;
/// Set in a page of [`DECODE`] that needs no decoding.
const IS_THERE: u64 = 1 << 62;

/// A page of [`DECODE`]:
///
/// | bits | block | filled | there |
/// |---|---|---|---|
/// | 0-12 | bytes of payload, 1 to 4096 | (0-31) the pattern | 0 |
/// | 13-20 | codec | | 0 |
/// | 21-50 | first byte within the region | 0 | 0 |
/// | 51-56 | region | 0 | 0 |
/// | 62 | 0 | 0 | 1 |
/// | 63 | 0 | 1 | 0 |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// These four bytes (little endian), repeated.
    Filled(u32),
    /// A block of the store.
    Block {
        /// Region, less than [`REGIONS`].
        region: u32,
        /// The payload's first byte within the region.
        offset_bytes: u64,
        /// The codec's number.
        codec: u8,
        /// Bytes of payload, 1 to 4096.
        bytes: u32,
    },
    /// The monitor has written it already.
    There,
}

impl Source {
    /// As a word. None: no agent can decode it.
    #[must_use]
    pub const fn to_word(self) -> Option<u64> {
        /// In a codec's number: an agent has no zstd.
        const ZSTD: u8 = 4;
        match self {
            Self::Filled(pattern) => Some(IS_FILLED | pattern as u64),
            Self::There => Some(IS_THERE),
            Self::Block { region, offset_bytes, codec, bytes } => {
                let sane = (region as usize) < REGIONS && bytes as u64 <= PAGE_BYTES && codec & 15 != ZSTD;
                if !sane || offset_bytes + bytes as u64 > REGION_BYTES {
                    return None;
                }
                Some((region as u64) << 51 | offset_bytes << 21 | (codec as u64) << 13 | bytes as u64)
            }
        }
    }

    /// What a word says. Whatever it is, a block lies within its region and is no longer than its fields can say.
    #[must_use]
    pub const fn of_word(word: u64) -> Self {
        if word & IS_FILLED != 0 {
            return Self::Filled(word as u32);
        }
        if word & IS_THERE != 0 {
            return Self::There;
        }
        let region = (word >> 51) as u32 & 63;
        let offset_bytes = word >> 21 & (REGION_BYTES - 1);
        Self::Block { region, offset_bytes, codec: (word >> 13) as u8, bytes: word as u32 & 0x1fff }
    }
}

/// A command and its results.
#[repr(C)]
#[derive(Debug)]
pub struct Command {
    /// [`MOVE_OUT`], [`MOVE_RANGE`], [`ENCODE`], [`FREE`], [`TOUCH`]; [`DECODE`], [`RENEW`].
    pub op: AtomicU32,
    /// Pages in `pages`.
    pub count: AtomicU32,
    /// `Comm::epoch` when the command was made.
    pub epoch: AtomicU32,
    /// Pages dealt with so far.
    pub progress: AtomicU32,
    /// By op.
    pub args: [AtomicU64; 4],
    /// By op.
    pub pages: [AtomicU64; BATCH],
    /// By op; 0 until the page was dealt with.
    pub results: [AtomicU32; BATCH],
    /// By op.
    pub extra: [AtomicU32; BATCH],
    /// Digests of [`ENCODE`]'s pages, in two halves; [`UNKNOWN`]: any page is new.
    pub known: [[AtomicU64; 2]; BATCH],
}

/// What the monitor and one agent share.
#[repr(C, align(4096))]
#[derive(Debug)]
pub struct Comm {
    /// [`MAGIC`].
    pub magic: AtomicU32,
    /// 1 when the program may go on; 2 when the agent failed to start. A futex.
    pub go: AtomicU32,
    /// [`GATE_FREE`], [`GATE_HELD`], [`GATE_WAITED`]. A futex.
    pub gate: AtomicU32,
    /// Threads of the monitor that want the gate: the agent lets them in first.
    pub gate_wanted: AtomicU32,
    /// How often the address space has changed.
    pub epoch: AtomicU32,
    /// Commands given.
    pub submitted: AtomicU32,
    /// Commands done. A futex.
    pub completed: AtomicU32,
    /// 1 while the agent waits in `recvmsg`: a doorbell is needed.
    pub sleeps: AtomicU32,
    /// Command n is in `commands[n % 2]`.
    pub commands: [Command; 2],
    /// State of the second channel: see the module's head. A futex.
    pub asked: AtomicU32,
    /// The second channel's command.
    pub second: Command,
    /// What digests are made with.
    pub key: Key,
    /// Errors that are made up.
    #[cfg(feature = "fault-injection")]
    pub injection: crate::injection::Injection,
}

// SAFETY: it consists of atomics, which are valid whatever their bytes are, and is aligned to a page.
#[cfg(feature = "monitor")]
unsafe impl tmem_sys::SharedMemory for Comm {}

/// Bytes of the comm memfd.
pub const COMM_BYTES: usize = size_of::<Comm>();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_comes_back_as_it_was() {
        let packet = Packet { magic: MAGIC, kind: CONTROL, words: [1, 2, u64::MAX, 4, 5, 6, 7] };
        assert_eq!(Packet::from_bytes(&packet.to_bytes()), Some(packet));
        assert_eq!(Packet::from_bytes(&[0; Packet::BYTES]), None);
        assert_eq!(Packet::from_bytes(&packet.to_bytes()[1..]), None);
    }

    #[test]
    fn a_source_comes_back_as_it_was() {
        let block = |region, offset_bytes, codec, bytes| Source::Block { region, offset_bytes, codec, bytes };
        for source in [
            Source::Filled(0),
            Source::Filled(u32::MAX),
            Source::There,
            block(0, 16, 0, 4096),
            block(63, REGION_BYTES - 4096, 0x22, 4096),
            block(63, REGION_BYTES - 1, 0xf0, 1),
        ] {
            assert_eq!(source.to_word().map(Source::of_word), Some(source));
        }
    }

    #[test]
    fn what_an_agent_cannot_decode_has_no_word() {
        let block = |region, offset_bytes, codec, bytes| Source::Block { region, offset_bytes, codec, bytes }.to_word();
        assert_eq!(block(64, 0, 0, 1), None);
        assert_eq!(block(0, REGION_BYTES, 0, 1), None);
        assert_eq!(block(0, 0, 0, 4097), None);
        assert_eq!([4, 0x14, 0x24].map(|zstd| block(0, 0, zstd, 100)), [None; 3]);
    }
}
