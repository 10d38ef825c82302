//! Faults and events of memory of this process and of its children.

#![allow(clippy::unwrap_used, reason = "a test ends there")]

mod support;

use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::Duration;
use support::{
    Area, PAGE, advise, alone, events, fork, load, own_thread, remap, store, unmap, wait_for, write_protect,
};
use tmem_sys::{Errno, Event, Features, PAGE_BYTES, Partial, Present, Userfaultfd, Wake, read_memory};

const ALL_EVENTS: [Features; 4] =
    [Features::EVENT_FORK, Features::EVENT_REMAP, Features::EVENT_REMOVE, Features::EVENT_UNMAP];

/// One that is enabled with all that a pager wants; `None` if this process may not have it.
fn enabled() -> Option<Userfaultfd> {
    let wanted = ALL_EVENTS.into_iter().fold(Features::THREAD_ID, |all, one| all | one);
    let made = Userfaultfd::new().and_then(|uffd| uffd.enable(wanted).map(|_| uffd));
    match made {
        Ok(uffd) => Some(uffd),
        Err(errno) => {
            println!("skipped: no userfaultfd with fork events ({errno}): root, or CAP_SYS_PTRACE and Linux 6.8");
            None
        }
    }
}

/// An area registered with one. The descriptor has to be dropped first, as it is if its variable is the later: to
/// unmap what is registered is an event, and waits for a reader.
fn registered(pages: usize) -> Option<(Area, Userfaultfd)> {
    let uffd = enabled()?;
    let area = Area::pages(pages);
    uffd.register(area.range()).unwrap();
    Some((area, uffd))
}

fn page_of(byte: u8) -> [u8; PAGE_BYTES] {
    [byte; PAGE_BYTES]
}

#[test]
fn a_fault_tells_page_kind_and_thread_and_is_served() {
    let _alone = alone();
    let Some((area, uffd)) = registered(4) else { return };
    let (page, next) = (area.page(1), area.page(2));
    let reader = thread::spawn(move || (own_thread(), load(page + 77)));
    let [Event::Fault { address, write: false, thread }] = events(&uffd)[..] else { panic!("not one read fault") };
    assert_eq!(address, page);
    uffd.copy(page, &page_of(7), Wake::Yes).unwrap();
    assert_eq!(reader.join().unwrap(), (thread, 7));

    let writer = thread::spawn(move || store(next, 1));
    let [Event::Fault { address, write: true, .. }] = events(&uffd)[..] else { panic!("not one write fault") };
    uffd.zero(address..address + PAGE, Wake::Yes).unwrap();
    writer.join().unwrap();
    assert_eq!((load(next), load(next + 1)), (1, 0));
}

#[test]
fn who_is_not_awakened_sleeps_until_wake() {
    let _alone = alone();
    let Some((area, uffd)) = registered(2) else { return };
    let page = area.page(0);
    let (done, is_done) = mpsc::channel();
    let reader = thread::spawn(move || done.send(load(page)).unwrap());
    assert_eq!(events(&uffd).len(), 1);
    uffd.copy(page, &[7; 2 * PAGE_BYTES], Wake::No).unwrap();
    assert!(is_done.recv_timeout(Duration::from_millis(50)).is_err());
    uffd.wake(area.range()).unwrap();
    assert_eq!(is_done.recv_timeout(Duration::from_secs(10)), Ok(7));
    reader.join().unwrap();
}

#[test]
fn who_waits_for_a_poisoned_page_is_told() {
    let _alone = alone();
    let Some((area, uffd)) = registered(2) else { return };
    let page = area.page(1);
    let reader = thread::spawn(move || read_memory(std::process::id(), page, &mut [0; 8]));
    assert_eq!(events(&uffd).len(), 1);
    uffd.poison(area.pages_range(1..2)).unwrap();
    assert_eq!(reader.join().unwrap(), Err(Errno::FAULT));
    uffd.copy(area.page(0), &page_of(7), Wake::Yes).unwrap();
    assert_eq!(uffd.poison(area.pages_range(0..1)), Err(Errno::EXIST));
    assert_eq!(load(area.page(0)), 7);
}

#[test]
fn what_is_present_is_read_and_what_is_missing_is_not_waited_for() {
    let _alone = alone();
    let Some((area, uffd)) = registered(2) else { return };
    uffd.copy(area.page(0), &page_of(7), Wake::Yes).unwrap();
    let (there, missing) = (area.page(0), area.page(1));
    let (told, is_told) = mpsc::channel();
    thread::spawn(move || {
        let present = Present::open(std::process::id()).unwrap();
        for at in [there, missing, there + PAGE - 8] {
            let mut bytes = [0; 16];
            let read = present.read(at, &mut bytes);
            told.send(read.map(|()| bytes).map_err(|error| error.raw_os_error())).unwrap();
        }
    });
    let next = || is_told.recv_timeout(Duration::from_secs(10));
    assert_eq!(next(), Ok(Ok([7; 16])));
    assert_eq!(next(), Ok(Err(Some(libc::EIO))), "missing");
    assert_eq!(next(), Ok(Err(Some(libc::EIO))), "the second half is missing");
}

