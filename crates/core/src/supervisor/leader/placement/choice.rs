//! Which worker gets the next attempt of a task.

use crate::supervisor::durable::learned::Learned;
use crate::supervisor::leader::attempts::active::{ActiveTask, Why};
use crate::supervisor::leader::attempts::state::AttemptState;
use crate::supervisor::leader::placement::queue::{Entry, Lane, Shape, Skip};
use crate::supervisor::leader::pool::worker::Worker;
use crate::supervisor::leader::{Leader, WorkerIx};
use hedge_model::capacity::Class;
use hedge_model::msg::Body;
use hedge_model::resources::nearest;
use hedge_model::spec::Group;
use hedge_model::{Data, FileEntry, Hash, TaskId};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Work sent ahead to a busy worker, per place that it has, in seconds: many round trips of a local network.
pub(crate) const QUEUE_TIME: f64 = 0.02;
/// Most attempts sent ahead per place.
const QUEUE_MAX: f64 = 256.0;
/// Values of a label that are named where none fits.
const VALUES_SHOWN_MAX: usize = 3;
/// Workers whose queues are looked at before an attempt is not sent ahead.
const QUEUES_TRIED_MAX: usize = 4;

/// Why an attempt has no place now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoPlacement {
    /// No worker has room for any task of its shape.
    Room,
    /// Those that have may not run this task.
    Task,
    /// It ends sooner on a faster worker that is soon free.
    Later,
}

impl Leader {
    /// The first offer in order that may have a place.
    pub fn next_offer(&self, skip: &Skip) -> Option<(Lane, Entry)> {
        if self.pool.queues().is_empty() {
            return None;
        }
        // Where copies would give way, offers count for which nobody has room now.
        let free_max = if self.yielding.is_empty() {
            self.pool.capacity_index().free_max()
        } else {
            u64::MAX
        };
        self.ready.first(free_max, skip)
    }

    /// Workers with enough free CPUs for a shape, best first.
    fn with_free_slots<'a>(&'a self, shape: &'a Shape) -> impl Iterator<Item = WorkerIx> + 'a {
        let need = shape.resources.cpus_milli;
        let idle = (need == 0).then(|| self.pool.queues().iter().map(|(_, ix)| *ix));
        let idle = idle.into_iter().flatten();
        let room = (need > 0).then(|| self.pool.capacity_index().with(need));
        let room = room.into_iter().flatten();
        idle.chain(room).filter(move |ix| {
            let worker = &self.pool[*ix];
            worker.load().free().covers(&shape.resources)
                && shape.fits(&worker.info().resources, &worker.info().labels)
        })
    }

    /// Whether a worker has room for a shape now.
    pub fn has_free_slot(&self, shape: &Shape) -> bool {
        self.with_free_slots(shape).next().is_some()
    }

    /// A worker has more room than before, or takes part again: lanes that were blocked may go on.
    pub fn unblock(&mut self, ix: WorkerIx) {
        let worker = &self.pool[ix];
        if !worker.usable() {
            return;
        }
        let shapes = &self.shapes;
        self.ready.unblock(|lane| {
            let shape = shapes.get(lane.shape);
            (lane.short || worker.load().free().covers(&shape.resources))
                && shape.fits(&worker.info().resources, &worker.info().labels)
        });
    }

    /// A worker came, went, or takes work again or no more.
    pub fn pool_changed(&mut self, ix: WorkerIx) {
        self.pool.changed(ix);
        self.ready.unblock(|_| true);
        self.fit.recheck(self.ready.lanes());
    }
}

/// What is wanted of a worker for the next attempt of a task.
pub(crate) struct Want<'a> {
    pub shape: &'a Shape,
    pub task: TaskId,
    /// Position of its group.
    pub group: u32,
    /// Whether the task has an attempt already.
    pub copy: bool,
    /// Whether only the higher class will do.
    pub higher: bool,
    /// The usual time of its tasks in seconds, where it may also wait in a queue.
    pub ahead: Option<f64>,
    /// What it reads, where that is so much that it matters where it arrives first.
    pub data: Option<&'a Inputs>,
}

/// Inputs from so many bytes on decide where a task runs: less arrives at once nearly everywhere.
const LARGE_BYTES: u64 = 4 << 20;
/// Of how many pieces it is looked at who holds them.
const PIECES_MAX: usize = 64;
/// What a link is taken to carry that was not measured yet, bytes a second: a usual local network.
const RATE_UNKNOWN: f64 = 1e9 / 8.0;
/// Workers compared by when a task's inputs would be there.
const ARRIVALS_MAX: usize = 64;

