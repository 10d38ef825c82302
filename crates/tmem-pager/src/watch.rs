//! The watch: how much is resident, how much may still be given, and which address spaces are to be armed.
//!
//! Nothing tells when a program maps memory or touches what is not registered, so the watch looks, the more often the
//! less room there is. When room gets short it *arms* address spaces: registers their anonymous memory, so that from
//! then on first touches come to their servers, which can make them wait. A program under its limit is never armed
//! and pays nothing.
//!
//! # Arming
//! To take a page from an address that is not registered would leave a hole that reads as zeros, so the set of armed
//! ranges must never hold anything that is not. Mappings are read, registered, then read again; of the second reading
//! those count of which the kernel says that they are registered. All of this is done under the state's lock, and whatever
//! unmaps a registered range waits until its event has been read, for which that lock is needed: it is applied
//! afterwards, and takes the range out again.
//!
//! A mapping is registered as a whole or not at all: the kernel moves (`mremap`) only what is of one kind.

use core::sync::atomic::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use tmem_agent::protocol::PAGE_BYTES;
use tmem_sys::{Mapping, MappingKind, MappingsOf, Residency, ResidencyOf, Sizes, Wake};

use crate::core::Core;
use crate::intervals::Intervals;
use crate::space::{Space, SpaceId};
use crate::{lock, server};

/// Address spaces with less anonymous memory are not armed.
const SMALL_BYTES: u64 = 4 << 20;
/// Mappings smaller than this are left alone.
const SMALL_MAPPING: u64 = 16 << 10;
/// What is left alone below and above the head of a thread's robust list, which lies in its control block: what the
/// kernel writes when the thread exits, and the part of a stack that is always in use.
const STACK_TOP: (u64, u64) = (16 << 10, 8 << 10);
/// The fastest that a program can take memory, in bytes a millisecond.
const FASTEST: i64 = 2 << 20;
/// What it takes while one of its mappings is armed, which lasts some 8 microseconds. Where there are thousands, that
/// begins the earlier.
const LEAD_BYTES: u64 = 16 << 10;
/// The store's budget at first.
pub(crate) const STORE_BYTES: u64 = 16 << 20;
/// What the store may take beyond what its live blocks need and a sixteenth of that, at first: open segments, and what
/// the cleaner works with. By how much that grows when the store takes no more, which is measured, since what is open
/// depends on who is at work.
const SLACK: (u64, u64) = (10 << 20, 2 << 20);
/// How often address spaces are armed anew while room is short: what was mapped since is not. If an address space
/// has another size than before; and if it has not.
const ARMING: Duration = Duration::from_millis(4);
const ARMING_AGAIN: Duration = Duration::from_millis(40);
/// How often it is asked what changes slowly, and whether a program has become another one.
const CHECKING: Duration = Duration::from_millis(20);
/// Shares of memory that processes have in common are worked out so often at most, and no longer than a tenth of the
/// time.
const SHARING: Duration = Duration::from_millis(2);

/// What the watch remembers of an address space.
struct Seen {
    residency: ResidencyOf,
    /// All that the kernel tells, as of when it was last asked.
    last: Residency,
    anonymous: u64,
    mapped: u64,
    /// When it was last armed, and how much was mapped then.
    armed: Option<(Instant, u64)>,
    /// What it may take while it is armed, as of when that came near.
    lead: Option<u64>,
    /// Its anonymous memory and its share of it, when last worked out; and whether it ever was.
    share: (u64, u64),
    worked_out: bool,
    /// It could not be armed, and people were told.
    refused: bool,
}

struct Watch {
    core: Arc<Core>,
    seen: BTreeMap<SpaceId, Seen>,
    own: ResidencyOf,
    armed: Instant,
    checked: Instant,
    shared: Instant,
    /// How long until they are worked out again.
    sharing: Duration,
    /// Busy pages that were refused when shares were last worked out.
    refused: u64,
    /// The store's budget, and how much of it is slack.
    budget: u64,
    slack: u64,
    mappings: Vec<Mapping>,
    threads: Vec<u32>,
}

/// Starts it.
pub(crate) fn start(core: &Arc<Core>) -> std::io::Result<()> {
    let now = Instant::now();
    let watch = Watch {
        core: Arc::clone(core),
        seen: BTreeMap::new(),
        own: ResidencyOf::open(std::process::id())?,
        armed: now,
        checked: now,
        shared: now,
        sharing: SHARING,
        refused: 0,
        budget: STORE_BYTES,
        slack: SLACK.0,
        mappings: Vec::new(),
        threads: Vec::new(),
    };
    crate::spawn("watch", move || watch.run());
    Ok(())
}

