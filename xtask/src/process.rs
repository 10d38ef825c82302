//! Programs that are started, watched, stopped and always ended, also on Ctrl-C.
//!
//! Each program leads a process group of its own; the group is what is watched and killed, so that the compiler under
//! a driver and the server under a launcher are found and end too.

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often a condition of a process is looked at.
const POLL: Duration = Duration::from_millis(2);
/// A stop takes effect when each thread returns to user space, or sleeps.
const STOP_DEADLINE: Duration = Duration::from_secs(10);
/// The same, of a program whose run time is a figure.
const CLOSE_POLL: Duration = Duration::from_micros(500);
/// What is kept of a program's output.
const HEAD_BYTES: usize = 64 << 10;
/// Lines a program may be ahead of us.
const LINES_AHEAD: usize = 256;

/// What undoes a change to the machine. It runs while the list of what is ours is held, so it starts nothing of ours.
pub(crate) type Undo = Box<dyn Fn() + Send>;

/// What must not outlive this process.
#[derive(Default)]
struct Ours {
    groups: Vec<Pid>,
    directories: Vec<PathBuf>,
    changes: Vec<(u64, Undo)>,
    next_change: u64,
}

/// Guards the list of what is ours. A leaf: nothing is locked while it is held.
static OURS: Mutex<Ours> =
    Mutex::new(Ours { groups: Vec::new(), directories: Vec::new(), changes: Vec::new(), next_change: 0 });

fn ours() -> MutexGuard<'static, Ours> {
    // The lists stay valid whatever a panicking thread was doing with them.
    OURS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends every program and removes every directory of ours when this process is told to end.
pub(crate) fn clean_up_on_signals() -> Result<()> {
    ctrlc::set_handler(|| {
        // Held until the exit, so that nothing is started any more.
        let ours = ours();
        for &group in &ours.groups {
            // It may have ended by itself, which is as good.
            let _ = kill_process_group(group, Signal::KILL);
        }
        for (_, undo) in ours.changes.iter().rev() {
            undo();
        }
        for directory in &ours.directories {
            let _ = fs::remove_dir_all(directory);
        }
        std::process::exit(130);
    })
    .context("cannot watch for Ctrl-C")
}

/// A directory that is removed when this value is dropped, or on Ctrl-C.
#[derive(Debug)]
pub(crate) struct Scratch {
    /// Where it is.
    pub(crate) path: PathBuf,
}

impl Scratch {
    /// Makes a directory that every user may enter: a database server does not run as root.
    pub(crate) fn new(name: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        ours().directories.push(path.clone());
        Ok(Self { path })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        ours().directories.retain(|path| *path != self.path);
        if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// A change to the machine that is undone when this value is dropped, or on Ctrl-C.
#[derive(Debug)]
pub(crate) struct Change {
    id: u64,
}

impl Change {
    /// Makes a change; tells what came of it, and how it is undone. No Ctrl-C comes between the two.
    pub(crate) fn make<T>(change: impl FnOnce() -> Result<(T, Undo)>) -> Result<(T, Self)> {
        let mut ours = ours();
        let (made, undo) = change()?;
        let id = ours.next_change;
        ours.next_change += 1;
        ours.changes.push((id, undo));
        Ok((made, Self { id }))
    }
}

impl Drop for Change {
    fn drop(&mut self) {
        let mut ours = ours();
        if let Some(at) = ours.changes.iter().position(|(id, _)| *id == self.id) {
            (ours.changes.remove(at).1)();
        }
    }
}

/// A program that runs until this value is dropped.
#[derive(Debug)]
pub(crate) struct Program {
    child: Child,
    group: Pid,
    lines: Receiver<String>,
    stdin: Option<ChildStdin>,
}

impl Program {
    /// Starts a program in a process group of its own, its output ours to read line by line.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let mut program = Self::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        let stdout = program.child.stdout.take().context("the program has no output")?;
        program.stdin = program.child.stdin.take();
        program.lines = read_lines(stdout);
        Ok(program)
    }

    fn spawn(command: &mut Command) -> Result<Self> {
        let name = name(command);
        let mut ours = ours();
        let child = command.process_group(0).spawn().with_context(|| format!("cannot start {name}"))?;
        let group = pid(child.id())?;
        ours.groups.push(group);
        Ok(Self { child, group, lines: channel().1, stdin: None })
    }

    /// The id of the process that was started.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What the program reads.
    pub(crate) fn stdin(&mut self) -> Result<&mut ChildStdin> {
        self.stdin.as_mut().context("the program's input is closed")
    }

    /// Waits for a line of output that contains `text`.
    pub(crate) fn wait_for_line(&mut self, text: &str, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        let mut last = String::new();
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if line.contains(text) => return Ok(()),
                Ok(line) => last = line,
                Err(RecvTimeoutError::Timeout) => {
                    bail!("no line with {text:?} after {patience:?}; the last was {last:?}")
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.child.wait().context("cannot wait for the program")?;
                    bail!("ended ({status}) before its line with {text:?}; the last was {last:?}")
                }
            }
        }
    }

    /// Looks at the group until one process named `name` has `target_bytes` of anonymous memory; tells its id, or the
    /// peak that was seen when the program ended first.
    pub(crate) fn wait_for_memory(&mut self, name: &str, target_bytes: u64, patience: Duration) -> Result<Reached> {
        let deadline = Instant::now() + patience;
        let mut peak_bytes = 0;
        loop {
            for id in group_members(self.group, name)? {
                let bytes = anonymous_bytes(id).unwrap_or(0);
                peak_bytes = peak_bytes.max(bytes);
                if bytes >= target_bytes {
                    return Ok(Reached::Target { id });
                }
            }
            if self.status()?.is_some() {
                return Ok(Reached::Ended { peak_bytes });
            }
            ensure!(Instant::now() < deadline, "{name} had {} MiB after {patience:?}", peak_bytes >> 20);
            std::thread::sleep(POLL);
        }
    }

    fn status(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().context("cannot wait for the program")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // The leader is not reaped yet, so the id of the group cannot belong to anybody else.
        let _ = kill_process_group(self.group, Signal::KILL);
        ours().groups.retain(|group| *group != self.group);
        let _ = self.child.wait();
    }
}

