//! How a daemon starts and ends.

use crate::harness::{Guest, PATIENCE, Scratch, Serving, TMEM, fails, text, tmem, wait};
use rustix::process::Signal;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tmem_ring::{Action, Memory, Operation, Outcome, Slice};
use tmem_sys::Listener;

#[test]
fn a_signal_ends_it_in_good_order() {
    for signal in [Signal::TERM, Signal::INT] {
        let serving = Serving::start(&[]);
        let mut guest = Guest::connect(&serving.socket(), "guest");
        assert_eq!(guest.put(0, &[7; 8192]), Outcome::Stored);
        serving.signal(signal);
        serving.manager.hears("STOPPING=1");
        let ended = serving.ended();
        assert_eq!(ended.status.code(), Some(0), "{}", ended.log);
        assert!(!ended.scratch.path("socket").exists());
        assert!(ended.log.contains("INFO serving 64.0 MiB at ") && ended.log.contains("INFO ended"), "{}", ended.log);
    }
}

#[test]
fn a_killed_daemons_socket_is_replaced() {
    let mut serving = Serving::start(&[]);
    serving.child.kill().unwrap();
    let killed = serving.ended();
    assert!(killed.scratch.path("socket").exists(), "a daemon that is killed leaves its socket");
    let serving = Serving::start_in(killed.scratch, &["--budget", "64m"]);
    assert_eq!(Guest::connect(&serving.socket(), "guest").put(0, &[7; 4096]), Outcome::Stored);
}

#[test]
fn what_others_use_is_left_alone() {
    let serving = Serving::start(&[]);
    let mut guest = Guest::connect(&serving.socket(), "guest");
    let socket = serving.socket();
    fails(&["serve", "--budget", "64m", "--socket", text(&socket)], &["another daemon", text(&socket), "stop it"]);
    assert_eq!(guest.put(0, &[7; 4096]), Outcome::Stored);
    Guest::connect(&socket, "another guest");
    let file = serving.scratch.write("file", "mine");
    fails(&["serve", "--budget", "64m", "--socket", text(&file)], &["no socket", text(&file)]);
    assert_eq!(fs::read_to_string(file).unwrap(), "mine");
}

#[test]
fn what_cannot_be_served_is_told_with_advice() {
    let scratch = Scratch::new();
    let socket = scratch.path("socket");
    let serve = |more: &[&str], saying: &[&str]| {
        fails(&[&["serve", "--socket", text(&socket)], more].concat(), saying);
        assert!(!socket.exists());
    };
    serve(&[], &["--budget SIZE"]);
    serve(&["--budget", "8k"], &["too small", "at least"]);
    serve(&["--budget", "900t"], &["900.0 TiB is more than", "memory", "give less"]);
    serve(&["--budget", "64m", "--allow", "nobody-of-that-name"], &["there is no user `nobody-of-that-name`"]);
    serve(&["--budget", "64m", "--mode", "888"], &["`888` is no mode"]);
    serve(&["--budget", "64m", "--workers", "0"], &["--workers"]);
    serve(&["--budget", "64m", "--log", "loud"], &["--log"]);
    serve(&["--config", "/nowhere/tmem.toml"], &["/nowhere/tmem.toml", "No such file"]);
    let file = scratch.write("tmem.toml", "budget = \"64m\"\nclinet-cap = \"1m\"\n");
    serve(&["--config", text(&file)], &[text(&file), "clinet-cap", "client-cap"]);
    let nowhere = scratch.path("no/socket");
    fails(&["serve", "--budget", "64m", "--socket", text(&nowhere)], &[text(&nowhere), "No such file or directory"]);
}

#[test]
fn settings_come_from_the_file_and_the_command_line_goes_first() {
    let scratch = Scratch::new();
    let file = scratch.write("tmem.toml", "budget = \"48m\"\nworkers = 3\nclient-cap = \"4m\"\nmode = \"0640\"\n");
    let file = file.to_str().unwrap().to_owned();
    let serving = Serving::start_in(scratch, &["--config", &file, "--client-cap", "2m"]);
    let guest = Guest::connect(&serving.socket(), "guest");
    let stat = serving.stat();
    assert_eq!((&stat["budget_bytes"], &stat["workers"]), (&(48 << 20).into(), &3.into()));
    assert_eq!(serving.stat_of(&guest)["cap_bytes"], 2 << 20);
    assert_eq!(fs::metadata(serving.socket()).unwrap().permissions().mode() & 0o777, 0o640);
}

#[test]
fn a_service_managers_directory_is_where_it_listens() {
    let scratch = Scratch::new();
    let mut command = Command::new(TMEM);
    command.args(["serve", "--budget", "64m"]).env("RUNTIME_DIRECTORY", scratch.path(""));
    let serving = Serving::start_command(scratch, command);
    assert!(serving.scratch.path("tmem.sock").exists());
}

#[test]
fn a_service_managers_socket_is_served_and_left() {
    let scratch = Scratch::new();
    let listener = Listener::bind(&scratch.path("socket"), 0o600).unwrap();
    let passed = listener.as_fd().try_clone_to_owned().unwrap();
    let mut command = Command::new("sh");
    let script = "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" serve --budget 64m 3<&0 0</dev/null";
    command.args(["-c", script, TMEM]).stdin(Stdio::from(passed));
    let serving = Serving::start_command(scratch, command);
    let mut guest = Guest::connect(&serving.socket(), "guest");
    assert_eq!(guest.put(0, &[7; 4096]), Outcome::Stored);
    let ended = serving.end();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.log);
    assert!(ended.scratch.path("socket").exists(), "it is the manager's");
}

