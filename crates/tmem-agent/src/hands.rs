//! The agent itself: takes commands, moves pages, encodes them.
//!
//! It runs in a process that shares the program's address space. It has the program's thread register, so it must
//! never use thread-local storage; it allocates nothing and calls no libc.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicI32, Ordering};

use tmem_codec::{GRANULE, Policy, Temperature, Workspace};

use crate::digest::digest;
use crate::injection::{self, Call};
use crate::protocol::{
    ASKED, BATCH, BLOCK_HEADER_BYTES, BLOCK_UNIT_BYTES, BUSY, CANCELLED, Comm, Command, ENCODE, FILLED, FREE,
    GATE_FREE, GATE_HELD, GATE_WAITED, GO, GONE, HUGE_BYTES, MAGIC, MOVE_OUT, MOVE_PAGES, MOVE_RANGE, MOVED, OCCUPIED,
    PAGE_BYTES, Packet, READY, REFUSED_BY_KERNEL, REGION, REGIONS, SAME, TOUCH, UNKNOWN, encoded,
};
use crate::{boot, sys, wire};

pub(crate) const STAGING_NAME: &[u8] = b"tmem staging\0";
pub(crate) const LANDING_NAME: &[u8] = b"tmem landing\0";

/// Looks at `submitted` before the agent goes to sleep: some 20 microseconds.
const SPINS: u32 = 400;
/// Looks at whether the monitor wants or holds the gate, before the agent goes to sleep over it: as long, a few times what
/// a server takes. To be woken, it would take the server's CPU, with a fault half answered.
const COURTESY: u32 = 400;

const UFFDIO_MOVE: usize = 0xC028_AA05;
const UFFDIO_REGISTER: usize = 0xC020_AA00;
const UFFDIO_UNREGISTER: usize = 0x8010_AA01;
/// Modes of a move: whether who waits for a page at its new place is awakened.
const WAKE: u64 = 0;
const DONT_WAKE: u64 = 1;

/// `struct uffdio_move`.
#[repr(C)]
struct Move {
    to: u64,
    from: u64,
    len: u64,
    mode: u64,
    moved: i64,
}

/// Where things are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    pub(crate) tripwire: u64,
    pub(crate) staging: u64,
    pub(crate) staging_bytes: u64,
    pub(crate) window: u64,
    pub(crate) landing: u64,
    /// Everything of the agent's own but staging.
    pub(crate) private: u64,
    pub(crate) end: u64,
}

/// What the agent has. The thread that starts it reads `comm` and `socket`; the rest is the agent's.
pub(crate) struct Hands {
    pub(crate) comm: &'static Comm,
    socket: i32,
    faults: i32,
    program: i32,
    birth: u64,
    pub(crate) layout: Layout,
    regions: [AtomicI32; REGIONS],
    own: UnsafeCell<Own>,
}

// SAFETY: `own` is used by the agent only; the rest is never changed, or atomic.
unsafe impl Sync for Hands {}

pub(crate) struct Own {
    pub(crate) workspace: &'static mut Workspace,
    /// What the window shows: region and offset of the segment.
    shown: Option<(u64, u64)>,
    /// Where regions are mapped to read blocks from; 0: not yet.
    pub(crate) readable: [u64; REGIONS],
}

impl Hands {
    /// The workspace is made in place, so that none of its pages is touched before it is used.
    ///
    /// # Safety
    /// `place` and `workspace` are fresh memory for one each: zeroed, aligned, nobody else's, never unmapped.
    pub(crate) unsafe fn init(
        (place, workspace): (*mut Self, *mut Workspace),
        comm: &'static Comm,
        (socket, faults): (i32, i32),
        (program, birth): (i32, u64),
        layout: Layout,
    ) {
        let regions = [const { AtomicI32::new(-1) }; REGIONS];
        // SAFETY: the caller's contract.
        unsafe { Workspace::init_zeroed(workspace) };
        // SAFETY: just made, and nobody else's.
        let workspace = unsafe { &mut *workspace };
        let own = UnsafeCell::new(Own { workspace, shown: None, readable: [0; REGIONS] });
        // SAFETY: the caller's contract.
        unsafe { place.write(Self { comm, socket, faults, program, birth, layout, regions, own }) };
    }

    pub(crate) fn socket(&self) -> i32 {
        self.socket
    }
}

