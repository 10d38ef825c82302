//! A Redis server with sessions, users, carts, queues and rankings, over a socket in a directory of ours.

use super::programs::{Live, PATIENCE, Place};
use crate::process::{Program, anonymous_bytes};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;

/// Keys that are written between two looks at the size.
const BATCH: u64 = 2000;
/// Keys that should be many more than needed.
const LIMIT_KEYS: u64 = 20_000_000;

/// Starts a server and fills it to the wanted size.
pub(super) fn start(place: &Place) -> Result<Live> {
    let socket = place.scratch.join("redis.sock");
    let mut command = Command::new("redis-server");
    command.current_dir(&place.scratch).args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"]);
    let mut program = Program::start(command.arg(&socket))?;
    program.wait_for_line("eady to accept connections", PATIENCE)?;
    let prose = fs::read_to_string(&place.prose).context("cannot read the prose")?;
    let stream = UnixStream::connect(&socket).context("cannot connect to the server")?;
    let mut client = Client {
        replies: BufReader::new(stream.try_clone().context("cannot share the socket")?),
        out: BufWriter::with_capacity(1 << 18, stream),
        lines: prose.lines().collect(),
        random: Random(0x5eed_0001),
    };
    client.command(&["CLIENT", "REPLY", "OFF"])?;
    let mut key = 0;
    while anonymous_bytes(program.id()).unwrap_or(0) < place.target_bytes() {
        ensure!(key < LIMIT_KEYS, "the server stayed small for {key} keys");
        for key in key..key + BATCH {
            client.write_key(key)?;
        }
        key += BATCH;
        client.settle()?;
    }
    Ok(Live { id: program.id(), program })
}

/// Repeatable numbers: splitmix64, <https://prng.di.unimi.it/splitmix64.c>.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

struct Client<'a> {
    replies: BufReader<UnixStream>,
    out: BufWriter<UnixStream>,
    lines: Vec<&'a str>,
    random: Random,
}

impl<'a> Client<'a> {
    fn command(&mut self, words: &[&str]) -> Result<()> {
        write!(self.out, "*{}\r\n", words.len())?;
        for word in words {
            write!(self.out, "${}\r\n{word}\r\n", word.len())?;
        }
        Ok(())
    }

    /// Waits until the server has done all that was sent.
    fn settle(&mut self) -> Result<()> {
        self.command(&["CLIENT", "REPLY", "ON"])?;
        self.command(&["PING"])?;
        self.out.flush().context("the server reads no more")?;
        for wanted in ["+OK\r\n", "+PONG\r\n"] {
            let mut reply = String::new();
            self.replies.read_line(&mut reply).context("the server does not answer")?;
            ensure!(reply == wanted, "the server answered {reply:?}");
        }
        self.command(&["CLIENT", "REPLY", "OFF"])
    }

    fn line(&mut self) -> &'a str {
        let index = self.random.below(self.lines.len() as u64);
        usize::try_from(index).ok().and_then(|index| self.lines.get(index)).copied().unwrap_or("")
    }

    fn word(&mut self) -> &'a str {
        self.line().split(' ').find(|word| word.len() > 3).unwrap_or("word")
    }

    /// One more key of a mixed load; now and then an old one goes, so that the heap has holes as a live one has.
    fn write_key(&mut self, key: u64) -> Result<()> {
        let seconds = 1_700_000_000 + key * 3 + self.random.below(600);
        match self.random.below(100) {
            0..45 => {
                let value = self.user(key, seconds);
                self.command(&["SET", &format!("user:{key}"), &value])
            }
            45..65 => {
                let token = format!("{:016x}{:016x}", self.random.next(), self.random.next());
                let value = format!(
                    r#"{{"user":{},"ip":"10.{}.{}.{}","seen":{seconds}}}"#,
                    self.random.below(key + 1),
                    key % 7,
                    self.random.below(256),
                    self.random.below(256)
                );
                self.command(&["SET", &format!("session:{token}"), &value, "EX", "86400"])
            }
            65..78 => {
                let price = format!("{}.{:02}", self.random.below(400), self.random.below(100));
                let (name, text) = (self.word(), self.line());
                let stock = self.random.below(1000).to_string();
                self.command(&[
                    "HSET",
                    &format!("item:{key}"),
                    "name",
                    name,
                    "price",
                    &price,
                    "stock",
                    &stock,
                    "text",
                    text,
                ])
            }
            78..88 => {
                let (list, text) = (self.random.below(2000), self.line());
                self.command(&["RPUSH", &format!("queue:{list}"), &format!("{seconds} {text}")])
            }
            88..96 => {
                let (board, score) = (self.random.below(200), self.random.below(1_000_000).to_string());
                self.command(&["ZADD", &format!("ranking:{board}"), &score, &format!("user:{}", key / 2)])
            }
            _ => {
                let old = self.random.below(key + 1);
                self.command(&["DEL", &format!("user:{old}"), &format!("item:{old}")])
            }
        }
    }

    fn user(&mut self, key: u64, seconds: u64) -> String {
        let (first, last, city) = (self.word(), self.word(), self.word());
        let tags: Vec<String> = (0..self.random.below(5)).map(|_| format!("{:?}", self.word())).collect();
        let about: Vec<&str> = (0..=self.random.below(5)).map(|_| self.line()).collect();
        serde_json::json!({
            "id": key,
            "name": format!("{first} {last}"),
            "email": format!("{}.{}@example.org", first.to_lowercase(), last.to_lowercase()),
            "address": { "city": city, "zip": format!("{:05}", self.random.below(100_000)) },
            "created": seconds,
            "active": !key.is_multiple_of(7),
            "balance_cents": self.random.below(1_000_000),
            "tags": tags,
            "about": about.join(" "),
        })
        .to_string()
    }
}
