//! What a monitor is told at its start.

use std::fmt;
use std::str::FromStr;
use tmem::Policy;

/// How a tree of programs is to be paged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Resident memory of the programs and the memory of the store stay within so many bytes together.
    pub limit_bytes: u64,
    /// How much time the data is worth.
    pub policy: Policy,
    /// What happens when they cannot.
    pub on_full: OnFull,
}

/// What happens when nothing more can be moved out and the limit is reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum OnFull {
    /// The program is stopped until the limit is raised.
    #[default]
    Stop,
    /// The program is killed.
    Kill,
    /// The program goes on, over the limit.
    Exceed,
}

impl OnFull {
    /// Every answer.
    pub const ALL: [Self; 3] = [Self::Stop, Self::Kill, Self::Exceed];

    /// The name that [`FromStr`] takes.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Kill => "kill",
            Self::Exceed => "exceed",
        }
    }
}

impl fmt::Display for OnFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The text names no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is one of stop, kill, exceed")]
pub struct UnknownOnFull;

impl FromStr for OnFull {
    type Err = UnknownOnFull;

    fn from_str(text: &str) -> Result<Self, UnknownOnFull> {
        Self::ALL.into_iter().find(|answer| answer.name() == text).ok_or(UnknownOnFull)
    }
}
