//! Blocks that somebody else encodes: through the memory of the segments, as another process would.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;
use support::pages::{self, KINDS, Kind, PAGE};
use support::random::Random;
use support::{GRANULE, MIB, pool_of, quiet_store};
use tmem::{
    ClientOptions, Content, HEADER_BYTES, LentBlock, Loan, Located, MOST_ROOM_BYTES, Outcome, Policy, Pool,
    PoolOptions, REGION_BYTES, Refusal, Rejection, Room, SEGMENT_BYTES, Store, StoreOptions, UNIT_BYTES,
};
use tmem_codec::{Codec, Temperature, Workspace};

/// The other process: a loan, and what it was told to encode.
struct Encoder {
    store: Store,
    loan: Loan,
    workspace: Workspace,
}

impl Encoder {
    fn new(store: &Store, pool: &Pool) -> Self {
        Self { store: store.clone(), loan: pool.lend(), workspace: Workspace::new() }
    }

    fn file(&self, region: u32) -> File {
        file_of(&self.store, region)
    }

    /// Encodes pages of object 1 into a room, as far as they fit, and says how the blocks are to be entered.
    fn encode(&mut self, room: Room, pages: &[(u64, [u8; PAGE])]) -> Vec<LentBlock> {
        let file = self.file(room.region);
        let (mut at, end) = (room.offset_bytes, room.offset_bytes + room.len as u64);
        let mut blocks = Vec::new();
        for (granule, page) in pages {
            let mut block = |content| blocks.push(LentBlock { object: 1.into(), granule: *granule, content });
            if let Some(pattern) = pattern_of(page) {
                block(Content::Filled(pattern));
                continue;
            }
            let mut payload = [0; PAGE];
            let encoded =
                tmem_codec::encode(&mut self.workspace, Policy::Fast, Temperature::Hot, page, &mut payload).unwrap();
            let taken = ((HEADER_BYTES + encoded.len) as u64).next_multiple_of(UNIT_BYTES as u64);
            if at + taken > end {
                break;
            }
            file.write_all_at(&payload[..encoded.len], at + HEADER_BYTES as u64).unwrap();
            block(Content::Encoded { codec: encoded.codec as u8, bytes: u32::try_from(encoded.len).unwrap() });
            at += taken;
        }
        blocks
    }

    /// Brings pages in, in as many rooms as it takes. Returns how many were entered and why not more.
    fn bring(&mut self, pages: &[(u64, [u8; PAGE])]) -> (usize, Option<Outcome>) {
        let mut done = 0;
        while done < pages.len() {
            let room = match self.loan.room(PAGE + HEADER_BYTES) {
                Ok(room) => room,
                Err(outcome) => return (done, Some(outcome)),
            };
            let blocks = self.encode(room, &pages[done..]);
            assert!(!blocks.is_empty(), "a page fits into {room:?}");
            let (entered, why) = self.loan.enter(&blocks);
            done += entered;
            if why.is_some() {
                return (done, why);
            }
            assert_eq!(entered, blocks.len());
        }
        (done, None)
    }
}

fn file_of(store: &Store, region: u32) -> File {
    File::from(store.region(region).unwrap().try_clone_to_owned().unwrap())
}

fn pattern_of(page: &[u8; PAGE]) -> Option<u32> {
    let first: [u8; 4] = page[..4].try_into().unwrap();
    page.chunks(4).all(|word| word == first).then(|| u32::from_le_bytes(first))
}

/// Pages of all kinds at `granules`.
fn pages_at(granules: impl IntoIterator<Item = u64>, seed: u64) -> Vec<(u64, [u8; PAGE])> {
    let kind = |granule: u64| KINDS[usize::try_from((granule + seed) % KINDS.len() as u64).unwrap()];
    granules.into_iter().map(|at| (at, pages::page(kind(at), seed * 1_000_003 + at))).collect()
}

fn assert_holds(pool: &Pool, pages: &[(u64, [u8; PAGE])]) {
    for (granule, page) in pages {
        let mut back = [1; PAGE];
        assert_eq!(pool.get(1, granule * GRANULE, &mut back), Outcome::Filled, "granule {granule}");
        assert!(back == *page, "granule {granule}");
    }
}

fn is_missing(pool: &Pool, granule: u64) -> bool {
    pool.get(1, granule * GRANULE, &mut [0; PAGE]) == Outcome::Missing
}

