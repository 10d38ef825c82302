//! The walk over damaged segments: whatever stored bytes become, a get returns what was put or says that it cannot.
//!
//! A store is filled with data of every kind, among it granules that look like headers with good checksums from end
//! to end, for a walk that has lost its way to meet. Then blocks are damaged, the cleaner goes over everything in all
//! its ways, and what was put is asked for again.

#![allow(clippy::unwrap_used, reason = "tests")]

use crate::entry::BlockRef;
use crate::header::{HEADER_BYTES, Header};
use crate::units::{GRANULE_BYTES, unit_bytes};
use crate::{Cleaning, ClientOptions, Outcome, Policy, Pool, PoolOptions, Store, StoreOptions};
use std::collections::BTreeMap;
use std::sync::mpsc;
use std::time::Duration;
use tmem_codec::Codec;

const OBJECTS: u64 = 6;
/// Where puts begin; they go on for some more.
const OBJECT_GRANULES: u64 = 200;
/// Kinds of damage that chance does, and all of them: the last one is an intact block of another owner.
const CHANCE: u64 = 7;
const ALL_KINDS: u64 = 8;
/// What a seed may take, in debug builds on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn index(&mut self, end: usize) -> usize {
        usize::try_from(self.below(end as u64)).unwrap()
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let words = std::iter::repeat_with(|| self.next().to_le_bytes());
        words.flatten().take(len).collect()
    }
}

type Granule = Vec<u8>;

/// A granule of some kind.
fn granule(random: &mut Random) -> Granule {
    match random.below(5) {
        0 => random.bytes(GRANULE_BYTES),
        1 => random.bytes(64).repeat(GRANULE_BYTES / 64),
        2 => vec![random.next().to_le_bytes()[0]; GRANULE_BYTES],
        3 => random
            .bytes(GRANULE_BYTES)
            .iter()
            .enumerate()
            .map(|(at, byte)| if at % 4 == 0 { *byte } else { 7 })
            .collect(),
        _ => forged(random),
    }
}

/// Blocks one behind the other, sealed as well as real ones are, that claim to be granules of leaves which exist.
fn forged(random: &mut Random) -> Granule {
    let mut bytes = Vec::new();
    while bytes.len() < GRANULE_BYTES {
        let stored_bytes = 16 + random.index(5) * 16;
        let header = Header {
            leaf: u32::try_from(1 + random.below(40)).unwrap(),
            first: u32::try_from(random.below(32)).unwrap(),
            raw_bytes: stored_bytes.max(random.index(65536)),
            codec: Codec::Raw,
            settled: random.one_in(2),
            stored_bytes,
        };
        let mut block = random.bytes(unit_bytes(header.units()));
        header.seal(&mut block);
        bytes.extend(block);
    }
    bytes.truncate(GRANULE_BYTES);
    bytes
}

/// What a granule of the model is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Held {
    Intact(Granule),
    Damaged,
}

/// A pool and what should be in it, by object and granule.
struct Model {
    pool: Pool,
    ephemeral: bool,
    held: BTreeMap<(u64, u64), Held>,
}

impl Model {
    fn put(&mut self, random: &mut Random) {
        let (object, first) = (random.below(OBJECTS), random.below(OBJECT_GRANULES));
        let granules = if random.one_in(3) { 16 + random.below(24) } else { 1 + random.below(3) };
        let data: Vec<Granule> = (0..granules).map(|_| granule(random)).collect();
        let outcome = self.pool.put(object, first * GRANULE_BYTES as u64, &data.concat());
        for (at, granule) in (first..).zip(data) {
            match outcome {
                Outcome::Stored => self.held.insert((object, at), Held::Intact(granule)),
                Outcome::Rejected(_) => self.held.remove(&(object, at)),
                ref other => panic!("{other:?}"),
            };
        }
    }

    fn flush(&mut self, random: &mut Random) {
        let (object, first, granules) = (random.below(OBJECTS), random.below(OBJECT_GRANULES), 1 + random.below(5));
        let bytes = GRANULE_BYTES as u64;
        let outcome = self.pool.flush(object, first * bytes, granules * bytes);
        assert!(matches!(outcome, Outcome::Flushed { .. }), "{outcome:?}");
        for at in first..first + granules {
            self.held.remove(&(object, at));
        }
    }

    /// Every granule, one by one and in ranges.
    fn check(&self, random: &mut Random) {
        for object in 0..OBJECTS {
            for at in 0..OBJECT_GRANULES + 40 {
                self.check_range(object, at, 1);
                if random.one_in(16) {
                    self.check_range(object, at, 1 + random.below(40));
                }
            }
        }
    }

