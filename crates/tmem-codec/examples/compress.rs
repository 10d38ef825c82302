//! Compresses a file of memory pages block by block, as a store would, and gives it back.
//!
//! ```text
//! cargo run --release -p tmem-codec --example compress -- compress FILE OUT [--policy balanced] [--unit 4k|16k|64k]
//! cargo run --release -p tmem-codec --example compress -- decompress FILE OUT
//! ```
//! What is written, numbers little end first:
//! ```text
//! "tmempage" | version: u8, 1 | unit: u8, pages of a block | length of the file: u64
//! for each block: codec: u8 | length: u32 | CRC-32C of the block: u32 | its encoded bytes
//! ```
//! Every block has `unit` pages, only the last may be shorter. Its checksum starts from its number, so that blocks that
//! changed places are noticed. Of what is read back nothing is trusted, and no more than a block is ever held.

use std::error::Error;
use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tmem_codec::{Codec, GRANULE, MAX_BLOCK, Policy, Temperature, Workspace, decode, encode};

const USAGE: &str =
    "usage: compress FILE OUT [--policy fast|balanced|dense] [--unit 4k|16k|64k], or: decompress FILE OUT";
const MAGIC: [u8; 8] = *b"tmempage";
const VERSION: u8 = 1;
/// Bytes before the blocks, and before each.
const HEADER: usize = 18;
const BLOCK_HEADER: usize = 9;
/// Pages of the longest block.
const PAGES_MAX: u8 = 16;
const _: () = assert!(PAGES_MAX as usize * GRANULE == MAX_BLOCK);

type Outcome<T> = Result<T, Box<dyn Error>>;

/// What was done: bytes of pages, bytes of the container, and the codec's share of the time.
struct Done {
    plain: u64,
    packed: u64,
    spent: Duration,
}

/// The checksum of a block that has this number.
fn checksum(number: u64, block: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&number.to_le_bytes()), block)
}

fn compress(plain: u64, from: &mut impl Read, to: &mut impl Write, policy: Policy, pages: u8) -> Outcome<Done> {
    let mut workspace = Box::new(Workspace::new());
    let (mut block, mut place) = ([0; MAX_BLOCK], [0; MAX_BLOCK]);
    to.write_all(&[&MAGIC[..], &[VERSION, pages], &plain.to_le_bytes()].concat())?;
    let mut done = Done { plain, packed: HEADER as u64, spent: Duration::ZERO };
    for (number, len) in lengths(plain, pages).enumerate() {
        let block = &mut block[..len];
        from.read_exact(block).map_err(|error| format!("the file ends in block {number}: {error}"))?;
        let start = Instant::now();
        let encoded = encode(&mut workspace, policy, Temperature::Hot, block, &mut place).ok_or("raw always fits")?;
        done.spent += start.elapsed();
        let len = u32::try_from(encoded.len)?.to_le_bytes();
        let checksum = checksum(number as u64, block).to_le_bytes();
        to.write_all(&[&[encoded.codec as u8][..], &len, &checksum, &place[..encoded.len]].concat())?;
        done.packed += (BLOCK_HEADER + encoded.len) as u64;
    }
    Ok(done)
}

fn decompress(from: &mut impl Read, to: &mut impl Write) -> Outcome<Done> {
    let mut header = [0; HEADER];
    from.read_exact(&mut header).map_err(|_| "no container of pages: it is too short")?;
    let [magic @ .., version, pages, a, b, c, d, e, f, g, h] = header;
    let plain = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
    if magic != MAGIC || version != VERSION || !(1..=PAGES_MAX).contains(&pages) {
        return Err("no container of pages, or one of another version".into());
    }
    let mut workspace = Box::new(Workspace::new());
    let (mut block, mut place) = ([0; MAX_BLOCK], [0; MAX_BLOCK]);
    let mut done = Done { plain, packed: HEADER as u64, spent: Duration::ZERO };
    for (number, len) in lengths(plain, pages).enumerate() {
        let mut header = [0; BLOCK_HEADER];
        from.read_exact(&mut header).map_err(|_| format!("block {number} is missing"))?;
        let [codec, a, b, c, d, expected @ ..] = header;
        let codec = Codec::try_from(codec).map_err(|error| format!("block {number}: {error}"))?;
        let packed = u32::from_le_bytes([a, b, c, d]) as usize;
        let place =
            place[..len].get_mut(..packed).ok_or_else(|| format!("block {number} claims {packed} bytes for {len}"))?;
        from.read_exact(place).map_err(|_| format!("block {number} is cut off"))?;
        let start = Instant::now();
        let outcome = decode(&mut workspace, codec, place, &mut block[..len]);
        done.spent += start.elapsed();
        outcome.map_err(|error| format!("block {number}: {error}"))?;
        if checksum(number as u64, &block[..len]) != u32::from_le_bytes(expected) {
            return Err(format!("block {number} is damaged: its checksum differs").into());
        }
        to.write_all(&block[..len])?;
        done.packed += (BLOCK_HEADER + packed) as u64;
    }
    if from.read(&mut [0])? > 0 {
        return Err("there is more behind the last block".into());
    }
    Ok(done)
}

