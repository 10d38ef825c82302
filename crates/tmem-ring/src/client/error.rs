//! What can go wrong between a client and its daemon.

use std::io;
use std::path::PathBuf;
use std::time::Duration;
use tmem_sys::SysError;

/// Why something that needs the daemon did not come about.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("no daemon at {path}: is `tmem serve` running?")]
    NoDaemon {
        /// Where.
        path: PathBuf,
    },
    /// The socket's file may not be written to.
    #[error("no permission to connect to {path}: whoever runs `tmem serve` sets the mode of its socket")]
    NoPermission {
        /// Where.
        path: PathBuf,
    },
    /// The system cannot connect, for another reason.
    #[error("cannot connect to {path}")]
    Connect {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The daemon says no.
    #[error("the daemon refuses: {message}")]
    Refused {
        /// What it said.
        message: String,
    },
    /// The daemon has not answered.
    #[error("the daemon has not answered within {} seconds: it is stopped, or has no time; connect anew", .waited.as_secs())]
    Silent {
        /// How long it had.
        waited: Duration,
    },
    /// The connection has ended.
    #[error("the daemon is gone, or has thrown this client out: connect anew")]
    Gone,
    /// The answer is none to what was asked.
    #[error("the daemon answers what was not asked: use the same release of daemon and client")]
    Nonsense,
    /// A client has as many regions as can be numbered.
    #[error("no number is free for one more region: drop some")]
    NoNumber,
    /// The system has no memory or descriptors for it.
    #[error(transparent)]
    System(#[from] SysError),
}