impl Watch {
    fn run(mut self) {
        crate::step_forward();
        while !self.core.is_stopping() {
            let spaces = self.core.spaces();
            let all = self.checked.elapsed() > CHECKING;
            self.look(&spaces, all);
            let room = self.core.room();
            if room < self.core.low_room() {
                self.core.hunger();
            }
            if room < 2 * self.core.arming_room() && self.armed.elapsed() > ARMING {
                spaces.iter().for_each(|space| self.arm_if_large(space, room));
                self.armed = Instant::now();
            }
            if all {
                spaces.iter().for_each(|space| check(&self.core, space));
                self.checked = Instant::now();
            }
            let spare = (room - self.core.low_room()).max(0) / 2;
            std::thread::sleep(Duration::from_millis((spare / FASTEST).clamp(1, 20).cast_unsigned()));
        }
    }

    /// Adds everything up. Unless `all` is to be looked at, what changes slowly is as it was.
    fn look(&mut self, spaces: &[Arc<Space>], all: bool) {
        let (limit, room) = (self.core.limit(), self.core.room());
        let before = self.seen.len();
        self.seen.retain(|id, _| spaces.iter().any(|space| space.id == *id));
        let someone_left = self.seen.len() < before;
        let mut most = Residency::default();
        for space in spaces {
            let Some(hands) = space.hands.get() else { continue };
            let seen = match self.seen.entry(space.id) {
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::btree_map::Entry::Vacant(entry) => {
                    let Ok(residency) = ResidencyOf::open(hands.pid) else { continue };
                    entry.insert(Seen::new(residency, space))
                }
            };
            if all {
                seen.last = seen.residency.read().unwrap_or_default();
            }
            let Sizes { mapped, anonymous, backed } = seen.residency.sizes().unwrap_or_default();
            (seen.mapped, seen.anonymous) = (mapped, anonymous);
            most.file = backed.saturating_sub(seen.last.shared).max(most.file);
            most.shared += seen.last.shared;
            most.locked = seen.last.locked.max(most.locked);
            most.hugetlb = seen.last.hugetlb.max(most.hugetlb);
            let pages = u32::try_from(seen.anonymous / PAGE_BYTES).unwrap_or(u32::MAX);
            space.resident_pages.store(pages, Ordering::Relaxed); // Relaxed: an estimate
        }
        self.work_out_shares(spaces, someone_left);
        let programs: u64 = self.seen.values().map(Seen::given).sum();
        let own = self.own.sizes().unwrap_or_default().anonymous;
        self.fit_store();
        let resident = programs + most.file;
        self.core.files.store(most.file, Ordering::Relaxed); // Relaxed: a number that stands alone
        let store_used = self.core.store.used_bytes() as u64 + own;
        let given = resident + store_used;
        // What was given meanwhile stays taken, however long all of this took.
        self.core.add_room(limit.cast_signed() - given.cast_signed() - room);
        let slots = lock(&self.core.slots);
        let (stored, held) = (slots.stored() as u64 * PAGE_BYTES, slots.held() as u64 * PAGE_BYTES);
        drop(slots);
        let counters = &self.core.counters;
        counters.resident_now.set(resident);
        counters.resident_peak.raise(resident);
        if stored > counters.stored_peak.get() {
            counters.stored_peak.set(stored);
            counters.density.set(held * 1000 / store_used);
        }
        counters.store_peak.raise(store_used);
        counters.given_peak.raise(given);
        counters.wanted_peak.raise(resident + stored);
        counters.shared_bytes.raise(most.shared);
        counters.locked_bytes.raise(most.locked);
        counters.hugetlb_bytes.raise(most.hugetlb);
    }

    /// Pages that a child has in common with its parent are in both their counts. Where it matters, the kernel is
    /// asked for the shares; it takes milliseconds for large processes.
    fn work_out_shares(&mut self, spaces: &[Arc<Space>], someone_left: bool) {
        let short = self.core.room() < self.core.arming_room();
        let large = self.seen.values().filter(|seen| seen.anonymous > 2 * SMALL_BYTES).count();
        let refused = self.core.counters.refused_busy.get();
        // A child that was just forked has all its parent's pages in common with it.
        let newcomer = large > 1 && self.seen.values().any(|seen| !seen.worked_out && seen.anonymous > SMALL_BYTES);
        let due = short && self.shared.elapsed() >= self.sharing && (large > 1 || refused != self.refused);
        // What somebody had in common with others is theirs alone when it leaves.
        let heirs = someone_left && self.seen.values().any(|seen| seen.worked_out);
        if !newcomer && !heirs && !due {
            return;
        }
        let start = Instant::now();
        let Some(shares) = shares_of(&self.core, spaces) else { return };
        for (id, share) in shares {
            if let Some(seen) = self.seen.get_mut(&id) {
                seen.share = (seen.anonymous, share);
                seen.worked_out = true;
            }
        }
        self.refused = refused;
        self.shared = Instant::now();
        self.sharing = (start.elapsed() * 10).max(SHARING);
    }

