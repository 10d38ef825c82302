//! Errors that are made up, for tests: `tmem-sys` and `tmem-agent` have the seams, in their modules of the same name.

use core::sync::atomic::Ordering;
use std::collections::BTreeMap;
use std::sync::Mutex;

use tmem_agent::injection::{Injection, NAMES};
use tmem_sys::injection::{self, Plan};

use crate::core::Core;
use crate::lock;

/// Holds the plan.
const VARIABLE: &str = "TMEM_FAULTS";

/// What went wrong in agents that have gone.
static GONE: Mutex<[u64; NAMES.len()]> = Mutex::new([0; NAMES.len()]);

/// Begins, if the environment has a plan.
pub(crate) fn start() {
    if let Ok(text) = std::env::var(VARIABLE) {
        let plan = text.parse::<Plan>();
        injection::start(plan.unwrap_or_else(|error| panic!("{VARIABLE}={text}: {error}")));
    }
}

/// Tells an agent of the plan, before it is welcomed.
pub(crate) fn tell(agent: &Injection, number: u64) {
    let Some(plan) = injection::plan() else { return };
    let wanted = NAMES.iter().enumerate().filter(|(_, name)| plan.wants(name));
    let bits = wanted.fold(0, |bits, (bit, _)| bits | 1 << bit);
    // Relaxed, all: the welcome publishes them.
    agent.state.store(plan.seed.wrapping_add(number << 32), Ordering::Relaxed);
    agent.wanted.store(bits, Ordering::Relaxed); // as above
    agent.rate.store(plan.rate, Ordering::Relaxed); // as above
}

/// Keeps the counts of an agent that has gone.
pub(crate) fn keep(agent: &Injection) {
    let mut gone = lock(&GONE);
    // Relaxed: counts.
    gone.iter_mut().zip(&agent.counts).for_each(|(sum, count)| *sum += u64::from(count.load(Ordering::Relaxed)));
}

/// How often what went wrong, by name.
pub(crate) fn counts(core: &Core) -> BTreeMap<String, u64> {
    let mut counts: BTreeMap<String, u64> =
        injection::counts().into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
    let spaces = core.spaces();
    let living = spaces.iter().filter_map(|space| Some(space.hands.get()?.injection()));
    let gone = *lock(&GONE);
    for (name, gone) in NAMES.iter().zip(gone) {
        counts.insert((*name).to_owned(), gone);
    }
    for agent in living {
        for (name, count) in NAMES.iter().zip(&agent.counts) {
            let sum = counts.entry((*name).to_owned()).or_default();
            *sum += u64::from(count.load(Ordering::Relaxed)); // Relaxed: a count
        }
    }
    counts
}
