//! What a redundancy policy needs to know about a job, kept up to date as the job's groups change. An evaluation costs
//! the groups that have changed since the one before, and the distinct expectations of time, however many groups a long
//! open job has.

use crate::supervisor::durable::job::Job;
use crate::supervisor::durable::learned::Learned;
use crate::supervisor::leader::jobs::group::ActiveGroup;
use crate::supervisor::leader::redundancy::Kind;
use hedge_model::JobSpec;
use hedge_model::spec::Group;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// What the redundancy policy needs to know about a job.
#[derive(Debug, Default)]
pub(crate) struct PolicyInputs {
    /// The kinds of its tasks.
    kinds: Vec<Kind>,
    places: BTreeMap<Arc<str>, u32>,
    groups: Vec<GroupFigures>,
    /// Groups with equal expectations of time.
    classes: Vec<TimeClass>,
    class_places: BTreeMap<(u32, Option<Duration>), u32>,
    /// Groups that may have changed since their figures were computed, each once.
    changed: Vec<u32>,
    /// Tasks without an attempt whose groups may start.
    ready: u32,
}

/// The figures of one group.
#[derive(Clone, Copy, Debug, Default)]
struct GroupFigures {
    /// Index of its kind.
    kind: u32,
    /// Index of its class.
    class: u32,
    /// The bottom level behind its tasks, in seconds at standard speed.
    b_level: f64,
    counts: Counts,
    changed: bool,
}

/// How many tasks of a group have no attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    unstarted: u32,
    /// Those whose group may start.
    ready: u32,
}

impl Counts {
    fn of(job: &Job, active: &ActiveGroup, at: usize) -> Self {
        let remaining = active.remaining(job.spec.groups()[at].count());
        Self {
            unstarted: remaining + job.waiting_elements(at),
            ready: if active.waiting() == 0 { remaining } else { 0 },
        }
    }
}

/// Groups of one kind with one estimate, of which the same time is expected.
#[derive(Debug)]
struct TimeClass {
    /// One of the groups.
    group: u32,
    /// The highest bottom level behind one of them.
    b_level_max: f64,
    /// Tasks that have no attempt yet.
    unstarted: u64,
}

impl PolicyInputs {
    pub fn new(spec: &JobSpec, b_levels: Vec<f64>) -> Self {
        let mut inputs = Self::default();
        spec.groups().iter().for_each(|group| inputs.add(group));
        inputs.set_b_levels(b_levels);
        inputs
    }

    /// Adds a group. Its bottom level stays 0 until the levels are recomputed.
    pub fn add(&mut self, group: &Group) {
        let (kinds, classes) = (&mut self.kinds, &mut self.classes);
        let kind = *self.places.entry(group.kind().clone()).or_insert_with(|| {
            kinds.push(Kind::default());
            kinds.len() as u32 - 1
        });
        kinds[kind as usize].total += group.count();
        let at = self.groups.len() as u32;
        let key = (kind, group.estimate.cpu_time);
        let class = *self.class_places.entry(key).or_insert_with(|| {
            classes.push(TimeClass {
                group: at,
                b_level_max: 0.0,
                unstarted: 0,
            });
            classes.len() as u32 - 1
        });
        self.groups.push(GroupFigures {
            kind,
            class,
            ..GroupFigures::default()
        });
        self.note_changed(at as usize);
    }

    /// Replaces the bottom levels of all groups.
    pub fn set_b_levels(&mut self, b_levels: Vec<f64>) {
        for class in &mut self.classes {
            class.b_level_max = 0.0;
        }
        for (group, b_level) in self.groups.iter_mut().zip(b_levels) {
            group.b_level = b_level;
            let highest = &mut self.classes[group.class as usize].b_level_max;
            *highest = highest.max(b_level);
        }
    }

    /// Records that a group may have changed.
    pub fn note_changed(&mut self, at: usize) {
        let group = &mut self.groups[at];
        if !group.changed {
            group.changed = true;
            self.changed.push(at as u32);
        }
    }

    /// Records the time that staging and running of one more task of a group took, which is done.
    pub fn note_success(&mut self, group: usize, took_s: f64) {
        let kind = self.groups[group].kind;
        self.kinds[kind as usize].note(took_s);
    }

    /// Updates the figures of the groups that have changed.
    pub fn update(&mut self, job: &Job, active: &[ActiveGroup]) {
        for at in std::mem::take(&mut self.changed) {
            let group = &mut self.groups[at as usize];
            group.changed = false;
            let now = Counts::of(job, &active[at as usize], at as usize);
            let before = std::mem::replace(&mut group.counts, now);
            let class = &mut self.classes[group.class as usize];
            class.unstarted -= u64::from(before.unstarted);
            class.unstarted += u64::from(now.unstarted);
            self.ready -= before.ready;
            self.ready += now.ready;
        }
    }

    /// The kinds of its tasks.
    pub fn kinds(&self) -> &[Kind] {
        &self.kinds
    }

    /// Index of a group's kind.
    pub fn kind_of(&self, group: usize) -> usize {
        self.groups[group].kind as usize
    }

    /// The bottom level behind a group's tasks, in seconds at standard speed.
    pub fn b_level(&self, group: usize) -> f64 {
        self.groups[group].b_level
    }

    /// Tasks without an attempt whose groups may start, as of the last update.
    pub fn ready(&self) -> u32 {
        self.ready
    }

    /// Returns the work of the tasks that have no attempt, as of the last update, in seconds at standard speed.
    pub fn unstarted_s(&self, learned: &Learned, spec: &JobSpec) -> f64 {
        let open = self.classes.iter().filter(|class| class.unstarted > 0);
        open.map(|class| class.unstarted as f64 * class.expected_s(learned, spec))
            .sum()
    }

    /// Returns the critical path from the job's beginning to its end, in seconds at standard speed.
    pub fn path_s(&self, learned: &Learned, spec: &JobSpec) -> f64 {
        let paths = self.classes.iter();
        let paths = paths.map(|class| class.b_level_max + class.expected_s(learned, spec));
        paths.fold(0.0, f64::max)
    }

    /// Checks that the figures of all groups that have not changed are those of the groups.
    pub fn check(&self, job: &Job, active: &[ActiveGroup]) -> Result<(), String> {
        for (at, group) in self.groups.iter().enumerate().filter(|(_, it)| !it.changed) {
            let counts = Counts::of(job, &active[at], at);
            if counts != group.counts {
                return Err(format!(
                    "the policy counts {:?} of group {at}, which has {counts:?}",
                    group.counts
                ));
            }
        }
        let ready: u32 = self.groups.iter().map(|group| group.counts.ready).sum();
        let unstarted = self
            .groups
            .iter()
            .map(|group| u64::from(group.counts.unstarted));
        let in_classes: u64 = self.classes.iter().map(|class| class.unstarted).sum();
        match ready == self.ready && unstarted.sum::<u64>() == in_classes {
            true => Ok(()),
            false => Err("the policy's sums are not those of the groups".to_owned()),
        }
    }
}

impl TimeClass {
    /// Returns the expected time of one task, in seconds at standard speed.
    fn expected_s(&self, learned: &Learned, spec: &JobSpec) -> f64 {
        learned.expect(&spec.groups()[self.group as usize]).work_s
    }
}
