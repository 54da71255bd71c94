//! Placeholders in commands, environment and file names: `${index}` in an array, `${hedge}` in any command, and a
//! task's parameters. `$${x}` stands for the text `${x}`.
//!
//! Only names that a task defines are placeholders. A submission with another one is refused, except in scripts: from
//! the first word of a command that names a shell on, all other names belong to the shell.

use super::Group;
use std::borrow::Cow;
use std::sync::Arc;

/// Programs whose arguments may contain their own variables.
const SHELLS: [&str; 11] = [
    "sh", "bash", "dash", "ash", "ksh", "mksh", "zsh", "fish", "csh", "tcsh", "busybox",
];

/// Characters that make a file name a pattern.
pub const GLOB_CHARACTERS: [char; 4] = ['*', '?', '[', '{'];

/// A piece of a text with placeholders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Plain text.
    Text(&'a str),
    /// `$${name}`, which stands for the text `${name}`.
    Literal {
        /// The text that it stands for.
        text: &'a str,
        /// The whole piece as written.
        written: &'a str,
    },
    /// A placeholder `${name}`.
    Name {
        /// The name between the braces.
        name: &'a str,
        /// The whole piece as written.
        written: &'a str,
    },
}

/// The pieces of a text, in order.
pub fn pieces(text: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (piece, length) = first(rest);
        rest = &rest[length..];
        Some(piece)
    })
}

/// Returns the first piece of a non-empty text, and its length in bytes.
fn first(text: &str) -> (Piece<'_>, usize) {
    let Some(at) = text.find("${") else {
        return (Piece::Text(text), text.len());
    };
    let end = text[at..].find('}').map(|end| at + end + 1);
    match (at, end) {
        // `$${x}`: drop the first dollar.
        (_, Some(end)) if text[..at].ends_with('$') => match at {
            1 => {
                let (text, written) = (&text[1..end], &text[..end]);
                (Piece::Literal { text, written }, end)
            }
            _ => (Piece::Text(&text[..at - 1]), at - 1),
        },
        (0, Some(end)) => {
            let (name, written) = (&text[2..end - 1], &text[..end]);
            (Piece::Name { name, written }, end)
        }
        (_, None) => (Piece::Text(text), text.len()),
        (at, _) => (Piece::Text(&text[..at]), at),
    }
}

/// Replaces the placeholders that have a `value`, and leaves all other text unchanged.
pub fn expand<'a>(text: &'a str, value: impl Fn(&str) -> Option<String>) -> Cow<'a, str> {
    if !text.contains("${") {
        return Cow::Borrowed(text);
    }
    let mut expanded = String::with_capacity(text.len());
    for piece in pieces(text) {
        match piece {
            Piece::Text(text) | Piece::Literal { text, .. } => expanded.push_str(text),
            Piece::Name { name, written } => match value(name) {
                Some(value) => expanded.push_str(&value),
                None => expanded.push_str(written),
            },
        }
    }
    Cow::Owned(expanded)
}

/// The values of one task's placeholders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskValues<'a> {
    /// The index, if the task is in an array.
    pub index: Option<u32>,
    /// Names of the parameters.
    pub names: &'a [Arc<str>],
    /// The values of the parameters, in the same order.
    pub values: &'a [Arc<str>],
}

impl TaskValues<'_> {
    /// Replaces the placeholders of a text, except `${hedge}`.
    pub fn expand<'a>(&self, text: &'a str) -> Cow<'a, str> {
        expand(text, |name| self.value(name))
    }

    /// Returns the value of a name.
    pub fn value(&self, name: &str) -> Option<String> {
        if name == "index" {
            return self.index.map(|index| index.to_string());
        }
        let at = self.names.iter().position(|other| &**other == name)?;
        self.values.get(at).map(|value| value.to_string())
    }
}

impl Group {
    /// Calls `with` with the placeholder values of the task at `offset`, which must be below [`Group::count`].
    pub fn with_values<T>(&self, offset: u32, with: impl FnOnce(TaskValues<'_>) -> T) -> T {
        let (names, values) = (self.parameters(), self.values(offset));
        with(TaskValues {
            index: self.array.map(|(from, _)| from.saturating_add(offset)),
            names: &names,
            values: &values,
        })
    }
}

/// A placeholder that is not defined where it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    /// The key of the group that contains the text.
    pub key: &'static str,
    /// The position of the text within the key's list.
    pub item: usize,
    /// The name between the braces.
    pub name: String,
    /// The names that are defined there.
    pub known: Vec<Arc<str>>,
}

