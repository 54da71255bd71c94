//! Statistics of ended attempts: how long tasks of a kind take, how fast workers are, how often executions straggle
//! and machines are lost. Durable: only committed records change them.
//!
//! Times are compared as logarithms of actual over expected time. Each execution is weighted by the probability that
//! it did not straggle (one step of expectation maximisation for a mixture). Stragglers thus do not make a worker
//! look slow or a kind of task long.

use crate::supervisor::durable::beliefs::Beliefs;
use crate::supervisor::durable::state::State;
use hedge_model::capacity::{BenchScores, Hardware};
use hedge_model::ledger::Stopped;
use hedge_model::msg::Usage;
use hedge_model::record::Record;
use hedge_model::spec::Group;
use hedge_model::{AttemptId, JobSpec, PeerId, Time};
use imbl::OrdMap;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Shorter executions are ignored: their time is mostly start-up. Seconds.
const TIME_MIN: f64 = 1e-3;
/// The most kinds of tasks to remember. Beyond it, the least recently used kind is forgotten.
const KINDS_MAX: usize = 10_000;
/// The most workers to remember.
const WORKERS_MAX: usize = 200_000;
/// The weight of a kind's history, in executions. Older executions fade, so that changes are learned.
const MEMORY: f64 = 300.0;
/// The same for a worker, shorter because machines change with what their owners do.
const WORKER_MEMORY: f64 = 50.0;
/// Executions of a kind from which on its use of CPUs is known.
const CPUS_BUSY_MIN: f64 = 3.0;
/// The same for tasks whose times differ by at most this variance of the logarithm.
const CPUS_BUSY_VARIANCE: f64 = 0.2;
/// The weight of prior beliefs, in executions.
const PRIOR: f64 = 30.0;
/// If the standard deviation of the logarithm of a task's time is above this, its end cannot be predicted.
pub(crate) const UNKNOWN: f64 = 0.7;
/// Variance of the logarithm of the time of a task of unknown kind without an estimate.
const UNKNOWN_VARIANCE: f64 = 1.0;
/// Variance of the logarithm of a kind's times around its mean or the given estimates, about as in the calibration:
/// 0.2 for the error of estimates and 0.15 for speeds (standard deviations).
const KIND_VARIANCE: f64 = 0.06;
/// Variance of the logarithm of a worker's speed, if known from nothing, from its hardware, from benchmark tasks.
const SPEED_VARIANCE: [f64; 3] = [0.12, 0.09, 0.0225];
/// Prior for losses: one in this many seconds (a day), with the weight of this many losses.
const LOSS_EVERY: f64 = 86_400.0;
const LOSS_WEIGHT: f64 = 0.005;

/// A fading mean and variance of logarithms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FadingStats {
    count: f64,
    mean: f64,
    /// Sum of squared distances from the mean.
    squares: f64,
}

impl FadingStats {
    fn add(&mut self, value: f64, weight: f64, memory: f64) {
        if self.count > memory {
            let fade = memory / self.count;
            self.count *= fade;
            self.squares *= fade;
        }
        self.count += weight;
        let distance = value - self.mean;
        self.mean += distance * weight / self.count.max(1e-9);
        self.squares += weight * distance * (value - self.mean);
    }

    /// The mean, drawn towards 0 as if by `prior` values of 0.
    fn mean(&self, prior: f64) -> f64 {
        self.mean * self.count / (self.count + prior)
    }

    /// The variance, drawn towards `expected` as if by `prior` values.
    fn variance(&self, expected: f64, prior: f64) -> f64 {
        (self.squares + expected * prior) / (self.count + prior)
    }
}

/// Statistics of one kind of tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct KindHistory {
    /// Logarithms of seconds at standard speed.
    took: FadingStats,
    /// Logarithms of actual time over the job's own estimate.
    off: FadingStats,
    /// Peak memory in bytes, fading.
    pub(crate) memory: f64,
    /// Fading mean of CPU seconds.
    pub(crate) cpu: f64,
    /// Fading mean of bytes fetched.
    pub(crate) moved: f64,
    /// Fading mean of bytes of outputs.
    pub(crate) left: f64,
    /// The value of [`Learned::uses`] at its last use.
    used: u64,
}