/// The agent's life.
pub(crate) extern "C" fn run(at: u64) -> ! {
    // SAFETY: `launch` passes the Hands that it was given, which lives as long as the address space.
    let hands: &Hands = unsafe { &*core::ptr::with_exposed_provenance(at as usize) };
    // SAFETY: this is the agent, and there is one.
    let own = unsafe { &mut *hands.own.get() };
    hands.introduce();
    let mut done = 0_u32;
    loop {
        hands.answer(own);
        // Acquire: pairs with the monitor's store; the command is visible.
        if hands.comm.submitted.load(Ordering::Acquire) == done {
            hands.rest(done);
            continue;
        }
        hands.obey(&hands.comm.commands[(done % 2) as usize], own);
        done = done.wrapping_add(1);
        // Release: pairs with the monitor's acquire; the results are visible.
        hands.comm.completed.store(done, Ordering::Release);
        sys::futex_wake(&hands.comm.completed);
    }
}

impl Hands {
    /// Lets go of the program's things, and waits until the monitor says "go".
    fn introduce(&self) {
        sys::setsid();
        sys::name_process(b"tmem-agent\0");
        let (low, high) = (self.socket.min(self.faults), self.socket.max(self.faults));
        let (low, high) = (low.cast_unsigned(), high.cast_unsigned());
        close_below(low);
        sys::close_range(low + 1, high.wrapping_sub(1).max(low));
        sys::close_range(high + 1, u32::MAX);
        let Layout { tripwire, staging, staging_bytes, landing, private, end, .. } = self.layout;
        let words = [tripwire, staging, staging_bytes, private, end, u64::from(sys::getpid().cast_unsigned()), landing];
        let ready = Packet { magic: MAGIC, kind: READY, words };
        let sent = wire::send(self.socket, &ready, if self.birth == 0 { self.faults } else { -1 });
        let go = sent && wire::receive(self.socket).is_some_and(|received| received.packet.kind == GO);
        // Release: pairs with the waiting thread's acquire.
        self.comm.go.store(if go { 1 } else { 2 }, Ordering::Release);
        sys::futex_wake(&self.comm.go);
        if !go {
            sys::exit();
        }
    }

    /// Waits for a command, first awake, then asleep.
    fn rest(&self, done: u32) {
        for _ in 0..SPINS {
            core::hint::spin_loop();
            // Relaxed, both: looked at again by the caller.
            let asked = self.comm.asked.load(Ordering::Relaxed) == ASKED;
            if asked || self.comm.submitted.load(Ordering::Relaxed) != done {
                return;
            }
        }
        // SeqCst, all: we store `sleeps`, then load `submitted` and `asked`; the monitor stores one of these, then
        // loads `sleeps`. One of the two sees the other.
        self.comm.sleeps.store(1, Ordering::SeqCst);
        let asked = self.comm.asked.load(Ordering::SeqCst) == ASKED; // as above
        if !asked && self.comm.submitted.load(Ordering::SeqCst) == done {
            match wire::receive(self.socket) {
                None => self.orphaned(),
                Some(received) => self.take_region(&received),
            }
        }
        self.comm.sleeps.store(0, Ordering::Relaxed); // Relaxed: a doorbell too many does no harm
    }

    fn take_region(&self, received: &wire::Received) {
        let number = received.packet.words[0] as usize;
        if received.packet.kind == REGION && number < REGIONS {
            self.regions[number].store(received.fds[0], Ordering::Relaxed); // Relaxed: the agent's own
        }
    }

    /// The monitor is dead. A program of which nothing was ever taken can go on; any other would read holes as zeros.
    fn orphaned(&self) -> ! {
        // Relaxed: nobody writes it any more.
        let untouched = self.birth == 0 && self.comm.submitted.load(Ordering::Relaxed) == 0;
        if !untouched && sys::getppid() == self.program {
            boot::fail_closed();
        }
        sys::exit()
    }

    fn obey(&self, command: &Command, own: &mut Own) {
        let args = [0, 1, 2, 3].map(|at| command.args[at].load(Ordering::Relaxed)); // Relaxed: `submitted` published them
        let count = (command.count.load(Ordering::Relaxed) as usize).min(BATCH); // as above
        match command.op.load(Ordering::Relaxed) {
            // as above
            MOVE_OUT => self.move_out(command, count, args[0]),
            MOVE_RANGE => {
                self.move_range(command, [args[0], args[1], args[2], DONT_WAKE]);
            }
            ENCODE => self.encode(command, count, args, own),
            FREE => self.free(command, args[0], args[1]),
            TOUCH => self.touch(command, count),
            _ => {}
        }
    }

