//! From the tree of a job file to a job.

use crate::access::read_access;
use crate::each::read_each;
use crate::fields::{Field, Fields, Reader};
use crate::keys::{
    CHECKPOINT, DEPENDENCY, ESTIMATE, INPUT, JOB, PIECES_MAX, RESOURCES, STDIN, TASK,
};
use crate::mounts::read_mounts;
use crate::parameters::{Setting, substitute};
use crate::qos::{read_critical, read_need, read_qos};
use crate::tree::{Entry, Node, Value};
use crate::words::RUNTIME;
use crate::{GroupPlaces, Mistake, Places, Spans, Wanted, WantedInput};
use hedge_model::data::INLINE_BYTES_MAX;
use hedge_model::resources::mistaken_for;
use hedge_model::spec::placeholders::{Unknown, unknown_in};
use hedge_model::spec::{CheckpointRule, CriticalRule, Draft, Estimate, Group, Input, Qos};
use hedge_model::{Data, Resources};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

type Read = (Draft, Vec<Wanted>, Places);

/// Reads the job with parameters set, or tells every mistake. `stem` names a job that has no name.
pub fn read(mut root: Node, stem: &str, set: &[Setting]) -> Result<Read, Vec<Mistake>> {
    let mut reader = Reader::default();
    reader.parameters = substitute(&mut root, set, &mut reader);
    let root = &root;
    let job = reader.table(root, &JOB);
    let mut places = Places::default();
    note(&mut places.job, &job);
    if let Some(field) = job.get("parameters") {
        reader.entries(field.node, "[parameters]");
    }
    let name = job
        .get("name")
        .map_or(Some(stem.into()), |field| reader.text(&field));
    let qos = job.get("qos").map_or_else(Qos::default, |field| {
        read_qos(&mut reader, &field, &mut places)
    });
    let critical = job
        .get("critical")
        .map_or_else(CriticalRule::default, |field| {
            read_critical(&mut reader, &field, &mut places)
        });
    let tasks = job.get("task");
    let tasks = tasks.map_or(&[][..], |field| reader.list(&field));
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
        outline: false,
    };
    Ok((draft, wanted, places))
}

/// Reads an array: `"0..60"`, the second number the one behind the last.
pub fn parse_array(text: &str) -> Result<(u32, u32), String> {
    text.split_once("..")
        .and_then(|(from, to)| Some((from.trim().parse().ok()?, to.trim().parse().ok()?)))
        .ok_or_else(|| format!("{text:?} is not an array"))
}

/// Notes where the keys of a table stand.
pub fn note(places: &mut BTreeMap<&'static str, Spans>, fields: &Fields<'_>) {
    for field in fields.given() {
        let items = match &field.node.value {
            Value::List(items) => items.iter().map(|item| item.span.clone()).collect(),
            Value::Table(entries) => entries.iter().map(|it| it.node.span.clone()).collect(),
            _ => Vec::new(),
        };
        let whole = field.node.span.clone();
        places.insert(field.key.name, Spans { whole, items });
    }
}

