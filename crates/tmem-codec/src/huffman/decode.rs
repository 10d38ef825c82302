//! The decoder: four lanes side by side.

use super::tables::{AUX, CLASSES, DecodeTable, LITERALS, LONGEST, TOKENS};
use super::{BURST, HEADER, LANES, PLAIN_HEADER, is_backward};
use crate::codec::Corrupt;

/// The lanes: how many bits of each were taken.
struct Lanes<'a> {
    src: &'a [u8],
    /// Where each lane's first byte starts, or ends if it goes backwards.
    origins: [usize; LANES],
    bits: [usize; LANES],
    /// The class of the symbol before, as the tables want it.
    classes: [usize; LANES],
}

/// What a table's entry says of the class, as tables want it.
#[inline(always)]
fn class_of(entry: u16) -> usize {
    usize::from(entry & 0xc0) << (LONGEST - 6)
}

/// Decodes `src` to the word LZ's block in `plain`, which has at least the bytes that it may have; its length.
pub(crate) fn decode(src: &[u8], plain: &mut [u8]) -> Result<usize, Corrupt> {
    #[cfg(target_arch = "x86_64")]
    if crate::cpu::is_wide() {
        // SAFETY: just asked.
        return unsafe { decode_wide(src, plain) };
    }
    decode_by(src, plain)
}

/// The same, for the CPUs that most have.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
fn decode_wide(src: &[u8], plain: &mut [u8]) -> Result<usize, Corrupt> {
    decode_by(src, plain)
}

#[inline(always)]
pub(super) fn decode_by(src: &[u8], plain: &mut [u8]) -> Result<usize, Corrupt> {
    let header = *src.first_chunk::<HEADER>().ok_or(Corrupt)?;
    let [literals, aux, tokens, first_pair] =
        core::array::from_fn(|at| usize::from(u16::from_le_bytes([header[at * 2], header[at * 2 + 1]])));
    let middle = HEADER + first_pair;
    let len = PLAIN_HEADER + literals + aux + tokens;
    if middle > src.len() || len > plain.len() {
        return Err(Corrupt);
    }
    let sets = usize::from(header[HEADER - 1]);
    let tables = [&LITERALS.decode[sets & 7], &AUX.decode[sets >> 3 & 3], &TOKENS.decode[sets >> 5]];
    let first_classes = [&LITERALS.classes, &AUX.classes, &TOKENS.classes].map(|classes| usize::from(classes[0]));
    plain[..PLAIN_HEADER].copy_from_slice(&header[..PLAIN_HEADER]);
    let mut lanes = Lanes { src, origins: [HEADER, middle, middle, src.len()], bits: [0; LANES], classes: [0; LANES] };
    let mut rest = &mut plain[PLAIN_HEADER..len];
    for ((table, class), count) in tables.into_iter().zip(first_classes).zip([literals, aux, tokens]) {
        let (stream, behind) = rest.split_at_mut(count);
        lanes.classes = [class << (LONGEST - 8); LANES];
        lanes.stream(table, stream)?;
        rest = behind;
    }
    lanes.ended_well().then_some(len).ok_or(Corrupt)
}

