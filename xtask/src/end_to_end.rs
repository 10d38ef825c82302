//! The built command `tmem` on pages of live programs: what a person would type, and what it prints.

use crate::pages::{self, QUICK_MIB};
use crate::process;
use crate::steps::{Steps, Verdict};
use crate::tasks::{cargo, root, run, target};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// A command on 16 MiB of pages does not take this long.
const COMMAND_LIMIT: Duration = Duration::from_secs(300);

/// What an estimate tells, for each source and policy.
const ESTIMATE: &[&str] = &[
    "/estimates/0/resident_bytes",
    "/estimates/0/read_bytes",
    "/estimates/0/policies/0/density",
    "/estimates/0/policies/1/density_cold",
    "/estimates/0/policies/2/saved_bytes",
    "/estimates/0/policies/0/put_gbps",
    "/estimates/0/policies/0/get_gbps",
];
/// What the bench of the engine tells, for each file and of all.
const BENCH: &[&str] = &[
    "/rounds",
    "/corpora/0/bytes",
    "/corpora/0/put_gbps",
    "/corpora/0/get_gbps",
    "/corpora/0/put_over_codec",
    "/corpora/0/get_us/p99",
    "/corpora/0/density",
    "/corpora/0/table_bytes_per_granule",
    "/geomean/density_cold",
];

/// Steps that run the release build of `tmem`.
pub(crate) fn steps(steps: &mut Steps) {
    steps.step("release build", || run(cargo().args(["build", "--quiet", "--release", "--package", "tmem-cli"])));
    // What without optimisation is too slow for a part of it.
    steps.step("huge pages, as released", || {
        let test = ["test", "--release", "--package", "tmem-cli", "--test", "run", "huge", "--", "--test-threads=1"];
        run(cargo().args(test))
    });
    steps.step("pages of live programs", quick_pages);
    steps.step("tmem estimate, files", || {
        let pages = some_pages()?.display().to_string();
        prints(&["estimate", "--pages", &pages, "--json"], ESTIMATE)
    });
    steps.step("tmem estimate, a process", || {
        pages::with_program("pyobj", QUICK_MIB, |id| {
            prints(&["estimate", "--pid", &id.to_string(), "--json"], ESTIMATE)
        })
    });
    steps.step("tmem bench engine", || {
        let pages = some_pages()?.display().to_string();
        prints(&["bench", "engine", "--pages", &pages, "--unit", "4k", "--json"], BENCH)
    });
}

/// Where the pages of these steps lie; thrown away with the other things that were built.
fn folder() -> PathBuf {
    target().join("pages-quick")
}

fn quick_pages() -> Result<Verdict> {
    let options = pages::Options { out: folder(), quick: true, force: true, ..pages::Options::default() };
    pages::run(&options).map(|()| Verdict::Passed)
}

/// The first of the page files.
fn some_pages() -> Result<PathBuf> {
    let entries = fs::read_dir(folder()).context("the pages are not there")?;
    let files = entries.flatten().map(|entry| entry.path());
    files.filter(|path| path.extension().is_some_and(|name| name == "pages")).min().context("no page file is there")
}

/// Runs `tmem` with `arguments`, and checks that it prints JSON with a number above 0 at each of `pointers` (RFC
/// 6901).
fn prints(arguments: &[&str], pointers: &[&str]) -> Result<Verdict> {
    let tmem = target().join("release/tmem");
    let help = process::output(Command::new(&tmem).arg("--help"), COMMAND_LIMIT)?;
    if !help.contains(arguments[0]) {
        return Ok(Verdict::Skipped(format!("tmem has no command {} yet", arguments[0])));
    }
    println!("$ tmem {}", arguments.join(" "));
    let printed = process::output(Command::new(&tmem).args(arguments).current_dir(root()), COMMAND_LIMIT)?;
    let value: Value = serde_json::from_str(&printed).with_context(|| format!("no JSON: {printed}"))?;
    for pointer in pointers {
        let number = value.pointer(pointer).and_then(Value::as_f64);
        ensure!(number.is_some_and(|number| number > 0.0), "{pointer} is {number:?} in {printed}");
    }
    println!("{printed}");
    Ok(Verdict::Passed)
}
