//! The built command `tmem` on pages of live programs: what a person would type, and what it prints.

use crate::steps::{Steps, Verdict};
use crate::tasks::{cargo, root, run, target};
use crate::{pages, process};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// A command on 16 MiB of pages does not take this long.
const COMMAND_LIMIT: Duration = Duration::from_secs(300);

/// Steps that run the release build of `tmem`.
pub(crate) fn steps(steps: &mut Steps) {
    steps.step("release build", || run(cargo().args(["build", "--quiet", "--release", "--package", "tmem-cli"])));
    steps.step("pages of live programs", quick_pages);
    steps.step("tmem estimate", || {
        let pages = some_pages()?.display().to_string();
        prints(&["estimate", "--pages", &pages, "--json"], &[])
    });
    steps.step("tmem bench engine", || {
        let pages = some_pages()?.display().to_string();
        prints(&["bench", "engine", "--pages", &pages, "--unit", "4k", "--json"], &[])
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

/// Runs `tmem` with `arguments`, and checks that it prints JSON that has a value at each of `pointers` (RFC 6901).
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
        ensure!(value.pointer(pointer).is_some(), "no {pointer} in {printed}");
    }
    println!("{printed}");
    Ok(Verdict::Passed)
}
