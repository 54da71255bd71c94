//! A job's tasks as text.

use super::table::{Column, table};
use super::time;
use hedge_model::JobId;
use hedge_model::view::{TaskFilter, TaskLine};

const COLUMNS: [Column; 7] = [
    Column::name("TASK"),
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
            task.state.clone(),
            task.attempts.to_string(),
            exit(task),
            task.running_ms.map_or_else(String::new, time),
            task.worker.clone().unwrap_or_default(),
            task.why.clone(),
        ]
    };
    table(&COLUMNS, tasks.iter().map(row).collect())
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
        TaskFilter::Failed => format!("no task of job {job} failed"),
        TaskFilter::Running => format!("no task of job {job} runs"),
        TaskFilter::Waiting => format!("no task of job {job} waits"),
        TaskFilter::Done => format!("no task of job {job} is done"),
    }
}
