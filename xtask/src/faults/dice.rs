//! Random draws that a seed repeats: SplitMix64, by Sebastiano Vigna, in the public domain.

use std::ops::Range;
use std::time::Duration;

/// A sequence of draws.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The sequence of a seed, for one of several uses: their draws do not depend on each other's number.
    pub fn new(seed: u64, usage: u64) -> Dice {
        let mut dice = Dice(seed ^ usage.wrapping_mul(0xd1b5_4a32_d192_ed03));
        dice.next();
        dice
    }

    /// Any number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One of `range`, which is not empty.
    pub fn among(&mut self, range: Range<usize>) -> usize {
        range.start + (self.next() % (range.len().max(1) as u64)) as usize
    }

    /// A time between two numbers of milliseconds.
    pub fn span(&mut self, range_ms: Range<usize>) -> Duration {
        Duration::from_millis(self.among(range_ms) as u64)
    }

    /// True once in `n` draws.
    pub fn once_in(&mut self, n: u64) -> bool {
        self.next().is_multiple_of(n.max(1))
    }
}
