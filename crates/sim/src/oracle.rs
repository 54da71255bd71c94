//! What must hold whatever happens, seen from outside the core: by what it says and by what is true in the
//! virtual grid.

use crate::actors::{Peer, Told};
use crate::grid::{Grid, Violation};
use crate::shadow::{Change, inputs_of};
use hedge_core::supervisor::{Action, Effects, Event};
use hedge_model::group::ToLeader;
use hedge_model::msg::{Assignment, FromWorker, Outcome, ToWorker};
use hedge_model::record::{JobEnd, Record};
use hedge_model::view::JobState;
use hedge_model::{AttemptId, Ending, Hash, JobId, PeerId, TaskId};
use std::collections::BTreeSet;

impl Grid {
    /// Notes what an event tells a supervisor, before it handles it.
    pub(crate) fn before(&mut self, sup: usize, event: &Event) -> Change {
        match event {
            Event::Committed { record, .. } => return self.follow(sup, record),
            _ if !self.options.check => {}
            // One that may come back may still have what it was told of.
            Event::Gone {
                peer,
                silent: false,
            } => self.forget_told(sup, *peer, &[]),
            Event::FromLeader { msg, .. } => self.overhear(sup, msg),
            Event::ToLeader {
                peer,
                msg: ToLeader::Holds(_),
            } => {
                if let Some(Peer::Supervisor(ix)) = Peer::of(*peer) {
                    self.sups[ix].wiped = false;
                }
            }
            Event::FromWorker { peer, msg } => match msg {
                FromWorker::Attach(info) => {
                    let in_hand: Vec<AttemptId> =
                        info.in_hand.iter().map(|held| held.attempt).collect();
                    self.forget_told(sup, *peer, &in_hand);
                    self.told_before(sup, *peer, &in_hand);
                }
                FromWorker::Ended(report) => {
                    self.sups[sup].told.remove(&report.attempt);
                    if report.outcome == Outcome::Returned {
                        self.returned.insert(report.attempt);
                    }
                    if let Outcome::Ended(Ending::Input { missing, .. }) = &report.outcome {
                        self.suspected.extend(missing);
                    }
                }
                _ => {}
            },
            _ => {}
        }
        Change::None
    }

    /// What a record says is noted, as far as this supervisor has heard.
    fn follow(&mut self, sup: usize, record: &Record) -> Change {
        let it = &mut self.sups[sup];
        if let Record::TaskDone { attempt, .. } | Record::AttemptEnded { attempt, .. } = record {
            it.hinted.remove(attempt);
        }
        let change = it.shadow.apply(record);
        if !self.journal.stored {
            self.count(change);
        }
        change
    }

    fn forget_told(&mut self, sup: usize, peer: PeerId, kept: &[AttemptId]) {
        let Some(Peer::Worker(ix)) = Peer::of(peer) else {
            return;
        };
        self.sups[sup]
            .told
            .retain(|id, told| told.worker != ix || kept.contains(id));
    }

    /// Attempts that a worker brings along count as told over its new connection.
    fn told_before(&mut self, sup: usize, peer: PeerId, in_hand: &[AttemptId]) {
        let it = &mut self.sups[sup];
        let (Some(Peer::Worker(worker)), Some(conn)) =
            (Peer::of(peer), it.conns.get(&peer).copied())
        else {
            return;
        };
        it.came.insert(worker);
        for attempt in in_hand {
            let told = Told {
                attempt: *attempt,
                conn,
                worker,
            };
            let known = it.told.contains_key(attempt);
            if it.shadow.wanted(*attempt) && !self.returned.contains(attempt) {
                it.told.insert(*attempt, told);
                let running = self.workers[worker].runs(*attempt);
                self.stats.adopted += u64::from(!known && running && it.live_since.is_some());
            }
        }
    }

