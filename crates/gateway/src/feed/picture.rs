//! The jobs and workers of the grid as they were published last. Comparing them with a new view gives the changes.

use super::incidents::{INCIDENTS_MAX, Incident};
use hedge_model::JobId;
use hedge_model::view::{JobState, JobView, WorkerView};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;
use tokio::time::Instant;
use utoipa::ToSchema;

/// The most jobs that are tracked, the newest ones. Older ones are listed on request.
pub const JOBS_MAX: usize = 10_000;
/// If only the figures of a job or worker change, they are published at this interval.
const FIGURES_EVERY: Duration = Duration::from_millis(250);
/// The interval grows by this for each job or worker, so that pages can draw all changes.
const FIGURES_EVERY_PER_ONE: Duration = Duration::from_millis(2);
/// Figures that grow all the time, like cost, are published at this interval.
const GROWTH_EVERY: Duration = Duration::from_secs(2);

/// Something that changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", content = "data", rename_all = "snake_case")]
pub enum Change {
    /// A job is new or has changed.
    Job(Box<JobView>),
    /// A job is gone.
    JobGone(JobGone),
    /// A worker is new or has changed.
    Worker(Box<WorkerView>),
    /// A worker is gone.
    WorkerGone(WorkerGone),
    /// The grid can be reached again, or cannot be reached.
    Grid(GridState),
    /// Something happened to a machine or to the grid.
    Incident(Incident),
}

/// A job that is gone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobGone {
    /// Its number.
    pub id: JobId,
}

/// A worker that is gone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WorkerGone {
    /// Its id.
    pub peer: String,
}

/// Whether the grid can be reached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct GridState {
    /// Whether a supervisor answers.
    pub reachable: bool,
    /// Why not.
    pub why: Option<String>,
}

impl Change {
    /// The name of the event.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Job(_) => "job",
            Self::JobGone(_) => "job_gone",
            Self::Worker(_) => "worker",
            Self::WorkerGone(_) => "worker_gone",
            Self::Grid(_) => "grid",
            Self::Incident(_) => "incident",
        }
    }
}

/// Jobs and workers as they were published last.
#[derive(Debug)]
pub struct Picture {
    jobs: BTreeMap<JobId, Told<JobView>>,
    workers: BTreeMap<String, Told<WorkerView>>,
    grid: GridState,
    incidents: BTreeMap<u64, Incident>,
}

#[derive(Debug)]
struct Told<T> {
    view: T,
    at: Option<Instant>,
}

impl<T> Told<T> {
    fn longer_ago(&self, now: Instant, span: Duration) -> bool {
        self.at.is_none_or(|at| now.duration_since(at) >= span)
    }
}

impl Default for Picture {
    fn default() -> Self {
        Self {
            jobs: BTreeMap::new(),
            workers: BTreeMap::new(),
            grid: GridState {
                reachable: true,
                why: None,
            },
            incidents: BTreeMap::new(),
        }
    }
}

impl Picture {
    /// Applies a published change; `at` is now, or none for a change that was read from the file.
    pub fn apply(&mut self, change: &Change, at: Option<Instant>) {
        match change {
            Change::Job(view) => {
                let view = (**view).clone();
                self.jobs.insert(view.id, Told { view, at });
                while self.jobs.len() > JOBS_MAX {
                    self.jobs.pop_first();
                }
            }
            Change::JobGone(gone) => drop(self.jobs.remove(&gone.id)),
            Change::Worker(view) => {
                let view = (**view).clone();
                self.workers.insert(view.peer.clone(), Told { view, at });
            }
            Change::WorkerGone(gone) => drop(self.workers.remove(&gone.peer)),
            Change::Grid(state) => self.grid = state.clone(),
            Change::Incident(incident) => {
                self.incidents.insert(incident.number, incident.clone());
                while self.incidents.len() > INCIDENTS_MAX {
                    self.incidents.pop_first();
                }
            }
        }
    }

    /// Returns the whole state as changes.
    pub fn all(&self) -> Vec<Change> {
        let jobs = self.jobs.values();
        let jobs = jobs.map(|told| Change::Job(Box::new(told.view.clone())));
        let workers = self.workers.values();
        let workers = workers.map(|told| Change::Worker(Box::new(told.view.clone())));
        let grid = [Change::Grid(self.grid.clone())];
        let incidents = self.incidents.values().cloned().map(Change::Incident);
        let all = grid.into_iter().chain(incidents);
        all.chain(workers).chain(jobs).collect()
    }

    /// The number of workers.
    pub fn workers_known(&self) -> usize {
        self.workers.len()
    }

