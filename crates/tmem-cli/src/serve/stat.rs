//! `tmem stat`: what a daemon serves, how much and how fast.
//!
//! Counts are the daemon's; rates are differences of two looks. A client that came between them has no rates.

use super::cli::Stat;
use super::socket;
use crate::interrupt;
use crate::report::{self, Table};
use anyhow::Result;
use serde::Serialize;
use std::thread;
use std::time::{Duration, Instant};
use tmem_ring::GRANULE_BYTES;
use tmem_ring::client;
use tmem_ring::wire::{self, ClientStat, PoolKind, PoolOptions};

/// How often an interrupt is looked for.
const PERIOD: Duration = Duration::from_millis(50);

/// What `--json` prints: all that the daemon tells, and the rates.
#[derive(Debug, Serialize)]
struct Report {
    pid: u32,
    budget_bytes: u64,
    used_bytes: u64,
    uptime_ms: u64,
    workers: u64,
    /// How often a worker went to sleep, a second.
    worker_sleeps_per_s: f64,
    clients: Vec<ClientReport>,
}

#[derive(Debug, Serialize)]
struct ClientReport {
    #[serde(flatten)]
    stat: ClientStat,
    /// None: it was not there at the first look.
    rates: Option<Rates>,
}

/// A second, over the interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Rates {
    operations_per_s: f64,
    /// Page data that its pools were given, and gave.
    put_bytes_per_s: f64,
    got_bytes_per_s: f64,
    /// Doorbells that it rang, and that were rung for it.
    doorbells_per_s: f64,
    /// Gets that found everything, of all. None: there were none.
    hit_rate: Option<f64>,
}

/// Looks twice, and prints.
pub(crate) fn run(options: &Stat) -> Result<()> {
    let path = socket::of_daemon(options.daemon.socket.as_deref());
    let first = client::stat(&path)?;
    let start = Instant::now();
    while let Some(left) = options.interval.checked_sub(start.elapsed()) {
        interrupt::check()?;
        thread::sleep(left.min(PERIOD));
    }
    let report = Report::between(&first, client::stat(&path)?);
    report::print(options.json.then_some(&report), || report.text())
}

impl Report {
    fn between(first: &wire::Stat, second: wire::Stat) -> Self {
        // Of another daemon's, which has started meanwhile, there is nothing to be compared with.
        let same = first.pid == second.pid;
        let seconds = second.uptime_ms.saturating_sub(first.uptime_ms) as f64 / 1000.0;
        let seconds = if same { seconds.max(0.001) } else { f64::INFINITY };
        let clients = second.clients.into_iter().map(|stat| {
            let before = first.clients.iter().find(|before| same && before.client == stat.client);
            ClientReport { rates: before.map(|before| Rates::between(before, &stat, seconds)), stat }
        });
        Self {
            pid: second.pid,
            budget_bytes: second.budget_bytes,
            used_bytes: second.used_bytes,
            uptime_ms: second.uptime_ms,
            workers: second.workers,
            worker_sleeps_per_s: second.worker_sleeps.saturating_sub(first.worker_sleeps) as f64 / seconds,
            clients: clients.collect(),
        }
    }

    fn text(&self) -> String {
        let (used, budget) = (report::bytes(self.used_bytes), report::bytes(self.budget_bytes));
        let (workers, up) = (self.workers, self.uptime_ms / 1000);
        let mut text = format!("process {}: {used} of {budget} used, {workers} workers, up {up} s\n", self.pid);
        if self.clients.is_empty() {
            return text + "no clients\n";
        }
        text += "\n";
        text += &self.clients_text();
        if self.clients.iter().any(|client| !client.stat.pools.is_empty()) {
            text += "\n";
            text += &self.pools_text();
        }
        text
    }

    fn clients_text(&self) -> String {
        let mut table = Table::new(&[
            "client",
            "name",
            "pid",
            "state",
            "charged",
            "cap",
            "weight",
            "ops/s",
            "MB/s in",
            "MB/s out",
            "hits",
            "doorbells/s",
        ]);
        for ClientReport { stat, rates } in &self.clients {
            let rate = |of: fn(&Rates) -> f64, digits: usize| {
                rates.as_ref().map_or_else(dash, |rates| format!("{:.digits$}", of(rates)))
            };
            table.row(vec![
                stat.client.0.to_string(),
                // It is the client's own: not to be interpreted by a terminal.
                stat.name.escape_debug().to_string(),
                stat.pid.map_or_else(dash, |pid| pid.to_string()),
                stat.state.clone(),
                report::bytes(stat.charged_bytes),
                stat.cap_bytes.map_or_else(dash, report::bytes),
                stat.weight.to_string(),
                rate(|rates| rates.operations_per_s, 0),
                rate(|rates| rates.put_bytes_per_s / 1e6, 1),
                rate(|rates| rates.got_bytes_per_s / 1e6, 1),
                rates.and_then(|rates| rates.hit_rate).map_or_else(dash, report::percent),
                rate(|rates| rates.doorbells_per_s, 0),
            ]);
        }
        table.text()
    }

