//! Selects the critical set: the N of a job's K tasks whose completion matters most to the job's completion time.
//!
//! The set is computed when a job arrives, from its specification and the history of tasks of the same kind, and
//! recomputed while the job runs, as measured times replace estimates.

use crate::supervisor::durable::learned::Learned;
use hedge_model::spec::{Group, Input, Measure, Top};
use hedge_model::units::show_bytes;
use hedge_model::{Data, JobSpec};

/// The critical tasks of a job: a number of leading tasks of each group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CriticalSet {
    counts: Vec<u32>,
    total: u32,
}

impl CriticalSet {
    /// Finds the critical tasks of a job from its specification alone.
    pub fn find(spec: &JobSpec) -> Self {
        Self::find_with(spec, &Learned::default())
    }

    /// Finds the critical tasks of a job: those marked critical, and up to `top` of those with the highest scores by
    /// the job's measures. Each measure gives a group's tasks a score of up to 1, relative to the largest value in
    /// the job; the scores of several measures are added by weight.
    pub fn find_with(spec: &JobSpec, learned: &Learned) -> Self {
        let groups = spec.groups();
        let mut counts: Vec<u32> = groups
            .iter()
            .map(|group| if group.critical { group.count() } else { 0 })
            .collect();
        let marked: u32 = counts.iter().sum();
        let rule = spec.critical();
        let mut remaining = match rule.top {
            Top::Share(share) => (f64::from(spec.task_count()) * share).ceil() as u32,
            Top::Count(count) => count,
        }
        .saturating_sub(marked);
        if remaining > 0 && !rule.by.is_empty() {
            let scores = Amounts::new(spec, learned).scores(spec);
            let mut ranked: Vec<usize> = (0..groups.len())
                .filter(|at| !groups[*at].critical && scores[*at] > 0.0)
                .collect();
            ranked.sort_by(|a, b| {
                scores[*b]
                    .total_cmp(&scores[*a])
                    .then_with(|| waiting_tasks(spec, *b).cmp(&waiting_tasks(spec, *a)))
                    .then(a.cmp(b))
            });
            for at in ranked {
                counts[at] = groups[at].count().min(remaining);
                remaining -= counts[at];
            }
        }
        let total = counts.iter().sum();
        Self { counts, total }
    }

    /// Adds a group to the job. Until the set is recomputed, only the group's marked tasks are critical.
    pub(crate) fn add(&mut self, group: &Group) {
        let count = if group.critical { group.count() } else { 0 };
        self.counts.push(count);
        self.total += count;
    }

    /// The number of critical tasks, N.
    pub fn total(&self) -> u32 {
        self.total
    }

    /// How many leading tasks of `group` are critical.
    pub fn of_group(&self, group: usize) -> u32 {
        self.counts[group]
    }

    /// Returns whether a task is critical.
    pub fn contains(&self, spec: &JobSpec, number: u32) -> bool {
        let group = spec.group_of(number);
        number - spec.first(group) < self.counts[group]
    }
}

/// Says for each group why its critical tasks are critical. Called rarely, so it computes the text for all groups at
/// once.
pub(crate) fn reasons(spec: &JobSpec, learned: &Learned) -> Vec<String> {
    let amounts = Amounts::new(spec, learned);
    let reason = |at: usize| {
        if spec.groups()[at].critical {
            return "marked critical in the job".into();
        }
        let by = spec.critical().by.iter();
        let measures = by.filter(|(measure, _)| amounts.of(*measure)[at] > 0.0);
        let parts: Vec<String> = measures
            .map(|(measure, _)| {
                format!(
                    "{}: {}",
                    measure.name(),
                    amounts.explain(spec, *measure, at)
                )
            })
            .collect();
        parts.join("; ")
    };
    (0..spec.groups().len()).map(reason).collect()
}

/// The expected resource needs of the tasks of each group, by measure; 0 where a measure is not used or unknown.
struct Amounts {
    amounts: [Vec<f64>; Measure::ALL.len()],
    /// Expected output of one task of each group, in bytes.
    output_bytes: Vec<f64>,
    /// Whether the times of all tasks are known from evidence, not guessed.
    known: bool,
}

