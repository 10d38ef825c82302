//! Worker threads, and the queues that they serve.

use super::queue::{Claimed, Served};
use super::run::{Job, carry_out};
use super::tenant::Tenant;
use super::vital::vital;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tmem_sys::{Doorbell, Epoll, SysError};

/// The longest that an idle worker looks for work before it sleeps: as long as waking an idle virtual CPU takes.
const MOST_PATIENCE: Duration = Duration::from_micros(100);

/// The shortest. What has just been submitted behind the last look is still found.
const LEAST_PATIENCE: Duration = Duration::from_micros(2);

/// Virtual time that is made up for: a client whose queue was empty for a moment, since it did not get a CPU to fill it,
/// has its share all the same. A few turns of the kernel's scheduler.
const CREDIT_NS: u64 = 10_000_000;

/// What it costs to wake a client.
const WAKING_NS: u64 = 2_000;

/// The token of the bell that ends an idle worker's sleep for other reasons than work.
const CALL: u64 = u64::MAX;

/// Worker threads that serve queues. Dropping it ends them; no operation is in flight then.
#[derive(Debug)]
pub struct Service {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What workers have done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct ServiceStats {
    /// Worker threads.
    pub workers: usize,
    /// Times that one went to sleep.
    pub sleeps: u64,
}

#[derive(Debug)]
struct Shared {
    queues: RwLock<Vec<(u64, Arc<Served>)>>,
    next_queue: AtomicU64,
    /// Doorbells of all queues, and `call`.
    bells: Epoll,
    call: Doorbell,
    idle: Mutex<Idle>,
    /// One of the idle is to come.
    wanted: Condvar,
    /// Virtual time of the tenant that was served last: who comes back from having had nothing to do starts here.
    now_ns: AtomicU64,
    ending: AtomicBool,
    sleeps: AtomicU64,
    workers: usize,
}

/// Workers without work.
#[derive(Debug, Default)]
struct Idle {
    /// One of them watches the queues.
    watched: bool,
    /// So many others wait on `wanted`.
    waiting: usize,
    /// How long the watcher looks before it sleeps.
    patience: Duration,
}

impl Service {
    /// Starts `workers` threads (at least 1).
    ///
    /// # Errors
    /// When there are no descriptors or threads to be had.
    pub fn start(workers: usize) -> io::Result<Self> {
        let mut service = Self { shared: Arc::new(Shared::new(workers.max(1))?), threads: Vec::new() };
        for number in 0..service.shared.workers {
            let shared = Arc::clone(&service.shared);
            let thread = std::thread::Builder::new().name(format!("tmem-worker-{number}"));
            service.threads.push(thread.spawn(move || vital(|| shared.work(number)))?);
        }
        Ok(service)
    }

    /// Serves a new queue of so many entries (a power of two, at most [`MOST_ENTRIES`](crate::MOST_ENTRIES)). Returns its
    /// number, the queue, and the client's end of its bell.
    pub(crate) fn open(&self, tenant: &Arc<Tenant>, entries: u64) -> Result<(u64, Arc<Served>, Doorbell), SysError> {
        let (queue, client_bell) = Served::new(Arc::clone(tenant), entries, self.shared.workers)?;
        let queue = Arc::new(queue);
        let number = self.shared.next_queue.fetch_add(1, Ordering::Relaxed); // Relaxed: only the number matters
        let failed = |errno| SysError::Memfd { bytes: 0, errno };
        self.shared.bells.add_edges(queue.bell.as_fd(), number).map_err(failed)?;
        self.shared.queues.write().unwrap_or_else(PoisonError::into_inner).push((number, Arc::clone(&queue)));
        self.shared.call.ring();
        Ok((number, queue, client_bell))
    }

