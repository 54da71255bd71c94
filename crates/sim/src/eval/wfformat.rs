//! WfFormat, the JSON of the WfCommons project: schema 1.5, and 1.6, which adds optional parts alone.
//! <https://github.com/wfcommons/WfFormat>

use super::workflow::{Task, WORK_MIN, Workflow};
use crate::Error;
use hedge_model::spec::kinds::{mostly_single, stem, without_digits};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;

const VERSIONS: [&str; 2] = ["1.5", "1.6"];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Instance {
    name: String,
    schema_version: String,
    workflow: Parts,
}

#[derive(Deserialize)]
struct Parts {
    specification: Specification,
    execution: Option<Execution>,
}

#[derive(Deserialize)]
struct Specification {
    tasks: Vec<Specified>,
    #[serde(default)]
    files: Vec<File>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Specified {
    #[serde(default)]
    name: String,
    id: String,
    category: Option<String>,
    #[serde(default)]
    parents: Vec<String>,
    #[serde(default)]
    children: Vec<String>,
    #[serde(default)]
    input_files: Vec<String>,
    #[serde(default)]
    output_files: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    id: String,
    size_in_bytes: f64,
}

#[derive(Deserialize)]
struct Execution {
    tasks: Vec<Executed>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Executed {
    id: String,
    runtime_in_seconds: f64,
    category: Option<String>,
    command: Option<Command>,
    memory_in_bytes: Option<f64>,
}

#[derive(Deserialize)]
struct Command {
    program: Option<String>,
}

/// Reads one instance.
pub(crate) fn read(json: &str) -> Result<Workflow, Error> {
    let bad = |why: String| Error::Workflow(why);
    let instance: Instance =
        serde_json::from_str(json).map_err(|error| bad(format!("not WfFormat: {error}")))?;
    if !VERSIONS.contains(&instance.schema_version.as_str()) {
        let version = &instance.schema_version;
        return Err(bad(format!(
            "its schema is {version:?}, and 1.5 and 1.6 are read"
        )));
    }
    let Parts {
        specification,
        execution,
    } = instance.workflow;
    let Some(execution) = execution else {
        return Err(bad("it has no recorded execution to take times from".into()));
    };
    let recorded: BTreeMap<&str, &Executed> = execution
        .tasks
        .iter()
        .map(|task| (task.id.as_str(), task))
        .collect();
    let files = &specification.files;
    let blobs = files.iter().map(|file| file.size_in_bytes.max(0.0) as u64);
    let blobs: Vec<u64> = blobs.collect();
    let numbers: BTreeMap<&str, u32> = files.iter().map(|file| file.id.as_str()).zip(0..).collect();
    let tasks = &specification.tasks;
    let mut places = BTreeMap::new();
    for (at, task) in (0u32..).zip(tasks) {
        if places.insert(task.id.as_str(), at).is_some() {
            return Err(bad(format!("there are two tasks {:?}", task.id)));
        }
    }
    let parents = all_parents(tasks, &places)?;
    let known = |files: &[String]| -> Vec<u32> {
        let numbers = files.iter().filter_map(|file| numbers.get(file.as_str()));
        numbers.copied().collect()
    };
    let runs = tasks.iter().map(|task| {
        let run = recorded.get(task.id.as_str()).copied();
        run.ok_or_else(|| bad(format!("task {:?} has no recorded time", task.id)))
    });
    let runs = runs.collect::<Result<Vec<_>, Error>>()?;
    let kinds = kinds(tasks, &runs);
    let read = |(at, (task, parents)): (usize, (&Specified, Vec<u32>))| {
        let run = runs[at];
        if !run.runtime_in_seconds.is_finite() || run.runtime_in_seconds < 0.0 {
            return Err(bad(format!("the time of task {:?} is no time", task.id)));
        }
        Ok(Task {
            id: task.id.as_str().into(),
            kind: kinds[at].clone(),
            work: run.runtime_in_seconds.max(WORK_MIN),
            parents,
            children: Vec::new(),
            inputs: known(&task.input_files),
            outputs: known(&task.output_files),
            memory: run.memory_in_bytes.unwrap_or(0.0).max(0.0) as u64,
            critical: false,
            saves_s: None,
        })
    };
    let tasks = tasks.iter().zip(parents).enumerate().map(read);
    let tasks = tasks.collect::<Result<Vec<Task>, Error>>()?;
    Workflow::new(instance.name, tasks, blobs)
}

/// What each task has in common with others: its category, else its program, else its name without the suffix that
/// numbers it. A source that gives all tasks the same kind, or almost every task its own, says nothing, and the next
/// one is asked.
fn kinds(tasks: &[Specified], runs: &[&Executed]) -> Vec<Arc<str>> {
    fn given(text: Option<&str>) -> Option<&str> {
        text.map(stem).filter(|text| !text.is_empty())
    }
    let both = || tasks.iter().zip(runs);
    let name = |task: &Specified| -> Arc<str> {
        let name = if task.name.is_empty() {
            &task.id
        } else {
            &task.name
        };
        stem(name).into()
    };
    let category = |task: &Specified, run: &Executed| -> Option<Arc<str>> {
        let word = task.category.as_deref().or(run.category.as_deref());
        given(word).map(Into::into)
    };
    let program = |run: &Executed| -> Option<Arc<str>> {
        let path = run.command.as_ref()?.program.as_deref()?;
        given(path.rsplit('/').next()).map(Into::into)
    };
    let by_category = both().map(|(task, run)| category(task, run));
    let by_category = by_category.collect::<Option<Vec<_>>>();
    let by_program: Vec<Arc<str>> = both()
        .map(|(task, run)| program(run).unwrap_or_else(|| name(task)))
        .collect();
    let by_name: Vec<Arc<str>> = tasks.iter().map(name).collect();
    let by_letters = by_name.iter().map(|name| without_digits(name).into());
    let by_letters: Vec<Arc<str>> = by_letters.collect();
    let sources = [
        by_category.as_ref(),
        Some(&by_program),
        Some(&by_name),
        Some(&by_letters),
    ];
    let found = sources.into_iter().flatten().find(|kinds| tells(kinds));
    found.unwrap_or(&by_program).clone()
}

/// Whether kinds group tasks, and not all of them together.
fn tells(kinds: &[Arc<str>]) -> bool {
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    for kind in kinds {
        *counts.entry(kind).or_default() += 1;
    }
    counts.len() > 1 && !mostly_single(counts.into_values())
}

/// Who waits for whom, whichever of the two says so.
fn all_parents(tasks: &[Specified], places: &BTreeMap<&str, u32>) -> Result<Vec<Vec<u32>>, Error> {
    let mut parents: Vec<Vec<u32>> = vec![Vec::new(); tasks.len()];
    let place = |id: &String| {
        let unknown = || Error::Workflow(format!("there is no task {id:?}, and others name it"));
        places.get(id.as_str()).copied().ok_or_else(unknown)
    };
    for (at, task) in (0u32..).zip(tasks) {
        for parent in &task.parents {
            parents[at as usize].push(place(parent)?);
        }
        for child in &task.children {
            parents[place(child)? as usize].push(at);
        }
    }
    for list in &mut parents {
        list.sort_unstable();
        list.dedup();
    }
    Ok(parents)
}
