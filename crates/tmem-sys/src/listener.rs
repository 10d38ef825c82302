//! Where clients find a daemon: a socket in the file system.
//!
//! The socket gets its name when it is complete. It is bound to another name in the same folder, which nobody knows,
//! gets its mode, listens, and is then moved, which fails if the name is taken. So a socket that does not listen belongs
//! to a dead daemon, and may be removed. Several daemons may find the same dead one at once: who removes holds a lock
//! on the folder from before it judges, so that nobody removes what another has just put there.

use crate::channel::{Channel, Peer};
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::Relaxed;
use core::time::Duration;
use rustix::fs::{AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, RenameFlags, Stat};
use rustix::fs::{chmodat, fcntl_getfl, fcntl_setfl, flock, lstat, open, renameat_with, unlinkat};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::net::sockopt::{socket_acceptconn, socket_domain, socket_type};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::net::{accept_with, bind, connect, listen, socket_with};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;

/// Clients that wait to be accepted; more wait in `connect`.
const BACKLOG: i32 = 128;
/// How often the name is found taken, by a dead daemon, before we give up.
const TRIES: usize = 100;
/// Between two tries, while another daemon starts. Anybody who may read the folder can hold its lock, so we do not
/// wait for it without end.
const PERIOD: Duration = Duration::from_millis(10);

/// Why there is no listening.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListenError {
    /// Somebody listens there.
    #[error("another daemon serves {path}: stop it, or choose another path")]
    Live {
        /// The path.
        path: PathBuf,
    },
    /// There is a file of another kind.
    #[error("{path} is there and is no socket: remove it, or choose another path")]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The descriptor is none to accept connections from.
    #[error("the descriptor is no listening SOCK_SEQPACKET socket: say ListenSequentialPacket=PATH in the socket unit")]
    NotListening,
    /// The kernel refuses.
    #[error(
        "cannot listen at {path} ({errno}): its folder has to be there and writable, its path shorter than 90 bytes"
    )]
    System {
        /// The path.
        path: PathBuf,
        /// What the kernel said.
        errno: Errno,
    },
}

/// A socket to which clients connect.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    /// The name in the file system, if we gave it.
    _name: Option<Name>,
}

