//! Processes of a run, seen through `/proc`.

use super::{FAREWELL, MARK};
use rustix::process::{Pid, Signal, kill_process};
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Waits a moment between two looks at something that another process does.
pub(crate) fn pause() {
    std::thread::sleep(Duration::from_millis(10));
}

/// A process, by its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process(pub(crate) i32);

impl Process {
    fn file(self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.0))
    }

    fn read(self, name: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.file(name)).unwrap_or_default()).into_owned()
    }

    /// A variable of its environment, as it was started with.
    pub(crate) fn environment(self, name: &str) -> Option<String> {
        let environment = self.read("environ");
        environment.split('\0').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
    }

    /// The file it runs.
    pub(crate) fn executable(self) -> Option<PathBuf> {
        fs::read_link(self.file("exe")).ok()
    }

    /// Whether it is the agent of another process.
    pub(crate) fn is_agent(&self) -> bool {
        self.read("comm").trim() == "tmem-agent"
    }

    /// R, S, D, T, Z, ...; `None` when it is gone.
    pub(crate) fn state(self) -> Option<char> {
        // The name before it may hold anything, brackets too.
        self.read("stat").rsplit_once(')')?.1.trim_start().chars().next()
    }

    /// Whether it is stopped.
    pub(crate) fn is_stopped(self) -> bool {
        self.state() == Some('T')
    }

    /// The time that it has used, in hundredths of a second.
    pub(crate) fn cpu_ticks(self) -> u64 {
        let stat = self.read("stat");
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
    }

    /// Whether it runs, sleeps or is stopped.
    pub(crate) fn is_alive(self) -> bool {
        self.state().is_some_and(|state| !"ZX".contains(state))
    }

    /// The process that started it, or has taken it over.
    fn parent(self) -> Option<i32> {
        self.read("stat").rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    }

    /// Sends it a signal; nothing happens when it is gone.
    pub(crate) fn signal(self, signal: Signal) {
        if let Some(id) = Pid::from_raw(self.0) {
            let _ = kill_process(id, signal);
        }
    }

    /// Bytes of one field of a file of `/proc` that says "Name: 123 kB".
    pub(crate) fn kib(self, file: &str, name: &str) -> u64 {
        let text = self.read(file);
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
    }
}

/// Ends all that runs under a mark when it is dropped, be it by a test that fails.
#[derive(Debug)]
pub(crate) struct Tree(pub(crate) String);

impl Drop for Tree {
    fn drop(&mut self) {
        end(&self.0);
    }
}

/// Kills every process of a run, and waits until none is left.
pub(super) fn end(mark: &str) {
    let end = Instant::now() + FAREWELL;
    let mut left = tree(mark);
    while !left.is_empty() && Instant::now() < end {
        left.iter().for_each(|process| process.signal(Signal::KILL));
        pause();
        left.retain(|process| process.is_alive());
        left.extend(tree(mark)); // what they have started meanwhile
    }
}

/// Every process with this mark, and what they started with another environment.
pub(super) fn tree(mark: &str) -> Vec<Process> {
    let mut found = marked(mark);
    let parents: Vec<(Process, i32)> = all().filter_map(|process| Some((process, process.parent()?))).collect();
    let mut at = 0;
    while let Some(&Process(id)) = found.get(at) {
        for (child, parent) in &parents {
            if *parent == id && child.is_alive() && !found.contains(child) {
                found.push(*child);
            }
        }
        at += 1;
    }
    found
}

fn all() -> impl Iterator<Item = Process> {
    let names = fs::read_dir("/proc").unwrap().flatten();
    names.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).map(Process)
}

/// Every process with this mark in its environment but zombies, in the order of their ids.
pub(super) fn marked(mark: &str) -> Vec<Process> {
    let mut found: Vec<Process> = all().filter(|process| process.environment(MARK).as_deref() == Some(mark)).collect();
    found.retain(|process| process.is_alive());
    found.sort_by_key(|process| process.0);
    found
}

/// What each thread of these processes does.
pub(super) fn diagnose(processes: &[Process]) -> String {
    let mut text = String::new();
    for process in processes {
        let command = process.read("cmdline").replace('\0', " ");
        let (name, resident) = (process.read("comm"), process.kib("status", "VmRSS"));
        let _ = writeln!(
            text,
            "== {} {} state {:?} resident {resident} kB: {command}",
            process.0,
            name.trim(),
            process.state()
        );
        let Ok(threads) = fs::read_dir(process.file("task")) else { continue };
        for thread in threads.flatten().take(8) {
            let read = |name: &str| fs::read_to_string(thread.path().join(name)).unwrap_or_default();
            let name = thread.file_name();
            let stack: Vec<String> = read("stack").lines().take(12).map(|line| line.replace("[<0>] ", "")).collect();
            let place = (read("wchan"), read("syscall"));
            let _ = writeln!(text, "  {name:?} {} {} {}", place.0, place.1.trim(), stack.join(" < "));
        }
    }
    text
}
