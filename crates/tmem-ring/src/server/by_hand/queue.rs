//! A queue: bytes decide what its client writes to the memory of both, and when which of two workers claims or ends.
//!
//! Whatever they say, nothing panics or goes on for ever, no byte of the region changes but where a get was claimed, a
//! client that kept to the counts has a completion for each submission, and nothing is left of it when it is gone.

use super::super::queue::Served;
use super::super::run::{Job, carry_out};
use super::super::tenant::Tenant;
use super::{Bytes, store};
use crate::layout::{CANCELLED, Layout, MOST_SLICES, SLICE_WORDS, at};
use crate::memory::QueueMemory;
use crate::operation::{ObjectId, Opcode, Place, PoolId, Submission};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tmem::{ClientOptions, PoolOptions};
use tmem_sys::{Backing, Doorbell, Region};

const ENTRIES: u64 = 8;
const WORKERS: usize = 2;
const REGION_BYTES: usize = 512 << 10;
/// The number of the region that lasts, and of one that comes and goes.
const REGION: u16 = 3;
const PASSING: u16 = 4;

/// More turns than any client can keep two workers busy for.
const MOST_TURNS: usize = 10_000;

/// Everything around the queue.
struct World {
    served: Served,
    tenant: Arc<Tenant>,
    memory: QueueMemory,
    layout: Layout,
    pools: [PoolId; 2],
    region: Region,
    /// Where the serving side has it mapped.
    base: usize,
    before: Vec<u8>,
    jobs: [Vec<Job>; WORKERS],
    submitted: u64,
    /// The client has not written to the counts, nor was the queue stopped.
    orderly: bool,
}

/// Serves a queue as `bytes` say.
pub fn serve(bytes: &[u8]) {
    let store = store();
    let client = store.client(ClientOptions { cap_bytes: 8 << 20, ..ClientOptions::named("by hand") });
    let pools = [PoolOptions::persistent(), PoolOptions::ephemeral().policy(tmem::Policy::Dense)]
        .map(|options| client.create_pool(options).unwrap_or_else(|error| panic!("no pool: {error}")));
    let mut world = World::new(&client, &pools);
    let mut bytes = Bytes(bytes);
    while !bytes.is_empty() {
        world.step(&mut bytes);
    }
    world.run_dry();
    world.served.close();
    drop(world);
    client.destroy();
    for pool in pools {
        // Its own, so there is nothing to refuse.
        let _ = pool.destroy();
    }
    store.validate();
    assert_eq!(store.memory().charged, 0, "something is left of it");
}

// Relaxed in all of this: one thread.
impl World {
    fn new(client: &tmem::Client, pools: &[tmem::Pool; 2]) -> Self {
        let bell = Doorbell::new().unwrap_or_else(|error| panic!("no bell: {error}"));
        let tenant = Arc::new(Tenant::remote(client.clone(), 1, &Arc::new(bell)));
        let region = foreign_region();
        let fd = region.fd().try_clone_to_owned().unwrap_or_else(|error| panic!("no descriptor: {error}"));
        let theirs = Region::map_foreign(fd).unwrap_or_else(|error| panic!("no region: {error}"));
        let base = theirs.as_ptr().addr().get();
        assert!(tenant.register(REGION, theirs));
        let (served, _) = Served::new(Arc::clone(&tenant), ENTRIES, WORKERS).unwrap_or_else(|error| panic!("{error}"));
        let layout = Layout::new(ENTRIES).unwrap_or_else(|| unreachable!("a power of two"));
        Self {
            memory: served.memory(),
            served,
            tenant,
            layout,
            pools: [0, 1].map(|at: usize| PoolId(pools[at].id().0)),
            base,
            before: vec![0; region.len()],
            region,
            jobs: [Vec::new(), Vec::new()],
            submitted: 0,
            orderly: true,
        }
    }

    fn step(&mut self, bytes: &mut Bytes<'_>) {
        match bytes.byte() % 16 {
            0..=4 => self.submit(bytes),
            5 | 6 => self.turn(0),
            7 | 8 => self.turn(1),
            9 => self.reap(),
            10 => self.write_list(bytes),
            11 => self.write_region(bytes),
            12 => {
                let at = self.layout.submission(u64::from(bytes.byte()));
                self.memory[at].fetch_or(CANCELLED, Ordering::Relaxed); // as above
            }
            13 => {
                let at = usize::from(bytes.short()) % self.layout.words();
                // The first page has the counts.
                self.orderly &= at >= at::SUBMISSIONS;
                self.store(at, bytes.edge());
            }
            _ => self.happen(bytes),
        }
    }

    fn store(&self, at: usize, value: u64) {
        self.memory[at].store(value, Ordering::Relaxed); // as above
    }

