//! Who may write what in the leader: each of its parts, and each entity, is changed by its own module alone, so none of
//! their fields is visible outside it.

use std::collections::BTreeMap;

use syn::{Fields, Item, ItemStruct, Type, Visibility};

use super::Finding;
use super::source::Repository;

const LEADER: &str = "crates/core/src/supervisor/leader/";

/// What a leader's parts hold one of for each thing in the grid.
const ENTITIES: &[&str] = &[
    "ActiveGroup",
    "ActiveJob",
    "ActiveTask",
    "Attempt",
    "Blob",
    "GroupMember",
    "Load",
    "Worker",
];

/// Checks the structs of the leader's modules.
pub fn check(repository: &Repository) -> Vec<Finding> {
    let mut structs: BTreeMap<String, (&str, &ItemStruct)> = BTreeMap::new();
    for file in &repository.files {
        let (true, Some(rust)) = (file.path.starts_with(LEADER), &file.rust) else {
            continue;
        };
        for item in &rust.items {
            if let Item::Struct(item) = item {
                structs.insert(item.ident.to_string(), (&file.path, item));
            }
        }
    }
    let mut findings = Vec::new();
    let mut owned: Vec<String> = ENTITIES.iter().map(|name| (*name).to_owned()).collect();
    if let Some((path, leader)) = structs.get("Leader") {
        for field in &leader.fields {
            let name = field.ident.as_ref().map(ToString::to_string);
            let name = name.unwrap_or_default();
            match type_name(&field.ty).filter(|part| structs.contains_key(part)) {
                Some(part) => owned.push(part),
                None => {
                    let what = format!(
                        "field `{name}` of `Leader` has no owner: make it a struct of the module that changes it"
                    );
                    findings.push(Finding::new(*path, what));
                }
            }
        }
    }
    for name in owned {
        let Some((path, item)) = structs.get(&name) else {
            continue;
        };
        if has_visible_field(&item.fields) {
            let what = format!(
                "`{name}` has a field that other modules can write: make it private, with a method for what changes it"
            );
            findings.push(Finding::new(*path, what));
        }
    }
    findings
}

/// The name of a type that is not generic.
fn type_name(of: &Type) -> Option<String> {
    let Type::Path(path) = of else { return None };
    let last = path.path.segments.last()?;
    last.arguments.is_none().then(|| last.ident.to_string())
}

fn has_visible_field(fields: &Fields) -> bool {
    let mut all = fields.iter();
    all.any(|field| !matches!(field.vis, Visibility::Inherited))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        let found = check(&Repository::of_one(format!("{LEADER}mod.rs"), text)).into_iter();
        found.map(|finding| finding.what).collect()
    }

    #[test]
    fn parts_and_entities_have_private_fields() {
        let good = "struct Leader { pub pool: Pool } \
                    struct Pool { workers: Vec<Worker> } struct Worker { speed: f64 }";
        assert_eq!(found(good), Vec::<String>::new());
        let part = good.replace("{ workers", "{ pub workers");
        assert!(found(&part)[0].starts_with("`Pool`"), "{:?}", found(&part));
        let entity = good.replace("{ speed", "{ pub(crate) speed");
        assert!(found(&entity)[0].starts_with("`Worker`"));
        let bare = good.replace("pool: Pool", "pool: Vec<Worker>");
        assert!(found(&bare)[0].starts_with("field `pool`"));
    }
}
