//! The parameters of a task: values in the job file, lines of a file, and files that match a pattern.

use crate::Wanted;
use crate::fields::{Fields, Reader};
use crate::find::{Finder, Wrong, cannot_read, no_file};
use crate::mistake::Mistake;
use crate::read::parse_array;
use crate::tree::{Entry, Node, Value};
use hedge_model::JobSpec;
use hedge_model::spec::{
    Axis, COMBINATIONS_MAX, Column, Draft, Group, Input, PARAMETER_NAME, SPEC_BYTES_MAX, SpecError,
    Texts, WORD_BYTES_MAX, is_parameter_name,
};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// Files that a task's parameters come from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WantedEach {
    /// The name of the file whose lines are values, and where it is written.
    lines: Option<(String, Range<usize>)>,
    /// The pattern of the files that are values, and where it is written.
    files: Option<(String, Range<usize>)>,
}

impl WantedEach {
    /// Whether there are values that are in files.
    pub fn is_later(&self) -> bool {
        self.lines.is_some() || self.files.is_some()
    }
}

/// A job of which it is not known yet how many tasks there are: only what does not follow from that is checked.
pub fn unchecked(mut draft: Draft) -> Result<JobSpec, SpecError> {
    for group in &mut draft.groups {
        for input in &mut group.inputs {
            if let Input::TaskEach(id) = input {
                *input = Input::Task(id.clone());
            }
        }
        group
            .deps
            .extend(Vec::from(std::mem::take(&mut group.deps_each)));
    }
    let spec = JobSpec::try_from(draft)?;
    spec.check_size()?;
    Ok(spec)
}

/// Reads `each`, `each_line` and `each_file`, which make an array of the task; false where they are wrong. The parameters
/// whose values are in files have one value each until these are found.
pub fn read_each(
    reader: &mut Reader,
    fields: &Fields<'_>,
    group: &mut Group,
    wanted: &mut Wanted,
) -> bool {
    let before = reader.mistakes.len();
    let mut axes = Vec::new();
    if let Some(field) = fields.get("each") {
        let table = reader.entries(field.node, "`each`");
        axes.extend(table.iter().filter_map(|entry| read_axis(reader, entry)));
        if table.is_empty() && reader.mistakes.len() == before {
            let help = format!("write {}", field.key.written());
            reader.wrong(&field.node.span, "`each` names no parameter", help);
        }
    }
    let mut named = |key, names: &[&str]| {
        let field = fields.get(key)?;
        let name = reader.text(&field)?.to_string();
        axes.push(unknown_yet(names));
        Some((name, field.node.span.clone()))
    };
    wanted.each = WantedEach {
        lines: named("each_line", &["line"]),
        files: named("each_file", &["file", "stem"]),
    };
    if axes.is_empty() {
        return reader.mistakes.len() == before;
    }
    check_names(reader, fields, &axes);
    if let Some(array) = fields.get("array") {
        reader.wrong(
            &array.node.span,
            "a task has either `array` or parameters of its own",
            "write the indexes as a parameter: each = { number = \"0..60\" }",
        );
    }
    let fits = |count: &u32| *count <= COMBINATIONS_MAX;
    match Group::combinations(&axes).filter(fits) {
        Some(count) => group.array = Some((0, count)),
        None => {
            let span = fields
                .get("each")
                .map_or(0..0, |field| field.node.span.clone());
            let (what, help) = too_many();
            reader.wrong(&span, what, help);
        }
    }
    group.axes = axes.into();
    reader.mistakes.len() == before
}

fn too_many() -> Wrong {
    (
        format!("the parameters make more than {COMBINATIONS_MAX} tasks"),
        "split them between several tasks, or use an array".to_owned(),
    )
}

/// Parameters whose values are found later.
fn unknown_yet(names: &[&str]) -> Axis {
    let column = |name: &&str| Column {
        name: (*name).into(),
        values: [*name].iter().collect(),
    };
    Axis::Table(names.iter().map(column).collect())
}

/// No name may have two meanings.
fn check_names(reader: &mut Reader, fields: &Fields<'_>, axes: &[Axis]) {
    let mut names: Vec<Arc<str>> = reader.parameters.clone();
    for name in axes.iter().flat_map(Axis::names) {
        if names.contains(name) {
            let keys = ["each", "each_line", "each_file"];
            let field = keys.into_iter().find_map(|key| fields.get(key));
            let span = field.map_or(0..0, |field| field.node.span.clone());
            reader.wrong(
                &span,
                format!("there is another parameter `{name}`, of the job or of this task"),
                "give one of them another name; `each_line` gives `line`, `each_file` gives `file` and `stem`",
            );
        }
        names.push(name.clone());
    }
}

fn read_axis(reader: &mut Reader, entry: &Entry) -> Option<Axis> {
    let (name, node) = (entry.key.as_str(), &entry.node);
    if !is_parameter_name(name) {
        let what = format!("{name:?} cannot be the name of a parameter");
        reader.wrong(&entry.key_span, what, PARAMETER_NAME);
        return None;
    }
    let help =
        format!("write a list of values, or a range: {name} = [0.1, 0.01], or {name} = \"0..5\"");
    match &node.value {
        Value::Text(text) => match parse_array(text) {
            Ok((from, to)) if from < to => {
                let name = name.into();
                return Some(Axis::Range { name, from, to });
            }
            Ok(_) => reader.wrong(&node.span, format!("{text:?} holds no number"), help),
            Err(_) => reader.wrong(&node.span, format!("{text:?} is no range"), help),
        },
        Value::List(items) if items.is_empty() => {
            reader.wrong(&node.span, format!("`{name}` has no value"), help);
        }
        Value::List(items) => return read_values(reader, name, items),
        other => {
            let what = format!(
                "`{name}` is {}, but must be a list or a range",
                other.kind()
            );
            reader.wrong(&node.span, what, help);
        }
    }
    None
}

