//! Files and functions stay short enough to read in one go. What is longer stands in the ratchet
//! with its exact length, and can only shrink.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use super::Finding;
use super::source::Repository;

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;

/// Lines of `LENGTH NAME`; the name is a file's path, or `PATH::FUNCTION`.
const RATCHET: &str = "xtask/ratchet.txt";

/// Checks every Rust file against the limits and the ratchet.
pub fn check(repository: &Repository) -> Vec<Finding> {
    let (known, mut findings) = ratchet(repository);
    let long = long(repository);
    for (name, lines) in &long {
        let limit = limit(name);
        match known.get(name) {
            None => findings.push(Finding::new(
                name,
                format!("{lines} lines; the limit is {limit}: split it where its parts differ in purpose"),
            )),
            Some(allowed) if allowed < lines => {
                findings.push(Finding::new(name, format!("{lines} lines; it had {allowed} and may only shrink")));
            }
            Some(allowed) if allowed > lines => {
                findings.push(Finding::new(name, format!("shrank to {lines} lines: run `cargo xtask tidy --lower`")));
            }
            Some(_) => {}
        }
    }
    for name in known.keys().filter(|name| !long.contains_key(*name)) {
        findings.push(Finding::new(
            RATCHET,
            format!("{name} is within the limit now: run `cargo xtask tidy --lower`"),
        ));
    }
    findings
}

/// Writes the ratchet anew: lower where things shrank, never higher and nothing new.
///
/// # Errors
/// The file could not be written.
pub fn lower(repository: &Repository, root: &Path) -> Result<()> {
    let (known, _) = ratchet(repository);
    let long = long(repository);
    let text: String = known
        .iter()
        .filter_map(|(name, allowed)| {
            long.get(name)
                .map(|lines| format!("{} {name}\n", lines.min(allowed)))
        })
        .collect();
    std::fs::write(root.join(RATCHET), text).with_context(|| format!("cannot write {RATCHET}"))
}

fn limit(name: &str) -> usize {
    if name.contains("::") {
        FUNCTION_LINES_MAX
    } else {
        FILE_LINES_MAX
    }
}

fn ratchet(repository: &Repository) -> (BTreeMap<String, usize>, Vec<Finding>) {
    let mut known = BTreeMap::new();
    let mut findings = Vec::new();
    let text = repository
        .file(RATCHET)
        .map_or("", |file| file.text.as_str());
    for (number, line) in text.lines().enumerate() {
        let entry = line
            .split_once(' ')
            .and_then(|(lines, name)| Some((lines.parse().ok()?, name)));
        let new = entry.is_some_and(|(lines, name)| known.insert(name.to_owned(), lines).is_none());
        if !new {
            let place = format!("{RATCHET}:{}", number + 1);
            findings.push(Finding::new(place, "not a new `LENGTH NAME`".to_owned()));
        }
    }
    (known, findings)
}

/// Everything longer than its limit.
fn long(repository: &Repository) -> BTreeMap<String, usize> {
    let mut long = BTreeMap::new();
    for (file, rust) in repository.rust() {
        let mut functions = Functions {
            scope: Vec::new(),
            found: Vec::new(),
        };
        functions.visit_file(rust);
        let named = functions
            .found
            .into_iter()
            .map(|(name, lines)| (format!("{}::{name}", file.path), lines));
        let whole = (file.path.clone(), file.text.lines().count());
        for (name, lines) in named.chain([whole]) {
            if lines > limit(&name) {
                let longest = long.entry(name).or_insert(lines);
                *longest = lines.max(*longest);
            }
        }
    }
    let python = repository.files.iter();
    for file in python.filter(|file| file.path.ends_with(".py")) {
        let lines = file.text.lines().count();
        if lines > FILE_LINES_MAX {
            long.insert(file.path.clone(), lines);
        }
    }
    long
}

/// Collects the length of each function: from its signature to its closing brace.
struct Functions {
    scope: Vec<String>,
    found: Vec<(String, usize)>,
}

impl Functions {
    fn found(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let lines = block.span().end().line + 1 - signature.span().start().line;
        let mut name = self.scope.clone();
        name.push(signature.ident.to_string());
        self.found.push((name.join("::"), lines));
    }

    fn within(&mut self, name: String, inside: impl FnOnce(&mut Self)) {
        self.scope.push(name);
        inside(self);
        self.scope.pop();
    }
}

impl<'a> Visit<'a> for Functions {
    fn visit_item_fn(&mut self, item: &'a syn::ItemFn) {
        self.found(&item.sig, &item.block);
        self.within(item.sig.ident.to_string(), |this| {
            visit::visit_item_fn(this, item)
        });
    }

    fn visit_impl_item_fn(&mut self, item: &'a syn::ImplItemFn) {
        self.found(&item.sig, &item.block);
        self.within(item.sig.ident.to_string(), |this| {
            visit::visit_impl_item_fn(this, item)
        });
    }

    fn visit_trait_item_fn(&mut self, item: &'a syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.found(&item.sig, block);
        }
        self.within(item.sig.ident.to_string(), |this| {
            visit::visit_trait_item_fn(this, item)
        });
    }

    fn visit_item_mod(&mut self, item: &'a syn::ItemMod) {
        self.within(item.ident.to_string(), |this| {
            visit::visit_item_mod(this, item)
        });
    }

    fn visit_item_impl(&mut self, item: &'a syn::ItemImpl) {
        let name = match &*item.self_ty {
            syn::Type::Path(path) => path.path.segments.last().map(|last| last.ident.to_string()),
            _ => None,
        };
        self.within(name.unwrap_or_else(|| "impl".to_owned()), |this| {
            visit::visit_item_impl(this, item)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(lines: usize) -> String {
        format!(
            "struct S;\nimpl S {{\n    fn long() {{\n{}    }}\n}}\n",
            "        let _ = 1;\n".repeat(lines - 2)
        )
    }

    fn found(lines: usize, ratchet: &str) -> Vec<String> {
        let repository = Repository::of(&[("a.rs", &function(lines)), (RATCHET, ratchet)]);
        check(&repository).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn long_functions_and_files_are_found() {
        assert_eq!(found(70, ""), Vec::<String>::new());
        assert!(found(71, "")[0].starts_with("a.rs::S::long: 71 lines"));
        let file = "\n".repeat(601);
        assert_eq!(check(&Repository::of(&[("b.rs", &file)])).len(), 1);
        assert_eq!(check(&Repository::of(&[("b.rs", &file[1..])])), []);
    }

    #[test]
    fn the_ratchet_is_exact() {
        assert_eq!(found(80, "80 a.rs::S::long\n"), Vec::<String>::new());
        assert!(found(81, "80 a.rs::S::long\n")[0].contains("may only shrink"));
        assert!(found(79, "80 a.rs::S::long\n")[0].contains("shrank to 79"));
        assert!(found(60, "80 a.rs::S::long\n")[0].contains("within the limit now"));
        assert_eq!(found(80, "80 a.rs::S::long\n80 a.rs::S::long\n").len(), 1);
        assert_eq!(found(60, "many a.rs\n").len(), 1);
    }
}
