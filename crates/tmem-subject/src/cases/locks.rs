//! Locks of the C library that the kernel has a hand in.

use crate::fork::child;
use crate::options::Options;
use crate::pattern::Digest;
use crate::pressure::{Pressure, absent};
use crate::region::Region;
use crate::sys::{self, PAGE, demand_zero};
use std::sync::Barrier;

/// Locks, each in a page of its own.
const LOCKS: usize = 32;
/// A lock that is not had by now never will be.
const LOCK_SECONDS: i64 = 20;

/// A lock at an address.
#[derive(Debug, Clone, Copy)]
struct Lock(usize);

impl Lock {
    /// Makes it; `set` has a say in its attributes.
    fn make(at: usize, set: impl Fn(*mut libc::pthread_mutexattr_t) -> i32) -> Self {
        // SAFETY: all zeros is a valid value for the C library to initialise.
        let mut attributes: libc::pthread_mutexattr_t = unsafe { std::mem::zeroed() };
        // SAFETY: ours.
        demand_zero(unsafe { libc::pthread_mutexattr_init(&raw mut attributes) }, "pthread_mutexattr_init");
        demand_zero(set(&raw mut attributes), "an attribute of a lock");
        let lock = at as *mut libc::pthread_mutex_t;
        // SAFETY: the memory is mapped, aligned, and nothing else's.
        demand_zero(unsafe { libc::pthread_mutex_init(lock, &raw const attributes) }, "pthread_mutex_init");
        Self(at)
    }

    fn get(self) -> *mut libc::pthread_mutex_t {
        self.0 as *mut _
    }

    /// Takes it, or an error number.
    fn lock(self) -> i32 {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock");
        let end = libc::timespec { tv_sec: now.as_secs() as i64 + LOCK_SECONDS, tv_nsec: 0 };
        // SAFETY: made by `make`.
        unsafe { libc::pthread_mutex_timedlock(self.get(), &raw const end) }
    }

    fn unlock(self) {
        // SAFETY: made by `make`.
        demand_zero(unsafe { libc::pthread_mutex_unlock(self.get()) }, "pthread_mutex_unlock");
    }

    /// Adds one to what it guards, which lies in its page.
    fn count(self) {
        demand_zero(self.lock(), "pthread_mutex_timedlock");
        sys::poke(self.0 + 1024, sys::peek(self.0 + 1024) + 1);
        self.unlock();
    }

    /// Takes it after its owner died holding it.
    fn inherit(self, number: usize) {
        match self.lock() {
            libc::EOWNERDEAD => {}
            0 => sys::fail(&format!("lock {number} was free: its owner's death was not noted")),
            error => sys::fail(&format!("lock {number}: {}", std::io::Error::from_raw_os_error(error))),
        }
        // SAFETY: made by `make`, and held.
        demand_zero(unsafe { libc::pthread_mutex_consistent(self.get()) }, "pthread_mutex_consistent");
        self.unlock();
    }
}

fn is_robust(attributes: *mut libc::pthread_mutexattr_t) -> i32 {
    // SAFETY: initialised by `Lock::make`.
    unsafe { libc::pthread_mutexattr_setrobust(attributes, libc::PTHREAD_MUTEX_ROBUST) }
}

fn is_shared(attributes: *mut libc::pthread_mutexattr_t) -> i32 {
    // SAFETY: initialised by `Lock::make`.
    unsafe { libc::pthread_mutexattr_setpshared(attributes, libc::PTHREAD_PROCESS_SHARED) }
}

fn inherits_priority(attributes: *mut libc::pthread_mutexattr_t) -> i32 {
    // SAFETY: initialised by `Lock::make`.
    unsafe { libc::pthread_mutexattr_setprotocol(attributes, libc::PTHREAD_PRIO_INHERIT) }
}

/// Threads die while they hold robust locks, whose pages were under pressure: the next owner is told.
pub(crate) fn robust(options: &Options) -> u64 {
    let pages = sys::map(LOCKS * PAGE, sys::RW, 0);
    let locks: Vec<Lock> = (0..LOCKS).map(|at| Lock::make(pages + at * PAGE + 256, is_robust)).collect();
    let mut region = Region::new(options.mib << 8, options.seed);
    let mut pressure = Pressure::new(options);
    for _ in 0..options.times {
        let (held, pressed) = (Barrier::new(LOCKS + 1), Barrier::new(LOCKS + 1));
        std::thread::scope(|scope| {
            for lock in &locks {
                let (held, pressed) = (&held, &pressed);
                scope.spawn(move || {
                    demand_zero(lock.lock(), "pthread_mutex_timedlock");
                    held.wait();
                    pressed.wait();
                });
            }
            held.wait();
            // What is held is older than what is written now.
            region.fill(region.all());
            pressure.evict(&region, region.all(), region.pages() * 3 / 4);
            eprintln!("{} of {LOCKS} pages of held locks are away", absent(pages, LOCKS));
            pressed.wait();
        });
        locks.iter().enumerate().for_each(|(number, lock)| lock.inherit(number));
    }
    region.check_all()
}

/// The same between processes, in shared memory.
pub(crate) fn robust_shared(options: &Options) -> u64 {
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    let pages = sys::demand(sys::map_at(0, LOCKS * PAGE, sys::RW, flags, usize::MAX), "mmap");
    let both = |attributes| is_robust(attributes) | is_shared(attributes);
    let locks: Vec<Lock> = (0..LOCKS).map(|at| Lock::make(pages + at * PAGE + 256, both)).collect();
    let mut region = Region::filled(options.mib, options.seed);
    let mut pressure = Pressure::new(options);
    for _ in 0..options.times {
        let owner = child(|| {
            locks.iter().for_each(|lock| demand_zero(lock.lock(), "pthread_mutex_timedlock"));
            let mut pressure = Pressure::new(options);
            pressure.evict(&region, region.all(), region.pages() / 4);
        });
        owner.join();
        locks.iter().enumerate().for_each(|(number, lock)| lock.inherit(number));
        region.fill((0..region.pages()).step_by(2));
        pressure.evict_half(&region);
    }
    region.check_all()
}

/// Locks with priority inheritance, fought over by threads while their pages are under pressure.
pub(crate) fn pi(options: &Options) -> u64 {
    let pages = sys::map(LOCKS * PAGE, sys::RW, 0);
    let locks: Vec<Lock> = (0..LOCKS).map(|at| Lock::make(pages + at * PAGE + 256, inherits_priority)).collect();
    let region = Region::filled(options.mib, options.seed);
    let mut pressure = Pressure::new(options);
    let rounds = 200;
    for _ in 0..options.times {
        pressure.evict_half(&region);
        pressure.evict_range(pages, LOCKS, LOCKS / 4);
        std::thread::scope(|scope| {
            for _ in 0..options.count {
                scope.spawn(|| locks.iter().cycle().take(LOCKS * rounds).for_each(|lock| lock.count()));
            }
        });
    }
    let expected = (options.times * options.count * rounds) as u64;
    for (number, lock) in locks.iter().enumerate() {
        let found = sys::peek(lock.0 + 1024);
        if found != expected {
            eprintln!("lock {number} guarded {found} of {expected} additions");
            sys::exit(sys::WRONG);
        }
    }
    let mut digest = Digest::new();
    digest.add(expected);
    digest.add(region.check_all());
    digest.value()
}
