//! What a new leader knows of its predecessor's assignments: hints, which are not durable. A task that was
//! assigned waits for its worker to report rather than being started again.

use super::attach::new_worker;
use super::live::{Attempt, AttemptState, Timer, Why, WorkerIx, find_attempt};
use super::{Action, Supervisor};
use crate::monitor::Progress;
use hedge_model::Ending;
use hedge_model::capacity::{Class, Hardware};
use hedge_model::group::{FromLeader, Hint, LeaderSays};
use hedge_model::ledger::Charge;
use hedge_model::msg::{Seal, Usage, WorkerInfo};
use hedge_model::record::Record;
use hedge_model::{AttemptId, Epoch, JobId, PeerAddr, PeerId, Resources, TaskId};
use std::ops::RangeInclusive;

/// Hints in one message to a colleague.
const HINTS_AT_ONCE: usize = 10_000;
/// Hints remembered; beyond, those of the newest assignments are not, and their tasks may start again.
const HINTS_MAX: usize = 4_000_000;

impl Supervisor {
    /// Notes an assignment, or that it is over, and tells the other supervisors.
    pub(crate) fn hint(&mut self, hint: Hint, out: &mut Vec<Action>) {
        let epoch = self.state.epoch();
        for colleague in self.live.iter().flat_map(|live| &live.colleagues) {
            if !colleague.linked {
                continue;
            }
            out.push(Action::ToSupervisor {
                to: colleague.addr.peer,
                msg: FromLeader {
                    epoch,
                    what: LeaderSays::Hints(vec![hint]),
                },
            });
        }
    }

    /// Tells the others that a worker does not have an attempt any more, nothing of which is recorded.
    pub(crate) fn hint_over(&mut self, attempt: AttemptId, worker: PeerId, out: &mut Vec<Action>) {
        let over = Hint {
            attempt,
            worker,
            redundant: false,
            class: Class::default(),
            since: self.now,
            over: true,
        };
        self.hint(over, out);
    }

    /// All assignments that are active, for a colleague that has come.
    pub(crate) fn hint_all(&mut self, to: PeerId, out: &mut Vec<Action>) {
        let epoch = self.state.epoch();
        let Some(live) = &self.live else { return };
        let mut hints = Vec::new();
        for attempt in live.tasks.values().flat_map(|task| &task.attempts) {
            if attempt.state.active() {
                hints.push(Hint {
                    attempt: attempt.id,
                    worker: live.workers[attempt.worker as usize].peer,
                    redundant: attempt.redundant,
                    class: attempt.class,
                    since: attempt.since,
                    over: false,
                });
            }
        }
        for hints in hints.chunks(HINTS_AT_ONCE) {
            let what = LeaderSays::Hints(hints.to_vec());
            out.push(Action::ToSupervisor {
                to,
                msg: FromLeader { epoch, what },
            });
        }
    }

    /// The leader tells of its assignments.
    pub(crate) fn take_hints(&mut self, hints: Vec<Hint>) {
        for hint in hints {
            if hint.over || self.is_over(hint.attempt) {
                self.hints.remove(&hint.attempt);
            } else if self.hints.len() < HINTS_MAX {
                self.supersede(&hint);
                self.hints.insert(hint.attempt, hint);
            }
        }
    }

    /// A worker is given a task again only by a leader that knows it to have no earlier attempt of it.
    fn supersede(&mut self, hint: &Hint) {
        let task = hint.attempt.task;
        let known = self.hints.range(attempts_of(task..=task));
        let earlier =
            |(id, other): &(&AttemptId, &Hint)| other.worker == hint.worker && **id != hint.attempt;
        let before: Vec<AttemptId> = known.filter(earlier).map(|(id, _)| *id).collect();
        for id in before {
            self.hints.remove(&id);
        }
    }

    /// Whether the journal says that an attempt cannot decide its task any more. Hints come faster than
    /// records: an attempt of a job that is not known yet is not over.
    pub(crate) fn is_over(&self, attempt: AttemptId) -> bool {
        let TaskId { job, number } = attempt.task;
        let Some(job) = self.state.jobs.get(&job) else {
            return job.0 <= self.state.last_job;
        };
        let settled = job.tasks.get(number as usize).is_none_or(|task| {
            let now = task.generation == attempt.generation;
            task.generation > attempt.generation || (now && task.done.is_some())
        });
        settled || !job.active() || job.history.contains_key(&attempt)
    }

    /// Hints that a record made pointless.
    pub(crate) fn forget_hints(&mut self, record: &Record) {
        if self.hints.is_empty() {
            return;
        }
        let range = match record {
            Record::TaskDone { attempt, .. } => attempts_of(attempt.task..=attempt.task),
            Record::AttemptEnded { attempt, .. } => *attempt..=*attempt,
            Record::JobEnded { job: id, .. } => attempts_of(id.tasks()),
            _ => return,
        };
        let over: Vec<AttemptId> = self.hints.range(range).map(|(id, _)| *id).collect();
        for id in over {
            self.hints.remove(&id);
        }
    }

    /// A new leader expects the workers that were given something of this job to come and say whether they
    /// have it.
    pub(crate) fn expect_hinted(&mut self, job: JobId) {
        let hints = self.hints.range(attempts_of(job.tasks()));
        let hints: Vec<Hint> = hints.map(|(_, hint)| *hint).collect();
        for hint in hints {
            if self.state.wants(hint.attempt) {
                self.expect(hint);
            }
        }
    }

