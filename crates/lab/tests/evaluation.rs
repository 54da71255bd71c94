//! `docs/evaluation.md` says what its commands print: one row of each table, "auto, WORKFLOW alone", is made anew, to the
//! last digit.
//!
//! Tables about recorded workflows are checked only if the variable `RECORDED` has the arguments that name these files,
//! as on that page: they are not in this repository.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

const SHAPES: &str =
    "--workflow fork-join.toml --workflow chain.toml --workflow wide.toml --workflow diamonds.toml";
/// The policy whose rows are made anew.
const POLICY: &str = "auto";

/// A command of the page, and the tables between it and the next one.
struct Measured {
    command: String,
    /// The cells of each row.
    rows: Vec<Vec<String>>,
}

fn measured(page: &str) -> Vec<Measured> {
    let mut all: Vec<Measured> = Vec::new();
    for line in page.lines() {
        if line.starts_with("hedge-lab sim compare ") {
            let command = line.to_owned();
            let rows = Vec::new();
            all.push(Measured { command, rows });
        } else if line.starts_with('#') {
            // Tables of another section do not belong to the command.
            all.push(Measured {
                command: String::new(),
                rows: Vec::new(),
            });
        } else if let (Some(row), Some(one)) = (line.strip_prefix("| "), all.last_mut()) {
            let cells = row.trim_end_matches(" |").split(" | ");
            one.rows.push(cells.map(str::to_owned).collect());
        }
    }
    all.retain(|one| !one.command.is_empty());
    all
}

/// The command with the workflow alone that `name` is part of, and with no more policies than the row needs.
fn alone(command: &str, name: &str) -> String {
    let (mut kept, mut dropped) = (Vec::new(), false);
    let mut words = command.split_whitespace();
    while let Some(word) = words.next() {
        match word {
            "--workflow" => {
                let file = words.next().unwrap_or_default();
                if file.contains(name) {
                    kept.extend([word, file]);
                } else {
                    dropped = true;
                }
            }
            "--policies" => {
                words.next();
            }
            _ => kept.push(word),
        }
    }
    assert!(dropped, "{name} is alone anyway: {command}");
    kept.join(" ") + " --policies none," + POLICY
}

/// The rows of [`POLICY`] in what the command prints, by the title of their table, and the last of them.
fn printed(command: &str) -> (BTreeMap<String, String>, String) {
    let args = command.split_whitespace().skip(1);
    let shapes = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/shapes");
    let output = Command::new(env!("CARGO_BIN_EXE_hedge-lab"))
        .current_dir(shapes)
        .args(args)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {told}");
    let text = String::from_utf8(output.stdout).unwrap();
    let (mut rows, mut last) = (BTreeMap::new(), String::new());
    let (mut title, mut before) = ("", "");
    for line in text.lines() {
        if line.starts_with("policy ") {
            title = before;
        }
        if line.split_whitespace().next() == Some(POLICY) && line.contains('±') {
            last = words(line);
            rows.insert(title.to_owned(), last.clone());
        }
        before = line;
    }
    (rows, last)
}

fn words(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_row_of_each_table_is_what_its_command_prints() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/evaluation.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (mut made, mut wrong) = (0, Vec::new());
    for Measured { command, rows } in measured(&page) {
        let recorded = std::env::var("RECORDED");
        let mut checked = rows.iter().filter_map(|row| {
            let name = row[0].strip_prefix("auto, ")?.strip_suffix(" alone")?;
            Some((name, row))
        });
        let Some((name, row)) = checked.next() else {
            panic!("{command}: no row \"auto, … alone\"");
        };
        if command.contains("$RECORDED") && recorded.is_err() {
            continue;
        }
        let command = command
            .replace("$SHAPES", SHAPES)
            .replace("$RECORDED", &recorded.unwrap_or_default());
        let command = alone(&command, name);
        let (by_title, last) = printed(&command);
        // Of a table about several models, the row is about all of them.
        let found = by_title.get("all together").unwrap_or(&last);
        let said = format!("{POLICY} {} ", words(&row[1..].join(" ")));
        made += 1;
        if !found.starts_with(&said) {
            wrong.push(format!("{command}\nsaid: {said}\nprinted: {found}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert!(made >= 6, "only {made} rows were found");
}
