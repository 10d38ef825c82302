//! Signals: their frames are written by the kernel, and they interrupt whoever waits for a page.

use crate::fork::child;
use crate::options::Options;
use crate::pattern::{Digest, Random};
use crate::pressure::Pressure;
use crate::region::Region;
use crate::sys::{self, PAGE, demand};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Pages of each signal stack.
const STACK: usize = 16;
/// Signal stacks.
const STACKS: usize = 32;

/// Signals handled.
static HANDLED: AtomicU64 = AtomicU64::new(0);
/// Where handlers were when they ran.
static STOOD_AT: AtomicUsize = AtomicUsize::new(0);
/// What a handler touches.
static TOUCHED_AT: AtomicUsize = AtomicUsize::new(0);

extern "C" fn note_place(_: i32) {
    let here = 0_u8;
    // SeqCst, both: not a place to be clever.
    STOOD_AT.store(&raw const here as usize, Ordering::SeqCst);
    HANDLED.fetch_add(1, Ordering::SeqCst);
}

/// Handlers run on alternate stacks that were evicted.
pub(crate) fn stack(options: &Options) -> u64 {
    sys::handle(libc::SIGUSR1, note_place, libc::SA_ONSTACK | libc::SA_RESTART);
    let stacks = sys::map(STACKS * STACK * PAGE, sys::RW, 0);
    let region = Region::filled(options.mib, options.seed);
    let mut pressure = Pressure::new(options);
    for _ in 0..options.times {
        for page in 0..STACKS * STACK {
            sys::poke(stacks + page * PAGE, page as u64 | 1 << 40);
        }
        pressure.evict_half(&region);
        pressure.evict_range(stacks, STACKS * STACK, STACKS * STACK / 2);
        for number in 0..STACKS {
            let bottom = stacks + number * STACK * PAGE;
            let stack = libc::stack_t { ss_sp: bottom as *mut _, ss_flags: 0, ss_size: STACK * PAGE };
            demand(sys::call(libc::SYS_sigaltstack, &[&raw const stack as usize, 0]), "sigaltstack");
            let own = [std::process::id() as usize, sys::thread_id(), libc::SIGUSR1 as usize];
            demand(sys::call(libc::SYS_tgkill, &own), "tgkill");
            // SeqCst: as above.
            let stood = STOOD_AT.load(Ordering::SeqCst);
            if !(bottom..bottom + STACK * PAGE).contains(&stood) {
                sys::fail("the handler did not run on its stack");
            }
        }
    }
    let mut digest = Digest::new();
    // SeqCst: as above.
    digest.add(HANDLED.load(Ordering::SeqCst));
    digest.add(region.check_all());
    digest.value()
}

extern "C" fn touch(_: i32) {
    // Relaxed, both: a handler interrupts the only thread that reads them.
    let count = HANDLED.fetch_add(1, Ordering::Relaxed);
    let base = TOUCHED_AT.load(Ordering::Relaxed);
    let place = base + (count % 1024) as usize * PAGE + 8;
    sys::poke(place, sys::peek(place) + 1);
}

/// A timer of 1 kHz, whose handler touches evicted pages itself, while the program takes one fault after another.
pub(crate) fn storm(options: &Options) -> u64 {
    let counted = sys::map(1024 * PAGE, sys::RW, 0);
    // SeqCst: before any signal.
    TOUCHED_AT.store(counted, Ordering::SeqCst);
    let mut region = Region::filled(options.mib, options.seed);
    let mut pressure = Pressure::new(options);
    pressure.evict_half(&region);
    sys::handle(libc::SIGALRM, touch, libc::SA_RESTART);
    set_timer(1000);
    let mut random = Random::new(options.seed);
    let end = Instant::now() + Duration::from_secs(options.seconds);
    while Instant::now() < end {
        region.check_some(&mut random, 500);
        region.fill((0..100).map(|_| random.below(region.bytes() / PAGE)).collect::<Vec<_>>());
        pressure.push();
    }
    set_timer(0);
    // SeqCst: after every signal.
    let handled = HANDLED.load(Ordering::SeqCst);
    let counted: u64 = (0..1024).map(|page| sys::peek(counted + page * PAGE + 8)).sum();
    eprintln!("{handled} signals");
    if counted != handled || handled < options.seconds * 20 {
        eprintln!("{handled} signals were handled, {counted} were counted in memory");
        sys::exit(if counted == handled { sys::FAILED } else { sys::WRONG });
    }
    region.check_all();
    region.versions.fill(0);
    region.fill(region.all());
    region.check_all()
}

/// Sends SIGALRM this often; 0 is never.
fn set_timer(microseconds: usize) {
    let timer = [0, microseconds, 0, microseconds];
    demand(sys::call(libc::SYS_setitimer, &[libc::ITIMER_REAL as usize, timer.as_ptr() as usize, 0]), "setitimer");
}

/// Stopped and continued many times while under pressure.
pub(crate) fn stop_continue(options: &Options) -> u64 {
    let parent = std::process::id() as usize;
    let mut region = Region::filled(options.mib, options.seed);
    let mut pressure = Pressure::new(options);
    pressure.evict_half(&region);
    let times = options.times * 50;
    let teaser = child(|| {
        for _ in 0..times {
            demand(sys::call(libc::SYS_kill, &[parent, libc::SIGSTOP as usize]), "kill");
            sys::pause();
            demand(sys::call(libc::SYS_kill, &[parent, libc::SIGCONT as usize]), "kill");
            sys::pause();
        }
    });
    let mut random = Random::new(options.seed);
    for _ in 0..20 {
        region.check_some(&mut random, 500);
        region.fill((0..200).map(|_| random.below(options.mib << 8)).collect::<Vec<_>>());
        pressure.push();
    }
    teaser.join();
    region.check_all()
}
