//! Checks of the names of a job's files, when it is submitted: patterns that cannot be read, and files that would lie
//! in the same place. Of patterns nobody knows before the tasks have run what they match.

use super::placeholders::{Piece, expand_index, has_index, is_glob, pieces};
use super::validate::{Checked, Place, wrong};
use super::{Group, Input, JobSpec};
use globset::GlobBuilder;
use std::collections::{BTreeMap, BTreeSet};

/// Most digits of an index.
const INDEX_DIGITS_MAX: usize = 10;

/// Names of files that will lie in one folder.
#[derive(Default)]
struct Names<'a> {
    plain: BTreeMap<String, &'a Group>,
    /// Names with an index, by the text before it and behind it.
    indexed: BTreeMap<(String, String), Vec<Indices<'a>>>,
}

/// The indices of an array.
struct Indices<'a> {
    from: u32,
    /// The one behind the last.
    to: u32,
    group: &'a Group,
}

/// A declared output that names one file for each task.
enum Name {
    Plain(String),
    /// The text before the index, and behind it.
    Indexed(String, String),
}

pub(super) fn check(spec: &JobSpec) -> Checked<()> {
    let groups = spec.groups();
    for (at, group) in groups.iter().enumerate() {
        check_globs(at, group)?;
    }
    let read: BTreeSet<&str> = groups
        .iter()
        .flat_map(|group| &group.inputs)
        .filter_map(|input| match input {
            Input::Task(id) => Some(&**id),
            _ => None,
        })
        .collect();
    let mut results = Names::default();
    for (at, group) in groups.iter().enumerate() {
        if spec.is_result(at) || read.contains(&*group.id) {
            check_array(at, group)?;
        }
        if spec.is_result(at) {
            for (item, name) in names(group) {
                let place = output(at, item);
                if let Err((name, other)) = results.add(name, group) {
                    return wrong(
                        place,
                        format!(
                            "the tasks {:?} and {:?} would both leave the result {name:?}",
                            other.id, group.id
                        ),
                        "give each output a name of its own",
                    );
                }
            }
        }
    }
    let by_id: BTreeMap<&str, &Group> = groups.iter().map(|group| (&*group.id, group)).collect();
    for (at, group) in groups.iter().enumerate() {
        check_inputs(spec, at, group, &by_id)?;
    }
    Ok(())
}

fn output(at: usize, item: usize) -> Place {
    Place {
        group: Some(at),
        key: "outputs",
        item: Some(item),
    }
}

fn check_globs(at: usize, group: &Group) -> Checked<()> {
    for (item, pattern) in group.outputs.iter().enumerate() {
        // The braces of `${index}` are none of a pattern.
        let first = expand_index(pattern, group.array.map(|(first, _)| first));
        if !is_glob(&first) {
            continue;
        }
        let read = GlobBuilder::new(&first).literal_separator(true).build();
        if let Err(error) = read {
            return wrong(
                output(at, item),
                format!("the output {pattern:?} is no pattern: {}", error.kind()),
                "write `*` for any part of a name, `**` for any folders, `[ab]` for one of these",
            );
        }
    }
    Ok(())
}

/// All tasks of an array would leave the same file.
fn check_array(at: usize, group: &Group) -> Checked<()> {
    if group.count() < 2 {
        return Ok(());
    }
    for (item, name) in names(group) {
        if let Name::Plain(name) = name {
            return wrong(
                output(at, item),
                format!(
                    "all tasks of the array {:?} would leave the output {name:?}",
                    group.id
                ),
                "write `${index}` into its name; or end it with `/` where it is a folder whose files have names of \
                 their own",
            );
        }
    }
    Ok(())
}

fn check_inputs(
    spec: &JobSpec,
    at: usize,
    group: &Group,
    by_id: &BTreeMap<&str, &Group>,
) -> Checked<()> {
    let place = |item| Place {
        group: Some(at),
        key: "inputs",
        item: Some(item),
    };
    let both = |place, name: &str| {
        wrong(
            place,
            format!("two inputs of task {:?} would lie at {name:?}", group.id),
            "give the outputs of the tasks before it, and its files, different names",
        )
    };
    let mut there = Names::default();
    let mut seen = BTreeSet::new();
    for (item, input) in group.inputs.iter().enumerate() {
        match input {
            Input::Task(id) if seen.insert(&**id) => {
                let Some(from) = by_id.get(&**id) else {
                    continue;
                };
                for (_, name) in names(from) {
                    if let Err((name, _)) = there.add(name, from) {
                        return both(place(item), &name);
                    }
                }
            }
            Input::Task(_) => {}
            Input::File(file) => {
                let name = Name::Plain(spec.files()[*file as usize].path.to_string());
                if let Err((name, _)) = there.add(name, group) {
                    return both(place(item), &name);
                }
            }
            Input::FileEach(_) => {}
        }
    }
    for (item, input) in group.inputs.iter().enumerate() {
        if let Input::FileEach(first) = input {
            let files = &spec.files()[*first as usize..][..group.count() as usize];
            if let Some(file) = files.iter().find(|file| there.holder(&file.path).is_some()) {
                return both(place(item), &file.path);
            }
        }
    }
    Ok(())
}

