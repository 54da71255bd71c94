//! How fast workers are, which of them are the higher class, and when benchmark tasks are due.

use crate::supervisor::leader::pool::index::step;
use crate::supervisor::leader::pool::worker::Worker;
use crate::supervisor::leader::timers::Timer;
use crate::supervisor::leader::{Leader, LeaderView, Leadership, WorkerIx};
use crate::supervisor::send;
use hedge_model::capacity::{BenchScores, Class};
use hedge_model::msg::ToWorker;
use hedge_model::record::Record;
use hedge_model::{PeerId, Time};
use std::time::Duration;

/// Scores older than this are stale, and a worker without work is asked for new ones.
const STALE_AFTER: Duration = Duration::from_secs(7 * 24 * 3600);

/// After it attached a worker is left alone for so long: what it came for goes first.
pub(crate) const BENCHMARK_AFTER: Duration = Duration::from_secs(10);
/// One that was asked and gave the tasks up, because work came or its owner, is asked again after this, and after twice
/// as long each time, up to the second; one that is busy then, so long after it has nothing in hand any more.
pub(crate) const BENCHMARK_AGAIN_AFTER: Duration = Duration::from_secs(10);
const BENCHMARK_AGAIN_AFTER_MAX: Duration = Duration::from_secs(300);

impl Leadership<'_> {
    /// Takes over what is known of a worker's speed now.
    pub(crate) fn rate(&mut self, ix: WorkerIx) {
        let leader = &mut *self.leader;
        let worker = &mut leader.pool[ix];
        let known = self.state.learned.speed(worker.peer, &worker.info.hardware);
        let before = step(worker.speed);
        worker.speed = known.speed;
        if before != step(known.speed) {
            leader.pool.reindex(ix);
            leader.rated += 1;
        }
    }

    /// Takes over what a committed record taught of a worker.
    pub(crate) fn rate_peer(&mut self, peer: PeerId) {
        if let Some(ix) = self.leader.pool.find(peer) {
            self.rate(ix);
        }
    }

    /// Draws the line between the classes again, once enough workers came or changed.
    pub(crate) fn classify(&mut self) {
        let share = f64::from(self.state.settings.higher_percent) / 100.0;
        let leader = &mut *self.leader;
        let usable = leader.pool.queues().len();
        if (leader.rated as usize) * 20 < usable.max(1) || leader.rated == 0 {
            return;
        }
        leader.rated = 0;
        let mut speeds: Vec<i64> = leader
            .pool
            .queues()
            .iter()
            .map(|(_, ix)| step(leader.pool[*ix].speed))
            .collect();
        speeds.sort_unstable_by(|a, b| b.cmp(a));
        let count = (speeds.len() as f64 * share).ceil() as usize;
        let line = speeds.get(count.max(1) - 1).copied().unwrap_or(i64::MAX);
        // Where all are alike nobody is faster.
        let alike = speeds.last().is_none_or(|slowest| *slowest >= line);
        for worker in leader.pool.iter_mut() {
            let higher = !alike && step(worker.speed) >= line;
            worker.class = if higher { Class::Higher } else { Class::Normal };
        }
        leader.higher_line = (!alike).then_some(line);
        leader.ready.unblock(|_| true);
    }

    /// A worker says what benchmark tasks found. What nobody asked for would let it fill the journal.
    pub(crate) fn on_benchmarked(&mut self, ix: WorkerIx, scores: BenchScores) {
        let at = self.now;
        let worker = &mut self.leader.pool[ix];
        let peer = worker.peer;
        if std::mem::take(&mut worker.benchmark_asked) {
            self.append(Record::Benchmarked { peer, scores, at }, None);
        }
    }

    /// Asks idle workers whose scores are missing or stale for benchmark tasks.
    pub(crate) fn benchmark(&mut self, ix: WorkerIx) {
        let (now, leader) = (self.now, &mut *self.leader);
        let worker = &mut leader.pool[ix];
        let known = self.state.learned.worker(worker.peer);
        let fresh = known
            .and_then(|known| known.scores)
            .is_some_and(|(_, at)| now.since(at) < STALE_AFTER);
        if !worker.state().reachable() {
            return;
        }
        let again = worker.benchmark_again;
        if fresh {
            worker.benchmark_again = BENCHMARK_AGAIN_AFTER;
            leader.timers.set(now + STALE_AFTER, Timer::Benchmark(ix));
        } else if !worker.load.in_hand().is_empty() {
            worker.benchmark_waits = true;
        } else if worker.usable() {
            worker.benchmark_again = (again * 2).min(BENCHMARK_AGAIN_AFTER_MAX);
            worker.benchmark_asked = true;
            send(worker.peer, ToWorker::Benchmark, self.out);
            leader.timers.set(now + again, Timer::Benchmark(ix));
        } else {
            leader
                .timers
                .set(now + BENCHMARK_AGAIN_AFTER_MAX, Timer::Benchmark(ix));
        }
    }
}

impl LeaderView<'_> {
    /// By what a worker's score is known, and how much each counts, for people.
    pub(crate) fn score_from(&self, worker: &Worker) -> String {
        let hardware = &worker.info.hardware;
        let known = self.state.learned.speed(worker.peer, hardware);
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
    /// A worker has nothing in hand any more: benchmark tasks that waited for that are due soon.
    pub fn benchmark_soon(&mut self, now: Time, ix: WorkerIx) {
        let worker = &mut self.pool[ix];
        if std::mem::take(&mut worker.benchmark_waits) {
            let again = worker.benchmark_again;
            self.timers.set(now + again, Timer::Benchmark(ix));
        }
    }

    /// Whether a class of workers is faster than the rest.
    pub fn has_higher(&self) -> bool {
        self.higher_line.is_some()
    }
}
