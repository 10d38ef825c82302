//! Queues.

use crate::client::tmem_client;
use crate::completion::tmem_completion;
use crate::error::{Failure, guarded};
use crate::pointer::{borrow, borrow_many, borrow_mut, check_room, put, take_back};
use crate::region::tmem_region;
use core::ffi::c_int;
use core::time::Duration;
use std::os::fd::AsRawFd;
use tmem_ring::{Action, MOST_SLICES, Map, Memory, ObjectId, Operation, Outcome, PoolId, Queue, QueueError, Slice};

/// A queue. One thread at a time uses it.
#[derive(Debug)]
pub struct tmem_queue {
    queue: Queue,
    /// Of the completions that were reaped last: a program has pointers to them.
    maps: Vec<Map>,
    /// What went wrong behind completions that were given out.
    failed: Option<QueueError>,
}

/// The most slices that an operation can have.
pub const TMEM_MOST_SLICES: usize = 63;
const _: () = assert!(TMEM_MOST_SLICES == MOST_SLICES);

/// The most entries that a queue can have.
pub const TMEM_MOST_ENTRIES: u32 = 32768;
const _: () = assert!(TMEM_MOST_ENTRIES as u64 == tmem_ring::MOST_ENTRIES);

/// A part of a region.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct tmem_slice {
    /// First byte in the region.
    pub offset: u64,
    /// How many bytes; not 0.
    pub bytes: u64,
}

/// Where the data of an operation is in the store.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct tmem_place {
    /// A pool that the client created or joined.
    pub pool: u32,
    /// 0.
    pub reserved: u32,
    /// An object in it: 192 bits of the program's.
    pub object: [u64; 3],
    /// Bytes from the object's start: a multiple of 4096, but for gets.
    pub offset: u64,
}

/// Opens a queue of `entries`: a power of two, at most TMEM_MOST_ENTRIES. So many operations can be outstanding.
///
/// # Safety
/// `client` is NULL, or from tmem_connect() or tmem_attach(), and not closed. `queue` is NULL, or has room for a
/// pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tmem_open_queue(client: *const tmem_client, entries: u32, queue: *mut *mut tmem_queue) -> i32 {
    guarded(|| {
        check_room(queue, "queue")?;
        // SAFETY: this function's contract.
        let opened = unsafe { borrow(client, "client") }?.client.open_queue(entries)?;
        let opened = tmem_queue { queue: opened, maps: Vec::new(), failed: None };
        // SAFETY: the same.
        unsafe { put(queue, Box::into_raw(Box::new(opened)), "queue") }?;
        Ok(0)
    })
}

/// Closes and frees a queue, whatever it returns. With the client that opened it: when this returns nothing of the
/// queue is in flight, and its memory may be used. With NULL for the client the queue ends by and by.
///
/// # Safety
/// `client` is NULL, or the one that opened the queue, and not closed. `queue` is NULL, or from tmem_open_queue(),
/// not closed, and in use by no other thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tmem_close_queue(client: *const tmem_client, queue: *mut tmem_queue) -> i32 {
    guarded(|| {
        // SAFETY: this function's contract.
        let Some(queue) = (unsafe { take_back(queue) }) else { return Ok(0) };
        if !client.is_null() {
            // SAFETY: the same.
            unsafe { borrow(client, "client") }?.client.close_queue(queue.queue)?;
        }
        Ok(0)
    })
}

/// Adds to the queue: store the slices of the region, one behind the other, at `place`. The daemon sees it from the
/// next tmem_submit() or tmem_wait() on; from then until its completion was reaped the memory is lent. `tag` comes
/// back in the completion.
///
/// # Safety
/// `queue` is NULL, or from tmem_open_queue(), not closed, and in use by no other thread. `place` is NULL or points
/// to one; `region` is NULL, or from tmem_create_region() or tmem_register() with the queue's client, and not
/// unregistered; at `slices` there are `count`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tmem_put(
    queue: *mut tmem_queue,
    tag: u64,
    place: *const tmem_place,
    region: *const tmem_region,
    slices: *const tmem_slice,
    count: usize,
) -> i32 {
    // SAFETY: this function's contract.
    unsafe { push_memory(queue, tag, place, (region, slices, count), |offset, from| Action::Put { offset, from }) }
}

