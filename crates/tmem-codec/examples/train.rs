//! Makes the static Huffman codes of the crate from files of raw pages.
//!
//! ```text
//! cargo run --release -p tmem-codec --example train -- FILE... > crates/tmem-codec/src/huffman/lengths.rs
//! ```
//! Per stream: first the 256 bytes are put into classes, so that what follows a byte of one class is alike. Then sets of
//! codes, one code a class, are made as clusters are (Lloyd): every block goes to the set in which it is shortest, then each
//! set is made anew from its blocks, until little moves. Every file weighs the same, and what was never seen is taken to
//! have been seen rarely, since other programs will have it. The same files give the same codes.
#![allow(clippy::cast_precision_loss, reason = "counts as weights")]

use tmem_codec::{GRANULE, Policy, Temperature, Workspace, encode, same_filled, streams_of};

const LONGEST: usize = 10;
const CLASSES: usize = 4;
const EXTENT: usize = 256 << 10;
const SAMPLE: usize = 8 << 20;
/// What each stream is called, and how many sets of codes it gets.
const STREAMS: [(&str, &str, usize); 3] =
    [("LITERALS", "literals", 8), ("AUX", "distances and counts", 4), ("TOKENS", "tokens", 8)];
/// How often any symbol is taken to have been seen, as a share of all.
const UNSEEN: f64 = 1.0 / 20_000.0;

type Row = [f64; 256];
type Code = [u8; 256];
type Set = [Code; CLASSES];
type Classes = [usize; 256];

/// A stream of one block, and what each of its bytes weighs.
struct Stream {
    bytes: Vec<u8>,
    weight: f64,
}

impl Stream {
    /// Each byte with the one before it. A stream starts as if after a zero.
    fn pairs(&self) -> impl Iterator<Item = (usize, usize)> {
        let before = [0].iter().chain(&self.bytes);
        before.zip(&self.bytes).map(|(before, byte)| (usize::from(*before), usize::from(*byte)))
    }

    /// Its weighed length in bits.
    fn cost(&self, classes: &Classes, set: &Set) -> f64 {
        let bits: u64 = self.pairs().map(|(before, byte)| u64::from(set[classes[before]][byte])).sum();
        bits as f64 * self.weight
    }

    fn count(&self, classes: &Classes, counts: &mut [Row; CLASSES]) {
        self.pairs().for_each(|(before, byte)| counts[classes[before]][byte] += self.weight);
    }
}

fn main() -> std::io::Result<()> {
    let mut workspace = Box::new(Workspace::new());
    let mut streams: [Vec<Stream>; 3] = [const { Vec::new() }; 3];
    for file in std::env::args_os().skip(1) {
        let blocks = sampled(&mut workspace, &std::fs::read(file)?);
        let weight = 1e6 / blocks.iter().flatten().map(Vec::len).sum::<usize>() as f64;
        for block in blocks {
            for (all, bytes) in streams.iter_mut().zip(block) {
                all.push(Stream { bytes, weight });
            }
        }
    }
    println!("//! The classes of bytes, and the lengths of all codes. Made by `examples/train.rs`.\n");
    println!("use super::tables::{{Classes, Packed}};");
    for ((name, what, number), blocks) in STREAMS.into_iter().zip(&streams) {
        let classes = classes(blocks);
        print(name, what, &classes, &sets(blocks, &classes, number));
    }
    Ok(())
}

/// The streams of the blocks of a file, sampled in extents spread over it.
fn sampled(workspace: &mut Workspace, bytes: &[u8]) -> Vec<[Vec<u8>; 3]> {
    let extents = bytes.len().div_ceil(EXTENT);
    let wanted = extents.min(SAMPLE / EXTENT);
    let mut dst = vec![0; GRANULE];
    let mut streams = Vec::new();
    for index in 0..wanted {
        let start = index * extents / wanted * EXTENT;
        let extent = &bytes[start..bytes.len().min(start + EXTENT)];
        for page in extent.chunks_exact(GRANULE).filter(|page| same_filled(page).is_none()) {
            let Some(done) = encode(workspace, Policy::Balanced, Temperature::Hot, page, &mut dst) else { continue };
            streams.extend(streams_of(workspace, done.codec, page, &mut dst).map(|all| all.map(<[u8]>::to_vec)));
        }
    }
    streams
}

/// Classes of bytes, by what follows them.
fn classes(blocks: &[Stream]) -> Classes {
    let mut follows = vec![[0.0; 256]; 256];
    for block in blocks {
        block.pairs().for_each(|(before, byte)| follows[before][byte] += block.weight);
    }
    let mut classes: Classes = std::array::from_fn(|byte| byte * CLASSES / 256);
    for _ in 0..50 {
        let mut counts = [[0.0; 256]; CLASSES];
        for (class, row) in classes.iter().zip(&follows) {
            add(&mut counts[*class], row);
        }
        let bits = counts.map(|row| ideal_lengths(&row));
        classes = std::array::from_fn(|before| {
            least((0..CLASSES).map(|class| follows[before].iter().zip(&bits[class]).map(|(a, b)| a * b).sum())).0
        });
    }
    classes
}