fn read_task(reader: &mut Reader, node: &Node) -> (Group, Wanted, GroupPlaces) {
    let fields = reader.table(node, &TASK);
    let mut place = GroupPlaces {
        whole: node.span.clone(),
        ..GroupPlaces::default()
    };
    note(&mut place.keys, &fields);
    let mut group = Group::program("", &[]);
    read_runtime(reader, &fields, &mut group);
    let needed = ["id", "command"].into_iter();
    for name in needed.take(1 + usize::from(group.runtime.runs_command())) {
        if let (None, Some(key)) = (fields.get(name), TASK.find(name)) {
            reader.wrong(
                &node.span,
                format!("this task has no `{name}`"),
                format!("add {}", key.written()),
            );
        }
    }
    if let Some(field) = fields.get("id") {
        group.id = reader.text(&field).unwrap_or_default();
    }
    if let Some(field) = fields.get("array") {
        group.array = read_array(reader, &field);
    }
    let before = reader.mistakes.len();
    let mut wanted = Wanted::default();
    let sound = read_each(reader, &fields, &mut group, &mut wanted);
    if let Some(field) = fields.get("command") {
        group.command = reader.texts(&field);
    }
    if let Some(field) = fields.get("deps") {
        read_deps(reader, &field, &mut group, &mut place);
    }
    if let Some(field) = fields.get("outputs") {
        group.outputs = reader.texts(&field);
    }
    if let Some(field) = fields.get("env") {
        group.env = reader.pairs(&field);
    }
    if let Some(field) = fields.get("labels") {
        group.labels = reader.pairs(&field);
        group.labels.sort();
    }
    if let Some(field) = fields.get("resources") {
        group.resources = read_resources(reader, &field);
    }
    if let Some(field) = fields.get("estimate") {
        group.estimate = read_estimate(reader, &field).into();
    }
    if let Some(field) = fields.get("checkpoint") {
        group.checkpoint = read_checkpoint(reader, &field).map(Arc::new);
    }
    if let Some(field) = fields.get("kind") {
        group.kind = reader.text(&field);
    }
    read_numbers(reader, &fields, &mut group);
    read_access(reader, &fields, &mut group);
    let known = sound.then(|| group.placeholders());
    read_files(reader, &fields, &mut group, &mut place, &mut wanted, known);
    if let Some(field) = fields.get("mounts") {
        wanted.mounts = read_mounts(reader, &field, &mut group);
    }
    // What else is wrong may be the reason.
    if reader.mistakes.len() == before {
        check_placeholders(reader, &group, &place);
    }
    (group, wanted, place)
}

fn read_runtime(reader: &mut Reader, fields: &Fields<'_>, group: &mut Group) {
    if let Some(field) = fields.get("runtime") {
        let word = reader.word(&field, "is no runtime", &RUNTIME);
        group.runtime = word.unwrap_or_default();
    }
    if let Some(field) = fields.get("preload") {
        group.preload = reader.texts(&field).into();
    }
}

fn read_numbers(reader: &mut Reader, fields: &Fields<'_>, group: &mut Group) {
    if let Some(field) = fields.get("priority") {
        let priority = reader.whole(&field);
        group.priority = priority.map_or(0, |priority| priority as i32);
    }
    if let Some(field) = fields.get("retry_delay") {
        group.retry_delay = reader.duration(&field);
    }
    if let Some(field) = fields.get("time_limit") {
        group.time_limit = reader.duration(&field);
    }
    if let Some(field) = fields.get("critical") {
        group.critical = reader.flag(&field).unwrap_or(false);
    }
    if let Some(field) = fields.get("keep") {
        group.keep = reader.flag(&field).unwrap_or(false);
    }
}

fn read_array(reader: &mut Reader, field: &Field<'_>) -> Option<(u32, u32)> {
    let text = reader.text(field)?;
    match parse_array(&text) {
        Ok(array) => Some(array),
        Err(what) => {
            let help = "write the first index and the one behind the last, in quotes: \"0..60\" is 0 to 59";
            reader.wrong(&field.node.span, what, help);
            None
        }
    }
}

fn read_resources(reader: &mut Reader, field: &Field<'_>) -> Resources {
    let mut resources = Resources::cpus(1000);
    let fields = reader.table(field.node, &RESOURCES);
    if let Some(field) = fields.get("cpus") {
        let cpus = match field.node.typed() {
            Value::Int(number) => *number as f64,
            Value::Float(number, _) => *number,
            _ => -1.0,
        };
        if (0.0..=PIECES_MAX as f64).contains(&cpus) {
            resources.cpus_milli = (cpus * 1000.0).round() as u64;
        } else {
            reader.wrong(
                &field.node.span,
                "`cpus` must be a number of CPUs",
                format!("write a number from 0 to {PIECES_MAX}, like 2 or 0.5"),
            );
        }
    }
    if let Some(field) = fields.get("memory") {
        resources.memory = reader.bytes(&field).unwrap_or(0);
    }
    if let Some(field) = fields.get("disk") {
        resources.disk = reader.bytes(&field).unwrap_or(0);
    }
    for entry in fields.entries {
        if RESOURCES.find(&entry.key).is_none() {
            read_named(reader, entry, &mut resources);
        }
    }
    resources.named.sort();
    resources
}

