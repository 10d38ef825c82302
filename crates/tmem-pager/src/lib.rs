//! The monitor: page faults of unmodified programs to operations of the store.
//!
//! A program that `tmem run` starts loads the agent ([`agent_image`]), which connects to the monitor and gives it a
//! userfaultfd. From then on:
//!
//! | module | thread | what it does |
//! |---|---|---|
//! | `door` | one | takes programs and agents in, notices their ends |
//! | `watch` | one | measures what is resident and what room is left; registers memory when it gets short |
//! | `evictor` | one | moves pages out, by the agents' hands, and enters what they encoded into the store |
//! | `server` | one on each CPU, for each address space that is registered | applies events, answers faults |
//! | `placement` | one | lets servers run that starve |
//!
//! Under them lie `space` (what is known of one address space), with `events` (how it changes), `page_table`, `staging`,
//! `intervals`; `slots` (evicted pages, and who names them) and `copies` (of pages that came back); `hands` (commands to an
//! agent, and the gate); `whole` (huge pages on their way back); `core` (what all share).
//!
//! A thread of the monitor that panics takes the whole process with it: agents then stop their programs, which never
//! see a wrong byte.
#![forbid(unsafe_code)]

mod control;
mod copies;
mod core;
mod counters;
mod door;
mod events;
mod evictor;
mod full;
mod hands;
mod image;
#[cfg(feature = "fault-injection")]
mod injection;
mod intervals;
mod monitor;
mod options;
mod order;
mod pace;
mod page_table;
mod placement;
mod report;
mod rights;
mod robust;
mod server;
mod slots;
mod space;
mod staging;
mod streams;
mod units;
mod watch;
mod whole;
mod wire;

pub use control::set_limit;
pub use image::agent_image;
pub use monitor::{Monitor, MonitorError};
pub use options::{OnFull, Options, UnknownOnFull};
pub use report::{FaultTimes, LeftAlone, Live, Refused, Report};
pub use rights::{Check, Door, Lack, Rights, Verdict, checks, rights};

use rustix::process::setpriority_process;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

// A poisoned lock is one whose holder panicked, and then the process is about to end.

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a thread that lives as long as the monitor. If it panics, the process ends.
fn spawn(name: &str, body: impl FnOnce() + Send + 'static) {
    let body = move || {
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        if done.is_err() {
            std::process::abort();
        }
    };
    let spawned = std::thread::Builder::new().name(format!("tmem-{name}")).stack_size(1 << 20).spawn(body);
    if let Err(error) = spawned {
        eprintln!("tmem: cannot start a thread ({error})");
        std::process::abort();
    }
}

/// How much the store's cleaner steps back: nobody waits for it, as a rule, and it works for milliseconds on end,
/// which an agent that is interrupted in the middle of a move, and with it whoever faults, would wait for.
const STEP_BACK: i32 = 10;

/// The calling thread, and those that it starts, step back.
fn step_back() {
    let _ = rustix::process::nice(STEP_BACK); // refused by nobody: everyone may
}

/// How much those step forward who do little and are needed at once: before memory is armed a program takes what it
/// likes until the watch has seen it, which on a busy machine comes to its turn 10 ms late.
const STEP_FORWARD: i32 = -10;

/// The calling thread steps forward, where that is allowed (root, or `RLIMIT_NICE`).
fn step_forward() {
    let _ = rustix::process::nice(STEP_FORWARD);
}

/// The calling thread, which one that had stepped forward may have started, steps as the monitor's first does.
fn step_as_the_monitor() {
    let first = Some(rustix::process::getpid());
    let _ = rustix::process::getpriority_process(first).and_then(|nice| setpriority_process(None, nice));
}

/// A counter that can be polled: wakes a server.
fn event_fd() -> rustix::io::Result<OwnedFd> {
    rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK)
}
