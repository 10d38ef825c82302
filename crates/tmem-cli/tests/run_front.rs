//! `tmem run` as a person or a script uses it: it stands where the program would stand.
//!
//! What needs the right to page programs says so and is skipped without.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const TMEM: &str = env!("CARGO_BIN_EXE_tmem");
const PATIENCE: Duration = Duration::from_secs(30);

/// A folder that goes away with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tmem-run-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    fn script(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path.display().to_string()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A process that does not outlive its test.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
    }

    fn signal(&self, name: &str) {
        signal(name, self.0.id());
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        BufReader::new(self.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        line.trim_end().into()
    }

    #[track_caller]
    fn status(&mut self) -> i32 {
        wait_until(|| self.0.try_wait().unwrap()).code().unwrap()
    }

    fn said(&mut self) -> String {
        let mut said = String::new();
        self.0.stderr.as_mut().unwrap().read_to_string(&mut said).unwrap();
        said
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn signal(name: &str, pid: impl ToString) {
    assert!(Command::new("kill").args([&format!("-{name}"), "--", &pid.to_string()]).status().unwrap().success());
}

#[track_caller]
fn wait_until<T>(mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < deadline, "it did not happen in time");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// `tmem run` with a shell script as its program.
fn shell(options: &[&str], script: &str) -> Command {
    let mut command = Command::new(TMEM);
    command.args(["run", "--memory", "256m"]).args(options).args(["--", "/bin/sh", "-c", script]);
    command.env_remove("TMEM_AGENT").env_remove("LD_PRELOAD").stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(options: &[&str], script: &str) -> Output {
    shell(options, script).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Whether programs can be paged here; says what is lacking if not.
fn can_run() -> bool {
    let doctor = Command::new(TMEM).arg("doctor").output().unwrap();
    if !doctor.status.success() {
        println!("skipped: {}", text(&doctor.stdout));
    }
    doctor.status.success()
}

/// The state letter of a process; `None` if there is none.
fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat[stat.rfind(')')? + 2..].chars().next()
}

/// The monitor that a process is under.
fn monitor_of(front: u32) -> Option<u32> {
    let children = Command::new("pgrep").args(["-P", &front.to_string()]).output().unwrap().stdout;
    let monitor =
        |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "tmem-monitor\n");
    text(&children).lines().filter_map(|pid| pid.parse().ok()).find(monitor)
}

#[test]
fn its_end_is_the_programs() {
    if !can_run() {
        return;
    }
    for (script, status) in [("exit 0", 0), ("exit 42", 42), ("kill -TERM $$", 143), ("kill -KILL $$", 137)] {
        let output = run(&["--quiet"], script);
        assert_eq!(output.status.code(), Some(status), "{script}: {}", text(&output.stderr));
        assert_eq!(text(&output.stderr), "", "{script}: quiet");
    }
}

#[test]
fn input_output_and_environment_pass_through() {
    if !can_run() {
        return;
    }
    let mut command = shell(&["--quiet"], "cat; echo err >&2; pwd; echo $X; echo \"$LD_PRELOAD\"");
    command.env("X", "y").env("LD_PRELOAD", "/no/such.so").current_dir("/").stdin(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"in\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let stdout = text(&output.stdout);
    let lines: Vec<_> = stdout.lines().collect();
    assert_eq!(lines[..3], ["in", "/", "y"]);
    assert!(lines[3] == "/no/such.so" || lines[3].ends_with(":/no/such.so"), "{stdout}");
    assert!(text(&output.stderr).lines().any(|line| line == "err"));
}

#[test]
fn a_program_that_cannot_be_started_is_told() {
    if !can_run() {
        return;
    }
    let scratch = Scratch::new("start");
    fs::write(scratch.path("data"), "no program").unwrap();
    for (program, status, saying) in [
        ("no-such-program-at-all", 127, "no program"),
        ("/no/such/program", 127, "there is no"),
        (&*scratch.path("data"), 126, "not executable"),
        ("/tmp", 126, "directory"),
    ] {
        let output = Command::new(TMEM).args(["run", "--memory", "256m", "--", program]).output().unwrap();
        let said = text(&output.stderr);
        assert!(output.status.code() == Some(status) && said.contains(saying), "{program}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    let plain = scratch.script("plain", "echo plain $1\n");
    let output = Command::new(TMEM).args(["run", "--memory", "256m", "--quiet", &plain, "x"]).output().unwrap();
    assert_eq!(text(&output.stdout), "plain x\n", "a script without a #! line: {}", text(&output.stderr));
}

#[test]
fn signals_reach_the_program() {
    if !can_run() {
        return;
    }
    for name in ["TERM", "HUP", "INT", "USR1", "USR2", "WINCH"] {
        let script = format!("trap 'exit 7' {name}; echo ready; while :; do sleep 0.01; done");
        let mut front = Running::start(&mut shell(&["--quiet"], &script));
        assert_eq!(front.line(), "ready");
        front.signal(name);
        assert_eq!(front.status(), 7, "{name}");
    }
    let mut front = Running::start(&mut shell(&["--quiet"], "echo ready; exec sleep 60"));
    assert_eq!(front.line(), "ready");
    front.signal("TERM");
    assert_eq!(front.status(), 143);
}

#[test]
fn what_is_ignored_stays_ignored() {
    if !can_run() {
        return;
    }
    // As nohup does it. A child's end is learned of even where the parent ignores those of its own.
    let script = format!("trap '' HUP CHLD; exec {TMEM} run --memory 256m --quiet -- grep SigIgn /proc/self/status");
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let mask = u64::from_str_radix(text(&output.stdout).split_whitespace().nth(1).unwrap(), 16).unwrap();
    assert_eq!(mask & 1, 1, "{mask:x}");
}

#[test]
fn a_stopped_program_stops_the_job_and_goes_on_with_it() {
    if !can_run() {
        return;
    }
    let script = "echo $$; while [ ! -e \"$0\" ]; do sleep 0.01; done; exit 5";
    let scratch = Scratch::new("job");
    let mut command = shell(&["--quiet"], script);
    // A group of its own, as an interactive shell makes for each job.
    let mut front = Running::start(command.arg(scratch.path("go")).process_group(0));
    let program: u32 = front.line().parse().unwrap();
    let id = front.0.id();
    // The terminal's suspend character signals the whole group.
    signal("TSTP", format!("-{id}"));
    wait_until(|| (state(program) == Some('T') && state(id) == Some('T')).then_some(()));
    signal("CONT", format!("-{id}"));
    wait_until(|| (state(program) != Some('T') && state(id) != Some('T')).then_some(()));
    // A program stopped otherwise keeps the front awake, and still hears that it is to end.
    signal("STOP", program);
    wait_until(|| (state(program) == Some('T')).then_some(()));
    assert_ne!(state(id), Some('T'));
    signal("CONT", id);
    wait_until(|| (state(program) != Some('T')).then_some(()));
    signal("STOP", program);
    wait_until(|| (state(program) == Some('T')).then_some(()));
    front.signal("TERM");
    assert_eq!(front.status(), 143);
}

#[test]
fn the_table_and_the_report_are_written() {
    if !can_run() {
        return;
    }
    let scratch = Scratch::new("report");
    let path = scratch.path("report.json");
    fs::write(&path, "old").unwrap();
    let output = run(&["--report", &path], "exit 3");
    let table = text(&output.stderr);
    assert!(table.contains("limit") && table.contains("256.0 MiB") && table.lines().count() < 12, "{table}");
    let report: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(report["limit_bytes"], 256 << 20);
    assert_eq!(report["exit_status"], 3);
    assert!(report["wall_s"].as_f64().unwrap() > 0.0);
    for key in [
        "wanted_peak_bytes",
        "given_peak_bytes",
        "resident_peak_bytes",
        "store_peak_bytes",
        "density",
        "faults",
        "stalled_s",
        "evicted_bytes",
        "unchanged_bytes",
        "copied_bytes",
        "huge_pages_restored",
        "processes",
        "managed_processes",
        "unmanaged_processes",
    ] {
        assert!(report[key].is_number(), "{key}");
    }
    for pointer in ["/fault_us/p50", "/fault_us/p99", "/fault_us/p999", "/left_alone_bytes/shared"] {
        assert!(report.pointer(pointer).is_some_and(Value::is_number), "{pointer}");
    }
    assert_eq!(fs::read_dir(&scratch.0).unwrap().count(), 1, "nothing else is left");
    let output = run(&["--quiet", "--report", "/dev/null"], "exit 0");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(!fs::metadata("/dev/null").unwrap().is_file());
}

#[test]
fn a_report_that_cannot_be_written_is_told_before_the_start() {
    if !can_run() {
        return;
    }
    for path in ["/no/such/folder/report.json", "/tmp", "/proc/report.json"] {
        let output = run(&["--report", path], "echo started");
        assert_eq!(output.status.code(), Some(125), "{path}");
        assert!(text(&output.stderr).contains("cannot write the report"), "{}", text(&output.stderr));
        assert!(output.stdout.is_empty(), "{path}: nothing was started");
    }
}

#[test]
fn a_daemon_outlives_it_and_no_pipe_is_kept_open() {
    if !can_run() {
        return;
    }
    let scratch = Scratch::new("daemon");
    let script = "(setsid sleep 30 </dev/null >/dev/null 2>&1 7>&- & echo $! >\"$0\"); exec 3>&1; exit 0";
    // With one descriptor more, as a pipeline may leave it.
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "exec 7>&1; exec \"$0\" \"$@\"", TMEM]).args(shell(&["--quiet"], script).get_args());
    command.env_remove("TMEM_AGENT").env_remove("LD_PRELOAD");
    let began = Instant::now();
    // Reads standard output and error to their ends.
    let output = command.arg(scratch.path("pid")).output().unwrap();
    assert!(output.status.success() && began.elapsed() < Duration::from_secs(20), "{}", text(&output.stderr));
    let daemon = fs::read_to_string(scratch.path("pid")).unwrap().trim().to_owned();
    assert!(state(daemon.parse().unwrap()).is_some());
    signal("KILL", daemon);
}

#[test]
fn a_program_that_closes_its_output_ends_it() {
    if !can_run() {
        return;
    }
    let mut front = Running::start(&mut shell(&["--quiet"], "echo one; exec >&- ; exec sleep 30"));
    let mut rest = String::new();
    let began = Instant::now();
    front.0.stdout.take().unwrap().read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "one\n");
    assert!(began.elapsed() < Duration::from_secs(20), "the front and the monitor keep no pipe open");
    front.signal("TERM");
    assert_eq!(front.status(), 143);
}

#[test]
fn without_its_monitor_the_whole_tree_is_ended() {
    if !can_run() {
        return;
    }
    let script = "(setsid sleep 61 >/dev/null 2>&1 &); sleep 61 & echo $$; wait";
    let mut front = Running::start(&mut shell(&["--quiet"], script));
    let program: u32 = front.line().parse().unwrap();
    let monitor = wait_until(|| monitor_of(front.0.id()));
    signal("KILL", monitor);
    assert_eq!(front.status(), 125);
    let said = front.said();
    assert!(said.contains("the monitor died") && said.lines().count() == 1, "{said}");
    assert_eq!(state(program), None);
    let left = Command::new("pgrep").args(["-f", "^sleep 61$"]).output().unwrap();
    assert_eq!(text(&left.stdout), "", "the daemon too");
}

#[test]
fn the_monitor_ends_after_the_front() {
    if !can_run() {
        return;
    }
    let mut front = Running::start(&mut shell(&["--quiet"], "echo $$; exec sleep 60"));
    let program: u32 = front.line().parse().unwrap();
    let monitor = wait_until(|| monitor_of(front.0.id()));
    front.signal("KILL");
    assert_eq!(front.0.wait().unwrap().code(), None);
    assert!(state(program).is_some(), "the program goes on");
    signal("KILL", program);
    wait_until(|| matches!(state(monitor), None | Some('Z')).then_some(()));
}

#[test]
fn the_limit_is_changed_by_any_number_of_the_tree() {
    if !can_run() {
        return;
    }
    let mut front = Running::start(&mut shell(&["--quiet"], "echo $$; while :; do sleep 0.1; done"));
    let program = front.line();
    let limit = |pid: &str, size: &str| Command::new(TMEM).args(["limit", pid, size]).output().unwrap();
    let output = limit(&front.0.id().to_string(), "512m");
    assert_eq!(text(&output.stdout), "256.0 MiB -> 512.0 MiB\n", "{}", text(&output.stderr));
    assert_eq!(text(&limit(&program, "1g").stdout), "512.0 MiB -> 1.0 GiB\n");
    front.signal("TERM");
    assert_eq!(front.status(), 143);
}

#[test]
fn a_limit_for_nobody_is_told() {
    for (pid, size, saying) in [
        ("4194304", "1g", "there is no process"),
        (&*std::process::id().to_string(), "1g", "not under `tmem run`"),
        ("1", "12x", "not a size"),
        ("no", "1g", "invalid value"),
    ] {
        let output = Command::new(TMEM)
            .args(["limit", pid, size])
            .env_remove("TMEM_AGENT")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = text(&output.stderr);
        assert!(!output.status.success() && said.contains(saying), "{pid}: {said}");
    }
}

#[test]
fn limits_do_not_nest() {
    if !can_run() {
        return;
    }
    let output = run(&["--quiet"], &format!("{TMEM} run --memory 64m -- true"));
    assert_eq!(output.status.code(), Some(125));
    assert!(text(&output.stderr).contains("do not nest"), "{}", text(&output.stderr));
}

#[test]
fn the_doctor_tells_people_and_machines_the_same() {
    let plain = Command::new(TMEM).arg("doctor").output().unwrap();
    let json = Command::new(TMEM).args(["doctor", "--json"]).output().unwrap();
    let told: Value = serde_json::from_slice(&json.stdout).unwrap();
    let can_run = told["can_run"].as_bool().unwrap();
    assert_eq!(plain.status.code(), Some(i32::from(!can_run)));
    assert_eq!(json.status.code(), plain.status.code());
    let plain = text(&plain.stdout);
    for check in told["checks"].as_array().unwrap() {
        assert!(plain.contains(check["found"].as_str().unwrap()), "{check}: {plain}");
        assert_eq!(check["verdict"] == "good", check["fix"].is_null(), "{check}");
    }
    assert!(plain.contains("Linux "), "{plain}");
}

#[test]
fn without_the_rights_the_fix_is_told_and_nothing_is_started() {
    if fs::metadata("/dev/userfaultfd").is_ok_and(|device| device.permissions().mode() & 0o006 != 0) {
        println!("skipped: everybody has the rights here");
        return;
    }
    // Root can give its rights up; who has none need not.
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    let scratch = Scratch::new("rights");
    fs::set_permissions(&scratch.0, fs::Permissions::from_mode(0o755)).unwrap();
    let copy = scratch.path("tmem");
    fs::copy(TMEM, &copy).unwrap();
    let arguments = [copy.as_str(), "run", "--memory", "64m", "--", "echo", "started"];
    let Ok(output) = command.args(arguments).output() else {
        println!("skipped: there is no setpriv");
        return;
    };
    let said = text(&output.stderr);
    if said.starts_with("setpriv:") {
        println!("skipped: {said}");
        return;
    }
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert!(said.contains("CAP_SYS_PTRACE") && said.contains("-> "), "{said}");
    assert!(output.stdout.is_empty(), "nothing was started");
}

/// A file with the right, in a mount namespace where everybody may open the device.
#[test]
fn a_right_lent_by_the_file_stays_with_tmem() {
    let scratch = Scratch::new("lent");
    fs::set_permissions(&scratch.0, fs::Permissions::from_mode(0o755)).unwrap();
    fs::copy(TMEM, scratch.path("tmem")).unwrap();
    let prepare = "cd \"$0\" && mknod device c $((0x$(stat -c %t /dev/userfaultfd))) $((0x$(stat -c %T /dev/userfaultfd))) \
                   && chmod 666 device && mount --bind device /dev/userfaultfd && setcap cap_sys_ptrace+ep tmem";
    let user =
        "TMPDIR=/q exec setpriv --reuid 65534 --regid 65534 --clear-groups ./tmem run --quiet --memory 64m -- sh -c";
    let program = "echo $TMPDIR; grep CapEff /proc/self/status; ./tmem limit $PPID 1g";
    let script = format!("({prepare}) || exit 99; cd \"$0\"; {user} '{program}'");
    let mut command = Command::new("unshare");
    let Ok(output) = command.args(["--mount", "sh", "-c", &script, &scratch.path("")]).output() else {
        println!("skipped: there is no unshare");
        return;
    };
    let said = text(&output.stderr);
    if matches!(output.status.code(), Some(1 | 99)) {
        println!("skipped: {said}");
        return;
    }
    let stdout = text(&output.stdout);
    let lines: Vec<_> = stdout.lines().collect();
    assert_eq!(lines, ["/q", "CapEff:\t0000000000000000", "64.0 MiB -> 1.0 GiB"], "{said}");
}
