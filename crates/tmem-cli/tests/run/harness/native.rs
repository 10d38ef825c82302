//! The same programs without tmem.

use super::processes::{Process, Tree, marked, pause};
use super::{MARK, PATIENCE};
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How a program ran by itself.
#[derive(Debug)]
pub(crate) struct Native {
    /// What it printed.
    pub(crate) stdout: String,
    /// The most private memory that all its processes had at once, as far as was seen.
    pub(crate) peak_bytes: u64,
    /// How long it took.
    pub(crate) wall: Duration,
}

/// Runs a program without tmem and looks at its memory all the while; it must succeed.
#[track_caller]
pub(crate) fn measure(path: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Native {
    let mark = format!("native-{}-{:?}", std::process::id(), std::thread::current().id());
    let file = std::env::temp_dir().join(format!("tmem-{mark}"));
    let started = Instant::now();
    let mut command = Command::new(path);
    command.args(arguments).envs(environment.iter().copied()).env(MARK, &mark);
    let output = File::create(&file).unwrap();
    let _tree = Tree(mark.clone());
    let mut child = command.stdin(Stdio::null()).stdout(output).stderr(Stdio::null()).spawn().unwrap();
    let mut peak = 0;
    let status = loop {
        let kib: u64 = marked(&mark).iter().map(|process: &Process| process.kib("status", "RssAnon")).sum();
        peak = peak.max(kib << 10);
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(started.elapsed() < PATIENCE, "{} does not end without tmem either", path.display());
        pause();
    };
    let stdout = fs::read_to_string(&file).unwrap_or_default();
    let _ = fs::remove_file(&file);
    assert!(status.success(), "{} {arguments:?} fails without tmem: {status}, {stdout}", path.display());
    Native { stdout, peak_bytes: peak, wall: started.elapsed() }
}
