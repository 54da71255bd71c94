//! What a new leader knows of its predecessor's assignments: hints, which are not durable. A task that was
//! assigned waits for its worker to report rather than being started again.

use crate::supervisor::Action;
use crate::supervisor::follower::Hints;
use crate::supervisor::leader::attempts::active::{ActiveTask, NewAttempt, Why};
use crate::supervisor::leader::attempts::state::{AttemptEvent, AttemptState};
use crate::supervisor::leader::pool::state::WorkerState;
use crate::supervisor::leader::pool::worker::Worker;
use crate::supervisor::leader::timers::Timer;
use crate::supervisor::leader::{LeaderView, Leadership, WorkerIx};
use hedge_model::capacity::{Class, Hardware};
use hedge_model::group::{FromLeader, Hint, LeaderSays};
use hedge_model::ledger::Charge;
use hedge_model::msg::{Seal, WorkerInfo};
use hedge_model::{AttemptId, JobId, PeerAddr, PeerId, Resources, TaskId};

/// Hints in one message to a peer supervisor.
const HINTS_AT_ONCE: usize = 10_000;

impl Leadership<'_> {
    /// Notes an assignment, or that it is over, and tells the other supervisors.
    pub(crate) fn hint(&mut self, hint: Hint) {
        let epoch = self.state.epoch();
        for member in self.leader.group.iter().filter(|member| member.linked()) {
            self.out.push(Action::ToSupervisor {
                to: member.peer(),
                msg: FromLeader {
                    epoch,
                    what: LeaderSays::Hints(vec![hint]),
                },
            });
        }
    }

    /// Tells the others that a worker does not have an attempt any more, nothing of which is recorded.
    pub(crate) fn hint_end(&mut self, attempt: AttemptId, worker: PeerId) {
        let over = Hint {
            attempt,
            worker,
            redundant: false,
            class: Class::default(),
            since: self.now,
            over: true,
        };
        self.hint(over);
    }

    /// All assignments that are active, for a peer supervisor that has come.
    pub(crate) fn hint_all(&mut self, to: PeerId) {
        let epoch = self.state.epoch();
        let leader = &mut *self.leader;
        let mut hints = Vec::new();
        for attempt in leader.tasks.values().flat_map(ActiveTask::attempts) {
            if attempt.state().active() {
                hints.push(Hint {
                    attempt: attempt.id(),
                    worker: leader.pool[attempt.worker()].peer(),
                    redundant: attempt.redundant(),
                    class: attempt.class(),
                    since: attempt.since(),
                    over: false,
                });
            }
        }
        for hints in hints.chunks(HINTS_AT_ONCE) {
            let what = LeaderSays::Hints(hints.to_vec());
            self.out.push(Action::ToSupervisor {
                to,
                msg: FromLeader { epoch, what },
            });
        }
    }

    /// A new leader expects the workers that were given something of this job to come and say whether they
    /// have it.
    pub(crate) fn restore_hinted(&mut self, job: JobId, hints: &Hints) {
        for hint in hints.of_job(job) {
            if self.state.wants(hint.attempt) {
                self.expect(*hint);
            }
        }
    }

    fn expect(&mut self, hint: Hint) {
        let until = self.now + self.config.watch.dead_after();
        let now = self.now;
        let leader = &mut *self.leader;
        let (peer, state) = (hint.worker, WorkerState::Expected { since: now });
        let known = leader.pool.find(peer);
        let ix = leader
            .pool
            .find_or_add(peer, || Worker::new(peer, unknown_worker(peer), state));
        if known.is_none() {
            leader.timers.set(until, Timer::Expected(ix));
        }
        self.begin_attempt(NewAttempt {
            id: hint.attempt,
            worker: ix,
            redundant: hint.redundant,
            state: AttemptState::Expected,
            since: hint.since,
            why: Why::Adopted,
            class: hint.class,
            from: None,
        });
        self.requeue_passed(hint.attempt.task);
    }

    /// All tasks of a group up to this one have had their turn; those without an attempt are due again.
    pub(crate) fn requeue_passed(&mut self, task: TaskId) {
        let Some(job) = self.state.jobs.get(&task.job) else {
            return;
        };
        let group = job.spec.group_of(task.number);
        let first = job.spec.first(group);
        let leader = &mut *self.leader;
        if let Some(offers) = leader.jobs.group_mut(task.job, group) {
            offers.requeue_until(task.number - first);
        }
        self.update_task_offers(task);
    }

    /// A worker that was expected has not come in time: what it was given starts elsewhere. It may still come.
    pub(crate) fn forget_expected(&mut self, ix: WorkerIx) {
        let expected = self.leader.pool[ix].load().expected().clone();
        for id in expected {
            let leader = &mut *self.leader;
            let Some(attempt) = leader.tasks.attempt(id) else {
                continue;
            };
            // Its worker was last heard before this leader began.
            let charge = Charge {
                class: attempt.class(),
                occupied: leader.recovery.since().since(attempt.since()),
                ..Charge::default()
            };
            let redundant = attempt.redundant();
            self.transition(id, AttemptEvent::Lost);
            self.record_loss(id, ix, redundant, charge);
            self.update_task_offers(id.task);
        }
    }

    /// A worker that was expected has come and does not have these: they never reached it.
    pub(crate) fn drop_undelivered(&mut self, ix: WorkerIx) {
        let worker = &self.leader.pool[ix];
        let (peer, expected) = (worker.peer(), worker.load().expected().clone());
        for id in expected {
            self.detach(id);
            self.update_task_offers(id.task);
            self.forget_task_if_over(id.task);
            self.hint_end(id, peer);
        }
    }
}

impl LeaderView<'_> {
    /// Proves to a later leader that an attempt was given to a worker.
    pub(crate) fn seal(&self, worker: PeerId, attempt: AttemptId, redundant: bool) -> Seal {
        let Some(secret) = &self.state.secret else {
            return Seal::default();
        };
        // All of it fits into one block of the hash, which has 64 bytes.
        let mut text = [0; 61];
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
