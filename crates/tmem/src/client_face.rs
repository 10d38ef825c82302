//! Clients and pools as their users hold them.

use crate::batch::{Action, Completion, Operation};
use crate::budget::Use;
use crate::client::{Account, ClientId, ClientState, Persistence, PoolCore, Sharing};
use crate::context::Taken;
use crate::engine::Engine;
use crate::loan::Loan;
use crate::memory::{Gather, Scatter};
use crate::ops::{After, Located, Target};
use crate::outcome::{ByteRange, Outcome, Refusal};
use crate::stats::{Counter, Stats};
use crate::store::{Store, StoreError};
use crate::table::{ObjectId, PoolId};
use std::sync::{Arc, PoisonError};
use tmem_codec::Policy;

/// A client: who is charged. Cloning the handle does not make another client; dropping it does not destroy it.
#[derive(Debug, Clone)]
pub struct Client {
    store: Store,
    account: Arc<Account>,
}

/// How a pool is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolOptions {
    /// Whether its data may vanish.
    pub persistence: Persistence,
    /// Who may use it.
    pub sharing: Sharing,
    /// How much time its data is worth.
    pub policy: Policy,
}

impl PoolOptions {
    /// A private pool for data that must be returned, with the default policy.
    #[must_use]
    pub fn persistent() -> Self {
        Self { persistence: Persistence::Persistent, sharing: Sharing::Private, policy: Policy::default() }
    }

    /// A private pool for data that may vanish, with the default policy.
    #[must_use]
    pub fn ephemeral() -> Self {
        Self { persistence: Persistence::Ephemeral, ..Self::persistent() }
    }

    /// The same with another policy.
    #[must_use]
    pub fn policy(self, policy: Policy) -> Self {
        Self { policy, ..self }
    }

    /// The same, shared.
    #[must_use]
    pub fn shared(self) -> Self {
        Self { sharing: Sharing::Shared, ..self }
    }
}

