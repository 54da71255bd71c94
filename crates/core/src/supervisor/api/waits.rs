//! Explains why tasks that could start do not run.

use crate::supervisor::durable::job::Job;
use crate::supervisor::leader::LeaderView;
use crate::supervisor::leader::placement::unplaceable::unplaceable;
use crate::supervisor::leader::pool::worker::Worker;
use hedge_model::spec::CriticalPlacement;
use hedge_model::{JobId, TaskId};
use std::time::Duration;

/// The most reasons given for one job.
const REASONS_MAX: usize = 5;

/// Why the next task of a group does not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// The leader is at the recovery barrier: the task may run already.
    RecoveryBarrier,
    /// Inputs cannot be reached.
    Inputs,
    /// No worker is connected.
    NoWorker,
    /// No connected worker could ever run it.
    Unfit(String),
    /// Workers could run it, but none of them takes tasks now.
    Unusable(String),
    /// It failed and is retried after this time.
    Retry(Duration),
    /// It failed on all workers with free slots.
    Failed,
    /// It is deferred: it will be done sooner on a faster worker.
    Deferred,
    /// It is critical and waits for a worker of the higher class.
    Class,
    /// All workers that could run it are busy; their number.
    Busy(usize),
}

impl Wait {
    /// Returns whether the reason does not go away by itself. Such a reason is shown even while other tasks of the
    /// job run.
    fn lasts(&self) -> bool {
        matches!(
            self,
            Self::NoWorker | Self::Unfit(_) | Self::Unusable(_) | Self::Inputs
        )
    }

    /// Returns the reason as text for people.
    pub fn text(&self) -> String {
        match self {
            Self::RecoveryBarrier => {
                "it may run already: workers that have not come back yet are waited for".into()
            }
            Self::Inputs => "some of its inputs are out of reach; their holders may return, or they are made again".into(),
            Self::NoWorker => {
                "no worker is connected; `hedge ticket worker` prints what `hedge worker --join` needs".into()
            }
            Self::Unfit(why) | Self::Unusable(why) => why.clone(),
            Self::Retry(left) => format!("it failed, and is tried again in {:.1} s", left.as_secs_f64()),
            Self::Failed => "it failed on the workers that are free, and waits for another one".into(),
            Self::Deferred => "it ends sooner on a faster worker, which is soon free".into(),
            Self::Class => "it is critical, and waits for a worker of the higher class".into(),
            Self::Busy(1) => {
                "waits for its turn: the one worker that could run it is busy with work of the same or higher priority".into()
            }
            Self::Busy(count) => format!(
                "waits for its turn: all {count} workers that could run it are busy with work of the same or higher priority"
            ),
        }
    }
}

