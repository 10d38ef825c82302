//! Changing the limit of a running tree from another process.

use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, send, socket_with};
use std::io;
use std::time::Duration;
use tmem_agent::protocol::{CONTROL, MAGIC, Packet};

/// A monitor that is alive answers at once.
const PATIENCE: Duration = Duration::from_secs(5);

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
    send(&link, &Packet { magic: MAGIC, kind: CONTROL, words }.to_bytes(), SendFlags::NOSIGNAL)?;
    let mut bytes = [0; Packet::BYTES];
    let (_, length) = rustix::net::recv(&link, &mut bytes, rustix::net::RecvFlags::empty())?;
    match Packet::from_bytes(&bytes[..length.min(Packet::BYTES)]) {
        Some(answer) if answer.kind == CONTROL && answer.words[0] == limit_bytes => Ok(answer.words[1]),
        _ => Err(io::Error::new(io::ErrorKind::PermissionDenied, "the monitor refused")),
    }
}
