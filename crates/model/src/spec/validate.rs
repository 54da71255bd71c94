//! The checks that make a [`JobSpec`] from a [`Draft`].

use super::access::check_access;
use super::addition::{Addition, named};
use super::axes::check_axes;
use super::checkpoint::check_checkpoint;
use super::mount::check_mounts;
use super::needs::check_qos;
use super::runtime::check_preload;
use super::{COPIES_MAX, RETRY_DELAY_MAX, positional};
use super::{Draft, Group, Input, JobSpec, TASKS_MAX, Top};
use crate::data::INLINE_BYTES_MAX;
use crate::{Data, FileEntry};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// The most resources that one task can name besides CPUs, memory and disk. Each placement compares all of them.
const RESOURCES_MAX: usize = 64;

/// The place of a mistake in a job, so that a reader of job files can point at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The `[[task]]` table, counted from 0; none for the job itself.
    pub group: Option<usize>,
    /// The key.
    pub key: &'static str,
    /// The position within the key's list, if it concerns one entry.
    pub item: Option<usize>,
}

/// A job is not valid: where, what is wrong, and what would be right. Nothing was submitted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}; {help}")]
pub struct SpecError {
    /// The place.
    pub place: Place,
    /// What is wrong.
    pub what: String,
    /// What would be right.
    pub help: String,
}

/// Checks that a path stays within a task's scratch directory: relative, `/`-separated, without `.`, `..`, empty
/// parts and NUL.
pub fn check_path(path: &str) -> Result<(), &'static str> {
    if path.starts_with('/') {
        Err("is absolute")
    } else if path.contains('\0') {
        Err("contains a NUL")
    } else if path.len() > 1024 {
        Err("is longer than 1024 bytes")
    } else if path.split('/').any(|part| part == "..") {
        Err("leaves the task's folder")
    } else if path.split('/').any(|part| part.is_empty() || part == ".") {
        Err("has an empty part or a '.'")
    } else {
        Ok(())
    }
}

pub(super) type Checked<T> = Result<T, SpecError>;

pub(super) fn wrong<T>(
    place: Place,
    what: impl Into<String>,
    help: impl Into<String>,
) -> Checked<T> {
    Err(SpecError {
        place,
        what: what.into(),
        help: help.into(),
    })
}

pub(super) fn job(key: &'static str) -> Place {
    Place {
        group: None,
        key,
        item: None,
    }
}

pub(super) fn validate(draft: Draft) -> Checked<JobSpec> {
    check_job(&draft)?;
    let names = Cow::Owned(named(&draft.groups, 0));
    let addition = Addition::of(&draft, names);
    let (growth, names) = (addition.check()?, addition.into_names());
    let mut spec = JobSpec {
        format: positional::format(&draft),
        draft,
        firsts: Vec::new(),
        total: 0,
        waits_for: Vec::new(),
        waited_by: Vec::new(),
        relaxed: BTreeMap::new(),
        each: BTreeMap::new(),
        names: BTreeMap::new(),
    };
    spec.grow(growth, names);
    Ok(spec)
}

fn check_job(draft: &Draft) -> Checked<()> {
    if draft.name.len() > 256 {
        return wrong(
            job("name"),
            "the name is longer than 256 bytes",
            "shorten it",
        );
    }
    if !(1..=COPIES_MAX).contains(&draft.qos.copies) {
        return wrong(
            job("copies"),
            format!("copies = {} is out of range", draft.qos.copies),
            format!("a critical task can have 1 to {COPIES_MAX} attempts"),
        );
    }
    if let Top::Share(share) = draft.critical.top
        && !(0.0..=1.0).contains(&share)
    {
        return wrong(
            job("top"),
            format!("{share} is no share"),
            "write \"0%\" to \"100%\", or a number",
        );
    }
    check_qos(draft)?;
    Ok(())
}

/// Checks that the client's files may be inline and have valid paths.
pub(super) fn check_files(files: &[FileEntry]) -> Checked<()> {
    for file in files {
        if file.data.hash().is_none() && file.data.size() > INLINE_BYTES_MAX as u64 {
            return wrong(
                job("inputs"),
                format!(
                    "the input {:?} is longer than the {INLINE_BYTES_MAX} bytes that travel within a job",
                    file.path
                ),
                "send it by its hash",
            );
        }
        if let Err(why) = check_path(&file.path) {
            return wrong(
                job("inputs"),
                format!("the input path {:?} {why}", file.path),
                "name it within the folder",
            );
        }
    }
    Ok(())
}

