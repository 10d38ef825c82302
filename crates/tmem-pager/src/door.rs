//! The door: programs that start, agents that get ready, and both their ends.
//!
//! A guest is a connection. It greets (a program has started, or a fork child has), is welcomed, its agent gets
//! ready, and from then on the connection tells only one thing more: the agent's death.

use core::sync::atomic::Ordering;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{SocketFlags, accept_with, sockopt};
use tmem_agent::protocol::{CONTROL, Comm, GO, HELLO, HUGE_BYTES, MAGIC, PAGE_BYTES, Packet, READY, REFUSED, WELCOME};
use tmem_sys::{Features, Pagemap, Pidfd, Present, Shared, Userfaultfd};

use crate::core::Core;
use crate::hands::{Hands, Places};
use crate::intervals::Intervals;
use crate::slots::Freed;
use crate::space::{Program, Space, SpaceId, State};
use crate::staging::Staging;
use crate::units::pages_of;
use crate::wire::{self, Received};
use crate::{lock, server};

/// What a program's userfaultfd is to tell and to be able to do.
pub(crate) fn features() -> Features {
    let events = Features::EVENT_FORK | Features::EVENT_REMAP | Features::EVENT_REMOVE | Features::EVENT_UNMAP;
    events | Features::THREAD_ID | Features::MOVE
}

/// Who is at the door.
struct Guest {
    socket: OwnedFd,
    pid: u32,
    stage: Stage,
}

/// How far a guest has come.
enum Stage {
    Silent,
    /// It was welcomed.
    Welcomed {
        comm: Shared<Comm>,
        born: Option<Arc<Space>>,
    },
    /// Its agent is at work.
    Managed(Arc<Space>),
}

/// What becomes of a guest.
enum Then {
    Stay(Stage),
    Leave,
}

/// Starts the thread.
pub(crate) fn start(core: &Arc<Core>, listener: OwnedFd) {
    let core = Arc::clone(core);
    crate::spawn("door", move || run(&core, &listener));
}

fn run(core: &Arc<Core>, listener: &OwnedFd) {
    let mut guests: Vec<Guest> = Vec::new();
    let tick = rustix::event::Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
    while !core.is_stopping() {
        let (ready, newcomer) = {
            let mut fds = vec![PollFd::new(listener, PollFlags::IN)];
            for guest in &guests {
                fds.push(PollFd::new(&guest.socket, PollFlags::IN));
                if let Stage::Managed(space) = &guest.stage
                    && let Some(program) = space.program.get()
                {
                    fds.push(PollFd::from_borrowed_fd(program.life.as_fd(), PollFlags::IN));
                } else {
                    fds.push(PollFd::new(&guest.socket, PollFlags::IN));
                }
            }
            let _ = poll(&mut fds, Some(&tick));
            let ready: Vec<bool> =
                fds[1..].chunks_exact(2).map(|pair| pair.iter().any(|fd| !fd.revents().is_empty())).collect();
            (ready, !fds[0].revents().is_empty())
        };
        let mut stayed = Vec::new();
        for (guest, ready) in guests.into_iter().zip(ready) {
            if !ready {
                stayed.push(guest);
                continue;
            }
            let Guest { socket, pid, stage } = guest;
            if let Then::Stay(stage) = attend(core, &socket, pid, stage) {
                stayed.push(Guest { socket, pid, stage });
            }
        }
        guests = stayed;
        if newcomer && let Ok(socket) = accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            let pid = sockopt::socket_peercred(&socket).map_or(0, |who| who.pid.as_raw_nonzero().get().cast_unsigned());
            let _ = sockopt::set_socket_passcred(&socket, true);
            guests.push(Guest { socket, pid, stage: Stage::Silent });
        }
    }
}

