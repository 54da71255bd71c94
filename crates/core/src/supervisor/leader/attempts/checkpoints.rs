//! Checkpoints on their way from workers to the journal. One is recorded once as many supervisors hold its files as are to
//! hold results, so that what is recorded survives the loss of a machine. One at a time is on its way for each task; of
//! those that come meanwhile the newest waits.

use crate::supervisor::durable::checkpoints::RecordedCheckpoint;
use crate::supervisor::leader::attempts::active::ActiveTask;
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

/// How long the end of an attempt waits for its last checkpoint, at most: beyond, doing again what that one has saved is
/// likely to cost less.
const REPORT_WAITS: Duration = Duration::from_secs(60);

/// The checkpoints that are not recorded yet, and why others were not saved.
#[derive(Debug, Default)]
pub(crate) struct Checkpoints {
    coming: BTreeMap<TaskId, Coming>,
    faults: BTreeMap<TaskId, String>,
}

/// A checkpoint that a worker has.
#[derive(Clone, Debug)]
struct ReportedCheckpoint {
    worker: WorkerIx,
    checkpoint: Arc<Checkpoint>,
    made: Time,
}

/// A task's checkpoint on its way.
#[derive(Debug)]
struct Coming {
    offered: ReportedCheckpoint,
    /// Blobs that fewer supervisors hold than are to; none are left while it is on its way through the journal.
    missing: BTreeSet<Hash>,
    /// A newer one.
    next: Option<ReportedCheckpoint>,
    /// The end of the attempt that made the last of them, from this worker: it is recorded after that.
    report: Option<(WorkerIx, Report)>,
}

impl Checkpoints {
    /// Why a task's last checkpoint was not saved.
    pub fn fault(&self, task: TaskId) -> Option<&str> {
        self.faults.get(&task).map(String::as_str)
    }

    /// Blobs of a task's checkpoint that is on its way.
    fn blobs_of(&self, task: TaskId) -> impl Iterator<Item = Hash> + '_ {
        let coming = self.coming.get(&task).into_iter();
        let blobs = coming.flat_map(|coming| coming.offered.checkpoint.blobs());
        blobs.map(|(hash, _)| hash)
    }

    /// Whether a checkpoint of an attempt is on its way.
    fn has_pending(&self, id: AttemptId) -> bool {
        let Some(coming) = self.coming.get(&id.task) else {
            return false;
        };
        let mut all = [&coming.offered].into_iter().chain(&coming.next);
        all.any(|offered| offered.checkpoint.id.attempt == id)
    }
}

