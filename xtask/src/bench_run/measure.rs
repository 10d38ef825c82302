//! One run of a workload: in a group of its own, watched from outside.

use super::cgroup::{Group, Hierarchy, Usage};
use super::swap::{Device, Swap};
use super::workloads::Workload;
use crate::process::{self, Ended};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// How often memory is looked at.
const SAMPLE: Duration = Duration::from_millis(5);
/// What others swap is passed over up to this part of zram's memory, and so much: the two numbers that are compared
/// are not read at one moment.
const FOREIGN_PART: u64 = 8;
const FOREIGN_BYTES: u64 = 4 << 20;
/// Enters the groups whose doors are the first two arguments, and becomes the rest.
const ENTER: &str = r#"echo $$ >"$0" && echo $$ >"$1" && shift && exec "$@""#;
/// Lines of a failed program that are told.
const LINES_OF_COMPLAINT: usize = 3;

/// Who gives the program its memory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Setting {
    /// The kernel, all it wants.
    Native,
    /// `tmem run`.
    Tmem {
        /// What it is given.
        limit_bytes: u64,
    },
    /// The kernel, in a group with a limit, and with swap on zram.
    Zram {
        /// What compresses.
        algorithm: String,
        /// The group's limit.
        limit_bytes: u64,
        /// The size of the swap.
        swap_bytes: u64,
    },
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// With success.
    Finished,
    /// The kernel killed it for want of memory.
    OutOfMemory,
    /// It took longer than it was given.
    TooSlow,
    /// In another way.
    Failed(String),
}

/// What a run came to.
#[derive(Debug, Clone)]
pub(super) struct Measured {
    /// How it ended.
    pub(super) outcome: Outcome,
    /// From start to end.
    pub(super) wall_s: f64,
    /// The part of it that the workload itself calls its work; all, when it tells nothing.
    pub(super) work_s: f64,
    /// CPU time of all processes.
    pub(super) cpu_s: f64,
    /// The most memory of programs and memory files at once.
    pub(super) program_peak_bytes: u64,
    /// The most that was charged to the group.
    pub(super) charged_peak_bytes: u64,
    /// The most on the device that is not the group's: other programs of this machine swapped too.
    pub(super) foreign_peak_bytes: u64,
    /// The most that zram had.
    pub(super) zram_peak_bytes: u64,
    /// Says whether two outputs are the same.
    pub(super) output: String,
    /// What the workload told of itself.
    pub(super) told: Value,
    /// What `tmem run` reported.
    pub(super) report: Value,
}

/// What runs need.
#[derive(Debug)]
pub(super) struct Bench {
    /// Where groups are made.
    pub(super) hierarchy: Hierarchy,
    /// The device that swap is on.
    pub(super) device: Device,
    /// The command `tmem`.
    pub(super) tmem: PathBuf,
    /// What `--policy` it is given.
    pub(super) policy: Option<String>,
    /// A folder for what is written in a run.
    pub(super) scratch: PathBuf,
}

/// Peaks that are seen by looking often.
#[derive(Debug, Clone, Copy, Default)]
struct Peaks {
    program_bytes: u64,
    charged_bytes: u64,
    foreign_bytes: u64,
}

impl Measured {
    /// Memory that the run was given at its peak, as its setting counts it.
    pub(super) fn given_bytes(&self, setting: &Setting) -> u64 {
        match setting {
            Setting::Native | Setting::Tmem { .. } => self.program_peak_bytes,
            Setting::Zram { limit_bytes, .. } => self.charged_peak_bytes.min(*limit_bytes) + self.zram_peak_bytes,
        }
    }

    /// Whether others swapped enough meanwhile to change what is measured.
    pub(super) const fn is_disturbed(&self) -> bool {
        self.foreign_peak_bytes > self.zram_peak_bytes / FOREIGN_PART + FOREIGN_BYTES
    }

    /// Whether it ended well.
    pub(super) fn finished(&self) -> bool {
        self.outcome == Outcome::Finished
    }

    /// A number that the workload told.
    pub(super) fn told(&self, name: &str) -> Option<f64> {
        self.told.get(name).and_then(Value::as_f64)
    }

    /// As a row of the file of figures.
    pub(super) fn json(&self, setting: &Setting) -> Value {
        json!({
            "outcome": self.outcome.words(),
            "wall_s": self.wall_s,
            "work_s": self.work_s,
            "cpu_s": self.cpu_s,
            "given_bytes": self.given_bytes(setting),
            "program_peak_bytes": self.program_peak_bytes,
            "charged_peak_bytes": self.charged_peak_bytes,
            "foreign_peak_bytes": self.foreign_peak_bytes,
            "zram_peak_bytes": self.zram_peak_bytes,
            "output": self.output,
            "told": self.told,
            "report": self.report,
        })
    }
}

impl Outcome {
    pub(super) fn words(&self) -> &str {
        match self {
            Self::Finished => "finished",
            Self::OutOfMemory => "OOM",
            Self::TooSlow => "too slow",
            Self::Failed(why) => why,
        }
    }
}

