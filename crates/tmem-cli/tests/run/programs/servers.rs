//! A server that is asked questions while it is paged.

use super::{LEAST_MIB, find};
use crate::harness::{Run, Running, pause};
use rustix::process::Signal;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
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

    /// Sends commands at once; the first line of each answer.
    fn ask(&mut self, commands: &[String]) -> Vec<String> {
        let text = commands.join("\r\n") + "\r\n";
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
        text.push_str(&format!(",{}", text.len() * (key % 13)));
    }
    text
}

/// Fills the server, changes a third, reads all, saves in a forked child meanwhile.
fn exercise(run: &mut Running, port: u16) {
    let mut connection = Connection::open(port);
    let all: Vec<usize> = (0..KEYS).collect();
    let mut set = |keys: &[usize], round: usize| {
        for chunk in keys.chunks(500) {
            let commands: Vec<String> = chunk.iter().map(|&key| format!("SET k{key} {}", value(key, round))).collect();
            assert!(connection.ask(&commands).iter().all(|answer| answer == "+OK"), "SET failed");
        }
    };
    set(&all, 0);
    let third: Vec<usize> = (0..KEYS).step_by(3).collect();
    set(&third, 1);
    assert!(connection.ask(&["BGSAVE".to_owned()])[0].starts_with('+'), "BGSAVE failed");
    for chunk in all.chunks(500) {
        let commands: Vec<String> = chunk.iter().map(|key| format!("GET k{key}")).collect();
        for (key, answer) in chunk.iter().zip(connection.ask(&commands)) {
            assert_eq!(answer, value(*key, usize::from(key % 3 == 0)), "key {key}: {}", run.stderr());
        }
    }
}

#[test]
fn redis() {
    let (Some(server), Some(_)) = (find("redis-server"), Run::new("64M")) else { return };
    // About 80 MiB of values and tables.
    let limit = format!("{}M", LEAST_MIB.max(48));
    let folder = super::Scratch::new("redis");
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let arguments = ["--port", &port, "--save", "", "--dir", &folder.path("."), "--daemonize", "no"];
    let mut run = Run::new(&limit).unwrap().option("--on-full", "kill").program(server, &arguments).start();
    exercise(&mut run, port.parse().unwrap());
    run.front().signal(Signal::TERM);
    let ended = run.finish();
    eprintln!("{}", ended.story());
    assert_eq!(ended.code(), 0, "{}", ended.story());
    ended.report().check(&limit, 0);
    assert!(ended.report().count("evicted_bytes") > 0, "{}", ended.story());
}
