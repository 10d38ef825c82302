//! Packets on a socket, with descriptors beside them and the sender's process id.

use core::mem::MaybeUninit;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use tmem_agent::protocol::{MAGIC, Packet};

/// A packet as it came.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) packet: Packet,
    pub(crate) fds: Vec<OwnedFd>,
    /// Who sent it, as the kernel says; 0: it did not say.
    pub(crate) pid: u32,
}

/// Sends a packet.
pub(crate) fn send(socket: BorrowedFd<'_>, packet: &Packet, fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(fds));
    }
    let bytes = to_bytes(packet);
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    rustix::net::sendmsg(socket, &[IoSlice::new(&bytes)], &mut ancillary, flags).map(|_| ())
}

/// Receives a packet, if one is there. None: the other side has closed, or speaks another language.
pub(crate) fn receive(socket: BorrowedFd<'_>) -> Result<Option<Received>, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2), ScmCredentials(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [0; Packet::BYTES];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let message = rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags)?;
    let (mut fds, mut pid) = (Vec::new(), 0);
    for beside in ancillary.drain() {
        match beside {
            RecvAncillaryMessage::ScmRights(rights) => fds.extend(rights),
            RecvAncillaryMessage::ScmCredentials(who) => pid = who.pid.as_raw_nonzero().get().cast_unsigned(),
            _ => {}
        }
    }
    let packet = from_bytes(&bytes);
    let sound = message.bytes == Packet::BYTES && packet.magic == MAGIC;
    Ok(sound.then_some(Received { packet, fds, pid }))
}

/// Little-endian words, in order: the agent is on the same machine, and it is one of those.
fn to_bytes(packet: &Packet) -> [u8; Packet::BYTES] {
    let mut bytes = [0; Packet::BYTES];
    bytes[..4].copy_from_slice(&packet.magic.to_le_bytes());
    bytes[4..8].copy_from_slice(&packet.kind.to_le_bytes());
    for (place, word) in bytes[8..].chunks_exact_mut(8).zip(packet.words) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

fn from_bytes(bytes: &[u8; Packet::BYTES]) -> Packet {
    let word = |at: usize| u64::from_le_bytes(core::array::from_fn(|byte| bytes[at + byte]));
    let half = |at: usize| u32::from_le_bytes(core::array::from_fn(|byte| bytes[at + byte]));
    Packet { magic: half(0), kind: half(4), words: core::array::from_fn(|index| word(8 + index * 8)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_packets_are_each_others_inverse() {
        let packet = Packet { magic: MAGIC, kind: 3, words: [1, 2, 3, 4, 5, 6, u64::MAX] };
        assert_eq!(from_bytes(&to_bytes(&packet)), packet);
    }
}
