//! The speeds of workers, which of them are in the higher class, and when to run benchmark tasks.

use crate::supervisor::leader::pool::index::speed_class;
use crate::supervisor::leader::pool::worker::Worker;
use crate::supervisor::leader::timers::Timer;
use crate::supervisor::leader::{Leader, LeaderView, Leadership, WorkerIx};
use crate::supervisor::send;
use hedge_model::capacity::{BenchScores, Class};
use hedge_model::msg::ToWorker;
use hedge_model::record::Record;
use hedge_model::{PeerId, Time};
use std::time::Duration;

/// Age from which benchmark scores are stale and an idle worker is asked for new ones.
const STALE_AFTER: Duration = Duration::from_secs(7 * 24 * 3600);

/// Delay after a worker attached before it is asked for benchmark tasks: jobs come first.
pub(crate) const BENCHMARK_AFTER: Duration = Duration::from_secs(10);
/// How long to wait before asking a worker again after it abandoned the benchmark tasks because of work or its owner.
/// Doubles each time up to the maximum. If the worker is busy then, the wait starts when it has nothing in hand.
const BENCHMARK_AGAIN_AFTER: Duration = Duration::from_secs(10);
const BENCHMARK_AGAIN_AFTER_MAX: Duration = Duration::from_secs(300);

/// When a worker is asked for benchmark tasks.
#[derive(Debug)]
pub(crate) struct BenchmarkState {
    /// Whether it was asked and has not reported scores.
    asked: bool,
    /// Whether it is to be asked once it has nothing in hand.
    waits: bool,
    /// How long to wait before it is asked again.
    again: Duration,
}

impl Default for BenchmarkState {
    fn default() -> Self {
        Self {
            asked: false,
            waits: false,
            again: BENCHMARK_AGAIN_AFTER,
        }
    }
}

impl BenchmarkState {
    /// Returns whether to ask it once it has nothing in hand.
    pub fn waits(&self) -> bool {
        self.waits
    }
}

/// The division of the workers into the classes `higher` and `normal`.
#[derive(Debug, Default)]
pub(crate) struct SpeedClasses {
    /// Workers that attached or whose speed changed since the classes were computed.
    changed: u32,
    /// Whether some workers are faster than the rest.
    higher: bool,
}

impl SpeedClasses {
    /// Records that a worker attached or its speed changed.
    pub fn changed(&mut self) {
        self.changed += 1;
    }
}

impl Leadership<'_> {
    /// Updates a worker's speed from what is learned about it.
    pub(crate) fn update_speed(&mut self, ix: WorkerIx) {
        let leader = &mut *self.leader;
        let worker = &mut leader.pool[ix];
        let known = self
            .state
            .learned
            .speed(worker.peer(), &worker.info().hardware);
        let before = speed_class(worker.speed());
        worker.set_speed(known.speed);
        if before != speed_class(known.speed) {
            leader.pool.reindex(ix);
            leader.classes.changed();
        }
    }

    /// Updates the speed of a worker after a record added to what is learned about it.
    pub(crate) fn update_speed_of(&mut self, peer: PeerId) {
        if let Some(ix) = self.leader.pool.find(peer) {
            self.update_speed(ix);
        }
    }

    /// Recomputes which workers are in the higher class, once a twentieth of them attached or changed speed.
    pub(crate) fn update_speed_classes(&mut self) {
        let share = f64::from(self.state.settings.higher_percent) / 100.0;
        let leader = &mut *self.leader;
        let usable = leader.pool.queues().len();
        let changed = leader.classes.changed;
        if (changed as usize) * 20 < usable.max(1) || changed == 0 {
            return;
        }
        let mut speeds: Vec<i64> = leader
            .pool
            .queues()
            .iter()
            .map(|(_, ix)| speed_class(leader.pool[*ix].speed()))
            .collect();
        speeds.sort_unstable_by(|a, b| b.cmp(a));
        let count = (speeds.len() as f64 * share).ceil() as usize;
        let line = speeds.get(count.max(1) - 1).copied().unwrap_or(i64::MAX);
        // If all workers are alike, none is in the higher class.
        let alike = speeds.last().is_none_or(|slowest| *slowest >= line);
        for worker in leader.pool.iter_mut() {
            let higher = !alike && speed_class(worker.speed()) >= line;
            worker.set_class(if higher { Class::Higher } else { Class::Normal });
        }
        leader.classes = SpeedClasses {
            changed: 0,
            higher: !alike,
        };
        leader.ready.retry(|_| true);
    }

    /// Records the benchmark scores that a worker was asked for. Ignores others, with which it could fill the
    /// journal.
    pub(crate) fn on_benchmarked(&mut self, ix: WorkerIx, scores: BenchScores) {
        let at = self.now;
        let worker = &mut self.leader.pool[ix];
        let peer = worker.peer();
        if std::mem::take(&mut worker.benchmark_mut().asked) {
            self.append(Record::Benchmarked { peer, scores, at }, None);
        }
    }

    /// Asks an idle worker whose scores are missing or stale for benchmark tasks.
    pub(crate) fn benchmark(&mut self, ix: WorkerIx) {
        let (now, leader) = (self.now, &mut *self.leader);
        let worker = &mut leader.pool[ix];
        let known = self.state.learned.worker(worker.peer());
        let fresh = known
            .and_then(|known| known.scores)
            .is_some_and(|(_, at)| now.since(at) < STALE_AFTER);
        if !worker.state().reachable() {
            return;
        }
        let again = worker.benchmark().again;
        if fresh {
            worker.benchmark_mut().again = BENCHMARK_AGAIN_AFTER;
            leader.timers.set(now + STALE_AFTER, Timer::Benchmark(ix));
        } else if !worker.load().in_hand().is_empty() {
            worker.benchmark_mut().waits = true;
        } else if worker.usable() {
            let benchmark = worker.benchmark_mut();
            benchmark.again = (again * 2).min(BENCHMARK_AGAIN_AFTER_MAX);
            benchmark.asked = true;
            send(worker.peer(), ToWorker::Benchmark, self.out);
            leader.timers.set(now + again, Timer::Benchmark(ix));
        } else {
            leader
                .timers
                .set(now + BENCHMARK_AGAIN_AFTER_MAX, Timer::Benchmark(ix));
        }
    }
}

impl LeaderView<'_> {
    /// Describes the sources of a worker's speed and the weight of each.
    pub(crate) fn score_from(&self, worker: &Worker) -> String {
        let hardware = &worker.info().hardware;
        let known = self.state.learned.speed(worker.peer(), hardware);
        let sheet = match hardware.clock_mhz {
            0 => "nothing",
            _ => "hardware",
        };
        let parts = ["history", "benchmarks", sheet].into_iter();
        let weights = known.weights.into_iter().rev();
        let parts = parts.zip(weights).filter(|(_, weight)| *weight >= 0.005);
        let parts: Vec<String> = parts
            .map(|(name, weight)| format!("{name} {:.0} %", weight * 100.0))
            .collect();
        parts.join(", ")
    }
}

impl Leader {
    /// Schedules benchmark tasks if they waited until the worker had nothing in hand.
    pub fn benchmark_soon(&mut self, now: Time, ix: WorkerIx) {
        let benchmark = self.pool[ix].benchmark_mut();
        if std::mem::take(&mut benchmark.waits) {
            let again = benchmark.again;
            self.timers.set(now + again, Timer::Benchmark(ix));
        }
    }

    /// Returns whether any worker is in the higher class.
    pub fn has_higher(&self) -> bool {
        self.classes.higher
    }
}
