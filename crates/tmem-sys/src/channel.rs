//! Packets between processes of one machine, with descriptors beside them.
//!
//! `SOCK_SEQPACKET`: a packet arrives whole or not at all, in order, and the end of the other side is seen.

use crate::peer::last_errno;
use core::mem::MaybeUninit;
use core::time::Duration;
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recvmsg, sendmsg, socket_with,
    socketpair,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Descriptors that a packet has beside it at most.
pub const MAX_DESCRIPTORS: usize = 4;

/// Bytes of a control message with that many; the kernel fills what room it is given.
const CONTROL_BYTES: usize = size_of::<libc::cmsghdr>() + MAX_DESCRIPTORS * size_of::<i32>();
const _: () = assert!(CONTROL_BYTES.is_multiple_of(align_of::<libc::cmsghdr>()), "no room for a fifth");

/// Room for it, aligned: what is not would be cut.
#[repr(align(8))]
struct Control([MaybeUninit<u8>; CONTROL_BYTES]);

impl Control {
    const fn new() -> Self {
        Self([MaybeUninit::uninit(); CONTROL_BYTES])
    }
}

/// One end of a connection.
#[derive(Debug)]
pub struct Channel(OwnedFd);

/// Who is at the other end, as the kernel noted when they connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its process; 0: it cannot be seen from here (another process namespace).
    pub pid: u32,
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// What a packet was.
#[derive(Debug)]
#[must_use]
pub struct Received {
    /// Bytes of it; 0: the other side has closed, or sent nothing, which is as good.
    pub len: usize,
    /// There was more: bytes for which there was no room, or descriptors beyond [`MAX_DESCRIPTORS`] or the process's
    /// limit. It is gone.
    pub truncated: bool,
    /// Descriptors beside it.
    pub fds: Vec<OwnedFd>,
}

impl Channel {
    /// Connects to the listener at `path`. This end waits in [`Self::send`] and [`Self::receive`].
    ///
    /// # Errors
    /// `NotFound`, `ConnectionRefused`: nobody listens there. `PermissionDenied`: no right to write to it.
    pub fn connect(path: &Path) -> io::Result<Self> {
        Self::connect_to(path, None)
    }

    /// The same, waiting no longer than `timeout` for a listener that does not accept, and in each call afterwards.
    ///
    /// # Errors
    /// As [`Self::connect`]; `WouldBlock`: the time is over.
    pub fn connect_within(path: &Path, timeout: Duration) -> io::Result<Self> {
        Self::connect_to(path, Some(timeout))
    }

    fn connect_to(path: &Path, timeout: Option<Duration>) -> io::Result<Self> {
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let channel = Self(socket);
        if let Some(timeout) = timeout {
            channel.set_timeouts(timeout)?;
        }
        connect(&channel.0, &SocketAddrUnix::new(path)?)?;
        Ok(channel)
    }

