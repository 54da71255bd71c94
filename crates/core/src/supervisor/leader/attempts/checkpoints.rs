//! Checkpoints on their way from workers to the journal. A checkpoint is recorded once as many supervisors hold its
//! files as the replication factor says, so that a recorded checkpoint survives the loss of a machine. Each task has
//! at most one pending checkpoint; of those that arrive meanwhile, the newest waits.

use crate::supervisor::durable::checkpoints::RecordedCheckpoint;
use crate::supervisor::leader::attempts::active::ActiveTask;
use crate::supervisor::leader::attempts::state::AttemptEvent;
use crate::supervisor::leader::timers::Timer;
use crate::supervisor::leader::{LeaderView, Leadership, WorkerIx};
use crate::supervisor::send_drop;
use hedge_model::data::INLINE_BYTES_MAX;
use hedge_model::ending::TEXT_BYTES_MAX;
use hedge_model::msg::{CheckpointReport, Outcome, Report};
use hedge_model::record::Record;
use hedge_model::spec::CheckpointRule;
use hedge_model::units::show_bytes;
use hedge_model::{AttemptId, Checkpoint, CheckpointId, Hash, JobId, TaskId, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// How long the end of an attempt may wait for its last checkpoint. After that, repeating the work since the previous
/// checkpoint is likely to cost less.
const REPORT_WAITS: Duration = Duration::from_secs(60);

/// Tracks checkpoints that are not recorded yet, and why others were not saved.
#[derive(Debug, Default)]
pub(crate) struct Checkpoints {
    pending: BTreeMap<TaskId, PendingCheckpoint>,
    faults: BTreeMap<TaskId, String>,
}

/// A checkpoint that a worker reported.
#[derive(Clone, Debug)]
struct ReportedCheckpoint {
    worker: WorkerIx,
    checkpoint: Arc<Checkpoint>,
    made: Time,
}

/// A task's pending checkpoint.
#[derive(Debug)]
struct PendingCheckpoint {
    reported: ReportedCheckpoint,
    /// Blobs that too few supervisors hold; empty once the record is proposed.
    missing: BTreeSet<Hash>,
    /// A newer checkpoint, which is handled after this one.
    next: Option<ReportedCheckpoint>,
    /// How attempts ended whose checkpoints these are, as their workers reported it. Each is recorded after the
    /// checkpoint of the attempt.
    reports: Vec<(WorkerIx, Report)>,
}

impl Checkpoints {
    /// Why the last checkpoint of a task was not saved.
    pub fn fault(&self, task: TaskId) -> Option<&str> {
        self.faults.get(&task).map(String::as_str)
    }

    /// The blobs of a task's pending checkpoint.
    fn blobs_of(&self, task: TaskId) -> impl Iterator<Item = Hash> + '_ {
        let pending = self.pending.get(&task).into_iter();
        let blobs = pending.flat_map(|pending| pending.reported.checkpoint.blobs());
        blobs.map(|(hash, _)| hash)
    }

    /// Returns whether a checkpoint of an attempt is pending.
    fn has_pending(&self, id: AttemptId) -> bool {
        let Some(pending) = self.pending.get(&id.task) else {
            return false;
        };
        let mut all = [&pending.reported].into_iter().chain(&pending.next);
        all.any(|reported| reported.checkpoint.id.attempt == id)
    }
}

