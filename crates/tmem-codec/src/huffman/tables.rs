//! The codes: made at compile time from the lengths in `lengths`.

use super::lengths;

/// Bits of the longest code.
pub(super) const LONGEST: u32 = 10;
const _: () = assert!(LONGEST <= 10, "codes and their lengths share 16 bits");
/// What a byte is coded in depends on the class of the one before it.
pub(super) const CLASSES: usize = 4;
/// No stream has more sets of codes: their costs are the bytes of a word.
pub(super) const SETS_MAX: usize = 8;

/// Two bits a byte, the first in the lowest.
pub(super) type Classes = [u64; 8];
/// The lengths of a code: four bits a symbol, the first in the lowest.
pub(super) type Packed = [u64; 16];

/// By the next [`LONGEST`] bits, then by class: the length of the code there in the low six bits, then the class of its
/// symbol, then the symbol.
pub(super) type DecodeTable = [u16; CLASSES << LONGEST];
/// By class, then by symbol: its code, and the length of that in the low six bits.
pub(super) type EncodeTable = [u16; CLASSES << 8];

/// A stream's codes.
pub(super) struct Codes<const SETS: usize> {
    /// The class of each byte, in bits 8 and 9: what an index into a table by class and symbol starts with.
    pub(super) classes: [u16; 256],
    /// By class and symbol: how long the codes of all sets are, a byte each.
    pub(super) lengths: [u64; CLASSES << 8],
    pub(super) encode: [EncodeTable; SETS],
    pub(super) decode: [DecodeTable; SETS],
}

pub(super) static LITERALS: Codes<8> = build(&lengths::LITERALS_CLASSES, &lengths::LITERALS);
pub(super) static AUX: Codes<4> = build(&lengths::AUX_CLASSES, &lengths::AUX);
pub(super) static TOKENS: Codes<8> = build(&lengths::TOKENS_CLASSES, &lengths::TOKENS);

const fn build<const SETS: usize>(classes: &Classes, sets: &[[Packed; CLASSES]; SETS]) -> Codes<SETS> {
    assert!(SETS <= SETS_MAX);
    let mut codes = Codes {
        classes: [0; 256],
        lengths: [0; CLASSES << 8],
        encode: [[0; CLASSES << 8]; SETS],
        decode: [[0; CLASSES << LONGEST]; SETS],
    };
    let mut byte = 0;
    while byte < 256 {
        codes.classes[byte] = (classes[byte / 32] >> (byte % 32 * 2) & 3) as u16 * 256;
        byte += 1;
    }
    let mut at = 0;
    while at < SETS * CLASSES {
        fill(&mut codes, at / CLASSES, at % CLASSES, &sets[at / CLASSES][at % CLASSES]);
        at += 1;
    }
    codes
}

/// Gives codes in the order of length, then symbol. Every symbol has one, and together they use up all there are.
#[expect(clippy::cast_possible_truncation, reason = "codes have at most 10 bits, symbols 8")]
const fn fill<const SETS: usize>(codes: &mut Codes<SETS>, set: usize, class: usize, packed: &Packed) {
    let mut next = 0;
    let mut len = 1;
    while len <= LONGEST {
        let mut symbol = 0;
        while symbol < 256 {
            if packed[symbol / 16] >> (symbol % 16 * 4) & 15 == len as u64 {
                let span = 1 << (LONGEST - len);
                codes.lengths[class << 8 | symbol] |= (len as u64) << (set * 8);
                codes.encode[set][class << 8 | symbol] = ((next >> (LONGEST - len)) as u16) << 6 | len as u16;
                let entry = (symbol as u16) << 8 | codes.classes[symbol] >> 2 | len as u16;
                let mut at = 0;
                while at < span {
                    codes.decode[set][(next + at) * CLASSES + class] = entry;
                    at += 1;
                }
                next += span;
            }
            symbol += 1;
        }
        len += 1;
    }
    assert!(next == 1 << LONGEST);
}
