//! The built command `tmem`, as a person or a script runs it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

/// A folder that goes away with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tmem-cli-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.0.join(name);
        fs::write(&path, bytes).unwrap();
        path.display().to_string()
    }

    /// Pages of all kinds: words that repeat, text, zeros, noise.
    fn pages(&self) -> String {
        let mut bytes = Vec::new();
        let mut noise = 88_172_645_463_325_252_u64;
        for page in 0..300u64 {
            for word in 0..512u64 {
                noise ^= noise << 13;
                noise ^= noise >> 7;
                noise ^= noise << 17;
                let value = match page % 4 {
                    0 => 0,
                    1 => 0x7f00_1234_5000 + (word * 48) % 4096,
                    2 => u64::from_le_bytes(*b"some tex"),
                    _ => noise >> (page % 64),
                };
                bytes.extend((value + u64::from(page % 4 == 2) * (word % 3)).to_le_bytes());
            }
        }
        self.file("all.pages", &bytes)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A program that waits until it is killed.
struct Sleeper(Child);

impl Sleeper {
    fn start() -> Self {
        Self(Command::new("sleep").arg("600").stdout(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn tmem(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tmem")).args(arguments).stdin(Stdio::null()).output().unwrap()
}

#[track_caller]
fn json(arguments: &[&str]) -> Value {
    let output = tmem(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[track_caller]
fn number(value: &Value, pointer: &str) -> f64 {
    value.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("no number {pointer} in {value:#}"))
}

#[track_caller]
fn fails(arguments: &[&str], saying: &str) {
    let output = tmem(arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains(saying) && !said.contains("panicked"), "{said}");
    assert!(output.stdout.is_empty(), "nothing is printed that could be taken for a result");
}

#[test]
fn bench_engine_prints_every_figure() {
    let scratch = Scratch::new("engine");
    let pages = scratch.pages();
    for (policy, unit, threads) in [("fast", "4k", "1"), ("balanced", "64k", "2"), ("dense", "2m", "1")] {
        let figures = json(&[
            "bench",
            "engine",
            "--pages",
            &pages,
            "--policy",
            policy,
            "--unit",
            unit,
            "--threads",
            threads,
            "--rounds",
            "1",
            "--json",
        ]);
        for pointer in ["put_gbps", "get_gbps", "codec_put_gbps", "codec_get_gbps", "density", "density_cold"] {
            assert!(number(&figures, &format!("/corpora/0/{pointer}")) > 0.0, "{pointer}");
            assert!(number(&figures, &format!("/geomean/{pointer}")) > 0.0, "{pointer}");
        }
        for pointer in ["get_us/p50", "get_us/p99", "get_us/p999", "table_bytes_per_granule"] {
            assert!(number(&figures, &format!("/corpora/0/{pointer}")) > 0.0, "{pointer}");
        }
        assert_eq!(figures["corpora"][0]["policy"], policy);
        assert_eq!(figures["corpora"][0]["unit"], unit);
        assert_eq!(figures["corpora"][0]["threads"].to_string(), threads);
        assert_eq!(figures["corpora"][0]["name"], "all");
        assert_eq!(figures["corpora"][0]["bytes"], 300 * 4096);
    }
}

#[test]
fn bench_engine_prints_a_table_for_people() {
    let scratch = Scratch::new("table");
    let pages = scratch.pages();
    let output = tmem(&["bench", "engine", "--pages", &pages, &pages, "--rounds", "1"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && output.stderr.is_empty());
    assert!(text.contains("put/codec") && text.contains("geomean"), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("all ")).count(), 2, "{text}");
}

#[test]
fn bench_churn_stays_within_its_budget() {
    let figures = json(&["bench", "churn", "--budget", "24m", "--operations", "5000", "--json"]);
    let budget = f64::from(24 << 20);
    assert!(number(&figures, "/memory_used_bytes") <= budget);
    assert!(number(&figures, "/ratio") >= 1.0);
    assert!(number(&figures, "/blocks") > 1000.0);
}

#[test]
fn bench_scale_compares_two_stores() {
    let scale =
        ["bench", "scale", "--small", "4m", "--large", "64m", "--rounds", "1", "--operations", "1000", "--json"];
    let figures = json(&scale);
    assert!(number(&figures, "/put_ratio") > 0.0 && number(&figures, "/get_ratio") > 0.0);
    assert_eq!(figures["large"]["object_bytes"], 64 << 20);
}

#[test]
fn bench_neighbours_tells_what_is_left_beside_each() {
    let figures = json(&["bench", "neighbours", "--sample", "8m", "--rounds", "1", "--time", "50", "--json"]);
    let beside = figures["beside"].as_array().unwrap();
    let ways: Vec<_> = beside.iter().filter_map(|beside| beside["way"].as_str()).collect();
    let all = ["equal", "burns", "scribbles", "changes", "dies", "hoards", "floods", "rings", "connects", "asks"];
    assert_eq!(ways, all);
    // So short that other tests decide; that it goes on at all is what can be said.
    assert!(beside.iter().all(|beside| number(beside, "/share") > 0.0), "{figures:#}");
    assert!(number(&figures, "/worst_share") > 0.0);
}

#[test]
fn bench_scale_refuses_what_does_not_fit() {
    fails(&["bench", "scale", "--large", "9000t"], "try --large");
    fails(&["bench", "scale", "--small", "2g", "--large", "1g"], "--small is larger");
}

#[test]
fn estimate_of_a_file_adds_up() {
    let scratch = Scratch::new("estimate");
    let figures = json(&["estimate", "--pages", &scratch.pages(), "--json"]);
    let of_file = &figures["estimates"][0];
    assert_eq!(of_file["read_bytes"], 300 * 4096);
    assert!((number(of_file, "/same_filled") - 0.25).abs() < 1e-9);
    for policy in of_file["policies"].as_array().unwrap() {
        let shares = policy["codecs"].as_object().unwrap().values();
        assert!((shares.filter_map(Value::as_f64).sum::<f64>() - 1.0).abs() < 1e-9, "{policy}");
        assert!(number(policy, "/put_gbps") > 0.0 && number(policy, "/get_gbps") > 0.0);
    }
    assert!(!of_file["zram"].as_array().unwrap().is_empty() || of_file["no_zram"].is_string());
}

#[test]
fn estimate_of_a_child_reads_its_memory() {
    let child = Sleeper::start();
    let pid = child.0.id().to_string();
    let figures = json(&["estimate", "--pid", &pid, "--json"]);
    let of_child = &figures["estimates"][0];
    assert!(number(of_child, "/read_bytes") > 0.0);
    assert!(number(of_child, "/read_bytes") <= number(of_child, "/resident_bytes"));
    assert_eq!(of_child["policies"].as_array().unwrap().len(), 3);
}

#[test]
fn bad_pages_are_refused_with_advice() {
    let scratch = Scratch::new("bad");
    let missing = scratch.0.join("missing.pages").display().to_string();
    let ragged = scratch.file("ragged.pages", &[1; 5000]);
    let empty = scratch.file("empty.pages", &[]);
    let folder = scratch.0.display().to_string();
    for command in [&["bench", "engine"][..], &["bench", "churn"], &["bench", "scale"], &["estimate"]] {
        let with = |path: &str, saying: &str| fails(&[command, &["--pages", path]].concat(), saying);
        with(&missing, "cannot open the page file");
        with(&ragged, "not a multiple of 4096");
        with(&empty, "is empty");
        with(&folder, "not a regular file");
    }
}

#[test]
fn a_pid_that_does_not_exist_is_refused() {
    fails(&["estimate", "--pid", "4000000000"], "there is no process 4000000000");
    fails(&["estimate", "--pid", "99999999999"], "--pid");
    fails(&["estimate", "--pid", "me"], "--pid");
}

#[test]
fn every_command_has_help_with_examples() {
    for command in [&[][..], &["bench", "engine"], &["bench", "churn"], &["bench", "scale"], &["estimate"]] {
        let output = tmem(&[command, &["--help"]].concat());
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && text.contains("Examples:"), "{text}");
    }
}
