//! The example does what it says.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../examples/put_get.rs"]
#[allow(dead_code, unreachable_pub, reason = "a program of its own")]
mod put_get;
mod support;

use support::World;

#[test]
fn the_example_puts_and_gets() {
    let world = World::new();
    let told = put_get::put_get(&world.path).unwrap();
    assert!(told.starts_with("512 pages were put and came back the same, with "), "{told}");
    world.within_a_second("it is gone", |world| world.daemon().stat().clients.is_empty());
    let nowhere = put_get::put_get(&world.path.with_extension("not")).unwrap_err().to_string();
    assert!(nowhere.starts_with("no daemon at "), "{nowhere}");
}
