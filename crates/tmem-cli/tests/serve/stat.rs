//! What `tmem stat` shows.

use crate::harness::{Guest, Scratch, Serving, fails, text, tmem};
use tmem_ring::Outcome;

#[test]
fn its_json_has_the_right_numbers() {
    let serving = Serving::start(&["--workers", "2"]);
    let mut guest = Guest::connect(&serving.socket(), "a guest");
    assert_eq!(serving.stat_of(&guest)["operations"], 0);
    for nth in 0..4 {
        assert_eq!(guest.put(nth << 20, &[1; 64 << 10]), Outcome::Stored);
    }
    assert_eq!(guest.get(0, 64 << 10).0, Outcome::Filled);
    assert_eq!(guest.get(1 << 40, 4096).0, Outcome::Missing);
    let stat = serving.stat();
    assert_eq!(stat["pid"], serving.child.id());
    assert_eq!((&stat["budget_bytes"], &stat["workers"]), (&(64 << 20).into(), &2.into()));
    assert!((1..=64 << 20).contains(&stat["used_bytes"].as_u64().unwrap()));
    assert_eq!(stat["clients"].as_array().unwrap().len(), 1);
    let client = &stat["clients"][0];
    for (name, value) in [
        ("client", guest.id().into()),
        ("name", "a guest".into()),
        ("pid", std::process::id().into()),
        ("uid", rustix::process::geteuid().as_raw().into()),
        ("state", "running".into()),
        ("cap_bytes", serde_json::Value::Null),
        ("operations", 6.into()),
        ("operation_bytes", (5 * (64 << 10) + 4096).into()),
        ("puts_stored", 4.into()),
        ("puts_failed", 0.into()),
        ("gets_filled", 1.into()),
        ("gets_missing", 1.into()),
        ("copied_bytes", 0.into()),
        ("regions", 1.into()),
        ("region_bytes", guest.region.len().into()),
        ("queues", 1.into()),
    ] {
        assert_eq!(client[name], value, "{name}");
    }
    let pool = &client["pools"][0];
    assert_eq!(
        (&pool["pool"], &pool["granules_put"], &pool["granules_got"]),
        (&guest.pool.0.into(), &64.into(), &16.into())
    );
    assert!((client["rates"]["operations_per_s"].as_f64().unwrap()).abs() < 1e-9, "nothing happens between two looks");
    assert!(client["rates"]["hit_rate"].is_null());
}

#[test]
fn its_rates_are_of_what_happens_meanwhile() {
    let serving = Serving::start(&[]);
    let mut guest = Guest::connect(&serving.socket(), "guest");
    let socket = serving.socket();
    let looking = std::thread::spawn(move || tmem(&["stat", "--socket", text(&socket), "--json", "--interval", "0.3"]));
    while !looking.is_finished() {
        assert_eq!(guest.put(0, &[1; 4096]), Outcome::Stored);
        assert_eq!(guest.get(0, 4096).0, Outcome::Filled);
        assert_eq!(guest.get(4096, 4096).0, Outcome::Missing);
    }
    let stat: serde_json::Value = serde_json::from_slice(&looking.join().unwrap().stdout).unwrap();
    let rates = &stat["clients"][0]["rates"];
    let number = |name: &str| rates[name].as_f64().unwrap();
    assert!(number("operations_per_s") > 100.0, "{rates:#}");
    // A third of the operations are puts of a page, a third gets that find one.
    let puts = number("put_bytes_per_s") / 4096.0 / number("operations_per_s");
    let gets = number("got_bytes_per_s") / 4096.0 / number("operations_per_s");
    assert!((puts - 1.0 / 3.0).abs() < 0.05 && (gets - 1.0 / 3.0).abs() < 0.05, "{rates:#}");
    assert!((number("hit_rate") - 0.5).abs() < 0.05, "{rates:#}");
}

#[test]
fn people_see_clients_and_their_pools() {
    let serving = Serving::start(&[]);
    let socket = serving.socket();
    let show = || {
        let output = tmem(&["stat", "--socket", text(&socket), "--interval", "0.01"]);
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(show().contains("no clients"));
    let guest = Guest::connect(&socket, "a guest");
    let shown = show();
    let row = |start: &str| shown.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{shown}"));
    assert!(row("process ").contains("of 64.0 MiB used"), "{shown}");
    assert!(row("client ").ends_with("doorbells/s"), "{shown}");
    let words: Vec<&str> = row(&format!("{} ", guest.id())).split_whitespace().collect();
    assert_eq!(words[1..5], ["a", "guest", &std::process::id().to_string(), "running"], "{shown}");
    assert!(shown.contains("persistent  balanced"), "{shown}");
}

#[test]
fn without_a_daemon_it_says_so() {
    let scratch = Scratch::new();
    let nowhere = scratch.path("nowhere");
    fails(&["stat", "--socket", text(&nowhere)], &[text(&nowhere), "tmem serve"]);
    let mut serving = Serving::start(&[]);
    serving.child.kill().unwrap();
    let killed = serving.ended();
    let socket = killed.scratch.path("socket");
    fails(&["stat", "--socket", text(&socket)], &[text(&socket), "tmem serve"]);
    fails(&["stat", "--socket", text(&socket), "--interval", "0"], &["`0` is no time"]);
}
