//! The command line.

use crate::bench::clock::Clock;
use crate::bench::flaws::{FlawsBench, LegacyServer};
use crate::bench::neighbours::NeighboursBench;
use crate::bench::neighbours::ways::Neighbour;
use crate::serve::cli::{Client, Serve, Stat};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;
use tmem::Policy;
use tmem_pager::OnFull;

/// Transcendent memory in user space: programs that run in less memory, and a compressed store that programs can use.
#[derive(Debug, Parser)]
#[command(
    name = "tmem",
    version,
    max_term_width = 100,
    after_help = "\
Examples:
  tmem run --memory 1g -- ./program       run a program in so much memory
  tmem doctor                             can programs be run so on this machine?
  tmem serve --budget 1g                  a store that several programs share
  tmem estimate --pid 1234                what would tmem save of a running program's memory?
  tmem bench engine --pages *.pages       how fast and how dense is the engine on these pages?"
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a program, unmodified, within a limit of memory.
    #[command(after_help = "\
Examples:
  tmem run --memory 1g -- ./program --its-own-option
  tmem run --memory 512m --policy dense --report run.json --quiet -- make -j4
  tmem run --memory 2g --on-full kill -- python3 train.py

The resident memory of the program, of everything that it starts, and of the store that holds what was moved out stay
within the limit together. Below it nothing is moved and nothing is slower. Programs that are linked statically or
setuid run as ever, outside of the limit.

Exit status: that of the program; 128+N if signal N ended it; 125 if tmem itself failed, 126 if the program could not be
executed, 127 if there is none.")]
    Run(Run),
    /// Change the limit of programs that run.
    #[command(after_help = "\
Examples:
  tmem limit 1234 2g

PID is that of `tmem run`, or of any program under it. Programs that were stopped because the limit was reached go on.")]
    Limit(Limit),
    /// Tell whether `tmem run` can work here, and what to do if not.
    #[command(after_help = "\
Examples:
  tmem doctor
  tmem doctor --json

Exit status: 0 if it can, 1 if it cannot.")]
    Doctor(Doctor),
    /// Serve a store that several programs share: a daemon.
    #[command(after_help = "\
Examples:
  tmem serve --budget 4g
  tmem serve --config /etc/tmem.toml --log debug
  tmem serve --socket /tmp/tmem.sock --budget 256m --client-cap 64m --allow alice --mode 0666

Programs are clients by the crate `tmem-ring`. A client is charged for what it holds, and loses what it holds when it ends,
but for pools that it has made to stay. `tmem stat` shows all of them.

SIGTERM and SIGINT complete what was submitted, for at most 10 seconds, and end it; a second one ends it at once. SIGHUP
reads the file again: the budget, and for clients that come from then on allow, client-cap, client-weight and max-clients;
`tmem client` changes one that is there. Under systemd it tells when it is ready, and takes a socket from a socket unit: see
contrib/.

Exit status: 0 after SIGTERM or SIGINT; 1 if it could not serve, or was ended by a second signal.")]
    Serve(Serve),
    /// Show what a `tmem serve` serves: clients, pools and rates.
    #[command(after_help = "\
Examples:
  tmem stat
  tmem stat --interval 10 --json
  tmem stat --socket /tmp/tmem.sock

MB are 10^6 bytes of pages that were put (in) and got (out). Hits are the gets that found everything. Doorbells are system
calls by which a client and the daemon wake each other.")]
    Stat(Stat),
    /// Do something to a client of a `tmem serve`: as root, or as the user that it runs as.
    #[command(after_help = "\
Examples:
  tmem client freeze 3
  tmem client cap 3 512m
  tmem client authorise 7 3               client 3 may join pool 7

`tmem stat` shows the numbers of clients and pools.")]
    Client(Client),
    /// Hold the agent's file for a monitor, which starts this.
    #[command(hide = true)]
    Holder,
    /// Measure the engine.
    Bench(Bench),
    /// Tell what tmem would save of a program's memory, without changing the program.
    #[command(after_help = "\
Examples:
  tmem estimate --pid 1234
  tmem estimate --pid 1234 --sample 1g --json
  tmem estimate --pages redis.pages

