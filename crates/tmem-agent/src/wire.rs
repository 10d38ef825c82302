//! Packets on the agent's socket.

use crate::protocol::Packet;
use crate::sys::{self, Message, Part};

/// `struct cmsghdr` with up to two descriptors.
#[repr(C, align(8))]
struct Control {
    len: usize,
    level: i32,
    kind: i32,
    fds: [i32; 2],
}

const SOL_SOCKET: i32 = 1;
const SCM_RIGHTS: i32 = 1;
const HEADER: usize = 16;

/// A packet with its descriptors; -1: none.
pub(crate) struct Received {
    pub(crate) packet: Packet,
    pub(crate) fds: [i32; 2],
}

/// Sends a packet, with a descriptor beside it unless it is negative.
pub(crate) fn send(socket: i32, packet: &Packet, fd: i32) -> bool {
    let mut control = Control { len: HEADER + 4, level: SOL_SOCKET, kind: SCM_RIGHTS, fds: [fd, 0] };
    let part = Part { base: core::ptr::from_ref(packet).cast_mut().cast(), len: Packet::BYTES };
    let message = Message::new(&raw const part, (&raw mut control).cast(), if fd < 0 { 0 } else { HEADER + 8 });
    // SAFETY: packet, part and control outlive the call, which reads them.
    unsafe { sys::sendmsg(socket, &message) == Packet::BYTES.cast_signed() }
}

/// Waits for a packet. None: the other side has closed.
pub(crate) fn receive(socket: i32) -> Option<Received> {
    let mut packet = Packet::default();
    let mut control = Control { len: 0, level: 0, kind: 0, fds: [-1; 2] };
    let part = Part { base: (&raw mut packet).cast(), len: Packet::BYTES };
    let len = loop {
        let mut message = Message::new(&raw const part, (&raw mut control).cast(), size_of::<Control>());
        // SAFETY: packet and control outlive the call, which writes at most their sizes.
        let len = unsafe { sys::recvmsg(socket, &mut message, 0) };
        if len != sys::EINTR {
            break len;
        }
    };
    if len != Packet::BYTES.cast_signed() {
        return None;
    }
    let rights = control.level == SOL_SOCKET && control.kind == SCM_RIGHTS;
    let count = if rights { control.len.saturating_sub(HEADER) / 4 } else { 0 };
    let fds = [0, 1].map(|at| if at < count { control.fds[at] } else { -1 });
    Some(Received { packet, fds })
}

/// Whether the other side has closed, without waiting.
pub(crate) fn has_closed(socket: i32) -> bool {
    const PEEK_DONTWAIT: usize = 0x2 | 0x40;
    let mut byte = 0_u8;
    let part = Part { base: &raw mut byte, len: 1 };
    let mut message = Message::new(&raw const part, core::ptr::null_mut(), 0);
    // SAFETY: the byte outlives the call, which writes at most one.
    unsafe { sys::recvmsg(socket, &mut message, PEEK_DONTWAIT) == 0 }
}
