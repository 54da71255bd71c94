//! The table of keys and the reader agree.

use super::{JobFile, Syntax};
use crate::keys::{Default, Key, Kind, TABLES, Table};

/// A job whose table `section` holds `line`, beside what that table requires.
fn job(section: &str, line: &str) -> String {
    let top = "[[task]]\nid = \"frame\"\ncommand = [\"true\"]\narray = \"0..9\"\n";
    let fold = "[[task]]\nid = \"fold\"\ncommand = [\"true\"]\n";
    let last = "[[task]]\nid = \"sheet\"\ncommand = [\"true\"]\n";
    let given = |key: &str| line.starts_with(&format!("{key} = "));
    let within = |key: &str, rest: &str| match given(key) {
        true => format!("{{ {line} }}"),
        false => format!("{{ {rest}{line} }}"),
    };
    match section {
        "job" if given("task") => line.to_owned(),
        "job" if given("parameters") && line.contains("rate") => {
            format!("{line}\n{}", top.replace("true", "${rate}"))
        }
        "job" => format!("{line}\n{top}"),
        "qos" | "critical" => format!("[{section}]\n{line}\n{top}"),
        "task" => {
            let id = if given("id") { "" } else { "id = \"sheet\"\n" };
            let command = match given("command") {
                true => "",
                false => "command = [\"true\"]\n",
            };
            let array = match line.contains("${index}") && !given("each") {
                true => "array = \"0..3\"\n",
                false => "",
            };
            let beside = match line {
                line if line.starts_with("preload = [\"") => "runtime = \"python\"\n",
                line if line.starts_with("retry_memory") => "resources = { memory = \"1 MiB\" }\n",
                _ => "",
            };
            let line = format!("{beside}{line}");
            // The examples name these tasks; one of them may be the example itself.
            let top = if given("id") { "" } else { top };
            let shares = match given("cwd") {
                true => "shares = [\"data\"]\n",
                false => "",
            };
            format!("{top}{fold}[[task]]\n{id}{command}{array}{shares}{line}\n")
        }
        "inputs" | "deps" => {
            let table = within("task", "task = \"frame\", ");
            let array = match line {
                "each = true" => "array = \"0..9\"\n",
                _ => "",
            };
            format!("{top}{last}{array}{section} = [{table}]\n")
        }
        "checkpoint" => {
            let table = within("files", "files = [\"state\"], ");
            format!("{top}checkpoint = {table}\n")
        }
        "mounts" => {
            let table = within("tree", "tree = \"ref\", ");
            format!("{top}mounts = [{table}]\n")
        }
        "stdin" | "resources" | "estimate" => format!("{top}{section} = {{ {line} }}\n"),
        other => panic!("no job for the section {other}"),
    }
}

fn parsed(section: &str, line: &str) -> JobFile {
    let text = job(section, line);
    JobFile::parse("job.toml", Syntax::Toml, text.as_str())
        .unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn all() -> impl Iterator<Item = (&'static str, &'static Table, &'static Key)> {
    TABLES.iter().flat_map(|(section, table)| {
        let keys = table.keys.iter().chain(&table.others);
        keys.map(move |key| (*section, *table, key))
    })
}

/// All that a job file says, its wishes for files included.
fn content(file: &JobFile) -> String {
    format!("{:?} {:?}", file.tasks, file.wanted)
}

#[test]
fn each_example_is_taken_and_means_something() {
    for (section, _, key) in all() {
        let with = parsed(section, &key.written());
        if matches!(key.default, Default::Required) && section != "stdin" {
            continue;
        }
        let without = match section {
            "stdin" => parsed("task", ""),
            _ => parsed(section, ""),
        };
        assert_ne!(
            content(&with),
            content(&without),
            "{section}: {} changes nothing",
            key.written()
        );
    }
}

#[test]
fn each_default_is_what_the_absence_of_its_key_means() {
    for (section, _, key) in all() {
        let Default::Value(value) = key.default else {
            continue;
        };
        let written = parsed(section, &format!("{} = {value}", key.name));
        let absent = parsed(section, "");
        let same = match key.name {
            // Said or not, it is the same number of tasks.
            "need" if section != "qos" => {
                written.tasks.needed_in_all() == absent.tasks.needed_in_all()
                    && !written.tasks.is_relaxed()
            }
            _ => content(&written) == content(&absent),
        };
        assert!(same, "{section}: {} = {value}", key.name);
    }
}

#[test]
fn a_required_key_that_is_missing_is_told() {
    for (section, table, key) in all() {
        if !matches!(key.default, Default::Required) {
            continue;
        }
        let text = match section {
            "job" => "name = \"a\"\n".to_owned(),
            "task" if key.name == "id" => "[[task]]\ncommand = [\"true\"]\n".to_owned(),
            "task" => "[[task]]\nid = \"a\"\n".to_owned(),
            "stdin" => "[[task]]\nid = \"a\"\ncommand = [\"true\"]\nstdin = {}\n".to_owned(),
            _ => format!("[[task]]\nid = \"a\"\ncommand = [\"true\"]\n{section} = [{{}}]\n"),
        };
        assert!(
            JobFile::parse("job.toml", Syntax::Toml, text).is_err(),
            "{}: {}",
            table.name,
            key.name
        );
    }
}

#[test]
fn every_table_that_a_key_takes_is_listed() {
    let listed = |table: &Table| TABLES.iter().any(|(_, known)| std::ptr::eq(*known, table));
    for (_, _, key) in all() {
        match key.kind {
            Kind::Table(table)
            | Kind::Tables(table)
            | Kind::TextsOrTables(table)
            | Kind::TextOrTable(table) => assert!(listed(table), "{}", table.name),
            _ => {}
        }
    }
}

#[test]
fn words_that_are_listed_are_taken() {
    for (section, _, key) in all() {
        if let Kind::Word(words) = key.kind {
            for (word, _) in words() {
                parsed(section, &format!("{} = {word:?}", key.name));
            }
        }
    }
}
