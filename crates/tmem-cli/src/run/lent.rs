//! Rights that the file of tmem lends to its user (`setcap`), and how little of it the rest may notice.
//!
//! The kernel shuts such a process off from everybody with fewer rights, its own programs included, and the loader
//! takes variables out of its environment (ld.so(8), "Secure-execution mode").
//!
//! | process | of lent rights |
//! |---|---|
//! | the monitor | keeps them, and stays shut off: whoever could look into it could use them |
//! | the holder | gives them up, so that programs can load the agent from it |
//! | the front | gives them up when the program has started |
//! | the program | never has them; its environment is as the user made it |

use anyhow::{Context, Result, ensure};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, Stdio};
use tmem_pager::agent_image;

/// Whether this process has rights that its user has not.
fn has() -> bool {
    let permitted = capabilities(None).is_ok_and(|sets| !sets.permitted.is_empty());
    permitted && !rustix::process::getuid().is_root()
}

/// Gives lent rights up for ever. A process without them has nothing to be shut off for.
pub(super) fn give_up() -> Result<()> {
    if has() {
        let none = CapabilitySet::empty();
        set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
        set_dumpable_behavior(DumpableBehavior::Dumpable)?;
    }
    Ok(())
}

/// The environment as the user made it, where the loader took from it; otherwise nothing.
pub(super) fn environment() -> Result<Option<Vec<(OsString, OsString)>>> {
    if !has() {
        return Ok(None);
    }
    // The kernel gives the text to the user whose process is not shut off. With rights that others lack it still is.
    set_dumpable_behavior(DumpableBehavior::Dumpable)?;
    let text = fs::read("/proc/self/environ");
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(Some(variables(&text.context("cannot read the environment")?)))
}

fn variables(text: &[u8]) -> Vec<(OsString, OsString)> {
    let pair = |variable: &[u8]| {
        let at = variable.iter().position(|byte| *byte == b'=').filter(|at| *at > 0)?;
        let owned = |bytes| OsStr::from_bytes(bytes).to_os_string();
        Some((owned(&variable[..at]), owned(&variable[at + 1..])))
    };
    text.split(|byte| *byte == 0).filter_map(pair).collect()
}

/// The agent as a file in memory, in a process that programs may look into.
#[derive(Debug)]
pub(super) enum Image {
    /// There is none in this build.
    None,
    /// In this one.
    Ours(File),
    /// In another one, which lives as long as its standard input is open; and its path.
    Held(Child, String),
}

impl Image {
    /// Makes the file.
    pub(super) fn new() -> Result<Self> {
        if agent_image().is_empty() {
            Ok(Self::None)
        } else if has() {
            Self::held()
        } else {
            file().map(Self::Ours)
        }
    }

    fn held() -> Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command.arg0("tmem").arg("holder").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut holder = command.spawn()?;
        let mut path = String::new();
        if let Some(output) = holder.stdout.take() {
            BufReader::new(output).read_line(&mut path)?;
        }
        ensure!(path.ends_with('\n'), "the process that holds it has ended");
        Ok(Self::Held(holder, path.trim_end().into()))
    }

    /// Where programs find it.
    pub(super) fn path(&self) -> Option<String> {
        match self {
            Self::None => None,
            Self::Ours(file) => Some(path(file)),
            Self::Held(_, path) => Some(path.clone()),
        }
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        if let Self::Held(holder, _) = self {
            // Waiting closes its standard input first, which ends it.
            let _ = holder.wait();
        }
    }
}

fn file() -> Result<File> {
    let mut file = File::from(memfd_create("tmem-agent", MemfdFlags::CLOEXEC | MemfdFlags::EXEC)?);
    file.write_all(agent_image())?;
    Ok(file)
}

fn path(file: &File) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd())
}

/// The hidden command `tmem holder`: tells the path of the agent's file and keeps it until standard input ends.
pub(crate) fn hold() -> ExitCode {
    let kept = give_up().and_then(|()| file()).and_then(|file| {
        println!("{}", path(&file));
        Ok(std::io::stdin().read_to_end(&mut Vec::new())?)
    });
    if kept.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_taken_apart_at_their_first_sign() {
        let text = b"A=1\0LD_PRELOAD=/x=y\0\0=odd\0none\0E=\0";
        let pairs = [("A", "1"), ("LD_PRELOAD", "/x=y"), ("E", "")];
        assert_eq!(variables(text), pairs.map(|(name, value)| (name.into(), value.into())));
    }
}
