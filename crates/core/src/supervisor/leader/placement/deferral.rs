//! Deferral: a slow worker does not get a task that would end sooner on a faster worker which will soon be free.

use crate::supervisor::durable::learned::{Expected, UNKNOWN};
use crate::supervisor::leader::jobs::group::ActiveGroup;
use crate::supervisor::leader::placement::queue::{Class, Entry, Shape};
use crate::supervisor::leader::pool::worker::Worker;
use crate::supervisor::leader::timers::Timer;
use crate::supervisor::leader::{LeaderView, Leadership, WorkerIx};
use hedge_model::{TaskId, Time};
use std::collections::BTreeMap;
use std::time::Duration;

/// Faster workers considered per task: bounds the cost of a pass over the offers.
const CONSIDERED_MAX: usize = 16;
/// Tasks that take less than this on the slow worker, in seconds, are not deferred: there is little to gain.
const WORTH_WAITING_S: f64 = 0.1;
/// A task is deferred only if it then ends sooner by at least this fraction of its time on the slow worker.
const SOONER: f64 = 0.1;
/// After this multiple of its expected time, a running task says nothing about when its worker is free.
const OVERDUE: f64 = 1.3;
/// Minimum estimated time remaining of a running task, as a fraction of its expected time.
const LEFT_MIN: f64 = 0.15;

/// Faster workers that are reserved for deferred tasks in one pass over the offers.
#[derive(Debug, Default)]
pub(crate) struct ReservedWorkers {
    /// How many deferred tasks each worker is reserved for.
    tasks: BTreeMap<WorkerIx, u64>,
    /// When to check again: then the first of the running tasks is overdue.
    pub again: Option<Time>,
}

/// Returns the estimated time remaining, in seconds, of a task that needs `nominal_s` on its worker and has run for
/// `elapsed_s`; none if it is overdue.
pub(crate) fn remaining_s(nominal_s: f64, elapsed_s: f64) -> Option<f64> {
    let overdue = elapsed_s > nominal_s * OVERDUE;
    (!overdue).then(|| (nominal_s - elapsed_s).max(nominal_s * LEFT_MIN))
}

fn known(expected: &Expected) -> bool {
    expected.known && expected.spread < UNKNOWN
}

/// What a group's unassigned tasks need from faster workers.
struct Demand<'a> {
    shape: &'a Shape,
    /// Tasks without an attempt.
    tasks: u64,
    /// Time of each task, in seconds at standard speed.
    work_s: f64,
    /// When they must be done, in seconds from now.
    by_s: f64,
}

impl Demand<'_> {
    /// Returns how many of the tasks a worker can complete in time if it is free in `after` seconds.
    fn completes(&self, worker: &Worker, after: f64) -> u64 {
        let rounds = ((self.by_s - after) * worker.speed() / self.work_s).max(0.0) as u64;
        let need = self.shape.resources.cpus_milli.max(1);
        rounds.saturating_mul(worker.info().resources.cpus_milli / need)
    }
}

impl Leadership<'_> {
    /// Sets a timer to check deferred tasks again when the first of the faster workers is overdue.
    pub(crate) fn recheck_deferred(&mut self, reserved: &ReservedWorkers) {
        let now = self.now;
        let leader = &mut *self.leader;
        let Some(at) = reserved.again else { return };
        let at = at.max(now) + Duration::from_millis(1);
        let set = leader.timers.at(Timer::Deferred);
        if set.is_none_or(|set| set > at || set <= now) {
            leader.timers.set(at, Timer::Deferred);
        }
    }
}

