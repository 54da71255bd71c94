//! What a job's tasks printed.

use crate::exit::Failure;
use crate::show::{self, escape};
use hedge_model::msg::{Reply, Request};
use hedge_model::{JobId, JobSpec};
use hedge_node::client::{Client, Printed};

/// Most lines shown of what a failed task wrote to its standard error.
const TAIL_LINES_MAX: usize = 20;

/// Prints what every task of a program's job printed, in the order of their numbers; whether all of it was kept.
///
/// # Errors
/// The grid failed, or nobody reads any more.
pub async fn print_all(client: &Client, job: JobId, spec: &JobSpec) -> Result<bool, Failure> {
    let mut whole = true;
    for number in 0..spec.task_count() {
        let printed = client.printed(job, &spec.label(number)).await?;
        whole &= print(&printed)?;
    }
    Ok(whole)
}

/// Prints what one task printed; whether all of it was kept.
///
/// # Errors
/// Nobody reads any more.
pub fn print(printed: &Printed) -> Result<bool, Failure> {
    show::task_err(&printed.stderr);
    show::task_out(&printed.stdout)?;
    Ok(tell_cut(printed))
}

/// Tells what of a task's output was not kept; whether all was.
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

/// Tells people what the task that made a job fail wrote to its standard error, as far as it can be had.
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
