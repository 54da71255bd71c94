//! Views for people and programs, computed from the state on request.

use crate::monitor::Attention;
use crate::supervisor::api::requests::no_such_job;
use crate::supervisor::api::tasks::parameters;
use crate::supervisor::api::waits::Wait;
use crate::supervisor::durable::checkpoints::RecordedCheckpoint;
use crate::supervisor::durable::job::Job;
use crate::supervisor::leader::attempts::active::{ActiveTask, Attempt, Why};
use crate::supervisor::leader::attempts::state::AttemptState;
use crate::supervisor::leader::jobs::critical::reasons;
use crate::supervisor::leader::jobs::progress::progress_view;
use crate::supervisor::leader::pool::worker::Worker;
use crate::supervisor::leader::{LeaderView, redundancy};
use hedge_model::ending::Fault;
use hedge_model::msg::RefusalKind;
use hedge_model::record::JobEnd;
use hedge_model::spec::Redundancy;
use hedge_model::view::{
    AttemptView, CheckpointView, CriticalView, ExplainView, OwnerView, TaskView, WorkerView,
};
use hedge_model::{Ending, JobId, PeerId, TaskId};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// The most tasks that `explain` shows of a job.
const EXPLAIN_TASKS_MAX: usize = 20;
const CRITICAL_SHOWN_MAX: usize = 1_000;
/// The most outputs that `explain` lists of a task. Even with the longest paths they fit into one reply.
const OUTPUTS_SHOWN_MAX: usize = 1_000;

type Refused = (RefusalKind, String);

