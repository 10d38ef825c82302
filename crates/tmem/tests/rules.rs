//! The seven rules of the model and the kinds of result, a test for each, or two.
//!
//! Each was seen to fail when its rule is broken, by this change to the engine:
//!
//! | rule | change | test |
//! |---|---|---|
//! | 1 never stale | a put that is rejected or frozen flushes nothing | `rule_1_*` |
//! | 2 a miss stays a miss | a rejected put flushes only what it had not got to | `rule_2_a_put_that_fails_*` |
//! | 2 | encoding anew does not ask whether the entry is still what it was | `rule_2_what_was_flushed_*` |
//! | 3 order | a batch is carried out from its end | `rule_3_a_batch_*` |
//! | 3 whole granules | a get reads half a granule at a time | `rule_3_threads_*` |
//! | 4 lending | a put decodes what it has stored and asserts that the caller's memory is the same | `rule_4_*` |
//! | 5 one completion | a refused operation has no completion | `rule_5_*` |
//! | 6 persistent stays | persistent blocks go where ephemeral ones are dropped from | `rule_6_*` |
//! | 7 never wrong bytes | the checksum is not compared | `rule_7_a_damaged_*` |
//! | 7 | a damaged block that the cleaner meets becomes missing | `rule_7_damage_*` |
//! | results | a part that was found counts as all of it | `results_*` |

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use support::described::{self, Description};
use support::own_memory::OwnMemory;
use support::pages::{Kind, page};
use support::random::Random;
use support::{GRANULE, MIB, pool_of, quiet_store};
use tmem::{Action, ClientOptions, Operation, Outcome, Policy, Pool, PoolOptions, Refusal, Rejection, Store};

/// How long threads try to catch each other out.
const CONTEST: Duration = Duration::from_secs(2);

/// Ends the other thread of a test, also when the test fails.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed); // Relaxed: a wish
    }
}

fn noise(granules: u64, seed: u64) -> Vec<u8> {
    (0..granules).flat_map(|nth| page(Kind::Noise, seed + nth)).collect()
}

/// Fills a store with persistent noise until it rejects. Returns how many granules object 1 has.
fn fill(pool: &Pool) -> u64 {
    let mut nth = 0;
    while pool.put(1, nth * GRANULE, &page(Kind::Noise, nth)) == Outcome::Stored {
        nth += 1;
    }
    nth
}

fn all_missing(pool: &Pool, object: u64, granules: core::ops::Range<u64>) -> bool {
    granules.into_iter().all(|nth| pool.get(object, nth * GRANULE, &mut [0; 4096]) == Outcome::Missing)
}

#[test]
fn rule_1_what_a_put_would_have_replaced_is_gone_whatever_becomes_of_it() {
    let store = quiet_store(24 * MIB);
    let client = store.client(ClientOptions::named("full"));
    let pool = client.create_pool(PoolOptions::persistent()).unwrap();
    let held = fill(&pool);
    assert!(held > 2000);
    // Room for 20 MiB more there is none, but its first half is there already.
    let twice = noise(held + held / 2, 1 << 40);
    assert_eq!(pool.put(1, held / 2 * GRANULE, &twice), Outcome::Rejected(Rejection::Budget));
    assert!(all_missing(&pool, 1, held / 2..2 * held), "old or new contents of a rejected put");
    assert_eq!(pool.get(1, 0, &mut [0; 4096]), Outcome::Filled, "what it did not name stays");

    client.freeze().unwrap();
    assert_eq!(pool.put(1, 0, &noise(held / 2 + 1, 7)), Outcome::Frozen);
    assert!(all_missing(&pool, 1, 0..held), "old or new contents of a frozen put");
    client.thaw().unwrap();

    assert_eq!(pool.put(2, 0, &noise(10, 3)), Outcome::Stored);
    client.set_cap(client.charged_bytes() + 4200);
    assert_eq!(pool.put(2, 5 * GRANULE, &noise(10, 4)), Outcome::Rejected(Rejection::Cap));
    assert!(all_missing(&pool, 2, 5..15), "old or new contents of a put over the cap");
    store.validate();
}

