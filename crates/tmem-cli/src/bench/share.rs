//! Who does what: a corpus is cut into units, the units are shared out to threads, and all threads put and then get.

use super::clock::{Lap, Moment};
use crate::cli::Unit;
use crate::random::Random;
use anyhow::{Result, ensure};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Barrier;
use tmem::{GRANULE_BYTES, Policy};

/// How a corpus is put and got.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) policy: Policy,
    pub(crate) unit: Unit,
    pub(crate) threads: usize,
}

/// For every thread the order in which it gets its units.
#[derive(Debug)]
pub(crate) struct Orders(Vec<Vec<usize>>);

/// A thread's part of the pages, with an object of its own.
#[derive(Debug)]
pub(crate) struct Share<'a> {
    /// The object, from 0 on.
    pub(crate) object: u64,
    /// What is put, one unit behind the other.
    pub(crate) pages: &'a [u8],
    /// The units in the order in which they are got.
    pub(crate) order: &'a [usize],
    /// Where the units go, in that order.
    pub(crate) slots: Vec<&'a mut [u8]>,
}

impl Plan {
    /// Shuffled orders for `bytes` of pages, the same every time.
    pub(crate) fn orders(&self, bytes: usize) -> Result<Orders> {
        let units = bytes.div_ceil(self.unit.bytes());
        ensure!(
            self.threads <= units,
            "{} threads cannot share {units} units of {}: use fewer threads or a smaller --unit",
            self.threads,
            self.unit.name()
        );
        let each = |thread: usize| (thread + 1) * units / self.threads - thread * units / self.threads;
        let seeds = (0..self.threads).zip(1..);
        Ok(Orders(seeds.map(|(thread, seed)| Random::new(seed).order(each(thread))).collect()))
    }

    /// The shares of pages that are put, and got into `out`.
    pub(crate) fn shares<'a>(&self, orders: &'a Orders, mut pages: &'a [u8], mut out: &'a mut [u8]) -> Vec<Share<'a>> {
        assert_eq!(pages.len(), out.len(), "everything is got back");
        let mut shares = Vec::new();
        for (order, object) in orders.0.iter().zip(0..) {
            let bytes = (order.len() * self.unit.bytes()).min(pages.len());
            let (own, rest) = pages.split_at(bytes);
            let (into, out_rest) = out.split_at_mut(bytes);
            (pages, out) = (rest, out_rest);
            let mut units: Vec<_> = into.chunks_mut(self.unit.bytes()).map(Some).collect();
            let slots = order.iter().filter_map(|unit| units[*unit].take()).collect();
            shares.push(Share { object, pages: own, order, slots });
        }
        shares
    }
}

impl Orders {
    /// The order in which all threads together get the granules of `bytes` of pages, one thread after the other.
    pub(crate) fn granules(&self, plan: &Plan, bytes: usize) -> Vec<usize> {
        let per_unit = plan.unit.bytes() / GRANULE_BYTES;
        let mut first_unit = 0;
        let mut granules = Vec::with_capacity(bytes / GRANULE_BYTES);
        for order in &self.0 {
            let of_unit = |unit: &usize| (first_unit + unit) * per_unit..(first_unit + unit + 1) * per_unit;
            granules.extend(order.iter().flat_map(of_unit).filter(|granule| granule * GRANULE_BYTES < bytes));
            first_unit += order.len();
        }
        granules
    }
}

/// Time of putting and of getting: on the wall from the first thread's start to the last one's end, on a CPU that of
/// the thread that used most.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) put: Lap,
    pub(crate) get: Lap,
}

/// Lets a thread for each state put, and when all have put, get. One state is worked on in the calling thread.
pub(crate) fn put_then_get<S: Send>(
    states: Vec<S>,
    put: impl Fn(&mut S) -> Result<()> + Sync,
    get: impl Fn(&mut S) -> Result<()> + Sync,
) -> Result<Times> {
    let barrier = Barrier::new(states.len());
    let work = |mut state: S| -> Result<[Moment; 4]> {
        barrier.wait();
        let put_from = Moment::now();
        // A thread that panicked still has to come to the barrier.
        let done = catch_unwind(AssertUnwindSafe(|| put(&mut state)));
        let put_to = Moment::now();
        barrier.wait();
        done.unwrap_or_else(|panic| resume_unwind(panic))?;
        let get_from = Moment::now();
        get(&mut state)?;
        Ok([put_from, put_to, get_from, Moment::now()])
    };
    let spans = if states.len() == 1 {
        states.into_iter().map(work).collect::<Result<Vec<_>>>()?
    } else {
        std::thread::scope(|scope| {
            let threads: Vec<_> = states.into_iter().map(|state| scope.spawn(|| work(state))).collect();
            let ended = threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
            ended.collect::<Result<Vec<_>>>()
        })?
    };
    let lap = |from: usize, to: usize| {
        let first = spans.iter().map(|span| span[from].wall).min();
        let last = spans.iter().map(|span| span[to].wall).max();
        let wall = first.zip(last).map(|(first, last)| last - first);
        let cpu = spans.iter().map(|span| span[from].until(span[to]).cpu).max();
        Lap { wall: wall.unwrap_or_default(), cpu: cpu.unwrap_or_default() }
    };
    Ok(Times { put: lap(0, 1), get: lap(2, 3) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_cover_everything_once() {
        let pages: Vec<u8> = (0..37u8).flat_map(|page| [page; GRANULE_BYTES]).collect();
        for (unit, threads) in [(Unit::Granule, 1), (Unit::Granule, 5), (Unit::Four, 3), (Unit::Huge, 1)] {
            let plan = Plan { policy: Policy::Fast, unit, threads };
            let orders = plan.orders(pages.len()).unwrap();
            let mut out = vec![0xff; pages.len()];
            for share in plan.shares(&orders, &pages, &mut out) {
                for (unit_index, slot) in share.order.iter().zip(share.slots) {
                    let from = unit_index * unit.bytes();
                    slot.copy_from_slice(&share.pages[from..from + slot.len()]);
                }
            }
            assert_eq!(out, pages, "{unit:?} {threads}");
            let mut granules = orders.granules(&plan, pages.len());
            granules.sort_unstable();
            assert!(granules.into_iter().eq(0..37), "{unit:?} {threads}");
        }
    }

    #[test]
    fn more_threads_than_units_are_refused() {
        let plan = Plan { policy: Policy::Fast, unit: Unit::Huge, threads: 2 };
        assert!(plan.orders(4096).is_err());
    }

    #[test]
    fn an_error_in_one_thread_ends_all() {
        let put = |state: &mut u8| {
            ensure!(*state != 1, "one");
            Ok(())
        };
        assert!(put_then_get(vec![0, 1, 2], put, |_| Ok(())).is_err());
    }
}
