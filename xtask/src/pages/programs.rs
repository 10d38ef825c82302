//! The programs whose memory is taken, and how each is brought to the wanted size.
//!
//! Two kinds: a program that fills itself and then says `READY` and waits, and a program at work (a compiler, git)
//! that is stopped when its memory has grown to the target.

use super::{corpus, postgres, redis};
use crate::process::{Program, Reached};
use anyhow::{Context, Result, bail, ensure};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// A program that has not filled itself, or not grown, by now never will.
pub(super) const PATIENCE: Duration = Duration::from_secs(300);
/// A program at work that ends before the target is run again and stopped at this share of its peak.
const SECOND_TRY_PERCENT: u64 = 80;
/// A peak below this is nothing to dump.
const LEAST_BYTES: u64 = 12 << 20;

/// What the pages of a program are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Half {
    /// Constants of predictors and codecs are chosen on these.
    Tune,
    /// Figures are reported of these.
    Report,
}

impl Half {
    /// As `halves.txt` says it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Tune => "tune",
            Self::Report => "report",
        }
    }
}

/// A kind of program.
#[derive(Debug)]
pub(super) struct Source {
    /// Its name, and its file's.
    pub(super) name: &'static str,
    /// Which half it belongs to.
    pub(super) half: Half,
    /// Whether `--quick` takes it: small, and needs nothing installed.
    pub(super) quick: bool,
    /// Commands it needs, and the Debian package of each.
    pub(super) needs: &'static [(&'static str, &'static str)],
    /// Starts it and waits until it has the wanted size.
    pub(super) start: fn(&Place) -> Result<Live>,
}

/// Where things are, and how large they shall be.
#[derive(Debug)]
pub(super) struct Place {
    /// The directory of the page files, which also keeps what is slow to install.
    pub(super) out: PathBuf,
    /// Removed at the end.
    pub(super) scratch: PathBuf,
    /// Lines of prose.
    pub(super) prose: PathBuf,
    /// The wanted size of a program.
    pub(super) size_mib: usize,
}

impl Place {
    pub(super) fn target_bytes(&self) -> u64 {
        (self.size_mib as u64) << 20
    }
}

/// A program of the wanted size.
#[derive(Debug)]
pub(super) struct Live {
    /// The process to take the pages of.
    pub(super) id: u32,
    /// Ends the program when dropped.
    #[expect(dead_code, reason = "held for its drop")]
    pub(super) program: Program,
}

/// Every program. Each half has an interpreter, a database, a compiler, arrays, and a plain native program.
pub(super) const PROGRAMS: &[Source] = &[
    source("pyobj", Half::Tune, &[PYTHON], python_objects).quickly(),
    source("node", Half::Report, &[("node", "nodejs")], node),
    source("redis", Half::Tune, &[("redis-server", "redis-server")], redis::start),
    source("sqlite", Half::Report, &[PYTHON], sqlite).quickly(),
    source("rustc", Half::Tune, &[], rustc),
    source("cc1plus", Half::Report, &[GXX], cc1plus).quickly(),
    source("pandas", Half::Tune, &[PYTHON], pandas),
    source("numpy", Half::Report, &[PYTHON], numpy),
    source("stl", Half::Tune, &[GXX], stl),
    source("jvm", Half::Report, &[("java", "default-jdk-headless")], jvm),
    source("postgres", Half::Tune, &[], postgres::start),
    source("git", Half::Report, &[("git", "git"), PYTHON], git),
    source("perl", Half::Report, &[("perl", "perl")], perl),
];

const PYTHON: (&str, &str) = ("python3", "python3");
const GXX: (&str, &str) = ("g++", "g++");

type Needs = &'static [(&'static str, &'static str)];

const fn source(name: &'static str, half: Half, needs: Needs, start: fn(&Place) -> Result<Live>) -> Source {
    Source { name, half, quick: false, needs, start }
}

impl Source {
    const fn quickly(mut self) -> Self {
        self.quick = true;
        self
    }
}

