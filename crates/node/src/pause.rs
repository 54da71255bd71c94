//! Backoff between attempts to connect.

use std::time::Duration;

const MIN: Duration = Duration::from_millis(20);
const MAX: Duration = Duration::from_secs(2);

/// A delay that doubles each time, up to 2 s.
#[derive(Debug)]
pub(crate) struct Pause(Duration);

impl Pause {
    /// Starts at 20 ms.
    pub fn new() -> Self {
        Self(MIN)
    }

    /// Uses the longest delay from now on.
    pub fn longest(&mut self) {
        self.0 = MAX;
    }

    /// Waits between half and all of the delay, so that many peers do not reconnect at the same moment.
    pub async fn wait(&mut self) {
        tokio::time::sleep(jittered(self.0)).await;
        self.0 = (self.0 * 2).min(MAX);
    }
}

fn jittered(wait: Duration) -> Duration {
    let mut byte = [0; 1];
    _ = getrandom::fill(&mut byte);
    wait / 2 + wait * u32::from(byte[0]) / 510
}
