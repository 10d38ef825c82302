//! io_uring with registered buffers: the kernel keeps the pages pinned from the registration on, and writes to them
//! by their physical address. A pager that takes such a page away gives the program another one, and what the kernel
//! writes is lost.

use super::calls::scratch;
use crate::options::Options;
use crate::pattern::Digest;
use crate::pressure::Pressure;
use crate::region::Region;
use crate::sys::{self, PAGE, demand};
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;

/// Entries of the submission queue.
const ENTRIES: usize = 8;
/// Words of `io_uring_params`: ten of the set-up, ten of the submission queue's offsets, ten of the completion
/// queue's.
const PARAMETER_WORDS: usize = 30;
/// Pages of each registered buffer.
const BUFFER: usize = 64;
/// Registered buffers.
const BUFFERS: usize = 16;
/// io_uring_register: buffers.
const REGISTER_BUFFERS: usize = 0;
/// io_uring_enter: wait for completions.
const GET_EVENTS: usize = 1;
/// Operations with registered buffers.
const READ_FIXED: u64 = 4;
const WRITE_FIXED: u64 = 5;
/// Where the queues are mapped from.
const OFFSET_SUBMISSIONS: usize = 0;
const OFFSET_ENTRIES: usize = 0x1000_0000;
/// Words of a submission queue entry.
const ENTRY_WORDS: usize = 8;

/// The queues, by address: shared with the kernel, which has both in one mapping.
#[derive(Debug)]
struct Ring {
    fd: usize,
    rings: usize,
    entries: usize,
    parameters: [u32; PARAMETER_WORDS],
}

impl Ring {
    fn new() -> Self {
        let mut parameters = [0_u32; PARAMETER_WORDS];
        let fd = match sys::call(libc::SYS_io_uring_setup, &[ENTRIES, parameters.as_mut_ptr() as usize]) {
            Ok(fd) => fd,
            Err(error) => sys::skip(&format!("io_uring_setup: {error}")),
        };
        let map = |bytes: usize, offset: usize| {
            let flags = (libc::MAP_SHARED | libc::MAP_POPULATE) as usize;
            demand(sys::call(libc::SYS_mmap, &[0, bytes, sys::RW as usize, flags, fd, offset]), "map a ring")
        };
        // The completions' array is the last thing in it: 16 bytes each, twice as many as submissions.
        let bytes = parameters[25] as usize + parameters[1] as usize * 16;
        Self {
            fd,
            rings: map(bytes.max(PAGE), OFFSET_SUBMISSIONS),
            entries: map(ENTRIES * 64, OFFSET_ENTRIES),
            parameters,
        }
    }

    /// Has one operation carried out; its result.
    fn carry_out(&self, operation: u64, file: usize, buffer: usize, at: usize, offset: usize) -> i32 {
        let [head, tail, mask, array] = [10, 11, 12, 16].map(|word| self.rings + self.parameters[word] as usize);
        let [completed_head, completed_tail, completions] =
            [20, 21, 25].map(|word| self.rings + self.parameters[word] as usize);
        let _ = head;
        // SeqCst, all of these: the kernel reads the entry after the tail; nothing here is fast.
        let next = sys::atomic32(tail).load(Ordering::SeqCst);
        let slot = (next & sys::atomic32(mask).load(Ordering::SeqCst)) as usize;
        let entry = self.entries + slot * ENTRY_WORDS * 8;
        let words =
            [operation | (file as u64) << 32, offset as u64, at as u64, (BUFFER * PAGE) as u64, 0, buffer as u64, 0, 0];
        words.iter().enumerate().for_each(|(number, word)| sys::poke(entry + number * 8, *word));
        // SeqCst: as above.
        sys::atomic32(array + slot * 4).store(slot as u32, Ordering::SeqCst);
        sys::atomic32(tail).store(next.wrapping_add(1), Ordering::SeqCst);
        demand(sys::call(libc::SYS_io_uring_enter, &[self.fd, 1, 1, GET_EVENTS, 0, 0]), "io_uring_enter");
        // SeqCst: as above.
        let head = sys::atomic32(completed_head).load(Ordering::SeqCst);
        assert_ne!(head, sys::atomic32(completed_tail).load(Ordering::SeqCst), "no completion");
        let place = completions + (head as usize & (self.parameters[1] as usize - 1)) * 16;
        let result = sys::peek(place + 8) as u32;
        // SeqCst: as above.
        sys::atomic32(completed_head).store(head.wrapping_add(1), Ordering::SeqCst);
        result.cast_signed()
    }
}

/// Buffers registered, put under pressure, written by the program and by the kernel in turn.
pub(crate) fn fixed(options: &Options) -> u64 {
    let mut region = Region::filled(options.mib, options.seed);
    let mut pressure = Pressure::new(options);
    pressure.evict_half(&region);
    let ring = Ring::new();
    let stride = region.pages() / BUFFERS;
    let buffers: Vec<[usize; 2]> = (0..BUFFERS).map(|at| [region.address(at * stride), BUFFER * PAGE]).collect();
    let registered =
        sys::call(libc::SYS_io_uring_register, &[ring.fd, REGISTER_BUFFERS, buffers.as_ptr() as usize, BUFFERS]);
    if let Err(error) = registered {
        sys::skip(&format!("io_uring_register: {error}"));
    }
    let file = scratch("ring");
    let fd = file.as_raw_fd() as usize;
    let transfer = |operation, what: &str| {
        for (number, [at, bytes]) in buffers.iter().enumerate() {
            let result = ring.carry_out(operation, fd, number, *at, number * bytes);
            if result != *bytes as i32 {
                sys::fail(&format!("{what} of buffer {number}: {result}"));
            }
        }
    };
    let mut digest = Digest::new();
    for _ in 0..options.times {
        pressure.evict(&region, 0..region.pages(), region.pages() / 3);
        region.check_each((0..region.pages()).step_by(3));
        transfer(WRITE_FIXED, "write");
        let written = region.clone();
        for buffer in 0..BUFFERS {
            region.fill(buffer * stride..buffer * stride + BUFFER);
        }
        pressure.evict(&region, 0..region.pages(), region.pages() / 3);
        region.check_all();
        transfer(READ_FIXED, "read");
        digest.add(written.check_all());
        pressure.evict(&written, 0..region.pages(), region.pages() / 3);
        digest.add(written.check_all());
        region.fill(region.all());
    }
    digest.add(region.check_all());
    digest.value()
}
