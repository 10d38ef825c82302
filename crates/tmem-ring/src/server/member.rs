//! A client of a daemon, connected or away.
//!
//! | presence | | |
//! |---|---|---|
//! | connected | has one session | its packets, queues |
//! | leaving | its session is over; an errand clears up behind it | nothing: who wants it waits |
//! | away | has pools that outlive it, charged as ever | can be attached by number, key and user |

use super::queue::Served;
use super::tenant::Tenant;
use crate::operation::{ClientId, PoolId};
use crate::wire::{ClientStat, Key, Policy, PoolKind, PoolOptions, PoolStat};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use tmem_sys::Doorbell;

/// Who has wished for something of a client that is leaving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) session: u64,
    pub(crate) wish: Wish,
}

/// What for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// To be it.
    Attach {
        /// Its process.
        pid: u32,
    },
    /// That it is destroyed.
    Destroyed,
}

/// Whether a client is there.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    Connected { session: u64, pid: u32 },
    Leaving { waiting: Vec<Waiting> },
    Away,
}

/// A queue of a client.
#[derive(Debug)]
pub(crate) struct OwnQueue {
    pub(crate) served: Arc<Served>,
    pub(crate) entries: u64,
}

/// A pool of a client.
#[derive(Debug)]
pub(crate) struct OwnPool {
    pub(crate) pool: tmem::Pool,
    pub(crate) options: PoolOptions,
    pub(crate) authorised: usize,
}

/// A client.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) key: Key,
    pub(crate) presence: Presence,
    pub(crate) client: tmem::Client,
    pub(crate) tenant: Arc<Tenant>,
    pub(crate) cap_bytes: Option<u64>,
    pub(crate) pools: BTreeMap<PoolId, OwnPool>,
    pub(crate) queues: BTreeMap<u64, OwnQueue>,
    /// An errand ends queues that the client has let go of.
    pub(crate) closing: bool,
}

/// What is left of a client's session, to be cleared away.
#[derive(Debug)]
pub(crate) struct Remains {
    queues: Vec<u64>,
    tenant: Arc<Tenant>,
    /// Pools that go with it.
    pools: Vec<tmem::Pool>,
    /// None of its pools stays, and neither does it.
    is_all: bool,
}

impl Remains {
    /// How many pools go.
    pub(crate) fn pools(&self) -> usize {
        self.pools.len()
    }

    /// Clears them away; this may take its time. Returns whether the client is gone altogether.
    pub(crate) fn bury(self, service: &super::Service) -> bool {
        for queue in self.queues {
            service.close(queue);
        }
        drop(self.tenant.unregister_all());
        if self.is_all {
            self.tenant.client.destroy();
        }
        for pool in self.pools {
            // Its own, so there is nothing to refuse.
            let _ = pool.destroy();
        }
        self.is_all
    }
}

impl Member {
    pub(crate) fn id(&self) -> ClientId {
        ClientId(self.client.id().0)
    }

    /// It has no session any more. Returns what is to be cleared away; all of it, if `destroy`.
    pub(crate) fn leave(&mut self, destroy: bool, waiting: Vec<Waiting>) -> Remains {
        self.presence = Presence::Leaving { waiting };
        let queues = std::mem::take(&mut self.queues).into_keys().collect();
        let all = std::mem::take(&mut self.pools);
        let (kept, gone) = all.into_iter().partition(|(_, own)| own.options.outlives && !destroy);
        self.pools = kept;
        let pools = BTreeMap::into_values(gone).map(|own: OwnPool| own.pool).collect();
        Remains { queues, tenant: Arc::clone(&self.tenant), pools, is_all: self.pools.is_empty() }
    }

    /// It has come back. What it did before is over, even if an errand for it is not, so it is a new tenant.
    pub(crate) fn attach(&mut self, session: u64, pid: u32, notice: &Arc<Doorbell>) {
        let weight = u32::try_from(self.tenant.weight()).unwrap_or(u32::MAX);
        let tenant = Tenant::remote(self.client.clone(), weight, notice);
        tenant.count_on(&self.tenant);
        self.tenant = Arc::new(tenant);
        self.presence = Presence::Connected { session, pid };
    }

