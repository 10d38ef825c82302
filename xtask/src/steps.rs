//! Steps of a run: each has a heading, a time and a verdict, and the run ends in a table and one line of counts.

use anyhow::Result;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How a step ended that did not fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It did what it should.
    Passed,
    /// It could not run here; why, and what to do about it.
    Skipped(String),
}

#[derive(Debug)]
enum Outcome {
    Passed,
    Skipped(String),
    Failed(String),
}

#[derive(Debug)]
struct Row {
    name: String,
    time: Duration,
    outcome: Outcome,
}

/// The steps so far.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    rows: Vec<Row>,
}

impl Steps {
    /// Runs a step. One that fails does not keep the later ones from running: a run tells all it can.
    pub(crate) fn step(&mut self, name: &str, step: impl FnOnce() -> Result<Verdict>) {
        println!("\n=== {name}");
        let start = Instant::now();
        let outcome = match step() {
            Ok(Verdict::Passed) => Outcome::Passed,
            Ok(Verdict::Skipped(why)) => Outcome::Skipped(why),
            Err(error) => Outcome::Failed(format!("{error:#}")),
        };
        let row = Row { name: name.to_owned(), time: start.elapsed(), outcome };
        println!("{}", row.line());
        self.rows.push(row);
    }

    /// Prints the table, and the counts as the last line.
    pub(crate) fn finish(self) -> ExitCode {
        println!("\n=== all steps");
        for row in &self.rows {
            println!("{}", row.line());
        }
        let failed = self.rows.iter().filter(|row| matches!(row.outcome, Outcome::Failed(_))).count();
        println!("{}", self.counts());
        if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn counts(&self) -> String {
        let [mut passed, mut failed, mut skipped] = [0; 3];
        for row in &self.rows {
            *match row.outcome {
                Outcome::Passed => &mut passed,
                Outcome::Failed(_) => &mut failed,
                Outcome::Skipped(_) => &mut skipped,
            } += 1;
        }
        format!("{passed} passed, {failed} failed, {skipped} skipped")
    }
}

impl Row {
    fn line(&self) -> String {
        let (verdict, why) = match &self.outcome {
            Outcome::Passed => ("passed", ""),
            Outcome::Skipped(why) => ("skipped", &**why),
            Outcome::Failed(why) => ("FAILED", &**why),
        };
        let colon = if why.is_empty() { "" } else { ": " };
        format!("{:<28} {:>7.1}s  {verdict}{colon}{why}", self.name, self.time.as_secs_f32())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_a_line_that_machines_read() {
        let mut steps = Steps::default();
        steps.step("good", || Ok(Verdict::Passed));
        steps.step("bad", || anyhow::bail!("no"));
        steps.step("absent", || Ok(Verdict::Skipped("not here".into())));
        steps.step("good", || Ok(Verdict::Passed));
        assert_eq!(steps.counts(), "2 passed, 1 failed, 1 skipped");
        assert_eq!(format!("{:?}", steps.finish()), format!("{:?}", ExitCode::FAILURE));
    }
}
