//! Retention and garbage collection: blobs are kept for jobs that have not ended, for submissions in progress, and as
//! results of ended jobs. A blob that nothing needs is dropped everywhere.

use crate::supervisor::durable::job::{Job, Task};
use crate::supervisor::leader::blobs::state::Replica;
use crate::supervisor::leader::blobs::transfers::result_content;
use crate::supervisor::leader::{Leadership, WorkerIx};
use crate::supervisor::{Action, send_drop};
use hedge_model::{Data, FileEntry, Hash, JobId, JobSpec, PeerId};
use std::collections::{BTreeMap, BTreeSet};

impl Leadership<'_> {
    /// Releases the inputs of a submission that was accepted or refused. If it was accepted, its job needs them now.
    pub(crate) fn release_inputs(&mut self, blobs: impl Iterator<Item = (Hash, u64)>) {
        let inputs: BTreeSet<Hash> = blobs.map(|(hash, _)| hash).collect();
        for hash in &inputs {
            self.leader.blobs.release(*hash);
        }
        self.drop_unused(inputs);
    }

    /// Retains text that an attempt printed and that is too long for its report, because the worker may leave.
    pub(crate) fn keep_log(&mut self, job: JobId, printed: &[(Hash, u64)], worker: PeerId) {
        let Some(ix) = self.leader.pool.find(worker) else {
            return;
        };
        for (hash, size) in printed {
            self.leader.blobs.retain_for(*hash, *size, job);
            self.note_holder(*hash, Some(*size), ix);
            self.fetch(*hash);
            self.drop_unused([*hash]);
        }
    }

    /// Retains the results and the printed text of ended jobs on a new leader, whether it holds them itself or only
    /// others do.
    pub(crate) fn keep_results(&mut self) {
        let leader = &mut *self.leader;
        for (id, job) in &self.state.jobs {
            let printed: BTreeMap<Hash, u64> = log_blobs(job).collect();
            let kept = match job.active() {
                true => BTreeMap::new(),
                false => sized_content(job).collect(),
            };
            for (hash, size) in printed.into_iter().chain(kept) {
                leader.blobs.retain_for(hash, size, *id);
            }
        }
    }

    /// Ends the retention of everything of an ended job that is removed.
    pub(crate) fn drop_kept(&mut self, id: JobId, job: &Job) {
        let leader = &mut *self.leader;
        let mut hashes: BTreeSet<Hash> = kept_content(job).collect();
        hashes.extend(log_blobs(job).map(|(hash, _)| hash));
        for hash in &hashes {
            leader.blobs.end_retention(*hash, id);
        }
        self.drop_unused(hashes);
    }

    /// Drops the blobs that only an ended job needed, except its results and, if it failed, what a retry needs.
    /// Fetches those that the own store lacks. `spec` is the full specification; `stale` are blobs that the job
    /// produced and no longer needs.
    pub(crate) fn drop_content(&mut self, job: JobId, spec: &JobSpec, stale: BTreeSet<Hash>) {
        let Some(ended) = self.state.jobs.get(&job) else {
            return;
        };
        let done = ended.tasks.iter().filter_map(Task::done);
        let kept: BTreeSet<Hash> = kept_content(ended).collect();
        let mut hashes = stale;
        for (hash, _) in spec.input_blobs() {
            self.leader.possession.remember(hash, ended.client);
            hashes.insert(hash);
        }
        hashes.extend(done.flat_map(|done| done.blobs()).map(|(hash, _)| hash));
        let leader = &mut *self.leader;
        for hash in &hashes {
            leader.blobs.job_ended(*hash, job, kept.contains(hash));
        }
        for hash in kept {
            self.fetch_kept(hash);
        }
        self.drop_unused(hashes);
    }

    /// Drops the blobs in `hashes` that nothing needs. Retained blobs stay in the own store only.
    pub(crate) fn drop_unused(&mut self, hashes: impl IntoIterator<Item = Hash>) {
        let mut own = Vec::new();
        let mut theirs = BTreeMap::<WorkerIx, Vec<Hash>>::new();
        let mut elsewhere = BTreeMap::<usize, Vec<Hash>>::new();
        let leader = &mut *self.leader;
        for hash in hashes {
            let Some(dropped) = leader.blobs.drop_unused(hash) else {
                continue;
            };
            for ix in dropped.workers {
                theirs.entry(ix).or_default().push(hash);
            }
            if dropped.own {
                own.push(hash);
            }
            for at in 0..leader.group.iter().len() {
                if matches!(dropped.replicas.at(at), Replica::Held | Replica::Offered) {
                    elsewhere.entry(at).or_default().push(hash);
                }
            }
        }
        for (ix, hashes) in theirs {
            send_drop(leader.pool[ix].peer(), &hashes, self.out);
        }
        for (at, hashes) in elsewhere {
            self.drop_replicas(at, hashes);
        }
        if !own.is_empty() {
            self.out.push(Action::Drop(own));
        }
    }

    /// Drops the outputs of an attempt that did not win, except blobs that are in use.
    pub(crate) fn drop_unwanted(&mut self, worker: PeerId, outputs: &[FileEntry]) {
        let leader = &mut *self.leader;
        let Some(ix) = leader.pool.find(worker) else {
            return;
        };
        let needed = |hash: &Hash| leader.blobs.in_use(*hash);
        let hashes = outputs.iter().filter_map(|file| file.data.hash());
        let (same, unknown): (Vec<Hash>, Vec<Hash>) = hashes.partition(needed);
        for hash in same {
            self.note_holder(hash, None, ix);
            self.fetch_kept(hash);
        }
        send_drop(worker, &unknown, self.out);
    }
}

/// Blobs of what a job's attempts printed, with sizes in bytes.
fn log_blobs(job: &Job) -> impl Iterator<Item = (Hash, u64)> {
    let done = job
        .tasks
        .iter()
        .filter_map(|task| task.done()?.log.as_deref());
    let ended = job
        .history
        .values()
        .filter_map(|ended| ended.log.as_deref());
    done.chain(ended)
        .flat_map(|log| [&log.stdout, &log.stderr])
        .filter_map(sized)
}

fn sized(data: &Data) -> Option<(Hash, u64)> {
    Some((data.hash()?, data.size()))
}

/// Blobs that are kept of an ended job, except what it printed.
fn kept_content(job: &Job) -> impl Iterator<Item = Hash> {
    let kept: BTreeSet<Hash> = sized_content(job).map(|(hash, _)| hash).collect();
    kept.into_iter()
}

/// Blobs that were kept of a failed job that is retried, except what it printed.
pub(crate) fn kept_while_failed(job: &Job) -> impl Iterator<Item = Hash> {
    let kept = result_content(job).chain(job.needed_to_go_on());
    let kept: BTreeSet<Hash> = kept.map(|(hash, _)| hash).collect();
    kept.into_iter()
}

/// The same blobs as [`kept_content`], with sizes in bytes.
fn sized_content(job: &Job) -> impl Iterator<Item = (Hash, u64)> {
    result_content(job).chain(job.kept_to_retry())
}