    /// Ends a queue: returns when nothing of it is in flight.
    pub(crate) fn close(&self, number: u64) {
        let mut queues = self.shared.queues.write().unwrap_or_else(PoisonError::into_inner);
        let at = queues.iter().position(|(queue, _)| *queue == number);
        let Some((_, queue)) = at.map(|at| queues.swap_remove(at)) else { return };
        drop(queues);
        // It is not in there only if the system has lost it.
        let _ = self.shared.bells.remove(queue.bell.as_fd());
        queue.close();
    }

    /// Takes no more submissions, and returns when what is submitted is completed, or at `end`. Returns whether it is.
    pub(crate) fn drain(&self, end: Instant) -> bool {
        let queues: Vec<Arc<Served>> = {
            // Not held while it waits: whoever ends a queue meanwhile wants it, and workers behind him.
            let queues = self.shared.queues.read().unwrap_or_else(PoisonError::into_inner);
            queues.iter().map(|(_, queue)| Arc::clone(queue)).collect()
        };
        for queue in &queues {
            queue.stop();
        }
        // Those that are closed are waited for in no time.
        queues.iter().all(|queue| queue.await_closed(end))
    }

    /// What workers have done.
    #[must_use]
    pub fn stats(&self) -> ServiceStats {
        let sleeps = self.shared.sleeps.load(Ordering::Relaxed); // Relaxed: a sum
        ServiceStats { workers: self.shared.workers, sleeps }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::Relaxed); // Relaxed: the call and the lock publish it
        self.shared.call.ring();
        drop(self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner));
        self.shared.wanted.notify_all();
        for thread in self.threads.drain(..) {
            // It does not panic and live: `vital`.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn new(workers: usize) -> io::Result<Self> {
        let (call, bells) = (Doorbell::new()?, Epoll::new()?);
        bells.add(call.as_fd(), CALL)?;
        Ok(Self {
            queues: RwLock::default(),
            next_queue: AtomicU64::new(0),
            bells,
            call,
            idle: Mutex::default(),
            wanted: Condvar::new(),
            now_ns: AtomicU64::new(0),
            ending: AtomicBool::new(false),
            sleeps: AtomicU64::new(0),
            workers,
        })
    }

    fn work(&self, worker: usize) {
        let mut jobs = Vec::new();
        let mut events = Vec::new();
        let mut start = Instant::now();
        while !self.is_ending() {
            let Some((queue, more)) = self.claim(worker, &mut jobs) else {
                self.rest(&mut events);
                start = Instant::now();
                continue;
            };
            if more {
                self.call_another();
            }
            queue.tenant.count(&jobs);
            carry_out(&mut jobs, &queue.tenant);
            let ring = queue.finish(worker, &mut jobs);
            let mut end = Instant::now();
            let waking_ns = if ring { WAKING_NS } else { 0 };
            queue.tenant.charge(u64::try_from((end - start).as_nanos()).unwrap_or(u64::MAX) + waking_ns);
            if ring {
                queue.ring();
                // Whoever was woken may have had this CPU meanwhile, which is no time that we gave it.
                end = Instant::now();
            }
            start = end;
            self.listen(&mut events);
        }
        // Whoever listened may have heard the call that was meant for the watcher.
        self.call.ring();
    }

    fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed) // Relaxed: see `drop`
    }

    /// Claims something of the queue whose tenant has had the least time. Returns the queue, and whether another worker
    /// should come.
    fn claim(&self, worker: usize, jobs: &mut Vec<Job>) -> Option<(Arc<Served>, bool)> {
        let queues = self.queues.read().unwrap_or_else(PoisonError::into_inner);
        let mut tried = [u64::MAX; 8];
        let mut tries = 0;
        loop {
            let busy = queues.iter().filter(|(number, queue)| !tried[..tries].contains(number) && queue.seems_busy());
            // Relaxed: sums, which decide only whose turn it is.
            let (number, queue) = busy.min_by_key(|(_, queue)| queue.tenant.virtual_ns.load(Ordering::Relaxed))?;
            if let Claimed::Jobs { more } = queue.claim(worker, jobs) {
                self.keep_time(&queue.tenant);
                let others = || queues.iter().any(|(other, queue)| other != number && queue.seems_busy());
                return Some((Arc::clone(queue), more || others()));
            }
            // It was blocked, or another worker was faster.
            tried[tries] = *number;
            tries += 1;
            if tries == tried.len() {
                return None;
            }
        }
    }

    /// Whoever had nothing to do for a while has no claim to the time that others have had meanwhile, but for some.
    // Relaxed in here: sums, which decide only whose turn it is.
    fn keep_time(&self, tenant: &Tenant) {
        let now = self.now_ns.load(Ordering::Relaxed); // Relaxed: as above
        let own = tenant.virtual_ns.fetch_max(now.saturating_sub(CREDIT_NS), Ordering::Relaxed); // Relaxed: as above
        self.now_ns.fetch_max(own, Ordering::Relaxed); // Relaxed: as above
    }

    /// Calls a worker that waits, if there is one.
    fn call_another(&self) {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.waiting > 0 {
            self.wanted.notify_one();
        } else if idle.watched {
            self.call.ring();
        }
    }

    /// For a worker that found nothing: watches, or waits until it is called.
    fn rest(&self, events: &mut Vec<(u64, bool)>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_ending() {
            return;
        }
        if idle.watched {
            // The watcher sleeps for what was armed when it fell asleep. Somebody who listened at that moment may have
            // disarmed a queue since.
            if !self.all_armed() {
                self.call.ring();
            }
            idle.waiting += 1;
            idle = self.wanted.wait(idle).unwrap_or_else(PoisonError::into_inner);
            idle.waiting -= 1;
            return;
        }
        idle.watched = true;
        let patience = idle.patience.clamp(LEAST_PATIENCE, MOST_PATIENCE);
        drop(idle);
        let found = self.look_for(patience);
        if !found {
            self.sleep(events);
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.watched = false;
        idle.patience = if found { patience * 2 } else { patience / 2 };
    }

    fn all_armed(&self) -> bool {
        self.queues.read().unwrap_or_else(PoisonError::into_inner).iter().all(|(_, queue)| queue.is_armed())
    }

    /// Looks at the queues for at most `patience`. Returns whether there is something.
    fn look_for(&self, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        loop {
            if self.queues.read().unwrap_or_else(PoisonError::into_inner).iter().any(|(_, queue)| queue.seems_busy()) {
                return true;
            }
            if Instant::now() >= end {
                return false;
            }
            core::hint::spin_loop();
        }
    }

    /// Sleeps until a doorbell rings, unless there is work.
    fn sleep(&self, events: &mut Vec<(u64, bool)>) {
        let queues = self.queues.read().unwrap_or_else(PoisonError::into_inner);
        let mut may = true;
        for (_, queue) in queues.iter() {
            may &= queue.arm();
        }
        drop(queues);
        if may && !self.is_ending() {
            self.sleeps.fetch_add(1, Ordering::Relaxed); // Relaxed: a sum
            self.hear(events, None);
        }
    }

    /// Looks whether doorbells have rung while there was work.
    fn listen(&self, events: &mut Vec<(u64, bool)>) {
        // The watcher hears them.
        if !self.idle.lock().unwrap_or_else(PoisonError::into_inner).watched {
            self.hear(events, Some(Duration::ZERO));
        }
    }

    fn hear(&self, events: &mut Vec<(u64, bool)>, timeout: Option<Duration>) {
        events.clear();
        if self.bells.wait(events, timeout).is_err() {
            return;
        }
        let queues = self.queues.read().unwrap_or_else(PoisonError::into_inner);
        for (token, hung_up) in events.iter() {
            if *token == CALL {
                let _ = self.call.clear(); // another worker may have been faster
            } else if let Some((_, queue)) = queues.iter().find(|(number, _)| number == token) {
                queue.heard();
                if *hung_up {
                    queue.hung_up();
                    let _ = self.bells.remove(queue.bell.as_fd()); // another worker may have been faster
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::QueueMemory;
    use crate::operation::{ObjectId, Opcode, Place, PoolId, Submission};
    use crate::ring::Submitter;
    use tmem::{ClientOptions, PoolOptions, Store, StoreOptions};

    const ENTRIES: u64 = 64;

    /// How many turns of a worker each of two gets in a hundred, whose queues are always full and whose turns last as long
    /// as is said.
    fn turns(
        service: &Service,
        clients: &mut [(Arc<Served>, Submitter<QueueMemory>, PoolId); 2],
        ns: [u64; 2],
    ) -> [usize; 2] {
        let (mut jobs, mut turns) = (Vec::new(), [0, 0]);
        for _ in 0..100 {
            for (_, client, pool) in &mut *clients {
                while client.reap().is_some() {}
                let (opcode, object) = (Opcode::FlushObject, ObjectId::from(1));
                let place = Place::At(0);
                let flush = Submission { opcode, region: 0, pool: *pool, tag: 0, object, offset: 0, len: 0, place };
                while client.write(&flush.to_words()).is_some() {}
                client.publish();
            }
            let (queue, _) = service.shared.claim(0, &mut jobs).expect("there is always something to do");
            carry_out(&mut jobs, &queue.tenant);
            assert!(!queue.finish(0, &mut jobs), "nobody sleeps");
            let whose = usize::from(!Arc::ptr_eq(&queue, &clients[0].0));
            queue.tenant.charge(ns[whose]);
            turns[whose] += 1;
        }
        turns
    }

    #[test]
    fn time_is_shared_out_by_weight() {
        let store = Store::new(StoreOptions::with_budget(16 << 20)).unwrap();
        // Its worker is this test.
        let service = Service { shared: Arc::new(Shared::new(1).unwrap()), threads: Vec::new() };
        let notice = Arc::new(Doorbell::new().unwrap());
        let mut clients = [1, 3].map(|weight| {
            let client = store.client(ClientOptions::named("test"));
            let pool = client.create_pool(PoolOptions::persistent()).unwrap();
            let tenant = Arc::new(Tenant::remote(client, weight, &notice));
            let (_, served, _) = service.open(&tenant, ENTRIES).unwrap();
            let client = Submitter::new(served.memory()).unwrap();
            (served, client, PoolId(pool.id().0))
        });
        let same = [CREDIT_NS / 10; 2];
        turns(&service, &mut clients, same); // from nothing to do
        assert_eq!(turns(&service, &mut clients, same), [25, 75]);
        clients[1].0.tenant.set_weight(1);
        turns(&service, &mut clients, same); // one may have been ahead
        assert_eq!(turns(&service, &mut clients, same), [50, 50]);
        let longer = [same[0] * 4, same[1]];
        turns(&service, &mut clients, longer);
        assert_eq!(turns(&service, &mut clients, longer), [20, 80], "time counts, not turns");
    }

    #[test]
    fn a_pause_is_made_up_for_as_far_as_the_credit_goes() {
        let store = Store::new(StoreOptions::with_budget(16 << 20)).unwrap();
        let service = Service::start(1).unwrap();
        let kept = |virtual_ns| {
            let tenant = Tenant::local(store.client(ClientOptions::named("test")));
            tenant.virtual_ns.store(virtual_ns, Ordering::Relaxed); // Relaxed: one thread
            service.shared.keep_time(&tenant);
            tenant.virtual_ns.load(Ordering::Relaxed) // as above
        };
        let now = 10 * CREDIT_NS;
        assert_eq!(kept(now), now);
        assert_eq!(kept(now - CREDIT_NS + 1), now - CREDIT_NS + 1, "a short pause");
        assert_eq!(kept(0), now - CREDIT_NS, "a long one");
        assert_eq!(kept(now), now, "whoever comes back does not turn back the clock");
    }
}