    /// Checks what a supervisor wants done after one event.
    pub(crate) fn after_event(
        &mut self,
        sup: usize,
        change: Change,
        out: &Effects,
    ) -> Result<(), Violation> {
        if !self.options.check {
            return Ok(());
        }
        self.note_life(sup);
        for proposal in &out.proposals {
            self.check_record(sup, &proposal.record)?;
        }
        for action in &out.actions {
            match action {
                Action::Send { to, msg } => self.check_order(sup, *to, msg)?,
                Action::SendAssignment { to, order } => {
                    self.check_order(sup, *to, &ToWorker::Assign(order.order.clone()))?;
                }
                Action::Drop(hashes) => self.check_drop(sup, hashes)?,
                _ => {}
            }
        }
        if self.sups[sup].live_since.is_none() {
            return Ok(());
        }
        match change {
            Change::Done(task) | Change::Failed(task) => {
                self.check_ended(sup, task, task, &out.actions)?;
            }
            Change::Ended(job) => {
                let (from, to) = all_of(job);
                self.check_ended(sup, from, to, &out.actions)?;
            }
            _ => {}
        }
        match change {
            Change::Job(job)
            | Change::Ended(job)
            | Change::Retried(job)
            | Change::Grew(job)
            | Change::Released(job)
            | Change::Closed(job) => self.check_view(sup, job),
            Change::Done(task) | Change::Lost(task) | Change::Failed(task) => {
                self.check_view(sup, task.job)
            }
            Change::None | Change::Epoch | Change::Checkpoint => Ok(()),
        }
    }

    /// Notes when a supervisor begins to lead and when it ends.
    fn note_life(&mut self, sup: usize) {
        let now = self.now;
        let it = &mut self.sups[sup];
        let live = it.core.as_ref().is_some_and(|core| core.is_live());
        match (live, it.live_since) {
            (true, None) => {
                it.live_since = Some(now);
                it.inherited = std::mem::take(&mut it.hinted);
                it.came.clear();
            }
            (false, Some(_)) => {
                it.live_since = None;
                it.inherited.clear();
                it.told.clear();
            }
            _ => {}
        }
    }