impl LeaderView<'_> {
    /// The tasks of a job that have attempts known to this leader, or had some.
    pub(crate) fn tasks_of(&self, job: JobId) -> impl Iterator<Item = (TaskId, &ActiveTask)> {
        self.leader.tasks.of_job(job)
    }

    /// Returns views of all workers.
    pub fn worker_views(&self) -> Vec<(PeerId, WorkerView)> {
        let leader = self.leader;
        let view = |worker: &Worker| {
            let way = self.config.watch;
            let way = way.way(worker.state().attention().unwrap_or(Attention::Idle));
            let heard = worker.state().last_heard();
            let silent = heard.map_or(Duration::ZERO, |since| self.now.since(since));
            let reliability = worker.reliability();
            let excluded = reliability.exclusion();
            let excluded = excluded.map(|exclusion| format!("excluded: {}", exclusion.why()));
            let kept_out = worker.link().kept_out();
            let kept_out = kept_out.map(|why| format!("quarantined: {why}"));
            WorkerView {
                peer: worker.peer().to_string(),
                host: worker.info().host.to_string(),
                pid: worker.info().pid,
                liveness: worker.state().liveness().name().to_owned(),
                usage: usage(worker).to_owned(),
                owner: worker.owner().response().map(|(owner, at)| OwnerView {
                    response: owner.response.name().to_owned(),
                    why: owner.why.iter().map(ToString::to_string).collect(),
                    away_ms: ms(owner.away + self.now.since(*at)),
                }),
                admission: kept_out
                    .or(excluded)
                    .unwrap_or_else(|| "admitted".to_owned()),
                link: worker.link().view(),
                total: worker.info().resources.clone(),
                free: worker.load().free().clone(),
                shares: shared(worker),
                network: worker.info().network.name().to_owned(),
                in_hand: worker.load().in_hand().len() as u32,
                done: reliability.done(),
                failed: reliability.failed(),
                lost: reliability.lost(),
                heartbeat_interval_ms: ms(way.interval),
                heartbeat_mode: way.mode.name().to_owned(),
                heartbeats: 0,
                suspicions: 0,
                late_gaps: 0,
                missed_heartbeats: 0,
                held_up_heartbeats: 0,
                silent_ms: ms(silent),
                class: worker.class().name().to_owned(),
                score: (worker.speed() * 1e3).round() / 1e3,
                score_from: self.score_from(worker),
            }
        };
        let workers = leader.pool.iter();
        workers.map(|one| (one.peer(), view(one))).collect()
    }

    pub(crate) fn explain(&self, id: JobId, task: Option<&str>) -> Result<ExplainView, Refused> {
        let (Some(job), Some(view)) = (self.state.jobs.get(&id), self.job_view(id)) else {
            return Err(no_such_job(id));
        };
        let set = self.critical(id, job);
        let reasons = if set.total() > 0 {
            reasons(&job.spec, &self.state.learned)
        } else {
            Vec::new()
        };
        let critical = (0..job.spec.groups().len()).flat_map(|group| {
            let numbers = job.spec.first(group)..job.spec.first(group) + set.of_group(group);
            let reasons = &reasons;
            numbers.map(move |number| CriticalView {
                task: job.spec.label(number),
                reason: reasons[group].clone(),
            })
        });
        let tasks = match task {
            Some(task) => vec![find_task(job, task)?],
            None => self.undone(id, job),
        };
        let tasks = tasks.into_iter();
        let tasks = tasks.map(|number| self.task_view(id, job, number));
        let tasks = tasks.collect();
        Ok(ExplainView {
            job: view,
            critical: critical.take(CRITICAL_SHOWN_MAX).collect(),
            tasks,
        })
    }

    /// Returns tasks that hold the job up, or that were not done when it ended: first those with failures or active
    /// attempts.
    fn undone(&self, id: JobId, job: &Job) -> Vec<u32> {
        let open = |number: &u32| job.tasks[*number as usize].done().is_none();
        let failed = job.failed_tasks().into_iter();
        let tried = self.tasks_of(id).filter(|(_, known)| known.active() > 0);
        let tried = tried.map(|(task, _)| task.number).filter(|_| job.active());
        let first: BTreeSet<u32> = failed
            .chain(tried)
            .filter(open)
            .take(EXPLAIN_TASKS_MAX)
            .collect();
        let rest =
            (0..job.spec.task_count()).filter(|number| open(number) && !first.contains(number));
        let rest: Vec<u32> = rest.take(EXPLAIN_TASKS_MAX - first.len()).collect();
        first.into_iter().chain(rest).collect()
    }

    fn task_view(&self, id: JobId, job: &Job, number: u32) -> TaskView {
        let task = &job.tasks[number as usize];
        let known = self.leader.tasks.get(&TaskId { job: id, number });
        let (state, why) = self.task_state(id, job, number, known);
        let done = task.done();
        TaskView {
            task: job.spec.label(number),
            number,
            state: state.to_owned(),
            why,
            critical: self.critical(id, job).contains(&job.spec, number),
            generation: task.generation,
            failures: task.failures(),
            attempts: self.attempt_views(TaskId { job: id, number }, job, known),
            outputs: done.map_or(Vec::new(), |done| {
                let paths = done.outputs.iter().map(|f| f.path.to_string());
                paths.take(OUTPUTS_SHOWN_MAX).collect()
            }),
            checkpoint: job
                .checkpoint_of(number)
                .map(|recorded| self.checkpoint_view(recorded)),
            checkpoint_fault: self
                .leader
                .checkpoints
                .fault(TaskId { job: id, number })
                .map(str::to_owned),
            parameters: parameters(job, number),
            memory_raised: job.memory_of_next(number),
        }
    }

    fn checkpoint_view(&self, recorded: &RecordedCheckpoint) -> CheckpointView {
        let checkpoint = &recorded.checkpoint;
        CheckpointView {
            attempt: checkpoint.id.attempt.to_string(),
            worker: self.name(recorded.worker),
            age_ms: ms(self.now.since(recorded.made)),
            bytes: checkpoint.bytes(),
            share: checkpoint
                .permille
                .map(|permille| f64::from(permille) / 1e3),
        }
    }

    pub(crate) fn task_state(
        &self,
        id: JobId,
        job: &Job,
        number: u32,
        known: Option<&ActiveTask>,
    ) -> (&'static str, String) {
        let outcome = &job.tasks[number as usize];
        if let Some(done) = outcome.done() {
            let worker = self.name(done.worker);
            return ("done", format!("worker {worker} was first to succeed"));
        }
        let task = TaskId { job: id, number };
        if outcome.has_failed() {
            let state = if outcome.is_lost() { "lost" } else { "failed" };
            return (state, job.why_task_failed(task));
        }
        let group = job.spec.group_of(number);
        if let Some(other) = job
            .unsatisfiable_dependency(group)
            .filter(|_| job.cut_off(group))
        {
            let failed = &job.spec.groups()[other].id;
            return (
                "skipped",
                format!("too much failed of {failed}, for which it waits"),
            );
        }
        if job.blocked(number) {
            let place = number - job.spec.first(group);
            let lost = lost_element_inputs(job, group, place).join(", ");
            return (
                "skipped",
                format!("{lost}, for which it waits, cannot be done"),
            );
        }
        if let Some((end, _)) = &job.ended {
            return self.undone_state(task, job, end);
        }
        if known.is_some_and(|known| known.active() > 0) {
            return ("running", self.running_text(known));
        }
        let unfinished = unfinished(job, group, number);
        if !unfinished.is_empty() {
            return ("waiting", format!("waits for {}", unfinished.join(", ")));
        }
        if job.closed(group) {
            return (
                "skipped",
                "enough of its kind is done for all that wait for it".into(),
            );
        }
        let wait = self.wait_of(id, job, number);
        let state = if wait == Wait::Inputs {
            "waiting"
        } else {
            "ready"
        };
        // If its last attempt moved away from a worker, say why.
        let last = job.ended_attempts(task).next_back();
        let moved = |end: &Ending| matches!(end.fault(), Fault::Worker | Fault::Input);
        match last.filter(|last| moved(&last.end)) {
            Some(last) => {
                let what = last.end.tell(&self.name(last.worker));
                (state, format!("{}; its last attempt: {what}", wait.text()))
            }
            None => (state, wait.text()),
        }
    }

    /// Returns the state of a task that was not done when its job ended, and why.
    fn undone_state(&self, id: TaskId, job: &Job, end: &JobEnd) -> (&'static str, String) {
        let failed = job.ended_attempts(id).rev();
        let mut failed = failed.filter(|ended| ended.end.fault() == Fault::Task);
        match (failed.next().map(|ended| ended.end.to_string()), end) {
            (Some(why), _) => ("failed", why),
            (None, JobEnd::Failed { task, why }) if *task == Some(id) => ("failed", why.clone()),
            (None, JobEnd::Failed { .. }) => {
                ("skipped", "the job failed before it was done".into())
            }
            (None, JobEnd::Cancelled) => {
                ("skipped", "the job was cancelled before it was done".into())
            }
            (None, JobEnd::Done) => ("skipped", "enough was done without it".into()),
        }
    }

    fn attempt_views(&self, id: TaskId, job: &Job, known: Option<&ActiveTask>) -> Vec<AttemptView> {
        let again = |attempt| {
            let attempts = known.into_iter().flat_map(|known| known.attempts());
            attempts
                .filter(|other| other.state() != AttemptState::Lost)
                .any(|other| other.id() == attempt)
        };
        let mut views: Vec<AttemptView> = job
            .ended_attempts(id)
            .filter(|ended| ended.end != Ending::Lost || !again(ended.attempt))
            .map(|ended| AttemptView {
                attempt: ended.attempt.to_string(),
                worker: self.name(ended.worker),
                kind: kind(ended.redundant),
                state: end_name(&ended.end).to_owned(),
                why: ended.end.tell(&self.name(ended.worker)),
                running_ms: match ended.end {
                    Ending::Lost | Ending::Vacated => Some(ms(ended.charge.occupied)),
                    _ => Some(ms(ended.usage.running)),
                }
                .filter(|running| *running > 0.0),
                progress: None,
            })
            .collect();
        if let Some(done) = job.tasks[id.number as usize].done() {
            views.push(AttemptView {
                attempt: done.attempt.to_string(),
                worker: self.name(done.worker),
                kind: kind(done.redundant),
                state: "won".to_owned(),
                why: "first to succeed".to_owned(),
                running_ms: Some(ms(done.usage.running)),
                progress: None,
            });
        }
        let attempts = known.into_iter().flat_map(|known| known.attempts());
        views.extend(
            attempts
                .filter(|attempt| attempt.state() != AttemptState::Lost)
                .map(|attempt| {
                    let worker = self.leader.pool[attempt.worker()].peer();
                    AttemptView {
                        attempt: attempt.id().to_string(),
                        worker: self.name(worker),
                        kind: kind(attempt.redundant()),
                        state: state_name(attempt).to_owned(),
                        why: self.attempt_why(job, attempt),
                        running_ms: attempt
                            .state()
                            .runs()
                            .then(|| ms(self.now.since(attempt.since()))),
                        progress: progress_view(attempt),
                    }
                }),
        );
        views
    }

    /// Returns why the attempt is at this worker, or which job it waits for.
    fn attempt_why(&self, job: &Job, attempt: &Attempt) -> String {
        match attempt.state().waits_for() {
            Some(other) => self.waits_text(other),
            None => why_text(attempt.why(), job.spec.qos().redundancy),
        }
    }

    /// Returns the text for an attempt that waits for a job.
    pub(crate) fn waits_text(&self, job: JobId) -> String {
        let over = self.state.jobs.get(&job).is_none_or(|job| !job.active());
        if over {
            format!(
                "it waited for job {job}, which is over; others use its part of the worker until it ends"
            )
        } else {
            format!("it waits for job {job}; others may use its part of the worker meanwhile")
        }
    }

    pub(crate) fn name(&self, peer: PeerId) -> String {
        self.leader.worker(peer).map_or_else(
            || peer.short(),
            |worker| format!("{} on {}", peer.short(), worker.info().host),
        )
    }
}