    fn check_range(&self, object: u64, first: u64, granules: u64) {
        let mut back = vec![0xEE; usize::try_from(granules).unwrap() * GRANULE_BYTES];
        let outcome = self.pool.get(object, first * GRANULE_BYTES as u64, &mut back);
        let held: Vec<_> = (first..first + granules).map(|at| self.held.get(&(object, at))).collect();
        let damaged = held.contains(&Some(&Held::Damaged));
        match &outcome {
            Outcome::Corrupt { .. } => assert!(damaged, "an intact range is corrupt"),
            Outcome::Missing => {
                assert!(self.ephemeral || held.iter().all(Option::is_none), "{object}/{first}+{granules} is missing");
            }
            Outcome::Filled | Outcome::PartlyFilled(_) => {
                assert!(self.ephemeral || !damaged, "{object}/{first}+{granules}: damage unseen");
            }
            other => panic!("{other:?}"),
        }
        if matches!(outcome, Outcome::Filled) && !self.ephemeral {
            assert!(held.iter().all(Option::is_some), "what is not there was got");
        }
        for (nth, (bytes, held)) in back.chunks_exact(GRANULE_BYTES).zip(&held).enumerate() {
            let filled = match &outcome {
                Outcome::Filled => true,
                Outcome::PartlyFilled(map) => map.is_filled(nth),
                _ => false,
            };
            let Some(Held::Intact(granule)) = held else {
                assert!(!filled, "bytes for what is missing or damaged");
                continue;
            };
            assert!(!filled || bytes == granule, "wrong bytes");
            assert!(filled || self.ephemeral || granules > 1 && damaged, "{object}/{first} is not got: {outcome:?}");
        }
    }

    /// Blocks that entries refer to, with the granules that do.
    fn blocks(&self, store: &Store) -> Vec<(BlockRef, Vec<(u64, u64)>)> {
        let engine = &store.engine;
        let mut blocks = BTreeMap::<_, (BlockRef, Vec<(u64, u64)>)>::new();
        for object in 0..OBJECTS {
            let Some(found) = engine.tables.find(self.pool.id(), object.into()) else { continue };
            for at in 0..OBJECT_GRANULES + 40 {
                let at_granule = crate::units::Granule(at);
                let Some(leaf) = engine.tables.leaf(found, at_granule) else { continue };
                let entry = engine.tables.entry(leaf, crate::ops::leaf_index(at_granule));
                let Some(block) = entry.as_block() else { continue };
                let key = (block.segment, block.place);
                blocks.entry(key).or_insert((block.at(0), Vec::new())).1.push((object, at));
            }
        }
        blocks.into_values().collect()
    }

    /// Damages some of the blocks.
    fn damage(&mut self, store: &Store, random: &mut Random, (one_in, kinds): (u64, u64)) {
        for (block, granules) in self.blocks(store) {
            if random.one_in(one_in) && damage(store, block, random, kinds) {
                for granule in granules {
                    self.held.insert(granule, Held::Damaged);
                }
            }
        }
    }
}

/// The block's bytes.
fn bytes_of(store: &Store, block: BlockRef) -> Vec<u8> {
    let context = store.engine.contexts.take(&store.engine.budget);
    let pin = store.engine.epochs.pin(context.slot);
    store.engine.log.segments.block(block, &pin).unwrap().to_vec()
}

/// Makes the block's bytes something else. Returns whether anything changed that the checksum is for.
fn damage(store: &Store, block: BlockRef, random: &mut Random, kinds: u64) -> bool {
    let before = bytes_of(store, block);
    let checked = Header::parse(&before).map_or(before.len(), |header| header.block_bytes());
    let mut after = before.clone();
    match random.below(kinds) {
        0 => after[random.index(HEADER_BYTES)] ^= 1 << random.below(8),
        1 => after[random.index(before.len())] ^= 1 << random.below(8),
        2 => after[..HEADER_BYTES].copy_from_slice(&random.bytes(HEADER_BYTES)),
        3 => after[..HEADER_BYTES].fill(0),
        4 => after.fill(0),
        5 => after = random.bytes(before.len()),
        // Sizes and an owner of its own choice.
        6 => after[..HEADER_BYTES].copy_from_slice(&forged(random)[..HEADER_BYTES]),
        _ => usurp(&mut after, random),
    }
    assert_eq!(after.len(), unit_bytes(block.units));
    for (at, (before, after)) in before.iter().zip(&after).enumerate() {
        store.engine.log.segments.damage(block, at, before ^ after);
    }
    before[..checked] != after[..checked]
}

