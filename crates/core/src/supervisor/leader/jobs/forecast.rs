//! Forecasts when jobs end, by list scheduling of the tasks that remain.
//!
//! The pool is one store of CPUs of average speed. Free CPUs go to the highest priority, then to the client that uses
//! fewest (clients that use equally many take turns), to its oldest job and that job's highest rank, as the scheduler
//! does. Memory, labels, staging and
//! machines that leave are not part of the model.

use crate::supervisor::durable::job::Job;
use crate::supervisor::leader::LeaderView;
use crate::supervisor::leader::attempts::active::ActiveTask;
use crate::supervisor::leader::jobs::active::ActiveJob;
use crate::supervisor::leader::redundancy::above;
use hedge_model::{JobId, PeerId, Time};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

/// A forecast serves for this long, so that clients that watch jobs cost the leader no more than one forecast a second.
const FRESH: Duration = Duration::from_secs(1);
/// The most units of work of one forecast. If more tasks remain, one unit stands for several.
const UNITS_MAX: u32 = 2000;
/// The most groups with tasks that remain. Beyond it there is no forecast.
const STAGES_MAX: usize = 5000;
/// A task that has run longer than tasks of its kind ever take needs at least this part of its time so far.
const OVERDUE: f64 = 0.1;
/// Standard normal quantiles at 1/32, 3/32, ..., 31/32, so that 16 units in a row have the times of a typical sample.
/// They alternate, so that a few units have a typical sum.
const QUANTILES: [f64; 16] = [
    0.078, -0.078, 1.010, -1.010, 0.402, -0.402, 1.863, -1.863, 0.238, -0.238, 1.318, -1.318,
    0.579, -0.579, 0.776, -0.776,
];
/// What is not part of the model, as a standard error of the logarithm of times: speeds that are learned, workers that
/// differ, work that comes. By `hedge-lab sim estimates` the interval then holds four of five end times.
const ERROR_MIN: f64 = 0.15;
/// The error of the rest of a task that runs, in standard deviations of its kind.
const RUNNING_ERROR: f64 = 0.6;
/// The bounds of the interval are the end times with all times of a kind this many standard errors off. That of a
/// standard normal variable holds four of five values.
const WIDTH: f64 = 1.28;

/// The estimated time until a job ends, seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Remaining {
    pub low_s: f64,
    pub likely_s: f64,
    pub high_s: f64,
}

impl Remaining {
    /// Returns the chance that the job ends within this many seconds, as if the logarithm of its time were normal.
    pub fn chance(&self, within_s: f64) -> f64 {
        let error = ((self.high_s / self.low_s.max(1e-6)).ln() / (2.0 * WIDTH)).max(0.05);
        let off = (within_s.max(1e-6) / self.likely_s.max(1e-6)).ln() / error;
        1.0 - above(off)
    }
}

/// When the active jobs are expected to end.
#[derive(Debug, Default)]
pub(crate) struct Forecast {
    made: Option<Time>,
    jobs: BTreeMap<JobId, Remaining>,
}

impl Forecast {
    /// Makes the forecast of all active jobs of which enough is known.
    pub fn of(view: &LeaderView<'_>) -> Self {
        let mut forecast = Self {
            made: Some(view.now),
            jobs: BTreeMap::new(),
        };
        let estimable = view.estimable();
        if estimable.is_empty() {
            return forecast;
        }
        let Some(model) = Model::of(view) else {
            return forecast;
        };
        let [low, likely, high] = [-WIDTH, 0.0, WIDTH].map(|off| model.run(off));
        let jobs = model.jobs.iter().enumerate();
        for (at, id) in jobs.filter(|(_, id)| estimable.contains(id)) {
            if let (Some(low_s), Some(likely_s), Some(high_s)) = (low[at], likely[at], high[at]) {
                let remaining = Remaining {
                    low_s: low_s.min(likely_s),
                    likely_s,
                    high_s: high_s.max(likely_s),
                };
                forecast.jobs.insert(*id, remaining);
            }
        }
        forecast
    }

    /// Returns whether the forecast is new enough to be used.
    pub fn is_fresh(&self, now: Time) -> bool {
        self.made.is_some_and(|made| now.since(made) < FRESH)
    }

    /// Returns the estimated time from `now` until a job ends. A job that was submitted after the forecast has none.
    pub fn remaining(&self, id: JobId, now: Time) -> Option<Remaining> {
        let age = now.since(self.made?).as_secs_f64();
        let remaining = self.jobs.get(&id)?;
        let left = |seconds: f64| (seconds - age).max(0.0);
        Some(Remaining {
            low_s: left(remaining.low_s),
            likely_s: left(remaining.likely_s),
            high_s: left(remaining.high_s),
        })
    }
}