#[test]
fn rule_2_a_put_that_fails_turns_no_miss_into_a_hit() {
    let store = quiet_store(24 * MIB);
    let client = store.client(ClientOptions::named("full"));
    let pool = client.create_pool(PoolOptions::persistent()).unwrap();
    let held = fill(&pool);
    assert_eq!(pool.flush(1, 0, 1500 * GRANULE), Outcome::Flushed { granules: 1500 });
    // Its first part would fit.
    assert_eq!(pool.put(2, 0, &noise(3000, 1 << 40)), Outcome::Rejected(Rejection::Budget));
    assert!(all_missing(&pool, 2, 0..3000));
    client.set_cap(client.charged_bytes() + MIB);
    assert_eq!(pool.put(3, 0, &noise(3000, 1 << 41)), Outcome::Rejected(Rejection::Cap), "{:?}", store.memory());
    assert!(all_missing(&pool, 3, 0..3000));
    store.settle_all();
    store.shrink(0);
    assert!(all_missing(&pool, 1, 0..1500) && all_missing(&pool, 2, 0..3000) && all_missing(&pool, 3, 0..3000));
    assert!(!all_missing(&pool, 1, 1500..held));
    store.validate();
}

#[test]
fn rule_2_what_was_flushed_under_the_cleaner_stays_flushed() {
    let store = quiet_store(64 * MIB);
    let pool = pool_of(&store, "cold", PoolOptions::persistent().policy(Policy::Dense));
    let text: Vec<u8> = (0..16).flat_map(|nth| page(Kind::Text, nth)).collect();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Relaxed: a wish.
            while !stop.load(Ordering::Relaxed) {
                store.settle_all();
            }
        });
        let _stop = StopOnDrop(&stop);
        let (start, mut random) = (Instant::now(), Random::new(1));
        while start.elapsed() < CONTEST {
            for block in 0..100 {
                assert_eq!(pool.put(1, block * 16 * GRANULE, &text), Outcome::Stored);
            }
            for granule in 0..1600 {
                let at = granule * GRANULE;
                match random.below(3) {
                    0 => assert_eq!(pool.flush(1, at, GRANULE), Outcome::Flushed { granules: 1 }),
                    1 => assert_eq!(pool.take(1, at, &mut [0; 4096]), Outcome::Filled),
                    _ => assert_eq!(pool.put(1, at, &[0; 4096]), Outcome::Stored),
                }
                let mut back = [1; 4096];
                let got = pool.get(1, at, &mut back);
                assert!(got == Outcome::Missing || (got == Outcome::Filled && back == [0; 4096]), "it came back");
            }
            for granule in 0..1600 {
                let mut back = [1; 4096];
                let got = pool.get(1, granule * GRANULE, &mut back);
                assert!(got == Outcome::Missing || (got == Outcome::Filled && back == [0; 4096]), "it came back");
            }
        }
    });
    store.validate();
}

#[test]
fn rule_3_a_batch_takes_effect_in_its_order() {
    let store = quiet_store(64 * MIB);
    let client = store.client(ClientOptions::named("batch"));
    let pool = client.create_pool(PoolOptions::persistent()).unwrap();
    let (a, b) = (noise(40, 1), noise(40, 1000));
    let mut gets = vec![vec![0; 40 * 4096]; 4];
    let [first, second, third, fourth] = &mut gets[..] else { unreachable!() };
    let (first, second) = ([first.as_mut_slice()], [second.as_mut_slice()]);
    let (third, fourth) = ([third.as_mut_slice()], [fourth.as_mut_slice()]);
    let (mut first, mut second, mut third, mut fourth) = (first, second, third, fourth);
    let (puts_a, puts_b) = ([a.as_slice()], [b.as_slice()]);
    let actions = [
        Action::Put { offset: 0, from: &puts_a },
        Action::Get { offset: 0, into: &mut first },
        Action::Put { offset: 20 * GRANULE, from: &puts_b },
        Action::Get { offset: 0, into: &mut second },
        Action::Flush { offset: 10 * GRANULE, len: 10 * GRANULE },
        Action::Take { offset: 0, into: &mut third },
        Action::Get { offset: 20 * GRANULE, into: &mut fourth },
    ];
    let operation = |(tag, action)| Operation { tag, pool: pool.id(), object: 1.into(), action };
    let mut batch: Vec<_> = (0..).zip(actions).map(operation).collect();
    let mut completions = Vec::new();
    client.execute(&mut batch, &mut completions);
    completions.sort_by_key(|completion| completion.tag);
    let outcomes: Vec<_> = completions.into_iter().map(|completion| completion.outcome).collect();
    let half = 20 * 4096;
    assert_eq!(outcomes[..4], [Outcome::Stored, Outcome::Filled, Outcome::Stored, Outcome::Filled]);
    assert_eq!(outcomes[4], Outcome::Flushed { granules: 10 });
    assert!(matches!(&outcomes[5], Outcome::PartlyFilled(map) if map.filled() == 30 && !map.is_filled(10)));
    assert!(matches!(&outcomes[6], Outcome::PartlyFilled(map) if map.filled() == 20 && map.is_filled(20)));
    assert!(gets[0] == a && gets[1][..half] == a[..half] && gets[1][half..] == b[..half]);
    assert!(gets[2][..half / 2] == a[..half / 2] && gets[2][half..] == b[..half]);
    assert!(gets[3][half..] == b[half..]);
}