/// The names of files that each task of a group leaves, with their positions in its outputs; patterns and folders
/// are left out.
fn names(group: &Group) -> impl Iterator<Item = (usize, Name)> {
    let outputs = group.outputs.iter().enumerate();
    outputs.filter_map(|(item, output)| {
        let first = expand_index(output, group.array.map(|(first, _)| first));
        let named = !is_glob(&first) && !output.ends_with('/');
        let fresh = !group.outputs[..item].contains(output);
        (named && fresh)
            .then(|| name(group, output))
            .flatten()
            .map(|name| (item, name))
    })
}

/// Nothing for a name with more than one index.
fn name(group: &Group, output: &str) -> Option<Name> {
    let mut parts = vec![String::new()];
    let array = group.array.is_some() && has_index(output);
    for piece in pieces(output) {
        match piece {
            Piece::Name { name: "index", .. } if array => parts.push(String::new()),
            Piece::Text(text) | Piece::Name { written: text, .. } => {
                parts.last_mut()?.push_str(text);
            }
        }
    }
    let last = parts.pop()?;
    match (parts.pop(), parts.pop()) {
        (None, _) => Some(Name::Plain(last)),
        (Some(first), None) => Some(Name::Indexed(first, last)),
        _ => None,
    }
}

impl<'a> Names<'a> {
    /// Adds a file of a group; gives a name that is taken, and whose it is.
    fn add(&mut self, name: Name, group: &'a Group) -> Result<(), (String, &'a Group)> {
        match name {
            Name::Plain(name) => match self.holder(&name) {
                Some(other) => return Err((name, other)),
                None => drop(self.plain.insert(name, group)),
            },
            Name::Indexed(before, behind) => {
                let (from, to) = group.array.unwrap_or((0, 1));
                let begins = self.plain.range(before.clone()..);
                for (name, other) in begins.take_while(|(name, _)| name.starts_with(&before)) {
                    let index = name
                        .strip_prefix(&*before)
                        .and_then(|rest| index_in(rest, &behind));
                    if index.is_some_and(|index| (from..to).contains(&index)) {
                        return Err((name.clone(), other));
                    }
                }
                let key = (before, behind);
                let same = self.indexed.get(&key).into_iter().flatten();
                for other in same {
                    if from < other.to && other.from < to {
                        let ((before, behind), both) = (key, from.max(other.from));
                        return Err((format!("{before}{both}{behind}"), other.group));
                    }
                }
                self.indexed
                    .entry(key)
                    .or_default()
                    .push(Indices { from, to, group });
            }
        }
        Ok(())
    }

    /// Whose a name is.
    fn holder(&self, name: &str) -> Option<&'a Group> {
        if let Some(group) = self.plain.get(name) {
            return Some(group);
        }
        if self.indexed.is_empty() {
            return None;
        }
        // Every run of digits may be an index.
        let digit = |at: usize| name.as_bytes().get(at).is_some_and(u8::is_ascii_digit);
        for start in (0..name.len()).filter(|at| digit(*at)) {
            let length = (start..).take_while(|at| digit(*at)).count();
            for end in start + 1..=start + length.min(INDEX_DIGITS_MAX) {
                let key = (name[..start].to_owned(), name[end..].to_owned());
                let Some(arrays) = self.indexed.get(&key) else {
                    continue;
                };
                let index = index_in(&name[start..], &key.1);
                let holds = |array: &&Indices<'_>| {
                    index.is_some_and(|index| (array.from..array.to).contains(&index))
                };
                if let Some(array) = arrays.iter().find(holds) {
                    return Some(array.group);
                }
            }
        }
        None
    }
}

/// The index at the beginning of a text that ends with `behind`, as it is written into names.
fn index_in(text: &str, behind: &str) -> Option<u32> {
    let digits = text.strip_suffix(behind)?;
    let index: u32 = digits.parse().ok()?;
    (index.to_string() == digits).then_some(index)
}

#[cfg(test)]
mod tests {
    use super::super::{CriticalRule, Draft, Qos, SpecError};
    use super::*;
    use crate::{Data, FileEntry};

