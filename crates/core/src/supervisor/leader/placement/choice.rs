//! Chooses the worker for the next attempt of a task.

use crate::supervisor::durable::learned::Learned;
use crate::supervisor::leader::attempts::active::{ActiveTask, Why};
use crate::supervisor::leader::attempts::state::AttemptState;
use crate::supervisor::leader::placement::queue::{Entry, Lane, Shape, Skip, offers_share};
use crate::supervisor::leader::pool::worker::Worker;
use crate::supervisor::leader::{Leader, WorkerIx};
use hedge_model::capacity::Class;
use hedge_model::msg::Body;
use hedge_model::resources::nearest;
use hedge_model::spec::Group;
use hedge_model::{Data, FileEntry, Hash, TaskId};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Work queued at a busy worker per slot, in seconds: many round trips of a local network.
pub(crate) const QUEUE_TIME: f64 = 0.02;
/// Maximum number of attempts queued at a worker per slot.
const QUEUE_MAX: f64 = 256.0;
/// Values of a label that an error message lists if none of them fits.
const VALUES_SHOWN_MAX: usize = 3;
/// Workers whose queues are tried before an attempt is not queued anywhere.
const QUEUES_TRIED_MAX: usize = 4;

/// Why an attempt cannot be placed now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoPlacement {
    /// No worker has free slots for tasks of its shape.
    Room,
    /// Some workers have free slots for tasks of its shape, but may not run this one.
    Task,
    /// It would end sooner on a faster worker that will soon be free.
    Later,
}

impl Leader {
    /// Returns the first offer, in order, that may be placed.
    pub fn next_offer(&self, skip: &Skip) -> Option<(Lane, Entry)> {
        if self.pool.queues().is_empty() {
            return None;
        }
        // If there are copies that yield, offers that need their slots count too.
        let free_max = if self.yielding.is_empty() {
            self.pool.capacity_index().free_max()
        } else {
            u64::MAX
        };
        self.ready.first(free_max, skip)
    }

    /// Returns the workers with enough free resources for a shape, best first. For a shape without CPUs, those with the
    /// shortest queues come first.
    fn with_free_slots<'a>(&'a self, shape: &'a Shape) -> impl Iterator<Item = WorkerIx> + 'a {
        let need = shape.resources.cpus_milli;
        let idle = (need == 0).then(|| self.pool.queues().iter().map(|(_, ix)| *ix));
        let idle = idle.into_iter().flatten();
        let room = (need > 0).then(|| self.pool.capacity_index().with(need));
        let room = room.into_iter().flatten();
        idle.chain(room).filter(move |ix| {
            let worker = &self.pool[*ix];
            worker.load().free().covers(&shape.resources) && shape.fits(worker.info())
        })
    }

    /// Returns whether a worker has a free slot for a shape.
    pub fn has_free_slot(&self, shape: &Shape) -> bool {
        self.with_free_slots(shape).next().is_some()
    }

    /// Unblocks the lanes that a worker can serve now that it has more free resources or is usable again.
    pub fn unblock(&mut self, ix: WorkerIx) {
        let worker = &self.pool[ix];
        if !worker.usable() {
            return;
        }
        let shapes = &self.shapes;
        self.ready.unblock(|lane| {
            let shape = shapes.get(lane.shape);
            (lane.short || worker.load().free().covers(&shape.resources))
                && shape.fits(worker.info())
        });
    }

    /// Updates the pool's indexes and unblocks all lanes after a worker connected, left, or became usable or
    /// unusable.
    pub fn pool_changed(&mut self, ix: WorkerIx) {
        self.pool.changed(ix);
        self.ready.unblock(|_| true);
        self.fit.recheck(self.ready.lanes());
    }
}

/// What the next attempt of a task needs from a worker.
pub(crate) struct Want<'a> {
    pub shape: &'a Shape,
    pub task: TaskId,
    /// Index of its group.
    pub group: u32,
    /// Whether the task has an attempt already.
    pub copy: bool,
    /// Whether only a worker of the higher class will do.
    pub higher: bool,
    /// The mean time of its tasks in seconds, if it may be queued at a busy worker.
    pub ahead: Option<f64>,
    /// What it reads, if that is large enough to matter for the choice.
    pub data: Option<&'a Inputs>,
}

/// Inputs of at least this size influence the choice: smaller ones arrive at once nearly everywhere.
const LARGE_BYTES: u64 = 4 << 20;
/// Largest blobs of the inputs for which holders are looked up.
const PIECES_MAX: usize = 64;
/// Assumed rate of a link that was not measured, in bytes per second: a usual local network.
const RATE_UNKNOWN: f64 = 1e9 / 8.0;
/// Workers that are compared by the arrival of a task's inputs.
const ARRIVALS_MAX: usize = 64;

