//! When an entry waits for more records: each costs every supervisor of a group much the same, whatever is in it.
//!
//! Three supervisors on the two processors that also ran the tasks gave 0.52 of the rate of plain processes with an
//! entry whenever one could set out, and 0.62 to 0.69 with rests and hints that travel together (10,000 tasks of 1 ms).

use std::time::Duration;
use tokio::time::Instant;

/// After an entry the next one waits for so many times as long as that took: a group whose machines are busy, where
/// each entry takes long, has fewer and larger ones.
const REST: u32 = 8;
/// But no longer than this.
const REST_MAX: Duration = Duration::from_millis(20);
/// So many entries set out at once after one that waited in vain: where each task waits for the one before, nothing
/// is gained by waiting.
const SPARE: u32 = 16;

/// Holds back entries while others follow each other closely.
#[derive(Debug)]
pub(super) struct Gather {
    /// When the entry under way set out.
    out: Option<Instant>,
    /// Until when the next one is to wait.
    rest: Option<Instant>,
    /// How many records there were when the next one began to wait.
    held: Option<usize>,
    spare: u32,
}

impl Gather {
    pub const fn new() -> Self {
        Self {
            out: None,
            rest: None,
            held: None,
            spare: 0,
        }
    }

    /// When the entry that waits is to set out, while that is still to come.
    pub fn until(&self, now: Instant) -> Option<Instant> {
        let rest = self.held.and(self.rest);
        rest.filter(|rest| *rest > now)
    }

    /// Whether an entry of so many records is to wait.
    pub fn holds(&mut self, now: Instant, records: usize) -> bool {
        let rests = self.rest.is_some_and(|rest| now < rest);
        if self.spare > 0 || !rests {
            return false;
        }
        self.held.get_or_insert(records);
        true
    }

    /// An entry of so many records sets out.
    pub fn sets_out(&mut self, now: Instant, records: usize) {
        self.out.get_or_insert(now);
        self.spare = match self.held.take() {
            Some(before) if records <= before => SPARE,
            Some(_) => 0,
            None => self.spare.saturating_sub(1),
        };
    }

    /// An entry is committed.
    pub fn arrived(&mut self, now: Instant) {
        let took = self.out.take().map(|out| now - out);
        self.rest = took.map(|took| now + (took * REST).min(REST_MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What happens within a second where entries take `took` and records come every `every`, or `every` after the
    /// commit of the one before: how many entries there are, how many records, and how long one waited at most, but
    /// for the entry that was under way.
    fn second(took: Duration, every: Duration, one_by_one: bool) -> (u32, u32, Duration) {
        const STEP: Duration = Duration::from_micros(100);
        let start = Instant::now();
        let mut gather = Gather::new();
        let (mut entries, mut records, mut longest) = (0, 0, Duration::ZERO);
        let (mut waiting, mut next): (Vec<Instant>, _) = (Vec::new(), start);
        let mut under_way: Option<Instant> = None;
        let (mut now, mut free) = (start, start);
        while now < start + Duration::from_secs(1) {
            now += STEP;
            if under_way.is_some_and(|since| now >= since + took) {
                under_way = None;
                free = now;
                gather.arrived(now);
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
            if under_way.is_none() && !gather.holds(now, waiting.len()) {
                longest = longest.max(now - first.max(free));
                gather.sets_out(now, waiting.len());
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
        assert!(longest <= REST_MAX, "{longest:?}");
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
