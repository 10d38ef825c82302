//! The token alphabet of the word LZ: which 256 of all (mode, literals, match length) have a byte of their own.
//!
//! A heap's match mostly ends where a word ends, `literals + match = 8 k`, since what changes next are a word's low
//! bytes. So each row has codes for the smallest `k` and for the shortest other lengths, as many as its share of real
//! tokens is worth, and one code for every other length, which an extension byte then gives.

/// Shortest match.
pub(crate) const MIN_MATCH: usize = 4;
/// From this many literals on their number is an extension.
pub(crate) const LONG_LITERALS: usize = 7;
/// Match lengths up to `MIN_MATCH + DIRECT - 1` may have codes of their own.
const DIRECT: usize = 80;

/// Where a match's distance comes from.
pub(crate) const MODES: usize = 4;

/// For each mode and number of literals (7: 7 or more): how many codes end at a word's end, how many do not. One more
/// code in each row says that the length is an extension.
const ROWS: [[(usize, usize); 8]; MODES] = [
    [
        (0, 0),
        (8, 15),
        (8, 15),
        (6, 9),
        (6, 9),
        (4, 9),
        (4, 8),
        (0, 11),
    ],
    [
        (5, 4),
        (2, 1),
        (2, 1),
        (1, 1),
        (1, 1),
        (0, 1),
        (0, 1),
        (0, 2),
    ],
    [
        (10, 9),
        (3, 3),
        (3, 3),
        (3, 3),
        (3, 3),
        (0, 4),
        (1, 3),
        (0, 6),
    ],
    [
        (2, 13),
        (1, 2),
        (1, 2),
        (1, 1),
        (1, 1),
        (0, 2),
        (0, 2),
        (0, 3),
    ],
];

/// What a token says: the decoder's one look-up.
#[derive(Clone, Copy)]
#[repr(C, align(4))]
pub(crate) struct Token {
    literals: u8,
    total: u8,
    aux: u8,
    flags: u8,
}

impl Token {
    /// Mode 1 or 3.
    const ODD: u8 = 1;
    /// Mode 2 or 3: the distance is in aux.
    const FRESH: u8 = 2;
    const SAME: u8 = 4;
    const LONG: u8 = 8;
    const LONG_MATCH: u8 = 16;

    const NONE: Self = Self {
        literals: 0,
        total: 0,
        aux: 0,
        flags: 0,
    };

    #[expect(
        clippy::cast_possible_truncation,
        reason = "modes are below 4, totals below 90"
    )]
    const fn new(mode: usize, literals: usize, total: usize, long_match: u8) -> Self {
        let long_literals = if literals == LONG_LITERALS {
            Self::LONG
        } else {
            0
        };
        let same = if mode == 0 { Self::SAME } else { 0 };
        let flags = mode as u8 | same | long_literals | long_match;
        Self {
            literals: literals as u8,
            total: total as u8,
            aux: mode.saturating_sub(1) as u8,
            flags,
        }
    }

    /// Literals before the match; 7 means "7 and an extension".
    #[inline(always)]
    pub(crate) const fn literals(self) -> usize {
        self.literals as usize
    }

    /// Literals and match together; with an extended match, only the literals.
    #[inline(always)]
    pub(crate) const fn total(self) -> usize {
        self.total as usize
    }

    /// Bytes of the distance in aux.
    #[inline(always)]
    pub(crate) const fn aux(self) -> usize {
        self.aux as usize
    }

    /// The mode is 1 or 3.
    #[inline(always)]
    pub(crate) const fn is_odd(self) -> bool {
        self.flags & Self::ODD != 0
    }

    /// The mode is 2 or 3.
    #[inline(always)]
    pub(crate) const fn is_fresh(self) -> bool {
        self.flags & Self::FRESH != 0
    }

    /// The mode is 0.
    #[inline(always)]
    pub(crate) const fn is_same(self) -> bool {
        self.flags & Self::SAME != 0
    }

    /// The count of literals is an extension.
    #[inline(always)]
    pub(crate) const fn is_long(self) -> bool {
        self.flags & Self::LONG != 0
    }

    /// The match's length is an extension.
    #[inline(always)]
    pub(crate) const fn is_long_match(self) -> bool {
        self.flags & Self::LONG_MATCH != 0
    }
}

/// Both directions of the alphabet.
pub(crate) struct Alphabet {
    pub(crate) decode: [Token; 256],
    /// By mode, literals and match length less 4: the token.
    encode: [[[u8; DIRECT]; 8]; MODES],
    /// By mode and literals: the token for every length that has none of its own.
    long: [[u8; 8]; MODES],
}

impl Alphabet {
    /// The token, and whether the match's length has to follow as an extension.
    #[inline(always)]
    pub(crate) fn token(&self, mode: usize, literals: usize, matched: usize) -> (u8, bool) {
        let row = literals.min(LONG_LITERALS);
        let code = matched - MIN_MATCH;
        let token = if code < DIRECT {
            self.encode[mode][row][code]
        } else {
            self.long[mode][row]
        };
        (token, token == self.long[mode][row])
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "tokens are below 256, lengths below 80; checked when this is built"
)]
const fn build() -> Alphabet {
    let mut alphabet = Alphabet {
        decode: [Token::NONE; 256],
        encode: [[[0; DIRECT]; 8]; MODES],
        long: [[0; 8]; MODES],
    };
    let mut next = 0;
    let mut mode = 0;
    while mode < MODES {
        let mut literals = 0;
        while literals < 8 {
            let (mut aligned, mut other) = ROWS[mode][literals];
            alphabet.decode[next] = Token::new(mode, literals, literals, Token::LONG_MATCH);
            alphabet.long[mode][literals] = next as u8;
            alphabet.encode[mode][literals] = [next as u8; DIRECT];
            next += 1;
            let mut matched = MIN_MATCH;
            while aligned + other > 0 {
                let total = literals + matched;
                let left = if total.is_multiple_of(8) && literals < LONG_LITERALS {
                    &mut aligned
                } else {
                    &mut other
                };
                if *left > 0 {
                    *left -= 1;
                    alphabet.decode[next] = Token::new(mode, literals, total, 0);
                    alphabet.encode[mode][literals][matched - MIN_MATCH] = next as u8;
                    next += 1;
                }
                matched += 1;
            }
            literals += 1;
        }
        mode += 1;
    }
    assert!(next == 256);
    alphabet
}

/// The alphabet.
pub(crate) static ALPHABET: Alphabet = build();
