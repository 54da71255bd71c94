//! Whether a job can run on workers of this machine alone.

use crate::exit::Failure;
use hedge_model::resources::{OWN, mistaken_for, nearest, show_amount};
use hedge_model::spec::Group;
use hedge_model::{JobSpec, Resources};
use std::sync::Arc;

/// Most tasks that are named.
const NAMED_MAX: usize = 5;

type Labels = Vec<(Arc<str>, Arc<str>)>;

/// The most that one task of a job asks for of each resource.
///
/// # Errors
/// Tasks that could never run on a machine that has this.
pub fn largest(spec: &JobSpec, has: &Resources, labels: &Labels) -> Result<Resources, Failure> {
    let groups = spec.groups().iter();
    let wrong: Vec<String> = groups
        .filter_map(|group| unfit(group, has, labels))
        .collect();
    if !wrong.is_empty() {
        let more = wrong.len().saturating_sub(NAMED_MAX);
        let more = if more > 0 {
            format!("; and {more} more")
        } else {
            String::new()
        };
        let wrong: Vec<String> = wrong.into_iter().take(NAMED_MAX).collect();
        return Err(Failure::Arguments(format!(
            "{}{more}. Nothing was started. Change what is asked for, or submit the job to a grid with such a worker",
            wrong.join("; ")
        )));
    }
    let mut largest = Resources::default();
    for group in spec.groups() {
        largest.cpus_milli = largest.cpus_milli.max(group.resources.cpus_milli);
        largest.memory = largest.memory.max(group.resources.memory);
        largest.disk = largest.disk.max(group.resources.disk);
    }
    Ok(largest)
}

/// What a group asks for that this machine does not have.
fn unfit(group: &Group, has: &Resources, labels: &Labels) -> Option<String> {
    let (id, wants) = (&group.id, &group.resources);
    if let Some(name) = wants
        .names()
        .find(|name| wants.amount(name) > has.amount(name))
    {
        let need = show_amount(name, wants.amount(name));
        if OWN.contains(&name) {
            let have = show_amount(name, has.amount(name));
            return Some(format!(
                "task {id:?} asks for {name} {need}, and this machine has {have}"
            ));
        }
        let meant = mistaken_for(name).or_else(|| nearest(name, OWN.into_iter()));
        let hint = meant.map_or_else(String::new, |meant| format!(" (did you mean {meant:?}?)"));
        return Some(format!(
            "task {id:?} asks for {name} {need}, and workers of `hedge run` offer cpus, memory and disk alone{hint}"
        ));
    }
    let (name, value) = group.labels.iter().find(|label| !labels.contains(label))?;
    let have = labels
        .iter()
        .map(|(name, value)| format!("{name} = {value:?}"));
    let have: Vec<String> = have.collect();
    Some(format!(
        "task {id:?} needs a worker labelled {name} = {value:?}, and this machine is {}",
        have.join(", ")
    ))
}
