//! Rules of this code base that no lint can see, executed.
//!
//! A rule is a function from a file to offences. The lists of what a rule lets pass stand at its head, in [`rules`],
//! and start empty: an entry is a decision, made in review.

mod rules;
mod source;

use anyhow::{Context, Result, bail};
use source::Line;
use std::fmt;
use std::fs;
use std::path::Path;

/// Folders and files that are ours to judge.
const ROOTS: &[&str] = &["crates", "xtask", ".ci", "docs"];
/// Folders that hold what was made, not written.
const MADE: &[&str] = &["target", "corpus", "artifacts", "node_modules"];

/// A file under judgement.
#[derive(Debug)]
struct File {
    /// From the root of the workspace, with `/`.
    path: String,
    lines: Vec<Line>,
}

impl File {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), lines: source::lines(text, path.ends_with(".rs")) }
    }

    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// What breaks a rule at a line, counted from 1.
    fn offence(&self, line: usize, what: impl Into<String>) -> Offence {
        Offence { path: self.path.clone(), line, what: what.into() }
    }
}

/// A place that breaks a rule.
#[derive(Debug, PartialEq, Eq)]
struct Offence {
    path: String,
    line: usize,
    what: String,
}

impl fmt::Display for Offence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// Judges the workspace at `root`; prints each offence, and fails when there is one.
pub(crate) fn check(root: &Path) -> Result<()> {
    let mut files = Vec::new();
    for name in names(root)? {
        let path = root.join(&name);
        if ROOTS.contains(&&*name) {
            collect(&path, &name, &mut files)?;
        } else if path.is_file() && name.ends_with(".md") {
            read(&path, &name, &mut files)?;
        }
    }
    let offences: Vec<Offence> = files.iter().flat_map(rules::judge).collect();
    for offence in &offences {
        println!("{offence}");
    }
    match offences.len() {
        0 => println!("{} files", files.len()),
        count => bail!("{count} offences in {} files", files.len()),
    }
    Ok(())
}

fn collect(folder: &Path, name: &str, files: &mut Vec<File>) -> Result<()> {
    for entry in names(folder)? {
        let path = folder.join(&entry);
        let name = format!("{name}/{entry}");
        if path.is_dir() && !MADE.contains(&&*entry) {
            collect(&path, &name, files)?;
        } else if path.is_file() {
            read(&path, &name, files)?;
        }
    }
    Ok(())
}

fn read(path: &Path, name: &str, files: &mut Vec<File>) -> Result<()> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {name}"))?;
    // What is no text has no lines to judge.
    if let Ok(text) = String::from_utf8(bytes) {
        files.push(File::new(name, &text));
    }
    Ok(())
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut names: Vec<String> = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_workspace_keeps_its_rules() {
        super::check(&crate::tasks::root()).unwrap();
    }
}
