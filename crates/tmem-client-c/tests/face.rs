//! What the functions do, called as a C program would.

#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(clippy::undocumented_unsafe_blocks, reason = "each call has what its contract wants: see `Session`, or NULL")]

mod support;

use ::tmem_client::*;
use core::ffi::{CStr, c_char};
use std::ffi::CString;
use std::ptr::{null, null_mut};
use support::World;

const REGION_BYTES: usize = 4 << 20;
const MINUTE_NS: i64 = 60_000_000_000;

fn last_error() -> &'static str {
    unsafe { CStr::from_ptr(tmem_last_error()) }.to_str().unwrap()
}

#[track_caller]
fn assert_fails(code: i32, expected: i32, words: &str) {
    assert_eq!(code, expected, "{}", last_error());
    assert!(last_error().contains(words), "{}", last_error());
}

#[track_caller]
fn assert_done(code: i32) {
    assert_eq!(code, 0, "{}", last_error());
}

/// A client with a pool, a region and a queue.
struct Session {
    client: *mut tmem_client,
    region: *mut tmem_region,
    queue: *mut tmem_queue,
    pool: u32,
}

impl Session {
    fn new(world: &World, flags: u32) -> Self {
        let path = CString::new(world.socket.to_str().unwrap()).unwrap();
        let mut client = null_mut();
        assert_done(unsafe { tmem_connect(path.as_ptr(), c"a test".as_ptr(), 0, 0, &raw mut client) });
        Self::of(client, flags)
    }

    fn of(client: *mut tmem_client, flags: u32) -> Self {
        let (mut region, mut queue, mut pool) = (null_mut(), null_mut(), 0);
        assert_done(unsafe { tmem_create_pool(client, flags, &raw mut pool) });
        assert_done(unsafe { tmem_create_region(client, REGION_BYTES, TMEM_BACKING_SMALL, &raw mut region) });
        assert_done(unsafe { tmem_open_queue(client, 4, &raw mut queue) });
        Self { client, region, queue, pool }
    }

    fn place(&self, object: u64, offset: u64) -> tmem_place {
        tmem_place { pool: self.pool, reserved: 0, object: [object, 0, 0], offset }
    }

    /// The region's bytes, of which none is lent.
    fn memory(&mut self) -> &mut [u8] {
        let start = unsafe { tmem_region_memory(self.region) };
        let bytes = unsafe { tmem_region_bytes(self.region) };
        unsafe { core::slice::from_raw_parts_mut(start.cast(), bytes) }
    }

    fn put(&mut self, tag: u64, place: tmem_place, slices: &[tmem_slice]) -> i32 {
        unsafe { tmem_put(self.queue, tag, &raw const place, self.region, slices.as_ptr(), slices.len()) }
    }

    fn get(&mut self, tag: u64, place: tmem_place, slices: &[tmem_slice]) -> i32 {
        unsafe { tmem_get(self.queue, tag, &raw const place, self.region, slices.as_ptr(), slices.len()) }
    }

    fn take(&mut self, tag: u64, place: tmem_place, slices: &[tmem_slice]) -> i32 {
        unsafe { tmem_take(self.queue, tag, &raw const place, self.region, slices.as_ptr(), slices.len()) }
    }

    /// The completion of the only operation that is outstanding.
    #[track_caller]
    fn completion(&mut self) -> tmem_completion {
        assert_eq!(unsafe { tmem_wait(self.queue, 1, MINUTE_NS) }, 1, "{}", last_error());
        let mut completion = core::mem::MaybeUninit::uninit();
        assert_eq!(unsafe { tmem_reap(self.queue, completion.as_mut_ptr(), 1) }, 1);
        unsafe { completion.assume_init() }
    }

    #[track_caller]
    fn assert_ends(&mut self, tag: u64, result: u32, value: u64) {
        let completion = self.completion();
        assert_eq!((completion.tag, completion.result, completion.value), (tag, result, value));
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        unsafe { tmem_close_queue(self.client, self.queue) };
        unsafe { tmem_unregister(self.region) };
        unsafe { tmem_close(self.client) };
    }
}

fn slice(offset: u64, bytes: u64) -> tmem_slice {
    tmem_slice { offset, bytes }
}

fn contents(at: usize) -> u8 {
    (at / 3 + at / 4096 * 5).to_le_bytes()[0]
}

