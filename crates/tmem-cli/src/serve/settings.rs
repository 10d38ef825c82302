//! What a daemon can be told: on the command line, and in a file.
//!
//! One type is both, so that there is no setting that one of them lacks. What the command line says goes before what the
//! file says; what neither says has its default where it is asked for.

use crate::cli::parse_size;
use anyhow::{Context, Result};
use clap::Args;
use nix::unistd::{Uid, User};
use serde::{Deserialize, Deserializer, de::Error};
use std::fs;
use std::path::{Path, PathBuf};
use tmem_ring::server::DaemonOptions;

/// Clients at once, where nothing else is said.
const MOST_CLIENTS: u32 = 256;

/// Settings that were given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Settings {
    /// Where clients connect [default: $RUNTIME_DIRECTORY/tmem.sock, or /run/tmem/tmem.sock for root and
    /// $XDG_RUNTIME_DIR/tmem.sock for others].
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// The memory that the store may use: bytes, or a whole number with k, m, g or t behind it.
    #[arg(long, value_parser = parse_size, value_name = "SIZE")]
    #[serde(default, deserialize_with = "size")]
    pub(crate) budget: Option<usize>,
    /// Threads that carry out operations [default: one for each CPU].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024), value_name = "N")]
    #[serde(default, deserialize_with = "workers")]
    pub(crate) workers: Option<u16>,
    /// Who may open the socket, as for chmod [default: 0600].
    #[arg(long, value_parser = parse_mode, value_name = "MODE")]
    #[serde(default, deserialize_with = "mode")]
    pub(crate) mode: Option<u32>,
    /// A user, by name or number, who may be a client besides root and the daemon's own user; can be given several times.
    #[arg(long, value_parser = parse_user, value_name = "USER")]
    #[serde(default, deserialize_with = "users")]
    pub(crate) allow: Vec<u32>,
    /// The most that a client may hold [default: as much as the store has].
    #[arg(long, value_parser = parse_size, value_name = "SIZE")]
    #[serde(default, deserialize_with = "size")]
    pub(crate) client_cap: Option<usize>,
    /// The most weight that a client may ask for; `tmem client weight` can give it more [default: 1].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    #[serde(default, deserialize_with = "count")]
    pub(crate) client_weight: Option<u32>,
    /// The most clients at once [default: 256].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    #[serde(default, deserialize_with = "count")]
    pub(crate) max_clients: Option<u32>,
}

impl Settings {
    /// Reads a file.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text =
            fs::read_to_string(path).with_context(|| format!("cannot read the settings in {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("the settings in {} are wrong", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        Ok(toml::from_str(text)?)
    }

    /// These settings, and those of a file where these say nothing.
    pub(crate) fn over(self, file: Self) -> Self {
        Self {
            socket: self.socket.or(file.socket),
            budget: self.budget.or(file.budget),
            workers: self.workers.or(file.workers),
            mode: self.mode.or(file.mode),
            allow: if self.allow.is_empty() { file.allow } else { self.allow },
            client_cap: self.client_cap.or(file.client_cap),
            client_weight: self.client_weight.or(file.client_weight),
            max_clients: self.max_clients.or(file.max_clients),
        }
    }

    /// Access to the socket, as for chmod.
    pub(crate) fn mode(&self) -> u32 {
        self.mode.unwrap_or(0o600)
    }

    /// What the daemon is to know.
    pub(crate) fn daemon(&self) -> DaemonOptions {
        let cpus = || std::thread::available_parallelism().map_or(1, usize::from);
        DaemonOptions {
            workers: self.workers.map_or_else(cpus, usize::from),
            allow: self.allow.clone(),
            cap_bytes: self.client_cap.map(|bytes| bytes as u64),
            weight: self.client_weight.unwrap_or(1),
            most_clients: self.max_clients.unwrap_or(MOST_CLIENTS) as usize,
        }
    }
}

fn parse_mode(text: &str) -> Result<u32, String> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| digits && *mode <= 0o777);
    mode.ok_or_else(|| format!("`{text}` is no mode: write it as for chmod, 0600 to 0777"))
}

fn parse_user(text: &str) -> Result<u32, String> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    match User::from_name(text) {
        Ok(Some(user)) => Ok(Uid::as_raw(user.uid)),
        Ok(None) => Err(format!("there is no user `{text}`: give the name or the number of one")),
        Err(errno) => Err(format!("cannot look up user `{text}` ({errno}): give the number")),
    }
}

