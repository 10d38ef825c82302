//! The tasks made of steps: check, test, soak, torture, fuzz, sanitize.

use crate::steps::{Steps, Verdict};
use crate::{end_to_end, huge_pages, process, tidy};
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// No step of a test run takes this long on two cores, the first build included.
const STEP_LIMIT: Duration = Duration::from_secs(20 * 60);
/// What a soak or torture may take besides the time asked for: a release build, and the last comparison.
const SOAK_SLACK: Duration = Duration::from_secs(10 * 60);
/// The soak of a test run.
const TEST_SOAK: Duration = Duration::from_secs(60);

/// Format, lints, tidy and documentation.
pub(crate) fn check() -> ExitCode {
    let mut steps = Steps::default();
    static_steps(&mut steps);
    steps.finish()
}

/// What CI needs, without what takes long.
pub(crate) fn test_quickly() -> ExitCode {
    let mut steps = Steps::default();
    static_steps(&mut steps);
    test_steps(&mut steps);
    steps.finish()
}

/// What CI needs.
pub(crate) fn test() -> ExitCode {
    let mut steps = Steps::default();
    static_steps(&mut steps);
    test_steps(&mut steps);
    steps.step("loom", loom);
    steps.step("soak", || run_soak(TEST_SOAK, None));
    end_to_end::steps(&mut steps);
    steps.finish()
}

/// One long soak.
pub(crate) fn soak(minutes: u64, seed: Option<u64>) -> ExitCode {
    let mut steps = Steps::default();
    steps.step("soak", || run_soak(Duration::from_secs(minutes.saturating_mul(60)), seed));
    steps.finish()
}

/// A program that does all it can to its memory, by six threads and their children, while `tmem run` takes it away.
pub(crate) fn torture(minutes: u64, seed: Option<u64>) -> ExitCode {
    let mut steps = Steps::default();
    let packages = ["--package", "tmem-cli", "--package", "tmem-subject"];
    steps.step("release build", || run(cargo().args(["build", "--quiet", "--release"]).args(packages)));
    steps.step("torture", || run_torture(Duration::from_secs(minutes.saturating_mul(60)), seed));
    steps.finish()
}

/// Every fuzz target for `seconds`.
pub(crate) fn fuzz(seconds: u64) -> ExitCode {
    let mut steps = Steps::default();
    match fuzz_targets() {
        Ok(targets) if targets.is_empty() => {
            steps.step("fuzz", || Ok(Verdict::Skipped("no crate has fuzz/fuzz_targets".into())));
        }
        Ok(targets) => {
            for (folder, target) in targets {
                steps.step(&format!("fuzz {target}"), || run_fuzz(&folder, &target, seconds));
            }
        }
        Err(error) => steps.step("fuzz", || Err(error)),
    }
    steps.finish()
}

/// Tests of what two processes share, under the address sanitizer: in one process, both sides of queues, and clients that
/// write what they like. It sees the heap and the stack, which is where a count that was believed would lead, but nothing
/// beyond the ends of a region or of the log's segments, which are mappings of our own.
///
/// The thread sanitizer would have to know the standard library's synchronisation, too: that wants a nightly with its
/// sources (`rust-src`, `-Zbuild-std`). The rings' orderings are what loom checks.
pub(crate) fn sanitize() -> ExitCode {
    let mut steps = Steps::default();
    steps.step("queues, addresses", || {
        let mut command = unstable_cargo();
        // For a target, so that build scripts and macros are not instrumented; apart, since all else is.
        let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        command.env("RUSTFLAGS", "-Zsanitizer=address").env("CARGO_TARGET_DIR", self::target().join("sanitize"));
        command.args(["test", "--package", "tmem-ring", "--target", &target]);
        run(command.args(["--lib", "--test", "local", "--test", "hostile"]))
    });
    steps.finish()
}

fn static_steps(steps: &mut Steps) {
    steps.step("format", || run(cargo().args(["fmt", "--all", "--check"])));
    let clippy = ["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"];
    steps.step("clippy", || run(cargo().args(clippy)));
    let seam = ["clippy", "--quiet", "--package", "tmem-cli", "--package", "tmem-sys", "--all-targets"];
    let with_seam = ["--features", "tmem-cli/fault-injection,tmem-sys/fault-injection", "--", "-D", "warnings"];
    steps.step("clippy, with made-up errors", || run(cargo().args(seam).args(with_seam)));
    steps.step("tidy", || tidy::check(&root()).map(|()| Verdict::Passed));
    steps.step("documentation", || {
        run(cargo().args(["doc", "--quiet", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))
    });
}

fn test_steps(steps: &mut Steps) {
    let mut held = None;
    steps.step("huge pages for the tests", || huge_pages::add(&mut held));
    let cargo = || {
        let mut cargo = cargo();
        if held.is_some() {
            cargo.env(huge_pages::PROMISE, "1");
        }
        cargo
    };
    let others = ["test", "--workspace", "--exclude", "tmem-cli", "--no-fail-fast"];
    steps.step("tests", || run(cargo().args(others)));
    // One at a time: they measure memory, stop and kill trees of processes, and each has threads enough of its own.
    let command = ["test", "--package", "tmem-cli", "--no-fail-fast", "--", "--test-threads=1"];
    steps.step("tests of the command", || run(cargo().args(command)));
    // The kernel is made to say no, often: apart, since nothing of that is in the command that is tested above.
    let sys = ["test", "--package", "tmem-sys", "--features", "fault-injection"];
    steps.step("the seam for errors", || run(cargo().args(sys)));
    let seam = ["test", "--package", "tmem-cli", "--features", "fault-injection", "--test", "run"];
    let which = ["injected", "--", "--test-threads=1"];
    steps.step("tests with made-up errors", || run(cargo().args(seam).args(which)));
    steps.step("codec without features", || {
        run(cargo().args(["test", "--package", "tmem-codec", "--no-default-features"]))
    });
}

/// The folder of the workspace.
pub(crate) fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// Where cargo builds, also when it is told so from another folder than ours.
pub(crate) fn target() -> PathBuf {
    let told = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    told.and_then(|path| std::path::absolute(path).ok()).unwrap_or_else(|| root().join("target"))
}

/// The cargo that runs us, in the folder of the workspace.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).env("CARGO_TARGET_DIR", target());
    command
}