impl Client {
    pub(crate) fn new(store: Store, account: Arc<Account>) -> Self {
        Self { store, account }
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> ClientId {
        self.account.id
    }

    /// What it may do now.
    #[must_use]
    pub fn state(&self) -> ClientState {
        self.account.state()
    }

    /// Makes a pool that this client is charged for.
    ///
    /// # Errors
    /// [`StoreError::ClientDestroyed`].
    pub fn create_pool(&self, options: PoolOptions) -> Result<Pool, StoreError> {
        if self.account.state() == ClientState::Destroyed {
            return Err(StoreError::ClientDestroyed(self.account.id));
        }
        let engine = &self.store.engine;
        let id = PoolId(engine.registry.next_id());
        let settings = (options.persistence, options.sharing, options.policy);
        let pool = Arc::new(PoolCore::new(id, Arc::clone(&self.account), settings, engine.slots + 1));
        engine.budget.take_anyway(pool.cells.bytes(), Use::Scratch);
        engine.registry.add_pool(Arc::clone(&pool));
        self.give_access(&pool);
        if self.account.state() == ClientState::Destroyed {
            // It was destroyed meanwhile, perhaps before it could see this pool.
            destroy_pool(&self.store, &pool);
            return Err(StoreError::ClientDestroyed(self.account.id));
        }
        Ok(Pool { client: self.clone(), core: pool })
    }

    /// Joins a shared pool of another client, which has authorised this one. The pool's number is a name, not a key.
    ///
    /// # Errors
    /// [`StoreError::NoSuchPool`], [`StoreError::NotAuthorised`], [`StoreError::ClientDestroyed`].
    pub fn join_pool(&self, id: PoolId) -> Result<Pool, StoreError> {
        if self.account.state() == ClientState::Destroyed {
            return Err(StoreError::ClientDestroyed(self.account.id));
        }
        let core = self.store.engine.registry.pool(id).ok_or(StoreError::NoSuchPool(id))?;
        let own = core.owner.id == self.account.id;
        let invited = core.sharing == Sharing::Shared && core.authorised().contains(&self.account.id);
        if !own && !invited {
            return Err(StoreError::NotAuthorised { pool: id, client: self.account.id });
        }
        self.give_access(&core);
        Ok(Pool { client: self.clone(), core })
    }

    fn give_access(&self, pool: &Arc<PoolCore>) {
        let mut pools = self.account.pools.write().unwrap_or_else(PoisonError::into_inner);
        pools.insert(pool.id, Arc::clone(pool));
    }

    /// Carries out a batch in the calling thread, one operation after the other, and adds one completion for each.
    pub fn execute(&self, batch: &mut [Operation<'_>], completions: &mut Vec<Completion>) {
        let engine = &self.store.engine;
        let mut context = engine.contexts.take(&engine.budget);
        let mut last: Option<Arc<PoolCore>> = None;
        completions.reserve(batch.len());
        for at in 0..batch.len() {
            engine.look_ahead(&context, batch, at);
            let operation = &mut batch[at];
            if last.as_ref().is_none_or(|pool| pool.id != operation.pool) {
                last = self.account.pool(operation.pool);
            }
            let outcome = match &last {
                Some(pool) => self.run(&mut context, pool, operation.object, &mut operation.action),
                None => Outcome::Refused(Refusal::UnknownPool(operation.pool)),
            };
            completions.push(Completion { tag: operation.tag, outcome });
        }
        context.recount(&engine.budget);
    }

    /// Carries out one operation.
    fn run(&self, context: &mut Taken<'_>, pool: &PoolCore, object: ObjectId, action: &mut Action<'_>) -> Outcome {
        let engine = &self.store.engine;
        let target = Target { pool, id: object, caller: &self.account };
        let outcome = match self.check(pool, action) {
            Err(refusal) => Outcome::Refused(refusal),
            Ok(range) => match action {
                Action::Put { from, .. } => engine.put(context, target, range, Gather::new(from)),
                Action::Get { into, .. } => engine.get(context, target, range, (Scatter::new(into), After::Keep)),
                Action::Take { into, .. } => engine.get(context, target, range, (Scatter::new(into), After::Flush)),
                Action::Flush { .. } => Outcome::Flushed { granules: engine.flush_range(context, target, range) },
                Action::FlushObject => Outcome::Flushed { granules: engine.remove_object(context, target) },
            },
        };
        for counter in counters_of(action, &outcome) {
            engine.count(context, pool, *counter, 1);
        }
        outcome
    }

    /// Whether the client may use a pool that it once had.
    fn check_pool(&self, pool: &PoolCore) -> Result<(), Refusal> {
        if self.account.state() == ClientState::Destroyed {
            return Err(Refusal::ClientDestroyed);
        }
        if pool.is_destroyed() {
            return Err(Refusal::UnknownPool(pool.id));
        }
        Ok(())
    }

    /// The range of an operation that makes sense.
    fn check(&self, pool: &PoolCore, action: &Action<'_>) -> Result<ByteRange, Refusal> {
        self.check_pool(pool)?;
        match action {
            Action::Put { offset, from } => {
                ByteRange::of_granules(*offset, from.iter().map(|part| part.len() as u64).sum())
            }
            Action::Get { offset, into } => ByteRange::any(*offset, into.iter().map(|part| part.len() as u64).sum()),
            Action::Take { offset, into } => {
                ByteRange::of_granules(*offset, into.iter().map(|part| part.len() as u64).sum())
            }
            Action::Flush { offset, len } => ByteRange::of_granules(*offset, *len),
            Action::FlushObject => Ok(ByteRange { offset: 0, len: u64::MAX }),
        }
    }

    /// Changes the cap. What is held already stays; puts fail, or cost the client its own ephemeral blocks, until it
    /// is under the cap again.
    pub fn set_cap(&self, bytes: usize) {
        self.account.set_cap(bytes);
    }

    /// The cap in bytes.
    #[must_use]
    pub fn cap(&self) -> usize {
        self.account.cap_bytes()
    }

    /// Changes the weight; 0 counts as 1.
    pub fn set_weight(&self, weight: u32) {
        self.account.set_weight(weight);
    }

    /// Bytes that the client is charged for: its blocks with their headers, and its part of the tables.
    #[must_use]
    pub fn charged_bytes(&self) -> usize {
        self.account.charged_bytes()
    }

    /// Counts over the pools that this client created.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.account.stats()
    }

    /// From when this returns, puts fail that would store something new. Gets, flushes and puts that replace what is
    /// there still take effect.
    ///
    /// # Errors
    /// [`StoreError::ClientDestroyed`].
    pub fn freeze(&self) -> Result<(), StoreError> {
        self.go_to(ClientState::Frozen)
    }

    /// Ends [`Client::freeze`].
    ///
    /// # Errors
    /// [`StoreError::ClientDestroyed`].
    pub fn thaw(&self) -> Result<(), StoreError> {
        self.go_to(ClientState::Running)
    }

    fn go_to(&self, state: ClientState) -> Result<(), StoreError> {
        if !self.account.set_state(state) {
            return Err(StoreError::ClientDestroyed(self.account.id));
        }
        self.store.engine.settle_state();
        Ok(())
    }

    /// Ends the client: its pools and all that is in them are gone when this returns. Doing it again does nothing.
    pub fn destroy(&self) {
        if !self.account.set_state(ClientState::Destroyed) {
            return;
        }
        let pools: Vec<_> = {
            let mut pools = self.account.pools.write().unwrap_or_else(PoisonError::into_inner);
            pools.drain().map(|(_, pool)| pool).filter(|pool| pool.owner.id == self.account.id).collect()
        };
        for pool in pools {
            destroy_pool(&self.store, &pool);
        }
        self.store.engine.registry.remove_client(&self.account);
    }
}

/// What an operation counts as.
fn counters_of(action: &Action<'_>, outcome: &Outcome) -> &'static [Counter] {
    use Counter as C;
    match (action, outcome) {
        (Action::Put { .. }, Outcome::Stored) => &[C::Puts, C::PutsStored],
        (Action::Put { .. }, Outcome::Rejected(_)) => &[C::Puts, C::PutsRejected],
        (Action::Put { .. }, Outcome::Frozen) => &[C::Puts, C::PutsFrozen],
        (Action::Put { .. }, _) => &[C::Puts, C::PutsRefused],
        (Action::Get { .. }, outcome) => match outcome {
            Outcome::Filled => &[C::Gets, C::GetsFilled],
            Outcome::PartlyFilled(_) => &[C::Gets, C::GetsPartly],
            Outcome::Missing => &[C::Gets, C::GetsMissing],
            Outcome::Refused(_) => &[C::Gets, C::GetsRefused],
            _ => &[C::Gets, C::GetsCorrupt],
        },
        (Action::Take { .. }, outcome) => match outcome {
            Outcome::Filled => &[C::Takes, C::Gets, C::GetsFilled],
            Outcome::PartlyFilled(_) => &[C::Takes, C::Gets, C::GetsPartly],
            Outcome::Missing => &[C::Takes, C::Gets, C::GetsMissing],
            Outcome::Refused(_) => &[C::Takes, C::Gets, C::GetsRefused],
            _ => &[C::Takes, C::Gets, C::GetsCorrupt],
        },
        (Action::Flush { .. } | Action::FlushObject, Outcome::Refused(_)) => &[C::Flushes, C::FlushesRefused],
        (Action::Flush { .. } | Action::FlushObject, _) => &[C::Flushes],
    }
}

fn destroy_pool(store: &Store, pool: &PoolCore) {
    if !pool.mark_destroyed() {
        return;
    }
    // Nothing is put into it from here on.
    store.engine.settle_state();
    store.engine.empty_pool(pool);
    store.engine.registry.remove_pool(pool);
    pool.owner.bury(&pool.cells.sum());
    store.engine.budget.give_back(pool.cells.bytes(), Use::Scratch);
}

/// A pool, as one client uses it. Cloning or dropping the handle does not make or destroy a pool.
#[derive(Debug, Clone)]
pub struct Pool {
    client: Client,
    core: Arc<PoolCore>,
}

impl Pool {
    /// Its number, by which others join it.
    #[must_use]
    pub fn id(&self) -> PoolId {
        self.core.id
    }

    /// Whether its data may vanish.
    #[must_use]
    pub fn persistence(&self) -> Persistence {
        self.core.persistence
    }

    /// How much time its data is worth now.
    #[must_use]
    pub fn policy(&self) -> Policy {
        self.core.policy()
    }

    /// Changes the policy: for what is put from now on, and for what the cleaner takes as cold from now on.
    pub fn set_policy(&self, policy: Policy) {
        self.core.set_policy(policy);
        self.client.store.engine.policy_changed();
    }

    /// Stores `bytes` at `offset` (a multiple of 4096). `bytes` must not be memory whose page faults wait for this
    /// store.
    ///
    /// A ragged last granule reads as zeros after the last byte.
    pub fn put(&self, object: impl Into<ObjectId>, offset: u64, bytes: &[u8]) -> Outcome {
        self.run(object.into(), Action::Put { offset, from: &[bytes] })
    }

    /// Fills `into` from `offset` on, which may be any byte.
    pub fn get(&self, object: impl Into<ObjectId>, offset: u64, into: &mut [u8]) -> Outcome {
        self.run(object.into(), Action::Get { offset, into: &mut [into] })
    }

    /// Gets and flushes in one: of two takes of a granule one has it. `offset` is a multiple of 4096, and a ragged
    /// last granule is flushed whole.
    pub fn take(&self, object: impl Into<ObjectId>, offset: u64, into: &mut [u8]) -> Outcome {
        self.run(object.into(), Action::Take { offset, into: &mut [into] })
    }

    /// Makes `len` bytes at `offset` (a multiple of 4096) missing, a ragged last granule whole.
    pub fn flush(&self, object: impl Into<ObjectId>, offset: u64, len: u64) -> Outcome {
        self.run(object.into(), Action::Flush { offset, len })
    }

    /// Makes all of an object missing.
    pub fn flush_object(&self, object: impl Into<ObjectId>) -> Outcome {
        self.run(object.into(), Action::FlushObject)
    }

    /// Makes everything missing that was in the pool when this was called; the pool stays. Takes a microsecond or so for
    /// each object, and for what it held.
    pub fn flush_all(&self) -> Outcome {
        let engine = &self.client.store.engine;
        let outcome = match self.client.check_pool(&self.core) {
            Err(refusal) => Outcome::Refused(refusal),
            Ok(()) => Outcome::Flushed { granules: engine.empty_pool(&self.core) },
        };
        let context = engine.contexts.take(&engine.budget);
        for counter in counters_of(&Action::FlushObject, &outcome) {
            engine.count(&context, &self.core, *counter, 1);
        }
        outcome
    }

    fn run(&self, object: ObjectId, mut action: Action<'_>) -> Outcome {
        let engine = &self.client.store.engine;
        let mut context = engine.contexts.take(&engine.budget);
        engine.look_at(&context, (self.core.id, object), &action);
        let outcome = self.client.run(&mut context, &self.core, object, &mut action);
        context.recount(&engine.budget);
        outcome
    }

    /// Room in the log for blocks that somebody else encodes. It takes none before [`Loan::room`] asks for it.
    #[must_use]
    pub fn lend(&self) -> Loan {
        Loan::new(self.clone())
    }

    /// Shows where the blocks of some granules (offsets over 4096) of an object lie, for another process that maps
    /// the regions to decode them. They were checked against their checksums as a get does, and neither move nor are
    /// reused until `visit` returns, even if they are flushed or replaced meanwhile. What another process that maps a
    /// region does to a block after the check is not noticed: see [`Loan`], "Trust".
    ///
    /// `visit` must not use this store, and should last no longer than about a millisecond: no memory is reclaimed
    /// meanwhile, and one of the few contexts that operations need is taken. Nothing is counted.
    ///
    /// # Errors
    /// [`Outcome::Corrupt`] for the first granule that is damaged, and [`Outcome::Refused`] when the pool or client was
    /// destroyed; `visit` was not called then.
    pub fn with_blocks<R>(
        &self,
        object: impl Into<ObjectId>,
        granules: &[u64],
        visit: impl FnOnce(&[Located]) -> R,
    ) -> Result<R, Outcome> {
        let target = self.target(object.into()).map_err(Outcome::Refused)?;
        self.engine().with_blocks(target, granules, visit)
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.client.store.engine
    }

    pub(crate) fn core(&self) -> &PoolCore {
        &self.core
    }

    /// What an operation on `object` is on, if the client may still use the pool.
    pub(crate) fn target(&self, object: ObjectId) -> Result<Target<'_>, Refusal> {
        self.client.check_pool(&self.core)?;
        Ok(Target { pool: &self.core, id: object, caller: &self.client.account })
    }

    /// Lets another client join. For the owner of a shared pool.
    ///
    /// # Errors
    /// [`StoreError::NotOwner`], [`StoreError::NotShared`].
    pub fn authorise(&self, client: ClientId) -> Result<(), StoreError> {
        self.check_owner()?;
        if self.core.sharing == Sharing::Private {
            return Err(StoreError::NotShared(self.core.id));
        }
        self.core.authorised().insert(client);
        Ok(())
    }

    /// Counts since the pool was created.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.core.cells.sum()
    }

    /// Ends the pool for everybody: all that is in it is gone when this returns. For its owner.
    ///
    /// # Errors
    /// [`StoreError::NotOwner`].
    pub fn destroy(&self) -> Result<(), StoreError> {
        self.check_owner()?;
        destroy_pool(&self.client.store, &self.core);
        Ok(())
    }

    fn check_owner(&self) -> Result<(), StoreError> {
        let own = self.core.owner.id == self.client.account.id;
        if own { Ok(()) } else { Err(StoreError::NotOwner(self.core.id)) }
    }
}
