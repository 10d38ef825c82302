//! A slow, obvious model is stepped beside the engine: whatever a store is asked, the answers are the model's.
//!
//! A failure prints its seed and step. `TMEM_SEED=<seed>` runs that seed alone, `TMEM_SECONDS=<n>` runs for longer and
//! `TMEM_FIRST_SEED=<seed>` begins elsewhere.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use support::limits::{Where, seeds};
use support::model::World;
use tmem::Cleaning;

/// Steps of one seed.
const STEPS: u64 = 1200;

/// Steps between two looks at everything.
const STRIDE: u64 = 60;

fn run(cleaning: Cleaning) {
    let mut count = 0;
    for seed in seeds(10) {
        let mut at = Where { seed, step: 0 };
        let mut world = World::new(seed, cleaning);
        for step in 1..=STEPS {
            at.step = step;
            world.step();
            if step % STRIDE == 0 {
                world.check();
            }
        }
        world.finish();
        count += 1;
    }
    println!("{count} seeds, {STEPS} steps each");
}

#[test]
fn a_store_that_cleans_on_demand_does_what_the_model_does() {
    run(Cleaning::OnDemand);
}

#[test]
fn a_store_that_cleans_in_the_background_does_what_the_model_does() {
    run(Cleaning::Background);
}