    fn check_record(&self, sup: usize, record: &Record) -> Result<(), Violation> {
        let shadow = &self.sups[sup].shadow;
        match record {
            Record::OutputsLost { task, .. } => self.check_loss(sup, *task),
            Record::TaskDone {
                attempt, worker, ..
            } if shadow.revoked.contains(worker) => self.violated(format!(
                "{attempt} of a worker that was revoked is to be committed"
            )),
            Record::Checkpointed { checkpoint, .. } => {
                let mut blobs = checkpoint.blobs();
                match blobs.find(|(hash, _)| !self.held_enough(sup, *hash)) {
                    Some((hash, _)) => self.violated(format!(
                        "a checkpoint is to be recorded and too few supervisors hold {hash:?} of it"
                    )),
                    None => Ok(()),
                }
            }
            Record::JobAccepted { client, spec, .. }
            | Record::JobAcceptedNamed { client, spec, .. } => {
                self.check_inputs(sup, *client, &inputs_of(spec))
            }
            Record::GroupsAdded { job, extension, .. } => {
                let inputs = extension.input_blobs().map(|(hash, _)| hash).collect();
                let client = self.clients.iter().zip(0..).find_map(|(client, ix)| {
                    let its = client
                        .submissions
                        .iter()
                        .any(|it| it.accepted == Some(*job));
                    its.then(|| Peer::Client(ix).id())
                });
                match client {
                    Some(client) => self.check_inputs(sup, client, &inputs),
                    None => self.violated(format!("job {job} grows and nobody asked for that")),
                }
            }
            Record::JobEnded {
                job: id,
                end: JobEnd::Done,
                ..
            } => {
                let results = shadow.jobs[id].results();
                match results.iter().find(|hash| !self.held_enough(sup, **hash)) {
                    Some(hash) => self.violated(format!(
                        "job {id} is to be done and too few supervisors hold its result {hash:?}"
                    )),
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    /// What is to be accepted of a client is held by it, and by as many supervisors as are to.
    fn check_inputs(
        &self,
        sup: usize,
        client: PeerId,
        inputs: &BTreeSet<Hash>,
    ) -> Result<(), Violation> {
        if let Some(Peer::Client(ix)) = Peer::of(client)
            && let Some(hash) = inputs.difference(&self.clients[ix].files).next()
        {
            return self.violated(format!(
                "what a client submits is to be accepted and it does not hold its input {hash:?}"
            ));
        }
        match inputs.iter().find(|hash| !self.held_enough(sup, **hash)) {
            Some(hash) => self.violated(format!(
                "what a client submits is to be accepted and too few supervisors hold its input {hash:?}"
            )),
            None => Ok(()),
        }
    }

    /// Whether as many supervisors hold some content as are to. A leader that was replaced, or does not know
    /// yet that another lost its disk, cannot tell.
    fn held_enough(&self, sup: usize, hash: Hash) -> bool {
        let holders = self.sups.iter().filter(|it| it.store.contains(&hash));
        let holders = holders.count();
        let excused = self.journal.leader != Some(sup) || self.sups.iter().any(|it| it.wiped);
        excused || holders >= self.keep(sup)
    }

    /// How many supervisors are to hold what is to be kept.
    fn keep(&self, sup: usize) -> usize {
        let keep = self.sups[sup].core.as_ref();
        let keep = keep.map_or(1, |core| core.state().settings().keep as usize);
        keep.min(self.sups.len())
    }

    /// Outputs are given up only when nobody who is there has them, or those who should did not give them.
    fn check_loss(&self, sup: usize, task: TaskId) -> Result<(), Violation> {
        let it = &self.sups[sup];
        let Some(done) = it.shadow.task(task).and_then(|task| task.done.as_ref()) else {
            return self.violated(format!("task {task} loses outputs and has none"));
        };
        let Some(Peer::Worker(ix)) = Peer::of(done.worker) else {
            return Ok(());
        };
        let worker = &self.workers[ix];
        let views = it.core.as_ref().map(|core| core.worker_views());
        let name = done.worker.to_string();
        let alive = views
            .iter()
            .flatten()
            .any(|view| view.peer == name && view.liveness != "dead");
        let there = alive
            && worker.up
            && worker.conn.is_some()
            && worker.conn == it.conns.get(&done.worker).copied();
        let held = |hash: &Hash| {
            it.store.contains(hash)
                || (there && worker.disk.contains(hash) && !self.suspected.contains(hash))
        };
        if done.blobs.iter().all(held) {
            return self.violated(format!(
                "task {task} is to run again and its outputs are held"
            ));
        }
        Ok(())
    }

    fn check_order(&mut self, sup: usize, to: PeerId, msg: &ToWorker) -> Result<(), Violation> {
        let it = &self.sups[sup];
        let (Some(Peer::Worker(worker)), Some(conn)) = (Peer::of(to), it.conns.get(&to).copied())
        else {
            return Ok(());
        };
        match msg {
            ToWorker::Assign(order) => {
                let id = order.attempt;
                if !it.shadow.wanted(id) {
                    return self.violated(format!("{id} is assigned and not wanted"));
                }
                if it.shadow.revoked.contains(&to) {
                    return self.violated(format!("{id} goes to a worker that was revoked"));
                }
                let (from, to) = (first_of(id.task), last_of(id.task));
                let twice = it.told.range(from..=to).any(|(_, told)| {
                    told.worker == worker && told.conn == conn && it.shadow.wanted(told.attempt)
                });
                if twice {
                    return self.violated(format!("worker {worker} gets {id} beside another"));
                }
                if !order.redundant {
                    self.check_needed(sup, id)?;
                }
                self.check_place(sup, order)?;
                self.check_checkpoint(sup, order)?;
                self.stats.resumed += u64::from(!order.checkpoint().is_empty());
                let told = Told {
                    attempt: id,
                    conn,
                    worker,
                };
                if self.sups[sup].told.insert(id, told).is_some() {
                    return self.violated(format!("{id} is assigned twice"));
                }
            }
            ToWorker::Cancel(id) => {
                let known = self.sups[sup].told.remove(id);
                let it = &self.sups[sup];
                let (from, to) = (first_of(id.task), last_of(id.task));
                let others = it.told.range(from..=to).map(|(other, _)| *other);
                let expected = it.inherited.range(from..=to).map(|(other, _)| *other);
                let mut others = others.chain(expected).filter(|other| other != id);
                let alone = !others.any(|other| it.shadow.wanted(other));
                let mine = known.is_some_and(|told| told.worker == worker);
                if mine && alone && it.shadow.wanted(*id) {
                    return self.violated(format!("{id} is cancelled, may win, and is alone"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The tasks at its own place that a task waits for are done, and it gets all that those left which it reads.
    fn check_place(&self, sup: usize, order: &Assignment) -> Result<(), Violation> {
        let id = order.attempt;
        let job = &self.sups[sup].shadow.jobs[&id.task.job];
        let (spec, group) = (&job.spec, order.group as usize);
        let offset = id.task.number - spec.first(group);
        if order.values() != spec.groups()[group].values(offset) {
            return self.violated(format!("{id} is given wrong values: {:?}", order.values()));
        }
        let at_place = |other: usize| &job.tasks[(spec.first(other) + offset) as usize].done;
        for other in spec.each(group) {
            if at_place(*other as usize).is_none() {
                return self.violated(format!(
                    "{id} is assigned before group {other} at its place"
                ));
            }
        }
        let read = spec
            .reads_each(group)
            .filter_map(|other| at_place(other).as_ref());
        let given: BTreeSet<Hash> = order
            .own_inputs()
            .iter()
            .filter_map(|file| file.data.hash())
            .collect();
        for hash in read.flat_map(|done| &done.blobs) {
            if !given.contains(hash) {
                return self.violated(format!("{id} does not get its input {hash:?}"));
            }
        }
        Ok(())
    }

    /// An attempt goes on from the newest checkpoint of its task that is recorded, or from none.
    fn check_checkpoint(&self, sup: usize, order: &Assignment) -> Result<(), Violation> {
        let id = order.attempt;
        let given = order.checkpoint().iter();
        let given: Vec<Hash> = given.filter_map(|file| file.data.hash()).collect();
        let task = self.sups[sup].shadow.task(id.task);
        let known = task.and_then(|task| task.checkpoint.as_ref());
        let newest = known.is_some_and(|known| known.blobs == given);
        if !given.is_empty() && !newest {
            return self.violated(format!("{id} goes on from {given:?}, not from {known:?}"));
        }
        let other = |hash: &&Hash| {
            self.saved
                .get(hash)
                .is_none_or(|(task, _)| *task != id.task)
        };
        match given.iter().find(other) {
            Some(hash) => self.violated(format!("{id} goes on from another task's {hash:?}")),
            None => Ok(()),
        }
    }

    /// A first attempt is made only while none is known to run: none that the last leader hinted at and whose
    /// worker still has time to come, and none that a worker which is there has in hand.
    fn check_needed(&self, sup: usize, id: AttemptId) -> Result<(), Violation> {
        let it = &self.sups[sup];
        let (from, to) = (first_of(id.task), last_of(id.task));
        let patience = self.options.watch.dead_after();
        let fresh = it
            .live_since
            .is_some_and(|since| self.now.since(since) < patience);
        let hinted = it.inherited.range(from..=to).filter(|_| fresh);
        // What one that has come brings along is told; if it has gone again, it is given up.
        let hinted = hinted.filter(|(_, worker)| !it.came.contains(*worker));
        let hinted = hinted.map(|(other, worker)| (*other, *worker));
        let told = it.told.range(from..=to).filter(|(_, told)| {
            let peer = Peer::Worker(told.worker).id();
            it.conns.get(&peer) == Some(&told.conn) && self.lively(sup, peer)
        });
        let told = told.map(|(other, told)| (*other, told.worker));
        let runs = |(other, worker): &(AttemptId, usize)| {
            other.generation == id.generation
                && it.shadow.wanted(*other)
                && self.workers[*worker].runs(*other)
        };
        match hinted.chain(told).find(runs) {
            Some((other, worker)) => self.violated(format!(
                "{id} is a first attempt, and worker {worker} runs {other}"
            )),
            None => Ok(()),
        }
    }

    /// Whether a supervisor takes a worker for alive.
    fn lively(&self, sup: usize, peer: PeerId) -> bool {
        let name = peer.to_string();
        let views = self.sups[sup].core.as_ref().map(|core| core.worker_views());
        let mut views = views.into_iter().flatten();
        views.any(|view| view.peer == name && view.liveness != "dead")
    }

    /// The workers of these tasks have been told to stop.
    fn check_ended(
        &self,
        sup: usize,
        from: TaskId,
        to: TaskId,
        out: &[Action],
    ) -> Result<(), Violation> {
        let it = &self.sups[sup];
        for (id, told) in it.told.range(first_of(from)..=last_of(to)) {
            let peer = Peer::Worker(told.worker).id();
            let there = it.conns.get(&peer) == Some(&told.conn);
            let says = |msg: ToWorker| out.contains(&Action::Send { to: peer, msg });
            if there && !says(ToWorker::Cancel(*id)) && !says(ToWorker::Settled(*id)) {
                return self.violated(format!("{id} is over and its worker is not told"));
            }
        }
        Ok(())
    }

    /// Nothing is dropped that a job may still need, unless enough others hold it.
    fn check_drop(&self, sup: usize, hashes: &[Hash]) -> Result<(), Violation> {
        if self.sups.iter().any(|it| it.wiped) {
            return Ok(());
        }
        for (id, job) in &self.truth().jobs {
            let needed = job.promised();
            for hash in hashes.iter().filter(|hash| needed.contains(hash)) {
                let others = (0..self.sups.len())
                    .filter(|other| *other != sup && self.sups[*other].store.contains(hash))
                    .count();
                let had = self.sups[sup].store.contains(hash);
                if had && others < self.keep(sup) {
                    return self.violated(format!(
                        "supervisor {sup} drops {hash:?}, job {id} needs it and {others} others hold it"
                    ));
                }
            }
        }
        Ok(())
    }

    fn check_view(&self, sup: usize, id: JobId) -> Result<(), Violation> {
        let it = &self.sups[sup];
        let job = &it.shadow.jobs[&id];
        let Some(view) = it.core.as_ref().and_then(|core| core.job_view(id)) else {
            return self.violated(format!("job {id} cannot be seen"));
        };
        let state = match job.ended {
            None => None,
            Some(JobEnd::Done) => Some(JobState::Done),
            Some(JobEnd::Failed { .. }) => Some(JobState::Failed),
            Some(JobEnd::Cancelled) => Some(JobState::Cancelled),
        };
        let shown = Some(view.state).filter(|state| state.ended());
        if (view.done, shown) != (job.done, state) {
            return self.violated(format!(
                "job {id} shows {} tasks done and {:?}, the journal says {} and {state:?}",
                view.done, view.state, job.done
            ));
        }
        Ok(())
    }

    /// Once all jobs have ended and everybody had time to hear of it: nothing is left anywhere, and all
    /// supervisors agree.
    pub(crate) fn check_nothing_left(&mut self) -> Result<(), Violation> {
        for (ix, worker) in self.workers.iter().enumerate() {
            if self.truth().revoked.contains(&Peer::Worker(ix).id()) {
                continue;
            }
            let left = worker.core.in_hand();
            if !left.is_empty() || !worker.busy.is_empty() {
                return self.violated(format!("worker {ix} still has {left:?} in hand"));
            }
            if !worker.disk.is_empty() && !worker.left {
                let what = format!("worker {ix} still keeps {:?}", worker.disk);
                return self.violated(what);
            }
        }
        let Some(core) = self.supervisor() else {
            return self.violated("no supervisor leads".into());
        };
        for view in core.worker_views() {
            if view.in_hand > 0 || (view.liveness != "dead" && view.free != view.total) {
                return self.violated(format!("worker {} is still counted busy", view.host));
            }
        }
        self.check_stores()?;
        (0..self.sups.len()).try_for_each(|sup| self.check_agreement(sup))
    }

    fn check_stores(&self) -> Result<(), Violation> {
        let jobs = self.truth().jobs.values();
        let needed: BTreeSet<Hash> = jobs.clone().flat_map(|job| job.kept()).collect();
        for (ix, it) in self.sups.iter().enumerate() {
            if let Some(hash) = it.store.iter().find(|hash| !needed.contains(*hash)) {
                return self.violated(format!(
                    "supervisor {ix} keeps {hash:?}, which nobody needs"
                ));
            }
        }
        for hash in jobs.flat_map(|job| job.promised()) {
            let holders = self.sups.iter().filter(|it| it.store.contains(&hash));
            let holders = holders.count();
            if holders < self.keep(0) {
                return self.violated(format!(
                    "{holders} supervisors hold {hash:?}, a result or what a retry needs"
                ));
            }
        }
        Ok(())
    }

    /// A supervisor has heard of all that is committed, has the same state as the others, and leads only if
    /// it was elected last.
    fn check_agreement(&mut self, sup: usize) -> Result<(), Violation> {
        let it = &self.sups[sup];
        let live = it.core.as_ref().is_some_and(|core| core.is_live());
        if it.core.is_none() || (self.journal.stored && it.applied != self.journal.len()) {
            return self.violated(format!("supervisor {sup} is away or behind"));
        }
        if live != (self.journal.leader == Some(sup)) {
            return self.violated(format!("supervisor {sup} leads: {live}"));
        }
        if self.journal.stored {
            self.compare(sup)?;
        }
        Ok(())
    }
}

fn all_of(job: JobId) -> (TaskId, TaskId) {
    let number = |number| TaskId { job, number };
    (number(0), number(u32::MAX))
}

fn first_of(task: TaskId) -> AttemptId {
    AttemptId {
        task,
        generation: 0,
        epoch: hedge_model::Epoch(0),
        number: 0,
    }
}

fn last_of(task: TaskId) -> AttemptId {
    AttemptId {
        task,
        generation: u32::MAX,
        epoch: hedge_model::Epoch(u64::MAX),
        number: u32::MAX,
    }
}
