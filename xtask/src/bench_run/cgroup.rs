//! A control group for one run: what its processes use, and how much memory they may.
//!
//! The two controllers wanted, of memory and of CPU time, are in one folder (version 2) or in two (version 1). A group
//! is made for each run, so that its counters start at 0, and its processes end with it.

use crate::process::Change;
use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// How long the processes of a group may take to be gone after they were killed.
const GONE_TRIES: u32 = 500;
const GONE_PAUSE: Duration = Duration::from_millis(10);

/// Which of the two interfaces the kernel offers here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// A hierarchy for each controller.
    One,
    /// One hierarchy for all.
    Two,
}

/// Where groups are made.
#[derive(Debug)]
pub(super) struct Hierarchy {
    /// Which interface.
    pub(super) version: Version,
    memory: PathBuf,
    cpu: PathBuf,
}

/// A group.
#[derive(Debug)]
pub(super) struct Group {
    version: Version,
    memory: PathBuf,
    cpu: PathBuf,
    /// Removes it.
    _change: Change,
}

/// What a group has now.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Usage {
    /// Pages of programs, and of memory files.
    pub(super) program_bytes: u64,
    /// All that is charged, page cache and page tables too.
    pub(super) charged_bytes: u64,
    /// What is in swap.
    pub(super) swapped_bytes: u64,
}

impl Hierarchy {
    /// Finds where groups are made.
    pub(super) fn find() -> Result<Self> {
        ensure!(rustix::process::geteuid().is_root(), "control groups and zram belong to root: run this as root");
        let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
        let mounts: Vec<Vec<&str>> = mounts.lines().map(|line| line.split(' ').collect()).collect();
        let with = |controller: &str| {
            let mount = mounts.iter().find(|m| m[2] == "cgroup" && m[3].split(',').any(|option| option == controller));
            mount.map(|mount| PathBuf::from(mount[1]))
        };
        if let (Some(memory), Some(cpu)) = (with("memory"), with("cpuacct")) {
            return Ok(Self { version: Version::One, memory, cpu });
        }
        let root = mounts.iter().find(|m| m[2] == "cgroup2").map(|mount| PathBuf::from(mount[1]));
        let root = root.context("no control groups with memory and CPU time: mount cgroup2 on /sys/fs/cgroup")?;
        for controller in ["memory", "cpu"] {
            let offered = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
            ensure!(offered.split_whitespace().any(|name| name == controller), "cgroup2 here has no {controller}");
            write(&root.join("cgroup.subtree_control"), &format!("+{controller}"))?;
        }
        Ok(Self { version: Version::Two, memory: root.clone(), cpu: root })
    }

    /// A new group without a limit.
    pub(super) fn group(&self) -> Result<Group> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // Relaxed: a number of its own is all that is wanted.
        let name = format!("tmem-bench-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let (memory, cpu) = (self.memory.join(&name), self.cpu.join(&name));
        let folders = if memory == cpu { vec![memory.clone()] } else { vec![memory.clone(), cpu.clone()] };
        let (_, change) = Change::make(|| {
            for folder in &folders {
                fs::create_dir(folder).with_context(|| format!("cannot make {}", folder.display()))?;
            }
            Ok(((), Box::new(move || folders.iter().for_each(|folder| remove(folder)))))
        })?;
        if self.version == Version::One {
            write(&memory.join("memory.swappiness"), "100")?;
        }
        Ok(Group { version: self.version, memory, cpu, _change: change })
    }
}

impl Group {
    /// The files to write a process id to, so that the process and its children belong to the group.
    pub(super) fn doors(&self) -> [PathBuf; 2] {
        [self.memory.join("cgroup.procs"), self.cpu.join("cgroup.procs")]
    }

    /// Sets how much memory may be charged. Swap is not limited.
    pub(super) fn limit(&self, bytes: u64) -> Result<()> {
        let file = match self.version {
            Version::One => "memory.limit_in_bytes",
            Version::Two => "memory.max",
        };
        write(&self.memory.join(file), &bytes.to_string())
    }

    /// CPU time of all its processes so far, also of those that ended.
    pub(super) fn cpu(&self) -> Result<Duration> {
        match self.version {
            Version::One => {
                let text = read(&self.cpu.join("cpuacct.usage"))?;
                Ok(Duration::from_nanos(text.trim().parse().context("cpuacct.usage is no number")?))
            }
            Version::Two => Ok(Duration::from_micros(field(&read(&self.cpu.join("cpu.stat"))?, "usage_usec")?)),
        }
    }

    /// What it has now.
    pub(super) fn usage(&self) -> Result<Usage> {
        let (anonymous, charged) = match self.version {
            Version::One => ("rss", "memory.usage_in_bytes"),
            Version::Two => ("anon", "memory.current"),
        };
        let stat = read(&self.memory.join("memory.stat"))?;
        let charged_bytes = read(&self.memory.join(charged))?.trim().parse().context("its usage is no number")?;
        let swapped_bytes = match self.version {
            // Absent where swap is not accounted.
            Version::One => field(&stat, "swap").unwrap_or(u64::MAX),
            Version::Two => {
                read(&self.memory.join("memory.swap.current"))?.trim().parse().context("its swap is no number")?
            }
        };
        Ok(Usage { program_bytes: field(&stat, anonymous)? + field(&stat, "shmem")?, charged_bytes, swapped_bytes })
    }

    /// How many of its processes the kernel killed for want of memory.
    pub(super) fn killed(&self) -> Result<u64> {
        let file = match self.version {
            Version::One => "memory.oom_control",
            Version::Two => "memory.events",
        };
        field(&read(&self.memory.join(file))?, "oom_kill")
    }

    /// Kills what is left in it.
    pub(super) fn kill(&self) {
        members(&self.memory).into_iter().for_each(kill);
    }
}

/// Removes a group, and ends its processes.
fn remove(folder: &Path) {
    for _ in 0..GONE_TRIES {
        members(folder).into_iter().for_each(kill);
        if fs::remove_dir(folder).is_ok() {
            return;
        }
        std::thread::sleep(GONE_PAUSE);
    }
    eprintln!("cannot remove {}: rmdir it when its processes are gone", folder.display());
}

fn members(folder: &Path) -> Vec<Pid> {
    let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok().and_then(Pid::from_raw)).collect()
}

fn kill(process: Pid) {
    // It may have ended by itself, which is as good.
    let _ = kill_process(process, Signal::KILL);
}

/// The number behind `name`, in a file of names and numbers.
fn field(text: &str, name: &str) -> Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|number| number.trim().parse().ok()).with_context(|| format!("there is no {name}"))
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {text} to {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let text = "rss_huge 5\nrss 7\ntotal_rss 9\n";
        assert_eq!(field(text, "rss").unwrap(), 7);
        assert!(field(text, "shmem").is_err());
    }
}