/// A group with tasks that remain.
#[derive(Clone, Debug)]
struct Stage {
    job: usize,
    client: usize,
    priority: i32,
    rank: u32,
    cpus: u64,
    /// Units that have not started, and those of them whose element-wise dependencies are done.
    unstarted: u32,
    startable: u32,
    /// How many groups it waits for as a whole.
    waits_for: u32,
    /// Seconds of a unit with median time, the standard deviation of the logarithm, and that of the median.
    median_s: f64,
    spread: f64,
    error: f64,
    /// Groups that start once so many more units of this one are done.
    followers: Vec<(usize, u32)>,
    /// Groups of which one more unit can start when one of this is done.
    readers: Vec<usize>,
}

/// A unit that runs: the seconds until it ends, its stage and its CPUs.
#[derive(Clone, Copy, Debug)]
struct Running {
    left_s: f64,
    stage: usize,
    cpus: u64,
}

struct Model {
    jobs: Vec<JobId>,
    /// Units of each job that must be done before it ends.
    needed: Vec<u32>,
    clients: usize,
    /// How many clients, in the order of their ids, had their turn already.
    served: usize,
    stages: Vec<Stage>,
    running: Vec<Running>,
    cpus: u64,
}

impl Model {
    /// Returns none if no worker takes tasks or there are too many groups.
    fn of(view: &LeaderView<'_>) -> Option<Self> {
        let workers = view.leader.pool.iter().filter(|worker| worker.usable());
        let cpus: u64 = workers
            .map(|worker| worker.info().resources.cpus_milli)
            .sum();
        if cpus == 0 {
            return None;
        }
        let speed = (view.leader.pool.throughput() / (cpus as f64 / 1e3)).max(1e-3);
        let tasks: u64 = view
            .unfinished_jobs()
            .map(|(_, job, _)| u64::from(job.spec.task_count() - job.done))
            .sum();
        let unit = u32::try_from(tasks.div_ceil(u64::from(UNITS_MAX)))
            .ok()?
            .max(1);
        let mut model = Self {
            jobs: Vec::new(),
            needed: Vec::new(),
            clients: 0,
            served: 0,
            stages: Vec::new(),
            running: Vec::new(),
            cpus,
        };
        // In the order of their ids, in which those that use equally much take turns.
        let clients: BTreeSet<PeerId> = view
            .unfinished_jobs()
            .map(|(_, job, _)| job.client)
            .collect();
        let number = |client| clients.range(..client).count();
        for (id, job, active_job) in view.unfinished_jobs() {
            let client = number(job.client);
            model.add(view, (id, job, active_job), client, unit, speed);
            if model.stages.len() > STAGES_MAX {
                return None;
            }
        }
        model.clients = clients.len();
        let served = view.leader.ready.served();
        model.served = served.map_or(0, |served| clients.range(..=served).count());
        Some(model)
    }

    /// Adds a job's groups with tasks that remain, and its attempts.
    fn add(
        &mut self,
        view: &LeaderView<'_>,
        (id, job, active): (JobId, &Job, &ActiveJob),
        client: usize,
        unit: u32,
        speed: f64,
    ) {
        let (spec, learned) = (&job.spec, &view.state.learned);
        let number = self.jobs.len();
        self.jobs.push(id);
        let needed = job.needed().saturating_sub(job.done).div_ceil(unit);
        let mut all = 0;
        let mut stage_of: BTreeMap<usize, usize> = BTreeMap::new();
        for (at, group) in spec.groups().iter().enumerate() {
            let remaining = job.remaining_of(at);
            if remaining == 0 {
                continue;
            }
            let expected = learned.expect(group);
            let seen = learned.kind(group).map_or(0.0, |kind| kind.seen());
            let units = remaining.div_ceil(unit);
            all += units;
            let scale = f64::from(remaining) / f64::from(units);
            stage_of.insert(at, self.stages.len());
            self.stages.push(Stage {
                job: number,
                client,
                priority: group.priority,
                rank: active.group(at).rank(),
                cpus: group.resources.cpus_milli.min(self.cpus),
                unstarted: units,
                startable: units.saturating_sub(job.waiting_elements(at).div_ceil(unit)),
                waits_for: 0,
                median_s: expected.work_s * scale / speed,
                spread: expected.spread / scale.sqrt(),
                error: (expected.spread.powi(2)
                    * (1.0 / (seen + 1.0) + 1.0 / f64::from(remaining))
                    + ERROR_MIN.powi(2))
                .sqrt(),
                followers: Vec::new(),
                readers: Vec::new(),
            });
        }
        self.needed.push(needed.min(all));
        for (at, stage) in &stage_of {
            for other in spec.waits_for(*at).iter().map(|other| *other as usize) {
                let Some(other_stage) = stage_of.get(&other) else {
                    continue;
                };
                if spec.is_each(*at, other) {
                    self.stages[*other_stage].readers.push(*stage);
                } else if !job.satisfied(*at, other) {
                    let missing = spec.needed(*at, other) - job.done_of(other);
                    let entry = (*stage, missing.div_ceil(unit));
                    self.stages[*other_stage].followers.push(entry);
                    self.stages[*stage].waits_for += 1;
                }
            }
        }
        self.add_running(view, job, id, &stage_of, unit);
    }

