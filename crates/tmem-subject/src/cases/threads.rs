//! Threads: what the C library and the kernel keep for each lies at the top of its stack, and is written when it ends.

use crate::options::Options;
use crate::pattern::{Digest, Random};
use crate::pressure::{Pressure, absent};
use crate::region::Region;
use crate::sys::{self, PAGE};
use std::cell::Cell;
use std::ffi::c_void;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// Bytes of each thread's stack.
const STACK: usize = 256 << 10;
/// Words of it that hold something while the thread sleeps.
const HELD_WORDS: usize = 8 << 10;
/// A thread that cannot be joined by now never will be.
const JOIN_SECONDS: i64 = 30;
/// Threads that can be told apart.
const MOST: usize = 1024;

unsafe extern "C" {
    /// Of the GNU C library: joins, or gives up at a time of day.
    fn pthread_timedjoin_np(thread: libc::pthread_t, value: *mut *mut c_void, end: *const libc::timespec) -> i32;
}

/// Threads that are about to sleep.
static READY: AtomicU32 = AtomicU32::new(0);
/// A futex: the round that may end.
static GO: AtomicU32 = AtomicU32::new(0);
/// The round.
static ROUND: AtomicU32 = AtomicU32::new(0);
/// By thread: where it holds something on its stack.
static HELD_AT: [AtomicUsize; MOST] = [const { AtomicUsize::new(0) }; MOST];
/// By thread: what it saw.
static SEEN: [AtomicU64; MOST] = [const { AtomicU64::new(0) }; MOST];

/// Threads that sleep while their stacks are under pressure, then check them and end.
pub(crate) fn exit(options: &Options) -> u64 {
    rounds(options, ends_as_usual, Stacks::OfTheLibrary)
}

/// The same, but they end by the bare system call: nothing touches the thread's block before the kernel does.
pub(crate) fn exit_raw(options: &Options) -> u64 {
    rounds(options, ends_at_once, Stacks::OfTheLibrary)
}

/// The same, on stacks that are parts of one large mapping of the program's own.
pub(crate) fn own_stacks(options: &Options) -> u64 {
    rounds(options, ends_as_usual, Stacks::OneMapping)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stacks {
    OfTheLibrary,
    OneMapping,
}

type Start = extern "C" fn(*mut c_void) -> *mut c_void;

fn rounds(options: &Options, start: Start, stacks: Stacks) -> u64 {
    let count = options.count.min(MOST);
    let own = (stacks == Stacks::OneMapping).then(|| sys::map(count * STACK, sys::RW, 0));
    let mut digest = Digest::new();
    let mut region = Region::new(options.mib << 8, options.seed);
    let mut pressure = Pressure::new(options);
    for round in 1..=options.times as u32 {
        // SeqCst, here and below: not a place to be clever.
        ROUND.store(round, Ordering::SeqCst);
        READY.store(0, Ordering::SeqCst);
        let threads: Vec<_> = (0..count).map(|number| spawn(start, number, own)).collect();
        // SeqCst: as above.
        while (READY.load(Ordering::SeqCst) as usize) < count {
            sys::pause();
        }
        // What sleeps is older than what is written now, so the stacks go first.
        region.fill(region.all());
        pressure.evict(&region, region.all(), region.pages() * 3 / 4);
        tell_absent(count);
        // SeqCst: as above.
        GO.store(round, Ordering::SeqCst);
        let wake = [&raw const GO as usize, libc::FUTEX_WAKE as usize, i32::MAX as usize];
        sys::demand(sys::call(libc::SYS_futex, &wake), "futex wake");
        for (number, thread) in threads.into_iter().enumerate() {
            join(thread, number);
            // SeqCst: as above.
            digest.add(SEEN[number].load(Ordering::SeqCst));
        }
        digest.add(region.check_all());
    }
    digest.value()
}

/// For the reader of a failure: how much of the stacks was away.
fn tell_absent(count: usize) {
    let pages = HELD_WORDS * 8 / PAGE - 1;
    // SeqCst: not a place to be clever.
    let first = |held: &AtomicUsize| held.load(Ordering::SeqCst).next_multiple_of(PAGE);
    let away: usize =
        HELD_AT[..count].iter().map(first).filter(|first| *first != 0).map(|first| absent(first, pages)).sum();
    eprintln!("{away} of {} pages of {count} stacks are away", pages * count);
}

fn spawn(start: Start, number: usize, own: Option<usize>) -> libc::pthread_t {
    // SAFETY: all zeros is a valid value for the C library to initialise.
    let mut attributes: libc::pthread_attr_t = unsafe { std::mem::zeroed() };
    // SAFETY: ours, and alive until destroyed below.
    unsafe { libc::pthread_attr_init(&raw mut attributes) };
    let set = match own {
        // SAFETY: the part of the mapping is this thread's alone.
        Some(base) => unsafe {
            libc::pthread_attr_setstack(&raw mut attributes, (base + number * STACK) as *mut c_void, STACK)
        },
        // SAFETY: initialised above.
        None => unsafe { libc::pthread_attr_setstacksize(&raw mut attributes, STACK) },
    };
    sys::demand_zero(set, "pthread_attr_setstack");
    let mut thread = 0;
    // SAFETY: the start functions take their number as the pointer, and never go through it.
    let error = unsafe { libc::pthread_create(&raw mut thread, &raw const attributes, start, number as *mut c_void) };
    sys::demand_zero(error, "pthread_create");
    // SAFETY: initialised above, not used again.
    unsafe { libc::pthread_attr_destroy(&raw mut attributes) };
    thread
}

fn join(thread: libc::pthread_t, number: usize) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock");
    let end = libc::timespec { tv_sec: now.as_secs() as i64 + JOIN_SECONDS, tv_nsec: 0 };
    // SAFETY: a thread that was made, and is joined once.
    let error = unsafe { pthread_timedjoin_np(thread, std::ptr::null_mut(), &raw const end) };
    sys::demand_zero(error, &format!("pthread_join of thread {number}"));
}

