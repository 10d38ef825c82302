//! The encoder: the set of codes in which each stream is shortest, then four lanes side by side.

use super::tables::{AUX, CLASSES, Codes, EncodeTable, LITERALS, LONGEST, SETS_MAX, TOKENS};
use super::{BURST, HEADER, LANES, PLAIN_HEADER, is_backward};
use crate::MAX_BLOCK;

/// The most that a lane has: a quarter of the block in the longest codes, and what a store reaches beyond.
pub(crate) const LANE_MAX: usize = (MAX_BLOCK / LANES + 9) * LONGEST as usize / 8 + 8;

/// A lane before it is put where it belongs.
pub(crate) type Lane = [u8; LANE_MAX];

/// Codes the word LZ's block `plain` into `dst`; the length written, or `None` if it does not fit.
pub(crate) fn encode(lane: &mut Lane, plain: &[u8], dst: &mut [u8]) -> Option<usize> {
    #[cfg(target_arch = "x86_64")]
    if crate::cpu::is_wide() {
        // SAFETY: just asked.
        return unsafe { encode_wide(lane, plain, dst) };
    }
    encode_by(lane, plain, dst)
}

/// The same, for the CPUs that most have.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
fn encode_wide(lane: &mut Lane, plain: &[u8], dst: &mut [u8]) -> Option<usize> {
    encode_by(lane, plain, dst)
}

/// The three streams of a block of the word LZ.
pub(super) fn streams(plain: &[u8]) -> [&[u8]; 3] {
    let [a, b, c, d] = *plain.first_chunk::<PLAIN_HEADER>().expect("the word LZ writes a header");
    let (literals, rest) = plain[PLAIN_HEADER..].split_at(usize::from(u16::from_le_bytes([a, b])));
    let (aux, tokens) = rest.split_at(usize::from(u16::from_le_bytes([c, d])));
    [literals, aux, tokens]
}

#[inline(always)]
pub(super) fn encode_by(lane: &mut Lane, plain: &[u8], dst: &mut [u8]) -> Option<usize> {
    let [literals, aux, tokens] = streams(plain);
    let sets = [shortest(&LITERALS, literals), shortest(&AUX, aux), shortest(&TOKENS, tokens)];
    let mut at = HEADER;
    let mut first_pair = 0;
    for number in 0..LANES {
        let mut writer = Writer::new(lane);
        writer.quarter(&LITERALS, sets[0], literals, number);
        writer.quarter(&AUX, sets[1], aux, number);
        writer.quarter(&TOKENS, sets[2], tokens, number);
        let written = writer.len();
        let place = dst.get_mut(at..at + written)?;
        place.copy_from_slice(&lane[..written]);
        if is_backward(number) {
            place.reverse();
        }
        at += written;
        if number == 1 {
            first_pair = at - HEADER;
        }
    }
    for (place, number) in dst.chunks_exact_mut(2).zip([literals.len(), aux.len(), tokens.len(), first_pair]) {
        place.copy_from_slice(&u16::try_from(number).ok()?.to_le_bytes());
    }
    dst[HEADER - 1] = u8::try_from(sets[0] | sets[1] << 3 | sets[2] << 5).ok()?;
    Some(at)
}

/// Symbols whose lengths a byte can hold.
const SUMMED: usize = 255 / LONGEST as usize;

/// The number of the set in which `stream` is shortest, by every second part of it.
#[inline(always)]
fn shortest<const SETS: usize>(codes: &Codes<SETS>, stream: &[u8]) -> usize {
    let mut sums = [0u32; SETS_MAX];
    for part in stream.chunks(SUMMED).step_by(3) {
        let mut class = usize::from(codes.classes[0]);
        let mut lengths = 0;
        for byte in part {
            lengths += codes.lengths[(class | usize::from(*byte)) % (CLASSES << 8)];
            class = usize::from(codes.classes[usize::from(*byte)]);
        }
        for (sum, bits) in sums.iter_mut().zip(lengths.to_le_bytes()) {
            *sum += u32::from(bits);
        }
    }
    let mut best = 0;
    for number in 1..SETS {
        best = if sums[number] < sums[best] { number } else { best };
    }
    best
}

/// Where a lane is: whole bytes written, and in `word` the bits that are not, behind a 1 that says where they begin.
struct Writer<'a> {
    lane: &'a mut Lane,
    word: u64,
    at: usize,
}

impl<'a> Writer<'a> {
    fn new(lane: &'a mut Lane) -> Self {
        Self { lane, word: 1, at: 0 }
    }

    /// Writes the quarter of `stream` that is lane `number`'s, and in the first what remains of the stream.
    #[inline(always)]
    fn quarter<const SETS: usize>(&mut self, codes: &Codes<SETS>, set: usize, stream: &[u8], number: usize) {
        let table = &codes.encode[set];
        let quarter = stream.len() / LANES;
        let mut class = codes.classes[0];
        self.symbols(&codes.classes, table, &mut class, &stream[number * quarter..][..quarter]);
        if number == 0 {
            self.symbols(&codes.classes, table, &mut class, &stream[LANES * quarter..]);
        }
    }

    #[inline(always)]
    fn symbols(&mut self, classes: &[u16; 256], table: &EncodeTable, class: &mut u16, symbols: &[u8]) {
        let mut put = |writer: &mut Self, byte: u8| {
            let entry = table[usize::from(*class | u16::from(byte)) % (CLASSES << 8)];
            writer.word = writer.word << (entry & 63) | u64::from(entry >> 6);
            *class = classes[usize::from(byte)];
        };
        let (bursts, rest) = symbols.as_chunks::<BURST>();
        for burst in bursts {
            burst.iter().for_each(|byte| put(self, *byte));
            self.flush();
        }
        rest.iter().for_each(|byte| put(self, *byte));
        self.flush();
    }

    /// Writes all bits, and moves on by the bytes that are whole.
    #[inline(always)]
    fn flush(&mut self) {
        let zeros = self.word.leading_zeros();
        let bits = 63 - zeros;
        self.lane[self.at..self.at + 8].copy_from_slice(&(self.word << 1 << zeros).to_be_bytes());
        self.at += (bits / 8) as usize;
        let left = 1 << (bits % 8);
        self.word = self.word & (left - 1) | left;
    }

    /// Bytes written, the last perhaps not whole.
    fn len(&self) -> usize {
        self.at + usize::from(self.word > 1)
    }
}