fn sendable<T: Send>(_: &T) {}

#[test]
fn what_was_encoded_elsewhere_is_got_and_replaced() {
    let store = quiet_store(64 * MIB);
    let pool = pool_of(&store, "test", PoolOptions::persistent());
    assert!(store.region(0).is_none());
    let mut encoder = Encoder::new(&store, &pool);
    sendable(&encoder.loan);
    assert_eq!(store.memory().segments, 0, "a loan takes nothing before it is asked for room");
    let old = pages_at(0..3000, 1);
    assert_eq!(encoder.bring(&old), (3000, None));
    assert_eq!(file_of(&store, 0).metadata().unwrap().len(), REGION_BYTES as u64);
    assert_holds(&pool, &old);
    store.validate();
    // In another order, with granules left out, and one twice.
    let mut order: Vec<u64> = (0..3000).filter(|at| at % 3 != 0).rev().collect();
    order.push(5);
    let new = pages_at(order, 2);
    assert_eq!(encoder.bring(&new), (2001, None));
    assert_holds(&pool, &new);
    let rest: Vec<_> = old.iter().filter(|(at, _)| at % 3 == 0).copied().collect();
    assert_holds(&pool, &rest);
    store.validate();
    let stats = pool.stats();
    assert_eq!((stats.granules_put, stats.granules_replaced, stats.bytes_copied), (5001, 2001, 0));
    drop(encoder);
    store.settle_all();
    store.validate();
    assert_holds(&pool, &new);
    assert_holds(&pool, &rest);
    assert_eq!(pool.flush_object(1), Outcome::Flushed { granules: 3000 });
    store.validate();
}

#[test]
fn rooms_lie_within_a_segment_and_what_is_not_entered_is_written_over() {
    let store = quiet_store(64 * MIB);
    let pool = pool_of(&store, "test", PoolOptions::persistent());
    let mut encoder = Encoder::new(&store, &pool);
    let first = encoder.loan.room(MOST_ROOM_BYTES).unwrap();
    assert_eq!(first, Room { region: 0, offset_bytes: 0, len: SEGMENT_BYTES });
    let lost = encoder.encode(first, &pages_at(0..10, 1));
    assert_eq!(lost.len(), 10);
    assert_eq!(encoder.loan.room(1).unwrap(), first, "nothing was entered");
    let pages = pages_at(100..110, 2);
    let blocks = encoder.encode(first, &pages);
    assert_eq!(encoder.loan.enter(&blocks), (10, None));
    assert!((0..10).all(|at| is_missing(&pool, at)));
    assert_holds(&pool, &pages);
    let second = encoder.loan.room(1).unwrap();
    assert!(second.offset_bytes > 0 && second.offset_bytes + second.len as u64 == SEGMENT_BYTES as u64);
    encoder.loan.end();
    store.validate();
    let third = encoder.loan.room(PAGE).unwrap();
    assert_eq!(third.offset_bytes, SEGMENT_BYTES as u64, "the segment was sealed");
    let refused = Outcome::Refused(Refusal::BeyondRoom { bytes: MOST_ROOM_BYTES + 1, room: MOST_ROOM_BYTES });
    assert_eq!(encoder.loan.room(MOST_ROOM_BYTES + 1), Err(refused));
    drop(encoder);
    assert_eq!(store.memory().freeable / SEGMENT_BYTES, 1, "an unused segment is warm again");
    store.validate();
    assert_holds(&pool, &pages);
}