/// Times that differ by less than this part count as equal, like speeds.
const ABOUT_EQUAL: f64 = 0.1;

/// What a task reads, and how long it then takes, seconds at standard speed.
pub(crate) struct Inputs {
    pieces: Vec<(Hash, u64)>,
    work_s: f64,
}

impl Inputs {
    /// What a task reads, `own` for itself alone, where that is much.
    pub fn large(body: &Body, own: &[FileEntry], group: &Group, learned: &Learned) -> Option<Self> {
        let files = body.inputs.iter().chain(own);
        let data = files.map(|file| &file.data).chain(&body.stdin);
        // Asked for each attempt, and most read little.
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

    /// Seconds until a worker would have what it lacks and be done with it.
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

/// Workers looked at for one that shares no machine and no failure domain with the task's other attempts.
const DOMAINS_TRIED_MAX: usize = 64;

/// The worker for the next attempt of a task, and why it.
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

/// A worker with room for it now that is not to be avoided: the best, or for a copy the first that shares
/// least with those that run the task.
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
        let fit =
            with_free_slots.filter(|ix| !avoid.contains(ix) && !taken(leader, want, known, *ix));
        let timed = fit
            .take(ARRIVALS_MAX)
            .map(|ix| (data.until_done(leader, ix), ix));
        // Of those that are about equal the first, as without data: measured rates and speeds scatter.
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

/// A worker to be avoided, where no other could ever run the task.
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

/// A busy worker whose queue is short enough for what the task usually takes.
fn busy_worker(
    leader: &Leader,
    want: &Want<'_>,
    known: Option<&ActiveTask>,
) -> Option<(WorkerIx, Why)> {
    let need = want.shape.resources.cpus_milli.max(1);
    let places = |ix: WorkerIx| {
        let all = leader.pool[ix].info().resources.cpus_milli;
        (all / need).clamp(1, 1024)
    };
    let per_place = (QUEUE_TIME / want.ahead?).clamp(0.0, QUEUE_MAX);
    let queue = leader
        .pool
        .queues()
        .iter()
        .take(QUEUES_TRIED_MAX)
        .find(|(queued, ix)| {
            let worker = &leader.pool[*ix];
            f64::from(*queued) < (per_place * places(*ix) as f64).floor()
                && is_able(leader, want.shape, *ix)
                && !worker.load().free().covers(&want.shape.resources)
                && !taken(leader, want, known, *ix)
        });
    queue.map(|(_, ix)| (*ix, Why::Queued))
}

/// Whether a worker has an attempt of the task already, or could not fetch its inputs a moment ago.
fn taken(leader: &Leader, want: &Want<'_>, known: Option<&ActiveTask>, ix: WorkerIx) -> bool {
    has_attempt(known, ix) || leader.blocked.is_barred(want.task.job, want.group, ix)
}

/// Whether a worker has an attempt of the task that is not lost.
fn has_attempt(known: Option<&ActiveTask>, ix: WorkerIx) -> bool {
    known.is_some_and(|known| {
        let attempts = known.attempts().iter();
        attempts
            .filter(|attempt| attempt.state() != AttemptState::Lost)
            .any(|attempt| attempt.worker() == ix)
    })
}

/// Whether a worker could run tasks of a shape, were it idle.
fn is_able(leader: &Leader, shape: &Shape, ix: WorkerIx) -> bool {
    let worker = &leader.pool[ix];
    shape.fits(&worker.info().resources, &worker.info().labels)
}

/// What a worker shares with those that run a task: 2 for a machine, 1 for a failure domain (the label
/// `domain`), 0 for nothing.
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

/// Why no worker that is here could ever run a task `id` of this shape; nothing where one could.
pub(crate) fn unplaceable(leader: &Leader, shape: &Shape, id: &str) -> Option<String> {
    let here: Vec<_> = leader
        .pool
        .iter()
        .filter(|worker| worker.state().connected())
        .collect();
    if here.is_empty()
        || here
            .iter()
            .any(|w| shape.fits(&w.info().resources, &w.info().labels))
    {
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

/// What somebody may have meant who asks for a label that no worker has.
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
