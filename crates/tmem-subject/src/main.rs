//! A program to be paged by tests. Each case does one thing with its memory that a pager could get wrong, checks
//! every byte against a shadow, prints `ok CASE <digest>` as its last line and exits 0. Other ends: see the exit
//! statuses in `sys`.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "addresses, lengths and flags go between the types of 64-bit Linux; nothing else is meant to run this"
)]

mod cases;
mod fork;
mod options;
mod pattern;
mod pressure;
mod region;
mod sys;
mod torture;

use options::Options;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).peekable();
    if arguments.peek().is_some_and(|argument| argument == "list") {
        for (name, _) in cases::CASES {
            println!("{name}");
        }
        return ExitCode::SUCCESS;
    }
    let (name, options) = match Options::parse(arguments) {
        Ok(parsed) => parsed,
        Err(error) => return usage(&error),
    };
    let Some((name, case)) = cases::CASES.iter().find(|(known, _)| *known == name) else {
        return usage(&format!("no case {name}"));
    };
    let digest = case(&options);
    println!("ok {name} {digest:016x}");
    ExitCode::SUCCESS
}

fn usage(error: &str) -> ExitCode {
    eprintln!("tmem-subject: {error}\ntmem-subject list | CASE [--native] [--mib N] [--ballast N] [--seed N] ...");
    ExitCode::from(2)
}
