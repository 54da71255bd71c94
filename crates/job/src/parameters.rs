//! The job's own parameters: what `[parameters]` names stands wherever a text of the job file has `${name}`.

use crate::FILE_BYTES_MAX;
use crate::fields::Reader;
use crate::tree::{Entry, Node, Value};
use hedge_model::spec::placeholders::{Piece, pieces};
use hedge_model::spec::{PARAMETER_NAME, is_parameter_name};
use std::sync::Arc;

/// A value for a parameter of a job file, in the place of its default: its name, and its value.
pub type Setting = (String, String);

/// A parameter with its value, also as text.
struct Parameter {
    name: Arc<str>,
    value: Value,
    text: String,
}

/// How a text is read once the parameters stand in it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It may have placeholders of the task; what else it has is checked with those.
    OfTask,
    /// Content that a program reads: only parameters of the job mean something.
    Content,
    /// Nothing but parameters of the job may stand in it.
    Strict,
}

/// Puts the job's parameters into all texts of the tree; gives their names.
pub fn substitute(root: &mut Node, set: &[Setting], reader: &mut Reader) -> Vec<Arc<str>> {
    let Value::Table(entries) = &mut root.value else {
        return Vec::new();
    };
    let declared = entries.iter().find(|entry| entry.key == "parameters");
    let mut parameters = declared.map_or_else(Vec::new, |entry| read(&entry.node, reader));
    for (name, value) in set {
        let span = declared.map_or(0..0, |entry| entry.key_span.clone());
        match parameters.iter_mut().find(|known| *known.name == **name) {
            Some(known) => match like(&known.value, value) {
                Some(new) => (known.value, known.text) = (new, value.clone()),
                None => reader.wrong(
                    &span,
                    format!(
                        "`{name}` is set to {value:?}, and its default is {}",
                        known.value.kind()
                    ),
                    format!("set it to a value like {}", known.text),
                ),
            },
            None => reader.wrong(
                &span,
                format!("`{name}` is set, but is no parameter of this job"),
                match parameters.is_empty() {
                    true => format!("add it with a default: [parameters] {name} = {value:?}"),
                    false => format!("known are {}", known(&parameters)),
                },
            ),
        }
    }
    let mut filler = Filler {
        parameters: &parameters,
        left: FILE_BYTES_MAX,
        reader,
    };
    for entry in entries {
        match &*entry.key {
            "parameters" => {}
            "task" => filler.tasks(&mut entry.node),
            _ => filler.walk(&mut entry.node, Kind::Strict),
        }
    }
    parameters.into_iter().map(|known| known.name).collect()
}

fn read(node: &Node, reader: &mut Reader) -> Vec<Parameter> {
    let Value::Table(entries) = &node.value else {
        // The reader of the job says so.
        return Vec::new();
    };
    let parameter = |entry: &Entry| {
        if !is_parameter_name(&entry.key) {
            let what = format!("{:?} cannot be the name of a parameter", entry.key);
            reader.wrong(&entry.key_span, what, PARAMETER_NAME);
            return None;
        }
        let Some(text) = entry.node.value.scalar() else {
            let kind = entry.node.value.kind();
            reader.wrong(
                &entry.node.span,
                format!("the parameter `{}` is {kind}", entry.key),
                "a parameter is a text, a number, true or false",
            );
            return None;
        };
        Some(Parameter {
            name: entry.key.as_str().into(),
            value: entry.node.value.clone(),
            text,
        })
    };
    entries.iter().filter_map(parameter).collect()
}

/// A text as a value of the same kind as the default; none where it is no such value.
fn like(default: &Value, text: &str) -> Option<Value> {
    match default {
        Value::Int(_) => text.parse().ok().map(Value::Int),
        Value::Float(..) => {
            let number: f64 = text.parse().ok()?;
            number
                .is_finite()
                .then(|| Value::Float(number, text.to_owned()))
        }
        Value::Bool(_) => text.parse().ok().map(Value::Bool),
        _ => Some(Value::Text(text.to_owned())),
    }
}

fn known(parameters: &[Parameter]) -> String {
    let names = parameters.iter().map(|known| format!("`{}`", known.name));
    names.collect::<Vec<_>>().join(", ")
}

struct Filler<'a> {
    parameters: &'a [Parameter],
    /// Bytes that the texts may still get.
    left: u64,
    reader: &'a mut Reader,
}

impl Filler<'_> {
    fn tasks(&mut self, node: &mut Node) {
        let Value::List(tasks) = &mut node.value else {
            return self.walk(node, Kind::Strict);
        };
        for task in tasks {
            let Value::Table(entries) = &mut task.value else {
                self.walk(task, Kind::Strict);
                continue;
            };
            for entry in entries {
                let table = matches!(entry.node.value, Value::Table(_));
                let kind = match &*entry.key {
                    "command" | "env" | "inputs" | "outputs" => Kind::OfTask,
                    "stdin" if table => Kind::Content,
                    _ => Kind::Strict,
                };
                self.walk(&mut entry.node, kind);
            }
        }
    }

    fn walk(&mut self, node: &mut Node, kind: Kind) {
        match &mut node.value {
            Value::Text(text) if text.contains("${") => {
                let text = std::mem::take(text);
                self.fill(node, &text, kind);
            }
            Value::List(items) => items.iter_mut().for_each(|item| self.walk(item, kind)),
            Value::Table(entries) => {
                let nodes = entries.iter_mut().map(|entry| &mut entry.node);
                nodes.for_each(|node| self.walk(node, kind));
            }
            _ => {}
        }
    }

    fn fill(&mut self, node: &mut Node, text: &str, kind: Kind) {
        let parameters = self.parameters;
        let find = |name: &str| parameters.iter().find(|known| &*known.name == name);
        let mut filled = String::with_capacity(text.len());
        for piece in pieces(text) {
            match piece {
                Piece::Text(text) => filled.push_str(text),
                Piece::Literal { text, written } => {
                    let ours = pieces(text).any(
                        |piece| matches!(piece, Piece::Name { name, .. } if find(name).is_some()),
                    );
                    filled.push_str(match kind {
                        Kind::OfTask => written,
                        Kind::Content if !ours => written,
                        Kind::Content | Kind::Strict => text,
                    });
                }
                Piece::Name { name, written } => match find(name) {
                    Some(known) => {
                        let bytes = known.text.len() as u64;
                        let Some(left) = self.left.checked_sub(bytes) else {
                            return self.too_long(node);
                        };
                        self.left = left;
                        if written.len() == text.len() {
                            node.typed = Some(known.value.clone());
                        }
                        filled.push_str(&known.text);
                    }
                    None => {
                        filled.push_str(written);
                        if kind == Kind::Strict {
                            self.unknown(node, name);
                        }
                    }
                },
            }
        }
        node.value = Value::Text(filled);
    }

    fn unknown(&mut self, node: &Node, name: &str) {
        let known = match self.parameters.is_empty() {
            true => "the job file has no [parameters]".to_owned(),
            false => format!("known are {}", known(self.parameters)),
        };
        self.reader.wrong(
            &node.span,
            format!("`${{{name}}}` is not known here"),
            format!("{known}; `$${{{name}}}` stands for the text itself"),
        );
    }

    fn too_long(&mut self, node: &Node) {
        // Every further text would say the same.
        if self.left > 0 {
            self.left = 0;
            self.reader.wrong(
                &node.span,
                format!("the parameters make the job file longer than {FILE_BYTES_MAX} bytes"),
                "put long texts into files",
            );
        }
    }
}
