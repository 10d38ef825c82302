//! Pressure: memory that is used so that other memory is taken away, and a look at how far that has come.
//!
//! The subject does not know who pages it. `/proc/self/pagemap` says of each page whether it is present; pressure
//! goes on until enough of the memory under test is not.

use crate::options::Options;
use crate::region::Region;
use crate::sys::{self, NOT_EVICTED, PAGE};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Memory that is not taken away by now never will be.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pages of ballast that are touched between two looks.
const STEP: usize = 512;
/// How many pages behind the first touch the second one is.
const BEHIND: usize = 700;
/// Present, in an entry of pagemap.
const PRESENT: u64 = 1 << 63;

/// The source of pressure. Fork copies it; each process then pushes with its own.
#[derive(Debug)]
pub(crate) struct Pressure {
    options: Options,
    ballast: Option<Region>,
    next: usize,
}

impl Pressure {
    /// Pressure as `options` say. The memory is taken when it is first needed.
    pub(crate) fn new(options: &Options) -> Self {
        Self { options: options.clone(), ballast: None, next: 0 }
    }

    /// Pushes until at least half of the region's pages are not present.
    pub(crate) fn evict_half(&mut self, region: &Region) {
        self.evict(region, region.all(), region.pages() / 2);
    }

    /// Pushes until at least `wanted` of the region's pages in `range` are not present.
    pub(crate) fn evict(&mut self, region: &Region, range: Range<usize>, wanted: usize) {
        self.sabotage(region, range.clone());
        self.evict_range(region.address(range.start), range.len(), wanted);
    }

    /// Pushes until at least `wanted` of `pages` pages from `at` are not present.
    pub(crate) fn evict_range(&mut self, at: usize, pages: usize, wanted: usize) {
        self.until(|| absent(at, pages) >= wanted, &format!("{wanted} of {pages} pages at {at:#x}"));
    }

    /// Pushes until `reached`, whatever that is; natively, not at all.
    pub(crate) fn until(&mut self, reached: impl Fn() -> bool, what: &str) {
        let end = Instant::now() + PATIENCE;
        while !self.options.native && !reached() {
            self.push();
            if Instant::now() > end {
                eprintln!("tmem-subject {}: not evicted: {what}", std::process::id());
                sys::exit(NOT_EVICTED);
            }
        }
    }

    /// Natively, breaks what would be evicted, if that was asked for.
    fn sabotage(&self, region: &Region, range: Range<usize>) {
        if self.options.native {
            // Away from the ends, which cases like to touch, but at most 64 pages.
            let middle = range.start + range.len() / 3;
            region.sabotage(middle..(middle + 64).min(range.end), self.options.sabotage);
        }
    }

    /// Waits until somebody else's pressure has taken at least `wanted` of the region's pages away.
    pub(crate) fn await_eviction(&mut self, region: &Region, wanted: usize) {
        self.sabotage(region, region.all());
        let end = Instant::now() + PATIENCE;
        while !self.options.native && absent(region.base, region.pages()) < wanted {
            std::thread::sleep(Duration::from_millis(10));
            if Instant::now() > end {
                eprintln!("tmem-subject {}: not evicted: {wanted} pages", std::process::id());
                sys::exit(NOT_EVICTED);
            }
        }
    }

    /// Touches some of the ballast: writes it the first time around, and reads and checks it later. Each page is
    /// touched once more a little later: a pager that protects what was touched twice must age the rest.
    pub(crate) fn push(&mut self) {
        let (pages, seed) = (self.options.ballast_mib << 8, self.options.seed ^ 0x0ba1_1a57);
        let ballast = self.ballast.get_or_insert_with(|| Region::new(pages, seed));
        for _ in 0..STEP {
            ballast.write_or_check(self.next, ballast.versions[self.next] == 0);
            ballast.check((self.next + pages - BEHIND) % pages);
            self.next = (self.next + 1) % pages;
        }
    }

    /// Checks the ballast too.
    pub(crate) fn check(&self) {
        if let Some(ballast) = &self.ballast {
            ballast.check_all();
        }
    }

    /// Pushes in a thread of its own until that is stopped.
    pub(crate) fn in_background(options: &Options) -> Background {
        Background::start(Self::new(options), Self::push, Self::check)
    }
}

/// Something that goes on in a thread until it is stopped.
#[derive(Debug)]
pub(crate) struct Background {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Background {
    /// Takes one step after the other, and then ends.
    pub(crate) fn start<T: Send + 'static>(mut of: T, step: fn(&mut T), end: fn(&T)) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            // Relaxed: a flag, and the join orders the rest.
            while !seen.load(Ordering::Relaxed) {
                step(&mut of);
            }
            end(&of);
        });
        Self { stop, thread }
    }

    /// Ends it.
    pub(crate) fn stop(self) {
        // Relaxed: see the load.
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("it found nothing wrong");
    }
}

/// How many of `pages` pages from `at` are not present.
pub(crate) fn absent(at: usize, pages: usize) -> usize {
    entries(at, pages).iter().filter(|&&entry| entry & PRESENT == 0).count()
}

/// What pagemap says of `pages` pages from `at`, as words of a little-endian machine. Opened each time: after a fork
/// it is another file.
fn entries(at: usize, pages: usize) -> Vec<u64> {
    let file = sys::demand(File::open("/proc/self/pagemap"), "open /proc/self/pagemap");
    let mut bytes = vec![0; pages * 8];
    sys::demand(file.read_exact_at(&mut bytes, (at / PAGE * 8) as u64), "read /proc/self/pagemap");
    let (words, _) = bytes.as_chunks::<8>();
    words.iter().map(|word| u64::from_le_bytes(*word)).collect()
}
