//! Time on the wall and time on a CPU. On a machine that does other things too only the second says what work costs.

use clap::ValueEnum;
use rustix::time::{ClockId, clock_gettime};
use std::time::{Duration, Instant};

/// Which of the two speeds are told in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Clock {
    /// Time as it goes by, from the first thread's start to the last one's end.
    Wall,
    /// Time on a CPU, of the thread that used most, system calls included. For machines that are busy otherwise.
    Cpu,
}

impl Clock {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Wall => "wall",
            Self::Cpu => "cpu",
        }
    }
}

/// How long something took, both ways.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Lap {
    pub(crate) wall: Duration,
    pub(crate) cpu: Duration,
}

impl Lap {
    /// By one of the clocks.
    pub(crate) const fn by(self, clock: Clock) -> Duration {
        match clock {
            Clock::Wall => self.wall,
            Clock::Cpu => self.cpu,
        }
    }

    /// 10^9 bytes a second.
    pub(crate) fn gbps(self, bytes: usize, clock: Clock) -> f64 {
        super::gbps(bytes, self.by(clock))
    }

    /// How much of a CPU the thread had.
    pub(crate) fn cpu_share(self) -> f64 {
        self.cpu.as_secs_f64() / self.wall.as_secs_f64().max(1e-9)
    }
}

/// Both times at one moment, in one thread.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) wall: Instant,
    cpu: Duration,
}

impl Moment {
    /// Now, in the calling thread.
    pub(crate) fn now() -> Self {
        Self { wall: Instant::now(), cpu: cpu_time(ClockId::ThreadCPUTime) }
    }

    /// From here to `later`, in the same thread.
    pub(crate) fn until(self, later: Self) -> Lap {
        Lap { wall: later.wall - self.wall, cpu: later.cpu.saturating_sub(self.cpu) }
    }

    /// From here to now, in the same thread.
    pub(crate) fn elapsed(self) -> Lap {
        self.until(Self::now())
    }
}

/// CPU time of all threads of this process so far.
pub(crate) fn process_cpu() -> Duration {
    cpu_time(ClockId::ProcessCPUTime)
}

fn cpu_time(clock: ClockId) -> Duration {
    Duration::try_from(clock_gettime(clock)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleeping_takes_no_cpu() {
        let start = Moment::now();
        std::thread::sleep(Duration::from_millis(30));
        let lap = start.elapsed();
        assert!(lap.wall >= Duration::from_millis(30) && lap.cpu < Duration::from_millis(15), "{lap:?}");
        assert!(lap.cpu_share() < 0.5);
    }
}
