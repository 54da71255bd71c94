//! How closely the monitor watches each worker, and how the leader handles the monitor's findings.

use crate::monitor::{Attention, Finding, Found, Liveness, Progress};
use crate::supervisor::Action;
use crate::supervisor::leader::attempts::active::{Attempt, Why};
use crate::supervisor::leader::pool::state::{Loss, WorkerEvent};
use crate::supervisor::leader::{Leadership, WorkerIx};
use hedge_model::{AttemptId, Hash, TaskId, Time};
use std::collections::BTreeSet;
use std::time::Duration;

/// Minimum lead of a first attempt over its copy: about the time that a start takes.
const AHEAD_MIN: Duration = Duration::from_millis(50);

/// Workers whose attempts in hand have changed since the monitor was told.
#[derive(Debug, Default)]
pub(crate) struct ChangedAttention(BTreeSet<WorkerIx>);

impl ChangedAttention {
    /// Marks a worker whose attention may have to change.
    pub fn changed(&mut self, ix: WorkerIx) {
        self.0.insert(ix);
    }

    fn next(&mut self) -> Option<WorkerIx> {
        self.0.pop_first()
    }
}

impl Leadership<'_> {
    /// Tells the monitor how closely to watch the workers whose attempts in hand have changed.
    pub(crate) fn update_attention(&mut self) {
        let now = self.now;
        let leader = &mut *self.leader;
        while let Some(ix) = leader.attention.next() {
            let worker = &mut leader.pool[ix];
            let attention = if !worker.state().connected() {
                continue;
            } else if worker.load().in_hand().is_empty() {
                Attention::Idle
            } else if !worker.load().critical() {
                Attention::Assigned
            } else {
                Attention::Critical
            };
            if worker.watch(attention) {
                self.out.push(Action::Watch {
                    peer: worker.peer(),
                    attention: Some(attention),
                });
            }
            if attention == Attention::Idle {
                leader.benchmark_soon(now, ix);
            }
        }
    }

    /// Stops the watch of a connection that is closed or was replaced.
    pub(crate) fn unwatch(&mut self, ix: WorkerIx) {
        let worker = &mut self.leader.pool[ix];
        if worker.unwatch() {
            self.out.push(Action::Watch {
                peer: worker.peer(),
                attention: None,
            });
        }
    }

    /// Stops the watch of all workers when this supervisor no longer leads.
    pub(crate) fn unwatch_all(&mut self) {
        let workers = self.leader.pool.len();
        (0..workers as WorkerIx).for_each(|ix| self.unwatch(ix));
    }

    /// Handles a finding of the monitor.
    pub(crate) fn on_finding(&mut self, finding: Finding) {
        let Some(ix) = self.leader.pool.find(finding.peer) else {
            return;
        };
        // The finding is about a connection that is closed by now.
        if self.leader.pool[ix].state().attention().is_none() {
            return;
        }
        match finding.what {
            Found::Silent { liveness, silent } => {
                let heard = self.now - silent;
                match liveness {
                    Liveness::Live | Liveness::Late | Liveness::Suspect => {
                        self.on_liveness(ix, WorkerEvent::Silent { liveness, heard });
                    }
                    Liveness::Dead => self.lose_worker(ix, Loss::DeclaredDead { heard }),
                }
            }
            Found::Back { .. } => self.on_rejoined(ix),
            Found::Progress(id, progress) => self.note_progress(ix, id, progress),
            Found::Stalled { attempt, idle } => {
                let since = self.now - idle;
                self.stalled(ix, attempt, Some(since));
            }
            Found::Moving(attempt) => self.stalled(ix, attempt, None),
            Found::Owner(note) => self.on_owner(ix, note.into()),
        }
    }

    /// Treats a message from a worker as a heartbeat. A worker that was declared dead rejoins first, because the
    /// message may be about attempts that are marked as lost.
    pub(crate) fn note_heard(&mut self, ix: WorkerIx) {
        if self.leader.pool[ix].state().dead() {
            self.on_rejoined(ix);
        }
    }

    fn on_rejoined(&mut self, ix: WorkerIx) {
        let dead = self.leader.pool[ix].state().dead();
        self.on_liveness(ix, WorkerEvent::Heard);
        let in_hand = self.leader.pool[ix].load().in_hand().clone();
        in_hand
            .iter()
            .for_each(|id| self.cancel_surplus_copies(id.task));
        if dead {
            self.recover_attempts(ix);
        }
    }

    /// Cancels the redundant attempt of a task that was started because a worker was suspected, now that the worker
    /// is heard. Keeps it if it has run longer than the first attempt's lead over it, as after a long freeze.
    fn cancel_surplus_copies(&mut self, task: TaskId) {
        let now = self.now;
        let wanted = self.view().attempts_wanted(task);
        let leader = &mut *self.leader;
        let Some(known) = leader.tasks.get(&task) else {
            return;
        };
        if known.committing().is_some() || known.active() <= wanted {
            return;
        }
        let reached = |attempt: &Attempt| {
            let there = leader.pool[attempt.worker()].state().connected();
            there && attempt.state().alive() && attempt.state().in_hand()
        };
        let alive = known.attempts().iter().filter(|attempt| reached(attempt));
        let Some((first, since)) = alive.map(|of| (of.id(), of.since())).min_by_key(|of| of.1)
        else {
            return;
        };
        let behind = |copy: &&Attempt| {
            let ahead = copy.since().since(since).max(AHEAD_MIN);
            let ends = copy.redundant() && reached(copy) && copy.why() != Why::Policy;
            ends && copy.id() != first && now.since(copy.since()) < ahead
        };
        let copies = known.attempts().iter().filter(behind);
        if let Some(copy) = copies.max_by_key(|copy| copy.since()) {
            let id = copy.id();
            self.cancel_attempt(id);
        }
    }

    /// Handles a worker that missed heartbeats or is heard again. Redundancy decides whether to start copies of its
    /// attempts; nothing is stopped.
    fn on_liveness(&mut self, ix: WorkerIx, event: WorkerEvent) {
        let suspected = self.leader.pool[ix].state().suspected();
        self.leader.transition(ix, event);
        let worker = &self.leader.pool[ix];
        if worker.state().suspected() != suspected {
            let in_hand = worker.load().in_hand().clone();
            in_hand
                .iter()
                .for_each(|id| self.update_task_offers(id.task));
        }
    }

    /// Restores the attempts and blobs of a worker that was declared dead and rejoined.
    fn recover_attempts(&mut self, ix: WorkerIx) {
        let lost = self.leader.pool[ix].load().lost().clone();
        lost.into_iter().for_each(|id| self.recover_attempt(id));
        // Results of ended jobs that only this worker holds could not be fetched meanwhile.
        let held: Vec<Hash> = self.leader.blobs.held_by(ix).collect();
        held.into_iter().for_each(|hash| self.fetch_kept(hash));
        self.leader.pool_changed(ix);
        self.retry_blocked_groups();
        self.fetch_wanted();
        self.leader.leaving.recheck();
    }

    fn note_progress(&mut self, ix: WorkerIx, id: AttemptId, progress: Progress) {
        let attempt = self.leader.tasks.attempt_mut(id);
        if let Some(attempt) = attempt.filter(|attempt| attempt.worker() == ix) {
            attempt.note_progress(self.now, progress);
            self.notify_watchers_soon(id.task.job);
        }
    }

    /// Records that an attempt stalled, or makes progress again.
    fn stalled(&mut self, ix: WorkerIx, id: AttemptId, stalled: Option<Time>) {
        let attempt = self.leader.tasks.attempt_mut(id);
        if let Some(attempt) = attempt.filter(|attempt| attempt.worker() == ix) {
            attempt.note_stalled(stalled);
            self.update_task_offers(id.task);
            self.notify_watchers_soon(id.task.job);
        }
    }
}