    // --- moving

    fn move_out(&self, command: &Command, count: usize, to: u64) {
        let page = |at: usize| command.pages[at].load(Ordering::Relaxed); // Relaxed: `submitted` published them
        let mut at = 0;
        while at < count {
            let gate = self.gate();
            if self.has_changed(command) {
                mark(command, at..count, CANCELLED);
                return;
            }
            if page(at) == 0 {
                mark(command, at..at + 1, CANCELLED);
                at += 1;
                continue;
            }
            let mut end = at + 1;
            while end < count && end - at < MOVE_PAGES && page(end) == page(at) + (end - at) as u64 * PAGE_BYTES {
                end += 1;
            }
            // Pages of one mapping go in one piece. Where a mapping ends is not known here: pieces get smaller until
            // they fit.
            let mut piece = end - at;
            while at < end {
                let len = piece.min(end - at) as u64 * PAGE_BYTES;
                let (moved, error) = self.move_bytes([to + at as u64 * PAGE_BYTES, page(at), len, DONT_WAKE]);
                let moved = (moved / PAGE_BYTES) as usize;
                mark(command, at..at + moved, MOVED);
                at += moved;
                match error {
                    0 => {}
                    sys::EAGAIN => {
                        mark(command, at..count, CANCELLED);
                        return;
                    }
                    sys::EINVAL if len > PAGE_BYTES => piece = (piece.min(end - at) / 2).max(1),
                    error => {
                        mark(command, at..at + 1, reason(error));
                        at += 1;
                    }
                }
            }
            drop(gate);
        }
    }

    /// Moves a range in one piece, if the kernel lets us. Returns what `results[0]` says.
    fn move_range(&self, command: &Command, [to, from, len, mode]: [u64; 4]) -> u32 {
        let _gate = self.gate();
        let mut done = 0;
        let mut result = MOVED;
        while done < len && result == MOVED {
            if self.has_changed(command) {
                result = CANCELLED;
                break;
            }
            let (moved, error) = self.move_bytes([to + done, from + done, len - done, mode]);
            done += moved;
            // Release: pairs with whoever asks where a page is.
            command.progress.store((done / PAGE_BYTES) as u32, Ordering::Release);
            result = if error == 0 { MOVED } else { reason(error) };
        }
        command.results[0].store(result, Ordering::Release); // as above
        result
    }

    /// Moves what was decoded to its place, and wakes who waits for it.
    pub(crate) fn move_landed(&self, command: &Command, to: u64) -> u32 {
        self.move_range(command, [to, self.layout.landing, HUGE_BYTES, WAKE])
    }

    /// Moves pages. Returns the bytes moved, and the error that ended it.
    fn move_bytes(&self, [to, from, len, mode]: [u64; 4]) -> (u64, isize) {
        let (result, told) = injection::moving(self.comm, len, |len| {
            let mut arg = Move { to, from, len, mode, moved: 0 };
            // SAFETY: the request reads and writes its struct, and moves pages of the program to staging, or from the
            // landing area to where the program has none. No reference to either exists.
            let result = unsafe { sys::ioctl(self.faults, UFFDIO_MOVE, &raw mut arg) };
            (result, arg.moved)
        });
        let moved = u64::try_from(told).unwrap_or(0);
        match result {
            0 => (len, 0),
            // Some went: what stopped it is told by the next try.
            _ if moved > 0 => (moved, 0),
            sys::EAGAIN if told < 0 => (0, told as isize),
            error => (0, error),
        }
    }

    fn has_changed(&self, command: &Command) -> bool {
        // Relaxed, both: the gate is held, and published the one; `submitted` the other.
        self.comm.epoch.load(Ordering::Relaxed) != command.epoch.load(Ordering::Relaxed)
    }

