//! The model of a store, slow and obvious, and a driver that steps it beside the engine.

use super::contents::{Contents, Freezing, is_shut_out};
use super::plan::{self, Field, Plan};
use super::random::Random;
use super::{GRANULE, MIB, pages};
use std::collections::{HashMap, HashSet};
use tmem::{Cleaning, Client, ClientOptions, ClientState, ObjectId, Outcome, Persistence, Policy, Pool};
use tmem::{PoolId, PoolOptions, Rejection, Sharing, Store, StoreError, StoreOptions};

/// What the engine may use above its limits: what is too small to be asked for in advance.
const SLACK: usize = MIB / 4;

/// Clients and pools at the same time, the destroyed ones that are kept to be tried included.
const MOST_CLIENTS: usize = 5;
const MOST_POOLS: usize = 12;

#[derive(Debug)]
struct ModelClient {
    handle: Client,
    state: ClientState,
    cap: usize,
    /// What it may be charged with: the cap, or what it held when the cap was lowered.
    ceiling: usize,
}

#[derive(Debug)]
struct ModelPool {
    id: PoolId,
    owner: usize,
    options: PoolOptions,
    alive: bool,
    contents: Contents,
    /// By client: those that can use it.
    members: HashMap<usize, Pool>,
    authorised: HashSet<usize>,
    /// A handle from before it was destroyed.
    last: Pool,
}

/// A store, and all that is known about it.
#[derive(Debug)]
pub struct World {
    store: Store,
    random: Random,
    field: Field,
    clients: Vec<ModelClient>,
    pools: Vec<ModelPool>,
    budget: usize,
    /// What may be used: the budget, or what was used when it was lowered.
    ceiling: usize,
    next_tag: u64,
}

impl World {
    pub fn new(seed: u64, cleaning: Cleaning) -> Self {
        let mut random = Random::new(seed);
        let budget = random.pick(&[16, 24, 32, 64]) * MIB;
        let store = Store::new(StoreOptions { cleaning, ..StoreOptions::with_budget(budget) }).unwrap();
        let objects = [[0; 3], [1, 0, 0], [2, 0, 0], [7, 0, u64::MAX], [7, 1, u64::MAX]].map(ObjectId).to_vec();
        let field = Field { objects, granules: 600, longest: random.pick(&[64, 300, 900]) };
        let (clients, pools) = (Vec::new(), Vec::new());
        let mut world = Self { store, random, field, clients, pools, budget, ceiling: budget, next_tag: 0 };
        for _ in 0..3 {
            world.create_client();
            world.create_pool();
        }
        world
    }

    /// One random step.
    pub fn step(&mut self) {
        match self.random.below(100) {
            0..75 => self.operate(1),
            75..87 => {
                let count = 1 + self.random.index(12);
                self.operate(count);
            }
            _ => self.govern(),
        }
        self.check_limits();
    }

    /// Everything against everything.
    pub fn check(&mut self) {
        self.store.validate();
        let memory = self.store.memory();
        assert_eq!(memory.used, memory.segments + memory.tables + memory.index + memory.scratch, "{memory:?}");
        assert_eq!(memory.budget, self.budget);
        let charged: usize = self.clients.iter().map(|client| client.handle.charged_bytes()).sum();
        assert_eq!(memory.charged, charged);
    }

    /// Gets everything that must be there, then ends all clients: nothing is left.
    pub fn finish(mut self) {
        for at in 0..self.pools.len() {
            let pool = &mut self.pools[at];
            let Some(handle) = pool.members.values().next().cloned().filter(|_| pool.alive) else { continue };
            for (object, granule) in pool.contents.names() {
                let memory = vec![plan::UNTOUCHED; pages::PAGE];
                let what = plan::What::Get;
                let offset = granule * GRANULE;
                let mut plan = Plan { tag: 0, pool: pool.id, object, offset, what, memory, cuts: Vec::new() };
                let outcome = plan::call(&handle, &mut plan);
                settled(&plan, &outcome, pool.contents.settle(&plan, &outcome, Freezing::No));
            }
        }
        self.check();
        for client in &self.clients {
            client.handle.destroy();
        }
        let used = self.store.shrink(0);
        let memory = self.store.memory();
        assert_eq!((memory.charged, memory.segments, self.store.count_granules()), (0, 0, 0), "{memory:?}");
        assert!(used < 8 * MIB, "{used} bytes are left in an empty store: {memory:?}");
        self.store.validate();
    }

    fn check_limits(&mut self) {
        let used = self.store.memory().used;
        assert!(used <= self.ceiling + SLACK, "{used} bytes used of {}: {:?}", self.ceiling, self.store.memory());
        self.ceiling = used.clamp(self.budget, self.ceiling);
        for client in &mut self.clients {
            let charged = client.handle.charged_bytes();
            // What is left of a block that was partly flushed may be charged with more once it is a block of its own.
            let most = client.ceiling.saturating_mul(2).saturating_add(MIB);
            assert!(charged <= most, "{charged} bytes charged of {}", client.ceiling);
            client.ceiling = charged.clamp(client.cap, client.ceiling.max(charged));
        }
    }

