//! `tmem run`: a program within a limit of memory.
//!
//! | process | does |
//! |---|---|
//! | the front, this module | starts the others, stands where the program would, shows what happens, ends as it does |
//! | [`monitor`] | owns the store and serves the programs; a session of its own, ends with the last of them |
//! | the holder | has the file of the agent, where the monitor cannot: see [`lent`] |
//! | the program | loads the agent, and so does everything that it starts |
//!
//! Whatever of it dies, no program goes on with memory that it cannot get back: the agents see to that for their
//! programs, and the front ends the whole tree if it sees the monitor die.

mod display;
pub(crate) mod lent;
mod link;
mod monitor;
mod program;
mod record;
mod signals;

use crate::{cli, doctor, tree};
use display::Display;
use link::{Link, Received, ToFront, ToMonitor};
use record::Record;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait};
use signals::{Arrived, Signals};
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};
use tmem_agent::protocol::SOCKET_VARIABLE;
use tmem_pager::Report;

/// A monitor is ready in milliseconds; a loaded machine may take its time.
const START_PATIENCE: Duration = Duration::from_secs(20);
/// What a monitor may take for its last word.
const END_PATIENCE: Duration = Duration::from_secs(5);
/// What the kernel may take to end killed processes.
const KILL_PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at processes that are about to end.
const KILL_PERIOD: Duration = Duration::from_millis(10);
/// Also children that do not signal their end with SIGCHLD (`__WALL`, include/uapi/linux/wait.h).
const ALL_CHILDREN: WaitOptions = WaitOptions::from_bits_retain(0x4000_0000);
/// The text is no program of any kind that the kernel knows.
const ENOEXEC: i32 = 8;

/// tmem itself failed, or could not start the program.
#[derive(Debug)]
struct Failure {
    /// 125, 126 or 127, as `env` and `timeout` have it.
    status: u8,
    words: String,
}

impl Failure {
    fn new(status: u8, words: String) -> Self {
        Self { status, words }
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(125, format!("{:#}", error.into()))
    }
}

/// Runs a program to its end.
pub(crate) fn run(options: &cli::Run) -> ExitCode {
    let mut display = if options.quiet { Display::quiet() } else { Display::live() };
    let ended = start(options, &mut display).and_then(|front| front.accompany(options, &mut display));
    ExitCode::from(ended.unwrap_or_else(|failure| {
        display.note(&failure.words);
        failure.status
    }))
}

/// A program that runs under a monitor.
#[derive(Debug)]
struct Front {
    program: Pid,
    started: Instant,
    link: Link,
    signals: Signals,
    record: Option<Record>,
    /// The program is stopped, by whomever.
    is_stopped: bool,
}

/// Checks everything before the program is started; meanwhile the monitor gets ready, and ends with its link if
/// something is lacking.
fn start(options: &cli::Run, display: &mut Display) -> Result<Front, Failure> {
    if std::env::var_os(SOCKET_VARIABLE).is_some() {
        let words = format!("this is already under `tmem run` ({SOCKET_VARIABLE} is set): limits do not nest");
        return Err(Failure::new(125, words));
    }
    // Before there are handlers of signals, which it is not to have.
    let link = start_monitor(options);
    tmem_pager::rights().map_err(|lacks| Failure::new(125, doctor::words(&lacks)))?;
    let path = program::find(&options.program[0])?;
    let record = options.report.as_deref().map(Record::new).transpose()?;
    if let Some(why) = program::unmanaged(&path) {
        display.note(&format!("{} runs outside of the limit: {why}", path.display()));
    }
    let mut signals = Signals::watch()?;
    // Agents, and programs whose parents end before them, become children of this process.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let link = link?;
    let (socket, agent) = until_ready(&link)?;
    // Until now nobody else could act on them.
    if let Some(ending) = signals.arrived().into_iter().find(|arrived| arrived.is_ending()) {
        return Err(Failure::new(status_of(ending.signal.as_raw()), "ended before the program was started".into()));
    }
    let program = start_program(&path, options, socket, agent)?;
    leave_standard_streams();
    lent::give_up()?;
    Ok(Front { program, started: Instant::now(), link, signals, record, is_stopped: false })
}

/// Starts the monitor: a copy of this process, which is ready sooner than one that has to be loaded.
fn start_monitor(options: &cli::Run) -> Result<Link, Failure> {
    let (link, end) = Link::pair()?;
    tmem_sys::start_copy(end, |end| monitor::run(options, Link::new(end)))?;
    Ok(link)
}

