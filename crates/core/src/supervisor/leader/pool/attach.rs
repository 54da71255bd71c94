//! Attaches workers: compares the attempts and blobs that a worker reports with what the leader knows and wants.

use crate::supervisor::leader::attempts::active::{NewAttempt, Why};
use crate::supervisor::leader::attempts::state::AttemptState;
use crate::supervisor::leader::pool::capacity::BENCHMARK_AFTER;
use crate::supervisor::leader::pool::state::{WorkerEvent, WorkerState};
use crate::supervisor::leader::pool::worker::Worker;
use crate::supervisor::leader::timers::Timer;
use crate::supervisor::leader::{Leadership, WorkerIx};
use crate::supervisor::{send, send_drop};
use hedge_model::msg::{HASHES_MAX, HeldAttempt, ToWorker, WorkerInfo};
use hedge_model::{AttemptId, Hash, JobId, PeerId};
use std::collections::BTreeMap;

impl Leadership<'_> {
    /// Handles a worker's first message on a connection.
    pub(crate) fn on_attach(&mut self, peer: PeerId, info: WorkerInfo) {
        if let Some(ix) = self.leader.pool.find(peer) {
            let kept: Vec<AttemptId> = info.in_hand.iter().map(|held| held.attempt).collect();
            self.lose_attempts(ix, Some(&kept));
            self.unwatch(ix);
        }
        let (now, leader) = (self.now, &mut *self.leader);
        let unknown = WorkerState::Expected { since: now };
        let ix = leader
            .pool
            .find_or_add(peer, || Worker::new(peer, info.clone(), unknown));
        leader.transition(ix, WorkerEvent::Attached);
        let worker = &mut leader.pool[ix];
        let (held, in_hand) = (info.holds.clone(), info.in_hand.clone());
        worker.attach(WorkerInfo {
            holds: Vec::new(),
            in_hand: Vec::new(),
            ..info
        });
        leader.leaving.end(ix);
        leader.attention.changed(ix);
        let before = leader.blobs.clear_worker(ix);
        self.compare_holdings(ix, held);
        let newest: BTreeMap<_, _> = in_hand
            .iter()
            .map(|held| (held.attempt.task, held.attempt))
            .collect();
        for held in in_hand {
            // It got a later attempt of the same task before its report of this one was settled.
            let newest = newest.get(&held.attempt.task) == Some(&held.attempt);
            self.adopt(ix, held, newest);
        }
        self.drop_undelivered(ix);
        self.note_reported(peer);
        let lost = self.leader.pool[ix].load().lost().clone();
        lost.into_iter().for_each(|id| self.detach_lost(id));
        let leader = &mut *self.leader;
        leader.classes.changed();
        if !leader.pool[ix].benchmark().waits() {
            let at = now + BENCHMARK_AFTER;
            leader.timers.set_once(at, Timer::Benchmark(ix));
        }
        self.update_speed(ix);
        self.on_link_up(ix);
        self.leader.pool_changed(ix);
        self.retry_blocked_groups();
        self.rerun_where_lost(before);
        self.fetch_wanted();
        self.send_revocations(peer);
    }

    /// Sends all revocations to a worker: a peer that was revoked before the worker connected may hold a grant to
    /// read from it.
    fn send_revocations(&mut self, worker: PeerId) {
        let all: Vec<PeerId> = self.state.revoked().collect();
        for part in all.chunks(HASHES_MAX) {
            send(worker, ToWorker::Revoked(part.to_vec()), self.out);
        }
    }

    /// Compares the blobs that a worker holds with those that are needed.
    fn compare_holdings(&mut self, ix: WorkerIx, held: Vec<Hash>) {
        let leader = &mut *self.leader;
        let wanted = |hash: &Hash| leader.blobs.in_use(*hash);
        let (wanted, unwanted): (Vec<Hash>, Vec<Hash>) = held.into_iter().partition(wanted);
        let peer = leader.pool[ix].peer();
        for hash in wanted {
            self.note_holder(hash, None, ix);
            self.fetch_kept(hash);
        }
        send_drop(peer, &unwanted, self.out);
    }

    /// Handles a further part of the list of blobs that a worker holds.
    pub(crate) fn on_holds(&mut self, ix: WorkerIx, held: Vec<Hash>) {
        self.compare_holdings(ix, held);
        self.retry_blocked_groups();
        self.fetch_wanted();
    }

    /// Continues an attempt that a worker reports, if its task still wants it and its seal proves that a leader
    /// assigned it. Cancels it otherwise.
    fn adopt(&mut self, ix: WorkerIx, held: HeldAttempt, newest: bool) {
        let id = held.attempt;
        let peer = self.leader.pool[ix].peer();
        let given = held.seal == self.view().seal(peer, id, held.redundant);
        let wanted = given && newest && self.state.wants(id);
        let (now, epoch) = (self.now, self.state.epoch());
        let leader = &mut *self.leader;
        if leader.pool[ix].load().in_hand().contains(&id) {
            // The worker listed it twice.
            return;
        }
        let class = leader.pool[ix].class();
        let known = leader.tasks.attempt(id);
        let mine = known.as_ref().is_some_and(|attempt| attempt.worker() == ix);
        if !wanted || (!mine && (id.epoch >= epoch || known.is_some())) {
            if mine {
                self.detach_lost(id);
            }
            send(peer, ToWorker::Cancel(id), self.out);
            return self.involved(ix, peer, id.task.job);
        }
        if !mine {
            self.begin_attempt(NewAttempt {
                id,
                worker: ix,
                redundant: held.redundant,
                state: AttemptState::Lost,
                since: now,
                why: Why::Adopted,
                class,
                from: None,
            });
        }
        self.recover_attempt(id);
        self.involved(ix, peer, id.task.job);
    }

    /// Tells a worker that has attempts of a job about the job's end: later, or at once if it has ended.
    fn involved(&mut self, ix: WorkerIx, peer: PeerId, job: JobId) {
        match self.leader.jobs.get_mut(job) {
            Some(job) => job.note_involved(ix),
            None => send(peer, ToWorker::Forget(job), self.out),
        }
    }
}
