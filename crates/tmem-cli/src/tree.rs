//! Which process is whose child.

use std::fs;

/// A line of the kernel's list of processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    pid: u32,
    parent: u32,
    /// Dead, and waiting for its parent to notice.
    zombie: bool,
}

/// Living descendants of a process, nearer ones first.
pub(crate) fn descendants(of: u32) -> Vec<u32> {
    let processes = processes();
    let mut found = vec![of];
    let mut at = 0;
    while let Some(&parent) = found.get(at) {
        found.extend(processes.iter().filter(|process| process.parent == parent).map(|process| process.pid));
        at += 1;
    }
    let living = |pid: &u32| processes.iter().any(|process| process.pid == *pid && !process.zombie);
    found.into_iter().skip(1).filter(living).collect()
}

/// The process that started this one, its own, and so on; the first process of all is left out.
pub(crate) fn ancestors(of: u32) -> Vec<u32> {
    let parent = |pid: u32| stat(pid).map(|process| process.parent).filter(|parent| *parent > 1);
    std::iter::successors(parent(of), |pid| parent(*pid)).collect()
}

fn processes() -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| stat(entry.file_name().to_str()?.parse().ok()?)).collect()
}

/// Reads `/proc/PID/stat`; `None` if there is no such process.
fn stat(pid: u32) -> Option<Process> {
    parse(pid, &fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// The name stands in brackets and may hold anything, brackets too, so the last one counts (proc_pid_stat(5)).
fn parse(pid: u32, stat: &[u8]) -> Option<Process> {
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    let mut fields = std::str::from_utf8(&stat[name_end + 1..]).ok()?.split_ascii_whitespace();
    let zombie = matches!(fields.next()?, "Z" | "X");
    Some(Process { pid, parent: fields.next()?.parse().ok()?, zombie })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn names_do_not_confuse() {
        assert_eq!(parse(7, b"7 (a) S 1) Z 42 7 7"), Some(Process { pid: 7, parent: 42, zombie: true }));
        assert_eq!(parse(7, b"7 (\xff) R 1 7"), Some(Process { pid: 7, parent: 1, zombie: false }));
        assert_eq!(parse(7, b""), None);
    }

    #[test]
    fn a_child_is_found_from_both_sides() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        assert!(descendants(std::process::id()).contains(&child.id()));
        assert_eq!(ancestors(child.id()).first(), Some(&std::process::id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!descendants(std::process::id()).contains(&child.id()));
    }
}
