//! What is seen of a process: its pages, its mappings, its threads.

#![allow(clippy::unwrap_used, reason = "a test ends there")]

mod support;

use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};
use support::{Area, PAGE, advise, alone, fork, load, own_thread, store, wait_for};
use tmem_sys::{
    CpuOf, Errno, HUGE_PAGE_BYTES, Mapping, MappingKind, MappingsOf, Memfd, PAGE_BYTES, PageRun, Pagemap, Pages, Pidfd,
    READ_PAGES, Reservation, ResidencyOf, Signal, Turn, mappings, own_cpus, proportional_anonymous, read_memory,
    read_pages, robust_list_head, run_on, same_memory, take_turns, threads,
};

fn own() -> u32 {
    std::process::id()
}

/// A child that sleeps, and is killed when the test is over.
struct Sleeper(Child);

impl Sleeper {
    fn new() -> Self {
        Self(Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A thread that sleeps until this is dropped, and its number.
struct Thread(u32, Option<mpsc::Sender<()>>, Option<thread::JoinHandle<()>>);

impl Thread {
    fn new() -> Self {
        let (number, numbers) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        let handle = thread::spawn(move || {
            number.send(own_thread()).unwrap();
            let _ = ended.recv();
        });
        Self(numbers.recv().unwrap(), Some(end), Some(handle))
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.1.take();
        self.2.take().map(thread::JoinHandle::join);
    }
}

#[test]
fn present_pages_are_those_that_were_written() {
    let _alone = alone();
    let area = Area::pages(16);
    advise(area.range(), libc::MADV_NOHUGEPAGE);
    (0..4).chain(8..10).for_each(|page| store(area.page(page), 1));
    assert_eq!(load(area.page(12)), 0); // the zero page
    let pagemap = Pagemap::open(own()).unwrap();
    let run = |pages| PageRun { range: area.pages_range(pages), huge: false };

    let mut found = Vec::new();
    assert_eq!(pagemap.present(area.range(), u64::MAX, &mut found), Ok(area.page(16)));
    assert_eq!(found, [run(0..4), run(8..10)]);

    found.clear();
    let end = pagemap.present(area.range(), 3, &mut found).unwrap();
    assert_eq!((&found[..], end), (&[run(0..3)][..], area.page(3)));
    pagemap.present(end..area.page(16), 3, &mut found).unwrap();
    assert_eq!(found, [run(0..4), run(8..10)]);
    assert_eq!(pagemap.present(area.range(), 0, &mut found), Ok(area.page(0)));
    assert_eq!(pagemap.present(area.page(0) + 1..area.page(1), 9, &mut found), Err(Errno::INVAL));
}

#[test]
fn runs_are_not_lost_where_one_call_cannot_hold_them() {
    let _alone = alone();
    let area = Area::pages(2000);
    advise(area.range(), libc::MADV_NOHUGEPAGE);
    (0..1000).for_each(|page| store(area.page(2 * page), 1));
    let mut found = Vec::new();
    let end = Pagemap::open(own()).unwrap().present(area.range(), u64::MAX, &mut found).unwrap();
    assert_eq!((found.len(), end), (1000, area.page(2000)));
    assert!(found.iter().zip((0..).step_by(2)).all(|(run, page)| run.range == area.pages_range(page..page + 1)));
}

#[test]
fn huge_pages_are_told_and_files_pages_and_huge_zero_pages_are_not() {
    let _alone = alone();
    let huge = HUGE_PAGE_BYTES as u64;
    let area = Area::aligned(2 * HUGE_PAGE_BYTES, HUGE_PAGE_BYTES);
    let (first, second) = (area.page(0)..area.page(0) + huge, area.page(0) + huge..area.range().end);
    store(first.start, 1);
    let pagemap = Pagemap::open(own()).unwrap();
    let mut found = Vec::new();
    if !advise(first.clone(), libc::MADV_COLLAPSE) || !advise(second.clone(), libc::MADV_HUGEPAGE) {
        println!("skipped: no huge page to be had");
        return;
    }
    assert_eq!(load(second.start), 0);
    pagemap.present(area.range(), u64::MAX, &mut found).unwrap();
    assert_eq!(found, [PageRun { range: first, huge: true }]);

    let reservation = Reservation::new(HUGE_PAGE_BYTES).unwrap();
    let memfd = Memfd::sealed("test", HUGE_PAGE_BYTES).unwrap();
    reservation.commit_shared(0..HUGE_PAGE_BYTES, &memfd, Pages::Small).unwrap();
    reservation.populate(0..HUGE_PAGE_BYTES).unwrap();
    let base = reservation.base().as_ptr().addr() as u64;
    found.clear();
    assert_eq!(pagemap.present(base..base + huge, u64::MAX, &mut found), Ok(base + huge));
    assert_eq!(found, []);
}

#[test]
fn mappings_are_told_in_order_with_what_is_behind_them() {
    let _alone = alone();
    let area = Area::pages(3);
    let reservation = Reservation::new(2 * HUGE_PAGE_BYTES).unwrap();
    let parts = [("tmem-test", 0), ("other", HUGE_PAGE_BYTES)].map(|(name, at)| {
        let memfd = Memfd::sealed(name, HUGE_PAGE_BYTES).unwrap();
        reservation.commit_shared(at..at + HUGE_PAGE_BYTES, &memfd, Pages::Small).unwrap();
        reservation.base().as_ptr().addr() as u64 + at as u64
    });
    let mut all = Vec::new();
    mappings(own(), &mut all).unwrap();
    let mut of = MappingsOf::open(own()).unwrap();
    assert!(all.iter().zip(&all[1..]).all(|(one, next)| one.range.end <= next.range.start));

    let mut at = |address: u64| {
        let listed: Option<Mapping> = all.iter().find(|mapping| mapping.range.contains(&address)).cloned();
        assert_eq!(of.at(address).unwrap(), listed);
        listed
    };
    let anonymous = at(area.page(1)).unwrap();
    assert_eq!((anonymous.range, anonymous.kind), (area.range(), MappingKind::Anonymous));
    assert!(anonymous.read && anonymous.write && !anonymous.exec && !anonymous.shared);
    assert_eq!(at(parts[0]).unwrap().kind, MappingKind::Ours);
    let shmem = at(parts[1] + PAGE).unwrap();
    assert!(shmem.kind == MappingKind::Shmem && shmem.shared);
    let text = at(own as *const () as usize as u64).unwrap();
    assert!(text.kind == MappingKind::File && text.exec && !text.write);
    assert_eq!(at(0x10), None);
    assert!([MappingKind::Stack, MappingKind::Special].iter().all(|kind| all.iter().any(|one| one.kind == *kind)));
}

#[test]
fn residency_grows_by_what_is_touched() {
    let _alone = alone();
    let of = ResidencyOf::open(own()).unwrap();
    let area = Area::pages(2048);
    advise(area.range(), libc::MADV_NOHUGEPAGE);
    let before = (of.read().unwrap(), of.sizes().unwrap(), proportional_anonymous(own()).unwrap());
    (0..2048).for_each(|page| store(area.page(page), 1));
    let after = (of.read().unwrap(), of.sizes().unwrap(), proportional_anonymous(own()).unwrap());
    let slack = 64 * 2 * PAGE; // counters of kernels before 6.17
    for grown in [after.0.anonymous - before.0.anonymous, after.1.anonymous - before.1.anonymous, after.2 - before.2] {
        assert!(grown.abs_diff(8 << 20) <= slack, "{grown}");
    }
    assert!(after.0.file > 0 && after.0.total() > 8 << 20);
    assert!(ResidencyOf::open(u32::MAX).is_err());
}

#[test]
fn residency_of_the_dead_is_an_error_or_nothing() {
    let _alone = alone();
    let mut child = Sleeper::new();
    let of = ResidencyOf::open(child.0.id()).unwrap();
    let pidfd = Pidfd::open(child.0.id()).unwrap();
    assert!(of.sizes().is_ok() && of.read().is_ok());
    child.0.kill().unwrap();
    while pidfd.has_exited() == Ok(false) {
        thread::yield_now();
    }
    assert_eq!(of.sizes().unwrap().anonymous, 0); // its parent has not been told
    assert_eq!(of.read().unwrap_err().kind(), std::io::ErrorKind::InvalidData);
    child.0.wait().unwrap();
    assert!(of.sizes().is_err() && of.read().is_err());
}

#[test]
fn a_pidfd_tells_when_its_process_has_exited() {
    let _alone = alone();
    let child = Sleeper::new();
    let pidfd = Pidfd::open(child.0.id()).unwrap();
    assert_eq!(pidfd.has_exited(), Ok(false));
    pidfd.kill(Signal::TERM).unwrap();
    let mut fds = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
    let seconds = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
    assert_eq!(rustix::event::poll(&mut fds, Some(&seconds)), Ok(1));
    assert_eq!(pidfd.has_exited(), Ok(true));
    drop(child);
    assert_eq!(pidfd.kill(Signal::TERM), Err(Errno::SRCH));
    assert_eq!(Pidfd::open(u32::MAX).err(), Some(Errno::SRCH));
}

#[test]
fn threads_share_memory_and_children_do_not() {
    let _alone = alone();
    let (thread, child) = (Thread::new(), Sleeper::new());
    assert_eq!(same_memory(own(), thread.0), Ok(true));
    assert_eq!(same_memory(own(), child.0.id()), Ok(false));
    let dead = fork(|| 0);
    wait_for(dead);
    assert_eq!(same_memory(own(), dead.unsigned_abs()), Err(Errno::SRCH));
}

#[test]
fn memory_of_a_child_is_read_until_it_ends() {
    let _alone = alone();
    let area = Area::pages(4);
    (0..4).for_each(|page| store(area.page(page), 1));
    let child = fork(|| {
        (0..4).for_each(|page| store(area.page(page), 10 + u8::try_from(page).unwrap_or(0)));
        // SAFETY: sleeps until the parent has read and kills.
        unsafe { libc::pause() };
        0
    });
    let pid = child.unsigned_abs();
    let mut two = [0; 2 * PAGE_BYTES];
    let deadline = Instant::now() + Duration::from_secs(10);
    while two[0] != 13 && Instant::now() < deadline {
        read_memory(pid, area.page(3), &mut two[..1]).unwrap();
    }
    assert_eq!(read_pages(pid, &[area.page(3), area.page(1)], &mut two), Ok(2 * PAGE_BYTES));
    assert_eq!((two[0], two[PAGE_BYTES]), (13, 11));
    assert_eq!(read_memory(pid, area.page(3), &mut two), Ok(PAGE_BYTES));
    assert_eq!(read_pages(pid, &[area.page(0), area.page(4)], &mut two), Ok(PAGE_BYTES));
    assert_eq!(read_memory(pid, area.page(4), &mut two), Err(Errno::FAULT));
    assert_eq!(read_pages(pid, &[area.page(0)], &mut two), Err(Errno::INVAL));
    assert_eq!(read_pages(pid, &[0; READ_PAGES + 1], &mut two), Err(Errno::INVAL));
    Pidfd::open(pid).unwrap().kill(Signal::KILL).unwrap();
    // SAFETY: the status is not asked for.
    assert_eq!(unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) }, child);
    assert_eq!(read_memory(pid, area.page(3), &mut two), Err(Errno::SRCH));
}

#[test]
fn threads_are_listed_with_where_they_sleep() {
    let _alone = alone();
    let thread = Thread::new();
    let mut all = Vec::new();
    threads(own(), &mut all).unwrap();
    assert!(all.contains(&thread.0) && all.contains(&own()));
    assert_ne!(robust_list_head(thread.0).unwrap(), 0);
    let deadline = Instant::now() + Duration::from_secs(10);
    let gone = thread.0;
    drop(thread);
    while robust_list_head(gone) != Err(Errno::SRCH) {
        assert!(Instant::now() < deadline, "a joined thread does not go");
    }
}

#[test]
fn a_thread_runs_where_it_was_told() {
    let _alone = alone();
    let cpus = own_cpus().unwrap();
    assert!(!cpus.is_empty());
    let own_cpu = CpuOf::open(own_thread()).unwrap();
    for cpu in &cpus {
        run_on(0, &[*cpu]).unwrap();
        assert_eq!((own_cpu.read().unwrap(), own_cpus().unwrap()), (*cpu, vec![*cpu]));
    }
    assert_eq!(run_on(0, &[1023]), Err(Errno::INVAL));
    assert_eq!(run_on(0, &[]), Err(Errno::INVAL));
    run_on(0, &cpus).unwrap();
    assert_eq!(own_cpus().unwrap(), cpus);
    assert!(CpuOf::open(u32::MAX).is_err());
}

#[test]
fn a_thread_takes_turns_as_it_was_told() {
    thread::spawn(|| {
        for (turn, policy) in [(Turn::Patient, libc::SCHED_BATCH), (Turn::Last, libc::SCHED_IDLE)] {
            take_turns(0, turn).unwrap();
            // SAFETY: a question about the calling thread.
            assert_eq!(unsafe { libc::sched_getscheduler(0) }, policy);
        }
        assert_eq!(take_turns(u32::MAX, Turn::Fair), Err(Errno::SRCH));
    })
    .join()
    .unwrap();
}