/// The same: fill the slices of the region with what is at `place`.
///
/// # Safety
/// As tmem_put().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tmem_get(
    queue: *mut tmem_queue,
    tag: u64,
    place: *const tmem_place,
    region: *const tmem_region,
    slices: *const tmem_slice,
    count: usize,
) -> i32 {
    // SAFETY: this function's contract.
    unsafe { push_memory(queue, tag, place, (region, slices, count), |offset, into| Action::Get { offset, into }) }
}

/// The same: fill the slices of the region with what is at `place`, and flush what was got.
///
/// # Safety
/// As tmem_put().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tmem_take(
    queue: *mut tmem_queue,
    tag: u64,
    place: *const tmem_place,
    region: *const tmem_region,
    slices: *const tmem_slice,
    count: usize,
) -> i32 {
    // SAFETY: this function's contract.
    unsafe { push_memory(queue, tag, place, (region, slices, count), |offset, into| Action::Take { offset, into }) }
}

/// The same: make `bytes` at `place` missing.
///
/// # Safety
/// `queue` is NULL, or from tmem_open_queue(), not closed, and in use by no other thread. `place` is NULL or points
/// to one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tmem_flush(queue: *mut tmem_queue, tag: u64, place: *const tmem_place, bytes: u64) -> i32 {
    // SAFETY: this function's contract.
    guarded(|| unsafe { push(queue, tag, place, |offset| Action::Flush { offset, len: bytes }) })
}

/// The same: make all of the object at `place` missing, whatever the offset.
///
/// # Safety
/// As tmem_flush().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tmem_flush_object(queue: *mut tmem_queue, tag: u64, place: *const tmem_place) -> i32 {
    // SAFETY: this function's contract.
    guarded(|| unsafe { push(queue, tag, place, |_| Action::FlushObject) })
}

/// What is pushed with memory: all of the three above but which action it is.
///
/// # Safety
/// As `tmem_put`.
unsafe fn push_memory(
    queue: *mut tmem_queue,
    tag: u64,
    place: *const tmem_place,
    (region, slices, count): (*const tmem_region, *const tmem_slice, usize),
    action: impl FnOnce(u64, Memory<'_>) -> Action<'_>,
) -> i32 {
    guarded(|| {
        if count == 0 || count > TMEM_MOST_SLICES {
            return Err(Failure::refused(format!("{count} slices: an operation has 1 to {TMEM_MOST_SLICES}")));
        }
        // SAFETY: this function's contract.
        let given = unsafe { borrow_many(slices, count, "slices") }?;
        // SAFETY: the same.
        let region = &unsafe { borrow(region, "region") }?.region;
        let mut room = [Slice { offset: 0, len: 0 }; TMEM_MOST_SLICES];
        for (slice, given) in room.iter_mut().zip(given) {
            *slice = Slice { offset: given.offset, len: given.bytes };
        }
        let memory = region.memory(&room[..count]);
        // SAFETY: the same.
        unsafe { push(queue, tag, place, |offset| action(offset, memory)) }
    })
}

/// # Safety
/// As `tmem_flush`.
unsafe fn push<'s>(
    queue: *mut tmem_queue,
    tag: u64,
    place: *const tmem_place,
    action: impl FnOnce(u64) -> Action<'s>,
) -> Result<i32, Failure> {
    // SAFETY: this function's contract.
    let place = unsafe { borrow(place, "place") }?;
    if place.reserved != 0 {
        return Err(Failure::argument("`reserved` of a place is 0"));
    }
    // SAFETY: the same.
    let queue = &mut unsafe { borrow_mut(queue, "queue") }?.queue;
    let action = action(place.offset);
    queue.push(&Operation { tag, pool: PoolId(place.pool), object: ObjectId(place.object), action })?;
    Ok(0)
}

/// Hands over what was added: with one doorbell if the daemon sleeps, with none if it is awake.
///
/// # Safety
/// `queue` is NULL, or from tmem_open_queue(), not closed, and in use by no other thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tmem_submit(queue: *mut tmem_queue) -> i32 {
    guarded(|| {
        // SAFETY: this function's contract.
        unsafe { borrow_mut(queue, "queue") }?.queue.submit();
        Ok(0)
    })
}

