//! Servers of this process's own memory.

use super::*;
use crate::slots::Staged;
use crate::space::SpaceId;
use std::sync::mpsc::{Receiver, channel};
use tmem_sys::{Pages, Reservation};

/// Whoever waits for a page has it by now.
const PATIENCE: Duration = Duration::from_secs(20);
const LIMIT: u64 = 64 << 20;
/// What is read of a page that cannot be had.
const BROKEN: u8 = 0xbb;

/// An address space that is this process's own, with memory that is registered.
struct Served {
    core: Arc<Core>,
    space: Arc<Space>,
    /// Never unmapped: that would wait for a server to read of it, and when a test fails there may be none.
    memory: &'static Reservation,
}

impl Served {
    /// None where userfaultfds are not to be had, which is said.
    fn start() -> Option<Self> {
        let faults = Userfaultfd::new().and_then(|faults| faults.enable(crate::door::features()).map(|_| faults));
        let faults = faults.inspect_err(|errno| eprintln!("skipped: no userfaultfd ({errno})")).ok()?;
        let core = Arc::new(Core::of_tests(LIMIT));
        let memory: &Reservation = Box::leak(Box::new(Reservation::new(2 << 20).unwrap()));
        memory.commit_private(0..memory.len(), Pages::Small).unwrap();
        let start = memory.base().expose_provenance().get() as u64;
        faults.register(start..start + memory.len() as u64).unwrap();
        let space = Arc::new(Space::new(SpaceId(1), faults, State::new(0), None));
        core.add(&space);
        super::start(&core, &space);
        Some(Self { core, space, memory })
    }

    fn address(&self, page: usize) -> u64 {
        self.memory.base().expose_provenance().get() as u64 + (page * PAGE) as u64
    }

    /// Reads a page of it in another thread, which waits until it is there, or cannot be had.
    fn read(&self, page: usize) -> Receiver<u8> {
        let address = self.address(page);
        let (done, told) = channel();
        std::thread::spawn(move || {
            let mut byte = [1];
            let read = tmem_sys::read_memory(std::process::id(), address, &mut byte);
            let _ = done.send(read.map_or(BROKEN, |_| byte[0]));
        });
        told
    }
}

/// The evictor reads memory of programs, and may be the one that waits.
#[test]
fn nobody_waits_for_ever_for_a_page_that_is_lost() {
    let Some(served) = Served::start() else { return };
    let slot = {
        let mut slots = lock(&served.core.slots);
        let slot = slots.stage(served.space.id, Staged(0));
        assert!(slots.store(slot));
        slot
    };
    lock(&served.space.state).pages.set(Page::of(served.address(3)), slot);
    assert_eq!(served.read(3).recv_timeout(PATIENCE), Ok(BROKEN));
    assert!(served.space.is_gone(), "the program was not killed");
}

/// The agent, and the evictor, may touch memory of a program that has gone.
#[test]
fn servers_go_on_until_an_address_space_is_retired() {
    let Some(served) = Served::start() else { return };
    assert_eq!(served.read(0).recv_timeout(PATIENCE), Ok(0), "while the program lives");
    served.space.end();
    for page in 1..100 {
        assert_eq!(served.read(page).recv_timeout(PATIENCE), Ok(0), "page {page} after it has gone");
    }
    served.core.remove(served.space.id);
    assert!(served.space.is_retired());
    // Each server has the address space, until it ends.
    let end = Instant::now() + PATIENCE;
    while Arc::strong_count(&served.space) > 1 {
        assert!(Instant::now() < end, "servers do not end");
        std::thread::yield_now();
    }
}

/// Whoever had it rest may be the one that tells of the end, and nobody tells twice. Such servers lived as long as the
/// monitor, with all that they know of an address space.
#[test]
fn a_server_that_rests_ends_when_its_address_space_is_retired() {
    let Some(served) = Served::start() else { return };
    let seat = placement::seats(&served.core).unwrap().swap_remove(0);
    let mut server = Server::new(&served.core, &served.space, &seat);
    server.vain = VAIN; // it looks for faults no more, since another one takes them
    served.space.awake.store(2, Ordering::Relaxed); // Relaxed: a count
    lock(&served.space.seats).push(Arc::clone(&seat));
    let (done, told) = channel();
    std::thread::spawn(move || {
        server.wait();
        done.send(()).unwrap();
    });
    while !seat.rests() {
        std::thread::yield_now();
    }
    served.core.remove(served.space.id);
    assert_eq!(told.recv_timeout(PATIENCE), Ok(()), "it waits for faults of an address space that has gone");
}

/// What a mapping grows by (`mremap`) is registered with it, which nobody tells.
#[test]
fn what_nobody_knew_to_be_registered_is_learned_of_by_its_faults() {
    let Some(served) = Served::start() else { return };
    let pid = std::process::id();
    let program = crate::space::Program { pid, life: tmem_sys::Pidfd::open(pid).unwrap() };
    served.space.program.set(program).unwrap();
    let mapping = served.address(0)..served.address(0) + served.memory.len() as u64;
    assert!(lock(&served.space.state).registered.is_empty());
    assert_eq!(served.read(7).recv_timeout(PATIENCE), Ok(0));
    assert_eq!(lock(&served.space.state).registered.overlaps(&mapping), [mapping]);
}