    /// The store may take what its live blocks need and a little more: beyond that it is to compact.
    fn fit_store(&mut self) {
        let charged = self.core.client.charged_bytes() as u64;
        // Relaxed: the evictor sets it, and asks again.
        if self.core.store_is_short.swap(false, Ordering::Relaxed) && self.slack < self.core.limit() {
            self.slack += SLACK.1;
        }
        let wanted = (charged + charged / 16 + self.slack).min(self.core.limit().max(STORE_BYTES));
        if wanted > self.budget {
            // Never lowered here: that would wait for the cleaner, and nobody would watch.
            let set = self.core.store.set_budget(usize::try_from(wanted).unwrap_or(usize::MAX));
            assert!(set.is_ok(), "a budget is at least what the store began with");
            self.budget = wanted;
        }
    }

    fn arm_if_large(&mut self, space: &Arc<Space>, room: i64) {
        let seen = self.seen.get_mut(&space.id).filter(|seen| seen.anonymous >= SMALL_BYTES);
        let (Some(seen), Some(hands)) = (seen, space.hands.get()) else { return };
        let mapped = seen.mapped;
        let lead = *seen.lead.get_or_insert_with(|| {
            self.mappings.clear();
            let _ = tmem_sys::mappings(hands.pid, &mut self.mappings); // one that has gone has none
            self.mappings.len() as u64 * LEAD_BYTES
        });
        let most = self.core.arming_room();
        if room >= most + lead.cast_signed().min(most) {
            return;
        }
        let same = |(when, then): (Instant, u64)| then == mapped && when.elapsed() < ARMING_AGAIN;
        if space.is_gone() || seen.armed.is_some_and(same) || !self.arm(space) {
            return;
        }
        if let Some(seen) = self.seen.get_mut(&space.id) {
            seen.armed = Some((Instant::now(), mapped));
        }
    }

    /// See the module's head. Returns false if it is to be tried again soon.
    fn arm(&mut self, space: &Arc<Space>) -> bool {
        let (Some(hands), Some(program)) = (space.hands.get(), space.program.get()) else { return true };
        if lock(&space.seats).is_empty() {
            // Before anybody serves it, so that it is tried again if it fails; the tripwire last: of nothing before it a
            // fork tells.
            let tripwire = hands.places.tripwire..hands.places.tripwire + PAGE_BYTES;
            let registered =
                space.faults.register(hands.places.staging.clone()).and_then(|()| space.faults.register(tripwire));
            if registered.is_err() {
                self.tell_refused(space, program.pid);
                return false;
            }
            server::start(&self.core, space);
        }
        let excluded = self.stacks(space, hands.pid, program.pid);
        let mut state = lock(&space.state);
        state.excluded = excluded;
        // What is armed may have left, and something else, not to be registered in part, be there instead.
        if space.faults.is_changing() {
            return false;
        }
        let mut registered = Intervals::default();
        let mut stayed = true;
        let Ok(mut now) = MappingsOf::open(hands.pid) else { return true };
        for mapping in self.mappings.iter().filter(|mapping| is_ours_to_take(mapping)) {
            for gap in state.armed.gaps(mapping.range.clone()).into_iter().filter(|gap| !hands.is_own(gap)) {
                let there = is_as_it_was(&mut now, mapping);
                stayed &= there;
                if !there {
                    continue;
                }
                // Whatever comes of it: it may leave at once.
                if space.faults.register(gap.clone()).is_ok() {
                    state.registered.insert(gap.clone());
                    registered.insert(gap);
                }
            }
        }
        self.mappings.clear();
        if registered.is_empty() || tmem_sys::mappings(hands.pid, &mut self.mappings).is_err() {
            return stayed;
        }
        for mapping in self.mappings.iter().filter(|mapping| is_ours_to_take(mapping)) {
            for part in registered.overlaps(&mapping.range) {
                if space.faults.is_registered(part.start) {
                    state.armed.insert(part);
                }
            }
        }
        stayed
    }

