//! Daemons that the tests start, and clients of them.

mod churn;
mod guest;
#[path = "../../../../tmem/tests/support/random.rs"]
#[allow(dead_code, unreachable_pub, reason = "the engine's tests use more of it, in several files")]
mod random;
mod raw;

pub(crate) use churn::Churn;
pub(crate) use guest::Guest;
pub(crate) use random::Random;
pub(crate) use raw::Raw;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs::{self, File};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// What has not happened by now never will.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The command that is tested.
pub(crate) const TMEM: &str = env!("CARGO_BIN_EXE_tmem");

/// A folder that goes away with the test.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        // Relaxed: only each number's being another counts.
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("tmem-serve-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// `tmem` with these arguments, run to its end.
pub(crate) fn tmem(arguments: &[&str]) -> Output {
    Command::new(TMEM).args(arguments).stdin(Stdio::null()).env_remove("NOTIFY_SOCKET").output().unwrap()
}

/// It fails with 1, says this, and prints nothing.
#[track_caller]
pub(crate) fn fails(arguments: &[&str], saying: &[&str]) {
    let output = tmem(arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(matches!(output.status.code(), Some(1 | 2)), "{:?}: {said}", output.status);
    assert!(saying.iter().all(|words| said.contains(words)) && !said.contains("panicked"), "{said}");
    assert!(output.stdout.is_empty());
}

/// What the daemon tells its service manager.
#[derive(Debug)]
pub(crate) struct Manager(UnixDatagram);

impl Manager {
    pub(crate) fn new(scratch: &Scratch) -> (Self, PathBuf) {
        let path = scratch.path("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        (Self(socket), path)
    }

    /// The next message, which has this line.
    #[track_caller]
    pub(crate) fn hears(&self, line: &str) -> String {
        let mut bytes = [0; 4096];
        let len = self.0.recv(&mut bytes).unwrap_or_else(|error| panic!("no {line}: {error}"));
        let message = String::from_utf8_lossy(&bytes[..len]).into_owned();
        assert!(message.lines().any(|told| told == line), "{message} instead of {line}");
        message
    }
}

/// A daemon.
#[derive(Debug)]
pub(crate) struct Serving {
    pub(crate) child: Child,
    pub(crate) manager: Manager,
    pub(crate) scratch: Scratch,
}

/// What is left of one.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    /// What it has told.
    pub(crate) log: String,
    pub(crate) scratch: Scratch,
}

impl Serving {
    /// Starts one of 64 MiB and waits until it is ready.
    pub(crate) fn start(options: &[&str]) -> Self {
        Self::start_in(Scratch::new(), &[&["--budget", "64m"], options].concat())
    }

    /// Starts one, which may find something in its folder.
    pub(crate) fn start_in(scratch: Scratch, options: &[&str]) -> Self {
        let mut command = Command::new(TMEM);
        command.arg("serve").arg("--socket").arg(scratch.path("socket")).args(options);
        Self::start_command(scratch, command)
    }

    /// Starts one by any command.
    pub(crate) fn start_command(scratch: Scratch, mut command: Command) -> Self {
        let _ = fs::remove_file(scratch.path("notify"));
        let (manager, notify) = Manager::new(&scratch);
        let log = File::create(scratch.path("log")).unwrap();
        command.env("NOTIFY_SOCKET", notify).stdout(Stdio::null()).stderr(log);
        let serving = Self { child: command.spawn().unwrap(), manager, scratch };
        serving.manager.hears("READY=1");
        serving
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.scratch.path("socket")
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.scratch.path("log")).unwrap()
    }

    /// The log, when these words are in it.
    #[track_caller]
    pub(crate) fn tells(&self, words: &str) -> String {
        let start = Instant::now();
        loop {
            let log = self.log();
            if log.contains(words) {
                return log;
            }
            assert!(start.elapsed() < PATIENCE, "it does not tell: {words}\n{log}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end.
    pub(crate) fn ended(mut self) -> Ended {
        let status = wait(&mut self.child, PATIENCE).expect("it does not end");
        let log = self.log();
        Ended { status, log, scratch: std::mem::replace(&mut self.scratch, Scratch::new()) }
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn end(self) -> Ended {
        self.signal(Signal::TERM);
        self.ended()
    }

    /// `tmem client` on it.
    #[track_caller]
    pub(crate) fn control(&self, verb: &[&str]) {
        let output = tmem(&[&["client", "--socket", text(&self.socket())], verb].concat());
        assert!(output.status.success(), "{verb:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
    }

    /// What `tmem stat --json` prints of it.
    #[track_caller]
    pub(crate) fn stat(&self) -> Value {
        let output = tmem(&["stat", "--socket", text(&self.socket()), "--json", "--interval", "0.01"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// What it prints of one client.
    #[track_caller]
    pub(crate) fn stat_of(&self, guest: &Guest) -> Value {
        let stat = self.stat();
        let mut clients = stat["clients"].as_array().unwrap().iter();
        clients.find(|client| client["client"] == guest.id()).unwrap_or_else(|| panic!("not in {stat:#}")).clone()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for the end of a process, so long.
pub(crate) fn wait(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let start = Instant::now();
    loop {
        match child.try_wait().unwrap() {
            None if start.elapsed() < patience => std::thread::sleep(Duration::from_millis(1)),
            ended => return ended,
        }
    }
}

/// A path as an argument.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
