//! How workers are watched: heartbeats or status requests, and how often.

use super::TEN_MINUTES;
use super::fields::{duration, span};
use std::str::FromStr;
use std::time::Duration;

/// Who initiates the exchange when a worker is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The worker sends heartbeats by itself.
    Heartbeats,
    /// The supervisor sends status requests, and the worker acknowledges them.
    Poll,
}

impl Mode {
    /// Every mode with its name, which settings write before the interval, and what happens at that interval. Without
    /// a name, the first mode is meant.
    pub const WORDS: [(&'static str, Mode, &'static str); 2] = [
        ("heartbeats", Mode::Heartbeats, "heartbeats"),
        ("poll", Mode::Poll, "status requests"),
    ];

    /// Returns the name.
    pub fn name(self) -> &'static str {
        let own = Self::WORDS.iter().find(|(_, mode, _)| *mode == self);
        own.map_or("", |(word, ..)| word)
    }

    /// Returns whether the worker sends heartbeats by itself.
    pub fn sends(self) -> bool {
        match self {
            Self::Heartbeats => true,
            Self::Poll => false,
        }
    }

    /// Returns whether the supervisor sends status requests.
    pub fn asks(self) -> bool {
        match self {
            Self::Heartbeats => false,
            Self::Poll => true,
        }
    }
}

/// How to watch a worker. In text `"50ms"` for heartbeats, `"poll 50ms"` for status requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchMode {
    /// Heartbeats or status requests.
    pub mode: Mode,
    /// The interval, as far as the budget and the link allow it.
    pub interval: Duration,
}

impl WatchMode {
    /// The shortest interval between two heartbeats.
    pub const INTERVAL_MIN: Duration = Duration::from_micros(500);
    /// The longest interval between two heartbeats.
    pub const INTERVAL_MAX: Duration = TEN_MINUTES;

    /// Heartbeats at this interval.
    pub const fn heartbeats(interval: Duration) -> Self {
        let mode = Mode::Heartbeats;
        Self { mode, interval }
    }

    /// Status requests at this interval.
    pub const fn poll(interval: Duration) -> Self {
        let mode = Mode::Poll;
        Self { mode, interval }
    }

    /// Describes the text form, for the documentation.
    pub fn describe() -> String {
        let (min, max) = (span(Self::INTERVAL_MIN), span(Self::INTERVAL_MAX));
        let [(_, _, usual), others @ ..] = Mode::WORDS;
        let mut text = format!("interval, {min} to {max}, of {usual}");
        text.extend(others.map(|(word, _, what)| format!("; with `{word} ` before it, of {what}")));
        text
    }
}

impl std::fmt::Display for WatchMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.mode != Mode::WORDS[0].1 {
            write!(f, "{} ", self.mode.name())?;
        }
        f.write_str(&span(self.interval))
    }
}

impl FromStr for WatchMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let named = Mode::WORDS.into_iter().find_map(|(word, mode, _)| {
            let rest = text.strip_prefix(word)?.strip_prefix(' ')?;
            Some((mode, rest))
        });
        let (mode, text) = named.unwrap_or((Mode::WORDS[0].1, text));
        let mut interval = Duration::ZERO;
        duration(&mut interval, text, Self::INTERVAL_MIN, Self::INTERVAL_MAX)?;
        Ok(Self { mode, interval })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mode_is_read_as_it_is_written() {
        for (word, mode, _) in Mode::WORDS {
            let interval = Duration::from_millis(20);
            let way = WatchMode { mode, interval };
            assert_eq!(way.to_string().parse(), Ok(way), "{word}");
            assert_eq!(format!("{word} 20ms").parse(), Ok(way), "{word}");
        }
    }
}
