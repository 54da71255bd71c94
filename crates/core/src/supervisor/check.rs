//! Checks every invariant of the supervisor. Tests and the simulation run these checks after each event.

use crate::supervisor::Supervisor;
use crate::supervisor::durable::job::Job;
use crate::supervisor::durable::state::State;
use crate::supervisor::leader::LeaderView;
use crate::supervisor::leader::attempts::state::{AttemptState, Share};
use crate::supervisor::leader::blobs::state::Blob;
use crate::supervisor::leader::blobs::transfers::result_files;
use crate::supervisor::leader::jobs::quota::QuotaUse;
use crate::supervisor::leader::timers::Timer;
use hedge_model::{PeerId, TaskId};
use std::collections::BTreeMap;

impl Supervisor {
    /// Checks all invariants. The error describes the first one that is broken.
    pub fn check(&self) -> Result<(), String> {
        self.state.check()?;
        self.view().map_or(Ok(()), |view| view.check())
    }
}

impl State {
    fn check(&self) -> Result<(), String> {
        for (id, job) in &self.jobs {
            let done = job
                .tasks
                .iter()
                .filter(|task| task.done().is_some())
                .count();
            expect(done == job.done as usize, || {
                format!("job {id}: {done} tasks are done, {} counted", job.done)
            })?;
            let bytes: u64 = result_files(job).map(|file| file.data.size()).sum();
            expect(bytes == job.result_bytes, || {
                format!(
                    "job {id}: {bytes} bytes of results, {} counted",
                    job.result_bytes
                )
            })?;
            expect(job.cost_by_attempts() == job.cost, || {
                format!(
                    "job {id} costs {:?}, its attempts say {:?}",
                    job.cost,
                    job.cost_by_attempts()
                )
            })?;
            let mut again = Job::clone(job);
            again.recount_failures();
            again.recount_released();
            expect(again.failures == job.failures, || {
                format!("job {id} miscounts what has failed")
            })?;
            expect(again.released_of == job.released_of, || {
                format!("job {id} miscounts what is released")
            })?;
            expect(
                !job.is_open() || (job.active() && job.spec.is_open()),
                || format!("job {id} is open and has ended, or never was open"),
            )?;
            job.check_checkpoints()
                .map_err(|what| format!("job {id}: {what}"))?;
            for group in 0..job.spec.groups().len() {
                let open = job
                    .tasks_of(group)
                    .filter(|task| task.done().is_none())
                    .count();
                expect(open == job.open[group] as usize, || {
                    format!("job {id}: group {group} miscounts its open tasks")
                })?;
            }
            for (number, task) in job.tasks.iter().enumerate() {
                let Some(done) = task.done() else { continue };
                expect(done.attempt.generation == task.generation, || {
                    format!("task {id}.{number} is done by an attempt of another generation")
                })?;
                expect(done.attempt.epoch <= self.epoch(), || {
                    format!("task {id}.{number} is done in the future")
                })?;
            }
        }
        Ok(())
    }
}

