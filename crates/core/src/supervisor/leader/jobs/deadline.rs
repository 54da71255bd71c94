//! Budgets and deadlines: whether a job may spend more on redundancy, and how likely it ends in time.

use crate::supervisor::durable::job::Job;
use crate::supervisor::durable::learned::Learned;
use crate::supervisor::leader::jobs::active::ActiveJob;
use crate::supervisor::leader::jobs::critical;
use crate::supervisor::leader::jobs::forecast::Remaining;
use crate::supervisor::leader::redundancy::{Beliefs, Survival, above};
use crate::supervisor::leader::{Leader, LeaderView};
use hedge_model::view::DeadlineView;
use hedge_model::{JobId, Time};
use std::collections::BTreeMap;

impl LeaderView<'_> {
    /// Returns the cost of a job so far, in micro-units, including running attempts up to now.
    pub(crate) fn spent(&self, id: JobId, job: &Job) -> u64 {
        let running = self
            .tasks_of(id)
            .flat_map(|(_, known)| known.attempts())
            .filter(|attempt| attempt.state().alive() && attempt.state().in_hand());
        let price = running.map(|attempt| job.price(attempt.id(), &attempt.charge_until(self.now)));
        price.fold(job.cost.total(), u64::saturating_add)
    }

    /// Returns whether a job's budget leaves nothing for redundancy: its cost so far plus the expected cost of its
    /// remaining first attempts reaches the budget.
    pub(crate) fn over_budget(&self, id: JobId, job: &Job) -> bool {
        let Some(budget) = job.spec.qos().budget else {
            return false;
        };
        let spent = self.spent(id, job);
        spent >= budget || spent.saturating_add(self.still_to_come(id, job)) >= budget
    }

    /// Returns the expected cost of what remains of the tasks that may still be done, with one attempt each at the normal
    /// rate, in micro-units. What the first attempt of a task has cost so far is not part of it.
    fn still_to_come(&self, id: JobId, job: &Job) -> u64 {
        let each = |at: usize| {
            let group = &job.spec.groups()[at];
            let expected = self.state.learned.expect(group);
            let charge = hedge_model::ledger::Charge {
                occupied: std::time::Duration::from_secs_f64(expected.work_s.min(1e9)),
                ..Default::default()
            };
            job.tariff.price(&charge, &group.resources)
        };
        let groups = (0..job.spec.groups().len()).filter(|at| job.remaining_of(*at) > 0);
        let all = groups.map(|at| each(at).saturating_mul(u64::from(job.remaining_of(at))));
        let begun = self.tasks_of(id).filter_map(|(task, known)| {
            let mut running = known.attempts().iter();
            let first = running.find(|of| of.state().alive() && of.state().in_hand())?;
            let spent = job.price(first.id(), &first.charge_until(self.now));
            Some(spent.min(each(job.spec.group_of(task.number))))
        });
        let begun = begun.fold(0, u64::saturating_add);
        all.fold(0, u64::saturating_add).saturating_sub(begun)
    }

    /// Returns how the deadline of a job with `finish_by` stands. `remaining` is the estimate of when the job ends, if
    /// there is one. The chance is the smaller one of what its running tasks and what its turn on the grid allow.
    pub(crate) fn deadline_view(
        &self,
        id: JobId,
        job: &Job,
        remaining: Option<Remaining>,
    ) -> Option<DeadlineView> {
        let by = job.spec.qos().finish_by?;
        let ends = job.accepted + by;
        let remaining_s = ends.since(self.now).as_secs_f64();
        let missed = job.ended.as_ref().map_or(self.now, |(_, at)| *at) > ends;
        let forecast = remaining.filter(|_| !missed);
        let chance = forecast.map(|forecast| {
            let alone = self.chance(id, job, remaining_s);
            alone.min(forecast.chance(remaining_s))
        });
        Some(DeadlineView {
            finish_by_ms: by.as_secs_f64() * 1e3,
            left_ms: remaining_s * 1e3,
            chance: chance.map(|chance| (chance * 1e3).round() / 1e3),
            confidence: job.spec.qos().confidence,
            at_risk: chance.is_some_and(|chance| chance < job.spec.qos().confidence),
            missed,
        })
    }

    /// Returns the probability that a job ends within `remaining_s` seconds: that each running task leaves enough
    /// time for its bottom level, and that the pool has the throughput for the work that has not begun. It is an
    /// approximation, better near the end: paths count as independent, and the part after a running task counts with
    /// its expected length only.
    pub(crate) fn chance(&self, id: JobId, job: &Job, remaining_s: f64) -> f64 {
        let (leader, learned) = (self.leader, &self.state.learned);
        let Some(active_job) = leader.jobs.get(id) else {
            return 0.0;
        };
        if remaining_s <= 0.0 {
            return 0.0;
        }
        let pool = leader.pool.throughput();
        if pool <= 0.0 {
            return 0.0;
        }
        let groups = job.spec.groups();
        let paths = Paths {
            b_levels: critical::b_levels(&job.spec, |at| learned.expect(&groups[at]).work_s),
            leader,
            active_job,
            learned,
            job,
            now: self.now,
            remaining_s,
        };
        paths.chance(id, pool)
    }
}

