//! Parameters of a group: axes of values, and one task for each combination of them. The last axis varies fastest,
//! like the innermost of nested loops.

use super::validate::{Checked, Place, wrong};
use super::{Group, WORD_BYTES_MAX};
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// The most tasks of one group with parameters, because the names of their output files are compared one by one.
pub const COMBINATIONS_MAX: u32 = 1_000_000;
/// The most parameters of one group, because each assignment carries all their values.
pub const PARAMETERS_MAX: usize = 32;
/// The longest name of a parameter, in bytes.
const NAME_BYTES_MAX: usize = 64;
/// Names with a special meaning.
const RESERVED: [&str; 2] = ["index", "hedge"];

/// Parameters that change together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Axis {
    /// One parameter that takes whole numbers.
    Range {
        /// Its name.
        name: Arc<str>,
        /// The first number.
        from: u32,
        /// The number after the last.
        to: u32,
    },
    /// Parameters with their values in columns of equal length.
    Table(Vec<Column>),
}

/// A parameter and its values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Its name.
    pub name: Arc<str>,
    /// Its values, in order.
    pub values: Texts,
}

/// A list of texts in one allocation, so that a million lines cost little more memory than their characters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Texts {
    all: String,
    /// The end of each text.
    ends: Vec<u32>,
}

impl Texts {
    /// Returns the number of texts.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Returns whether there are no texts.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Returns the text at a position below [`Texts::len`].
    pub fn get(&self, at: usize) -> &str {
        let from = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.all[from as usize..self.ends[at] as usize]
    }

    /// All texts, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).map(|at| self.get(at))
    }

    /// Appends a text. Returns false, and appends nothing, if the total would exceed 4 GiB.
    pub fn push(&mut self, text: &str) -> bool {
        let Ok(end) = u32::try_from(self.all.len().saturating_add(text.len())) else {
            return false;
        };
        self.all.push_str(text);
        self.ends.push(end);
        true
    }
}

impl<T: AsRef<str>> FromIterator<T> for Texts {
    fn from_iter<I: IntoIterator<Item = T>>(from: I) -> Self {
        let mut texts = Self::default();
        for text in from {
            if !texts.push(text.as_ref()) {
                break;
            }
        }
        texts
    }
}

impl Serialize for Texts {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Texts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of texts")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Texts, A::Error> {
                let mut texts = Texts::default();
                while let Some(text) = list.next_element::<String>()? {
                    if !texts.push(&text) {
                        return Err(serde::de::Error::custom("the texts are too long"));
                    }
                }
                Ok(texts)
            }
        }
        from.deserialize_seq(Reader)
    }
}

impl Axis {
    /// Returns the number of its values; 0 if it is not valid.
    pub fn len(&self) -> usize {
        match self {
            Axis::Range { from, to, .. } => to.saturating_sub(*from) as usize,
            Axis::Table(columns) => columns.first().map_or(0, |column| column.values.len()),
        }
    }

    /// Returns whether it has no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Names of its parameters.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        let (range, columns) = match self {
            Axis::Range { name, .. } => (Some(name), &[][..]),
            Axis::Table(columns) => (None, columns.as_slice()),
        };
        range.into_iter().chain(columns.iter().map(|it| &it.name))
    }

    /// Appends to `text` the value at `at` of the axis's parameter number `column`.
    fn write(&self, column: usize, at: usize, text: &mut String) {
        use fmt::Write;
        // Writing into a String does not fail.
        let _ = match self {
            Axis::Range { from, .. } => write!(text, "{}", *from as usize + at),
            Axis::Table(columns) => text.write_str(columns[column].values.get(at)),
        };
    }

    /// Returns the length of a parameter's longest value, in bytes.
    fn longest(&self, column: usize) -> usize {
        match self {
            Axis::Range { to, .. } => to.to_string().len(),
            Axis::Table(columns) => {
                let lengths = columns[column].values.iter().map(str::len);
                lengths.max().unwrap_or(0)
            }
        }
    }
}

impl Group {
    /// Returns how many tasks these axes produce; none if `u32` cannot count them.
    pub fn combinations(axes: &[Axis]) -> Option<u32> {
        let mut counts = axes.iter().map(|axis| u32::try_from(axis.len()).ok());
        counts.try_fold(1u32, |all, count| all.checked_mul(count?))
    }

    /// Returns the names of its parameters, in the order of its axes.
    pub fn parameters(&self) -> Vec<Arc<str>> {
        self.axes.iter().flat_map(Axis::names).cloned().collect()
    }

    /// Returns the values of its parameters in the task at `offset`, which must be below [`Group::count`].
    pub fn values(&self, offset: u32) -> Vec<Arc<str>> {
        let all = self.axes.iter().enumerate();
        let columns = all.flat_map(|(at, axis)| (0..axis.names().count()).map(move |it| (at, it)));
        let value = |(axis, column)| {
            let mut text = String::new();
            self.write_value(offset, axis, column, &mut text);
            text.into()
        };
        columns.map(value).collect()
    }

