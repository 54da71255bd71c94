//! What must hold whatever happens, seen from outside the core: by what it says and by what is true in the
//! virtual grid.

use crate::actors::{Peer, Told};
use crate::grid::{Grid, Violation};
use crate::shadow::Change;
use hedge_core::supervisor::{Action, Event};
use hedge_model::msg::{FromWorker, Outcome, ToWorker};
use hedge_model::record::{JobEnd, Record};
use hedge_model::view::JobState;
use hedge_model::{AttemptId, Hash, JobId, PeerId, TaskId};

impl Grid {
    /// Notes what an event tells the supervisor, before it handles it.
    pub(crate) fn before(&mut self, event: &Event) -> Change {
        match event {
            Event::Committed { .. } => return self.follow(),
            _ if !self.options.check => {}
            Event::Gone { peer } => self.forget_told(*peer, &[]),
            Event::FromWorker { peer, msg } => match msg {
                FromWorker::Attach(info) => {
                    let in_hand: Vec<AttemptId> =
                        info.in_hand.iter().map(|held| held.attempt).collect();
                    self.forget_told(*peer, &in_hand);
                    self.told_before(*peer, &in_hand);
                }
                FromWorker::Ended(report) => {
                    self.told.remove(&report.attempt);
                    if report.outcome == Outcome::Returned {
                        self.returned.insert(report.attempt);
                    }
                    if let Outcome::Unstaged { missing, .. } = &report.outcome {
                        self.doubted.extend(missing);
                    }
                }
                _ => {}
            },
            _ => {}
        }
        Change::None
    }

    fn forget_told(&mut self, peer: PeerId, kept: &[AttemptId]) {
        let Some(Peer::Worker(ix)) = Peer::of(peer) else {
            return;
        };
        self.told
            .retain(|id, told| told.worker != ix || kept.contains(id));
    }

    /// Attempts that a worker brings along count as told over its new connection.
    fn told_before(&mut self, peer: PeerId, in_hand: &[AttemptId]) {
        let (Some(Peer::Worker(worker)), Some(conn)) =
            (Peer::of(peer), self.leader.conns.get(&peer).copied())
        else {
            return;
        };
        for attempt in in_hand {
            let told = Told {
                attempt: *attempt,
                conn,
                worker,
            };
            if self.shadow.wanted(*attempt) && !self.returned.contains(attempt) {
                self.told.insert(*attempt, told);
            }
        }
    }

    /// Checks what the supervisor wants done after one event.
    pub(crate) fn after_event(&mut self, change: Change, out: &[Action]) -> Result<(), Violation> {
        if !self.options.check {
            return Ok(());
        }
        for action in out {
            match action {
                Action::Append {
                    record: Record::OutputsLost { task, .. },
                    ..
                } => self.check_loss(*task)?,
                Action::Send { to, msg } => self.check_order(*to, msg)?,
                Action::Drop(hashes) => self.check_drop(hashes)?,
                _ => {}
            }
        }
        match change {
            Change::Done(task) => self.check_ended(task, task, out)?,
            Change::Ended(job) => {
                let (from, to) = all_of(job);
                self.check_ended(from, to, out)?;
                self.check_end(job)?;
            }
            _ => {}
        }
        match change {
            Change::Job(job) | Change::Ended(job) => self.check_view(job),
            Change::Done(task) | Change::Lost(task) => self.check_view(task.job),
            Change::None => Ok(()),
        }
    }

    /// Outputs are given up only when nobody who is there has them, or those who should did not give them.
    fn check_loss(&self, task: TaskId) -> Result<(), Violation> {
        let Some(done) = self.shadow.task(task).and_then(|task| task.done.as_ref()) else {
            return self.violated(format!("task {task} loses outputs and has none"));
        };
        let Some(Peer::Worker(ix)) = Peer::of(done.worker) else {
            return Ok(());
        };
        let worker = &self.workers[ix];
        let views = self.supervisor().map(|core| core.worker_views());
        let name = done.worker.to_string();
        let alive = views
            .iter()
            .flatten()
            .any(|view| view.peer == name && view.liveness != "dead");
        let there = alive
            && worker.up
            && worker.conn.is_some()
            && worker.conn == self.leader.conns.get(&done.worker).copied();
        let held = |hash: &Hash| {
            self.leader.store.contains(hash)
                || (there && worker.disk.contains(hash) && !self.doubted.contains(hash))
        };
        if done.blobs.iter().all(held) {
            return self.violated(format!(
                "task {task} is to run again and its outputs are held"
            ));
        }
        Ok(())
    }