impl LeaderView<'_> {
    /// Returns why tasks of a job that could start do not run: up to five distinct reasons. While other tasks of the
    /// job run, only reasons that do not go away by themselves.
    pub(crate) fn waits(&self, id: JobId, job: &Job, running: u32) -> Vec<String> {
        let Some(active_job) = self.leader.jobs.get(id) else {
            return Vec::new();
        };
        if active_job.is_ending() {
            return Vec::new();
        }
        if !active_job.awaited_results().is_empty() && job.threshold_met() {
            let held_up = self.held_up(id, active_job);
            return vec![held_up.unwrap_or("supervisors fetch its results".to_owned())];
        }
        let mut reasons: Vec<(Wait, String)> = Vec::new();
        for group in 0..active_job.groups().len() {
            let Some(number) = self.next_task(id, job, group) else {
                continue;
            };
            let wait = self.wait_of(id, job, number);
            let known = reasons.iter().any(|(other, _)| *other == wait);
            if known || running > 0 && !wait.lasts() {
                continue;
            }
            let text = match &wait {
                Wait::NoWorker | Wait::Unfit(_) => wait.text(),
                _ => format!("task {}: {}", job.spec.label(number), wait.text()),
            };
            // These hold for all groups.
            let all = matches!(wait, Wait::NoWorker | Wait::RecoveryBarrier);
            reasons.push((wait, text));
            if all || reasons.len() >= REASONS_MAX {
                break;
            }
        }
        reasons.into_iter().map(|(_, text)| text).collect()
    }

    /// Returns whether a task that could start waits for something that does not come by itself.
    pub(crate) fn is_held_up(&self, id: JobId, job: &Job) -> bool {
        let next = |group| self.next_task(id, job, group);
        let mut waiting = (0..job.spec.groups().len()).filter_map(next);
        waiting.any(|number| self.wait_of(id, job, number).lasts())
    }

    /// Returns the first task of a group that could start and has no attempt.
    fn next_task(&self, id: JobId, job: &Job, group: usize) -> Option<u32> {
        let offers = self.leader.jobs.group(id, group)?;
        if offers.waiting() > 0 || job.remaining_of(group) == 0 {
            return None;
        }
        let first = job.spec.first(group);
        let offered = offers.next_unassigned(job.spec.groups()[group].count());
        offered.map(|offset| first + offset).or_else(|| {
            let mut known = self.leader.tasks.range(id, job.spec.numbers(group));
            let delayed = known.find(|(_, known)| known.retried_at().is_some());
            delayed.map(|(task, _)| task.number)
        })
    }

    /// Returns why a task whose dependencies are done has no attempt.
    pub(crate) fn wait_of(&self, id: JobId, job: &Job, number: u32) -> Wait {
        let leader = self.leader;
        let at = job.spec.group_of(number);
        let task = TaskId { job: id, number };
        let known = leader.tasks.get(&task);
        if let Some(at) = known.and_then(|known| known.retried_at()) {
            return Wait::Retry(at.since(self.now));
        }
        if leader.blocked.lacks_inputs(id, at as u32) || leader.blocked.lacks_own_inputs(task) {
            return Wait::Inputs;
        }
        if self.behind_recovery_barrier(id) {
            return Wait::RecoveryBarrier;
        }
        let here: Vec<&Worker> = leader
            .pool
            .iter()
            .filter(|one| one.state().reachable())
            .collect();
        if here.is_empty() {
            return Wait::NoWorker;
        }
        let (group, active_job) = (&job.spec.groups()[at], &leader.jobs[id]);
        let shape = leader.shapes.get(active_job.group(at).shape());
        let raised = shape.raised(job, number);
        let shape = raised.as_ref().unwrap_or(shape);
        if let Some(why) = unplaceable(leader, shape, &group.id) {
            return Wait::Unfit(why);
        }
        let fits = |one: &&Worker| shape.fits(one.info());
        let able: Vec<&Worker> = here.into_iter().filter(fits).collect();
        if !able.iter().any(|one| one.usable()) {
            return Wait::Unusable(unusable(&able));
        }
        let idle: Vec<&&Worker> = able
            .iter()
            .filter(|one| one.usable() && one.load().free().covers(&shape.resources))
            .collect();
        if idle.is_empty() {
            return Wait::Busy(able.len());
        }
        if active_job.group(at).deferred_since().is_some() {
            return Wait::Deferred;
        }
        let failed_at = |one: &&&Worker| {
            let avoid = known.map_or(&[][..], |known| known.avoid());
            avoid.iter().any(|ix| leader.pool[*ix].peer() == one.peer())
        };
        let require = job.spec.qos().critical_placement == CriticalPlacement::Require;
        if idle.iter().all(failed_at) {
            Wait::Failed
        } else if require && active_job.critical().contains(&job.spec, number) {
            Wait::Class
        } else {
            Wait::Busy(able.len())
        }
    }
}

/// Returns a sentence that says why none of these workers takes tasks.
fn unusable(able: &[&Worker]) -> String {
    let causes = [
        (
            Unusable::Owner,
            "is in use by its owner",
            "are in use by their owners",
        ),
        (Unusable::Draining, "is draining", "are draining"),
        (
            Unusable::Suspect,
            "has missed heartbeats",
            "have missed heartbeats",
        ),
        (
            Unusable::Link,
            "has too slow a link",
            "have too slow a link",
        ),
        (
            Unusable::Excluded,
            "is excluded for a while",
            "are excluded for a while",
        ),
    ];
    let causes: Vec<String> = causes
        .into_iter()
        .filter_map(|(cause, one, many)| {
            let those = able.iter().filter(|worker| why_unusable(worker) == cause);
            match those.count() {
                0 => None,
                1 => Some(format!("1 {one}")),
                number => Some(format!("{number} {many}")),
            }
        })
        .collect();
    let who = match able.len() {
        1 => "the one worker that could run it takes no tasks now".to_owned(),
        count => format!("none of the {count} workers that could run it takes tasks now"),
    };
    let excluded = able.iter().filter_map(|one| one.reliability().exclusion());
    let next = excluded.min_by_key(|exclusion| exclusion.until());
    let why = next.map_or_else(String::new, |next| format!(" ({})", next.why()));
    format!("{who}: {}{why}", causes.join(", "))
}

/// Why a worker takes no tasks. If several causes apply, the one that lasts longest.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unusable {
    Draining,
    Suspect,
    Owner,
    Link,
    Excluded,
}

fn why_unusable(worker: &Worker) -> Unusable {
    if worker.draining() {
        Unusable::Draining
    } else if worker.state().suspected() {
        Unusable::Suspect
    } else if worker.owner().response().is_some() {
        Unusable::Owner
    } else if worker.link().kept_out().is_some() {
        Unusable::Link
    } else {
        Unusable::Excluded
    }
}