/// Makes the block an intact one of another owner: a neighbour in the same leaf.
fn usurp(bytes: &mut [u8], random: &mut Random) {
    let first = Header::parse(bytes).map_or(0, |header| header.first);
    let stored_bytes = bytes.len() - HEADER_BYTES;
    let leaf = Header::parse(bytes).map_or(1, |header| header.leaf);
    // Whole granules: nothing is to stand behind the payload.
    let granules = stored_bytes.div_ceil(GRANULE_BYTES);
    let raw_bytes = (granules + random.index(17 - granules)) * GRANULE_BYTES;
    let first = (first + 1 + u32::try_from(random.below(31)).unwrap()) % 32;
    let header = Header { leaf, first, raw_bytes, codec: Codec::Raw, settled: false, stored_bytes };
    header.seal(bytes);
}

/// Lets the cleaner go over the store in one of its ways.
fn clean(store: &Store, models: &mut [Model], random: &mut Random) {
    match random.below(6) {
        0 => drop(store.shrink(0)),
        1 => drop(store.shrink(store.memory().used / 2)),
        2 => store.settle_all(),
        3 => store.settle_cold(),
        4 => {
            let policies = [Policy::Fast, Policy::Balanced, Policy::Dense];
            models[0].pool.set_policy(policies[random.index(3)]);
            store.settle_all();
        }
        // Compaction by those who want room.
        _ => (0..400).for_each(|_| models[random.index(models.len())].put(random)),
    }
}

fn run(seed: u64, kinds: u64) {
    let mut random = Random(seed);
    let options = StoreOptions { cleaning: Cleaning::OnDemand, ..StoreOptions::with_budget(18 << 20) };
    let store = Store::new(options).unwrap();
    let client = store.client(ClientOptions::named("test"));
    let policy = [Policy::Fast, Policy::Balanced, Policy::Dense][random.index(3)];
    let mut models = [PoolOptions::persistent(), PoolOptions::ephemeral()].map(|options| Model {
        pool: client.create_pool(options.policy(policy)).unwrap(),
        ephemeral: options == PoolOptions::ephemeral(),
        held: BTreeMap::new(),
    });
    // `validate` takes blocks that changed their owner for a mistake of ours.
    let validate = |store: &Store| {
        if kinds < ALL_KINDS {
            store.validate()
        }
    };
    for _ in 0..3 {
        for model in &mut models {
            (0..150).for_each(|_| model.put(&mut random));
            (0..20).for_each(|_| model.flush(&mut random));
        }
        let one_in = 2 + random.below(30);
        for model in &mut models {
            model.damage(&store, &mut random, (one_in, kinds));
            model.check(&mut random);
        }
        validate(&store);
        for _ in 0..3 {
            clean(&store, &mut models, &mut random);
            validate(&store);
            models.iter().for_each(|model| model.check(&mut random));
        }
    }
    // What is put over damage is whole, and a store that is emptied holds nothing back.
    for model in &mut models {
        let damaged: Vec<_> =
            model.held.iter().filter(|(_, held)| **held == Held::Damaged).map(|(at, _)| *at).collect();
        for (object, at) in damaged {
            let data = granule(&mut random);
            match model.pool.put(object, at * GRANULE_BYTES as u64, &data) {
                Outcome::Stored => model.held.insert((object, at), Held::Intact(data)),
                // What has no header that could be found keeps its segment until it is replaced.
                Outcome::Rejected(_) => model.held.remove(&(object, at)),
                other => panic!("{other:?}"),
            };
        }
        model.check(&mut random);
        (0..OBJECTS).for_each(|object| drop(model.pool.flush_object(object)));
    }
    store.shrink(0);
    store.validate();
    assert_eq!(store.count_granules(), 0);
    assert_eq!(store.memory().segments, 0, "damaged segments come back when they are empty");
}

/// Runs a few seeds, and fails if one does not end. SEED=n runs that one; SEEDS=n runs so many instead of a few.
fn run_seeds(kinds: u64) {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("SEED") {
        Some(seed) => seed..=seed,
        None => 1..=number("SEEDS").unwrap_or(3),
    };
    for seed in seeds {
        let (done, ended) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            run(seed, kinds);
            let _ = done.send(());
        });
        match ended.recv_timeout(PATIENCE) {
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("seed {seed} does not end"),
            _ => assert!(thread.join().is_ok(), "seed {seed} failed"),
        }
    }
}

#[test]
fn damage_is_told_and_never_returned() {
    run_seeds(CHANCE);
}

#[test]
fn an_intact_block_of_another_owner_is_as_bad_as_a_damaged_one() {
    run_seeds(ALL_KINDS);
}