    fn check_order(&mut self, to: PeerId, msg: &ToWorker) -> Result<(), Violation> {
        let (Some(Peer::Worker(worker)), Some(conn)) =
            (Peer::of(to), self.leader.conns.get(&to).copied())
        else {
            return Ok(());
        };
        match msg {
            ToWorker::Assign(order) => {
                let id = order.attempt;
                if !self.shadow.wanted(id) {
                    return self.violated(format!("{id} is assigned and not wanted"));
                }
                let (from, to) = (first_of(id.task), last_of(id.task));
                let twice = self.told.range(from..=to).any(|(_, told)| {
                    told.worker == worker && told.conn == conn && self.shadow.wanted(told.attempt)
                });
                if twice {
                    return self.violated(format!("worker {worker} gets {id} beside another"));
                }
                let told = Told {
                    attempt: id,
                    conn,
                    worker,
                };
                if self.told.insert(id, told).is_some() {
                    return self.violated(format!("{id} is assigned twice"));
                }
            }
            ToWorker::Cancel(id) => {
                let known = self.told.remove(id);
                let (from, to) = (first_of(id.task), last_of(id.task));
                let mut others = self.told.range(from..=to).map(|(_, told)| told.attempt);
                let alone = !others.any(|other| self.shadow.wanted(other));
                let mine = known.is_some_and(|told| told.worker == worker);
                if mine && alone && self.shadow.wanted(*id) {
                    return self.violated(format!("{id} is cancelled, may win, and is alone"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Whoever still works on these tasks has been told to stop.
    fn check_ended(&self, from: TaskId, to: TaskId, out: &[Action]) -> Result<(), Violation> {
        for (id, told) in self.told.range(first_of(from)..=last_of(to)) {
            let peer = Peer::Worker(told.worker).id();
            let there = self.leader.conns.get(&peer) == Some(&told.conn);
            let says = |msg: ToWorker| out.contains(&Action::Send { to: peer, msg });
            if there && !says(ToWorker::Cancel(*id)) && !says(ToWorker::Settled(*id)) {
                return self.violated(format!("{id} is over and its worker is not told"));
            }
        }
        Ok(())
    }

    /// A job that is done has all its results in the store.
    fn check_end(&self, id: JobId) -> Result<(), Violation> {
        let job = &self.shadow.jobs[&id];
        let held = |hash: &Hash| self.leader.store.contains(hash);
        if job.ended == Some(JobEnd::Done) && !job.results().iter().all(held) {
            return self.violated(format!("job {id} is done and lacks results"));
        }
        Ok(())
    }

    /// Nothing is dropped that a job may still need.
    fn check_drop(&self, hashes: &[Hash]) -> Result<(), Violation> {
        for (id, job) in &self.shadow.jobs {
            let needed = if job.ended == Some(JobEnd::Done) {
                job.results()
            } else if job.ended.is_none() {
                let stdin = job
                    .spec
                    .groups()
                    .iter()
                    .filter_map(|group| group.stdin.as_ref());
                let files = job.spec.files().iter().map(|file| &file.data);
                files.chain(stdin).filter_map(|data| data.hash()).collect()
            } else {
                continue;
            };
            if let Some(hash) = hashes.iter().find(|hash| needed.contains(hash)) {
                return self.violated(format!("{hash:?} is dropped and job {id} needs it"));
            }
        }
        Ok(())
    }

    fn check_view(&self, id: JobId) -> Result<(), Violation> {
        let job = &self.shadow.jobs[&id];
        let Some(view) = self.supervisor().and_then(|core| core.job_view(id)) else {
            return self.violated(format!("job {id} cannot be seen"));
        };
        let state = match job.ended {
            None => JobState::Running,
            Some(JobEnd::Done) => JobState::Done,
            Some(JobEnd::Failed { .. }) => JobState::Failed,
            Some(JobEnd::Cancelled) => JobState::Cancelled,
        };
        if (view.done, view.state) != (job.done, state) {
            return self.violated(format!(
                "job {id} shows {} tasks done and {:?}, the journal says {} and {state:?}",
                view.done, view.state, job.done
            ));
        }
        Ok(())
    }

    pub(crate) fn count(&mut self, change: Change) {
        let stats = &mut self.stats;
        match change {
            Change::Done(_) => stats.tasks_done += 1,
            Change::Lost(_) => stats.outputs_lost += 1,
            Change::Ended(job) => match self.shadow.jobs[&job].ended {
                Some(JobEnd::Done) => stats.jobs_done += 1,
                Some(JobEnd::Failed { .. }) => stats.jobs_failed += 1,
                Some(JobEnd::Cancelled) => stats.jobs_cancelled += 1,
                None => {}
            },
            Change::None | Change::Job(_) => {}
        }
    }

    /// Once all jobs have ended and everybody had time to hear of it: nothing is left anywhere.
    pub(crate) fn check_nothing_left(&self) -> Result<(), Violation> {
        for (ix, worker) in self.workers.iter().enumerate() {
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
            return self.violated("the supervisor is away".into());
        };
        for view in core.worker_views() {
            if view.in_hand > 0 || (view.liveness != "dead" && view.free != view.total) {
                return self.violated(format!("worker {} is still counted busy", view.host));
            }
        }
        let results: std::collections::BTreeSet<Hash> = self
            .shadow
            .jobs
            .values()
            .flat_map(|job| job.results())
            .collect();
        if let Some(hash) = self
            .leader
            .store
            .iter()
            .find(|hash| !results.contains(*hash))
        {
            return self.violated(format!("the store keeps {hash:?}, which nobody needs"));
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
