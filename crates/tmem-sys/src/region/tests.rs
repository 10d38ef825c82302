use super::*;
use rustix::fs::{MemfdFlags, fstat, ftruncate, memfd_create};
use rustix::io::Errno;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Barrier;
use std::thread;

/// What a client would map foreign: the same memory.
fn daemon_side(client: &Region) -> Region {
    Region::map_foreign(client.fd().try_clone_to_owned().unwrap()).unwrap()
}

/// A foreign region that lacks the seal, and what its client can so do to it.
fn unsealed(bytes: usize) -> (Region, OwnedFd) {
    let fd = memfd_create("tmem-test", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&fd, bytes as u64).unwrap();
    let memfd = Memfd::unsealed(fd.try_clone().unwrap(), bytes);
    let mapped = Mapped::aligned(&memfd, memfd.alignment().unwrap()).unwrap();
    (Region { mapped: mapped.guarded(), memfd }, fd)
}

fn byte(region: &Region, offset: usize) -> u8 {
    let mut byte = [0];
    region.read(offset, &mut byte);
    byte[0]
}

#[test]
fn bytes_are_the_same_on_both_sides() {
    let client = Region::create("tmem-test", 2 * PAGE_BYTES, Backing::Small).unwrap();
    let daemon = daemon_side(&client);
    assert_eq!((daemon.len(), byte(&daemon, 2 * PAGE_BYTES - 1)), (2 * PAGE_BYTES, 0));
    let bytes: Vec<u8> = (1..=40).collect();
    for offset in (0..17).chain(2 * PAGE_BYTES - 40..2 * PAGE_BYTES) {
        for len in 0..=bytes.len().min(daemon.len() - offset) {
            client.write(0, &[0; 2 * PAGE_BYTES]);
            client.write(offset, &bytes[..len]);
            let mut all = [0xff; 2 * PAGE_BYTES];
            daemon.read(0, &mut all);
            assert_eq!(&all[offset..offset + len], &bytes[..len]);
            assert_eq!(all.iter().filter(|byte| **byte != 0).count(), len, "{len} at {offset}");
            let mut part = vec![0; len];
            daemon.read(offset, &mut part);
            assert_eq!(part, bytes[..len]);
        }
    }
    assert!(!daemon.is_lost() && !client.is_lost());
}

#[test]
fn outside_of_a_region_nothing_is_touched() {
    let region = Region::create("tmem-test", PAGE_BYTES, Backing::Small).unwrap();
    for (offset, len) in [(PAGE_BYTES, 1), (PAGE_BYTES - 1, 2), (PAGE_BYTES + 1, 0), (usize::MAX, 1), (usize::MAX, 0)] {
        let mut bytes = vec![0; len];
        assert!(catch_unwind(AssertUnwindSafe(|| region.read(offset, &mut bytes))).is_err());
        assert!(catch_unwind(AssertUnwindSafe(|| region.write(offset, &bytes))).is_err());
    }
    region.read(PAGE_BYTES, &mut []);
}

#[test]
fn transparent_huge_pages_are_taken_at_once() {
    let bytes = 2 * HUGE_PAGE_BYTES + PAGE_BYTES;
    let region = Region::create("tmem-test", bytes, Backing::TransparentHuge).unwrap();
    assert!(region.as_ptr().as_ptr().addr().is_multiple_of(HUGE_PAGE_BYTES));
    assert!(fstat(region.fd()).unwrap().st_blocks * 512 >= i64::try_from(bytes).unwrap());
    region.write(bytes - 1, &[7]);
    let daemon = daemon_side(&region);
    assert!(daemon.as_ptr().as_ptr().addr().is_multiple_of(HUGE_PAGE_BYTES));
    assert_eq!(byte(&daemon, bytes - 1), 7);
}

#[test]
fn huge_pages_come_from_the_pool_or_it_is_said_how_to_fill_it() {
    let bytes = 2 * HUGE_PAGE_BYTES;
    let client = match Region::create("tmem-test", bytes, Backing::HugeTlb) {
        Err(error) => {
            assert!(std::env::var_os("TMEM_HUGE_PAGES").is_none(), "huge pages were promised: {error}");
            println!("no huge pages to test with");
            assert!(error.to_string().contains("vm.nr_hugepages by 2"), "{error}");
            return;
        }
        Ok(client) => client,
    };
    let daemon = daemon_side(&client);
    assert!(daemon.as_ptr().as_ptr().addr().is_multiple_of(HUGE_PAGE_BYTES));
    client.write(bytes - 1, &[7]);
    assert_eq!(byte(&daemon, bytes - 1), 7);
}

