//! Where blobs can be fetched, which are lost, and which ones this supervisor fetches.

use crate::supervisor::durable::job::{Done, Job};
use crate::supervisor::leader::blobs::state::{Blob, BlobEvent, CopyEvent};
use crate::supervisor::leader::jobs::failure::LOST;
use crate::supervisor::leader::timers::Timer;
use crate::supervisor::leader::{LeaderView, Leadership, WorkerIx};
use crate::supervisor::{Action, FetchFailure, send};
use hedge_model::msg::ToWorker;
use hedge_model::record::Record;
use hedge_model::{FileEntry, Hash, PeerId, Source, TaskId};
use std::collections::BTreeSet;
use std::time::Duration;

/// Failed transfers after which holders that did not deliver count as not having the blob, and failed proofs of
/// possession after which a client counts as not having it: about 3 s.
pub(super) const FETCH_FAILURES_MAX: u8 = 5;
/// Backoff after a failed transfer; doubles each time.
const FETCH_AGAIN_AFTER: Duration = Duration::from_millis(200);
/// Maximum number of workers named as holders of inputs, of blobs that are examined for that, and of submitting
/// clients that are named: a longer list costs more than the choice is worth.
const SOURCES_MAX: usize = 32;

impl Leadership<'_> {
    /// Records that a worker holds a blob.
    pub(crate) fn note_holder(&mut self, hash: Hash, size: Option<u64>, ix: WorkerIx) {
        let blobs = &mut self.leader.blobs;
        blobs.transition(hash, BlobEvent::HeldBy(ix));
        if let Some(size) = size {
            blobs.set_size(hash, size);
        }
    }

    /// Records the outputs of a task, and the worker that holds them.
    pub(crate) fn note_outputs(
        &mut self,
        task: TaskId,
        outputs: &[(Hash, u64)],
        ix: Option<WorkerIx>,
    ) {
        for (hash, size) in outputs {
            self.leader.blobs.add_producer(*hash, *size, task);
            if let Some(ix) = ix {
                self.note_holder(*hash, Some(*size), ix);
            }
        }
    }

    /// Reruns tasks whose outputs are lost with a worker that has been gone for `content_grace`.
    pub(crate) fn rerun_after_gone_holder(&mut self, ix: WorkerIx) {
        if self.leader.pool[ix].state().reachable() {
            return;
        }
        let held: Vec<Hash> = self.leader.blobs.held_by(ix).collect();
        self.rerun_where_lost(held);
    }

    /// Reruns tasks whose outputs are lost because no holder connected within `content_grace` after this leader
    /// began.
    pub(crate) fn rerun_after_absent_holders(&mut self) {
        let all: Vec<Hash> = self.leader.blobs.iter().map(|(hash, _)| hash).collect();
        self.rerun_where_lost(all);
        self.retry_blocked_groups();
        let leader = &mut *self.leader;
        leader.fit.recheck(leader.ready.lanes());
    }

    /// Fetches a retained blob that the own store lacks, because a worker holds it.
    pub(crate) fn fetch_kept(&mut self, hash: Hash) {
        let blob = self.leader.blobs.get(hash);
        if blob.is_some_and(|blob| blob.is_retained() && !blob.is_here()) {
            self.fetch(hash);
        }
    }

    /// Reruns the producers of lost blobs in `hashes` that a job needs.
    pub(crate) fn rerun_where_lost(&mut self, hashes: impl IntoIterator<Item = Hash>) {
        for hash in hashes {
            if self.view().produced_and_needed(hash) {
                self.rerun_if_lost(hash);
            }
        }
    }

    /// Reruns the tasks that produced a blob if it is lost for good.
    pub(crate) fn rerun_if_lost(&mut self, hash: Hash) {
        if !self.view().beyond_recovery(hash) {
            return;
        }
        let blob = self.leader.blobs.get(hash);
        let producers = blob.map(|blob| blob.producers().to_vec());
        for task in producers.unwrap_or_default() {
            let done = self.state.task(task).and_then(|known| known.done());
            if done.is_some_and(|done| done.blobs().any(|(blob, _)| blob == hash)) {
                self.lose_outputs(task);
            }
        }
    }

    /// Reruns a task if one of its outputs is lost for good.
    pub(crate) fn rerun_if_outputs_lost(&mut self, task: TaskId) {
        let done = self.state.task(task).and_then(|known| known.done());
        let mut outputs = done.into_iter().flat_map(|done| done.blobs());
        if outputs.any(|(hash, _)| self.view().beyond_recovery(hash)) {
            self.lose_outputs(task);
        }
    }

    fn lose_outputs(&mut self, task: TaskId) {
        let Some(generation) = self.state.task(task).map(|known| known.generation) else {
            return;
        };
        let job = self.state.jobs.get(&task.job);
        let spec = job.map(|job| &job.spec);
        if let Some(spec) = spec.filter(|spec| spec.groups()[spec.group_of(task.number)].once) {
            let why = format!(
                "the outputs of task {} were {LOST}",
                spec.label(task.number)
            );
            return self.fail_job(task.job, Some(task), why);
        }
        if self.leader.blobs.begin_loss(task) {
            self.append(
                Record::OutputsLost {
                    task,
                    generation,
                    at: self.now,
                },
                None,
            );
        }
    }

    /// Unblocks and offers groups and tasks whose inputs may be reachable now, after a possible holder has connected.
    pub(crate) fn retry_blocked_groups(&mut self) {
        for (job, group) in self.leader.blocked.take_inputs_unreachable() {
            self.refresh_offers(job, group as usize);
        }
        self.retry_blocked_tasks();
    }

    /// Fetches a blob into the own store, unless it is there or being fetched.
    pub(crate) fn fetch(&mut self, hash: Hash) {
        self.request_fetch(hash, CopyEvent::Wanted);
    }

    /// Retries a failed transfer, if it is still wanted.
    pub(crate) fn retry_fetch(&mut self, hash: Hash) {
        self.request_fetch(hash, CopyEvent::Due);
    }

    /// Handles a blob that a worker could not fetch from any named holder. Fetches it into the own store to find out
    /// whether the holders have it.
    pub(crate) fn distrust(&mut self, hash: Hash) {
        let leader = &mut *self.leader;
        leader.jobs.drop_bodies(|ready| ready.blobs.contains(&hash));
        if leader.blobs.get(hash).is_some_and(|blob| !blob.is_here()) {
            self.rerun_if_lost(hash);
            self.request_fetch(hash, CopyEvent::Suspected);
        }
    }

    /// Requests a transfer of a known blob that the own store lacks, if `event` leads to that. If no holder is known,
    /// fails what waits for the blob.
    fn request_fetch(&mut self, hash: Hash, event: CopyEvent) {
        let known = self.leader.blobs.get(hash);
        let Some(blob) = known.filter(|blob| !blob.is_here()) else {
            return;
        };
        let (size, asked) = (blob.size(), blob.is_fetching());
        let me = self.config.me.peer;
        // The newest submitter is the most likely one to be still connected.
        let clients = self.leader.submissions.lacking(hash).rev();
        let clients = clients
            .take(SOURCES_MAX)
            .map(|submit| submit.new.from.clone());
        let mut sources = self.view().sources(&[hash]);
        sources.extend(clients);
        sources.retain(|source| source.peer != me);
        if sources.is_empty() {
            let given_up = BlobEvent::Own(CopyEvent::GivenUp);
            self.leader.blobs.transition(hash, given_up);
            self.checkpoint_lost(hash);
            let why = "nobody who holds them is named";
            return self.refuse_submissions(why, |submit| submit.lacks(hash));
        }
        let blobs = &mut self.leader.blobs;
        blobs.transition(hash, BlobEvent::Own(event));
        if !asked && blobs.get(hash).is_some_and(Blob::is_fetching) {
            self.out.push(Action::Fetch {
                hash,
                size,
                sources,
            });
        }
    }

    /// Handles the end of a transfer into the own store: `result` is the peer that sent all of the blob, or the
    /// failure.
    pub(crate) fn on_fetched(&mut self, hash: Hash, result: Result<Option<PeerId>, FetchFailure>) {
        let failure = match result {
            Ok(sender) => return self.on_arrived(hash, sender),
            Err(failure) => failure,
        };
        let blobs = &mut self.leader.blobs;
        let Some(blob) = blobs.get(hash).filter(|blob| blob.is_fetching()) else {
            return;
        };
        let failures = (blob.failures() + 1).min(FETCH_FAILURES_MAX);
        let again = self.now + again_after(failures);
        let failed = |fault| BlobEvent::Own(CopyEvent::Failed { fault });
        if !blob.in_use() {
            // It is not needed any more.
            blobs.transition(hash, BlobEvent::Own(CopyEvent::GivenUp));
            return;
        }
        if failures < FETCH_FAILURES_MAX {
            blobs.transition(hash, failed(None));
            return self.leader.timers.set(again, Timer::Fetch(hash));
        }
        match failure {
            FetchFailure::Here(why) => {
                blobs.transition(hash, failed(Some(why.clone())));
                self.leader.timers.set(again, Timer::Fetch(hash));
                self.refuse_submissions(&why, |submit| submit.lacks(hash));
            }
            FetchFailure::Sources(why) => {
                blobs.transition(hash, BlobEvent::Own(CopyEvent::GivenUp));
                self.distrust_holders(hash);
                self.rerun_if_lost(hash);
                self.checkpoint_lost(hash);
                self.retry_blocked_groups();
                self.refuse_submissions(&why, |submit| submit.lacks(hash));
                self.leader.leaving.recheck();
            }
        }
    }

    /// Handles a blob that arrived in the own store. `sender` is the peer that sent all of it, if one did.
    fn on_arrived(&mut self, hash: Hash, sender: Option<PeerId>) {
        let arrived = BlobEvent::Own(CopyEvent::Arrived);
        self.leader.blobs.transition(hash, arrived);
        self.replicate(hash);
        self.prove_arrived(hash, sender);
        if self.view().is_replicated(hash) {
            self.on_blob_available(hash);
        }
        self.drop_unused([hash]);
    }

    /// Removes the reachable workers as holders of a blob that none of them provided. Other holders may still return
    /// with it.
    fn distrust_holders(&mut self, hash: Hash) {
        let leader = &mut *self.leader;
        let holders = leader.blobs.get(hash).map(|blob| blob.workers().to_vec());
        let mut there = holders.unwrap_or_default();
        there.retain(|ix| leader.pool[*ix].state().reachable());
        // The blob names its producers, and it may be removed with its last holder.
        let liars = self.view().makers_among(hash, &there);
        for ix in &there {
            let leader = &mut *self.leader;
            leader.blobs.transition(hash, BlobEvent::NotHeldBy(*ix));
            send(
                leader.pool[*ix].peer(),
                ToWorker::Drop(vec![hash]),
                self.out,
            );
        }
        for ix in liars {
            self.exclude_faulty(ix, "does not give an output that it reported".to_owned());
        }
    }

    /// Fetches results and checkpoints that jobs still await, after a worker has connected.
    pub(crate) fn fetch_wanted(&mut self) {
        let jobs = self.leader.jobs.iter();
        let wanted: Vec<Hash> = jobs
            .flat_map(|(_, job)| job.awaited_results().iter().copied())
            .collect();
        wanted.into_iter().for_each(|hash| self.fetch(hash));
        self.fetch_checkpoints();
    }

    /// Continues everything that waited until enough supervisors hold a blob.
    pub(crate) fn on_blob_available(&mut self, hash: Hash) {
        self.input_arrived(hash);
        self.checkpoint_arrived(hash);
        let jobs = self.leader.jobs.note_replicated(hash);
        self.retry_blocked_groups();
        jobs.into_iter().for_each(|job| self.finish_if_done(job));
        self.leader.leaving.recheck();
    }
}

