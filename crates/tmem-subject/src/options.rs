//! The command line: `tmem-subject CASE [--name value]... [--native]`.

use std::path::PathBuf;

/// What is done to memory in place of eviction, to see that a case can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sabotage {
    /// Nothing.
    None,
    /// Pages come back as zeros.
    Zeros,
    /// Pages come back from their neighbour's place.
    Elsewhere,
    /// Pages come back as they were one version ago.
    Stale,
    /// Pages come back with a bit flipped.
    Bit,
}

/// What a case is told. Each case has its own use for the numbers; the defaults suit a limit of 64 MiB.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Nobody evicts: go on without.
    pub(crate) native: bool,
    /// See [`Sabotage`].
    pub(crate) sabotage: Sabotage,
    /// Memory under test.
    pub(crate) mib: usize,
    /// Memory that is used to push the other out.
    pub(crate) ballast_mib: usize,
    /// Seed of what is random.
    pub(crate) seed: u64,
    /// How long, where a case has no end of its own.
    pub(crate) seconds: u64,
    /// How many threads or processes.
    pub(crate) count: usize,
    /// How often.
    pub(crate) times: usize,
    /// An exit status or a signal.
    pub(crate) number: i32,
    /// Where to write what happened.
    pub(crate) file: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            native: false,
            sabotage: Sabotage::None,
            mib: 48,
            ballast_mib: 64,
            seed: 1,
            seconds: 5,
            count: 4,
            times: 4,
            number: 0,
            file: None,
        }
    }
}

impl Options {
    /// The case's name and the rest; what is wrong, otherwise.
    pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<(String, Self), String> {
        let case = arguments.next().ok_or("which case?")?;
        let mut options = Self::default();
        while let Some(name) = arguments.next() {
            if name == "--native" {
                options.native = true;
                continue;
            }
            let value = arguments.next().ok_or_else(|| format!("{name} has no value"))?;
            options.set(&name, &value)?;
        }
        Ok((case, options))
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let number = || value.parse::<u32>().map_err(|error| format!("{name} {value}: {error}"));
        match name {
            "--mib" => self.mib = number()? as usize,
            "--ballast" => self.ballast_mib = number()? as usize,
            "--seed" => self.seed = number()?.into(),
            "--seconds" => self.seconds = number()?.into(),
            "--threads" | "--count" => self.count = number()? as usize,
            "--times" => self.times = number()? as usize,
            "--number" => self.number = number()?.cast_signed(),
            "--file" => self.file = Some(value.into()),
            "--break" => self.sabotage = Sabotage::named(value).ok_or_else(|| format!("no sabotage {value}"))?,
            _ => return Err(format!("no option {name}")),
        }
        Ok(())
    }

    /// As arguments, for another process of the same kind.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let numbers = [
            ("--mib", self.mib as u64),
            ("--ballast", self.ballast_mib as u64),
            ("--seed", self.seed),
            ("--seconds", self.seconds),
            ("--count", self.count as u64),
            ("--times", self.times as u64),
        ];
        let mut arguments: Vec<String> =
            numbers.iter().flat_map(|(name, value)| [(*name).to_owned(), value.to_string()]).collect();
        arguments.extend(self.native.then(|| "--native".to_owned()));
        arguments
    }
}

impl Sabotage {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "none" => Self::None,
            "zeros" => Self::Zeros,
            "elsewhere" => Self::Elsewhere,
            "stale" => Self::Stale,
            "bit" => Self::Bit,
            _ => return None,
        })
    }
}
