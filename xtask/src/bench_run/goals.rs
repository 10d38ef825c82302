//! What `tmem run` is to reach, and whether it does.

use super::compare::{Compared, Row};
use super::measure::Measured;
use serde_json::{Value, json};

/// A figure with its bound.
#[derive(Debug)]
pub(super) struct Goal {
    what: &'static str,
    value: Option<f64>,
    bound: Bound,
}

#[derive(Debug, Clone, Copy)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

use Bound::{AtLeast, AtMost};

impl Goal {
    /// As a line of the table.
    pub(super) fn line(&self) -> String {
        let value = self.value.map_or("-".to_owned(), |value| format!("{value:.3}"));
        let (sign, bound) = match self.bound {
            AtMost(bound) => ("<=", bound),
            AtLeast(bound) => (">=", bound),
        };
        let verdict = match self.met() {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "not measured",
        };
        format!("{:<52} {value:>9} {sign} {bound:<5} {verdict}", self.what)
    }

    /// As a row of the file of figures.
    pub(super) fn json(&self) -> Value {
        json!({ "what": self.what, "value": self.value, "bound": format!("{:?}", self.bound), "met": self.met() })
    }

    fn met(&self) -> Option<bool> {
        self.value.map(|value| match self.bound {
            AtMost(bound) => value <= bound,
            AtLeast(bound) => value >= bound,
        })
    }
}

/// All goals, for what was compared.
pub(super) fn goals(compared: &[Compared]) -> Vec<Goal> {
    let rows: Vec<&Row> = compared.iter().flat_map(|compared| &compared.rows).collect();
    let work: Vec<f64> = rows.iter().filter_map(|row| row.ratio(|run| Some(run.work_s))).collect();
    let cpu = rows.iter().filter_map(|row| row.ratio(|run| Some(run.cpu_s)));
    let given = rows.iter().filter_map(|row| over_limit(row));
    let overhead: Vec<(f64, f64)> = compared.iter().filter_map(|compared| compared.overhead).collect();
    let smallest = compared.iter().filter_map(|compared| match compared.smallest_bytes {
        (Some(tmem), Some(zram)) => Some(tmem as f64 / zram as f64),
        _ => None,
    });
    let copied = rows.iter().filter_map(|row| row.tmem(|run| run.report.get("copied_bytes")?.as_f64()));
    let named = |name: &str, figure: &str| {
        geometric_mean(rows.iter().filter(|row| row.name == name).filter_map(|row| row.ratio(|run| run.told(figure))))
    };
    let goal = |what, value, bound| Goal { what, value, bound };
    vec![
        goal("no pressure, over native, median", geometric_mean(overhead.iter().map(|o| o.0)), AtMost(1.02)),
        goal("no pressure, over native, shortest run", geometric_mean(overhead.iter().map(|o| o.1)), AtMost(1.02)),
        goal("memory given over the limit, worst", largest(given), AtMost(1.05)),
        goal("run time over zram's, equal memory, mean", geometric_mean(work.iter().copied()), AtMost(1.0)),
        goal("run time over zram's, equal memory, worst", largest(work.into_iter()), AtMost(1.5)),
        goal("smallest limit over zram's, mean", geometric_mean(smallest), AtMost(0.75)),
        goal("random 4 KiB, a thread: fault p50 over zram's", named("random-1", "p50_us"), AtMost(2.0)),
        goal("random 4 KiB, a thread: fault p99 over zram's", named("random-1", "p99_us"), AtMost(0.5)),
        goal("CPU time over zram's, mean", geometric_mean(cpu), AtMost(1.5)),
        goal("sequential scan, a thread: run time over zram's", named("sequential-1", "wall_s"), AtMost(0.5)),
        goal("huge pages after over before", least(rows.iter().filter_map(|row| row.tmem(huge))), AtLeast(0.9)),
        goal("bytes copied, most", largest(copied), AtMost(0.0)),
    ]
}

/// Memory given at the peak over the limit, of the worst run.
fn over_limit(row: &Row) -> Option<f64> {
    let series = row.tmem.as_ref()?;
    largest(series.runs.iter().map(|run| run.given_bytes(&series.setting) as f64 / row.limit_bytes as f64))
}

/// Huge pages after a cycle over those before it.
pub(super) fn huge(run: &Measured) -> Option<f64> {
    let before = run.told("huge_before_bytes").filter(|&before| before > 0.0)?;
    Some(run.told("huge_after_bytes")? / before)
}

fn largest(values: impl Iterator<Item = f64>) -> Option<f64> {
    values.reduce(f64::max)
}

fn least(values: impl Iterator<Item = f64>) -> Option<f64> {
    values.reduce(f64::min)
}

pub(super) fn geometric_mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let logarithms: Vec<f64> = values.map(f64::ln).collect();
    (!logarithms.is_empty()).then(|| (logarithms.iter().sum::<f64>() / logarithms.len() as f64).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_geometric_mean_of_a_half_and_two_is_one() {
        let mean = geometric_mean([0.5, 2.0].into_iter()).unwrap();
        assert!((mean - 1.0).abs() < 1e-12);
        assert_eq!(geometric_mean([].into_iter()), None);
    }

    #[test]
    fn a_bound_itself_is_met() {
        let goal = |value, bound| Goal { what: "", value, bound };
        assert_eq!(goal(Some(1.0), AtMost(1.0)).met(), Some(true));
        assert_eq!(goal(Some(0.8), AtLeast(0.9)).met(), Some(false));
        assert_eq!(goal(None, AtMost(1.0)).met(), None);
    }
}
