//! `tmem doctor`: whether programs can be paged here, and what to do if not.

use crate::cli::Doctor;
use crate::report;
use anyhow::Result;
use serde::Serialize;
use std::process::ExitCode;
use tmem_pager::{Check, Lack, Verdict};

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Diagnosis {
    can_run: bool,
    checks: Vec<Finding>,
}

#[derive(Debug, Serialize)]
struct Finding {
    name: &'static str,
    found: String,
    /// `good`, `advice` or `lack`.
    verdict: &'static str,
    /// For `advice` and `lack`: what to do.
    fix: Option<String>,
}

impl From<Check> for Finding {
    fn from(check: Check) -> Self {
        let (verdict, fix) = match check.verdict {
            Verdict::Good => ("good", None),
            Verdict::Advice(fix) => ("advice", Some(fix)),
            Verdict::Lack(fix) => ("lack", Some(fix)),
        };
        Self { name: check.name, found: check.found, verdict, fix }
    }
}

/// Looks, and prints.
pub(crate) fn run(options: &Doctor) -> Result<ExitCode> {
    let checks: Vec<Finding> = tmem_pager::checks().into_iter().map(Finding::from).collect();
    let can_run = checks.iter().all(|check| check.verdict != "lack");
    let diagnosis = Diagnosis { can_run, checks };
    report::print(options.json.then_some(&diagnosis), || text(&diagnosis))?;
    Ok(if can_run { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn text(diagnosis: &Diagnosis) -> String {
    let widest = diagnosis.checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for check in &diagnosis.checks {
        let mark = if check.verdict == "lack" { "LACKS" } else { "ok" };
        text += &format!("{mark:<5}  {:<widest$}  {}\n", check.name, check.found);
        if let Some(fix) = &check.fix {
            text += &format!("{:>7}{:<widest$}  -> {fix}\n", "", "");
        }
    }
    text + if diagnosis.can_run { "`tmem run` can work here.\n" } else { "`tmem run` cannot work here yet.\n" }
}

/// The same words, for `tmem run` without the rights.
pub(crate) fn words(lacks: &[Lack]) -> String {
    let lines = lacks.iter().map(|lack| format!("\n  {}\n    -> {}", lack.what, lack.fix));
    format!("programs cannot be paged here:{}", lines.collect::<String>())
}
