//! What people and CI run.
#![forbid(unsafe_code)]

mod pages;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// What people and CI run.
#[derive(Parser, Debug)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand, Debug)]
enum Task {
    /// Makes files of raw private anonymous pages of live programs.
    Pages(pages::Options),
}

fn main() -> Result<()> {
    match Cli::parse().task {
        Task::Pages(options) => pages::run(&options),
    }
}
