//! Sequences of faults: page after page, each given ahead of the program's asking, more of them the longer it lasts.
//!
//! Several go on at once, of several threads or of one that reads here and writes there. A fault goes on with the
//! sequence that expected it, or begins one in place of the one that was longest idle.

use crate::units::Page;

/// Sequences that are followed in one address space.
const STREAMS: usize = 8;

/// Pages that are given at once, at most: larger pieces are the agent's to move.
pub(crate) const WINDOW: usize = 15;

#[derive(Debug, Clone, Copy)]
struct Stream {
    expected: Page,
    /// Faults that came in order so far.
    run: u32,
    /// When it was last gone on with, in faults.
    used: u64,
}

/// The sequences of one address space.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    streams: Vec<Stream>,
    faults: u64,
}

/// The sequence that a fault belongs to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Followed(usize);

impl Streams {
    /// A fault on `page`: the sequence that it goes on with, or begins.
    pub(crate) fn follow(&mut self, page: Page) -> Followed {
        self.faults += 1;
        let used = self.faults;
        if let Some(at) = self.streams.iter().position(|stream| stream.expected == page) {
            let run = self.streams[at].run.saturating_add(1);
            self.streams[at] = Stream { expected: page.next(), run, used };
            return Followed(at);
        }
        let begun = Stream { expected: page.next(), run: 1, used };
        if self.streams.len() < STREAMS {
            self.streams.push(begun);
            return Followed(self.streams.len() - 1);
        }
        let oldest = self.streams.iter().enumerate().min_by_key(|(_, stream)| stream.used);
        let at = oldest.map_or(0, |(at, _)| at);
        self.streams[at] = begun;
        Followed(at)
    }

    /// Pages that are to be given at once. Two neighbours are no sequence yet: one object may lie on both.
    pub(crate) fn window(&self, followed: Followed) -> usize {
        match self.streams[followed.0].run {
            run @ 0..6 => 1 << run.saturating_sub(2),
            _ => WINDOW,
        }
    }

    /// Pages were given up to `next`, which is expected now.
    pub(crate) fn expect(&mut self, followed: Followed, next: Page) {
        self.streams[followed.0].expected = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_grow_as_sequences_go_on_beside_each_other() {
        let mut streams = Streams::default();
        let (mut first, mut second) = (Page(100), Page(10_000));
        let mut windows = Vec::new();
        for _ in 0..7 {
            for next in [&mut first, &mut second] {
                let followed = streams.follow(*next);
                let window = streams.window(followed);
                windows.push(window);
                *next = Page(next.0 + window as u64);
                streams.expect(followed, *next);
            }
            streams.follow(Page(1 << 30)); // a fault of neither
        }
        assert_eq!(windows, [1, 1, 1, 1, 2, 2, 4, 4, 8, 8, 15, 15, 15, 15]);
    }

    #[test]
    fn the_longest_idle_sequence_is_given_up() {
        let mut streams = Streams::default();
        streams.follow(Page(1));
        (0..STREAMS as u64).for_each(|stream| _ = streams.follow(Page(1000 * (stream + 1))));
        let followed = streams.follow(Page(2));
        assert_eq!(streams.streams[followed.0].run, 1, "the first was given up");
        let followed = streams.follow(Page(8001));
        assert_eq!(streams.streams[followed.0].run, 2);
    }
}
