//! `tmem bench codec`: every policy, every mode alone, and the usual compressors, on the same blocks in the same rounds.

use super::choice::{self, ChoiceFigures};
use super::{gbps, geomean, median};
use crate::cli::CodecBench;
use crate::interrupt;
use crate::pages::{Corpus, load};
use crate::report::{self, Table};
use anyhow::{Context, Result, ensure};
use indicatif::ProgressBar;
use serde::Serialize;
use std::time::Instant;
use tmem::{GRANULE_BYTES, Policy};
use tmem_codec::{Codec, MAX_BLOCK, Temperature, Workspace, decode, encode, encode_as, same_filled};

/// Bytes that stay together when a file is sampled.
const EXTENT_BYTES: usize = 256 << 10;
pub(super) const BLOCKS: [usize; 3] = [GRANULE_BYTES, 4 * GRANULE_BYTES, MAX_BLOCK];

/// Everything that is printed.
#[derive(Debug, Serialize)]
struct Figures {
    rounds: u16,
    files: Vec<FileFigures>,
    /// Over the files; the spread is the largest.
    geomean: Vec<UnitFigures>,
}

#[derive(Debug, Serialize)]
struct FileFigures {
    name: String,
    /// Pages measured, without those that are same-filled.
    pages: usize,
    same_filled_pages: usize,
    units: Vec<UnitFigures>,
}

#[derive(Debug, Serialize)]
struct UnitFigures {
    unit_bytes: usize,
    codecs: Vec<CodecFigures>,
    choices: Vec<ChoiceFigures>,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct CodecFigures {
    pub(super) codec: String,
    /// Bytes of pages per byte encoded; a block that does not shrink counts whole.
    pub(super) density: f64,
    pub(super) put_gbps: f64,
    get_gbps: f64,
    /// Of the rounds: the slowest less the fastest, over the median.
    put_spread: f64,
    get_spread: f64,
}

/// Something that encodes blocks.
#[derive(Debug, Clone, Copy)]
enum Coder {
    Policy(Policy, Temperature),
    Mode(Codec),
    /// The C library's LZ4.
    Lz4,
    /// zstd at a level, its frames without what is known beforehand.
    Zstd(i32),
}

/// What coders need besides source and destination.
struct Tools {
    workspace: Box<Workspace>,
    compress: zstd_safe::CCtx<'static>,
    decompress: zstd_safe::DCtx<'static>,
}

/// What became of a block: the mode, where that is to be known for decoding, and its bytes.
type Stored = (Option<Codec>, usize);

impl Coder {
    fn all() -> Vec<Self> {
        let warmths = [Temperature::Hot, Temperature::Cold];
        let policies = Policy::ALL.into_iter().flat_map(|policy| warmths.map(|warmth| Self::Policy(policy, warmth)));
        let modes = Codec::ALL.iter().copied().filter(|codec| !matches!(codec, Codec::Raw | Codec::Filled));
        policies.chain(modes.map(Self::Mode)).chain([Self::Lz4]).chain([-1, 1, 3].map(Self::Zstd)).collect()
    }

    fn name(self) -> String {
        match self {
            Self::Policy(policy, Temperature::Hot) => policy.to_string(),
            Self::Policy(policy, Temperature::Cold) => format!("{policy}, cold"),
            Self::Mode(codec) => format!("only {}", codec.name()),
            Self::Lz4 => "LZ4 (C)".to_owned(),
            Self::Zstd(level) => format!("zstd {level} (C)"),
        }
    }

    /// Encodes a block; one that does not shrink is copied.
    fn encode(self, tools: &mut Tools, src: &[u8], dst: &mut [u8]) -> Stored {
        let own = match self {
            Self::Policy(policy, warmth) => encode(&mut tools.workspace, policy, warmth, src, dst),
            Self::Mode(codec) => encode_as(&mut tools.workspace, codec, src, dst),
            Self::Lz4 => return Self::fitting(lzzzz::lz4::compress(src, dst, 1).ok().filter(|len| *len > 0), src, dst),
            Self::Zstd(level) => {
                let set = tools.compress.set_parameter(zstd_safe::CParameter::CompressionLevel(level));
                return Self::fitting(set.and_then(|_| tools.compress.compress2(dst, src)).ok(), src, dst);
            }
        };
        match own {
            Some(done) => (Some(done.codec), done.len),
            None => Self::fitting(None, src, dst),
        }
    }

    fn fitting(len: Option<usize>, src: &[u8], dst: &mut [u8]) -> Stored {
        let len = len.filter(|len| *len < src.len()).unwrap_or_else(|| {
            dst[..src.len()].copy_from_slice(src);
            src.len()
        });
        (None, len)
    }