#[test]
fn nonsense_is_refused_and_leaves_its_granules_missing() {
    let store = quiet_store(64 * MIB);
    let pool = pool_of(&store, "test", PoolOptions::persistent());
    let mut encoder = Encoder::new(&store, &pool);
    let old = pages_at(0..40, 1);
    let bytes = u32::try_from(SEGMENT_BYTES).unwrap();
    let cases = [
        (Content::Encoded { codec: 99, bytes: 100 }, Refusal::UnknownCodec(99)),
        (Content::Encoded { codec: Codec::Lz4 as u8, bytes: 0 }, Refusal::BlockSize(0)),
        (Content::Encoded { codec: Codec::Lz4 as u8, bytes: 4097 }, Refusal::BlockSize(4097)),
        (Content::Encoded { codec: Codec::Lz4 as u8, bytes }, Refusal::BlockSize(bytes)),
    ];
    for (content, refusal) in cases {
        assert_eq!(encoder.bring(&old), (40, None));
        let room = encoder.loan.room(MOST_ROOM_BYTES).unwrap();
        let mut blocks = encoder.encode(room, &pages_at(0..40, 2));
        blocks[20].content = content;
        assert_eq!(encoder.loan.enter(&blocks), (20, Some(Outcome::Refused(refusal))));
        assert_holds(&pool, &pages_at(0..20, 2));
        assert!((20..40).all(|at| is_missing(&pool, at)));
        store.validate();
    }
    let beyond = LentBlock { object: 1.into(), granule: 1 << 52, content: Content::Filled(7) };
    let (entered, why) = encoder.loan.enter(&[beyond]);
    assert!(entered == 0 && matches!(why, Some(Outcome::Refused(Refusal::BeyondEnd { .. }))));
    // Without a room there is none, but for what takes none.
    let filled = LentBlock { object: 1.into(), granule: 7, content: Content::Filled(0x0403_0201) };
    let block = LentBlock { content: Content::Encoded { codec: Codec::Lz4 as u8, bytes: 17 }, granule: 8, ..filled };
    let refused = Outcome::Refused(Refusal::BeyondRoom { bytes: 32, room: 0 });
    assert_eq!(encoder.loan.enter(&[filled, block]), (1, Some(refused)));
    let mut back = [0; 8];
    assert_eq!(pool.get(1, 7 * GRANULE, &mut back), Outcome::Filled);
    assert_eq!(back, [1, 2, 3, 4, 1, 2, 3, 4]);
    // More blocks than the room can hold.
    let room = encoder.loan.room(1).unwrap();
    let fit = room.len / (PAGE + HEADER_BYTES);
    let raw = |granule| LentBlock { object: 1.into(), granule, content: Content::Encoded { codec: 0, bytes: 4096 } };
    let blocks: Vec<_> = (0..1000).map(raw).collect();
    let (entered, why) = encoder.loan.enter(&blocks);
    assert!(
        entered == fit && matches!(why, Some(Outcome::Refused(Refusal::BeyondRoom { bytes: 4108, .. }))),
        "{why:?}"
    );
    store.validate();
}

#[test]
fn a_payload_that_is_changed_afterwards_is_corrupt() {
    let store = quiet_store(64 * MIB);
    let pool = pool_of(&store, "test", PoolOptions::persistent());
    let mut encoder = Encoder::new(&store, &pool);
    let room = encoder.loan.room(MOST_ROOM_BYTES).unwrap();
    let pages: Vec<_> = (0..5).map(|at| (at, pages::page(Kind::Text, at))).collect();
    let blocks = encoder.encode(room, &pages);
    assert_eq!(encoder.loan.enter(&blocks), (5, None));
    let file = encoder.file(room.region);
    let mut byte = [0];
    file.read_exact_at(&mut byte, room.offset_bytes + 100).unwrap();
    file.write_all_at(&[byte[0] ^ 4], room.offset_bytes + 100).unwrap();
    assert_eq!(pool.get(1, 0, &mut [0; PAGE]), Outcome::Corrupt { offset: 0 });
    assert_holds(&pool, &pages[1..]);
    // A header is as good as a payload.
    file.write_all_at(&[0; HEADER_BYTES], room.offset_bytes).unwrap();
    assert_eq!(pool.get(1, 0, &mut [0; PAGE]), Outcome::Corrupt { offset: 0 });
    drop(encoder);
    store.settle_all();
    assert_eq!(pool.get(1, 0, &mut [0; PAGE]), Outcome::Corrupt { offset: 0 });
    assert_holds(&pool, &pages[1..]);
    store.validate();
}

#[test]
fn a_full_store_rejects_and_goes_on_when_there_is_room_again() {
    let store = quiet_store(32 * MIB);
    let pool = pool_of(&store, "test", PoolOptions::persistent());
    let mut encoder = Encoder::new(&store, &pool);
    let noise = |at| (at, pages::page(Kind::Noise, at));
    let mut held = 0;
    let why = loop {
        let pages: Vec<_> = (held..held + 100).map(noise).collect();
        let (entered, why) = encoder.bring(&pages);
        held += entered as u64;
        if let Some(why) = why {
            break why;
        }
    };
    assert_eq!(why, Outcome::Rejected(Rejection::Budget));
    assert!(held > 4500, "{held}");
    assert!(store.used_bytes() <= 32 * MIB && store.used_bytes() == store.memory().used);
    store.validate();
    assert_holds(&pool, &(0..held).map(noise).collect::<Vec<_>>());
    assert!((held..held + 100).all(|at| is_missing(&pool, at)));
    // Every third one goes, so that cleaning has to copy.
    for at in (0..held).step_by(3) {
        assert_eq!(pool.flush(1, at * GRANULE, GRANULE), Outcome::Flushed { granules: 1 });
    }
    let again: Vec<_> = (0..held).step_by(3).take(1000).map(noise).collect();
    assert_eq!(encoder.bring(&again), (1000, None));
    assert_holds(&pool, &again);
    assert_holds(&pool, &(0..held).filter(|at| at % 3 != 0).map(noise).collect::<Vec<_>>());
    store.validate();
}

