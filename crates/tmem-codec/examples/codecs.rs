//! Density and speed of every policy and every codec on files of raw pages.
//!
//! ```text
//! cargo run --release -p tmem-codec --example codecs -- FILE...
//! ```
//! Each file is sampled in 256 KiB extents spread over its length, 8 MiB in all; same-filled granules are left out, since
//! every system stores them for nothing. A cell is `density in/out`: bytes of pages per byte encoded, and GB/s of pages,
//! one thread, the median of five rounds that take the modes in turn. The last table has geometric means over the files.
//! The speeds of a mode alone count blocks that it could not shrink as copies.
#![allow(clippy::cast_precision_loss, reason = "sums of at most some GB as ratios")]

use std::path::Path;
use std::time::Instant;

use tmem_codec::{Codec, GRANULE, MAX_BLOCK, Policy, Temperature, Workspace, decode, encode, encode_as, same_filled};

const EXTENT: usize = 256 << 10;
const SAMPLE: usize = 8 << 20;
const ROUNDS: usize = 5;
const BLOCKS: [usize; 3] = [GRANULE, 4 * GRANULE, MAX_BLOCK];

#[derive(Clone, Copy)]
enum Mode {
    Policy(Policy, Temperature),
    Codec(Codec),
}

impl Mode {
    fn all() -> Vec<Self> {
        let policies = Policy::ALL
            .into_iter()
            .flat_map(|policy| [Temperature::Hot, Temperature::Cold].map(|warmth| Self::Policy(policy, warmth)));
        let codecs = Codec::ALL.iter().copied().filter(|codec| !matches!(codec, Codec::Raw | Codec::Filled));
        policies.chain(codecs.map(Self::Codec)).collect()
    }

    fn name(self) -> String {
        match self {
            Self::Policy(policy, Temperature::Hot) => format!("{policy} hot"),
            Self::Policy(policy, Temperature::Cold) => format!("{policy} cold"),
            Self::Codec(codec) => codec.name().to_owned(),
        }
    }

    fn encode(self, workspace: &mut Workspace, src: &[u8], dst: &mut [u8]) -> (Codec, usize) {
        let done = match self {
            Self::Policy(policy, temperature) => encode(workspace, policy, temperature, src, dst),
            Self::Codec(codec) => encode_as(workspace, codec, src, dst),
        };
        let done = done.or_else(|| encode_as(workspace, Codec::Raw, src, dst));
        done.map_or((Codec::Raw, 0), |done| (done.codec, done.len))
    }
}

/// Density, GB/s in, GB/s out.
type Cell = [f64; 3];

/// The sampled pages of a file, without those that are same-filled.
fn pages(path: &Path) -> std::io::Result<Vec<u8>> {
    let bytes = std::fs::read(path)?;
    let extents = bytes.len().div_ceil(EXTENT);
    let wanted = extents.min(SAMPLE / EXTENT);
    let mut sample = Vec::with_capacity(SAMPLE);
    for index in 0..wanted {
        let start = index * extents / wanted * EXTENT;
        let extent = &bytes[start..bytes.len().min(start + EXTENT)];
        sample.extend(extent.chunks_exact(GRANULE).filter(|page| same_filled(page).is_none()).flatten());
    }
    Ok(sample)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn measure(workspace: &mut Workspace, modes: &[Mode], data: &[u8], block: usize) -> Vec<Cell> {
    let blocks: Vec<&[u8]> = data.chunks(block).collect();
    let mut place = vec![0; data.len()];
    let mut back = vec![0; block];
    let mut stored = vec![0; modes.len()];
    let mut times = vec![[const { Vec::new() }; 2]; modes.len()];
    for _ in 0..ROUNDS {
        for (index, mode) in modes.iter().enumerate() {
            let start = Instant::now();
            let done: Vec<_> =
                blocks.iter().zip(place.chunks_mut(block)).map(|(src, dst)| mode.encode(workspace, src, dst)).collect();
            times[index][0].push(start.elapsed().as_secs_f64());
            stored[index] = done.iter().map(|(_, len)| len).sum();
            let start = Instant::now();
            for ((&(codec, len), encoded), src) in done.iter().zip(place.chunks(block)).zip(&blocks) {
                let outcome = decode(workspace, codec, &encoded[..len], &mut back[..src.len()]);
                assert!(outcome.is_ok(), "{} does not decode what it wrote", mode.name());
            }
            times[index][1].push(start.elapsed().as_secs_f64());
        }
    }
    let total = data.len() as f64;
    let cell = |(stored, [encoding, decoding]): (usize, [Vec<f64>; 2])| {
        [total / stored as f64, total / median(encoding) / 1e9, total / median(decoding) / 1e9]
    };
    stored.into_iter().zip(times).map(cell).collect()
}

fn print(title: &str, modes: &[Mode], columns: &[Vec<Cell>]) {
    println!("{title:16} {:>19} {:>19} {:>19}", "4 KiB", "16 KiB", "64 KiB");
    for (index, mode) in modes.iter().enumerate() {
        let cells = columns.iter().map(|column| {
            let [density, encoding, decoding] = column[index];
            format!("{density:9.2} {encoding:4.2}/{decoding:4.2}")
        });
        println!("  {:14} {}", mode.name(), cells.collect::<Vec<_>>().join(" "));
    }
}

fn main() -> std::io::Result<()> {
    let files: Vec<_> = std::env::args_os().skip(1).collect();
    let modes = Mode::all();
    let mut workspace = Box::new(Workspace::new());
    let mut logs = vec![vec![[0.0; 3]; modes.len()]; BLOCKS.len()];
    for file in &files {
        let path = Path::new(file);
        let data = pages(path)?;
        let columns: Vec<_> = BLOCKS.map(|block| measure(&mut workspace, &modes, &data, block)).into();
        for (sums, cells) in logs.iter_mut().flatten().zip(columns.iter().flatten()) {
            for (sum, value) in sums.iter_mut().zip(cells) {
                *sum += value.ln();
            }
        }
        print(&path.file_stem().unwrap_or_default().to_string_lossy(), &modes, &columns);
    }
    if files.is_empty() {
        println!("usage: codecs FILE...   (raw 4 KiB pages, concatenated)");
        return Ok(());
    }
    for value in logs.iter_mut().flatten().flatten() {
        *value = (*value / files.len() as f64).exp();
    }
    print("geometric mean", &modes, &logs);
    println!("workspace: {} KiB", workspace.footprint_bytes() >> 10);
    Ok(())
}
