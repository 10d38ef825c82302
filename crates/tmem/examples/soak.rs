//! A long run of many threads on one store, every answer checked: `cargo run --release --example soak -- --seconds 600`.
//!
//! Ends with status 0 when nothing was wrong, with 1 and the seed when something was, and with 2 when it was asked wrongly.

#![allow(clippy::unwrap_used, reason = "a test in the shape of a program")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::process::ExitCode;
use std::time::{Duration, Instant};
use support::MIB;
use support::crowd::{Crowd, Options};
use tmem::Cleaning;

const USAGE: &str = "\
usage: soak [--seconds N] [--threads N] [--seed N] [--budget SIZE] [--on-demand]
  --seconds N     how long (60)
  --threads N     threads that use the store, besides one that governs it (4)
  --seed N        which operations (1)
  --budget SIZE   the store's budget, in bytes or as 64M, 2G (128M)
  --on-demand     no background cleaner";

/// Between two lines of progress.
const STRIDE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(wrong) => {
            eprintln!("{wrong}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    println!("soak: {} for {:?}", options.command(), options.time);
    let crowd = Crowd::new(options);
    let result = std::thread::scope(|scope| {
        scope.spawn(|| report(&crowd));
        // A panic of this thread would leave the reporter waiting: it becomes a result like the others.
        let run = std::panic::AssertUnwindSafe(|| crowd.run());
        let result = std::panic::catch_unwind(run).unwrap_or_else(|_| Err("the last check failed".to_owned()));
        crowd.end();
        result
    });
    match result {
        Ok(()) => {
            println!("soak: {} operations, nothing wrong", crowd.operations());
            ExitCode::SUCCESS
        }
        Err(wrong) => {
            eprintln!("soak: {wrong}");
            eprintln!("soak: after {} operations of {}", crowd.operations(), options.command());
            ExitCode::FAILURE
        }
    }
}

/// A line every few seconds, until it is over.
fn report(crowd: &Crowd) {
    let start = Instant::now();
    let mut next = STRIDE;
    while !crowd.is_over() {
        std::thread::sleep(Duration::from_millis(50));
        if start.elapsed() < next {
            continue;
        }
        next += STRIDE;
        let (memory, stats) = (crowd.store.memory(), crowd.store.stats());
        println!(
            "{:6.0} s  {:9} operations  used {:4} of {:4} MiB  puts {} ({} rejected)  evicted {}  moved {}  settled {}",
            start.elapsed().as_secs_f64(),
            crowd.operations(),
            memory.used / MIB,
            memory.budget / MIB,
            stats.puts,
            stats.puts_rejected,
            stats.granules_evicted,
            stats.blocks_moved,
            stats.blocks_settled,
        );
    }
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options {
        seed: 1,
        threads: 4,
        budget_bytes: 128 * MIB,
        time: Duration::from_secs(60),
        cleaning: Cleaning::Background,
    };
    while let Some(name) = arguments.next() {
        if name == "--on-demand" {
            options.cleaning = Cleaning::OnDemand;
            continue;
        }
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value, or is unknown"))?;
        let number = || value.parse::<u64>().map_err(|_| format!("{name} needs a number, not {value:?}"));
        match name.as_str() {
            "--seconds" => options.time = Duration::from_secs(number()?),
            "--threads" => options.threads = number()?.max(1),
            "--seed" => options.seed = number()?,
            "--budget" => options.budget_bytes = size(&value).ok_or_else(|| format!("{value:?} is not a size"))?,
            _ => return Err(format!("{name} is unknown")),
        }
    }
    Ok(options)
}

/// Bytes, with K, M or G for powers of 1024.
fn size(text: &str) -> Option<usize> {
    let (digits, shift) = match text.as_bytes().last()? {
        b'k' | b'K' => (&text[..text.len() - 1], 10),
        b'm' | b'M' => (&text[..text.len() - 1], 20),
        b'g' | b'G' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    digits.parse::<usize>().ok()?.checked_mul(1 << shift)
}