impl Listener {
    /// Listens at `path`; whoever may write to a file of `mode` may connect. The socket of a dead daemon is replaced. The
    /// name goes when this is dropped.
    ///
    /// # Errors
    /// [`ListenError`].
    pub fn bind(path: &Path, mode: u32) -> Result<Self, ListenError> {
        let failed = |errno| ListenError::System { path: path.to_owned(), errno };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).map_err(failed)?;
        let mut name = Name::unknown(path, |unknown| bind(&socket, &SocketAddrUnix::new(unknown)?)).map_err(failed)?;
        chmodat(CWD, &name.path, Mode::from_raw_mode(mode), AtFlags::empty()).map_err(failed)?;
        listen(&socket, BACKLOG).map_err(failed)?;
        for _ in 0..TRIES {
            match name.move_to(path) {
                Err(Errno::EXIST) => remove_dead(path)?,
                moved => return moved.map(|()| Self { socket, _name: Some(name) }).map_err(failed),
            }
        }
        Err(failed(Errno::EXIST))
    }

    /// Takes a socket on which somebody else listens, as systemd does.
    ///
    /// # Errors
    /// [`ListenError::NotListening`].
    pub fn from_fd(socket: OwnedFd) -> Result<Self, ListenError> {
        let fit = socket_domain(&socket) == Ok(AddressFamily::UNIX)
            && socket_type(&socket) == Ok(SocketType::SEQPACKET)
            && socket_acceptconn(&socket) == Ok(true);
        let set = fcntl_getfl(&socket).and_then(|flags| {
            fcntl_setfl(&socket, flags | OFlags::NONBLOCK)?;
            fcntl_setfd(&socket, FdFlags::CLOEXEC)
        });
        if fit && set.is_ok() { Ok(Self { socket, _name: None }) } else { Err(ListenError::NotListening) }
    }

    /// Takes the next connection, if there is one: an end that does not wait, and who is at the other.
    ///
    /// # Errors
    /// `MFILE`, `NFILE`, `NOBUFS`, `NOMEM`: the client stays in the queue.
    pub fn accept(&self) -> Result<Option<(Channel, Peer)>, Errno> {
        match accept_with(&self.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok(socket) => {
                let channel = Channel::accepted(socket);
                let peer = channel.peer()?;
                Ok(Some((channel, peer)))
            }
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => Ok(None),
            Err(errno) => Err(errno),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The name of a file that we made, removed when this is dropped, unless it is another file's by then.
#[derive(Debug)]
struct Name {
    path: PathBuf,
    file: (u64, u64),
}

impl Name {
    /// A name beside `path` that no file has, at which `make` makes one.
    fn unknown(path: &Path, make: impl Fn(&Path) -> Result<(), Errno>) -> Result<Self, Errno> {
        loop {
            let path = unknown_beside(path);
            match make(&path) {
                // Left there by a process of our number.
                Err(Errno::ADDRINUSE) => {}
                made => {
                    made?;
                    let file = identity(&lstat(&path)?);
                    return Ok(Self { path, file });
                }
            }
        }
    }

    /// Gives the file another name, which no file has.
    fn move_to(&mut self, path: &Path) -> Result<(), Errno> {
        renameat_with(CWD, &self.path, CWD, path, RenameFlags::NOREPLACE)?;
        path.clone_into(&mut self.path);
        Ok(())
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        if lstat(&self.path).is_ok_and(|stat| identity(&stat) == self.file) {
            // It may be gone since, or the folder be made read-only: the next daemon finds a dead socket.
            let _ = unlinkat(CWD, &self.path, AtFlags::empty());
        }
    }
}

fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

/// A path in the same folder.
fn unknown_beside(path: &Path) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Relaxed: it only has to differ.
    path.with_file_name(format!(".tmem-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed)))
}

/// Removes the socket at `path` if nobody listens on it; or lets a moment pass, if another daemon is about to.
fn remove_dead(path: &Path) -> Result<(), ListenError> {
    let failed = |errno| ListenError::System { path: path.to_owned(), errno };
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    // Closed at the end, and so unlocked.
    let folder = open(folder, flags, Mode::empty()).map_err(failed)?;
    match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::AGAIN) => {
            thread::sleep(PERIOD);
            return Ok(());
        }
        locked => locked.map_err(failed)?,
    }
    if !is_dead(path)? {
        return Ok(());
    }
    match unlinkat(CWD, path, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(failed(errno)),
    }
}

/// Whether there is a socket at `path` that nobody listens on; false: there is nothing.
fn is_dead(path: &Path) -> Result<bool, ListenError> {
    let failed = |errno| ListenError::System { path: path.to_owned(), errno };
    match lstat(path) {
        Err(Errno::NOENT) => return Ok(false),
        Err(errno) => return Err(failed(errno)),
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) != FileType::Socket => {
            return Err(ListenError::NotASocket { path: path.to_owned() });
        }
        Ok(_) => {}
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let probe = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).map_err(failed)?;
    match SocketAddrUnix::new(path).and_then(|address| connect(&probe, &address)) {
        Err(Errno::CONNREFUSED) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        // Its queue is full; or it is of another type.
        Ok(()) | Err(Errno::AGAIN | Errno::PROTOTYPE) => Err(ListenError::Live { path: path.to_owned() }),
        Err(errno) => Err(failed(errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::poll_readable;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::os::unix::net::{UnixDatagram, UnixListener};

    /// A folder of a test's own.
    struct Folder(PathBuf);

    impl Folder {
        fn new(test: &str) -> Self {
            let path = std::env::temp_dir().join(format!("tmem-{test}-{}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn socket(&self) -> PathBuf {
            self.0.join("socket")
        }

        #[track_caller]
        fn assert_holds(&self, expected: &[&str]) {
            let names = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
            assert_eq!(names.collect::<Vec<_>>(), expected);
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn clients_connect_and_are_known() {
        let folder = Folder::new("clients");
        let listener = Listener::bind(&folder.socket(), 0o640).unwrap();
        assert_eq!(fs::metadata(folder.socket()).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(listener.accept().unwrap().is_none());
        let client = Channel::connect(&folder.socket()).unwrap();
        assert_eq!(poll_readable(&[listener.as_fd()], Some(Duration::from_secs(10))), Ok(1));
        let (daemon, peer) = listener.accept().unwrap().unwrap();
        assert_eq!(peer.pid, std::process::id());
        assert_eq!(daemon.receive(&mut [0; 8]).unwrap_err(), Errno::AGAIN, "a daemon does not wait");
        client.send(b"hello", &[]).unwrap();
        assert_eq!(daemon.receive(&mut [0; 8]).unwrap().len, 5);
        folder.assert_holds(&["socket"]);
        drop(listener);
        folder.assert_holds(&[]);
    }

    #[test]
    fn the_socket_of_a_dead_daemon_is_replaced() {
        let folder = Folder::new("dead");
        drop(UnixListener::bind(folder.socket()).unwrap());
        let old = fs::metadata(folder.socket()).unwrap().ino();
        let listener = Listener::bind(&folder.socket(), 0o600).unwrap();
        assert_ne!(fs::metadata(folder.socket()).unwrap().ino(), old);
        folder.assert_holds(&["socket"]);
        Channel::connect(&folder.socket()).unwrap();
        assert!(listener.accept().unwrap().is_some());
    }

    #[test]
    fn what_is_alive_or_no_socket_is_left_alone() {
        let folder = Folder::new("alive");
        let refused = || Listener::bind(&folder.socket(), 0o600).unwrap_err();
        let first = Listener::bind(&folder.socket(), 0o600).unwrap();
        assert!(refused().to_string().starts_with("another daemon serves "));
        Channel::connect(&folder.socket()).unwrap();
        drop(first);
        let others = UnixDatagram::bind(folder.socket()).unwrap();
        assert_eq!(refused(), ListenError::Live { path: folder.socket() });
        drop(others);
        fs::remove_file(folder.socket()).unwrap();
        fs::write(folder.socket(), "mine").unwrap();
        assert_eq!(refused(), ListenError::NotASocket { path: folder.socket() });
        assert_eq!(fs::read(folder.socket()).unwrap(), b"mine");
        folder.assert_holds(&["socket"]);
        let nowhere = folder.0.join("no/socket");
        assert!(matches!(Listener::bind(&nowhere, 0o600), Err(ListenError::System { errno: Errno::NOENT, .. })));
    }

    #[test]
    fn a_name_that_is_anothers_by_now_stays() {
        let folder = Folder::new("anothers");
        let first = Listener::bind(&folder.socket(), 0o600).unwrap();
        fs::remove_file(folder.socket()).unwrap();
        let second = Listener::bind(&folder.socket(), 0o600).unwrap();
        drop(first);
        Channel::connect(&folder.socket()).unwrap();
        drop(second);
        folder.assert_holds(&[]);
    }

    #[test]
    fn of_daemons_that_start_at_once_one_serves() {
        let folder = Folder::new("at-once");
        for _ in 0..50 {
            drop(UnixListener::bind(folder.socket()).unwrap());
            let bind = || Listener::bind(&folder.socket(), 0o600);
            let all: Vec<_> = thread::scope(|scope| {
                let starting: Vec<_> = (0..4).map(|_| scope.spawn(bind)).collect();
                starting.into_iter().map(|one| one.join().unwrap()).collect()
            });
            assert_eq!(all.iter().filter(|one| one.is_ok()).count(), 1, "{all:?}");
            Channel::connect(&folder.socket()).unwrap();
            drop(all);
            folder.assert_holds(&[]);
        }
    }

    #[test]
    fn a_socket_to_listen_on_can_be_given() {
        let folder = Folder::new("given");
        let listener = Listener::bind(&folder.socket(), 0o600).unwrap();
        let given = Listener::from_fd(listener.as_fd().try_clone_to_owned().unwrap()).unwrap();
        Channel::connect(&folder.socket()).unwrap();
        assert!(given.accept().unwrap().is_some());
        drop(given);
        folder.assert_holds(&["socket"]);
        let stream = UnixListener::bind(folder.0.join("stream")).unwrap();
        assert_eq!(Listener::from_fd(stream.into()).unwrap_err(), ListenError::NotListening);
        let (end, _other) = Channel::pair().unwrap();
        let end = end.as_fd().try_clone_to_owned().unwrap();
        assert_eq!(Listener::from_fd(end).unwrap_err(), ListenError::NotListening);
        let file = fs::File::open("/dev/null").unwrap();
        assert_eq!(Listener::from_fd(file.into()).unwrap_err(), ListenError::NotListening);
    }
}
