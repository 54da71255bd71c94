//! The only clock: the wall clock's time at the start plus the monotonic time since then.

use hedge_model::Time;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A clock that never goes back. Clones share it.
#[derive(Clone, Debug)]
pub struct Clock {
    start: Instant,
    at_start: Arc<AtomicU64>,
}

impl Clock {
    /// Starts at the wall clock's time, or at `recorded` if that is later.
    pub fn start(recorded: Time) -> Self {
        Self {
            start: Instant::now(),
            at_start: Arc::new(AtomicU64::new(wall().max(recorded).0)),
        }
    }

    /// Advances to `recorded` if that is later than its time.
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

    /// Returns the time since this clock started, which [`Clock::raise`] does not change. For durations within one
    /// process.
    pub fn uptime(&self) -> Time {
        Time(0) + self.start.elapsed()
    }

    /// Returns the monotonic instant at which this clock shows `time`.
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

/// Returns wall-clock seconds since 1970, for the validity of tickets and grants.
pub fn unix_seconds() -> u64 {
    wall().0 / 1_000_000_000
}

/// Returns wall-clock milliseconds since 1970, for people who read logs.
pub fn unix_millis() -> u64 {
    wall().0 / 1_000_000
}
