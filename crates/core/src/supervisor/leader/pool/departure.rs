//! Handles messages from workers, lost connections, lost workers and draining.

use crate::supervisor::leader::blobs::state::Blob;
use crate::supervisor::leader::placement::body::ReadyBody;
use crate::supervisor::leader::pool::state::{Loss, WorkerEvent};
use crate::supervisor::leader::timers::Timer;
use crate::supervisor::leader::{Leadership, WorkerIx};
use crate::supervisor::{Action, send};
use hedge_model::msg::{FromWorker, ToWorker};
use hedge_model::{Hash, PeerId};
use std::collections::BTreeSet;
use std::time::Duration;

/// How long a worker may take to reconnect after its connection was lost without being closed by either side. It
/// continues its attempts meanwhile. This is five times its longest pause between two tries. It matters for a
/// supervisor that was frozen itself and for workers with rare heartbeats: other workers are declared dead earlier.
const RETURNS_WITHIN: Duration = Duration::from_secs(10);

/// Draining workers that have not been told to leave.
#[derive(Debug, Default)]
pub(crate) struct Leaving {
    workers: BTreeSet<WorkerIx>,
    /// Whether one of them may be ready to leave.
    due: bool,
}

impl Leaving {
    fn begin(&mut self, ix: WorkerIx) {
        self.workers.insert(ix);
    }

    /// Removes a worker that was told to leave or attached again.
    pub fn end(&mut self, ix: WorkerIx) {
        self.workers.remove(&ix);
    }

    /// Requests a check, because a change may let one of them leave.
    pub fn recheck(&mut self) {
        self.due = true;
    }
}

impl Leadership<'_> {
    /// Handles a message from a worker.
    pub(crate) fn on_worker(&mut self, peer: PeerId, msg: FromWorker) {
        // The worker may have sent it before it was revoked.
        if self.state.revoked.contains_key(&peer) {
            return;
        }
        if let FromWorker::Attach(info) = msg {
            return self.on_attach(peer, *info);
        }
        let leader = &mut *self.leader;
        let known = leader.pool.find(peer);
        let Some(ix) = known.filter(|ix| leader.pool[*ix].state().connected()) else {
            return;
        };
        self.note_heard(ix);
        match msg {
            FromWorker::Attach(_) => {}
            FromWorker::Holds(held) => self.on_holds(ix, held),
            FromWorker::Started(id) => self.on_started(ix, id),
            FromWorker::Ended(report) => self.on_report(ix, *report),
            FromWorker::Draining => self.drain(ix),
            FromWorker::Owner(state) => self.on_owner(ix, state),
            FromWorker::Probed(arrived) => self.on_link_acknowledged(ix, arrived),
            FromWorker::Fetched { bytes, took } => self.note_transfer_rate(ix, bytes, took),
            FromWorker::Waits(id, job) => self.on_waits(ix, id, job),
            FromWorker::Checkpoint(report) => self.on_checkpoint(ix, *report),
            FromWorker::Printed(part) => self.on_printed(ix, *part),
            FromWorker::Benchmarked(scores) => self.on_benchmarked(ix, scores),
        }
    }

    /// Handles a closed connection of a worker, client or supervisor. `silent` says that neither side closed it, so
    /// that the peer may reconnect.
    pub(crate) fn on_gone(&mut self, peer: PeerId, silent: bool) {
        self.peer_supervisor_gone(peer);
        self.leader.pending_proposals.abandon(peer);
        self.forget_readings_of(peer);
        let submissions = &mut self.leader.submissions;
        for submit in submissions.take(|submit| submit.client == peer) {
            self.release_inputs(submit.new.offer.input_blobs());
        }
        self.leader.jobs.unwatch(|watcher, _| watcher == peer);
        let Some(ix) = self.leader.pool.find(peer) else {
            return;
        };
        self.end_readings_of_worker(ix);
        let (now, by) = (self.now, self.now + RETURNS_WITHIN);
        let state = self.leader.pool[ix].state();
        let watched = state.attention().is_some();
        if silent && state.reachable() {
            let event = WorkerEvent::Disconnected { now, by };
            self.leader.transition(ix, event);
            self.leader.timers.set(by, Timer::Returns(ix));
        } else if state.connected() || (!silent && state.returns_by().is_some()) {
            self.lose_worker(ix, Loss::Ended);
        }
        if watched {
            let attention = None;
            self.out.push(Action::Watch { peer, attention });
        }
    }

    /// Marks a worker that did not reconnect in time as lost. It may still return.
    pub(crate) fn give_up_returning(&mut self, ix: WorkerIx) {
        let by = self.leader.pool[ix].state().returns_by();
        if by.is_some_and(|by| by <= self.now) {
            self.lose_worker(ix, Loss::NotBack);
        }
    }

    /// Handles the loss of a worker: its attempts count as lost, and their tasks run elsewhere. The worker may still
    /// return with them and win.
    pub(crate) fn lose_worker(&mut self, ix: WorkerIx, loss: Loss) {
        let (now, grace) = (self.now, self.config.content_grace);
        let before = *self.leader.pool[ix].state();
        self.leader.transition(ix, WorkerEvent::Lost { now, loss });
        if *self.leader.pool[ix].state() == before {
            return;
        }
        self.lose_checkpoints(ix);
        self.lose_attempts(ix, None);
        let leader = &mut *self.leader;
        leader.timers.set(now + grace, Timer::ContentLost(ix));
        let peer = leader.pool[ix].peer();
        let named = |ready: &ReadyBody| ready.body.sources.iter().any(|one| one.peer == peer);
        leader.jobs.drop_bodies(named);
    }

    /// Drains a worker: it gets no new attempts.
    pub(crate) fn drain(&mut self, ix: WorkerIx) {
        let leader = &mut *self.leader;
        let worker = &mut leader.pool[ix];
        if !worker.drain() {
            return;
        }
        let (peer, in_hand) = (worker.peer(), worker.load().in_hand().clone());
        leader.leaving.begin(ix);
        send(peer, ToWorker::Drain, self.out);
        leader.pool_changed(ix);
        for id in in_hand {
            self.update_task_offers(id.task);
        }
        self.leader.leaving.recheck();
    }

    /// Tells draining workers to leave once they have nothing in hand and no needed blob is only there. Fetches such
    /// blobs.
    pub(crate) fn release_leaving(&mut self) {
        let leader = &mut *self.leader;
        if !std::mem::take(&mut leader.leaving.due) {
            return;
        }
        let idle = |ix: &WorkerIx| {
            let worker = &leader.pool[*ix];
            worker.state().reachable() && worker.load().in_hand().is_empty()
        };
        let draining: Vec<WorkerIx> = leader
            .leaving
            .workers
            .iter()
            .copied()
            .filter(idle)
            .collect();
        for ix in draining {
            let leader = &mut *self.leader;
            let other = |at: &WorkerIx| {
                let worker = &leader.pool[*at];
                *at != ix && worker.state().reachable() && !worker.draining()
            };
            let only_here = |blob: &Blob| {
                let needed = !blob.producers().is_empty() || blob.is_retained();
                needed && !blob.is_here() && !blob.workers().iter().any(other)
            };
            let held = leader.blobs.held_by(ix);
            let rescue = held.filter(|hash| leader.blobs.get(*hash).is_some_and(only_here));
            let rescue: Vec<Hash> = rescue.collect();
            if rescue.is_empty() {
                self.leader.leaving.end(ix);
                let leader = &mut *self.leader;
                send(leader.pool[ix].peer(), ToWorker::Leave, self.out);
            }
            rescue.into_iter().for_each(|hash| self.fetch(hash));
        }
    }
}