/// Runs a command of a step to its end, and says which.
pub(crate) fn run(command: &mut Command) -> Result<Verdict> {
    run_within(command, STEP_LIMIT)
}

fn run_within(command: &mut Command, limit: Duration) -> Result<Verdict> {
    let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
    println!("$ cargo {}", arguments.join(" "));
    process::run(command, limit)?;
    Ok(Verdict::Passed)
}

/// Interleavings, exhaustively: tests with `loom` in their name, of crates that replace their atomics with loom's.
fn loom() -> Result<Verdict> {
    let mut verdict = Verdict::Skipped("no crate depends on loom".into());
    for package in packages()? {
        let folder = root().join("crates").join(&package);
        let manifest =
            fs::read_to_string(folder.join("Cargo.toml")).with_context(|| format!("cannot read {package}"))?;
        if !manifest.contains("cfg(loom)") {
            continue;
        }
        let mut command = cargo();
        // Apart from the other builds: the flag changes every dependency.
        command.env("RUSTFLAGS", "--cfg loom").env("CARGO_TARGET_DIR", target().join("loom"));
        command.args(["test", "--release", "--package", &package, "--lib"]);
        if names_in(&folder.join("tests"))?.iter().any(|name| name.starts_with("loom_")) {
            command.args(["--test", "loom_*"]);
        }
        verdict = run(command.arg("loom"))?;
    }
    Ok(verdict)
}

fn run_soak(time: Duration, seed: Option<u64>) -> Result<Verdict> {
    if !root().join("crates/tmem/examples/soak.rs").exists() {
        return Ok(Verdict::Skipped("crates/tmem/examples/soak.rs is not there yet".into()));
    }
    let arguments = ["run", "--quiet", "--release", "--package", "tmem", "--example", "soak", "--"];
    run_within(cargo().args(arguments).args(seeded(time, seed)), time + SOAK_SLACK)
}

fn run_torture(time: Duration, seed: Option<u64>) -> Result<Verdict> {
    let mut command = Command::new(target().join("release/tmem"));
    command.args(["run", "--memory", "48M", "--on-full", "exceed", "--"]).arg(target().join("release/tmem-subject"));
    command.args(["torture", "--threads", "6", "--mib", "72"]).args(seeded(time, seed));
    run_within(&mut command, time + SOAK_SLACK)
}

/// Arguments for random work. Another seed each time finds more; the command that is printed runs the same one again.
fn seeded(time: Duration, seed: Option<u64>) -> [String; 4] {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| now.as_secs());
    ["--seconds".into(), time.as_secs().to_string(), "--seed".into(), seed.unwrap_or(now).to_string()]
}

/// A fuzz target: its crate's folder, and its name.
fn fuzz_targets() -> Result<Vec<(PathBuf, String)>> {
    let mut targets = Vec::new();
    for package in packages()? {
        let folder = root().join("crates").join(package);
        for name in names_in(&folder.join("fuzz/fuzz_targets"))? {
            targets.extend(name.strip_suffix(".rs").map(|name| (folder.clone(), name.to_owned())));
        }
    }
    Ok(targets)
}

fn run_fuzz(folder: &Path, target: &str, seconds: u64) -> Result<Verdict> {
    if !succeeds(cargo().args(["fuzz", "--version"])) {
        return Ok(Verdict::Skipped("cargo fuzz is missing: cargo install cargo-fuzz --locked".into()));
    }
    let mut command = unstable_cargo();
    command.current_dir(folder).env_remove("CARGO_TARGET_DIR").args(["fuzz", "run", target, "--", "-timeout=20"]);
    let limit = Duration::from_secs(seconds) + STEP_LIMIT;
    run_within(command.arg(format!("-max_total_time={seconds}")), limit)
}

/// A cargo that takes unstable flags, as those for coverage and sanitizers are: a nightly's, or the stable one when it is
/// told so.
fn unstable_cargo() -> Command {
    let mut command = cargo();
    if succeeds(Command::new("rustup").args(["run", "nightly", "rustc", "--version"])) {
        command = Command::new("rustup");
        command.current_dir(root()).args(["run", "nightly", "cargo"]);
    } else {
        command.env("RUSTC_BOOTSTRAP", "1");
    }
    command
}

fn succeeds(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

fn packages() -> Result<Vec<String>> {
    names_in(&root().join("crates"))
}

/// Names of what is in a folder, sorted; none when there is no such folder.
fn names_in(folder: &Path) -> Result<Vec<String>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut names: Vec<String> = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    Ok(names)
}