impl Leadership<'_> {
    /// A worker has a checkpoint of an attempt, or says why not.
    pub(crate) fn on_checkpoint(&mut self, ix: WorkerIx, report: CheckpointReport) {
        let (id, task) = (report.id, report.id.attempt.task);
        let wanted = self.view().wants_checkpoint(ix, id);
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
        let offered = ReportedCheckpoint {
            worker: ix,
            made: self.now - report.age,
            checkpoint,
        };
        if self.is_known(&offered) {
            return;
        }
        match self.leader.checkpoints.coming.get_mut(&task) {
            None => self.take_checkpoint(offered, None),
            Some(coming) => {
                if let Some(before) = coming.next.replace(offered) {
                    self.refuse(&before);
                }
            }
        }
    }

    /// Whether it is recorded or on its way: then its worker says it again. Its worker holds the files.
    fn is_known(&mut self, offered: &ReportedCheckpoint) -> bool {
        let (id, ix) = (offered.checkpoint.id, offered.worker);
        let recorded = self.view().recorded_checkpoint(id.attempt.task);
        let recorded = recorded.is_some_and(|recorded| recorded.checkpoint.id == id);
        let coming = self.leader.checkpoints.coming.get_mut(&id.attempt.task);
        let mut same = recorded;
        if let Some(coming) = coming {
            if coming
                .next
                .as_ref()
                .is_some_and(|next| next.checkpoint.id == id)
            {
                return true;
            }
            same |= coming.offered.checkpoint.id == id;
        }
        if same {
            for (hash, size) in offered.checkpoint.blobs() {
                self.note_holder(hash, Some(size), ix);
                self.fetch(hash);
            }
        }
        same
    }

    /// Fetches a checkpoint and has as many supervisors hold it as are to; `report` is recorded after it.
    fn take_checkpoint(&mut self, offered: ReportedCheckpoint, report: Option<(WorkerIx, Report)>) {
        let task = offered.checkpoint.id.attempt.task;
        let blobs: Vec<(Hash, u64)> = offered.checkpoint.blobs().collect();
        self.note_outputs(task, &blobs, Some(offered.worker));
        let all = blobs.into_iter().map(|(hash, _)| hash);
        let missing: BTreeSet<Hash> = all
            .filter(|hash| !self.view().is_replicated(*hash))
            .collect();
        let coming = Coming {
            offered,
            missing: missing.clone(),
            next: None,
            report,
        };
        self.leader.checkpoints.coming.insert(task, coming);
        if missing.is_empty() {
            return self.record_checkpoint(task);
        }
        for hash in missing {
            self.fetch(hash);
            self.replicate(hash);
        }
    }

    fn record_checkpoint(&mut self, task: TaskId) {
        let Some(coming) = self.leader.checkpoints.coming.get(&task) else {
            return;
        };
        let record = Record::Checkpointed {
            checkpoint: coming.offered.checkpoint.clone(),
            worker: self.leader.pool[coming.offered.worker].peer(),
            made: coming.offered.made,
            at: self.now,
        };
        self.append(record, None);
    }

    /// As many supervisors hold a blob as are to.
    pub(crate) fn checkpoint_arrived(&mut self, hash: Hash) {
        if self.leader.checkpoints.coming.is_empty() {
            return;
        }
        for task in self.view().producers_of(hash) {
            let coming = self.leader.checkpoints.coming.get_mut(&task);
            if coming
                .is_some_and(|coming| coming.missing.remove(&hash) && coming.missing.is_empty())
            {
                self.record_checkpoint(task);
            }
        }
    }

    /// Nobody gives a blob: a checkpoint that lacks it is given up.
    pub(crate) fn checkpoint_lost(&mut self, hash: Hash) {
        for task in self.view().producers_of(hash) {
            let coming = self.leader.checkpoints.coming.get(&task);
            if coming.is_some_and(|coming| coming.missing.contains(&hash)) {
                self.give_up_checkpoint(task);
            }
        }
    }

    /// The checkpoints of a worker that is lost are given up, as far as they are not here; those of one that was revoked in
    /// any case.
    pub(crate) fn lose_checkpoints(&mut self, ix: WorkerIx) {
        let revoked = self.state.is_revoked(self.leader.pool[ix].peer());
        let coming = self.leader.checkpoints.coming.iter();
        let of_worker = coming.filter(|(_, coming)| coming.offered.worker == ix);
        let here = |coming: &Coming| {
            let mut missing = coming.missing.iter();
            !revoked && missing.all(|hash| self.leader.blobs.is_here(*hash))
        };
        let lost = of_worker.filter(|(_, coming)| !here(coming));
        let lost: Vec<TaskId> = lost.map(|(task, _)| *task).collect();
        lost.into_iter()
            .for_each(|task| self.give_up_checkpoint(task));
    }

    /// The checkpoint on its way does not come.
    fn give_up_checkpoint(&mut self, task: TaskId) {
        if let Some(coming) = self.leader.checkpoints.coming.remove(&task) {
            let blobs = coming.offered.checkpoint.blobs().map(|(hash, _)| hash);
            self.release_checkpoint(task, blobs.collect());
            self.advance_checkpoints(task, coming.next, coming.report);
        }
    }

    /// A checkpoint is recorded; `dropped` are the blobs of the one before that it does not need.
    pub(crate) fn after_checkpointed(&mut self, task: TaskId, dropped: Vec<Hash>) {
        self.leader.checkpoints.faults.remove(&task);
        let recorded = self.view().recorded_checkpoint(task);
        let recorded = recorded.map(|recorded| recorded.checkpoint.id);
        let coming = self.leader.checkpoints.coming.get(&task);
        let this = coming.is_some_and(|coming| recorded == Some(coming.offered.checkpoint.id));
        let coming = this.then(|| self.leader.checkpoints.coming.remove(&task));
        self.release_checkpoint(task, dropped);
        if let Some(coming) = coming.flatten() {
            self.advance_checkpoints(task, coming.next, coming.report);
        }
        self.notify_watchers_soon(task.job);
    }

    /// No checkpoint of a task is on its way now: takes the next one, or records the end that waited for it.
    fn advance_checkpoints(
        &mut self,
        task: TaskId,
        next: Option<ReportedCheckpoint>,
        report: Option<(WorkerIx, Report)>,
    ) {
        let wanted = |next: &ReportedCheckpoint| {
            let id = next.checkpoint.id;
            self.view().wants_checkpoint(next.worker, id)
        };
        match (next, report) {
            (Some(next), report) if wanted(&next) => self.take_checkpoint(next, report),
            (next, report) => {
                next.into_iter().for_each(|next| self.refuse(&next));
                self.leader.timers.clear(Timer::Checkpoint(task));
                if let Some((ix, report)) = report {
                    self.record_report(ix, report);
                }
            }
        }
    }

    /// A task is decided, or its job has ended: it needs no checkpoint but one that is recorded. `dropped` are blobs of one
    /// that was.
    pub(crate) fn end_checkpoints(&mut self, task: TaskId, dropped: Vec<Hash>) {
        self.leader.checkpoints.faults.remove(&task);
        self.release_checkpoint(task, dropped);
        let Some(coming) = self.leader.checkpoints.coming.remove(&task) else {
            return;
        };
        self.leader.timers.clear(Timer::Checkpoint(task));
        let blobs = coming.offered.checkpoint.blobs().map(|(hash, _)| hash);
        self.release_checkpoint(task, blobs.collect());
        coming.next.iter().for_each(|next| self.refuse(next));
        if let Some((ix, report)) = coming.report {
            self.record_report(ix, report);
        }
    }

    /// The same for all tasks of a job.
    pub(crate) fn end_checkpoints_of(&mut self, job: JobId) {
        let known = &self.leader.checkpoints;
        let tasks: BTreeSet<TaskId> = known
            .coming
            .range(job.tasks())
            .map(|(task, _)| *task)
            .chain(known.faults.range(job.tasks()).map(|(task, _)| *task))
            .collect();
        for task in tasks {
            self.end_checkpoints(task, Vec::new());
        }
    }

    /// Whether the end of an attempt has to wait until its last checkpoint is recorded: then it is kept until then.
    pub(crate) fn awaits_checkpoint(&mut self, ix: WorkerIx, report: &Report) -> bool {
        let id = report.attempt;
        let done = matches!(report.outcome, Outcome::Done(_) | Outcome::Returned);
        if done || !self.leader.checkpoints.has_pending(id) || !self.state.wants(id) {
            return false;
        }
        let at = self.now + REPORT_WAITS;
        let leader = &mut *self.leader;
        if let Some(coming) = leader.checkpoints.coming.get_mut(&id.task) {
            coming.report = Some((ix, report.clone()));
            leader.timers.set_once(at, Timer::Checkpoint(id.task));
        }
        true
    }

    /// The end of an attempt has waited long enough for its last checkpoint, which may still come.
    pub(crate) fn report_overdue(&mut self, task: TaskId) {
        let coming = self.leader.checkpoints.coming.get_mut(&task);
        if let Some((ix, report)) = coming.and_then(|coming| coming.report.take()) {
            self.record_report(ix, report);
        }
    }

    /// A worker has fetched a checkpoint for an attempt. It drops what nobody needs by now.
    pub(crate) fn checkpoint_staged(&mut self, ix: WorkerIx, from: &Checkpoint) {
        let in_use = |(hash, _): &(Hash, u64)| self.leader.blobs.in_use(*hash);
        let (needed, unneeded): (Vec<_>, Vec<_>) = from.blobs().partition(in_use);
        for (hash, size) in needed {
            self.note_holder(hash, Some(size), ix);
        }
        let unneeded: Vec<Hash> = unneeded.into_iter().map(|(hash, _)| hash).collect();
        send_drop(self.leader.pool[ix].peer(), &unneeded, self.out);
    }

    /// A worker is to drop a checkpoint that is not taken.
    fn refuse(&mut self, offered: &ReportedCheckpoint) {
        let peer = self.leader.pool[offered.worker].peer();
        self.drop_unwanted(peer, &offered.checkpoint.files);
    }

    /// A task does not need these blobs for a checkpoint any more.
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

    /// A new leader needs what is recorded of a job.
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

    /// Fetches recorded checkpoints that are not here, from peers that came.
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
    /// A task's newest checkpoint.
    pub(crate) fn recorded_checkpoint(&self, task: TaskId) -> Option<&'a RecordedCheckpoint> {
        self.state.jobs.get(&task.job)?.checkpoint_of(task.number)
    }

    /// The checkpoint that a task's next attempt goes on from, where it is within reach.
    pub(crate) fn usable_checkpoint(&self, task: TaskId) -> Option<&'a Arc<Checkpoint>> {
        let checkpoint = &self.recorded_checkpoint(task)?.checkpoint;
        let mut blobs = checkpoint.blobs();
        let there = blobs.all(|(hash, _)| self.within_reach(hash));
        there.then_some(checkpoint)
    }

    /// Whether a checkpoint of an attempt of this worker would be newer than what is known, and of use.
    fn wants_checkpoint(&self, ix: WorkerIx, id: CheckpointId) -> bool {
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
        let known = known.checkpoint.id;
        if known.attempt == id.attempt {
            return known.number <= id.number;
        }
        // Of several attempts the one that has supplied checkpoints goes on to.
        let supplier = leader.tasks.attempt(known.attempt);
        !supplier.is_some_and(|attempt| attempt.state().alive())
    }

    /// What is wrong with a checkpoint that a worker reports.
    fn wrong_checkpoint(&self, id: CheckpointId, checkpoint: &Checkpoint) -> Option<String> {
        let job = self.state.jobs.get(&id.attempt.task.job)?;
        let group = &job.spec.groups()[job.spec.group_of(id.attempt.task.number)];
        let Some(rule) = group.checkpoint.as_deref() else {
            return Some("its task has none".to_owned());
        };
        wrong(rule, id, checkpoint)
    }

    /// The tasks that made a blob.
    fn producers_of(&self, hash: Hash) -> Vec<TaskId> {
        let blob = self.leader.blobs.get(hash);
        blob.map(|blob| blob.producers().to_vec())
            .unwrap_or_default()
    }

    /// The blobs that are kept as made by a task.
    fn blobs_needed(&self, task: TaskId) -> BTreeSet<Hash> {
        let mut needed: BTreeSet<Hash> = self.leader.checkpoints.blobs_of(task).collect();
        let recorded = self.recorded_checkpoint(task).into_iter();
        needed.extend(recorded.flat_map(|known| known.checkpoint.blobs().map(|(hash, _)| hash)));
        let done = self.state.task(task).and_then(|task| task.done());
        let left = done.into_iter().flat_map(|done| done.blobs());
        needed.extend(left.map(|(hash, _)| hash));
        needed
    }

    /// What must hold of checkpoints.
    pub(crate) fn check_checkpoints(&self) -> Result<(), String> {
        let known = &self.leader.checkpoints;
        for (task, coming) in &known.coming {
            let open = self.state.task(*task).is_some_and(|task| task.is_open());
            if !open || !self.leader.jobs.contains(task.job) {
                return Err(format!("a checkpoint of {task} is on its way in vain"));
            }
            let timed = self.leader.timers.at(Timer::Checkpoint(*task)).is_some();
            if coming.report.is_some() && !timed {
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
