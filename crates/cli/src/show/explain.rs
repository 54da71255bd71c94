//! Explanations as text.

use super::escape::line as safe;
use super::table::{Column, table_set_in};
use super::{job, tasks, time};
use hedge_model::units::show_bytes;
use hedge_model::view::{ExplainView, ProgressView, TaskView};

/// Most critical tasks shown to people; JSON has more.
const CRITICAL_SHOWN_MAX: usize = 20;

/// Why a job or task is where it is; `whole` if the job was asked for.
pub fn text(view: &ExplainView, whole: bool) -> String {
    let mut text = String::new();
    if whole {
        text.push_str(&job::detail(&view.job));
        critical(view, &mut text);
        if !view.tasks.is_empty() {
            text.push_str(if view.job.state.ended() {
                "\nnot done:\n"
            } else {
                "\nholding it up:\n"
            });
        }
    }
    for (at, one) in view.tasks.iter().enumerate() {
        if at > 0 {
            text.push('\n');
        }
        task(one, &mut text);
    }
    text
}

fn critical(view: &ExplainView, text: &mut String) {
    if view.critical.is_empty() {
        return;
    }
    text.push_str("\ncritical:\n");
    for one in view.critical.iter().take(CRITICAL_SHOWN_MAX) {
        text.push_str(&format!("  {}: {}\n", safe(&one.task), safe(&one.reason)));
    }
    if view.critical.len() > CRITICAL_SHOWN_MAX {
        let more = view.critical.len() - CRITICAL_SHOWN_MAX;
        text.push_str(&format!("  and {more} more\n"));
    }
}

fn task(task: &TaskView, text: &mut String) {
    let critical = if task.critical { ", critical" } else { "" };
    text.push_str(&format!(
        "{} is {}{critical}: {}\n",
        safe(&task.task),
        safe(&task.state),
        safe(&task.why)
    ));
    if !task.parameters.is_empty() {
        let parameters = tasks::parameters(&task.parameters);
        text.push_str(&format!("  parameters {}\n", safe(&parameters)));
    }
    if let Some(memory) = task.memory_raised {
        text.push_str(&format!(
            "  memory     {} for its next attempt, by retry_memory\n",
            show_bytes(memory)
        ));
    }
    if task.failures > 0 {
        text.push_str(&format!("  failures   {}\n", task.failures));
    }
    if task.generation > 0 {
        text.push_str(&format!(
            "  generation {}: its outputs were lost and are made again\n",
            task.generation
        ));
    }
    if let Some(checkpoint) = &task.checkpoint {
        let share = checkpoint.share.map_or_else(String::new, |share| {
            format!(", {:.1} % of its work", share * 100.0)
        });
        text.push_str(&format!(
            "  checkpoint {} old, {}{share}, by {} on {}\n",
            time(checkpoint.age_ms),
            show_bytes(checkpoint.bytes),
            safe(&checkpoint.attempt),
            safe(&checkpoint.worker),
        ));
    }
    if let Some(why) = &task.checkpoint_fault {
        text.push_str(&format!("  checkpoint not saved: {}\n", safe(why)));
    }
    if !task.outputs.is_empty() {
        text.push_str(&format!(
            "  outputs    {}\n",
            safe(&task.outputs.join(", "))
        ));
    }
    if task.attempts.is_empty() {
        return;
    }
    let rows = task
        .attempts
        .iter()
        .map(|attempt| {
            vec![
                attempt.attempt.clone(),
                attempt.worker.clone(),
                attempt.kind.clone(),
                attempt.state.clone(),
                attempt.running_ms.map_or_else(String::new, time),
                attempt.progress.as_ref().map_or_else(String::new, progress),
                attempt.why.clone(),
            ]
        })
        .collect();
    text.push_str(&table_set_in(&COLUMNS, rows));
}

const COLUMNS: [Column; 7] = [
    Column::new("ATTEMPT"),
    Column::name("WORKER"),
    Column::drop("KIND", 1),
    Column::new("STATE"),
    Column::new("RUNNING#"),
    Column::below("PROGRESS"),
    Column::below("WHY"),
];

/// How far an attempt is, in a few words.
fn progress(progress: &ProgressView) -> String {
    let mut parts = Vec::new();
    parts.extend(progress.waits.then(|| "waits".to_owned()));
    parts.extend(
        progress
            .share
            .map(|share| format!("{:.1} %", share * 100.0)),
    );
    parts.push(format!("CPU {}", time(progress.cpu_ms)));
    parts.push(format!("{} written", show_bytes(progress.written_bytes)));
    parts.join(", ")
}
