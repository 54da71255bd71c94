//! When a worker sends heartbeats: at the interval of the supervisor's plan, and at once to answer a status request.

use hedge_model::Time;
use hedge_model::msg::{Heartbeat, HeartbeatPlan};
use hedge_model::settings::WatchMode;
use std::time::Duration;

/// The most missed heartbeats that are sent later if the worker's thread ran late. They are worth sending because
/// attempts are included in turn. After a longer delay, as when the machine slept or froze, none are.
const MADE_UP_MAX: u32 = 8;

/// The heartbeats of one connection to a supervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeartbeatSchedule {
    /// The number of the last heartbeat.
    seq: u64,
    /// The number of the plan that the worker follows; 0 before it has received one.
    plan: u32,
    /// The interval; none if the worker only answers status requests.
    every: Option<Duration>,
    next: Option<Time>,
}

impl HeartbeatSchedule {
    /// Creates the schedule of a new connection: a heartbeat is due at once, and then every `every` until the
    /// supervisor sends a plan.
    pub fn new(now: Time, every: Duration) -> Self {
        Self {
            seq: 0,
            plan: 0,
            every: Some(clamped(every)),
            next: Some(now),
        }
    }

    /// Begins again on the same connection. The numbers continue, because a supervisor that leads again would ignore
    /// lower ones.
    pub fn restart(&mut self, now: Time, every: Duration) {
        let seq = self.seq;
        *self = Self {
            seq,
            ..Self::new(now, every)
        };
    }

    /// Follows the supervisor's plan from now on. A heartbeat is due at once.
    pub fn follow(&mut self, now: Time, plan: &HeartbeatPlan) {
        self.plan = plan.number;
        self.every = plan.every.map(clamped);
        self.next = Some(now);
    }

    /// Returns when the next heartbeat is due; none if the worker only answers status requests.
    pub fn next(&self) -> Option<Time> {
        self.next
    }

    /// Returns the heartbeat that is due, if one is. The caller adds attempts and the worker's response to its owner.
    pub fn due(&mut self, now: Time) -> Option<Heartbeat> {
        let due = self.next.filter(|next| *next <= now)?;
        self.next = self.every.map(|every| {
            let next = due + every;
            match next + every * MADE_UP_MAX <= now {
                true => now + every,
                false => next,
            }
        });
        Some(self.heartbeat(now, 0))
    }

    /// Returns the heartbeat that answers a status request. The caller adds to it as in [`Self::due`].
    pub fn answer(&mut self, now: Time, request: u64) -> Heartbeat {
        self.heartbeat(now, request)
    }

    fn heartbeat(&mut self, now: Time, answers: u64) -> Heartbeat {
        self.seq += 1;
        Heartbeat {
            seq: self.seq,
            sent_ns: now.0,
            plan: self.plan,
            answers,
            ..Heartbeat::default()
        }
    }
}

fn clamped(every: Duration) -> Duration {
    every.clamp(WatchMode::INTERVAL_MIN, WatchMode::INTERVAL_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    fn at(count: u64) -> Time {
        Time(0) + ms(count)
    }

    fn plan(number: u32, every: Option<Duration>) -> HeartbeatPlan {
        HeartbeatPlan {
            number,
            every,
            progress_every: ms(100),
        }
    }

    /// Number, plan and answered request of each heartbeat that is due at a time.
    fn sent(schedule: &mut HeartbeatSchedule, now: Time) -> Vec<(u64, u32, u64)> {
        let due = std::iter::from_fn(|| schedule.due(now));
        due.map(|sent| (sent.seq, sent.plan, sent.answers))
            .collect()
    }

    #[test]
    fn heartbeats_follow_the_newest_plan_and_count_up_on_one_connection() {
        let mut schedule = HeartbeatSchedule::new(at(0), ms(100));
        assert_eq!(sent(&mut schedule, at(0)), [(1, 0, 0)]);
        assert_eq!(schedule.next(), Some(at(100)));
        schedule.follow(at(40), &plan(1, Some(ms(10))));
        assert_eq!(sent(&mut schedule, at(40)), [(2, 1, 0)], "at once");
        assert_eq!(schedule.next(), Some(at(50)));
        assert_eq!(schedule.answer(at(45), 7).answers, 7);
        assert_eq!(sent(&mut schedule, at(50)), [(4, 1, 0)]);
        schedule.restart(at(55), ms(100));
        assert_eq!(sent(&mut schedule, at(55)), [(5, 0, 0)]);
        assert_eq!(schedule.next(), Some(at(155)));
    }

    #[test]
    fn a_worker_that_is_polled_sends_one_heartbeat_for_the_plan_and_then_answers_only() {
        let mut schedule = HeartbeatSchedule::new(at(0), ms(100));
        schedule.follow(at(5), &plan(1, None));
        assert_eq!(sent(&mut schedule, at(5)), [(1, 1, 0)]);
        assert_eq!(schedule.next(), None);
        assert_eq!(sent(&mut schedule, at(10_000)), []);
        assert_eq!(schedule.answer(at(10_000), 3).seq, 2);
    }

    #[test]
    fn a_late_thread_sends_the_heartbeats_that_it_missed_and_a_frozen_one_sends_one() {
        let mut late = HeartbeatSchedule::new(at(0), ms(10));
        assert_eq!(sent(&mut late, at(0)).len(), 1);
        assert_eq!(sent(&mut late, at(45)).len(), 4);
        assert_eq!(late.next(), Some(at(50)));
        assert_eq!(sent(&mut late, at(1_000)).len(), 1);
        assert_eq!(late.next(), Some(at(1_010)));
    }

    #[test]
    fn intervals_beyond_what_settings_allow_are_bounded() {
        let mut schedule = HeartbeatSchedule::new(at(0), Duration::ZERO);
        assert_eq!(sent(&mut schedule, at(0)).len(), 1);
        assert_eq!(schedule.next(), Some(Time(0) + WatchMode::INTERVAL_MIN));
    }
}
