//! `tmem limit`: another limit for programs that run.

use crate::cli::Limit;
use crate::{report, tree};
use anyhow::{Result, anyhow, bail};
use std::fs;
use std::io::{self, ErrorKind};
use tmem_agent::protocol::SOCKET_VARIABLE;

/// Changes the limit and prints the old and the new one.
pub(crate) fn run(options: &Limit) -> Result<()> {
    let socket = socket_of(options.pid)?;
    let new = options.size as u64;
    let old = tmem_pager::set_limit(&socket, new).map_err(|error| refused(options.pid, error))?;
    report::print(None::<&()>, || format!("{} -> {}\n", report::bytes(old), report::bytes(new)))
}

/// The name of the socket of the monitor that a process is under. `tmem run` itself is under none: its programs are.
/// A program may have written over its own environment, as those do that change their title; so all others of its run are
/// asked too. Nobody else's relatives are: below a shell, or the first process of all, there may be any number of runs.
fn socket_of(pid: u32) -> Result<String> {
    let own = environment(pid);
    if let Ok(Some(socket)) = own {
        return Ok(socket);
    }
    let front = std::iter::once(pid).chain(tree::ancestors(pid)).find(|pid| is_tmem(*pid));
    let mut run = front.map(tree::descendants).unwrap_or_default().into_iter();
    let theirs = run.find_map(|pid| environment(pid).ok().flatten());
    match (theirs, own) {
        (Some(socket), _) => Ok(socket),
        (None, Err(error)) => Err(denied(pid, error)),
        (None, Ok(_)) => {
            bail!("process {pid} is not under `tmem run`: give the number of `tmem run`, or of a program under it")
        }
    }
}

/// Whether a process is the command `tmem`.
fn is_tmem(pid: u32) -> bool {
    fs::read(format!("/proc/{pid}/comm")).is_ok_and(|name| name == b"tmem\n")
}

/// What a process was started with in the variable that names the socket.
fn environment(pid: u32) -> io::Result<Option<String>> {
    let environment = fs::read(format!("/proc/{pid}/environ"))?;
    let prefix = format!("{SOCKET_VARIABLE}=");
    let value = environment.split(|byte| *byte == 0).find_map(|variable| variable.strip_prefix(prefix.as_bytes()));
    Ok(value.and_then(|value| String::from_utf8(value.to_vec()).ok()))
}

fn denied(pid: u32, error: io::Error) -> anyhow::Error {
    match error.kind() {
        ErrorKind::NotFound => anyhow!("there is no process {pid}: `pgrep -x tmem` lists those of `tmem run`"),
        ErrorKind::PermissionDenied => anyhow!("process {pid} is another user's: do this as that user, or as root"),
        _ => anyhow::Error::new(error).context(format!("cannot look at process {pid}")),
    }
}

fn refused(pid: u32, error: io::Error) -> anyhow::Error {
    match error.kind() {
        ErrorKind::ConnectionRefused | ErrorKind::NotFound => {
            anyhow!("the monitor of process {pid} has ended: there is no limit any more")
        }
        ErrorKind::PermissionDenied => anyhow!("process {pid} is under another user's limit: do this as root"),
        ErrorKind::WouldBlock | ErrorKind::TimedOut => anyhow!("the monitor of process {pid} does not answer"),
        _ => anyhow::Error::new(error).context(format!("cannot talk to the monitor of process {pid}")),
    }
}
