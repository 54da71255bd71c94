//! Messages about what the tasks of a job printed.

use crate::show::{self, escape};
use hedge_model::JobId;
use hedge_model::msg::{Reply, Request};
use hedge_node::client::{Client, Printed};

/// The most lines shown of a failed task's standard error.
const TAIL_LINES_MAX: usize = 20;

/// Tells the user which part of a task's output the grid did not keep. Returns whether it kept all.
pub fn tell_cut(printed: &Printed) -> bool {
    let (out, err) = printed.cut();
    let streams = [
        ("output", printed.stdout.len(), out),
        ("error", printed.stderr.len(), err),
    ];
    for (name, kept, cut) in streams.into_iter().filter(|(_, _, cut)| *cut > 0) {
        show::note(&format!(
            "hedge: the standard {name} of {} is cut: the first {cut} bytes were not kept, the last {kept} were. \
             Let the task write to a file among its outputs instead",
            escape::line(&printed.view.task)
        ));
    }
    out + err == 0
}

/// Shows the end of the standard error of the task that made a job fail, if it can be fetched.
pub async fn tell_failure(client: &Client, job: JobId) {
    let Ok(Reply::Explain(view)) = client.ask(Request::Explain(job, None)).await else {
        return;
    };
    let Some(task) = view.tasks.iter().find(|task| task.failures > 0) else {
        return;
    };
    let Ok(printed) = client.printed(job, &task.task).await else {
        return;
    };
    let text = String::from_utf8_lossy(&printed.stderr);
    let lines: Vec<&str> = text.trim_end().lines().collect();
    if lines.is_empty() {
        return;
    }
    let name = escape::line(&task.task);
    show::note(&format!("{name} wrote to its standard error:"));
    for line in &lines[lines.len().saturating_sub(TAIL_LINES_MAX)..] {
        show::note(&format!("  {}", escape::line(line)));
    }
}