#[test]
fn rule_3_threads_see_each_granule_whole() {
    let store = quiet_store(96 * MIB);
    let pool = pool_of(&store, "shared", PoolOptions::persistent());
    let versions = AtomicU64::new(1);
    let end = Instant::now() + CONTEST;
    let put = |thread| {
        let mut memory = [0; 8 * 4096];
        let version = versions.fetch_add(1, Ordering::Relaxed); // Relaxed: a number
        for (granule, page) in (0..).zip(memory.chunks_mut(4096)) {
            described::write(Description { object: 1, granule, version, thread }, page);
        }
        assert_eq!(pool.put(1, 0, &memory), Outcome::Stored);
    };
    put(0);
    std::thread::scope(|scope| {
        for thread in [1, 2] {
            scope.spawn(move || {
                while Instant::now() < end {
                    put(thread);
                }
            });
        }
        let mut memory = [0; 8 * 4096];
        while Instant::now() < end {
            assert_eq!(pool.get(1, 0, &mut memory), Outcome::Filled);
            for (granule, page) in (0..).zip(memory.chunks(4096)) {
                assert_eq!(described::read(page).unwrap().granule, granule);
            }
        }
    });
    store.validate();
}

#[test]
fn rule_4_memory_that_changes_while_it_is_lent_harms_nobody() {
    let store = quiet_store(64 * MIB);
    let pool = pool_of(&store, "victim", PoolOptions::persistent());
    let (before, after) = (page(Kind::Text, 1), page(Kind::Noise, 2));
    assert_eq!(pool.put(1, 0, &before), Outcome::Stored);
    assert_eq!(pool.put(1, 17 * GRANULE, &after), Outcome::Stored);
    let lent = noise(16, 5);
    let address = lent.as_ptr().addr() as u64;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (own, mut random) = (OwnMemory::open(), Random::new(3));
            // Relaxed: a wish.
            while !stop.load(Ordering::Relaxed) {
                let kind = random.pick(&support::pages::KINDS);
                let at = random.below(16) * GRANULE + random.below(2) * 2000;
                own.write(address + at, &page(kind, random.next())[..2000]);
            }
        });
        let _stop = StopOnDrop(&stop);
        let start = Instant::now();
        while start.elapsed() < CONTEST {
            for policy in [Policy::Fast, Policy::Balanced, Policy::Dense] {
                pool.set_policy(policy);
                assert_eq!(pool.put(1, GRANULE, &lent), Outcome::Stored);
                // Some bytes or other, but bytes: what was stored is intact.
                assert_eq!(pool.get(1, GRANULE, &mut [0; 16 * 4096]), Outcome::Filled);
                let mut all = vec![0; 18 * 4096];
                assert_eq!(pool.get(1, 0, &mut all), Outcome::Filled);
                assert!(all[..4096] == before && all[17 * 4096..] == after, "a neighbour was changed");
            }
        }
    });
    store.validate();
}

