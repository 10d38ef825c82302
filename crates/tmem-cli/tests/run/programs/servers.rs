//! A server that is asked questions while it is paged.

use super::{LEAST_MIB, find};
use crate::harness::{MARK, Process, Run, Tree, pause};
use rustix::process::Signal;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Keys of the server, and bytes of each value.
const KEYS: usize = 200_000;
const VALUE_BYTES: usize = 250;

/// A connection that speaks Redis' line protocol.
struct Connection(BufReader<TcpStream>);

impl Connection {
    fn open(port: u16) -> Self {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            match TcpStream::connect(("127.0.0.1", port)) {
                Ok(stream) => return Self(BufReader::new(stream)),
                Err(error) => assert!(Instant::now() < end, "redis does not answer: {error}"),
            }
            pause();
        }
    }

    /// Sends commands at once, each as its words; the first line of each answer.
    fn ask(&mut self, commands: &[Vec<String>]) -> Vec<String> {
        let mut text = String::new();
        for words in commands {
            let _ = write!(text, "*{}\r\n", words.len());
            for word in words {
                let _ = write!(text, "${}\r\n{word}\r\n", word.len());
            }
        }
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
        commands.iter().map(|_| self.answer()).collect()
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        if line.starts_with('$') && !line.starts_with("$-1") {
            line.clear();
            self.0.read_line(&mut line).unwrap();
        }
        line.trim().to_owned()
    }
}

/// The value of a key: like JSON, and each another.
fn value(key: usize, round: usize) -> String {
    let mut text = format!("{{\"id\":{key},\"round\":{round},\"name\":\"customer-{}\"}}", key * 7919 % 100_003);
    while text.len() < VALUE_BYTES {
        let number = text.len() * (key % 13);
        let _ = write!(text, ",{number}");
    }
    text
}

/// Fills the server, changes a third, has it save in a forked child, and reads all meanwhile; how long that took.
fn exercise(port: u16) -> Result<Duration, String> {
    let started = Instant::now();
    let mut connection = Connection::open(port);
    let set = |key: usize, round: usize| vec!["SET".to_owned(), format!("k{key}"), value(key, round)];
    let all: Vec<usize> = (0..KEYS).collect();
    let third: Vec<usize> = (0..KEYS).step_by(3).collect();
    for (keys, round) in [(&all, 0), (&third, 1)] {
        for chunk in keys.chunks(500) {
            let commands: Vec<Vec<String>> = chunk.iter().map(|&key| set(key, round)).collect();
            let answers = connection.ask(&commands);
            if let Some(wrong) = answers.iter().find(|answer| *answer != "+OK") {
                return Err(format!("SET is answered by {wrong:?}"));
            }
        }
    }
    let saving = connection.ask(&[vec!["BGSAVE".to_owned()]]);
    if !saving[0].starts_with('+') {
        return Err(format!("BGSAVE is answered by {saving:?}"));
    }
    for chunk in all.chunks(500) {
        let commands: Vec<Vec<String>> = chunk.iter().map(|key| vec!["GET".to_owned(), format!("k{key}")]).collect();
        for (key, answer) in chunk.iter().zip(connection.ask(&commands)) {
            if answer != value(*key, usize::from(key % 3 == 0)) {
                return Err(format!("key {key} is {answer:?}"));
            }
        }
    }
    Ok(started.elapsed())
}

#[test]
#[ignore = "takes minutes: cargo test --release -p tmem-cli --test run -- --ignored programs"]
fn redis() {
    let (Some(server), Some(_)) = (find("redis-server"), Run::new("64M")) else { return };
    // Half of about 90 MiB of values and tables.
    let limit = format!("{}M", LEAST_MIB.max(45));
    let folder = super::Scratch::new("redis");
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (number, place) = (port.to_string(), folder.path("."));
    let arguments = ["--port", &number, "--save", "", "--dir", &place, "--daemonize", "no"];
    let tree = Tree(format!("redis-{}", std::process::id()));
    let mut alone = Command::new(&server).args(arguments).env(MARK, &tree.0).stdout(Stdio::null()).spawn().unwrap();
    let native = exercise(port).unwrap();
    let (kib, _) = (Process(alone.id().cast_signed()).kib("status", "RssAnon"), alone.kill().unwrap());
    alone.wait().unwrap();
    // What it has saved, should it have come to that, the other would load.
    let _ = fs::remove_file(folder.path("dump.rdb"));
    let run = Run::new(&limit).unwrap().option("--on-full", "kill").program(server, &arguments).start();
    let paged = exercise(port).unwrap_or_else(|why| panic!("{why}: {}", run.stderr()));
    eprintln!("redis: {} MiB natively in {native:.1?}, {limit} in {paged:.1?}", kib >> 10);
    run.front().signal(Signal::TERM);
    let ended = run.finish();
    assert_eq!(ended.code(), 0, "{}", ended.story());
    ended.report().check(&limit, 0);
    assert!(ended.report().count("evicted_bytes") > 0, "{}", ended.story());
}