/// Returns the element-wise dependencies of the task at `offset` of a group that will never be done.
fn lost_element_inputs(job: &Job, group: usize, offset: u32) -> Vec<String> {
    let others = job.spec.each(group).iter().map(|other| *other as usize);
    let numbers = others.map(|other| job.spec.first(other) + offset);
    let lost = |number: &u32| job.tasks[*number as usize].has_failed() || job.blocked(*number);
    let lost = numbers.filter(lost);
    lost.map(|number| job.spec.label(number)).collect()
}

/// Returns what a task still waits for: groups with the number of tasks left, and its unfinished element-wise
/// dependencies.
fn unfinished(job: &Job, group: usize, number: u32) -> Vec<String> {
    let waits_for = job.spec.waits_for(group).iter();
    let offset = number - job.spec.first(group);
    let each = |other: usize| job.spec.is_each(group, other);
    waits_for
        .map(|other| *other as usize)
        .filter(|other| match each(*other) {
            true => job.element(*other, offset).done().is_none(),
            false => !job.satisfied(group, *other),
        })
        .map(|other| {
            if each(other) {
                return job.spec.label(job.spec.first(other) + offset);
            }
            let (left, group) = (job.open[other], &job.spec.groups()[other]);
            format!("{} ({left} of {} left)", group.id, group.count())
        })
        .collect()
}