    /// Operations of one client, as one batch or as one call.
    fn operate(&mut self, count: usize) {
        let client = self.random.index(self.clients.len());
        let mut plans = Vec::new();
        let mut of_pool = Vec::new();
        let preferred = self.draw_pool(client);
        for _ in 0..count {
            let at = if self.random.one_in(4) { self.draw_pool(client) } else { preferred };
            let Some(pool) = self.pools.get(at) else { return };
            self.next_tag += 1 + self.random.below(3);
            plans.push(self.field.draw(&mut self.random, (self.next_tag, pool.id)));
            of_pool.push(at);
        }
        let handle = self.pools[preferred].members.get(&client).cloned();
        let outcomes = match handle {
            Some(handle) if count == 1 && self.random.one_in(2) => {
                of_pool[0] = preferred;
                plans[0].pool = handle.id();
                vec![plan::call(&handle, &mut plans[0])]
            }
            _ => plan::execute(&self.clients[client].handle, &mut plans),
        };
        for ((plan, outcome), at) in plans.iter().zip(&outcomes).zip(of_pool) {
            self.settle(client, at, (plan, outcome));
        }
    }

    /// A pool that the client may use, in most cases.
    fn draw_pool(&mut self, client: usize) -> usize {
        let own: Vec<usize> = (0..self.pools.len())
            .filter(|at| self.pools[*at].alive && self.pools[*at].members.contains_key(&client))
            .collect();
        let any = self.random.one_in(25) || own.is_empty();
        if any { self.random.index(self.pools.len()) } else { self.random.pick(&own) }
    }

    fn settle(&mut self, client: usize, at: usize, (plan, outcome): (&Plan, &Outcome)) {
        let pool = &mut self.pools[at];
        let caller = &self.clients[client];
        let may = caller.state != ClientState::Destroyed && pool.alive && pool.members.contains_key(&client);
        if !may {
            assert!(is_shut_out(outcome), "{outcome:?} of {} for a client that may not", plan.name());
            return;
        }
        let owner = &self.clients[pool.owner];
        let frozen = owner.state == ClientState::Frozen || caller.state == ClientState::Frozen;
        let freezing = if frozen { Freezing::Yes } else { Freezing::No };
        settled(plan, outcome, pool.contents.settle(plan, outcome, freezing));
        match outcome {
            Outcome::Rejected(Rejection::Cap) => assert!(owner.cap < usize::MAX, "there is no cap"),
            Outcome::Rejected(Rejection::Budget) => {
                let memory = self.store.memory();
                let kept = 10 * MIB + memory.used / 12;
                assert!(memory.freeable <= kept, "rejected with {} bytes to free: {memory:?}", memory.freeable);
            }
            _ => {}
        }
    }

    /// Everything that is not an operation.
    fn govern(&mut self) {
        match self.random.below(40) {
            0..4 => self.create_pool(),
            4 => self.destroy_pool(),
            5..7 => self.create_client(),
            7 => self.destroy_client(),
            8..13 => self.change_state(),
            13..16 => self.set_cap(),
            16..18 => {
                let weight = u32::try_from(self.random.below(5)).unwrap();
                self.draw_client().handle.set_weight(weight);
            }
            18..22 => self.set_policy(),
            22..25 => self.set_budget(),
            25..28 => {
                let target = self.random.index(self.budget);
                let used = self.store.shrink(target);
                assert_eq!(used, self.store.memory().used);
            }
            28..31 => self.store.settle_cold(),
            31..33 => self.store.settle_all(),
            33..37 => self.join(),
            _ => self.authorise(),
        }
    }

    fn draw_client(&mut self) -> &mut ModelClient {
        let at = self.random.index(self.clients.len());
        &mut self.clients[at]
    }

    fn create_client(&mut self) {
        let cap = if self.random.one_in(3) { (1 + self.random.index(24)) * MIB } else { usize::MAX };
        let weight = 1 + u32::try_from(self.random.below(3)).unwrap();
        let handle = self.store.client(ClientOptions { name: "model".to_owned(), cap_bytes: cap, weight });
        // A cap counts in whole units.
        let new = ModelClient { handle, state: ClientState::Running, cap, ceiling: cap };
        let dead = self.clients.iter().position(|client| client.state == ClientState::Destroyed);
        match dead {
            Some(at) if self.clients.len() >= MOST_CLIENTS => {
                self.pools.retain(|pool| pool.owner != at);
                for pool in &mut self.pools {
                    pool.members.remove(&at);
                    pool.authorised.remove(&at);
                }
                self.clients[at] = new;
            }
            _ if self.clients.len() < MOST_CLIENTS => self.clients.push(new),
            _ => new.handle.destroy(),
        }
    }