/// The inputs of [`LeaderView::chance`].
struct Paths<'a> {
    leader: &'a Leader,
    active_job: &'a ActiveJob,
    learned: &'a Learned,
    job: &'a Job,
    now: Time,
    b_levels: Vec<f64>,
    remaining_s: f64,
}

impl Paths<'_> {
    fn chance(&self, id: JobId, pool: f64) -> f64 {
        let spec = &self.job.spec;
        let beliefs = self.learned.beliefs();
        let mut tables = BTreeMap::<u32, Survival>::new();
        let (mut chance, mut work) = (1.0, 0.0);
        for (task, known) in self.leader.tasks.of_job(id) {
            if known.committing().is_some() || known.alive() == 0 {
                continue;
            }
            let group = spec.group_of(task.number);
            let expected = self.learned.expect(&spec.groups()[group]);
            work += expected.work_s * 0.5;
            let table = table_of(&mut tables, expected.spread, &beliefs);
            let time = self.remaining_s - self.b_levels[group];
            let mut open = 1.0;
            for attempt in known
                .attempts()
                .iter()
                .filter(|attempt| attempt.state().alive())
            {
                let nominal =
                    expected.work_s / self.leader.pool[attempt.worker()].speed().max(1e-3);
                let elapsed = self.now.since(attempt.since()).as_secs_f64();
                let still = table.beyond(elapsed / nominal).max(1e-9);
                let late = table.beyond((elapsed + time.max(0.0)) / nominal) / still;
                open *= if time > 0.0 { late.min(1.0) } else { 1.0 };
            }
            chance *= 1.0 - open;
        }
        for (at, group) in self.active_job.groups().iter().enumerate() {
            let ready = group.remaining(spec.groups()[at].count());
            let tasks = ready + self.job.waiting_elements(at);
            if tasks == 0 || self.job.remaining_of(at) == 0 {
                continue;
            }
            let expected = self.learned.expect(&spec.groups()[at]);
            work += f64::from(tasks) * expected.work_s;
            let table = table_of(&mut tables, expected.spread, &beliefs);
            if group.waiting() == 0 {
                let late = table.beyond((self.remaining_s - self.b_levels[at]) / expected.work_s);
                chance *= (1.0 - late).powi(ready.min(10_000) as i32);
            }
        }
        // Throughput of the pool: near certain if the work fits into the remaining time, near 0 if it is far more.
        let load = work / (pool * self.remaining_s);
        chance * (1.0 - above((1.0 - load) / 0.1))
    }
}

/// Returns the survival table for a spread, rounded to fiftieths so that few tables are built.
fn table_of<'a>(
    tables: &'a mut BTreeMap<u32, Survival>,
    spread: f64,
    beliefs: &Beliefs,
) -> &'a Survival {
    let key = ((spread * 50.0).round() as u32).max(1);
    let table = tables.entry(key);
    table.or_insert_with(|| Survival::new(f64::from(key) / 50.0, beliefs))
}
