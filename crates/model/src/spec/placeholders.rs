//! Placeholders in commands, environment and names of files: `${index}` in an array, `${hedge}` in any command.
//!
//! Only names that a task defines are placeholders. All else that looks like one is left as it is, because shell
//! scripts are full of it. `$${x}` stands for the text `${x}`.

use std::borrow::Cow;

/// What can be a pattern instead of a name of a file.
pub const GLOB_CHARACTERS: [char; 4] = ['*', '?', '[', '{'];

/// A piece of a text with placeholders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Text as it is.
    Text(&'a str),
    /// `${name}`, with the text as it is written.
    Name {
        /// What is between the braces.
        name: &'a str,
        /// All of it.
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

/// The first piece of a text that is not empty, and how many bytes it takes.
fn first(text: &str) -> (Piece<'_>, usize) {
    let Some(at) = text.find("${") else {
        return (Piece::Text(text), text.len());
    };
    let end = text[at..].find('}').map(|end| at + end + 1);
    match (at, end) {
        // `$${x}`: the first dollar goes.
        (_, Some(end)) if text[..at].ends_with('$') => match at {
            1 => (Piece::Text(&text[1..end]), end),
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

/// Replaces the placeholders for which `value` gives something; leaves all other text as it is.
pub fn expand<'a>(text: &'a str, value: impl Fn(&str) -> Option<String>) -> Cow<'a, str> {
    if !text.contains("${") {
        return Cow::Borrowed(text);
    }
    let mut expanded = String::with_capacity(text.len());
    for piece in pieces(text) {
        match piece {
            Piece::Text(text) => expanded.push_str(text),
            Piece::Name { name, written } => match value(name) {
                Some(value) => expanded.push_str(&value),
                None => expanded.push_str(written),
            },
        }
    }
    Cow::Owned(expanded)
}

/// Replaces `${index}` in the name of a file, in an array.
pub fn expand_index(text: &str, index: Option<u32>) -> Cow<'_, str> {
    expand(text, |name| match name {
        "index" => index.map(|index| index.to_string()),
        _ => None,
    })
}

/// Whether a text holds the placeholder `${index}`.
pub fn has_index(text: &str) -> bool {
    text.contains("${index}")
        && pieces(text).any(|piece| matches!(piece, Piece::Name { name: "index", .. }))
}

/// Whether a name of files is a pattern.
pub fn is_glob(text: &str) -> bool {
    text.contains(GLOB_CHARACTERS)
}

/// The beginning that all names have in common that match a pattern; the whole of a plain name.
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

    #[test]
    fn only_known_names_are_replaced() {
        let in_array = |text: &str| expand_index(text, Some(7)).into_owned();
        let alone = |text: &str| expand_index(text, None).into_owned();
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
        let in_array = |text: &str| expand_index(text, Some(7)).into_owned();
        assert_eq!(in_array("$${index}"), "${index}");
        assert_eq!(in_array("a$${index}b${index}c$${x}"), "a${index}b7c${x}");
        assert_eq!(in_array("echo $$ $$"), "echo $$ $$");
        assert_eq!(in_array("$$${index}"), "$${index}");
        assert!(has_index("a${index}") && !has_index("a$${index}") && !has_index("index"));
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
