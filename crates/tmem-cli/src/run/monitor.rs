//! The process behind a run: it serves the programs, and outlives the front for as long as any of them lives.
//!
//! It starts as a copy of the front. It holds nothing of the user's but the standard error output, for panics, and gives
//! that up once the front has ended: a pipe that it kept open would keep its reader waiting.

use super::lent::Image;
use super::link::{Link, Received, ToFront, ToMonitor};
use crate::cli;
use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::collections::VecDeque;
use std::ffi::CStr;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;
use tmem_pager::{Monitor, Options};

/// How often notes are looked for, and, without a front, whether any program still lives.
const PERIOD: Duration = Duration::from_millis(100);
/// Programs that connect at one moment.
const BACKLOG: i32 = 1024;
/// Lines kept for a front that does not read: one that is stopped.
const UNREAD: usize = 256;

/// What `ps` and `pgrep` call it.
const NAME: &CStr = c"tmem-monitor";

/// Serves until the front has ended and no program lives any more. Returns what this process ends with.
pub(super) fn run(options: &cli::Run, link: Link) -> i32 {
    settle();
    match start(options) {
        Ok((monitor, ready, _image)) => {
            let mut serving = Serving { link: Some(link), unsent: VecDeque::from([ready]) };
            serving.until_all_is_over(&monitor);
            monitor.stop();
            0
        }
        Err(error) => {
            // Without a front nobody is to be told.
            let _ = link.send(&ToFront::Failed(format!("{error:#}")));
            1
        }
    }
}

/// Makes this process one that signals and shortages meant for others pass by. None of it is needed to work, so what
/// is not permitted is left.
fn settle() {
    let _ = rustix::thread::set_name(NAME);
    let _ = rustix::process::setsid();
    let _ = rustix::process::chdir("/");
    super::leave_standard_streams();
    let files = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: files.maximum, maximum: files.maximum });
    let _ = fs::write("/proc/self/oom_score_adj", "-500");
    let _ = rustix::process::configure_io_flusher_behavior(true);
}

/// The monitor, what the front is to know, and the file of the agent, which is there as long as this value.
fn start(options: &cli::Run) -> Result<(Monitor, ToFront, Image)> {
    let (socket, listener) = listener().context("cannot make a socket")?;
    let options = Options { limit_bytes: options.memory as u64, policy: options.policy, on_full: options.on_full };
    // Beside the store: programs wait for both.
    let image = thread::spawn(Image::new);
    let monitor = Monitor::start(&options, listener)?;
    let image = image.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    let image = image.context("cannot make the file of the agent")?;
    Ok((monitor, ToFront::Ready { socket, agent: image.path() }, image))
}

/// A listening socket with an abstract name that nobody guesses.
fn listener() -> Result<(String, OwnedFd)> {
    let name = format!("tmem-{:032x}", u128::from_le_bytes(tmem_sys::random_bytes()?));
    let listener = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    bind(&listener, &SocketAddrUnix::new_abstract_name(name.as_bytes())?)?;
    listen(&listener, BACKLOG)?;
    Ok((name, listener))
}

/// The front's side of the monitor.
#[derive(Debug)]
struct Serving {
    /// `None` once the front has ended.
    link: Option<Link>,
    /// What the front had no room for yet.
    unsent: VecDeque<ToFront>,
}

impl Serving {
    fn until_all_is_over(&mut self, monitor: &Monitor) {
        while self.link.is_some() || monitor.managed() > 0 {
            while let Some(asked) = self.receive() {
                let answer = match asked {
                    ToMonitor::Live => ToFront::Live(monitor.live()),
                    ToMonitor::Finish => ToFront::Report(Box::new(monitor.report())),
                };
                // Why a program ended comes before how it was: the front listens no longer than to that.
                self.tell(monitor);
                self.unsent.push_back(answer);
            }
            self.tell(monitor);
            self.send();
            self.wait();
        }
    }

    /// What people are to be told, in the order in which it happened.
    fn tell(&mut self, monitor: &Monitor) {
        self.unsent.extend(monitor.notes().into_iter().map(ToFront::Note));
    }

    /// Until the front asks, or a while has passed.
    fn wait(&self) {
        let Some(link) = &self.link else {
            thread::sleep(PERIOD);
            return;
        };
        let patience = Timespec::try_from(PERIOD).ok();
        // An interrupted wait is a short one.
        let _ = poll(&mut [PollFd::new(link, PollFlags::IN)], patience.as_ref());
    }

    fn receive(&mut self) -> Option<ToMonitor> {
        match self.link.as_ref()?.receive() {
            Received::Message(asked) => Some(asked),
            Received::Nothing => None,
            Received::End => {
                self.front_ended();
                None
            }
        }
    }

    fn send(&mut self) {
        while let (Some(link), Some(message)) = (&self.link, self.unsent.front()) {
            if link.send(message).is_err() {
                break;
            }
            self.unsent.pop_front();
        }
        // A front that is stopped loses the oldest lines, nothing that it asked for.
        let surplus = self.unsent.len().saturating_sub(UNREAD);
        self.unsent.drain(..surplus);
    }

    fn front_ended(&mut self) {
        self.link = None;
        self.unsent.clear();
        if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
            let _ = rustix::stdio::dup2_stderr(&null);
        }
    }
}
