//! `tmem serve`: a daemon, whose clients share one store. `tmem stat` and `tmem client` look at it and tell it what to do.
//!
//! Everything that holds somebody's memory is in [`Daemon`]; this is what makes it a service: settings, the socket, signals,
//! and what a service manager wants to know.
//!
//! | signal | |
//! |---|---|
//! | SIGHUP | reads the settings again; if they are wrong, says so and changes nothing |
//! | SIGTERM, SIGINT | takes nothing new, completes what was submitted, for [`DRAIN_TIME`] at most, and ends with 0 |
//! | another one of the two | ends at once, with 1 |

pub(crate) mod cli;
pub(crate) mod client;
mod log;
mod memory;
mod settings;
mod socket;
pub(crate) mod stat;

use crate::report;
use anyhow::{Context, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sd_notify::NotifyState;
use settings::Settings;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tmem::{Store, StoreOptions};
use tmem_ring::server::Daemon;
use tracing::{error, info, warn};

/// The longest that what was submitted may take to be completed at the end.
const DRAIN_TIME: Duration = Duration::from_secs(10);

/// A daemon that serves.
#[derive(Debug)]
struct Serving<'o> {
    options: &'o cli::Serve,
    settings: Settings,
    store: Store,
    daemon: Daemon,
    /// Set when it ends: from then on SIGTERM and SIGINT end it at once.
    ending: Arc<AtomicBool>,
}

/// Serves until a signal ends it.
pub(crate) fn run(options: &cli::Serve) -> Result<()> {
    log::start(options.log);
    // First: one that comes while we start is not lost.
    let mut signals = Signals::new([SIGHUP, SIGTERM, SIGINT]).context("cannot watch for signals")?;
    let mut serving = Serving::start(options)?;
    for signal in signals.forever() {
        match signal {
            SIGHUP => serving.reload(),
            _ => break,
        }
    }
    serving.end();
    Ok(())
}

/// The settings as they are now.
fn read(options: &cli::Serve) -> Result<(Settings, usize)> {
    let file = options.config.as_deref().map(Settings::read).transpose()?.unwrap_or_default();
    let settings = options.settings.clone().over(file);
    let budget =
        settings.budget.context("how much memory may the store use? Give --budget SIZE, or `budget` in the file")?;
    memory::can_hold(budget)?;
    Ok((settings, budget))
}

impl<'o> Serving<'o> {
    fn start(options: &'o cli::Serve) -> Result<Self> {
        let ending = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            flag::register_conditional_shutdown(signal, 1, Arc::clone(&ending)).context("cannot watch for signals")?;
        }
        let (settings, budget) = read(options)?;
        raise_descriptors();
        let store = Store::new(StoreOptions::with_budget(budget)).context("cannot make the store")?;
        let (listener, place) = socket::open(settings.socket.as_deref(), settings.mode())?;
        let daemon = Daemon::start(store.clone(), listener, settings.daemon()).context("cannot start the daemon")?;
        let text = format!("serving {} at {place}", report::bytes(budget as u64));
        info!("{text}, with {} workers, as process {}", settings.daemon().workers, std::process::id());
        if !settings.allow.is_empty() && settings.mode() & 0o022 == 0 {
            warn!(
                "others than the daemon's own user are allowed, but the socket's mode is {:o}: give --mode 0666, say",
                settings.mode()
            );
        }
        tell(&[NotifyState::Ready, NotifyState::Status(&text)]);
        Ok(Self { options, settings, store, daemon, ending })
    }

    fn reload(&mut self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => tell(&[NotifyState::Reloading, now]),
            Err(_) => tell(&[NotifyState::Reloading]),
        }
        match read(self.options).and_then(|(settings, budget)| self.apply(settings, budget)) {
            Ok(()) => info!("the settings were read again"),
            Err(error) => error!("the settings stay as they were: {error:#}"),
        }
        tell(&[NotifyState::Ready]);
    }

    /// Changes everything, or nothing.
    fn apply(&mut self, settings: Settings, budget: usize) -> Result<()> {
        self.store.set_budget(budget)?;
        self.daemon.reload(settings.daemon());
        let fixed = |settings: &Settings| (settings.socket.clone(), settings.mode, settings.workers);
        if fixed(&settings) != fixed(&self.settings) {
            warn!("socket, mode and workers change only when the daemon is started again");
        }
        self.settings = settings;
        Ok(())
    }

    fn end(self) {
        info!("ending: what was submitted is completed first, within {} s", DRAIN_TIME.as_secs());
        tell(&[NotifyState::Stopping]);
        // Relaxed: publishes nothing but itself, to a signal's handler.
        self.ending.store(true, Ordering::Relaxed);
        self.daemon.drain(DRAIN_TIME);
        info!("ended");
    }
}

/// Tells a service manager, if there is one. One that does not listen is no reason to stop.
fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!("cannot tell the service manager: {error}");
    }
}

/// A client takes several descriptors. That they cannot be had shows when they are.
fn raise_descriptors() {
    let files = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: files.maximum, maximum: files.maximum });
}