impl Unknown {
    /// Describes the mistake.
    pub fn what(&self) -> String {
        match &*self.name {
            "index" => "`${index}` has no meaning here: the task is not an array".to_owned(),
            name => format!("`${{{name}}}` is not known here"),
        }
    }

    /// Describes the correction, if the names `more` are defined too.
    pub fn help(&self, more: &[Arc<str>]) -> String {
        let shell = match self.key {
            "command" => "; `$index` is a variable of the shell",
            _ => "",
        };
        if self.name == "index" {
            return format!("add array = \"0..60\", or write it without `${{index}}`{shell}");
        }
        let known = self.known.iter().chain(more);
        let known: Vec<String> = known.map(|name| format!("`${{{name}}}`")).collect();
        let known = match known.is_empty() {
            true => "no placeholder has a meaning here".to_owned(),
            false => format!("known are {}", known.join(", ")),
        };
        format!("{known}; `$${{{}}}` stands for the text itself", self.name)
    }
}

/// Returns the first name in a text that is not in `known`.
pub fn unknown_in<'a>(text: &'a str, known: &[Arc<str>]) -> Option<&'a str> {
    pieces(text).find_map(|piece| match piece {
        Piece::Name { name, .. } if !known.iter().any(|other| &**other == name) => Some(name),
        _ => None,
    })
}

impl Group {
    /// Returns the names that are defined in its file names.
    pub fn placeholders(&self) -> Vec<Arc<str>> {
        let index = self.array.map(|_| Arc::from("index"));
        index.into_iter().chain(self.parameters()).collect()
    }

    /// Returns its undefined placeholders, one for each text.
    pub fn unknown_placeholders(&self) -> Vec<Unknown> {
        let files = self.placeholders();
        let mut all = files.clone();
        all.push("hedge".into());
        let mut found = Vec::new();
        let mut note = |key, item, name: &str, known: &[Arc<str>]| {
            found.push(Unknown {
                key,
                item,
                name: name.to_owned(),
                known: known.to_vec(),
            });
        };
        let shell = self.command.iter().position(|word| is_shell(word));
        for (item, word) in self.command.iter().enumerate() {
            let name = match shell {
                Some(shell) if item >= shell => self.index_in_shell(word),
                _ => unknown_in(word, &all),
            };
            name.into_iter()
                .for_each(|name| note("command", item, name, &all));
        }
        for (item, (_, value)) in self.env.iter().enumerate() {
            let name = unknown_in(value, &all);
            name.into_iter()
                .for_each(|name| note("env", item, name, &all));
        }
        for (item, output) in self.outputs.iter().enumerate() {
            let name = unknown_in(output, &files);
            name.into_iter()
                .for_each(|name| note("outputs", item, name, &files));
        }
        found
    }

    /// Returns `index` if a script uses it outside an array and does not set it: the shell would expand it to
    /// nothing.
    fn index_in_shell(&self, word: &str) -> Option<&'static str> {
        let set = || self.command.iter().any(|word| sets_index(word));
        let given = || self.env.iter().any(|(name, _)| &**name == "index");
        let meant = self.array.is_none() && has_index(word) && !set() && !given();
        meant.then_some("index")
    }
}

/// Returns whether a word of a command names a shell.
fn is_shell(word: &str) -> bool {
    let name = word.rsplit('/').next().unwrap_or(word);
    SHELLS.contains(&name)
}

/// Returns whether a script may set a variable `index`: it contains the word by itself, as after `for` and `read`, or
/// before `=`.
fn sets_index(script: &str) -> bool {
    let breaks = |c: char| c.is_whitespace() || ";|&(){}\"'`".contains(c);
    let sets = |word: &str| {
        let rest = word.strip_prefix("index");
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('=') || rest.starts_with("+="))
    };
    script.match_indices("index").any(|(at, _)| {
        let before = script[..at].chars().next_back();
        before.is_none_or(|before| breaks(before) && !script[..at].ends_with("${"))
            && sets(script[at..].split(breaks).next().unwrap_or(""))
    })
}

/// Returns whether a text contains the placeholder `${index}`.
pub fn has_index(text: &str) -> bool {
    text.contains("${index}")
        && pieces(text).any(|piece| matches!(piece, Piece::Name { name: "index", .. }))
}