    fn add_running(
        &mut self,
        view: &LeaderView<'_>,
        job: &Job,
        id: JobId,
        stage_of: &BTreeMap<usize, usize>,
        unit: u32,
    ) {
        let mut of_stage: BTreeMap<usize, Vec<Running>> = BTreeMap::new();
        for (task, known) in view.leader.tasks.of_job(id) {
            let group = job.spec.group_of(task.number);
            let open = job.tasks[task.number as usize].is_open();
            let (true, Some(stage)) = (open, stage_of.get(&group)) else {
                continue;
            };
            let holds = known.attempts().iter().filter(|of| of.state().holds());
            let cpus = self.stages[*stage].cpus * holds.count() as u64;
            if let (true, Some(left_s)) = (cpus > 0, view.left_of_task(job, group, known)) {
                let stage = *stage;
                let running = Running {
                    left_s,
                    stage,
                    cpus,
                };
                of_stage.entry(stage).or_default().push(running);
            }
        }
        for (stage, mut all) in of_stage {
            all.sort_by(|a, b| a.left_s.total_cmp(&b.left_s));
            // One unit stands for several tasks: one of several attempts stands for all, and has their CPUs.
            for some in all.chunks(unit as usize) {
                let cpus = some.iter().map(|one| one.cpus).sum();
                let middle = some[some.len() / 2];
                self.running.push(Running { cpus, ..middle });
                let stage = &mut self.stages[stage];
                stage.unstarted = stage.unstarted.saturating_sub(1);
                stage.startable = stage.startable.saturating_sub(1);
            }
        }
    }

    /// Returns for each job the seconds until it ends, if every kind's times are `off` standard errors from what is
    /// expected. A job that cannot end has none.
    fn run(&self, off: f64) -> Vec<Option<f64>> {
        let mut run = Run {
            stages: self.stages.clone(),
            ready: vec![BTreeSet::new(); self.clients],
            used: vec![0; self.clients],
            served: self.served,
            running: BinaryHeap::new(),
            free: i64::try_from(self.cpus).unwrap_or(i64::MAX),
            started: 0,
            open: self.needed.clone(),
            ends: vec![None; self.jobs.len()],
        };
        for running in &self.running {
            let stage = &self.stages[running.stage];
            let factor = (off * stage.error.hypot(stage.spread * RUNNING_ERROR)).exp();
            run.start(0.0, running.left_s * factor, running.stage, running.cpus);
        }
        (0..run.stages.len()).for_each(|stage| run.offer(stage));
        run.fill(0.0, off);
        while let Some(Reverse((now, _, stage, cpus))) = run.running.pop() {
            let now = f64::from_bits(now);
            run.end(now, stage, cpus);
            run.fill(now, off);
        }
        run.ends
    }
}

/// The key of a stage among those of its client that could start a unit.
type Turn = (Reverse<i32>, usize, u32, usize);

/// One pass through the model.
struct Run {
    stages: Vec<Stage>,
    /// By client.
    ready: Vec<BTreeSet<Turn>>,
    used: Vec<u64>,
    /// How many clients, in the order of their ids, had their turn already.
    served: usize,
    /// By end: the bits of the seconds, which sort like them, a number that tells units apart, stage and CPUs.
    running: BinaryHeap<Reverse<(u64, u32, usize, u64)>>,
    free: i64,
    started: u32,
    /// Units of each job that must be done before it ends.
    open: Vec<u32>,
    ends: Vec<Option<f64>>,
}

