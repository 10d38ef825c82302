//! What all threads of the monitor share.

use core::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU64, Ordering};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, RwLock};
use std::time::Duration;

use tmem::{Client, Outcome, Policy, Pool, Store};
use tmem_agent::digest::Key;
use tmem_agent::protocol::PAGE_BYTES;
use tmem_sys::Turn;

use crate::copies::Worth;
use crate::counters::Counters;
use crate::options::{OnFull, Options};
use crate::slots::{Dropped, Freed, Place, Slot, Slots};
use crate::space::{Program, Space, SpaceId};
use crate::{lock, placement, read, write};

/// The object that holds all slots.
pub(crate) const OBJECT: u64 = 0;

/// While the store takes less than this part of the limit, room is not what is short.
const AMPLE_EIGHTHS: u64 = 5;

/// A limit that cannot hold is passed by such a part of it at a time.
const EXCEED_PARTS: u64 = 16;

/// Shared by all threads.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) store: Store,
    /// Who is charged for everything in it.
    pub(crate) client: Client,
    pub(crate) pool: Pool,
    pub(crate) slots: Mutex<Slots>,
    pub(crate) counters: Counters,
    /// Whether pages that come back are to have copies, and what their digests are made with.
    pub(crate) copies: Worth,
    pub(crate) key: Box<Key>,
    pub(crate) on_full: OnFull,
    policy: Policy,
    spaces: RwLock<BTreeMap<SpaceId, Arc<Space>>>,
    next_id: AtomicU64,
    limit: AtomicU64,
    /// Bytes that may still be given, as of the last look, less what was given since.
    room: AtomicI64,
    /// Bytes of files that programs have resident.
    pub(crate) files: AtomicU64,
    /// Whether a fault waits for room, and the evictor's alarm clock.
    hunger: Mutex<bool>,
    alarm: Condvar,
    /// Bytes by which the limit may be passed, where it cannot hold and the user allows it.
    exceeding: AtomicU64,
    pub(crate) stopping: AtomicBool,
    /// The evictor's thread: what it reads of programs' memory is given to it at once.
    pub(crate) evictor: AtomicI32,
    /// The store took no more, and its budget is to be raised if the limit allows it.
    pub(crate) store_is_short: AtomicBool,
    notes: Mutex<Vec<String>>,
    /// CPUs that the monitor may use.
    pub(crate) cpus: Vec<u32>,
    /// How servers share them with others.
    pub(crate) turn: Turn,
    /// For agents: opens userfaultfds. Absent where the system call does.
    pub(crate) device: Option<OwnedFd>,
}

impl Core {
    pub(crate) fn new(
        options: &Options,
        (store, client, pool): (Store, Client, Pool),
        device: Option<OwnedFd>,
        key: Box<Key>,
    ) -> Self {
        Self {
            store,
            client,
            pool,
            slots: Mutex::default(),
            counters: Counters::default(),
            copies: Worth::default(),
            key,
            on_full: options.on_full,
            policy: options.policy,
            spaces: RwLock::default(),
            next_id: AtomicU64::new(1),
            limit: AtomicU64::new(options.limit_bytes),
            room: AtomicI64::new(options.limit_bytes.cast_signed()),
            files: AtomicU64::new(0),
            hunger: Mutex::default(),
            alarm: Condvar::new(),
            exceeding: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            evictor: AtomicI32::new(0),
            store_is_short: AtomicBool::new(false),
            notes: Mutex::default(),
            cpus: tmem_sys::own_cpus().unwrap_or_default(),
            turn: placement::servers_turn(),
            device,
        }
    }

    // --- address spaces

    pub(crate) fn new_id(&self) -> SpaceId {
        SpaceId(self.next_id.fetch_add(1, Ordering::Relaxed)) // Relaxed: a number, unique and nothing more
    }

    pub(crate) fn add(&self, space: &Arc<Space>) {
        write(&self.spaces).insert(space.id, Arc::clone(space));
    }

    /// Nobody uses it any more.
    pub(crate) fn remove(&self, id: SpaceId) {
        let removed = write(&self.spaces).remove(&id);
        removed.inspect(|space| space.retire());
    }

    pub(crate) fn space(&self, id: SpaceId) -> Option<Arc<Space>> {
        read(&self.spaces).get(&id).cloned()
    }

    pub(crate) fn spaces(&self) -> Vec<Arc<Space>> {
        read(&self.spaces).values().cloned().collect()
    }

    /// The same, unless somebody is at the list.
    pub(crate) fn try_spaces(&self) -> Option<Vec<Arc<Space>>> {
        Some(self.spaces.try_read().ok()?.values().cloned().collect())
    }

    // --- the store

