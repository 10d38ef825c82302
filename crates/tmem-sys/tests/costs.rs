//! What the calls that a pager makes often cost: `cargo test --release -p tmem-sys --test costs -- --ignored
//! --nocapture`.

mod support;

use std::hint::black_box;
use std::time::Instant;
use support::{Area, advise, own_thread, store, write_protect};
use tmem_sys::{
    CpuOf, MappingsOf, Pagemap, ResidencyOf, mappings, proportional_anonymous, read_memory, robust_list_head,
    same_memory, threads,
};

/// Prints the median and the least time of a call.
fn cost(what: &str, times: usize, mut call: impl FnMut()) {
    let mut took = Vec::with_capacity(times);
    for _ in 0..times {
        let start = Instant::now();
        call();
        took.push(start.elapsed());
    }
    took.sort();
    println!(
        "{what:40} {:8.2} us, least {:8.2}",
        took[times / 2].as_nanos() as f64 / 1e3,
        took[0].as_nanos() as f64 / 1e3
    );
}

#[test]
#[ignore = "measures, and checks nothing"]
fn costs() {
    let pid = std::process::id();
    let of = ResidencyOf::open(pid).unwrap();
    cost("residency: all", 2000, || _ = black_box(of.read().unwrap()));
    cost("residency: sizes", 2000, || _ = black_box(of.sizes().unwrap()));

    let area = Area::pages(200);
    (0..200).step_by(2).for_each(|page| write_protect(area.pages_range(page..page + 1)));
    let mut all = Vec::new();
    mappings(pid, &mut all).unwrap();
    let name = format!("mappings: {}", all.len());
    cost(&name, 500, || {
        all.clear();
        mappings(pid, &mut all).unwrap();
    });
    let mut of = MappingsOf::open(pid).unwrap();
    cost("MappingsOf::at", 2000, || _ = black_box(of.at(area.page(50)).unwrap()));

    let area = Area::pages(512);
    advise(area.range(), libc::MADV_NOHUGEPAGE);
    (0..512).for_each(|page| store(area.page(page), 1));
    let pagemap = Pagemap::open(pid).unwrap();
    let mut runs = Vec::new();
    cost("present: 512 pages, 1 run", 2000, || {
        runs.clear();
        pagemap.present(area.range(), 512, &mut runs).unwrap();
    });
    let sparse = Area::pages(1024);
    advise(sparse.range(), libc::MADV_NOHUGEPAGE);
    (0..512).for_each(|page| store(sparse.page(2 * page), 1));
    cost("present: 512 pages, 512 runs", 2000, || {
        runs.clear();
        pagemap.present(sparse.range(), 512, &mut runs).unwrap();
    });

    let (mut tids, mut page) = (Vec::new(), [0; 4096]);
    let cpu_of = CpuOf::open(own_thread()).unwrap();
    cost("robust_list_head", 2000, || _ = black_box(robust_list_head(own_thread()).unwrap()));
    cost("same_memory", 2000, || _ = black_box(same_memory(pid, own_thread()).unwrap()));
    cost("read_memory: 4 KiB", 2000, || _ = black_box(read_memory(pid, area.page(3), &mut page).unwrap()));
    cost("cpu_of", 2000, || _ = black_box(cpu_of.read().unwrap()));
    cost("threads: 2", 2000, || {
        tids.clear();
        threads(pid, &mut tids).unwrap();
    });

    let big = Area::pages(65536);
    for (kind, advice) in [("base pages", libc::MADV_NOHUGEPAGE), ("huge pages", libc::MADV_HUGEPAGE)] {
        advise(big.range(), libc::MADV_DONTNEED);
        advise(big.range(), advice);
        (0..65536).for_each(|page| store(big.page(page), 1));
        let name = format!("proportional_anonymous: 256 MiB, {kind}");
        cost(&name, 20, || _ = black_box(proportional_anonymous(pid).unwrap()));
    }
}
