//! How soon something is tried again, when nobody tells that it is time.

use std::time::Duration;

/// The first wait: what is waited for is over soon, as a rule.
const FIRST: Duration = Duration::from_micros(50);
/// No wait is longer.
const LONGEST: Duration = Duration::from_millis(3);

/// Each wait is twice as long as the one before. So whoever waits does so for no more than twice as long as it takes, or
/// [`LONGEST`] more; and what lasts costs little.
#[derive(Debug)]
pub(crate) struct Pace {
    next: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Pace {
    /// How long to wait now.
    pub(crate) fn step(&mut self) -> Duration {
        let now = self.next;
        self.next = (now * 2).min(LONGEST);
        now
    }

    /// Something has happened: it may be what is waited for, or be so soon.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_get_longer_but_not_too_long() {
        let mut pace = Pace::default();
        let mut waited = Duration::ZERO;
        for _ in 0..100 {
            let now = pace.step();
            assert!(now <= LONGEST && now <= waited.max(FIRST) + FIRST, "{now:?} after {waited:?}");
            waited += now;
        }
        assert_eq!(pace.step(), LONGEST);
        assert!(waited > LONGEST * 90, "{waited:?}");
        pace.reset();
        assert_eq!(pace.step(), FIRST);
    }
}