    /// How pages that go out now are to be encoded. **balanced** is fast while the store takes less than
    /// [`AMPLE_EIGHTHS`] of the limit: a denser store would save few faults and make each of them longer. (With half of the
    /// memory that a program wants, a sixth of density saves 7 % of the faults and takes 1.3 us more for a page, a quarter
    /// of what those cost that come in order: measured, a sequential scan took 0.53 of zram's time instead of 0.38.) The
    /// less is left for what is resident, the more density gains: in the end, whether the limit holds.
    pub(crate) fn policy_now(&self) -> Policy {
        match self.policy {
            Policy::Balanced if self.is_ample() => Policy::Fast,
            policy => policy,
        }
    }

    /// Whether room is not what is short: the store takes less than [`AMPLE_EIGHTHS`] of the limit.
    pub(crate) fn is_ample(&self) -> bool {
        (self.store.used_bytes() as u64) < self.limit() / 8 * AMPLE_EIGHTHS
    }

    // --- slots

    /// Takes a name from each slot, under the lock of the state that no longer names it: whoever holds that lock
    /// finds names and tables in agreement. Returns those that lost their last, to be given to [`Self::flush`].
    pub(crate) fn unname(&self, dropped: &[Slot]) -> Vec<Slot> {
        let mut slots = lock(&self.slots);
        dropped.iter().copied().filter(|slot| slots.drop_name(*slot) == Dropped::Flush).collect()
    }

    /// Flushes slots that nobody names, and frees them.
    pub(crate) fn flush(&self, mut dead: Vec<Slot>, was: Freed) {
        dead.sort_unstable();
        for run in dead.chunk_by(|a, b| a.0 + 1 == b.0) {
            let _ = self.pool.flush(OBJECT, run[0].offset(), run.len() as u64 * PAGE_BYTES); // what was there is not asked
        }
        let mut slots = lock(&self.slots);
        dead.into_iter().for_each(|slot| slots.free(slot, was));
    }

    /// Gives copies up that their pages have lost.
    pub(crate) fn discard(&self, copies: Vec<Slot>) {
        if copies.is_empty() {
            return;
        }
        let mut slots = lock(&self.slots);
        copies.iter().for_each(|slot| slots.discard_copy(*slot));
        drop(slots);
        self.flush(copies, Freed::Other);
    }

    /// Reads a stored slot.
    pub(crate) fn get(&self, slot: Slot, into: &mut [u8]) -> Result<(), Outcome> {
        match self.pool.get(OBJECT, slot.offset(), into) {
            Outcome::Filled => Ok(()),
            other => Err(other),
        }
    }

