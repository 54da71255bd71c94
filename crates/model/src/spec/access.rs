//! What a group asks of the owner of a worker's machine, and how often its tasks may run.

use super::validate::{Checked, Place, wrong};
use super::{Group, Runtime};
use crate::Resources;
use std::borrow::Cow;

/// The most shared folders of one task, because each placement compares all of them.
pub const SHARES_MAX: usize = 16;
/// The most multiples in `retry_memory`: with the smallest useful steps, enough for any machine.
pub const MEMORY_FACTORS_MAX: usize = 16;
/// The largest multiple in `retry_memory`, in thousandths.
const MEMORY_FACTOR_MAX: u32 = 1_000_000;

/// Returns whether a shared folder may have this name.
pub fn is_share_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    (1..=64).contains(&name.len()) && name.chars().all(fits)
}

impl Group {
    /// Returns whether its tasks may get redundant attempts. If nothing is said, those may not that use shared folders,
    /// because what one attempt writes there another one sees.
    pub fn may_be_copied(&self) -> bool {
        !self.once && self.copied.unwrap_or(self.shares.is_empty())
    }

    /// Returns the memory of a task's next attempt after `reached` attempts reached their memory limit; none if it is
    /// that of its resources.
    pub fn raised_memory(&self, reached: u32) -> Option<u64> {
        let last = self.retry_memory.len().checked_sub(1)?;
        let factor = self.retry_memory[last.min(reached as usize)];
        let memory = u128::from(self.resources.memory) * u128::from(factor) / 1000;
        let memory = u64::try_from(memory).unwrap_or(u64::MAX);
        (memory != self.resources.memory).then_some(memory)
    }
}

/// Returns `resources` with this memory instead, if there is any.
pub fn with_memory(resources: &Resources, memory: Option<u64>) -> Cow<'_, Resources> {
    match memory {
        None => Cow::Borrowed(resources),
        Some(memory) => Cow::Owned(Resources {
            memory,
            ..resources.clone()
        }),
    }
}

/// Checks the keys about shared folders, the folder to start in, copies and memory of retries.
pub(super) fn check_access(at: usize, group: &Group) -> Checked<()> {
    let place = |key, item| Place {
        group: Some(at),
        key,
        item,
    };
    if group.shares.len() > SHARES_MAX {
        return wrong(
            place("shares", None),
            format!("{} shared folders are too many", group.shares.len()),
            format!("name at most {SHARES_MAX}"),
        );
    }
    for (item, name) in group.shares.iter().enumerate() {
        if !is_share_name(name) {
            return wrong(
                place("shares", Some(item)),
                format!("{name:?} cannot be the name of a shared folder"),
                "write the NAME of `hedge worker --share NAME=/path`: letters, digits, '-' and '_', at most 64 of them",
            );
        }
        if group.shares[..item].contains(name) {
            return wrong(
                place("shares", Some(item)),
                format!("the shared folder {name:?} is named twice"),
                "name each once",
            );
        }
    }
    let asks_for_access = !group.shares.is_empty() || group.network.is_some();
    if asks_for_access && !group.runtime.runs_command() {
        let key = if group.shares.is_empty() {
            "network"
        } else {
            "shares"
        };
        return wrong(
            place(key, None),
            "a task of this runtime runs no command that could use it",
            format!("remove `{key}`"),
        );
    }
    check_cwd(at, group)?;
    if group.once && group.copied == Some(true) {
        return wrong(
            place("redundancy", None),
            "a redundant attempt would run a task with rerun = false a second time",
            "remove `redundancy`, or `rerun`",
        );
    }
    check_memory(at, group)
}

fn check_cwd(at: usize, group: &Group) -> Checked<()> {
    let place = Place {
        group: Some(at),
        key: "cwd",
        item: None,
    };
    let cwd = group.cwd.as_str();
    if cwd.is_empty() {
        return Ok(());
    }
    let (share, _) = cwd.split_once('/').unwrap_or((cwd, ""));
    if !group.shares.iter().any(|known| **known == *share) {
        return wrong(
            place,
            format!("{cwd:?} is in no shared folder that the task uses"),
            "write the name of one of `shares`, and a path below it: cwd = \"data/genomes\"",
        );
    }
    let odd = |part: &str| matches!(part, "" | "." | "..") || part.contains('\0');
    if cwd.split('/').any(odd) {
        return wrong(
            place,
            format!("{cwd:?} is no path below a shared folder"),
            "write it without `.`, `..` and `/` at its end",
        );
    }
    if group.runtime == Runtime::Python {
        return wrong(
            place,
            "a process that is forked from an interpreter starts in its scratch directory",
            "remove `runtime`, or have the program enter the folder",
        );
    }
    Ok(())
}

