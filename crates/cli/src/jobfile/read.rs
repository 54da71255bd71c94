//! From the tree of a job file to a job.

use super::fields::{Fields, Reader};
use super::qos::{read_critical, read_need, read_qos};
use super::tree::{Node, Value};
use super::{GroupPlaces, Mistake, Places, Spans, Wanted, WantedInput};
use hedge_model::data::INLINE_BYTES_MAX;
use hedge_model::resources::mistaken_for;
use hedge_model::spec::placeholders::{Piece, pieces};
use hedge_model::spec::{CriticalRule, Draft, Estimate, Group, Input, Qos};
use hedge_model::units::{parse_bytes, parse_duration};
use hedge_model::{Data, Resources};
use std::ops::Range;
use std::sync::Arc;

const JOB_KEYS: [&str; 4] = ["name", "qos", "critical", "task"];
const TASK_KEYS: [&str; 16] = [
    "id",
    "array",
    "command",
    "env",
    "stdin",
    "deps",
    "inputs",
    "outputs",
    "resources",
    "labels",
    "priority",
    "crash_limit",
    "time_limit",
    "critical",
    "estimate",
    "kind",
];
const ESTIMATE_KEYS: [&str; 5] = ["cpu_time", "memory", "disk", "network", "output"];

/// Most CPUs or pieces of a resource that one task can ask for; beyond it is a typing mistake.
const PIECES_MAX: i64 = 1_000_000;

type Read = (Draft, Vec<Wanted>, Places);

/// Reads the job, or tells every mistake. `stem` names a job that has no name.
pub(super) fn read(root: &Node, stem: &str) -> Result<Read, Vec<Mistake>> {
    let mut reader = Reader::default();
    let job = reader.table(root, "a job file", &JOB_KEYS);
    let mut places = Places::default();
    note(&mut places.job, &job, &JOB_KEYS);
    let name = job.get("name").map_or(Some(stem.into()), |node| {
        reader.text(node, "name", "name = \"zoom\"")
    });
    let qos = job.get("qos").map_or_else(Qos::default, |node| {
        read_qos(&mut reader, node, &mut places)
    });
    let critical = job
        .get("critical")
        .map_or_else(CriticalRule::default, |node| {
            read_critical(&mut reader, node, &mut places)
        });
    let tasks = job.get("task").map_or(&[][..], |node| {
        reader.list(node, "task", "each task as a [[task]] table")
    });
    let mut groups = Vec::with_capacity(tasks.len());
    let mut wanted = Vec::with_capacity(tasks.len());
    for node in tasks {
        let (group, wants, place) = read_task(&mut reader, node);
        groups.push(group);
        wanted.push(wants);
        places.groups.push(place);
    }
    if !reader.mistakes.is_empty() {
        return Err(reader.mistakes);
    }
    let draft = Draft {
        name: name.unwrap_or_else(|| "job".into()),
        qos,
        critical,
        files: Vec::new(),
        groups,
    };
    Ok((draft, wanted, places))
}

/// Reads an array: `"0..60"`, the second number the one behind the last.
pub(crate) fn parse_array(text: &str) -> Result<(u32, u32), String> {
    text.split_once("..")
        .and_then(|(from, to)| Some((from.trim().parse().ok()?, to.trim().parse().ok()?)))
        .ok_or_else(|| format!("{text:?} is not an array"))
}

pub(super) fn note<'k>(
    places: &mut std::collections::BTreeMap<&'k str, Spans>,
    fields: &Fields<'_>,
    known: &[&'k str],
) {
    for key in known {
        let Some(node) = fields.get(key) else {
            continue;
        };
        let items = match &node.value {
            Value::List(items) => items.iter().map(|item| item.span.clone()).collect(),
            _ => Vec::new(),
        };
        let whole = node.span.clone();
        places.insert(key, Spans { whole, items });
    }
}

