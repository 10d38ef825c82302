//! A `tmem serve` of our own, for the time of a measurement.

use super::scratch::{Folder, Process};
use anyhow::{Context, Result, bail};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long it may take to start.
const START: Duration = Duration::from_secs(20);

/// The process, killed on drop. Its socket lies in a folder of its own.
#[derive(Debug)]
pub(crate) struct Daemon {
    process: Process,
    folder: Folder,
}

impl Daemon {
    /// One of that budget, with these options besides; returns when it takes clients.
    pub(crate) fn start(budget: usize, options: &[&str]) -> Result<Self> {
        let folder = Folder::make("tmem-bench")?;
        let notify = folder.path("notify");
        let ready = UnixDatagram::bind(&notify).context("cannot make a socket to be told that the daemon is ready")?;
        ready.set_read_timeout(Some(START))?;
        let program = std::env::current_exe().context("cannot find this program itself")?;
        let mut command = Command::new(program);
        command.arg("serve").arg("--socket").arg(folder.path("socket"));
        command.args(["--log", "warn", "--budget", &budget.to_string()]).args(options);
        let child =
            command.env("NOTIFY_SOCKET", &notify).stdin(Stdio::null()).spawn().context("cannot start `tmem serve`")?;
        let daemon = Self { process: Process(child), folder };
        let mut message = [0; 256];
        loop {
            let len = ready.recv(&mut message).context("`tmem serve` did not say that it is ready")?;
            if message[..len].windows(7).any(|part| part == b"READY=1") {
                return Ok(daemon);
            }
        }
    }

    /// Where clients find it.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path("socket")
    }

    /// CPU time that it has used so far, that of threads that have ended, too; in steps of a hundredth of a second.
    pub(crate) fn cpu_of_all(&self) -> Result<Duration> {
        let path = format!("/proc/{}/stat", self.process.0.id());
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        // In user and in system mode: the 12th and 13th behind the name, which ends with the last bracket.
        let fields = text.rsplit(')').next().unwrap_or("").split_whitespace().skip(11);
        let ticks: Option<u64> = fields.take(2).map(|field| field.parse::<u64>().ok()).sum();
        let ticks = ticks.with_context(|| format!("{path} holds no times"))?;
        Ok(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
    }

    /// CPU time that its threads have used so far.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        cpu_of(self.process.0.id())
    }
}

/// CPU time of all threads of a process: `schedstat` counts nanoseconds, where `stat` counts ticks.
pub(crate) fn cpu_of(pid: u32) -> Result<Duration> {
    let tasks = PathBuf::from(format!("/proc/{pid}/task"));
    let entries = std::fs::read_dir(&tasks).with_context(|| format!("cannot read {}", tasks.display()))?;
    let mut sum = Duration::ZERO;
    for entry in entries {
        sum += cpu_of_task(&entry?.path())?;
    }
    Ok(sum)
}

fn cpu_of_task(task: &Path) -> Result<Duration> {
    let path = task.join("schedstat");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let Some(ns) = text.split_whitespace().next().and_then(|ns| ns.parse().ok()) else {
        bail!("{} does not start with a number", path.display());
    };
    Ok(Duration::from_nanos(ns))
}
