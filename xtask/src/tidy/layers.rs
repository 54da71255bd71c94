//! Which part of the supervisor's core may use which: durable state is below the leader, what the leader has is below
//! what it does, and what people ask for is above all of it.

use syn::UseTree;
use syn::visit::{self, Visit};

use super::Finding;
use super::source::Repository;

const ROOT: &str = "crates/core/src/supervisor/";

/// Modules that may not use others; all by their paths below [`ROOT`], parts of them included.
struct Rule {
    these: &'static [&'static str],
    never: &'static [&'static str],
    why: &'static str,
}

const RULES: &[Rule] = &[
    Rule {
        these: &["durable"],
        never: &["leader", "follower", "peers", "api", "check", "disk"],
        why: "durable state changes by committed records alone and knows of no role",
    },
    Rule {
        these: &["follower", "peers"],
        never: &["leader", "api"],
        why: "a supervisor that does not lead has no leader's state",
    },
    Rule {
        these: &[
            "leader::attempts::active",
            "leader::attempts::load",
            "leader::attempts::state",
            "leader::blobs::catalog",
            "leader::blobs::state",
            "leader::jobs::active",
            "leader::jobs::critical",
            "leader::jobs::group",
            "leader::placement::blocked",
            "leader::placement::fit",
            "leader::placement::queue",
            "leader::pool::index",
            "leader::pool::reliability",
            "leader::pool::sent",
            "leader::pool::state",
            "leader::pool::worker",
            "leader::promises",
            "leader::redundancy::policies",
            "leader::redundancy::policy",
            "leader::redundancy::survival",
            "leader::timers",
        ],
        never: &["leader::Leadership", "leader::LeaderView", "api"],
        why: "what the leader has knows nothing of the procedures that use it",
    },
    Rule {
        these: &["leader"],
        never: &["api"],
        why: "the leader works without anybody who asks",
    },
];

/// Checks every path that the supervisor's modules name.
pub fn check(repository: &Repository) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &repository.files {
        let (Some(path), Some(rust)) = (file.path.strip_prefix(ROOT), &file.rust) else {
            continue;
        };
        let module = module(path);
        let mut used = Used {
            module: &module,
            paths: Vec::new(),
        };
        used.visit_file(rust);
        used.paths.sort();
        used.paths.dedup();
        let name = module.join("::");
        for rule in RULES.iter().filter(|rule| within(rule.these, &name)) {
            for path in used.paths.iter().filter(|path| within(rule.never, path)) {
                let what = format!("must not use `{path}`: {}", rule.why);
                findings.push(Finding::new(&file.path, what));
            }
        }
    }
    findings
}

/// The module of a file, by its path below the root.
fn module(path: &str) -> Vec<String> {
    let path = path.strip_suffix(".rs").unwrap_or(path);
    let parts = path.split('/').filter(|part| *part != "mod");
    parts.map(str::to_owned).collect()
}

/// Whether a path is one of these or lies in one.
fn within(these: &[&str], path: &str) -> bool {
    let begins = |one: &&str| path.strip_prefix(one);
    let mut rest = these.iter().filter_map(begins);
    rest.any(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Collects paths within the supervisor, as they are from its root.
struct Used<'a> {
    module: &'a [String],
    paths: Vec<String>,
}

impl Used<'_> {
    fn note(&mut self, parts: &[String]) {
        let rest = match parts {
            [first, second, rest @ ..] if first == "crate" && second == "supervisor" => {
                rest.to_vec()
            }
            [first, ..] if first == "super" => {
                let up = parts.iter().take_while(|part| *part == "super").count();
                let Some(stays) = self.module.len().checked_sub(up) else {
                    return;
                };
                [&self.module[..stays], &parts[up..]].concat()
            }
            _ => return,
        };
        self.paths.push(rest.join("::"));
    }

    fn tree(&mut self, before: &mut Vec<String>, tree: &UseTree) {
        match tree {
            UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.tree(before, &path.tree);
                before.pop();
            }
            UseTree::Name(name) => self.leaf(before, name.ident.to_string()),
            UseTree::Rename(name) => self.leaf(before, name.ident.to_string()),
            UseTree::Glob(_) => self.note(before),
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.tree(before, tree);
                }
            }
        }
    }

    fn leaf(&mut self, before: &[String], name: String) {
        let mut parts = before.to_vec();
        parts.push(name);
        self.note(&parts);
    }
}

impl<'ast> Visit<'ast> for Used<'_> {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.tree(&mut Vec::new(), &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let parts = path.segments.iter().map(|part| part.ident.to_string());
        self.note(&parts.collect::<Vec<_>>());
        visit::visit_path(self, path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<String> {
        let found = check(&Repository::of_one(format!("{ROOT}{path}"), text)).into_iter();
        found.map(|finding| finding.what).collect()
    }

    #[test]
    fn lower_layers_do_not_use_upper_ones() {
        let upward = "use crate::supervisor::{Action, leader::pool::Pool};";
        let [what] = &found("durable/state.rs", upward)[..] else {
            panic!("one finding")
        };
        assert!(what.contains("`leader::pool::Pool`"), "{what}");
        assert_eq!(found("api/views.rs", upward), Vec::<String>::new());
        let procedure = "fn f(it: &mut super::super::Leadership<'_>) {}";
        assert_eq!(found("leader/attempts/state.rs", procedure).len(), 1);
        assert_eq!(found("leader/attempts/faults.rs", procedure).len(), 0);
        let asks = "fn f() { crate::supervisor::api::requests::refuse() }";
        assert_eq!(found("leader/jobs/mod.rs", asks).len(), 1);
        assert_eq!(found("leader/pool/state.rs", asks).len(), 2, "two rules");
    }
}