impl Run {
    /// Makes a stage ready if it can start a unit.
    fn offer(&mut self, at: usize) {
        let stage = &self.stages[at];
        if stage.waits_for == 0 && stage.startable.min(stage.unstarted) > 0 {
            let turn = (Reverse(stage.priority), stage.job, stage.rank, at);
            self.ready[stage.client].insert(turn);
        }
    }

    fn start(&mut self, now: f64, takes_s: f64, stage: usize, cpus: u64) {
        self.started += 1;
        self.free -= cpus as i64;
        self.used[self.stages[stage].client] += cpus;
        let ends = (now + takes_s.max(0.0)).to_bits();
        self.running
            .push(Reverse((ends, self.started, stage, cpus)));
    }

    /// Starts what there are free CPUs for.
    fn fill(&mut self, now: f64, off: f64) {
        loop {
            let firsts = self.ready.iter().enumerate();
            let firsts = firsts.filter_map(|(client, ready)| Some((client, *ready.first()?)));
            let next = firsts.min_by_key(|(client, (priority, ..))| {
                let had_turn = *client < self.served;
                (*priority, self.used[*client], had_turn, *client)
            });
            let Some((client, turn)) = next else { return };
            let (.., at) = turn;
            let number = self.started as usize;
            let stage = &mut self.stages[at];
            if stage.cpus as i64 > self.free {
                return;
            }
            stage.unstarted -= 1;
            stage.startable -= 1;
            let off = QUANTILES[number % QUANTILES.len()] * stage.spread + off * stage.error;
            let (takes_s, cpus) = (stage.median_s * off.exp(), stage.cpus);
            if stage.startable.min(stage.unstarted) == 0 {
                self.ready[client].remove(&turn);
            }
            self.served = client + 1;
            self.start(now, takes_s, at, cpus);
        }
    }

    fn end(&mut self, now: f64, at: usize, cpus: u64) {
        self.free += cpus as i64;
        let (job, client) = (self.stages[at].job, self.stages[at].client);
        self.used[client] -= cpus;
        let open = self.open[job].saturating_sub(1);
        if std::mem::replace(&mut self.open[job], open) == 1 {
            self.ends[job] = Some(now);
        }
        for reader in self.stages[at].readers.clone() {
            self.stages[reader].startable += 1;
            self.offer(reader);
        }
        let mut followers = std::mem::take(&mut self.stages[at].followers);
        for (follower, missing) in &mut followers {
            *missing -= 1;
            if *missing == 0 {
                self.stages[*follower].waits_for -= 1;
                self.offer(*follower);
            }
        }
        followers.retain(|(_, missing)| *missing > 0);
        self.stages[at].followers = followers;
    }
}

impl LeaderView<'_> {
    /// Returns the estimated time until a job ends, by the leader's forecast, or by a new one if that is too old.
    pub(crate) fn remaining(&self, id: JobId) -> Option<Remaining> {
        if !self.leader.jobs.contains(id) {
            return None;
        }
        let forecast = &self.leader.forecast;
        if forecast.is_fresh(self.now) {
            return forecast.remaining(id, self.now);
        }
        Forecast::of(self).remaining(id, self.now)
    }

    /// Returns the seconds until the first of a task's attempts is expected to end: by the progress that it reports, or
    /// by the times of its kind of tasks. Returns none for a task without an attempt.
    fn left_of_task(&self, job: &Job, group: usize, known: &ActiveTask) -> Option<f64> {
        let expected = self.state.learned.expect(&job.spec.groups()[group]);
        let alive = known.attempts().iter().filter(|of| of.state().alive());
        let left = alive.map(|attempt| {
            let speed = self.leader.pool[attempt.worker()].speed().max(1e-3);
            let begun_at = super::progress::begun_at(attempt);
            let median = expected.work_s * (1.0 - begun_at) / speed;
            let elapsed = self.now.since(attempt.since()).as_secs_f64();
            match super::progress::share(attempt) {
                Some(share) if share > begun_at => elapsed * (1.0 - share) / (share - begun_at),
                _ => left_after(elapsed, median, expected.spread),
            }
        });
        left.reduce(f64::min)
    }
}

/// Returns the median of the seconds that a task still takes that has run for `elapsed` seconds, of a kind with this
/// median and standard deviation of the logarithm.
fn left_after(elapsed: f64, median: f64, spread: f64) -> f64 {
    let times = QUANTILES.map(|quantile| median * (quantile * spread).exp());
    let mut longer: Vec<f64> = times.into_iter().filter(|time| *time > elapsed).collect();
    longer.sort_by(f64::total_cmp);
    match longer.get(longer.len() / 2) {
        Some(time) => time - elapsed,
        None => elapsed * OVERDUE,
    }
}