#[test]
fn a_cap_and_a_frozen_client_stop_what_is_new() {
    let store = quiet_store(64 * MIB);
    let client = store.client(ClientOptions { cap_bytes: MIB, ..ClientOptions::named("small") });
    let pool = client.create_pool(PoolOptions::persistent()).unwrap();
    let mut encoder = Encoder::new(&store, &pool);
    let noise: Vec<_> = (0..400).map(|at| (at, pages::page(Kind::Noise, at))).collect();
    let (entered, why) = encoder.bring(&noise);
    assert_eq!(why, Some(Outcome::Rejected(Rejection::Cap)));
    assert!((200..256).contains(&entered), "{entered}");
    assert!(client.charged_bytes() <= MIB);
    assert_holds(&pool, &noise[..entered]);
    store.validate();
    client.freeze().unwrap();
    let replacing = pages_at(0..5, 9);
    assert_eq!(encoder.bring(&replacing), (5, None));
    let both = pages_at([3, 4, 300, 5], 10);
    assert_eq!(encoder.bring(&both), (2, Some(Outcome::Frozen)));
    assert_holds(&pool, &both[..2]);
    assert!(is_missing(&pool, 5) && is_missing(&pool, 300));
    store.validate();
    client.thaw().unwrap();
    let room = encoder.loan.room(PAGE).unwrap();
    let blocks = encoder.encode(room, &pages_at(0..3, 1));
    client.destroy();
    assert_eq!(encoder.loan.enter(&blocks), (0, Some(Outcome::Refused(Refusal::ClientDestroyed))));
    assert_eq!(encoder.loan.room(1), Err(Outcome::Refused(Refusal::ClientDestroyed)));
    store.validate();
}

#[test]
fn idle_loans_give_their_segments_to_those_in_need() {
    let store = quiet_store(32 * MIB);
    let pool = pool_of(&store, "test", PoolOptions::persistent());
    let mut loans: Vec<_> = (0..12).map(|_| Encoder::new(&store, &pool)).collect();
    for (nth, encoder) in (0..).zip(&mut loans) {
        assert_eq!(encoder.bring(&pages_at([nth], 3)), (1, None));
    }
    let noise: Vec<_> = (100..4100).map(|at| (at, pages::page(Kind::Noise, at))).collect();
    for (granule, page) in &noise {
        assert_eq!(pool.put(1, granule * GRANULE, page), Outcome::Stored, "granule {granule}");
    }
    store.validate();
    for (nth, encoder) in (0..).zip(&mut loans) {
        assert_eq!(encoder.bring(&pages_at([nth], 4)), (1, None));
    }
    assert_holds(&pool, &pages_at(0..12, 4));
    assert_holds(&pool, &noise);
    store.validate();
}

