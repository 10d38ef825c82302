//! Seeded blocks that look like memory.
#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::cast_possible_truncation, reason = "test data may wrap")]

/// xorshift64*: enough to make test data, and the same everywhere.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 11) % bound
    }
}

/// What the block is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shape {
    Zero,
    Noise,
    Pointers,
    Floats,
    Counters32,
    Text,
    Runs,
    Mixed,
}

impl Shape {
    pub(crate) const ALL: [Self; 8] =
        [Self::Zero, Self::Noise, Self::Pointers, Self::Floats, Self::Counters32, Self::Text, Self::Runs, Self::Mixed];

    /// `len` bytes of this shape.
    pub(crate) fn block(self, len: usize, seed: u64) -> Vec<u8> {
        let mut random = Random::new(seed);
        let mut block = Vec::with_capacity(len + 64);
        let mut step = 0;
        while block.len() < len {
            let shape = match self {
                Self::Mixed => Self::ALL[usize::try_from((step / 48) * 5 % 7).unwrap_or(0)],
                shape => shape,
            };
            shape.append(&mut block, &mut random, step);
            step += 1;
        }
        block.truncate(len);
        block
    }

    fn append(self, block: &mut Vec<u8>, random: &mut Random, step: u64) {
        match self {
            Self::Zero | Self::Mixed => block.extend([0; 8]),
            Self::Noise => block.extend(random.next().to_le_bytes()),
            Self::Pointers => {
                let word = match random.below(4) {
                    0 => 0,
                    1 => random.below(64),
                    _ => 0x7f3a_1200_0000 + random.below(1 << 14) * 16,
                };
                block.extend(word.to_le_bytes());
            }
            Self::Floats => block.extend((1.0 + random.below(1000) as f64 / 8.0).to_le_bytes()),
            Self::Counters32 => block.extend(((step as u32) * 3 + random.below(3) as u32).to_le_bytes()),
            Self::Text => {
                let words = ["memory ", "page ", "of ", "the ", "transcendent ", "granule, ", "log ", "\n"];
                block.extend(words[usize::try_from(random.below(8)).unwrap_or(0)].bytes());
            }
            Self::Runs => {
                let byte = random.below(3) as u8;
                block.extend(core::iter::repeat_n(byte, 1 + usize::try_from(random.below(90)).unwrap_or(0)));
            }
        }
    }
}
