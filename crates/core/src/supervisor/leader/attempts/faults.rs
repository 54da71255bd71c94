//! Handles attempts that end without success: whose fault it was, where the task runs next, and which workers are
//! excluded for a while.

use crate::supervisor::leader::attempts::active::ActiveTask;
use crate::supervisor::leader::blobs::state::Blob;
use crate::supervisor::leader::timers::Timer;
use crate::supervisor::leader::{Leader, LeaderView, Leadership, WorkerIx};
use crate::supervisor::send;
use hedge_model::ending::Fault;
use hedge_model::msg::ToWorker;
use hedge_model::spec::placeholders::literal_prefix;
use hedge_model::spec::{Group, check_path};
use hedge_model::{AttemptId, Ending, FileEntry, Hash, JobId, PeerId, TaskId, Time};
use smallvec::SmallVec;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::Duration;

/// How often a task's inputs may be unreachable before the task fails.
const INPUT_FAULTS_MAX: u8 = 20;
/// How long a group is kept from a worker that could not fetch its inputs. Doubles with each fault of the task, up to
/// 32 times this.
const INPUT_BACKOFF: Duration = Duration::from_millis(100);
/// Exclusion of a worker after its first fault: a shortage is often over with the attempts that cause it. Doubles
/// with each further fault until the worker succeeds.
const FAULT_BACKOFF: Duration = Duration::from_millis(100);
/// Longest exclusion after a fault: a repaired machine is used again within a minute.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

impl Leadership<'_> {
    /// Handles the committed end of an attempt without success, according to its fault.
    pub(crate) fn after_attempt_ended(&mut self, attempt: AttemptId, worker: PeerId, end: &Ending) {
        let id = attempt.task;
        if *end == Ending::Lost {
            return self.after_loss_recorded(attempt);
        }
        send(worker, ToWorker::Settled(attempt), self.out);
        let Some(at) = self.leader.pool.find(worker) else {
            return;
        };
        self.detach(attempt);
        let Some(task) = self.state.task(id) else {
            return;
        };
        let failures = task.failures();
        match end.fault() {
            Fault::Task => {
                let leader = &mut *self.leader;
                leader.pool[at].reliability_mut().note_failed();
                if let Some(known) = leader.tasks.get_mut(&id) {
                    known.note_failure(at);
                }
                self.after_failure(id, failures, end);
            }
            Fault::Worker => {
                let why = match end {
                    Ending::Short { of, .. } => format!("short of {of}"),
                    other => other.to_string(),
                };
                self.after_worker_fault(id, at, why);
            }
            Fault::Input => self.after_input_fault(id, at, end),
            Fault::Nobody => {}
        }
        self.after_attempt_lost(id);
        self.update_task_offers(id);
        self.forget_task_if_over(id);
        self.notify_watchers_soon(id.job);
    }

    /// Handles a failure by the fault of a worker or its machine. If the task failed this way on another worker
    /// before, the task itself may be the cause, for example because its inputs fill every disk. Then only the task's
    /// group is kept from this worker for a while.
    fn after_worker_fault(&mut self, id: TaskId, at: WorkerIx, why: String) {
        let Some(group) = self.view().open_group(id) else {
            return self.exclude_faulty(at, why);
        };
        let (faults, elsewhere) = self.leader.tasks.get_or_insert(id).note_worker_fault(at);
        if elsewhere {
            let span = doubled(FAULT_BACKOFF, u32::from(faults));
            self.exclude_from_group(id.job, group, at, span);
        } else {
            self.exclude_faulty(at, why);
        }
    }

    /// Excludes a worker for a while after it or its machine failed, even if it is the only one. Its running attempts
    /// continue.
    pub(crate) fn exclude_faulty(&mut self, ix: WorkerIx, why: String) {
        let now = self.now;
        let leader = &mut *self.leader;
        if let Some(faults) = leader.pool[ix].reliability_mut().note_fault() {
            leader.exclude(ix, now, doubled(FAULT_BACKOFF, faults), why);
        }
    }

    /// Counts a task's success against the workers that failed it before. A worker is excluded when this has happened
    /// too often.
    pub(crate) fn count_failures_of_others(&mut self, id: TaskId, winner: Option<WorkerIx>) {
        let (now, base) = (self.now, self.config.exclude_for);
        let leader = &mut *self.leader;
        if let Some(ix) = winner {
            leader.pool[ix].reliability_mut().note_done();
        }
        let avoid = leader.tasks.get(&id).map(ActiveTask::avoid);
        let avoid: SmallVec<[WorkerIx; 2]> = avoid.unwrap_or_default().into();
        for ix in avoid.into_iter().filter(|ix| Some(*ix) != winner) {
            let others = leader.pool.queues().iter().any(|(_, other)| *other != ix);
            let outdone = leader.pool[ix].reliability_mut().note_outdone(others);
            if let Some((tasks, times)) = outdone {
                let span = base * 2u32.pow(times.min(6));
                let why = format!("failed {tasks} tasks that other workers could do");
                leader.exclude(ix, now, span, why);
            }
        }
    }

    /// Ends the exclusion of a worker.
    pub(crate) fn readmit(&mut self, ix: WorkerIx) {
        let leader = &mut *self.leader;
        leader.pool[ix].reliability_mut().readmit();
        leader.pool_changed(ix);
    }

    /// Handles a worker that could not fetch a task's inputs: the group runs elsewhere, and on this worker again
    /// after a backoff.
    fn after_input_fault(&mut self, id: TaskId, at: WorkerIx, end: &Ending) {
        let Some(group) = self.view().open_group(id) else {
            return;
        };
        let faults = self.leader.tasks.get_or_insert(id).note_input_fault(at);
        if faults >= INPUT_FAULTS_MAX {
            let label = self
                .state
                .jobs
                .get(&id.job)
                .map(|job| job.spec.label(id.number));
            let label = label.unwrap_or_default();
            let why = format!("task {label} was given up after {INPUT_FAULTS_MAX} tries: {end}");
            return self.give_up(id, why);
        }
        let faults = u32::from(faults.min(6));
        self.exclude_from_group(id.job, group, at, doubled(INPUT_BACKOFF, faults));
    }

    /// Excludes a worker from the tasks of one group for `span`.
    fn exclude_from_group(&mut self, job: JobId, group: u32, ix: WorkerIx, span: Duration) {
        let at = self.now + span;
        let leader = &mut *self.leader;
        if leader.blocked.exclude(job, group, ix) {
            leader.timers.set(at, Timer::ReadmitToGroup(job, group, ix));
        }
    }
}