    /// Reads the page of a slot that the caller names, wherever it is. If that cannot be done, says why.
    pub(crate) fn fetch(&self, slot: Slot, into: &mut [u8]) -> Result<(), &'static str> {
        loop {
            let place = lock(&self.slots).place(slot);
            let Place::Staged(owner, at) = place else {
                return self.get(slot, into).map_err(|outcome| match outcome {
                    Outcome::Corrupt { .. } => "a page in the store is damaged",
                    _ => "a page is missing in the store",
                });
            };
            let Some(owner) = self.space(owner) else {
                if lock(&self.slots).place(slot) == place {
                    return Err("a staged page went with its owner");
                }
                continue; // its owner ended, and stored it before
            };
            // While this is held, what is staged stays where it is.
            let _reading = read(&owner.reading);
            if lock(&self.slots).place(slot) != place {
                continue;
            }
            let owner = owner.hands.get().zip(owner.present.get());
            let Some((hands, present)) = owner else { return Err("a staged page has no owner") };
            // A page that is missing, since the program discards what is not its own, is not waited for: by a server of its
            // own that would be for ever.
            match present.read(hands.staged(at), into) {
                Ok(()) => return Ok(()),
                // Its owner ended meanwhile, and stored it before its memory went.
                Err(_) if lock(&self.slots).place(slot) != place => {}
                Err(_) => return Err("a staged page cannot be read"),
            }
        }
    }

    // --- room

    pub(crate) fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed) // Relaxed: a number that stands alone
    }

    pub(crate) fn set_limit(&self, bytes: u64) -> u64 {
        let old = self.limit.swap(bytes, Ordering::Relaxed); // Relaxed: as above
        self.add_room(bytes.cast_signed().wrapping_sub(old.cast_signed()));
        old
    }

    pub(crate) fn room(&self) -> i64 {
        self.room.load(Ordering::Relaxed) // Relaxed: an estimate
    }

    pub(crate) fn add_room(&self, bytes: i64) {
        self.room.fetch_add(bytes, Ordering::Relaxed); // Relaxed: an estimate
    }

    /// Programs are given nothing of this: what the store takes while it makes room, a segment or two at a time.
    fn reserve(&self) -> i64 {
        (self.limit() / 16).min(4 << 20).cast_signed()
    }

    /// Below this the evictor works.
    pub(crate) fn low_room(&self) -> i64 {
        self.reserve() + (self.limit() / 32).clamp(2 << 20, 64 << 20).cast_signed()
    }

    /// Below this address spaces are armed: first touches come to us, and can be made to wait.
    pub(crate) fn arming_room(&self) -> i64 {
        (self.limit() / 4).clamp(8 << 20, 256 << 20).cast_signed()
    }

    /// Whether a program must wait before it is given more.
    pub(crate) fn must_wait(&self) -> bool {
        !self.has_room(0)
    }

    /// Whether a program can be given so many bytes at once.
    pub(crate) fn has_room(&self, bytes: u64) -> bool {
        // Relaxed: stored by the evictor, and noticed at some time.
        let beyond = self.exceeding.load(Ordering::Relaxed).cast_signed();
        self.room() - bytes.cast_signed() + beyond >= self.reserve()
    }

    /// What programs and the store have, and what the store must find free beside.
    pub(crate) fn needed(&self) -> u64 {
        (self.limit().cast_signed() - self.room() + self.reserve()).max(0).cast_unsigned()
    }

    /// Lets programs pass the limit by what is needed now and a little more.
    pub(crate) fn exceed(&self) {
        let limit = self.limit();
        let most = self.needed().saturating_sub(limit) + limit / EXCEED_PARTS;
        self.exceeding.store(most, Ordering::Relaxed); // Relaxed: as where it is loaded
        self.spaces().iter().for_each(|space| space.kick());
    }

    /// Something was freed: no more is allowed beyond the limit than would be now.
    pub(crate) fn exceed_less(&self) {
        let beyond = self.needed().saturating_sub(self.limit());
        let most = if beyond == 0 { 0 } else { beyond + self.limit() / EXCEED_PARTS };
        self.exceeding.fetch_min(most, Ordering::Relaxed); // Relaxed: as where it is loaded
    }

    /// A fault waits for room.
    pub(crate) fn hunger(&self) {
        *lock(&self.hunger) = true;
        self.alarm.notify_one();
    }

    /// The evictor sleeps until somebody is hungry, at most so long.
    pub(crate) fn sleep(&self, time: Duration) {
        let hunger = lock(&self.hunger);
        let (mut hunger, _) = self
            .alarm
            .wait_timeout_while(hunger, time, |hungry| !*hungry)
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        *hunger = false;
    }

    // --- people

    pub(crate) fn note(&self, text: String) {
        lock(&self.notes).push(text);
    }

    pub(crate) fn take_notes(&self) -> Vec<String> {
        core::mem::take(&mut lock(&self.notes))
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed) // Relaxed: noticed at some time
    }

    /// An agent has died. If its program lives, nobody can vouch for its memory any more; that an agent ends with its
    /// program, or after it, is no news.
    pub(crate) fn agent_died(&self, space: &Space) {
        let exited = space.program.get().is_none_or(Program::has_exited);
        if exited || space.is_gone() {
            space.end();
        } else {
            self.fail_closed(space, "its agent died");
        }
    }

    /// Something is wrong with what we know of an address space: its program is stopped before it can see a wrong
    /// byte.
    pub(crate) fn fail_closed(&self, space: &Space, why: &str) {
        if !space.is_gone() {
            let pid = space.program.get().map_or(0, |program| program.pid);
            self.note(format!("process {pid} was killed, because tmem could not vouch for its memory: {why}"));
        }
        space.kill_program();
        space.end();
    }
}

#[cfg(test)]
impl Core {
    /// One with a small store, and no threads.
    pub(crate) fn of_tests(limit_bytes: u64) -> Self {
        let store = Store::new(tmem::StoreOptions::with_budget(16 << 20)).unwrap();
        let client = store.client(tmem::ClientOptions::named("test"));
        let pool = client.create_pool(tmem::PoolOptions::persistent()).unwrap();
        let options = Options { limit_bytes, policy: Policy::Fast, on_full: OnFull::Stop };
        Self::new(&options, (store, client, pool), None, crate::monitor::key().unwrap())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_cannot_hold_is_passed_by_little_and_no_longer_than_needed() {
        const MIB: i64 = 1 << 20;
        let core = Core::of_tests(64 << 20);
        core.add_room(-64 * MIB);
        assert!(core.must_wait(), "everything is given");
        core.exceed();
        assert!(core.has_room(4 << 20) && !core.has_room((4 << 20) + 1), "a sixteenth of the limit");
        core.add_room(-4 * MIB);
        core.exceed_less();
        assert!(!core.must_wait() && !core.has_room(1), "what was allowed is kept, and is used up");
        core.exceed();
        assert!(core.has_room(4 << 20));
        core.add_room(5 * MIB);
        core.exceed_less();
        assert!(
            core.has_room(4 << 20) && !core.has_room((4 << 20) + 1),
            "it is passed by what was not freed, and a sixteenth"
        );
        core.add_room(58 * MIB);
        core.exceed_less();
        assert!(core.has_room(0));
        core.add_room(-60 * MIB);
        assert!(core.must_wait(), "the limit holds");
    }
}
