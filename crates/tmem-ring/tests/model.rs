//! A slow, obvious model is stepped beside a store that is asked through a queue: one in this process, and one of a daemon
//! in another process. Many operations are outstanding at once; the answers are those of one after the other.
//!
//! A failure prints its seed. `TMEM_SEED=<seed>` runs that seed alone, `TMEM_SECONDS=<n>` runs for longer.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../../tmem/tests/support/random.rs"]
#[allow(dead_code, unreachable_pub, reason = "the engine's tests use more of it, in several files")]
mod random;

use random::Random;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tmem::{ClientOptions, Store, StoreOptions};
use tmem_ring::client::{Client, Hello, Region};
use tmem_ring::server::{Daemon, DaemonOptions, LocalAction, LocalCompletion, LocalOperation, LocalQueue, Service};
use tmem_ring::wire::PoolOptions;
use tmem_ring::{Action, MOST_SLICES, ObjectId, Operation, Outcome, PoolId, Queue, Slice};
use tmem_sys::{Backing, Listener};

const GRANULE: usize = 4096;
const BUDGET: usize = 96 << 20;
const REGION_BYTES: usize = 32 << 20;

/// A granule: nothing but zeros, words that compress, or noise.
fn granule(random: &mut Random) -> [u8; GRANULE] {
    let kind = random.index(4);
    let base = random.next();
    let mut granule = [0; GRANULE];
    for (at, word) in granule.chunks_exact_mut(8).enumerate() {
        let value = match kind {
            0 => base.rotate_left(32) ^ base,
            1 => random.next(),
            _ => base & 0xffff_ff00 | (at as u64 / 7),
        };
        word.copy_from_slice(&value.to_le_bytes());
    }
    granule
}

/// What is asked for.
#[derive(Debug, Clone)]
enum Ask {
    Put { offset: usize, bytes: Vec<u8> },
    Get { offset: usize, len: usize },
    Take { offset: usize, len: usize },
    Flush { offset: usize, len: usize },
    FlushObject,
}

/// What is answered: the outcome, and the memory of a get, which held this before.
type Answer = (Outcome, Vec<u8>);
const BEFORE: u8 = 0xc3;

fn random_ask(random: &mut Random) -> Ask {
    // Wide ones are rare, and long enough for many pieces.
    let most = if random.index(30) == 0 { 1 << 20 } else { 6 * GRANULE };
    let offset = random.index(48) * GRANULE;
    let len = 1 + random.index(most);
    let len = if random.index(3) == 0 { len } else { len.next_multiple_of(GRANULE) };
    match random.index(10) {
        0..=3 => {
            let mut bytes: Vec<u8> = (0..len.div_ceil(GRANULE)).flat_map(|_| granule(random)).collect();
            bytes.truncate(len);
            Ask::Put { offset, bytes }
        }
        4..=6 => Ask::Get { offset: offset + random.index(2) * random.index(GRANULE), len },
        7 => Ask::Take { offset, len },
        8 => Ask::Flush { offset, len },
        _ if random.index(4) == 0 => Ask::FlushObject,
        _ => Ask::Get { offset: 0, len: 64 * GRANULE },
    }
}

/// Granules by object and number.
#[derive(Default)]
struct Model(HashMap<(u64, usize), [u8; GRANULE]>);

impl Model {
    fn answer(&mut self, object: u64, ask: &Ask) -> Answer {
        match ask {
            Ask::Put { offset, bytes } => {
                for (nth, part) in bytes.chunks(GRANULE).enumerate() {
                    let mut granule = [0; GRANULE];
                    granule[..part.len()].copy_from_slice(part);
                    self.0.insert((object, offset / GRANULE + nth), granule);
                }
                (Outcome::Stored, vec![])
            }
            Ask::Get { offset, len } => self.get(object, *offset, *len),
            Ask::Take { offset, len } => {
                let answer = self.get(object, *offset, *len);
                self.flush(object, *offset, *len);
                answer
            }
            Ask::Flush { offset, len } => (Outcome::Flushed { granules: self.flush(object, *offset, *len) }, vec![]),
            Ask::FlushObject => {
                let before = self.0.len();
                self.0.retain(|(of, _), _| *of != object);
                (Outcome::Flushed { granules: (before - self.0.len()) as u64 }, vec![])
            }
        }
    }

