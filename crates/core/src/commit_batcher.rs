//! Group commit: decides when the next journal entry waits for more records. An entry costs every supervisor of a
//! group about the same, however many records it carries.
//!
//! With three supervisors on the two processors that also ran the tasks (10,000 tasks of 1 ms), proposing each entry
//! as soon as possible gave 0.52 of the rate of plain processes. With this delay and batched assignment hints it was
//! 0.62 to 0.69.

use hedge_model::Time;
use std::time::Duration;

/// The delay before the next entry, in multiples of the time that the last entry took to commit. A group on busy
/// machines thus gets fewer and larger entries.
const DELAY_FACTOR: u32 = 8;
/// The maximum delay.
const DELAY_MAX: Duration = Duration::from_millis(20);
/// How many entries are proposed without delay after a delay that gathered no further record. Where each task waits
/// for the one before it, a delay gains nothing.
const UNDELAYED: u32 = 16;

/// Delays journal entries that follow each other closely.
#[derive(Clone, Debug, Default)]
pub struct CommitBatcher {
    /// When the oldest uncommitted entry was proposed.
    proposed_at: Option<Time>,
    /// The time until which the next entry is delayed.
    delayed_until: Option<Time>,
    /// How many records waited when the next entry's delay began; none if no entry is being delayed.
    records_before: Option<usize>,
    /// How many further entries are proposed without delay.
    undelayed: u32,
}

impl CommitBatcher {
    /// Returns when the delayed entry is due, if that is after `now`.
    pub fn due(&self, now: Time) -> Option<Time> {
        let until = self.records_before.and(self.delayed_until);
        until.filter(|until| *until > now)
    }

    /// Returns whether an entry of this many records must wait.
    pub fn delays(&mut self, now: Time, records: usize) -> bool {
        let early = self.delayed_until.is_some_and(|until| now < until);
        if self.undelayed > 0 || !early {
            return false;
        }
        self.records_before.get_or_insert(records);
        true
    }

    /// Records that an entry of this many records was proposed.
    pub fn proposed(&mut self, now: Time, records: usize) {
        self.proposed_at.get_or_insert(now);
        self.undelayed = match self.records_before.take() {
            Some(before) if records <= before => UNDELAYED,
            Some(_) => 0,
            None => self.undelayed.saturating_sub(1),
        };
    }

    /// Records that an entry was committed, and derives the next delay from how long that took.
    pub fn committed(&mut self, now: Time) {
        let took = self.proposed_at.take().map(|at| now.since(at));
        self.delayed_until = took.map(|took| now + (took * DELAY_FACTOR).min(DELAY_MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs one second in which an entry takes `took` to commit and a record arrives every `every`, or `every` after
    /// the commit of the one before. Returns the number of entries and of records, and the longest delay of a record,
    /// not counting the wait for the entry before.
    fn second(took: Duration, every: Duration, one_by_one: bool) -> (u32, u32, Duration) {
        const STEP: Duration = Duration::from_micros(100);
        let start = Time(0);
        let mut batcher = CommitBatcher::default();
        let (mut entries, mut records, mut longest) = (0, 0, Duration::ZERO);
        let (mut waiting, mut next): (Vec<Time>, _) = (Vec::new(), start);
        let mut under_way: Option<Time> = None;
        let (mut now, mut free) = (start, start);
        while now < start + Duration::from_secs(1) {
            now = now + STEP;
            if under_way.is_some_and(|since| now >= since + took) {
                under_way = None;
                free = now;
                batcher.committed(now);
                next = if one_by_one { now + every } else { next };
            }
            while now >= next {
                waiting.push(now);
                records += 1;
                next = if one_by_one {
                    now + Duration::from_secs(9)
                } else {
                    next + every
                };
            }
            let Some(first) = waiting.first().copied() else {
                continue;
            };
            if under_way.is_none() && !batcher.delays(now, waiting.len()) {
                longest = longest.max(now.since(first.max(free)));
                batcher.proposed(now, waiting.len());
                (entries, under_way) = (entries + 1, Some(now));
                waiting.clear();
            }
        }
        (entries, records, longest)
    }

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn records_that_come_often_go_together_and_none_waits_for_long() {
        let (entries, records, longest) = second(MS, MS / 2, false);
        assert!((100..=125).contains(&entries), "{entries}");
        assert!(records >= 1_990, "{records}");
        assert!(longest <= MS * 8, "{longest:?}");
        let (entries, _, longest) = second(MS * 10, MS, false);
        assert!((31..=35).contains(&entries), "{entries}");
        assert!(longest <= DELAY_MAX, "{longest:?}");
    }

    #[test]
    fn records_that_come_seldom_do_not_wait() {
        assert_eq!(second(MS, MS * 10, false).2, Duration::ZERO);
    }

    #[test]
    fn where_each_waits_for_the_one_before_nearly_none_is_held_back() {
        let (entries, records, _) = second(MS, MS, true);
        assert_eq!(entries, records);
        assert!(records >= 400, "{records} of 500");
    }
}