impl LeaderView<'_> {
    fn check(&self) -> Result<(), String> {
        self.check_attempts()?;
        self.check_workers()?;
        self.check_jobs()?;
        self.check_checkpoints()?;
        self.leader.blobs.check()?;
        self.check_submissions()?;
        let (readings, timer) = (
            &self.leader.readings,
            self.leader.timers.at(Timer::Readings),
        );
        expect(readings.check() && readings.next() == timer, || {
            "the readings of output are too many, out of order or not timed".to_owned()
        })?;
        self.check_active_jobs()?;
        self.check_shares()
    }

    fn check_attempts(&self) -> Result<(), String> {
        let leader = self.leader;
        for (id, known) in leader.tasks.iter() {
            let job = self
                .state
                .jobs
                .get(&id.job)
                .ok_or_else(|| format!("task {id} has no job"))?;
            let over = !job.active() || !job.tasks[id.number as usize].is_open();
            expect(!over || known.active() == 0, || {
                format!("task {id} is over and has active attempts")
            })?;
            expect(!over || !known.attempts().is_empty(), || {
                format!("task {id} is over and still known")
            })?;
            expect(known.check_policy_copies(), || {
                format!("policies started too many copies of task {id} within a second")
            })?;
            for (at, attempt) in known.attempts().iter().enumerate() {
                let worker = &leader.pool[attempt.worker()];
                let lost = attempt.state() == AttemptState::Lost;
                let in_hand = attempt.state().in_hand();
                expect(
                    worker.load().in_hand().contains(&attempt.id()) == in_hand,
                    || {
                        format!(
                            "attempt {} is {:?}, its worker disagrees",
                            attempt.id(),
                            attempt.state()
                        )
                    },
                )?;
                expect(worker.load().lost().contains(&attempt.id()) == lost, || {
                    format!("attempt {} is lost, its worker disagrees", attempt.id())
                })?;
                let expected = attempt.state() == AttemptState::Expected;
                expect(
                    worker.load().expected().contains(&attempt.id()) == expected,
                    || format!("attempt {} is expected, its worker disagrees", attempt.id()),
                )?;
                let queued = attempt.state().share() == Some(Share::Queued);
                expect(
                    worker.load().queued().contains(&attempt.id()) == queued,
                    || format!("attempt {} is queued, its worker disagrees", attempt.id()),
                )?;
                let waits = attempt.state().waits_for().is_some();
                let freed = attempt.state().share() == Some(Share::Freed);
                expect(!waits || freed, || {
                    format!(
                        "attempt {} waits and has a part of its worker",
                        attempt.id()
                    )
                })?;
                let twice = known.attempts()[..at].iter().any(|other| {
                    other.worker() == attempt.worker()
                        && other.state().active()
                        && attempt.state().active()
                });
                expect(!twice, || format!("task {id} runs twice on one worker"))?;
                expect(attempt.id().task == id, || {
                    format!("attempt {} is kept with task {id}", attempt.id())
                })?;
            }
        }
        Ok(())
    }

    fn check_workers(&self) -> Result<(), String> {
        let leader = self.leader;
        for (ix, worker) in leader.pool.iter().enumerate() {
            let name = worker.peer().short();
            let may_have = worker.state().reachable() || worker.state().returns_by().is_some();
            expect(may_have || worker.load().in_hand().is_empty(), || {
                format!("worker {name} is gone and has work in hand")
            })?;
            let mut free = worker.load().free().clone();
            for id in worker.load().in_hand() {
                let attempt = leader
                    .tasks
                    .get(&id.task)
                    .and_then(|known| known.attempts().iter().find(|a| a.id() == *id));
                let attempt =
                    attempt.ok_or_else(|| format!("worker {name} has {id}, which is not known"))?;
                let spec = &self.state.jobs[&id.task.job].spec;
                if attempt.state().holds() {
                    let group = &spec.groups()[spec.group_of(id.task.number)];
                    free.give(&attempt.need(group));
                }
            }
            if worker.state().reachable() {
                expect(free == worker.info().resources, || {
                    format!("worker {name} miscounts: {free} with what is in hand")
                })?;
            }
            let listed = leader.pool.queues().iter().any(|(queued, at)| {
                *at as usize == ix && *queued as usize == worker.load().queued().len()
            });
            expect(listed == worker.usable(), || {
                format!("worker {name} is usable and not listed, or listed and not usable")
            })?;
        }
        Ok(())
    }

    fn check_jobs(&self) -> Result<(), String> {
        let leader = self.leader;
        for (id, active_job) in leader.jobs.iter() {
            let job = &self.state.jobs[&id];
            expect(active_job.groups().len() == job.spec.groups().len(), || {
                format!("job {id} has other groups than are worked on")
            })?;
            let looked_for = leader.timers.at(Timer::Client(id)).is_some();
            expect(job.is_open() == looked_for, || {
                format!("job {id} is open and nobody looks for its client, or the other way round")
            })?;
            if let Some(inputs) = active_job.policy_inputs() {
                inputs.check(job, active_job.groups())?;
            }
            for (group, offers) in active_job.groups().iter().enumerate() {
                let waiting = job.waiting_groups(group);
                expect(waiting == offers.waiting(), || {
                    format!(
                        "job {id}: group {group} waits for {waiting}, counted {}",
                        offers.waiting()
                    )
                })?;
                for offset in 0..job.spec.groups()[group].count() {
                    let task = TaskId {
                        job: id,
                        number: job.spec.first(group) + offset,
                    };
                    let open = job.tasks[task.number as usize].is_open();
                    let known = leader.tasks.get(&task);
                    let carried = known
                        .is_some_and(|known| known.active() > 0 || known.committing().is_some());
                    let delayed = known.is_some_and(|known| known.retried_at().is_some());
                    let offered = offers.needs_first(offset);
                    let waits = !self.element_may_start(task, job, group);
                    let stranded = self.is_stranded(task, job);
                    expect(
                        !open || carried || offered || delayed || waits || stranded,
                        || format!("task {task} is open and forgotten"),
                    )?;
                    expect(!(offered && waits), || {
                        format!("task {task} waits for one at its place and is offered")
                    })?;
                    expect(!(offered && stranded), || {
                        format!("task {task} was lost with its worker and is offered")
                    })?;
                    expect(open || !offered, || {
                        format!("task {task} is decided and offered")
                    })?;
                    expect(!(carried && offered), || {
                        format!("task {task} is offered for a first attempt and has one")
                    })?;
                }
            }
        }
        Ok(())
    }

    /// Checks that each submission waits for something that is in progress.
    fn check_submissions(&self) -> Result<(), String> {
        let leader = self.leader;
        for submit in leader.submissions.iter() {
            let (client, holder) = (submit.client.short(), submit.new.from.peer);
            expect(!submit.complete(self.state.format()), || {
                format!("a submission of {client} waits for nothing")
            })?;
            for (hash, _) in submit.new.offer.input_blobs() {
                let blob = leader.blobs.get(hash);
                expect(blob.is_some_and(Blob::is_claimed), || {
                    format!("input {hash} of a submission of {client} is not kept for it")
                })?;
            }
            for hash in submit.unproven().keys() {
                let here = leader.blobs.is_here(*hash);
                let asked = leader.possession.is_asked(holder);
                expect(!here || asked, || {
                    format!("nobody asks {client} to prove that it holds {hash}")
                })?;
                expect(here || submit.lacks(*hash), || {
                    format!("input {hash} of {client} is neither here nor missing")
                })?;
            }
        }
        Ok(())
    }

    /// Checks what is kept of all active jobs together.
    fn check_active_jobs(&self) -> Result<(), String> {
        let leader = self.leader;
        let mut expected = BTreeMap::<PeerId, QuotaUse>::new();
        for (id, active_job) in leader.jobs.iter() {
            let (job, used) = (&self.state.jobs[&id], active_job.quota_use());
            expect(used.tasks == u64::from(job.spec.task_count()), || {
                format!("job {id} miscounts its tasks for the quota")
            })?;
            let awaits = !active_job.awaited_results().is_empty();
            expect(!awaits || leader.jobs.may_await(id), || {
                format!("job {id} awaits results and would not learn of them")
            })?;
            let total = expected.entry(job.client).or_default();
            *total = total.plus(used);
        }
        expect(*leader.jobs.quota_use() == expected, || {
            let counted = leader.jobs.quota_use();
            format!("clients' use of quotas is {counted:?}, their jobs say {expected:?}")
        })
    }

    fn check_shares(&self) -> Result<(), String> {
        let leader = self.leader;
        let mut shares = BTreeMap::<PeerId, u64>::new();
        for id in leader
            .pool
            .iter()
            .flat_map(|worker| worker.load().in_hand())
        {
            let job = &self.state.jobs[&id.task.job];
            let need = &job.spec.groups()[job.spec.group_of(id.task.number)].resources;
            *shares.entry(job.client).or_default() += need.cpus_milli.max(1);
        }
        leader.ready.check_shares(&shares)
    }
}

fn expect(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}
