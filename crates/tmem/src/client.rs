//! Clients and pools as the engine keeps them: who is charged, who may do what, and under which policy.

use crate::stats::{Cells, Stats};
use crate::table::PoolId;
use crate::units::unit_bytes;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use tmem_codec::Policy;

/// A client, by number; never used twice in the life of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u32);

/// What a client may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientState {
    /// Everything.
    Running = 0,
    /// Gets, flushes, and puts that replace what is there.
    Frozen = 1,
    /// Nothing: its pools are gone.
    Destroyed = 2,
}

/// Whether a pool's data may vanish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persistence {
    /// What was accepted is returned until it is flushed: swap.
    Persistent,
    /// May vanish at any time: cache.
    Ephemeral,
}

/// Who may use a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// Its client.
    Private,
    /// Its client and those that it authorises.
    Shared,
}

/// A client's account and rights.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) id: ClientId,
    pub(crate) name: String,
    cap_units: AtomicU64,
    weight: AtomicU32,
    state: AtomicU8,
    /// Units of the blocks of all its pools, headers included. `charged == persistent + ephemeral`, of which this is
    /// one.
    charged: AtomicU64,
    /// And this the other.
    ephemeral: AtomicU64,
    /// The pools that it may use, its own and those that it joined.
    pub(crate) pools: RwLock<HashMap<PoolId, Arc<PoolCore>>>,
    /// What its destroyed pools had counted.
    past: Mutex<Stats>,
}

// Relaxed, where nothing else is said: settings and sums, which publish nothing. Freezing and destroying take effect
// for every operation piece that is pinned after the epoch's fence in `Engine::settle_state`.
impl Account {
    pub(crate) fn new(id: ClientId, name: String, cap_bytes: usize, weight: u32) -> Self {
        let account = Self {
            id,
            name,
            cap_units: AtomicU64::new(u64::MAX),
            weight: AtomicU32::new(weight.max(1)),
            state: AtomicU8::new(ClientState::Running as u8),
            charged: AtomicU64::new(0),
            ephemeral: AtomicU64::new(0),
            pools: RwLock::new(HashMap::new()),
            past: Mutex::new(Stats::default()),
        };
        account.set_cap(cap_bytes);
        account
    }

    pub(crate) fn set_cap(&self, bytes: usize) {
        self.cap_units.store((bytes / unit_bytes(1)) as u64, Ordering::Relaxed); // Relaxed: a setting
    }

    pub(crate) fn cap_bytes(&self) -> usize {
        to_bytes(self.cap_units.load(Ordering::Relaxed)) // Relaxed: a setting
    }

    pub(crate) fn set_weight(&self, weight: u32) {
        self.weight.store(weight.max(1), Ordering::Relaxed); // Relaxed: a setting
    }

    pub(crate) fn weight(&self) -> u32 {
        self.weight.load(Ordering::Relaxed) // Relaxed: a setting
    }

    pub(crate) fn state(&self) -> ClientState {
        // Relaxed: see above.
        match self.state.load(Ordering::Relaxed) {
            0 => ClientState::Running,
            1 => ClientState::Frozen,
            _ => ClientState::Destroyed,
        }
    }

    /// Goes to `state`, unless it is destroyed. Returns whether it did.
    pub(crate) fn set_state(&self, state: ClientState) -> bool {
        let step = |now| (now != ClientState::Destroyed as u8).then_some(state as u8);
        self.state.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step).is_ok() // Relaxed: see above
    }

    /// Charges `units` if the cap allows, where `leaving` units are about to be let go.
    pub(crate) fn charge(&self, units: u64, leaving: u64, persistence: Persistence) -> bool {
        let cap = self.cap_units.load(Ordering::Relaxed); // Relaxed: a setting
        let step = |now: u64| (now + units).saturating_sub(leaving).le(&cap).then_some(now + units);
        let allowed = self.charged.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step).is_ok(); // Relaxed: a sum
        if allowed && persistence == Persistence::Ephemeral {
            self.ephemeral.fetch_add(units, Ordering::Relaxed); // Relaxed: a sum
        }
        allowed
    }

    /// Takes `units` off the account.
    pub(crate) fn discharge(&self, units: u64, persistence: Persistence) {
        if units == 0 {
            return;
        }
        let before = self.charged.fetch_sub(units, Ordering::Relaxed); // Relaxed: a sum
        assert!(before >= units, "{units} units taken off an account of {before}");
        if persistence == Persistence::Ephemeral {
            self.ephemeral.fetch_sub(units, Ordering::Relaxed); // Relaxed: a sum
        }
    }

    /// Charges what the cleaner wrote anew, whatever the cap.
    pub(crate) fn recharge(&self, units: u64, persistence: Persistence) {
        self.charged.fetch_add(units, Ordering::Relaxed); // Relaxed: a sum
        if persistence == Persistence::Ephemeral {
            self.ephemeral.fetch_add(units, Ordering::Relaxed); // Relaxed: a sum
        }
    }

    pub(crate) fn charged_units(&self) -> u64 {
        self.charged.load(Ordering::Relaxed) // Relaxed: a sum
    }

    pub(crate) fn ephemeral_units(&self) -> u64 {
        self.ephemeral.load(Ordering::Relaxed) // Relaxed: a sum
    }

    pub(crate) fn charged_bytes(&self) -> usize {
        to_bytes(self.charged_units())
    }

    pub(crate) fn bury(&self, stats: &Stats) {
        self.past.lock().unwrap_or_else(PoisonError::into_inner).add(stats);
    }

    /// Over the pools that it created, destroyed ones included.
    pub(crate) fn stats(&self) -> Stats {
        let mut sum = *self.past.lock().unwrap_or_else(PoisonError::into_inner);
        for pool in self.pools.read().unwrap_or_else(PoisonError::into_inner).values() {
            if pool.owner.id == self.id {
                sum.add(&pool.cells.sum());
            }
        }
        sum
    }

    pub(crate) fn pool(&self, id: PoolId) -> Option<Arc<PoolCore>> {
        self.pools.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }
}

