//! The tables `[qos]` and `[critical]` of a job file.

use super::Places;
use super::fields::Reader;
use super::read::note;
use super::tree::{Node, Value};
use hedge_model::spec::{
    COPIES_MAX, CriticalPlacement, CriticalRule, Measure, Need, Qos, Redundancy, Top, Unplaceable,
};
use hedge_model::units::parse_duration;

const QOS_KEYS: [&str; 8] = [
    "redundancy",
    "copies",
    "need",
    "unplaceable",
    "critical_placement",
    "finish_by",
    "confidence",
    "budget",
];
const CRITICAL_KEYS: [&str; 2] = ["by", "top"];

pub(super) fn read_qos(reader: &mut Reader, node: &Node, places: &mut Places) -> Qos {
    let fields = reader.table(node, "[qos]", &QOS_KEYS);
    note(&mut places.job, &fields, &QOS_KEYS);
    let mut qos = Qos::default();
    if let Some(node) = fields.get("redundancy") {
        let words = [
            ("none", Redundancy::None),
            ("critical", Redundancy::Critical),
            ("fill", Redundancy::Fill),
            ("speculate", Redundancy::Speculate),
            ("auto", Redundancy::Auto),
        ];
        let wrong = "is no kind of redundancy";
        qos.redundancy =
            read_word(reader, node, "redundancy", wrong, &words).unwrap_or(qos.redundancy);
    }
    if let Some(node) = fields.get("copies") {
        let copies = reader.whole(node, "copies", 1..i64::from(COPIES_MAX) + 1);
        qos.copies = copies.map_or(qos.copies, |copies| copies as u32);
    }
    if let Some(node) = fields.get("need") {
        qos.need = read_need(reader, node).unwrap_or(qos.need);
    }
    if let Some(node) = fields.get("unplaceable") {
        let words = [("wait", Unplaceable::Wait), ("fail", Unplaceable::Fail)];
        let wrong = "does not say what becomes of a task that no worker can take";
        qos.unplaceable =
            read_word(reader, node, "unplaceable", wrong, &words).unwrap_or(qos.unplaceable);
    }
    if let Some(node) = fields.get("critical_placement") {
        let words = [
            ("prefer", CriticalPlacement::Prefer),
            ("require", CriticalPlacement::Require),
        ];
        let wrong = "does not say where critical tasks run";
        qos.critical_placement = read_word(reader, node, "critical_placement", wrong, &words)
            .unwrap_or(qos.critical_placement);
    }
    if let Some(node) = fields.get("finish_by") {
        qos.finish_by = reader.unit(node, "finish_by", "\"2h\"", parse_duration);
    }
    if let Some(node) = fields.get("confidence") {
        match read_share(node) {
            Some(share) => qos.confidence = share,
            None => reader.wrong(
                &node.span,
                "`confidence` must be a chance",
                "write it in quotes, like \"95%\"",
            ),
        }
    }
    if let Some(node) = fields.get("budget") {
        match read_money(node) {
            Some(micro) => qos.budget = Some(micro),
            None => reader.wrong(
                &node.span,
                "`budget` must be an amount of the grid's currency",
                "write a number with up to six decimals, like 2.5",
            ),
        }
    }
    qos
}

fn read_word<T: Copy>(
    reader: &mut Reader,
    node: &Node,
    key: &str,
    wrong: &str,
    words: &[(&str, T)],
) -> Option<T> {
    let known: Vec<String> = words
        .iter()
        .map(|(word, _)| format!("{key} = {word:?}"))
        .collect();
    let right = known.join(" or ");
    let text = reader.text(node, key, &right)?;
    let found = words.iter().find(|(word, _)| *word == &*text);
    if found.is_none() {
        reader.wrong(
            &node.span,
            format!("{text:?} {wrong}"),
            format!("write {right}"),
        );
    }
    found.map(|(_, meaning)| *meaning)
}

fn read_share(node: &Node) -> Option<f64> {
    let Value::Text(text) = &node.value else {
        return None;
    };
    let number: f64 = text.strip_suffix('%')?.trim().parse().ok()?;
    (0.0..=100.0).contains(&number).then_some(number / 100.0)
}

/// Whole and millionth parts of a currency, in millionths.
fn read_money(node: &Node) -> Option<u64> {
    let amount = match &node.value {
        Value::Int(whole) => *whole as f64,
        Value::Float(amount) => *amount,
        _ => return None,
    };
    (0.0..1e12)
        .contains(&amount)
        .then(|| (amount * 1e6).round() as u64)
}

/// How much of something is needed.
pub(super) fn read_need(reader: &mut Reader, node: &Node) -> Option<Need> {
    let count = match &node.value {
        Value::Int(number) => u32::try_from(*number).ok().filter(|count| *count > 0),
        _ => None,
    };
    let share = read_share(node).filter(|share| *share > 0.0);
    let need = count.map(Need::Count).or(share.map(Need::Share));
    if need.is_none() {
        reader.wrong(
            &node.span,
            "`need` must be a share of the tasks or a number of them",
            "write more than \"0%\" and at most \"100%\" in quotes, or a number from 1",
        );
    }
    need
}

pub(super) fn read_critical(reader: &mut Reader, node: &Node, places: &mut Places) -> CriticalRule {
    let fields = reader.table(node, "[critical]", &CRITICAL_KEYS);
    note(&mut places.job, &fields, &CRITICAL_KEYS);
    let mut rule = CriticalRule::default();
    if let Some(node) = fields.get("by") {
        rule.by = read_measures(reader, node);
    }
    if let Some(node) = fields.get("top") {
        rule.top = read_top(reader, node).unwrap_or(rule.top);
    }
    rule
}

/// A list of measures, or a table of measures with their weights.
fn read_measures(reader: &mut Reader, node: &Node) -> Vec<(Measure, f64)> {
    let right = "by = [\"precedence\", \"cpu\"], by = { precedence = 2, cpu = 1 }, or [] for marked tasks alone";
    let find = |word: &str| Measure::ALL.into_iter().find(|known| known.name() == word);
    let unknown = |word: &str| format!("{word:?} is no measure of what is critical");
    let known = Measure::ALL.map(Measure::name).join(", ");
    let mut found: Vec<(Measure, f64)> = Vec::new();
    if let Value::Table(entries) = &node.value {
        for entry in entries {
            let weight = match &entry.node.value {
                Value::Int(weight) => *weight as f64,
                Value::Float(weight) => *weight,
                _ => 0.0,
            };
            match find(&entry.key) {
                Some(measure) if weight > 0.0 => found.push((measure, weight)),
                Some(_) => reader.wrong(
                    &entry.node.span,
                    "a weight must be a number above 0",
                    format!("write {right}"),
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
    for item in reader.list(node, "by", right) {
        let Some(word) = reader.text(item, "by", right) else {
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

fn read_top(reader: &mut Reader, node: &Node) -> Option<Top> {
    let share = |text: &str| {
        let number: f64 = text.strip_suffix('%')?.trim().parse().ok()?;
        (0.0..=100.0).contains(&number).then_some(number / 100.0)
    };
    match &node.value {
        Value::Int(number) => {
            let count = u32::try_from(*number).ok();
            if let Some(count) = count {
                return Some(Top::Count(count));
            }
        }
        Value::Text(text) => {
            if let Some(share) = share(text) {
                return Some(Top::Share(share));
            }
        }
        _ => {}
    }
    reader.wrong(
        &node.span,
        "`top` must be a share of the tasks or a number of them",
        "write \"0%\" to \"100%\" in quotes, or a number",
    );
    None
}
