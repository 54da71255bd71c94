//! Taking typed values out of a tree, noting every mistake instead of stopping at the first.

use crate::Mistake;
use crate::keys::{Key, Kind, Table};
use crate::tree::{Entry, Node, Value};
use hedge_model::units::{UnitError, parse_bytes, parse_duration};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// Notes mistakes while values are taken.
#[derive(Default)]
pub(super) struct Reader {
    pub mistakes: Vec<Mistake>,
    /// Names of the job's parameters.
    pub parameters: Vec<Arc<str>>,
}

/// A key's meaning where it is known from the design or from elsewhere, but not taken.
const HINTS: [(&str, &str); 11] = [
    (
        "crash_limit",
        "a task that fails is tried `retries` times more",
    ),
    ("request", "what a task takes is written in `resources`"),
    (
        "stdout",
        "what a task prints is kept, see `hedge logs`; files are named in `outputs`",
    ),
    (
        "stderr",
        "what a task prints is kept, see `hedge logs`; files are named in `outputs`",
    ),
    (
        "cpus",
        "write it within `resources`: resources = { cpus = 2 }",
    ),
    (
        "memory",
        "write it within `resources`: resources = { memory = \"1 GiB\" }",
    ),
    (
        "disk",
        "write it within `resources`: resources = { disk = \"1 GiB\" }",
    ),
    (
        "gpus",
        "write it within `resources`: resources = { gpus = 1 }",
    ),
    (
        "entries",
        "write each = { name = [1, 2] }, or the name of a file with one value on each line: each_line = \"values.txt\"",
    ),
    (
        "tasks",
        "each task is a [[task]] table (in JSON: \"task\": [{ … }])",
    ),
    (
        "arch",
        "write it within `labels`: labels = { arch = \"x86_64\" }",
    ),
];

impl Reader {
    pub fn wrong(&mut self, span: &Range<usize>, what: impl Into<String>, help: impl Into<String>) {
        self.mistakes.push(Mistake::new(span.clone(), what, help));
    }

    /// The entries of a table, each of a known key.
    pub fn table<'a>(&mut self, node: &'a Node, table: &'static Table) -> Fields<'a> {
        let entries = self.entries(node, table.name);
        for entry in entries {
            if table.others.is_none() && table.find(&entry.key).is_none() {
                self.unknown(entry, table);
            }
        }
        Fields { table, entries }
    }

