//! The part of the crate `base2histogram` that openraft calls, for a program that shows none of these statistics.
//!
//! Version 0.2.3 of that crate fills tables of 25 MB in every process that makes one histogram: those of all 16
//! resolutions, of which openraft uses one. This was about half of an idle supervisor's memory.

use std::fmt;
use std::marker::PhantomData;

/// How often a value of each number of bits was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    counts: [u64; 65],
    data: PhantomData<T>,
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Histogram<T> {
    /// Returns an empty histogram.
    pub fn new() -> Self {
        Self {
            counts: [0; 65],
            data: PhantomData,
        }
    }

    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts a value several times.
    pub fn record_n(&mut self, value: u64, count: u64) {
        self.counts[(u64::BITS - value.leading_zeros()) as usize] += count;
    }

    /// Returns percentiles, each rounded down to a power of two.
    pub fn percentile_stats(&self) -> PercentileStats {
        let samples = self.counts.iter().sum::<u64>();
        let at = |share: f64| {
            let rank = (samples as f64 * share).ceil() as u64;
            let mut counted = 0;
            let reached = self.counts.iter().position(|count| {
                counted += count;
                counted >= rank.max(1)
            });
            reached.map_or(0, |bits| (1 << bits) >> 1)
        };
        PercentileStats {
            samples,
            p0_1: at(0.001),
            p1: at(0.01),
            p5: at(0.05),
            p10: at(0.1),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
        }
    }
}

/// Percentiles of what was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct PercentileStats {
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            samples, p50, p99, ..
        } = self;
        write!(f, "[samples: {samples}, P50: {p50}, P99: {p99}]")
    }
}

/// Names and percentiles of several histograms, one on each line.
#[derive(Clone, Debug, Default)]
pub struct AsciiChart(Vec<(String, PercentileStats)>);

impl AsciiChart {
    /// Returns a chart without histograms.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a histogram.
    pub fn add<T>(mut self, name: impl Into<String>, histogram: Histogram<T>) -> Self {
        self.0.push((name.into(), histogram.percentile_stats()));
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each = |(name, stats): &(String, PercentileStats)| writeln!(f, "{name}: {stats}");
        self.0.iter().try_for_each(each)
    }
}
