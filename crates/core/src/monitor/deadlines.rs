//! Deadlines: when to check each watched worker next.

use hedge_model::Time;
use std::collections::BTreeSet;

/// Deadlines are rounded to 2^16 ns, about 66 µs, an eighth of the shortest interval. Deadlines that are closer fire
/// together.
const TICK_BITS: u32 = 16;

/// At most one deadline for each number. Numbers are small and reused.
#[derive(Clone, Debug, Default)]
pub(super) struct Deadlines {
    due: BTreeSet<(u64, u32)>,
    /// The tick of each number, if it has a deadline.
    set: Vec<Option<u64>>,
}

impl Deadlines {
    /// Sets the deadline of `number`. It fires at the first tick that is not before `at`.
    pub fn set(&mut self, number: u32, at: Time) {
        if self.set.len() <= number as usize {
            self.set.resize(number as usize + 1, None);
        }
        let tick = at.0.div_ceil(1 << TICK_BITS);
        let old = self.set[number as usize].replace(tick);
        if old != Some(tick) {
            self.due.extend([(tick, number)]);
            self.forget(old, number);
        }
    }

    /// Removes the deadline of `number`.
    pub fn clear(&mut self, number: u32) {
        let old = self.set.get_mut(number as usize).and_then(Option::take);
        self.forget(old, number);
    }

    /// Returns when the first deadline fires.
    pub fn next(&self) -> Option<Time> {
        self.due.first().map(|(tick, _)| Time(tick << TICK_BITS))
    }

    /// Appends the numbers whose deadlines have passed to `fired`, in order, and removes these deadlines.
    pub fn advance(&mut self, now: Time, fired: &mut Vec<u32>) {
        let now = now.0 >> TICK_BITS;
        while let Some((tick, number)) = self.due.first().copied()
            && tick <= now
        {
            self.clear(number);
            fired.push(number);
        }
    }

    fn forget(&mut self, tick: Option<u64>, number: u32) {
        if let Some(tick) = tick {
            self.due.remove(&(tick, number));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: u64 = 1 << TICK_BITS;

    #[test]
    fn each_number_has_one_deadline_which_fires_once_and_never_early() {
        let mut deadlines = Deadlines::default();
        deadlines.set(3, Time(TICK + 1));
        deadlines.set(1, Time(5 * TICK));
        deadlines.set(1, Time(2 * TICK));
        deadlines.set(0, Time(9 * TICK));
        deadlines.clear(0);
        deadlines.clear(7);
        assert_eq!(deadlines.next(), Some(Time(2 * TICK)));
        let mut fired = Vec::new();
        deadlines.advance(Time(2 * TICK - 1), &mut fired);
        assert_eq!(fired, [0; 0]);
        deadlines.advance(Time(3 * TICK), &mut fired);
        assert_eq!((fired, deadlines.next()), (vec![1, 3], None));
    }
}