fn to_bytes(units: u64) -> usize {
    usize::try_from(units).unwrap_or(usize::MAX).saturating_mul(unit_bytes(1))
}

/// A pool's settings and counters.
#[derive(Debug)]
pub(crate) struct PoolCore {
    pub(crate) id: PoolId,
    /// Who created it and is charged for it.
    pub(crate) owner: Arc<Account>,
    pub(crate) persistence: Persistence,
    pub(crate) sharing: Sharing,
    policy: AtomicU8,
    destroyed: AtomicBool,
    authorised: Mutex<HashSet<ClientId>>,
    pub(crate) cells: Cells,
}

impl PoolCore {
    pub(crate) fn new(
        id: PoolId,
        owner: Arc<Account>,
        (persistence, sharing, policy): (Persistence, Sharing, Policy),
        contexts: usize,
    ) -> Self {
        let authorised = Mutex::default();
        let cells = Cells::new(contexts);
        let policy = AtomicU8::new(policy_number(policy));
        Self { id, owner, persistence, sharing, policy, destroyed: AtomicBool::new(false), authorised, cells }
    }

    pub(crate) fn policy(&self) -> Policy {
        // Relaxed: a setting.
        match self.policy.load(Ordering::Relaxed) {
            0 => Policy::Fast,
            1 => Policy::Balanced,
            _ => Policy::Dense,
        }
    }

    pub(crate) fn set_policy(&self, policy: Policy) {
        self.policy.store(policy_number(policy), Ordering::Relaxed); // Relaxed: a setting
    }

    pub(crate) fn is_destroyed(&self) -> bool {
        // Relaxed: whoever is pinned after the fence in `Engine::settle_state` sees it.
        self.destroyed.load(Ordering::Relaxed)
    }

    /// Marks it as destroyed. Returns whether it was not yet.
    pub(crate) fn mark_destroyed(&self) -> bool {
        !self.destroyed.swap(true, Ordering::Relaxed) // Relaxed: see `is_destroyed`
    }

    pub(crate) fn authorised(&self) -> MutexGuard<'_, HashSet<ClientId>> {
        self.authorised.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn policy_number(policy: Policy) -> u8 {
    match policy {
        Policy::Fast => 0,
        Policy::Balanced => 1,
        Policy::Dense => 2,
    }
}

/// Every client and pool of a store.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    next: AtomicUsize,
    members: RwLock<Members>,
}

#[derive(Debug, Default)]
struct Members {
    clients: HashMap<ClientId, Arc<Account>>,
    pools: HashMap<PoolId, Arc<PoolCore>>,
    /// What destroyed clients had counted.
    past: Stats,
}

impl Registry {
    /// A number that nobody has had.
    pub(crate) fn next_id(&self) -> u32 {
        let id = self.next.fetch_add(1, Ordering::Relaxed); // Relaxed: only the number matters
        u32::try_from(id).unwrap_or_else(|_| unreachable!("four billion clients and pools in one process"))
    }

    pub(crate) fn add_client(&self, account: Arc<Account>) {
        self.write().clients.insert(account.id, account);
    }

    pub(crate) fn remove_client(&self, account: &Account) {
        let mut members = self.write();
        if members.clients.remove(&account.id).is_some() {
            let stats = account.stats();
            members.past.add(&stats);
        }
    }

    pub(crate) fn add_pool(&self, pool: Arc<PoolCore>) {
        self.write().pools.insert(pool.id, pool);
    }

    /// Removes a pool from the store and from everybody who may use it.
    pub(crate) fn remove_pool(&self, pool: &PoolCore) {
        let mut members = self.write();
        members.pools.remove(&pool.id);
        for client in members.clients.values() {
            client.pools.write().unwrap_or_else(PoisonError::into_inner).remove(&pool.id);
        }
    }

    pub(crate) fn pool(&self, id: PoolId) -> Option<Arc<PoolCore>> {
        self.read().pools.get(&id).cloned()
    }

    pub(crate) fn clients(&self) -> Vec<Arc<Account>> {
        self.read().clients.values().cloned().collect()
    }

    /// Over all clients, destroyed ones included.
    pub(crate) fn stats(&self) -> Stats {
        let members = self.read();
        let mut sum = members.past;
        for client in members.clients.values() {
            sum.add(&client.stats());
        }
        sum
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Members> {
        self.members.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Members> {
        self.members.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Registry {
    /// A client's account and its pools hold each other.
    fn drop(&mut self) {
        for account in self.clients() {
            account.pools.write().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use crate::{ClientOptions, PoolOptions, Store, StoreOptions};
    use std::sync::Arc;

    #[test]
    fn nothing_is_left_of_a_store_that_is_dropped_with_its_clients() {
        let store = Store::new(StoreOptions::with_budget(16 << 20)).unwrap();
        let client = store.client(ClientOptions::named("client"));
        let pool = client.create_pool(PoolOptions::persistent()).unwrap();
        let accounts: Vec<_> = store.engine.registry.clients().iter().map(Arc::downgrade).collect();
        assert_eq!(accounts.len(), 1);
        drop((pool, client, store));
        assert!(accounts[0].upgrade().is_none(), "its client and pool hold each other");
    }
}
