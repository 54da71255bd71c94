//! What exists on the leader alone and is dropped when it is deposed: workers, attempts, offers, transfers.

use super::colleagues::Kept;
use super::ready::{Class as Turn, Lane, Ready, Shapes};
use super::room::{Place, Room, place, step};
use crate::monitor::{Attention, Liveness, Progress};
use hedge_model::capacity::Class;
use hedge_model::ledger::Charge;
use hedge_model::msg::{Body, WorkerInfo};
use hedge_model::owner::{OwnerState, Stand};
use hedge_model::{
    AttemptId, Hash, JobId, JobSpec, PeerAddr, PeerId, Resources, SubmitKey, TaskId, Time,
};
use smallvec::SmallVec;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Tasks of one group that are tried for a worker before the next group's turn.
const TRIES_MAX: usize = 4;

/// A worker's place in [`Live::workers`]; kept for as long as the leader lives.
pub(crate) type WorkerIx = u32;

#[derive(Debug, Default)]
pub(crate) struct Live {
    pub workers: Vec<Worker>,
    pub by_peer: BTreeMap<PeerId, WorkerIx>,
    pub room: Room,
    /// All workers that may be given work, by how many attempts wait there.
    pub queues: BTreeSet<(u32, WorkerIx)>,
    /// Tasks that have or had an attempt and are not done, or are done with attempts left to end.
    pub tasks: BTreeMap<TaskId, LiveTask>,
    pub jobs: BTreeMap<JobId, LiveJob>,
    pub ready: Ready,
    /// Groups that could start but for content that is out of reach now.
    pub starved: BTreeSet<(JobId, u32)>,
    /// Groups that a worker is not given for a while, because it could not fetch their inputs or failed after others.
    pub barred: BTreeSet<(JobId, u32, WorkerIx)>,
    pub content: BTreeMap<Hash, Content>,
    pub pulls: BTreeMap<Hash, Pull>,
    pub submits: Vec<Submission>,
    pub timers: BTreeSet<(Time, Timer)>,
    /// Workers that drain and are not told to leave yet.
    pub leaving: BTreeSet<WorkerIx>,
    /// Whether one of them may be ready to leave.
    pub leaving_due: bool,
    /// Workers that have more or less in hand than the monitor knows.
    pub attend: BTreeSet<WorkerIx>,
    /// When this leader became live.
    pub since: Time,
    /// Workers that may have something of older jobs in hand and have not said so yet.
    pub unheard: BTreeSet<PeerId>,
    /// Grows when a worker comes, goes or changes what it offers.
    pub pool_version: u64,
    pub shapes: Shapes,
    /// Shapes that some worker could take, by the version of the pool that was looked at.
    pub possible: BTreeMap<u32, u64>,
    /// Shapes that no worker that is here could take.
    pub impossible: BTreeSet<u32>,
    /// Lanes of which it is not known yet whether any worker could take them.
    pub unchecked: BTreeSet<Lane>,
    pub rebalancing: bool,
    /// Tasks whose loss of outputs is on its way through the journal.
    pub losing: BTreeSet<TaskId>,
    /// Workers that came, or whose speed changed, since the line between the classes was drawn.
    pub rated: u32,
    /// The slowest step of speed in the higher class; none where all are alike.
    pub higher_line: Option<i64>,
    /// Copies that are stopped as soon as a first attempt wants their place.
    pub yielding: BTreeSet<AttemptId>,
    /// Those of them that were told to stop and have not yet.
    pub making_room: BTreeSet<AttemptId>,
    /// Jobs about which a policy is asked.
    pub watched_jobs: usize,
    /// All workers that may be given work, the fastest first, by steps of speed.
    pub pace: BTreeSet<(i64, WorkerIx)>,
    /// When tasks are looked at again that wait for faster workers.
    pub later: Option<Time>,
    /// When the redundancy policies are asked.
    pub looks: super::redundancy::Looks,
    /// The other supervisors that there are or were; each keeps its position.
    pub colleagues: Vec<Kept>,
    /// How many other supervisors the group has.
    pub others: u32,
    /// The rate by which links were judged last, bits a second.
    pub min_link: u64,
    /// Ended jobs whose removal is on its way through the journal.
    pub removals: BTreeSet<JobId>,
}

