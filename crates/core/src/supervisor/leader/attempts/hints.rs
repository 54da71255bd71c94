//! Assignment hints: what a new leader knows of the assignments of earlier leaders. Hints are not durable. A new
//! leader does not start an assigned task again until the worker had time to report.

use crate::supervisor::Action;
use crate::supervisor::follower::Hints;
use crate::supervisor::leader::attempts::active::{NewAttempt, Why};
use crate::supervisor::leader::attempts::state::{AttemptEvent, AttemptState};
use crate::supervisor::leader::pool::state::WorkerState;
use crate::supervisor::leader::pool::worker::Worker;
use crate::supervisor::leader::timers::Timer;
use crate::supervisor::leader::{LeaderView, Leadership, WorkerIx};
use hedge_model::capacity::{Class, Hardware};
use hedge_model::group::{FromLeader, Hint, LeaderSays};
use hedge_model::ledger::Charge;
use hedge_model::msg::{Seal, WorkerInfo};
use hedge_model::spec::Network;
use hedge_model::{AttemptId, JobId, PeerAddr, PeerId, Resources, TaskId};

/// Hints in one message to a peer supervisor.
const HINTS_AT_ONCE: usize = 10_000;

impl Leadership<'_> {
    /// Sends a hint about an assignment, or its end, to all connected peer supervisors.
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

    /// Tells the peer supervisors that a worker no longer has an attempt whose end is not recorded.
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

    /// Sends hints for all active assignments to a peer supervisor that has connected.
    pub(crate) fn hint_all(&mut self, to: PeerId) {
        let epoch = self.state.epoch();
        let leader = &mut *self.leader;
        let mut hints = Vec::new();
        for attempt in leader.tasks.iter().flat_map(|(_, task)| task.attempts()) {
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

    /// Restores a job's attempts from hints on a new leader, which expects their workers to connect and report them.
    pub(crate) fn restore_hinted(&mut self, job: JobId, hints: &Hints) {
        for hint in hints.of_job(job) {
            if self.state.wants(hint.attempt) {
                self.expect(*hint);
            }
        }
    }

    /// Adds an attempt in the state `Expected`, and its worker if that is unknown.
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

    /// Marks all tasks of a group up to this one as no longer fresh. Those without an attempt are offered one by one.
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

    /// Marks the attempts of an expected worker that did not connect in time as lost, so that their tasks run
    /// elsewhere. The worker may still connect.
    pub(crate) fn forget_expected(&mut self, ix: WorkerIx) {
        let expected = self.leader.pool[ix].load().expected().clone();
        expected
            .into_iter()
            .for_each(|id| self.lose_expected(ix, id));
    }

    fn lose_expected(&mut self, ix: WorkerIx, id: AttemptId) {
        let leader = &mut *self.leader;
        let Some(attempt) = leader.tasks.attempt(id) else {
            return;
        };
        // The charge ends with the previous leader: this one has not heard from the worker.
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

    /// Removes attempts that a worker which connected does not have: their assignments never reached it. If it may
    /// have been restarted since, nobody knows that, and a task that may not run again counts as lost.
    pub(crate) fn drop_undelivered(&mut self, ix: WorkerIx) {
        let worker = &self.leader.pool[ix];
        let (peer, expected) = (worker.peer(), worker.load().expected().clone());
        for id in expected {
            if self.view().runs_once(id.task) {
                self.lose_expected(ix, id);
                continue;
            }
            self.detach(id);
            self.update_task_offers(id.task);
            self.forget_task_if_over(id.task);
            self.hint_end(id, peer);
        }
    }
}

impl LeaderView<'_> {
    /// Returns the proof, for a later leader, that this attempt was assigned to this worker.
    pub(crate) fn seal(&self, worker: PeerId, attempt: AttemptId, redundant: bool) -> Seal {
        let Some(secret) = &self.state.secret else {
            return Seal::default();
        };
        // The text fits into one 64-byte block of the hash.
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
        shares: Vec::new(),
        network: Network::None,
        addr: PeerAddr {
            peer,
            addrs: Vec::new(),
        },
        holds: Vec::new(),
        in_hand: Vec::new(),
        hardware: Hardware::default(),
    }
}
