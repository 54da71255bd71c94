//! Instants, durations and amounts of bytes, and their text forms.

use serde::{Deserialize, Serialize};
use std::ops::{Add, Sub};
use std::time::Duration;

/// An instant in nanoseconds, monotonic within one epoch, and a parameter of the state machines. At the start of an
/// epoch it is close to wall-clock nanoseconds since 1970. Instants of two machines are never compared.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Time(pub u64);

impl Time {
    /// Returns the time from `earlier` to this instant; zero if `earlier` is later.
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Time;

    fn add(self, span: Duration) -> Time {
        Time(
            self.0
                .saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

impl Sub<Duration> for Time {
    type Output = Time;

    fn sub(self, span: Duration) -> Time {
        Time(
            self.0
                .saturating_sub(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

/// A text is not an amount of the required unit. The message says what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {what}: write {example}")]
pub struct UnitError {
    /// The given text.
    pub text: String,
    /// What was required.
    pub what: &'static str,
    /// An example of what would be right.
    pub example: &'static str,
}

/// Parses a duration such as `"1s"`, `"500ms"` or `"1h 30m"`.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    humantime::parse_duration(text).map_err(|_| UnitError {
        text: text.to_owned(),
        what: "a duration",
        example: "a number and a unit, like \"500ms\", \"1s\", \"10min\" or \"1h 30m\"",
    })
}

const RATE_UNITS: [(&str, u64); 4] = [
    ("gbit/s", 1_000_000_000),
    ("mbit/s", 1_000_000),
    ("kbit/s", 1_000),
    ("bit/s", 1),
];

/// Parses a data rate in bits per second such as `"100 kbit/s"` or `"1.5 Gbit/s"`. The unit is required.
pub fn parse_rate(text: &str) -> Result<u64, UnitError> {
    let wrong = || UnitError {
        text: text.to_owned(),
        what: "a data rate",
        example: "a number and a unit, like \"100 kbit/s\", \"10 Mbit/s\" or \"1 Gbit/s\"",
    };
    let lower = text.trim().to_ascii_lowercase();
    let parts = RATE_UNITS
        .iter()
        .find_map(|(name, factor)| Some((lower.strip_suffix(name)?, *factor)));
    let (number, factor) = parts.ok_or_else(wrong)?;
    let number: f64 = number.trim().parse().map_err(|_| wrong())?;
    let rate = number * factor as f64;
    if !(0.0..9e18).contains(&rate) {
        return Err(wrong());
    }
    Ok(rate.round() as u64)
}

/// Formats a data rate for people, like `48.3 kbit/s`.
pub fn show_rate(bits_per_second: u64) -> String {
    let unit = RATE_UNITS
        .iter()
        .find(|(_, factor)| bits_per_second >= *factor);
    let (name, factor) = unit.copied().unwrap_or(("bit/s", 1));
    let name = name.replacen('g', "G", 1).replacen('m', "M", 1);
    if bits_per_second.is_multiple_of(factor) {
        format!("{} {name}", bits_per_second / factor)
    } else {
        format!("{:.1} {name}", bits_per_second as f64 / factor as f64)
    }
}

const BYTE_UNITS: [(&str, u64); 9] = [
    ("b", 1),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
];

/// Parses an amount of bytes such as `"32 MiB"`, `"1.5 GB"` or `"100 B"`. The unit is required.
pub fn parse_bytes(text: &str) -> Result<u64, UnitError> {
    let wrong = || UnitError {
        text: text.to_owned(),
        what: "an amount of bytes",
        example: "a number and a unit, like \"100 B\", \"32 MiB\" or \"1.5 GB\"",
    };
    let trimmed = text.trim();
    let split = trimmed
        .find(|c: char| c.is_ascii_alphabetic())
        .ok_or_else(wrong)?;
    let (number, unit) = trimmed.split_at(split);
    let number: f64 = number.trim().parse().map_err(|_| wrong())?;
    let unit = unit.to_ascii_lowercase();
    let (_, factor) = BYTE_UNITS
        .iter()
        .find(|(name, _)| *name == unit)
        .ok_or_else(wrong)?;
    let bytes = number * *factor as f64;
    if !(0.0..9e18).contains(&bytes) {
        return Err(wrong());
    }
    Ok(bytes.round() as u64)
}

/// Formats an amount of bytes for people, like `1.5 MiB`.
pub fn show_bytes(bytes: u64) -> String {
    let (name, factor) = [
        ("TiB", 1u64 << 40),
        ("GiB", 1 << 30),
        ("MiB", 1 << 20),
        ("KiB", 1 << 10),
    ]
    .into_iter()
    .find(|(_, factor)| bytes >= *factor)
    .unwrap_or(("B", 1));
    if factor == 1 || bytes.is_multiple_of(factor) {
        format!("{} {name}", bytes / factor)
    } else {
        format!("{:.1} {name}", bytes as f64 / factor as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_need_a_known_unit() {
        assert_eq!(parse_bytes("32 MiB"), Ok(32 << 20));
        assert_eq!(parse_bytes("1.5GB"), Ok(1_500_000_000));
        for wrong in ["32", "32 MX", "-1 B", "B", "1e99 TB", "nan B"] {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
        }
        assert_eq!(show_bytes(32 << 20), "32 MiB");
        assert_eq!(show_bytes(1536), "1.5 KiB");
    }

    #[test]
    fn time_never_wraps() {
        assert_eq!(Time(5).since(Time(9)), Duration::ZERO);
        assert_eq!(Time(u64::MAX) + Duration::from_secs(1), Time(u64::MAX));
    }
}