impl Bench {
    /// Runs a workload once, for at most `patience`.
    pub(super) fn run(&self, workload: &Workload, setting: &Setting, patience: Duration) -> Result<Measured> {
        let run = self.run_in_group(workload, setting, patience);
        run.with_context(|| format!("{} with {setting:?}", workload.name))
    }

    fn run_in_group(&self, workload: &Workload, setting: &Setting, patience: Duration) -> Result<Measured> {
        // Swap first: a group must be gone before the swap that its pages are on.
        let swap = match setting {
            Setting::Zram { algorithm, swap_bytes, .. } => Some(self.device.swap_on(algorithm, *swap_bytes)?),
            _ => None,
        };
        let group = self.hierarchy.group()?;
        if let Setting::Zram { limit_bytes, .. } = setting {
            group.limit(*limit_bytes)?;
        }
        let report = self.scratch.join("report.json");
        let _ = fs::remove_file(&report);
        let mut command = self.command(workload, setting, &group);
        let (ended, peaks) = watch(&group, swap.as_ref(), || process::observe(&mut command, patience))?;
        let cpu_s = group.cpu()?.as_secs_f64();
        let killed = group.killed()?;
        // A monitor or a server of a program that failed.
        group.kill();
        let zram_peak_bytes = swap.as_ref().map_or(Ok(0), Swap::peak_bytes)?;
        let outcome = outcome(&ended, killed);
        let told = if workload.tells { parse(&ended.stdout.head) } else { Value::Null };
        let output = match told.get("checksum").and_then(Value::as_str) {
            Some(checksum) => checksum.to_owned(),
            None => format!("{:016x}", ended.stdout.hash),
        };
        let wall_s = ended.wall.as_secs_f64();
        let work_s = told.get("wall_s").and_then(Value::as_f64).unwrap_or(wall_s);
        Ok(Measured {
            outcome,
            wall_s,
            work_s,
            cpu_s,
            program_peak_bytes: peaks.program_bytes,
            charged_peak_bytes: peaks.charged_bytes,
            foreign_peak_bytes: peaks.foreign_bytes,
            zram_peak_bytes,
            output,
            told,
            report: fs::read(&report).map_or(Value::Null, |text| parse(&text)),
        })
    }

    fn command(&self, workload: &Workload, setting: &Setting, group: &Group) -> Command {
        let mut words: Vec<OsString> = Vec::new();
        if let Setting::Tmem { limit_bytes } = setting {
            let memory = limit_bytes.to_string();
            words.push(self.tmem.clone().into());
            words.extend(["run", "--memory", &memory, "--on-full", "kill", "--quiet", "--report"].map(OsString::from));
            words.push(self.scratch.join("report.json").into());
            if let Some(policy) = &self.policy {
                words.extend(["--policy", policy].map(OsString::from));
            }
            words.push("--".into());
        }
        words.extend(workload.words.iter().cloned());
        let mut command = Command::new("sh");
        command.args(["-c", ENTER]).args(group.doors()).args(words);
        command.current_dir(&self.scratch).env("LC_ALL", "C").env("TMPDIR", &self.scratch);
        command.env("PYTHONHASHSEED", "1").env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }
}

/// Calls `action` while a thread looks at the group.
fn watch(group: &Group, swap: Option<&Swap<'_>>, action: impl FnOnce() -> Result<Ended>) -> Result<(Ended, Peaks)> {
    std::thread::scope(|scope| {
        let (stop, stopped) = channel::<()>();
        let sampler = scope.spawn(move || {
            let mut peaks = Peaks::default();
            while stopped.recv_timeout(SAMPLE) == Err(RecvTimeoutError::Timeout) {
                // Before the group, which grows meanwhile.
                let held_bytes = swap.map_or(Ok(0), Swap::held_bytes)?;
                let Usage { program_bytes, charged_bytes, swapped_bytes } = group.usage()?;
                peaks.foreign_bytes = peaks.foreign_bytes.max(held_bytes.saturating_sub(swapped_bytes));
                peaks.program_bytes = peaks.program_bytes.max(program_bytes);
                peaks.charged_bytes = peaks.charged_bytes.max(charged_bytes);
            }
            anyhow::Ok(peaks)
        });
        let ended = action();
        drop(stop);
        let Ok(peaks) = sampler.join() else {
            bail!("the thread that looks at memory panicked");
        };
        Ok((ended?, peaks?))
    })
}

fn outcome(ended: &Ended, killed: u64) -> Outcome {
    let Some(status) = ended.status else {
        return Outcome::TooSlow;
    };
    if killed > 0 {
        return Outcome::OutOfMemory;
    }
    if status.success() {
        return Outcome::Finished;
    }
    let text = String::from_utf8_lossy(&ended.stderr.head).trim().to_owned();
    let lines: Vec<&str> = text.lines().rev().take(LINES_OF_COMPLAINT).collect();
    let how = status.signal().map_or_else(|| status.to_string(), |signal| format!("signal {signal}"));
    Outcome::Failed(format!("{how}: {}", lines.into_iter().rev().collect::<Vec<_>>().join(" / ")))
}

/// JSON, or nothing.
fn parse(text: &[u8]) -> Value {
    serde_json::from_slice(text).unwrap_or(Value::Null)
}
