//! Workers come, report, fall silent, return and leave.

use super::live::{Attempt, AttemptState, Timer, Why, Worker, WorkerIx};
use super::monitor::{Finding, Liveness};
use super::{Action, Supervisor, send};
use hedge_model::msg::{FromWorker, Outcome, Report, ToWorker, Usage, WorkerInfo};
use hedge_model::record::{End, Record};
use hedge_model::{AttemptId, Data, Hash, PeerId, TaskId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

impl Supervisor {
    pub(crate) fn on_worker(&mut self, peer: PeerId, msg: FromWorker, out: &mut Vec<Action>) {
        if let FromWorker::Attach(info) = msg {
            return self.on_attach(peer, *info, out);
        }
        let Some(ix) = self.live().by_peer.get(&peer).copied() else {
            return;
        };
        match msg {
            FromWorker::Attach(_) => {}
            FromWorker::Started(id) => self.on_started(ix, id),
            FromWorker::Ended(report) => self.on_report(ix, *report, out),
            FromWorker::Draining => self.drain(ix, out),
        }
    }

    fn on_attach(&mut self, peer: PeerId, info: WorkerInfo, out: &mut Vec<Action>) {
        if let Some(ix) = self.live().by_peer.get(&peer).copied() {
            self.lose_attempts(ix, Some(&info.in_hand), out);
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
        worker.queued.clear();
        worker.bodies.clear();
        worker.staged.clear();
        (
            worker.connected,
            worker.dead,
            worker.draining,
            worker.leave_sent,
        ) = (true, false, false, false);
        worker.gone_at = now;
        let (held, in_hand) = (info.holds.clone(), info.in_hand.clone());
        worker.info = WorkerInfo {
            holds: Vec::new(),
            in_hand: Vec::new(),
            ..info
        };
        let before = std::mem::take(&mut worker.held);
        self.take_stock(ix, before, held, out);
        in_hand.into_iter().for_each(|id| self.adopt(ix, id, out));
        let left = std::mem::take(&mut self.live().workers[ix as usize].lost);
        left.into_iter().for_each(|id| self.detach_lost(id));
        self.monitor.start(now, peer);
        let live = self.live();
        live.reindex(ix);
        live.pool_version += 1;
        let wanted: Vec<Hash> = live
            .jobs
            .values()
            .flat_map(|job| job.missing_results.iter().copied())
            .collect();
        self.feed_starved();
        wanted.into_iter().for_each(|hash| self.pull(hash, out));
    }

    /// Compares what a worker holds with what is wanted of it.
    fn take_stock(
        &mut self,
        ix: WorkerIx,
        before: BTreeSet<Hash>,
        held: Vec<Hash>,
        out: &mut Vec<Action>,
    ) {
        let live = self.live.get_or_insert_default();
        for hash in before {
            if let Some(content) = live.content.get_mut(&hash) {
                content.workers.retain(|other| *other != ix);
            }
        }
        let (wanted, unwanted): (Vec<Hash>, Vec<Hash>) = held
            .into_iter()
            .partition(|hash| live.content.contains_key(hash));
        let peer = live.workers[ix as usize].peer;
        wanted
            .into_iter()
            .for_each(|hash| self.held_by(hash, None, ix));
        if !unwanted.is_empty() {
            send(peer, ToWorker::Drop(unwanted), out);
        }
    }

    /// An attempt that a worker has in hand goes on, if its task still wants it.
    fn adopt(&mut self, ix: WorkerIx, id: AttemptId, out: &mut Vec<Action>) {
        let wanted = self
            .state
            .jobs
            .get(&id.task.job)
            .is_some_and(|job| job.active())
            && self
                .state
                .task(id.task)
                .is_some_and(|t| t.done.is_none() && t.generation == id.generation);
        let (now, epoch) = (self.now, self.state.epoch());
        let live = self.live();
        live.workers[ix as usize].lost.remove(&id);
        let peer = live.workers[ix as usize].peer;
        let known = live
            .tasks
            .get_mut(&id.task)
            .and_then(|known| known.attempt(id));
        let mine = known.as_ref().is_some_and(|attempt| attempt.worker == ix);
        if !wanted || (!mine && (id.epoch >= epoch || known.is_some())) {
            if mine {
                self.detach_lost(id);
            }
            return send(peer, ToWorker::Cancel(id), out);
        }
        if !mine {
            let known = live.tasks.entry(id.task).or_default();
            known.attempts.push(Attempt {
                id,
                worker: ix,
                redundant: known.active() > 0,
                state: AttemptState::Lost,
                holds: false,
                reported: false,
                since: now,
                why: Why::Adopted,
            });
        }
        self.revive(ix, id);
    }

    /// An attempt that was given up is there again.
    fn revive(&mut self, ix: WorkerIx, id: AttemptId) {
        let Some(job) = self.state.jobs.get(&id.task.job) else {
            return;
        };
        let (client, spec) = (job.client, job.spec.clone());
        let group = spec.group_of(id.task.number);
        let need = &spec.groups()[group].resources;
        let live = self.live.get_or_insert_default();
        let Some(attempt) = live
            .tasks
            .get_mut(&id.task)
            .and_then(|known| known.attempt(id))
        else {
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
        live.ready.took(client, need.cpus_milli);
        if let Some(job) = live.jobs.get_mut(&id.task.job) {
            let offset = id.task.number - spec.first(group);
            let offers = &mut job.groups[group];
            while offers.fresh <= offset {
                offers.again.insert(offers.fresh);
                offers.fresh += 1;
            }
        }
        self.settle_wants(id.task);
        self.refresh_offers(id.task.job, group);
    }

    fn on_started(&mut self, ix: WorkerIx, id: AttemptId) {
        let live = self.live.get_or_insert_default();
        let Some(attempt) = live
            .tasks
            .get_mut(&id.task)
            .and_then(|known| known.attempt(id))
        else {
            return;
        };
        if attempt.worker != ix || !attempt.state.active() {
            return;
        }
        attempt.state = AttemptState::Running;
        let Some(job) = self.state.jobs.get(&id.task.job) else {
            return;
        };
        let group = job.spec.group_of(id.task.number);
        let body = live
            .jobs
            .get(&id.task.job)
            .and_then(|job| job.groups[group].body.clone());
        let Some(body) = body else { return };
        let worker = &mut live.workers[ix as usize];
        if worker
            .staged
            .insert((id.task.job, body.group, body.version))
        {
            let inputs = body.inputs.iter().map(|file| &file.data).chain(&body.stdin);
            for data in inputs {
                if let Data::Blob { hash, size } = data {
                    self.held_by(*hash, Some(*size), ix);
                }
            }
        }
    }

    fn on_report(&mut self, ix: WorkerIx, report: Report, out: &mut Vec<Action>) {
        let Report {
            attempt: id,
            outcome,
            usage,
            log,
        } = report;
        let worker = self.live().workers[ix as usize].peer;
        let known = self
            .live()
            .tasks
            .get_mut(&id.task)
            .and_then(|known| known.attempt(id));
        let Some(attempt) = known.filter(|attempt| attempt.worker == ix) else {
            if let Outcome::Done(outputs) = &outcome {
                self.drop_unknown(worker, outputs, out);
            }
            return send(worker, ToWorker::Settled(id), out);
        };
        if std::mem::replace(&mut attempt.reported, true) {
            return;
        }
        let redundant = attempt.redundant;
        let at = self.now;
        let end = match outcome {
            Outcome::Done(outputs) => {
                let open = self
                    .state
                    .jobs
                    .get(&id.task.job)
                    .is_some_and(|job| job.active())
                    && self
                        .state
                        .task(id.task)
                        .is_some_and(|t| t.done.is_none() && t.generation == id.generation);
                let known = self.live().tasks.entry(id.task).or_default();
                if open && !known.committing {
                    known.committing = true;
                    let outputs = outputs.into();
                    let record = Record::TaskDone {
                        attempt: id,
                        redundant,
                        worker,
                        outputs,
                        usage,
                        log,
                        at,
                    };
                    return self.append(record, None, out);
                }
                self.drop_unknown(worker, &outputs, out);
                End::Cancelled
            }
            Outcome::Failed(why) => End::Failed(why),
            Outcome::Unstaged { missing, why } => {
                for hash in missing {
                    self.distrust(hash, out);
                }
                End::Unstaged(why)
            }
            Outcome::Cancelled => End::Cancelled,
            Outcome::Returned => {
                send(worker, ToWorker::Settled(id), out);
                self.detach(id);
                self.settle_wants(id.task);
                return self.forget_task_if_over(id.task);
            }
        };
        self.append(
            Record::AttemptEnded {
                attempt: id,
                redundant,
                worker,
                end,
                usage,
                log,
                at,
            },
            None,
            out,
        );
    }

    /// A worker could not fetch this from anybody it was told of.
    fn distrust(&mut self, hash: Hash, out: &mut Vec<Action>) {
        let live = self.live();
        let own = live.content.get(&hash).is_some_and(|content| content.own);
        live.jobs
            .values_mut()
            .flat_map(|job| &mut job.groups)
            .for_each(|group| {
                if group
                    .body
                    .as_ref()
                    .is_some_and(|body| body.blobs.contains(&hash))
                {
                    group.body = None;
                }
            });
        let silent = live.content.get(&hash).map(|content| {
            content
                .workers
                .iter()
                .all(|ix| live.workers[*ix as usize].reachable())
        });
        if !own && silent == Some(true) {
            self.disbelieve_holders(hash);
        }
        if !own {
            self.lose_if_gone(hash, out);
        }
    }

    /// Outputs of an attempt that did not win are dropped where nobody else made the same.
    fn drop_unknown(
        &mut self,
        worker: PeerId,
        outputs: &[hedge_model::FileEntry],
        out: &mut Vec<Action>,
    ) {
        let live = self.live();
        let ix = live.by_peer.get(&worker).copied();
        let hashes = outputs.iter().filter_map(|file| file.data.hash());
        let (same, unknown): (Vec<Hash>, Vec<Hash>) =
            hashes.partition(|hash| live.content.contains_key(hash));
        if let Some(ix) = ix {
            same.into_iter()
                .for_each(|hash| self.held_by(hash, None, ix));
        }
        if !unknown.is_empty() {
            send(worker, ToWorker::Drop(unknown), out);
        }
    }

    pub(crate) fn on_gone(&mut self, peer: PeerId, out: &mut Vec<Action>) {
        let live = self.live();
        live.submits.retain(|submit| submit.client != peer);
        live.jobs
            .values_mut()
            .for_each(|job| job.watchers.retain(|(watcher, _)| *watcher != peer));
        let Some(ix) = live.by_peer.get(&peer).copied() else {
            return;
        };
        self.monitor.stop(peer);
        if self.live().workers[ix as usize].connected {
            self.live().workers[ix as usize].connected = false;
            self.give_up(ix, out);
        }
    }

    pub(crate) fn on_finding(&mut self, finding: Finding, out: &mut Vec<Action>) {
        let Some(ix) = self.live().by_peer.get(&finding.peer).copied() else {
            return;
        };
        let worker = &mut self.live().workers[ix as usize];
        match finding.liveness {
            Liveness::Dead if !worker.dead => {
                worker.dead = true;
                self.give_up(ix, out);
            }
            Liveness::Live if worker.dead => {
                worker.dead = false;
                worker.free = worker.info.resources.clone();
                let lost = std::mem::take(&mut worker.lost);
                lost.into_iter().for_each(|id| self.revive(ix, id));
                let live = self.live();
                live.reindex(ix);
                live.pool_version += 1;
                self.feed_starved();
            }
            _ => {}
        }
    }

    /// What a worker had in hand is assigned elsewhere; it may still come back with it and win.
    fn give_up(&mut self, ix: WorkerIx, out: &mut Vec<Action>) {
        self.lose_attempts(ix, None, out);
        let (now, grace) = (self.now, self.config.content_grace);
        let live = self.live();
        live.workers[ix as usize].gone_at = now;
        live.set_timer(now + grace, Timer::ContentLost(ix));
        live.reindex(ix);
        live.pool_version += 1;
        let peer = live.workers[ix as usize].peer;
        for group in live.jobs.values_mut().flat_map(|job| &mut job.groups) {
            if group
                .body
                .as_ref()
                .is_some_and(|body| body.sources.iter().any(|source| source.peer == peer))
            {
                group.body = None;
            }
        }
    }

    /// Gives up all attempts of a worker but those in `kept`.
    fn lose_attempts(&mut self, ix: WorkerIx, kept: Option<&[AttemptId]>, out: &mut Vec<Action>) {
        let worker = &mut self.live().workers[ix as usize];
        let peer = worker.peer;
        let in_hand = std::mem::take(&mut worker.in_hand);
        worker.queued.clear();
        for id in in_hand {
            let live = self.live.get_or_insert_default();
            let Some(attempt) = live
                .tasks
                .get_mut(&id.task)
                .and_then(|known| known.attempt(id))
            else {
                continue;
            };
            let (active, redundant) = (attempt.state.active(), attempt.redundant);
            attempt.state = AttemptState::Lost;
            let held = std::mem::replace(&mut attempt.holds, false);
            self.give_share(id, held, ix);
            self.live().workers[ix as usize].lost.insert(id);
            if !active {
                self.detach_lost(id);
            } else if kept.is_none_or(|kept| !kept.contains(&id)) {
                self.live().workers[ix as usize].lost_count += 1;
                let (end, at) = (End::Lost, self.now);
                let (usage, log) = (Usage::default(), None);
                let record = Record::AttemptEnded {
                    attempt: id,
                    redundant,
                    worker: peer,
                    end,
                    usage,
                    log,
                    at,
                };
                self.append(record, None, out);
            }
            self.settle_wants(id.task);
            self.tell_soon(id.task.job);
        }
    }

    pub(crate) fn drain(&mut self, ix: WorkerIx, out: &mut Vec<Action>) {
        let live = self.live();
        let worker = &mut live.workers[ix as usize];
        if std::mem::replace(&mut worker.draining, true) {
            return;
        }
        let (peer, in_hand) = (worker.peer, worker.in_hand.clone());
        send(peer, ToWorker::Drain, out);
        live.reindex(ix);
        live.pool_version += 1;
        for id in in_hand {
            self.settle_wants(id.task);
        }
        self.let_leave(out);
    }

    /// Draining workers that have nothing in hand, and nothing that only they hold, may go.
    pub(crate) fn let_leave(&mut self, out: &mut Vec<Action>) {
        let Some(live) = &self.live else { return };
        let draining: Vec<WorkerIx> = (0..live.workers.len() as WorkerIx)
            .filter(|ix| {
                let worker = &live.workers[*ix as usize];
                worker.draining
                    && worker.reachable()
                    && !worker.leave_sent
                    && worker.in_hand.is_empty()
            })
            .collect();
        for ix in draining {
            let live = self.live();
            let only_here = |hash: &&Hash| {
                live.content.get(*hash).is_some_and(|content| {
                    let other = |at: &WorkerIx| {
                        let worker = &live.workers[*at as usize];
                        *at != ix && worker.reachable() && !worker.draining
                    };
                    !content.own
                        && !content.producers.is_empty()
                        && !content.workers.iter().any(other)
                })
            };
            let rescue: Vec<Hash> = live.workers[ix as usize]
                .held
                .iter()
                .filter(only_here)
                .copied()
                .collect();
            if rescue.is_empty() {
                live.workers[ix as usize].leave_sent = true;
                send(live.workers[ix as usize].peer, ToWorker::Leave, out);
            }
            rescue.into_iter().for_each(|hash| self.pull(hash, out));
        }
    }

    pub(crate) fn readmit(&mut self, ix: WorkerIx) {
        let live = self.live();
        live.workers[ix as usize].aside = None;
        live.workers[ix as usize].blamed = 0;
        live.reindex(ix);
        live.pool_version += 1;
    }

    /// An attempt is over: it gives back what it took, and those queued behind it move up.
    pub(crate) fn detach(&mut self, id: AttemptId) {
        let live = self.live();
        let Some(known) = live.tasks.get_mut(&id.task) else {
            return;
        };
        let Some(at) = known.attempts.iter().position(|attempt| attempt.id == id) else {
            return;
        };
        let attempt = known.attempts.remove(at);
        let ix = attempt.worker;
        if attempt.state == AttemptState::Lost {
            live.workers[ix as usize].lost.remove(&id);
            return;
        }
        let worker = &mut live.workers[ix as usize];
        worker.in_hand.remove(&id);
        if !attempt.holds {
            worker.queued.retain(|queued| *queued != id);
        }
        self.give_share(id, attempt.holds, ix);
        self.move_up(ix);
        self.live().reindex(ix);
    }

    fn detach_lost(&mut self, id: AttemptId) {
        self.detach(id);
        self.forget_task_if_over(id.task);
    }

    fn give_share(&mut self, id: AttemptId, held: bool, ix: WorkerIx) {
        let Some(job) = self.state.jobs.get(&id.task.job) else {
            return;
        };
        let need = &job.spec.groups()[job.spec.group_of(id.task.number)].resources;
        let live = self.live.get_or_insert_default();
        if held {
            live.workers[ix as usize].free.give(need);
        }
        live.ready.gave(job.client, need.cpus_milli);
    }

    /// Queued attempts take the resources that became free, in their order, as the worker itself does.
    fn move_up(&mut self, ix: WorkerIx) {
        let live = self.live.get_or_insert_default();
        let worker = &mut live.workers[ix as usize];
        while let Some(id) = worker.queued.front().copied() {
            let Some(job) = self.state.jobs.get(&id.task.job) else {
                break;
            };
            let need = &job.spec.groups()[job.spec.group_of(id.task.number)].resources;
            if !worker.free.covers(need) {
                break;
            }
            worker.queued.pop_front();
            worker.free.take(need);
            if let Some(attempt) = live
                .tasks
                .get_mut(&id.task)
                .and_then(|known| known.attempt(id))
            {
                attempt.holds = true;
                if attempt.state == AttemptState::Queued {
                    attempt.state = AttemptState::Assigned;
                }
            }
        }
    }

    /// A task that is done or whose job has ended needs no live state once its last attempt is over.
    pub(crate) fn forget_task_if_over(&mut self, id: TaskId) {
        let over = self
            .state
            .jobs
            .get(&id.job)
            .is_none_or(|job| !job.active() || job.tasks[id.number as usize].done.is_some());
        let live = self.live();
        if over
            && live
                .tasks
                .get(&id)
                .is_some_and(|known| known.attempts.is_empty())
        {
            live.tasks.remove(&id);
        }
    }
}

fn new_worker(peer: PeerId, info: WorkerInfo) -> Worker {
    Worker {
        peer,
        free: info.resources.clone(),
        info,
        in_hand: BTreeSet::new(),
        queued: VecDeque::new(),
        lost: BTreeSet::new(),
        connected: true,
        dead: false,
        gone_at: hedge_model::Time(0),
        draining: false,
        leave_sent: false,
        aside: None,
        blamed: 0,
        times_aside: 0,
        bodies: BTreeMap::new(),
        staged: BTreeSet::new(),
        held: BTreeSet::new(),
        done: 0,
        failed: 0,
        lost_count: 0,
        room_key: None,
        queue_key: None,
    }
}
