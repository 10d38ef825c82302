//! The codec without a store: the same blocks in the same order through the same policy, into one large buffer. What
//! the engine would cost if everything but its codec were free.

use super::share::{Orders, Plan, Share, Times, put_then_get};
use crate::interrupt;
use crate::pages::Buffer;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use tmem::{GRANULE_BYTES, Policy};
use tmem_codec::{Codec, Temperature, Workspace, decode, encode, same_filled};

/// What one run left in the buffers, beside the bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Made {
    pub(crate) blocks: u64,
    /// Bytes of encoded blocks.
    pub(crate) stored_bytes: u64,
    /// Granules that are four bytes repeated, and so no part of a block.
    pub(crate) filled: u64,
}

/// What some granules became.
#[derive(Debug, Clone, Copy)]
enum Piece {
    /// One granule that repeats four bytes.
    Filled([u8; 4]),
    Block {
        codec: Codec,
        raw_bytes: usize,
        stored_bytes: usize,
    },
}

/// What a unit became: its first piece, and where its first block lies.
#[derive(Debug, Clone, Copy)]
struct Start {
    piece: usize,
    offset: usize,
}

/// A thread's memory. It is kept from run to run, so that only the warm-up takes page faults.
#[derive(Debug)]
struct Lane {
    arena: Buffer,
    pieces: Vec<Piece>,
    /// One for each unit, and one behind the last.
    starts: Vec<Start>,
    made: Made,
}

/// The bare codec with its buffers.
#[derive(Debug)]
pub(crate) struct Bare {
    lanes: Vec<Lane>,
}

impl Bare {
    /// Buffers for `bytes` of pages.
    pub(crate) fn new(plan: &Plan, bytes: usize) -> Self {
        let lane_bytes = bytes / plan.threads + 2 * plan.unit.bytes();
        let lane = || Lane {
            arena: Buffer::new(lane_bytes),
            pieces: Vec::with_capacity(lane_bytes / GRANULE_BYTES),
            starts: Vec::with_capacity(lane_bytes / plan.unit.bytes() + 1),
            made: Made::default(),
        };
        Self { lanes: std::iter::repeat_with(lane).take(plan.threads).collect() }
    }

    /// Encodes all pages, and decodes them into `out`.
    pub(crate) fn run(&mut self, plan: &Plan, orders: &Orders, pages: &[u8], out: &mut [u8]) -> Result<Times> {
        let shares = plan.shares(orders, pages, out);
        let states: Vec<_> =
            self.lanes.iter_mut().zip(shares).map(|(lane, share)| (lane, share, Workspace::boxed())).collect();
        let put = |(lane, share, workspace): &mut (&mut Lane, Share<'_>, Box<Workspace>)| {
            lane.encode_all(plan, share.pages, workspace)
        };
        let get = |(lane, share, workspace): &mut (&mut Lane, Share<'_>, Box<Workspace>)| {
            let slots = share.order.iter().zip(share.slots.iter_mut());
            slots.enumerate().try_for_each(|(at, (unit, slot))| {
                if at % 512 == 0 {
                    interrupt::check()?;
                }
                lane.decode_unit(*unit, slot, workspace)
            })
        };
        put_then_get(states, put, get)
    }

    /// What the last run made.
    pub(crate) fn made(&self) -> Made {
        self.lanes.iter().fold(Made::default(), |sum, lane| Made {
            blocks: sum.blocks + lane.made.blocks,
            stored_bytes: sum.stored_bytes + lane.made.stored_bytes,
            filled: sum.filled + lane.made.filled,
        })
    }

    /// The share of the granules that each codec took in the last run.
    pub(crate) fn codecs(&self) -> BTreeMap<&'static str, f64> {
        let mut granules = BTreeMap::new();
        for piece in self.lanes.iter().flat_map(|lane| &lane.pieces) {
            let (name, bytes) = match piece {
                Piece::Filled(_) => (Codec::Filled.name(), GRANULE_BYTES),
                Piece::Block { codec, raw_bytes, .. } => (codec.name(), *raw_bytes),
            };
            *granules.entry(name).or_default() += (bytes / GRANULE_BYTES) as f64;
        }
        let all: f64 = granules.values().sum();
        granules.into_iter().map(|(name, count)| (name, count / all)).collect()
    }
}