/// Relative difference below which two times, like two speeds, count as equal.
const ABOUT_EQUAL: f64 = 0.1;

/// The large inputs of a task, and its expected time in seconds at standard speed.
pub(crate) struct Inputs {
    pieces: Vec<(Hash, u64)>,
    work_s: f64,
}

impl Inputs {
    /// Returns what a task reads, including its `own` files, if that is large.
    pub fn large(body: &Body, own: &[FileEntry], group: &Group, learned: &Learned) -> Option<Self> {
        let files = body.inputs.iter().chain(own);
        let data = files.map(|file| &file.data).chain(&body.stdin);
        // Called for each attempt, and most tasks read little.
        if data.clone().map(Data::size).fold(0, u64::saturating_add) < LARGE_BYTES {
            return None;
        }
        let mut pieces: Vec<(Hash, u64)> = data
            .filter_map(|data| match data {
                Data::Blob { hash, size } => Some((*hash, *size)),
                Data::Inline(_) => None,
            })
            .collect();
        pieces.sort_unstable_by_key(|(hash, size)| (std::cmp::Reverse(*size), *hash));
        pieces.truncate(PIECES_MAX);
        let bytes = pieces
            .iter()
            .fold(0_u64, |sum, (_, size)| sum.saturating_add(*size));
        (bytes >= LARGE_BYTES).then(|| Self {
            pieces,
            work_s: learned.expect(group).work_s,
        })
    }

    /// Returns the seconds until a worker has fetched what it lacks and completed the task.
    fn until_done(&self, leader: &Leader, ix: WorkerIx) -> f64 {
        let worker = &leader.pool[ix];
        let lacks = |(hash, _): &&(Hash, u64)| !leader.blobs.holds(ix, *hash);
        let bytes: f64 = self
            .pieces
            .iter()
            .filter(lacks)
            .map(|(_, size)| *size as f64)
            .sum();
        let rate = worker
            .link()
            .down()
            .map_or(RATE_UNKNOWN, |rate| rate as f64);
        bytes / rate.max(1.0) + self.work_s / worker.speed().max(1e-3)
    }
}

/// Workers that are tried to find one that shares no machine and no failure domain with the task's other attempts.
const DOMAINS_TRIED_MAX: usize = 64;

/// Chooses the worker for the next attempt of a task, and says why.
pub(crate) fn choose(leader: &Leader, want: &Want<'_>) -> Result<(WorkerIx, Why), NoPlacement> {
    let known = leader.tasks.get(&want.task);
    let miss = match free_worker(leader, want, known) {
        Err(miss) if !want.higher => miss,
        decided => return decided,
    };
    let found = if known.is_some_and(|known| !known.avoid().is_empty()) {
        avoided_worker(leader, want, known)
    } else {
        busy_worker(leader, want, known)
    };
    found.ok_or(miss)
}

/// Finds a worker with free slots where the task has not failed. For a first attempt that is the best one; for a
/// redundant attempt it is the one that shares least with the workers of the other attempts.
fn free_worker(
    leader: &Leader,
    want: &Want<'_>,
    known: Option<&ActiveTask>,
) -> Result<(WorkerIx, Why), NoPlacement> {
    let avoid = known.map_or(&[][..], |known| known.avoid());
    let higher = |ix: &WorkerIx| !want.higher || leader.pool[*ix].class() == Class::Higher;
    let mut miss = if want.higher {
        NoPlacement::Task
    } else {
        NoPlacement::Room
    };
    if let Some(data) = want.data.filter(|_| !want.copy) {
        let with_free_slots = leader.with_free_slots(want.shape).filter(higher);
        let fit = with_free_slots.filter(|ix| {
            let fits = !avoid.contains(ix) && !taken(leader, want, known, *ix);
            if !fits {
                miss = NoPlacement::Task;
            }
            fits
        });
        let timed = fit
            .take(ARRIVALS_MAX)
            .map(|ix| (data.until_done(leader, ix), ix));
        // Of about equal ones the first is taken, as without inputs: measured rates and speeds vary.
        let clearly = |next: f64, best: f64| next < best * (1.0 - ABOUT_EQUAL);
        let soonest = timed.reduce(|best, next| match clearly(next.0, best.0) {
            true => next,
            false => best,
        });
        return soonest.map(|(_, ix)| (ix, Why::Data)).ok_or(miss);
    }
    let mut second = None;
    for (tried, ix) in leader
        .with_free_slots(want.shape)
        .filter(higher)
        .enumerate()
    {
        if avoid.contains(&ix) || taken(leader, want, known, ix) {
            miss = NoPlacement::Task;
            continue;
        }
        if !want.copy {
            let why = match leader.pool[ix].class() {
                Class::Higher => Why::Faster,
                Class::Normal => Why::MostRoom,
            };
            return Ok((ix, why));
        }
        let near = known.map_or(0, |known| shared_failure_domains(leader, known, ix));
        if near == 0 {
            return Ok((ix, Why::Elsewhere));
        }
        if second.is_none_or(|(nearest, _)| near < nearest) {
            second = Some((near, ix));
        }
        if tried >= DOMAINS_TRIED_MAX {
            break;
        }
    }
    second.map(|(_, ix)| (ix, Why::Elsewhere)).ok_or(miss)
}