    /// Tells people, once, that an address space cannot be armed so far.
    fn tell_refused(&mut self, space: &Space, program: u32) {
        let seen = self.seen.get_mut(&space.id);
        if seen.is_some_and(|seen| !core::mem::replace(&mut seen.refused, true)) {
            self.core.note(format!("process {program} cannot be paged yet: its memory cannot be registered"));
        }
    }

    /// Reads the mappings, and tells what of them the kernel or a thread needs at any time.
    fn stacks(&mut self, space: &Space, agent: u32, program: u32) -> Intervals {
        let mut excluded = Intervals::default();
        self.threads.clear();
        let _ = tmem_sys::threads(program, &mut self.threads);
        let heads: Vec<u64> =
            self.threads.iter().filter_map(|thread| tmem_sys::robust_list_head(*thread).ok()).collect();
        self.mappings.clear();
        if tmem_sys::mappings(agent, &mut self.mappings).is_err() {
            self.mappings.clear();
        }
        lock(&space.robust).clone_from(&heads);
        for head in heads {
            let start = head.saturating_sub(STACK_TOP.0) / PAGE_BYTES * PAGE_BYTES;
            excluded.insert(start..(head + STACK_TOP.1) / PAGE_BYTES * PAGE_BYTES);
        }
        excluded
    }
}

/// The shares of all address spaces. None: there is one with an unknown share, a child that has no agent yet.
fn shares_of(core: &Core, spaces: &[Arc<Space>]) -> Option<Vec<(SpaceId, u64)>> {
    let mut shares = Vec::new();
    for space in spaces {
        let hands = space.hands.get()?;
        // One that cannot be asked any more has exited, and has none.
        shares.push((space.id, tmem_sys::proportional_anonymous(hands.pid).unwrap_or(0)));
    }
    let newest = |spaces: &[Arc<Space>]| spaces.last().map(|space| space.id);
    // One that was forked meanwhile has halved what was read.
    (newest(&core.spaces()) == newest(spaces)).then_some(shares)
}

impl Seen {
    fn new(residency: ResidencyOf, space: &Space) -> Self {
        let Sizes { mapped, anonymous, .. } = residency.sizes().unwrap_or_default();
        // All that a child has that was just forked is its parent's too.
        let inherited = if space.family == space.id { 0 } else { anonymous };
        Self {
            residency,
            last: Residency::default(),
            anonymous,
            mapped,
            armed: None,
            lead: None,
            share: (inherited, 0),
            worked_out: false,
            refused: false,
        }
    }

    /// Its part of the memory that is given.
    fn given(&self) -> u64 {
        let (then, share) = self.share;
        (share + self.anonymous).saturating_sub(then)
    }
}

/// Whether a mapping may be armed: private, anonymous, writable, large enough, not the main thread's stack.
fn is_ours_to_take(mapping: &Mapping) -> bool {
    let anonymous = matches!(mapping.kind, MappingKind::Anonymous | MappingKind::Heap);
    anonymous
        && mapping.read
        && mapping.write
        && !mapping.shared
        && mapping.range.end - mapping.range.start >= SMALL_MAPPING
}

/// Whether a mapping is still there, with the same ends. To register a part of one would split it, and the program could
/// not move it any more (`mremap`).
fn is_as_it_was(now: &mut MappingsOf, mapping: &Mapping) -> bool {
    now.at(mapping.range.start).ok().flatten().is_some_and(|now| now.range == mapping.range)
}

/// Ends an address space whose program has become another one, or exited.
fn check(core: &Core, space: &Space) {
    let (Some(hands), Some(program)) = (space.hands.get(), space.program.get()) else {
        // Nobody knows the process: whether the address space lives is asked of itself.
        let tripwire = space.tripwire.load(Ordering::Relaxed); // Relaxed: set once, before
        let mut birth = [0; 4096];
        birth[..8].copy_from_slice(&space.id.0.to_le_bytes());
        if tripwire != 0
            && space.faults.copy(tripwire, &birth, Wake::Yes).is_err_and(|error| error.errno == Errno::SRCH)
        {
            space.end();
        }
        return;
    };
    if space.is_gone() {
        return;
    }
    if program.has_exited() {
        space.end();
    } else if hands.is_dead() {
        core.agent_died(space);
    } else if tmem_sys::same_memory(program.pid, hands.pid) == Ok(false) {
        space.end();
    }
}
