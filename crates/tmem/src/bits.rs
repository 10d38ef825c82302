//! Fields of packed words.

/// A field of a 64-bit word: `width` bits from bit `shift` on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field {
    shift: u32,
    width: u32,
}

impl Field {
    /// The field of `width` bits that starts where `below` ends.
    pub(crate) const fn after(below: Self, width: u32) -> Self {
        let field = Self { shift: below.shift + below.width, width };
        assert!(width > 0 && field.end() <= 64, "a field lies within its word");
        field
    }

    /// The field of the lowest `width` bits.
    pub(crate) const fn lowest(width: u32) -> Self {
        Self { shift: 0, width }
    }

    /// The bit after its highest one.
    pub(crate) const fn end(self) -> u32 {
        self.shift + self.width
    }

    /// The largest value that fits.
    pub(crate) const fn max(self) -> u64 {
        u64::MAX >> (64 - self.width)
    }

    /// Its value in `word`.
    pub(crate) const fn get(self, word: u64) -> u64 {
        (word >> self.shift) & self.max()
    }

    /// Its value in `word`, for fields of up to 32 bits.
    pub(crate) const fn get32(self, word: u64) -> u32 {
        debug_assert!(self.width <= 32);
        #[expect(clippy::cast_possible_truncation, reason = "a field of up to 32 bits fits")]
        {
            self.get(word) as u32
        }
    }

    /// `word` with this field set to `value`, which must fit.
    pub(crate) const fn set(self, word: u64, value: u64) -> u64 {
        assert!(value <= self.max(), "a value fits its field");
        (word & !(self.max() << self.shift)) | (value << self.shift)
    }
}