#[test]
fn a_region_that_is_taken_away_is_lost_and_nothing_else() {
    let neighbours: Vec<Region> = (0..3)
        .map(|_| Region::create("tmem-test", PAGE_BYTES, Backing::Small).unwrap())
        .map(|client| daemon_side(&client))
        .collect();
    let (region, client) = unsealed(3 * PAGE_BYTES);
    neighbours.iter().for_each(|neighbour| neighbour.write(0, &[5]));
    region.write(0, &[9; 2 * PAGE_BYTES]);
    ftruncate(&client, PAGE_BYTES as u64).unwrap();
    assert_eq!((byte(&region, 0), region.is_lost()), (9, false));
    assert_eq!((byte(&region, 2 * PAGE_BYTES), region.is_lost()), (0, true));
    assert_eq!(byte(&region, 0), 0, "none of it is the client's any more");
    region.write(PAGE_BYTES, &[1]);
    assert_eq!(byte(&region, PAGE_BYTES), 1);
    assert!(neighbours.iter().all(|neighbour| byte(neighbour, 0) == 5 && !neighbour.is_lost()));
    drop(region);
    let (next, _client) = unsealed(PAGE_BYTES);
    assert!(!next.is_lost(), "a slot that is used again starts anew");
}

#[test]
fn words_that_cannot_be_had_are_lost_to_a_write_too() {
    let (region, client) = unsealed(PAGE_BYTES);
    ftruncate(&client, 0).unwrap();
    region.write(8, &[1; 16]);
    assert!(region.is_lost());
    assert_eq!(byte(&region, 23), 1);
}

/// Two threads fault in one region at once.
fn lose_in_two_threads() {
    let (region, client) = unsealed(4 * PAGE_BYTES);
    ftruncate(&client, 0).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| assert_eq!(byte(&region, 0), 0));
        assert_eq!(byte(&region, 3 * PAGE_BYTES), 0);
    });
    assert!(region.is_lost());
}

#[test]
fn faults_are_survived_while_others_come_and_go() {
    const ROUNDS: usize = 300;
    let barrier = Barrier::new(4);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                barrier.wait();
                for _ in 0..ROUNDS {
                    lose_in_two_threads();
                }
            });
            scope.spawn(|| {
                barrier.wait();
                for _ in 0..4 * ROUNDS {
                    let (region, _client) = unsealed(64 * PAGE_BYTES);
                    region.write(0, &[3; 64]);
                    assert_eq!((byte(&region, 63), region.is_lost()), (3, false));
                }
            });
        }
    });
}

#[test]
fn a_system_call_on_memory_taken_away_fails() {
    let (region, client) = unsealed(PAGE_BYTES);
    ftruncate(&client, 0).unwrap();
    let zero = std::fs::File::open("/dev/zero").unwrap();
    // SAFETY: mapped as long as the region, whatever is behind it; nothing else refers to it.
    let into = unsafe { core::slice::from_raw_parts_mut(region.as_ptr().as_ptr(), 8) };
    assert_eq!(rustix::io::read(&zero, into), Err(Errno::FAULT));
    assert!(!region.is_lost());
}

/// How a child ends that reads from `address`.
fn end_of_reader(address: *const u8) -> i32 {
    // SAFETY: the child makes a read and a system call, and neither allocates nor locks.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: mapped by the caller; that the read may fault is what is tested.
        let _ = unsafe { address.read_volatile() };
        // SAFETY: ends the child.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    // SAFETY: writes to `status`.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(waited, child);
    status
}

#[test]
fn a_fault_elsewhere_still_ends_the_process() {
    let (guarded, client) = unsealed(PAGE_BYTES);
    ftruncate(&client, 0).unwrap();
    let unguarded = Mapped::new(&guarded.memfd).unwrap();
    let status = end_of_reader(unguarded.start().as_ptr());
    assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGBUS, "{status:#x}");
    // The same memory, guarded.
    assert_eq!(end_of_reader(guarded.as_ptr().as_ptr()), 0);
}