/// Loans, puts, takes and flushes on the same granules, in a store that is nearly full, against a model.
fn churn(policy: Policy, seed: u64) {
    let store = quiet_store(20 * MIB);
    let pool = pool_of(&store, "test", PoolOptions::persistent().policy(policy));
    let mut encoders: Vec<_> = (0..2).map(|_| Encoder::new(&store, &pool)).collect();
    let mut random = Random::new(seed);
    let mut model: HashMap<u64, [u8; PAGE]> = HashMap::new();
    for round in 0..600 {
        let granules: Vec<u64> = (0..random.below(80)).map(|_| random.below(4000)).collect();
        let some = pages_at(granules, seed * 100_000 + round);
        match random.below(6) {
            0..=2 => {
                let encoder = &mut encoders[random.index(2)];
                let (entered, why) = encoder.bring(&some);
                assert!(matches!(why, None | Some(Outcome::Rejected(Rejection::Budget))), "{why:?}");
                model.extend(some[..entered].iter().copied());
                // Those that could not get a room were never lent; whoever fails must flush them.
                for (granule, _) in &some[entered..] {
                    let _ = pool.flush(1, granule * GRANULE, GRANULE);
                    model.remove(granule);
                }
            }
            3 => {
                for (granule, page) in &some {
                    match pool.put(1, granule * GRANULE, page) {
                        Outcome::Stored => drop(model.insert(*granule, *page)),
                        _ => drop(model.remove(granule)),
                    }
                }
            }
            4 => {
                for (granule, _) in &some {
                    let mut back = [0; PAGE];
                    let outcome = pool.take(1, granule * GRANULE, &mut back);
                    let expected = model.remove(granule);
                    assert_eq!(outcome == Outcome::Filled, expected.is_some(), "{outcome:?}");
                    assert!(expected.is_none_or(|page| page == back));
                }
            }
            _ => {
                // A room is open while the cleaner works.
                let room = encoders[0].loan.room(PAGE).ok();
                let blocks = room.map(|room| encoders[0].encode(room, &some));
                store.settle_cold();
                store.validate();
                let (entered, _) = blocks.map_or((0, None), |blocks| encoders[0].loan.enter(&blocks));
                model.extend(some[..entered].iter().copied());
                for (granule, _) in &some[entered..] {
                    let _ = pool.flush(1, granule * GRANULE, GRANULE);
                    model.remove(granule);
                }
            }
        }
        if round % 50 == 0 {
            store.validate();
        }
    }
    let held: Vec<_> = model.into_iter().collect();
    assert_holds(&pool, &held);
    assert_eq!(store.count_granules(), held.len() as u64);
    drop(encoders);
    store.validate();
}

#[test]
fn loans_go_together_with_every_other_operation() {
    churn(Policy::Fast, 1);
    churn(Policy::Dense, 2);
}

/// One thread's rounds. Granules of one leaf belong to different threads.
fn bring_and_flush(store: &Store, pool: &Pool, thread: u64) {
    let mut encoder = Encoder::new(store, pool);
    for round in 0..38 {
        let pages = pages_at((0..400).map(|at| at * 3 + thread), round * 7 + thread);
        assert_eq!(encoder.bring(&pages), (400, None));
        assert_holds(pool, &pages);
        if round % 3 == 0 {
            for (granule, _) in &pages {
                assert_eq!(pool.flush(1, granule * GRANULE, GRANULE), Outcome::Flushed { granules: 1 });
            }
        }
        if round % 10 == thread {
            store.settle_all();
        }
    }
}

#[test]
fn threads_with_loans_and_a_cleaner_do_not_hurt_each_other() {
    support::within(Duration::from_secs(120), || {
        let store = Store::new(StoreOptions::with_budget(24 * MIB)).unwrap();
        let pool = pool_of(&store, "test", PoolOptions::persistent());
        std::thread::scope(|scope| {
            for thread in 0..3 {
                let (store, pool) = (&store, &pool);
                scope.spawn(move || bring_and_flush(store, pool, thread));
            }
        });
        store.validate();
        assert_eq!(store.count_granules(), 3 * 400);
    });
}

#[test]
fn a_loan_outlives_its_store() {
    let store = Store::new(StoreOptions::with_budget(32 * MIB)).unwrap();
    let pool = pool_of(&store, "test", PoolOptions::persistent());
    let mut encoder = Encoder::new(&store, &pool);
    let Encoder { loan, .. } = &mut encoder;
    let _room = loan.room(PAGE).unwrap();
    drop(pool);
    drop(store);
    let pages = pages_at(0..100, 1);
    assert_eq!(encoder.bring(&pages), (100, None));
    let Encoder { loan, store, .. } = encoder;
    drop(store);
    drop(loan);
}

/// As the other process would do it on the way back: `None` for what it has to be given.
fn decode_located(store: &Store, located: Located) -> Option<[u8; PAGE]> {
    let mut page = [0; PAGE];
    match located {
        Located::Missing | Located::Other => return None,
        Located::Filled(pattern) => page.as_chunks_mut::<4>().0.fill(pattern.to_le_bytes()),
        Located::Block { region, offset_bytes, codec, bytes } => {
            let mut payload = vec![0; bytes as usize];
            file_of(store, region).read_exact_at(&mut payload, offset_bytes).unwrap();
            let codec = Codec::try_from(codec).unwrap();
            tmem_codec::decode(&mut Workspace::new(), codec, &payload, &mut page).unwrap();
        }
    }
    Some(page)
}

