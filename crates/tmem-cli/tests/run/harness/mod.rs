//! Runs a program under `tmem run`, watches it, and checks what is true of every run.

mod native;
mod processes;
mod report;

pub(crate) use native::{Native, measure};
pub(crate) use processes::{Process, Tree, pause};
pub(crate) use report::Report;

use processes::{diagnose, end, marked, tree};
use rustix::process::Signal;
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A run that has not ended by now hangs.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long processes of a run may go on after its end.
const FAREWELL: Duration = Duration::from_secs(5);
/// In the environment of every process of a run: which run.
pub(crate) const MARK: &str = "TMEM_TEST_RUN";

/// The command that is tested.
pub(crate) const TMEM: &str = env!("CARGO_BIN_EXE_tmem");

/// A run to be started.
#[derive(Debug)]
pub(crate) struct Run {
    limit: String,
    options: Vec<String>,
    program: Vec<OsString>,
    environment: Vec<(String, String)>,
    survivors: bool,
}

impl Run {
    /// Under this limit; `None` where tmem cannot page, with the reason printed.
    pub(crate) fn new(limit: &str) -> Option<Self> {
        static READY: OnceLock<Result<(), String>> = OnceLock::new();
        if let Err(why) = READY.get_or_init(ready) {
            eprintln!("skipped: {why}");
            return None;
        }
        let limit = limit.to_owned();
        Some(Self { limit, options: Vec::new(), program: Vec::new(), environment: Vec::new(), survivors: false })
    }

    /// A case of the subject, with its options.
    pub(crate) fn subject(self, case: &str, arguments: &[&str]) -> Self {
        let arguments: Vec<&str> = [case].iter().chain(arguments).copied().collect();
        self.program(subject(), &arguments)
    }

    /// Any program.
    pub(crate) fn program(mut self, path: impl AsRef<Path>, arguments: &[&str]) -> Self {
        self.program = vec![path.as_ref().into()];
        self.program.extend(arguments.iter().map(OsString::from));
        self
    }

    /// An option of `tmem run`.
    pub(crate) fn option(mut self, name: &str, value: &str) -> Self {
        self.options.extend([name.to_owned(), value.to_owned()]);
        self
    }

    /// A variable of the program's environment.
    pub(crate) fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Processes of the run may outlive it.
    pub(crate) fn with_survivors(mut self) -> Self {
        self.survivors = true;
        self
    }

    /// Starts it.
    pub(crate) fn start(self) -> Running {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        // Relaxed: only each number's being another counts.
        let mark = format!("{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(format!("tmem-run-{mark}"));
        fs::create_dir_all(&folder).unwrap();
        let file = |name: &str| File::create(folder.join(name)).unwrap();
        let mut command = Command::new(TMEM);
        command.args(["run", "--memory", &self.limit]).args(&self.options);
        command.arg("--report").arg(folder.join("report")).arg("--").args(&self.program);
        command.env(MARK, &mark).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(file("stdout")).stderr(file("stderr"));
        let child = command.spawn().unwrap();
        Running { child, mark, folder, run: self, started: Instant::now() }
    }

    /// Runs it to its end.
    pub(crate) fn finish(self) -> Ended {
        self.start().finish()
    }
}

/// Whether tmem can page here, and if not, why.
fn ready() -> Result<(), String> {
    let output = Command::new(TMEM).arg("doctor").stdin(Stdio::null()).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    match output.status.code() {
        Some(0) => Ok(()),
        Some(1) => Err(format!("tmem doctor: {}", said.trim())),
        other => {
            let in_ci = std::env::var_os("CI").is_some_and(|value| value == "true");
            assert!(!in_ci, "tmem doctor ended with {other:?}: {said}");
            Err(format!("tmem doctor ended with {other:?}"))
        }
    }
}

/// The subject, built once in the same way as the command that is tested.
pub(crate) fn subject() -> &'static Path {
    static SUBJECT: OnceLock<PathBuf> = OnceLock::new();
    SUBJECT.get_or_init(|| {
        let folder = Path::new(TMEM).parent().unwrap();
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args(["build", "--quiet", "--package", "tmem-subject", "--target-dir"]).arg(folder.parent().unwrap());
        if folder.ends_with("release") {
            command.arg("--release");
        }
        let built = command.current_dir(env!("CARGO_MANIFEST_DIR")).status();
        let path = folder.join("tmem-subject");
        assert!(built.is_ok_and(|status| status.success()) && path.exists(), "cannot build tmem-subject");
        path
    })
}

/// A run that goes on.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    mark: String,
    folder: PathBuf,
    run: Run,
    started: Instant,
}

impl Running {
    /// What the program has printed so far.
    pub(crate) fn stdout(&self) -> String {
        fs::read_to_string(self.folder.join("stdout")).unwrap_or_default()
    }

    /// What the program and tmem have said so far.
    pub(crate) fn stderr(&self) -> String {
        fs::read_to_string(self.folder.join("stderr")).unwrap_or_default()
    }