impl LeaderView<'_> {
    /// Returns whether to defer an offer instead of running a task of it on worker `ix`: all remaining tasks of the
    /// group would end sooner on faster workers that will soon be free. Reserves these workers. A task is deferred
    /// for no longer than it takes on `ix`.
    pub(crate) fn worth_deferring(
        &self,
        entry: Entry,
        ix: WorkerIx,
        reserved: &mut ReservedWorkers,
    ) -> bool {
        let leader = self.leader;
        let Some(demand) = self.demand(entry, ix) else {
            return false;
        };
        let own = leader.pool.speed_class_of(ix);
        let faster = leader.pool.by_speed_class().iter().take(CONSIDERED_MAX);
        let faster = faster.take_while(|(class, _)| own.is_some_and(|own| *class < own));
        // Usually the faster workers could not do all of it in time even if they were idle.
        let most = faster
            .clone()
            .map(|(_, other)| demand.completes(&leader.pool[*other], 0.0));
        if most.fold(0, u64::saturating_add) < demand.tasks {
            return false;
        }
        let (mut wanted, mut chosen, mut again) = (demand.tasks, Vec::new(), None::<Time>);
        for (_, other) in faster {
            let worker = &leader.pool[*other];
            let fits = demand.shape.fits(worker.info());
            let Some((after, overdue)) = self.free_in(worker).filter(|_| fits) else {
                continue;
            };
            let before = reserved.tasks.get(other).copied().unwrap_or(0);
            let some = demand
                .completes(worker, after)
                .saturating_sub(before)
                .min(wanted);
            if some > 0 && !self.failed_at(entry, *other) {
                chosen.push((*other, some));
                wanted -= some;
                again = Some(again.map_or(overdue, |known: Time| known.min(overdue)));
            }
            if wanted == 0 {
                break;
            }
        }
        if wanted > 0 {
            return false;
        }
        for (other, some) in chosen {
            *reserved.tasks.entry(other).or_default() += some;
        }
        reserved.again = [reserved.again, again].into_iter().flatten().min();
        true
    }

    /// Returns what a group needs from faster workers; none if its tasks are not to be deferred.
    fn demand(&self, entry: Entry, ix: WorkerIx) -> Option<Demand<'_>> {
        let leader = self.leader;
        let at = entry.group as usize;
        let group = &self.state.jobs.get(&entry.job)?.spec.groups()[at];
        let offers = leader.jobs.group(entry.job, at)?;
        let expected = self.state.learned.expect(group);
        let here_s = expected.work_s / leader.pool[ix].speed().max(1e-3);
        let waited = |since: Time| self.now.since(since).as_secs_f64();
        let waits = entry.class != Class::Copy
            && known(&expected)
            && here_s >= WORTH_WAITING_S
            && offers
                .deferred_since()
                .is_none_or(|since| waited(since) <= here_s);
        waits.then(|| Demand {
            shape: leader.shapes.get(offers.shape()),
            tasks: u64::from(offers.remaining(group.count())),
            work_s: expected.work_s,
            by_s: here_s * (1.0 - SOONER),
        })
    }

    /// Returns in how many seconds a worker is expected to complete what it runs, and when the first of its tasks is
    /// overdue. Returns none if there is no estimate or if it runs nothing.
    fn free_in(&self, worker: &Worker) -> Option<(f64, Time)> {
        let leader = self.leader;
        let mut free: Option<(f64, Time)> = None;
        if worker.state().suspected() || !worker.load().queued().is_empty() {
            return None;
        }
        for id in worker.load().in_hand() {
            let attempt = leader.tasks.attempt(*id)?;
            if attempt.state().cancelling() || attempt.state().reported() {
                // Its end is near.
                let soon = self.now + Duration::from_secs_f64(WORTH_WAITING_S);
                let (longest, first) = free.unwrap_or((0.0, soon));
                free = Some((longest, first.min(soon)));
                continue;
            }
            let spec = &self.state.jobs.get(&id.task.job)?.spec;
            let group = &spec.groups()[spec.group_of(id.task.number)];
            let expected = self.state.learned.expect(group);
            let nominal = expected.work_s / worker.speed().max(1e-3);
            let elapsed = self.now.since(attempt.since()).as_secs_f64();
            if !known(&expected) || !attempt.state().alive() {
                return None;
            }
            let remaining = remaining_s(nominal, elapsed)?;
            let overdue = attempt.since() + Duration::from_secs_f64((nominal * OVERDUE).min(1e9));
            let (longest, first) = free.unwrap_or((0.0, overdue));
            free = Some((longest.max(remaining), first.min(overdue)));
        }
        free
    }

    /// Returns whether one of the first tasks that a group offers again failed on a worker.
    fn failed_at(&self, entry: Entry, ix: WorkerIx) -> bool {
        let Some(job) = self.state.jobs.get(&entry.job) else {
            return false;
        };
        let leader = self.leader;
        let first = job.spec.first(entry.group as usize);
        let offers = leader.jobs.group(entry.job, entry.group as usize);
        let again = offers.into_iter().flat_map(ActiveGroup::to_rerun);
        let tasks = again.take(CONSIDERED_MAX);
        let mut known = tasks.filter_map(|offset| {
            let (job, number) = (entry.job, first + offset);
            leader.tasks.get(&TaskId { job, number })
        });
        known.any(|known| known.avoid().contains(&ix))
    }
}
