//! Threads: those of another process, and where the calling one runs.

use crate::peer::{last_errno, raw_pid};
use rustix::io::Errno;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

/// Where the threads of this process could run before any of them was pinned.
static UNPINNED: OnceLock<CpuSet> = OnceLock::new();

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

/// Number of the system call that a thread sleeps in; `None` if it runs, or sleeps elsewhere (in a page
/// fault, say). A thread that asks for itself is told of the read that it asks by.
///
/// # Errors
/// When there is no such thread, or no right to trace it.
pub fn system_call_of(pid: u32, tid: u32) -> io::Result<Option<u64>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/syscall"))?;
    Ok(text.split_ascii_whitespace().next().and_then(|number| number.parse().ok()))
}

/// Tells where a thread runs: `/proc/PID/task/TID/stat`, kept open.
#[derive(Debug)]
pub struct CpuOf(File);

impl CpuOf {
    /// For one thread.
    ///
    /// # Errors
    /// When there is no such thread.
    pub fn open(pid: u32, tid: u32) -> io::Result<Self> {
        File::open(format!("/proc/{pid}/task/{tid}/stat")).map(Self)
    }

    /// The CPU that it runs on, or ran on last.
    ///
    /// # Errors
    /// When the thread is gone (`ESRCH`).
    pub fn read(&self) -> io::Result<u32> {
        // After the name, which may hold anything but is the last thing in parentheses, the 37th field.
        const FIELD: usize = 36;
        let mut text = [0; 1024];
        let len = self.0.read_at(&mut text, 0)?;
        let cpu = text[..len].rsplit(|&byte| byte == b')').next().and_then(|fields| {
            let mut fields = fields.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
            str::from_utf8(fields.nth(FIELD)?).ok()?.parse().ok()
        });
        cpu.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no processor in /proc/PID/task/TID/stat"))
    }
}

/// Lets the calling thread run on `cpu` alone.
///
/// # Errors
/// `INVAL`: no such CPU, or it is not ours.
pub fn pin_to_cpu(cpu: u32) -> Result<(), Errno> {
    let cpu = usize::try_from(cpu).ok().filter(|&cpu| cpu < CpuSet::MAX_CPU).ok_or(Errno::INVAL)?;
    if UNPINNED.get().is_none() {
        // Two threads may get here at once; either one's answer will do.
        let _ = UNPINNED.set(sched_getaffinity(None)?);
    }
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set)
}

/// Lets the calling thread run where it could before [`pin_to_cpu`] was first called.
///
/// # Errors
/// `INVAL`: none of those CPUs is left.
pub fn unpin() -> Result<(), Errno> {
    UNPINNED.get().map_or(Ok(()), |set| sched_setaffinity(None, set))
}
