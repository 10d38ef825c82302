//! A daemon of a test's own.

#![allow(unreachable_pub, reason = "a module of each test")]

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use tmem::{Store, StoreOptions};
use tmem_ring::server::{Daemon, DaemonOptions};
use tmem_sys::Listener;

/// A daemon at `socket`, which ends with this.
pub struct World {
    pub socket: PathBuf,
    folder: PathBuf,
    daemon: Option<Daemon>,
}

impl World {
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed); // Relaxed: a count
        // Short, since the path of a socket is.
        let folder = std::env::temp_dir().join(format!("tmem-c-{}-{number}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let socket = folder.join("socket");
        let store = Store::new(StoreOptions::with_budget(64 << 20)).unwrap();
        let listener = Listener::bind(&socket, 0o600).unwrap();
        let options = DaemonOptions { workers: 2, allow: Vec::new(), cap_bytes: None, weight: 1, most_clients: 8 };
        let daemon = Daemon::start(store, listener, options).unwrap();
        Self { socket, folder, daemon: Some(daemon) }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        drop(self.daemon.take());
        // A folder that stays is no failure.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
