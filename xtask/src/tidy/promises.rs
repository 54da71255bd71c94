//! Every promise in `docs/claims.md` has tests, and they are there and run.

use std::collections::BTreeMap;

use syn::visit::{self, Visit};

use super::Finding;
use super::source::Repository;

const TABLE: &str = "docs/claims.md";

/// The promises that are due by now; each stage of the project adds its own.
const DUE: &[u32] = &[
    1, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 38, 39, 46, 47, 48, 55, 56, 76, 77, 78, 79,
    80,
];

struct Row {
    line: usize,
    promise: String,
    tests: Vec<String>,
}

/// Checks the table's rows and the tests that they name.
pub fn check(repository: &Repository) -> Vec<Finding> {
    let Some(table) = repository.file(TABLE) else {
        return vec![Finding::new(
            TABLE,
            "missing: it says which test shows which promise",
        )];
    };
    let mut rows = BTreeMap::new();
    let mut findings = Vec::new();
    for (index, text) in table.text.lines().enumerate() {
        let place = format!("{TABLE}:{}", index + 1);
        match row(index + 1, text) {
            None => {}
            Some(Err(what)) => findings.push(Finding::new(place, what)),
            Some(Ok((number, row))) => {
                if let Some(earlier) = rows.insert(number, row) {
                    let line = earlier.line;
                    findings.push(Finding::new(
                        place,
                        format!("promise {number} stands in line {line} already"),
                    ));
                }
            }
        }
    }
    for (number, row) in &rows {
        let place = format!("{TABLE}:{}", row.line);
        if row.promise.is_empty() || row.tests.is_empty() {
            findings.push(Finding::new(
                &place,
                format!("promise {number} needs a sentence and at least one test"),
            ));
        }
        for test in &row.tests {
            if let Err(what) = find(repository, test) {
                findings.push(Finding::new(&place, format!("promise {number}: {what}")));
            }
        }
    }
    for number in DUE.iter().filter(|number| !rows.contains_key(number)) {
        findings.push(Finding::new(
            TABLE,
            format!("promise {number} is due and has no row"),
        ));
    }
    findings
}

/// A row of the table, where the line is one that starts with a number.
fn row(line: usize, text: &str) -> Option<Result<(u32, Row), &'static str>> {
    let cells: Vec<&str> = text
        .trim()
        .strip_prefix('|')?
        .strip_suffix('|')?
        .split('|')
        .map(str::trim)
        .collect();
    if !cells[0].starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let [number, promise, tests] = cells[..] else {
        return Some(Err("a row has three cells: number, promise, tests"));
    };
    let Ok(number) = number.parse() else {
        return Some(Err("the first cell is one number"));
    };
    let tests = tests
        .split(',')
        .map(|test| test.trim().trim_matches('`').to_owned());
    let tests = tests.filter(|test| !test.is_empty()).collect();
    Some(Ok((
        number,
        Row {
            line,
            promise: promise.to_owned(),
            tests,
        },
    )))
}

/// Finds a test named `crates/x/tests/file.rs::module::test` or `hedge_x::module::test`.
fn find(repository: &Repository, test: &str) -> Result<(), String> {
    let Some((holder, name)) = test.split_once("::") else {
        return Err(format!("`{test}` is not the name of a test"));
    };
    let found: Vec<Found> = repository
        .rust()
        .filter_map(|(file, rust)| Some((modules(holder, &file.path)?, rust)))
        .flat_map(|(scope, rust)| {
            let mut tests = Tests {
                scope,
                found: Vec::new(),
            };
            tests.visit_file(rust);
            tests.found
        })
        .filter(|found| found.name == name)
        .collect();
    match found.as_slice() {
        [] => Err(format!("there is no test `{test}`")),
        [one] if one.ignored => Err(format!("the test `{test}` is ignored")),
        [_] => Ok(()),
        _ => Err(format!("there are {} tests `{test}`", found.len())),
    }
}

/// The modules that a file's items are in, as seen from the holder; nothing where it is not of it.
fn modules(holder: &str, path: &str) -> Option<Vec<String>> {
    if holder.contains('/') {
        return (holder == path).then(Vec::new);
    }
    let folder = holder.strip_prefix("hedge_").unwrap_or(holder);
    let inside = path
        .strip_prefix("crates/")?
        .strip_prefix(folder)?
        .strip_prefix("/src/")?;
    let mut parts: Vec<String> = inside
        .strip_suffix(".rs")?
        .split('/')
        .map(str::to_owned)
        .collect();
    if parts
        .last()
        .is_some_and(|last| ["lib", "main", "mod"].contains(&last.as_str()))
    {
        parts.pop();
    }
    Some(parts)
}

struct Found {
    name: String,
    ignored: bool,
}

/// Collects the functions that are tests.
struct Tests {
    scope: Vec<String>,
    found: Vec<Found>,
}

impl<'a> Visit<'a> for Tests {
    fn visit_item_mod(&mut self, item: &'a syn::ItemMod) {
        self.scope.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.scope.pop();
    }

    fn visit_item_fn(&mut self, item: &'a syn::ItemFn) {
        let is_test = |attribute: &syn::Attribute| {
            attribute
                .path()
                .segments
                .last()
                .is_some_and(|last| last.ident == "test")
        };
        if item.attrs.iter().any(is_test) {
            let mut name = self.scope.clone();
            name.push(item.sig.ident.to_string());
            let ignored = item.attrs.iter().any(may_be_ignored);
            self.found.push(Found {
                name: name.join("::"),
                ignored,
            });
        }
    }
}

/// Ignored, or only there under some condition.
fn may_be_ignored(attribute: &syn::Attribute) -> bool {
    ["ignore", "cfg", "cfg_attr"]
        .iter()
        .any(|name| attribute.path().is_ident(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "#[test] fn holds() {} mod inner { #[tokio::test] async fn runs() {} } \
                        #[test] #[ignore] fn sleeps() {} fn helps() {}";

    fn found(tests: &str) -> Vec<String> {
        let rows: String = DUE
            .iter()
            .map(|number| format!("| {number} | It works. | {tests} |\n"))
            .collect();
        let table = format!("| number | promise | tests |\n|---|---|---|\n{rows}");
        let repository = Repository::of(&[
            (TABLE, &table),
            ("crates/cli/tests/a.rs", GOOD),
            ("crates/core/src/part/mod.rs", GOOD),
        ]);
        check(&repository).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn named_tests_are_found() {
        let all = "`crates/cli/tests/a.rs::holds`, `crates/cli/tests/a.rs::inner::runs`, hedge_core::part::holds";
        assert_eq!(found(all), Vec::<String>::new());
    }

    #[test]
    fn tests_that_show_nothing_are_refused() {
        let bad = [
            "",
            "holds",
            "crates/cli/tests/a.rs::gone",
            "crates/cli/tests/b.rs::holds",
            "crates/cli/tests/a.rs::sleeps",
            "crates/cli/tests/a.rs::helps",
            "crates/cli/tests/a.rs::runs",
            "hedge_core::holds",
        ];
        for tests in bad {
            assert_eq!(found(tests).len(), DUE.len(), "{tests}");
        }
    }

    #[test]
    fn missing_and_doubled_rows_are_told() {
        let doubled = "| 1 | It works. | crates/cli/tests/a.rs::holds |\n".repeat(2);
        let repository = Repository::of(&[(TABLE, &doubled), ("crates/cli/tests/a.rs", GOOD)]);
        assert_eq!(check(&repository).len(), DUE.len());
        assert_eq!(check(&Repository::of(&[])).len(), 1);
    }
}