    /// The number of the next incident.
    pub fn next_incident(&self) -> u64 {
        self.incidents.keys().next_back().map_or(1, |last| last + 1)
    }

    /// Returns the job behind which jobs may be new or change. All jobs up to it have ended.
    pub fn changing_after(&self) -> Option<JobId> {
        let open = self.jobs.iter().find(|(_, told)| !told.view.state.ended());
        match open {
            Some((id, _)) => id.0.checked_sub(1).map(JobId),
            None => self.jobs.keys().next_back().copied(),
        }
    }

    /// Returns how all jobs behind `after`, as listed now, differ from the published ones.
    pub fn jobs(&self, now: Instant, after: Option<JobId>, listed: Vec<JobView>) -> Vec<Change> {
        let there: BTreeSet<JobId> = listed.iter().map(|view| view.id).collect();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let known = self.jobs.range((from, Bound::Unbounded));
        let gone = known.filter(|(id, _)| !there.contains(id));
        let gone = gone.map(|(id, _)| Change::JobGone(JobGone { id: *id }));
        let mut changes: Vec<Change> = gone.collect();
        let open = listed.iter().filter(|view| !view.state.ended());
        let pause = FIGURES_EVERY.max(FIGURES_EVERY_PER_ONE * open.count() as u32);
        let newest = listed.len().saturating_sub(JOBS_MAX);
        for view in listed.into_iter().skip(newest) {
            let changed = match self.jobs.get(&view.id) {
                None => true,
                Some(told) if told.view.state != view.state => true,
                Some(told) if settled(&told.view) != settled(&view) => told.longer_ago(now, pause),
                Some(told) => {
                    let grows = told.view.cost != view.cost || told.view.progress != view.progress;
                    grows && told.longer_ago(now, GROWTH_EVERY.max(pause))
                }
            };
            if changed {
                changes.push(Change::Job(Box::new(view)));
            }
        }
        changes
    }

    /// Returns how all workers, as listed now, differ from the published ones.
    pub fn workers(&self, now: Instant, listed: Vec<WorkerView>) -> Vec<Change> {
        let there: BTreeSet<&str> = listed.iter().map(|view| view.peer.as_str()).collect();
        let gone = self
            .workers
            .keys()
            .filter(|peer| !there.contains(peer.as_str()));
        let gone = gone.map(|peer| Change::WorkerGone(WorkerGone { peer: peer.clone() }));
        let mut changes: Vec<Change> = gone.collect();
        let pause = FIGURES_EVERY.max(FIGURES_EVERY_PER_ONE * listed.len() as u32);
        for view in listed {
            let changed = match self.workers.get(&view.peer) {
                None => true,
                Some(told) if condition(&told.view) != condition(&view) => true,
                Some(told) if load(&told.view) != load(&view) => told.longer_ago(now, pause),
                Some(_) => false,
            };
            if changed {
                changes.push(Change::Worker(Box::new(view)));
            }
        }
        changes
    }

    /// Returns the change if the reachability of the grid differs from what was published.
    pub fn grid(&self, state: GridState) -> Option<Change> {
        (self.grid != state).then_some(Change::Grid(state))
    }
}

/// Returns a job's view without the figures that grow all the time.
fn settled(view: &JobView) -> JobView {
    JobView {
        elapsed_ms: 0.0,
        age_ms: 0.0,
        open: None,
        cost: Default::default(),
        progress: 0.0,
        left_ms: None,
        left_low_ms: None,
        left_high_ms: None,
        budget: view.budget.map(|budget| hedge_model::view::BudgetView {
            spent_micro: 0,
            ..budget
        }),
        deadline: view
            .deadline
            .map(|deadline| hedge_model::view::DeadlineView {
                left_ms: 0.0,
                chance: deadline
                    .chance
                    .map(|chance| (chance * 100.0).round() / 100.0),
                ..deadline
            }),
        state: JobState::Running,
        ..view.clone()
    }
}

/// Returns the part of a worker's view whose changes are published at once.
fn condition(view: &WorkerView) -> impl PartialEq + use<'_> {
    let owner = view.owner.as_ref();
    let owner = owner.map(|owner| (&owner.response, &owner.why));
    (
        &view.liveness,
        &view.usage,
        owner,
        &view.admission,
        &view.total,
    )
}

/// Returns the part of a worker's view that says how busy it is.
fn load(view: &WorkerView) -> impl PartialEq + use<'_> {
    let counts = (view.in_hand, view.done, view.failed, view.lost);
    (&view.free, counts, view.score, view.suspicions, view.link)
}
