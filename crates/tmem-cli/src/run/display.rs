//! What people see of a run: a live line on a terminal, and a table at the end.

use crate::report::{bytes, percent};
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};
use tmem_pager::{Live, Report};

/// Twice a second.
const PERIOD: Duration = Duration::from_millis(500);
/// Back to the first column, and the rest of the line cleared (ECMA-48).
const CLEAR: &str = "\r\x1b[K";
/// Columns, where the terminal does not say.
const COLUMNS: usize = 80;

/// The line on the terminal, and when it is due.
#[derive(Debug)]
pub(crate) struct Display {
    /// When the next line is due; `None` where there are none.
    due: Option<Instant>,
    shown: bool,
    /// When the last figures came, and the faults until then.
    last: Option<(Instant, u64)>,
}

impl Display {
    /// A display with a line that lives, where a terminal is.
    pub(crate) fn live() -> Self {
        let due = std::io::stderr().is_terminal().then(|| Instant::now() + PERIOD);
        Self { due, ..Self::quiet() }
    }

    /// A display without.
    pub(crate) fn quiet() -> Self {
        Self { due: None, shown: false, last: None }
    }

    /// How long until new figures are wanted.
    pub(crate) fn patience(&self) -> Option<Duration> {
        self.due.map(|due| due.saturating_duration_since(Instant::now()))
    }

    /// Whether new figures are wanted; if so, the next are half a second later.
    pub(crate) fn is_due(&mut self) -> bool {
        let now = Instant::now();
        let due = self.due.is_some_and(|due| due <= now);
        if due {
            self.due = Some(now + PERIOD);
        }
        due
    }

    /// Shows figures.
    pub(crate) fn show(&mut self, live: &Live) {
        let now = Instant::now();
        let faults = self.last.replace((now, live.faults)).map_or(0.0, |(before, faults)| {
            live.faults.saturating_sub(faults) as f64 / now.duration_since(before).as_secs_f64().max(1e-3)
        });
        // In the background the terminal is another's.
        if self.due.is_some() && in_foreground() {
            let columns = rustix::termios::tcgetwinsize(std::io::stderr()).map_or(0, |size| usize::from(size.ws_col));
            let columns = if columns == 0 { COLUMNS } else { columns };
            let line: String = line(live, faults).chars().take(columns - 1).collect();
            write(&format!("{CLEAR}{line}"));
            self.shown = true;
        }
    }

    /// Takes the line away.
    pub(crate) fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            write(CLEAR);
        }
    }

    /// Tells people something.
    pub(crate) fn note(&mut self, text: &str) {
        self.clear();
        write(&format!("tmem: {text}\n"));
    }

    /// Shows the table.
    pub(crate) fn table(&mut self, report: &Report) {
        self.clear();
        write(&table(report));
    }
}

/// Whoever reads may be gone; the program's status matters more.
fn write(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

fn in_foreground() -> bool {
    rustix::termios::tcgetpgrp(std::io::stderr()).is_ok_and(|group| group == rustix::process::getpgrp())
}

fn line(live: &Live, faults_per_s: f64) -> String {
    let stored = if live.stored_bytes == 0 {
        "nothing stored".into()
    } else {
        format!("{} stored in {} ({:.1}:1)", bytes(live.stored_bytes), bytes(live.store_bytes), live.density)
    };
    format!(
        "tmem: {} resident, {stored}, of {}; {faults_per_s:.0} faults/s, {} processes",
        bytes(live.resident_bytes),
        bytes(live.limit_bytes),
        live.processes
    )
}

/// Rows of a name, a figure, and what it is made of.
fn table(report: &Report) -> String {
    let times = report.fault_us;
    let given = format!(
        "{} resident, {} store, each at its peak",
        bytes(report.resident_peak_bytes),
        bytes(report.store_peak_bytes)
    );
    let share = if report.limit_bytes == 0 { 0.0 } else { report.given_peak_bytes as f64 / report.limit_bytes as f64 };
    let mut rows = vec![
        ("limit", bytes(report.limit_bytes), String::new()),
        ("wanted, peak", bytes(report.wanted_peak_bytes), String::new()),
        ("given, peak", bytes(report.given_peak_bytes), format!("{} of the limit: {given}", percent(share))),
    ];
    if report.evicted_bytes > 0 {
        rows.push(("moved out", bytes(report.evicted_bytes), format!("density {:.2}", report.density)));
        let slow = format!("p50 {:.0} us, p99 {:.0} us, p99.9 {:.0} us", times.p50, times.p99, times.p999);
        rows.push(("faults", report.faults.to_string(), slow));
    }
    let stalled = format!("{:.1} s of waiting for memory", report.stalled_s);
    rows.push(("time", format!("{:.1} s", report.wall_s), stalled));
    let others = match report.unmanaged_processes {
        0 => String::new(),
        count => format!("and {count} outside of the limit"),
    };
    rows.push(("processes", report.managed_processes.to_string(), others));
    let left = report.left_alone_bytes;
    let alone = left.shared + left.hugetlb + left.locked;
    if alone > 0 {
        let parts = [(left.shared, "shared"), (left.hugetlb, "hugetlb"), (left.locked, "locked")];
        let parts = parts.iter().filter(|(part, _)| *part > 0).map(|(part, name)| format!("{} {name}", bytes(*part)));
        rows.push(("left alone", bytes(alone), parts.collect::<Vec<_>>().join(", ")));
    }
    let width = |of: fn(&(&str, String, String)) -> usize| rows.iter().map(of).max().unwrap_or(0);
    let (names, figures) = (width(|row| row.0.len()), width(|row| row.1.len()));
    let lines = rows.iter().map(|(name, figure, more)| format!("tmem: {name:<names$}  {figure:>figures$}  {more}"));
    lines.map(|line| format!("{}\n", line.trim_end())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tmem_pager::{FaultTimes, LeftAlone};

    #[test]
    fn a_line_tells_what_is_where() {
        let live = Live {
            resident_bytes: 700 << 20,
            stored_bytes: 900 << 20,
            store_bytes: 300 << 20,
            density: 3.0,
            faults: 10,
            limit_bytes: 1 << 30,
            processes: 2,
        };
        let expected =
            "tmem: 700.0 MiB resident, 900.0 MiB stored in 300.0 MiB (3.0:1), of 1.0 GiB; 12 faults/s, 2 processes";
        assert_eq!(line(&live, 12.3), expected);
        assert!(line(&Live::default(), 0.0).contains("nothing stored"));
    }

    #[test]
    fn a_table_is_short_and_aligned() {
        let calm = Report { limit_bytes: 1 << 30, managed_processes: 1, ..Report::default() };
        assert_eq!(table(&calm).lines().count(), 5);
        let busy = Report {
            evicted_bytes: 5 << 30,
            faults: 123_456,
            fault_us: FaultTimes { p50: 7.0, p99: 70.0, p999: 700.0 },
            left_alone_bytes: LeftAlone { shared: 1 << 20, ..LeftAlone::default() },
            unmanaged_processes: 3,
            ..calm
        };
        let text = table(&busy);
        assert!(
            text.contains("p99.9 700 us") && text.contains("3 outside") && text.contains("1.0 MiB shared"),
            "{text}"
        );
        assert!(text.lines().all(|line| line.starts_with("tmem: ") && line.len() < 120), "{text}");
    }
}
