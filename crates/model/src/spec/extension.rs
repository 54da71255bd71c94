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
        let positions = self.positions(extension);
        let moved = |group: &Group| {
            let mut group = group.clone();
            for input in &mut group.inputs {
                if let Input::File(at) | Input::FileEach(at) = input {
                    *at = positions[*at as usize];
                }
            }
            let moved = group.mounts.iter().map(|mount| Mount {
                first: positions[mount.first as usize],
                ..mount.clone()
            });
            group.mounts = moved.collect();
            group
        };
        let before = self.draft.files.len() as u32;
        self.draft.groups.extend(extension.groups.iter().map(moved));
        let new = extension.files.iter().zip(&positions);
        let new = new.filter(|(_, at)| **at >= before);
        self.draft.files.extend(new.map(|(file, _)| file.clone()));
        self.grow(growth, names);
        Ok(())
    }

    /// Returns the files that the job would store of an extension that fits: all but those of trees that it has.
    pub fn new_files<'a>(&self, extension: &'a Extension) -> impl Iterator<Item = &'a FileEntry> {
        let known = self.known_files(extension).unwrap_or_default();
        let files = extension.files.iter().zip(0..);
        files.filter_map(move |(file, at)| (!known.contains_key(&at)).then_some(file))
    }

    /// Returns the positions of an extension's files in the job: behind its files. If the last group of the job has all
    /// trees of the extension, these are not stored again. Otherwise each extension of an open job whose tasks see a tree
    /// would add some hundred files.
    fn positions(&self, extension: &Extension) -> Vec<u32> {
        let known = self.known_files(extension).unwrap_or_default();
        let mut next = self.draft.files.len() as u32;
        let files = 0..extension.files.len() as u32;
        let positions = files.map(|at| {
            known.get(&at).copied().unwrap_or_else(|| {
                next += 1;
                next - 1
            })
        });
        positions.collect()
    }

    /// Returns the positions in the job of the files of an extension's trees; none unless the last group has all of them.
    fn known_files(&self, extension: &Extension) -> Option<BTreeMap<u32, u32>> {
        let last = self.draft.groups.last()?;
        let mut known = BTreeMap::new();
        for mount in extension
            .groups
            .iter()
            .flat_map(|group| group.mounts.iter())
        {
            let files = mount.files(&extension.files);
            let mut here = last.mounts.iter();
            let same = here.find(|here| here.files(&self.draft.files) == files)?;
            known.extend((0..=mount.packs).map(|at| (mount.first + at, same.first + at)));
        }
        // The files of a list are next to each other.
        let is_listed = extension.groups.iter().any(|group| {
            let mut inputs = group.inputs.iter();
            inputs.any(|input| match input {
                Input::FileEach(first) => {
                    known.range(*first..*first + group.count()).next().is_some()
                }
                _ => false,
            })
        });
        (!is_listed).then_some(known)
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
    fn a_tree_that_the_last_group_has_is_not_stored_again() {
        let blob = |byte| FileEntry {
            data: Data::Blob {
                hash: Hash([byte; 32]),
                size: 1,
            },
            ..file("tree")
        };
        let sees = |id: &str, first, packs| Group {
            mounts: [Mount {
                at: "/env".into(),
                first,
                packs,
            }]
            .into_iter()
            .collect(),
            inputs: vec![Input::File(0)],
            ..task(id, &[])
        };
        let with = |own: u8, group: Group, tree: &[u8]| {
            let own = file(&format!("own-{own}"));
            Extension {
                files: [own]
                    .into_iter()
                    .chain(tree.iter().copied().map(blob))
                    .collect(),
                groups: vec![group],
            }
        };
        let mut job = open(vec![task("a", &[])]);
        job.extend(&with(1, sees("b", 1, 2), &[1, 2, 3])).unwrap();
        assert_eq!(job.files().len(), 1 + 4);
        job.extend(&with(2, sees("c", 1, 2), &[1, 2, 3])).unwrap();
        assert_eq!(job.files().len(), 1 + 4 + 1, "its own input alone");
        let [b, c] = ["b", "c"].map(|id| &job.groups()[job.find(id).unwrap() as usize]);
        assert_eq!(b.mounts, c.mounts);
        assert_eq!(
            (&b.inputs, &c.inputs),
            (&vec![Input::File(1)], &vec![Input::File(5)])
        );
        assert_eq!(&*job.files()[5].path, "own-2");
        job.extend(&with(3, sees("d", 1, 2), &[1, 2, 4])).unwrap();
        let d = &job.groups()[job.find("d").unwrap() as usize];
        assert_eq!(
            (job.files().len(), d.mounts[0].first),
            (6 + 4, 7),
            "another tree"
        );
        let listed = Group {
            inputs: vec![Input::FileEach(1)],
            ..sees("e", 1, 2)
        };
        job.extend(&with(4, listed, &[1, 2, 4])).unwrap();
        assert_eq!(job.files().len(), 10 + 4, "a list stays together");
        assert_eq!(JobSpec::decode(&job.encode().unwrap()), Ok(job));
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
