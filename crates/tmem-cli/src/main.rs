//! The command `tmem`.
#![forbid(unsafe_code)]

mod bench;
mod cli;
mod doctor;
mod estimate;
mod interrupt;
mod limit;
mod pages;
mod process;
mod random;
mod report;
mod run;
mod serve;
mod tree;
mod zram;

use clap::Parser;
use cli::{BenchCommand, Cli, Command};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // These deal with signals in their own ways.
    let own_signals = matches!(cli.command, Command::Run(_) | Command::Holder | Command::Serve(_));
    let ready = if own_signals { Ok(()) } else { interrupt::install() };
    match ready.and_then(|()| carry_out(&cli)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("tmem: {error:#}");
            if interrupt::is_set() { ExitCode::from(130) } else { ExitCode::FAILURE }
        }
    }
}

fn carry_out(cli: &Cli) -> anyhow::Result<ExitCode> {
    match &cli.command {
        Command::Bench(bench) => match &bench.command {
            BenchCommand::Codec(options) => bench::codec::run(options)?,
            BenchCommand::Engine(options) => bench::engine::run(options)?,
            BenchCommand::Churn(options) => bench::churn::run(options)?,
            BenchCommand::Scale(options) => bench::scale::run(options)?,
            BenchCommand::Flaws(options) => bench::flaws::run(options)?,
            BenchCommand::Neighbours(options) => bench::neighbours::run(options)?,
            BenchCommand::Neighbour(options) => bench::neighbours::ways::run(options)?,
            BenchCommand::LegacyServer(options) => bench::flaws::legacy::serve(options)?,
        },
        Command::Estimate(options) => estimate::run(options)?,
        Command::Limit(options) => limit::run(options)?,
        Command::Doctor(options) => return doctor::run(options),
        Command::Serve(options) => serve::run(options)?,
        Command::Stat(options) => serve::stat::run(options)?,
        Command::Client(options) => serve::client::run(options)?,
        Command::Run(options) => return Ok(run::run(options)),
        Command::Holder => return Ok(run::lent::hold()),
    }
    Ok(ExitCode::SUCCESS)
}