#[test]
fn no_message_is_no_event_and_no_error() {
    let _alone = alone();
    let Some(uffd) = enabled() else { return };
    let mut events = Vec::new();
    uffd.read_events(&mut events).unwrap();
    assert!(events.is_empty());
}

#[test]
fn a_copy_stops_before_the_page_that_is_there() {
    let _alone = alone();
    let Some((area, uffd)) = registered(4) else { return };
    uffd.copy(area.page(2), &page_of(9), Wake::Yes).unwrap();
    let four = [5; 4 * PAGE_BYTES];
    let stopped = Partial { done_bytes: 2 * PAGE_BYTES, errno: Errno::EXIST };
    assert_eq!(uffd.copy(area.page(0), &four, Wake::Yes), Err(stopped));
    let nothing = Partial { done_bytes: 0, errno: Errno::EXIST };
    assert_eq!(uffd.copy(area.page(2), &page_of(5), Wake::Yes), Err(nothing));
    assert_eq!(uffd.zero(area.pages_range(1..3), Wake::Yes), Err(nothing));
    assert_eq!([load(area.page(0)), load(area.page(1)), load(area.page(2))], [5, 5, 9]);
    uffd.zero(area.pages_range(3..4), Wake::Yes).unwrap();
    assert_eq!(load(area.page(3)), 0);
}

#[test]
fn a_copy_over_the_end_of_a_mapping_does_nothing() {
    let _alone = alone();
    let Some((area, uffd)) = registered(4) else { return };
    write_protect(area.pages_range(2..4));
    let nothing = Partial { done_bytes: 0, errno: Errno::NOENT };
    assert_eq!(uffd.copy(area.page(1), &[5; 2 * PAGE_BYTES], Wake::Yes), Err(nothing));
    uffd.copy(area.page(1), &page_of(5), Wake::Yes).unwrap();
    uffd.copy(area.page(2), &page_of(6), Wake::Yes).unwrap();
    assert_eq!([load(area.page(1)), load(area.page(2))], [5, 6]);
}

#[test]
fn a_range_is_of_one_descriptor() {
    let _alone = alone();
    let Some((area, uffd)) = registered(2) else { return };
    let other = enabled().unwrap();
    assert_eq!(other.register(area.range()), Err(Errno::BUSY));
    uffd.unregister(area.range()).unwrap();
    other.register(area.range()).unwrap();
    other.unregister(area.range()).unwrap();
    assert_eq!(load(area.page(1)), 0);
}

#[test]
fn a_descriptor_is_enabled_once() {
    let _alone = alone();
    let Some(uffd) = enabled() else { return };
    assert_eq!(uffd.enable(Features::EVENT_FORK), Err(Errno::INVAL));
    assert_eq!(Userfaultfd::new().unwrap().read_events(&mut Vec::new()), Err(Errno::INVAL));
    assert!(Features::offered().unwrap().contain(Features::MOVE | Features::EVENT_FORK));
}

/// Also of a mapping that came to its place by `mremap`, which takes its registration along.
#[test]
fn what_is_registered_is_told_and_stays_as_it_is() {
    let _alone = alone();
    let target = Area::pages(4);
    let Some((area, uffd)) = registered(4) else { return };
    uffd.copy(area.page(1), &page_of(3), Wake::Yes).unwrap();
    assert!((0..4).all(|page| uffd.is_registered(area.page(page))), "missing, and there");
    assert!((0..4).all(|page| !uffd.is_registered(target.page(page))));
    uffd.copy(area.page(0), &page_of(4), Wake::Yes).unwrap(); // it is still missing
    assert_eq!((load(area.page(0)), load(area.page(1))), (4, 3));

    let (from, to) = (area.pages_range(0..2), target.page(0));
    let moves = thread::spawn(move || remap(from, to));
    assert!(matches!(events(&uffd)[..], [Event::Remap { .. }]));
    assert!(!uffd.is_registered(target.page(0)), "nobody knows while it changes");
    assert!(matches!(events(&uffd)[..], [Event::Unmap(_)]));
    moves.join().unwrap();
    let where_it_is = [area.page(0), area.page(2), target.page(0), target.page(2)];
    assert_eq!(where_it_is.map(|page| uffd.is_registered(page)), [false, true, true, false]);
    let unmaps = thread::spawn(move || unmap(to..to + 2 * PAGE));
    assert!(matches!(events(&uffd)[..], [Event::Unmap(_)]));
    unmaps.join().unwrap();
    assert!(!uffd.is_registered(to));
}

