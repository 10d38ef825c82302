//! The monitor as the command holds it.

use core::sync::atomic::{AtomicU64, Ordering};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use tmem::{ClientOptions, PoolOptions, Settling, Store, StoreError, StoreOptions};
use tmem_agent::digest::{KEY_WORDS, Key};
use tmem_agent::protocol::PAGE_BYTES;

use crate::core::Core;
use crate::options::Options;
use crate::report::{FaultTimes, LeftAlone, Live, Refused, Report};
use crate::watch::STORE_BYTES;
use crate::{door, evictor, lock, placement, watch};

/// The pages that a program comes to next are the oldest where it walks over them: they are not cold. `press` asks when
/// nothing else helps. Tests of the kernel's errors are to meet what was settled, too, which hardly happens by `press`.
const SETTLING: Settling = if cfg!(feature = "fault-injection") { Settling::WhenFull } else { Settling::WhenAsked };

/// A monitor could not start.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// The store could not be made.
    #[error("cannot make the store: {0}")]
    Store(#[from] StoreError),
    /// The kernel does not tell what is resident, or has no random numbers.
    #[error("the kernel does not tell what is needed: {0}")]
    Kernel(#[from] std::io::Error),
}

/// Owns the store, and serves a tree of programs.
#[derive(Debug)]
pub struct Monitor {
    core: Arc<Core>,
}

impl Monitor {
    /// Starts its threads. `listener` is a listening `SOCK_SEQPACKET` socket: programs connect to it by name.
    ///
    /// # Errors
    /// [`MonitorError`].
    pub fn start(options: &Options, listener: OwnedFd) -> Result<Self, MonitorError> {
        #[cfg(feature = "fault-injection")]
        crate::injection::start();
        let budget = usize::try_from(options.limit_bytes.max(STORE_BYTES)).unwrap_or(usize::MAX);
        // The store's cleaner starts with it.
        let store = std::thread::scope(|scope| {
            let maker = scope.spawn(|| {
                crate::step_back();
                Store::new(StoreOptions { settling: SETTLING, ..StoreOptions::with_budget(budget) })
            });
            maker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        // It may take what its live blocks need, and no more: the watch raises this as they grow.
        store.set_budget(usize::try_from(STORE_BYTES).unwrap_or(usize::MAX))?;
        let client = store.client(ClientOptions::named("tmem run"));
        let pool = client.create_pool(PoolOptions::persistent().policy(options.policy))?;
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let device = rustix::fs::open("/dev/userfaultfd", flags, Mode::empty()).ok();
        let core = Arc::new(Core::new(options, (store, client, pool), device, key()?));
        watch::start(&core)?;
        placement::start(&core);
        evictor::start(&core);
        door::start(&core, listener);
        Ok(Self { core })
    }

    /// This moment.
    #[must_use]
    pub fn live(&self) -> Live {
        let core = &self.core;
        let slots = lock(&core.slots);
        let (stored_bytes, held_bytes) = (slots.stored() as u64 * PAGE_BYTES, slots.held() as u64 * PAGE_BYTES);
        drop(slots);
        let store_bytes = core.store.used_bytes() as u64;
        Live {
            resident_bytes: core.counters.resident_now.get(),
            stored_bytes,
            store_bytes,
            density: ratio(held_bytes, store_bytes),
            faults: core.counters.faults.get(),
            limit_bytes: core.limit(),
            processes: u32::try_from(core.spaces().len()).unwrap_or(u32::MAX),
        }
    }

    /// From the start until now.
    #[must_use]
    pub fn report(&self) -> Report {
        let counters = &self.core.counters;
        let time = |share| counters.latency.percentile_us(share);
        Report {
            limit_bytes: self.core.limit(),
            wanted_peak_bytes: counters.wanted_peak.get(),
            given_peak_bytes: counters.given_peak.get(),
            resident_peak_bytes: counters.resident_peak.get(),
            store_peak_bytes: counters.store_peak.get(),
            density: counters.density.get() as f64 / 1000.0,
            faults: counters.faults.get(),
            fault_us: FaultTimes { p50: time(0.5), p99: time(0.99), p999: time(0.999) },
            stalled_s: counters.stalled_ns.get() as f64 / 1e9,
            evicted_bytes: counters.evicted_pages.get() * PAGE_BYTES,
            unchanged_bytes: counters.unchanged_pages.get() * PAGE_BYTES,
            copied_bytes: counters.copied_bytes.get(),
            huge_pages_restored: counters.huge_restored.get(),
            processes: counters.processes.get(),
            managed_processes: counters.managed.get(),
            unmanaged_processes: counters.unmanaged.get(),
            left_alone_bytes: LeftAlone {
                shared: counters.shared_bytes.get(),
                hugetlb: counters.hugetlb_bytes.get(),
                locked: counters.locked_bytes.get(),
            },
            evictions_refused: Refused {
                busy: counters.refused_busy.get(),
                gone: counters.refused_gone.get(),
                cancelled: counters.cancelled.get(),
                by_kernel: counters.refused_other.get(),
            },
            #[cfg(feature = "fault-injection")]
            injected: crate::injection::counts(&self.core),
            ..Report::default()
        }
    }

    /// What people are to be told, since the last call.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        self.core.take_notes()
    }

    /// Changes the limit; returns the old one.
    #[must_use]
    pub fn set_limit(&self, bytes: u64) -> u64 {
        self.core.set_limit(bytes)
    }

    /// Address spaces that still live.
    #[must_use]
    pub fn managed(&self) -> usize {
        self.core.spaces().iter().filter(|space| !space.is_gone()).count()
    }

    /// Ends the threads, at their next turn.
    pub fn stop(self) {
        self.core.stopping.store(true, Ordering::Relaxed); // Relaxed: noticed at some time
        self.core.spaces().iter().for_each(|space| space.kick());
    }
}

/// What pages' digests are made with: random words.
pub(crate) fn key() -> std::io::Result<Box<Key>> {
    let key: Box<Key> = Box::new([const { AtomicU64::new(0) }; KEY_WORDS]);
    // As many bytes as the kernel gives at once.
    for words in key.chunks_exact(32) {
        let random: [u8; 256] = tmem_sys::random_bytes()?;
        for (word, bytes) in words.iter().zip(random.as_chunks::<8>().0) {
            word.store(u64::from_le_bytes(*bytes), Ordering::Relaxed); // Relaxed: whoever starts threads publishes it
        }
    }
    Ok(key)
}

fn ratio(bytes: u64, per: u64) -> f64 {
    if per == 0 { 0.0 } else { bytes as f64 / per as f64 }
}