    /// Takes the queues out that the client has let go of.
    pub(crate) fn take_closed(&mut self) -> Vec<u64> {
        let closed = self.queues.iter().filter(|(_, queue)| queue.served.is_closed());
        let closed: Vec<u64> = closed.map(|(number, _)| *number).collect();
        closed.iter().for_each(|number| drop(self.queues.remove(number)));
        closed
    }

    pub(crate) fn set_cap(&mut self, bytes: u64) {
        self.cap_bytes = (bytes < u64::MAX).then_some(bytes);
        self.client.set_cap(usize::try_from(bytes).unwrap_or(usize::MAX));
    }

    pub(crate) fn set_weight(&self, weight: u32) {
        self.client.set_weight(weight);
        self.tenant.set_weight(weight);
    }

    /// Tells about it.
    pub(crate) fn stat(&self) -> ClientStat {
        use std::sync::atomic::Ordering::Relaxed; // sums
        let (stats, tenant) = (self.client.stats(), &self.tenant);
        let (regions, region_bytes) = tenant.registered();
        let pid = match self.presence {
            Presence::Connected { pid, .. } => Some(pid),
            Presence::Leaving { .. } | Presence::Away => None,
        };
        let pool_stat = |(id, own): (&PoolId, &OwnPool)| {
            let stats = own.pool.stats();
            PoolStat {
                pool: *id,
                options: own.options,
                granules_put: stats.granules_put,
                granules_got: stats.granules_got,
            }
        };
        ClientStat {
            client: self.id(),
            name: self.name.clone(),
            pid,
            uid: self.uid,
            state: state_name(self.client.state()).to_owned(),
            cap_bytes: self.cap_bytes,
            weight: tenant.weight(),
            charged_bytes: self.client.charged_bytes() as u64,
            operations: tenant.operations.load(Relaxed), // a sum
            operation_bytes: tenant.bytes.load(Relaxed), // a sum
            puts_stored: stats.puts_stored,
            puts_failed: stats.puts - stats.puts_stored.min(stats.puts),
            gets_filled: stats.gets_filled,
            gets_partly: stats.gets_partly,
            gets_missing: stats.gets_missing,
            gets_corrupt: stats.gets_corrupt,
            copied_bytes: stats.bytes_copied,
            doorbells_heard: tenant.heard.load(Relaxed),      // a sum
            doorbells_rung: tenant.rung.load(Relaxed),        // a sum
            served_us: tenant.served_ns.load(Relaxed) / 1000, // a sum
            regions: regions as u64,
            region_bytes: region_bytes as u64,
            queues: self.queues.len() as u64,
            pools: self.pools.iter().map(pool_stat).collect(),
        }
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // As a literal: it is the client's choice what is in it.
        write!(f, "client {} {:?} of uid {}", self.id().0, self.name, self.uid)
    }
}

fn state_name(state: tmem::ClientState) -> &'static str {
    match state {
        tmem::ClientState::Running => "running",
        tmem::ClientState::Frozen => "frozen",
        tmem::ClientState::Destroyed => "destroyed",
    }
}

/// Options of a pool, as the engine has them.
pub(crate) fn engine_options(options: PoolOptions) -> tmem::PoolOptions {
    let plain = match options.kind {
        PoolKind::Persistent => tmem::PoolOptions::persistent(),
        PoolKind::Ephemeral => tmem::PoolOptions::ephemeral(),
    };
    let plain = plain.policy(match options.policy {
        Policy::Fast => tmem::Policy::Fast,
        Policy::Balanced => tmem::Policy::Balanced,
        Policy::Dense => tmem::Policy::Dense,
    });
    if options.shared { plain.shared() } else { plain }
}
