//! The arguments of `tmem serve`, `tmem stat` and `tmem client`.

use super::settings::Settings;
use crate::cli::parse_size;
use clap::{Args, Subcommand};
use std::path::PathBuf;
use std::time::Duration;
use tracing_subscriber::filter::LevelFilter;

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// A file with the same settings, as TOML; what is given here goes before it. SIGHUP reads it again.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// What is told on standard error: off, error, warn, info, debug or trace.
    #[arg(long, env = "TMEM_LOG", default_value = "info", value_name = "LEVEL")]
    pub(crate) log: LevelFilter,
    #[command(flatten)]
    pub(crate) settings: Settings,
}

#[derive(Debug, Args)]
pub(crate) struct Stat {
    #[command(flatten)]
    pub(crate) daemon: Daemon,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// How long rates are measured.
    #[arg(long, default_value = "1", value_parser = parse_seconds, value_name = "SECONDS")]
    pub(crate) interval: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct Client {
    #[command(flatten)]
    pub(crate) daemon: Daemon,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Which daemon.
#[derive(Debug, Args)]
pub(crate) struct Daemon {
    /// Its socket [default: that of root's daemon for root, otherwise that of your own, or of root's if you have none].
    #[arg(long, value_name = "PATH", global = true)]
    pub(crate) socket: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Have its puts fail that would store something new; it still gets, flushes and replaces.
    Freeze {
        /// The client's number, as `tmem stat` shows it.
        id: u32,
    },
    /// End that.
    Thaw {
        /// The client's number.
        id: u32,
    },
    /// Remove everything from its pools.
    Flush {
        /// The client's number.
        id: u32,
    },
    /// Remove it and its pools, and close its connection.
    Destroy {
        /// The client's number.
        id: u32,
    },
    /// Change how much it may hold.
    Cap {
        /// The client's number.
        id: u32,
        /// Bytes, or a whole number with k, m, g or t behind it; or none.
        #[arg(value_parser = parse_cap, value_name = "SIZE|none")]
        cap_bytes: u64,
    },
    /// Change its share of the workers' time and of ephemeral memory.
    Weight {
        /// The client's number.
        id: u32,
        /// Relative to the other clients'.
        #[arg(value_parser = clap::value_parser!(u32).range(1..))]
        weight: u32,
    },
    /// Let it join a shared pool of another client.
    Authorise {
        /// The pool's number.
        pool: u32,
        /// The client's number.
        id: u32,
    },
}

/// A cap: bytes, or none, which is more than anybody can hold.
fn parse_cap(text: &str) -> Result<u64, String> {
    if text == "none" { Ok(u64::MAX) } else { parse_size(text).map(|bytes| bytes as u64) }
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.01..=86400.0).contains(seconds));
    let seconds = seconds.ok_or_else(|| format!("`{text}` is no time: write seconds, 0.01 to 86400"))?;
    Ok(Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cap_is_a_size_or_none() {
        assert_eq!(parse_cap("1g"), Ok(1 << 30));
        assert_eq!(parse_cap("none"), Ok(u64::MAX));
        assert!(parse_cap("0").is_err() && parse_cap("all").is_err());
    }

    #[test]
    fn an_interval_is_seconds() {
        assert_eq!(parse_seconds("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["0", "-1", "nan", "inf", "1e9", "1s", ""] {
            assert!(parse_seconds(wrong).is_err(), "{wrong}");
        }
    }
}