/// The lengths of the blocks of a file.
fn lengths(plain: u64, pages: u8) -> impl Iterator<Item = usize> {
    let unit = usize::from(pages) * GRANULE;
    let at_offset = move |offset| usize::try_from(plain - offset).map_or(unit, |rest| rest.min(unit));
    (0..plain).step_by(unit).map(at_offset)
}

fn run(arguments: &[String]) -> Outcome<()> {
    let [action, file, out, options @ ..] = arguments else { return Err(USAGE.into()) };
    if !["compress", "decompress"].contains(&&action[..]) {
        return Err(USAGE.into());
    }
    let (mut policy, mut pages) = (Policy::default(), 1);
    for option in options.chunks(2) {
        match option {
            [name, value] if name == "--policy" && action == "compress" => policy = value.parse()?,
            [name, value] if name == "--unit" && action == "compress" => {
                pages = match &value[..] {
                    "4k" => 1,
                    "16k" => 4,
                    "64k" => 16,
                    _ => return Err(USAGE.into()),
                }
            }
            _ => return Err(USAGE.into()),
        }
    }
    let input = File::open(file).map_err(|error| format!("cannot read {file}: {error}"))?;
    let len = input.metadata()?.len();
    // Only what is complete gets the name that was asked for.
    let partial = format!("{out}.partial");
    let output = File::create(&partial).map_err(|error| format!("cannot write {partial}: {error}"))?;
    let (mut from, mut to) = (BufReader::new(input), BufWriter::new(output));
    let outcome = match &action[..] {
        "compress" => compress(len, &mut from, &mut to, policy, pages),
        _ => decompress(&mut from, &mut to),
    };
    let finished = outcome.and_then(|done| to.flush().map(|()| done).map_err(Into::into));
    let done = finished.inspect_err(|_| drop(fs::remove_file(&partial)))?;
    fs::rename(&partial, out)?;
    let Done { plain, packed, spent } = done;
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    let (density, speed) = (plain as f64 / packed as f64, plain as f64 / 1e9 / spent.as_secs_f64().max(1e-9));
    println!("{plain} bytes of pages, {packed} packed: density {density:.2}, {speed:.2} GB/s in the codec");
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compress: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(plain: &[u8], policy: Policy, pages: u8) -> Vec<u8> {
        let mut packed = Vec::new();
        compress(plain.len() as u64, &mut &plain[..], &mut packed, policy, pages).expect("memory takes it");
        packed
    }

    fn unpacked(packed: &[u8]) -> Outcome<Vec<u8>> {
        let mut plain = Vec::new();
        decompress(&mut &packed[..], &mut plain).map(|_| plain)
    }

    /// Pointers with a few low bits of noise, and a ragged end.
    fn pages() -> Vec<u8> {
        (0..9000u64).flat_map(|at| (0x7f00_0000_0000 + at * at % 977 * 16).to_le_bytes()).skip(3).collect()
    }

    #[test]
    fn files_come_back_whatever_their_length() {
        let plain = pages();
        for policy in Policy::ALL {
            for unit in [1, 4, 16] {
                for len in [0, 1, 4096, 4097, plain.len()] {
                    assert!(unpacked(&packed(&plain[..len], policy, unit)).expect("sound") == plain[..len]);
                }
            }
        }
    }

    #[test]
    fn damage_never_gives_other_bytes() {
        let plain = pages();
        let sound = packed(&plain, Policy::Balanced, 1);
        for at in (0..sound.len()).step_by(7).chain(0..HEADER + BLOCK_HEADER) {
            let mut damaged = sound.clone();
            damaged[at] ^= 0x11;
            // Some bits say nothing: those that fill up a lane of Huffman codes.
            assert!(unpacked(&damaged).map_or(true, |bytes| bytes == plain), "{at}");
            assert!(unpacked(&sound[..at]).is_err(), "{at}");
        }
        assert!(unpacked(&[&sound[..], &[0]].concat()).is_err());
    }
}