/// `number` sets of codes for the blocks.
fn sets(blocks: &[Stream], classes: &Classes, number: usize) -> Vec<Set> {
    let mut all = [[0.0; 256]; CLASSES];
    blocks.iter().for_each(|block| block.count(classes, &mut all));
    let total: f64 = all.iter().flatten().sum();
    let mut sets = vec![all.map(|row| code(&row))];
    let mut state = 1u64;
    while sets.len() < number {
        // One more set at a time, from some block and, so that it is no stranger to others, from all.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let seed = &blocks[usize::try_from(state >> 33).expect("31 bits") % blocks.len()];
        let share = seed.bytes.len() as f64 * seed.weight / total / 2.0;
        let mut counts = all.map(|row| row.map(|count| count * share));
        seed.count(classes, &mut counts);
        sets.push(counts.map(|row| code(&row)));
        lloyd(blocks, classes, &mut sets, 3);
    }
    let bits = lloyd(blocks, classes, &mut sets, 20);
    eprintln!("{number} sets: {:.4} bits for each of 8", bits / 8.0 / total);
    sets
}

/// Moves blocks and sets to each other `rounds` times; the blocks' weighed length before the last.
fn lloyd(blocks: &[Stream], classes: &Classes, sets: &mut [Set], rounds: usize) -> f64 {
    let mut total = 0.0;
    for _ in 0..rounds {
        total = 0.0;
        let mut counts = vec![[[0.0; 256]; CLASSES]; sets.len()];
        for block in blocks {
            let (nearest, bits) = least(sets.iter().map(|set| block.cost(classes, set)));
            block.count(classes, &mut counts[nearest]);
            total += bits;
        }
        for (set, counts) in sets.iter_mut().zip(&counts) {
            *set = counts.map(|row| code(&row));
        }
    }
    total
}

fn least(costs: impl Iterator<Item = f64>) -> (usize, f64) {
    costs.enumerate().min_by(|a, b| a.1.total_cmp(&b.1)).expect("there is one")
}

fn add(sum: &mut Row, counts: &Row) {
    sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
}

/// With what is taken to be there of the unseen.
fn smoothed(counts: &Row) -> Row {
    let floor = counts.iter().sum::<f64>().max(1e-9) * UNSEEN;
    counts.map(|count| count + floor)
}

fn ideal_lengths(counts: &Row) -> Row {
    let counts = smoothed(counts);
    let total: f64 = counts.iter().sum();
    counts.map(|count| (total / count).log2())
}

/// The lengths of the best code with none above [`LONGEST`]: package-merge.
fn code(counts: &Row) -> Code {
    let counts = smoothed(counts);
    let mut symbols: Vec<(f64, Vec<u8>)> = (0..=255u8).map(|byte| (counts[usize::from(byte)], vec![byte])).collect();
    symbols.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut row = symbols.clone();
    for _ in 1..LONGEST {
        let pairs = row.chunks_exact(2).map(|pair| (pair[0].0 + pair[1].0, [&pair[0].1[..], &pair[1].1].concat()));
        row = pairs.chain(symbols.iter().cloned()).collect();
        row.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    let mut lengths = [0; 256];
    for byte in row[..2 * 255].iter().flat_map(|package| &package.1) {
        lengths[usize::from(*byte)] += 1;
    }
    lengths
}

/// Words of numbers that have `bits` bits each, the first in the lowest.
fn packed(numbers: impl Iterator<Item = u64>, bits: u32) -> Vec<String> {
    let numbers: Vec<u64> = numbers.collect();
    let word = |part: &[u64]| part.iter().rev().fold(0, |word, number| word << bits | number);
    numbers.chunks(64 / bits as usize).map(|part| format!("{:#018x}", word(part))).collect()
}

fn print(name: &str, what: &str, classes: &Classes, sets: &[Set]) {
    let words = packed(classes.iter().map(|class| *class as u64), 2);
    println!(
        "\n/// What class each of the {what} is of.\n#[rustfmt::skip]\npub(super) const {name}_CLASSES: Classes = ["
    );
    words.chunks(6).for_each(|line| println!("    {},", line.join(", ")));
    println!("];\n\n/// The codes of {what}, by class.\n#[rustfmt::skip]");
    println!("pub(super) const {name}: [[Packed; {CLASSES}]; {}] = [", sets.len());
    for set in sets {
        println!("    [");
        for code in set {
            let words = packed(code.iter().map(|len| u64::from(*len)), 4);
            words.chunks(6).enumerate().for_each(|(at, line)| {
                let (open, close) = (if at == 0 { "[" } else { " " }, if at == 2 { "]," } else { "," });
                println!("     {open}{}{close}", line.join(", "));
            });
        }
        println!("    ],");
    }
    println!("];");
}