    /// Both ends of a connection. They wait.
    ///
    /// # Errors
    /// `MFILE`, `NFILE`, `NOMEM`.
    pub fn pair() -> Result<(Self, Self), Errno> {
        let (one, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self(one), Self(other)))
    }

    /// An end that a listener has accepted.
    pub(crate) fn accepted(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// Sends a packet, all of it.
    ///
    /// # Errors
    /// `PIPE`, `CONNRESET`: the other side has closed. `AGAIN`: it does not read what was sent before, and this end does
    /// not wait (any longer). `MSGSIZE`: longer than the socket's buffer. `TOOMANYREFS`: too many descriptors under way.
    /// `INTR`.
    ///
    /// # Panics
    /// More than [`MAX_DESCRIPTORS`].
    pub fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
        assert!(fds.len() <= MAX_DESCRIPTORS, "{} descriptors beside a packet", fds.len());
        let mut control = Control::new();
        let mut beside = SendAncillaryBuffer::new(&mut control.0);
        if !fds.is_empty() {
            let fits = beside.push(SendAncillaryMessage::ScmRights(fds));
            debug_assert!(fits, "the room is for as many");
        }
        sendmsg(&self.0, &[IoSlice::new(bytes)], &mut beside, SendFlags::NOSIGNAL).map(|_| ())
    }

    /// Receives a packet.
    ///
    /// # Errors
    /// `AGAIN`: there is none, and this end does not wait (any longer). `CONNRESET`: the other side has closed without
    /// reading what it was sent. `INTR`.
    pub fn receive(&self, into: &mut [u8]) -> Result<Received, Errno> {
        let mut control = Control::new();
        let mut beside = RecvAncillaryBuffer::new(&mut control.0);
        let packet = recvmsg(&self.0, &mut [IoSliceMut::new(into)], &mut beside, RecvFlags::CMSG_CLOEXEC)?;
        let mut fds = Vec::new();
        for message in beside.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        let truncated = packet.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC);
        Ok(Received { len: packet.bytes, truncated, fds })
    }

    /// An end that waits does so no longer than this in each call.
    ///
    /// # Errors
    /// `INVAL`: no time, or too long a time.
    pub fn set_timeouts(&self, timeout: Duration) -> Result<(), Errno> {
        set_socket_timeout(&self.0, Timeout::Recv, Some(timeout))?;
        set_socket_timeout(&self.0, Timeout::Send, Some(timeout))
    }

    /// Who is at the other end.
    ///
    /// # Errors
    /// None that a caller could cause.
    pub fn peer(&self) -> Result<Peer, Errno> {
        // Not rustix's, in which a process of number 0 cannot be.
        let mut who = libc::ucred { pid: 0, uid: 0, gid: 0 };
        let mut bytes = libc::socklen_t::try_from(size_of::<libc::ucred>()).map_err(|_| Errno::INVAL)?;
        let (into, fd) = ((&raw mut who).cast(), self.0.as_raw_fd());
        // SAFETY: writes at most `bytes` to `who`, which is as long and made of numbers.
        let asked = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERCRED, into, &raw mut bytes) };
        if asked < 0 {
            return Err(last_errno());
        }
        Ok(Peer { pid: u32::try_from(who.pid).unwrap_or(0), uid: who.uid, gid: who.gid })
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::{FdFlags, fcntl_getfd};
    use std::fs::File;
    use std::io::Read;
    use std::time::Instant;

    #[test]
    fn packets_arrive_whole_with_what_is_beside_them() {
        let (one, other) = Channel::pair().unwrap();
        let file = File::open("/proc/self/status").unwrap();
        one.send(b"first", &[file.as_fd(); MAX_DESCRIPTORS]).unwrap();
        one.send(b"second", &[]).unwrap();
        let mut bytes = [0; 16];
        let first = other.receive(&mut bytes).unwrap();
        assert_eq!((&bytes[..first.len], first.truncated, first.fds.len()), (&b"first"[..], false, MAX_DESCRIPTORS));
        for fd in first.fds {
            assert_eq!(fcntl_getfd(&fd), Ok(FdFlags::CLOEXEC));
            drop(fd);
        }
        let second = other.receive(&mut bytes).unwrap();
        assert_eq!((&bytes[..second.len], second.truncated, second.fds.len()), (&b"second"[..], false, 0));
    }

    #[test]
    fn a_descriptor_is_of_the_same_file() {
        let (one, other) = Channel::pair().unwrap();
        one.send(b"x", &[File::open("/proc/self/comm").unwrap().as_fd()]).unwrap();
        let mut received = other.receive(&mut [0; 1]).unwrap();
        let mut text = String::new();
        File::from(received.fds.pop().unwrap()).read_to_string(&mut text).unwrap();
        assert!(!text.is_empty());
    }

    #[test]
    fn what_there_is_no_room_for_is_told() {
        let (one, other) = Channel::pair().unwrap();
        let file = File::open("/dev/null").unwrap();
        one.send(b"12345", &[]).unwrap();
        let cut = other.receive(&mut [0; 4]).unwrap();
        assert_eq!((cut.len, cut.truncated), (4, true));
        // As somebody else would send it.
        let fds = [file.as_fd(); MAX_DESCRIPTORS + 1];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS + 1))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        assert!(beside.push(SendAncillaryMessage::ScmRights(&fds)));
        sendmsg(&one, &[IoSlice::new(b"x")], &mut beside, SendFlags::empty()).unwrap();
        let cut = other.receive(&mut [0; 4]).unwrap();
        assert_eq!((cut.len, cut.truncated, cut.fds.len()), (1, true, MAX_DESCRIPTORS));
    }

    #[test]
    fn the_end_is_seen_and_kills_nobody() {
        let (one, other) = Channel::pair().unwrap();
        one.send(b"last", &[]).unwrap();
        drop(one);
        let mut bytes = [0; 8];
        assert_eq!(other.receive(&mut bytes).unwrap().len, 4);
        assert_eq!(other.receive(&mut bytes).unwrap().len, 0);
        assert_eq!(other.send(b"x", &[]), Err(Errno::PIPE));
    }

    #[test]
    fn nobody_waits_longer_than_told() {
        let (one, _other) = Channel::pair().unwrap();
        one.set_timeouts(Duration::from_millis(20)).unwrap();
        assert_eq!(one.set_timeouts(Duration::ZERO), Err(Errno::INVAL));
        let start = Instant::now();
        assert_eq!(one.receive(&mut [0; 1]).unwrap_err(), Errno::AGAIN);
        assert!(start.elapsed() >= Duration::from_millis(20));
        let sent = (0..1_000_000).map(|_| one.send(&[0; 4096], &[])).find(Result::is_err);
        assert_eq!(sent, Some(Err(Errno::AGAIN)));
    }

    #[test]
    fn the_peer_is_who_made_the_other_end() {
        let (one, _other) = Channel::pair().unwrap();
        let ours = Peer {
            pid: std::process::id(),
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
        };
        assert_eq!(one.peer(), Ok(ours));
    }
}
