//! Slow machines are given no task that would end sooner on a faster one that is soon free.

use crate::supervisor::durable::learned::{Expected, UNKNOWN};
use crate::supervisor::leader::jobs::group::ActiveGroup;
use crate::supervisor::leader::placement::queue::{Class, Entry, Shape};
use crate::supervisor::leader::pool::worker::Worker;
use crate::supervisor::leader::timers::Timer;
use crate::supervisor::leader::{LeaderView, Leadership, WorkerIx};
use hedge_model::{TaskId, Time};
use std::collections::BTreeMap;
use std::time::Duration;

/// Faster machines looked at for one task: bounds what a pass over the offers costs.
const LOOKED_AT_MAX: usize = 16;
/// Tasks whose end on the slow machine is nearer than this, in seconds, do not wait: little is to be won.
const WORTH_WAITING_S: f64 = 0.1;
/// A task waits for an end that is sooner by at least this share of what it would take at once.
const SOONER: f64 = 0.1;
/// A task that has run for so many times what is expected says nothing of when its machine is free.
const OVERDUE: f64 = 1.3;
/// One that runs is expected to run on for at least this share of what it takes.
const LEFT_MIN: f64 = 0.15;

/// What faster machines will do for tasks that wait for them, in one pass over the offers.
#[derive(Debug, Default)]
pub(crate) struct ReservedWorkers {
    /// Tasks that each is waited for by.
    by: BTreeMap<WorkerIx, u64>,
    /// When to look again: the first of them is overdue then.
    pub again: Option<Time>,
}

/// In how many seconds a task ends that has run for so long on a machine that takes `nominal_s` for it, as far as
/// anybody can say.
pub(crate) fn remaining_s(nominal_s: f64, elapsed_s: f64) -> Option<f64> {
    let overdue = elapsed_s > nominal_s * OVERDUE;
    (!overdue).then(|| (nominal_s - elapsed_s).max(nominal_s * LEFT_MIN))
}

fn known(expected: &Expected) -> bool {
    expected.known && expected.spread < UNKNOWN
}

/// What a group wants of faster machines.
struct Wish<'a> {
    shape: &'a Shape,
    /// Tasks that have no attempt.
    left: u64,
    /// Seconds that each takes at standard speed.
    work_s: f64,
    /// When it is to be done, seconds from now.
    by_s: f64,
}

impl Wish<'_> {
    /// How many of the tasks a worker would end in time that is free so many seconds from now.
    fn ends(&self, worker: &Worker, after: f64) -> u64 {
        let rounds = ((self.by_s - after) * worker.speed() / self.work_s).max(0.0) as u64;
        let need = self.shape.resources.cpus_milli.max(1);
        rounds.saturating_mul(worker.info().resources.cpus_milli / need)
    }
}

impl Leadership<'_> {
    /// Evaluations again at tasks that wait for faster machines when the first of these is overdue.
    pub(crate) fn recheck_deferred(&mut self, promised: &ReservedWorkers) {
        let now = self.now;
        let leader = &mut *self.leader;
        let Some(at) = promised.again else { return };
        let at = at.max(now) + Duration::from_millis(1);
        let set = leader.timers.at(Timer::Deferred);
        if set.is_none_or(|set| set > at || set <= now) {
            leader.timers.set(at, Timer::Deferred);
        }
    }
}

impl LeaderView<'_> {
    /// Whether all that a group has left of a turn would end sooner on faster machines that are soon free than a task
    /// of it on this one; they are promised then. Nobody waits for longer than the task takes here.
    pub(crate) fn worth_deferring(
        &self,
        entry: Entry,
        ix: WorkerIx,
        promised: &mut ReservedWorkers,
    ) -> bool {
        let leader = self.leader;
        let Some(wish) = self.wish(entry, ix) else {
            return false;
        };
        let own = leader.pool.speed_class_of(ix);
        let faster = leader.pool.by_speed_class().iter().take(LOOKED_AT_MAX);
        let faster = faster.take_while(|(class, _)| own.is_some_and(|own| *class < own));
        // Mostly there is more to do than they could, whatever they run now.
        let most = faster
            .clone()
            .map(|(_, other)| wish.ends(&leader.pool[*other], 0.0));
        if most.fold(0, u64::saturating_add) < wish.left {
            return false;
        }
        let (mut wanted, mut taken, mut again) = (wish.left, Vec::new(), None::<Time>);
        for (_, other) in faster {
            let worker = &leader.pool[*other];
            let fits = wish
                .shape
                .fits(&worker.info().resources, &worker.info().labels);
            let Some((after, overdue)) = self.free_in(worker).filter(|_| fits) else {
                continue;
            };
            let before = promised.by.get(other).copied().unwrap_or(0);
            let some = wish.ends(worker, after).saturating_sub(before).min(wanted);
            if some > 0 && !self.failed_at(entry, *other) {
                taken.push((*other, some));
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
        for (other, some) in taken {
            *promised.by.entry(other).or_default() += some;
        }
        promised.again = [promised.again, again].into_iter().flatten().min();
        true
    }

    /// What a group wants of faster machines; nothing where its tasks do not wait.
    fn wish(&self, entry: Entry, ix: WorkerIx) -> Option<Wish<'_>> {
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
        waits.then(|| Wish {
            shape: leader.shapes.get(offers.shape()),
            left: u64::from(offers.remaining(group.count())),
            work_s: expected.work_s,
            by_s: here_s * (1.0 - SOONER),
        })
    }

    /// In how many seconds a worker is expected to have ended what it runs, and when that is overdue; nothing where
    /// nobody can say, or where it has room now.
    fn free_in(&self, worker: &Worker) -> Option<(f64, Time)> {
        let leader = self.leader;
        let mut free: Option<(f64, Time)> = None;
        if worker.state().suspected() || !worker.load().queued().is_empty() {
            return None;
        }
        for id in worker.load().in_hand() {
            let attempt = leader.tasks.attempt(*id)?;
            if attempt.state().cancelling() || attempt.state().reported() {
                // About to be off its hands.
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
            let left = remaining_s(nominal, elapsed)?;
            let overdue = attempt.since() + Duration::from_secs_f64((nominal * OVERDUE).min(1e9));
            let (longest, first) = free.unwrap_or((0.0, overdue));
            free = Some((longest.max(left), first.min(overdue)));
        }
        free
    }

    /// Whether one of the first tasks that a group offers again failed on a worker.
    fn failed_at(&self, entry: Entry, ix: WorkerIx) -> bool {
        let Some(job) = self.state.jobs.get(&entry.job) else {
            return false;
        };
        let leader = self.leader;
        let first = job.spec.first(entry.group as usize);
        let offers = leader.jobs.group(entry.job, entry.group as usize);
        let again = offers.into_iter().flat_map(ActiveGroup::to_rerun);
        let tasks = again.take(LOOKED_AT_MAX);
        let mut known = tasks.filter_map(|offset| {
            let (job, number) = (entry.job, first + offset);
            leader.tasks.get(&TaskId { job, number })
        });
        known.any(|known| known.avoid().contains(&ix))
    }
}
