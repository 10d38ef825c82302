//! Regions of huge pages from the system's pool. Without any there is nothing to test, unless `TMEM_HUGE_PAGES` promises
//! them: `cargo xtask test` sets some aside and says so.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use support::{Worker, World, contents};
use tmem_ring::client::ClientError;
use tmem_ring::wire::PoolOptions;
use tmem_ring::{Action, Memory, Outcome, Slice};
use tmem_sys::{Backing, HUGE_PAGE_BYTES, SysError};

const REGION_BYTES: usize = 2 * HUGE_PAGE_BYTES;

/// Of each mapping of a region in this process: the size of its pages and how much of it is huge pages that are there.
fn mappings() -> Vec<(u64, u64)> {
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut found: Vec<(u64, u64)> = Vec::new();
    let mut is_region = false;
    for line in smaps.lines() {
        let (name, value) = line.split_once(':').unwrap();
        let value = value.trim().strip_suffix(" kB").and_then(|value| value.parse::<u64>().ok());
        match (name, value) {
            // The first line of a mapping has addresses, and the device's number behind them.
            (name, _) if name.contains('-') => {
                is_region = line.contains("/memfd:tmem-region");
                found.extend(is_region.then_some((0, 0)));
            }
            ("KernelPageSize", Some(kib)) if is_region => found.last_mut().unwrap().0 = kib << 10,
            ("Shared_Hugetlb" | "Private_Hugetlb", Some(kib)) if is_region => found.last_mut().unwrap().1 += kib << 10,
            _ => {}
        }
    }
    found
}

#[test]
fn huge_pages_are_put_from_and_got_into_and_stay_huge() {
    let world = World::new();
    let client = world.client("huge");
    let region = match client.create_region(REGION_BYTES, Backing::HugeTlb) {
        Err(ClientError::System(error @ SysError::HugePages { .. })) => {
            assert!(std::env::var_os("TMEM_HUGE_PAGES").is_none(), "huge pages were promised: {error}");
            println!("no huge pages to test with: {error}");
            return;
        }
        region => region.unwrap(),
    };
    let queue = client.open_queue(64).unwrap();
    let mut worker = Worker { queue, region, client };
    let pool = worker.client.create_pool(PoolOptions::persistent()).unwrap();
    let bytes = contents(1, REGION_BYTES);
    worker.region.write(0, &bytes);
    // Ours, and the daemon's of the same pages.
    let all_huge = [(HUGE_PAGE_BYTES as u64, REGION_BYTES as u64); 2];
    let number = worker.region.number();
    let slice = |offset: usize, len: usize| [Slice { offset: offset as u64, len: len as u64 }];
    for (object, unit) in [(1, 4096), (2, 64 << 10), (3, HUGE_PAGE_BYTES), (4, REGION_BYTES)] {
        for offset in (0..REGION_BYTES).step_by(unit) {
            let from = Memory { region: number, slices: &slice(offset, unit) };
            assert_eq!(worker.run(pool, object, Action::Put { offset: offset as u64, from }), Outcome::Stored);
        }
        worker.region.write(0, &vec![0xee; REGION_BYTES]);
        for offset in (0..REGION_BYTES).step_by(unit) {
            let into = Memory { region: number, slices: &slice(offset, unit) };
            assert_eq!(worker.run(pool, object, Action::Get { offset: offset as u64, into }), Outcome::Filled);
        }
        let mut back = vec![0; REGION_BYTES];
        worker.region.read(0, &mut back);
        assert!(back == bytes, "operations of {unit} bytes");
        assert_eq!(mappings(), all_huge, "operations of {unit} bytes");
    }
    let stat = world.stat_of(worker.client.id()).unwrap();
    assert_eq!((stat.copied_bytes, stat.region_bytes), (0, REGION_BYTES as u64));
}