pub(crate) fn find_task(job: &Job, text: &str) -> Result<u32, Refused> {
    let number = text
        .parse()
        .ok()
        .filter(|number| *number < job.spec.task_count());
    job.spec.find(text).or(number).ok_or_else(|| {
        let called = match job.spec.task_count() {
            0 => "none was added to it yet".to_owned(),
            _ => format!("its tasks are called like {:?}", job.spec.label(0)),
        };
        let why = format!("the job has no task {text:?}; {called}");
        (RefusalKind::Unknown, why)
    })
}

/// Returns the state of an active attempt as one word.
pub(crate) fn state_name(attempt: &Attempt) -> &'static str {
    match attempt.stalled() {
        Some(_) => "stalled",
        None => attempt.state().name(),
    }
}

/// Returns how an unsuccessful attempt ended as one word.
pub(crate) fn end_name(end: &Ending) -> &'static str {
    match (end.fault(), end) {
        (Fault::Task, _) => "failed",
        (Fault::Worker | Fault::Input, _) => "moved",
        (Fault::Nobody, Ending::Cancelled) => "cancelled",
        (Fault::Nobody, _) => "lost",
    }
}

/// The folders that a worker's owner shares with tasks.
fn shared(worker: &Worker) -> Vec<String> {
    let name = |(name, writable): &(Arc<str>, bool)| match writable {
        true => name.to_string(),
        false => format!("{name}:ro"),
    };
    worker.info().shares.iter().map(name).collect()
}

/// Returns whether a worker takes tasks, as one word.
fn usage(worker: &Worker) -> &'static str {
    match worker.owner().response() {
        _ if worker.draining() => "draining",
        Some(_) => "away",
        None => "ready",
    }
}

fn kind(redundant: bool) -> String {
    if redundant { "redundant" } else { "primary" }.to_owned()
}

fn why_text(why: Why, redundancy: Redundancy) -> String {
    let text = match why {
        Why::BestFree => "the fastest worker with room for it, and of equals the one with most",
        Why::HigherClass => "of the higher class, and the fastest with room for it",
        Why::Data => "its inputs are large, and it would have them and be done soonest",
        Why::Queued => "sent ahead: its tasks are short",
        Why::Elsewhere => "a copy, on a worker that has no other attempt of it",
        Why::AgainThere => "it failed there before, but there is no other worker for it",
        Why::Adopted => "it was running there already",
        Why::Policy => return format!("a copy: {}", redundancy::why(redundancy)),
    };
    text.to_owned()
}

pub(crate) fn ms(span: Duration) -> f64 {
    (span.as_secs_f64() * 1e6).round() / 1e3
}