    fn get(&self, object: u64, offset: usize, len: usize) -> Answer {
        let mut memory = vec![BEFORE; len];
        let granules = offset / GRANULE..(offset + len).div_ceil(GRANULE);
        let count = granules.len();
        let mut filled = 0;
        for granule in granules {
            let Some(bytes) = self.0.get(&(object, granule)) else { continue };
            filled += 1;
            let start = (granule * GRANULE).max(offset);
            let end = (granule * GRANULE + GRANULE).min(offset + len);
            memory[start - offset..end - offset]
                .copy_from_slice(&bytes[start - granule * GRANULE..end - granule * GRANULE]);
        }
        let outcome = match filled {
            0 => Outcome::Missing,
            _ if filled == count => Outcome::Filled,
            // The map is compared with the memory: see `check`.
            _ => Outcome::Cancelled,
        };
        (outcome, memory)
    }

    fn flush(&mut self, object: u64, offset: usize, len: usize) -> u64 {
        let granules = offset / GRANULE..(offset + len).div_ceil(GRANULE);
        granules.filter(|granule| self.0.remove(&(object, *granule)).is_some()).count() as u64
    }
}

/// Where the operations go.
trait Door {
    /// Carries out all, as many at once as there is room for.
    fn carry_out(&mut self, asked: &[(u64, Ask)]) -> Vec<Answer>;
}

struct Local {
    queue: LocalQueue,
    pool: PoolId,
    _service: Arc<Service>,
}

impl Door for Local {
    fn carry_out(&mut self, asked: &[(u64, Ask)]) -> Vec<Answer> {
        let mut answers = vec![None; asked.len()];
        let mut next = 0;
        while answers.iter().any(Option::is_none) {
            while next < asked.len() && self.queue.outstanding() < 16 {
                let (object, ask) = &asked[next];
                let memory = |len: usize| vec![BEFORE; len].into_boxed_slice();
                let action = match ask.clone() {
                    Ask::Put { offset, bytes } => LocalAction::Put { offset: offset as u64, from: bytes.into() },
                    Ask::Get { offset, len } => LocalAction::Get { offset: offset as u64, into: memory(len) },
                    Ask::Take { offset, len } => LocalAction::Take { offset: offset as u64, into: memory(len) },
                    Ask::Flush { offset, len } => LocalAction::Flush { offset: offset as u64, len: len as u64 },
                    Ask::FlushObject => LocalAction::FlushObject,
                };
                let operation = LocalOperation { tag: next as u64, pool: self.pool, object: (*object).into(), action };
                self.queue.push(operation).unwrap();
                next += 1;
            }
            assert!(self.queue.wait(1, Some(Duration::from_secs(60))).unwrap() > 0, "a hang");
            while let Some(LocalCompletion { tag, outcome, memory }) = self.queue.reap_one().unwrap() {
                let at = usize::try_from(tag).unwrap();
                let is_get = matches!(asked[at].1, Ask::Get { .. } | Ask::Take { .. });
                let memory = memory.filter(|_| is_get).map_or_else(Vec::new, Vec::from);
                assert!(answers[at].replace((outcome, memory)).is_none(), "one completion for each operation");
            }
        }
        answers.into_iter().map(Option::unwrap).collect()
    }
}

struct Remote {
    _client: Client,
    queue: Queue,
    region: Region,
    pool: PoolId,
    random: Random,
}

impl Remote {
    fn connect(path: &Path, seed: u64) -> Self {
        let hello = Hello { name: "model".to_owned(), cap_bytes: None, weight: None };
        let client = Client::connect(path, &hello).unwrap();
        let pool = client.create_pool(PoolOptions::persistent()).unwrap();
        let region = client.create_region(REGION_BYTES, Backing::Small).unwrap();
        let queue = client.open_queue(16).unwrap();
        Self { _client: client, queue, region, pool, random: Random::new(seed) }
    }

