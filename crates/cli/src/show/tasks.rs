//! A job's tasks as text.

use super::table::{Column, table};
use super::time;
use hedge_model::JobId;
use hedge_model::view::{TaskFilter, TaskLine};
use std::collections::BTreeMap;

const COLUMNS: [Column; 8] = [
    Column::name("TASK"),
    Column::drop("PARAMETERS", 4),
    Column::new("STATE"),
    Column::drop("ATTEMPTS#", 3),
    Column::new("EXIT#"),
    Column::new("RUNNING#"),
    Column::drop("WORKER", 2),
    Column::below("WHY"),
];

/// Tasks, one a line.
pub fn lines(tasks: &[TaskLine]) -> String {
    let row = |task: &TaskLine| {
        vec![
            task.task.clone(),
            parameters(&task.parameters),
            task.state.clone(),
            task.attempts.to_string(),
            exit(task),
            task.running_ms.map_or_else(String::new, time),
            task.worker.clone().unwrap_or_default(),
            task.why.clone(),
        ]
    };
    let mut rows: Vec<Vec<String>> = tasks.iter().map(row).collect();
    if tasks.iter().any(|task| !task.parameters.is_empty()) {
        return table(&COLUMNS, rows);
    }
    let columns: Vec<Column> = [&COLUMNS[..1], &COLUMNS[2..]].concat();
    rows.iter_mut().for_each(|row| drop(row.remove(1)));
    table(&columns, rows)
}

/// Values of a task's parameters in one line.
pub fn parameters(parameters: &BTreeMap<String, String>) -> String {
    let pairs = parameters.iter();
    let pairs = pairs.map(|(name, value)| format!("{name}={value}"));
    pairs.collect::<Vec<_>>().join(" ")
}

/// How a task's program ended.
fn exit(task: &TaskLine) -> String {
    match (task.exit_code, task.signal) {
        (Some(code), _) => code.to_string(),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => String::new(),
    }
}

/// Says that a job has no such task.
pub fn any(job: JobId, filter: TaskFilter) -> String {
    match filter {
        TaskFilter::All => format!("job {job} has no tasks"),
        TaskFilter::Failed => format!("no task of job {job} failed or was lost"),
        TaskFilter::Running => format!("no task of job {job} runs"),
        TaskFilter::Waiting => format!("no task of job {job} waits"),
        TaskFilter::Done => format!("no task of job {job} is done"),
    }
}
