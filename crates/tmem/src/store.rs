//! The store: one engine with a budget, and its clients.

use crate::cleaner::{Background, Cold};
use crate::client::{Account, ClientId, ClientState};
use crate::client_face::Client;
use crate::engine::{Engine, check_budget};
use crate::stats::Stats;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

/// How a store is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreOptions {
    /// Bytes that the store may use in all: blocks, headers, holes, tables, scratch.
    pub budget_bytes: usize,
    /// Who cleans ahead of need.
    pub cleaning: Cleaning,
    /// When cold data is encoded anew.
    pub settling: Settling,
}

impl StoreOptions {
    /// A store of so many bytes that cleans in the background, and settles when it is full.
    #[must_use]
    pub fn with_budget(budget_bytes: usize) -> Self {
        Self { budget_bytes, cleaning: Cleaning::Background, settling: Settling::WhenFull }
    }
}

/// Who cleans ahead of need. Without anybody, puts that find no room still clean for themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cleaning {
    /// A thread of the store's own.
    Background,
    /// Nobody: everything happens in the threads that call. For tests, and for callers that may not have threads.
    OnDemand,
}

/// When cold data is encoded anew, as the policies of its pools say for it. What is so encoded is denser, and a get of one
/// granule decodes several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settling {
    /// When room is wanted, and compaction finds none.
    WhenFull,
    /// By [`Store::settle_cold`], [`Store::settle_all`], [`Store::shrink`] and a budget that is lowered only: for who would
    /// rather raise the budget.
    WhenAsked,
}

/// Why a store or a part of it could not be made or changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The budget leaves no room to work.
    #[error("a budget of {bytes} bytes is too small to work in: give at least {least} bytes")]
    BudgetTooSmall {
        /// The budget.
        bytes: usize,
        /// The smallest one.
        least: usize,
    },
    /// The system has no memory, addresses or descriptors for it.
    #[error(transparent)]
    System(#[from] tmem_sys::SysError),
    /// The cleaner's thread could not be started.
    #[error("cannot start the cleaner's thread")]
    Thread(#[source] std::io::Error),
    /// There is no such pool.
    #[error("there is no pool {0:?}: it was destroyed, or never created")]
    NoSuchPool(crate::PoolId),
    /// The pool is private, or its owner has not authorised the client.
    #[error("{client:?} may not join pool {pool:?}: its owner has not authorised it")]
    NotAuthorised {
        /// The pool.
        pool: crate::PoolId,
        /// Who wanted to join.
        client: ClientId,
    },
    /// The pool belongs to another client.
    #[error("pool {0:?} belongs to another client, and only its owner may do this")]
    NotOwner(crate::PoolId),
    /// The pool is private: nobody can join it.
    #[error("pool {0:?} is private: create it as shared to let others join")]
    NotShared(crate::PoolId),
    /// The client was destroyed.
    #[error("{0:?} was destroyed")]
    ClientDestroyed(ClientId),
}

/// A store of memory. Dropping it, and everything made from it, gives all its memory back.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) engine: Arc<Engine>,
    /// Stops with the last handle.
    background: Option<Arc<Background>>,
}

/// How a client is treated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientOptions {
    /// For people.
    pub name: String,
    /// Bytes that it may hold: blocks with their headers, and its part of the tables. A put that would go beyond it
    /// fails (or, in an ephemeral pool, drops older blocks of the client). What is left of a block that is partly
    /// flushed is charged anew when the cleaner encodes it apart, which may be more than its part of the block was.
    pub cap_bytes: usize,
    /// Its right to ephemeral memory, relative to the others' (1 or more).
    pub weight: u32,
}

impl ClientOptions {
    /// A client with no cap and a weight of 1.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned(), cap_bytes: usize::MAX, weight: 1 }
    }
}

/// What the store's memory is used for, in bytes as the kernel counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryUsage {
    /// The budget.
    pub budget: usize,
    /// In all; the sum of what follows.
    pub used: usize,
    /// Segments of the log: blocks, headers, holes, what is open and what is kept warm.
    pub segments: usize,
    /// Tables from granule to block.
    pub tables: usize,
    /// The hash index of objects.
    pub index: usize,
    /// Codec scratch and contexts, counters.
    pub scratch: usize,
    /// What clients are charged for: live blocks with their headers, leaves and nodes of the tables.
    pub charged: usize,
    /// What shrinking could free: dead blocks, ephemeral blocks, warm segments.
    pub freeable: usize,
}

