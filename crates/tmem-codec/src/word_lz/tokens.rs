//! The token alphabet of the word LZ: which 256 of all (mode, literals, match length) have a byte of their own.
//!
//! A heap's match mostly ends where a word ends, `literals + match = 8 k`, since what changes next are a word's low
//! bytes. So each row has codes for the smallest `k` and for the shortest other lengths, as many as its share of real
//! tokens is worth, and one code for every other length, which an extension byte then gives. Eight literals and no match
//! have a code too: with it, runs of 8 to 15 literals need no extension.

/// Shortest match.
pub(crate) const MIN_MATCH: usize = 4;
/// From this many literals on their number is an extension.
pub(crate) const LONG_LITERALS: usize = 16;
/// Rows of a mode: 0 to 7 literals, and 16 or more.
const ROW_COUNT: usize = 9;
const LONG_ROW: usize = 8;
/// Match lengths from `MIN_MATCH` to `MIN_MATCH + DIRECT - 1` may have codes of their own.
const DIRECT: usize = 80;
/// Where a match's distance comes from.
const MODES: usize = 4;

/// How many codes of a row end at a word's end, how many do not, and the shortest length of the latter. One more code
/// in each row says that the length is an extension.
type Row = (usize, usize, usize);

/// By mode and number of literals; the last of each mode is for 16 and more.
#[rustfmt::skip]
const ROWS: [[Row; ROW_COUNT]; MODES] = [
    [(3, 1, 4), (6, 11, 4), (8, 11, 4), (5, 8, 4), (4, 8, 4), (3, 7, 4), (4, 5, 4), (2, 4, 4), (0, 6, 4)],
    [(3, 3, 9), (2, 1, 4), (1, 0, 4), (1, 0, 4), (1, 0, 4), (0, 0, 4), (0, 0, 4), (0, 0, 4), (0, 0, 4)],
    [(10, 12, 7), (3, 4, 4), (3, 4, 4), (2, 3, 4), (2, 3, 4), (1, 3, 4), (2, 4, 4), (1, 3, 4), (0, 8, 4)],
    [(3, 10, 9), (1, 2, 4), (1, 2, 4), (1, 2, 4), (1, 2, 4), (0, 4, 4), (0, 3, 4), (0, 3, 4), (0, 8, 4)],
];

/// Eight literals and no match.
pub(crate) const EIGHT_LITERALS: u8 = 0;

/// What a token says: the decoder's one look-up.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
pub(crate) struct Token {
    /// The low bytes of a word that are literals.
    pub(crate) mask: u64,
    total: u16,
    literals: u8,
    matched: u8,
    flags: u8,
    aux: u8,
    distance_bits: u8,
    count_mask: u8,
}

impl Token {
    /// Mode 1 or 3.
    const ODD: u8 = 1;
    /// Mode 2 or 3: the distance is in aux.
    const FRESH: u8 = 2;
    /// Mode 0.
    const SAME: u8 = 4;
    const LONG_LITERALS: u8 = 16;
    const LONG_MATCH: u8 = 32;

    const EIGHT: Self = Self {
        mask: !0,
        total: 8,
        literals: 8,
        matched: 0,
        flags: Self::SAME,
        aux: 0,
        distance_bits: 0,
        count_mask: 0,
    };

    #[expect(clippy::cast_possible_truncation, reason = "modes are below 4, totals below 90")]
    const fn new(mode: usize, row: usize, matched: usize, long_match: u8) -> Self {
        let literals = if row == LONG_ROW { 0 } else { row };
        let same = if mode == 0 { Self::SAME } else { 0 };
        let long_literals = if row == LONG_ROW { Self::LONG_LITERALS } else { 0 };
        let distance = mode.saturating_sub(1) as u8;
        let matched = if long_match > 0 { MIN_MATCH } else { matched };
        Self {
            mask: (1 << (literals * 8)) - 1,
            total: if row == LONG_ROW { u16::MAX } else { (literals + matched) as u16 },
            literals: literals as u8,
            matched: matched as u8,
            flags: mode as u8 | same | long_literals | long_match,
            aux: distance + (long_match > 0) as u8,
            distance_bits: distance * 8,
            count_mask: if long_match > 0 { 255 } else { 0 },
        }
    }

    /// Literals before the match; 0 if their number is an extension.
    #[inline(always)]
    pub(crate) const fn literals(&self) -> usize {
        self.literals as usize
    }