/// A resource that workers offer under a name of their own.
fn read_named(reader: &mut Reader, entry: &Entry, resources: &mut Resources) {
    let name = entry.key.as_str();
    if let Some(meant) = mistaken_for(name) {
        reader.wrong(
            &entry.key_span,
            format!("`{name}` is not a resource that workers offer"),
            format!("did you mean `{meant}`?"),
        );
        return;
    }
    if !name_ok(name) {
        reader.wrong(
            &entry.key_span,
            format!("{name:?} cannot be the name of a resource"),
            "use letters, digits, '-' and '_', at most 64 of them",
        );
        return;
    }
    match entry.node.typed() {
        Value::Int(0) => {}
        Value::Int(amount) if (0..=PIECES_MAX).contains(amount) => {
            resources.named.push((name.into(), *amount as u64));
        }
        _ => reader.wrong(
            &entry.node.span,
            format!("`{name}` must be a whole number of pieces"),
            format!("write a number from 0 to {PIECES_MAX}"),
        ),
    }
}

fn name_ok(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    (1..=64).contains(&name.len()) && name.chars().all(fits)
}

fn read_estimate(reader: &mut Reader, field: &Field<'_>) -> Estimate {
    let fields = reader.table(field.node, &ESTIMATE);
    let mut bytes = |name| fields.get(name).and_then(|field| reader.bytes(&field));
    let (memory, disk) = (bytes("memory"), bytes("disk"));
    let (network, output) = (bytes("network"), bytes("output"));
    let cpu_time = fields.get("cpu_time");
    Estimate {
        cpu_time: cpu_time.and_then(|field| reader.duration(&field)),
        memory,
        disk,
        network,
        output,
    }
}

fn read_checkpoint(reader: &mut Reader, field: &Field<'_>) -> Option<CheckpointRule> {
    let fields = reader.table(field.node, &CHECKPOINT);
    let Some(files) = fields.get("files") else {
        if matches!(field.node.value, Value::Table(_)) {
            let help = format!("write {}", field.key.written());
            reader.wrong(&field.node.span, "this checkpoint has no `files`", help);
        }
        return None;
    };
    let mut rule = CheckpointRule::of(&[]);
    rule.files = reader.texts(&files);
    let mut duration = |name| fields.get(name).and_then(|field| reader.duration(&field));
    let (every, grace) = (duration("every"), duration("grace"));
    rule.every = every.unwrap_or(rule.every);
    rule.grace = grace.unwrap_or(rule.grace);
    let most = fields
        .get("size_limit")
        .and_then(|field| reader.bytes(&field));
    rule.bytes_max = most.unwrap_or(rule.bytes_max);
    Some(rule)
}

fn read_files(
    reader: &mut Reader,
    fields: &Fields<'_>,
    group: &mut Group,
    place: &mut GroupPlaces,
    wanted: &mut Wanted,
    known: Option<Vec<Arc<str>>>,
) {
    if let Some(field) = fields.get("inputs") {
        for (position, item) in reader.list(&field).iter().enumerate() {
            if let Value::Text(pattern) = &item.value {
                if let Some(known) = &known {
                    check_input(reader, pattern, &item.span, known);
                }
                wanted.inputs.push(WantedInput::Files {
                    pattern: pattern.clone(),
                    span: item.span.clone(),
                });
                continue;
            }
            let fields = reader.table(item, &INPUT);
            if fields.get("task").is_some() {
                if let Some((task, each)) = read_other(reader, &fields, group) {
                    group.inputs.push(match each {
                        true => Input::TaskEach(task),
                        false => Input::Task(task),
                    });
                    place.input_items.push(position);
                    wanted.inputs.push(WantedInput::Task);
                }
            } else if names_nothing(&fields) && matches!(item.value, Value::Table(_)) {
                reader.wrong(
                    &item.span,
                    "this input names nothing",
                    format!(
                        "write a file's name, or another task: {}",
                        field.key.written()
                    ),
                );
            }
        }
    }
    if let Some(field) = fields.get("stdin") {
        match &field.node.value {
            Value::Text(name) => wanted.stdin = Some((name.clone(), field.node.span.clone())),
            _ => group.stdin = read_stdin_text(reader, field.node),
        }
    }
}

