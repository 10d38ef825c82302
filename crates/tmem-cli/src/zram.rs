//! The kernel's compressed block device, on the same pages.
//!
//! A device is taken that nobody uses, and is left as it was found: reset, with the algorithm it had, also after an
//! error, a panic or Ctrl-C. A lock on its row in sysfs keeps two of us from taking the same one.

use crate::bench::clock::{Lap, Moment};
use crate::bench::full::same_bytes;
use crate::interrupt;
use crate::pages::Buffer;
use anyhow::{Context, Result, bail, ensure};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::Duration;
use tmem::GRANULE_BYTES;

/// Bytes of the larger of the two kinds of writes.
const LARGE_WRITE_BYTES: usize = 1 << 20;

/// A device may be held open for a moment by whoever watches devices come and go.
const BUSY_TRIES: u32 = 50;
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// A zram device, taken.
#[derive(Debug)]
pub(crate) struct Zram {
    name: String,
    /// What it was set to when it was found.
    found_algorithm: String,
    /// What the kernel offers.
    pub(crate) algorithms: Vec<String>,
    /// Holds the lock.
    _lock: File,
}

/// What one pass over the pages came to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pass {
    /// With 1 MiB direct writes.
    pub(crate) put_large: Lap,
    /// With 4 KiB direct writes.
    pub(crate) put_small: Lap,
    /// With 4 KiB direct reads.
    pub(crate) get: Lap,
    pub(crate) density: f64,
}

impl Zram {
    /// Takes the first device that is not in use.
    pub(crate) fn claim() -> Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "zram devices belong to root: run this as root, with sudo perhaps"
        );
        let entries = fs::read_dir("/sys/block").context("cannot list block devices: is /sys mounted?")?;
        let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut names: Vec<_> = names.filter(|name| name.starts_with("zram")).collect();
        names.sort();
        ensure!(!names.is_empty(), "there is no zram device: run `modprobe zram`, or use a kernel that has it");
        let mut reasons = Vec::new();
        for name in &names {
            match Self::claim_one(name) {
                Ok(zram) => return Ok(zram),
                Err(reason) => reasons.push(format!("/dev/{name}: {reason:#}")),
            }
        }
        bail!(
            "no zram device is free ({}): add one by reading /sys/class/zram-control/hot_add, or free one with \
             `swapoff /dev/zramN; echo 1 > /sys/block/zramN/reset`",
            reasons.join("; ")
        )
    }

    fn claim_one(name: &str) -> Result<Self> {
        let lock = File::open(format!("/sys/block/{name}/disksize")).context("cannot open its disksize")?;
        lock.try_lock().context("another tmem is using it")?;
        let size = attribute(name, "disksize")?;
        ensure!(size.trim() == "0", "it holds {} bytes of something else", size.trim());
        for table in ["/proc/swaps", "/proc/self/mounts"] {
            let text = fs::read_to_string(table).unwrap_or_default();
            let used = text.lines().any(|line| line.split_whitespace().next() == Some(&format!("/dev/{name}")));
            ensure!(!used, "it is in {table}");
        }
        let offered = attribute(name, "comp_algorithm")?;
        let algorithms = offered.split_whitespace().map(|name| name.trim_matches(['[', ']']).to_owned()).collect();
        let found = offered.split_whitespace().find_map(|name| name.strip_prefix('[')?.strip_suffix(']'));
        let found_algorithm = found.context("it does not say which algorithm is set")?.to_owned();
        Ok(Self { name: name.to_owned(), found_algorithm, algorithms, _lock: lock })
    }

    /// Writes and reads all pages with one of the algorithms. `order` is that of the pages that are read, and they are
    /// compared.
    pub(crate) fn pass(&self, algorithm: &str, pages: &[u8], order: &[usize], out: &mut Buffer) -> Result<Pass> {
        let result = self.measure(algorithm, pages, order, out);
        result.with_context(|| format!("/dev/{} with {algorithm}", self.name))
    }

    fn measure(&self, algorithm: &str, pages: &[u8], order: &[usize], out: &mut Buffer) -> Result<Pass> {
        let (_, put_large) = self.filled(algorithm, pages, LARGE_WRITE_BYTES)?;
        let (device, put_small) = self.filled(algorithm, pages, GRANULE_BYTES)?;
        let stat = attribute(&self.name, "mm_stat")?;
        let used = stat.split_whitespace().nth(2).and_then(|field| field.parse::<u64>().ok());
        let used = used.with_context(|| format!("mm_stat has no third number: {stat}"))?;
        out.poison();
        let start = Moment::now();
        for (at, page) in order.iter().enumerate() {
            if at % 4096 == 0 {
                interrupt::check()?;
            }
            let offset = page * GRANULE_BYTES;
            device.read_exact_at(&mut out[offset..offset + GRANULE_BYTES], offset as u64).context("cannot read")?;
        }
        let get = start.elapsed();
        same_bytes(pages, out, "zram")?;
        drop(device);
        self.reset()?;
        let density = pages.len() as f64 / used.max(1) as f64;
        Ok(Pass { put_large, put_small, get, density })
    }

    /// A fresh device with all pages on it, and how long it took to write them.
    fn filled(&self, algorithm: &str, pages: &[u8], write_bytes: usize) -> Result<(File, Lap)> {
        self.reset()?;
        self.set("comp_algorithm", algorithm)?;
        self.set("disksize", &pages.len().to_string())?;
        let flags = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).context("O_DIRECT is no int")?;
        let path = PathBuf::from(format!("/dev/{}", self.name));
        let device = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path).context("cannot open")?;
        let start = Moment::now();
        for (part, offset) in pages.chunks(write_bytes).zip((0u64..).step_by(write_bytes)) {
            interrupt::check()?;
            device.write_all_at(part, offset).context("cannot write")?;
        }
        Ok((device, start.elapsed()))
    }

    fn reset(&self) -> Result<()> {
        for _ in 1..BUSY_TRIES {
            if self.set("reset", "1").is_ok() {
                return Ok(());
            }
            std::thread::sleep(BUSY_PAUSE);
        }
        self.set("reset", "1").context("who has the device open? `fuser -v` on it tells")
    }

    fn set(&self, attribute: &str, value: &str) -> Result<()> {
        let path = format!("/sys/block/{}/{attribute}", self.name);
        fs::write(&path, value).with_context(|| format!("cannot write {value} to {path}"))
    }
}

impl Drop for Zram {
    fn drop(&mut self) {
        let restored = self.reset().and_then(|()| self.set("comp_algorithm", &self.found_algorithm));
        if let Err(error) = restored {
            eprintln!("tmem: /dev/{} could not be left as it was found: {error:#}", self.name);
        }
    }
}

fn attribute(name: &str, attribute: &str) -> Result<String> {
    let path = format!("/sys/block/{name}/{attribute}");
    fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
}
