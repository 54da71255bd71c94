//! `hedge report`: writes a job as one HTML page that needs no server.

use super::history::{History, write};
use super::named::number;
use super::{Context, ask, unexpected};
use crate::args::Export;
use crate::exit::{Exit, Failure};
use crate::show::{count, note};
use hedge_model::JobId;
use hedge_model::msg::{Reply, Request};
use hedge_model::view::TaskFilter;
use hedge_node::client::Client;
use serde_json::{Value, json};

/// The most failed tasks that are listed.
const FAILED_MAX: usize = 200;
/// The most failed tasks whose output is shown.
const PRINTED_MAX: usize = 50;
/// Bytes of the end of each stream that are shown.
const PRINTED_BYTES: usize = 8 << 10;

/// Writes the report of a job, which may still run.
///
/// # Errors
/// There is no such job, the grid cannot be reached, or the file cannot be written.
pub fn run(context: &Context, args: &Export) -> Result<Exit, Failure> {
    context.on_grid(&args.grid, async |client| {
        let job = number(client, args.job).await?;
        let history = History::of(client, job).await?;
        let failed = failed(client, job).await?;
        let title = format!("Job {job}: {}", history.job.name);
        let attempts = count(history.attempts.len() as u64, "attempt");
        let data = json!({
            "job": history.job,
            "groups": history.groups,
            "attempts": history.attempts,
            "now_ms": history.now_ms,
            "workers": history.workers,
            "failed": failed,
        });
        let page = hedge_gateway::report(&title, &data);
        write(&args.out, page.as_bytes())?;
        note(&format!(
            "{}: job {job} with {attempts}",
            args.out.display()
        ));
        Ok(Exit::Done)
    })
}

/// Returns the failed tasks that are not done, with the end of what they printed.
async fn failed(client: &Client, job: JobId) -> Result<Vec<Value>, Failure> {
    let request = Request::Tasks {
        job,
        filter: TaskFilter::Failed,
        from: 0,
    };
    let Reply::Tasks(page) = ask(client, request).await? else {
        return Err(unexpected());
    };
    let mut failed = Vec::new();
    for (at, task) in page.tasks.iter().take(FAILED_MAX).enumerate() {
        // Output that cannot be fetched is left out.
        let printed = match at < PRINTED_MAX {
            true => client.printed(job, &task.task).await.ok(),
            false => None,
        };
        let mut value = json!(task);
        if let Some(printed) = printed {
            value["stdout"] = end(&printed.stdout).into();
            value["stderr"] = end(&printed.stderr).into();
        }
        failed.push(value);
    }
    Ok(failed)
}

/// Returns the end of what was printed, as text.
fn end(printed: &[u8]) -> String {
    let from = printed.len().saturating_sub(PRINTED_BYTES);
    String::from_utf8_lossy(&printed[from..]).into_owned()
}
