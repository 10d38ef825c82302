//! The decoder: four lanes side by side.
//!
//! What it costs is the number of instructions for a symbol. The version for the CPUs that most have makes do with six:
//! shift, load, shift, store, and two for the class. For that, the four classes' entries of the same bits stand side by
//! side in a table, and a lane keeps the address of its class in the first such row.

use super::tables::{AUX, CLASSES, DecodeTable, LITERALS, LONGEST, TOKENS};
use super::{BURST, HEADER, LANES, PLAIN_HEADER, is_backward};
use crate::codec::Corrupt;

/// The lanes, and where each of them is.
struct Lanes<'a> {
    src: &'a [u8],
    /// The byte that has the next bit: its place, or the place behind it if the lane goes backwards.
    places: [isize; LANES],
    /// Bits of that byte that were taken.
    taken: [u32; LANES],
    /// The class of the symbol before.
    classes: [usize; LANES],
}

/// Bytes that are read of a lane for a burst, and that it moves on by at most.
const WORD: usize = 8;
const _: () = assert!(7 + BURST * (LONGEST as usize) < WORD * 8);

/// Decodes `src` to the word LZ's block in `plain`, which has at least the bytes that it may have; its length.
pub(crate) fn decode(src: &[u8], plain: &mut [u8]) -> Result<usize, Corrupt> {
    #[cfg(target_arch = "x86_64")]
    if crate::cpu::is_wide() {
        // SAFETY: just asked.
        return unsafe { decode_wide(src, plain) };
    }
    decode_portable(src, plain)
}

pub(super) fn decode_portable(src: &[u8], plain: &mut [u8]) -> Result<usize, Corrupt> {
    decode_by::<Portable>(src, plain)
}

/// The same, for the CPUs that most have.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
fn decode_wide(src: &[u8], plain: &mut [u8]) -> Result<usize, Corrupt> {
    decode_by::<Wide>(src, plain)
}

#[inline(always)]
fn decode_by<V: Version>(src: &[u8], plain: &mut [u8]) -> Result<usize, Corrupt> {
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
    let first_classes = [&LITERALS.classes, &AUX.classes, &TOKENS.classes].map(|classes| usize::from(classes[0] >> 8));
    plain[..PLAIN_HEADER].copy_from_slice(&header[..PLAIN_HEADER]);
    let [start, middle, end] = [HEADER, middle, src.len()].map(usize::cast_signed);
    let mut lanes = Lanes { src, places: [start, middle, middle, end], taken: [0; LANES], classes: [0; LANES] };
    let mut rest = &mut plain[PLAIN_HEADER..len];
    for ((table, class), count) in tables.into_iter().zip(first_classes).zip([literals, aux, tokens]) {
        let (stream, behind) = rest.split_at_mut(count);
        lanes.classes = [class; LANES];
        lanes.stream::<V>(table, stream)?;
        rest = behind;
    }
    lanes.ended_well().then_some(len).ok_or(Corrupt)
}

/// What the two versions do differently.
trait Version {
    /// The same number; where that makes for better code, the compiler does not know which it is.
    fn hidden(number: usize) -> usize;

    /// The place in the first row of `table` for the class that `entry` names.
    fn place_of_class(table: &Table<'_>, entry: u16) -> *const u16;
}

/// Whatever the compiler makes of it.
struct Portable;

impl Version for Portable {
    #[inline(always)]
    fn hidden(number: usize) -> usize {
        number
    }

    #[inline(always)]
    fn place_of_class(table: &Table<'_>, entry: u16) -> *const u16 {
        table.entries.as_ptr().wrapping_add(usize::from(entry >> CLASS_SHIFT) % CLASSES)
    }
}

/// For CPUs with BMI1 and BMI2. The compiler would merge the shift with the scaling of an index, add addresses in an order
/// that makes the next load wait, and take three instructions for the class.
#[cfg(target_arch = "x86_64")]
struct Wide;

#[cfg(target_arch = "x86_64")]
impl Version for Wide {
    #[inline(always)]
    fn hidden(mut number: usize) -> usize {
        // SAFETY: there is no instruction in it.
        unsafe {
            core::arch::asm!("/* {} */", inout(reg) number, options(pure, nomem, nostack, preserves_flags));
        }
        number
    }