#[derive(Debug)]
pub(crate) struct Worker {
    pub peer: PeerId,
    pub info: WorkerInfo,
    pub free: Resources,
    pub in_hand: BTreeSet<AttemptId>,
    /// Those of critical tasks among them.
    pub critical: BTreeSet<AttemptId>,
    /// How closely it is watched; none where it is not.
    pub attention: Option<Attention>,
    pub liveness: Liveness,
    /// Silent for longer than it usually is: given nothing new, and what it has may be lost.
    pub suspect: bool,
    /// When it last showed a sign of life, where it is silent.
    pub quiet_since: Option<Time>,
    /// Attempts sent ahead that hold no resources yet, in the order in which they will start.
    pub queued: VecDeque<AttemptId>,
    /// Attempts given up when the worker fell silent; they may still come back with it.
    pub lost: BTreeSet<AttemptId>,
    /// Attempts that an earlier leader gave it, and of which it has not spoken yet.
    pub expected: BTreeSet<AttemptId>,
    pub connected: bool,
    /// Until when it may come back with what it has in hand, while its connection is lost and nobody ended it.
    pub returns_by: Option<Time>,
    pub dead: bool,
    pub gone_at: Time,
    pub draining: bool,
    /// How it stands to its owner, and when it said so; none while it works as if nobody were there.
    pub owner: Option<(OwnerState, Time)>,
    /// The last change of that which was heard of.
    pub owner_change: u32,
    pub exclusion: Option<Exclusion>,
    /// Times that it failed a task that another could do, since it last did one itself.
    pub blamed: u32,
    /// Exclusions for that.
    pub times_blamed: u32,
    /// Exclusions for faults of its own or its machine's, since it last did a task.
    pub faults: u32,
    /// Versions of the bodies it was sent.
    pub bodies: BTreeMap<(JobId, u32), u32>,
    /// Bodies whose content it holds.
    pub staged: BTreeSet<(JobId, u32, u32)>,
    pub held: BTreeSet<Hash>,
    pub done: u64,
    pub failed: u64,
    pub lost_count: u64,
    pub room_key: Option<Place>,
    pub queue_key: Option<(u32, WorkerIx)>,
    pub pace_key: Option<(i64, WorkerIx)>,
    /// Whether it is one of the faster ones.
    pub class: Class,
    /// Work that it does in a second, in seconds at standard speed.
    pub speed: f64,
    /// Whether a timer is set to look if benchmark tasks are due.
    pub benchmark_set: bool,
    /// Whether it was asked for benchmark tasks and has not said what they found.
    pub benchmark_asked: bool,
    /// Whether that is to be looked at once it has nothing in hand.
    pub benchmark_waits: bool,
    /// When it is to be asked again.
    pub benchmark_again: Duration,
    /// What is known of its link.
    pub link: super::link::LinkState,
}

/// A worker that is given nothing for a while.
#[derive(Debug)]
pub(crate) struct Exclusion {
    /// What it did, as a clause without a subject.
    pub why: String,
    pub until: Time,
}

#[derive(Debug, Default)]
pub(crate) struct LiveTask {
    pub attempts: SmallVec<[Attempt; 2]>,
    pub last_number: u32,
    /// Where it failed.
    pub avoid: SmallVec<[WorkerIx; 2]>,
    /// Times that a worker could not fetch its inputs.
    pub input_faults: u8,
    /// Times that a worker or its machine failed it, and the first of these workers.
    pub faults: u8,
    pub faulted: Option<WorkerIx>,
    /// The attempt whose success is on its way through the journal.
    pub committing: Option<AttemptId>,
}

#[derive(Debug)]
pub(crate) struct Attempt {
    pub id: AttemptId,
    pub worker: WorkerIx,
    pub redundant: bool,
    pub state: AttemptState,
    /// Whether it takes resources of its worker; not while it is queued or given up.
    pub holds: bool,
    /// Its end is on its way through the journal.
    pub reported: bool,
    pub since: Time,
    pub why: Why,
    /// The class of its worker when it was given.
    pub class: Class,
    /// What it is charged, once it was told to stop.
    pub stopped: Option<Charge>,
    /// As far as it was told of.
    pub progress: Progress,
    /// Since when it has run and got nowhere, where that is too long.
    pub stalled: Option<Time>,
}