impl Amounts {
    /// Computes only the measures that the job uses.
    fn new(spec: &JobSpec, learned: &Learned) -> Self {
        let mut found = Self {
            amounts: Default::default(),
            output_bytes: spec
                .groups()
                .iter()
                .map(|group| output_bytes(group, learned))
                .collect(),
            known: spec
                .groups()
                .iter()
                .all(|group| learned.expect(group).known),
        };
        let b_levels = b_levels(spec, |at| learned.expect(&spec.groups()[at]).work_s);
        for (measure, _) in &spec.critical().by {
            let amount = |at: usize| {
                let group = &spec.groups()[at];
                match measure {
                    Measure::Precedence if spec.waited_by(at).is_empty() => 0.0,
                    Measure::Precedence => b_levels[at] + learned.expect(group).work_s,
                    Measure::Data => reader_count(spec, at) * (1.0 + found.output_bytes[at]),
                    Measure::Memory => memory(group, learned),
                    Measure::Disk => disk(group),
                    Measure::Cpu => cpu(group, learned),
                    Measure::Network => network(spec, at, learned, &found.output_bytes),
                }
            };
            let all = (0..spec.groups().len()).map(amount).collect();
            found.amounts[*measure as usize] = all;
        }
        found
    }

    fn of(&self, measure: Measure) -> &[f64] {
        &self.amounts[measure as usize]
    }

    fn scores(&self, spec: &JobSpec) -> Vec<f64> {
        let mut scores = vec![0.0; spec.groups().len()];
        for (measure, weight) in &spec.critical().by {
            let amounts = self.of(*measure);
            let largest = amounts.iter().copied().fold(0.0, f64::max);
            if largest > 0.0 {
                for (score, amount) in scores.iter_mut().zip(amounts) {
                    *score += weight * amount / largest;
                }
            }
        }
        scores
    }

    fn explain(&self, spec: &JobSpec, measure: Measure, at: usize) -> String {
        let amount = self.of(measure)[at];
        let bytes = |bytes: f64| show_bytes(bytes as u64);
        match measure {
            Measure::Precedence => {
                let estimated = if self.known {
                    format!("; estimated {amount:.1} s from its start to the job's end")
                } else {
                    String::new()
                };
                let waiting = show_tasks(waiting_tasks(spec, at));
                format!("{waiting} cannot start without it{estimated}")
            }
            Measure::Data => {
                let each = match self.output_bytes[at] {
                    0.0 => String::new(),
                    amount => format!(", {} each", bytes(amount)),
                };
                let readers = show_tasks(reader_count(spec, at) as u64);
                format!("what it leaves is input of {readers}{each}")
            }
            Measure::Memory => format!("likely to need {} of memory", bytes(amount)),
            Measure::Disk => format!("likely to need {} of disk", bytes(amount)),
            Measure::Cpu => format!("likely to need {amount:.1} s of processor time"),
            Measure::Network => format!("likely to move {} over the network", bytes(amount)),
        }
    }
}

fn show_tasks(count: u64) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} task{plural}")
}

/// Returns how many tasks read the outputs of one task of a group.
fn reader_count(spec: &JobSpec, at: usize) -> f64 {
    let reads = |next: &&u32| spec.reads(**next as usize, at);
    let readers = spec.waited_by(at).iter().filter(reads);
    readers
        .map(|next| followers(spec, at, *next as usize) as f64)
        .sum()
}

/// Returns how many tasks of `next` wait for one task of `group`.
fn followers(spec: &JobSpec, group: usize, next: usize) -> u64 {
    match spec.is_each(next, group) {
        true => 1,
        false => u64::from(spec.groups()[next].count()),
    }
}

fn output_bytes(group: &Group, learned: &Learned) -> f64 {
    let seen = learned.kind(group).map(|kind| kind.left);
    let said = group.estimate.output.map(|bytes| bytes as f64);
    said.or(seen).unwrap_or(0.0)
}

fn memory(group: &Group, learned: &Learned) -> f64 {
    let seen = learned.kind(group).map(|kind| kind.memory);
    let said = group.estimate.memory.unwrap_or(group.resources.memory) as f64;
    seen.map_or(said, |seen| if seen > 0.0 { seen } else { said })
}