    #[inline(always)]
    #[expect(clippy::pointers_in_nomem_asm_block, reason = "it is an address to compute another")]
    fn place_of_class(table: &Table<'_>, entry: u16) -> *const u16 {
        let place;
        // SAFETY: only a version that was asked for runs this, so the CPU has BMI1; it computes a number.
        unsafe {
            core::arch::asm!(
                "bextr {place}, {entry}, {field}",
                "lea {place}, [{start} + {place} * 2]",
                place = out(reg) place,
                entry = in(reg) usize::from(entry),
                field = in(reg) table.class_field,
                start = in(reg) table.entries.as_ptr(),
                options(pure, nomem, nostack),
            );
        }
        place
    }
}

/// Where in an entry the class is.
const CLASS_SHIFT: usize = 6;
/// The same for BEXTR: the lowest bit, and in the next byte the number of bits.
const CLASS_FIELD: usize = CLASS_SHIFT | (CLASSES.trailing_zeros() as usize) << 8;

/// A table, and what a loop is to have in registers besides.
struct Table<'a> {
    entries: &'a DecodeTable,
    /// By how much a word is shifted for the next [`LONGEST`] bits.
    shift: usize,
    class_field: usize,
}

impl<'a> Table<'a> {
    #[inline(always)]
    fn new<V: Version>(entries: &'a DecodeTable) -> Self {
        Self { entries, shift: V::hidden(64 - LONGEST as usize), class_field: V::hidden(CLASS_FIELD) }
    }

    /// The place in the first row for a class.
    #[inline(always)]
    fn place(&self, class: usize) -> *const u16 {
        self.entries.as_ptr().wrapping_add(class % CLASSES)
    }

    /// The class with that place.
    #[inline(always)]
    fn class(&self, place: *const u16) -> usize {
        (place.addr() - self.entries.as_ptr().addr()) / size_of::<u16>()
    }
}

/// A lane within a burst.
#[derive(Clone, Copy)]
struct Head {
    /// The next bits, highest first. The lowest that is set, in place of one that is not used, says how many were taken.
    word: u64,
    /// The place of the class of the symbol before in the first row of the table.
    place: *const u16,
}

impl Head {
    /// Takes a symbol.
    ///
    /// # Safety
    /// `place` is one of the first row's of `table`.
    #[inline(always)]
    unsafe fn take<V: Version>(&mut self, table: &Table<'_>) -> u8 {
        #[expect(clippy::cast_possible_truncation, reason = "the highest bits of a word")]
        let next = (self.word >> (table.shift & 63)) as usize;
        debug_assert!(next < 1 << LONGEST && table.class(self.place) < CLASSES);
        // SAFETY: `next` is a number of LONGEST bits, and a table has as many rows of CLASSES.
        let entry = unsafe { self.place.wrapping_add(next * CLASSES).read() };
        self.word <<= entry & 63;
        self.place = V::place_of_class(table, entry);
        let [_, byte] = entry.to_le_bytes();
        byte
    }
}

