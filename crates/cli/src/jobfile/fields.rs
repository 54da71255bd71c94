//! Taking typed values out of a tree, noting every mistake instead of stopping at the first.

use super::Mistake;
use super::tree::{Entry, Node, Value};
use std::ops::Range;
use std::sync::Arc;

/// Notes mistakes while values are taken.
#[derive(Default)]
pub(super) struct Reader {
    pub mistakes: Vec<Mistake>,
}

/// A key's meaning where it is known from the design or from elsewhere, but not taken.
const HINTS: [(&str, &str); 11] = [
    ("request", "what a task takes is written in `resources`"),
    (
        "cwd",
        "a task runs in a fresh folder of its own that holds its `inputs`",
    ),
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
        "write the values to files and give each index its own: inputs = [\"in-${index}\"]",
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
    pub fn table<'a>(&mut self, node: &'a Node, what: &str, known: &[&str]) -> Fields<'a> {
        let entries = self.entries(node, what);
        for entry in entries {
            if !known.contains(&&*entry.key) {
                self.unknown(entry, what, known);
            }
        }
        Fields { entries }
    }

    /// The entries of a table whose keys are free.
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

    fn unknown(&mut self, entry: &Entry, what: &str, known: &[&str]) {
        let all = known.join(", ");
        let nearest = known
            .iter()
            .map(|name| (strsim::osa_distance(&entry.key, name), name))
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
            format!("`{}` is not a key of {what}", entry.key),
            help,
        );
    }

    fn kind(&mut self, node: &Node, key: &str, must: &str, example: &str) {
        let kind = node.value.kind();
        self.wrong(
            &node.span,
            format!("`{key}` is {kind} here, but must be {must}"),
            format!("write {example}"),
        );
    }

    /// A text.
    pub fn text(&mut self, node: &Node, key: &str, example: &str) -> Option<Arc<str>> {
        if let Value::Text(text) = &node.value {
            return Some(text.as_str().into());
        }
        self.kind(node, key, "a text", example);
        None
    }

    /// Texts, with where each stands.
    pub fn texts(&mut self, node: &Node, key: &str, example: &str) -> Vec<Arc<str>> {
        let items = self.list(node, key, example);
        items
            .iter()
            .filter_map(|item| self.text(item, key, example))
            .collect()
    }

    /// A list's items.
    pub fn list<'a>(&mut self, node: &'a Node, key: &str, example: &str) -> &'a [Node] {
        if let Value::List(items) = &node.value {
            return items;
        }
        self.kind(node, key, "a list", example);
        &[]
    }

    /// True or false.
    pub fn flag(&mut self, node: &Node, key: &str) -> Option<bool> {
        if let Value::Bool(value) = node.value {
            return Some(value);
        }
        self.kind(node, key, "true or false", &format!("{key} = true"));
        None
    }

    /// A whole number within `range`.
    pub fn whole(&mut self, node: &Node, key: &str, range: Range<i64>) -> Option<i64> {
        match node.value {
            Value::Int(number) if range.contains(&number) => return Some(number),
            Value::Int(number) => self.wrong(
                &node.span,
                format!("`{key}` is {number}, which is out of range"),
                format!("write a number from {} to {}", range.start, range.end - 1),
            ),
            _ => self.kind(node, key, "a whole number", &format!("{key} = 3")),
        }
        None
    }

    /// Text that `parse` understands, such as an amount with its unit.
    pub fn unit<T, E: UnitMistake>(
        &mut self,
        node: &Node,
        key: &str,
        example: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = match &node.value {
            Value::Text(text) => text,
            Value::Int(number) => {
                self.wrong(
                    &node.span,
                    format!("`{key}` is {number} without a unit"),
                    format!("write a number and its unit in quotes, like {example}"),
                );
                return None;
            }
            _ => {
                self.kind(node, key, "a text", example);
                return None;
            }
        };
        match parse(text) {
            Ok(value) => Some(value),
            Err(error) => {
                let (what, help) = error.parts();
                self.wrong(&node.span, format!("`{key}`: {what}"), help);
                None
            }
        }
    }
}

/// A mistake in an amount, in two parts.
pub(super) trait UnitMistake {
    /// What is wrong, what would be right.
    fn parts(&self) -> (String, String);
}

impl UnitMistake for hedge_model::units::UnitError {
    fn parts(&self) -> (String, String) {
        (
            format!("{:?} is not {}", self.text, self.what),
            format!("write {}", self.example),
        )
    }
}

/// What was found of a table's known keys.
pub(super) struct Fields<'a> {
    pub entries: &'a [Entry],
}

impl<'a> Fields<'a> {
    pub fn get(&self, key: &str) -> Option<&'a Node> {
        self.entries
            .iter()
            .find(|entry| entry.key == key)
            .map(|entry| &entry.node)
    }
}
