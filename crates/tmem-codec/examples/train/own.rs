//! What codes of a program's own would save.
#![allow(clippy::cast_precision_loss, reason = "figures for people")]

use crate::codes::{Classes, Set, classes, least, sets};
use crate::{GRANULE, Page, SAMPLE, STREAMS, sampled, streams_by_kind};
use std::ffi::OsStr;
use std::time::Instant;

/// What the format has before the lanes, and how many there are.
const HEADER: usize = 9;
const LANES: usize = 4;
/// What the engine adds to a block: a header, and what its tables take; then it is rounded up to a whole unit.
const BLOCK_HEADER: usize = 12;
const UNIT: usize = 4;
const TABLES: f64 = 8.6;

/// How much denser blocks become, as they are and as the engine stores them, by the way they were parted.
pub(crate) type Gains = Vec<(&'static str, [f64; 2])>;

/// The codes of one stream.
type Codes = (Classes, Vec<Set>);

/// One half of the pages for the codes and the other to be encoded, both ways; then every second extent of them.
pub(crate) fn parts(bytes: &[u8], name: &OsStr) -> Gains {
    let (first, second) = bytes.split_at(bytes.len() / 2 / GRANULE * GRANULE);
    let (first, second) = (sampled(first, SAMPLE), sampled(second, SAMPLE));
    let mut gains = vec![
        compare(&first, &second, name, "first half, then second"),
        compare(&second, &first, name, "second half, then first"),
    ];
    let mixed: (Vec<_>, Vec<_>) = first.into_iter().chain(second).enumerate().partition(|(at, _)| at / 64 % 2 == 0);
    let [even, odd] = [mixed.0, mixed.1].map(|half| half.into_iter().map(|(_, page)| page).collect::<Vec<_>>());
    gains.push(compare(&even, &odd, name, "every second 256 KiB"));
    gains
}

/// The codes from pages of an early day, and those of a later one encoded.
pub(crate) fn then(early: &[u8], late: &[u8], name: &OsStr) -> Gains {
    let (early, late) = (sampled(early, SAMPLE), sampled(late, SAMPLE));
    vec![compare(&early, &late, name, "early, then late"), compare(&late, &late, name, "late itself")]
}

/// The geometric means over files that were parted in the same ways.
pub(crate) fn print_means(files: &[Gains]) {
    let Some(first) = files.first() else { return };
    for (at, (how, _)) in first.iter().enumerate() {
        let [density, stored] = [0, 1].map(|which| {
            let logs: f64 = files.iter().map(|gains| gains[at].1[which].ln()).sum();
            ((logs / files.len() as f64).exp() - 1.0) * 100.0
        });
        println!("mean of {} files, {how}: density {density:+.1} %, stored {stored:+.1} %", files.len());
    }
}

fn compare(from: &[Page], to: &[Page], name: &OsStr, how: &'static str) -> (&'static str, [f64; 2]) {
    let start = Instant::now();
    let streams = streams_by_kind(from);
    let codes: Vec<Codes> = STREAMS
        .into_iter()
        .zip(&streams)
        .map(|((_, _, number), blocks)| {
            let classes = classes(blocks);
            (classes, sets(blocks, &classes, number))
        })
        .collect();
    let seconds = start.elapsed().as_secs_f64();
    let own: Vec<usize> = to
        .iter()
        .map(|page| page.streams.as_ref().map_or(page.encoded, |streams| encoded(&codes, streams).min(GRANULE)))
        .collect();
    let crates: Vec<usize> = to.iter().map(|page| page.encoded).collect();
    let coded = to.iter().filter(|page| page.streams.is_some()).count() as f64 / to.len() as f64;
    let density = |lens: &[usize]| (lens.len() * GRANULE) as f64 / lens.iter().sum::<usize>() as f64;
    let stored = |lens: &[usize]| {
        let units = lens.iter().map(|len| (len + BLOCK_HEADER).next_multiple_of(UNIT) as f64 + TABLES);
        (lens.len() * GRANULE) as f64 / units.sum::<f64>()
    };
    let gains = [density(&own) / density(&crates), stored(&own) / stored(&crates)];
    let percent = |gain: f64| (gain - 1.0) * 100.0;
    print!("{} {how}: density {:.3} -> {:.3}", name.display(), density(&crates), density(&own));
    print!(" ({:+.1} %), stored {:.3} -> {:.3}", percent(gains[0]), stored(&crates), stored(&own));
    println!(" ({:+.1} %), in codes {:.0} %, made in {seconds:.1} s", percent(gains[1]), coded * 100.0);
    (how, gains)
}

/// How long a block is in these codes, each stream in the set where it is shortest.
fn encoded(codes: &[Codes], streams: &[Vec<u8>; 3]) -> usize {
    let mut lanes = [0; LANES];
    for ((classes, sets), stream) in codes.iter().zip(streams) {
        let costs: Vec<_> = sets.iter().map(|set| bits(classes, set, stream)).collect();
        let (best, _) = least(costs.iter().map(|lanes| lanes.iter().sum::<usize>() as f64));
        lanes.iter_mut().zip(costs[best]).for_each(|(sum, bits)| *sum += bits);
    }
    HEADER + lanes.iter().map(|bits| bits.div_ceil(8)).sum::<usize>()
}

/// The bits of a stream in each lane.
fn bits(classes: &Classes, set: &Set, stream: &[u8]) -> [usize; LANES] {
    let quarter = stream.len() / LANES;
    let cost = |bytes: &mut dyn Iterator<Item = &u8>| {
        let mut before = 0;
        bytes
            .map(|byte| {
                usize::from(set[classes[std::mem::replace(&mut before, usize::from(*byte))]][usize::from(*byte)])
            })
            .sum()
    };
    std::array::from_fn(|lane| {
        let own = &stream[lane * quarter..][..quarter];
        let rest = if lane == 0 { &stream[LANES * quarter..] } else { &[] };
        cost(&mut own.iter().chain(rest))
    })
}
