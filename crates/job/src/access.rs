//! What a task asks of the owner of a worker's machine, and how often it may run.

use crate::fields::{Field, Fields, Reader};
use crate::tree::{Node, Value};
use crate::words::{COPIED, NETWORK};
use hedge_model::spec::{Few, Group};

/// Reads the keys about shared folders, the folder to start in, the network, retries, reruns and copies.
pub fn read_access(reader: &mut Reader, fields: &Fields<'_>, group: &mut Group) {
    if let Some(field) = fields.get("shares") {
        group.shares = reader.texts(&field).into();
    }
    if let Some(field) = fields.get("cwd") {
        let cwd = reader.text(&field);
        group.cwd = cwd.map_or_else(String::new, |cwd| cwd.to_string()).into();
    }
    if let Some(field) = fields.get("network") {
        group.network = reader.word(&field, "is no kind of network access", &NETWORK);
    }
    let retries = fields.get("retries").map(|field| {
        let retries = reader.whole(&field);
        retries.map_or(0, |retries| retries as u32)
    });
    let rerun = fields.get("rerun").and_then(|field| reader.flag(&field));
    set_tries(group, retries, rerun);
    if let Some(field) = fields.get("redundancy") {
        group.copied = reader.word(&field, "is no redundancy of a task", &COPIED);
    }
    if let Some(field) = fields.get("retry_memory") {
        group.retry_memory = read_multiples(reader, &field);
    }
}

/// Sets how often the tasks of a group may run, from what is given. Where nothing is, a task that uses shared folders runs
/// once: what it wrote there before it failed or was lost is still there.
pub fn set_tries(group: &mut Group, retries: Option<u32>, rerun: Option<bool>) {
    let shares = !group.shares.is_empty();
    let usual = if shares { 0 } else { group.retries };
    group.retries = retries.unwrap_or(usual);
    group.once = !rerun.unwrap_or(!shares || group.retries > 0);
}

/// Multiples of the memory in `resources`, in thousandths.
fn read_multiples(reader: &mut Reader, field: &Field<'_>) -> Few<u32> {
    let mut multiple = |item: &Node| {
        let number = match item.typed() {
            Value::Int(number) => *number as f64,
            Value::Float(number, _) => *number,
            _ => 0.0,
        };
        if !(0.001..=1000.0).contains(&number) {
            reader.wrong(
                &item.span,
                "a multiple of memory must be a number from 0.001 to 1000",
                format!("write {}", field.key.written()),
            );
            return None;
        }
        Some((number * 1000.0).round() as u32)
    };
    if let Value::List(items) = &field.node.value {
        return items.iter().filter_map(&mut multiple).collect();
    }
    reader.list(field);
    Few::default()
}
