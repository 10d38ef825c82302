//! The command `tmem`.
#![forbid(unsafe_code)]

mod bench;
mod cli;
mod estimate;
mod interrupt;
mod pages;
mod process;
mod random;
mod report;
mod zram;

use clap::Parser;
use cli::{BenchCommand, Cli, Command};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match interrupt::install().and_then(|()| run(&cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tmem: {error:#}");
            if interrupt::is_set() { ExitCode::from(130) } else { ExitCode::FAILURE }
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    match &cli.command {
        Command::Bench(bench) => match &bench.command {
            BenchCommand::Engine(options) => bench::engine::run(options),
            BenchCommand::Churn(options) => bench::churn::run(options),
            BenchCommand::Scale(options) => bench::scale::run(options),
        },
        Command::Estimate(options) => estimate::run(options),
    }
}