impl Lanes<'_> {
    /// Decodes one stream. What it costs is bounded by the source as well as by the stream: lanes that have no bits left end
    /// it.
    #[inline(always)]
    fn stream<V: Version>(&mut self, entries: &DecodeTable, to: &mut [u8]) -> Result<(), Corrupt> {
        let quarter = to.len() / LANES;
        let mut done = 0;
        while done < quarter {
            let possible = self.bursts();
            let left = quarter - done;
            if possible == 0 {
                break;
            } else if left < BURST {
                self.take::<V>(entries, to, done, [1, left]);
                done = quarter;
            } else {
                let bursts = possible.min(left / BURST);
                self.take::<V>(entries, to, done, [bursts, BURST]);
                done += bursts * BURST;
            }
        }
        for at in done..quarter {
            if self.overran() {
                return Err(Corrupt);
            }
            for lane in 0..LANES {
                to[lane * quarter + at] = self.symbol(entries, lane);
            }
        }
        self.rest::<V>(entries, &mut to[LANES * quarter..]);
        Ok(())
    }

    /// For how many bursts words can be read of every lane.
    #[inline(always)]
    fn bursts(&self) -> usize {
        const BACK: isize = WORD.cast_signed();
        let last = self.src.len().cast_signed() - BACK;
        let [a, b, c, d] = self.places;
        let room = (last - a).min(b - BACK).min(last - c).min(d - BACK);
        if room < 0 { 0 } else { room.cast_unsigned() / WORD + 1 }
    }

    /// The next bits of a lane; see [`Head`] for `one`.
    ///
    /// # Safety
    /// [`Lanes::bursts`] was above 0 for where the lane is.
    #[inline(always)]
    unsafe fn word(&self, lane: usize, one: usize) -> u64 {
        let back = if is_backward(lane) { WORD.cast_signed() } else { 0 };
        // SAFETY: by the contract a word is inside the source here.
        let word = unsafe { crate::raw::load64(self.src, (self.places[lane] - back).cast_unsigned()) };
        ((if is_backward(lane) { word } else { word.swap_bytes() }) | one as u64) << (self.taken[lane] & 63)
    }

    /// Moves a lane on by what was taken of its word.
    #[inline(always)]
    fn advance(&mut self, lane: usize, word: u64) {
        self.taken[lane] = word.trailing_zeros() % 8;
        self.skip(lane, word.trailing_zeros() / 8);
    }

    #[inline(always)]
    fn skip(&mut self, lane: usize, bytes: u32) {
        let bytes = bytes.cast_signed() as isize;
        self.places[lane] += if is_backward(lane) { -bytes } else { bytes };
    }

    /// So many bursts of so many symbols of each lane, at most [`BURST`], from `done` in each quarter on; these are in the
    /// quarter, and no more bursts than [`Lanes::bursts`] says.
    #[inline(always)]
    fn take<V: Version>(&mut self, entries: &DecodeTable, to: &mut [u8], done: usize, [bursts, symbols]: [usize; 2]) {
        let quarter = to.len() / LANES;
        debug_assert!(done + bursts * symbols <= quarter && bursts <= self.bursts() && symbols <= BURST);
        let table = Table::new::<V>(entries);
        let one = V::hidden(1);
        let mut to = to.as_mut_ptr().wrapping_add(done);
        let mut lanes = Self { ..*self };
        let mut heads = lanes.classes.map(|class| Head { word: 0, place: table.place(class) });
        for _ in 0..bursts {
            for (lane, head) in heads.iter_mut().enumerate() {
                // SAFETY: there was room for that many bursts, and one moves a lane on by a word at most.
                head.word = unsafe { lanes.word(lane, one) };
            }
            for symbol in 0..symbols {
                for (lane, head) in heads.iter_mut().enumerate() {
                    // SAFETY: the place was made by `table`.
                    let byte = unsafe { head.take::<V>(&table) };
                    // Volatile, so that bytes of several symbols are not gathered for one store: that takes longer.
                    // SAFETY: what is done, and this symbol, are in the quarter, and there are as many as lanes in `to`.
                    unsafe { to.wrapping_add(lane * quarter + symbol).write_volatile(byte) };
                }
            }
            for (lane, head) in heads.iter().enumerate() {
                lanes.advance(lane, head.word);
            }
            to = to.wrapping_add(symbols);
        }
        lanes.classes = heads.map(|head| table.class(head.place));
        *self = lanes;
    }

    /// What is left of a stream behind its quarters: fewer symbols than there are lanes, all in the first.
    #[inline(always)]
    fn rest<V: Version>(&mut self, entries: &DecodeTable, to: &mut [u8]) {
        const _: () = assert!(LANES <= BURST);
        if self.bursts() == 0 {
            return to.iter_mut().for_each(|place| *place = self.symbol(entries, 0));
        }
        let table = Table::new::<V>(entries);
        // SAFETY: just asked.
        let mut head = Head { word: unsafe { self.word(0, 1) }, place: table.place(self.classes[0]) };
        for place in to {
            // SAFETY: the place was made by `table`.
            *place = unsafe { head.take::<V>(&table) };
        }
        self.advance(0, head.word);
    }

    /// One symbol of a lane. Behind the source's ends there are zeros.
    #[inline(never)]
    fn symbol(&mut self, table: &DecodeTable, lane: usize) -> u8 {
        let at = self.places[lane];
        let byte = |offset: isize| {
            let place = if is_backward(lane) { at - offset - 1 } else { at + offset };
            usize::try_from(place).ok().and_then(|place| self.src.get(place)).copied().unwrap_or(0)
        };
        let word = u32::from_be_bytes([byte(0), byte(1), byte(2), 0]) << self.taken[lane];
        let next = (word >> (32 - LONGEST)) as usize;
        let entry = table[next * CLASSES + self.classes[lane]];
        let bits = self.taken[lane] + u32::from(entry & 63);
        self.taken[lane] = bits % 8;
        self.skip(lane, bits / 8);
        self.classes[lane] = usize::from(entry >> CLASS_SHIFT) % CLASSES;
        let [_, symbol] = entry.to_le_bytes();
        symbol
    }

    /// How far the lanes reach, with the bytes that are not taken whole.
    fn ends(&self) -> [isize; LANES] {
        core::array::from_fn(|lane| {
            let part = isize::from(self.taken[lane] > 0);
            self.places[lane] + if is_backward(lane) { -part } else { part }
        })
    }

    /// Whether lanes took more than is there.
    #[inline(never)]
    fn overran(&self) -> bool {
        let [a, b, c, d] = self.ends();
        a > b || c > d
    }

    /// Whether the lanes took exactly what is there.
    fn ended_well(&self) -> bool {
        let [a, b, c, d] = self.ends();
        a == b && c == d
    }
}