/// What has to be in the environment of programs: the socket's name, and the agent's path if there is one.
fn until_ready(link: &Link) -> Result<(String, Option<String>), Failure> {
    let deadline = Instant::now() + START_PATIENCE;
    while let Some(received) = receive_until(link, deadline) {
        match received {
            Received::Message(ToFront::Ready { socket, agent }) => return Ok((socket, agent)),
            Received::Message(ToFront::Failed(why)) => return Err(Failure::new(125, why)),
            Received::End => return Err(Failure::new(125, "the monitor ended while it started".into())),
            Received::Message(_) | Received::Nothing => {}
        }
    }
    Err(Failure::new(125, format!("the monitor was not ready within {} s", START_PATIENCE.as_secs())))
}

/// What comes over the link; nothing after the deadline.
fn receive_until(link: &Link, deadline: Instant) -> Option<Received<ToFront>> {
    let left = deadline.checked_duration_since(Instant::now())?;
    // An interrupted wait is a short one.
    let _ = poll(&mut [PollFd::new(link, PollFlags::IN)], Timespec::try_from(left).ok().as_ref());
    Some(link.receive())
}

fn start_program(path: &Path, options: &cli::Run, socket: String, agent: Option<String>) -> Result<Pid, Failure> {
    let mut command = Command::new(path);
    command.arg0(&options.program[0]).args(&options.program[1..]);
    let as_made = lent::environment()?;
    let environment = |command: &mut Command| {
        if let Some(variables) = &as_made {
            command.env_clear().envs(variables.iter().map(|(name, value)| (name, value)));
        }
        command.env(SOCKET_VARIABLE, &socket);
        if let Some(agent) = &agent {
            let others = match &as_made {
                Some(variables) => variables.iter().find(|(name, _)| name == "LD_PRELOAD").map(|pair| pair.1.clone()),
                None => std::env::var_os("LD_PRELOAD"),
            };
            command.env("LD_PRELOAD", preloads(agent, others));
        }
    };
    environment(&mut command);
    let mut started = spawn(&mut command);
    if started.as_ref().is_err_and(|error| error.raw_os_error() == Some(ENOEXEC)) {
        // A script without a first line that says of what kind: the C library and all shells take it for theirs.
        let mut shell = Command::new("/bin/sh");
        shell.arg(path).args(&options.program[1..]);
        environment(&mut shell);
        started = spawn(&mut shell);
    }
    started.map_err(|error| Failure::new(126, format!("cannot execute {}: {error}", path.display())))
}

/// The agent before what is preloaded already.
fn preloads(agent: &str, others: Option<OsString>) -> OsString {
    let mut preloads = OsString::from(agent);
    if let Some(others) = others.filter(|others| !others.is_empty()) {
        preloads.push(":");
        preloads.push(others);
    }
    preloads
}

/// Starts a process, which is waited for together with all others.
fn spawn(command: &mut Command) -> std::io::Result<Pid> {
    let child = command.spawn()?;
    let number = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    number.ok_or_else(|| std::io::Error::other("a process without a number"))
}

/// They are the program's: a pipe that this process kept open would keep its reader, or its writer, waiting.
fn leave_standard_streams() {
    if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdin(&null);
        let _ = rustix::stdio::dup2_stdout(&null);
    }
}

/// What a shell tells of a program that died of a signal.
fn status_of(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(u8::MAX)
}

impl Front {
    /// Stays until the program ends. Returns what this process ends with.
    fn accompany(mut self, options: &cli::Run, display: &mut Display) -> Result<u8, Failure> {
        let status = loop {
            self.wait_for_something(display.patience());
            for arrived in self.signals.arrived() {
                self.pass_on(arrived);
            }
            self.hear(display)?;
            if let Some(status) = self.reap(display) {
                break status;
            }
            if display.is_due() {
                // It answers when it can.
                let _ = self.link.send(&ToMonitor::Live);
            }
        };
        let wall_s = self.started.elapsed().as_secs_f64();
        let Some(report) = self.last_report(display)? else {
            display.note("the monitor does not answer: there is no report");
            return Ok(status);
        };
        let report = Report { wall_s, exit_status: Some(status), ..report };
        if !options.quiet {
            display.table(&report);
        }
        display.clear();
        match self.record.as_ref().map_or(Ok(()), |record| record.write(&report)) {
            Err(error) if status == 0 => Err(error.into()),
            Err(error) => {
                display.note(&format!("{error:#}"));
                Ok(status)
            }
            Ok(()) => Ok(status),
        }
    }

    /// Until a signal or a message comes, or it is time for the live line.
    fn wait_for_something(&self, patience: Option<Duration>) {
        let patience = patience.and_then(|patience| Timespec::try_from(patience).ok());
        let mut sources = [PollFd::new(&self.signals, PollFlags::IN), PollFd::new(&self.link, PollFlags::IN)];
        // An interrupted wait is a short one.
        let _ = poll(&mut sources, patience.as_ref());
    }