    fn submit(&mut self, bytes: &mut Bytes<'_>) {
        let kinds = bytes.byte();
        let opcodes = [Opcode::Put, Opcode::Get, Opcode::Take, Opcode::Flush, Opcode::FlushObject];
        let size = |bytes: &mut Bytes<'_>, kind| match kind % 4 {
            0 => u64::from(bytes.byte()) * 4096,
            1 => u64::from(bytes.short()),
            2 => u64::from(bytes.byte()) << 14,
            _ => bytes.edge(),
        };
        let submission = Submission {
            opcode: opcodes[usize::from(kinds % 5)],
            region: if kinds < 0xf0 { REGION } else { PASSING },
            pool: if kinds == 0xe0 { PoolId(bytes.byte().into()) } else { self.pools[usize::from(kinds / 5 % 2)] },
            tag: self.submitted,
            object: ObjectId::from(u64::from(kinds / 16 % 3)),
            offset: size(bytes, kinds / 4),
            len: size(bytes, kinds / 32),
            place: match bytes.byte() {
                listed if listed >= 0xc0 => Place::Listed((listed % 12).into()),
                at => Place::At(u64::from(at) << 12),
            },
        };
        let mut words = submission.to_words();
        let damage = bytes.byte();
        if damage >= 0xe0 {
            words[usize::from(damage % 8)] ^= 1 << (bytes.byte() % 64);
        }
        for (nth, word) in words.iter().enumerate() {
            self.store(self.layout.submission(self.submitted) + nth, *word);
        }
        // Relaxed: as above.
        if self.submitted - self.memory[at::REAPED].load(Ordering::Relaxed).min(self.submitted) < ENTRIES {
            self.submitted += 1;
            self.store(at::SUBMITTED, self.submitted);
        }
    }

    fn write_list(&mut self, bytes: &mut Bytes<'_>) {
        let start = self.layout.annex(u64::from(bytes.byte()) % ENTRIES);
        let count = bytes.byte();
        self.store(start, if count < 0xf0 { u64::from(count % 8) } else { bytes.edge() });
        for nth in 1..=usize::from(count % 8).min(MOST_SLICES) {
            let whole = bytes.byte();
            let [offset, len] = if whole < 0xf0 {
                [u64::from(bytes.byte()) << 11, u64::from(whole) << 10]
            } else {
                [bytes.edge(), bytes.edge()]
            };
            self.store(start + nth * SLICE_WORDS, offset);
            self.store(start + nth * SLICE_WORDS + 1, len);
        }
    }

    fn write_region(&mut self, bytes: &mut Bytes<'_>) {
        let (start, len) = (usize::from(bytes.short()) << 3, usize::from(bytes.byte()) << 8);
        let most = usize::from(bytes.byte() % 32) + 1;
        let pattern = bytes.take(most);
        if pattern.is_empty() {
            return;
        }
        let written: Vec<u8> = pattern.iter().copied().cycle().take(len.min(REGION_BYTES - start)).collect();
        self.region.write(start, &written);
    }

    fn happen(&mut self, bytes: &mut Bytes<'_>) {
        match bytes.byte() % 16 {
            0 | 1 => drop(self.tenant.register(PASSING, foreign_region())),
            2 | 3 => drop(self.tenant.unregister(PASSING)),
            4..=7 => drop(self.served.arm()),
            8..=11 => self.served.heard(),
            12 => {
                self.orderly = false;
                self.served.stop();
            }
            13 => self.served.hung_up(),
            _ => assert!(!self.served.seems_busy() || !self.served.is_closed()),
        }
    }

    /// A worker claims, or ends what it has claimed.
    fn turn(&mut self, worker: usize) {
        let jobs = &mut self.jobs[worker];
        if jobs.is_empty() {
            self.served.claim(worker, jobs);
            return;
        }
        self.region.read(0, &mut self.before);
        let filled: Vec<_> = jobs.iter().flat_map(|job| filled(job, self.base)).collect();
        carry_out(jobs, &self.tenant);
        let mut after = vec![0; self.before.len()];
        self.region.read(0, &mut after);
        for (start, len) in filled {
            after[start..start + len].copy_from_slice(&self.before[start..start + len]);
        }
        assert!(after == self.before, "bytes were written that no get named");
        let _rings = self.served.finish(worker, jobs); // nobody sits by the bell
    }

    fn reap(&self) {
        // Relaxed: as above.
        let completed = self.memory[at::COMPLETED].load(Ordering::Relaxed);
        self.store(at::REAPED, completed);
    }

    /// Everybody works until there is nothing to be done.
    fn run_dry(&mut self) {
        let mut turns = 0;
        let mut idle = 0;
        while idle < 2 * WORKERS {
            let worker = turns % WORKERS;
            self.turn(worker);
            self.reap();
            idle = if self.jobs[worker].is_empty() { idle + 1 } else { 0 };
            turns += 1;
            assert!(turns < MOST_TURNS, "two workers are kept busy for ever");
        }
        // Relaxed: as above.
        let completed = self.memory[at::COMPLETED].load(Ordering::Relaxed);
        if self.orderly && !self.served.is_closed() {
            assert_eq!(completed, self.submitted, "each submission has a completion");
        }
        assert!(!self.orderly || !self.tenant.is_broken(), "it kept to the counts");
    }
}

/// The bytes of the region, mapped at `base`, that a job may write to: where they start, and how many.
fn filled(job: &Job, base: usize) -> Vec<(usize, usize)> {
    let Ok(todo) = &job.todo else { return Vec::new() };
    let fills = matches!(todo.submission.opcode, Opcode::Get | Opcode::Take) && todo.submission.region == REGION;
    let parts = todo.memory.iter().filter(|_| fills);
    parts.map(|part| (part.address() - base, part.len)).collect()
}

/// A region as a client makes it.
fn foreign_region() -> Region {
    Region::create("tmem-by-hand", REGION_BYTES, Backing::Small).unwrap_or_else(|error| panic!("no region: {error}"))
}
