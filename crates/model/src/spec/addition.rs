//! Checks groups that become part of a job, those of a new job or of an extension, and derives data from them.

use super::each::links;
use super::needs::relax;
use super::validate::{Checked, Place, check_content, check_files, check_group, job, wrong};
use super::{Draft, Extension, GROUPS_MAX, Group, JobSpec, OPEN_GROUPS_MAX, TASKS_MAX};
use crate::FileEntry;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Groups to check: all those of a job, or those of an extension of an open job.
pub(super) struct Addition<'a> {
    /// The job that is extended; none for a new one.
    job: Option<&'a JobSpec>,
    pub groups: &'a [Group],
    /// The files that their inputs refer to by position.
    pub files: &'a [FileEntry],
    /// Whether the job is open.
    pub open: bool,
    /// Positions of the groups in the job, by id.
    names: Cow<'a, BTreeMap<Arc<str>, u32>>,
}

/// Data derived from checked groups.
pub(super) struct Growth {
    pub firsts: Vec<u32>,
    /// The number of tasks of the whole job.
    pub total: u32,
    pub waits_for: Vec<Vec<u32>>,
    pub relaxed: BTreeMap<(u32, u32), u32>,
    pub each: BTreeMap<u32, Vec<u32>>,
}

impl<'a> Addition<'a> {
    pub fn of(draft: &'a Draft, names: Cow<'a, BTreeMap<Arc<str>, u32>>) -> Self {
        Self {
            job: None,
            groups: &draft.groups,
            files: &draft.files,
            open: draft.qos.open_timeout.is_some(),
            names,
        }
    }

    /// All groups of a job.
    pub fn all_of(job: &'a JobSpec) -> Self {
        let names = match job.is_open() {
            true => Cow::Borrowed(&job.names),
            false => Cow::Owned(named(&job.draft.groups, 0)),
        };
        Self::of(&job.draft, names)
    }

    /// The groups that an extension adds to a job.
    pub fn to(job: &'a JobSpec, extension: &'a Extension) -> Self {
        Self {
            job: Some(job),
            groups: &extension.groups,
            files: &extension.files,
            open: job.is_open(),
            names: Cow::Owned(named(&extension.groups, job.groups().len())),
        }
    }

    /// Returns whether they extend an existing job.
    pub fn extends(&self) -> bool {
        self.job.is_some()
    }

    /// Returns how many groups the job has already.
    pub fn before(&self) -> usize {
        self.job.map_or(0, |job| job.groups().len())
    }

    /// Returns the position of a group in the job.
    pub fn position(&self, id: &str) -> Option<u32> {
        let old = || self.job?.names.get(id);
        self.names.get(id).or_else(old).copied()
    }

    /// Returns the group at a position of the job.
    pub fn group(&self, at: u32) -> &'a Group {
        let (at, before) = (at as usize, self.before());
        match self.job {
            Some(job) if at < before => &job.groups()[at],
            _ => &self.groups[at - before],
        }
    }

    /// Returns the positions of its groups in the job by id, as an open job stores them.
    pub fn into_names(self) -> BTreeMap<Arc<str>, u32> {
        match self.open {
            true => self.names.into_owned(),
            false => BTreeMap::new(),
        }
    }

    fn ids(&self) -> impl Iterator<Item = &Arc<str>> {
        let old = self.job.into_iter().flat_map(|job| job.names.keys());
        self.names.keys().chain(old)
    }

    /// Checks the groups. Tasks are checked nowhere else, whether a job is new or extended.
    pub fn check(&self) -> Checked<Growth> {
        self.check_count()?;
        check_files(self.files)?;
        let before = self.before();
        let mut firsts = Vec::with_capacity(self.groups.len());
        let mut total = self.job.map_or(0, |job| u64::from(job.total));
        for (at, group) in self.groups.iter().enumerate() {
            check_group(self.files, at, group)?;
            check_content(at, group)?;
            self.check_id(at, group)?;
            firsts.push(total as u32);
            total += u64::from(group.count());
            if total > TASKS_MAX {
                return wrong(
                    Place {
                        group: Some(at),
                        key: "array",
                        item: None,
                    },
                    format!("the job has more than {TASKS_MAX} tasks"),
                    "split it into several jobs",
                );
            }
        }
        let waits_for = self.resolve_all()?;
        check_cycles(self.groups, before as u32, &waits_for)?;
        let relaxed = relax(self, &waits_for)?;
        let each = links(self)?;
        Ok(Growth {
            firsts,
            total: total as u32,
            waits_for,
            relaxed,
            each,
        })
    }

    fn check_count(&self) -> Checked<()> {
        if self.groups.is_empty() && (self.extends() || !self.open) {
            return wrong(
                job("task"),
                "there is no task",
                "add at least one [[task]] table",
            );
        }
        if self.extends() && !self.open {
            return wrong(
                job("task"),
                "the job is not open",
                "submit the tasks as a job of their own",
            );
        }
        let (count, most) = match self.open {
            true => (self.before() + self.groups.len(), OPEN_GROUPS_MAX),
            false => (self.groups.len(), GROUPS_MAX),
        };
        if count > most {
            return wrong(
                job("task"),
                format!("the job has {count} task tables, at most {most} are taken"),
                "use arrays for tasks that differ by an index only, or a further job",
            );
        }
        Ok(())
    }

    /// Checks that the id is not used by another group.
    fn check_id(&self, at: usize, group: &Group) -> Checked<()> {
        let place = Place {
            group: Some(at),
            key: "id",
            item: None,
        };
        let what = if self
            .job
            .is_some_and(|job| job.names.contains_key(&group.id))
        {
            format!("the job has a task with the id {:?}", group.id)
        } else {
            match self.first_of(&group.id) {
                Some(first) if first < at => {
                    let first = first + 1;
                    format!("the id {:?} is used twice, first by task {first}", group.id)
                }
                _ => return Ok(()),
            }
        };
        let help = "give each task an id of its own, or make one task with an array";
        wrong(place, what, help)
    }

    /// Returns the first of the added groups with this id.
    fn first_of(&self, id: &str) -> Option<usize> {
        let at = *self.names.get(id)? as usize;
        at.checked_sub(self.before())
    }

    fn resolve_all(&self) -> Checked<Vec<Vec<u32>>> {
        let mut waits_for = Vec::with_capacity(self.groups.len());
        for (at, group) in self.groups.iter().enumerate() {
            let deps = group
                .deps
                .iter()
                .chain(group.deps_each.iter())
                .enumerate()
                .map(|(item, name)| ("deps", item, name));
            let inputs = group
                .inputs
                .iter()
                .enumerate()
                .filter_map(|(item, input)| Some(("inputs", item, input.task()?)));
            let mut others = Vec::new();
            for (key, item, name) in deps.chain(inputs) {
                let Some(other) = self.position(name) else {
                    return wrong(
                        Place {
                            group: Some(at),
                            key,
                            item: Some(item),
                        },
                        format!(
                            "task {:?} waits for {name:?}, which is no task of this job",
                            group.id
                        ),
                        nearest(name, self.ids()),
                    );
                };
                others.push(other);
            }
            others.sort_unstable();
            others.dedup();
            waits_for.push(others);
        }
        Ok(waits_for)
    }
}