/// Statistics of one worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkerHistory {
    /// Logarithms of its speed, from executions.
    pub(crate) speed: FadingStats,
    /// The scores of benchmark tasks, and their time.
    pub(crate) scores: Option<(BenchScores, Time)>,
    /// Attempts lost with it.
    pub(crate) lost: u64,
    /// Seconds that its attempts ran.
    pub(crate) busy_s: f64,
    used: u64,
}

/// All statistics.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Learned {
    #[serde(deserialize_with = "crate::supervisor::durable::bounded::map")]
    kinds: OrdMap<Arc<str>, KindHistory>,
    #[serde(deserialize_with = "crate::supervisor::durable::bounded::map")]
    workers: OrdMap<PeerId, WorkerHistory>,
    /// The total weight of executions that straggled, and of all.
    straggled: f64,
    executions: f64,
    /// Attempts lost and seconds that attempts ran, in the whole pool.
    lost: f64,
    busy_s: f64,
    uses: u64,
}

/// The expected time of a task at standard speed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Expected {
    /// Seconds.
    pub work_s: f64,
    /// Standard deviation of the logarithm.
    pub spread: f64,
    /// Whether it comes from an estimate or from history, and is not a guess.
    pub known: bool,
}

/// A worker's expected speed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Speed {
    /// Relative to the standard machine.
    pub speed: f64,
    /// The shares of hardware (or nothing), benchmark tasks and history in it; they sum to 1.
    pub weights: [f64; 3],
}

impl State {
    /// Returns the model of execution times in this grid, from all statistics.
    pub fn beliefs(&self) -> Beliefs {
        self.learned.beliefs()
    }

    /// Learns from an attempt that won, and from those that it stopped.
    pub(crate) fn learn_success(&mut self, record: &Record) {
        let Record::TaskDone {
            attempt,
            worker,
            usage,
            outputs,
            stopped,
            ..
        } = record
        else {
            return;
        };
        let Some(spec) = self.jobs.get(&attempt.task.job).map(|job| job.spec.clone()) else {
            return;
        };
        let group = &spec.groups()[spec.group_of(attempt.task.number)];
        if ran_whole(attempt, group) {
            self.learned.note_execution(*worker, group, usage, true);
        }
        self.learned.note_stopped(&spec, stopped);
        let bytes = outputs
            .iter()
            .fold(0, |sum: u64, file| sum.saturating_add(file.data.size()));
        self.learned.note_output_bytes(group, bytes);
    }
}

/// Returns whether an attempt ran its task from the beginning. One that may have resumed from a checkpoint says nothing
/// about the time of the whole task.
fn ran_whole(attempt: &AttemptId, group: &Group) -> bool {
    group.checkpoint.is_none() || attempt.number == 1
}

impl KindHistory {
    /// Returns how many tasks of the kind were done, older ones fading.
    pub(crate) fn seen(&self) -> f64 {
        self.took.count
    }

    /// Returns how many CPUs tasks of the kind kept busy on average; none if too few were done.
    pub(crate) fn cpus_busy(&self) -> Option<f64> {
        let alike = self.took.variance(0.0, 0.0) < CPUS_BUSY_VARIANCE;
        let known = self.took.count >= CPUS_BUSY_MIN && alike;
        known.then(|| self.cpu / self.took.mean.exp())
    }
}

impl Learned {
    /// Learns from attempts that were stopped: how long they had run says something about straggling.
    pub(crate) fn note_stopped(&mut self, spec: &JobSpec, stopped: &[Stopped]) {
        for stop in stopped {
            let number = stop.attempt.task.number;
            if number < spec.task_count() {
                let usage = Usage {
                    running: stop.charge.occupied,
                    ..Usage::default()
                };
                let group = &spec.groups()[spec.group_of(number)];
                if ran_whole(&stop.attempt, group) {
                    self.note_execution(stop.worker, group, &usage, false);
                }
            }
        }
    }

