//! Whose queues they are.

use super::run::Job;
use crate::operation::Refusal;
use core::ptr::NonNull;
use smallvec::SmallVec;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tmem_sys::{Doorbell, Region};

/// The number under which a queue in this process names its own addresses. Nobody can register it.
pub(crate) const OWN_ADDRESSES: u16 = u16::MAX;

/// What a tenant's operations may name as memory.
#[derive(Debug)]
enum Reach {
    /// The regions that it registered.
    Regions(Mutex<BTreeMap<u16, Arc<Region>>>),
    /// This process' own addresses, which [`LocalQueue`](super::LocalQueue) lends.
    Own,
}

/// A client of the store, as the service sees it.
#[derive(Debug)]
pub(crate) struct Tenant {
    pub(crate) client: tmem::Client,
    reach: Reach,
    weight: AtomicU64,
    /// Whose turn it is: time that its operations have taken, in nanoseconds over its weight; no less than what the service
    /// was at, but for some credit, when the tenant last had nothing to do.
    pub(crate) virtual_ns: AtomicU64,
    /// Time that its operations have taken, in nanoseconds.
    pub(crate) served_ns: AtomicU64,
    /// It has broken the protocol, and is to be thrown out.
    broken: AtomicBool,
    /// Rung when a queue of it was closed, for who clears up behind it.
    notice: Option<Arc<Doorbell>>,
    /// Operations carried out, and bytes of memory that they named.
    pub(crate) operations: AtomicU64,
    pub(crate) bytes: AtomicU64,
    /// Doorbells that were rung for it, and that it has rung.
    pub(crate) rung: AtomicU64,
    pub(crate) heard: AtomicU64,
}

/// What there is one of for each slice of an operation's memory. Most have one slice, for which nothing is allocated.
pub(crate) type Slices<T> = SmallVec<[T; 1]>;

/// Memory that an operation names, whose bounds were checked.
#[derive(Debug, Clone)]
pub(crate) struct Reached {
    /// Keeps it mapped.
    region: Option<Arc<Region>>,
    start: NonNull<u8>,
    pub(crate) len: usize,
}

// Relaxed in all of this: settings and sums, which publish nothing.
impl Tenant {
    /// One whose operations name registered regions. `notice` is rung when a queue of it was closed.
    pub(crate) fn remote(client: tmem::Client, weight: u32, notice: &Arc<Doorbell>) -> Self {
        let tenant = Self::new(client, weight, Reach::Regions(Mutex::default()));
        Self { notice: Some(Arc::clone(notice)), ..tenant }
    }

    /// One in this process.
    pub(crate) fn local(client: tmem::Client) -> Self {
        Self::new(client, 1, Reach::Own)
    }

    fn new(client: tmem::Client, weight: u32, reach: Reach) -> Self {
        let weight = AtomicU64::new(u64::from(weight.max(1)));
        Self {
            client,
            reach,
            weight,
            virtual_ns: AtomicU64::new(0),
            served_ns: AtomicU64::new(0),
            broken: AtomicBool::new(false),
            notice: None,
            operations: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            rung: AtomicU64::new(0),
            heard: AtomicU64::new(0),
        }
    }

    /// Changes its share of the workers' time; 0 counts as 1.
    pub(crate) fn set_weight(&self, weight: u32) {
        self.weight.store(u64::from(weight.max(1)), Ordering::Relaxed); // Relaxed: a setting
    }

    /// Its share of the workers' time.
    pub(crate) fn weight(&self) -> u64 {
        self.weight.load(Ordering::Relaxed) // Relaxed: a setting
    }

    /// Accounts for `ns` of a worker's time.
    pub(crate) fn charge(&self, ns: u64) {
        self.virtual_ns.fetch_add(ns / self.weight(), Ordering::Relaxed); // Relaxed: a sum
        self.served_ns.fetch_add(ns, Ordering::Relaxed); // Relaxed: a sum
    }