/// Something has happened to a guest.
fn attend(core: &Arc<Core>, socket: &OwnedFd, pid: u32, stage: Stage) -> Then {
    if let Stage::Managed(space) = &stage
        && space.program.get().is_some_and(|program| program.has_exited())
    {
        space.end();
        return Then::Leave;
    }
    let received = match wire::receive(socket.as_fd()) {
        Ok(Some(received)) => received,
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Then::Stay(stage),
        Ok(None) | Err(_) => {
            if let Stage::Managed(space) = &stage {
                core.agent_died(space);
            }
            return Then::Leave;
        }
    };
    match (stage, received.packet.kind) {
        (Stage::Silent, HELLO) => welcome(core, socket, pid, &received.packet),
        (Stage::Silent, CONTROL) => control(core, socket, &received.packet),
        (Stage::Welcomed { comm, born }, READY) => match ready(core, socket, pid, (comm, born), received) {
            Ok(space) => Then::Stay(Stage::Managed(space)),
            Err(why) => {
                core.note(format!("process {pid} is not managed: {why}"));
                core.counters.unmanaged.add(1);
                Then::Leave
            }
        },
        (stage @ Stage::Managed(_), _) => Then::Stay(stage),
        _ => Then::Leave,
    }
}

fn welcome(core: &Arc<Core>, socket: &OwnedFd, pid: u32, hello: &Packet) -> Then {
    core.counters.processes.add(1);
    let born = (hello.words[0] != 0).then(|| core.space(SpaceId(hello.words[0]))).flatten();
    let comm = Shared::<Comm>::new("tmem-comm");
    let (Ok(comm), true) = (comm, hello.words[0] == 0 || born.is_some()) else {
        core.counters.unmanaged.add(1);
        let _ = wire::send(socket.as_fd(), &packet(REFUSED, &[]), &[]);
        return Then::Leave;
    };
    comm.magic.store(MAGIC, Ordering::Relaxed); // Relaxed: the socket publishes it
    for (word, of) in comm.key.iter().zip(core.key.iter()) {
        word.store(of.load(Ordering::Relaxed), Ordering::Relaxed); // Relaxed, both: as above, and never changed
    }
    #[cfg(feature = "fault-injection")]
    crate::injection::tell(&comm.injection, core.counters.processes.get());
    let faults = match (&born, &core.device) {
        (Some(space), _) => Some((1, space.faults.as_fd())),
        (None, Some(device)) => Some((2, device.as_fd())),
        (None, None) => None,
    };
    let words = [staging_bytes(core), faults.as_ref().map_or(0, |(kind, _)| *kind)];
    let mut fds = vec![comm.memfd()];
    fds.extend(faults.map(|(_, fd)| fd));
    match wire::send(socket.as_fd(), &packet(WELCOME, &words), &fds) {
        Ok(()) => Then::Stay(Stage::Welcomed { comm, born }),
        Err(errno) => {
            core.note(format!("process {pid} could not be welcomed ({errno})"));
            Then::Leave
        }
    }
}

/// Staging is a sixteenth of the limit: what is under way, and the quarantine.
fn staging_bytes(core: &Core) -> u64 {
    (core.limit() / 16 / HUGE_BYTES * HUGE_BYTES).clamp(4 * HUGE_BYTES, 64 * HUGE_BYTES)
}

