//! Element-wise dependencies: task i of one group depends only on task i of another.

use super::addition::Addition;
use super::validate::{Checked, Place, wrong};
use super::{Group, Input, JobSpec};
use std::collections::BTreeMap;

impl JobSpec {
    /// Returns whether the job has element-wise dependencies.
    pub fn has_each(&self) -> bool {
        !self.each.is_empty()
    }

    /// Returns the element-wise dependencies of `group`, ascending.
    pub fn each(&self, group: usize) -> &[u32] {
        self.each.get(&(group as u32)).map_or(&[], Vec::as_slice)
    }

    /// Returns whether `group` depends element-wise on `other`.
    pub fn is_each(&self, group: usize, other: usize) -> bool {
        self.each(group).contains(&(other as u32))
    }

    /// The groups of which each task of `group` reads the outputs of the one at its own position, in the order of its
    /// inputs.
    pub fn reads_each(&self, group: usize) -> impl Iterator<Item = usize> + '_ {
        let inputs = self.groups()[group].inputs.iter();
        let names = inputs.filter_map(|input| match input {
            Input::TaskEach(id) => Some(id),
            _ => None,
        });
        let others = self.each(group).iter().map(|other| *other as usize);
        names.filter_map(move |id| others.clone().find(|other| self.groups()[*other].id == *id))
    }

    /// Returns whether `group` reads the outputs of `other`.
    pub fn reads(&self, group: usize, other: usize) -> bool {
        let id = &self.groups()[other].id;
        let mut inputs = self.groups()[group].inputs.iter();
        inputs.any(|input| input.task() == Some(id))
    }
}

/// Checks the element-wise dependencies and returns them by group.
pub(super) fn links(addition: &Addition<'_>) -> Checked<BTreeMap<u32, Vec<u32>>> {
    let mut links = BTreeMap::new();
    for (at, group) in addition.groups.iter().enumerate() {
        let each = of_group(addition, at, group)?;
        if !each.is_empty() {
            links.insert((addition.before() + at) as u32, each);
        }
    }
    Ok(links)
}

fn of_group(addition: &Addition<'_>, at: usize, group: &Group) -> Checked<Vec<u32>> {
    let inputs = group.inputs.iter().enumerate();
    let inputs = inputs.filter_map(|(item, input)| match input {
        Input::TaskEach(id) => Some(("inputs", item, id)),
        _ => None,
    });
    let deps = group.deps_each.iter().enumerate();
    let deps = deps.map(|(item, id)| ("deps", group.deps.len() + item, id));
    let mut each = Vec::new();
    for (key, item, id) in inputs.chain(deps) {
        let place = Place {
            group: Some(at),
            key,
            item: Some(item),
        };
        let Some(other) = addition.position(id) else {
            continue;
        };
        let (own, theirs) = (group.count(), addition.group(other).count());
        if own != theirs {
            return wrong(
                place,
                format!(
                    "task {:?} has {own} tasks and {id:?} has {theirs}: each cannot wait for the one at its own place",
                    group.id
                ),
                "give both arrays as many tasks, or leave `each` out to wait for all",
            );
        }
        let mut whole = group.inputs.iter().filter_map(|input| match input {
            Input::Task(id) => Some(id),
            _ => None,
        });
        if group.deps.contains(id) || whole.any(|other| other == id) {
            return wrong(
                place,
                format!(
                    "task {:?} waits for all of {id:?} and for each of it",
                    group.id
                ),
                "leave one of them out",
            );
        }
        if group.needs.iter().any(|(other, _)| other == id) {
            return wrong(
                place,
                format!("task {:?} needs a part of {id:?} and each of it", group.id),
                "leave `need` or `each` out",
            );
        }
        each.push(other);
    }
    each.sort_unstable();
    each.dedup();
    Ok(each)
}

#[cfg(test)]
mod tests {
    use super::super::{CriticalRule, Draft, Need, Qos, SpecError};
    use super::*;

    fn array(id: &str, range: (u32, u32)) -> Group {
        Group {
            array: Some(range),
            ..Group::program(id, &["true"])
        }
    }

    fn job(groups: Vec<Group>) -> Result<JobSpec, SpecError> {
        JobSpec::new(Draft {
            name: "t".into(),
            qos: Qos::default(),
            critical: CriticalRule::default(),
            outline: false,
            files: vec![],
            groups,
        })
    }

    #[test]
    fn each_task_waits_for_the_one_at_its_place() {
        let last = Group {
            inputs: vec![Input::TaskEach("b".into()), Input::Task("d".into())],
            deps_each: vec!["a".into()].into(),
            ..array("c", (5, 8))
        };
        let single = Group::program("d", &["true"]);
        let spec = job(vec![array("a", (0, 3)), array("b", (10, 13)), last, single]).unwrap();
        assert_eq!((spec.each(2), spec.each(1)), (&[0, 1][..], &[][..]));
        assert_eq!(spec.waits_for(2), [0, 1, 3]);
        assert_eq!(spec.waited_by(1), [2]);
        assert!(spec.is_each(2, 1) && !spec.is_each(2, 3));
        assert_eq!(spec.reads_each(2).collect::<Vec<_>>(), [1]);
        assert!(spec.reads(2, 1) && spec.reads(2, 3) && !spec.reads(2, 0));
        assert_eq!(spec.format(), 3);
        assert_eq!(JobSpec::decode(&spec.encode().unwrap()), Ok(spec.clone()));
        assert_eq!(spec.outline().each(2), spec.each(2));
        assert_eq!(spec.outline().outline(), spec.outline());
    }

    #[test]
    fn what_does_not_fit_is_told_with_its_place() {
        let reads = |group: Group| Group {
            inputs: vec![Input::TaskEach("a".into())],
            ..group
        };
        let first = || array("a", (0, 3));
        let place = |second: Group| {
            let error = job(vec![first(), second]).unwrap_err();
            (
                error.place.group,
                error.place.key,
                error.place.item,
                error.what,
            )
        };
        for second in [array("b", (0, 4)), Group::program("b", &["true"])] {
            let (group, key, item, what) = place(reads(second));
            assert_eq!((group, key, item), (Some(1), "inputs", Some(0)));
            assert!(what.contains("\"a\" has 3"), "{what}");
        }
        let deps = Group {
            deps: vec!["a".into()],
            deps_each: vec!["a".into()].into(),
            ..array("b", (0, 3))
        };
        assert_eq!(place(deps).1, "deps");
        let needs = Group {
            needs: vec![("a".into(), Need::Count(1))],
            ..reads(array("b", (0, 3)))
        };
        assert_eq!(place(needs).1, "inputs");
        let unknown = Group {
            deps_each: vec!["x".into()].into(),
            ..array("b", (0, 3))
        };
        assert_eq!(place(unknown).1, "deps");
        let circle = Group {
            deps_each: vec!["b".into()].into(),
            ..first()
        };
        let error = job(vec![circle, reads(array("b", (0, 3)))]).unwrap_err();
        assert!(error.what.contains("in a circle"), "{error}");
    }
}