    /// Counts what is about to be carried out.
    pub(crate) fn count(&self, jobs: &[Job]) {
        let parts = jobs.iter().filter_map(|job| job.todo.as_ref().ok()).flat_map(|todo| &todo.memory);
        let bytes: usize = parts.map(|part| part.len).sum();
        let operations = jobs.iter().filter(|job| job.piece.is_none_or(|piece| piece.skip == 0)).count();
        self.operations.fetch_add(operations as u64, Ordering::Relaxed); // Relaxed: a sum
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed); // Relaxed: a sum
    }

    /// A queue of it was closed, perhaps because it broke the protocol.
    pub(crate) fn tell_of_closing(&self, broken: bool) {
        self.broken.fetch_or(broken, Ordering::Relaxed); // Relaxed: the bell's system call publishes it
        if let Some(notice) = &self.notice {
            notice.ring();
        }
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed) // Relaxed: as above
    }

    /// Goes on with what was counted of another one.
    pub(crate) fn count_on(&self, before: &Self) {
        for (count, before) in self.counts().into_iter().zip(before.counts()) {
            count.fetch_add(before.load(Ordering::Relaxed), Ordering::Relaxed); // Relaxed: sums
        }
    }

    fn counts(&self) -> [&AtomicU64; 6] {
        [&self.virtual_ns, &self.served_ns, &self.operations, &self.bytes, &self.rung, &self.heard]
    }

    /// Registers a region. Returns whether the number was free.
    pub(crate) fn register(&self, number: u16, region: Region) -> bool {
        let Some(mut regions) = self.regions().filter(|_| number != OWN_ADDRESSES) else { return false };
        let free = !regions.contains_key(&number);
        if free {
            regions.insert(number, Arc::new(region));
        }
        free
    }

    /// Forgets a region, and returns it. Its memory stays mapped until that is dropped (which may take its time) and
    /// the last operation on it has ended.
    pub(crate) fn unregister(&self, number: u16) -> Option<Arc<Region>> {
        self.regions().and_then(|mut regions| regions.remove(&number))
    }

    /// Forgets all regions, and returns them.
    pub(crate) fn unregister_all(&self) -> Vec<Arc<Region>> {
        self.regions().map_or_else(Vec::new, |mut regions| core::mem::take(&mut *regions).into_values().collect())
    }

    /// How many regions there are, and their bytes.
    pub(crate) fn registered(&self) -> (usize, usize) {
        self.regions().map_or((0, 0), |regions| (regions.len(), regions.values().map(|region| region.len()).sum()))
    }

    fn regions(&self) -> Option<MutexGuard<'_, BTreeMap<u16, Arc<Region>>>> {
        match &self.reach {
            Reach::Regions(regions) => Some(regions.lock().unwrap_or_else(PoisonError::into_inner)),
            Reach::Own => None,
        }
    }

    /// Memory that lies within what the tenant may name.
    pub(crate) fn reach(&self, number: u16, offset: u64, len: u64) -> Result<Reached, Refusal> {
        let offset = usize::try_from(offset).map_err(|_| Refusal::BeyondRegion)?;
        let len = usize::try_from(len).map_err(|_| Refusal::BeyondRegion)?;
        match &self.reach {
            Reach::Own if number == OWN_ADDRESSES => {
                // The address was exposed by `LocalQueue::push`, which owns the memory until it is completed.
                let start = NonNull::new(core::ptr::with_exposed_provenance_mut(offset));
                Ok(Reached { region: None, start: start.ok_or(Refusal::BeyondRegion)?, len })
            }
            Reach::Own => Err(Refusal::UnknownRegion),
            Reach::Regions(_) => {
                let region = self.regions().and_then(|regions| regions.get(&number).cloned());
                let region = region.ok_or(Refusal::UnknownRegion)?;
                if region.is_lost() {
                    return Err(Refusal::RegionLost);
                }
                if offset > region.len() || len > region.len() - offset {
                    return Err(Refusal::BeyondRegion);
                }
                // SAFETY: offset <= region.len(), so the result is in the region's mapping or at its end.
                let start = unsafe { region.as_ptr().add(offset) };
                Ok(Reached { region: Some(region), start, len })
            }
        }
    }
}

impl Reached {
    /// A part of it.
    pub(crate) fn part(&self, skip: usize, len: usize) -> Self {
        assert!(skip <= self.len && len <= self.len - skip, "{len} bytes at {skip} of {}", self.len);
        // SAFETY: within the memory that `self` is.
        let start = unsafe { self.start.add(skip) };
        Self { region: self.region.clone(), start, len }
    }

    /// Where it starts.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn address(&self) -> usize {
        self.start.addr().get()
    }

    /// Whether what was read from it may have been zeros in the place of what was lost.
    pub(crate) fn is_lost(&self) -> bool {
        self.region.as_ref().is_some_and(|region| region.is_lost())
    }

    /// The bytes, to be read.
    ///
    /// # Safety
    /// The memory is used only while `self` lives, and nobody in this process writes to it meanwhile. Its owner may, if it
    /// is shared with another process: whoever reads must do no harm whatever it sees, twice or once. The codecs are
    /// written, and tested, for that (`tests/changing_source.rs`).
    pub(crate) unsafe fn as_slice<'a>(&self) -> &'a [u8] {
        // SAFETY: mapped as long as `self` holds its region, or owned by the local queue until the completion is
        // reaped; the rest is the caller's promise.
        unsafe { core::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// The bytes, to be filled.
    ///
    /// # Safety
    /// As for [`Self::as_slice`], and nobody in this process reads it meanwhile. Decoders copy from what they have written
    /// themselves; that its owner may have changed it is bytes in the owner's memory and nothing else.
    pub(crate) unsafe fn as_mut_slice<'a>(&self) -> &'a mut [u8] {
        // SAFETY: as above.
        unsafe { core::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

// SAFETY: an address, and what keeps it mapped; it is looked at through unsafe functions only.
unsafe impl Send for Reached {}
