//! Ordinary programs, each natively and then under a limit of half of what it then had, or less: the output is the same.
//!
//! A program that is not installed is skipped, and the test says so.

mod servers;

use crate::harness::{Native, Run, measure};
use std::fs;
use std::path::{Path, PathBuf};

/// No limit is below this: the monitor and the store have their own few MiB.
const LEAST_MIB: u64 = 24;

/// A folder that goes away with the test.
#[derive(Debug)]
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tmem-programs-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) -> String {
        fs::write(self.0.join(name), text).unwrap();
        self.path(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Where a command is; `None` where it is not, which is said.
pub(crate) fn find(command: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&path).map(|folder| folder.join(command)).find(|file| file.is_file());
    if found.is_none() {
        eprintln!("skipped: {command} is not installed");
    }
    found
}

/// A limit, as a part of what the program had natively: so many of so many. A third is for those that get on with it: others
/// go through all of their memory again and again (collectors of garbage do), and then do little else but wait for it.
type Part = (u64, u64);
const HALF: Part = (1, 2);
const THIRD: Part = (1, 3);
/// For those whose pages become half as large and no smaller (rows, short lines with numbers): half of the memory could not
/// hold them, or little else would fit.
const TWO_THIRDS: Part = (2, 3);
/// For git, much of whose memory is what it has packed: no codec makes anything of that.
const FIVE_SIXTHS: Part = (5, 6);

/// Runs the program natively and with each of these limits, and compares; `tell` may add what else must be the same, such
/// as a file that was written.
fn compare(command: &str, arguments: &[&str], limits: &[Part], tell: impl Fn() -> String) {
    let environment = [("PYTHONHASHSEED", "1"), ("LC_ALL", "C")];
    let (Some(path), Some(_)) = (find(command), Run::new("64M")) else { return };
    let Native { stdout, peak_bytes, wall } = measure(&path, arguments, &environment);
    let told = tell();
    for (some, all) in limits {
        let limit = format!("{}M", ((peak_bytes >> 20) * some / all).max(LEAST_MIB));
        let mut run = Run::new(&limit).unwrap().option("--on-full", "kill").program(&path, arguments);
        for (name, value) in environment {
            run = run.environment(name, value);
        }
        let ended = run.finish();
        let (native, paged) = (wall.as_secs_f64(), ended.wall.as_secs_f64());
        eprintln!("{command}: {} MiB natively in {native:.1} s, {limit} in {paged:.1} s", peak_bytes >> 20);
        assert_eq!(ended.code(), 0, "{}", ended.story());
        assert!(ended.stdout == stdout, "the output differs from the native one: {stdout}\n{}", ended.story());
        assert_eq!(tell(), told, "what was written differs");
        ended.report().check(&limit, 0);
    }
}

/// A hash of a file: FNV-1a.
fn hash(path: &Path) -> String {
    let bytes = fs::read(path).unwrap();
    let hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{} {hash:016x}", bytes.len())
}

/// Lines of words, in no order.
fn prose(lines: usize) -> String {
    let words = ["memory", "page", "fault", "store", "object", "range", "segment", "resident", "ephemeral", "pool"];
    let mut state = 12_345_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    let mut text = String::new();
    for _ in 0..lines {
        for _ in 0..10 {
            text.push_str(words[usize::try_from(next() % 10).unwrap()]);
            text.push(' ');
        }
        text.push_str(&next().to_string());
        text.push('\n');
    }
    text
}

#[test]
#[ignore = "takes minutes: cargo test --release -p tmem-cli --test run -- --ignored programs"]
fn python_objects() {
    let scratch = Scratch::new("python");
    let file = scratch.write("objects.py", include_str!("objects.py"));
    compare("python3", &[&file], &[HALF, THIRD], String::new);
}

#[test]
#[ignore = "takes minutes: cargo test --release -p tmem-cli --test run -- --ignored programs"]
fn python_children() {
    let scratch = Scratch::new("children");
    let file = scratch.write("children.py", include_str!("children.py"));
    compare("python3", &[&file], &[HALF, THIRD], String::new);
}

#[test]
#[ignore = "takes minutes: cargo test --release -p tmem-cli --test run -- --ignored programs"]
fn sqlite() {
    let scratch = Scratch::new("sqlite");
    let file = scratch.write("sqlite.py", include_str!("sqlite.py"));
    compare("python3", &[&file], &[TWO_THIRDS], String::new);
}

#[test]
#[ignore = "takes minutes: cargo test --release -p tmem-cli --test run -- --ignored programs"]
fn sort() {
    let scratch = Scratch::new("sort");
    let file = scratch.write("lines", &prose(400_000));
    let sorted = scratch.path("sorted");
    compare("sort", &["-S", "500M", "--parallel=2", "-o", &sorted, &file], &[TWO_THIRDS], || hash(Path::new(&sorted)));
}

#[test]
#[ignore = "takes minutes: cargo test --release -p tmem-cli --test run -- --ignored programs"]
fn c_compiler() {
    let scratch = Scratch::new("cc");
    let functions: String = (0..3000)
        .map(|n| {
            format!(
                "int f{n}(int a, int *b) {{ for (int i = 0; i < a; i++) b[i % 7] += i * {n} ^ a; return b[{}]; }}\n",
                n % 7
            )
        })
        .collect();
    let (source, object) = (scratch.write("many.c", &functions), scratch.path("many.o"));
    compare("gcc", &["-O2", "-c", &source, "-o", &object], &[HALF, THIRD], || hash(Path::new(&object)));
}

#[test]
#[ignore = "takes minutes: cargo test --release -p tmem-cli --test run -- --ignored programs"]
fn rust_compiler() {
    let scratch = Scratch::new("rustc");
    let functions: String = (0..1500)
        .map(|n| {
            format!(
                "pub fn f{n}(a: &[u32]) -> Vec<u32> {{ a.iter().map(|x| x * {n}).filter(|x| x % 3 == 0).collect() }}\n"
            )
        })
        .collect();
    let (source, object) = (scratch.write("many.rs", &functions), scratch.path("many.rlib"));
    let arguments = ["--crate-type=rlib", "--crate-name=many", "-O", "-o", &object, &source];
    compare("rustc", &arguments, &[HALF], || Path::new(&object).exists().to_string());
}

#[test]
#[ignore = "takes minutes: cargo test --release -p tmem-cli --test run -- --ignored programs"]
fn java() {
    let scratch = Scratch::new("java");
    let file = scratch.write("Words.java", include_str!("Words.java"));
    compare("java", &["-Xmx192m", "-XX:+UseSerialGC", &file], &[HALF], String::new);
}

#[test]
#[ignore = "takes minutes: cargo test --release -p tmem-cli --test run -- --ignored programs"]
fn java_parallel_collector() {
    let scratch = Scratch::new("javag1");
    let file = scratch.write("Words.java", include_str!("Words.java"));
    compare("java", &["-Xmx192m", "-XX:+UseG1GC", &file], &[HALF], String::new);
}

#[test]
#[ignore = "takes minutes: cargo test --release -p tmem-cli --test run -- --ignored programs"]
fn node() {
    let scratch = Scratch::new("node");
    let file = scratch.write("words.js", include_str!("words.js"));
    compare("node", &[&file], &[HALF, THIRD], String::new);
}

#[test]
#[ignore = "takes minutes: cargo test --release -p tmem-cli --test run -- --ignored programs"]
fn git_repack() {
    let Some(git) = find("git") else { return };
    let scratch = Scratch::new("git");
    let script = scratch.write("repack.sh", include_str!("repack.sh"));
    let lines = scratch.write("lines", &prose(100_000));
    let work = scratch.path("repository");
    compare("sh", &[&script, &git.display().to_string(), &lines, &work], &[FIVE_SIXTHS], String::new);
}