    /// Returns the expected time of a group's tasks.
    pub(crate) fn expect(&self, group: &Group) -> Expected {
        let kind = self.kinds.get(group.kind());
        let given = group
            .estimate
            .cpu_time
            .map(|time| time.as_secs_f64().max(TIME_MIN));
        match (given, kind) {
            (Some(given), Some(kind)) => Expected {
                work_s: given * kind.off.mean(5.0).clamp(-3.0, 3.0).exp(),
                spread: kind.off.variance(KIND_VARIANCE, PRIOR).sqrt(),
                known: true,
            },
            (Some(work_s), None) => Expected {
                work_s,
                spread: KIND_VARIANCE.sqrt(),
                known: true,
            },
            (None, Some(kind)) if kind.took.count >= 1.0 => Expected {
                work_s: kind.took.mean.exp().max(TIME_MIN),
                spread: kind.took.variance(UNKNOWN_VARIANCE, 2.0).sqrt(),
                known: true,
            },
            (None, _) => Expected {
                work_s: 1.0,
                spread: UNKNOWN_VARIANCE.sqrt(),
                known: false,
            },
        }
    }

    /// Returns whether at least this many tasks of the group's kind were done, in similar times.
    pub(crate) fn has_seen(&self, group: &Group, done: f64) -> bool {
        let kind = self.kinds.get(group.kind());
        kind.is_some_and(|kind| kind.took.count >= done) && self.expect(group).spread < UNKNOWN
    }

    /// Returns the statistics of a group's kind.
    pub(crate) fn kind(&self, group: &Group) -> Option<&KindHistory> {
        self.kinds.get(group.kind())
    }

    /// Returns the statistics of a worker.
    pub(crate) fn worker(&self, peer: PeerId) -> Option<&WorkerHistory> {
        self.workers.get(&peer)
    }

    /// Returns the model of execution times.
    pub fn beliefs(&self) -> Beliefs {
        let shipped = Beliefs::default();
        Beliefs {
            straggling: (self.straggled + shipped.straggling * PRIOR) / (self.executions + PRIOR),
            ..shipped
        }
    }

    /// Returns the expected speed of a worker. Each source counts by the inverse of its variance, so that with more
    /// evidence history outweighs benchmarks, and benchmarks outweigh the hardware data.
    pub(crate) fn speed(&self, peer: PeerId, hardware: &Hardware) -> Speed {
        let (sum, evidence) = self.evidence(peer, hardware);
        // The worker that looks fastest of many is probably overrated. That machines are alike therefore counts as
        // evidence too.
        let usual = 1.0 / SPEED_VARIANCE[0];
        let all: f64 = evidence.iter().sum();
        Speed {
            speed: (sum / (all + usual)).exp().clamp(0.01, 100.0),
            weights: evidence.map(|weight| weight / all),
        }
    }

    /// Returns the speed that was measured for a worker, not drawn towards that of a typical machine. Statistics of
    /// tasks use it: otherwise they would drift as fast workers get more of the tasks.
    fn found_speed(&self, peer: PeerId) -> f64 {
        let (sum, evidence) = self.evidence(peer, &Hardware::default());
        let all: f64 = evidence.iter().sum();
        (sum / all).exp().clamp(0.01, 100.0)
    }

    /// Returns the evidence for a worker's speed: the weighted sum of logarithms, and the weights of hardware or
    /// nothing, benchmark tasks and history.
    fn evidence(&self, peer: PeerId, hardware: &Hardware) -> (f64, [f64; 3]) {
        let known = self.workers.get(&peer);
        let sheet = hardware
            .speed()
            .map_or((0.0, 1.0 / SPEED_VARIANCE[0]), |speed| {
                (speed.ln(), 1.0 / SPEED_VARIANCE[1])
            });
        let bench = known
            .and_then(|known| known.scores?.0.speed())
            .map_or((0.0, 0.0), |speed| (speed.ln(), 1.0 / SPEED_VARIANCE[2]));
        let history = known.map_or((0.0, 0.0), |known| {
            let history = &known.speed;
            (history.mean, history.count / KIND_VARIANCE)
        });
        let unknown = hardware.speed().is_none();
        let sheet = if unknown && bench.1 + history.1 > 0.0 {
            (0.0, 0.0)
        } else {
            sheet
        };
        let sum = sheet.0 * sheet.1 + bench.0 * bench.1 + history.0 * history.1;
        (sum, [sheet.1, bench.1, history.1])
    }

    /// Returns the rate at which a worker is lost while it runs something, per second. `running_s` is the total time
    /// of the attempts that run now, in the whole pool.
    pub(crate) fn loss_per_s(&self, peer: PeerId, running_s: f64) -> f64 {
        let pool = (self.lost + LOSS_WEIGHT) / (self.busy_s + running_s + LOSS_WEIGHT * LOSS_EVERY);
        let Some(own) = self.workers.get(&peer) else {
            return pool;
        };
        // The pool's rate counts like two losses beside the worker's own record.
        (own.lost as f64 + 2.0) / (own.busy_s + 2.0 / pool)
    }