impl Leadership<'_> {
    /// Handles a worker's report of a checkpoint, or of why it could not save one.
    pub(crate) fn on_checkpoint(&mut self, ix: WorkerIx, report: CheckpointReport) {
        let (id, task) = (report.id, report.id.attempt.task);
        let permille = report.saved.as_ref().ok().and_then(|saved| saved.permille);
        let wanted = self.view().wants_checkpoint(ix, id, permille);
        let checkpoint = match report.saved {
            Ok(checkpoint) => checkpoint,
            Err(why) if wanted => return self.checkpoint_fault(task, why),
            Err(_) => return,
        };
        if !wanted {
            return self.drop_unwanted(self.leader.pool[ix].peer(), &checkpoint.files);
        }
        if let Some(why) = self.view().wrong_checkpoint(id, &checkpoint) {
            self.drop_unwanted(self.leader.pool[ix].peer(), &checkpoint.files);
            return self.checkpoint_fault(task, why);
        }
        let reported = ReportedCheckpoint {
            worker: ix,
            made: self.now - report.age,
            checkpoint,
        };
        if self.is_known(&reported) {
            return;
        }
        match self.leader.checkpoints.pending.get_mut(&task) {
            None => self.take_checkpoint(reported, Vec::new()),
            Some(pending) => {
                if let Some(before) = pending.next.replace(reported) {
                    self.refuse(&before);
                }
            }
        }
    }

    /// Returns whether a reported checkpoint is recorded or pending already, because the worker repeats its report.
    /// Records that the worker holds its files.
    fn is_known(&mut self, reported: &ReportedCheckpoint) -> bool {
        let (id, ix) = (reported.checkpoint.id, reported.worker);
        let recorded = self.view().recorded_checkpoint(id.attempt.task);
        let recorded = recorded.is_some_and(|recorded| recorded.checkpoint.id == id);
        let pending = self.leader.checkpoints.pending.get_mut(&id.attempt.task);
        let mut same = recorded;
        if let Some(pending) = pending {
            if pending
                .next
                .as_ref()
                .is_some_and(|next| next.checkpoint.id == id)
            {
                return true;
            }
            same |= pending.reported.checkpoint.id == id;
        }
        if same {
            for (hash, size) in reported.checkpoint.blobs() {
                self.note_holder(hash, Some(size), ix);
                self.fetch(hash);
            }
        }
        same
    }

    /// Fetches and replicates a checkpoint. `reports` are recorded after it.
    fn take_checkpoint(&mut self, reported: ReportedCheckpoint, reports: Vec<(WorkerIx, Report)>) {
        let task = reported.checkpoint.id.attempt.task;
        let blobs: Vec<(Hash, u64)> = reported.checkpoint.blobs().collect();
        self.note_outputs(task, &blobs, Some(reported.worker));
        let all = blobs.into_iter().map(|(hash, _)| hash);
        let missing: BTreeSet<Hash> = all
            .filter(|hash| !self.view().is_replicated(*hash))
            .collect();
        let pending = PendingCheckpoint {
            reported,
            missing: missing.clone(),
            next: None,
            reports,
        };
        self.leader.checkpoints.pending.insert(task, pending);
        if missing.is_empty() {
            return self.record_checkpoint(task);
        }
        for hash in missing {
            self.fetch(hash);
            self.replicate(hash);
        }
    }

    fn record_checkpoint(&mut self, task: TaskId) {
        let Some(pending) = self.leader.checkpoints.pending.get(&task) else {
            return;
        };
        let record = Record::Checkpointed {
            checkpoint: pending.reported.checkpoint.clone(),
            worker: self.leader.pool[pending.reported.worker].peer(),
            made: pending.reported.made,
            at: self.now,
        };
        self.append(record, None);
    }

    /// Records the checkpoints for which `hash` was the last blob that too few supervisors held.
    pub(crate) fn checkpoint_arrived(&mut self, hash: Hash) {
        if self.leader.checkpoints.pending.is_empty() {
            return;
        }
        for task in self.view().producers_of(hash) {
            let pending = self.leader.checkpoints.pending.get_mut(&task);
            if pending
                .is_some_and(|pending| pending.missing.remove(&hash) && pending.missing.is_empty())
            {
                self.record_checkpoint(task);
            }
        }
    }

    /// Gives up the pending checkpoints that need a blob which no peer provides.
    pub(crate) fn checkpoint_lost(&mut self, hash: Hash) {
        for task in self.view().producers_of(hash) {
            let pending = self.leader.checkpoints.pending.get(&task);
            if pending.is_some_and(|pending| pending.missing.contains(&hash)) {
                self.give_up_checkpoint(task);
            }
        }
    }

    /// Gives up the pending checkpoints of a lost worker, unless this supervisor holds all their blobs. Gives up all
    /// of them if the worker was revoked.
    pub(crate) fn lose_checkpoints(&mut self, ix: WorkerIx) {
        let revoked = self.state.is_revoked(self.leader.pool[ix].peer());
        let pending = self.leader.checkpoints.pending.iter();
        let of_worker = pending.filter(|(_, pending)| pending.reported.worker == ix);
        let here = |pending: &PendingCheckpoint| {
            let mut missing = pending.missing.iter();
            !revoked && missing.all(|hash| self.leader.blobs.is_here(*hash))
        };
        let lost = of_worker.filter(|(_, pending)| !here(pending));
        let lost: Vec<TaskId> = lost.map(|(task, _)| *task).collect();
        lost.into_iter()
            .for_each(|task| self.give_up_checkpoint(task));
    }

    /// Gives up a task's pending checkpoint.
    fn give_up_checkpoint(&mut self, task: TaskId) {
        if let Some(pending) = self.leader.checkpoints.pending.remove(&task) {
            let blobs = pending.reported.checkpoint.blobs().map(|(hash, _)| hash);
            self.release_checkpoint(task, blobs.collect());
            self.advance_checkpoints(task, pending.next, pending.reports);
        }
    }

    /// Handles a committed checkpoint. `dropped` are the blobs of the previous one that it does not need.
    pub(crate) fn after_checkpointed(&mut self, task: TaskId, dropped: Vec<Hash>) {
        self.leader.checkpoints.faults.remove(&task);
        let recorded = self.view().recorded_checkpoint(task);
        let recorded = recorded.map(|recorded| recorded.checkpoint.id);
        let pending = self.leader.checkpoints.pending.get(&task);
        let this = pending.is_some_and(|pending| recorded == Some(pending.reported.checkpoint.id));
        let pending = this.then(|| self.leader.checkpoints.pending.remove(&task));
        self.release_checkpoint(task, dropped);
        if let Some(pending) = pending.flatten() {
            self.advance_checkpoints(task, pending.next, pending.reports);
        }
        self.notify_watchers_soon(task.job);
    }

    /// Takes a task's next checkpoint after the pending one was recorded or given up, and records the ends of attempts
    /// that do not wait for that.
    fn advance_checkpoints(
        &mut self,
        task: TaskId,
        next: Option<ReportedCheckpoint>,
        reports: Vec<(WorkerIx, Report)>,
    ) {
        let wanted = |next: &ReportedCheckpoint| {
            let (id, permille) = (next.checkpoint.id, next.checkpoint.permille);
            self.view().wants_checkpoint(next.worker, id, permille)
        };
        match next {
            Some(next) if wanted(&next) => {
                let attempt = next.checkpoint.id.attempt;
                let (waiting, ready) = reports
                    .into_iter()
                    .partition(|(_, report)| report.attempt == attempt);
                self.record_reports(ready);
                self.take_checkpoint(next, waiting);
            }
            next => {
                next.into_iter().for_each(|next| self.refuse(&next));
                self.leader.timers.clear(Timer::Checkpoint(task));
                self.record_reports(reports);
            }
        }
    }

    fn record_reports(&mut self, reports: Vec<(WorkerIx, Report)>) {
        for (ix, report) in reports {
            self.record_report(ix, report);
        }
    }

    /// Drops the pending checkpoint of a task that is decided or whose job has ended, and records the end of the
    /// attempt that waited for it. `dropped` are blobs of a recorded checkpoint that is no longer needed.
    pub(crate) fn end_checkpoints(&mut self, task: TaskId, dropped: Vec<Hash>) {
        self.leader.checkpoints.faults.remove(&task);
        self.release_checkpoint(task, dropped);
        let Some(pending) = self.leader.checkpoints.pending.remove(&task) else {
            return;
        };
        self.leader.timers.clear(Timer::Checkpoint(task));
        let blobs = pending.reported.checkpoint.blobs().map(|(hash, _)| hash);
        self.release_checkpoint(task, blobs.collect());
        pending.next.iter().for_each(|next| self.refuse(next));
        self.record_reports(pending.reports);
    }

    /// Calls [`Self::end_checkpoints`] for all tasks of a job.
    pub(crate) fn end_checkpoints_of(&mut self, job: JobId) {
        let known = &self.leader.checkpoints;
        let tasks: BTreeSet<TaskId> = known
            .pending
            .range(job.tasks())
            .map(|(task, _)| *task)
            .chain(known.faults.range(job.tasks()).map(|(task, _)| *task))
            .collect();
        for task in tasks {
            self.end_checkpoints(task, Vec::new());
        }
    }

    /// Returns whether the end of an attempt has to wait for its last checkpoint. If so, keeps the report until then.
    pub(crate) fn awaits_checkpoint(&mut self, ix: WorkerIx, report: &Report) -> bool {
        let id = report.attempt;
        let done = matches!(report.outcome, Outcome::Done(_) | Outcome::Returned);
        if done || !self.leader.checkpoints.has_pending(id) || !self.state.wants(id) {
            return false;
        }
        let at = self.now + REPORT_WAITS;
        let leader = &mut *self.leader;
        if let Some(pending) = leader.checkpoints.pending.get_mut(&id.task) {
            pending.reports.retain(|(_, known)| known.attempt != id);
            pending.reports.push((ix, report.clone()));
            leader.timers.set_once(at, Timer::Checkpoint(id.task));
        }
        self.transition(id, AttemptEvent::Reported);
        true
    }

    /// Records the end of an attempt that has waited too long for its last checkpoint. The checkpoint may still
    /// arrive.
    pub(crate) fn report_overdue(&mut self, task: TaskId) {
        let pending = self.leader.checkpoints.pending.get_mut(&task);
        let reports = pending.map(|pending| std::mem::take(&mut pending.reports));
        self.record_reports(reports.unwrap_or_default());
    }

    /// Records that a worker fetched a checkpoint for an attempt. The worker drops the blobs that nothing needs any
    /// more.
    pub(crate) fn checkpoint_staged(&mut self, ix: WorkerIx, from: &Checkpoint) {
        let in_use = |(hash, _): &(Hash, u64)| self.leader.blobs.in_use(*hash);
        let (needed, unneeded): (Vec<_>, Vec<_>) = from.blobs().partition(in_use);
        for (hash, size) in needed {
            self.note_holder(hash, Some(size), ix);
        }
        let unneeded: Vec<Hash> = unneeded.into_iter().map(|(hash, _)| hash).collect();
        send_drop(self.leader.pool[ix].peer(), &unneeded, self.out);
    }

    /// Tells a worker to drop a checkpoint that will not be recorded.
    fn refuse(&mut self, reported: &ReportedCheckpoint) {
        let peer = self.leader.pool[reported.worker].peer();
        self.drop_unwanted(peer, &reported.checkpoint.files);
    }

    /// Releases the blobs in `blobs` that a task no longer needs.
    pub(crate) fn release_checkpoint(&mut self, task: TaskId, mut blobs: Vec<Hash>) {
        if blobs.is_empty() {
            return;
        }
        let needed = self.view().blobs_needed(task);
        blobs.retain(|hash| !needed.contains(hash));
        for hash in &blobs {
            self.leader.blobs.remove_producer(*hash, task);
        }
        self.drop_unused(blobs);
    }

    fn checkpoint_fault(&mut self, task: TaskId, mut why: String) {
        let end = why.floor_char_boundary(TEXT_BYTES_MAX);
        why.truncate(end);
        self.leader.checkpoints.faults.insert(task, why);
        self.notify_watchers_soon(task.job);
    }

    /// Registers, fetches and replicates the recorded checkpoints of a job on a new leader.
    pub(crate) fn expect_checkpoints(&mut self, job: JobId) {
        let known = self.state.jobs.get(&job).into_iter();
        let recorded = known.flat_map(|known| known.checkpoints.values());
        for recorded in recorded.cloned().collect::<Vec<_>>() {
            let task = recorded.checkpoint.id.attempt.task;
            let blobs: Vec<(Hash, u64)> = recorded.checkpoint.blobs().collect();
            self.note_outputs(task, &blobs, None);
            for (hash, _) in blobs {
                self.fetch(hash);
                self.replicate(hash);
            }
        }
    }

    /// Fetches recorded checkpoints that this supervisor lacks, after peers have connected.
    pub(crate) fn fetch_checkpoints(&mut self) {
        let jobs = self.leader.jobs.iter();
        let jobs = jobs.filter_map(|(job, _)| self.state.jobs.get(&job));
        let blobs = jobs.flat_map(|job| job.checkpoint_blobs());
        let missing: Vec<Hash> = blobs
            .map(|(hash, _)| hash)
            .filter(|hash| !self.leader.blobs.is_here(*hash))
            .collect();
        missing.into_iter().for_each(|hash| self.fetch(hash));
    }
}