impl LeaderView<'_> {
    /// Returns those of `holders` that reported a blob as the output of a task. As they do not provide it, they are
    /// excluded like other workers with false reports.
    pub(crate) fn makers_among(&self, hash: Hash, holders: &[WorkerIx]) -> Vec<WorkerIx> {
        let blob = self.leader.blobs.get(hash);
        let producers = blob.into_iter().flat_map(Blob::producers);
        let makers: Vec<PeerId> = producers
            .filter_map(|task| Some(self.state.task(*task)?.done()?.worker))
            .collect();
        let made = |ix: &WorkerIx| makers.contains(&self.leader.pool[*ix].peer());
        holders.iter().copied().filter(made).collect()
    }

    /// Returns the index of a task's group if the task is undecided and its job is active.
    fn open_group(&self, id: TaskId) -> Option<u32> {
        let job = self.state.jobs.get(&id.job)?;
        let open = job.active() && job.tasks.get(id.number as usize)?.is_open();
        open.then(|| job.spec.group_of(id.number) as u32)
    }

    /// Returns what is wrong with the outputs of an attempt that its worker reports as a success; none if they may be
    /// correct.
    pub(crate) fn wrong_outputs(&self, id: AttemptId, outputs: &[FileEntry]) -> Option<String> {
        let spec = &self.state.jobs.get(&id.task.job)?.spec;
        if id.task.number >= spec.task_count() {
            return None;
        }
        let group = spec.group_of(id.task.number);
        let offset = id.task.number - spec.first(group);
        wrong_outputs(&spec.groups()[group], offset, outputs)
    }
}

fn wrong_outputs(group: &Group, offset: u32, outputs: &[FileEntry]) -> Option<String> {
    let mut paths = BTreeSet::new();
    for file in outputs {
        if let Err(why) = check_path(&file.path) {
            return Some(format!(
                "it reported the output {:?}, which {why}",
                file.path
            ));
        }
        if !paths.insert(&*file.path) {
            return Some(format!("it reported the output {:?} twice", file.path));
        }
    }
    if group.outputs.is_empty() {
        return None;
    }
    // A declared folder may be empty.
    let needed = group.outputs.iter().filter(|output| !output.ends_with('/'));
    let missing = group.with_values(offset, |values| {
        let patterns = needed.map(|pattern| values.expand(pattern));
        let mut missing = patterns.filter(|pattern| !has_match(&paths, pattern));
        missing.next().map(Cow::into_owned)
    })?;
    Some(format!(
        "it reported success without the output {missing:?}"
    ))
}

/// Returns whether one of the paths may match a pattern.
fn has_match(paths: &BTreeSet<&str>, pattern: &str) -> bool {
    let begins = literal_prefix(pattern);
    let matches = |path: &&str| match path.strip_prefix(begins) {
        Some(rest) => begins.len() < pattern.len() || rest.is_empty() || rest.starts_with('/'),
        None => false,
    };
    let mut first = paths
        .range(begins..)
        .take_while(|path| path.starts_with(begins));
    first.any(matches)
}

/// Returns the backoff after a number of faults: `first`, doubled with each further fault, up to [`BACKOFF_MAX`].
fn doubled(first: Duration, faults: u32) -> Duration {
    let times = 2u32.pow(faults.saturating_sub(1).min(16));
    first.saturating_mul(times).min(BACKOFF_MAX)
}

impl Leader {
    /// Excludes a worker for `span`.
    fn exclude(&mut self, ix: WorkerIx, now: Time, span: Duration, why: String) {
        let until = now + span;
        self.pool[ix].reliability_mut().exclude(why, until);
        self.timers.set(until, Timer::Readmit(ix));
        self.pool_changed(ix);
    }

    /// Ends the exclusion of a worker from a group.
    pub(crate) fn readmit_to_group(&mut self, job: JobId, group: u32, ix: WorkerIx) {
        self.blocked.readmit(job, group, ix);
        self.retry_lanes(ix);
    }
}