impl Attempt {
    /// Whether it may still succeed and its end is not heard of.
    pub fn alive(&self) -> bool {
        self.state.active() && !self.reported
    }
}

/// Why an attempt was given to its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    MostRoom,
    Faster,
    /// Its inputs are there soonest.
    Data,
    Queued,
    Elsewhere,
    AgainThere,
    Adopted,
    Policy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AttemptState {
    /// Sent ahead.
    Queued,
    /// Sent, not known to run.
    Assigned,
    Running,
    /// Runs and waits for this job; its part of its worker is given back.
    Waiting(JobId),
    /// Told to stop, not yet stopped.
    Cancelling,
    /// Given up with its worker.
    Lost,
    /// Given to its worker by an earlier leader; the worker has not spoken of it yet.
    Expected,
}

impl AttemptState {
    /// Whether the attempt may still succeed and nobody gave it up.
    pub fn active(self) -> bool {
        matches!(
            self,
            Self::Queued | Self::Assigned | Self::Running | Self::Waiting(_) | Self::Expected
        )
    }

    /// Whether its process runs.
    pub fn runs(self) -> bool {
        matches!(self, Self::Running | Self::Waiting(_))
    }

    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Assigned => "assigned",
            Self::Running => "running",
            Self::Waiting(_) => "waiting",
            Self::Cancelling => "cancelling",
            Self::Lost => "lost",
            Self::Expected => "expected",
        }
    }

    /// Whether its worker is known to have it.
    pub fn in_hand(self) -> bool {
        !matches!(self, Self::Lost | Self::Expected)
    }
}

#[derive(Debug)]
pub(crate) struct LiveJob {
    pub groups: Vec<LiveGroup>,
    pub watchers: Vec<(PeerId, u64)>,
    pub told: Time,
    pub tell_set: bool,
    pub ending: bool,
    /// Results that this supervisor does not hold yet.
    pub missing_results: BTreeSet<Hash>,
    /// Outputs of generations that were lost; attempts that run may still read what is left of them.
    pub stale: BTreeSet<Hash>,
    /// Workers that have or had something of it.
    pub touched: BTreeSet<WorkerIx>,
    /// Its critical set, as it is known now.
    pub critical: super::critical::CriticalSet,
    /// It is found again when so many tasks are done.
    pub refind_at: u32,
    /// Kinds of its tasks, and the kind of each group.
    pub kinds: Vec<super::redundancy::Kind>,
    pub kind_of: Vec<u32>,
    /// For each group the longest way from a task's end to the job's end, seconds at standard speed.
    pub tails: Vec<f64>,
    /// Worker time of attempts that won, and of those that ended otherwise, seconds.
    pub won_s: f64,
    pub spent_s: f64,
    /// Length of its specification, encoded.
    pub spec_bytes: u64,
}

#[derive(Debug, Default)]
pub(crate) struct LiveGroup {
    /// Groups it waits for that are not done.
    pub waiting: u32,
    /// Offset of the first task that never had an attempt; all behind it are fresh too.
    pub fresh: u32,
    /// Offsets of tasks that need a first attempt again.
    pub again: BTreeSet<u32>,
    /// Offsets of tasks that need one more redundant attempt.
    pub copies: BTreeSet<u32>,
    pub body: Option<Arc<Body>>,
    pub version: u32,
    /// Moving mean of what an attempt takes, seconds.
    pub mean: Option<f64>,
    /// Its turn within the job: those with the longest way to the job's end come first.
    pub rank: u32,
    /// What its tasks need, by number in [`Live::shapes`].
    pub shape: u32,
    /// Whether its tasks are offered to be sent ahead.
    pub short: bool,
    /// Since when its next task waits for a faster worker, where it does.
    pub held: Option<Time>,
    /// Which classes it offers now, one bit each.
    pub offered: u8,
}

/// Where some content is.
#[derive(Debug, Default)]
pub(crate) struct Content {
    pub size: u64,
    pub own: bool,
    /// A worker could not fetch it; whether its holders give it is being tried.
    pub doubted: bool,
    pub workers: SmallVec<[WorkerIx; 2]>,
    /// Tasks whose output it is.
    pub producers: SmallVec<[TaskId; 1]>,
    /// Jobs whose input it is.
    pub jobs: SmallVec<[JobId; 1]>,
    /// Submissions on their way whose input it is.
    pub claims: u32,
    /// Jobs whose result it is once they have ended, or that printed it; one for each time.
    pub kept: SmallVec<[JobId; 1]>,
    /// Which colleagues hold it, one bit for the position of each.
    pub kept_at: u8,
    /// Which colleagues were asked to hold it and have not answered.
    pub offered_to: u8,
    /// Which colleagues could not take it.
    pub refused_by: u8,
}