#[test]
fn rule_5_every_operation_has_one_completion() {
    let store = quiet_store(24 * MIB);
    let client = store.client(ClientOptions::named("busy"));
    let pool = client.create_pool(PoolOptions::persistent()).unwrap();
    let doomed = client.create_pool(PoolOptions::ephemeral()).unwrap();
    fill(&pool);
    let (bytes, much) = (page(Kind::Noise, 1), noise(400, 1));
    let (bytes, much, nothing) = ([bytes.as_slice()], [much.as_slice()], [[].as_slice()]);
    let gone = store.client(ClientOptions::named("gone")).create_pool(PoolOptions::persistent()).unwrap().id();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(20));
            client.freeze().unwrap();
            std::thread::sleep(Duration::from_millis(20));
            doomed.destroy().unwrap();
            std::thread::sleep(Duration::from_millis(20));
            client.destroy();
        });
        for round in 0..200_u64 {
            let mut memory = vec![[0; 4096]; 40];
            let mut lent: Vec<[&mut [u8]; 1]> = memory.iter_mut().map(|page| [page.as_mut_slice()]).collect();
            let mut batch = Vec::new();
            for (tag, into) in (round * 1000..).zip(&mut lent) {
                let (pool, action) = match tag % 8 {
                    0 => (pool.id(), Action::Put { offset: 0, from: &bytes }),
                    1 => (pool.id(), Action::Put { offset: 1 << 40, from: &much }),
                    2 => (doomed.id(), Action::Put { offset: 0, from: &bytes }),
                    3 => (doomed.id(), Action::Put { offset: 3, from: &nothing }),
                    4 => (gone, Action::FlushObject),
                    5 => (doomed.id(), Action::Take { offset: 0, into }),
                    6 => (pool.id(), Action::Flush { offset: 0, len: 0 }),
                    _ => (pool.id(), Action::Get { offset: u64::MAX, into }),
                };
                batch.push(Operation { tag, pool, object: 1.into(), action });
            }
            let mut completions = Vec::new();
            client.execute(&mut batch, &mut completions);
            let mut tags: Vec<u64> = completions.iter().map(|completion| completion.tag).collect();
            tags.sort_unstable();
            assert!(tags.into_iter().eq(round * 1000..round * 1000 + 40), "one completion for each operation");
        }
    });
    store.validate();
}

#[test]
fn rule_6_accepted_persistent_data_is_never_dropped_to_make_room() {
    let store = quiet_store(24 * MIB);
    let client = store.client(ClientOptions::named("both"));
    let cache = client.create_pool(PoolOptions::ephemeral()).unwrap();
    let keep = client.create_pool(PoolOptions::persistent()).unwrap();
    let mut kept = Vec::new();
    for nth in 0..8000 {
        drop(cache.put(1, nth * GRANULE, &page(Kind::Mixed, nth)));
        if keep.put(1, nth * GRANULE, &page(Kind::Noise, nth)) == Outcome::Stored {
            kept.push(nth);
        }
    }
    assert!(kept.len() > 3000 && kept.len() < 8000, "{} persistent granules were accepted", kept.len());
    store.shrink(0);
    assert_eq!(keep.stats().granules_evicted, 0);
    for nth in kept {
        let mut back = [0; 4096];
        assert_eq!(keep.get(1, nth * GRANULE, &mut back), Outcome::Filled, "granule {nth} was accepted");
        assert!(back == page(Kind::Noise, nth));
    }
    store.validate();
}

/// A store of noise, text and noise, and the places of the first and last in the process's memory.
fn damageable() -> (Store, Pool, OwnMemory, [u64; 2]) {
    let store = quiet_store(32 * MIB);
    let pool = pool_of(&store, "damaged", PoolOptions::persistent());
    // Noise that no other test has: all stores of this process are searched.
    let seed = (u64::from(std::process::id()) << 32) ^ (&raw const store).addr() as u64;
    let bytes = [page(Kind::Noise, seed), page(Kind::Text, 5), page(Kind::Noise, seed + 1)];
    for (nth, bytes) in (0..).zip(&bytes) {
        assert_eq!(pool.put(1, nth * GRANULE, bytes), Outcome::Stored);
    }
    let own = OwnMemory::open();
    let find = |bytes: &[u8]| own.find_stored(&bytes[..64], 2 * MIB).expect("noise is stored as it is");
    let places = [find(&bytes[0]), find(&bytes[2])];
    (store, pool, own, places)
}

