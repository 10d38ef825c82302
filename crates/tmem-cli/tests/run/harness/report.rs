//! What `--report` wrote, and what is true of every report.

use serde_json::Value;

/// What the sum may be above the limit: memory is counted now and then, and a program that writes is faster.
const SLACK: u64 = 8 << 20;
/// For runs with children besides: what a child or its parent writes to after a fork the kernel copies, and it gives the
/// copy without asking the monitor. It is taken back as fast as it can be encoded.
const COPIES: u64 = 80 << 20;

/// A report.
#[derive(Debug)]
pub(crate) struct Report(pub(super) Value);

impl Report {
    /// A number; the path is as RFC 6901 has it, without the first slash.
    #[track_caller]
    pub(crate) fn number(&self, path: &str) -> f64 {
        let found = self.0.pointer(&format!("/{path}")).and_then(Value::as_f64);
        found.unwrap_or_else(|| panic!("no number {path} in {}", self.0))
    }

    /// How often which errors of the kernel were made up, or heard.
    #[cfg(feature = "fault-injection")]
    pub(crate) fn injected(&self) -> impl Iterator<Item = (&str, u64)> {
        let counts = self.0["injected"].as_object().into_iter().flatten();
        counts.map(|(name, count)| (name.as_str(), count.as_u64().unwrap_or(0)))
    }

    /// A whole number.
    #[track_caller]
    pub(crate) fn count(&self, path: &str) -> u64 {
        let found = self.0.pointer(&format!("/{path}")).and_then(Value::as_u64);
        found.unwrap_or_else(|| panic!("no count {path} in {}", self.0))
    }

    /// Checks what is true of every report of a run that kept to its limit.
    #[track_caller]
    pub(crate) fn check(&self, limit: &str, status: i32) {
        self.check_within(limit, 0, status);
    }

    /// The same, of one that may have been so much further above it for a moment.
    #[track_caller]
    pub(crate) fn check_within(&self, limit: &str, moment: u64, status: i32) {
        let limit = bytes(limit);
        assert_eq!(self.count("limit_bytes"), limit, "{}", self.0);
        let slack = SLACK + if self.count("processes") > 1 { COPIES } else { 0 };
        assert!(self.count("given_peak_bytes") <= limit + slack + moment, "more than {limit} was given: {}", self.0);
        self.check_identities(status);
    }

    /// Checks what is true of every report.
    #[track_caller]
    pub(crate) fn check_identities(&self, status: i32) {
        let [given, resident, store] =
            ["given", "resident", "store"].map(|name| self.count(&format!("{name}_peak_bytes")));
        let wanted = self.count("wanted_peak_bytes");
        assert!(resident <= given && store <= given && given <= resident + store, "peaks: {}", self.0);
        assert!(wanted >= resident, "less was wanted than was resident: {}", self.0);
        let [p50, p99, p999] = ["p50", "p99", "p999"].map(|name| self.number(&format!("fault_us/{name}")));
        assert!(p50 <= p99 && p99 <= p999, "quantiles: {}", self.0);
        assert!(self.count("faults") == 0 || p999 > 0.0, "faults took no time: {}", self.0);
        let [processes, managed, unmanaged] =
            ["processes", "managed_processes", "unmanaged_processes"].map(|name| self.count(name));
        assert!(processes >= 1 && managed + unmanaged == processes, "processes: {}", self.0);
        assert_eq!(self.number("exit_status"), f64::from(status), "{}", self.0);
        assert!(self.number("wall_s") > 0.0 && self.number("stalled_s") >= 0.0, "times: {}", self.0);
        if self.count("evicted_bytes") > 0 {
            // Noise is stored as it is, with headers, beside what the monitor itself takes.
            assert!(self.number("density") > 0.5, "a store that makes memory larger: {}", self.0);
            assert!(store > 0, "evicted, and nothing stored: {}", self.0);
        }
        for name in ["copied_bytes", "huge_pages_restored", "evictions_refused/busy"] {
            self.count(name);
        }
        for name in ["shared", "hugetlb", "locked"] {
            self.count(&format!("left_alone_bytes/{name}"));
        }
    }
}

/// 64M, 1G, ...
pub(crate) fn bytes(size: &str) -> u64 {
    let (number, shift) = match size.as_bytes().last() {
        Some(b'G') => (&size[..size.len() - 1], 30),
        Some(b'M') => (&size[..size.len() - 1], 20),
        Some(b'K') => (&size[..size.len() - 1], 10),
        _ => (size, 0),
    };
    number.parse::<u64>().unwrap() << shift
}
