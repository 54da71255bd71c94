//! The tables `[qos]` and `[critical]` of a job file.

use crate::Places;
use crate::fields::{Field, Reader};
use crate::keys::{CRITICAL, QOS};
use crate::read::note;
use crate::tree::Value;
use crate::words::{CRITICAL_PLACEMENT, REDUNDANCY, UNPLACEABLE};
use hedge_model::spec::{CriticalRule, MaxFailures, Measure, Need, Qos, Top};

pub fn read_qos(reader: &mut Reader, field: &Field<'_>, places: &mut Places) -> Qos {
    let fields = reader.table(field.node, &QOS);
    note(&mut places.job, &fields);
    let mut qos = Qos::default();
    if let Some(field) = fields.get("redundancy") {
        let word = reader.word(&field, "is no kind of redundancy", &REDUNDANCY);
        qos.redundancy = word.unwrap_or(qos.redundancy);
    }
    if let Some(field) = fields.get("copies") {
        let copies = reader.whole(&field);
        qos.copies = copies.map_or(qos.copies, |copies| copies as u32);
    }
    if let Some(field) = fields.get("need") {
        qos.need = read_need(reader, &field).unwrap_or(qos.need);
    }
    if let Some(field) = fields.get("max_failures") {
        qos.max_failures = read_max_failures(reader, &field);
    }
    if let Some(field) = fields.get("tolerate_failures") {
        qos.tolerate_failures = reader.flag(&field).unwrap_or_default();
    }
    if let Some(field) = fields.get("unplaceable") {
        let wrong = "does not say what becomes of a task that no worker can take";
        let word = reader.word(&field, wrong, &UNPLACEABLE);
        qos.unplaceable = word.unwrap_or(qos.unplaceable);
    }
    if let Some(field) = fields.get("critical_placement") {
        let wrong = "does not say where critical tasks run";
        let word = reader.word(&field, wrong, &CRITICAL_PLACEMENT);
        qos.critical_placement = word.unwrap_or(qos.critical_placement);
    }
    if let Some(field) = fields.get("finish_by") {
        qos.finish_by = reader.duration(&field);
    }
    if let Some(field) = fields.get("confidence") {
        match read_share(&field) {
            Some(share) => qos.confidence = share,
            None => reader.wrong(
                &field.node.span,
                "`confidence` must be a chance",
                "write it in quotes, like \"95%\"",
            ),
        }
    }
    if let Some(field) = fields.get("open_timeout") {
        qos.open_timeout = reader.duration(&field);
    }
    if let Some(field) = fields.get("budget") {
        match read_money(&field) {
            Some(micro) => qos.budget = Some(micro),
            None => reader.wrong(
                &field.node.span,
                "`budget` must be an amount of the grid's currency",
                "write a number with up to six decimals, like 2.5",
            ),
        }
    }
    qos
}

fn read_share(field: &Field<'_>) -> Option<f64> {
    let Value::Text(text) = &field.node.value else {
        return None;
    };
    let number: f64 = text.strip_suffix('%')?.trim().parse().ok()?;
    (0.0..=100.0).contains(&number).then_some(number / 100.0)
}

/// Whole and millionth parts of a currency, in millionths.
fn read_money(field: &Field<'_>) -> Option<u64> {
    let amount = match field.node.typed() {
        Value::Int(whole) => *whole as f64,
        Value::Float(amount, _) => *amount,
        _ => return None,
    };
    (0.0..1e12)
        .contains(&amount)
        .then(|| (amount * 1e6).round() as u64)
}

fn read_count(field: &Field<'_>) -> Option<u32> {
    match field.node.typed() {
        Value::Int(number) => u32::try_from(*number).ok(),
        _ => None,
    }
}

/// How much of something is needed.
pub fn read_need(reader: &mut Reader, field: &Field<'_>) -> Option<Need> {
    let count = read_count(field).filter(|count| *count > 0);
    let share = read_share(field).filter(|share| *share > 0.0);
    let need = count.map(Need::Count).or(share.map(Need::Share));
    if need.is_none() {
        reader.wrong(
            &field.node.span,
            "`need` must be a share of the tasks or a number of them",
            "write more than \"0%\" and at most \"100%\" in quotes, or a number from 1",
        );
    }
    need
}

fn read_max_failures(reader: &mut Reader, field: &Field<'_>) -> Option<MaxFailures> {
    let help = "write \"0%\" to \"100%\" in quotes, or a number from 0";
    read_part(reader, field, MaxFailures::Share, MaxFailures::Count, help)
}

/// A share of the tasks, nothing and all included, or a number of them.
fn read_part<T>(
    reader: &mut Reader,
    field: &Field<'_>,
    of_share: fn(f64) -> T,
    of_count: fn(u32) -> T,
    help: &str,
) -> Option<T> {
    let share = read_share(field).map(of_share);
    let part = read_count(field).map(of_count).or(share);
    if part.is_none() {
        let key = field.key.name;
        let what = format!("`{key}` must be a share of the tasks or a number of them");
        reader.wrong(&field.node.span, what, help);
    }
    part
}

pub fn read_critical(reader: &mut Reader, field: &Field<'_>, places: &mut Places) -> CriticalRule {
    let fields = reader.table(field.node, &CRITICAL);
    note(&mut places.job, &fields);
    let mut rule = CriticalRule::default();
    if let Some(field) = fields.get("by") {
        rule.by = read_measures(reader, &field);
    }
    if let Some(field) = fields.get("top") {
        rule.top = read_top(reader, &field).unwrap_or(rule.top);
    }
    rule
}

/// A list of measures, or a table of measures with their weights.
fn read_measures(reader: &mut Reader, field: &Field<'_>) -> Vec<(Measure, f64)> {
    let find = |word: &str| Measure::ALL.into_iter().find(|known| known.name() == word);
    let unknown = |word: &str| format!("{word:?} is no measure of what is critical");
    let known = Measure::ALL.map(Measure::name).join(", ");
    let mut found: Vec<(Measure, f64)> = Vec::new();
    if let Value::Table(entries) = &field.node.value {
        for entry in entries {
            let weight = match entry.node.typed() {
                Value::Int(weight) => *weight as f64,
                Value::Float(weight, _) => *weight,
                _ => 0.0,
            };
            match find(&entry.key) {
                Some(measure) if weight > 0.0 => found.push((measure, weight)),
                Some(_) => reader.wrong(
                    &entry.node.span,
                    "a weight must be a number above 0",
                    format!("write {}", field.key.written()),
                ),
                None => reader.wrong(
                    &entry.key_span,
                    unknown(&entry.key),
                    format!("known are {known}"),
                ),
            }
        }
        return found;
    }
    for item in reader.list(field) {
        let Some(word) = reader.text(&field.of(item)) else {
            continue;
        };
        match find(&word) {
            Some(measure) if found.iter().any(|(other, _)| *other == measure) => {
                reader.wrong(&item.span, format!("{word:?} is given twice"), "remove one");
            }
            Some(measure) => found.push((measure, 1.0)),
            None => reader.wrong(&item.span, unknown(&word), format!("known are {known}")),
        }
    }
    found
}

fn read_top(reader: &mut Reader, field: &Field<'_>) -> Option<Top> {
    let help = "write \"0%\" to \"100%\" in quotes, or a number";
    read_part(reader, field, Top::Share, Top::Count, help)
}