/// Names of tasks, or tables that say how much of one is needed.
fn read_deps(reader: &mut Reader, field: &Field<'_>, group: &mut Group, place: &mut GroupPlaces) {
    let (mut each, mut each_items) = (Vec::new(), Vec::new());
    for (position, item) in reader.list(field).iter().enumerate() {
        if !matches!(item.value, Value::Table(_)) {
            group.deps.extend(reader.text(&field.of(item)));
            place.dep_items.push(position);
            continue;
        }
        let fields = reader.table(item, &DEPENDENCY);
        if fields.get("task").is_none() {
            if names_nothing(&fields) {
                let help = format!("write another task's name: {}", field.key.written());
                reader.wrong(&item.span, "this dependency names nothing", help);
            }
            continue;
        }
        match read_other(reader, &fields, group) {
            Some((task, true)) => {
                each.push(task);
                each_items.push(position);
            }
            Some((task, false)) => {
                group.deps.push(task);
                place.dep_items.push(position);
            }
            None => {}
        }
    }
    group.deps_each = each.into();
    place.dep_items.extend(each_items);
}

/// Another task that a table names, and whether each task waits for the one at its own place there.
fn read_other(
    reader: &mut Reader,
    fields: &Fields<'_>,
    group: &mut Group,
) -> Option<(Arc<str>, bool)> {
    let task = reader.text(&fields.get("task")?)?;
    let need = fields.get("need");
    let need = need.and_then(|field| read_need(reader, &field));
    group.needs.extend(need.map(|need| (task.clone(), need)));
    let each = fields.get("each").and_then(|field| reader.flag(&field));
    Some((task, each.unwrap_or(false)))
}

/// Whether a table has nothing but what belongs to the name of a task.
fn names_nothing(fields: &Fields<'_>) -> bool {
    let known = |key: &str| key == "need" || key == "each";
    fields.entries.iter().all(|entry| known(&entry.key))
}

fn read_stdin_text(reader: &mut Reader, node: &Node) -> Option<Data> {
    let fields = reader.table(node, &STDIN);
    let Some(text) = fields.get("text") else {
        if fields.entries.is_empty() && matches!(node.value, Value::Table(_)) {
            reader.wrong(
                &node.span,
                "`stdin` gives nothing to read",
                "write a file's name, or { text = \"…\" }",
            );
        }
        return None;
    };
    let content = reader.text(&text)?;
    if content.len() > INLINE_BYTES_MAX {
        reader.wrong(
            &text.node.span,
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

fn check_placeholders(reader: &mut Reader, group: &Group, place: &GroupPlaces) {
    for unknown in group.unknown_placeholders() {
        let spans = place.keys.get(unknown.key);
        let span = spans.map(|spans| spans.items.get(unknown.item).unwrap_or(&spans.whole));
        let span = span.unwrap_or(&place.whole).clone();
        let help = unknown.help(&reader.parameters);
        reader.wrong(&span, unknown.what(), help);
    }
}

/// In names of input files the placeholders of the task mean something.
fn check_input(reader: &mut Reader, text: &str, span: &Range<usize>, known: &[Arc<str>]) {
    if let Some(name) = unknown_in(text, known) {
        let unknown = Unknown {
            key: "inputs",
            item: 0,
            name: name.to_owned(),
            known: known.to_vec(),
        };
        let help = unknown.help(&reader.parameters);
        reader.wrong(span, unknown.what(), help);
    }
}