impl Lanes<'_> {
    /// Decodes one stream. What it costs is bounded by the source as well as by the stream: lanes that have no bits left end
    /// it.
    #[inline(always)]
    fn stream(&mut self, table: &DecodeTable, to: &mut [u8]) -> Result<(), Corrupt> {
        let quarter = to.len() / LANES;
        let mut done = 0;
        while done + BURST <= quarter && self.have_words() {
            self.burst::<BURST>(table, to, quarter, done);
            done += BURST;
        }
        while done < quarter && self.have_words() {
            self.burst::<1>(table, to, quarter, done);
            done += 1;
        }
        for at in done..quarter {
            if self.overran() {
                return Err(Corrupt);
            }
            for lane in 0..LANES {
                to[lane * quarter + at] = self.symbol(table, lane);
            }
        }
        for place in &mut to[LANES * quarter..] {
            *place = self.symbol(table, 0);
        }
        Ok(())
    }

    /// Whether 8 bytes can be read of every lane.
    #[inline(always)]
    fn have_words(&self) -> bool {
        let [a, b, c, d] = self.bits.map(|bits| bits / 8 + 8);
        let [from_start, from_end, from_middle, _] = self.origins;
        from_start + a <= self.src.len() && b <= from_end && from_middle + c <= self.src.len() && d <= self.src.len()
    }

    /// `COUNT` symbols of each lane; [`Lanes::have_words`] was true, and `done + COUNT <= quarter`.
    #[inline(always)]
    fn burst<const COUNT: usize>(&mut self, table: &DecodeTable, to: &mut [u8], quarter: usize, done: usize) {
        debug_assert!(LANES * quarter <= to.len() && done + COUNT <= quarter && COUNT <= BURST);
        // The lowest bit says how far a word was shifted. It stands for one that is not used: see `BURST`.
        let mut words: [u64; LANES] = core::array::from_fn(|lane| {
            let at = self.bits[lane] / 8;
            let at = if is_backward(lane) { self.origins[lane] - 8 - at } else { self.origins[lane] + at };
            // SAFETY: `have_words` was true.
            let word = unsafe { crate::raw::load64(self.src, at) };
            (if is_backward(lane) { word } else { word.swap_bytes() }) << (self.bits[lane] % 8) | 1
        });
        let mut classes = self.classes;
        let to = to.as_mut_ptr().wrapping_add(done);
        for symbol in 0..COUNT {
            for lane in 0..LANES {
                let next = (words[lane] >> (64 - LONGEST)) as usize;
                let entry = table[(classes[lane] | next) % (CLASSES << LONGEST)];
                let [_, byte] = entry.to_le_bytes();
                // SAFETY: lane * quarter + done + symbol < LANES * quarter <= to.len().
                unsafe { to.wrapping_add(lane * quarter + symbol).write(byte) };
                words[lane] <<= entry & 63;
                classes[lane] = class_of(entry);
            }
        }
        self.classes = classes;
        for (bits, word) in self.bits.iter_mut().zip(words) {
            *bits += word.trailing_zeros() as usize;
        }
    }

    /// One symbol of a lane. Behind the source's ends there are zeros.
    #[inline(never)]
    fn symbol(&mut self, table: &DecodeTable, lane: usize) -> u8 {
        let at = self.bits[lane] / 8;
        let byte = |offset: usize| {
            let place = if is_backward(lane) {
                self.origins[lane].checked_sub(at + offset + 1)
            } else {
                Some(self.origins[lane] + at + offset)
            };
            place.and_then(|place| self.src.get(place)).copied().unwrap_or(0)
        };
        let word = u32::from_be_bytes([byte(0), byte(1), byte(2), 0]) << (self.bits[lane] % 8);
        let next = (word >> (32 - LONGEST)) as usize;
        let entry = table[self.classes[lane] | next];
        self.bits[lane] += usize::from(entry & 63);
        self.classes[lane] = class_of(entry);
        let [_, symbol] = entry.to_le_bytes();
        symbol
    }

    /// How far the two lanes of each pair reach, one behind the other.
    fn ends(&self) -> [usize; 2] {
        let [a, b, c, d] = self.bits.map(|bits| bits.div_ceil(8));
        [self.origins[0] + a + b, self.origins[2] + c + d]
    }

    /// Whether lanes took more than is there.
    #[inline(never)]
    fn overran(&self) -> bool {
        let [first, second] = self.ends();
        first > self.origins[1] || second > self.origins[3]
    }

    /// Whether the lanes took exactly what is there.
    fn ended_well(&self) -> bool {
        self.ends() == [self.origins[1], self.origins[3]]
    }
}
