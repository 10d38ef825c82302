//! Sequences of faults: page after page, or at any other steady distance (the column of a matrix, an array gone through
//! from its end), each given ahead of the program's asking, more of them the longer it lasts.
//!
//! Several go on at once, of several threads or of one that reads here and writes there. A fault goes on with the
//! sequence that expected it. If none did, and it lies as far from a fault of late as that one from another, the three
//! are one, in place of the one that was longest idle. Two alone are none: one object may lie on two pages.

use crate::units::Page;

/// Sequences that are followed in one address space.
const STREAMS: usize = 8;
/// Faults of no sequence that are remembered.
const RECENT: usize = 16;
/// Pages from one fault of a sequence to the next, at most.
const FARTHEST: u64 = 64;

/// Pages that are given at once, at most: larger pieces are the agent's to move.
pub(crate) const WINDOW: usize = 15;
/// The same where each goes to a place of its own, for which whoever waits waits.
const SCATTERED_WINDOW: usize = 8;

#[derive(Debug, Clone, Copy)]
struct Stream {
    expected: Page,
    stride: i64,
    /// Faults that came in order so far.
    run: u32,
    /// When it was last gone on with, in faults.
    used: u64,
}

/// The sequences of one address space.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    streams: Vec<Stream>,
    /// Faults of no sequence, and where the next goes.
    recent: [Page; RECENT],
    oldest: usize,
    faults: u64,
}

/// The sequence that a fault belongs to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Followed {
    at: usize,
    /// Pages from one of it to the next.
    pub(crate) stride: i64,
    /// Pages that are to be given at once.
    pub(crate) window: usize,
}

impl Streams {
    /// A fault on `page`: the sequence that it goes on with, or makes.
    pub(crate) fn follow(&mut self, page: Page) -> Option<Followed> {
        self.faults += 1;
        let used = self.faults;
        let at = match self.streams.iter().position(|stream| stream.expected == page) {
            Some(at) => at,
            None => {
                let found = self.third_of(page);
                self.recent[self.oldest] = page;
                self.oldest = (self.oldest + 1) % RECENT;
                self.begin(Stream { expected: page, stride: found?, run: 2, used })
            }
        };
        let stream = &mut self.streams[at];
        let (run, stride) = (stream.run.saturating_add(1), stream.stride);
        *stream = Stream { expected: page.step(stride), stride, run, used };
        let window = if run < 6 { 1 << (run - 2) } else { WINDOW };
        let most = if stride == 1 { WINDOW } else { SCATTERED_WINDOW };
        Some(Followed { at, stride, window: window.min(most) })
    }

    /// The distance at which two faults of late lie before this one, if there are such: the shortest.
    fn third_of(&self, page: Page) -> Option<i64> {
        let steps = self.recent.iter().map(|before| page.0.wrapping_sub(before.0).cast_signed());
        let near = steps.filter(|step| (1..=FARTHEST).contains(&step.unsigned_abs()));
        near.filter(|step| self.recent.contains(&page.step(-2 * step))).min_by_key(|step| step.unsigned_abs())
    }

    fn begin(&mut self, stream: Stream) -> usize {
        if self.streams.len() < STREAMS {
            self.streams.push(stream);
            return self.streams.len() - 1;
        }
        let oldest = self.streams.iter().enumerate().min_by_key(|(_, stream)| stream.used);
        let at = oldest.map_or(0, |(at, _)| at);
        self.streams[at] = stream;
        at
    }

    /// Pages were given up to `next`, which is expected now.
    pub(crate) fn expect(&mut self, followed: Followed, next: Page) {
        self.streams[followed.at].expected = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Faults from `first` on, each where the last window ended. Returns windows.
    fn windows(streams: &mut Streams, first: &mut [(Page, i64)], rounds: usize) -> Vec<usize> {
        let mut windows = Vec::new();
        for _ in 0..rounds {
            for (next, stride) in &mut *first {
                let followed = streams.follow(*next);
                let window = followed.map_or(1, |followed| followed.window);
                windows.push(window);
                *next = next.step(*stride * (window as u64).cast_signed());
                if let Some(followed) = followed {
                    assert_eq!(followed.stride, *stride);
                    streams.expect(followed, *next);
                }
            }
            streams.follow(Page(1 << 30)); // a fault of none
        }
        windows
    }

    #[test]
    fn windows_grow_as_sequences_go_on_beside_each_other() {
        let mut streams = Streams::default();
        // Nearer to each other than a sequence may step.
        let grown = windows(&mut streams, &mut [(Page(100), 1), (Page(130), 1)], 7);
        assert_eq!(grown, [1, 1, 1, 1, 2, 2, 4, 4, 8, 8, 15, 15, 15, 15]);
    }

    #[test]
    fn columns_and_ways_back_are_sequences_too() {
        for stride in [17, -1, -64] {
            let grown = windows(&mut Streams::default(), &mut [(Page(10_000), stride)], 7);
            assert_eq!(grown, [1, 1, 2, 4, 8, 8, 8], "{stride}");
        }
        assert_eq!(windows(&mut Streams::default(), &mut [(Page(10_000), 65)], 7), [1; 7]);
    }

    #[test]
    fn the_longest_idle_sequence_is_given_up() {
        let mut streams = Streams::default();
        let begin = |streams: &mut Streams, at: u64| (at..at + 3).for_each(|page| _ = streams.follow(Page(page)));
        (0..=STREAMS as u64).for_each(|number| begin(&mut streams, 1000 * (number + 1)));
        assert!(streams.follow(Page(1003)).is_none(), "the first was given up");
        assert!(streams.follow(Page(2003)).is_some());
    }
}
