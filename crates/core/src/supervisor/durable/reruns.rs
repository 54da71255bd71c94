//! What follows for a task's next attempt from how its earlier ones ended: whether it may run again, and its memory.

use crate::supervisor::durable::job::{EndedAttempt, Job};
use hedge_model::{AttemptId, Ending, TaskId};

impl EndedAttempt {
    /// Returns whether it may have done a part of its task before its worker lost it. The loss of a worker does not
    /// tell what the attempt did.
    fn broke_off(&self) -> bool {
        match self.end {
            Ending::Lost => true,
            Ending::Vacated | Ending::Worker { .. } => !self.usage.running.is_zero(),
            _ => false,
        }
    }
}

impl Job {
    /// Returns whether a task may not run again because an attempt of it was lost with its worker.
    pub(crate) fn may_not_rerun(&self, number: u32) -> bool {
        if !self.spec.groups()[self.spec.group_of(number)].once {
            return false;
        }
        self.ended_now(number).any(EndedAttempt::broke_off)
    }

    /// Returns the memory of an attempt in bytes, if earlier attempts of its task reached their memory limit and that
    /// changes it.
    pub(crate) fn memory_of_attempt(&self, attempt: AttemptId) -> Option<u64> {
        self.memory_after(attempt.task.number, |earlier| earlier < attempt)
    }

    /// The same for the next attempt of a task.
    pub(crate) fn memory_of_next(&self, number: u32) -> Option<u64> {
        self.memory_after(number, |_| true)
    }

    /// The same after those of a task's ended attempts for which `counts` holds.
    fn memory_after(&self, number: u32, counts: impl Fn(AttemptId) -> bool) -> Option<u64> {
        let group = &self.spec.groups()[self.spec.group_of(number)];
        if group.retry_memory.is_empty() {
            return None;
        }
        let ended = self.ended_now(number);
        let reached = ended.filter(|ended| matches!(ended.end, Ending::MemoryLimit { .. }));
        let reached = reached.filter(|ended| counts(ended.attempt));
        group.raised_memory(reached.count() as u32)
    }

    /// Attempts of a task's current generation that ended without deciding it.
    fn ended_now(&self, number: u32) -> impl Iterator<Item = &EndedAttempt> {
        let generation = self.tasks[number as usize].generation;
        // The id of the job is that of each attempt in its history.
        let job = self.history.keys().next().map(|attempt| attempt.task.job);
        let task = job.map(|job| TaskId { job, number });
        let ended = task.into_iter().flat_map(|task| self.ended_attempts(task));
        ended.filter(move |ended| ended.attempt.generation == generation)
    }
}