    /// The process `tmem run`.
    pub(crate) fn front(&self) -> Process {
        Process(self.child.id().cast_signed())
    }

    /// Every process of the run but zombies: front, monitor, programs, agents.
    pub(crate) fn processes(&self) -> Vec<Process> {
        marked(&self.mark)
    }

    /// The same, and what they started with another environment.
    pub(crate) fn tree(&self) -> Vec<Process> {
        tree(&self.mark)
    }

    /// The programs, first the one that was started first.
    pub(crate) fn programs(&self) -> Vec<Process> {
        let own = Path::new(TMEM).canonicalize().unwrap();
        let is_ours = |process: &Process| process.is_agent() || process.executable().is_some_and(|path| path == own);
        self.processes().into_iter().filter(|process| !is_ours(process)).collect()
    }

    /// The program itself.
    pub(crate) fn program(&self) -> Process {
        *self.programs().first().unwrap_or_else(|| panic!("no program runs: {}", self.stderr()))
    }

    /// The agents.
    pub(crate) fn agents(&self) -> Vec<Process> {
        self.processes().into_iter().filter(Process::is_agent).collect()
    }

    /// The monitor: the program was told to load its agent from that process.
    pub(crate) fn monitor(&self) -> Process {
        let preload = self.program().environment("LD_PRELOAD").expect("LD_PRELOAD is set");
        let id = preload.strip_prefix("/proc/").and_then(|rest| rest.split('/').next()?.parse().ok());
        Process(id.unwrap_or_else(|| panic!("no process in LD_PRELOAD={preload}")))
    }

    /// Waits until `reached`; fails when the run ends or hangs before.
    #[track_caller]
    pub(crate) fn until(&mut self, what: &str, mut reached: impl FnMut(&Self) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !reached(self) {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert!(reached(self), "ended ({status}) before {what}: {}\n{}", self.stdout(), self.stderr());
                return;
            }
            assert!(Instant::now() < end, "{what} does not come: {}", self.stop());
            pause();
        }
    }

    /// Waits until the subject says so on its standard output.
    #[track_caller]
    pub(crate) fn until_ready(&mut self) {
        self.until("ready", |run| run.stdout().contains("ready\n"));
    }

    /// Waits for the end, and checks what is true of every end.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Ended {
        let end = self.started + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < end, "the run hangs: {}", self.stop());
            pause();
        };
        let wall = self.started.elapsed();
        if !self.run.survivors {
            self.gone_within(FAREWELL);
        }
        let (stdout, stderr) = (self.stdout(), self.stderr());
        let report = fs::read_to_string(self.folder.join("report")).unwrap_or_default();
        let report = serde_json::from_str(&report).ok().map(Report);
        Ended { status, stdout, stderr, report, wall }
    }

    /// Waits until no process of the run is left.
    #[track_caller]
    pub(crate) fn gone_within(&mut self, limit: Duration) {
        let end = Instant::now() + limit;
        while !self.processes().is_empty() {
            // Reaps the front if it is a zombie.
            let _ = self.child.try_wait();
            assert!(Instant::now() < end, "processes are left after {limit:?}: {}", self.stop());
            pause();
        }
    }

    /// Kills everything of the run; how it stood.
    fn stop(&self) -> String {
        let processes = self.processes();
        let said = format!("\nstdout: {}\nstderr: {}\n{}", self.stdout(), self.stderr(), diagnose(&processes));
        processes.iter().for_each(|process| process.signal(Signal::KILL));
        said
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.run.survivors || std::thread::panicking() {
            end(&self.mark);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A run that is over.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) report: Option<Report>,
    pub(crate) wall: Duration,
}

impl Ended {
    /// Everything there is to say about it.
    pub(crate) fn story(&self) -> String {
        let Self { status, stdout, stderr, report, wall } = self;
        format!("{status} after {wall:.1?}\nstdout: {stdout}\nstderr: {stderr}\nreport: {report:?}")
    }

    /// The exit status as a shell sees it.
    pub(crate) fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    /// Checks that the subject said `ok`, and the report; what it said.
    #[track_caller]
    pub(crate) fn ok(&self, limit: &str) -> String {
        self.ok_within(limit, 0)
    }

    /// The same, of a run that may have been so much further above its limit for a moment.
    #[track_caller]
    pub(crate) fn ok_within(&self, limit: &str, moment: u64) -> String {
        assert_eq!(self.code(), 0, "{}", self.story());
        let last = self.stdout.lines().last().unwrap_or_default().to_owned();
        assert!(last.starts_with("ok "), "{}", self.story());
        self.report().check_within(limit, moment, 0);
        last
    }

    /// The report, which must be there.
    #[track_caller]
    pub(crate) fn report(&self) -> &Report {
        self.report.as_ref().unwrap_or_else(|| panic!("no report: {}", self.story()))
    }
}
