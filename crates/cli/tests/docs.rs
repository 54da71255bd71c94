//! The documentation agrees with the program: each table of keys, settings and options lists what there is, and each
//! example is taken.

use hedge_job::{JobFile, Purpose, Syntax, keys};
use hedge_model::Settings;
use std::path::{Path, PathBuf};
use std::process::Command;

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs")
        .join(name)
}

fn page(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap()
}

/// Compares the text between `begin` and the next end mark of a page; with UPDATE_DOCS set, writes it.
fn section(name: &str, begin: &str, right: &str) {
    const END: &str = "<!-- end -->";
    let text = page(name);
    let from = text.find(begin).map(|at| at + begin.len() + 1);
    let from = from.unwrap_or_else(|| panic!("docs/{name} has no {begin}"));
    let to = from + text[from..].find(END).unwrap();
    if &text[from..to] == right {
        return;
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let new = format!("{}{right}{}", &text[..from], &text[to..]);
        return std::fs::write(path(name), new).unwrap();
    }
    panic!("docs/{name} differs behind {begin}; UPDATE_DOCS=1 writes it. It should be:\n{right}");
}

/// The blocks of code in a language.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let begin = format!("```{language}\n");
    let blocks = text.split(&*begin).skip(1);
    blocks
        .map(|rest| rest.split("```").next().unwrap())
        .collect()
}

/// The code in the cells of all rows of a page's tables.
fn rows(text: &str) -> Vec<Vec<String>> {
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    let cells = |row: &str| {
        let cells = row.trim_matches('|').split('|');
        cells
            .map(|cell| cell.trim().trim_matches('`').to_owned())
            .collect()
    };
    rows.map(cells).collect()
}

#[test]
fn job_files() {
    for (name, table) in keys::TABLES {
        section(
            "jobfile.md",
            &format!("<!-- keys: {name} -->"),
            &table.markdown(),
        );
    }
    let text = page("jobfile.md");
    assert_eq!(text.matches("<!-- keys: ").count(), keys::TABLES.len());
    let (toml, json) = (blocks(&text, "toml"), blocks(&text, "json"));
    assert!(toml.len() > 1 && json.len() == 1);
    let readme = std::fs::read_to_string(path("../README.md")).unwrap();
    let hyperqueue = page("hyperqueue.md");
    let others = [&readme, &hyperqueue].map(|text| blocks(text, "toml"));
    let all = toml.into_iter().chain(others.into_iter().flatten());
    let all = all.map(|text| (Syntax::Toml, text));
    for (syntax, text) in all.chain(json.into_iter().map(|text| (Syntax::Json, text))) {
        if let Err(bad) = JobFile::parse("example", syntax, text) {
            panic!("{bad}\n{text}");
        }
    }
    let extensions = blocks(&text, "toml extension");
    assert_eq!(extensions.len(), 1);
    for text in extensions {
        if let Err(bad) = JobFile::parse_as(Purpose::Extension, "example", Syntax::Toml, text, &[])
        {
            panic!("{bad}\n{text}");
        }
    }
}

#[test]
fn interface() {
    let (name, right) = ("openapi.json", hedge_gateway::document());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path(name), &right).unwrap();
    }
    let differs = "docs/openapi.json is not the interface; UPDATE_DOCS=1 writes it";
    assert!(
        std::fs::read_to_string(path(name)).is_ok_and(|text| text == right),
        "{differs}"
    );
}

#[test]
fn settings() {
    section("settings.md", "<!-- settings -->", &Settings::markdown());
}

/// The commands of `program` in a text, in code spans and at the beginning of lines of code: the words of each, and its
/// options.
fn commands(text: &str, program: &str) -> Vec<(Vec<String>, Vec<String>)> {
    let spans = text.split('`').skip(1).step_by(2);
    let lines = blocks(text, "sh").into_iter().flat_map(str::lines);
    let calls = spans.chain(lines).filter_map(|call| {
        let call = call.strip_prefix(program)?.strip_prefix(' ')?;
        let call = call.split(" #").next()?.split(" -- ").next()?;
        let word = |word: &&str| word.len() > 1 && word.chars().all(|c| c.is_ascii_lowercase());
        let words: Vec<String> = call
            .split_whitespace()
            .take_while(word)
            .map(str::to_owned)
            .collect();
        let options = call.split(|c: char| c.is_whitespace() || c == '=');
        let options = options.filter(|word| word.starts_with("--") && word.len() > 3);
        let options: Vec<String> = options.map(str::to_owned).collect();
        (!words.is_empty()).then_some((words, options))
    });
    calls.collect()
}

#[test]
fn commands_that_are_named_exist_and_take_their_options() {
    let mut pages: Vec<PathBuf> = std::fs::read_dir(path(""))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "md"))
        .collect();
    pages.extend(["README.md", "CONTRIBUTING.md"].map(|name| path("..").join(name)));
    let hedge = Path::new(env!("CARGO_BIN_EXE_hedge"));
    let lab = hedge.with_file_name("hedge-lab");
    let built = lab.is_file();
    assert!(
        built,
        "this test needs hedge-lab: `cargo build -p hedge-lab`"
    );
    let mut count = 0;
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        for (program, name) in [(hedge, "hedge"), (&lab, "hedge-lab")] {
            for (words, options) in commands(&text, name) {
                let output = Command::new(program).args(&words).arg("--help").output();
                let output = output.unwrap();
                let call = format!("{}: {name} {}", page.display(), words.join(" "));
                let help = String::from_utf8_lossy(&output.stdout);
                assert_eq!(output.status.code(), Some(0), "{call}");
                for option in options {
                    assert!(help.contains(&option), "{call} takes no {option}");
                }
                count += 1;
            }
        }
    }
    assert!(count > 50, "only {count} commands were found");
}

#[test]
fn options_of_an_owner() {
    let folder = tempfile::tempdir().unwrap();
    let hedge = |args: &[&str]| {
        let mut hedge = Command::new(env!("CARGO_BIN_EXE_hedge"));
        let output = hedge.args(args).env("HOME", folder.path()).output();
        output.unwrap()
    };
    let shown = hedge(&["worker", "--show-owner"]).stdout;
    let shown: toml::Table = String::from_utf8(shown).unwrap().parse().unwrap();
    let mut known = Vec::new();
    for (section, options) in &shown {
        for (option, default) in options.as_table().unwrap() {
            known.push((format!("{section}.{option}"), default.to_string()));
        }
    }
    let rows = rows(&page("owner.md"));
    let mut documented: Vec<_> = rows
        .iter()
        .map(|row| (row[0].clone(), row[3].clone()))
        .collect();
    known.sort();
    documented.sort();
    assert_eq!(documented, known);
    for row in &rows {
        let (section, option) = row[0].split_once('.').unwrap();
        let file = folder.path().join("owner.toml");
        std::fs::write(&file, format!("[{section}]\n{option} = {}\n", row[4])).unwrap();
        let output = hedge(&["doctor", "--owner", file.to_str().unwrap()]);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_ne!(output.status.code(), Some(2), "{row:?}: {told}");
    }
}