fn read_values(reader: &mut Reader, name: &str, items: &[Node]) -> Option<Axis> {
    let mut values = Texts::default();
    let before = reader.mistakes.len();
    for item in items {
        match item.value.scalar() {
            Some(value) => drop(values.push(&value)),
            None => reader.wrong(
                &item.span,
                format!("a value of `{name}` is {}", item.value.kind()),
                "a value is a text, a number, true or false",
            ),
        }
    }
    let name = name.into();
    (reader.mistakes.len() == before).then(|| Axis::Table(vec![Column { name, values }]))
}

/// Finds the values that are in files, and makes the group's array of them; gives the position of the first of the files
/// that each task gets as an input of its own, and where they are named.
pub fn find_each(
    finder: &mut Finder<'_>,
    group: &mut Group,
    wanted: &WantedEach,
) -> Result<Option<(u32, Range<usize>)>, Mistake> {
    let WantedEach { lines, files } = wanted;
    let later = usize::from(lines.is_some()) + usize::from(files.is_some());
    let mut axes = Vec::from(std::mem::take(&mut group.axes));
    axes.truncate(axes.len() - later);
    let mut matched = None;
    if let Some((name, span)) = lines {
        let values = finder.lines(name).map_err(|wrong| at(span, wrong))?;
        axes.push(lines_axis(values));
    }
    if let Some((pattern, span)) = files {
        let found = finder.matches(pattern).map_err(|wrong| at(span, wrong))?;
        let column = |name: &str, value: fn(&str) -> &str| Column {
            name: name.into(),
            values: found.iter().map(|(_, lands)| value(lands)).collect(),
        };
        axes.push(Axis::Table(vec![
            column("file", |path| path),
            column("stem", stem),
        ]));
        matched = Some((found, span));
    }
    let fits = |count: &u32| *count <= COMBINATIONS_MAX;
    let Some(count) = Group::combinations(&axes).filter(fits) else {
        let span = files.as_ref().or(lines.as_ref()).map(|(_, span)| span);
        return Err(at(span.unwrap_or(&(0..0)), too_many()));
    };
    if !axes.is_empty() {
        group.array = Some((0, count));
    }
    group.axes = axes.into();
    let Some((found, span)) = matched else {
        return Ok(None);
    };
    // They vary fastest.
    let own = found.iter().cycle().take(count as usize);
    let first = finder.add_each(own).map_err(|wrong| at(span, wrong))?;
    Ok(Some((first, span.clone())))
}

/// The parameter that takes the lines of a file.
pub fn lines_axis(values: Texts) -> Axis {
    let name = "line".into();
    Axis::Table(vec![Column { name, values }])
}

fn at(span: &Range<usize>, (what, help): Wrong) -> Mistake {
    Mistake::new(span.clone(), what, help)
}

/// A file's name without its folders and its ending.
fn stem(path: &str) -> &str {
    let stem = Path::new(path).file_stem().and_then(|stem| stem.to_str());
    stem.unwrap_or(path)
}

impl Finder<'_> {
    /// The lines of a file.
    pub fn lines(&self, name: &str) -> Result<Texts, Wrong> {
        let path = self.path(name)?;
        let told = std::fs::metadata(&path).map_err(|error| self.missing("file", name, &error))?;
        if !told.is_file() {
            return Err(no_file(name));
        }
        if told.len() > SPEC_BYTES_MAX as u64 {
            return Err((
                format!("{name:?} is longer than the {SPEC_BYTES_MAX} bytes that a job takes"),
                "split the job".to_owned(),
            ));
        }
        let bytes = std::fs::read(&path).map_err(|error| cannot_read(&path, &error))?;
        lines(name, &bytes)
    }
}

/// The lines of a file that are not blank.
pub fn lines(name: &str, bytes: &[u8]) -> Result<Texts, Wrong> {
    let text = str::from_utf8(bytes).map_err(|error| {
        let number = bytes[..error.valid_up_to()]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count()
            + 1;
        (
            format!("line {number} of {name:?} is no UTF-8 text"),
            "write the file as UTF-8".to_owned(),
        )
    })?;
    let mut lines = Texts::default();
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim().is_empty() {
            continue;
        }
        if line.len() > WORD_BYTES_MAX || line.contains('\0') {
            return Err((
                format!("line {number} of {name:?} cannot be an argument of a program"),
                format!("a line has no NUL and at most {WORD_BYTES_MAX} bytes"),
            ));
        }
        if lines.len() >= COMBINATIONS_MAX as usize || !lines.push(line) {
            return Err((
                format!("{name:?} has more than {COMBINATIONS_MAX} lines"),
                "split the file, and the job".to_owned(),
            ));
        }
    }
    if lines.is_empty() {
        let what = format!("{name:?} has no line that is not blank");
        return Err((what, "write one value on each line".to_owned()));
    }
    Ok(lines)
}