impl LeaderView<'_> {
    /// Returns whether a blob is in the own store or a connected peer holds it.
    pub(crate) fn within_reach(&self, hash: Hash) -> bool {
        let leader = self.leader;
        leader.blobs.get(hash).is_some_and(|blob| {
            let there = |ix: &WorkerIx| leader.pool[*ix].state().reachable();
            let workers = !blob.is_suspected() && blob.workers().iter().any(there);
            blob.is_here() || workers || self.replica_holders(hash).next().is_some()
        })
    }

    /// Returns whether no peer that is connected or may return holds a blob. During the grace period after this leader
    /// began, that is not known of any blob.
    fn beyond_recovery(&self, hash: Hash) -> bool {
        let leader = self.leader;
        let grace = self.config.content_grace;
        let settled = self.now.since(leader.recovery.since()) >= grace;
        leader.blobs.get(hash).is_none_or(|blob| {
            let back = |ix: &WorkerIx| leader.pool[*ix].state().may_return(self.now, grace);
            let elsewhere = blob.replicas().held_count() > 0;
            settled && !blob.is_here() && !elsewhere && !blob.workers().iter().any(back)
        })
    }

    /// Returns the peers that a client asks for `blobs`: this supervisor, other supervisors that hold them, workers,
    /// then supervisors that may hold them by then.
    pub(crate) fn sources_for_clients(&self, blobs: &[Hash]) -> Vec<Source> {
        let me = &self.config.me;
        let supervisors = self.peers.supervisors(&self.config.me);
        let is_supervisor = |peer: PeerId| supervisors.iter().any(|other| other.peer == peer);
        let (holders, workers): (Vec<Source>, Vec<Source>) = self
            .sources(blobs)
            .into_iter()
            .partition(|source| is_supervisor(source.peer));
        let mut all = vec![me.clone()];
        for source in holders.into_iter().chain(workers).chain(supervisors) {
            if all.iter().all(|other| other.peer != source.peer) {
                all.push(source);
            }
        }
        all
    }

    /// Returns peers that hold any of `blobs`: workers first and this supervisor last, so that data flows directly
    /// between workers.
    pub(crate) fn sources(&self, blobs: &[Hash]) -> Vec<Source> {
        let leader = self.leader;
        let mut workers = BTreeSet::<WorkerIx>::new();
        let mut own = false;
        for blob in blobs.iter().filter_map(|hash| leader.blobs.get(*hash)) {
            own |= blob.is_here();
            workers.extend(
                blob.workers()
                    .iter()
                    .copied()
                    .filter(|ix| leader.pool[*ix].state().reachable()),
            );
            if workers.len() >= SOURCES_MAX {
                break;
            }
        }
        let mut sources: Vec<Source> = workers
            .iter()
            .take(SOURCES_MAX)
            .map(|ix| leader.pool[*ix].info().addr.clone())
            .collect();
        let keepers = blobs
            .iter()
            .take(SOURCES_MAX)
            .flat_map(|hash| self.replica_holders(*hash));
        for keeper in keepers {
            if sources.iter().all(|source| source.peer != keeper.peer) {
                sources.push(keeper.clone());
            }
        }
        if own {
            sources.push(self.config.me.clone());
        }
        sources
    }

    /// Returns whether a blob is an output that is needed: a result, or an input of a task that does not run yet.
    fn produced_and_needed(&self, hash: Hash) -> bool {
        let Some(blob) = self.leader.blobs.get(hash) else {
            return false;
        };
        let mut producers = blob.producers().iter();
        producers.any(|task| self.outputs_needed(*task))
    }

    /// Returns whether the outputs of a task are results, or inputs of an undecided task that does not run yet.
    fn outputs_needed(&self, task: TaskId) -> bool {
        let Some(job) = self.state.jobs.get(&task.job) else {
            return false;
        };
        let leader = self.leader;
        let group = job.spec.group_of(task.number);
        if !job.active() {
            return false;
        }
        let offset = task.number - job.spec.first(group);
        let unstarted = |next: usize| {
            let all = job.spec.numbers(next);
            let element = all.start + offset..all.start + offset + 1;
            let mut readers = match job.spec.is_each(next, group) {
                true => element,
                false => all,
            };
            readers.any(|number| {
                let running = leader
                    .tasks
                    .get(&TaskId {
                        job: task.job,
                        number,
                    })
                    .is_some_and(|known| known.attempts().iter().any(|a| a.state().runs()));
                job.tasks[number as usize].is_open() && !running
            })
        };
        job.keeps(task.number)
            || job.spec.waited_by(group).iter().any(|next| {
                let next = *next as usize;
                job.remaining_of(next) > 0 && job.spec.reads(next, group) && unstarted(next)
            })
    }
}

/// Returns the backoff after this many failures.
pub(super) fn again_after(failures: u8) -> Duration {
    FETCH_AGAIN_AFTER * 2u32.pow(u32::from(failures.max(1)) - 1)
}

/// Tasks whose outputs are results of the job, with their numbers, see [`Job::keeps`].
pub(crate) fn result_tasks(job: &Job) -> impl Iterator<Item = (u32, Option<&Done>)> {
    let groups = (0..job.spec.groups().len()).filter(|group| job.is_result(*group));
    groups
        .flat_map(|group| job.spec.numbers(group).zip(job.tasks_of(group)))
        .filter(|(_, task)| !task.is_released())
        .map(|(number, task)| (number, task.done()))
}

/// The blobs that those tasks produced, with sizes in bytes.
pub(crate) fn result_content(job: &Job) -> impl Iterator<Item = (Hash, u64)> + '_ {
    result_tasks(job)
        .filter_map(|(_, done)| done)
        .flat_map(Done::blobs)
}

/// The files that those tasks produced.
pub(crate) fn result_files(job: &Job) -> impl Iterator<Item = &FileEntry> {
    let done = result_tasks(job).filter_map(|(_, done)| done);
    done.flat_map(|done| done.outputs.iter())
}
