//! The file that `--report` names: there as a whole, or as it was before.

use anyhow::{Context, Result, ensure};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use tmem_pager::Report;

/// Where the report goes to.
#[derive(Debug)]
pub(crate) struct Record {
    path: PathBuf,
    /// Written first, and then given the name; `None` for what is no file, like a pipe, which is written as it is.
    aside: Option<PathBuf>,
}

impl Record {
    /// Checks that it can be written when the time comes.
    pub(crate) fn new(path: &Path) -> Result<Self> {
        let what = || format!("cannot write the report {}", path.display());
        let special = fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir());
        if special {
            File::options().write(true).open(path).with_context(what)?;
            return Ok(Self { path: path.into(), aside: None });
        }
        ensure!(!path.is_dir(), "{}: it is a directory", what());
        let name = path.file_name().with_context(what)?;
        let mut aside = std::ffi::OsString::from(".");
        aside.push(name);
        aside.push(format!(".{}", std::process::id()));
        // Absolute, and beside the file: a rename does not leave its file system.
        let path = std::path::absolute(path).with_context(what)?;
        let aside = path.with_file_name(aside);
        File::create_new(&aside).and_then(|_| fs::remove_file(&aside)).with_context(what)?;
        Ok(Self { path, aside: Some(aside) })
    }

    /// Writes it.
    pub(crate) fn write(&self, report: &Report) -> Result<()> {
        let text = serde_json::to_string_pretty(report).context("cannot write JSON")? + "\n";
        let written = match &self.aside {
            None => File::options().write(true).open(&self.path).and_then(|mut file| file.write_all(text.as_bytes())),
            Some(aside) => fs::write(aside, text).and_then(|()| fs::rename(aside, &self.path)).inspect_err(|_| {
                // What is half written helps nobody.
                let _ = fs::remove_file(aside);
            }),
        };
        written.with_context(|| format!("cannot write the report {}", self.path.display()))
    }
}