/// Installs from Debian what `source` lacks, when we may; otherwise says what to install.
pub(super) fn install(source: &Source) -> Result<()> {
    for (command, package) in source.needs {
        if !on_path(command) {
            install_package(package).with_context(|| format!("{command} is missing: apt-get install {package}"))?;
            ensure!(on_path(command), "the package {package} brought no {command}");
        }
    }
    Ok(())
}

fn on_path(command: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(command).is_file())
}

fn install_package(package: &str) -> Result<()> {
    static UPDATED: std::sync::Once = std::sync::Once::new();
    ensure!(rustix::process::geteuid().is_root(), "not root");
    let apt = |arguments: &[&str]| -> Result<()> {
        // RUNLEVEL=1 keeps a service that comes with a package from being started.
        let output = Command::new("apt-get")
            .args(["-qq", "-y", "--no-install-recommends"])
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("RUNLEVEL", "1")
            .stdin(Stdio::null())
            .output()
            .context("cannot start apt-get")?;
        ensure!(output.status.success(), "apt-get: {}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(())
    };
    // A failed update shows in the install.
    UPDATED.call_once(|| drop(apt(&["update"])));
    apt(&["install", package])
}

/// Starts a program that is told the prose and its size in MiB, and that says READY when it has reached it.
fn filled(place: &Place, command: &mut Command) -> Result<Live> {
    let command = command.env("TMPDIR", &place.scratch).arg(&place.prose).arg(place.size_mib.to_string());
    let mut program = Program::start(command)?;
    program.wait_for_line("READY", PATIENCE)?;
    Ok(Live { id: program.id(), program })
}

/// Starts a program that works until its process `name` has grown to the target, or near the peak of a first run.
fn at_work(place: &Place, name: &str, command: impl Fn() -> Result<Command>) -> Result<Live> {
    let mut target_bytes = place.target_bytes();
    for _ in 0..2 {
        // A compiler that is killed leaves its temporary files.
        let mut program = Program::start(command()?.env("TMPDIR", &place.scratch))?;
        match program.wait_for_memory(name, target_bytes, PATIENCE)? {
            Reached::Target { id } => return Ok(Live { id, program }),
            Reached::Ended { peak_bytes } => {
                ensure!(peak_bytes >= LEAST_BYTES, "{name} had only {} MiB at its peak", peak_bytes >> 20);
                target_bytes = peak_bytes / 100 * SECOND_TRY_PERCENT;
            }
        }
    }
    bail!("{name} ended twice below {} MiB", target_bytes >> 20)
}

/// Writes a script of ours where a program can read it.
fn script(place: &Place, name: &str, text: &str) -> Result<PathBuf> {
    let path = place.scratch.join(name);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// Runs a command to its end; what it printed, or why it failed.
pub(super) fn succeed(command: &mut Command) -> Result<Vec<u8>> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {name}"))?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name} failed: {}", error.trim().lines().last().unwrap_or("no message"));
    Ok(output.stdout)
}

fn python(interpreter: impl AsRef<OsStr>, script: &Path) -> Command {
    let mut command = Command::new(interpreter);
    command.env("PYTHONHASHSEED", "1").env("PYTHONDONTWRITEBYTECODE", "1").arg(script);
    command
}

fn python_objects(place: &Place) -> Result<Live> {
    let script = script(place, "objects.py", include_str!("../../programs/objects.py"))?;
    filled(place, &mut python("python3", &script))
}

fn sqlite(place: &Place) -> Result<Live> {
    let script = script(place, "sqlite.py", include_str!("../../programs/sqlite.py"))?;
    filled(place, &mut python("python3", &script))
}

fn pandas(place: &Place) -> Result<Live> {
    let script = script(place, "frames.py", include_str!("../../programs/frames.py"))?;
    filled(place, &mut python(python_with_arrays(place)?, &script))
}

fn numpy(place: &Place) -> Result<Live> {
    let script = script(place, "arrays.py", include_str!("../../programs/arrays.py"))?;
    filled(place, &mut python(python_with_arrays(place)?, &script))
}