/// A number or text in a file, as it would be written on the command line.
fn word<'de, D: Deserializer<'de>>(value: toml::Value) -> Result<String, D::Error> {
    match value {
        toml::Value::String(text) => Ok(text),
        toml::Value::Integer(number) => Ok(number.to_string()),
        other => Err(D::Error::custom(format!("expected text or a number, found {}", other.type_str()))),
    }
}

fn size<'de, D: Deserializer<'de>>(from: D) -> Result<Option<usize>, D::Error> {
    let text = word::<D>(toml::Value::deserialize(from)?)?;
    parse_size(&text).map(Some).map_err(D::Error::custom)
}

fn users<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u32>, D::Error> {
    let values = Vec::<toml::Value>::deserialize(from)?.into_iter();
    values.map(|value| parse_user(&word::<D>(value)?).map_err(D::Error::custom)).collect()
}

/// Text only: TOML's 600 is not chmod's.
fn mode<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    parse_mode(&String::deserialize(from)?).map(Some).map_err(D::Error::custom)
}

fn count<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    let number = u32::deserialize(from)?;
    if number == 0 { Err(D::Error::custom("must be at least 1")) } else { Ok(Some(number)) }
}

fn workers<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u16>, D::Error> {
    let number = u16::deserialize(from)?;
    let known = (1..=1024).contains(&number);
    if known { Ok(Some(number)) } else { Err(D::Error::custom("must be 1 to 1024")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_what_the_command_line_can_say() {
        let file = Settings::parse(
            r#"
            socket = "/run/x.sock"
            budget = "4g"
            workers = 3
            mode = "0660"
            allow = ["root", 1000, "1001"]
            client-cap = 1048576
            client-weight = 5
            max-clients = 7
            "#,
        );
        let expected = Settings {
            socket: Some("/run/x.sock".into()),
            budget: Some(4 << 30),
            workers: Some(3),
            mode: Some(0o660),
            allow: vec![0, 1000, 1001],
            client_cap: Some(1 << 20),
            client_weight: Some(5),
            max_clients: Some(7),
        };
        assert_eq!(file.unwrap(), expected);
        assert_eq!(Settings::parse("").unwrap(), Settings::default());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, named) in [
            ("bugdet = \"4g\"", "bugdet"),
            ("budget = \"4x\"", "`4x` is not a size"),
            ("budget = true", "boolean"),
            ("client-cap = 0", "less than one page"),
            ("mode = 600", "mode = 600"),
            ("mode = \"0888\"", "is no mode"),
            ("allow = [\"nobody-of-that-name\"]", "there is no user `nobody-of-that-name`"),
            ("allow = [-1]", "there is no user `-1`"),
            ("workers = 0", "workers = 0"),
            ("max-clients = 0", "must be at least 1"),
            ("[limits]\nbudget = \"4g\"", "limits"),
            ("budget", "budget"),
        ] {
            let error = format!("{:#}", Settings::parse(text).unwrap_err());
            assert!(error.contains(named), "{text}: {error}");
        }
    }

    #[test]
    fn the_command_line_goes_before_the_file() {
        let flags = Settings { budget: Some(1 << 20), allow: vec![7], ..Settings::default() };
        let file = Settings { budget: Some(2 << 20), allow: vec![8, 9], workers: Some(4), ..Settings::default() };
        let merged = flags.over(file);
        assert_eq!((merged.budget, merged.allow, merged.workers), (Some(1 << 20), vec![7], Some(4)));
    }

    #[test]
    fn the_example_is_a_file_that_is_understood() {
        let text = include_str!("../../../../contrib/tmem.toml");
        let given = Settings::parse(text).unwrap();
        assert!(given.budget.is_some());
        // What is commented out is settings, too.
        let all: String = text.lines().map(|line| line.strip_prefix("#:").unwrap_or(line).to_owned() + "\n").collect();
        let all = Settings::parse(&all).unwrap();
        assert!(all.socket.is_some() && all.workers.is_some() && all.mode.is_some() && !all.allow.is_empty());
        assert!(all.client_cap.is_some() && all.client_weight.is_some() && all.max_clients.is_some());
    }
}
