//! Daemons and clients that are killed, at any moment.
//!
//! | variable | |
//! |---|---|
//! | `TMEM_DEATHS` | how many are killed in each test: 20 if not given |
//! | `TMEM_SEED` | which moments: another one each time if not given; it is printed |

use crate::harness::{Churn, PATIENCE, Random, Serving, wait};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tmem_ring::QueueError;
use tmem_ring::client::stat;
use tmem_ring::wire::Stat;

/// The longest that anybody may take to find out.
const LIMIT: Duration = Duration::from_secs(1);
/// What a store that holds nothing may keep of what it had: open segments and contexts.
const KEPT_BYTES: u64 = 16 << 20;
/// Of the process that is a client: its name and seed.
const NAME: &str = "TMEM_TEST_CLIENT";
/// Where the daemon is.
const SOCKET: &str = "TMEM_TEST_SOCKET";
/// What a client prints when it has put and got something.
const WORKS: &str = "the client works";

/// How many rounds, and what moments are drawn from.
fn plan() -> (u64, Random) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos().into();
    let seed = number("TMEM_SEED").unwrap_or_else(now);
    eprintln!("TMEM_SEED={seed}");
    (number("TMEM_DEATHS").unwrap_or(20), Random::new(seed))
}

/// Another process, which is a client, and goes on until it is told that the daemon is gone.
struct Client {
    child: Child,
    says: BufReader<ChildStdout>,
}

impl Client {
    fn start(socket: &Path, name: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "deaths::a_client", "--ignored", "--nocapture"]);
        command.env(NAME, name).env(SOCKET, socket).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let says = BufReader::new(child.stdout.take().unwrap());
        Self { child, says }
    }

    /// Waits until it says this.
    #[track_caller]
    fn says(&mut self, words: &str) {
        let mut line = String::new();
        while !line.contains(words) {
            line.clear();
            assert!(self.says.read_line(&mut line).unwrap() > 0, "it ends and does not say: {words}");
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "the process that the tests here start: a client"]
fn a_client() {
    let (Ok(name), Some(socket)) = (std::env::var(NAME), std::env::var_os(SOCKET)) else { return };
    let seed = name.bytes().fold(0, |seed, byte| seed * 31 + u64::from(byte));
    let mut churn = Churn::new(Path::new(&socket), &name, seed);
    churn.step().unwrap();
    // Once: nobody reads on.
    println!("{WORKS}");
    let error = loop {
        if let Err(error) = churn.step() {
            break error;
        }
    };
    assert!(matches!(error, QueueError::Gone | QueueError::Closed), "{error}");
    // What is asked on the socket fails as fast.
    assert!(churn.guest.client.create_pool(tmem_ring::wire::PoolOptions::persistent()).is_err());
}

#[test]
fn clients_of_a_killed_daemon_are_told_at_once() {
    let (rounds, mut random) = plan();
    let (mut scratch, mut longest) = (None, Duration::ZERO);
    for round in 0..rounds {
        let mut serving = match scratch.take() {
            Some(scratch) => Serving::start_in(scratch, &["--budget", "64m"]),
            None => Serving::start(&[]),
        };
        let mut client = Client::start(&serving.socket(), &format!("client-{round}"));
        client.says(WORKS);
        // Not to wait for anything: the moment is any.
        std::thread::sleep(Duration::from_micros(random.below(50_000)));
        serving.child.kill().unwrap();
        let start = Instant::now();
        let status = wait(&mut client.child, PATIENCE).expect("the client hangs");
        let time = start.elapsed();
        assert!(status.success(), "round {round}: {status}");
        assert!(time < LIMIT, "round {round}: the client was told after {time:?}");
        longest = longest.max(time);
        scratch = Some(serving.ended().scratch);
    }
    eprintln!("told after {longest:?} at most");
}

#[test]
fn what_killed_clients_held_is_free_at_once_and_others_are_unharmed() {
    let (rounds, mut random) = plan();
    let serving = Serving::start(&[]);
    let socket = serving.socket();
    let unused = stat(&socket).unwrap().used_bytes;
    let mut witness = Churn::new(&socket, "witness", random.next());
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _ends = Ends(&ended);
        scope.spawn(|| {
            // Relaxed: publishes nothing but itself.
            while !ended.load(Ordering::Relaxed) {
                witness.step().unwrap();
            }
            witness.verify();
        });
        for round in 0..rounds {
            let name = format!("victim-{round}");
            let mut victim = Client::start(&socket, &name);
            // Every other one dies as it starts, perhaps.
            if round % 2 == 0 {
                victim.says(WORKS);
            }
            std::thread::sleep(Duration::from_micros(random.below(50_000)));
            victim.child.kill().unwrap();
            soon(&socket, &format!("round {round}: it is gone"), |stat| {
                stat.clients.iter().all(|one| one.name != name)
            });
        }
    });
    // One that died as it connected may have come and gone since.
    soon(&socket, "all but the witness are gone", |stat| stat.clients.len() == 1);
    drop(witness);
    soon(&socket, "all memory is free", |stat| stat.clients.is_empty() && stat.used_bytes <= unused + KEPT_BYTES);
    assert_eq!(serving.end().status.code(), Some(0));
}

/// Waits until the daemon says so, no longer than it may take.
#[track_caller]
fn soon(socket: &Path, what: &str, is_so: impl Fn(&Stat) -> bool) {
    let start = Instant::now();
    loop {
        let stat = stat(socket).unwrap();
        if is_so(&stat) {
            return;
        }
        assert!(start.elapsed() < LIMIT, "not within {LIMIT:?}: {what}: {stat:#?}");
    }
}

/// Ends the witness however the test ends.
struct Ends<'e>(&'e AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed); // Relaxed: as where it is loaded
    }
}