#[test]
fn rule_7_a_damaged_block_is_never_returned_as_good() {
    let (store, pool, own, [first, last]) = damageable();
    let mut good = [0; 3 * 4096];
    assert_eq!(pool.get(1, 0, &mut good), Outcome::Filled);
    // Every byte of the text's block, its header and the header behind it.
    let mut seen = 0;
    for at in first + 4096..last {
        own.flip(at);
        for granule in 1..3 {
            let mut back = [1; 4096];
            match pool.get(1, granule * GRANULE, &mut back) {
                Outcome::Corrupt { offset } => {
                    assert_eq!(offset, granule * GRANULE);
                    assert!(back == [0; 4096], "damaged granules are zeroed");
                    seen += 1;
                }
                // Padding belongs to no block.
                outcome => {
                    assert_eq!(
                        (outcome, &back[..]),
                        (Outcome::Filled, &good[usize::try_from(granule).unwrap() * 4096..][..4096])
                    )
                }
            }
        }
        own.flip(at);
    }
    assert!(seen + 16 >= last - first - 4096, "{seen} of {} damaged bytes were seen", last - first - 4096);
    for at in [last, last + 1000, last + 4095] {
        own.flip(at);
        let mut back = [1; 4096 + 10];
        assert_eq!(pool.get(1, 2 * GRANULE - 10, &mut back), Outcome::Corrupt { offset: 2 * GRANULE });
        assert!(back[..10] == good[2 * 4096 - 10..2 * 4096] && back[10..] == [0; 4096]);
        assert_eq!(pool.take(1, 2 * GRANULE, &mut back[..4096]), Outcome::Corrupt { offset: 2 * GRANULE });
        own.flip(at);
    }
    store.validate();
}

#[test]
fn rule_7_damage_that_the_cleaner_meets_is_not_mistaken_for_missing() {
    let (store, pool, own, [first, _]) = damageable();
    own.flip(first + 99);
    store.settle_all();
    store.shrink(0);
    let mut back = [1; 2 * 4096];
    assert_eq!(pool.get(1, 0, &mut back), Outcome::Corrupt { offset: 0 });
    assert!(back[..4096] == [0; 4096] && back[4096..] == page(Kind::Text, 5));
    assert_eq!(pool.put(1, 0, &page(Kind::Text, 9)), Outcome::Stored, "a later put ends it");
    assert_eq!(pool.get(1, 0, &mut back), Outcome::Filled);
    store.validate();
}

#[test]
fn results_are_of_the_kind_that_they_should_be() {
    let store = quiet_store(32 * MIB);
    let client = store.client(ClientOptions::named("kinds"));
    let pool = client.create_pool(PoolOptions::persistent()).unwrap();
    let bytes = noise(4, 9);
    let mut back = vec![7; 6 * 4096];
    assert_eq!(pool.get(1, 0, &mut back), Outcome::Missing);
    assert_eq!(pool.put(1, GRANULE, &bytes[..3 * 4096 - 100]), Outcome::Stored);
    let Outcome::PartlyFilled(map) = pool.get(1, 0, &mut back) else { panic!("a part is there") };
    let filled: Vec<bool> = (0..7).map(|index| map.is_filled(index)).collect();
    assert_eq!(filled, [false, true, true, true, false, false, false]);
    assert_eq!((map.len(), map.filled()), (6, 3));
    assert!(back[..4096] == [7; 4096] && back[4 * 4096..] == [7; 2 * 4096], "the memory of the others is untouched");
    assert!(back[4096..4 * 4096 - 100] == bytes[..3 * 4096 - 100] && back[4 * 4096 - 100..4 * 4096] == [0; 100]);
    assert_eq!(pool.get(1, GRANULE + 5, &mut back[..8000]), Outcome::Filled);
    client.freeze().unwrap();
    assert_eq!(pool.put(1, 2 * GRANULE, &bytes), Outcome::Frozen);
    assert_eq!(pool.put(1, GRANULE, &bytes[..4096]), Outcome::Stored, "a frozen client replaces");
    assert_eq!(pool.take(1, GRANULE, &mut back[..4096]), Outcome::Filled);
    assert_eq!(pool.flush(1, 0, 9 * GRANULE), Outcome::Flushed { granules: 0 });
    client.thaw().unwrap();
    client.set_cap(4200);
    assert_eq!(pool.put(1, 0, &bytes), Outcome::Rejected(Rejection::Cap));
    client.set_cap(usize::MAX);
    fill(&pool);
    assert_eq!(pool.put(2, 0, &noise(600, 1)), Outcome::Rejected(Rejection::Budget));
    assert_eq!(pool.put(1, 1, &bytes), Outcome::Refused(Refusal::Misaligned { offset: 1 }));
    store.validate();
}
