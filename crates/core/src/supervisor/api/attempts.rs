//! Lists a job's attempts, for a timeline.

use crate::supervisor::api::requests::no_such_job;
use crate::supervisor::api::views::{end_name, ms, state_name};
use crate::supervisor::durable::job::{Done, EndedAttempt, Job};
use crate::supervisor::leader::LeaderView;
use crate::supervisor::leader::attempts::active::Attempt;
use hedge_model::msg::RefusalKind;
use hedge_model::view::{ATTEMPTS_LISTED_MAX, AttemptLine, AttemptsView};
use hedge_model::{AttemptId, Epoch, JobId, TaskId, Time};
use std::ops::Range;
use std::time::Duration;

/// The most tasks examined for one reply, so that a request takes a few milliseconds whatever the size of the job.
const LOOKED_AT_MAX: u32 = 100_000;

impl LeaderView<'_> {
    /// Lists attempts of a job's tasks from number `from` on: active ones, and those that ended at least `since`
    /// after the job was accepted or at an unknown time.
    pub(crate) fn attempts_listed(
        &self,
        id: JobId,
        from: u32,
        since: Duration,
    ) -> Result<AttemptsView, (RefusalKind, String)> {
        let job = self.state.jobs.get(&id).ok_or_else(|| no_such_job(id))?;
        let fresh = |at: Option<Time>| at.is_none_or(|at| at.since(job.accepted) >= since);
        let count = job.spec.task_count();
        let from = from.min(count);
        let mut attempts = Vec::new();
        // A million tasks may be done, so this loop over the done tasks decides where the page ends.
        let mut until = from;
        let tasks = job.tasks.focus();
        let tasks = tasks.narrow(from as usize..count as usize).into_iter();
        for task in tasks.take(LOOKED_AT_MAX as usize) {
            if attempts.len() >= ATTEMPTS_LISTED_MAX {
                break;
            }
            until += 1;
            let done = task.done().filter(|done| fresh(done.at));
            attempts.extend(done.map(|done| won_line(job, done)));
        }
        let ended = ended_of(job, id, from..until);
        attempts.extend(
            ended
                .filter(|one| fresh(one.at))
                .map(|one| ended_line(job, one)),
        );
        let active = self.leader.tasks.range(id, from..until);
        let active = active.flat_map(|(_, known)| known.attempts());
        let active = active.filter(|attempt| attempt.state().active());
        attempts.extend(active.map(|attempt| self.active_line(job, attempt)));
        let now = job.ended.as_ref().map_or(self.now, |(_, at)| *at);
        Ok(AttemptsView {
            job: id,
            attempts,
            next: (until < count).then_some(until),
            now_ms: ms(now.since(job.accepted)),
        })
    }

    fn active_line(&self, job: &Job, attempt: &Attempt) -> AttemptLine {
        AttemptLine {
            task: job.spec.label(attempt.id().task.number),
            attempt: attempt.id().to_string(),
            worker: self.leader.pool[attempt.worker()].peer().short(),
            redundant: attempt.redundant(),
            state: state_name(attempt).to_owned(),
            start_ms: Some(ms(attempt.since().since(job.accepted))),
            end_ms: None,
        }
    }
}

/// The attempts of these tasks that ended without deciding them.
fn ended_of(job: &Job, id: JobId, numbers: Range<u32>) -> impl Iterator<Item = &EndedAttempt> {
    let first = |number| AttemptId {
        task: TaskId { job: id, number },
        generation: 0,
        epoch: Epoch(0),
        number: 0,
    };
    let ended = job.history.range(first(numbers.start)..first(numbers.end));
    ended.map(|(_, ended)| &**ended)
}

fn won_line(job: &Job, done: &Done) -> AttemptLine {
    let (start_ms, end_ms) = span(job, done.at, done.usage.running);
    AttemptLine {
        task: job.spec.label(done.attempt.task.number),
        attempt: done.attempt.to_string(),
        worker: done.worker.short(),
        redundant: done.redundant,
        state: "won".to_owned(),
        start_ms,
        end_ms,
    }
}

fn ended_line(job: &Job, ended: &EndedAttempt) -> AttemptLine {
    let took = ended.usage.running.max(ended.charge.occupied);
    let (start_ms, end_ms) = span(job, ended.at, took);
    AttemptLine {
        task: job.spec.label(ended.attempt.task.number),
        attempt: ended.attempt.to_string(),
        worker: ended.worker.short(),
        redundant: ended.redundant,
        state: end_name(&ended.end).to_owned(),
        start_ms,
        end_ms,
    }
}

/// Returns start and end, in milliseconds after the job was accepted, of something that ended at `at` and took
/// `took`.
fn span(job: &Job, at: Option<Time>, took: Duration) -> (Option<f64>, Option<f64>) {
    let end = at.map(|at| at.since(job.accepted));
    let start = end.map(|end| end.saturating_sub(took));
    (start.map(ms), end.map(ms))
}
