//! What people and CI run: `cargo xtask --help`.
#![forbid(unsafe_code)]

mod bench_run;
mod end_to_end;
mod huge_pages;
mod pages;
mod process;
mod steps;
mod tasks;
mod tidy;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use std::process::ExitCode;

/// What people and CI run.
#[derive(Parser, Debug)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
#[command(after_help = "Examples:
  cargo xtask check            before a commit: a minute
  cargo xtask test             what CI runs
  cargo xtask soak --minutes 60
  cargo xtask torture --minutes 60
  cargo xtask pages            memory of live programs, for measuring codecs")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand, Debug)]
enum Task {
    /// Format, lints, tidy and documentation
    Check,
    /// Everything that CI needs
    Test(Test),
    /// Random operations on a store, compared with a model
    Soak(Soak),
    /// Random maps, moves, protections and forks of a program under `tmem run`, all that it reads compared
    Torture(Soak),
    /// Every fuzz target for a while
    Fuzz(Fuzz),
    /// Tests of queues under the address sanitizer
    Sanitize,
    /// Makes files of raw private anonymous pages of live programs
    Pages(pages::Options),
    /// `tmem run` beside the kernel's memory groups with swap on zram; needs root
    BenchRun(bench_run::Options),
}

#[derive(Args, Debug)]
struct Test {
    /// Leaves out what takes long: loom, soak, and the end-to-end steps
    #[arg(long)]
    quick: bool,
}

#[derive(Args, Debug)]
struct Soak {
    /// How long
    #[arg(long, default_value_t = 60)]
    minutes: u64,
    /// The seed of a run that failed
    #[arg(long)]
    seed: Option<u64>,
}

#[derive(Args, Debug)]
struct Fuzz {
    /// How long each target runs
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

fn main() -> ExitCode {
    match run(Cli::parse().task) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<ExitCode> {
    process::clean_up_on_signals()?;
    Ok(match task {
        Task::Check => tasks::check(),
        Task::Test(Test { quick: true }) => tasks::test_quickly(),
        Task::Test(Test { quick: false }) => tasks::test(),
        Task::Soak(soak) => tasks::soak(soak.minutes, soak.seed),
        Task::Torture(torture) => tasks::torture(torture.minutes, torture.seed),
        Task::Sanitize => tasks::sanitize(),
        Task::Fuzz(fuzz) => tasks::fuzz(fuzz.seconds),
        Task::BenchRun(options) => bench_run::run(&options).map(|()| ExitCode::SUCCESS)?,
        Task::Pages(options) => pages::run(&options).map(|()| ExitCode::SUCCESS)?,
    })
}