fn read_task(reader: &mut Reader, node: &Node) -> (Group, Wanted, GroupPlaces) {
    let fields = reader.table(node, "a [[task]]", &TASK_KEYS);
    let mut place = GroupPlaces {
        whole: node.span.clone(),
        ..GroupPlaces::default()
    };
    note(&mut place.keys, &fields, &TASK_KEYS);
    let mut group = Group::program("", &[]);
    for (key, example) in [
        ("id", "id = \"frame\""),
        ("command", "command = [\"sh\", \"-c\", \"…\"]"),
    ] {
        if fields.get(key).is_none() {
            reader.wrong(
                &node.span,
                format!("this task has no `{key}`"),
                format!("add {example}"),
            );
        }
    }
    if let Some(node) = fields.get("id") {
        let id = reader.text(node, "id", "id = \"frame\"");
        group.id = id.unwrap_or_default();
    }
    if let Some(node) = fields.get("array") {
        group.array = read_array(reader, node);
    }
    if let Some(node) = fields.get("command") {
        let example = "the program and its arguments as a list: [\"sh\", \"-c\", \"…\"]";
        group.command = reader.texts(node, "command", example);
    }
    if let Some(node) = fields.get("deps") {
        read_deps(reader, node, &mut group);
    }
    if let Some(node) = fields.get("outputs") {
        group.outputs = reader.texts(node, "outputs", "outputs = [\"frame-${index}.png\"]");
        variables(reader, node, group.array.is_some());
    }
    if let Some(node) = fields.get("env") {
        group.env = read_pairs(reader, node, "env", "env = { MODE = \"fast\" }");
    }
    if let Some(node) = fields.get("labels") {
        group.labels = read_pairs(reader, node, "labels", "labels = { arch = \"x86_64\" }");
        group.labels.sort();
    }
    if let Some(node) = fields.get("resources") {
        group.resources = read_resources(reader, node);
    }
    if let Some(node) = fields.get("estimate") {
        group.estimate = read_estimate(reader, node);
    }
    if let Some(node) = fields.get("kind") {
        group.kind = reader.text(node, "kind", "kind = \"frame\"");
    }
    read_numbers(reader, &fields, &mut group);
    let wanted = read_files(reader, &fields, &mut group, &mut place);
    (group, wanted, place)
}

fn read_numbers(reader: &mut Reader, fields: &Fields<'_>, group: &mut Group) {
    if let Some(node) = fields.get("priority") {
        let range = i64::from(i32::MIN)..i64::from(i32::MAX) + 1;
        let priority = reader.whole(node, "priority", range);
        group.priority = priority.map_or(0, |priority| priority as i32);
    }
    if let Some(node) = fields.get("crash_limit") {
        let limit = reader.whole(node, "crash_limit", 1..i64::from(u32::MAX) + 1);
        group.crash_limit = limit.map_or(1, |limit| limit as u32);
    }
    if let Some(node) = fields.get("time_limit") {
        group.time_limit = reader.unit(node, "time_limit", "\"10min\"", parse_duration);
    }
    if let Some(node) = fields.get("critical") {
        group.critical = reader.flag(node, "critical").unwrap_or(false);
    }
}

fn read_array(reader: &mut Reader, node: &Node) -> Option<(u32, u32)> {
    let right = "the first index and the one behind the last, in quotes: \"0..60\" is 0 to 59";
    let text = reader.text(node, "array", right)?;
    match parse_array(&text) {
        Ok(array) => Some(array),
        Err(what) => {
            reader.wrong(&node.span, what, format!("write {right}"));
            None
        }
    }
}

fn read_pairs(
    reader: &mut Reader,
    node: &Node,
    key: &str,
    example: &str,
) -> Vec<(Arc<str>, Arc<str>)> {
    let mut pairs = Vec::new();
    for entry in reader.entries(node, &format!("`{key}`")) {
        if let Some(value) = reader.text(&entry.node, &entry.key, example) {
            pairs.push((entry.key.as_str().into(), value));
        }
    }
    pairs
}

fn read_resources(reader: &mut Reader, node: &Node) -> Resources {
    let mut resources = Resources::cpus(1000);
    for entry in reader.entries(node, "`resources`") {
        let (key, node) = (entry.key.as_str(), &entry.node);
        match key {
            "cpus" => {
                let cpus = match node.value {
                    Value::Int(number) => number as f64,
                    Value::Float(number) => number,
                    _ => -1.0,
                };
                if (0.0..=PIECES_MAX as f64).contains(&cpus) {
                    resources.cpus_milli = (cpus * 1000.0).round() as u64;
                } else {
                    reader.wrong(
                        &node.span,
                        "`cpus` must be a number of CPUs",
                        format!("write a number from 0 to {PIECES_MAX}, like 2 or 0.5"),
                    );
                }
            }
            "memory" | "disk" => {
                let bytes = reader
                    .unit(node, key, "\"1 GiB\"", parse_bytes)
                    .unwrap_or(0);
                let slot = if key == "memory" {
                    &mut resources.memory
                } else {
                    &mut resources.disk
                };
                *slot = bytes;
            }
            _ if mistaken_for(key).is_some() => reader.wrong(
                &entry.key_span,
                format!("`{key}` is not a resource that workers offer"),
                format!("did you mean `{}`?", mistaken_for(key).unwrap_or_default()),
            ),
            _ if !name_ok(key) => reader.wrong(
                &entry.key_span,
                format!("{key:?} cannot be the name of a resource"),
                "use letters, digits, '-' and '_', at most 64 of them",
            ),
            _ => {
                let amount = reader.whole(node, key, 0..PIECES_MAX + 1).unwrap_or(0) as u64;
                if amount > 0 {
                    resources.named.push((key.into(), amount));
                }
            }
        }
    }
    resources.named.sort();
    resources
}

fn name_ok(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    (1..=64).contains(&name.len()) && name.chars().all(fits)
}