    fn pools_text(&self) -> String {
        let mut table = Table::new(&["pool", "client", "kind", "policy", "stays", "put", "got"]);
        let pools =
            self.clients.iter().flat_map(|client| client.stat.pools.iter().map(|pool| (client.stat.client, pool)));
        for (client, pool) in pools {
            let PoolOptions { kind, shared, policy, outlives } = pool.options;
            let kind = if kind == PoolKind::Persistent { "persistent" } else { "ephemeral" };
            table.row(vec![
                pool.pool.0.to_string(),
                client.0.to_string(),
                format!("{kind}{}", if shared { ", shared" } else { "" }),
                format!("{policy:?}").to_lowercase(),
                if outlives { "yes" } else { "no" }.to_owned(),
                report::bytes(pool.granules_put.saturating_mul(GRANULE_BYTES)),
                report::bytes(pool.granules_got.saturating_mul(GRANULE_BYTES)),
            ]);
        }
        table.text()
    }
}

fn dash() -> String {
    "-".to_owned()
}

impl Rates {
    fn between(before: &ClientStat, now: &ClientStat, seconds: f64) -> Self {
        let more = |of: fn(&ClientStat) -> u64| of(now).saturating_sub(of(before)) as f64;
        let gets = more(|stat| stat.gets_filled + stat.gets_partly + stat.gets_missing + stat.gets_corrupt);
        Self {
            operations_per_s: more(|stat| stat.operations) / seconds,
            put_bytes_per_s: pages(before, now, |pool| pool.granules_put) / seconds,
            got_bytes_per_s: pages(before, now, |pool| pool.granules_got) / seconds,
            doorbells_per_s: more(|stat| stat.doorbells_heard + stat.doorbells_rung) / seconds,
            hit_rate: (gets > 0.0).then(|| more(|stat| stat.gets_filled) / gets),
        }
    }
}

/// Bytes of the pages that were counted in the pools which are there now.
fn pages(before: &ClientStat, now: &ClientStat, of: fn(&wire::PoolStat) -> u64) -> f64 {
    let more = now.pools.iter().map(|pool| {
        let was = before.pools.iter().find(|was| was.pool == pool.pool).map_or(0, of);
        of(pool).saturating_sub(was)
    });
    more.sum::<u64>() as f64 * GRANULE_BYTES as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use tmem_ring::wire::{PoolStat, Stat};
    use tmem_ring::{ClientId, PoolId};

    fn client(number: u32, count: u64) -> ClientStat {
        let pool = PoolStat {
            pool: PoolId(number),
            options: PoolOptions::persistent(),
            granules_put: count,
            granules_got: 2 * count,
        };
        ClientStat {
            client: ClientId(number),
            name: "\u{1b}[31mred".to_owned(),
            pid: Some(7),
            uid: 0,
            state: "running".to_owned(),
            cap_bytes: None,
            weight: 1,
            charged_bytes: 1 << 20,
            operations: 3 * count,
            operation_bytes: 0,
            puts_stored: count,
            puts_failed: 0,
            gets_filled: 3 * count,
            gets_partly: 0,
            gets_missing: count,
            gets_corrupt: 0,
            copied_bytes: 0,
            doorbells_heard: count,
            doorbells_rung: count,
            served_us: 0,
            regions: 0,
            region_bytes: 0,
            queues: 1,
            pools: vec![pool],
        }
    }

    fn stat(pid: u32, uptime_ms: u64, clients: Vec<ClientStat>) -> Stat {
        Stat {
            pid,
            budget_bytes: 1 << 30,
            used_bytes: 1 << 20,
            uptime_ms,
            workers: 2,
            worker_sleeps: uptime_ms,
            clients,
        }
    }

    #[test]
    fn rates_are_of_the_time_between_two_looks() {
        let report =
            Report::between(&stat(1, 1000, vec![client(1, 100)]), stat(1, 3000, vec![client(1, 300), client(2, 5)]));
        let rates = Rates {
            operations_per_s: 300.0,
            put_bytes_per_s: 100.0 * 4096.0,
            got_bytes_per_s: 200.0 * 4096.0,
            doorbells_per_s: 200.0,
            hit_rate: Some(0.75),
        };
        assert_eq!(report.clients[0].rates, Some(rates));
        assert_eq!(report.clients[1].rates, None, "it was not there before");
        assert!((report.worker_sleeps_per_s - 1000.0).abs() < 1e-9);
    }

    #[test]
    fn another_daemon_has_nothing_in_common_with_the_one_before() {
        let report = Report::between(&stat(1, 9000, vec![client(1, 100)]), stat(2, 10, vec![client(1, 300)]));
        assert_eq!(report.clients[0].rates, None);
    }

    #[test]
    fn a_clients_name_does_not_reach_the_terminal_as_it_is() {
        let text = Report::between(&stat(1, 0, vec![]), stat(1, 1, vec![client(1, 1)])).text();
        assert!(!text.contains('\u{1b}') && text.contains("\\u{1b}[31mred"), "{text}");
        assert!(text.contains("\npool  client"), "{text}");
    }
}
