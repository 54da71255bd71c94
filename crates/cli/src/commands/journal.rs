//! `hedge journal`: the journal of the supervisor in this folder.

use super::Context;
use crate::args::Journal;
use crate::exit::{Exit, Failure};
use crate::show;
use hedge_model::JobId;
use hedge_model::record::Record;
use hedge_node::ClientError;
use hedge_store::{Line, StoreError, What};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;

/// Dumps, checks, repairs or copies it.
///
/// # Errors
/// It cannot be read, is in use where it must not be, or is damaged.
pub fn run(context: &Context, what: &Journal) -> Result<Exit, Failure> {
    let folder = context.folders.supervisor().join("journal");
    match what {
        Journal::Dump => dump(context, &folder),
        Journal::Check => check(context, &folder),
        Journal::Repair => repair(context, &folder),
        Journal::Backup { to } => {
            hedge_store::backup(&folder, to).map_err(failed)?;
            let text = || {
                format!(
                    "the journal is in {}: as the folder `journal` of a supervisor's folder, `hedge supervisor \
                     --recover` starts from it\n",
                    to.display()
                )
            };
            context.look.print(&json!({ "copied_to": to }), text)?;
            Ok(Exit::Done)
        }
    }
}

fn failed(error: hedge_store::StoreError) -> Failure {
    match error {
        StoreError::InUse { .. } => ClientError::Busy(error.to_string()).into(),
        error => Failure::Local(error.to_string()),
    }
}

fn dump(context: &Context, folder: &Path) -> Result<Exit, Failure> {
    for line in hedge_store::dump(folder).map_err(failed)? {
        let line = line.map_err(failed)?;
        if context.look.json {
            show::json(&value(&line))?;
        } else {
            show::out(&text(&line))?;
        }
    }
    Ok(Exit::Done)
}

fn value(line: &Line) -> Value {
    let what = match &line.what {
        What::Began => json!({ "began": true }),
        What::Records { level, records } => json!({ "format": level, "records": records }),
        What::Members { members, voters } => {
            let name = |id: &u64| format!("{id:016x}");
            let seats = members.iter().map(|(id, member)| {
                json!({
                    "id": name(id),
                    "peer": member.peer.peer.to_string(),
                    "addrs": member.peer.addrs,
                    "votes": voters.contains(id),
                })
            });
            json!({ "members": seats.collect::<Vec<_>>() })
        }
    };
    let mut value = json!({ "index": line.index, "term": line.term });
    if let (Value::Object(value), Value::Object(what)) = (&mut value, what) {
        value.extend(what);
    }
    value
}

fn text(line: &Line) -> String {
    let head = format!("{} (term {}) ", line.index, line.term);
    match &line.what {
        What::Began => format!("{head}a leader began\n"),
        What::Members { members, voters } => format!(
            "{head}{}, {} with a vote\n",
            show::count(members.len() as u64, "supervisor"),
            voters.len()
        ),
        What::Records { records, .. } => records
            .iter()
            .map(|record| format!("{head}{record:?}\n"))
            .collect(),
    }
}

fn check(context: &Context, folder: &Path) -> Result<Exit, Failure> {
    let report = hedge_store::check(folder).map_err(failed)?;
    let damage: Vec<String> = report.damage.iter().map(ToString::to_string).collect();
    let value = json!({
        "damage": damage,
        "first": report.first,
        "last": report.last,
        "snapshot": report.snapshot,
    });
    context.look.print(&value, || match &damage[..] {
        [] => "the journal is whole\n".to_owned(),
        all => all.join("\n") + "\n",
    })?;
    Ok(if damage.is_empty() {
        Exit::Done
    } else {
        Exit::Failed
    })
}

fn repair(context: &Context, folder: &Path) -> Result<Exit, Failure> {
    let repair = hedge_store::repair(folder).map_err(failed)?;
    let records = repair.lost.iter().filter_map(|line| match &line.what {
        What::Records { records, .. } => Some(records.iter()),
        _ => None,
    });
    let jobs: BTreeSet<JobId> = records.flatten().filter_map(job_of).collect();
    let damage: Vec<String> = repair.damage.iter().map(ToString::to_string).collect();
    let value = json!({
        "damage": damage,
        "copy": repair.copy,
        "last": repair.last,
        "lost_entries": repair.lost.len(),
        "unreadable_entries": repair.unreadable,
        "affected_jobs": jobs,
    });
    context.look.print(&value, || {
        let named = |jobs: &BTreeSet<JobId>| {
            let all: Vec<String> = jobs.iter().map(ToString::to_string).collect();
            all.join(", ")
        };
        let affected = match (jobs.is_empty(), repair.unreadable.is_empty()) {
            (true, true) => "no job is affected".to_owned(),
            (false, true) => format!("affected jobs: {}", named(&jobs)),
            (_, false) => format!(
                "{} of the lost entries could not be read: jobs that changed last are affected{}",
                repair.unreadable.len(),
                if jobs.is_empty() {
                    String::new()
                } else {
                    format!(", {} among them", named(&jobs))
                }
            ),
        };
        format!(
            "the journal is whole again; everything as it was is in {}\n{affected}\n",
            repair.copy.display()
        )
    })?;
    Ok(Exit::Done)
}

/// The job that a record is about, where it names one; a job that was accepted has its number from the order.
fn job_of(record: &Record) -> Option<JobId> {
    match record {
        Record::TaskDone { attempt, .. } | Record::AttemptEnded { attempt, .. } => {
            Some(attempt.task.job)
        }
        Record::OutputsLost { task, .. } | Record::TaskFailed { task, .. } => Some(task.job),
        Record::Checkpointed { checkpoint, .. } => Some(checkpoint.id.attempt.task.job),
        Record::JobEnded { job, .. }
        | Record::JobRetried { job, .. }
        | Record::GroupsAdded { job, .. }
        | Record::ClientSeen { job, .. }
        | Record::OutputsReleased { job, .. }
        | Record::JobClosed { job, .. }
        | Record::JobForgotten { job, .. } => Some(*job),
        _ => None,
    }
}
