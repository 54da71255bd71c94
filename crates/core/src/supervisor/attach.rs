//! A worker connects: what it has in hand and what it holds is compared with what is known and wanted.

use super::link::LinkState;
use super::live::{Attempt, AttemptState, Content, Timer, Why, Worker, WorkerIx, find_attempt};
use super::{Action, Supervisor, send, send_drop};
use crate::monitor::{Liveness, Progress};
use hedge_model::msg::{HASHES_MAX, HeldAttempt, ToWorker, WorkerInfo};
use hedge_model::{AttemptId, Hash, JobId, PeerId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

impl Supervisor {
    /// A worker's first message on a connection.
    pub(crate) fn on_attach(&mut self, peer: PeerId, info: WorkerInfo, out: &mut Vec<Action>) {
        if let Some(ix) = self.live().by_peer.get(&peer).copied() {
            let kept: Vec<AttemptId> = info.in_hand.iter().map(|held| held.attempt).collect();
            self.lose_attempts(ix, Some(&kept), out);
            self.unwatch(ix, out);
        }
        let (now, live) = (self.now, self.live.get_or_insert_default());
        let ix = *live
            .by_peer
            .entry(peer)
            .or_insert(live.workers.len() as WorkerIx);
        if ix as usize == live.workers.len() {
            live.workers.push(new_worker(peer, info.clone()));
        }
        let worker = &mut live.workers[ix as usize];
        worker.free = info.resources.clone();
        worker.in_hand.clear();
        worker.critical.clear();
        worker.queued.clear();
        worker.bodies.clear();
        worker.staged.clear();
        (worker.connected, worker.dead, worker.draining) = (true, false, false);
        (worker.quiet_since, worker.returns_by) = (None, None);
        // If its owner is there, it says so next.
        (worker.owner, worker.owner_change) = (None, 0);
        worker.gone_at = now;
        live.leaving.remove(&ix);
        live.attend.insert(ix);
        let (held, in_hand) = (info.holds.clone(), info.in_hand.clone());
        worker.info = WorkerInfo {
            holds: Vec::new(),
            in_hand: Vec::new(),
            ..info
        };
        let before = std::mem::take(&mut worker.held);
        self.take_stock(ix, &before, held, out);
        let newest: BTreeMap<_, _> = in_hand
            .iter()
            .map(|held| (held.attempt.task, held.attempt))
            .collect();
        for held in in_hand {
            // What it says of an earlier attempt was not settled when it was given another of the same task.
            let newest = newest.get(&held.attempt.task) == Some(&held.attempt);
            self.adopt(ix, held, newest, out);
        }
        self.never_arrived(ix, out);
        self.heard_from(peer);
        let left = std::mem::take(&mut self.live().workers[ix as usize].lost);
        left.into_iter().for_each(|id| self.detach_lost(id));
        let live = self.live();
        live.rated += 1;
        if !std::mem::replace(&mut live.workers[ix as usize].benchmark_set, true) {
            let at = now + super::capacity::BENCHMARK_AFTER;
            live.set_timer(at, Timer::Benchmark(ix));
        }
        self.rate(ix);
        self.link_came(ix, out);
        self.live().pool_changed(ix);
        self.feed_starved();
        self.lose_where_gone(before, out);
        self.pull_wanted(out);
        self.tell_who_was_revoked(peer, out);
    }

    /// Whoever was shut out while this worker was elsewhere, or before it started, may hold a grant to read from it.
    fn tell_who_was_revoked(&self, worker: PeerId, out: &mut Vec<Action>) {
        let all: Vec<PeerId> = self.state.revoked().collect();
        for part in all.chunks(HASHES_MAX) {
            send(worker, ToWorker::Revoked(part.to_vec()), out);
        }
    }

    /// Compares what a worker holds with what is wanted of it.
    fn take_stock(
        &mut self,
        ix: WorkerIx,
        before: &BTreeSet<Hash>,
        held: Vec<Hash>,
        out: &mut Vec<Action>,
    ) {
        let live = self.live.get_or_insert_default();
        for hash in before {
            if let Some(content) = live.content.get_mut(hash) {
                content.workers.retain(|other| *other != ix);
            }
        }
        let (wanted, unwanted): (Vec<Hash>, Vec<Hash>) = held
            .into_iter()
            .partition(|hash| live.content.get(hash).is_some_and(Content::in_use));
        let peer = live.workers[ix as usize].peer;
        for hash in wanted {
            self.held_by(hash, None, ix);
            self.fetch_kept(hash, out);
        }
        send_drop(peer, &unwanted, out);
    }

    /// A worker goes on to list what it holds.
    pub(crate) fn on_holds(&mut self, ix: WorkerIx, held: Vec<Hash>, out: &mut Vec<Action>) {
        self.take_stock(ix, &BTreeSet::new(), held, out);
        self.feed_starved();
        self.pull_wanted(out);
    }

    /// An attempt that a worker has in hand goes on, if its task still wants it.
    /// One that this leader did not give it needs the proof that another did.
    fn adopt(&mut self, ix: WorkerIx, held: HeldAttempt, newest: bool, out: &mut Vec<Action>) {
        let id = held.attempt;
        let peer = self.live().workers[ix as usize].peer;
        let given = held.seal == self.seal(peer, id, held.redundant);
        let wanted = given && newest && self.state.wants(id);
        let (now, epoch) = (self.now, self.state.epoch());
        let live = self.live();
        if live.workers[ix as usize].in_hand.contains(&id) {
            // It names the attempt twice.
            return;
        }
        live.workers[ix as usize].lost.remove(&id);
        let class = live.workers[ix as usize].class;
        live.workers[ix as usize].expected.remove(&id);
        let known = find_attempt(&mut live.tasks, id);
        let mine = known.as_ref().is_some_and(|attempt| attempt.worker == ix);
        if !wanted || (!mine && (id.epoch >= epoch || known.is_some())) {
            if mine {
                self.detach_lost(id);
            }
            send(peer, ToWorker::Cancel(id), out);
            return self.touched(ix, peer, id.task.job, out);
        }
        if !mine {
            let known = live.tasks.entry(id.task).or_default();
            known.attempts.push(Attempt {
                id,
                worker: ix,
                redundant: held.redundant,
                state: AttemptState::Lost,
                holds: false,
                reported: false,
                since: now,
                why: Why::Adopted,
                class,
                stopped: None,
                progress: Progress::default(),
                stalled: None,
            });
        }
        self.revive(ix, id);
        self.touched(ix, peer, id.task.job, out);
    }

    /// A worker has something of a job, and is to hear of the job's end: then, or now.
    fn touched(&mut self, ix: WorkerIx, peer: PeerId, job: JobId, out: &mut Vec<Action>) {
        match self.live().jobs.get_mut(&job) {
            Some(job) => {
                job.touched.insert(ix);
            }
            None => send(peer, ToWorker::Forget(job), out),
        }
    }

    /// An attempt that was given up is there again.
    pub(crate) fn revive(&mut self, ix: WorkerIx, id: AttemptId) {
        let Some(job) = self.state.jobs.get(&id.task.job) else {
            return;
        };
        let (client, spec) = (job.client, job.spec.clone());
        let critical = job.critical.contains(&spec, id.task.number);
        let group = spec.group_of(id.task.number);
        let need = &spec.groups()[group].resources;
        let live = self.live.get_or_insert_default();
        let Some(attempt) = find_attempt(&mut live.tasks, id) else {
            return;
        };
        let worker = &mut live.workers[ix as usize];
        attempt.state = AttemptState::Assigned;
        attempt.holds = worker.free.covers(need);
        attempt.reported = false;
        if attempt.holds {
            worker.free.take(need);
        } else {
            attempt.state = AttemptState::Queued;
            worker.queued.push_back(id);
        }
        worker.in_hand.insert(id);
        if critical {
            worker.critical.insert(id);
        }
        live.attend.insert(ix);
        live.ready.took(client, need.cpus_milli);
        self.pass_fresh(id.task);
        self.refresh_offers(id.task.job, group);
    }
}

pub(crate) fn new_worker(peer: PeerId, info: WorkerInfo) -> Worker {
    Worker {
        peer,
        free: info.resources.clone(),
        info,
        in_hand: BTreeSet::new(),
        critical: BTreeSet::new(),
        attention: None,
        liveness: Liveness::Live,
        suspect: false,
        quiet_since: None,
        queued: VecDeque::new(),
        lost: BTreeSet::new(),
        expected: BTreeSet::new(),
        connected: true,
        returns_by: None,
        dead: false,
        gone_at: hedge_model::Time(0),
        draining: false,
        owner: None,
        owner_change: 0,
        exclusion: None,
        blamed: 0,
        times_blamed: 0,
        faults: 0,
        bodies: BTreeMap::new(),
        staged: BTreeSet::new(),
        held: BTreeSet::new(),
        done: 0,
        failed: 0,
        lost_count: 0,
        room_key: None,
        queue_key: None,
        pace_key: None,
        class: hedge_model::capacity::Class::default(),
        speed: 1.0,
        benchmark_set: false,
        benchmark_asked: false,
        benchmark_waits: false,
        benchmark_again: super::capacity::BENCHMARK_AGAIN_AFTER,
        link: LinkState::default(),
    }
}
