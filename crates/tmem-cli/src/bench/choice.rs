//! How well a policy chooses the mode of a block, and what that costs: for `tmem bench codec`.
//!
//! The *best mode* of a block is the one that makes it smallest, of those that the policy may use, found by trying them
//! all. What the predictor takes is the look at the block, without the second mode that may be tried after it: that is
//! part of the policy's speed.

use super::codec::{BLOCKS, CodecFigures};
use super::{geomean, median};
use crate::interrupt;
use anyhow::{Context, Result};
use serde::Serialize;
use std::hint::black_box;
use std::time::Instant;
use tmem::Policy;
use tmem_codec::{Sample, Temperature, Workspace, smallest};

/// A policy as puts use it, beside its best modes.
#[derive(Debug, Clone, Serialize)]
pub(super) struct ChoiceFigures {
    pub(super) policy: String,
    /// As density is, with the best mode for every block.
    pub(super) best_density: f64,
    /// The policy's density over that.
    kept: f64,
    /// The time of the looks at all blocks, over the time of encoding them.
    predictor_share: f64,
}

/// For the policies that have no zstd in what they write while somebody waits; `codecs` has their figures.
pub(super) fn measure(
    workspace: &mut Workspace,
    codecs: &[CodecFigures],
    pages: &[u8],
    block: usize,
    rounds: u16,
) -> Result<Vec<ChoiceFigures>> {
    let looks = (0..rounds).map(|_| {
        let start = Instant::now();
        pages.chunks(block).for_each(|block| _ = black_box(Sample::of(block)));
        start.elapsed().as_secs_f64()
    });
    let look_seconds = median(&looks.collect::<Vec<_>>());
    let mut dst = vec![0; block];
    let choice = |policy: Policy| {
        let name = policy.to_string();
        let chosen = codecs.iter().find(|figures| figures.codec == name).context("every policy is measured")?;
        let mut least = 0;
        for block in pages.chunks(block) {
            interrupt::check()?;
            let encoded = smallest(workspace, policy, Temperature::Hot, block, &mut dst);
            least += encoded.context("what is not encoded fits")?.len;
        }
        let best_density = pages.len() as f64 / least as f64;
        let encode_seconds = pages.len() as f64 / 1e9 / chosen.put_gbps;
        let (kept, predictor_share) = (chosen.density / best_density, look_seconds / encode_seconds);
        Ok(ChoiceFigures { policy: name, best_density, kept, predictor_share })
    };
    [Policy::Fast, Policy::Balanced].into_iter().map(choice).collect()
}

/// The geometric means over files.
pub(super) fn mean(files: &[&[ChoiceFigures]]) -> Vec<ChoiceFigures> {
    let mean = |(at, first): (usize, &ChoiceFigures)| {
        let of = |figure: fn(&ChoiceFigures) -> f64| geomean(files.iter().map(|choices| figure(&choices[at])));
        ChoiceFigures {
            policy: first.policy.clone(),
            best_density: of(|choice| choice.best_density),
            kept: of(|choice| choice.kept),
            predictor_share: of(|choice| choice.predictor_share),
        }
    };
    files[0].iter().enumerate().map(mean).collect()
}

/// A line for each policy and size of blocks, from what each file has by size, and the means of that.
pub(super) fn text(files: &[(&str, Vec<Vec<ChoiceFigures>>)], means: &[Vec<ChoiceFigures>]) -> String {
    let mut text =
        String::from("\nchosen modes beside the best ones: density kept, the predictor's share of encoding\n");
    for at in 0..means[0].len() {
        for (unit, block) in BLOCKS.into_iter().enumerate() {
            let ChoiceFigures { policy, kept, predictor_share, .. } = &means[unit][at];
            let of_file = files.iter().map(|(name, units)| (units[unit][at].kept, name));
            let (least, name) = of_file.min_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or((*kept, &""));
            text += &format!(
                "{policy}, {} KiB: {:.1} % kept (least: {name}, {:.1} %), predictor {:.1} %\n",
                block >> 10,
                kept * 100.0,
                least * 100.0,
                predictor_share * 100.0
            );
        }
    }
    text
}
