//! Speed of machines: hardware data, benchmark scores, and the two classes of workers.

use serde::{Deserialize, Serialize};

/// A machine's hardware, as far as it can tell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hardware {
    /// Logical processors.
    pub cores: u32,
    /// Highest clock rate in MHz; 0 if unknown.
    pub clock_mhz: u32,
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes of the last-level cache of one socket; 0 if unknown.
    pub cache: u64,
    /// The disk of the scratch directory.
    pub disk: DiskKind,
}

/// The kind of disk that a directory is on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskKind {
    /// Unknown.
    #[default]
    Unknown,
    /// A rotating disk.
    Rotating,
    /// Flash memory.
    Solid,
    /// Main memory.
    Memory,
}

/// Scores of one benchmark run. Each kernel uses one core and takes well under a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BenchScores {
    /// Integer work: millions of rounds of the kernel per second.
    pub integer: u64,
    /// Floating point: millions of multiplications and additions per second.
    pub float: u64,
    /// Memory: MiB copied per second.
    pub memory: u64,
    /// Disk: MiB written and synced per second.
    pub disk: u64,
}

/// The standard machine, which has speed 1: a plain 3 GHz desktop core. Only ratios to it matter.
pub const STANDARD: BenchScores = BenchScores {
    integer: 600,
    float: 2_000,
    memory: 6_000,
    disk: 300,
};

/// The class of a worker.
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
    /// Returns the name of the class.
    pub fn name(self) -> &'static str {
        match self {
            Class::Normal => "normal",
            Class::Higher => "higher",
        }
    }
}

impl Hardware {
    /// Returns the speed expected from this hardware, relative to the standard machine; none if the clock rate is
    /// unknown. The clock rate counts fully, a larger cache and flash memory a little. Ranking by clock rate alone is
    /// known to work surprisingly well (Kondo, Chien and Casanova 2007).
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
    /// Returns the speed expected from these scores, relative to [`STANDARD`]: a geometric mean in which computing
    /// counts most. Unmeasured parts are left out; none if nothing was measured.
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
