//! A store with a corpus in it.

use super::share::{Orders, Plan, Share, Times, put_then_get};
use super::{BATCH_BYTES, percentile};
use crate::interrupt;
use crate::pages::Buffer;
use crate::random::Random;
use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use std::time::Instant;
use tmem::{
    Action, Client, ClientOptions, Completion, GRANULE_BYTES, ObjectId, Operation, Outcome, Pool, PoolOptions, Store,
    StoreOptions,
};

/// A store that a corpus is put into.
#[derive(Debug)]
pub(crate) struct Full {
    pub(crate) store: Store,
    client: Client,
    pool: Pool,
    plan: Plan,
    /// Bytes in use before anything was put.
    empty_bytes: usize,
}

/// Time of single gets of one granule, in microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct GetTimes {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
}

impl Full {
    /// An empty store with ample room for `bytes` of pages.
    pub(crate) fn new(plan: &Plan, bytes: usize) -> Result<Self> {
        let budget_bytes = bytes + bytes / 4 + (plan.threads + 2) * (64 << 20);
        let store = Store::new(StoreOptions::with_budget(budget_bytes)).context("cannot make a store")?;
        let client = store.client(ClientOptions::named("bench"));
        let pool = client.create_pool(PoolOptions::persistent().policy(plan.policy))?;
        let empty_bytes = held(&store);
        Ok(Self { store, client, pool, plan: *plan, empty_bytes })
    }

    /// Puts all pages, and gets them into `out`.
    pub(crate) fn put_and_get(&self, orders: &Orders, pages: &[u8], out: &mut [u8]) -> Result<Times> {
        let states = self.plan.shares(orders, pages, out);
        put_then_get(states, |share| self.put(share), |share| self.get(share))
    }

    /// Gets everything again, and compares.
    pub(crate) fn verify(&self, orders: &Orders, pages: &[u8], out: &mut Buffer) -> Result<()> {
        out.poison();
        for mut share in self.plan.shares(orders, pages, out) {
            self.get(&mut share)?;
        }
        same_bytes(pages, out, "the engine")
    }

    /// Bytes of pages for each byte in use for them: segments with headers and holes, tables, index. Codec scratch is
    /// left out, as zram leaves its own out; spare segments are given back first.
    pub(crate) fn density(&self, bytes: usize) -> f64 {
        self.store.shrink(usize::MAX);
        let used = held(&self.store).saturating_sub(self.empty_bytes);
        bytes as f64 / used.max(1) as f64
    }

    fn operation<'m>(&self, object: u64, action: Action<'m>) -> Operation<'m> {
        Operation { tag: 0, pool: self.pool.id(), object: ObjectId::from(object), action }
    }

    fn put(&self, share: &mut Share<'_>) -> Result<()> {
        let unit_bytes = self.plan.unit.bytes();
        let mut completions = Vec::new();
        let mut offset = 0;
        for part in share.pages.chunks(BATCH_BYTES) {
            interrupt::check()?;
            let units: Vec<&[u8]> = part.chunks(unit_bytes).collect();
            let mut batch = Vec::with_capacity(units.len());
            for unit in &units {
                let from = std::slice::from_ref(unit);
                batch.push(self.operation(share.object, Action::Put { offset, from }));
                offset += unit.len() as u64;
            }
            self.client.execute(&mut batch, &mut completions);
            expect_all(&mut completions, batch.len(), &Outcome::Stored)?;
        }
        Ok(())
    }

    fn get(&self, share: &mut Share<'_>) -> Result<()> {
        let unit_bytes = self.plan.unit.bytes();
        let per_batch = BATCH_BYTES / unit_bytes;
        let mut completions = Vec::new();
        for (units, slots) in share.order.chunks(per_batch).zip(share.slots.chunks_mut(per_batch)) {
            interrupt::check()?;
            let mut slots: Vec<&mut [u8]> = slots.iter_mut().map(|slot| &mut **slot).collect();
            let mut batch = Vec::with_capacity(units.len());
            for (unit, slot) in units.iter().zip(&mut slots) {
                let offset = (unit * unit_bytes) as u64;
                let into = std::slice::from_mut(slot);
                batch.push(self.operation(share.object, Action::Get { offset, into }));
            }
            self.client.execute(&mut batch, &mut completions);
            expect_all(&mut completions, batch.len(), &Outcome::Filled)?;
        }
        Ok(())
    }

    /// Gets every granule by a call of its own, in random order.
    pub(crate) fn single_gets(&self, orders: &Orders, pages: &[u8], out: &mut Buffer) -> Result<GetTimes> {
        let mut times = Vec::with_capacity(pages.len() / GRANULE_BYTES);
        let mut granule = [0; GRANULE_BYTES];
        for share in self.plan.shares(orders, pages, out) {
            let object = ObjectId::from(share.object);
            for (at, index) in
                Random::new(share.object).order(share.pages.len() / GRANULE_BYTES).into_iter().enumerate()
            {
                if at % 1024 == 0 {
                    interrupt::check()?;
                }
                let offset = index * GRANULE_BYTES;
                let start = Instant::now();
                let outcome = self.pool.get(object, offset as u64, &mut granule);
                times.push(start.elapsed().as_secs_f64() * 1e6);
                ensure!(outcome == Outcome::Filled, "a get of what was put ended as {outcome:?}");
                ensure!(granule[..] == share.pages[offset..offset + GRANULE_BYTES], "wrong bytes at offset {offset}");
            }
        }
        times.sort_by(f64::total_cmp);
        let at = |part| percentile(&times, part);
        Ok(GetTimes { p50: at(0.5), p99: at(0.99), p999: at(0.999) })
    }
}

/// Empties the list, in which everything must have ended one way.
fn expect_all(completions: &mut Vec<Completion>, operations: usize, expected: &Outcome) -> Result<()> {
    ensure!(completions.len() == operations, "{operations} operations had {} completions", completions.len());
    if let Some(other) = completions.iter().find(|completion| completion.outcome != *expected) {
        bail!("an operation ended as {:?} in a store with ample room", other.outcome);
    }
    completions.clear();
    Ok(())
}

/// Fails at the first page that differs.
pub(crate) fn same_bytes(pages: &[u8], back: &[u8], from_whom: &str) -> Result<()> {
    if pages == back {
        return Ok(());
    }
    let pairs = pages.chunks(GRANULE_BYTES).zip(back.chunks(GRANULE_BYTES));
    let wrong: Vec<_> = pairs.enumerate().filter(|(_, (page, back))| page != back).map(|(index, _)| index).collect();
    bail!("{from_whom} returned wrong bytes for {} pages, the first of them page {:?}", wrong.len(), wrong.first())
}

/// Bytes that a store uses for what it holds.
fn held(store: &Store) -> usize {
    let memory = store.memory();
    memory.segments + memory.tables + memory.index
}