    fn gate(&self) -> Gate<'_> {
        let gate = &self.comm.gate;
        for _ in 0..COURTESY {
            // Relaxed, both: a hint, and a failure shows nothing. Acquire: pairs with the monitor's release; the epoch is
            // visible.
            let wanted = self.comm.gate_wanted.load(Ordering::Relaxed) != 0;
            if !wanted && gate.compare_exchange(GATE_FREE, GATE_HELD, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                return Gate(self);
            }
            core::hint::spin_loop();
        }
        // Acquire: as above.
        while gate.swap(GATE_WAITED, Ordering::Acquire) != GATE_FREE {
            sys::futex_wait(gate, GATE_WAITED, 500);
            if wire::has_closed(self.socket) {
                self.orphaned();
            }
        }
        Gate(self)
    }

    // --- encoding

    fn encode(&self, command: &Command, count: usize, [region, offset, len, policy]: [u64; 4], own: &mut Own) {
        let segment = offset / HUGE_BYTES * HUGE_BYTES;
        let end = (offset + len).min(segment + HUGE_BYTES) - segment;
        if !self.show(region, segment, own) {
            return;
        }
        let policy = match policy {
            0 => Policy::Fast,
            1 => Policy::Balanced,
            _ => Policy::Dense,
        };
        let mut at = offset - segment;
        for index in 0..count {
            self.answer(own);
            let page = command.pages[index].load(Ordering::Relaxed); // Relaxed: `submitted` published it
            // SAFETY: a staged page: it is there, and nobody writes to it; the codec bears it if somebody does.
            let page: &[u8; GRANULE] = unsafe { &*core::ptr::with_exposed_provenance(page as usize) };
            if index + 1 < count {
                prefetch(command.pages[index + 1].load(Ordering::Relaxed)); // Relaxed: as above
            }
            let known = [0, 1].map(|half| command.known[index][half].load(Ordering::Relaxed)); // Relaxed: as above
            let result = match tmem_codec::same_filled_half(page) {
                Some(pattern) => {
                    command.extra[index].store(pattern, Ordering::Relaxed); // Relaxed: `completed` publishes it
                    FILLED
                }
                None if known != UNKNOWN && digest(page, &self.comm.key) == known => SAME,
                None => {
                    let start = at + BLOCK_HEADER_BYTES;
                    let room = end.saturating_sub(start).min(PAGE_BYTES);
                    let to = core::ptr::with_exposed_provenance_mut::<u8>((self.layout.window + start) as usize);
                    // SAFETY: within the window, which shows the segment, and within the room that was given to us:
                    // nobody else uses it until the command is done.
                    let to = unsafe { core::slice::from_raw_parts_mut(to, room as usize) };
                    let block = tmem_codec::encode(own.workspace, policy, Temperature::Hot, page, to);
                    let Some(block) = block else { break };
                    at = (start + block.len as u64).next_multiple_of(BLOCK_UNIT_BYTES);
                    encoded(block.codec as u8, block.len as u32)
                }
            };
            command.results[index].store(result, Ordering::Relaxed); // Relaxed: `completed` publishes it
            command.progress.store(index as u32 + 1, Ordering::Relaxed); // as above
        }
    }

    /// Has the window show a segment.
    fn show(&self, region: u64, segment: u64, own: &mut Own) -> bool {
        if own.shown == Some((region, segment)) {
            return true;
        }
        let Some(fd) = self.await_region(region) else { return false };
        let flags = sys::MAP_SHARED | sys::MAP_FIXED;
        let shown = injection::refused(self.comm, Call::Mmap, || {
            // SAFETY: the window is ours, and nothing refers into it between commands.
            unsafe { sys::mmap(self.layout.window, HUGE_BYTES, sys::PROT_RW, flags, fd, segment) }
        });
        own.shown = (shown >= 0).then_some((region, segment));
        sys::madvise(self.layout.window, HUGE_BYTES, sys::MADV_DONTFORK);
        shown >= 0
    }

    /// The descriptor of a region that the monitor has told of. It may still be on its way.
    pub(crate) fn await_region(&self, number: u64) -> Option<i32> {
        while self.region(number).is_none() && (number as usize) < REGIONS {
            match wire::receive(self.socket) {
                None => self.orphaned(),
                Some(received) => self.take_region(&received),
            }
        }
        self.region(number)
    }

    fn region(&self, number: u64) -> Option<i32> {
        let fd = self.regions.get(number as usize)?.load(Ordering::Relaxed); // Relaxed: the agent's own
        (fd >= 0).then_some(fd)
    }

    /// Has each page written to by the kernel, as it is: what was shared with a child that has gone becomes the program's
    /// own again.
    fn touch(&self, command: &Command, count: usize) {
        let page = |at: usize| command.pages[at].load(Ordering::Relaxed); // Relaxed: `submitted` published them
        let mut at = 0;
        while at < count {
            let start = at;
            while at < count && page(at) == page(start) + (at - start) as u64 * PAGE_BYTES {
                at += 1;
            }
            // A page that has gone meanwhile comes back as the monitor says: it never makes the agent wait.
            let populate = |from: usize, to: usize| {
                let bytes = (to - from) as u64 * PAGE_BYTES;
                let advise = |bytes| sys::madvise(page(from), bytes, sys::MADV_POPULATE_WRITE);
                injection::populating(self.comm, bytes, advise)
            };
            if populate(start, at) != 0 {
                // One of them may not be written to, and the kernel went no further.
                (start..at).for_each(|alone| _ = populate(alone, alone + 1));
            }
        }
    }

    // --- giving back

    /// Gives the memory of a staging slot back. It is mapped anew, so that not even a page table is left: a huge page
    /// can be moved only to where there is none.
    fn free(&self, command: &Command, start: u64, len: u64) {
        let freed = match injection::refused(self.comm, Call::Unregister, || self.unregister(start, len)) {
            0 => self.map_anew(start, len),
            _ => self.discard(start, len),
        };
        if !freed {
            boot::fail_closed();
        }
        command.results[0].store(MOVED, Ordering::Relaxed); // Relaxed: `completed` publishes it
    }

    fn map_anew(&self, start: u64, len: u64) -> bool {
        let flags = sys::MAP_MEMORY | sys::MAP_FIXED;
        // SAFETY: a part of staging that holds nothing but garbage, as the monitor says.
        let mapped = unsafe { sys::mmap(start, len, sys::PROT_RW, flags, -1, 0) };
        let kept = sys::madvise(start, len, sys::MADV_DONTFORK);
        sys::name_memory(start, len, STAGING_NAME);
        let registered = self.register(start, len);
        mapped >= 0 && kept >= 0 && registered >= 0
    }

    /// Where the program has as many mappings as it may, so that none can be split: takes the memory of a part of staging
    /// alone. A page table is left, so the next huge page comes in pieces. The part stays registered, so a server has to
    /// read of it, and there is one as long as there is an agent. (To have all of staging unregistered for so long would
    /// save that, but what is missing in other parts, where the program has discarded it, would be read as zeros meanwhile.)
    fn discard(&self, start: u64, len: u64) -> bool {
        sys::madvise(start, len, sys::MADV_DONTNEED) >= 0
    }

    fn register(&self, start: u64, len: u64) -> isize {
        const MISSING: u64 = 1;
        let mut register = [start, len, MISSING, 0];
        // SAFETY: reads and writes its struct.
        unsafe { sys::ioctl(self.faults, UFFDIO_REGISTER, register.as_mut_ptr()) }
    }

    fn unregister(&self, start: u64, len: u64) -> isize {
        let mut range = [start, len];
        // SAFETY: reads its struct.
        unsafe { sys::ioctl(self.faults, UFFDIO_UNREGISTER, range.as_mut_ptr()) }
    }
}