/// Content on its way into this supervisor's own store.
#[derive(Debug)]
pub(crate) struct Pull {
    pub failures: u8,
    /// Why this supervisor could not store it when it tried last.
    pub fault: Option<String>,
    /// Asked for and not answered, or waiting to be asked for again.
    pub under_way: bool,
}

/// A submission whose inputs are not here yet.
#[derive(Debug)]
pub(crate) struct Submission {
    pub client: PeerId,
    pub ask: u64,
    pub key: SubmitKey,
    pub spec: Arc<JobSpec>,
    pub from: PeerAddr,
    pub missing: BTreeSet<Hash>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// A worker has been gone for so long that its content counts as lost.
    ContentLost(WorkerIx),
    /// A worker that was excluded gets another chance.
    Readmit(WorkerIx),
    /// Watchers of a job are due for news.
    Tell(JobId),
    /// Queued attempts may be moved to idle workers.
    Rebalance,
    /// Try a failed pull again.
    Pull(Hash),
    /// A worker may be given a group again that it was not given for a while.
    Unbar(JobId, u32, WorkerIx),
    /// Workers that held content when this leader began have had their time to come.
    Settled,
    /// A worker that an earlier leader gave something has had its time to come.
    Expected(WorkerIx),
    /// A worker whose connection was lost has had its time to come back.
    Returns(WorkerIx),
    /// Offer content to colleagues again.
    Spread(Hash),
    /// Look for ended jobs that are not to be kept any longer.
    Retention,
    /// The redundancy policies are asked again.
    Look,
    /// Tasks that wait for faster workers are looked at again.
    Later,
    /// A worker may be asked for benchmark tasks.
    Benchmark(WorkerIx),
    /// A worker's link is to be measured again, or its word on a measurement is late.
    Link(WorkerIx),
}

impl Timer {
    /// What is waited for, for logs and for people who ask.
    pub fn why(self) -> &'static str {
        match self {
            Timer::ContentLost(_) => "content of a lost worker",
            Timer::Readmit(_) => "a worker that is excluded",
            Timer::Tell(_) => "news for a watching client",
            Timer::Rebalance => "queued attempts",
            Timer::Pull(_) => "a transfer to repeat",
            Timer::Unbar(..) => "a worker that could not run a group's tasks",
            Timer::Settled => "holders of content that have not come yet",
            Timer::Expected(_) => "a worker that the last leader gave something",
            Timer::Returns(_) => "a worker whose connection was lost",
            Timer::Spread(_) => "content that other supervisors are to hold",
            Timer::Retention => "ended jobs that are kept long enough",
            Timer::Later => "faster workers that tasks wait for",
            Timer::Look => "copies that may pay",
            Timer::Benchmark(_) => "benchmark tasks",
            Timer::Link(_) => "a link to be measured",
        }
    }
}

impl Worker {
    /// Whether it may be given work.
    pub fn usable(&self) -> bool {
        self.reachable()
            && !self.suspect
            && !self.draining
            && self.owner.is_none()
            && self.exclusion.is_none()
            && self.link.kept_out.is_none()
    }

    /// Whether what runs there had better be repeated elsewhere: it is to leave, or its owner stopped it.
    pub fn leaving(&self) -> bool {
        let stopped = |owner: &OwnerState| matches!(owner.stand, Stand::Pause | Stand::Vacate);
        self.draining || self.owner.as_ref().is_some_and(|(owner, _)| stopped(owner))
    }

    /// Whether it can be talked to and shows signs of life.
    pub fn reachable(&self) -> bool {
        self.connected && !self.dead
    }

    /// Whether what it holds is to be counted on: it is there, or away for no longer than `grace`.
    pub fn may_return(&self, now: Time, grace: Duration) -> bool {
        self.reachable() || now.since(self.gone_at) < grace
    }
}