/// Returns the positions of groups by id; of the first group if several have the same id.
pub(super) fn named(groups: &[Group], before: usize) -> BTreeMap<Arc<str>, u32> {
    let all = groups.iter().enumerate().rev();
    all.map(|(at, group)| (group.id.clone(), (before + at) as u32))
        .collect()
}

fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a Arc<str>>) -> String {
    let common = |other: &str| {
        name.bytes()
            .zip(other.bytes())
            .take_while(|(a, b)| a == b)
            .count()
    };
    known
        .map(|other| (common(other), other))
        .max_by_key(|(common, _)| *common)
        .filter(|(common, _)| *common > 0)
        .map_or_else(
            || "name a task's id".to_owned(),
            |(_, other)| format!("did you mean {other:?}?"),
        )
}

/// Checks that the added groups do not depend on each other in a cycle. Existing groups do not depend on them.
fn check_cycles(groups: &[Group], before: u32, waits_for: &[Vec<u32>]) -> Checked<()> {
    // Most extensions depend on nothing but what the job has.
    if waits_for.iter().flatten().all(|other| *other < before) {
        return Ok(());
    }
    let own = |others: &[u32]| -> Vec<usize> {
        let own = others.iter().filter_map(|other| other.checked_sub(before));
        own.map(|other| other as usize).collect()
    };
    let waits_for: Vec<Vec<usize>> = waits_for.iter().map(|others| own(others)).collect();
    let mut open: Vec<usize> = waits_for.iter().map(Vec::len).collect();
    let mut waited_by = vec![Vec::new(); open.len()];
    for (at, others) in waits_for.iter().enumerate() {
        others.iter().for_each(|other| waited_by[*other].push(at));
    }
    let mut free: Vec<usize> = (0..open.len()).filter(|at| open[*at] == 0).collect();
    while let Some(at) = free.pop() {
        for next in &waited_by[at] {
            open[*next] -= 1;
            if open[*next] == 0 {
                free.push(*next);
            }
        }
    }
    let Some(start) = open.iter().position(|count| *count > 0) else {
        return Ok(());
    };
    let path = walk_cycle(&waits_for, &open, start);
    let names: Vec<&str> = path.iter().map(|at| &*groups[*at].id).collect();
    wrong(
        Place {
            group: Some(path[0]),
            key: "deps",
            item: None,
        },
        format!(
            "tasks wait for each other in a circle: {}",
            names.join(" → ")
        ),
        "remove one of these dependencies",
    )
}

/// Follows dependencies in a cycle from `start` until a group repeats. Returns the cycle, with the first group
/// repeated at the end.
fn walk_cycle(waits_for: &[Vec<usize>], open: &[usize], start: usize) -> Vec<usize> {
    let mut path = vec![start];
    loop {
        let at = path[path.len() - 1];
        let mut next = waits_for[at].iter().copied();
        let Some(next) = next.find(|other| open[*other] > 0) else {
            return path;
        };
        if let Some(from) = path.iter().position(|seen| *seen == next) {
            let mut circle = path.split_off(from);
            circle.push(next);
            return circle;
        }
        path.push(next);
    }
}
