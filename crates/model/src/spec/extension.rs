//! Extensions: groups that are added to an open job.

use super::addition::{Addition, Growth};
use super::stored::packed;
use super::{
    Group, Input, JobSpec, Mount, SpecError, blobs_among, input_data, is_default, names, size,
};
use crate::{Data, FileEntry, Hash};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The most `[[task]]` tables of an open job in total. The state of each costs memory until the job is closed.
pub const OPEN_GROUPS_MAX: usize = 1_000_000;

/// Groups to add to an open job, not checked. Either all of them are added or none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extension {
    /// Files that the client provides. Inputs of these groups refer to them by position.
    #[serde(default, skip_serializing_if = "is_default", with = "packed")]
    pub files: Vec<FileEntry>,
    /// The groups. They may depend on each other and on groups of the job.
    pub groups: Vec<Group>,
}

impl Extension {
    /// The content that the client provides: files, and standard input of the groups.
    pub fn input_data(&self) -> impl Iterator<Item = &Data> {
        input_data(&self.files, &self.groups)
    }

    /// The blobs among [`Extension::input_data`], with their sizes in bytes.
    pub fn input_blobs(&self) -> impl Iterator<Item = (Hash, u64)> + '_ {
        blobs_among(self.input_data())
    }

    /// Returns its number of tasks, saturating.
    pub fn task_count(&self) -> u32 {
        let counts = self.groups.iter().map(Group::count);
        counts.fold(0, u32::saturating_add)
    }
}

impl JobSpec {
    /// Returns whether it is an open job, to which groups may be added until it is closed.
    pub fn is_open(&self) -> bool {
        self.qos().open_timeout.is_some()
    }

    /// Checks an extension of this job as [`JobSpec::for_submission`] checks a job.
    ///
    /// # Errors
    /// What is wrong, and where in the extension.
    pub fn check_extension(&self, extension: &Extension) -> Result<(), SpecError> {
        let addition = Addition::to(self, extension);
        addition.check()?;
        names::check(&addition)?;
        size::check(&addition)
    }

    /// Appends the groups of an extension to the job's groups.
    ///
    /// # Errors
    /// The job would not be valid. It was not changed.
    pub fn extend(&mut self, extension: &Extension) -> Result<(), SpecError> {
        let addition = Addition::to(self, extension);
        let (growth, names) = (addition.check()?, addition.into_names());
        let files = self.draft.files.len() as u32;
        let moved = |group: &Group| {
            let mut group = group.clone();
            for input in &mut group.inputs {
                if let Input::File(at) | Input::FileEach(at) = input {
                    *at += files;
                }
            }
            let moved = group.mounts.iter().map(|mount| Mount {
                first: mount.first + files,
                ..mount.clone()
            });
            group.mounts = moved.collect();
            group
        };
        self.draft.groups.extend(extension.groups.iter().map(moved));
        self.draft.files.extend_from_slice(&extension.files);
        self.grow(growth, names);
        Ok(())
    }

