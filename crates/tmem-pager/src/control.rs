//! Changing the limit of a running tree from another process.

use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, send, socket_with};
use std::io;
use std::time::Duration;
use tmem_agent::protocol::{CONTROL, MAGIC, Packet};

/// A monitor that is alive answers at once.
const PATIENCE: Duration = Duration::from_secs(5);

/// The packet as it goes over the wire.
#[expect(clippy::host_endian_bytes, reason = "both ends run on this host, and the agent sends its structs as they are")]
pub(crate) fn to_bytes(packet: &Packet) -> [u8; Packet::BYTES] {
    let mut bytes = [0; Packet::BYTES];
    bytes[..4].copy_from_slice(&packet.magic.to_ne_bytes());
    bytes[4..8].copy_from_slice(&packet.kind.to_ne_bytes());
    for (into, word) in bytes[8..].as_chunks_mut::<8>().0.iter_mut().zip(packet.words) {
        *into = word.to_ne_bytes();
    }
    bytes
}

/// The packet that came over the wire; `None` if it is of another length, or not of this protocol.
#[expect(clippy::host_endian_bytes, reason = "both ends run on this host, and the agent sends its structs as they are")]
pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Packet> {
    let bytes: &[u8; Packet::BYTES] = bytes.try_into().ok()?;
    let half = |at: usize| bytes[at..].first_chunk::<4>().map(|half| u32::from_ne_bytes(*half));
    let mut words = [0; 7];
    for (word, from) in words.iter_mut().zip(bytes[8..].as_chunks::<8>().0) {
        *word = u64::from_ne_bytes(*from);
    }
    Some(Packet { magic: half(0)?, kind: half(4)?, words }).filter(|packet| packet.magic == MAGIC)
}

/// Tells the monitor whose socket has the abstract name `socket` its new limit. Returns the old one.
///
/// # Errors
/// When nobody listens there any more, or the monitor refuses: it belongs to another user.
pub fn set_limit(socket: &str, limit_bytes: u64) -> io::Result<u64> {
    let address = SocketAddrUnix::new_abstract_name(socket.as_bytes())?;
    let link = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    rustix::net::sockopt::set_socket_timeout(&link, rustix::net::sockopt::Timeout::Recv, Some(PATIENCE))?;
    connect(&link, &address)?;
    let words = [limit_bytes, 0, 0, 0, 0, 0, 0];
    send(&link, &to_bytes(&Packet { magic: MAGIC, kind: CONTROL, words }), SendFlags::NOSIGNAL)?;
    let mut bytes = [0; Packet::BYTES];
    let (_, length) = rustix::net::recv(&link, &mut bytes, rustix::net::RecvFlags::empty())?;
    match from_bytes(&bytes[..length.min(Packet::BYTES)]) {
        Some(answer) if answer.kind == CONTROL && answer.words[0] == limit_bytes => Ok(answer.words[1]),
        _ => Err(io::Error::new(io::ErrorKind::PermissionDenied, "the monitor refused")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_comes_back_as_it_was() {
        let packet = Packet { magic: MAGIC, kind: CONTROL, words: [1, 2, u64::MAX, 4, 5, 6, 7] };
        assert_eq!(from_bytes(&to_bytes(&packet)), Some(packet));
        assert_eq!(from_bytes(&[0; Packet::BYTES]), None);
        assert_eq!(from_bytes(&to_bytes(&packet)[1..]), None);
    }
}
