//! Text that people wrote, for the programs to hold: names, words and prose decide how memory compresses.

use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Enough that a program of 128 MiB does not see the same line too often.
const LIMIT_BYTES: usize = 6 << 20;
/// Less than this is no prose to speak of.
const LEAST_BYTES: usize = 256 << 10;
/// A line of prose has at least this many words.
const WORDS_IN_LINE: usize = 6;
/// Folders deeper than this are not looked into.
const DEPTH: usize = 6;

/// Writes lines of prose found in the documentation of this machine to `path`.
pub(super) fn write(path: &Path) -> Result<()> {
    let mut text = String::with_capacity(LIMIT_BYTES);
    for (root, suffixes) in roots() {
        let mut files = Vec::new();
        collect(&root, suffixes, DEPTH, &mut files);
        files.sort();
        for file in files {
            add_prose(&mut text, &file);
        }
        if text.len() >= LIMIT_BYTES {
            break;
        }
    }
    ensure!(text.len() >= LEAST_BYTES, "found only {} bytes of prose in this machine's documentation", text.len());
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Where documentation lies, the best prose first. Python's library is on each machine that can run the tests.
fn roots() -> Vec<(PathBuf, &'static [&'static str])> {
    let mut roots: Vec<(PathBuf, &'static [&'static str])> = Vec::new();
    if let Some(library) = python_library() {
        roots.push((library.join("pydoc_data"), &["py"]));
        roots.push((library, &["py"]));
    }
    roots.push(("/usr/share/perl".into(), &["pod", "pm"]));
    roots.push(("/usr/share/perl5".into(), &["pod", "pm"]));
    roots.push(("/usr/share/doc".into(), &["copyright", "txt", "md", "html"]));
    roots.push(("/usr/include".into(), &["h"]));
    roots
}

/// The folder of Python's standard library, of the interpreter that the programs use.
pub(super) fn python_library() -> Option<PathBuf> {
    let output =
        Command::new("python3").args(["-c", "import os; print(os.path.dirname(os.__file__))"]).output().ok()?;
    let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    path.is_dir().then_some(path)
}

fn collect(directory: &Path, suffixes: &[&str], depth: usize, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_dir() && depth > 0 && entry.file_name() != "site-packages" {
            collect(&path, suffixes, depth - 1, files);
        }
        let name = entry.file_name();
        let suffix = path.extension().unwrap_or(&name).to_string_lossy();
        if kind.is_file() && suffixes.contains(&&*suffix) {
            files.push(path);
        }
    }
}

fn add_prose(text: &mut String, file: &Path) {
    let Ok(bytes) = fs::read(file) else { return };
    for line in String::from_utf8_lossy(&bytes).lines() {
        if text.len() >= LIMIT_BYTES {
            return;
        }
        let line = line.trim_matches(|c: char| !c.is_alphanumeric() && c != '(' && c != ')' && c != '.');
        if is_prose(line) {
            text.push_str(line);
            text.push('\n');
        }
    }
}

/// Whether a line reads like a sentence and not like code.
fn is_prose(line: &str) -> bool {
    let words = line.split_whitespace();
    let plain = words.clone().filter(|word| {
        let core = word.trim_end_matches(['.', ',', ';', ':']);
        !core.is_empty() && core.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'\'' || byte == b'-')
    });
    let count = words.clone().count();
    count >= WORDS_IN_LINE && plain.count() * 10 >= count * 8 && line.is_ascii()
}

#[cfg(test)]
mod tests {
    use super::is_prose;

    #[test]
    fn code_is_not_prose() {
        assert!(is_prose("The mapping is kept until the last of its readers, or its owner, is done."));
        assert!(!is_prose("for (i = 0; i < n; i++) { total += counts[i]; }"));
        assert!(!is_prose("Too short."));
    }
}