impl<'a> LeaderView<'a> {
    /// A task's newest recorded checkpoint.
    pub(crate) fn recorded_checkpoint(&self, task: TaskId) -> Option<&'a RecordedCheckpoint> {
        self.state.jobs.get(&task.job)?.checkpoint_of(task.number)
    }

    /// Returns the checkpoint from which a task's next attempt resumes, if all its blobs are reachable.
    pub(crate) fn usable_checkpoint(&self, task: TaskId) -> Option<&'a Arc<Checkpoint>> {
        let checkpoint = &self.recorded_checkpoint(task)?.checkpoint;
        let mut blobs = checkpoint.blobs();
        let there = blobs.all(|(hash, _)| self.within_reach(hash));
        there.then_some(checkpoint)
    }

    /// Returns whether a checkpoint from this worker would be useful and not older than the recorded one.
    fn wants_checkpoint(&self, ix: WorkerIx, id: CheckpointId, permille: Option<u16>) -> bool {
        let leader = self.leader;
        let task = id.attempt.task;
        let mine = leader.tasks.attempt(id.attempt);
        let mine = mine.is_some_and(|attempt| {
            attempt.worker() == ix && attempt.state().in_hand() && attempt.state().active()
        });
        let decided = leader.tasks.get(&task).and_then(ActiveTask::committing);
        if !mine || decided.is_some() || !self.state.wants(id.attempt) {
            return false;
        }
        let Some(known) = self.recorded_checkpoint(task) else {
            return true;
        };
        let (further, known) = (permille > known.checkpoint.permille, known.checkpoint.id);
        if known.attempt == id.attempt {
            return known.number <= id.number;
        }
        // While the attempt whose checkpoint is recorded is alive, another's counts only if more work is done in it.
        let supplier = leader.tasks.attempt(known.attempt);
        further || !supplier.is_some_and(|attempt| attempt.state().alive())
    }

    /// Returns what is wrong with a reported checkpoint.
    fn wrong_checkpoint(&self, id: CheckpointId, checkpoint: &Checkpoint) -> Option<String> {
        let job = self.state.jobs.get(&id.attempt.task.job)?;
        let group = &job.spec.groups()[job.spec.group_of(id.attempt.task.number)];
        let Some(rule) = group.checkpoint.as_deref() else {
            return Some("its task has none".to_owned());
        };
        wrong(rule, id, checkpoint)
    }

    /// Returns the tasks that produced a blob, as an output or in a checkpoint.
    fn producers_of(&self, hash: Hash) -> Vec<TaskId> {
        let blob = self.leader.blobs.get(hash);
        blob.map(|blob| blob.producers().to_vec())
            .unwrap_or_default()
    }

    /// Returns the blobs that are kept as outputs or checkpoints of a task.
    fn blobs_needed(&self, task: TaskId) -> BTreeSet<Hash> {
        let mut needed: BTreeSet<Hash> = self.leader.checkpoints.blobs_of(task).collect();
        let recorded = self.recorded_checkpoint(task).into_iter();
        needed.extend(recorded.flat_map(|known| known.checkpoint.blobs().map(|(hash, _)| hash)));
        let done = self.state.task(task).and_then(|task| task.done());
        let outputs = done.into_iter().flat_map(|done| done.blobs());
        needed.extend(outputs.map(|(hash, _)| hash));
        needed
    }

    /// Checks the invariants of checkpoints.
    pub(crate) fn check_checkpoints(&self) -> Result<(), String> {
        let known = &self.leader.checkpoints;
        for (task, pending) in &known.pending {
            let open = self.state.task(*task).is_some_and(|task| task.is_open());
            if !open || !self.leader.jobs.contains(task.job) {
                return Err(format!("a checkpoint of {task} is on its way in vain"));
            }
            let timed = self.leader.timers.at(Timer::Checkpoint(*task)).is_some();
            if !pending.reports.is_empty() && !timed {
                return Err(format!("an end of {task} waits without a limit"));
            }
        }
        let jobs = self.leader.jobs.iter();
        let jobs = jobs.filter_map(|(job, _)| Some((job, self.state.jobs.get(&job)?)));
        for (job, known) in jobs {
            for (number, recorded) in &known.checkpoints {
                let task = TaskId {
                    job,
                    number: *number,
                };
                for (hash, _) in recorded.checkpoint.blobs() {
                    if !self.producers_of(hash).contains(&task) {
                        return Err(format!("{hash} of the checkpoint of {task} is not kept"));
                    }
                }
            }
        }
        Ok(())
    }
}

fn wrong(rule: &CheckpointRule, id: CheckpointId, checkpoint: &Checkpoint) -> Option<String> {
    let paths: Vec<&str> = checkpoint.files.iter().map(|file| &*file.path).collect();
    let declared: Vec<&str> = rule.files.iter().map(|file| &**file).collect();
    if paths != declared || checkpoint.id != id {
        return Some("its worker reported other files than it is to have".to_owned());
    }
    let inline = checkpoint
        .files
        .iter()
        .filter(|file| file.data.hash().is_none());
    let inline = inline.fold(0, |sum: u64, file| sum.saturating_add(file.data.size()));
    if inline > INLINE_BYTES_MAX as u64 {
        return Some(
            "its worker reported more within a message than fits into a record".to_owned(),
        );
    }
    let bytes = checkpoint.bytes();
    (bytes > rule.bytes_max).then(|| {
        let (bytes, most) = (show_bytes(bytes), show_bytes(rule.bytes_max));
        format!("it takes {bytes}, and at most {most} are saved")
    })
}