/// Submits, and waits until `least` completions (at most what is outstanding) can be reaped, or for `timeout_ns`
/// nanoseconds; below 0: without end. Returns how many can be reaped, which is fewer if the time is over.
///
/// # Safety
/// `queue` is NULL, or from tmem_open_queue(), not closed, and in use by no other thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tmem_wait(queue: *mut tmem_queue, least: usize, timeout_ns: i64) -> i32 {
    guarded(|| {
        // SAFETY: this function's contract.
        let queue = &mut unsafe { borrow_mut(queue, "queue") }?.queue;
        let timeout = u64::try_from(timeout_ns).ok().map(Duration::from_nanos);
        count(queue.wait(least, timeout)?)
    })
}

/// Writes the completions that are there, at most `room`, and returns how many. The maps of those that were reaped
/// before are gone.
///
/// # Safety
/// `queue` is NULL, or from tmem_open_queue(), not closed, and in use by no other thread. At `into` there is room for
/// `room` of them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tmem_reap(queue: *mut tmem_queue, into: *mut tmem_completion, room: usize) -> i32 {
    guarded(|| {
        if room > 0 {
            check_room(into, "into")?;
        }
        // SAFETY: this function's contract.
        let queue = unsafe { borrow_mut(queue, "queue") }?;
        queue.maps.clear();
        let mut reaped = 0;
        while reaped < room {
            let Some(completion) = queue.reap_one(reaped)? else { break };
            // SAFETY: the same; there is room for `room`.
            unsafe { put(into.wrapping_add(reaped), completion, "into") }?;
            reaped += 1;
        }
        count(reaped)
    })
}

impl tmem_queue {
    /// The next completion. What goes wrong when there were some already is told the next time.
    fn reap_one(&mut self, reaped: usize) -> Result<Option<tmem_completion>, QueueError> {
        if reaped == 0
            && let Some(failed) = self.failed.take()
        {
            return Err(failed);
        }
        let completion = match self.queue.reap_one() {
            Ok(completion) => completion,
            Err(error) if reaped > 0 => {
                self.failed = Some(error);
                None
            }
            Err(error) => return Err(error),
        };
        let Some(completion) = completion else { return Ok(None) };
        if let Outcome::PartlyFilled(map) = &completion.outcome {
            // Moving a map does not move its words.
            self.maps.push(map.clone());
            return Ok(Some(tmem_completion::of(&completion, self.maps.last())));
        }
        Ok(Some(tmem_completion::of(&completion, None)))
    }
}

/// Cancels the operations with this tag that the daemon has not started, and returns how many there were. Each still
/// has its completion.
///
/// # Safety
/// `queue` is NULL, or from tmem_open_queue(), not closed, and in use by no other thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tmem_cancel(queue: *mut tmem_queue, tag: u64) -> i32 {
    guarded(|| {
        // SAFETY: this function's contract.
        count(unsafe { borrow_mut(queue, "queue") }?.queue.cancel(tag))
    })
}

/// Operations that were added and not reaped.
///
/// # Safety
/// `queue` is NULL, or from tmem_open_queue(), and not closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tmem_outstanding(queue: *const tmem_queue) -> i32 {
    guarded(|| {
        // SAFETY: this function's contract.
        count(unsafe { borrow(queue, "queue") }?.queue.outstanding())
    })
}

/// For an event loop: the queue's descriptor, which is the queue's. It is readable when the completion is there that
/// tmem_ask_for_bell() asked for, and when the daemon is gone; maybe too early. Nothing is to be read from it.
///
/// # Safety
/// `queue` is NULL, or from tmem_open_queue(), and not closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tmem_bell(queue: *const tmem_queue) -> c_int {
    guarded(|| {
        // SAFETY: this function's contract.
        Ok(unsafe { borrow(queue, "queue") }?.queue.bell().as_raw_fd())
    })
}

/// Asks for the bell when the next completion is there, and returns 1. Returns 0, and asks for nothing, if one is
/// there already or none will come: reap, and wait if nothing was reaped, which tells why.
///
/// # Safety
/// `queue` is NULL, or from tmem_open_queue(), not closed, and in use by no other thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tmem_ask_for_bell(queue: *mut tmem_queue) -> i32 {
    guarded(|| {
        // SAFETY: this function's contract.
        Ok(i32::from(unsafe { borrow_mut(queue, "queue") }?.queue.ask_for_bell()))
    })
}

fn count(number: usize) -> Result<i32, Failure> {
    i32::try_from(number).map_err(|_| Failure::nonsense("more than a queue has entries"))
}
