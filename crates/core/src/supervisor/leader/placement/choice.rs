//! Chooses the worker for the next attempt of a task.

use crate::supervisor::leader::attempts::active::{ActiveTask, Why};
use crate::supervisor::leader::attempts::state::AttemptState;
use crate::supervisor::leader::placement::large_inputs::LargeInputs;
use crate::supervisor::leader::placement::queue::Shape;
use crate::supervisor::leader::pool::worker::Worker;
use crate::supervisor::leader::{Leader, WorkerIx};
use hedge_model::TaskId;
use hedge_model::capacity::Class;

/// Work queued at a busy worker per slot, in seconds: many round trips of a local network.
pub(crate) const QUEUE_TIME: f64 = 0.02;
/// Maximum number of attempts queued at a worker per slot.
const QUEUE_MAX: f64 = 256.0;
/// Workers whose queues are tried before an attempt is not queued anywhere.
const QUEUES_TRIED_MAX: usize = 4;
/// Workers that are compared by the arrival of a task's inputs.
const ARRIVALS_MAX: usize = 64;
/// Workers that are tried to find one that shares no machine and no failure domain with the task's other attempts.
const DOMAINS_TRIED_MAX: usize = 64;
/// Relative difference below which two times, like two speeds, count as equal.
const ABOUT_EQUAL: f64 = 0.1;

/// Why an attempt cannot be placed now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoPlacement {
    /// No worker has free slots for tasks of its shape.
    NoFreeSlot,
    /// Some workers have free slots for tasks of its shape, but may not run this one.
    NotThisTask,
    /// It would end sooner on a faster worker that will soon be free.
    Deferred,
}

/// What the next attempt of a task needs from a worker.
pub(crate) struct AttemptNeeds<'a> {
    pub shape: &'a Shape,
    pub task: TaskId,
    /// Index of its group.
    pub group: u32,
    /// Whether the attempt is redundant: the task has another one already.
    pub redundant: bool,
    /// Whether only a worker of the higher class will do.
    pub higher_only: bool,
    /// If it may be queued at a busy worker: the mean time of its group's tasks, in seconds.
    pub queueable_s: Option<f64>,
    /// Its inputs, if they are large enough to matter for the choice.
    pub large_inputs: Option<&'a LargeInputs>,
}

/// What a worker shares with the active attempts of a task, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Proximity {
    Nothing,
    /// The failure domain: the label `domain`.
    FailureDomain,
    Machine,
}

/// Chooses the worker for the next attempt of a task, and says why.
pub(crate) fn choose(
    leader: &Leader,
    needs: &AttemptNeeds<'_>,
) -> Result<(WorkerIx, Why), NoPlacement> {
    let choice = Choice {
        leader,
        needs,
        known: leader.tasks.get(&needs.task),
    };
    let miss = match choice.free_worker() {
        Err(miss) if !needs.higher_only => miss,
        decided => return decided,
    };
    let found = if choice.avoid().is_empty() {
        choice.busy_worker()
    } else {
        choice.avoided_worker()
    };
    found.ok_or(miss)
}

/// One choice of a worker.
struct Choice<'a> {
    leader: &'a Leader,
    needs: &'a AttemptNeeds<'a>,
    /// The task, if it has or had attempts.
    known: Option<&'a ActiveTask>,
}