    /// Takes over the data derived from added groups.
    pub(super) fn grow(&mut self, growth: Growth, names: BTreeMap<Arc<str>, u32>) {
        let before = self.waits_for.len();
        self.waited_by
            .resize_with(before + growth.waits_for.len(), Vec::new);
        for (at, others) in (before..).zip(&growth.waits_for) {
            for other in others {
                self.waited_by[*other as usize].push(at as u32);
            }
        }
        self.firsts.extend(growth.firsts);
        self.total = growth.total;
        self.waits_for.extend(growth.waits_for);
        self.relaxed.extend(growth.relaxed);
        self.each.extend(growth.each);
        self.names.extend(names);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{CriticalRule, Draft, Need, Qos};
    use super::*;
    use std::time::Duration;

    fn open(groups: Vec<Group>) -> JobSpec {
        let qos = Qos {
            open_timeout: Some(Duration::from_secs(60)),
            ..Qos::default()
        };
        JobSpec::new(Draft {
            name: "t".into(),
            qos,
            critical: CriticalRule::default(),
            files: vec![file("first")],
            groups,
            outline: false,
        })
        .unwrap()
    }

    fn file(path: &str) -> FileEntry {
        FileEntry {
            path: path.into(),
            executable: false,
            data: Data::Inline([1].into()),
        }
    }

    fn task(id: &str, deps: &[&str]) -> Group {
        Group {
            deps: deps.iter().map(|id| Arc::from(*id)).collect(),
            ..Group::program(id, &["true"])
        }
    }

    fn array(id: &str, count: u32, deps: &[&str]) -> Group {
        Group {
            array: Some((0, count)),
            ..task(id, deps)
        }
    }

    fn adds(groups: Vec<Group>) -> Extension {
        Extension {
            files: Vec::new(),
            groups,
        }
    }

    #[test]
    fn a_job_that_grew_is_the_job_that_has_all_from_the_start() {
        let first = vec![array("a", 3, &[])];
        let second = vec![
            Group {
                inputs: vec![Input::File(0), Input::TaskEach("a".into())],
                ..array("c", 3, &["b"])
            },
            Group {
                needs: vec![("a".into(), Need::Count(2))],
                ..task("b", &["a"])
            },
        ];
        let third = vec![task("d", &["c", "a"])];
        let mut grown = open(first.clone());
        let mut extension = adds(second.clone());
        extension.files.push(file("second"));
        grown.check_extension(&extension).unwrap();
        grown.extend(&extension).unwrap();
        grown.extend(&adds(third.clone())).unwrap();
        let mut all = Draft::from(open([first, second, third].concat()));
        all.files.push(file("second"));
        all.groups[1].inputs[0] = Input::File(1);
        let whole = JobSpec::new(all).unwrap();
        assert_eq!(grown, whole);
        assert_eq!(
            (grown.waited_by(0), grown.needed(2, 0)),
            (&[1, 2, 3][..], 2)
        );
        assert_eq!(grown.find("d"), Some(7));
        assert_eq!(JobSpec::decode(&grown.encode().unwrap()), Ok(whole));
        assert_eq!(grown.format(), 3, "an earlier version would end it");
    }

    #[test]
    fn an_extension_that_does_not_fit_is_refused_with_its_place_and_changes_nothing() {
        let job = open(vec![array("a", 3, &[])]);
        let mistake = |groups: Vec<Group>| {
            let error = job.check_extension(&adds(groups.clone())).unwrap_err();
            let mut same = job.clone();
            same.extend(&adds(groups)).unwrap_err();
            assert_eq!(same, job);
            (error.place.group, error.place.key, error.to_string())
        };
        let (group, key, what) = mistake(vec![task("b", &[]), task("a", &[])]);
        assert_eq!((group, key), (Some(1), "id"), "{what}");
        let (group, key, what) = mistake(vec![task("b", &["x"])]);
        assert_eq!((group, key), (Some(0), "deps"), "{what}");
        assert_eq!(
            mistake(vec![task("b", &["c"]), task("c", &["b"])]).1,
            "deps"
        );
        let each = Group {
            inputs: vec![Input::TaskEach("a".into())],
            ..array("b", 4, &[])
        };
        assert_eq!(mistake(vec![each]).1, "inputs");
        let own = Group {
            inputs: vec![Input::File(0)],
            ..task("b", &[])
        };
        assert_eq!(mistake(vec![own]).1, "inputs", "files of the job itself");
        assert_eq!(mistake(Vec::new()).1, "task");
    }

    #[test]
    fn names_and_sizes_of_an_extension_are_checked_as_those_of_a_job() {
        let maker = Group {
            outputs: vec!["out".into()],
            ..task("a", &[])
        };
        let job = open(vec![maker.clone()]);
        let key = |group: Group| {
            let checked = job.check_extension(&adds(vec![group]));
            checked.map_err(|error| error.place.key)
        };
        let same = Group {
            id: "b".into(),
            ..maker
        };
        assert_eq!(
            key(same.clone()),
            Ok(()),
            "each task has a folder of its own"
        );
        let reads = Group {
            inputs: vec![Input::Task("a".into()), Input::Task("b".into())],
            ..task("c", &[])
        };
        let both = job.check_extension(&adds(vec![same, reads])).unwrap_err();
        assert_eq!((both.place.group, both.place.key), (Some(1), "inputs"));
        let long = Group::program("b", &["echo", &"x".repeat(200_000)]);
        assert_eq!(key(long), Err("command"));
    }
}