    /// Stores the scores of benchmark tasks.
    pub(crate) fn benchmarked(&mut self, peer: PeerId, scores: BenchScores, at: Time) {
        self.worker_mut(peer).scores = Some((scores, at));
    }

    /// Learns from an execution that succeeded (`done`) or was stopped.
    fn note_execution(&mut self, peer: PeerId, group: &Group, usage: &Usage, done: bool) {
        let running_s = usage.running.saturating_sub(usage.paused).as_secs_f64();
        if !(TIME_MIN..1e9).contains(&running_s) {
            return;
        }
        let speed = self.found_speed(peer);
        let expected = self.expect(group);
        let off = (running_s * speed / expected.work_s).ln();
        let straggled = self.beliefs().straggled(off, expected.spread, done);
        self.busy_s += running_s;
        self.executions = self.executions.min(MEMORY * 10.0);
        if expected.known && (done || straggled > 0.5) {
            let fade = if self.executions >= MEMORY * 10.0 {
                1.0 - 1.0 / self.executions
            } else {
                1.0
            };
            self.straggled = self.straggled * fade + straggled;
            self.executions = self.executions * fade + 1.0;
        }
        let weight = 1.0 - straggled;
        let worker = self.worker_mut(peer);
        worker.busy_s += running_s;
        if done && expected.known && weight > 0.01 {
            worker
                .speed
                .add((expected.work_s / running_s).ln(), weight, WORKER_MEMORY);
        }
        if done {
            self.note_kind(group, usage, running_s * speed, weight);
        }
    }

    fn note_kind(&mut self, group: &Group, usage: &Usage, work_s: f64, weight: f64) {
        self.uses += 1;
        if self.kinds.len() >= KINDS_MAX && !self.kinds.contains_key(group.kind()) {
            let oldest = self.kinds.iter().min_by_key(|(_, kind)| kind.used);
            if let Some(name) = oldest.map(|(name, _)| name.clone()) {
                self.kinds.remove(&name);
            }
        }
        let uses = self.uses;
        let kind = self.kinds.entry(group.kind().clone()).or_default();
        kind.used = uses;
        if kind.took.count == 0.0 || weight > 0.01 {
            kind.took.add(work_s.ln(), weight.max(0.01), MEMORY);
        }
        if let Some(given) = group.estimate.cpu_time {
            let given = given.as_secs_f64().max(TIME_MIN);
            kind.off.add((work_s / given).ln(), weight, MEMORY);
        }
        let fade = |mean: &mut f64, value: f64| {
            *mean = if *mean == 0.0 {
                value
            } else {
                *mean * 0.9 + value * 0.1
            };
        };
        kind.memory = (kind.memory * 0.99).max(usage.memory_peak as f64);
        fade(&mut kind.cpu, usage.cpu.as_secs_f64());
        fade(&mut kind.moved, usage.moved as f64);
    }

    /// Learns the size of a task's outputs.
    fn note_output_bytes(&mut self, group: &Group, bytes: u64) {
        if let Some(kind) = self.kinds.get_mut(group.kind()) {
            kind.left = if kind.left == 0.0 {
                bytes as f64
            } else {
                kind.left * 0.9 + bytes as f64 * 0.1
            };
        }
    }

    /// Records that an attempt was lost with its worker after `running_s`.
    pub(crate) fn lost(&mut self, peer: PeerId, running_s: f64) {
        self.lost += 1.0;
        self.busy_s += running_s;
        let worker = self.worker_mut(peer);
        worker.lost += 1;
        worker.busy_s += running_s;
    }

    fn worker_mut(&mut self, peer: PeerId) -> &mut WorkerHistory {
        self.uses += 1;
        if self.workers.len() >= WORKERS_MAX && !self.workers.contains_key(&peer) {
            let oldest = self.workers.iter().min_by_key(|(_, worker)| worker.used);
            if let Some(oldest) = oldest.map(|(peer, _)| *peer) {
                self.workers.remove(&oldest);
            }
        }
        let uses = self.uses;
        let worker = self.workers.entry(peer).or_default();
        worker.used = uses;
        worker
    }
}