/// How a program at work came to the end of the watch.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reached {
    /// The process `id` has the memory asked for.
    Target {
        /// Which process.
        id: u32,
    },
    /// The program ended first.
    Ended {
        /// The most memory that one process was seen to have.
        peak_bytes: u64,
    },
}

/// Runs a command to its end, its output going where ours goes; fails when it does, or when it takes longer than
/// `limit`: a test that hangs must not take the whole run with it.
pub(crate) fn run(command: &mut Command, limit: Duration) -> Result<()> {
    let name = name(command);
    let mut program = Program::spawn(command.stdin(Stdio::null()))?;
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = program.status()? {
            ensure!(status.success(), "{name} ended with {status}");
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{name} did not end in {limit:?}");
        std::thread::sleep(POLL);
    }
}

/// Runs a command to its end like [`run`]; what it printed.
pub(crate) fn output(command: &mut Command, limit: Duration) -> Result<String> {
    let deadline = Instant::now() + limit;
    let name = name(command);
    let mut program = Program::start(command)?;
    drop(program.stdin.take());
    let mut printed = String::new();
    loop {
        match program.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => printed = printed + &line + "\n",
            Err(RecvTimeoutError::Timeout) => bail!("{name} did not end in {limit:?}"),
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    let status = program.child.wait().context("cannot wait for the program")?;
    ensure!(status.success(), "{name} ended with {status}");
    Ok(printed)
}

/// How a program that was watched to its end came to it.
#[derive(Debug)]
pub(crate) struct Ended {
    /// How it ended; nothing when it was ended by us, for taking too long.
    pub(crate) status: Option<ExitStatus>,
    /// From its start to its end.
    pub(crate) wall: Duration,
    /// What it printed.
    pub(crate) stdout: Printed,
    /// What it complained of.
    pub(crate) stderr: Printed,
}

/// What was printed: its beginning, and a hash of all.
#[derive(Debug)]
pub(crate) struct Printed {
    /// The first [`HEAD_BYTES`].
    pub(crate) head: Vec<u8>,
    /// FNV-1a.
    pub(crate) hash: u64,
}

/// Runs a command to its end, whatever that is, or until `limit`.
pub(crate) fn observe(command: &mut Command, limit: Duration) -> Result<Ended> {
    let start = Instant::now();
    let mut program = Program::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()))?;
    let stdout = take_in(program.child.stdout.take().context("the program has no output")?);
    let stderr = take_in(program.child.stderr.take().context("the program has no error output")?);
    let mut status = program.status()?;
    while status.is_none() && start.elapsed() < limit {
        std::thread::sleep(CLOSE_POLL);
        status = program.status()?;
    }
    let wall = start.elapsed();
    drop(program);
    // Somebody who outlives the program may hold its pipes.
    let printed = |pipe: Receiver<Printed>| pipe.recv_timeout(STOP_DEADLINE).context("its output stays open");
    Ok(Ended { status, wall, stdout: printed(stdout)?, stderr: printed(stderr)? })
}

