//! Many threads on one store: nobody gets what they should not.
//!
//! Threads are not repeatable, but what each of them does is: `TMEM_SEED=<seed>` gives the same operations again, and
//! `TMEM_SECONDS=<n>` more of them.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use support::MIB;
use support::crowd::{Crowd, Options};
use support::limits;
use tmem::Cleaning;

fn run(budget_bytes: usize, threads: u64, cleaning: Cleaning) {
    let options = Options { seed: limits::seed(), threads, budget_bytes, time: limits::seconds(4), cleaning };
    let crowd = Crowd::new(options);
    let result = crowd.run();
    println!("{} operations: {}", crowd.operations(), options.command());
    if let Err(wrong) = result {
        panic!("{wrong} ({}, {cleaning:?})", options.command());
    }
}

#[test]
fn threads_that_share_one_context_see_whole_pages() {
    run(24 * MIB, 4, Cleaning::Background);
}

#[test]
fn threads_with_a_context_each_see_whole_pages() {
    run(160 * MIB, 4, Cleaning::Background);
}

#[test]
fn threads_that_clean_for_themselves_see_whole_pages() {
    run(64 * MIB, 6, Cleaning::OnDemand);
}