#[test]
fn what_is_located_decodes_to_what_was_brought() {
    let store = quiet_store(64 * MIB);
    let pool = pool_of(&store, "test", PoolOptions::persistent());
    let mut encoder = Encoder::new(&store, &pool);
    let pages = pages_at(0..1000, 3);
    assert_eq!(encoder.bring(&pages), (1000, None));
    // In any order, over leaves; the one in the middle is not there.
    let granules: Vec<u64> = (0..500).rev().chain([5000]).chain(500..1000).collect();
    let decoded = pool.with_blocks(1, &granules, |located| {
        assert_eq!(located.len(), granules.len());
        located.iter().map(|located| decode_located(&store, *located)).collect::<Vec<_>>()
    });
    for (granule, page) in granules.iter().zip(decoded.unwrap()) {
        let brought = pages.iter().find(|(at, _)| at == granule).map(|(_, page)| *page);
        assert!(page == brought, "granule {granule}");
    }
    assert_eq!(pool.with_blocks(2, &[0], |located| located[0]), Ok(Located::Missing));
}

#[test]
fn a_located_block_outlives_its_entry() {
    let store = Store::new(StoreOptions::with_budget(256 * MIB)).unwrap();
    let pool = pool_of(&store, "test", PoolOptions::persistent());
    let mut encoder = Encoder::new(&store, &pool);
    let pages = pages_at(0..64, 4);
    assert_eq!(encoder.bring(&pages), (64, None));
    let granules: Vec<u64> = (0..64).collect();
    let others = || {
        assert_eq!(pool.flush_object(1), Outcome::Flushed { granules: 64 });
        // Some segments are filled and emptied meanwhile.
        for nth in 0..2048 {
            let page = pages::page(Kind::Noise, nth);
            let _ = pool.put(2, nth % 128 * GRANULE, &page);
        }
    };
    let held = pool.with_blocks(1, &granules, |located| {
        std::thread::scope(|scope| scope.spawn(others).join().unwrap());
        located.iter().map(|located| decode_located(&store, *located)).collect::<Vec<_>>()
    });
    for ((granule, page), held) in pages.iter().zip(held.unwrap()) {
        assert!(held == Some(*page), "granule {granule}");
    }
    store.validate();
}

#[test]
fn a_damaged_block_is_not_located() {
    let store = quiet_store(64 * MIB);
    let pool = pool_of(&store, "test", PoolOptions::persistent());
    let mut encoder = Encoder::new(&store, &pool);
    assert_eq!(encoder.bring(&[(0, [7; PAGE]), (1, pages::page(Kind::Noise, 1))]), (2, None));
    let located = pool.with_blocks(1, &[0, 1], <[Located]>::to_vec).unwrap();
    assert_eq!(located[0], Located::Filled(0x0707_0707));
    let Located::Block { region, offset_bytes, .. } = located[1] else { panic!("{located:?}") };
    encoder.file(region).write_all_at(&[0; 100], offset_bytes + 100).unwrap();
    let called = pool.with_blocks(1, &[0, 1], |_| panic!("called"));
    assert_eq!(called, Err(Outcome::Corrupt { offset: GRANULE }));
}

#[test]
fn what_the_cleaner_put_together_is_to_be_got() {
    let store = quiet_store(64 * MIB);
    let pool = pool_of(&store, "test", PoolOptions::persistent().policy(Policy::Balanced));
    for granule in 0..64 {
        assert_eq!(pool.put(1, granule * GRANULE, &pages::page(Kind::Text, granule)), Outcome::Stored);
    }
    assert_eq!(pool.put(1, 64 * GRANULE, &[1, 2, 3]), Outcome::Stored);
    store.settle_all();
    assert_eq!(pool.with_blocks(1, &[0, 64], <[Located]>::to_vec).unwrap(), [Located::Other; 2]);
}

#[test]
fn a_destroyed_pool_locates_nothing() {
    let store = quiet_store(64 * MIB);
    let pool = pool_of(&store, "test", PoolOptions::persistent());
    pool.destroy().unwrap();
    assert!(matches!(pool.with_blocks(1, &[0], |_| ()), Err(Outcome::Refused(Refusal::UnknownPool(_)))));
}
