//! Makes the static Huffman codes of the crate from files of raw pages, and measures what codes of a program's own would
//! save.
//!
//! ```text
//! cargo run --release -p tmem-codec --example train -- FILE... > crates/tmem-codec/src/huffman/lengths.rs
//! cargo run --release -p tmem-codec --example train -- own FILE...
//! cargo run --release -p tmem-codec --example train -- own EARLY LATE --then
//! ```
//! Per stream: first the 256 bytes are put into classes, so that what follows a byte of one class is alike. Then sets of
//! codes, one code a class, are made as clusters are (Lloyd): every block goes to the set in which it is shortest, then each
//! set is made anew from its blocks, until little moves. Every file weighs the same, and what was never seen is taken to
//! have been seen rarely, since other programs will have it. The same files give the same codes.
//!
//! With `own`, codes of the same shape are made from a part of a file's pages, and the rest is encoded with them and with
//! the crate's. With `--then` they are made from EARLY, and LATE is encoded.

mod codes;
mod own;

use codes::{CLASSES, Classes, Set, Stream, classes, sets};
use tmem_codec::{GRANULE, Policy, Temperature, Workspace, encode, same_filled, streams_of};

const EXTENT: usize = 256 << 10;
const SAMPLE: usize = 8 << 20;
/// What each stream is called, and how many sets of codes it gets.
const STREAMS: [(&str, &str, usize); 3] =
    [("LITERALS", "literals", 8), ("AUX", "distances and counts", 4), ("TOKENS", "tokens", 8)];

/// A page as the crate encodes it, and the streams that are in codes then.
struct Page {
    encoded: usize,
    streams: Option<[Vec<u8>; 3]>,
}

fn main() -> std::io::Result<()> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    match &arguments[..] {
        [own, early, late, then] if own == "own" && then == "--then" => {
            own::then(&std::fs::read(early)?, &std::fs::read(late)?, late);
        }
        [own, files @ ..] if own == "own" => {
            let gains = files.iter().map(|file| Ok(own::parts(&std::fs::read(file)?, file)));
            own::print_means(&gains.collect::<std::io::Result<Vec<_>>>()?);
        }
        files => train(files)?,
    }
    Ok(())
}

/// Prints the codes made from all of the files.
fn train(files: &[std::ffi::OsString]) -> std::io::Result<()> {
    let mut streams: [Vec<Stream>; 3] = [const { Vec::new() }; 3];
    for file in files {
        let pages = sampled(&std::fs::read(file)?, SAMPLE);
        for (all, fresh) in streams.iter_mut().zip(streams_by_kind(&pages)) {
            all.extend(fresh);
        }
    }
    println!("//! The classes of bytes, and the lengths of all codes. Made by `examples/train`.\n");
    println!("use super::tables::{{Classes, Packed}};");
    for ((name, what, number), blocks) in STREAMS.into_iter().zip(&streams) {
        let classes = classes(blocks);
        print(name, what, &classes, &sets(blocks, &classes, number));
    }
    Ok(())
}

/// The pages of a file that are not same-filled, sampled in extents spread over it, `most` bytes in all.
fn sampled(bytes: &[u8], most: usize) -> Vec<Page> {
    let extents = bytes.len().div_ceil(EXTENT);
    let wanted = extents.min(most / EXTENT);
    let mut workspace = Box::new(Workspace::new());
    let mut dst = vec![0; GRANULE];
    let mut pages = Vec::new();
    for index in 0..wanted {
        let start = index * extents / wanted * EXTENT;
        let extent = &bytes[start..bytes.len().min(start + EXTENT)];
        for page in extent.chunks_exact(GRANULE).filter(|page| same_filled(page).is_none()) {
            let done = encode(&mut workspace, Policy::Balanced, Temperature::Hot, page, &mut dst);
            let Some(done) = done else { continue };
            let streams = streams_of(&mut workspace, done.codec, page, &mut dst);
            let streams = streams.map(|all| all.map(<[u8]>::to_vec));
            pages.push(Page { encoded: done.len, streams });
        }
    }
    pages
}

/// All pages' streams of each kind, weighed so that every file weighs the same.
fn streams_by_kind(pages: &[Page]) -> [Vec<Stream>; 3] {
    let blocks = || pages.iter().filter_map(|page| page.streams.as_ref());
    #[expect(clippy::cast_precision_loss, reason = "a weight")]
    let weight = 1e6 / blocks().flatten().map(Vec::len).sum::<usize>() as f64;
    std::array::from_fn(|kind| blocks().map(|all| Stream { bytes: all[kind].clone(), weight }).collect())
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
