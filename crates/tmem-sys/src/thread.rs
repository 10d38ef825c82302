//! Threads: those of another process, and where the calling one runs.

use crate::peer::{last_errno, raw_pid};
use rustix::io::Errno;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::io;

/// Appends the threads of a process. One that starts or ends meanwhile may be missed, or be among them.
///
/// # Errors
/// When there is no such process.
pub fn threads(pid: u32, into: &mut Vec<u32>) -> io::Result<()> {
    for entry in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        into.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    Ok(())
}

/// Address of a thread's list of robust mutexes, which the kernel reads and writes when the thread exits; 0 if it has
/// none.
///
/// # Errors
/// `SRCH`: no such thread. `PERM`: no right to trace it.
pub fn robust_list_head(tid: u32) -> Result<u64, Errno> {
    let tid = raw_pid(tid)?;
    let (mut head, mut len) = (0usize, 0usize);
    // SAFETY: the kernel writes one pointer and one size_t, each to a word of ours that is as long.
    let failed = unsafe { libc::syscall(libc::SYS_get_robust_list, tid, &raw mut head, &raw mut len) };
    if failed == 0 { Ok(head as u64) } else { Err(last_errno()) }
}

/// The CPUs that the calling thread may run on.
///
/// # Errors
/// None that is known.
pub fn own_cpus() -> Result<Vec<u32>, Errno> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU as u32).filter(|&cpu| set.is_set(cpu as usize)).collect())
}

/// Lets the calling thread run on `cpu` alone.
///
/// # Errors
/// `INVAL`: no such CPU, or it is not ours.
pub fn pin_to_cpu(cpu: u32) -> Result<(), Errno> {
    let cpu = usize::try_from(cpu).ok().filter(|&cpu| cpu < CpuSet::MAX_CPU).ok_or(Errno::INVAL)?;
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set)
}

/// From now on the calling thread, when it wakes, never interrupts one that runs; it has its fair share of the CPU
/// nevertheless (`SCHED_BATCH`).
///
/// # Errors
/// `PERM`: a rule of the system forbids it.
pub fn never_interrupt() -> Result<(), Errno> {
    let none = libc::sched_param { sched_priority: 0 };
    // SAFETY: the kernel reads one sched_param, which is ours.
    let failed = unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const none) };
    if failed == 0 { Ok(()) } else { Err(last_errno()) }
}
