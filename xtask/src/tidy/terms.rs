//! Coined terms, where the field has a word. The counts of files that still have some stand in a ratchet and can only
//! shrink.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};

use super::Finding;
use super::source::Repository;

/// Lines of `COUNT PATH`.
const RATCHET: &str = "xtask/terms.txt";

/// Files that may hold any term: this list, and names that stored journals have.
const EXEMPT: &[&str] = &[
    "xtask/src/tidy/terms.rs",
    "crates/model/src/settings/stored.rs",
    RATCHET,
];

/// What is not to be written, word by word, and what is.
const TERMS: &[(&[&str], &str)] = &[
    (&["sign", "of", "life"], "heartbeat"),
    (&["signs", "of", "life"], "heartbeats"),
    (&["silence"], "missed heartbeat, gap"),
    (&["silences"], "missed heartbeats, gaps"),
    (&["beat"], "heartbeat"),
    (&["beats"], "heartbeats"),
    (&["doubted"], "suspected"),
    (&["doubtful"], "suspected"),
    (&["in", "doubt"], "suspected"),
    (&["colleague"], "group member, peer supervisor"),
    (&["colleagues"], "group members, peer supervisors"),
    (&["unheard"], "recovery barrier"),
    (&["longest", "way"], "critical path"),
    (&["way", "that", "remains"], "bottom level"),
    (&["what", "is", "usual"], "inter-arrival time"),
    (&["set", "aside"], "exclude"),
    (&["put", "aside"], "exclude, store"),
    (&["aside", "for"], "excluded for"),
    (&["blame"], "attribute, failure score"),
    (&["blamed"], "attributed, failure score"),
    (&["blames"], "attributes, failure score"),
    (&["praise"], "success"),
    (&["praised"], "success"),
    (&["pace"], "speed class"),
    (&["asker"], "pending request"),
    (&["askers"], "pending request table"),
    (&["door"], "acceptor, session"),
    (&["doors"], "acceptor, session"),
    (&["address", "translator"], "NAT"),
    (&["address", "translators"], "NAT"),
    (&["shut", "out"], "revoke"),
    (&["makes", "room"], "garbage-collected, evicted"),
    (&["heir"], "successor"),
    (&["whoever"], "name the actor"),
    (&["whose", "turn"], "name the actor"),
];

/// Checks every text file of ours.
pub fn check(repository: &Repository) -> Vec<Finding> {
    let mut findings = Vec::new();
    let known = ratchet(repository);
    let mut counts = BTreeMap::new();
    for (path, found) in found(repository) {
        let (count, allowed) = (found.len(), known.get(&path).copied().unwrap_or(0));
        if count < allowed {
            let what =
                format!("{count} coined terms, {allowed} before: run `cargo xtask tidy --lower`");
            findings.push(Finding::new(path.clone(), what));
        }
        if count > allowed {
            let more = format!("; it has {count} coined terms and may have {allowed}");
            findings.extend(found.iter().map(|(line, term, instead)| {
                let what = format!("`{term}`: write {instead} (xtask/src/tidy/terms.rs){more}");
                Finding::new(format!("{path}:{line}"), what)
            }));
        }
        counts.insert(path, count);
    }
    for path in known.keys().filter(|path| !counts.contains_key(*path)) {
        let what = format!("{path} has no coined terms now: run `cargo xtask tidy --lower`");
        findings.push(Finding::new(RATCHET, what));
    }
    findings
}

/// Writes the ratchet anew: lower where terms were replaced, never higher and nothing new.
///
/// # Errors
/// The file could not be written.
pub fn lower(repository: &Repository, root: &Path) -> Result<()> {
    let found = found(repository);
    let text: String = ratchet(repository)
        .iter()
        .filter_map(|(path, allowed)| {
            let count = found.get(path)?.len().min(*allowed);
            Some(format!("{count} {path}\n"))
        })
        .collect();
    std::fs::write(root.join(RATCHET), text).with_context(|| format!("cannot write {RATCHET}"))
}

fn ratchet(repository: &Repository) -> BTreeMap<String, usize> {
    let text = repository.file(RATCHET).map_or("", |file| &file.text);
    let entries = text.lines().filter_map(|line| line.split_once(' '));
    entries
        .filter_map(|(count, path)| Some((path.to_owned(), count.parse().ok()?)))
        .collect()
}

type Found = Vec<(usize, String, &'static str)>;

/// The coined terms of each file that has some, with their lines.
fn found(repository: &Repository) -> BTreeMap<String, Found> {
    let ours = |path: &str| {
        let kinds = [".rs", ".md", ".toml", ".py"];
        kinds.iter().any(|kind| path.ends_with(kind)) && !EXEMPT.contains(&path)
    };
    let files = repository.files.iter().filter(|file| ours(&file.path));
    let found = files.map(|file| (file.path.clone(), terms(&file.text)));
    found.filter(|(_, found)| !found.is_empty()).collect()
}

fn terms(text: &str) -> Found {
    let words = words(text);
    let mut found = Vec::new();
    for at in 0..words.len() {
        for (term, instead) in TERMS {
            let here = words[at..].iter().map(|(_, word)| word.as_str());
            if here.take(term.len()).eq(term.iter().copied()) {
                found.push((words[at].0, term.join(" "), *instead));
            }
        }
    }
    found
}

/// The words of prose, `snake_case` and `CamelCase`, in lower case, with their lines.
fn words(text: &str) -> Vec<(usize, String)> {
    let mut words: Vec<(usize, String)> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let mut before = ' ';
        for c in line.chars() {
            let starts = c.is_ascii_alphabetic()
                && (!before.is_ascii_alphabetic()
                    || (c.is_ascii_uppercase() && before.is_ascii_lowercase()));
            if starts {
                words.push((number + 1, String::new()));
            }
            if c.is_ascii_alphabetic()
                && let Some((_, word)) = words.last_mut()
            {
                word.push(c.to_ascii_lowercase());
            }
            before = c;
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, ratchet: &str) -> Vec<String> {
        let repository = Repository::of(&[("a.rs", text), (RATCHET, ratchet)]);
        check(&repository).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn coined_terms_are_found_in_prose_and_in_names() {
        for text in [
            "// its last sign of\n// life",
            "fn last_sign_of_life() {}",
            "struct LastSignOfLife;",
            "struct Askers;",
            "const S: &str = \"Whoever joins\";",
        ] {
            assert_eq!(shown(text, "").len(), 1, "{text}");
        }
        assert_eq!(
            shown("// a doorway, the heartbeat, beside", ""),
            Vec::<String>::new()
        );
    }

    #[test]
    fn the_ratchet_only_shrinks() {
        let text = "struct Askers;\nstruct Colleague;";
        assert_eq!(shown(text, "2 a.rs\n"), Vec::<String>::new());
        assert_eq!(shown(text, "1 a.rs\n").len(), 2);
        assert!(shown(text, "3 a.rs\n")[0].contains("tidy --lower"));
        assert!(shown("", "3 a.rs\n")[0].contains("tidy --lower"));
    }
}