#[test]
fn operations_on_scattered_memory_do_what_they_say() {
    let world = World::new();
    let mut session = Session::new(&world, 0);
    session.memory()[..16384].iter_mut().enumerate().for_each(|(at, byte)| *byte = contents(at));
    let place = session.place(7, 4096);
    // The second half first.
    assert_done(session.put(1, place, &[slice(8192, 8192), slice(0, 8192)]));
    session.assert_ends(1, TMEM_STORED, 0);
    assert_done(session.take(2, place, &[slice(1 << 20, 16384)]));
    session.assert_ends(2, TMEM_FILLED, 0);
    let got = &session.memory()[1 << 20..][..16384];
    assert!(got.iter().enumerate().all(|(at, byte)| *byte == contents((at + 8192) % 16384)));
    assert_done(session.get(3, place, &[slice(0, 4096)]));
    session.assert_ends(3, TMEM_MISSING, 0);
    for (tag, object) in [(4, 8), (5, 9)] {
        assert_done(session.put(tag, session.place(object, 0), &[slice(0, 16384)]));
        session.assert_ends(tag, TMEM_STORED, 0);
    }
    let place = session.place(8, 4096);
    assert_done(unsafe { tmem_flush(session.queue, 6, &raw const place, 8192) });
    session.assert_ends(6, TMEM_FLUSHED, 2);
    let place = session.place(9, 0);
    assert_done(unsafe { tmem_flush_object(session.queue, 7, &raw const place) });
    session.assert_ends(7, TMEM_FLUSHED, 4);
    let place = tmem_place { pool: session.pool + 1000, ..session.place(1, 0) };
    assert_done(session.get(8, place, &[slice(0, 4096)]));
    let refused = session.completion();
    assert_eq!((refused.result, refused.detail), (TMEM_REFUSED, TMEM_REFUSED_UNKNOWN_POOL));
    assert_eq!(unsafe { tmem_outstanding(session.queue) }, 0);
}

#[test]
fn a_map_tells_which_granules_were_filled() {
    let world = World::new();
    let mut session = Session::new(&world, 0);
    for granule in [1, 3, 70] {
        assert_done(session.put(granule, session.place(1, granule * 4096), &[slice(0, 4096)]));
        session.assert_ends(granule, TMEM_STORED, 0);
    }
    for (granules, filled) in [(4, vec![1, 3]), (100, vec![1, 3, 70])] {
        assert_done(session.get(9, session.place(1, 0), &[slice(0, granules * 4096)]));
        let completion = session.completion();
        assert_eq!((completion.result, completion.value), (TMEM_PARTLY_FILLED, filled.len() as u64));
        assert_eq!((completion.granules, completion.granules_a_bit), (granules, 1));
        assert_eq!(completion.map_words as u64, granules.div_ceil(64));
        for granule in 0..granules + 200 {
            let is_filled = unsafe { tmem_is_filled(&raw const completion, granule) };
            assert_eq!(is_filled == 1, filled.contains(&granule), "{granule}");
        }
    }
}

#[test]
fn a_full_queue_says_so_and_what_is_not_submitted_can_be_cancelled() {
    let world = World::new();
    let mut session = Session::new(&world, 0);
    let place = session.place(1, 0);
    for _ in 0..4 {
        assert_done(session.put(5, place, &[slice(0, 4096)]));
    }
    assert_fails(session.put(5, place, &[slice(0, 4096)]), TMEM_E_FULL, "reap");
    assert_eq!(unsafe { tmem_cancel(session.queue, 6) }, 0);
    assert_eq!(unsafe { tmem_cancel(session.queue, 5) }, 4);
    assert_eq!(unsafe { tmem_outstanding(session.queue) }, 4);
    assert_eq!(unsafe { tmem_wait(session.queue, usize::MAX, -1) }, 4);
    let mut completions = [const { core::mem::MaybeUninit::<tmem_completion>::uninit() }; 8];
    for reaped in [3, 1, 0] {
        assert_eq!(unsafe { tmem_reap(session.queue, completions.as_mut_ptr().cast(), 3) }, reaped);
        for completion in &completions[..usize::try_from(reaped).unwrap()] {
            let completion = unsafe { completion.assume_init_ref() };
            assert_eq!((completion.tag, completion.result), (5, TMEM_CANCELLED));
        }
    }
    assert_eq!(unsafe { tmem_wait(session.queue, 1, 0) }, 0, "nothing is outstanding");
}