/// Returns whether a file name is a pattern.
pub fn is_glob(text: &str) -> bool {
    text.contains(GLOB_CHARACTERS)
}

/// Returns the prefix that all matches of a pattern share; the whole name if it is not a pattern.
pub fn literal_prefix(pattern: &str) -> &str {
    if !is_glob(pattern) {
        return pattern;
    }
    let special = |c: char| GLOB_CHARACTERS.contains(&c) || c == '\\';
    &pattern[..pattern.find(special).unwrap_or(pattern.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_array(text: &str) -> String {
        let values = TaskValues {
            index: Some(7),
            ..TaskValues::default()
        };
        values.expand(text).into_owned()
    }

    #[test]
    fn only_known_names_are_replaced() {
        let alone = |text: &str| TaskValues::default().expand(text).into_owned();
        let script = "for index in 1 2 3; do echo \"n=${index}\"; done";
        assert_eq!(alone(script), script);
        assert_eq!(
            in_array(script),
            "for index in 1 2 3; do echo \"n=7\"; done"
        );
        for text in [
            "${x}",
            "${index:-1}",
            "${",
            "${index",
            "$index",
            "a$",
            "${}",
            "${x:-${y}}",
        ] {
            assert_eq!(in_array(text), text);
        }
        assert_eq!(in_array("${index}${index}-${x}"), "77-${x}");
        assert_eq!(in_array("ä${index}ö"), "ä7ö");
    }

    #[test]
    fn two_dollars_make_a_literal() {
        assert_eq!(in_array("$${index}"), "${index}");
        assert_eq!(in_array("a$${index}b${index}c$${x}"), "a${index}b7c${x}");
        assert_eq!(in_array("echo $$ $$"), "echo $$ $$");
        assert_eq!(in_array("$$${index}"), "$${index}");
        assert!(has_index("a${index}") && !has_index("a$${index}") && !has_index("index"));
    }

    fn unknown(array: bool, env: &[(&str, &str)], command: &[&str]) -> Vec<(usize, String)> {
        let group = Group {
            array: array.then_some((0, 3)),
            env: env
                .iter()
                .map(|(a, b)| ((*a).into(), (*b).into()))
                .collect(),
            ..Group::program("a", command)
        };
        let found = group.unknown_placeholders().into_iter();
        found.map(|unknown| (unknown.item, unknown.name)).collect()
    }

    #[test]
    fn names_that_mean_nothing_are_found_outside_of_shells() {
        let none: [(usize, String); 0] = [];
        assert_eq!(unknown(true, &[], &["a", "${index}", "${hedge}"]), none);
        assert_eq!(
            unknown(false, &[], &["${home}", "a", "x${y}${index}"]),
            [(0, "home".to_owned()), (2, "y".to_owned())]
        );
        assert_eq!(unknown(false, &[], &["a", "$${y}"]), none);
        assert_eq!(
            unknown(false, &[("A", "${B}")], &["a"]),
            [(0, "B".to_owned())]
        );
        for shell in ["sh", "/bin/bash", "busybox"] {
            let words = ["env", "A=${x}", shell, "-c", "echo ${y}", "${z}"];
            assert_eq!(
                unknown(false, &[], &words),
                [(1, "x".to_owned())],
                "{shell}"
            );
        }
    }

    #[test]
    fn an_index_outside_of_an_array_is_found_unless_the_script_sets_it() {
        let found = |script: &str| !unknown(false, &[], &["sh", "-c", script]).is_empty();
        for script in [
            "echo ${index}",
            "./run --index ${index}",
            "a=${index}",
            "my_index=2; echo ${index}",
        ] {
            assert!(found(script), "{script}");
        }
        for script in [
            "for index in 1 2; do echo ${index}; done",
            "index=5; echo ${index}",
            "true;index=5 f \"${index}\"",
            "read index; echo ${index}",
            "echo $index $${index}",
        ] {
            assert!(!found(script), "{script}");
        }
        let env = [("index", "5")];
        assert!(unknown(false, &env, &["sh", "-c", "echo ${index}"]).is_empty());
    }

    #[test]
    fn a_pattern_begins_with_what_all_names_share() {
        for (pattern, prefix) in [
            ("out.png", "out.png"),
            ("a\\b", "a\\b"),
            ("frames/*.png", "frames/"),
            ("f\\*[0-9]", "f"),
            ("{a,b}", ""),
        ] {
            assert_eq!(literal_prefix(pattern), prefix);
        }
    }
}