#[test]
fn discarded_moved_and_unmapped_ranges_are_told() {
    let _alone = alone();
    let target = Area::pages(2);
    let Some((area, uffd)) = registered(8) else { return };

    let (some, place) = (area.pages_range(0..2), target.page(0));
    uffd.copy(some.start, &[3; 2 * PAGE_BYTES], Wake::Yes).unwrap();
    let range = some.clone();
    let discards = thread::spawn(move || assert!(advise(range, libc::MADV_DONTNEED)));
    let [Event::Remove(ref range)] = events(&uffd)[..] else { panic!("not one remove") };
    assert_eq!(*range, some);
    discards.join().unwrap();

    uffd.copy(some.start, &page_of(4), Wake::Yes).unwrap();
    let range = some.clone();
    let moves = thread::spawn(move || remap(range, place));
    let [Event::Remap { from, to, bytes }] = events(&uffd)[..1] else { panic!("not a remap") };
    assert_eq!((from, to, bytes), (some.start, place, 2 * PAGE));
    let [Event::Unmap(ref range)] = events(&uffd)[..] else { panic!("not one unmap") };
    assert_eq!(*range, some);
    moves.join().unwrap();
    assert_eq!(load(place), 4);
    uffd.copy(place + PAGE, &page_of(6), Wake::Yes).unwrap(); // the new place is registered
    assert_eq!(load(place + PAGE), 6);

    let range = area.pages_range(4..6);
    let unmaps = thread::spawn(move || unmap(range));
    let [Event::Unmap(ref range)] = events(&uffd)[..] else { panic!("not one unmap") };
    assert_eq!(*range, area.pages_range(4..6));
    unmaps.join().unwrap();
    let gone = Partial { done_bytes: 0, errno: Errno::NOENT };
    assert_eq!(uffd.copy(area.page(4), &page_of(1), Wake::Yes), Err(gone));
}

#[test]
fn nothing_is_copied_while_an_event_waits() {
    let _alone = alone();
    let Some((area, uffd)) = registered(4) else { return };
    let range = area.pages_range(0..1);
    let discards = thread::spawn(move || assert!(advise(range, libc::MADV_DONTNEED)));
    let mut fds = [rustix::event::PollFd::new(&uffd, rustix::event::PollFlags::IN)];
    assert_eq!(rustix::event::poll(&mut fds, None), Ok(1));
    let again = Partial { done_bytes: 0, errno: Errno::AGAIN };
    assert_eq!(uffd.copy(area.page(1), &page_of(1), Wake::Yes), Err(again));
    assert_eq!(events(&uffd).len(), 1);
    discards.join().unwrap();
    uffd.copy(area.page(1), &page_of(1), Wake::Yes).unwrap();
}

#[test]
fn a_child_made_by_fork_has_a_descriptor_and_faults_of_its_own() {
    let _alone = alone();
    let Some((area, uffd)) = registered(2) else { return };
    let (there, missing) = (area.page(0), area.page(1));
    uffd.copy(there, &page_of(30), Wake::Yes).unwrap();
    let ready = Arc::new(Barrier::new(2));
    let is_ready = Arc::clone(&ready);
    let server = thread::spawn(move || {
        is_ready.wait();
        let [Event::Fork(child)] = &events(&uffd)[..] else { panic!("not one fork") };
        let [Event::Fault { address, .. }] = events(child)[..] else { panic!("not one fault of the child") };
        child.copy(address, &page_of(4), Wake::Yes).unwrap();
        (uffd, address)
    });
    ready.wait();
    let child = fork(|| load(there) + load(missing));
    assert_eq!(wait_for(child), 34);
    let (uffd, address) = server.join().unwrap();
    assert_eq!(address, missing);
    uffd.copy(missing, &page_of(5), Wake::Yes).unwrap(); // ours is missing still
    assert_eq!(load(missing), 5);
}

#[test]
fn a_dead_childs_memory_is_gone() {
    let _alone = alone();
    let Some((area, uffd)) = registered(1) else { return };
    let ready = Arc::new(Barrier::new(2));
    let is_ready = Arc::clone(&ready);
    let server = thread::spawn(move || {
        is_ready.wait();
        events(&uffd).pop().map(|event| (event, uffd)).unwrap()
    });
    ready.wait();
    let child = fork(|| 0);
    assert_eq!(wait_for(child), 0);
    let (Event::Fork(child), _uffd) = server.join().unwrap() else { panic!("not a fork") };
    let gone = Partial { done_bytes: 0, errno: Errno::SRCH };
    assert_eq!(child.copy(area.page(0), &page_of(1), Wake::Yes), Err(gone));
    assert_eq!(child.register(area.range()), Err(Errno::NOMEM));
}