/// Returns a worker where the task failed, if no other worker could ever run it.
fn avoided_worker(
    leader: &Leader,
    want: &Want<'_>,
    known: Option<&ActiveTask>,
) -> Option<(WorkerIx, Why)> {
    let avoid = known.map_or(&[][..], |known| known.avoid());
    let mut others = leader.pool.queues().iter().map(|(_, ix)| *ix);
    if others.any(|ix| !avoid.contains(&ix) && is_able(leader, want.shape, ix)) {
        return None;
    }
    let again = leader
        .with_free_slots(want.shape)
        .find(|ix| !taken(leader, want, known, *ix));
    again.map(|ix| (ix, Why::AgainThere))
}

/// Finds a busy worker whose queue is short for the mean time of the task.
fn busy_worker(
    leader: &Leader,
    want: &Want<'_>,
    known: Option<&ActiveTask>,
) -> Option<(WorkerIx, Why)> {
    let need = want.shape.resources.cpus_milli.max(1);
    let slots = |ix: WorkerIx| {
        let all = leader.pool[ix].info().resources.cpus_milli;
        (all / need).clamp(1, 1024)
    };
    let per_slot = (QUEUE_TIME / want.ahead?).clamp(0.0, QUEUE_MAX);
    let queue = leader
        .pool
        .queues()
        .iter()
        .take(QUEUES_TRIED_MAX)
        .find(|(queued, ix)| {
            let worker = &leader.pool[*ix];
            f64::from(*queued) < (per_slot * slots(*ix) as f64).floor()
                && is_able(leader, want.shape, *ix)
                && !worker.load().free().covers(&want.shape.resources)
                && !taken(leader, want, known, *ix)
        });
    queue.map(|(_, ix)| (*ix, Why::Queued))
}

/// Returns whether a worker has an attempt of the task, or does not get its group for a while.
fn taken(leader: &Leader, want: &Want<'_>, known: Option<&ActiveTask>, ix: WorkerIx) -> bool {
    has_attempt(known, ix) || leader.blocked.is_barred(want.task.job, want.group, ix)
}

/// Returns whether a worker has an attempt of the task that is not lost.
fn has_attempt(known: Option<&ActiveTask>, ix: WorkerIx) -> bool {
    known.is_some_and(|known| {
        let attempts = known.attempts().iter();
        attempts
            .filter(|attempt| attempt.state() != AttemptState::Lost)
            .any(|attempt| attempt.worker() == ix)
    })
}

/// Returns whether a worker could run tasks of a shape if it were idle.
fn is_able(leader: &Leader, shape: &Shape, ix: WorkerIx) -> bool {
    let worker = &leader.pool[ix];
    shape.fits(worker.info())
}

/// Returns what a worker shares with the active attempts of a task: 2 for a machine, 1 for a failure domain (the
/// label `domain`), 0 for nothing.
pub(crate) fn shared_failure_domains(leader: &Leader, known: &ActiveTask, ix: WorkerIx) -> u32 {
    let domain = |worker: &Worker| {
        let labels = worker.info().labels.iter();
        labels
            .filter(|(name, _)| &**name == "domain")
            .map(|(_, value)| value.clone())
            .next()
    };
    let worker = &leader.pool[ix];
    let mine = domain(worker);
    let attempts = known
        .attempts()
        .iter()
        .filter(|attempt| attempt.state().active());
    let near = attempts.map(|attempt| {
        let other = &leader.pool[attempt.worker()];
        if other.info().host == worker.info().host {
            2
        } else {
            u32::from(mine.is_some() && mine == domain(other))
        }
    });
    near.max().unwrap_or(0)
}