    fn pass_on(&self, arrived: Arrived) {
        if arrived.signal == Signal::CHILD {
            return;
        }
        // It may have ended meanwhile: then there is nobody to tell.
        if !arrived.from_terminal {
            let _ = kill_process(self.program, arrived.signal);
        }
        // A program that is stopped would not hear that it is to end.
        if arrived.is_ending() && self.is_stopped {
            let _ = kill_process(self.program, Signal::CONT);
        }
    }

    /// Takes what the monitor has to say.
    fn hear(&self, display: &mut Display) -> Result<(), Failure> {
        loop {
            match self.link.receive() {
                Received::Message(message) => tell(message, display),
                Received::Nothing => return Ok(()),
                Received::End => return Err(monitor_died()),
            }
        }
    }

    /// Waits for every child that has ended. Returns the program's status if it was among them.
    fn reap(&mut self, display: &mut Display) -> Option<u8> {
        let mut ended = None;
        let options = WaitOptions::NOHANG | WaitOptions::UNTRACED | WaitOptions::CONTINUED | ALL_CHILDREN;
        loop {
            match wait(options) {
                Ok(Some((pid, status))) if pid == self.program => {
                    ended = self.program_changed(status, display).or(ended)
                }
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) | Err(_) => return ended,
            }
        }
    }

    fn program_changed(&mut self, status: WaitStatus, display: &mut Display) -> Option<u8> {
        self.is_stopped = status.stopped();
        if let Some(signal) = status.stopping_signal() {
            let by_terminal = [Signal::TSTP, Signal::TTIN, Signal::TTOU].map(Signal::as_raw).contains(&signal);
            // SIGSTOP is left alone: the monitor stops programs with it, and that is when this process has to speak.
            if by_terminal {
                display.clear();
                let _ = kill_process(rustix::process::getpid(), Signal::STOP);
                // The shell goes on with its job: this process runs again.
                let _ = kill_process(self.program, Signal::CONT);
            }
            return None;
        }
        // A status is a byte; only the low eight bits ever arrive.
        let exited = status.exit_status().map(|status| u8::try_from(status & 0xff).unwrap_or(u8::MAX));
        exited.or_else(|| status.terminating_signal().map(status_of))
    }

    /// The monitor's last word; nothing if it has none.
    fn last_report(&self, display: &mut Display) -> Result<Option<Report>, Failure> {
        let deadline = Instant::now() + END_PATIENCE;
        let mut asked = false;
        while let Some(received) = {
            asked = asked || self.link.send(&ToMonitor::Finish).is_ok();
            receive_until(&self.link, deadline)
        } {
            match received {
                Received::Message(ToFront::Report(report)) => return Ok(Some(*report)),
                Received::Message(message) => tell(message, display),
                Received::Nothing => {}
                Received::End => return Err(monitor_died()),
            }
        }
        Ok(None)
    }
}

fn tell(message: ToFront, display: &mut Display) {
    match message {
        ToFront::Note(text) | ToFront::Failed(text) => display.note(&text),
        ToFront::Live(live) => display.show(&live),
        ToFront::Ready { .. } | ToFront::Report(_) => {}
    }
}

/// Ends every program: what was moved out of their memory is gone.
fn monitor_died() -> Failure {
    let this = std::process::id();
    let deadline = Instant::now() + KILL_PATIENCE;
    let mut killed = std::collections::BTreeSet::new();
    loop {
        let living = tree::descendants(this);
        for pid in living.iter().filter_map(|pid| Pid::from_raw(i32::try_from(*pid).ok()?)) {
            // It may have ended by itself, which is as good.
            let _ = kill_process(pid, Signal::KILL);
        }
        killed.extend(living.iter().copied());
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG | ALL_CHILDREN) {}
        if living.is_empty() {
            break;
        }
        if Instant::now() > deadline {
            let words = format!("the monitor died, and processes {living:?} do not end although they were killed");
            return Failure::new(125, words);
        }
        std::thread::sleep(KILL_PERIOD);
    }
    let words =
        format!("the monitor died; with it the memory of its programs is lost: {} processes were killed", killed.len());
    Failure::new(125, words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_preloaded_already_stays() {
        assert_eq!(preloads("/a", None), "/a");
        assert_eq!(preloads("/a", Some("".into())), "/a");
        assert_eq!(preloads("/a", Some("/b.so /c.so".into())), "/a:/b.so /c.so");
    }
}
