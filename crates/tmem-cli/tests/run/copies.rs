//! Pages that come back and leave again unchanged: the store has kept what it had of them.

use crate::cases::native;
use crate::harness::{Ended, Run};

/// Twice as much is moved out as stays, and the store is small enough to keep copies.
const LIMIT: &str = "144M";
const MIB: &str = "256";

/// Memory that is walked over, in which every `nth` page is written to each time.
fn walk(nth: &str) -> Option<Ended> {
    let arguments = ["--mib", MIB, "--times", "4", "--count", nth];
    let ended = Run::new(LIMIT)?.subject("walk", &arguments).finish();
    assert_eq!(ended.ok(LIMIT), native("walk", &arguments), "the same natively");
    eprintln!("{}", ended.story());
    Some(ended)
}

fn unchanged_and_evicted(ended: &Ended) -> (u64, u64) {
    (ended.report().count("unchanged_bytes"), ended.report().count("evicted_bytes"))
}

#[test]
fn most_pages_that_are_only_read_are_encoded_once() {
    let Some(ended) = walk("1000000") else { return };
    let (unchanged, evicted) = unchanged_and_evicted(&ended);
    assert!(unchanged * 3 > evicted, "{}", ended.story());
}

#[test]
fn pages_that_were_written_to_are_encoded_again() {
    let Some(ended) = walk("1") else { return };
    let (unchanged, evicted) = unchanged_and_evicted(&ended);
    assert!(unchanged * 10 < evicted, "{}", ended.story());
}

#[test]
fn what_has_changed_and_what_has_not_come_back_right() {
    let Some(ended) = walk("3") else { return };
    let (unchanged, _) = unchanged_and_evicted(&ended);
    assert!(unchanged > 0, "{}", ended.story());
}