pub(super) fn check_group(files: &[FileEntry], at: usize, group: &Group) -> Checked<()> {
    let place = |key, item| Place {
        group: Some(at),
        key,
        item,
    };
    let name_ok = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    if group.id.is_empty() || group.id.len() > 128 || !group.id.chars().all(name_ok) {
        return wrong(
            place("id", None),
            format!("{:?} cannot be an id", group.id),
            "use letters, digits, '-' and '_', at most 128 of them",
        );
    }
    check_axes(at, group)?;
    check_array(at, group)?;
    if group.runtime.runs_command() && group.command.first().is_none_or(|word| word.is_empty()) {
        return wrong(
            place("command", None),
            "the command is empty",
            "write the program and its arguments as a list",
        );
    }
    if group
        .retry_delay
        .is_some_and(|delay| delay > RETRY_DELAY_MAX)
    {
        return wrong(
            place("retry_delay", None),
            "a task that failed would wait for more than a week",
            "write at most \"7days\"",
        );
    }
    if group.time_limit.is_some_and(|limit| limit.is_zero()) {
        return wrong(
            place("time_limit", None),
            "a time limit of 0 ends every task",
            "write at least \"1ms\"",
        );
    }
    check_checkpoint(at, group)?;
    check_preload(at, group)?;
    check_mounts(files, at, group)?;
    check_access(at, group)?;
    for (item, output) in group.outputs.iter().enumerate() {
        if let Err(why) = check_path(output.trim_end_matches('/')) {
            return wrong(
                place("outputs", Some(item)),
                format!("the output {output:?} {why}"),
                "outputs are named within the task's folder, like \"out.png\" or \"frames/*.png\"",
            );
        }
    }
    for (item, input) in group.inputs.iter().enumerate() {
        let (first, count) = match input {
            Input::File(first) => (*first, 1),
            Input::FileEach(first) => (*first, group.count()),
            Input::Task(_) | Input::TaskEach(_) => continue,
        };
        if u64::from(first) + u64::from(count) > files.len() as u64 {
            return wrong(
                place("inputs", Some(item)),
                "the input's file is not among the job's files",
                "add the file",
            );
        }
    }
    Ok(())
}

fn check_array(at: usize, group: &Group) -> Checked<()> {
    let place = Place {
        group: Some(at),
        key: "array",
        item: None,
    };
    if let Some((from, to)) = group.array {
        if to <= from {
            return wrong(
                place,
                format!("the array {from}..{to} holds no task"),
                "the second number is the one behind the last: \"0..3\" is 0, 1, 2",
            );
        }
        if u64::from(to - from) > TASKS_MAX {
            return wrong(
                place,
                format!("the array {from}..{to} holds more than {TASKS_MAX} tasks"),
                "split it into several jobs",
            );
        }
    }
    Ok(())
}