/// The gate is held.
struct Gate<'a>(&'a Hands);

impl Drop for Gate<'_> {
    fn drop(&mut self) {
        let gate = &self.0.comm.gate;
        // Release: pairs with the monitor's acquire: it sees what was moved.
        if gate.swap(GATE_FREE, Ordering::Release) == GATE_WAITED {
            sys::futex_wake(gate);
        }
    }
}

/// Has a page on its way to the cache: in staging it has long been out of it.
fn prefetch(page: u64) {
    #[cfg(target_arch = "x86_64")]
    for line in (page..page + PAGE_BYTES).step_by(64) {
        use core::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        let line = core::ptr::with_exposed_provenance::<i8>(line as usize);
        // SAFETY: a hint: it does nothing to memory, and cannot fault.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(line) };
    }
}

fn close_below(low: u32) {
    if low > 0 {
        sys::close_range(0, low - 1);
    }
}

fn mark(command: &Command, pages: core::ops::Range<usize>, result: u32) {
    for page in pages.clone() {
        // Release: pairs with whoever asks where a page is.
        command.results[page].store(result, Ordering::Release);
    }
    command.progress.store(pages.end as u32, Ordering::Release); // as above
}

fn reason(error: isize) -> u32 {
    match error {
        sys::EAGAIN => CANCELLED,
        sys::EBUSY => BUSY,
        sys::ENOENT => GONE,
        sys::EEXIST => OCCUPIED,
        _ => REFUSED_BY_KERNEL,
    }
}
