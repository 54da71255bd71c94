//! Words and paths that have no place in the repository: it speaks of the project alone, and
//! works in any folder of any machine.

use super::Finding;
use super::source::Repository;

/// Files whose text is not ours.
const FOREIGN: &[&str] = &["Cargo.lock", "LICENSE-APACHE", "LICENSE-MIT"];

/// Words that say how a text came about rather than what the project is. Written in two halves,
/// so that this file does not hold them.
const WORDS: &[(&str, &str)] = &[
    ("cla", "ude"),
    ("anthr", "opic"),
    ("chat", "gpt"),
    ("open", "ai"),
    ("copi", "lot"),
    ("l", "lm"),
    ("sub", "agent"),
    ("sub", "agents"),
    ("pat", "ent"),
    ("pat", "ents"),
];

/// Starts of folders that exist on one machine only, where a name follows them.
const FOLDERS: &[(&str, &str)] = &[
    ("/ho", "me/"),
    ("/ro", "ot/"),
    ("/wo", "rk/"),
    ("/Us", "ers/"),
    ("/tmp/tar", "get-"),
];

/// Checks every text file.
pub fn check(repository: &Repository) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in repository
        .files
        .iter()
        .filter(|file| !FOREIGN.contains(&file.path.as_str()))
    {
        for (number, line) in file.text.lines().enumerate() {
            let place = || format!("{}:{}", file.path, number + 1);
            for word in words(line) {
                findings.push(Finding::new(
                    place(),
                    format!("`{word}` has no place here: speak of the project alone"),
                ));
            }
            if let Some(folder) = folder(line) {
                findings.push(Finding::new(
                    place(),
                    format!("`{folder}…` exists on one machine only: use a relative path"),
                ));
            }
        }
    }
    findings
}

fn words(line: &str) -> Vec<&str> {
    line.split(|c: char| !c.is_ascii_alphabetic())
        .filter(|word| WORDS.iter().any(|(head, tail)| joins(word, head, tail)))
        .collect()
}

fn joins(word: &str, head: &str, tail: &str) -> bool {
    word.len() == head.len() + tail.len()
        && word[..head.len()].eq_ignore_ascii_case(head)
        && word[head.len()..].eq_ignore_ascii_case(tail)
}

fn folder(line: &str) -> Option<String> {
    FOLDERS
        .iter()
        .map(|(head, tail)| format!("{head}{tail}"))
        .find(|folder| {
            line.match_indices(folder.as_str()).any(|(at, _)| {
                // `dir/work/x` and `{base}/home/x` are below some other folder.
                let starts =
                    !line[..at].ends_with(|c: char| c.is_alphanumeric() || "_-.})]*~".contains(c));
                let named =
                    line[at + folder.len()..].starts_with(|c: char| c.is_ascii_alphanumeric());
                starts && named
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_words_and_folders_are_found() {
        let bad: String = WORDS
            .iter()
            .map(|(head, tail)| format!("by {}{tail}!\n", head.to_uppercase()))
            .chain(
                FOLDERS
                    .iter()
                    .map(|(head, tail)| format!("see `{head}{tail}x`\n")),
            )
            .collect();
        let found = check(&Repository::of(&[("a.md", &bad)]));
        assert_eq!(found.len(), WORDS.len() + FOLDERS.len(), "{found:?}");
    }

    #[test]
    fn ordinary_text_is_not() {
        let fine = "a session of a user; compatently; $HOME/x; dir/work/x; {home}/home/x; `/home`; /root/.ssh";
        assert_eq!(check(&Repository::of(&[("a.md", fine)])), []);
    }
}