/// All that comes out of a pipe, through a thread that ends with the pipe.
fn take_in(mut pipe: impl Read + Send + 'static) -> Receiver<Printed> {
    let (sender, receiver) = sync_channel(1);
    std::thread::spawn(move || {
        let mut printed = Printed { head: Vec::new(), hash: 0xcbf2_9ce4_8422_2325 };
        let mut buffer = vec![0; HEAD_BYTES];
        while let Ok(length @ 1..) = pipe.read(&mut buffer) {
            let room = HEAD_BYTES.saturating_sub(printed.head.len()).min(length);
            printed.head.extend_from_slice(&buffer[..room]);
            for &byte in &buffer[..length] {
                printed.hash = (printed.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
        // Nobody may be waiting any more.
        let _ = sender.send(printed);
    });
    receiver
}

/// The name of a command, without its folder.
fn name(command: &Command) -> String {
    let program = Path::new(command.get_program());
    program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned()
}

/// Stops a process, and returns when every thread of it stands still.
pub(crate) fn stop(id: u32) -> Result<()> {
    kill_process(pid(id)?, Signal::STOP).with_context(|| format!("cannot stop {id}"))?;
    let deadline = Instant::now() + STOP_DEADLINE;
    while !stands_still(id)? {
        ensure!(Instant::now() < deadline, "{id} did not stop in {STOP_DEADLINE:?}");
        std::thread::sleep(POLL);
    }
    Ok(())
}

fn stands_still(id: u32) -> Result<bool> {
    for task in fs::read_dir(format!("/proc/{id}/task")).with_context(|| format!("{id} is gone"))? {
        let stat = fs::read_to_string(task?.path().join("stat"));
        if !matches!(stat.as_deref().ok().and_then(Stat::parse), Some(Stat { state: "T" | "t" | "Z", .. })) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Anonymous memory of a process that is resident now; nothing when it is gone.
pub(crate) fn anonymous_bytes(id: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib << 10)
}

/// The fields we need of `/proc/PID/stat`.
struct Stat<'a> {
    name: &'a str,
    state: &'a str,
    group: &'a str,
}

impl<'a> Stat<'a> {
    fn parse(stat: &'a str) -> Option<Self> {
        // pid (name) state ppid pgrp ...; the name may hold blanks and brackets.
        let (before, after) = stat.rsplit_once(')')?;
        let (_, name) = before.split_once('(')?;
        let mut fields = after.split_whitespace();
        let state = fields.next()?;
        let group = fields.nth(1)?;
        Some(Self { name, state, group })
    }
}

fn group_members(group: Pid, name: &str) -> Result<Vec<u32>> {
    let group = group.as_raw_nonzero().to_string();
    let mut members = Vec::new();
    for entry in fs::read_dir("/proc").context("cannot read /proc")? {
        let entry = entry.context("cannot read /proc")?;
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else {
            continue;
        };
        if Stat::parse(&stat).is_some_and(|stat| stat.group == group && stat.name == name) {
            members.push(id);
        }
    }
    Ok(members)
}

fn pid(id: u32) -> Result<Pid> {
    i32::try_from(id).ok().and_then(Pid::from_raw).with_context(|| format!("{id} is no process id"))
}

/// Lines of a pipe, through a thread, since a pipe's read has no deadline. The thread ends with the pipe.
fn read_lines(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = sync_channel(LINES_AHEAD);
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            // After the receiver is gone the pipe is still drained, so that the program is not blocked by it.
            let _ = sender.send(line);
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_may_hold_brackets() {
        let stat = Stat::parse("12 (a) b (c) S 1 77 12").unwrap();
        assert_eq!((stat.name, stat.state, stat.group), ("a) b (c", "S", "77"));
    }

    #[test]
    fn a_dropped_program_is_gone() {
        let mut program = Program::start(Command::new("sh").args(["-c", "echo ready; exec sleep 600"])).unwrap();
        program.wait_for_line("ready", Duration::from_secs(10)).unwrap();
        let id = program.id();
        stop(id).unwrap();
        drop(program);
        assert!(!fs::exists(format!("/proc/{id}")).unwrap());
    }
}