    fn task(id: &str, array: Option<(u32, u32)>, outputs: &[&str], inputs: &[&str]) -> Group {
        Group {
            array,
            outputs: outputs.iter().map(|name| (*name).into()).collect(),
            inputs: inputs.iter().map(|id| Input::Task((*id).into())).collect(),
            ..Group::program(id, &["true"])
        }
    }

    fn job(groups: Vec<Group>) -> Draft {
        Draft {
            name: "t".into(),
            qos: Qos::default(),
            critical: CriticalRule::default(),
            files: vec![],
            groups,
        }
    }

    fn mistake(groups: Vec<Group>) -> SpecError {
        JobSpec::new(job(groups)).unwrap_err()
    }

    fn place(error: &SpecError) -> (Option<usize>, &'static str, Option<usize>) {
        (error.place.group, error.place.key, error.place.item)
    }

    #[test]
    fn patterns_that_cannot_be_read_are_refused() {
        for pattern in ["a[", "{a", "[z-a]", "x/[!"] {
            let error = mistake(vec![task("a", None, &["fine", pattern], &[])]);
            assert_eq!(place(&error), (Some(0), "outputs", Some(1)), "{error}");
        }
        JobSpec::new(job(vec![task("a", None, &["[ab]*.{c,d}", "a]"], &[])])).unwrap();
    }

    #[test]
    fn results_with_the_same_name_are_refused() {
        let plain = mistake(vec![
            task("a", None, &["x"], &[]),
            task("b", None, &["y", "x"], &[]),
        ]);
        assert_eq!(place(&plain), (Some(1), "outputs", Some(1)));
        assert!(plain.what.contains("\"a\" and \"b\""), "{plain}");
        let array = mistake(vec![task("a", Some((0, 3)), &["x"], &[])]);
        assert!(array.help.contains("${index}"), "{array}");
        for (first, second) in [
            ("x-${index}", "x-${index}"),
            ("x-12", "x-${index}"),
            ("x-${index}", "x-12"),
        ] {
            let one = |name: &str| (!name.contains("12")).then_some((5, 20));
            let groups = vec![
                task("a", one(first), &[first], &[]),
                task("b", one(second), &[second], &[]),
            ];
            let error = mistake(groups);
            assert_eq!(place(&error), (Some(1), "outputs", Some(0)), "{error}");
        }
    }

    #[test]
    fn names_that_differ_or_go_different_ways_are_fine() {
        let fine = |groups| JobSpec::new(job(groups)).map(drop).unwrap();
        let (low, high) = (Some((0, 10)), Some((10, 20)));
        fine(vec![
            task("a", low, &["x-${index}"], &[]),
            task("b", high, &["x-${index}"], &[]),
        ]);
        fine(vec![
            task("a", low, &["x-${index}"], &[]),
            task("b", None, &["x-10", "x-01"], &[]),
        ]);
        fine(vec![
            task("a", low, &["out/", "*.png"], &[]),
            task("b", None, &["out/", "*.png"], &[]),
        ]);
        fine(vec![task("a", None, &["x", "x"], &[])]);
        // Each is read by another task, and neither is a result.
        fine(vec![
            task("a", None, &["x"], &[]),
            task("b", None, &["x"], &[]),
            task("c", None, &["c"], &["a"]),
            task("d", None, &["d"], &["b", "b"]),
        ]);
    }

    #[test]
    fn inputs_with_the_same_name_are_refused() {
        let both = mistake(vec![
            task("a", None, &["x-3"], &[]),
            task("b", Some((0, 9)), &["x-${index}"], &[]),
            task("c", None, &["c"], &["a", "b"]),
        ]);
        assert_eq!(place(&both), (Some(2), "inputs", Some(1)), "{both}");
        assert!(both.what.contains("\"x-3\""), "{both}");
        for input in [Input::File(0), Input::FileEach(0)] {
            let file = FileEntry {
                path: "x".into(),
                executable: false,
                data: Data::Inline([0].as_slice().into()),
            };
            let mut reader = task("b", None, &[], &["a"]);
            reader.inputs.push(input);
            let draft = Draft {
                files: vec![file],
                ..job(vec![task("a", None, &["x"], &[]), reader])
            };
            let error = JobSpec::new(draft).unwrap_err();
            assert_eq!(place(&error), (Some(1), "inputs", Some(1)), "{error}");
        }
    }

    #[test]
    fn a_job_that_was_taken_by_an_earlier_version_is_read() {
        let draft = job(vec![task("a", Some((0, 3)), &["x", "a["], &[])]);
        let bytes = rmp_serde::to_vec_named(&draft).unwrap();
        let spec = JobSpec::decode(&bytes).unwrap();
        assert!(spec.check_names().is_err());
    }
}