fn read_estimate(reader: &mut Reader, node: &Node) -> Estimate {
    let fields = reader.table(node, "`estimate`", &ESTIMATE_KEYS);
    let mut bytes = |key| {
        let node = fields.get(key)?;
        reader.unit(node, key, "\"32 MiB\"", parse_bytes)
    };
    let (memory, disk) = (bytes("memory"), bytes("disk"));
    let (network, output) = (bytes("network"), bytes("output"));
    let cpu_time = fields
        .get("cpu_time")
        .and_then(|node| reader.unit(node, "cpu_time", "\"1s\"", parse_duration));
    Estimate {
        cpu_time,
        memory,
        disk,
        network,
        output,
    }
}

fn read_files(
    reader: &mut Reader,
    fields: &Fields<'_>,
    group: &mut Group,
    place: &mut GroupPlaces,
) -> Wanted {
    let mut wanted = Wanted::default();
    let example = "inputs = [\"scene.pov\", { task = \"frame\" }]";
    let items = fields
        .get("inputs")
        .map_or(&[][..], |node| reader.list(node, "inputs", example));
    for (position, item) in items.iter().enumerate() {
        if let Value::Text(pattern) = &item.value {
            variables_in(reader, pattern, &item.span, group.array.is_some());
            wanted.inputs.push(WantedInput::Files {
                pattern: pattern.clone(),
                span: item.span.clone(),
            });
            continue;
        }
        let fields = reader.table(item, "an input that is no file's name", &["task", "need"]);
        match fields.get("task") {
            Some(node) => {
                if let Some(task) = reader.text(node, "task", example) {
                    let need = fields.get("need").and_then(|node| read_need(reader, node));
                    group.needs.extend(need.map(|need| (task.clone(), need)));
                    group.inputs.push(Input::Task(task));
                    place.input_items.push(position);
                    wanted.inputs.push(WantedInput::Task);
                }
            }
            None if fields.entries.is_empty() && matches!(item.value, Value::Table(_)) => reader
                .wrong(
                    &item.span,
                    "this input names nothing",
                    format!("write a file's name, or another task: {example}"),
                ),
            None => {}
        }
    }
    if let Some(node) = fields.get("stdin") {
        match &node.value {
            Value::Text(name) => wanted.stdin = Some((name.clone(), node.span.clone())),
            _ => group.stdin = read_stdin_text(reader, node),
        }
    }
    wanted
}

/// Names of tasks, or tables that say how much of one is needed.
fn read_deps(reader: &mut Reader, node: &Node, group: &mut Group) {
    let example = "deps = [\"frame\", { task = \"fold\", need = \"95%\" }]";
    for item in reader.list(node, "deps", example) {
        if !matches!(item.value, Value::Table(_)) {
            group.deps.extend(reader.text(item, "deps", example));
            continue;
        }
        let fields = reader.table(item, "a dependency", &["task", "need"]);
        let Some(task) = fields.get("task") else {
            if fields.entries.iter().all(|entry| entry.key == "need") {
                let help = format!("write another task's name: {example}");
                reader.wrong(&item.span, "this dependency names nothing", help);
            }
            continue;
        };
        if let Some(task) = reader.text(task, "task", example) {
            let need = fields.get("need").and_then(|node| read_need(reader, node));
            group.needs.extend(need.map(|need| (task.clone(), need)));
            group.deps.push(task);
        }
    }
}

fn read_stdin_text(reader: &mut Reader, node: &Node) -> Option<Data> {
    let example = "a file's name, or { text = \"…\" }";
    let fields = reader.table(node, "`stdin`", &["text"]);
    let Some(text) = fields.get("text") else {
        if fields.entries.is_empty() && matches!(node.value, Value::Table(_)) {
            reader.wrong(
                &node.span,
                "`stdin` gives nothing to read",
                format!("write {example}"),
            );
        }
        return None;
    };
    let content = reader.text(text, "text", example)?;
    if content.len() > INLINE_BYTES_MAX {
        reader.wrong(
            &text.span,
            format!(
                "the text is {} bytes long, at most {INLINE_BYTES_MAX} are taken here",
                content.len()
            ),
            "put it into a file and write its name",
        );
        return None;
    }
    Some(Data::Inline(content.as_bytes().into()))
}

fn variables(reader: &mut Reader, node: &Node, array: bool) {
    let Value::List(items) = &node.value else {
        return;
    };
    for item in items {
        if let Value::Text(text) = &item.value {
            variables_in(reader, text, &item.span, array);
        }
    }
}

/// In names of files only `${index}` means something, and only in an array.
fn variables_in(reader: &mut Reader, text: &str, span: &Range<usize>, array: bool) {
    for piece in pieces(text) {
        let Piece::Name { name, .. } = piece else {
            continue;
        };
        if name != "index" {
            reader.wrong(
                span,
                format!("`${{{name}}}` is not known in a file's name"),
                "`${index}` is the only variable there; `$${name}` stands for the text itself",
            );
        } else if !array {
            reader.wrong(
                span,
                "`${index}` has no meaning here: the task is not an array",
                "add array = \"0..60\", or write the name without it",
            );
        }
    }
}
