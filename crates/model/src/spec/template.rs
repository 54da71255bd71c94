//! Texts with placeholders that are expanded for many tasks of a group.

use super::Group;
use super::placeholders::{Piece, pieces};

/// A text of a group, split at the placeholders that the group defines.
pub(super) struct Template<'a> {
    group: &'a Group,
    parts: Vec<Part<'a>>,
}

enum Part<'a> {
    Text(&'a str),
    Index,
    /// A parameter, by the position of its axis and its position within it.
    Value(usize, usize),
}

impl<'a> Template<'a> {
    pub fn new(group: &'a Group, text: &'a str) -> Self {
        let part = |piece| match piece {
            Piece::Text(text) | Piece::Literal { text, .. } => Part::Text(text),
            Piece::Name { name: "index", .. } if group.array.is_some() => Part::Index,
            Piece::Name { name, written } => match group.parameter(name) {
                Some((axis, column)) => Part::Value(axis, column),
                None => Part::Text(written),
            },
        };
        let parts = pieces(text).map(part).collect();
        Self { group, parts }
    }

    pub fn group(&self) -> &'a Group {
        self.group
    }

    /// Returns whether it contains a parameter.
    pub fn has_parameter(&self) -> bool {
        let value = |part: &Part<'_>| matches!(part, Part::Value(..));
        self.parts.iter().any(value)
    }

    /// Returns its text without placeholders.
    pub fn without_values(&self) -> String {
        let text = |part: &Part<'a>| match part {
            Part::Text(text) => Some(*text),
            _ => None,
        };
        self.parts.iter().filter_map(text).collect()
    }

    /// Returns the texts between indices. Must only be used if there is no other placeholder.
    pub fn between_indices(&self) -> Vec<String> {
        let mut texts = vec![String::new()];
        for part in &self.parts {
            match (part, texts.last_mut()) {
                (Part::Text(text), Some(last)) => last.push_str(text),
                (Part::Index, _) => texts.push(String::new()),
                _ => {}
            }
        }
        texts
    }

    /// Replaces the content of `text` by the text of the task at `offset`.
    pub fn write(&self, offset: u32, text: &mut String) {
        use std::fmt::Write;
        text.clear();
        for part in &self.parts {
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Index => {
                    let (from, _) = self.group.array.unwrap_or_default();
                    // Writing into a String does not fail.
                    let _ = write!(text, "{}", from.saturating_add(offset));
                }
                Part::Value(axis, column) => self.group.write_value(offset, *axis, *column, text),
            }
        }
    }

    /// Returns the text of the task at `offset`.
    pub fn expand(&self, offset: u32) -> String {
        let mut text = String::new();
        self.write(offset, &mut text);
        text
    }
}