impl Content {
    /// Whether a job that has not ended, or is about to begin, may need it, or it is to be kept and is not
    /// here yet.
    pub fn in_use(&self) -> bool {
        let wanted = !self.kept.is_empty() && !self.own;
        wanted || !self.producers.is_empty() || !self.jobs.is_empty() || self.claims > 0
    }

    /// Whether more than one supervisor is to hold it, as far as this one has it: all that this one fetches,
    /// it fetches to keep.
    pub fn to_be_kept(&self) -> bool {
        !self.kept.is_empty() || self.in_use()
    }
}

impl LiveGroup {
    /// Offsets of tasks that are to be tried next for an offer: a few, in order.
    pub fn candidates(&self, class: Turn, critical: u32, count: u32) -> SmallVec<[u32; 8]> {
        let again = match class {
            Turn::Copy => self.copies.range(..),
            Turn::Critical => self.again.range(..critical),
            Turn::Normal => self.again.range(critical..),
        };
        let fresh = match class {
            Turn::Copy => None,
            Turn::Critical => (self.fresh < critical).then_some(self.fresh),
            Turn::Normal => (self.fresh >= critical && self.fresh < count).then_some(self.fresh),
        };
        again.copied().take(TRIES_MAX).chain(fresh).collect()
    }
}

impl LiveTask {
    /// Attempts that may still succeed.
    pub fn active(&self) -> usize {
        self.attempts
            .iter()
            .filter(|attempt| attempt.state.active())
            .count()
    }

    /// Attempts whose end is not heard of.
    pub fn alive(&self) -> usize {
        self.attempts
            .iter()
            .filter(|attempt| attempt.alive())
            .count()
    }

    /// The job that an attempt which may still succeed waits for.
    pub fn waits_for(&self) -> Option<(AttemptId, JobId)> {
        self.attempts
            .iter()
            .find_map(|attempt| match attempt.state {
                AttemptState::Waiting(job) => Some((attempt.id, job)),
                _ => None,
            })
    }

    pub fn attempt(&mut self, id: AttemptId) -> Option<&mut Attempt> {
        self.attempts.iter_mut().find(|attempt| attempt.id == id)
    }
}

/// An attempt, wherever it stands; apart from [`Live`], so that its worker can be changed beside it.
pub(crate) fn find_attempt(
    tasks: &mut BTreeMap<TaskId, LiveTask>,
    id: AttemptId,
) -> Option<&mut Attempt> {
    tasks.get_mut(&id.task)?.attempt(id)
}

impl Live {
    pub fn worker(&self, peer: PeerId) -> Option<&Worker> {
        self.by_peer
            .get(&peer)
            .map(|ix| &self.workers[*ix as usize])
    }

    /// What all workers that may be given work do together: seconds of work at standard speed in a second.
    pub fn throughput(&self) -> f64 {
        let usable = self.workers.iter().filter(|worker| worker.usable());
        usable
            .map(|worker| worker.speed * (worker.info.resources.cpus_milli as f64 / 1e3).max(1.0))
            .sum()
    }

    /// Puts a worker where its free resources, queue and state say that it belongs.
    pub fn reindex(&mut self, ix: WorkerIx) {
        let worker = &mut self.workers[ix as usize];
        let queued = worker.queued.len() as u32;
        let usable = worker.usable();
        let free = worker.free.cpus_milli;
        let room = (usable && free > 0).then(|| place(worker.speed, free, queued, ix));
        if worker.room_key != room {
            let old = std::mem::replace(&mut worker.room_key, room);
            self.room.moved(old, room);
        }
        let queue = usable.then_some((queued, ix));
        if worker.queue_key != queue {
            if let Some(old) = worker.queue_key.take() {
                self.queues.remove(&old);
            }
            self.queues.extend(queue);
            worker.queue_key = queue;
        }
        let pace = usable.then(|| (-step(worker.speed), ix));
        if worker.pace_key != pace {
            if let Some(old) = worker.pace_key.take() {
                self.pace.remove(&old);
            }
            self.pace.extend(pace);
            worker.pace_key = pace;
        }
    }

    /// Nobody waits for these answers any more.
    pub fn unwatch(&mut self, asks: &[u64]) {
        for job in self.jobs.values_mut() {
            job.watchers.retain(|(_, ask)| !asks.contains(ask));
        }
    }

    pub fn set_timer(&mut self, at: Time, timer: Timer) {
        self.timers.insert((at, timer));
    }
}
