//! Threads: those of another process, and where the calling one runs.

use crate::peer::{last_errno, raw_pid};
use rustix::io::Errno;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

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

/// Tells where a thread runs: `/proc/TID/stat`, kept open.
#[derive(Debug)]
pub struct CpuOf(File);

impl CpuOf {
    /// For one thread, of whatever process.
    ///
    /// # Errors
    /// When there is no such thread.
    pub fn open(tid: u32) -> io::Result<Self> {
        File::open(format!("/proc/{tid}/stat")).map(Self)
    }

    /// The CPU that it runs on, or ran on last. It takes 5 µs.
    ///
    /// # Errors
    /// When the thread is gone (`ESRCH`).
    pub fn read(&self) -> io::Result<u32> {
        const FIELD: usize = 36;
        let cpu = stat_field(&self.0, FIELD, |text| text.parse().ok())?;
        cpu.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no processor in /proc/TID/stat"))
    }
}

/// Whether a thread runs or would run if a CPU were free, instead of sleeping.
///
/// # Errors
/// When there is no such thread.
pub fn is_runnable(tid: u32) -> io::Result<bool> {
    const FIELD: usize = 0;
    let state = stat_field(&File::open(format!("/proc/{tid}/stat"))?, FIELD, |text| Some(text == "R"))?;
    Ok(state == Some(true))
}

/// Whether a thread waits for the holder of a userfaultfd, for a page that a system call of its own wants. The kernel lets
/// such a thread wait for a page only as long as no signal is pending, and takes none before the page is there: it
/// looks for it again and again.
#[must_use]
pub fn faults_in_system_call(tid: u32) -> bool {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{tid}/{name}")).unwrap_or_default();
    // The number of the call; -1 if it was no call that brought the thread into the kernel.
    let call = read("syscall").split_whitespace().next().and_then(|number| number.parse::<i64>().ok());
    call.is_some_and(|number| number >= 0) && read("wchan") == "handle_userfault"
}

/// A field of `/proc/TID/stat`: 0 is the one after the name, which may hold anything but is the last thing in
/// parentheses.
fn stat_field<T>(file: &File, field: usize, parse: impl Fn(&str) -> Option<T>) -> io::Result<Option<T>> {
    let mut text = [0; 1024];
    let len = file.read_at(&mut text, 0)?;
    Ok(text[..len].rsplit(|&byte| byte == b')').next().and_then(|fields| {
        let mut fields = fields.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
        parse(str::from_utf8(fields.nth(field)?).ok()?)
    }))
}

/// The CPUs that the calling thread may run on.
///
/// # Errors
/// None that is known.
pub fn own_cpus() -> Result<Vec<u32>, Errno> {
    let set = sched_getaffinity(None)?;
    let cpus = (0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu));
    Ok(cpus.filter_map(|cpu| u32::try_from(cpu).ok()).collect())
}

/// Lets a thread, ours or another process's, run on these CPUs alone; 0 is the calling one.
///
/// # Errors
/// `INVAL`: none of them is there for it. `SRCH`: no such thread. `PERM`: another user's.
pub fn run_on(tid: u32, cpus: &[u32]) -> Result<(), Errno> {
    let mut set = CpuSet::new();
    for cpu in cpus.iter().filter_map(|&cpu| usize::try_from(cpu).ok()).filter(|&cpu| cpu < CpuSet::MAX_CPU) {
        set.set(cpu);
    }
    sched_setaffinity(rustix::process::Pid::from_raw(raw_pid(tid)?), &set)
}

/// How a thread shares its CPU with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// As most do (`SCHED_OTHER`).
    Fair,
    /// As fair, but it interrupts nobody when it wakes (`SCHED_BATCH`).
    Patient,
    /// When nobody else wants to run (`SCHED_IDLE`). To the kernel a CPU with such threads alone is idle: it lets
    /// threads that wake there stay there.
    Last,
}

/// Sets how a thread of this process shares its CPU; 0 is the calling one.
///
/// # Errors
/// `PERM`: no right (`CAP_SYS_NICE`, or `RLIMIT_NICE`) to leave [`Turn::Last`]. `SRCH`: no such thread.
pub fn take_turns(tid: u32, turn: Turn) -> Result<(), Errno> {
    let policy = match turn {
        Turn::Fair => libc::SCHED_OTHER,
        Turn::Patient => libc::SCHED_BATCH,
        Turn::Last => libc::SCHED_IDLE,
    };
    let none = libc::sched_param { sched_priority: 0 };
    // SAFETY: the kernel reads one sched_param, which is ours.
    let failed = unsafe { libc::sched_setscheduler(raw_pid(tid)?, policy, &raw const none) };
    if failed == 0 { Ok(()) } else { Err(last_errno()) }
}
