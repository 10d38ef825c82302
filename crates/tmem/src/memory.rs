//! The memory side of an operation: a list of slices, read or written from front to back.

/// Memory that a put reads: a place in a list of slices.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gather<'a> {
    slices: &'a [&'a [u8]],
    /// Bytes of the first slice that are behind us.
    within: usize,
}

impl<'a> Gather<'a> {
    pub(crate) fn new(slices: &'a [&'a [u8]]) -> Self {
        let mut gather = Self { slices, within: 0 };
        gather.skip(0);
        gather
    }

    /// Bytes in a row from here, which `peek` can show.
    pub(crate) fn run(&self) -> usize {
        self.slices.first().map_or(0, |slice| slice.len() - self.within)
    }

    /// The next `len` bytes, which lie in one row.
    pub(crate) fn peek(&self, len: usize) -> &'a [u8] {
        &self.slices[0][self.within..self.within + len]
    }

    /// Goes on by `len` bytes, and past empty slices.
    pub(crate) fn skip(&mut self, mut len: usize) {
        while let Some(slice) = self.slices.first() {
            let left = slice.len() - self.within;
            if len < left {
                self.within += len;
                return;
            }
            len -= left;
            self.slices = &self.slices[1..];
            self.within = 0;
        }
    }

    /// Copies the next bytes, from as many slices as it takes, without going on.
    pub(crate) fn copy_to(mut self, to: &mut [u8]) {
        let mut done = 0;
        while done < to.len() {
            let part = self.run().min(to.len() - done);
            to[done..done + part].copy_from_slice(self.peek(part));
            self.skip(part);
            done += part;
        }
    }
}

/// Memory that a get writes: a place in a list of slices.
#[derive(Debug)]
pub(crate) struct Scatter<'a, 'm> {
    slices: &'a mut [&'m mut [u8]],
    at: usize,
    within: usize,
}

impl<'a, 'm> Scatter<'a, 'm> {
    pub(crate) fn new(slices: &'a mut [&'m mut [u8]]) -> Self {
        let mut scatter = Self { slices, at: 0, within: 0 };
        scatter.skip(0);
        scatter
    }

    /// Bytes in a row from here, which `peek` can show.
    pub(crate) fn run(&self) -> usize {
        self.slices.get(self.at).map_or(0, |slice| slice.len() - self.within)
    }

    /// The next `len` bytes, which lie in one row.
    pub(crate) fn peek(&mut self, len: usize) -> &mut [u8] {
        &mut self.slices[self.at][self.within..self.within + len]
    }

    /// Goes on by `len` bytes, and past empty slices.
    pub(crate) fn skip(&mut self, mut len: usize) {
        while let Some(slice) = self.slices.get(self.at) {
            let left = slice.len() - self.within;
            if len < left {
                self.within += len;
                return;
            }
            len -= left;
            self.at += 1;
            self.within = 0;
        }
    }

    /// Writes `from` and goes on.
    pub(crate) fn write(&mut self, from: &[u8]) {
        let mut done = 0;
        while done < from.len() {
            let part = self.run().min(from.len() - done);
            self.peek(part).copy_from_slice(&from[done..done + part]);
            self.skip(part);
            done += part;
        }
    }

    /// Writes `len` bytes of `pattern`, repeated, starting `phase` bytes into a repetition, and goes on.
    pub(crate) fn fill(&mut self, pattern: u32, mut phase: usize, mut len: usize) {
        while len > 0 {
            let part = self.run().min(len);
            fill(self.peek(part), pattern, phase);
            self.skip(part);
            phase += part;
            len -= part;
        }
    }
}

/// Fills `to` with `pattern` (little endian), repeated, starting `phase` bytes into a repetition.
fn fill(to: &mut [u8], pattern: u32, phase: usize) {
    let bytes = pattern.rotate_right(8 * u32::try_from(phase % 4).unwrap_or(0)).to_le_bytes();
    if bytes == [bytes[0]; 4] {
        to.fill(bytes[0]);
        return;
    }
    let mut words = to.chunks_exact_mut(4);
    for word in &mut words {
        word.copy_from_slice(&bytes);
    }
    let rest = words.into_remainder();
    let len = rest.len();
    rest.copy_from_slice(&bytes[..len]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gathering_crosses_slices_and_skips_empty_ones() {
        let parts: [&[u8]; 5] = [&[], &[1, 2], &[], &[3, 4, 5], &[]];
        let mut gather = Gather::new(&parts);
        assert_eq!(gather.run(), 2);
        let mut all = [0; 5];
        gather.copy_to(&mut all);
        assert_eq!(all, [1, 2, 3, 4, 5]);
        gather.skip(2);
        assert_eq!(gather.peek(gather.run()), [3, 4, 5]);
        gather.skip(3);
        assert_eq!(gather.run(), 0);
    }

    #[test]
    fn filling_keeps_the_phase_across_slices() {
        let (mut a, mut b) = ([0; 3], [0; 6]);
        let mut parts: [&mut [u8]; 2] = [&mut a, &mut b];
        Scatter::new(&mut parts).fill(0x0403_0201, 1, 9);
        assert_eq!((a, b), ([2, 3, 4], [1, 2, 3, 4, 1, 2]));
    }
}