fn disk(group: &Group) -> f64 {
    group.estimate.disk.unwrap_or(group.resources.disk) as f64
}

fn cpu(group: &Group, learned: &Learned) -> f64 {
    let seen = learned.kind(group).map(|kind| kind.cpu);
    let said = group.estimate.cpu_time.map(|time| time.as_secs_f64());
    said.or(seen).unwrap_or(0.0)
}

/// Bytes that a task fetches, plus those that its estimate says it transfers itself.
fn network(spec: &JobSpec, at: usize, learned: &Learned, output_bytes: &[f64]) -> f64 {
    let group = &spec.groups()[at];
    let file = |at: u32| {
        let data = spec.files().get(at as usize).map(|file| &file.data);
        data.map_or(0.0, |data| data.size() as f64)
    };
    let inputs = group.inputs.iter().map(|input| match input {
        Input::File(at) | Input::FileEach(at) => file(*at),
        Input::Task(name) | Input::TaskEach(name) => {
            let from = spec.waits_for(at).iter().map(|from| *from as usize);
            let mut from = from.filter(|from| spec.groups()[*from].id == *name);
            from.next().map_or(0.0, |from| {
                let each = matches!(input, Input::TaskEach(_));
                let count = if each { 1 } else { spec.groups()[from].count() };
                output_bytes[from] * f64::from(count)
            })
        }
    });
    let stdin = group
        .stdin
        .as_ref()
        .map_or(0.0, |data: &Data| data.size() as f64);
    let said = group.estimate.network.unwrap_or(0) as f64;
    let fetched = inputs.sum::<f64>() + stdin;
    let seen = learned.kind(group).map_or(0.0, |kind| kind.moved);
    fetched.max(seen) + said
}

/// Returns how many tasks wait for one task of a group.
fn waiting_tasks(spec: &JobSpec, group: usize) -> u64 {
    spec.waited_by(group)
        .iter()
        .map(|next| followers(spec, group, *next as usize))
        .sum()
}

/// Returns the bottom level of each group: the length of the critical path from the end of one of its tasks to the
/// job's end, in seconds at standard speed. `took` gives the time of one task of a group.
pub(crate) fn b_levels(spec: &JobSpec, took: impl Fn(usize) -> f64) -> Vec<f64> {
    let count = spec.groups().len();
    let mut open: Vec<usize> = (0..count).map(|at| spec.waited_by(at).len()).collect();
    let mut b_levels = vec![0.0_f64; count];
    let mut free: Vec<usize> = (0..count).filter(|at| open[*at] == 0).collect();
    while let Some(at) = free.pop() {
        let level = b_levels[at] + took(at);
        for before in spec.waits_for(at) {
            let before = *before as usize;
            b_levels[before] = b_levels[before].max(level);
            open[before] -= 1;
            if open[before] == 0 {
                free.push(before);
            }
        }
    }
    b_levels
}

/// Returns the rank of each group: its position in descending order of bottom level plus its own time. Open jobs use
/// [`rank`].
pub(crate) fn ranks(learned: &Learned, spec: &JobSpec, b_levels: &[f64]) -> Vec<u32> {
    let levels = b_levels.iter().zip(spec.groups());
    let levels = levels.map(|(tail, group)| tail + learned.expect(group).work_s);
    if spec.is_open() {
        return levels.map(rank).collect();
    }
    let mut order: Vec<(f64, usize)> = levels.zip(0..).collect();
    order.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let mut ranks = vec![0; order.len()];
    for (rank, (_, at)) in (0..).zip(order) {
        ranks[at] = rank;
    }
    ranks
}

/// Returns the rank in an open job of tasks that have `level_s` seconds from their start to the job's end. A longer
/// time gives a lower rank, which starts first. Ranks differ by steps of about 1%, so that few of them change as
/// times are learned. A rank depends on no other task, so an extension leaves existing ranks as they are.
pub(crate) fn rank(level_s: f64) -> u32 {
    // Non-negative floats are ordered like their bits. The shift keeps 7 bits of the mantissa.
    u32::MAX - ((level_s.max(0.0) as f32).to_bits() >> 16)
}
