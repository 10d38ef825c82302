//! Sets of codes, made as clusters are: see the head of the example.
#![allow(clippy::cast_precision_loss, reason = "counts as weights")]

const LONGEST: usize = 10;
pub(crate) const CLASSES: usize = 4;
/// How often any symbol is taken to have been seen, as a share of all.
const UNSEEN: f64 = 1.0 / 20_000.0;

type Row = [f64; 256];
type Code = [u8; 256];
pub(crate) type Set = [Code; CLASSES];
pub(crate) type Classes = [usize; 256];

/// A stream of one block, and what each of its bytes weighs.
pub(crate) struct Stream {
    pub(crate) bytes: Vec<u8>,
    pub(crate) weight: f64,
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

/// Classes of bytes, by what follows them.
pub(crate) fn classes(blocks: &[Stream]) -> Classes {
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
pub(crate) fn sets(blocks: &[Stream], classes: &Classes, number: usize) -> Vec<Set> {
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

pub(crate) fn least(costs: impl Iterator<Item = f64>) -> (usize, f64) {
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
