//! Where a daemon listens, and where its clients look for it.

use anyhow::{Context, Result, ensure};
use rustix::process::geteuid;
use std::env;
use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use tmem_sys::Listener;

/// Where root's daemon listens, if nothing else is said.
const OF_ROOT: &str = "/run/tmem/tmem.sock";

/// The socket that the service manager has passed; otherwise a new one at `path`. With it comes what it is called.
pub(crate) fn open(path: Option<&Path>, mode: u32) -> Result<(Listener, String)> {
    if let Some(listener) = passed()? {
        return Ok((listener, "the socket of the service manager".to_owned()));
    }
    let path = match path {
        Some(path) => path.to_owned(),
        None => default_path()?,
    };
    let listener = Listener::bind(&path, mode)?;
    Ok((listener, path.display().to_string()))
}

/// What the service manager has passed.
fn passed() -> Result<Option<Listener>> {
    let mut numbers = sd_notify::listen_fds().context("cannot take the socket of the service manager")?;
    let Some(number) = numbers.next() else { return Ok(None) };
    ensure!(
        numbers.len() == 0,
        "the service manager has passed {} descriptors: the socket unit must have one ListenSequentialPacket=, and no more",
        numbers.len() + 1
    );
    let fd = tmem_sys::duplicate_inherited(number).context("cannot take the socket of the service manager")?;
    Ok(Some(Listener::from_fd(fd)?))
}

/// Where a daemon of this user listens.
fn default_path() -> Result<PathBuf> {
    // Of several directories that the service manager has made, the first.
    let made = env::var("RUNTIME_DIRECTORY").unwrap_or_default();
    if let Some(directory) = made.split(':').next().filter(|name| !name.is_empty()) {
        return Ok(Path::new(directory).join("tmem.sock"));
    }
    if !geteuid().is_root() {
        return own_path().context("$XDG_RUNTIME_DIR is not set: give --socket PATH");
    }
    let path = Path::new(OF_ROOT);
    let directory = path.parent().unwrap_or(path);
    match DirBuilder::new().mode(0o755).create(directory) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(error).with_context(|| format!("cannot make the directory {}: give --socket PATH", directory.display()))
        }
        _ => Ok(path.to_owned()),
    }
}

fn own_path() -> Option<PathBuf> {
    env::var_os("XDG_RUNTIME_DIR").filter(|name| !name.is_empty()).map(|name| Path::new(&name).join("tmem.sock"))
}

/// Where a client finds its daemon.
pub(crate) fn of_daemon(given: Option<&Path>) -> PathBuf {
    let own = || own_path().filter(|path| !geteuid().is_root() && path.exists());
    given.map(Path::to_owned).or_else(own).unwrap_or_else(|| OF_ROOT.into())
}