/// Checks a group's values for content that no program can be given, or that would make messages too long.
pub(super) fn check_content(at: usize, group: &Group) -> Checked<()> {
    let place = |key, item| Place {
        group: Some(at),
        key,
        item,
    };
    let nul = |text: &str| text.contains('\0');
    if let Some(item) = group.command.iter().position(|word| nul(word)) {
        return wrong(
            place("command", Some(item)),
            "this argument holds a NUL, which no program can be given",
            "remove it",
        );
    }
    let bad_name = |name: &str| name.is_empty() || name.contains('=') || nul(name);
    if let Some((name, _)) = group.env.iter().find(|(name, _)| bad_name(name)) {
        return wrong(
            place("env", None),
            format!("{name:?} cannot be the name of a variable"),
            "a name is not empty and holds no '=' and no NUL",
        );
    }
    if let Some((name, _)) = group.env.iter().find(|(_, value)| nul(value)) {
        return wrong(
            place("env", None),
            format!("the value of {name:?} holds a NUL, which no program can be given"),
            "remove it",
        );
    }
    let named = &group.resources.named;
    let ordered = named.windows(2).all(|pair| pair[0].0 < pair[1].0);
    if !ordered || named.iter().any(|(_, amount)| *amount == 0) || named.len() > RESOURCES_MAX {
        return wrong(
            place("resources", None),
            "the named resources are not in order, repeated, zero, or too many",
            format!("name each once, with at least 1, at most {RESOURCES_MAX} of them"),
        );
    }
    if let Some(Data::Inline(bytes)) = &group.stdin
        && bytes.len() > INLINE_BYTES_MAX
    {
        return wrong(
            place("stdin", None),
            format!(
                "the input is {} bytes long, at most {INLINE_BYTES_MAX} travel within a job",
                bytes.len()
            ),
            "put it into a file",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{CriticalRule, Qos};
    use std::sync::Arc;

    fn draft(groups: Vec<Group>) -> Draft {
        Draft {
            name: "t".into(),
            qos: Qos::default(),
            critical: CriticalRule::default(),
            files: vec![],
            groups,
            outline: false,
        }
    }

    fn task(id: &str, deps: &[&str]) -> Group {
        Group {
            deps: deps.iter().map(|d| Arc::from(*d)).collect(),
            ..Group::program(id, &["true"])
        }
    }

    fn mistake(groups: Vec<Group>) -> SpecError {
        JobSpec::new(draft(groups)).unwrap_err()
    }

    #[test]
    fn numbers_labels_and_dependencies_follow_from_the_groups() {
        let frames = Group {
            array: Some((10, 13)),
            ..task("frame", &[])
        };
        let spec = JobSpec::new(draft(vec![frames, task("sheet", &["frame", "frame"])])).unwrap();
        assert_eq!(
            (
                spec.task_count(),
                spec.first(1),
                spec.group_of(2),
                spec.group_of(3)
            ),
            (4, 3, 0, 1)
        );
        assert_eq!(
            (spec.label(2), spec.label(3)),
            ("frame.12".into(), "sheet".into())
        );
        assert_eq!(
            (
                spec.find("frame.12"),
                spec.find("sheet"),
                spec.find("frame.13")
            ),
            (Some(2), Some(3), None)
        );
        assert_eq!((spec.waits_for(1), spec.waited_by(0)), (&[0][..], &[1][..]));
        assert!(!spec.is_result(0) && spec.is_result(1));
    }

    #[test]
    fn mistakes_name_their_place() {
        assert_eq!(mistake(vec![]).place.key, "task");
        let twice = mistake(vec![task("a", &[]), task("a", &[])]);
        assert_eq!((twice.place.group, twice.place.key), (Some(1), "id"));
        let unknown = mistake(vec![task("frame", &[]), task("b", &["fram"])]);
        assert_eq!((unknown.place.key, unknown.place.item), ("deps", Some(0)));
        assert!(unknown.help.contains("\"frame\""), "{unknown}");
        let circle = mistake(vec![
            task("x", &["c"]),
            task("b", &["c"]),
            task("c", &["b"]),
        ]);
        assert!(
            circle.what.contains("c → b → c") || circle.what.contains("b → c → b"),
            "{circle}"
        );
        for array in [(3, 3), (5, 2), (0, 10_000_001)] {
            let group = Group {
                array: Some(array),
                ..task("a", &[])
            };
            assert_eq!(mistake(vec![group]).place.key, "array");
        }
        for output in ["../x", "/etc/x", "a/../../x", "", "a//b", "./x"] {
            let group = Group {
                outputs: vec![output.into()],
                ..task("a", &[])
            };
            assert_eq!(mistake(vec![group]).place.key, "outputs", "{output}");
        }
        let none = Group {
            command: vec![],
            ..task("a", &[])
        };
        assert_eq!(mistake(vec![none]).place.key, "command");
        assert_eq!(mistake(vec![task("a", &["z"])]).help, "name a task's id");
    }

    #[test]
    fn content_that_nobody_could_use_is_refused() {
        let mistake = |change: fn(&mut Group)| {
            let mut group = task("a", &[]);
            change(&mut group);
            mistake(vec![group]).place.key
        };
        assert_eq!(mistake(|group| group.command.push("a\0".into())), "command");
        for name in ["", "A=B", "A\0"] {
            let group = Group {
                env: vec![(name.into(), "x".into())],
                ..task("a", &[])
            };
            assert_eq!(
                JobSpec::new(draft(vec![group])).unwrap_err().place.key,
                "env"
            );
        }
        let twice =
            |group: &mut Group| group.resources.named = vec![("g".into(), 1), ("g".into(), 1)];
        assert_eq!(mistake(twice), "resources");
        let zero = |group: &mut Group| group.resources.named = vec![("g".into(), 0)];
        assert_eq!(mistake(zero), "resources");
        let long = |group: &mut Group| {
            group.stdin = Some(Data::Inline(vec![0; INLINE_BYTES_MAX + 1].into()));
        };
        assert_eq!(mistake(long), "stdin");
        let file = crate::FileEntry {
            path: "a".into(),
            executable: false,
            data: Data::Inline(vec![0; INLINE_BYTES_MAX + 1].into()),
        };
        let long = Draft {
            files: vec![file],
            ..draft(vec![task("a", &[])])
        };
        assert_eq!(JobSpec::new(long).unwrap_err().place.key, "inputs");
    }
}