impl Choice<'_> {
    /// Finds a worker with free slots where the task has not failed. For a first attempt that is the best one, or with
    /// large inputs the one that completes it soonest; for a redundant attempt it is the one that shares least with the
    /// workers of the other attempts.
    fn free_worker(&self) -> Result<(WorkerIx, Why), NoPlacement> {
        let Self { leader, needs, .. } = *self;
        let higher =
            |ix: &WorkerIx| !needs.higher_only || leader.pool[*ix].class() == Class::Higher;
        let with_free_slots = leader.with_free_slots(needs.shape).filter(higher);
        let mut miss = if needs.higher_only {
            NoPlacement::NotThisTask
        } else {
            NoPlacement::NoFreeSlot
        };
        let fit = with_free_slots.filter(|ix| {
            let fits = !self.avoid().contains(ix) && !self.is_ruled_out(*ix);
            if !fits {
                miss = NoPlacement::NotThisTask;
            }
            fits
        });
        let found = match (needs.redundant, needs.large_inputs) {
            (true, _) => self.most_remote(fit).map(|ix| (ix, Why::Elsewhere)),
            (false, Some(inputs)) => {
                let soonest = self.soonest(fit, inputs);
                soonest.map(|ix| (ix, Why::Data))
            }
            (false, None) => {
                let mut fit = fit;
                fit.next().map(|ix| match leader.pool[ix].class() {
                    Class::Higher => (ix, Why::HigherClass),
                    Class::Normal => (ix, Why::BestFree),
                })
            }
        };
        found.ok_or(miss)
    }

    /// Returns the worker that has fetched the inputs and completed the task soonest.
    fn soonest(
        &self,
        workers: impl Iterator<Item = WorkerIx>,
        inputs: &LargeInputs,
    ) -> Option<WorkerIx> {
        let timed = workers
            .take(ARRIVALS_MAX)
            .map(|ix| (inputs.until_done(self.leader, ix), ix));
        // Of about equal ones the first is taken, as without inputs: measured rates and speeds vary.
        let clearly = |next: f64, best: f64| next < best * (1.0 - ABOUT_EQUAL);
        let soonest = timed.reduce(|best, next| match clearly(next.0, best.0) {
            true => next,
            false => best,
        });
        soonest.map(|(_, ix)| ix)
    }

    /// Returns the worker that shares least with the workers of the task's active attempts.
    fn most_remote(&self, workers: impl Iterator<Item = WorkerIx>) -> Option<WorkerIx> {
        let mut best = None;
        for ix in workers.take(DOMAINS_TRIED_MAX) {
            let shared = self.proximity(ix);
            if shared == Proximity::Nothing {
                return Some(ix);
            }
            if best.is_none_or(|(least, _)| shared < least) {
                best = Some((shared, ix));
            }
        }
        best.map(|(_, ix)| ix)
    }

    /// Returns a worker where the task failed, if no other worker could ever run it.
    fn avoided_worker(&self) -> Option<(WorkerIx, Why)> {
        let mut others = self.leader.pool.queues().iter().map(|(_, ix)| *ix);
        if others.any(|ix| !self.avoid().contains(&ix) && self.is_able(ix)) {
            return None;
        }
        let mut again = self.leader.with_free_slots(self.needs.shape);
        let again = again.find(|ix| !self.is_ruled_out(*ix));
        again.map(|ix| (ix, Why::AgainThere))
    }

    /// Finds a busy worker whose queue is short for the mean time of the task.
    fn busy_worker(&self) -> Option<(WorkerIx, Why)> {
        let resources = &self.needs.shape.resources;
        let cpus_milli = resources.cpus_milli.max(1);
        let slots = |ix: WorkerIx| {
            let all = self.leader.pool[ix].info().resources.cpus_milli;
            (all / cpus_milli).clamp(1, 1024)
        };
        let per_slot = (QUEUE_TIME / self.needs.queueable_s?).clamp(0.0, QUEUE_MAX);
        let mut queues = self.leader.pool.queues().iter().take(QUEUES_TRIED_MAX);
        let queue = queues.find(|(queued, ix)| {
            f64::from(*queued) < (per_slot * slots(*ix) as f64).floor()
                && self.is_able(*ix)
                && !self.leader.pool[*ix].load().free().covers(resources)
                && !self.is_ruled_out(*ix)
        });
        queue.map(|(_, ix)| (*ix, Why::Queued))
    }

    /// The workers where the task failed.
    fn avoid(&self) -> &[WorkerIx] {
        self.known.map_or(&[][..], |known| known.avoid())
    }

    /// Returns whether a worker may not get the task now: it has an attempt of it that is not lost, or is excluded from
    /// its group.
    fn is_ruled_out(&self, ix: WorkerIx) -> bool {
        let attempts = self.known.into_iter().flat_map(|known| known.attempts());
        let mut there = attempts.filter(|attempt| attempt.state() != AttemptState::Lost);
        there.any(|attempt| attempt.worker() == ix)
            || (self.leader.blocked).excludes(self.needs.task.job, self.needs.group, ix)
    }

    /// Returns whether a worker could run tasks of the shape if it were idle.
    fn is_able(&self, ix: WorkerIx) -> bool {
        self.needs.shape.fits(self.leader.pool[ix].info())
    }

    /// Returns what a worker shares with the active attempts of the task.
    fn proximity(&self, ix: WorkerIx) -> Proximity {
        let worker = &self.leader.pool[ix];
        let mine = failure_domain(worker);
        let attempts = self.known.into_iter().flat_map(|known| known.attempts());
        let active = attempts.filter(|attempt| attempt.state().active());
        let shared = active.map(|attempt| {
            let other = &self.leader.pool[attempt.worker()];
            if other.info().host == worker.info().host {
                Proximity::Machine
            } else if mine.is_some() && mine == failure_domain(other) {
                Proximity::FailureDomain
            } else {
                Proximity::Nothing
            }
        });
        shared.max().unwrap_or(Proximity::Nothing)
    }
}

/// The failure domain that a worker's owner gave it.
fn failure_domain(worker: &Worker) -> Option<&str> {
    let mut labels = worker.info().labels.iter();
    let domain = labels.find(|(name, _)| &**name == "domain");
    domain.map(|(_, value)| &**value)
}