fn ready(
    core: &Arc<Core>,
    socket: &OwnedFd,
    pid: u32,
    (comm, born): (Shared<Comm>, Option<Arc<Space>>),
    mut received: Received,
) -> Result<Arc<Space>, String> {
    let [tripwire, staging, staging_len, private, private_end, _, landing] = received.packet.words;
    let agent = received.pid;
    let said = |what: &str, error: &dyn core::fmt::Display| format!("{what} ({error})");
    let places = Places { tripwire, staging: staging..staging + staging_len, landing, private: private..private_end };
    let stages = usize::try_from(staging_len / HUGE_BYTES).unwrap_or(0);
    if agent == 0 || stages == 0 || !staging.is_multiple_of(HUGE_BYTES) || !tripwire.is_multiple_of(PAGE_BYTES) {
        return Err("its agent makes no sense".to_owned());
    }
    let life = Pidfd::open(agent).map_err(|error| said("its agent has gone", &error))?;
    let program = Pidfd::open(pid).map_err(|error| said("it has gone", &error))?;
    let is_born = born.is_some();
    let space = match born {
        Some(space) => space,
        None => {
            let fd = received.fds.pop().ok_or_else(|| "it could not make a userfaultfd".to_owned())?;
            let faults = Userfaultfd::from_fd(fd);
            faults.enable(features()).map_err(|error| said("its userfaultfd lacks what is needed", &error))?;
            Arc::new(Space::new(core.new_id(), faults, State::new(stages), None))
        }
    };
    let pagemap = Pagemap::open(agent).map_err(|error| said("its page map cannot be read", &error))?;
    let _ = space.pagemap.set(pagemap);
    let present = Present::open(agent).map_err(|error| said("its memory cannot be read", &error))?;
    let _ = space.present.set(present);
    space.tripwire.store(tripwire, Ordering::Relaxed); // Relaxed: before anything is registered, or the same as before
    if is_born {
        inherit(core, &space, &places, (agent, stages))?;
        let staging = space.faults.register(places.staging.clone());
        staging.map_err(|error| said("its staging cannot be registered", &error))?;
    }
    let _ = space.program.set(Program { pid, life: program });
    let socket = socket.try_clone().map_err(|error| said("out of descriptors", &error))?;
    wire::send(socket.as_fd(), &packet(GO, &[]), &[]).map_err(|error| said("its agent has gone", &error))?;
    let hands = Hands::new(agent, places, comm, socket, life);
    let fresh = space.hands.set(hands).is_ok();
    assert!(fresh, "an address space has one agent");
    core.add(&space);
    if is_born {
        server::start(core, &space);
    }
    core.counters.managed.add(1);
    Ok(space)
}

/// A fork child's agent is there. What was inherited is held against what the child has mapped: regions that are not
/// inherited (`MADV_DONTFORK`) have slots here, and may have become something else. What may be taken is worked out
/// anew.
fn inherit(core: &Core, space: &Space, places: &Places, (agent, stages): (u32, usize)) -> Result<(), String> {
    let mut mappings = Vec::new();
    tmem_sys::mappings(agent, &mut mappings).map_err(|error| format!("its mappings cannot be read ({error})"))?;
    let mut mapped = Intervals::default();
    mappings.into_iter().for_each(|mapping| mapped.insert(mapping.range));
    mapped.remove(&places.staging);
    mapped.remove(&places.private);
    let mut dropped = Vec::new();
    let mut state = lock(&space.state);
    state.staging = Staging::new(stages);
    state.armed = Intervals::default();
    for gap in mapped.gaps(0..u64::MAX / PAGE_BYTES * PAGE_BYTES) {
        state.pages.forget(pages_of(&gap), |_, slot| dropped.push(slot));
        state.registered.remove(&gap);
    }
    let dead = core.unname(&dropped);
    drop(state);
    core.flush(dead, Freed::Stored);
    Ok(())
}

/// `tmem limit`, of the same user or root.
fn control(core: &Core, socket: &OwnedFd, asked: &Packet) -> Then {
    let own = rustix::process::getuid();
    let allowed = sockopt::socket_peercred(socket).is_ok_and(|who| who.uid == own || who.uid.is_root());
    let answer = if allowed {
        let old = core.set_limit(asked.words[0]);
        packet(CONTROL, &[asked.words[0], old])
    } else {
        packet(REFUSED, &[])
    };
    let _ = wire::send(socket.as_fd(), &answer, &[]);
    Then::Leave
}

fn packet(kind: u32, words: &[u64]) -> Packet {
    let mut all = [0; 7];
    all[..words.len()].copy_from_slice(words);
    Packet { magic: MAGIC, kind, words: all }
}