    /// Those literals and the match together, without what an extension adds to the match; more than any block has if
    /// the number of literals is an extension.
    #[inline(always)]
    pub(crate) const fn total(&self) -> usize {
        self.total as usize
    }

    /// The match, without what an extension adds.
    #[inline(always)]
    pub(crate) const fn matched(&self) -> usize {
        self.matched as usize
    }

    /// Bytes of aux: the distance and the first of the match's extension.
    #[inline(always)]
    pub(crate) const fn aux(&self) -> usize {
        self.aux as usize
    }

    /// The bits of the distance in aux.
    #[inline(always)]
    pub(crate) const fn distance_bits(&self) -> u32 {
        self.distance_bits as u32
    }

    /// All ones if what follows the distance in aux is an extension of the match.
    #[inline(always)]
    pub(crate) const fn count_mask(&self) -> u32 {
        self.count_mask as u32
    }

    /// The mode is 1 or 3.
    #[inline(always)]
    pub(crate) const fn is_odd(&self) -> bool {
        self.flags & Self::ODD != 0
    }

    /// The mode is 2 or 3.
    #[inline(always)]
    pub(crate) const fn is_fresh(&self) -> bool {
        self.flags & Self::FRESH != 0
    }

    /// The mode is 0.
    #[inline(always)]
    pub(crate) const fn is_same(&self) -> bool {
        self.flags & Self::SAME != 0
    }

    /// There are 16 or more literals.
    #[inline(always)]
    pub(crate) const fn has_long_literals(&self) -> bool {
        self.flags & Self::LONG_LITERALS != 0
    }

    /// The match's length is an extension.
    #[inline(always)]
    pub(crate) const fn has_long_match(&self) -> bool {
        self.flags & Self::LONG_MATCH != 0
    }
}

/// Both directions of the alphabet.
pub(crate) struct Alphabet {
    pub(crate) decode: [Token; 256],
    /// By mode, row and match length less 4: the token.
    encode: [[[u8; DIRECT]; ROW_COUNT]; MODES],
    /// By mode and row: the token for every length that has none of its own.
    long: [[u8; ROW_COUNT]; MODES],
}

impl Alphabet {
    /// The token, and whether the match's length has to follow as an extension. There are 0 to 7 literals, or 16 and
    /// more.
    #[inline(always)]
    pub(crate) fn token(&self, mode: usize, literals: usize, matched: usize) -> (u8, bool) {
        let row = literals.min(LONG_ROW);
        let long = self.long[mode][row];
        let token = self.encode[mode][row][matched.wrapping_sub(MIN_MATCH).min(DIRECT - 1)];
        (token, token == long)
    }
}

const fn build() -> Alphabet {
    let mut alphabet = Alphabet {
        decode: [Token::EIGHT; 256],
        encode: [[[0; DIRECT]; ROW_COUNT]; MODES],
        long: [[0; ROW_COUNT]; MODES],
    };
    let mut next = EIGHT_LITERALS as usize + 1;
    let mut at = 0;
    while at < MODES * ROW_COUNT {
        next = build_row(&mut alphabet, at / ROW_COUNT, at % ROW_COUNT, next);
        at += 1;
    }
    assert!(next == 256);
    alphabet
}

/// Gives a row its codes from `next` on; the next free one.
#[expect(clippy::cast_possible_truncation, reason = "tokens are below 256, or the assertion in `build` fails")]
const fn build_row(alphabet: &mut Alphabet, mode: usize, row: usize, mut next: usize) -> usize {
    let (mut aligned, mut other, shortest_other) = ROWS[mode][row];
    alphabet.decode[next] = Token::new(mode, row, 0, Token::LONG_MATCH);
    alphabet.long[mode][row] = next as u8;
    alphabet.encode[mode][row] = [next as u8; DIRECT];
    next += 1;
    let mut matched = MIN_MATCH;
    while aligned + other > 0 {
        let ends_a_word = row != LONG_ROW && (row + matched).is_multiple_of(8);
        let left = if ends_a_word { &mut aligned } else { &mut other };
        if *left > 0 && (ends_a_word || matched >= shortest_other) {
            *left -= 1;
            alphabet.decode[next] = Token::new(mode, row, matched, 0);
            alphabet.encode[mode][row][matched - MIN_MATCH] = next as u8;
            next += 1;
        }
        matched += 1;
    }
    // The last place stands for all longer matches too.
    assert!(alphabet.encode[mode][row][DIRECT - 1] == alphabet.long[mode][row]);
    next
}

/// The alphabet.
pub(crate) static ALPHABET: Alphabet = build();