#[test]
fn an_event_loop_waits_for_the_bell() {
    let world = World::new();
    let mut session = Session::new(&world, 0);
    let bell = unsafe { tmem_bell(session.queue) };
    let bell = unsafe { std::os::fd::BorrowedFd::borrow_raw(bell) };
    for tag in 0..100 {
        assert_done(session.put(tag, session.place(tag, 0), &[slice(0, 65536)]));
        assert_done(unsafe { tmem_submit(session.queue) });
        loop {
            let mut completion = core::mem::MaybeUninit::uninit();
            if unsafe { tmem_reap(session.queue, completion.as_mut_ptr(), 1) } == 1 {
                let completion = unsafe { completion.assume_init() };
                assert_eq!((completion.tag, completion.result), (tag, TMEM_STORED));
                break;
            }
            if unsafe { tmem_ask_for_bell(session.queue) } == 1 {
                let minute = Some(std::time::Duration::from_secs(60));
                assert_eq!(tmem_sys::poll_readable(&[bell], minute), Ok(1), "nobody has rung");
            }
        }
    }
}

#[test]
fn pools_are_shared_and_outlive_their_client() {
    let world = World::new();
    let path = CString::new(world.socket.to_str().unwrap()).unwrap();
    let (mut owner, mut guest) = (Session::new(&world, TMEM_POOL_SHARED | TMEM_POOL_OUTLIVES), Session::new(&world, 0));
    owner.memory()[..4096].fill(9);
    assert_done(owner.put(1, owner.place(1, 0), &[slice(0, 4096)]));
    owner.assert_ends(1, TMEM_STORED, 0);
    let (mut id, mut key) = (0, [0 as c_char; TMEM_KEY_BYTES]);
    assert_done(unsafe { tmem_identity(guest.client, &raw mut id, null_mut()) });
    assert_fails(unsafe { tmem_join_pool(guest.client, owner.pool) }, TMEM_E_REFUSED, "authorised");
    assert_done(unsafe { tmem_authorise(owner.client, owner.pool, id) });
    assert_done(unsafe { tmem_join_pool(guest.client, owner.pool) });
    assert_done(guest.get(2, owner.place(1, 0), &[slice(8192, 4096)]));
    guest.assert_ends(2, TMEM_FILLED, 0);
    assert!(guest.memory()[8192..12288].iter().all(|byte| *byte == 9));

    assert_done(unsafe { tmem_identity(owner.client, &raw mut id, key.as_mut_ptr()) });
    let pool = owner.pool;
    drop(owner);
    let mut client = null_mut();
    assert_done(unsafe { tmem_attach(path.as_ptr(), id, key.as_ptr(), &raw mut client) });
    let mut pools = [0; 2];
    assert_eq!(unsafe { tmem_pools(client, pools.as_mut_ptr(), 2) }, 1);
    assert_eq!(pools, [pool, 0]);
    assert_eq!(unsafe { tmem_pools(client, null_mut(), 0) }, 1);
    let mut again = Session::of(client, TMEM_POOL_EPHEMERAL | TMEM_POOL_DENSE);
    let place = tmem_place { pool, ..again.place(1, 0) };
    assert_done(again.get(3, place, &[slice(0, 4096)]));
    again.assert_ends(3, TMEM_FILLED, 0);
    assert_done(unsafe { tmem_destroy_pool(client, pool) });
    assert_fails(unsafe { tmem_destroy_pool(client, pool) }, TMEM_E_REFUSED, "refuses");
}

#[test]
fn memory_of_the_programs_own_can_be_registered() {
    let world = World::new();
    let session = Session::new(&world, 0);
    let own = tmem_sys::Region::create("tmem-test", 1 << 20, tmem_sys::Backing::Small).unwrap();
    let mut region = null_mut();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&own.fd());
    assert_done(unsafe { tmem_register(session.client, fd, &raw mut region) });
    assert_eq!(unsafe { tmem_region_bytes(region) }, 1 << 20);
    own.write(4096, &[5; 100]);
    let memory = unsafe { tmem_region_memory(region) }.cast::<u8>();
    let there = unsafe { memory.add(4096) };
    // SAFETY: as above.
    assert_eq!(unsafe { there.read_volatile() }, 5, "the same memory");
    unsafe { tmem_unregister(region) };
    let plain = std::fs::File::open("/dev/null").unwrap();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&plain);
    assert_fails(unsafe { tmem_register(session.client, fd, &raw mut region) }, TMEM_E_SYSTEM, "");
}

