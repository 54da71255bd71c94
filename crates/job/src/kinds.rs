//! Tasks that differ by a numbered suffix and yet count as different kinds.

use crate::Found;
use hedge_model::JobSpec;
use hedge_model::spec::kinds::{mostly_single, stem, without_digits};
use std::collections::BTreeMap;

/// Tasks of a job of which almost every one is of a kind of its own, so that the scheduler learns nothing from one about
/// another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SingleKinds {
    /// How many kinds have one task.
    pub single: usize,
    /// How many kinds there are.
    pub kinds: usize,
    /// The id of the first task of the largest set of tasks whose ids differ by numbers alone.
    pub id: String,
    /// How many tasks that set has.
    pub alike: usize,
    /// What they could have as their common `kind`.
    pub kind: String,
}

impl Found {
    /// Returns what to tell of a job nine tenths of whose kinds have one task while several of its tasks differ by
    /// numbers alone.
    pub fn single_kinds(&self) -> Option<SingleKinds> {
        single_kinds(self.tasks())
    }
}

fn single_kinds(spec: &JobSpec) -> Option<SingleKinds> {
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    let mut alike: BTreeMap<String, (&str, usize)> = BTreeMap::new();
    for group in spec.groups() {
        *counts.entry(group.kind()).or_default() += group.count();
        if group.kind.is_none() && group.count() == 1 {
            let common = without_digits(stem(&group.id));
            alike.entry(common).or_insert((&group.id, 0)).1 += 1;
        }
    }
    if !mostly_single(counts.values().copied()) {
        return None;
    }
    let (_, (id, tasks)) = alike.iter().rev().max_by_key(|(_, (_, tasks))| *tasks)?;
    let word = stem(id);
    let kind = word.trim_end_matches(|c: char| c.is_ascii_digit());
    (*tasks > 1).then(|| SingleKinds {
        single: counts.values().filter(|tasks| **tasks == 1).count(),
        kinds: counts.len(),
        id: (*id).to_owned(),
        alike: *tasks,
        kind: if kind.is_empty() { "task" } else { kind }.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{JobFile, Syntax};

    fn job(ids: impl Iterator<Item = String>, more: &str) -> Option<SingleKinds> {
        let tasks = ids.map(|id| format!("[[task]]\nid = \"{id}\"\ncommand = [\"true\"]\n{more}"));
        let text: String = tasks.collect();
        let file = JobFile::parse("job.toml", Syntax::Toml, &*text).unwrap();
        single_kinds(file.tasks())
    }

    #[test]
    fn tasks_that_differ_by_a_number_are_told_of_unless_they_name_a_kind() {
        let ids = || {
            (0..12)
                .map(|at| format!("blast_{at}"))
                .chain(["sum".into()])
        };
        let told = job(ids(), "").unwrap();
        assert_eq!((told.single, told.kinds, told.alike), (13, 13, 12));
        assert_eq!((&*told.id, &*told.kind), ("blast_0", "blast"));
        assert_eq!(job(ids(), "kind = \"blast\"\n"), None);
        assert_eq!(job(ids(), "array = \"0..2\"\n"), None);
        let few = (0..5).map(|at| format!("blast_{at}"));
        assert_eq!(job(few, ""), None, "a small job");
        let different = ('a'..'n').map(|letter| format!("step-{letter}"));
        assert_eq!(job(different, ""), None, "different programs");
    }
}