    /// Cuts `len` bytes at `at` into slices, which lie in the region in another order.
    fn slices(&mut self, at: usize, len: usize) -> Vec<Slice> {
        let mut slices = Vec::new();
        let (mut done, most) = (0, 1 + self.random.index(MOST_SLICES.min(5)));
        while done < len {
            let whole = (1 + self.random.index(4)) * GRANULE;
            let part = if self.random.index(5) == 0 { 1 + self.random.index(GRANULE) } else { whole };
            let part = if slices.len() + 1 == most { len - done } else { part.min(len - done) };
            slices.push(Slice { offset: 0, len: part as u64 });
            done += part;
        }
        let mut offset = (at + len) as u64;
        for slice in &mut slices {
            offset -= slice.len;
            slice.offset = offset;
        }
        slices
    }

    fn read(&self, slices: &[Slice]) -> Vec<u8> {
        let part = |slice: &Slice| {
            let mut part = vec![0; usize::try_from(slice.len).unwrap()];
            self.region.read(usize::try_from(slice.offset).unwrap(), &mut part);
            part
        };
        slices.iter().flat_map(part).collect()
    }

    fn push(&mut self, tag: usize, (object, ask): &(u64, Ask), slices: &[Slice]) {
        let at = |slice: &Slice| (usize::try_from(slice.offset).unwrap(), usize::try_from(slice.len).unwrap());
        if let Ask::Put { bytes, .. } = ask {
            let mut rest = &bytes[..];
            for (offset, len) in slices.iter().map(at) {
                self.region.write(offset, &rest[..len]);
                rest = &rest[len..];
            }
        } else {
            slices.iter().map(at).for_each(|(offset, len)| self.region.write(offset, &vec![BEFORE; len]));
        }
        let memory = self.region.memory(slices);
        let action = match ask {
            Ask::Put { offset, .. } => Action::Put { offset: *offset as u64, from: memory },
            Ask::Get { offset, .. } => Action::Get { offset: *offset as u64, into: memory },
            Ask::Take { offset, .. } => Action::Take { offset: *offset as u64, into: memory },
            Ask::Flush { offset, len } => Action::Flush { offset: *offset as u64, len: *len as u64 },
            Ask::FlushObject => Action::FlushObject,
        };
        let operation = Operation { tag: tag as u64, pool: self.pool, object: ObjectId::from(*object), action };
        self.queue.push(&operation).unwrap();
    }
}

impl Door for Remote {
    fn carry_out(&mut self, asked: &[(u64, Ask)]) -> Vec<Answer> {
        let mut answers = vec![None; asked.len()];
        let (mut next, mut used) = (0, 0);
        let mut memories: Vec<Vec<Slice>> = Vec::new();
        while answers.iter().any(Option::is_none) {
            while next < asked.len() && self.queue.outstanding() < self.queue.entries() {
                let len = match &asked[next].1 {
                    Ask::Put { bytes, .. } => bytes.len(),
                    Ask::Get { len, .. } | Ask::Take { len, .. } => *len,
                    Ask::Flush { .. } | Ask::FlushObject => 0,
                };
                let slices = self.slices(used, len);
                used = (used + len).next_multiple_of(GRANULE);
                self.push(next, &asked[next], &slices);
                memories.push(slices);
                next += 1;
            }
            assert!(self.queue.wait(1, Some(Duration::from_secs(60))).unwrap() > 0, "a hang");
            while let Some(done) = self.queue.reap_one().unwrap() {
                let at = usize::try_from(done.tag).unwrap();
                let is_get = matches!(asked[at].1, Ask::Get { .. } | Ask::Take { .. });
                let memory = if is_get { self.read(&memories[at]) } else { vec![] };
                assert!(answers[at].replace((done.outcome, memory)).is_none(), "one completion for each operation");
            }
        }
        answers.into_iter().map(Option::unwrap).collect()
    }
}