    fn create_pool(&mut self) {
        let owner = self.random.index(self.clients.len());
        let persistence = self.random.pick(&[Persistence::Persistent, Persistence::Ephemeral]);
        let sharing = self.random.pick(&[Sharing::Private, Sharing::Shared]);
        let policy = self.random.pick(&[Policy::Fast, Policy::Balanced, Policy::Dense]);
        let options = PoolOptions { persistence, sharing, policy };
        if self.pools.len() >= MOST_POOLS {
            let Some(dead) = self.pools.iter().position(|pool| !pool.alive) else { return };
            self.pools.swap_remove(dead);
        }
        let client = &self.clients[owner];
        let created = client.handle.create_pool(options);
        if client.state == ClientState::Destroyed {
            assert!(matches!(created, Err(StoreError::ClientDestroyed(id)) if id == client.handle.id()));
            return;
        }
        let last = created.unwrap();
        let contents = Contents::new(persistence == Persistence::Persistent);
        let members = HashMap::from([(owner, last.clone())]);
        let authorised = HashSet::new();
        self.pools.push(ModelPool { id: last.id(), owner, options, alive: true, contents, members, authorised, last });
    }

    fn destroy_pool(&mut self) {
        let at = self.random.index(self.pools.len());
        let pool = &mut self.pools[at];
        let by = self.random.index(self.clients.len());
        if let Some(handle) = pool.members.get(&by).filter(|_| by != pool.owner) {
            assert!(matches!(handle.destroy(), Err(StoreError::NotOwner(id)) if id == pool.id));
        } else if by == pool.owner {
            pool.last.destroy().unwrap();
            pool.alive = false;
            pool.contents.clear();
        }
    }

    fn destroy_client(&mut self) {
        let at = self.random.index(self.clients.len());
        self.clients[at].handle.destroy();
        self.clients[at].state = ClientState::Destroyed;
        assert_eq!(self.clients[at].handle.charged_bytes(), 0);
        for pool in &mut self.pools {
            if pool.owner == at {
                pool.alive = false;
                pool.contents.clear();
            }
        }
    }

    fn change_state(&mut self) {
        let freeze = self.random.one_in(3);
        let client = self.draw_client();
        let changed = if freeze { client.handle.freeze() } else { client.handle.thaw() };
        if client.state == ClientState::Destroyed {
            assert!(matches!(changed, Err(StoreError::ClientDestroyed(id)) if id == client.handle.id()));
        } else {
            changed.unwrap();
            client.state = if freeze { ClientState::Frozen } else { ClientState::Running };
        }
        assert_eq!(client.handle.state(), client.state);
    }

    fn set_cap(&mut self) {
        let cap = if self.random.one_in(2) { usize::MAX } else { self.random.index(20 * MIB) };
        let client = self.draw_client();
        client.handle.set_cap(cap);
        client.cap = cap;
        client.ceiling = cap.max(client.handle.charged_bytes());
    }

    fn set_policy(&mut self) {
        let policy = self.random.pick(&[Policy::Fast, Policy::Balanced, Policy::Dense]);
        let at = self.random.index(self.pools.len());
        self.pools[at].last.set_policy(policy);
        assert_eq!(self.pools[at].last.policy(), policy);
    }

    fn set_budget(&mut self) {
        let bytes = self.random.pick(&[16, 20, 32, 48, 64]) * MIB;
        self.store.set_budget(bytes).unwrap();
        self.budget = bytes;
        self.ceiling = bytes.max(self.store.memory().used);
    }

    fn join(&mut self) {
        let (by, at) = (self.random.index(self.clients.len()), self.random.index(self.pools.len()));
        let (client, pool) = (&self.clients[by], &mut self.pools[at]);
        let joined = client.handle.join_pool(pool.id);
        let invited = pool.options.sharing == Sharing::Shared && pool.authorised.contains(&by);
        match joined {
            Err(StoreError::ClientDestroyed(_)) => assert_eq!(client.state, ClientState::Destroyed),
            Err(StoreError::NoSuchPool(_)) => assert!(!pool.alive),
            Err(StoreError::NotAuthorised { .. }) => assert!(by != pool.owner && !invited),
            Err(other) => panic!("{other}"),
            Ok(handle) => {
                assert!(client.state != ClientState::Destroyed && pool.alive && (by == pool.owner || invited));
                pool.members.insert(by, handle);
            }
        }
    }

    fn authorise(&mut self) {
        let (whom, at) = (self.random.index(self.clients.len()), self.random.index(self.pools.len()));
        let pool = &mut self.pools[at];
        let id = self.clients[whom].handle.id();
        for (member, handle) in &pool.members {
            if *member != pool.owner {
                assert!(matches!(handle.authorise(id), Err(StoreError::NotOwner(_))));
            }
        }
        if pool.options.sharing == Sharing::Shared && pool.last.authorise(id).is_ok() {
            pool.authorised.insert(whom);
        }
    }
}

fn settled(plan: &Plan, outcome: &Outcome, right: Result<(), String>) {
    if let Err(wrong) = right {
        panic!("{}: {wrong} ({outcome:?})", plan.name());
    }
}