#[test]
fn a_service_managers_mistake_is_told() {
    let script = "LISTEN_PID=$$ LISTEN_FDS=2 exec \"$0\" serve --budget 64m 3</dev/null 4</dev/null";
    let output = Command::new("sh").args(["-c", script, TMEM]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("has passed 2 descriptors"), "{said}");
    let script = "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" serve --budget 64m 3</dev/null";
    let output = Command::new("sh").args(["-c", script, TMEM]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("ListenSequentialPacket="), "{said}");
}

/// A daemon with more to do than it can do in half a minute.
fn busy() -> (Serving, Guest) {
    let serving = Serving::start(&["--workers", "1"]);
    let options = tmem_ring::wire::PoolOptions {
        policy: tmem_ring::wire::Policy::Dense,
        ..tmem_ring::wire::PoolOptions::persistent()
    };
    let mut guest = Guest::with(&serving.socket(), "busy", options);
    // Words that do not repeat, and are not noise: slow to encode.
    let words =
        (0..guest.region.len() as u64 / 8).map(|word| word.wrapping_mul(word).rotate_left(20) & 0xfff_ffff_ffff);
    guest.region.write(0, &words.flat_map(u64::to_le_bytes).collect::<Vec<u8>>());
    // The whole region, again and again.
    let slices = [Slice { offset: 0, len: guest.region.len() as u64 }; 63];
    let from = Memory { region: guest.region.number(), slices: &slices };
    let put = Operation { tag: 0, pool: guest.pool, object: 1.into(), action: Action::Put { offset: 0, from } };
    while guest.queue.push(&put).is_ok() {}
    guest.queue.submit();
    (serving, guest)
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let (serving, _guest) = busy();
    serving.signal(Signal::TERM);
    serving.manager.hears("STOPPING=1");
    // From here on it is completing what was submitted.
    let start = Instant::now();
    let mut serving = serving;
    while wait(&mut serving.child, Duration::from_millis(10)).is_none() {
        serving.signal(Signal::TERM);
        assert!(start.elapsed() < PATIENCE);
    }
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert_eq!(serving.ended().status.code(), Some(1));
}

#[test]
fn an_end_takes_no_longer_than_it_may() {
    let (serving, mut guest) = busy();
    let start = Instant::now();
    let ended = serving.end();
    let time = start.elapsed();
    assert!(time > Duration::from_secs(9) && time < Duration::from_secs(15), "{time:?}");
    assert_eq!(ended.status.code(), Some(0), "{}", ended.log);
    assert!(ended.log.contains("WARN what was submitted was not completed within 10s"), "{}", ended.log);
    assert!(guest.queue.wait(256, Some(PATIENCE)).is_err(), "who waits is told");
}

#[test]
fn an_end_completes_what_was_submitted() {
    let serving = Serving::start(&[]);
    let mut guest = Guest::connect(&serving.socket(), "guest");
    let slices = [Slice { offset: 0, len: guest.region.len() as u64 }];
    let from = Memory { region: guest.region.number(), slices: &slices };
    for tag in 0..200 {
        let put = Action::Put { offset: tag << 32, from };
        guest.queue.push(&Operation { tag, pool: guest.pool, object: 1.into(), action: put }).unwrap();
    }
    guest.queue.submit();
    assert_eq!(serving.end().status.code(), Some(0));
    let mut stored = 0;
    while let Some(completion) = guest.queue.reap_one().unwrap() {
        stored += usize::from(completion.outcome == Outcome::Stored);
    }
    assert_eq!(stored, 200);
    assert!(guest.queue.wait(1, Some(PATIENCE)).is_ok(), "nothing is outstanding");
}

#[test]
fn it_tells_as_much_as_it_is_to() {
    let quiet = Serving::start(&["--log", "off"]).end();
    assert_eq!(quiet.log, "");
    let dated = Serving::start(&[]).end();
    assert!(dated.log.lines().all(|line| line.starts_with("20")), "{}", dated.log);
    // The journal has its own times. What is connected with it says so by its file's numbers.
    let scratch = Scratch::new();
    let log = scratch.write("log", "");
    let file = fs::metadata(&log).unwrap();
    let mut command = Command::new(TMEM);
    command.args(["serve", "--budget", "64m", "--socket"]).arg(scratch.path("socket"));
    command.env("JOURNAL_STREAM", format!("{}:{}", file.dev(), file.ino()));
    let plain = Serving::start_command(scratch, command).end();
    assert!(plain.log.lines().all(|line| line.trim_start().starts_with("INFO ")), "{}", plain.log);
}

#[test]
fn who_may_be_a_client_is_decided_by_user() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can be somebody else");
        return;
    }
    const OTHER: u32 = 65534;
    for (options, saying) in [
        (&["--mode", "0600", "--allow", "65534"][..], Some("no permission to connect")),
        (&["--mode", "0666"], Some("uid 65534 may not use this daemon")),
        (&["--mode", "0666", "--allow", "65534"], None),
    ] {
        let serving = Serving::start(options);
        let stat = || {
            let socket = serving.socket();
            let command = &mut Command::new(TMEM);
            command.args(["stat", "--interval", "0.01", "--socket", text(&socket)]).uid(OTHER).gid(OTHER).output()
        };
        let Ok(output) = stat() else {
            eprintln!("skipped: others cannot execute {TMEM}");
            return;
        };
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), saying.is_none(), "{options:?}: {said}");
        assert!(said.contains(saying.unwrap_or_default()), "{options:?}: {said}");
        let is_advised = options.len() == 4 && options[1] == "0600";
        assert_eq!(serving.log().contains("give --mode 0666"), is_advised, "{options:?}: {}", serving.log());
    }
}

#[test]
fn every_command_has_help_with_examples() {
    for command in ["serve", "stat", "client"] {
        let output = tmem(&[command, "--help"]);
        let help = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && help.contains("Examples:\n  tmem "), "{help}");
    }
}