extern "C" fn ends_as_usual(number: *mut c_void) -> *mut c_void {
    hold(number as usize);
    std::ptr::null_mut()
}

extern "C" fn ends_at_once(number: *mut c_void) -> *mut c_void {
    sleep(number as usize);
    let _ = sys::call(libc::SYS_exit, &[0]);
    std::ptr::null_mut()
}

/// Holds words on the stack over a sleep.
fn hold(number: usize) {
    // SeqCst, here and below: not a place to be clever.
    let seed = (number as u64) << 32 | u64::from(ROUND.load(Ordering::SeqCst));
    let mut random = Random::new(seed);
    let mut held = [0_u64; HELD_WORDS];
    held.fill_with(|| random.next());
    // SeqCst: as above.
    HELD_AT[number].store(held.as_ptr() as usize, Ordering::SeqCst);
    sleep(number);
    let mut random = Random::new(seed);
    let wrong = std::hint::black_box(&held).iter().position(|word| *word != random.next());
    if let Some(at) = wrong {
        eprintln!("wrong on the stack of thread {number}, word {at} at {:p}", &raw const held[at]);
        sys::exit(sys::WRONG);
    }
    // SeqCst: as above.
    SEEN[number].store(random.next(), Ordering::SeqCst);
}

/// Sleeps in the kernel until the round may end.
fn sleep(number: usize) {
    // SeqCst, all of these: not a place to be clever.
    let round = ROUND.load(Ordering::SeqCst);
    SEEN[number].store(number as u64, Ordering::SeqCst);
    READY.fetch_add(1, Ordering::SeqCst);
    while GO.load(Ordering::SeqCst) < round {
        let wait = [&raw const GO as usize, libc::FUTEX_WAIT as usize, round as usize - 1, 0];
        let _ = sys::call(libc::SYS_futex, &wait);
    }
}

/// Words of each thread's locals.
const LOCAL_WORDS: usize = 8 << 10;

thread_local! {
    static LOCAL: [Cell<u64>; LOCAL_WORDS] = const { [const { Cell::new(0) }; LOCAL_WORDS] };
}

/// Thread-local data survives pressure.
pub(crate) fn locals(options: &Options) -> u64 {
    let count = options.count.min(MOST) as u64;
    let region = Region::filled(options.mib, options.seed);
    let (filled, pressed) = (std::sync::Barrier::new(count as usize + 1), std::sync::Barrier::new(count as usize + 1));
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count)
            .map(|number| {
                let (filled, pressed) = (&filled, &pressed);
                scope.spawn(move || {
                    LOCAL.with(|local| fill_local(local, number));
                    filled.wait();
                    pressed.wait();
                    LOCAL.with(|local| check_local(local, number));
                })
            })
            .collect();
        filled.wait();
        let mut pressure = Pressure::new(options);
        pressure.evict(&region, region.all(), region.pages() * 3 / 4);
        pressed.wait();
        threads.into_iter().for_each(|thread| thread.join().expect("the thread ends"));
    });
    region.check_all()
}

fn fill_local(local: &[Cell<u64>], number: u64) {
    let mut random = Random::new(number);
    local.iter().for_each(|cell| cell.set(random.next()));
}

fn check_local(local: &[Cell<u64>], number: u64) {
    let mut random = Random::new(number);
    if let Some(at) = local.iter().position(|cell| cell.get() != random.next()) {
        eprintln!("wrong in the locals of thread {number}, word {at}");
        sys::exit(sys::WRONG);
    }
}

/// Threads that write words side by side in the same pages, in different orders, under pressure: no write is lost.
pub(crate) fn stripes(options: &Options) -> u64 {
    let region = Region::filled(options.mib, options.seed);
    Pressure::new(options).evict_half(&region);
    let pressure = Pressure::in_background(options);
    std::thread::scope(|scope| {
        for thread in 0..options.count {
            let region = &region;
            scope.spawn(move || {
                let mut random = Random::new(thread as u64);
                for index in (0..options.times).flat_map(|_| random.shuffled(region.pages())) {
                    add_stripe(region.address(index), thread, options.count);
                }
            });
        }
    });
    pressure.stop();
    let mut digest = Digest::new();
    for index in region.all() {
        let (found, expected) = (sys::peek_page(region.address(index)), region.expected(index));
        for at in 0..sys::WORDS {
            if found[at] != expected[at].wrapping_add(options.times as u64) {
                let lost = expected[at].wrapping_add(options.times as u64).wrapping_sub(found[at]);
                eprintln!("page {index} word {at}: {lost} writes of thread {} are lost", at % options.count);
                sys::exit(sys::WRONG);
            }
        }
        digest.add_page(&found);
    }
    digest.value()
}

fn add_stripe(page: usize, thread: usize, threads: usize) {
    for word in (thread..sys::WORDS).step_by(threads) {
        sys::poke(page + word * 8, sys::peek(page + word * 8).wrapping_add(1));
    }
}
