//! Many threads on one store.
//!
//! Each has objects of its own, which a model of its own answers for exactly; all use shared objects, of which
//! each page says what it is (see `shared`); one more thread cleans, settles, shrinks, changes budgets and
//! policies, and makes and destroys clients and pools meanwhile.

use super::contents::{Contents, Freezing};
use super::plan::{self, Field};
use super::random::Random;
use super::shared::Shared;
use super::{GRANULE, MIB, pages};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tmem::{Cleaning, Client, ClientOptions, ObjectId, Policy, Pool, PoolOptions, Store, StoreOptions};

/// What to run.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    pub seed: u64,
    pub threads: u64,
    pub budget_bytes: usize,
    pub time: Duration,
    pub cleaning: Cleaning,
}

/// What everybody uses.
#[derive(Debug)]
pub struct Crowd {
    options: Options,
    pub store: Store,
    clients: Vec<Client>,
    /// By client, then by pool: everybody uses every pool, half of which are persistent.
    handles: Vec<Vec<Pool>>,
    /// By pool.
    shared: Vec<Shared>,
    stop: AtomicBool,
    /// Operations so far.
    operations: AtomicU64,
}

/// The objects of one thread.
struct Own {
    random: Random,
    field: Field,
    /// By pool.
    contents: Vec<Contents>,
}

const CLIENTS: usize = 3;

impl Crowd {
    pub fn new(options: Options) -> Self {
        let Options { budget_bytes, cleaning, .. } = options;
        let store = Store::new(StoreOptions { cleaning, ..StoreOptions::with_budget(budget_bytes) }).unwrap();
        let caps = [usize::MAX, usize::MAX, budget_bytes / 3];
        let client = |cap_bytes| store.client(ClientOptions { cap_bytes, ..ClientOptions::named("crowd") });
        let clients: Vec<Client> = caps.map(client).to_vec();
        let mut owned = Vec::new();
        for client in &clients {
            owned.push(client.create_pool(PoolOptions::persistent().shared()).unwrap());
            owned.push(client.create_pool(PoolOptions::ephemeral().shared().policy(Policy::Dense)).unwrap());
        }
        for (pool, client) in owned.iter().flat_map(|pool| clients.iter().map(move |client| (pool, client))) {
            pool.authorise(client.id()).unwrap();
        }
        let join = |client: &Client| owned.iter().map(|pool| client.join_pool(pool.id()).unwrap()).collect();
        let handles = clients.iter().map(join).collect();
        let shared = (1000..).zip(&owned).map(|(object, pool)| Shared::new(pool.clone(), object, 70)).collect();
        let (stop, operations) = (AtomicBool::new(false), AtomicU64::new(0));
        Self { options, store, clients, handles, shared, stop, operations }
    }

    /// Operations so far.
    pub fn operations(&self) -> u64 {
        self.operations.load(Ordering::Relaxed) // Relaxed: a count
    }