    fn expect(&mut self, hint: Hint) {
        let until = self.now + self.config.watch.dead_after();
        let now = self.now;
        let live = self.live.get_or_insert_default();
        let ix = *live
            .by_peer
            .entry(hint.worker)
            .or_insert(live.workers.len() as WorkerIx);
        if ix as usize == live.workers.len() {
            let mut worker = new_worker(hint.worker, unknown_worker(hint.worker));
            (worker.connected, worker.gone_at) = (false, now);
            live.workers.push(worker);
            live.set_timer(until, Timer::Expected(ix));
        }
        live.workers[ix as usize].expected.insert(hint.attempt);
        let known = live.tasks.entry(hint.attempt.task).or_default();
        known.attempts.push(Attempt {
            id: hint.attempt,
            worker: ix,
            redundant: hint.redundant,
            state: AttemptState::Expected,
            holds: false,
            reported: false,
            since: hint.since,
            why: Why::Adopted,
            class: hint.class,
            stopped: None,
            progress: Progress::default(),
            stalled: None,
        });
        self.pass_fresh(hint.attempt.task);
    }

    /// All tasks of a group up to this one have had their turn; those without an attempt are due again.
    pub(crate) fn pass_fresh(&mut self, task: TaskId) {
        let Some(job) = self.state.jobs.get(&task.job) else {
            return;
        };
        let group = job.spec.group_of(task.number);
        let first = job.spec.first(group);
        let live = self.live.get_or_insert_default();
        if let Some(live_job) = live.jobs.get_mut(&task.job) {
            let offers = &mut live_job.groups[group];
            while offers.fresh <= task.number - first {
                offers.again.insert(offers.fresh);
                offers.fresh += 1;
            }
        }
        self.settle_wants(task);
    }

    /// A worker that was expected has not come in time: what it was given starts elsewhere. It may still come.
    pub(crate) fn give_up_expected(&mut self, ix: WorkerIx, out: &mut Vec<Action>) {
        let live = self.live.get_or_insert_default();
        let worker = &mut live.workers[ix as usize];
        let peer = worker.peer;
        for id in std::mem::take(&mut worker.expected) {
            let live = self.live.get_or_insert_default();
            let Some(attempt) = find_attempt(&mut live.tasks, id) else {
                continue;
            };
            attempt.state = AttemptState::Lost;
            let redundant = attempt.redundant;
            // Its last sign of life was before this leader began.
            let charge = Charge {
                class: attempt.class,
                occupied: live.since.since(attempt.since),
                ..Charge::default()
            };
            let worker = &mut live.workers[ix as usize];
            worker.lost.insert(id);
            worker.lost_count += 1;
            let record = Record::AttemptEnded {
                attempt: id,
                redundant,
                worker: peer,
                end: Ending::Lost,
                usage: Usage::default(),
                charge,
                log: None,
                at: self.now,
            };
            self.append(record, None, out);
            self.settle_wants(id.task);
        }
    }

    /// A worker that was expected has come and does not have these: they never reached it.
    pub(crate) fn never_arrived(&mut self, ix: WorkerIx, out: &mut Vec<Action>) {
        let worker = &mut self.live().workers[ix as usize];
        let peer = worker.peer;
        for id in std::mem::take(&mut worker.expected) {
            self.detach(id);
            self.settle_wants(id.task);
            self.forget_task_if_over(id.task);
            self.hint_over(id, peer, out);
        }
    }

    /// Proves to whoever leads later that an attempt was given to a worker.
    pub(crate) fn seal(&self, worker: PeerId, attempt: AttemptId, redundant: bool) -> Seal {
        let Some(secret) = &self.state.secret else {
            return Seal::default();
        };
        let mut text = [0; 65];
        text[..32].copy_from_slice(&worker.0);
        text[32..40].copy_from_slice(&attempt.task.job.0.to_le_bytes());
        text[40..44].copy_from_slice(&attempt.task.number.to_le_bytes());
        text[44..48].copy_from_slice(&attempt.generation.to_le_bytes());
        text[48..56].copy_from_slice(&attempt.epoch.0.to_le_bytes());
        text[56..60].copy_from_slice(&attempt.number.to_le_bytes());
        text[60] = u8::from(redundant);
        let mut seal = [0; 16];
        seal.copy_from_slice(&blake3::keyed_hash(secret, &text).as_bytes()[..16]);
        Seal(seal)
    }
}

fn attempts_of(tasks: RangeInclusive<TaskId>) -> RangeInclusive<AttemptId> {
    let attempt = |task, generation, epoch, number| AttemptId {
        task,
        generation,
        epoch: Epoch(epoch),
        number,
    };
    attempt(*tasks.start(), 0, 0, 0)..=attempt(*tasks.end(), u32::MAX, u64::MAX, u32::MAX)
}

fn unknown_worker(peer: PeerId) -> WorkerInfo {
    WorkerInfo {
        host: "?".into(),
        pid: 0,
        resources: Resources::default(),
        labels: Vec::new(),
        addr: PeerAddr {
            peer,
            addrs: Vec::new(),
        },
        holds: Vec::new(),
        in_hand: Vec::new(),
        hardware: Hardware::default(),
    }
}