/// Granules of the largest block that a put of `range_bytes` makes: as in the engine.
pub(crate) fn block_granules(policy: Policy, range_bytes: usize) -> usize {
    match policy {
        Policy::Balanced if range_bytes >= 64 << 10 => 4,
        Policy::Dense if range_bytes >= 64 << 10 => 16,
        Policy::Fast | Policy::Balanced | Policy::Dense => 1,
    }
}

/// The four bytes that a granule repeats, where it does.
pub(crate) fn pattern(granule: &[u8]) -> Option<[u8; 4]> {
    let word = same_filled(granule)?.to_le_bytes();
    (word[..4] == word[4..]).then(|| [word[0], word[1], word[2], word[3]])
}

/// Bytes of the block that starts at `from` in a unit, and ends where a block may be no longer or the next granule
/// belongs in none.
pub(crate) fn block_len(unit: &[u8], from: usize, block_granules: usize, first_granule: usize) -> usize {
    let most = (block_granules - (first_granule + from / GRANULE_BYTES) % block_granules) * GRANULE_BYTES;
    let mut to = from + GRANULE_BYTES;
    while to < unit.len() && to - from < most && pattern(&unit[to..to + GRANULE_BYTES]).is_none() {
        to += GRANULE_BYTES;
    }
    to - from
}

impl Lane {
    fn encode_all(&mut self, plan: &Plan, pages: &[u8], workspace: &mut Workspace) -> Result<()> {
        self.pieces.clear();
        self.starts.clear();
        self.made = Made::default();
        let mut offset = 0;
        let unit_granules = plan.unit.bytes() / GRANULE_BYTES;
        for (index, unit) in pages.chunks(plan.unit.bytes()).enumerate() {
            if index % 512 == 0 {
                interrupt::check()?;
            }
            self.starts.push(Start { piece: self.pieces.len(), offset });
            let granules = block_granules(plan.policy, unit.len());
            let mut from = 0;
            while from < unit.len() {
                if let Some(pattern) = pattern(&unit[from..from + GRANULE_BYTES]) {
                    self.pieces.push(Piece::Filled(pattern));
                    self.made.filled += 1;
                    from += GRANULE_BYTES;
                    continue;
                }
                let raw_bytes = block_len(unit, from, granules, index * unit_granules);
                let room = &mut self.arena[offset..offset + raw_bytes];
                let raw = &unit[from..from + raw_bytes];
                let encoded = encode(workspace, plan.policy, Temperature::Hot, raw, room);
                let encoded = encoded.context("the codec found no encoding, not even raw")?;
                self.pieces.push(Piece::Block { codec: encoded.codec, raw_bytes, stored_bytes: encoded.len });
                self.made.blocks += 1;
                self.made.stored_bytes += encoded.len as u64;
                offset += encoded.len;
                from += raw_bytes;
            }
        }
        self.starts.push(Start { piece: self.pieces.len(), offset });
        Ok(())
    }

    fn decode_unit(&self, unit: usize, mut into: &mut [u8], workspace: &mut Workspace) -> Result<()> {
        let Start { piece, mut offset } = self.starts[unit];
        for piece in &self.pieces[piece..self.starts[unit + 1].piece] {
            match *piece {
                Piece::Filled(pattern) => {
                    let (granule, rest) = into.split_at_mut(GRANULE_BYTES);
                    granule.as_chunks_mut::<4>().0.fill(pattern);
                    into = rest;
                }
                Piece::Block { codec, raw_bytes, stored_bytes } => {
                    let (raw, rest) = into.split_at_mut(raw_bytes);
                    let stored = &self.arena[offset..offset + stored_bytes];
                    decode(workspace, codec, stored, raw).context("the bare codec cannot decode what it encoded")?;
                    offset += stored_bytes;
                    into = rest;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Unit;
    use crate::pages::made_up;

    #[test]
    fn everything_comes_back() {
        let mut pages = made_up(600, 3).pages;
        pages[5 * GRANULE_BYTES..9 * GRANULE_BYTES].fill(0);
        for unit in [Unit::Granule, Unit::Four, Unit::Sixteen, Unit::Huge] {
            for policy in Policy::ALL {
                let plan = Plan { policy, unit, threads: 1 };
                let orders = plan.orders(pages.len()).unwrap();
                let mut bare = Bare::new(&plan, pages.len());
                let mut out = Buffer::new(pages.len());
                bare.run(&plan, &orders, &pages, &mut out).unwrap();
                assert!(out[..] == pages[..], "{plan:?}");
                assert_eq!(bare.made().filled, 4);
            }
        }
    }
}