    /// Appends a parameter's value in the task at `offset`. The parameter is given by the position of its axis and
    /// its position within it.
    pub(super) fn write_value(&self, offset: u32, axis: usize, column: usize, text: &mut String) {
        let behind = self.axes[axis + 1..].iter();
        let stride: usize = behind.map(Axis::len).product();
        let it = &self.axes[axis];
        it.write(column, offset as usize / stride % it.len(), text);
    }

    /// Returns the position of a parameter's axis and its position within it.
    pub(super) fn parameter(&self, name: &str) -> Option<(usize, usize)> {
        self.axes.iter().enumerate().find_map(|(at, axis)| {
            let column = axis.names().position(|other| &**other == name)?;
            Some((at, column))
        })
    }

    /// Returns its parameters, each with the length of its longest value in bytes.
    pub(super) fn longest_values(&self) -> Vec<(Arc<str>, usize)> {
        let of_axis = |axis: &Axis| -> Vec<_> {
            let names = axis.names().cloned().enumerate();
            names.map(|(at, name)| (name, axis.longest(at))).collect()
        };
        self.axes.iter().flat_map(of_axis).collect()
    }
}

/// Returns whether a text can be a parameter's name: letters, digits and `_`, not starting with a digit.
pub fn is_parameter_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.chars().all(fits)
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && !RESERVED.contains(&name)
}

/// The rule for names of parameters, for messages.
pub const PARAMETER_NAME: &str =
    "use letters, digits and '_', no digit first, at most 64 of them, and not `index` or `hedge`";

pub(super) fn check_axes(at: usize, group: &Group) -> Checked<()> {
    let place = Place {
        group: Some(at),
        key: "each",
        item: None,
    };
    if group.axes.is_empty() {
        return Ok(());
    }
    let mut names = BTreeSet::new();
    for name in group.axes.iter().flat_map(Axis::names) {
        if !is_parameter_name(name) {
            let what = format!("{name:?} cannot be the name of a parameter");
            return wrong(place, what, PARAMETER_NAME);
        }
        if !names.insert(name) {
            let what = format!("the parameter {name:?} is given twice");
            return wrong(place, what, "give each parameter a name of its own");
        }
    }
    if names.len() > PARAMETERS_MAX {
        let what = format!("the task has {} parameters", names.len());
        return wrong(place, what, format!("at most {PARAMETERS_MAX} are taken"));
    }
    for axis in group.axes.iter() {
        check_axis(place, axis)?;
    }
    let most = |count: &u32| *count <= COMBINATIONS_MAX;
    let Some(count) = Group::combinations(&group.axes).filter(most) else {
        return wrong(
            place,
            format!("the parameters make more than {COMBINATIONS_MAX} tasks"),
            "split them between several tasks, or use an array",
        );
    };
    if group.array != Some((0, count)) {
        return wrong(
            place,
            format!("the parameters make {count} tasks, and the array says otherwise"),
            "leave the array out",
        );
    }
    Ok(())
}