/// Asks in batches, and compares.
fn drive(door: &mut dyn Door, seed: u64) {
    let mut random = Random::new(seed);
    let mut model = Model::default();
    for batch in 0..40 {
        let asked: Vec<(u64, Ask)> =
            (0..1 + random.index(20)).map(|_| (random.next() % 3, random_ask(&mut random))).collect();
        let answers = door.carry_out(&asked);
        for (nth, ((object, ask), answer)) in asked.iter().zip(answers).enumerate() {
            let right = model.answer(*object, ask);
            check(ask, answer, right, &format!("seed {seed}, batch {batch}, operation {nth}"));
        }
    }
}

fn check(ask: &Ask, (outcome, memory): Answer, (right, right_memory): Answer, place: &str) {
    assert!(memory == right_memory, "{place}: {ask:?} brought other bytes");
    let Outcome::PartlyFilled(map) = &outcome else {
        assert_eq!(outcome, right, "{place}: {ask:?}");
        return;
    };
    assert_eq!(right, Outcome::Cancelled, "{place}: {ask:?} was filled in part");
    let (Ask::Get { offset, len } | Ask::Take { offset, len }) = ask else { unreachable!("only gets have maps") };
    for granule in offset / GRANULE..(offset + len).div_ceil(GRANULE) {
        let start = (granule * GRANULE).max(*offset) - offset;
        let end = (granule * GRANULE + GRANULE).min(offset + len) - offset;
        let untouched = right_memory[start..end].iter().all(|byte| *byte == BEFORE);
        let filled = map.is_filled((granule - offset / GRANULE) as u64);
        // A byte or two may be what was there before by chance.
        assert!(filled != untouched || end - start < 8, "{place}: granule {granule} of {ask:?}");
    }
}

fn each_seed(usual: u64, mut run: impl FnMut(u64)) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let end = number("TMEM_SECONDS").map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let seeds = match (number("TMEM_SEED"), end) {
        (Some(seed), _) => seed..seed + 1,
        (None, Some(_)) => 0..u64::MAX,
        (None, None) => 0..usual,
    };
    for seed in seeds.take_while(|_| end.is_none_or(|end| Instant::now() < end)) {
        println!("seed {seed}");
        run(seed);
    }
}

#[test]
fn a_queue_in_this_process_answers_as_the_model_does() {
    each_seed(8, |seed| {
        let store = Store::new(StoreOptions::with_budget(BUDGET)).unwrap();
        let client = store.client(ClientOptions::named("model"));
        let pool = PoolId(client.create_pool(tmem::PoolOptions::persistent()).unwrap().id().0);
        let service = Arc::new(Service::start(1 + usize::try_from(seed % 3).unwrap()).unwrap());
        let queue = service.queue(&client, 16).unwrap();
        drive(&mut Local { queue, pool, _service: service }, seed);
        store.validate();
    });
}

/// The daemon's process; ends with its standard input.
struct Other {
    child: Child,
    directory: PathBuf,
    /// Kept, so that the process can go on writing.
    _output: BufReader<ChildStdout>,
}

impl Other {
    fn start() -> Self {
        let directory = std::env::temp_dir().join(format!("tmem-model-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "serves_in_another_process", "--nocapture", "--test-threads=1"]);
        command.env("TMEM_TEST_SOCKET", directory.join("socket"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let serving = output.by_ref().lines().any(|line| line.unwrap().contains("serving"));
        assert!(serving, "the daemon's process did not start");
        Self { child, directory, _output: output }
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // It ends by itself.
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Not a test of its own: what `Other` runs.
#[test]
fn serves_in_another_process() {
    let Some(socket) = std::env::var_os("TMEM_TEST_SOCKET") else { return };
    let store = Store::new(StoreOptions::with_budget(BUDGET)).unwrap();
    let listener = Listener::bind(Path::new(&socket), 0o600).unwrap();
    let options = DaemonOptions { workers: 2, allow: vec![], cap_bytes: None, weight: 1, most_clients: 10 };
    let _daemon = Daemon::start(store, listener, options).unwrap();
    println!("serving");
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).unwrap();
}

#[test]
fn a_daemon_in_another_process_answers_as_the_model_does() {
    let other = Other::start();
    each_seed(8, |seed| drive(&mut Remote::connect(&other.directory.join("socket"), seed), seed));
}