impl Store {
    /// Makes one.
    ///
    /// # Errors
    /// [`StoreError::BudgetTooSmall`], [`StoreError::System`], [`StoreError::Thread`].
    pub fn new(options: StoreOptions) -> Result<Self, StoreError> {
        let engine = Arc::new(Engine::new(options)?);
        let background = match options.cleaning {
            Cleaning::Background => Some(Arc::new(Background::start(&engine).map_err(StoreError::Thread)?)),
            Cleaning::OnDemand => None,
        };
        Ok(Self { engine, background })
    }

    /// A new client.
    #[must_use]
    pub fn client(&self, options: ClientOptions) -> Client {
        let id = ClientId(self.engine.registry.next_id());
        let account = Arc::new(Account::new(id, options.name, options.cap_bytes, options.weight));
        self.engine.registry.add_client(Arc::clone(&account));
        Client::new(self.clone(), account)
    }

    /// Every client that was not destroyed: number, name, state.
    #[must_use]
    pub fn clients(&self) -> Vec<(ClientId, String, ClientState)> {
        self.engine
            .registry
            .clients()
            .iter()
            .map(|account| (account.id, account.name.clone(), account.state()))
            .collect()
    }

    /// Changes the budget. One that is smaller than what is used takes effect by and by: puts are rejected until what
    /// is used has shrunk, which this starts.
    ///
    /// # Errors
    /// [`StoreError::BudgetTooSmall`].
    pub fn set_budget(&self, bytes: usize) -> Result<(), StoreError> {
        check_budget(bytes)?;
        self.engine.lower_or_raise(bytes);
        Ok(())
    }

    /// Gives memory back to the system now, until no more than `target_bytes` are used or nothing more can be freed:
    /// compacts, drops ephemeral blocks, encodes cold data anew. Accepted persistent data stays. In any case what open
    /// segments do not fill goes back. Returns what is used afterwards. The budget does not change.
    pub fn shrink(&self, target_bytes: usize) -> usize {
        self.engine.shrink(target_bytes);
        self.engine.budget.used()
    }

    /// Encodes what was not got lately anew, as the policies of its pools say for cold data, and compacts.
    pub fn settle_cold(&self) {
        self.engine.settle_all(Cold::Unread);
    }

    /// The same for everything, however often it is got.
    pub fn settle_all(&self) {
        self.engine.settle_all(Cold::Everything);
    }

    /// Memory of region `number`, [`REGION_BYTES`](crate::REGION_BYTES) long, to be mapped by whoever fills a
    /// [`Loan`](crate::Loan). None: there is no such region yet.
    #[must_use]
    pub fn region(&self, number: u32) -> Option<BorrowedFd<'_>> {
        self.engine.log.segments.region(number).map(AsFd::as_fd)
    }

    /// What [`Store::memory`] gives as `used`, and nothing else: one load.
    #[must_use]
    pub fn used_bytes(&self) -> usize {
        self.engine.budget.used()
    }

    /// What memory is used for.
    #[must_use]
    pub fn memory(&self) -> MemoryUsage {
        use crate::budget::Use;
        let budget = &self.engine.budget;
        let clients = self.engine.registry.clients();
        MemoryUsage {
            budget: budget.limit(),
            used: budget.used(),
            segments: budget.used_for(Use::Segments),
            tables: budget.used_for(Use::Tables),
            index: budget.used_for(Use::Index),
            scratch: budget.used_for(Use::Scratch),
            charged: clients.iter().map(|account| account.charged_bytes()).sum(),
            freeable: self.engine.freeable_bytes(),
        }
    }

    /// Counts over all clients and all time.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.engine.registry.stats()
    }

    /// Granules held, by a walk through all tables. Slow.
    #[must_use]
    pub fn count_granules(&self) -> u64 {
        self.engine.census().granules
    }

    /// Checks every table, ledger and stored block against the others. Slow, and only for moments when nothing else is
    /// running.
    ///
    /// # Panics
    /// When anything does not fit, saying what.
    pub fn validate(&self) {
        self.engine.validate();
    }

    /// Whether a thread cleans in the background.
    #[must_use]
    pub fn cleans_in_background(&self) -> bool {
        self.background.is_some()
    }
}
