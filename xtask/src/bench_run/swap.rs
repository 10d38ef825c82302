//! Swap on a zram device of ours, which is added for the comparison and removed after it.

use crate::process::Change;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

const CONTROL: &str = "/sys/class/zram-control";
/// A device may be held open for a moment by whoever watches devices come and go.
const BUSY_TRIES: u32 = 100;
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// A zram device.
#[derive(Debug)]
pub(super) struct Device {
    number: u32,
    /// Removes it.
    _change: Change,
}

/// The device in use as swap, empty at first.
#[derive(Debug)]
pub(super) struct Swap<'a> {
    device: &'a Device,
    /// Ends the use.
    _change: Change,
}

impl Device {
    /// Adds a device.
    pub(super) fn add() -> Result<Self> {
        let (number, change) = Change::make(|| {
            let text = fs::read_to_string(format!("{CONTROL}/hot_add"))
                .context("cannot add a zram device: run `modprobe zram`, or use a kernel that has it")?;
            let number = text.trim().parse::<u32>().context("zram tells no number of its new device")?;
            Ok((number, Box::new(move || complain(remove(number)))))
        })?;
        Ok(Self { number, _change: change })
    }

    /// What it can compress with.
    pub(super) fn algorithms(&self) -> Result<Vec<String>> {
        let offered = fs::read_to_string(attribute(self.number, "comp_algorithm")).context("no comp_algorithm")?;
        Ok(offered.split_whitespace().map(|name| name.trim_matches(['[', ']']).to_owned()).collect())
    }

    /// Makes it swap of `bytes` before compression, preferred to any other.
    pub(super) fn swap_on(&self, algorithm: &str, bytes: u64) -> Result<Swap<'_>> {
        let (number, path) = (self.number, format!("/dev/zram{}", self.number));
        let (_, change) = Change::make(|| {
            reset(number)?;
            set(number, "comp_algorithm", algorithm)?;
            set(number, "disksize", &bytes.to_string())?;
            succeed("mkswap", &[&path])?;
            succeed("swapon", &["--priority", "32767", &path])?;
            Ok(((), Box::new(move || complain(swap_off(number)))))
        })?;
        Ok(Swap { device: self, _change: change })
    }
}

impl Swap<'_> {
    /// What is on the device now, before compression.
    pub(super) fn held_bytes(&self) -> Result<u64> {
        self.figure(0)
    }

    /// The most memory that the device had.
    pub(super) fn peak_bytes(&self) -> Result<u64> {
        self.figure(4)
    }

    /// Of orig_data_size, compr_data_size, mem_used_total, mem_limit, mem_used_max and more.
    fn figure(&self, at: usize) -> Result<u64> {
        let stat = fs::read_to_string(attribute(self.device.number, "mm_stat")).context("cannot read mm_stat")?;
        let figure = stat.split_whitespace().nth(at).and_then(|figure| figure.parse().ok());
        figure.with_context(|| format!("mm_stat has no number {at}: {stat}"))
    }
}

fn swap_off(number: u32) -> Result<()> {
    succeed("swapoff", &[&format!("/dev/zram{number}")])?;
    reset(number)
}

fn reset(number: u32) -> Result<()> {
    patiently(|| set(number, "reset", "1"))
}

fn remove(number: u32) -> Result<()> {
    let remove = || fs::write(format!("{CONTROL}/hot_remove"), number.to_string()).context("cannot remove the device");
    patiently(remove)
}

fn patiently(action: impl Fn() -> Result<()>) -> Result<()> {
    for _ in 1..BUSY_TRIES {
        if action().is_ok() {
            return Ok(());
        }
        std::thread::sleep(BUSY_PAUSE);
    }
    action()
}

fn set(number: u32, name: &str, value: &str) -> Result<()> {
    let path = attribute(number, name);
    fs::write(&path, value).with_context(|| format!("cannot write {value} to {path}"))
}

fn attribute(number: u32, name: &str) -> String {
    format!("/sys/block/zram{number}/{name}")
}

/// In a process group of its own, so that Ctrl-C does not end what cleans up after it.
fn succeed(program: &str, arguments: &[&str]) -> Result<()> {
    let mut command = Command::new(program);
    command.args(arguments).process_group(0).stdin(Stdio::null());
    let output = command.output().with_context(|| format!("cannot start {program}"))?;
    ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// An undo has nobody to tell but the person who watches.
fn complain(result: Result<()>) {
    if let Err(error) = result {
        eprintln!("zram could not be left as it was found: {error:#}");
    }
}
