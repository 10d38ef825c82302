//! What is run: access patterns, and real programs on a fixed input.

use super::Options;
use crate::tasks;
use anyhow::{Context, Result, bail, ensure};
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Memory of a pattern, and of one of `--quick`.
const PATTERN_MIB: usize = 512;
const QUICK_PATTERN_MIB: usize = 128;
/// How often each page of the scan is read; the other patterns touch half as often.
const PASSES: usize = 4;
const QUICK_PASSES: usize = 2;
/// Where `cargo xtask pages` keeps a Python with numpy and pandas.
const ARRAYS_PYTHON: &str = "/var/tmp/tmem-pages/.venv/bin/python";

/// A program with its arguments.
#[derive(Debug)]
pub(super) struct Workload {
    /// Its name in tables.
    pub(super) name: String,
    /// What is started.
    pub(super) words: Vec<OsString>,
    /// Whether it prints figures of itself, as JSON.
    pub(super) tells: bool,
}

/// How a real program is got ready: its words, with its input in the folder given.
type Prepare = fn(&Path) -> Result<Vec<OsString>>;

const PROGRAMS: &[(&str, Prepare)] = &[
    ("python", python),
    ("numpy", numpy),
    ("sort", sort),
    ("sqlite", sqlite),
    ("redis", redis),
    ("cc1plus", cc1plus),
    ("git", git),
    ("java", java),
    ("node", node),
    ("stress-ng", stress_ng),
];

/// The workloads that are chosen, their input made. What is missing here is said and left out.
pub(super) fn prepare(options: &Options, scratch: &Path) -> Result<Vec<Workload>> {
    let mut workloads: Vec<Workload> = patterns(options).into_iter().filter(|w| wanted(options, &w.name)).collect();
    for (name, prepare) in PROGRAMS {
        if options.quick || !wanted(options, name) {
            continue;
        }
        match prepare(scratch) {
            Ok(words) => workloads.push(Workload { name: (*name).to_owned(), words, tells: false }),
            Err(error) => println!("{name} is left out: {error:#}"),
        }
    }
    ensure!(!workloads.is_empty(), "nothing to run; there are {}", names(options).join(", "));
    Ok(workloads)
}

fn wanted(options: &Options, name: &str) -> bool {
    options.only.is_empty() || options.only.iter().any(|only| only == name)
}

fn names(options: &Options) -> Vec<String> {
    let programs = PROGRAMS.iter().map(|(name, _)| (*name).to_owned());
    patterns(options).into_iter().map(|workload| workload.name).chain(programs).collect()
}

fn patterns(options: &Options) -> Vec<Workload> {
    let mib = options.size_mib.unwrap_or(if options.quick { QUICK_PATTERN_MIB } else { PATTERN_MIB });
    let (pages, passes) = (mib << 8, if options.quick { QUICK_PASSES } else { PASSES });
    let mut workloads = Vec::new();
    for pattern in ["sequential", "random", "zipf", "strided", "phases"] {
        for threads in [1, 2] {
            let touches = if pattern == "sequential" { pages * passes } else { pages * passes / 2 };
            workloads.push(pattern_of(options, pattern, mib, touches, threads));
        }
    }
    // Twice over the part that is kept.
    workloads.push(pattern_of(options, "huge", mib, pages * 3 / 8 * 2, 1));
    workloads
}

fn pattern_of(options: &Options, pattern: &str, mib: usize, touches: usize, threads: usize) -> Workload {
    let mut words: Vec<OsString> = vec![tasks::target().join("release/tmem-patterns").into(), pattern.into()];
    for (name, value) in [("--size", mib << 20), ("--touches", touches), ("--threads", threads)] {
        words.push(name.into());
        words.push(value.to_string().into());
    }
    words.push("--pages".into());
    words.push(options.pages.clone());
    let name = if pattern == "huge" { pattern.to_owned() } else { format!("{pattern}-{threads}") };
    Workload { name, words, tells: true }
}

fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

/// A script, its interpreter before it, its argument behind it.
fn scripted(scratch: &Path, command: &[&str], script: (&str, &str), argument: &str) -> Result<Vec<OsString>> {
    let path = written(scratch, script.0, script.1)?;
    let mut words = words(command);
    words.extend([path.into(), argument.into()]);
    Ok(words)
}