fn check_memory(at: usize, group: &Group) -> Checked<()> {
    let place = |item| Place {
        group: Some(at),
        key: "retry_memory",
        item,
    };
    if group.retry_memory.is_empty() {
        return Ok(());
    }
    if group.resources.memory == 0 {
        return wrong(
            place(None),
            "`retry_memory` multiplies the memory in `resources`, and there is none",
            "write the memory of the first attempt: resources = { memory = \"1 GiB\" }",
        );
    }
    if group.retry_memory.len() > MEMORY_FACTORS_MAX {
        return wrong(
            place(None),
            format!("{} multiples are too many", group.retry_memory.len()),
            format!("write at most {MEMORY_FACTORS_MAX}; the last one repeats"),
        );
    }
    for (item, factor) in group.retry_memory.iter().enumerate() {
        let before = item.checked_sub(1).map(|item| group.retry_memory[item]);
        if before.is_some_and(|before| *factor < before) {
            return wrong(
                place(Some(item)),
                "this multiple is smaller than the one before it",
                "write them in ascending order, like [1, 2, 4]",
            );
        }
        if !(1..=MEMORY_FACTOR_MAX).contains(factor) {
            return wrong(
                place(Some(item)),
                format!("{} is no multiple of memory", f64::from(*factor) / 1000.0),
                "write a number from 0.001 to 1000",
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{CriticalRule, Draft, JobSpec, Network, Qos, Runtime, SpecError};

    fn job(group: Group) -> Result<JobSpec, SpecError> {
        JobSpec::new(Draft {
            name: "t".into(),
            qos: Qos::default(),
            critical: CriticalRule::default(),
            files: vec![],
            groups: vec![group],
            outline: false,
        })
    }

    fn group() -> Group {
        Group::program("a", &["true"])
    }

    #[test]
    fn memory_grows_with_each_limit_that_was_reached_and_the_last_multiple_repeats() {
        let mut group = Group {
            retry_memory: vec![1000, 1500, 4000].into(),
            ..group()
        };
        group.resources.memory = 1000;
        let memory = |reached| group.raised_memory(reached);
        assert_eq!(
            [0, 1, 2, 3, 9].map(memory),
            [None, Some(1500), Some(4000), Some(4000), Some(4000)]
        );
        assert_eq!(
            super::super::Group::program("b", &[]).raised_memory(3),
            None
        );
        let spec = job(group).unwrap();
        assert_eq!(spec.format(), 3, "an earlier version would not raise it");
        assert_eq!(JobSpec::decode(&spec.encode().unwrap()), Ok(spec));
    }

    #[test]
    fn tasks_that_use_shared_folders_are_copied_only_if_they_say_so() {
        let shares: super::super::Few<_> = vec!["data".into()].into();
        assert!(group().may_be_copied());
        let shared = |copied| Group {
            shares: shares.clone(),
            copied,
            ..group()
        };
        assert_eq!(
            [None, Some(true), Some(false)].map(|copied| shared(copied).may_be_copied()),
            [false, true, false]
        );
        let once = Group {
            once: true,
            ..group()
        };
        assert!(!once.may_be_copied());
        let ended = job(once).unwrap().outline();
        assert!(ended.groups()[0].once, "views of an ended job need it");
    }

    fn in_share(group: &mut Group, cwd: &str) {
        group.shares = vec!["data".into()].into();
        group.cwd = cwd.to_owned().into();
    }

    #[test]
    fn a_task_may_start_in_a_shared_folder_and_below_it() {
        for cwd in ["data", "data/a/b c"] {
            let mut group = group();
            in_share(&mut group, cwd);
            let spec = job(group).unwrap();
            assert_eq!(
                spec.format(),
                3,
                "an earlier version would start it elsewhere"
            );
            assert_eq!(JobSpec::decode(&spec.encode().unwrap()), Ok(spec));
        }
    }

    type Case = (fn(&mut Group), &'static str, Option<usize>);
    const WRONG: [Case; 14] = [
        (
            |group| group.shares = vec!["a b".into()].into(),
            "shares",
            Some(0),
        ),
        (
            |group| group.shares = vec!["a".into(), "".into()].into(),
            "shares",
            Some(1),
        ),
        (
            |group| group.shares = vec!["a".into(), "a".into()].into(),
            "shares",
            Some(1),
        ),
        (
            |group| group.shares = (0..17).map(|at| format!("s{at}").into()).collect(),
            "shares",
            None,
        ),
        (|group| in_share(group, "/srv/data"), "cwd", None),
        (|group| in_share(group, "dat/a"), "cwd", None),
        (|group| in_share(group, "data/../a"), "cwd", None),
        (
            |group| {
                in_share(group, "data");
                group.runtime = Runtime::Python;
            },
            "cwd",
            None,
        ),
        (
            |group| {
                group.runtime = Runtime::Noop;
                group.network = Some(Network::None);
            },
            "network",
            None,
        ),
        (
            |group| {
                group.once = true;
                group.copied = Some(true);
            },
            "redundancy",
            None,
        ),
        (
            |group| group.retry_memory = vec![1000].into(),
            "retry_memory",
            None,
        ),
        (
            |group| {
                group.resources.memory = 1;
                group.retry_memory = vec![2000, 1000].into();
            },
            "retry_memory",
            Some(1),
        ),
        (
            |group| {
                group.resources.memory = 1;
                group.retry_memory = vec![0].into();
            },
            "retry_memory",
            Some(0),
        ),
        (
            |group| {
                group.resources.memory = 1;
                group.retry_memory = vec![1000; 17].into();
            },
            "retry_memory",
            None,
        ),
    ];

    #[test]
    fn what_cannot_be_asked_for_is_refused_with_its_place() {
        for (change, key, item) in WRONG {
            let mut group = group();
            change(&mut group);
            let place = job(group).unwrap_err().place;
            assert_eq!((place.key, place.item), (key, item));
        }
    }
}