    /// Decodes what `encode` made.
    fn decode(self, tools: &mut Tools, (codec, _): Stored, src: &[u8], dst: &mut [u8]) -> Option<()> {
        if let Some(codec) = codec {
            return decode(&mut tools.workspace, codec, src, dst).ok();
        }
        if src.len() == dst.len() {
            dst.copy_from_slice(src);
            return Some(());
        }
        let len = match self {
            Self::Lz4 => lzzzz::lz4::decompress(src, dst).ok()?,
            _ => tools.decompress.decompress(dst, src).ok()?,
        };
        (len == dst.len()).then_some(())
    }
}

impl Tools {
    fn new() -> Result<Self> {
        use zstd_safe::{CCtx, CParameter, DCtx, DParameter, FrameFormat};
        let mut compress = CCtx::try_create().context("no memory for zstd")?;
        let mut decompress = DCtx::try_create().context("no memory for zstd")?;
        let plain = [
            CParameter::Format(FrameFormat::Magicless),
            CParameter::ContentSizeFlag(false),
            CParameter::ChecksumFlag(false),
            CParameter::DictIdFlag(false),
        ];
        for parameter in plain {
            compress.set_parameter(parameter).ok().context("zstd does not know a parameter")?;
        }
        let format = decompress.set_parameter(DParameter::Format(FrameFormat::Magicless));
        format.ok().context("zstd does not know a parameter")?;
        Ok(Self { workspace: Workspace::boxed(), compress, decompress })
    }
}

/// Measures and prints.
pub(crate) fn run(options: &CodecBench) -> Result<()> {
    let coders = Coder::all();
    let bar = report::progress(options.pages.len() as u64 * u64::from(options.rounds) * BLOCKS.len() as u64);
    let mut tools = Tools::new()?;
    let mut files = Vec::new();
    for path in &options.pages {
        let corpus = load(path)?;
        bar.set_message(corpus.name.clone());
        let (pages, same_filled_pages) = sampled(&corpus, options.sample);
        ensure!(!pages.is_empty(), "{} has no page that is not same-filled: nothing to compress", path.display());
        let units = BLOCKS.map(|block| measure(&mut tools, &coders, &pages, block, options.rounds, &bar));
        let units = units.into_iter().collect::<Result<_>>()?;
        files.push(FileFigures { name: corpus.name, pages: pages.len() / GRANULE_BYTES, same_filled_pages, units });
    }
    bar.finish_and_clear();
    let geomean = (0..BLOCKS.len()).map(|unit| mean(&files, unit)).collect();
    let figures = Figures { rounds: options.rounds, files, geomean };
    report::print(options.json.then_some(&figures), || figures.text())
}

/// Pages in extents spread over the file, `most` bytes in all, and how many same-filled ones were left out.
fn sampled(corpus: &Corpus, most: usize) -> (Vec<u8>, usize) {
    let bytes = &corpus.pages[..];
    let extents = bytes.len().div_ceil(EXTENT_BYTES);
    let wanted = extents.min(most.div_ceil(EXTENT_BYTES).max(1));
    let mut sample = Vec::with_capacity(wanted * EXTENT_BYTES);
    let mut left_out = 0;
    for index in 0..wanted {
        let start = index * extents / wanted * EXTENT_BYTES;
        for page in bytes[start..bytes.len().min(start + EXTENT_BYTES)].chunks_exact(GRANULE_BYTES) {
            if same_filled(page).is_some() {
                left_out += 1;
            } else {
                sample.extend_from_slice(page);
            }
        }
    }
    (sample, left_out)
}

/// All coders in turn, round after round. What was encoded first is compared with what comes back.
fn measure(
    tools: &mut Tools,
    coders: &[Coder],
    pages: &[u8],
    block: usize,
    rounds: u16,
    bar: &ProgressBar,
) -> Result<UnitFigures> {
    // As much room for a block as the C library's LZ4 may want for one that does not shrink.
    let room = block + block / 255 + 16;
    let mut arena = vec![0; pages.len().div_ceil(block) * room];
    let mut back = vec![0; pages.len()];
    let mut stored = vec![Vec::new(); coders.len()];
    let mut speeds = vec![[const { Vec::new() }; 2]; coders.len()];
    for _ in 0..rounds {
        for ((coder, stored), [put, get]) in coders.iter().zip(&mut stored).zip(&mut speeds) {
            interrupt::check()?;
            stored.clear();
            let start = Instant::now();
            let blocks = pages.chunks(block).zip(arena.chunks_mut(room));
            stored.extend(blocks.map(|(src, dst)| coder.encode(tools, src, &mut dst[..src.len() + room - block])));
            put.push(gbps(pages.len(), start.elapsed()));
            back.fill(0);
            let start = Instant::now();
            for ((stored, src), dst) in stored.iter().zip(arena.chunks(room)).zip(back.chunks_mut(block)) {
                let outcome = coder.decode(tools, *stored, &src[..stored.1], dst);
                outcome.with_context(|| format!("{} cannot decode what it encoded", coder.name()))?;
            }
            get.push(gbps(pages.len(), start.elapsed()));
            ensure!(back == pages, "{} returns other bytes than it was given", coder.name());
        }
        bar.inc(1);
    }
    let spread = |speeds: &[f64]| {
        let (low, high) =
            speeds.iter().fold((f64::MAX, 0.0f64), |(low, high), speed| (low.min(*speed), high.max(*speed)));
        (high - low) / median(speeds)
    };
    let codecs = coders.iter().zip(&stored).zip(&speeds).map(|((coder, stored), [put, get])| CodecFigures {
        codec: coder.name(),
        density: pages.len() as f64 / stored.iter().map(|(_, len)| *len).sum::<usize>() as f64,
        put_gbps: median(put),
        get_gbps: median(get),
        put_spread: spread(put),
        get_spread: spread(get),
    });
    let codecs: Vec<_> = codecs.collect();
    let choices = choice::measure(&mut tools.workspace, &codecs, pages, block, rounds)?;
    Ok(UnitFigures { unit_bytes: block, codecs, choices })
}

/// The means over the files, for one size of blocks.
fn mean(files: &[FileFigures], unit: usize) -> UnitFigures {
    let first = &files[0].units[unit];
    let codecs = (0..first.codecs.len()).map(|at| {
        let of = |figure: fn(&CodecFigures) -> f64| files.iter().map(move |file| figure(&file.units[unit].codecs[at]));
        CodecFigures {
            codec: first.codecs[at].codec.clone(),
            density: geomean(of(|figures| figures.density)),
            put_gbps: geomean(of(|figures| figures.put_gbps)),
            get_gbps: geomean(of(|figures| figures.get_gbps)),
            put_spread: of(|figures| figures.put_spread).fold(0.0, f64::max),
            get_spread: of(|figures| figures.get_spread).fold(0.0, f64::max),
        }
    });
    let choices: Vec<_> = files.iter().map(|file| &file.units[unit].choices[..]).collect();
    UnitFigures { unit_bytes: first.unit_bytes, codecs: codecs.collect(), choices: choice::mean(&choices) }
}

impl Figures {
    fn text(&self) -> String {
        let mut text = format!(
            "density, GB/s in / out, one thread, medians of {} rounds, +- half their spread; without same-filled pages\n",
            self.rounds
        );
        for file in &self.files {
            text += &format!("\n{} ({} pages)\n{}", file.name, file.pages, table(&file.units));
        }
        if self.files.len() > 1 {
            text += &format!("\ngeometric mean of {} files\n{}", self.files.len(), table(&self.geomean));
        }
        let choices = |units: &[UnitFigures]| units.iter().map(|unit| unit.choices.clone()).collect::<Vec<_>>();
        let of_files: Vec<_> = self.files.iter().map(|file| (&file.name[..], choices(&file.units))).collect();
        text += &choice::text(&of_files, &choices(&self.geomean));
        text
    }
}

fn table(units: &[UnitFigures]) -> String {
    let mut table = Table::new(&["", "4 KiB", "in/out", "+-%", "16 KiB", "in/out", "+-%", "64 KiB", "in/out", "+-%"]);
    for at in 0..units[0].codecs.len() {
        let mut row = vec![units[0].codecs[at].codec.clone()];
        for unit in units {
            let figures = &unit.codecs[at];
            row.push(format!("{:.2}", figures.density));
            row.push(format!("{:.2}/{:.2}", figures.put_gbps, figures.get_gbps));
            row.push(format!("{:.0}/{:.0}", figures.put_spread * 50.0, figures.get_spread * 50.0));
        }
        table.row(row);
        let best =
            units.iter().filter_map(|unit| unit.choices.iter().find(|best| best.policy == unit.codecs[at].codec));
        let densities: Vec<_> = best.map(|best| format!("{:.2}", best.best_density)).collect();
        if !densities.is_empty() {
            let cells = densities.into_iter().flat_map(|density| [density, String::new(), String::new()]);
            table.row([format!("{}, best mode", units[0].codecs[at].codec)].into_iter().chain(cells).collect());
        }
    }
    table.text()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::made_up;

    #[test]
    fn every_coder_returns_every_block_and_has_a_figure() {
        let corpus = made_up(100, 5);
        let coders = Coder::all();
        let bar = ProgressBar::hidden();
        let mut tools = Tools::new().unwrap();
        let (pages, left_out) = sampled(&corpus, 1 << 20);
        assert_eq!((pages.len(), left_out), (100 * GRANULE_BYTES, 0));
        for block in BLOCKS {
            let unit = measure(&mut tools, &coders, &pages, block, 2, &bar).unwrap();
            assert_eq!(unit.codecs.len(), coders.len());
            for figures in unit.codecs {
                assert!(figures.density >= 1.0 && figures.put_gbps > 0.0 && figures.get_gbps > 0.0, "{figures:?}");
            }
        }
    }

    #[test]
    fn a_sample_is_spread_over_the_file_and_leaves_same_filled_pages_out() {
        let mut corpus = made_up(256, 6);
        corpus.pages[128 * GRANULE_BYTES..130 * GRANULE_BYTES].fill(7);
        let (pages, left_out) = sampled(&corpus, 512 << 10);
        assert_eq!((pages.len() / GRANULE_BYTES, left_out), (126, 2));
        assert_eq!(pages[64 * GRANULE_BYTES..], corpus.pages[130 * GRANULE_BYTES..192 * GRANULE_BYTES]);
    }
}