    /// Whether somebody has found something wrong, or the time is over.
    pub fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed) // Relaxed: a wish
    }

    /// Runs it to its end. An error says what was wrong, or that somebody panicked.
    pub fn run(&self) -> Result<(), String> {
        let end = Instant::now() + self.options.time;
        let workers: Result<Vec<Own>, String> = std::thread::scope(|scope| {
            let worker = |nth| scope.spawn(move || self.work(nth, end));
            let workers: Vec<_> = (0..self.options.threads).map(worker).collect();
            let governor = scope.spawn(|| self.govern());
            let joined = workers.into_iter().map(|worker| worker.join().unwrap_or_else(|_| Err("a panic".into())));
            // All are joined, whatever the first says.
            let joined: Vec<_> = joined.collect();
            self.end();
            let governed = governor.join().map_err(|_| "a panic of the governor".to_owned());
            governed.and_then(|()| joined.into_iter().collect())
        });
        self.sweep(workers?)
    }

    /// Tells everybody to stop.
    pub fn end(&self) {
        self.stop.store(true, Ordering::Relaxed); // Relaxed: a wish
    }

    /// One thread's life.
    fn work(&self, nth: u64, end: Instant) -> Result<Own, String> {
        let _stop = StopOnDrop(self);
        let objects = vec![ObjectId([nth, 0, 1]), ObjectId([nth, 1, 1])];
        let field = Field { objects, granules: 200, longest: 200 };
        let contents = (0..self.shared.len()).map(|at| Contents::new(at % 2 == 0)).collect();
        let mut own = Own { random: Random::new(self.options.seed * 1000 + nth), field, contents };
        while !self.is_over() && Instant::now() < end {
            let client = own.random.index(CLIENTS);
            let at = own.random.index(self.shared.len());
            let pool = &self.handles[client][at];
            let result = if own.random.one_in(3) {
                self.operate(&mut own, client, at)
            } else {
                self.shared[at].step(&mut own.random, (nth, pool))
            };
            result.map_err(|wrong| format!("thread {nth}: {wrong}"))?;
            self.operations.fetch_add(1, Ordering::Relaxed); // Relaxed: a count
        }
        Ok(own)
    }

    /// A batch on the thread's own objects.
    fn operate(&self, own: &mut Own, client: usize, at: usize) -> Result<(), String> {
        let Own { random, field, contents } = own;
        let count = if random.one_in(3) { 1 + random.below(6) } else { 1 };
        let mut plans: Vec<_> = (0..count).map(|tag| field.draw(random, (tag, self.shared[at].pool.id()))).collect();
        let outcomes = plan::execute(&self.clients[client], &mut plans);
        for (plan, outcome) in plans.iter().zip(&outcomes) {
            let right = contents[at].settle(plan, outcome, Freezing::No);
            right.map_err(|wrong| format!("{}: {wrong} ({outcome:?})", plan.name()))?;
        }
        Ok(())
    }

    /// Everything that is not an operation, until somebody says stop.
    fn govern(&self) {
        let _stop = StopOnDrop(self);
        let mut random = Random::new(self.options.seed * 1000 + 999);
        let budget = self.options.budget_bytes;
        while !self.is_over() {
            match random.below(12) {
                0 => self.store.settle_cold(),
                1 => self.store.settle_all(),
                2..4 => drop(self.store.shrink(random.index(budget))),
                4 => self.store.set_budget(budget - random.index(budget / 3)).unwrap(),
                5..7 => self.store.set_budget(budget).unwrap(),
                7 => {
                    let policy = random.pick(&[Policy::Fast, Policy::Balanced, Policy::Dense]);
                    self.shared[random.index(self.shared.len())].pool.set_policy(policy);
                }
                8 => self.clients[1].set_weight(1 + u32::try_from(random.below(4)).unwrap()),
                9 => self.clients[2].set_cap(budget / 4 + random.index(budget / 4)),
                10 => self.visit(&mut random),
                _ => drop((self.store.stats(), self.store.clients(), self.store.memory())),
            }
            std::thread::sleep(Duration::from_millis(random.below(30)));
        }
    }

    /// A client comes, stores something, and is destroyed.
    fn visit(&self, random: &mut Random) {
        let client = self.store.client(ClientOptions::named("visitor"));
        let options = random.pick(&[PoolOptions::persistent(), PoolOptions::ephemeral()]);
        let pool = client.create_pool(options).unwrap();
        for object in 0..random.below(400) {
            let bytes = pages::range(random, 4 * pages::PAGE);
            drop(pool.put(object, object * GRANULE, &bytes));
        }
        if random.one_in(2) {
            pool.destroy().unwrap();
        }
        client.destroy();
        assert_eq!(client.charged_bytes(), 0);
    }

    /// With nothing else running: everything against everything.
    fn sweep(&self, workers: Vec<Own>) -> Result<(), String> {
        self.store.validate();
        for Own { mut contents, .. } in workers {
            for (contents, pool) in contents.iter_mut().zip(&self.handles[0]) {
                for (object, granule) in contents.names() {
                    let memory = vec![plan::UNTOUCHED; pages::PAGE];
                    let (offset, what) = (granule * GRANULE, plan::What::Get);
                    let mut plan =
                        plan::Plan { tag: 0, pool: pool.id(), object, offset, what, memory, cuts: Vec::new() };
                    let outcome = plan::call(pool, &mut plan);
                    contents.settle(&plan, &outcome, Freezing::No).map_err(|wrong| format!("at the end: {wrong}"))?;
                }
            }
        }
        self.store.set_budget(self.options.budget_bytes).unwrap();
        let used = self.store.memory().used;
        if used > self.options.budget_bytes + MIB / 4 {
            return Err(format!("{used} bytes used of {}", self.options.budget_bytes));
        }
        for client in &self.clients {
            client.destroy();
        }
        self.store.shrink(0);
        self.store.validate();
        let memory = self.store.memory();
        let left = (memory.charged, memory.segments, self.store.count_granules());
        if left == (0, 0, 0) { Ok(()) } else { Err(format!("left in an empty store: {left:?} {memory:?}")) }
    }
}

/// Tells the others to stop, whatever ended this one.
struct StopOnDrop<'a>(&'a Crowd);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Options {
    /// How to run it again.
    pub fn command(&self) -> String {
        let Self { seed, threads, budget_bytes, .. } = self;
        format!("seed {seed}, {threads} threads, a budget of {} MiB", budget_bytes / MIB)
    }
}
