//! How fast machines are: what they say of themselves, what benchmark tasks found, and the two classes.

use serde::{Deserialize, Serialize};

/// What a machine is made of, as far as it can tell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hardware {
    /// Logical processors.
    pub cores: u32,
    /// Highest clock rate in MHz; 0 where unknown.
    pub clock_mhz: u32,
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes of the last cache before memory, of one socket; 0 where unknown.
    pub cache: u64,
    /// What the scratch folder lies on.
    pub disk: DiskKind,
}

/// What kind of disk a folder lies on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskKind {
    /// Not known.
    #[default]
    Unknown,
    /// A disk that turns.
    Rotating,
    /// Flash.
    Solid,
    /// Memory.
    Memory,
}

/// What one benchmark run found, all on one core and each in well under a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BenchScores {
    /// Integer work: millions of rounds of the kernel per second.
    pub integer: u64,
    /// Floating point: millions of multiplications and additions per second.
    pub float: u64,
    /// Memory: MiB copied per second.
    pub memory: u64,
    /// Disk: MiB written and forced down per second.
    pub disk: u64,
}

/// The standard machine, whose speed is 1: a plain 3 GHz desktop core. Only ratios to it matter.
pub const STANDARD: BenchScores = BenchScores {
    integer: 600,
    float: 2_000,
    memory: 6_000,
    disk: 300,
};

/// Which of the two classes of workers something ran in.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Any worker.
    #[default]
    Normal,
    /// The faster ones.
    Higher,
}

impl Class {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Class::Normal => "normal",
            Class::Higher => "higher",
        }
    }
}

impl Hardware {
    /// The speed that these parts let expect, relative to the standard machine; nothing where no clock rate is
    /// known. The clock rate counts fully; a larger cache, and flash, a little: ranking by clock rate alone
    /// is known to be surprisingly good (Kondo, Chien and Casanova 2007).
    pub fn speed(&self) -> Option<f64> {
        if self.clock_mhz == 0 {
            return None;
        }
        let clock = f64::from(self.clock_mhz) / 3_000.0;
        let cache = match self.cache {
            0 => 1.0,
            bytes => (bytes as f64 / (8u64 << 20) as f64)
                .powf(0.05)
                .clamp(0.9, 1.1),
        };
        let disk = match self.disk {
            DiskKind::Rotating => 0.97,
            DiskKind::Unknown | DiskKind::Solid | DiskKind::Memory => 1.0,
        };
        Some((clock * cache * disk).clamp(0.05, 20.0))
    }
}

impl BenchScores {
    /// The speed that these scores let expect, relative to [`STANDARD`]: a geometric mean in which computing
    /// counts most. Parts that were not measured are left out; nothing where none was.
    pub fn speed(&self) -> Option<f64> {
        let parts = [
            (self.integer, STANDARD.integer, 0.4),
            (self.float, STANDARD.float, 0.3),
            (self.memory, STANDARD.memory, 0.2),
            (self.disk, STANDARD.disk, 0.1),
        ];
        let known = parts.iter().filter(|(found, _, _)| *found > 0);
        let (sum, weight) = known.fold((0.0, 0.0), |(sum, all), (found, standard, weight)| {
            let ratio = (*found as f64 / *standard as f64).ln();
            (sum + ratio * weight, all + weight)
        });
        (weight > 0.0).then(|| (sum / weight).exp().clamp(0.02, 50.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_are_relative_to_the_standard_machine() {
        assert_eq!(STANDARD.speed(), Some(1.0));
        assert_eq!(BenchScores::default().speed(), None);
        let twice = BenchScores {
            integer: STANDARD.integer * 2,
            ..BenchScores::default()
        };
        assert!(
            (twice.speed().unwrap() - 2.0).abs() < 1e-9,
            "what is not measured does not count"
        );
        let hardware = Hardware {
            clock_mhz: 6_000,
            ..Hardware::default()
        };
        assert!((hardware.speed().unwrap() - 2.0).abs() < 1e-9);
        assert_eq!(Hardware::default().speed(), None);
    }
}