fn check_axis(place: Place, axis: &Axis) -> Checked<()> {
    let no_value = |name: &str| {
        let what = format!("the parameter {name:?} has no value");
        wrong(place, what, "give it one at least, or leave it out")
    };
    let Axis::Table(columns) = axis else {
        return match axis.names().next() {
            Some(name) if axis.is_empty() => no_value(name),
            _ => Ok(()),
        };
    };
    if columns.is_empty() {
        let what = "a list of parameters is empty";
        return wrong(place, what, "name one at least, or leave it out");
    }
    for Column { name, values } in columns {
        if values.is_empty() {
            return no_value(name);
        }
        if values.len() != axis.len() {
            return wrong(
                place,
                format!("the parameter {name:?} does not have as many values as those beside it"),
                "give all of them as many",
            );
        }
        if values.iter().any(|value| value.contains('\0')) {
            return wrong(
                place,
                format!("a value of {name:?} holds a NUL, which no program can be given"),
                "remove it",
            );
        }
        if values.iter().any(|value| value.len() > WORD_BYTES_MAX) {
            return wrong(
                place,
                format!(
                    "a value of {name:?} is longer than the {WORD_BYTES_MAX} bytes that Linux gives a program"
                ),
                "put long texts into files",
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{CriticalRule, Draft, JobSpec, Qos, SpecError};
    use super::*;

    fn table(columns: &[(&str, &[&str])]) -> Axis {
        let column = |(name, values): &(&str, &[&str])| Column {
            name: (*name).into(),
            values: values.iter().collect(),
        };
        Axis::Table(columns.iter().map(column).collect())
    }

    fn range(name: &str, from: u32, to: u32) -> Axis {
        let name = name.into();
        Axis::Range { name, from, to }
    }

    fn group(axes: Vec<Axis>) -> Group {
        Group {
            array: Some((0, Group::combinations(&axes).unwrap_or(0))),
            axes: axes.into(),
            ..Group::program("a", &["true"])
        }
    }

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

    /// A pseudorandom sequence.
    fn next(state: &mut u64, below: u64) -> u64 {
        *state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (*state >> 33) % below
    }

    /// Returns all combinations, by nested loops.
    fn all(axes: &[Axis]) -> Vec<Vec<String>> {
        let Some((first, rest)) = axes.split_first() else {
            return vec![Vec::new()];
        };
        let behind = all(rest);
        let rows = (0..first.len()).map(|at| {
            let cell = |column| {
                let mut text = String::new();
                first.write(column, at, &mut text);
                text
            };
            (0..first.names().count()).map(cell).collect::<Vec<_>>()
        });
        rows.flat_map(|row| {
            behind
                .iter()
                .map(move |rest| [row.clone(), rest.clone()].concat())
        })
        .collect()
    }

    #[test]
    fn each_task_gets_what_nested_loops_would_give_it() {
        let mut state = 7;
        for _ in 0..300 {
            let axes: Vec<Axis> = (0..=next(&mut state, 4))
                .map(|at| {
                    let (count, from) = (1 + next(&mut state, 5), next(&mut state, 1000) as u32);
                    if next(&mut state, 2) == 0 {
                        return range(&format!("r{at}"), from, from + count as u32);
                    }
                    let columns = 1 + next(&mut state, 3);
                    let column = |column| Column {
                        name: format!("c{at}_{column}").into(),
                        values: (0..count)
                            .map(|row| format!("{row}{}", "ä".repeat(column)))
                            .collect(),
                    };
                    Axis::Table((0..columns as usize).map(column).collect())
                })
                .collect();
            let (expected, group) = (all(&axes), group(axes));
            assert_eq!(group.count() as usize, expected.len());
            let found = (0..group.count()).map(|offset| {
                let values = group.values(offset);
                values
                    .iter()
                    .map(|value| value.to_string())
                    .collect::<Vec<_>>()
            });
            assert_eq!(found.collect::<Vec<_>>(), expected);
            let text = "${r0}-${c0_0}-${index}-${c1_0}";
            for (offset, values) in expected.iter().enumerate() {
                let names = group.parameters();
                let value = |name: &str| match name {
                    "index" => Some(offset.to_string()),
                    _ => Some(values[names.iter().position(|other| &**other == name)?].clone()),
                };
                let expected = super::super::placeholders::expand(text, value).into_owned();
                let offset = offset as u32;
                let expanded = group.with_values(offset, |values| values.expand(text).into_owned());
                assert_eq!(expanded, expected);
                let template = super::super::template::Template::new(&group, text);
                assert_eq!(template.expand(offset), expected);
            }
            let spec = job(group).unwrap();
            assert_eq!(spec.format(), 3);
            assert_eq!(JobSpec::decode(&spec.encode().unwrap()), Ok(spec));
        }
    }

    #[test]
    fn texts_are_what_was_put_in() {
        let texts: Texts = ["a", "", "äö", ""].iter().collect();
        assert_eq!(texts.iter().collect::<Vec<_>>(), ["a", "", "äö", ""]);
        let json = serde_json::to_string(&texts).unwrap();
        assert_eq!((&*json, texts.len()), (r#"["a","","äö",""]"#, 4));
        assert_eq!(serde_json::from_str::<Texts>(&json).unwrap(), texts);
    }

    #[test]
    fn parameters_that_cannot_be_are_refused() {
        for axes in [
            vec![range("index", 0, 2)],
            vec![range("1st", 0, 2)],
            vec![range("a-b", 0, 2)],
            vec![range("a", 0, 2), range("a", 0, 2)],
            vec![range("a", 2, 2)],
            vec![range("a", 0, 1001), range("b", 0, 1000)],
            vec![table(&[])],
            vec![table(&[("a", &[])])],
            vec![table(&[("a", &["1", "2"]), ("b", &["1"])])],
            vec![table(&[("a", &["1\0"])])],
            (0..=PARAMETERS_MAX)
                .map(|at| range(&format!("p{at}"), 0, 1))
                .collect(),
        ] {
            let error = job(group(axes)).unwrap_err();
            assert_eq!(
                (error.place.group, error.place.key),
                (Some(0), "each"),
                "{error}"
            );
        }
        let wrong = Group {
            array: Some((1, 3)),
            ..group(vec![range("a", 0, 2)])
        };
        assert_eq!(job(wrong).unwrap_err().place.key, "each");
        assert!(job(group(vec![range("a", 0, 1000), range("b", 0, 1000)])).is_ok());
    }

    #[test]
    fn an_outline_forgets_values_and_keeps_the_tasks() {
        let values: Vec<String> = (0..1000).map(|at| format!("value {at}")).collect();
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        let spec = job(group(vec![table(&[("a", &values)])])).unwrap();
        let outline = spec.outline();
        assert_eq!(
            (outline.task_count(), outline.label(7)),
            (1000, "a.7".to_owned())
        );
        assert!(outline.encoded_bytes() < 500);
    }
}