The resident private anonymous memory of the process is read (at most --sample of it, spread evenly), put into a store
of each policy, and every byte that comes back is compared. The process goes on running; pages that change or vanish
meanwhile are counted and left out. As root with a free zram device the same pages go through zram too.")]
    Estimate(Estimate),
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The limit: bytes, or a whole number with k, m, g or t behind it.
    #[arg(long, value_parser = parse_size, value_name = "SIZE")]
    pub(crate) memory: usize,
    /// How much time the data is worth: fast, balanced or dense.
    #[arg(long, default_value_t)]
    pub(crate) policy: Policy,
    /// When nothing more can be moved out: stop the program until the limit is raised, kill it, or let it exceed the
    /// limit by what it needs.
    #[arg(long, default_value_t, value_name = "stop|kill|exceed")]
    pub(crate) on_full: OnFull,
    /// Write what came of it to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Show neither the live line nor the table at the end; what has to be known is still told.
    #[arg(long)]
    pub(crate) quiet: bool,
    /// The program and its arguments.
    #[arg(required = true, trailing_var_arg = true, value_name = "PROGRAM")]
    pub(crate) program: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct Limit {
    /// A process: `tmem run`, or any program under it.
    #[arg(value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) pid: u32,
    /// The new limit.
    #[arg(value_name = "SIZE", value_parser = parse_size)]
    pub(crate) size: usize,
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Bench {
    #[command(subcommand)]
    pub(crate) command: BenchCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Density and speed of each policy, each mode alone, LZ4 and zstd, on page files.
    #[command(after_help = "\
Examples:
  tmem bench codec --pages redis.pages node.pages
  tmem bench codec --pages *.pages --rounds 15 --json

One thread, blocks of 4, 16 and 64 KiB, all codecs in turn in each round; figures are medians over rounds. GB are 10^9
bytes of pages. Density is bytes of pages per byte encoded: what a store adds for each block is not in it. Same-filled
pages are left out.")]
    Codec(CodecBench),
    /// Speed and density on page files, against the bare codec and against zram.
    #[command(after_help = "\
Examples:
  tmem bench engine --pages redis.pages node.pages
  tmem bench engine --pages *.pages --policy dense --unit 64k --threads 2
  sudo tmem bench engine --pages *.pages --against zram --json

Each round fills a fresh store and reads it back in a shuffled order, then does the same with the bare codec and, if
asked, with each of zram's algorithms; figures are medians over rounds, and every byte is compared outside the timed
parts. GB are 10^9 bytes. Density is bytes of pages per byte of memory in use for them.")]
    Engine(EngineBench),
    /// How a full store keeps its memory together under random overwrites.
    #[command(after_help = "\
Examples:
  tmem bench churn
  tmem bench churn --budget 1g --operations 5m --pages redis.pages --json

A persistent pool is filled until the first rejection; then come 3/4 overwrites of random granules, 1/8 flushes and 1/8
puts of new granules. At the end every granule is compared with what the bench itself remembers.")]
    Churn(ChurnBench),
    /// What a random put and get cost in a small and in a large store.
    #[command(after_help = "\
Examples:
  tmem bench scale
  tmem bench scale --small 256m --large 16g --json

Of both stores 7/8 of the granules are same-filled, 1/16 are holes and 1/16 hold compressible pages, so that the large
one fits into the machine.")]
    Scale(ScaleBench),
    /// The interface of 2011, one synchronous call for each page, and the queue, side by side.
    #[command(after_help = "\
Examples:
  tmem bench flaws
  tmem bench flaws --pages *.pages --sample 128m --json

The same pages and the same engine, three ways in turns: one call to another process for each 4 KiB page, with a bounce
buffer, both on one CPU; a queue to a `tmem serve` with one worker; and calls of the engine in this process, in one
thread. Figures are medians over rounds, and every byte that comes back is compared.")]
    Flaws(FlawsBench),
    /// What is left for well-behaved clients of a daemon while another one misbehaves.
    #[command(after_help = "\
Examples:
  tmem bench neighbours
  tmem bench neighbours --pages *.pages --clients 3 --json

Well-behaved clients put and get pages through a `tmem serve`, and compare every byte, beside one other process: first a
well-behaved and equally greedy one, then one for each way to misbehave. Shares are of what each has beside its equal.")]
    Neighbours(NeighboursBench),
    /// One neighbour.
    #[command(hide = true)]
    Neighbour(Neighbour),
    /// The process that is called for each page.
    #[command(hide = true)]
    LegacyServer(LegacyServer),
}

#[derive(Debug, Args)]
pub(crate) struct CodecBench {
    /// Files of raw 4096-byte pages.
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    pub(crate) pages: Vec<PathBuf>,
    /// How much of each file is measured, in extents spread over it.
    #[arg(long, default_value = "8m", value_parser = parse_size, value_name = "SIZE")]
    pub(crate) sample: usize,
    /// Rounds, of which medians are taken.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) rounds: u16,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct EngineBench {
    /// Files of raw 4096-byte pages.
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    pub(crate) pages: Vec<PathBuf>,
    /// How much time the data is worth: fast, balanced or dense.
    #[arg(long, default_value_t)]
    pub(crate) policy: Policy,
    /// Bytes of one operation.
    #[arg(long, value_enum, default_value_t = Unit::Granule)]
    pub(crate) unit: Unit,
    /// Threads, each with an object and a share of the file of its own.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: u16,
    /// Rounds, of which medians are taken; one more comes first, to warm up.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) rounds: u16,
    /// What speeds are told in.
    #[arg(long, value_enum, default_value_t = Clock::Wall)]
    pub(crate) clock: Clock,
    /// Another system that does the same in the same rounds.
    #[arg(long, value_enum)]
    pub(crate) against: Option<Rival>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What the engine can be compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Rival {
    /// The kernel's compressed block device. Needs root and a device that is not in use.
    Zram,
}

/// Bytes of one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Unit {
    /// One page.
    #[value(name = "4k")]
    Granule,
    /// Four pages.
    #[value(name = "16k")]
    Four,
    /// 16 pages.
    #[value(name = "64k")]
    Sixteen,
    /// A huge page.
    #[value(name = "2m")]
    Huge,
}

impl Unit {
    /// In bytes.
    pub(crate) const fn bytes(self) -> usize {
        match self {
            Self::Granule => 4 << 10,
            Self::Four => 16 << 10,
            Self::Sixteen => 64 << 10,
            Self::Huge => 2 << 20,
        }
    }

    /// As it is written on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Granule => "4k",
            Self::Four => "16k",
            Self::Sixteen => "64k",
            Self::Huge => "2m",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ChurnBench {
    /// The store's budget.
    #[arg(long, default_value = "256m", value_parser = parse_size, value_name = "SIZE")]
    pub(crate) budget: usize,
    /// Operations after the store is full.
    #[arg(long, default_value = "1000000", value_parser = parse_count, value_name = "N")]
    pub(crate) operations: usize,
    /// Where the random numbers start.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// How much time the data is worth. With `fast` cold data stays as it was put, so `ratio` is exact.
    #[arg(long, default_value_t = Policy::Fast)]
    pub(crate) policy: Policy,
    /// Files of raw 4096-byte pages to put; pages are made up without.
    #[arg(long, num_args = 1.., value_name = "FILE")]
    pub(crate) pages: Vec<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ScaleBench {
    /// Bytes of the small store's object.
    #[arg(long, default_value = "1g", value_parser = parse_size, value_name = "SIZE")]
    pub(crate) small: usize,
    /// Bytes of the large store's object.
    #[arg(long, default_value = "64g", value_parser = parse_size, value_name = "SIZE")]
    pub(crate) large: usize,
    /// Rounds, of which medians are taken.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) rounds: u16,
    /// What the time of an operation is told in.
    #[arg(long, value_enum, default_value_t = Clock::Wall)]
    pub(crate) clock: Clock,
    /// Puts, and gets, of one store in one round.
    #[arg(long, default_value = "100000", value_parser = parse_count, value_name = "N")]
    pub(crate) operations: usize,
    /// Files of raw 4096-byte pages to put; pages are made up without.
    #[arg(long, num_args = 1.., value_name = "FILE")]
    pub(crate) pages: Vec<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Estimate {
    #[command(flatten)]
    pub(crate) source: Source,
    /// Read at most so many bytes of the process.
    #[arg(long, default_value = "256m", value_parser = parse_size, value_name = "SIZE")]
    pub(crate) sample: usize,
    /// Bytes of one operation.
    #[arg(long, value_enum, default_value_t = Unit::Sixteen)]
    pub(crate) unit: Unit,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Where the pages come from.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Source {
    /// The process whose memory is looked at.
    #[arg(long)]
    pub(crate) pid: Option<u32>,
    /// Files of raw 4096-byte pages instead.
    #[arg(long, num_args = 1.., value_name = "FILE")]
    pub(crate) pages: Vec<PathBuf>,
}

/// Bytes: a number with k, m, g or t behind it (powers of 1024), or nothing.
pub(crate) fn parse_size(text: &str) -> Result<usize, String> {
    let lower = text.trim().to_ascii_lowercase();
    let lower = lower.strip_suffix("ib").unwrap_or(&lower);
    let bytes = scaled(lower, 1024)
        .ok_or_else(|| format!("`{text}` is not a size: write bytes, or a whole number with k, m, g or t behind it"))?;
    if bytes < 4096 {
        return Err(format!("{bytes} bytes are less than one page of 4096"));
    }
    Ok(bytes)
}

/// A count: a number with k, m or g behind it (powers of 1000), or nothing.
fn parse_count(text: &str) -> Result<usize, String> {
    scaled(&text.trim().to_ascii_lowercase(), 1000).filter(|count| *count > 0).ok_or_else(|| {
        format!("`{text}` is not a count: write a whole number above 0, perhaps with k, m or g behind it")
    })
}

fn scaled(text: &str, base: usize) -> Option<usize> {
    let power = ["k", "m", "g", "t"].iter().position(|suffix| text.ends_with(suffix));
    let digits = power.map_or(text, |_| &text[..text.len() - 1]);
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    let factor = power.map_or(Some(1), |power| base.checked_pow(u32::try_from(power).ok()? + 1))?;
    digits.parse::<usize>().ok().filter(|_| plain)?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes_have_suffixes_of_1024() {
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("4k"), Ok(4096));
        assert_eq!(parse_size("256M"), Ok(256 << 20));
        assert_eq!(parse_size("1g"), Ok(1 << 30));
        assert_eq!(parse_size("2GiB"), Ok(2 << 30));
        assert_eq!(parse_size("3t"), Ok(3 << 40));
    }

    #[test]
    fn sizes_that_make_no_sense_are_told_so() {
        for wrong in ["", "k", "-4k", "+4k", "4x", "1.5g", "4 k", "99999999999999999999", "99999999t", "0", "1k"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn counts_have_suffixes_of_1000() {
        assert_eq!(parse_count("1000000"), Ok(1_000_000));
        assert_eq!(parse_count("5m"), Ok(5_000_000));
        assert!(parse_count("0").is_err());
    }

    #[test]
    fn what_follows_the_program_is_the_programs() {
        for line in ["run --memory 1g -- p --quiet -- x", "run --memory 1g p --quiet -- x"] {
            let cli = Cli::try_parse_from(["tmem"].into_iter().chain(line.split(' '))).unwrap();
            let Command::Run(run) = cli.command else { panic!("{line}") };
            assert!(!run.quiet && run.program == ["p", "--quiet", "--", "x"], "{run:?}");
        }
        for wrong in ["run -- p", "run --memory 1g", "run --memory 1g --on-full wait -- p", "limit 0 1g", "limit 7"] {
            assert!(Cli::try_parse_from(["tmem"].into_iter().chain(wrong.split(' '))).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_estimate_wants_one_source() {
        for wrong in [&["tmem", "estimate"][..], &["tmem", "estimate", "--pid", "1", "--pages", "x"]] {
            assert!(Cli::try_parse_from(wrong).is_err(), "{wrong:?}");
        }
        assert!(Cli::try_parse_from(["tmem", "estimate", "--pid", "1", "--json", "--sample", "1m"]).is_ok());
        assert!(Cli::try_parse_from(["tmem", "estimate", "--pages", "x", "y", "--json"]).is_ok());
    }
}