    /// The entries of the table at `node`, whatever their keys.
    pub fn entries<'a>(&mut self, node: &'a Node, what: &str) -> &'a [Entry] {
        let Value::Table(entries) = &node.value else {
            let kind = node.value.kind();
            self.wrong(
                &node.span,
                format!("{what} is {kind} here, but must be a table"),
                format!("write {what} as a table of keys and values"),
            );
            return &[];
        };
        entries
    }

    fn unknown(&mut self, entry: &Entry, table: &Table) {
        let all = table.names();
        let nearest = table
            .keys
            .iter()
            .map(|key| (strsim::osa_distance(&entry.key, key.name), key.name))
            .min()
            .filter(|(distance, name)| *distance <= (name.len() / 3).max(1));
        let hint = HINTS.iter().find(|(key, _)| *key == entry.key);
        let help = match (nearest, hint) {
            (Some((_, name)), _) => format!("did you mean `{name}`? Known are {all}"),
            (None, Some((_, hint))) => format!("{hint}. Known are {all}"),
            (None, None) => format!("known are {all}"),
        };
        self.wrong(
            &entry.key_span,
            format!("`{}` is not a key of {}", entry.key, table.name),
            help,
        );
    }

    fn kind(&mut self, field: &Field<'_>, must: &str) {
        let kind = field.node.value.kind();
        self.wrong(
            &field.node.span,
            format!("`{}` is {kind} here, but must be {must}", field.key.name),
            format!("write {}", field.key.written()),
        );
    }

    /// A text.
    pub fn text(&mut self, field: &Field<'_>) -> Option<Arc<str>> {
        if let Value::Text(text) = &field.node.value {
            return Some(text.as_str().into());
        }
        self.kind(field, "a text");
        None
    }

    /// A list of texts.
    pub fn texts(&mut self, field: &Field<'_>) -> Vec<Arc<str>> {
        let items = self.list(field).iter();
        items
            .filter_map(|item| self.text(&field.of(item)))
            .collect()
    }

    /// A table of texts whose keys are free.
    pub fn pairs(&mut self, field: &Field<'_>) -> Vec<(Arc<str>, Arc<str>)> {
        let entries = self.entries(field.node, &format!("`{}`", field.key.name));
        let pair = |entry: &Entry| {
            let value = self.text(&field.of(&entry.node))?;
            Some((entry.key.as_str().into(), value))
        };
        entries.iter().filter_map(pair).collect()
    }

    /// A list's items.
    pub fn list<'a>(&mut self, field: &Field<'a>) -> &'a [Node] {
        if let Value::List(items) = &field.node.value {
            return items;
        }
        self.kind(field, "a list");
        &[]
    }

    /// True or false.
    pub fn flag(&mut self, field: &Field<'_>) -> Option<bool> {
        if let Value::Bool(value) = field.node.typed() {
            return Some(*value);
        }
        self.kind(field, "true or false");
        None
    }

    /// A whole number within the key's bounds.
    pub fn whole(&mut self, field: &Field<'_>) -> Option<i64> {
        let (min, max) = match field.key.kind {
            Kind::Whole(min, max) => (min, max),
            _ => (i64::MIN, i64::MAX),
        };
        match field.node.typed() {
            Value::Int(number) if (min..=max).contains(number) => return Some(*number),
            Value::Int(number) => self.wrong(
                &field.node.span,
                format!("`{}` is {number}, which is out of range", field.key.name),
                format!("write a number from {min} to {max}"),
            ),
            _ => self.kind(field, "a whole number"),
        }
        None
    }

    /// A duration with its unit.
    pub fn duration(&mut self, field: &Field<'_>) -> Option<Duration> {
        self.unit(field, parse_duration)
    }

    /// An amount of bytes with its unit.
    pub fn bytes(&mut self, field: &Field<'_>) -> Option<u64> {
        self.unit(field, parse_bytes)
    }

    fn unit<T>(
        &mut self,
        field: &Field<'_>,
        parse: impl Fn(&str) -> Result<T, UnitError>,
    ) -> Option<T> {
        let (name, span) = (field.key.name, &field.node.span);
        let text = match &field.node.value {
            Value::Text(text) => text,
            Value::Int(number) => {
                self.wrong(
                    span,
                    format!("`{name}` is {number} without a unit"),
                    format!(
                        "write a number and its unit in quotes, like {}",
                        field.key.example
                    ),
                );
                return None;
            }
            _ => {
                self.kind(field, "a text");
                return None;
            }
        };
        let error = match parse(text) {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        self.wrong(
            span,
            format!("`{name}`: {:?} is not {}", error.text, error.what),
            format!("write {}", error.example),
        );
        None
    }

    /// One of `words`; `wrong` says what another word is not.
    pub fn word<T: Copy>(
        &mut self,
        field: &Field<'_>,
        wrong: &str,
        words: &[(&str, T, &str)],
    ) -> Option<T> {
        let text = self.text(field)?;
        let found = words.iter().find(|(word, ..)| *word == &*text);
        if found.is_none() {
            let name = field.key.name;
            let known: Vec<String> = words
                .iter()
                .map(|(word, ..)| format!("{name} = {word:?}"))
                .collect();
            self.wrong(
                &field.node.span,
                format!("{text:?} {wrong}"),
                format!("write {}", known.join(" or ")),
            );
        }
        found.map(|(_, value, _)| *value)
    }
}

/// The entries of a table.
pub(super) struct Fields<'a> {
    table: &'static Table,
    pub entries: &'a [Entry],
}

/// A key with its value.
#[derive(Clone, Copy)]
pub(super) struct Field<'a> {
    pub key: &'static Key,
    pub node: &'a Node,
}

impl<'a> Fields<'a> {
    /// A key of the table, where it is given.
    pub fn get(&self, name: &str) -> Option<Field<'a>> {
        let key = self.table.find(name);
        debug_assert!(key.is_some(), "{name} is missing in {}", self.table.name);
        let entry = self.entries.iter().find(|entry| entry.key == name)?;
        Some(Field {
            key: key?,
            node: &entry.node,
        })
    }

    /// All keys of the table that are given.
    pub fn given(&self) -> impl Iterator<Item = Field<'a>> {
        let names = self.table.keys.iter().map(|key| key.name);
        names.filter_map(|name| self.get(name))
    }
}

impl Field<'_> {
    /// The same key with another value: an item of its list, or an entry of its table.
    pub fn of<'b>(&self, node: &'b Node) -> Field<'b> {
        Field {
            key: self.key,
            node,
        }
    }
}