fn written(scratch: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let path = scratch.join(name);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// The interpreter itself: the one on the path may be a script that looks for it.
fn interpreter(python: &str) -> Result<String> {
    let output = printed(Command::new(python).args(["-c", "import sys; print(sys.executable)"]))?;
    Ok(String::from_utf8(output).context("python's path is no text")?.trim().to_owned())
}

fn python(scratch: &Path) -> Result<Vec<OsString>> {
    let script = ("dicts.py", include_str!("../../programs/run/dicts.py"));
    scripted(scratch, &[&interpreter("python3")?], script, "400")
}

fn numpy(scratch: &Path) -> Result<Vec<OsString>> {
    let has_arrays = |python: &&str| printed(Command::new(python).args(["-c", "import numpy, pandas"])).is_ok();
    let python = ["python3", ARRAYS_PYTHON].into_iter().find(has_arrays);
    let python = interpreter(python.context("no Python with numpy and pandas: `cargo xtask pages` makes one")?)?;
    scripted(scratch, &[&python], ("arrays.py", include_str!("../../programs/run/arrays.py")), "1500")
}

fn sqlite(scratch: &Path) -> Result<Vec<OsString>> {
    let script = ("table.py", include_str!("../../programs/run/table.py"));
    scripted(scratch, &[&interpreter("python3")?], script, "1000")
}

fn redis(scratch: &Path) -> Result<Vec<OsString>> {
    on_path("redis-server")?;
    on_path("redis-benchmark")?;
    let script = ("server.py", include_str!("../../programs/run/server.py"));
    scripted(scratch, &[&interpreter("python3")?], script, "250")
}

fn sort(scratch: &Path) -> Result<Vec<OsString>> {
    let script = written(scratch, "lines.py", include_str!("../../programs/run/lines.py"))?;
    let lines = scratch.join("lines.txt");
    let file = File::create(&lines).context("cannot make the text")?;
    let status =
        Command::new("python3").arg(script).arg("100").stdout(file).status().context("cannot start python3")?;
    ensure!(status.success(), "the text to sort was not made ({status})");
    let mut words = words(&["sort", "-S", "1G", "--parallel=1"]);
    words.push(lines.into());
    Ok(words)
}

fn cc1plus(scratch: &Path) -> Result<Vec<OsString>> {
    on_path("g++")?;
    let script = written(scratch, "templates.py", include_str!("../../programs/templates.py"))?;
    let source = printed(Command::new("python3").arg(script).arg("200"))?;
    let path = scratch.join("templates.cpp");
    fs::write(&path, source).context("cannot write the source")?;
    let mut words = words(&["g++", "-std=c++17", "-O1", "-S", "-o", "-"]);
    words.push(path.into());
    Ok(words)
}

/// A pack of Python's own library with three generations of edits.
fn git(scratch: &Path) -> Result<Vec<OsString>> {
    on_path("git")?;
    let script = written(scratch, "history.py", include_str!("../../programs/history.py"))?;
    let library =
        printed(Command::new("python3").args(["-c", "import os; print(os.path.dirname(os.__file__), end='')"]))?;
    let library = String::from_utf8(library).context("python's library is no text")?;
    let (repository, stream) = (scratch.join("repository"), scratch.join("history.stream"));
    let file = File::create(&stream).context("cannot make the history")?;
    let status =
        Command::new("python3").arg(script).arg(library).stdout(file).status().context("cannot start python3")?;
    ensure!(status.success(), "the history was not made ({status})");
    printed(Command::new("git").args(["init", "--quiet", "--bare"]).arg(&repository))?;
    let mut import = Command::new("git");
    import.current_dir(&repository).args(["-c", "core.fsync=none", "fast-import", "--quiet"]);
    let stream = File::open(&stream).context("cannot read the history")?;
    let status = import.stdin(stream).status().context("cannot start git")?;
    ensure!(status.success(), "git fast-import failed ({status})");
    let repack = "cd \"$0\" && git rev-list --objects --all | git pack-objects --stdout --quiet --threads=1 \
                  --no-reuse-delta --window=400 --depth=50";
    let mut words = words(&["sh", "-c", repack]);
    words.push(repository.into());
    Ok(words)
}

fn java(scratch: &Path) -> Result<Vec<OsString>> {
    on_path("javac")?;
    let source = written(scratch, "Graph.java", include_str!("../../programs/run/Graph.java"))?;
    printed(Command::new("javac").arg("-d").arg(scratch).arg(source))?;
    let mut words = words(&["java", "-XX:+UseSerialGC", "-XX:-UsePerfData", "-Xmx400m", "-cp"]);
    words.extend([scratch.into(), "Graph".into(), "800".into()]);
    Ok(words)
}

fn node(scratch: &Path) -> Result<Vec<OsString>> {
    on_path("node")?;
    // It would fit its heap to the group's limit otherwise, and give up there.
    scripted(
        scratch,
        &["node", "--max-old-space-size=2048"],
        ("graph.js", include_str!("../../programs/run/graph.js")),
        "800",
    )
}

fn stress_ng(_: &Path) -> Result<Vec<OsString>> {
    on_path("stress-ng")?;
    Ok(words(&["stress-ng", "--quiet", "--vm", "2", "--vm-bytes", "256m", "--vm-ops", "40000", "--verify"]))
}

fn on_path(command: &str) -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    ensure!(std::env::split_paths(&path).any(|folder| folder.join(command).is_file()), "{command} is not installed");
    Ok(())
}

/// Runs a command to its end; what it printed.
fn printed(command: &mut Command) -> Result<Vec<u8>> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {name}"))?;
    if !output.status.success() {
        bail!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(output.stdout)
}
