//! How much memory there can be for a store.

use anyhow::{Result, bail};
use std::fs;
use std::path::Path;

/// The least of what bounds this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bound {
    bytes: u64,
    whose: &'static str,
}

/// Fails if the machine, or the memory control group that this process is in, cannot hold so much.
pub(crate) fn can_hold(budget_bytes: usize) -> Result<()> {
    check(budget_bytes as u64, bound(Path::new("/")))
}

fn check(budget_bytes: u64, bound: Option<Bound>) -> Result<()> {
    let Some(Bound { bytes, whose }) = bound.filter(|bound| budget_bytes > bound.bytes) else { return Ok(()) };
    bail!(
        "a budget of {} is more than {whose}, which is {}: give less, and leave some for everybody else",
        crate::report::bytes(budget_bytes),
        crate::report::bytes(bytes)
    )
}

/// None where the system tells nothing. `root` is that of the file system.
fn bound(root: &Path) -> Option<Bound> {
    let machine = fs::read_to_string(root.join("proc/meminfo")).ok().and_then(|text| total_bytes(&text));
    let machine = machine.map(|bytes| Bound { bytes, whose: "the machine's memory" });
    let group = group_bytes(root).map(|bytes| Bound { bytes, whose: "the limit of the memory control group" });
    machine.into_iter().chain(group).min_by_key(|bound| bound.bytes)
}

fn total_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// The least limit of the groups that this process is in, up to the topmost that can be seen.
fn group_bytes(root: &Path) -> Option<u64> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let limits = groups.lines().flat_map(|line| {
        // hierarchy:controllers:path; there are no controllers in version 2.
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next().unwrap_or(""), fields.next().unwrap_or(""));
        let (top, file) = match controllers {
            "" => ("sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => return Vec::new(),
        };
        let limit = |group: &Path| {
            let path = root.join(top).join(group).join(file);
            fs::read_to_string(path).ok()?.trim().parse::<u64>().ok()
        };
        Path::new(path.trim_start_matches('/')).ancestors().filter_map(limit).collect()
    });
    limits.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Paths and what is in them.
    type Files<'f> = &'f [(&'f str, &'f str)];

    /// A file system with these files.
    fn root(name: &str, files: Files<'_>) -> std::path::PathBuf {
        let root = std::env::temp_dir().join(format!("tmem-memory-{name}-{}", std::process::id()));
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn the_least_bound_counts() {
        const MACHINE: (&str, &str) = ("proc/meminfo", "MemTotal:       1024 kB\nMemFree:  1 kB\n");
        let cases: [(&str, Files<'_>, u64); 4] = [
            ("machine", &[MACHINE], 1 << 20),
            (
                "two",
                &[
                    MACHINE,
                    ("proc/self/cgroup", "0::/a/b\n"),
                    ("sys/fs/cgroup/a/memory.max", "4096\n"),
                    ("sys/fs/cgroup/a/b/memory.max", "max\n"),
                ],
                4096,
            ),
            (
                "one",
                &[
                    MACHINE,
                    ("proc/self/cgroup", "9:name=systemd:/\n4:cpu,memory:/a\n0::/\n"),
                    ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
                    ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "8192\n"),
                ],
                8192,
            ),
            (
                // In a container that sees its own group as the topmost.
                "container",
                &[
                    MACHINE,
                    ("proc/self/cgroup", "4:memory:/docker/1234\n"),
                    ("sys/fs/cgroup/memory/memory.limit_in_bytes", "12288\n"),
                ],
                12288,
            ),
        ];
        for (name, files, bytes) in cases {
            let root = root(name, files);
            assert_eq!(bound(&root).map(|bound| bound.bytes), Some(bytes), "{name}");
            fs::remove_dir_all(root).unwrap();
        }
        assert_eq!(bound(Path::new("/nowhere")), None);
    }

    #[test]
    fn what_does_not_fit_is_refused_with_figures() {
        let bound = Some(Bound { bytes: 2 << 30, whose: "the machine's memory" });
        assert!(check(2 << 30, bound).is_ok() && check(u64::MAX, None).is_ok());
        let error = check(3 << 30, bound).unwrap_err().to_string();
        assert!(error.contains("3.0 GiB") && error.contains("machine's memory, which is 2.0 GiB"), "{error}");
    }
}
