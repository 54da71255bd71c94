//! The only clock: the wall clock's time at the start, and from then on what the monotonic clock adds.

use hedge_model::Time;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Gives instants that never go back; clones are the same clock.
#[derive(Clone, Debug)]
pub struct Clock {
    start: Instant,
    at_start: Arc<AtomicU64>,
}

impl Clock {
    /// Starts at the wall clock's time, or at `recorded` where that is later.
    pub fn start(recorded: Time) -> Self {
        Self {
            start: Instant::now(),
            at_start: Arc::new(AtomicU64::new(wall().max(recorded).0)),
        }
    }

    /// Goes on from `recorded` where that is later than what it shows.
    pub fn raise(&self, recorded: Time) {
        let at_start = Time(
            recorded
                .0
                .saturating_sub(self.start.elapsed().as_nanos() as u64),
        );
        self.at_start.fetch_max(at_start.0, Ordering::Relaxed);
    }

    fn at_start(&self) -> Time {
        Time(self.at_start.load(Ordering::Relaxed))
    }

    pub fn now(&self) -> Time {
        self.at_start() + self.start.elapsed()
    }

    /// The time since this clock started, which [`Clock::raise`] does not change: for spans within one process.
    pub fn uptime(&self) -> Time {
        Time(0) + self.start.elapsed()
    }

    /// The instant of the monotonic clock at which this clock shows `time`.
    pub fn instant(&self, time: Time) -> Instant {
        self.start + time.since(self.at_start())
    }
}

fn wall() -> Time {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    Time(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// Seconds since 1970 by the wall clock, for the validity of tickets and grants.
pub fn unix_seconds() -> u64 {
    wall().0 / 1_000_000_000
}

/// Milliseconds since 1970 by the wall clock, for people who read logs.
pub fn unix_millis() -> u64 {
    wall().0 / 1_000_000
}
