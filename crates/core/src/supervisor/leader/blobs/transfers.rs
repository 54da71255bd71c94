//! Where content is, what of it is gone, and what this supervisor fetches for itself.

use crate::supervisor::durable::state::{Done, Job};
use crate::supervisor::leader::blobs::Pull;
use crate::supervisor::leader::timers::Timer;
use crate::supervisor::leader::{LeaderView, Leadership, WorkerIx};
use crate::supervisor::{Action, PullFailure, send};
use hedge_model::msg::ToWorker;
use hedge_model::record::Record;
use hedge_model::spec::Input;
use hedge_model::{FileEntry, Hash, JobId, JobSpec, PeerId, Source, TaskId};
use std::collections::BTreeSet;
use std::time::Duration;

/// After so many failed transfers the holders that were named are not believed any more: 3 s in all.
pub(super) const PULL_FAILURES_MAX: u8 = 5;
/// Until a failed transfer is repeated; doubles each time.
const PULL_AGAIN_AFTER: Duration = Duration::from_millis(200);
/// Most peers named as holders of a group's inputs; beyond, the list costs more than the choice is worth.
const SOURCES_MAX: usize = 32;

impl Leadership<'_> {
    /// Notes that a worker holds some content.
    pub(crate) fn held_by(&mut self, hash: Hash, size: Option<u64>, ix: WorkerIx) {
        let leader = &mut *self.leader;
        let content = leader.content.entry(hash).or_default();
        content.size = size.unwrap_or(content.size);
        if !content.workers.contains(&ix) {
            content.workers.push(ix);
            content.suspected = false;
        }
        leader.pool[ix].held.insert(hash);
    }

    /// Notes the content that a task left at a worker.
    pub(crate) fn note_left(&mut self, task: TaskId, left: &[(Hash, u64)], ix: Option<WorkerIx>) {
        for (hash, size) in left {
            let content = self.leader.content.entry(*hash).or_default();
            content.size = *size;
            if !content.producers.contains(&task) {
                content.producers.push(task);
            }
            if let Some(ix) = ix {
                self.held_by(*hash, Some(*size), ix);
            }
        }
    }

    /// A worker has been gone for longer than its content is counted on.
    pub(crate) fn content_of_gone_worker(&mut self, ix: WorkerIx) {
        let worker = &self.leader.pool[ix];
        if worker.state().reachable() {
            return;
        }
        let held: Vec<Hash> = worker.held.iter().copied().collect();
        self.lose_where_gone(held);
    }

    /// Holders that did not come since this leader began are not waited for any more.
    pub(crate) fn give_up_absent_holders(&mut self) {
        let all: Vec<Hash> = self.leader.content.keys().copied().collect();
        self.lose_where_gone(all);
        self.feed_starved();
        let leader = &mut *self.leader;
        leader.unchecked = leader.ready.lanes();
    }

    /// A worker holds content that this supervisor wants to keep and has not: it is fetched.
    pub(crate) fn fetch_kept(&mut self, hash: Hash) {
        let content = self.leader.content.get(&hash);
        if content.is_some_and(|content| !content.kept.is_empty() && !content.own) {
            self.pull(hash);
        }
    }

    /// Of these contents, those that a job needs and nobody has are made again.
    pub(crate) fn lose_where_gone(&mut self, hashes: impl IntoIterator<Item = Hash>) {
        for hash in hashes {
            if self.view().needed_now(hash) {
                self.lose_if_gone(hash);
            }
        }
    }

    /// Where content is gone for good, the tasks that made it must run again.
    pub(crate) fn lose_if_gone(&mut self, hash: Hash) {
        if !self.view().beyond_recovery(hash) {
            return;
        }
        let content = self.leader.content.get(&hash);
        let producers = content
            .map(|content| content.producers.to_vec())
            .unwrap_or_default();
        for task in producers {
            let Some(known) = self.state.task(task) else {
                continue;
            };
            let Some(done) = &known.done else { continue };
            let still_its = done.left().any(|(left, _)| left == hash);
            let generation = known.generation;
            if still_its && self.leader.losing.insert(task) {
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
    }

    /// Offers groups again that lacked content, after somebody who may hold it came.
    pub(crate) fn feed_starved(&mut self) {
        for (job, group) in std::mem::take(&mut self.leader.without_inputs) {
            self.refresh_offers(job, group as usize);
        }
    }

    /// Fetches content into the own store, unless it is there or on its way.
    pub(crate) fn pull(&mut self, hash: Hash) {
        let me = self.config.me.peer;
        // The last submitter is likeliest to be still there.
        let submits = self.leader.submits.iter().rev();
        let clients: Vec<Source> = submits
            .filter(|submit| submit.lacks(hash))
            .take(SOURCES_MAX)
            .map(|submit| submit.new.from.clone())
            .collect();
        let mut sources = self.view().sources(&[hash]);
        sources.extend(clients);
        sources.retain(|source| source.peer != me);
        let leader = &mut *self.leader;
        let size = leader.content.get(&hash).map_or(0, |content| content.size);
        let content = leader.content.get_mut(&hash);
        if sources.is_empty() || content.as_ref().is_some_and(|content| content.own) {
            let own = content.as_ref().is_some_and(|content| content.own);
            if let Some(content) = content {
                content.suspected = false;
            }
            leader.pulls.remove(&hash);
            if !own {
                self.refuse_submissions("nobody who holds them is named", |submit| {
                    submit.lacks(hash)
                });
            }
            return;
        }
        let pull = leader.pulls.entry(hash).or_insert(Pull {
            failures: 0,
            under_way: false,
            fault: None,
        });
        if !pull.under_way {
            pull.under_way = true;
            self.out.push(Action::Pull {
                hash,
                size,
                sources,
            });
        }
    }

    /// A failed transfer is tried again, if it is still wanted.
    pub(crate) fn pull_again(&mut self, hash: Hash) {
        if let Some(pull) = self.leader.pulls.get_mut(&hash) {
            pull.under_way = false;
            self.pull(hash);
        }
    }

    pub(crate) fn on_pulled(&mut self, hash: Hash, result: Result<Option<PeerId>, PullFailure>) {
        let now = self.now;
        match result {
            Ok(sender) => {
                let leader = &mut *self.leader;
                leader.pulls.remove(&hash);
                let content = leader.content.entry(hash).or_default();
                (content.own, content.suspected) = (true, false);
                self.spread(hash);
                self.prove_arrived(hash, sender);
                if self.view().secure(hash) {
                    self.content_arrived(hash);
                }
                self.drop_unused([hash]);
            }
            Err(failure) => {
                let leader = &mut *self.leader;
                let Some(pull) = leader.pulls.get_mut(&hash) else {
                    return;
                };
                pull.failures = (pull.failures + 1).min(PULL_FAILURES_MAX);
                let after = again_after(pull.failures);
                if pull.failures < PULL_FAILURES_MAX {
                    return leader.timers.set(now + after, Timer::Pull(hash));
                }
                let why = match failure {
                    PullFailure::Here(why) => {
                        pull.fault = Some(why.clone());
                        leader.timers.set(now + after, Timer::Pull(hash));
                        return self.refuse_submissions(&why, |submit| submit.lacks(hash));
                    }
                    PullFailure::Sources(why) => why,
                };
                let leader = &mut *self.leader;
                leader.pulls.remove(&hash);
                self.disbelieve_holders(hash);
                self.lose_if_gone(hash);
                self.feed_starved();
                self.refuse_submissions(&why, |submit| submit.lacks(hash));
                self.leader.leaving_due = true;
            }
        }
    }

    /// Nobody gave content that they were thought to hold: those who are there do not hold it. Others may
    /// still return with it.
    fn disbelieve_holders(&mut self, hash: Hash) {
        let leader = &mut *self.leader;
        let Some(content) = leader.content.get_mut(&hash) else {
            return;
        };
        content.suspected = false;
        let workers = &mut leader.pool;
        let mut there = Vec::new();
        content.workers.retain(|ix| {
            let worker = &mut workers[*ix];
            if !worker.state().reachable() {
                return true;
            }
            worker.held.remove(&hash);
            send(worker.peer, ToWorker::Drop(vec![hash]), self.out);
            there.push(*ix);
            false
        });
        self.exclude_for_missing(hash, &there);
    }

    /// Fetches what jobs still want of their results, from workers that came.
    pub(crate) fn pull_wanted(&mut self) {
        let jobs = self.leader.jobs.values();
        let wanted: Vec<Hash> = jobs
            .flat_map(|job| job.missing_results.iter().copied())
            .collect();
        wanted.into_iter().for_each(|hash| self.pull(hash));
    }

    /// As many supervisors hold some content as are to.
    pub(crate) fn content_arrived(&mut self, hash: Hash) {
        self.input_arrived(hash);
        let jobs: Vec<JobId> = self
            .leader
            .jobs
            .iter_mut()
            .filter_map(|(id, job)| job.missing_results.remove(&hash).then_some(*id))
            .collect();
        self.feed_starved();
        jobs.into_iter().for_each(|job| self.finish_if_done(job));
        self.leader.leaving_due = true;
    }
}

impl LeaderView<'_> {
    /// Whether somebody who is there holds this content.
    pub(crate) fn within_reach(&self, hash: Hash) -> bool {
        let leader = self.leader;
        leader.content.get(&hash).is_some_and(|content| {
            let there = |ix: &WorkerIx| leader.pool[*ix].state().reachable();
            let workers = !content.suspected && content.workers.iter().any(there);
            content.own || workers || self.keepers_of(hash).next().is_some()
        })
    }

    /// Whether nobody holds this content who is there or may yet return.
    fn beyond_recovery(&self, hash: Hash) -> bool {
        let leader = self.leader;
        let grace = self.config.content_grace;
        let settled = self.now.since(leader.since) >= grace;
        leader.content.get(&hash).is_none_or(|content| {
            let back = |ix: &WorkerIx| leader.pool[*ix].state().may_return(self.now, grace);
            settled && !content.own && content.kept_at == 0 && !content.workers.iter().any(back)
        })
    }

    /// Peers that a client asks for `blobs`: this supervisor and others that hold them, workers, then the supervisors
    /// that may have them by the time they are asked.
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

    /// Peers that hold any of `blobs`: workers first, this supervisor last, so that data goes directly.
    pub(crate) fn sources(&self, blobs: &[Hash]) -> Vec<Source> {
        let leader = self.leader;
        let mut workers = BTreeSet::<WorkerIx>::new();
        let mut own = false;
        for content in blobs.iter().filter_map(|hash| leader.content.get(hash)) {
            own |= content.own;
            workers.extend(
                content
                    .workers
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
            .map(|ix| leader.pool[*ix].info.addr.clone())
            .collect();
        let keepers = blobs
            .iter()
            .take(SOURCES_MAX)
            .flat_map(|hash| self.keepers_of(*hash));
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

    /// Whether a job cannot go on without this content.
    fn needed_now(&self, hash: Hash) -> bool {
        let Some(content) = self.leader.content.get(&hash) else {
            return false;
        };
        content
            .producers
            .iter()
            .any(|task| self.outputs_needed(*task))
    }

    /// Whether the outputs of a task are results, or inputs of a task that neither is done nor runs already.
    fn outputs_needed(&self, task: TaskId) -> bool {
        let Some(job) = self.state.jobs.get(&task.job) else {
            return false;
        };
        let leader = self.leader;
        let group = job.spec.group_of(task.number);
        if !job.active() {
            return false;
        }
        let id = &job.spec.groups()[group].id;
        let reads = |next: usize| {
            job.spec.groups()[next]
                .inputs
                .iter()
                .any(|input| matches!(input, Input::Task(name) if name == id))
        };
        let unstarted = |next: usize| {
            job.spec.numbers(next).any(|number| {
                let running = leader
                    .tasks
                    .get(&TaskId {
                        job: task.job,
                        number,
                    })
                    .is_some_and(|known| known.attempts.iter().any(|a| a.state().runs()));
                job.tasks[number as usize].done.is_none() && !running
            })
        };
        job.spec.is_result(group)
            || job.spec.waited_by(group).iter().any(|next| {
                let next = *next as usize;
                !job.group_done(next) && reads(next) && unstarted(next)
            })
    }
}

/// Until what failed so many times is tried again.
pub(super) fn again_after(failures: u8) -> Duration {
    PULL_AGAIN_AFTER * 2u32.pow(u32::from(failures.max(1)) - 1)
}

/// Blobs among a job's inputs, with their sizes.
pub(crate) fn input_blobs(spec: &JobSpec) -> impl Iterator<Item = (Hash, u64)> + '_ {
    let stdin = spec
        .groups()
        .iter()
        .filter_map(|group| group.stdin.as_ref());
    spec.files()
        .iter()
        .map(|file| &file.data)
        .chain(stdin)
        .filter_map(|data| data.hash().map(|hash| (hash, data.size())))
}

/// The tasks that no other waits for, with their numbers.
pub(crate) fn result_tasks(job: &Job) -> impl Iterator<Item = (u32, Option<&Done>)> {
    let groups = (0..job.spec.groups().len()).filter(|group| job.spec.is_result(*group));
    groups
        .flat_map(|group| job.spec.numbers(group).zip(job.tasks_of(group)))
        .map(|(number, task)| (number, task.done.as_deref()))
}

/// The content that those tasks left, by hash, with sizes in bytes.
pub(crate) fn result_content(job: &Job) -> impl Iterator<Item = (Hash, u64)> + '_ {
    result_tasks(job)
        .filter_map(|(_, done)| done)
        .flat_map(Done::left)
}

/// The files of those tasks.
pub(crate) fn result_files(job: &Job) -> impl Iterator<Item = &FileEntry> {
    let done = result_tasks(job).filter_map(|(_, done)| done);
    done.flat_map(|done| done.outputs.iter())
}