/// Returns why no connected worker could ever run a task `id` of this shape; none if one could, or if none is
/// connected.
pub(crate) fn unplaceable(leader: &Leader, shape: &Shape, id: &str) -> Option<String> {
    let here: Vec<_> = leader
        .pool
        .iter()
        .filter(|worker| worker.state().connected())
        .collect();
    if here.is_empty() || here.iter().any(|w| shape.fits(w.info())) {
        return None;
    }
    let labels = || here.iter().flat_map(|worker| &worker.info().labels);
    let unknown = |label: &&(Arc<str>, Arc<str>)| !labels().any(|known| known == *label);
    if let Some((name, value)) = shape.labels.iter().find(unknown) {
        let hint = label_hint(name, value, labels());
        return Some(format!(
            "task {id:?} needs a worker labelled {name} = {value:?}, and none is{hint}"
        ));
    }
    let labelled = |worker: &&&Worker| {
        let labels = &worker.info().labels;
        shape.labels.iter().all(|label| labels.contains(label))
    };
    let labelled: Vec<_> = here.iter().filter(labelled).collect();
    if labelled.is_empty() {
        return Some(format!(
            "no worker has all the labels that task {id:?} needs"
        ));
    }
    if let Some(why) = not_allowed(shape, id, &labelled) {
        return Some(why);
    }
    let wanted = &shape.resources;
    let most = |name: &str| {
        let amounts = labelled
            .iter()
            .map(|worker| worker.info().resources.amount(name));
        amounts.max().unwrap_or(0)
    };
    let lacking = wanted.names().find(|name| wanted.amount(name) > most(name));
    let Some(name) = lacking else {
        return Some(format!(
            "no worker alone has all that task {id:?} asks for: {wanted}"
        ));
    };
    let show = |amount| hedge_model::resources::show_amount(name, amount);
    let (need, have) = (show(wanted.amount(name)), most(name));
    if have > 0 || hedge_model::resources::OWN.contains(&name) {
        let which = if shape.labels.is_empty() {
            "any worker"
        } else {
            "any worker with its labels"
        };
        return Some(format!(
            "task {id:?} asks for {name} {need}, and the most that {which} has is {}",
            show(have)
        ));
    }
    let known = here
        .iter()
        .flat_map(|worker| &worker.info().resources.named);
    let known = known.map(|(known, _)| &**known);
    let hint = nearest(name, known.chain(hedge_model::resources::OWN));
    let hint = hint.filter(|known| *known != name);
    let hint = hint.map_or_else(String::new, |known| format!("; did you mean {known:?}?"));
    Some(format!(
        "task {id:?} asks for {name} {need}, and no worker offers {name:?}{hint}"
    ))
}

/// Returns why the owners of these workers do not allow a task `id` of this shape what it uses; none if one does.
fn not_allowed(shape: &Shape, id: &str, workers: &[&&Worker]) -> Option<String> {
    if workers
        .iter()
        .any(|worker| shape.is_allowed_by(worker.info()))
    {
        return None;
    }
    let which = if shape.labels.is_empty() {
        ""
    } else {
        " with its labels"
    };
    let network = shape.network.filter(|network| {
        let allows = |worker: &&&Worker| worker.info().network >= *network;
        !workers.iter().any(allows)
    });
    if let Some(network) = network {
        return Some(format!(
            "task {id:?} needs network = {:?}, and no worker{which} allows that: it takes `hedge worker --allow-network`",
            network.name()
        ));
    }
    let shared = |name: &&Arc<str>| workers.iter().any(|one| offers_share(one.info(), name));
    let Some(name) = shape.shares.iter().find(|name| !shared(name)) else {
        return Some(format!(
            "no worker{which} allows task {id:?} all the shared folders and the network that it asks for"
        ));
    };
    let known = workers.iter().flat_map(|worker| &worker.info().shares);
    let hint = nearest(name, known.map(|(known, _)| &**known));
    let hint = hint.map_or_else(String::new, |known| format!("; did you mean {known:?}?"));
    Some(format!(
        "task {id:?} needs the shared folder {name:?}, and no worker{which} has it{hint}"
    ))
}

/// Suggests a similar label or value for one that no worker has.
fn label_hint<'a>(
    name: &str,
    value: &str,
    known: impl Iterator<Item = &'a (Arc<str>, Arc<str>)> + Clone,
) -> String {
    let values = known.clone().filter(|(known, _)| **known == *name);
    let values: BTreeSet<&str> = values.map(|(_, value)| &**value).collect();
    if let Some(near) = nearest(value, values.iter().copied()) {
        return format!("; did you mean {near:?}?");
    }
    if !values.is_empty() {
        let some: Vec<String> = values
            .iter()
            .take(VALUES_SHOWN_MAX)
            .map(|value| format!("{value:?}"))
            .collect();
        let more = if values.len() > some.len() {
            ", …"
        } else {
            ""
        };
        return format!("; workers have {name} = {}{more}", some.join(", "));
    }
    match nearest(name, known.map(|(known, _)| &**known)) {
        Some(near) => format!("; did you mean the label {near:?}?"),
        None => format!("; no worker has a label {name:?}"),
    }
}