/// A Python with numpy and pandas: the machine's own, or one kept in the output directory.
fn python_with_arrays(place: &Place) -> Result<PathBuf> {
    let has_arrays = |python: &Path| succeed(Command::new(python).args(["-c", "import numpy, pandas"])).is_ok();
    let plain = PathBuf::from("python3");
    if has_arrays(&plain) {
        return Ok(plain);
    }
    let environment = place.out.join(".venv");
    let python = environment.join("bin/python3");
    if !has_arrays(&python) {
        succeed(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment))
            .context("cannot make a venv")?;
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"];
        succeed(Command::new(&python).args(pip).args(["numpy", "pandas"]))
            .context("cannot install numpy and pandas")?;
    }
    Ok(python)
}

fn node(place: &Place) -> Result<Live> {
    let script = script(place, "graph.js", include_str!("../../programs/graph.js"))?;
    filled(place, Command::new("node").arg(script))
}

fn perl(place: &Place) -> Result<Live> {
    let script = script(place, "hashes.pl", include_str!("../../programs/hashes.pl"))?;
    filled(place, Command::new("perl").env("PERL_HASH_SEED", "1").arg(script))
}

fn jvm(place: &Place) -> Result<Live> {
    let script = script(place, "Shop.java", include_str!("../../programs/Shop.java"))?;
    let heap = format!("-Xmx{}m", place.size_mib * 2);
    filled(place, Command::new("java").args(["-XX:-UsePerfData", "-Xms16m", &heap]).arg(script))
}

fn stl(place: &Place) -> Result<Live> {
    let source = script(place, "stl.cpp", include_str!("../../programs/stl.cpp"))?;
    let program = place.scratch.join("stl");
    succeed(Command::new("g++").args(["-std=c++17", "-O1", "-o"]).arg(&program).arg(source))?;
    filled(place, &mut Command::new(program))
}

/// The compiler on this workspace's own dependencies: they are on the machine, or we would not run.
fn rustc(place: &Place) -> Result<Live> {
    at_work(place, "rustc", || {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let target = place.scratch.join("rustc");
        if target.exists() {
            fs::remove_dir_all(&target).context("cannot clear the compiler's target directory")?;
        }
        let mut command = Command::new(cargo);
        command.current_dir(env!("CARGO_MANIFEST_DIR")).args(["build", "--quiet", "--release", "--package", "xtask"]);
        command.env_remove("RUSTC_WRAPPER").arg("--target-dir").arg(target);
        Ok(command)
    })
}

fn cc1plus(place: &Place) -> Result<Live> {
    let generator = script(place, "templates.py", include_str!("../../programs/templates.py"))?;
    let source = place.scratch.join("templates.cpp");
    let text = succeed(python("python3", &generator).arg(place.size_mib.to_string()))?;
    fs::write(&source, text).context("cannot write the C++ source")?;
    at_work(place, "cc1plus", || {
        let mut command = Command::new("g++");
        command.args(["-std=c++17", "-O2", "-g", "-c", "-o", "/dev/null"]).arg(&source);
        Ok(command)
    })
}

/// A pack of the machine's own sources with three generations of edits.
fn git(place: &Place) -> Result<Live> {
    let repository = place.scratch.join("repository");
    let importer = script(place, "history.py", include_str!("../../programs/history.py"))?;
    let run = |arguments: &[&str]| -> Command {
        let mut command = Command::new("git");
        command.args(["-c", "gc.auto=0", "-c", "pack.threads=1", "-c", "core.fsync=none"]).args(arguments);
        command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
        command
    };
    succeed(run(&["init", "--quiet", "--bare"]).arg(&repository))?;
    let library = corpus::python_library().context("python3 tells no library")?;
    let mut import = python("python3", &importer);
    let stream = place.scratch.join("history.stream");
    fs::write(&stream, succeed(import.arg(library))?).context("cannot write the history")?;
    let stream = fs::File::open(&stream).context("cannot read the history")?;
    let status = run(&["fast-import", "--quiet"]).current_dir(&repository).stdin(stream).status()?;
    ensure!(status.success(), "git fast-import failed ({status})");
    at_work(place, "git", || {
        let mut command = run(&["repack", "-q", "-a", "-d", "-f", "--window=4000", "--depth=50"]);
        command.current_dir(&repository);
        Ok(command)
    })
}
