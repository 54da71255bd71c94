//! Lists a job's tasks.

use crate::supervisor::api::requests::no_such_job;
use crate::supervisor::api::views::ms;
use crate::supervisor::durable::job::Job;
use crate::supervisor::leader::LeaderView;
use crate::supervisor::leader::attempts::state::AttemptState;
use hedge_model::msg::RefusalKind;
use hedge_model::view::{TASKS_LISTED_MAX, TaskFilter, TaskLine, TasksView};
use hedge_model::{JobId, TaskId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The most tasks examined for one reply, so that a request takes a few milliseconds whatever the size of the job.
const LOOKED_AT_MAX: u32 = 50_000;

/// The most bytes of a parameter's name and of its value in a view: a page of tasks with as many parameters as a group
/// may have fits into one reply.
const PARAMETER_BYTES_MAX: usize = 200;

/// The values of a task's parameters.
pub(crate) fn parameters(job: &Job, number: u32) -> BTreeMap<String, String> {
    let group = job.spec.group_of(number);
    let offset = number - job.spec.first(group);
    let group = &job.spec.groups()[group];
    if group.axes.is_empty() {
        return BTreeMap::new();
    }
    let short = |text: &Arc<str>| text[..text.floor_char_boundary(PARAMETER_BYTES_MAX)].to_owned();
    let values = group.parameters().into_iter().zip(group.values(offset));
    values
        .map(|(name, value)| (short(&name), short(&value)))
        .collect()
}

impl Job {
    /// Returns exit status and signal of the attempt that decided the task: the winner, or else the last one that
    /// ended.
    pub(crate) fn exit_of(&self, task: TaskId) -> (Option<i32>, Option<i32>) {
        if self.tasks[task.number as usize].done().is_some() {
            return (Some(0), None);
        }
        let last = self.ended_attempts(task).next_back();
        last.map_or((None, None), |last| {
            (last.end.exit_code(), last.end.signal())
        })
    }
}

impl LeaderView<'_> {
    /// Lists tasks of a job from number `from` on.
    pub(crate) fn tasks_listed(
        &self,
        id: JobId,
        filter: TaskFilter,
        from: u32,
    ) -> Result<TasksView, (RefusalKind, String)> {
        let job = self.state.jobs.get(&id).ok_or_else(|| no_such_job(id))?;
        let active: BTreeSet<u32> = match filter {
            TaskFilter::Running | TaskFilter::Waiting => {
                let active = self.tasks_of(id).filter(|(_, known)| known.active() > 0);
                active.map(|(task, _)| task.number).collect()
            }
            _ => BTreeSet::new(),
        };
        let failed = match filter {
            TaskFilter::Failed => job.failed_tasks(),
            _ => BTreeSet::new(),
        };
        let listed = |number: &u32| {
            let done = job.tasks[*number as usize].done().is_some();
            match filter {
                TaskFilter::All => true,
                TaskFilter::Failed => failed.contains(number),
                TaskFilter::Running => !done && active.contains(number),
                TaskFilter::Waiting => !done && !active.contains(number),
                TaskFilter::Done => done,
            }
        };
        let count = job.spec.task_count();
        let until = count.min(from.saturating_add(LOOKED_AT_MAX));
        let mut found = (from..until).filter(listed);
        let numbers: Vec<u32> = found.by_ref().take(TASKS_LISTED_MAX).collect();
        let next = found.next().or(Some(until)).filter(|next| *next < count);
        let lines = numbers.into_iter();
        let lines = lines.map(|number| self.task_line(id, job, number));
        Ok(TasksView {
            job: id,
            tasks: lines.collect(),
            next,
        })
    }

    fn task_line(&self, id: JobId, job: &Job, number: u32) -> TaskLine {
        let task = TaskId { job: id, number };
        let known = self.leader.tasks.get(&task);
        let (state, why) = self.task_state(id, job, number, known);
        let attempts = known.into_iter().flat_map(|known| known.attempts());
        let runs = |state: AttemptState| state != AttemptState::Lost;
        let running = attempts.clone().find(|attempt| runs(attempt.state()));
        let fresh = attempts.filter(|attempt| !job.history.contains_key(&attempt.id()));
        let state_of = &job.tasks[number as usize];
        let ended = job.ended_attempts(task).next_back();
        let (worker, running_ms) = match (state_of.done(), running, ended) {
            (Some(done), _, _) => (Some(done.worker), Some(ms(done.usage.running))),
            (None, Some(attempt), _) => {
                let since = attempt.state().runs().then_some(attempt.since());
                let worker = self.leader.pool[attempt.worker()].peer();
                (Some(worker), since.map(|since| ms(self.now.since(since))))
            }
            (None, None, Some(ended)) => (Some(ended.worker), Some(ms(ended.usage.running))),
            (None, None, None) => (None, None),
        };
        let won = u32::from(state_of.done().is_some());
        let (exit_code, signal) = job.exit_of(task);
        TaskLine {
            task: job.spec.label(number),
            number,
            state: state.to_owned(),
            why,
            failures: state_of.failures(),
            attempts: won + (job.ended_attempts(task).count() + fresh.count()) as u32,
            worker: worker.map(|worker| self.name(worker)),
            running_ms: running_ms.filter(|running| *running > 0.0),
            exit_code: exit_code.filter(|_| running.is_none()),
            signal: signal.filter(|_| running.is_none()),
            parameters: parameters(job, number),
        }
    }
}