#[test]
fn wrong_arguments_are_said_to_be_wrong() {
    let world = World::new();
    let mut session = Session::new(&world, 0);
    let (client, queue) = (session.client, session.queue);
    let (mut to_client, mut to_region, mut to_queue) = (null_mut(), null_mut(), null_mut());
    let argument = |code: i32, words: &str| assert_fails(code, TMEM_E_ARGUMENT, words);
    argument(unsafe { tmem_connect(null(), c"a".as_ptr(), 0, 0, &raw mut to_client) }, "path is NULL");
    argument(unsafe { tmem_connect(c"/a".as_ptr(), c"\xff".as_ptr(), 0, 0, &raw mut to_client) }, "UTF-8");
    argument(unsafe { tmem_connect(c"/a".as_ptr(), c"a".as_ptr(), 0, 0, null_mut()) }, "client is NULL");
    argument(unsafe { tmem_create_pool(client, 1 << 31, &raw mut session.pool) }, "flag");
    argument(unsafe { tmem_create_pool(client, TMEM_POOL_FAST | TMEM_POOL_DENSE, &raw mut session.pool) }, "both");
    argument(unsafe { tmem_create_pool(null(), 0, &raw mut session.pool) }, "client is NULL");
    for (bytes, backing) in [(0, TMEM_BACKING_SMALL), (4097, TMEM_BACKING_SMALL), (4096, TMEM_BACKING_HUGETLB)] {
        argument(unsafe { tmem_create_region(client, bytes, backing, &raw mut to_region) }, "whole pages");
    }
    argument(unsafe { tmem_create_region(client, 4096, 3, &raw mut to_region) }, "no backing");
    argument(unsafe { tmem_register(client, -1, &raw mut to_region) }, "no descriptor");
    assert_fails(unsafe { tmem_open_queue(client, 3, &raw mut to_queue) }, TMEM_E_REFUSED, "power of two");
    let place = session.place(1, 0);
    let one = [slice(0, 4096)];
    argument(unsafe { tmem_put(queue, 1, null(), session.region, one.as_ptr(), 1) }, "place is NULL");
    argument(unsafe { tmem_put(queue, 1, &raw const place, null(), one.as_ptr(), 1) }, "region is NULL");
    argument(unsafe { tmem_put(queue, 1, &raw const place, session.region, null(), 1) }, "slices is NULL");
    argument(unsafe { tmem_put(null_mut(), 1, &raw const place, session.region, one.as_ptr(), 1) }, "queue is NULL");
    let strange = tmem_place { reserved: 1, ..place };
    argument(session.put(1, strange, &one), "reserved");
    assert_fails(session.put(1, place, &[]), TMEM_E_REFUSED, "slices");
    let many = vec![slice(0, 4096); TMEM_MOST_SLICES + 1];
    assert_fails(session.put(1, place, &many), TMEM_E_REFUSED, "slices");
    argument(unsafe { tmem_reap(queue, null_mut(), 1) }, "into is NULL");
    argument(unsafe { tmem_is_filled(null(), 0) }, "completion is NULL");
    argument(unsafe { tmem_bell(null()) }, "queue is NULL");
    assert_eq!(unsafe { tmem_region_bytes(null()) }, 0);
    assert!(unsafe { tmem_region_memory(null()) }.is_null());
    unsafe { tmem_close(null_mut()) };
    unsafe { tmem_unregister(null_mut()) };
    assert_done(unsafe { tmem_close_queue(client, null_mut()) });
    assert_eq!(unsafe { tmem_outstanding(queue) }, 0, "nothing was added");
    assert_eq!(tmem_client_version(), TMEM_CLIENT_VERSION);
}

#[test]
fn who_waits_when_the_daemon_ends_is_told() {
    let world = World::new();
    let mut session = Session::new(&world, 0);
    assert_done(session.put(1, session.place(1, 0), &[slice(0, 4096)]));
    drop(world);
    let code = unsafe { tmem_wait(session.queue, 1, MINUTE_NS) };
    assert!([TMEM_E_CLOSED, TMEM_E_GONE].contains(&code), "{code}: {}", last_error());
    let mut pool = 0;
    assert_fails(unsafe { tmem_create_pool(session.client, 0, &raw mut pool) }, TMEM_E_GONE, "gone");
}
