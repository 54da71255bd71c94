//! What follows when an attempt ends without success: whose fault it was, where its task runs next, and which
//! workers are excluded for a while.

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

/// How often a task's inputs may turn out to be out of reach before the job fails.
const INPUT_FAULTS_MAX: u8 = 20;
/// Until a worker is given a group again whose inputs it could not fetch; doubles up to 32 times.
const INPUT_BACKOFF: Duration = Duration::from_millis(100);
/// Exclusion of a worker after its first fault: a shortage is often over with the attempts that cause it. Doubles
/// with each further fault until the worker succeeds.
const FAULT_BACKOFF: Duration = Duration::from_millis(100);
/// Longest wait after a fault: a machine that has been repaired is used again within a minute.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

impl Leadership<'_> {
    pub(crate) fn after_attempt_ended(&mut self, attempt: AttemptId, worker: PeerId, end: &Ending) {
        if *end == Ending::Lost {
            return;
        }
        let id = attempt.task;
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
        self.update_task_offers(id);
        self.forget_task_if_over(id);
        self.notify_watchers_soon(id.job);
    }

    /// A worker or its machine failed a task. Where another one did before, the task may be the reason, as one whose
    /// inputs fill every disk: then this worker is only not given its group for a while.
    fn after_worker_fault(&mut self, id: TaskId, at: WorkerIx, why: String) {
        let Some(group) = self.view().open_group(id) else {
            return self.exclude_faulty(at, why);
        };
        let (faults, elsewhere) = self.leader.tasks.get_or_insert(id).note_worker_fault(at);
        if elsewhere {
            let span = doubled(FAULT_BACKOFF, u32::from(faults));
            self.bar(id.job, group, at, span);
        } else {
            self.exclude_faulty(at, why);
        }
    }

    /// A worker or its machine failed: it gets nothing for a while, also where it is the only one. What it runs
    /// goes on.
    pub(crate) fn exclude_faulty(&mut self, ix: WorkerIx, why: String) {
        let now = self.now;
        let leader = &mut *self.leader;
        if let Some(faults) = leader.pool[ix].reliability_mut().note_fault() {
            leader.exclude(ix, now, doubled(FAULT_BACKOFF, faults), why);
        }
    }

    /// The winner did what others failed: they are outdone, and excluded once that happened too often.
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

    pub(crate) fn readmit(&mut self, ix: WorkerIx) {
        let leader = &mut *self.leader;
        leader.pool[ix].reliability_mut().readmit();
        leader.pool_changed(ix);
    }

    /// A worker could not fetch a task's inputs: the group is tried elsewhere, and there again after a while.
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
        self.bar(id.job, group, at, doubled(INPUT_BACKOFF, faults));
    }

    /// A worker is not given a group for `span`.
    fn bar(&mut self, job: JobId, group: u32, ix: WorkerIx, span: Duration) {
        let at = self.now + span;
        let leader = &mut *self.leader;
        if leader.blocked.bar(job, group, ix) {
            leader.timers.set(at, Timer::Unbar(job, group, ix));
        }
    }
}

impl LeaderView<'_> {
    /// Of these workers, those that reported a blob as the output of a task: as they do not give it, they are excluded
    /// like any that reports what is not so.
    pub(crate) fn makers_among(&self, hash: Hash, holders: &[WorkerIx]) -> Vec<WorkerIx> {
        let blob = self.leader.blobs.get(hash);
        let producers = blob.into_iter().flat_map(Blob::producers);
        let makers: Vec<PeerId> = producers
            .filter_map(|task| Some(self.state.task(*task)?.done()?.worker))
            .collect();
        let made = |ix: &WorkerIx| makers.contains(&self.leader.pool[*ix].peer());
        holders.iter().copied().filter(made).collect()
    }

    /// The position of a task's group, while the task is not done and its job goes on.
    fn open_group(&self, id: TaskId) -> Option<u32> {
        let job = self.state.jobs.get(&id.job)?;
        let open = job.active() && job.tasks.get(id.number as usize)?.is_open();
        open.then(|| job.spec.group_of(id.number) as u32)
    }

    /// What is wrong with the outputs of an attempt that its worker calls a success; nothing if they may be right.
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
    // A folder that is declared as one may be empty.
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

/// Whether one of the paths may match a pattern.
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

/// The wait after a fault: `first` after the first one, and each time twice as long as before.
fn doubled(first: Duration, faults: u32) -> Duration {
    let times = 2u32.pow(faults.saturating_sub(1).min(16));
    first.saturating_mul(times).min(BACKOFF_MAX)
}

impl Leader {
    /// Gives a worker nothing for `span`.
    fn exclude(&mut self, ix: WorkerIx, now: Time, span: Duration, why: String) {
        let until = now + span;
        self.pool[ix].reliability_mut().exclude(why, until);
        self.timers.set(until, Timer::Readmit(ix));
        self.pool_changed(ix);
    }

    /// A worker may be given a group again whose inputs it could not fetch.
    pub(crate) fn unbar(&mut self, job: JobId, group: u32, ix: WorkerIx) {
        self.blocked.unbar(job, group, ix);
        self.unblock(ix);
    }
}
