//! Which N of a job's K tasks are critical: those whose completion matters most to the job's.

use super::learned::Learned;
use hedge_model::JobSpec;
use hedge_model::spec::{Group, Measure, Top};
use std::cmp::Reverse;
use std::time::Duration;

/// Stands for tasks without an estimate; any value would do where none of a job's tasks has one.
const UNKNOWN_TIME: Duration = Duration::from_secs(1);

/// The critical tasks of a job: in each group the first so many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CriticalSet {
    counts: Vec<u32>,
    total: u32,
}

impl CriticalSet {
    /// Finds the critical tasks of a job: those marked, and up to `top` of those that others cannot start
    /// without, the ones with the longest way to the job's end first (bottom level on estimated times, then
    /// number of tasks that wait).
    pub fn find(spec: &JobSpec) -> Self {
        let groups = spec.groups();
        let mut counts: Vec<u32> = groups
            .iter()
            .map(|group| if group.critical { group.count() } else { 0 })
            .collect();
        let marked: u32 = counts.iter().sum();
        let rule = spec.critical();
        let mut left = match rule.top {
            Top::Share(share) => (f64::from(spec.task_count()) * share).ceil() as u32,
            Top::Count(count) => count,
        }
        .saturating_sub(marked);
        if rule.by.iter().any(|(by, _)| *by == Measure::Precedence) {
            let levels = bottom_levels(spec);
            let mut ranked: Vec<usize> = (0..groups.len())
                .filter(|at| !groups[*at].critical && !spec.waited_by(*at).is_empty())
                .collect();
            ranked.sort_by_key(|at| (Reverse(levels[*at]), Reverse(waiting_tasks(spec, *at)), *at));
            for at in ranked {
                counts[at] = groups[at].count().min(left);
                left -= counts[at];
            }
        }
        let total = counts.iter().sum();
        Self { counts, total }
    }

    /// N.
    pub fn total(&self) -> u32 {
        self.total
    }

    /// How many tasks of `group` are critical: its first ones.
    pub fn of_group(&self, group: usize) -> u32 {
        self.counts[group]
    }

    /// Whether a task is critical.
    pub fn contains(&self, spec: &JobSpec, number: u32) -> bool {
        let group = spec.group_of(number);
        number - spec.first(group) < self.counts[group]
    }

    /// Why the critical tasks of `group` are so.
    pub fn reason(&self, spec: &JobSpec, group: usize) -> String {
        if spec.groups()[group].critical {
            return "marked critical in the job".into();
        }
        let levels = bottom_levels(spec);
        format!(
            "precedence: {} tasks cannot start without it; estimated {:.1} s from its start to the job's end",
            waiting_tasks(spec, group),
            levels[group].as_secs_f64()
        )
    }
}

fn time(group: &Group) -> Duration {
    group.estimate.cpu_time.unwrap_or(UNKNOWN_TIME)
}

fn waiting_tasks(spec: &JobSpec, group: usize) -> u64 {
    spec.waited_by(group)
        .iter()
        .map(|next| u64::from(spec.groups()[*next as usize].count()))
        .sum()
}

/// For each group the longest way from the end of one of its tasks to the job's end, in seconds at standard
/// speed, where a task of a group takes so many.
pub(crate) fn tails(spec: &JobSpec, took: impl Fn(usize) -> f64) -> Vec<f64> {
    let count = spec.groups().len();
    let mut open: Vec<usize> = (0..count).map(|at| spec.waited_by(at).len()).collect();
    let mut tails = vec![0.0_f64; count];
    let mut free: Vec<usize> = (0..count).filter(|at| open[*at] == 0).collect();
    while let Some(at) = free.pop() {
        let level = tails[at] + took(at);
        for before in spec.waits_for(at) {
            let before = *before as usize;
            tails[before] = tails[before].max(level);
            open[before] -= 1;
            if open[before] == 0 {
                free.push(before);
            }
        }
    }
    tails
}

/// Groups by the way from the start of one of their tasks to the job's end, longest first.
pub(crate) fn by_level(learned: &Learned, spec: &JobSpec, tails: &[f64]) -> Vec<usize> {
    let level = |at: usize| tails[at] + learned.expect(&spec.groups()[at]).work_s;
    let mut order: Vec<(f64, usize)> = (0..tails.len()).map(|at| (level(at), at)).collect();
    order.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    order.into_iter().map(|(_, at)| at).collect()
}

/// For each group the estimated time from a task's start to the job's end along the longest path.
fn bottom_levels(spec: &JobSpec) -> Vec<Duration> {
    let count = spec.groups().len();
    let mut open: Vec<usize> = (0..count).map(|at| spec.waited_by(at).len()).collect();
    let mut levels = vec![Duration::ZERO; count];
    let mut free: Vec<usize> = (0..count).filter(|at| open[*at] == 0).collect();
    while let Some(at) = free.pop() {
        levels[at] += time(&spec.groups()[at]);
        for before in spec.waits_for(at) {
            let before = *before as usize;
            levels[before] = levels[before].max(levels[at]);
            open[before] -= 1;
            if open[before] == 0 {
                free.push(before);
            }
        }
    }
    levels
}
