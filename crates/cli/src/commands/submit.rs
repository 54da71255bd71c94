//! `hedge submit`: a job for the grid.

use super::finish::{Wish, finish};
use super::follow::{Followed, follow};
use super::interrupt::Interrupts;
use super::nested::TaskWaits;
use super::place::check_names;
use super::source::Checked;
use super::stream::{Closed, Stream, beside};
use super::{Context, submit_job};
use crate::args::Submit;
use crate::exit::{Exit, Failure};
use crate::show::{self, progress::Progress};
use hedge_model::msg::{Reply, Request};
use hedge_model::{JobId, SubmitKey};
use hedge_node::client::{Client, new_key};
use serde_json::json;

/// Submits a job and, if asked to, waits for its end.
///
/// # Errors
/// A wrong job, or a grid that does not take it.
pub fn run(context: &Context, args: Submit) -> Result<Exit, Failure> {
    let key = args.key.map_or_else(new_key, Ok)?;
    let hints = !context.look.json;
    let checked = Checked::new(args.source, hints, hints && args.wait)?;
    checked.check_out(args.out.as_deref(), args.wait)?;
    let (program, leaves_files) = (checked.is_program(), checked.leaves_files());
    check_names(args.out.as_deref(), checked.tasks())?;
    context.on_grid(&args.grid, async |client| {
        let (spec, files) = checked.finish().await?;
        let mut interrupts = Interrupts::new()?;
        let job = tokio::select! {
            job = submit_job(client, key, &spec, &files) => job?,
            () = interrupts.next() => {
                show::note(&format!(
                    "whether the grid has taken the job is not known; submitting it again with `--key {key}` is harmless"
                ));
                return Ok(Exit::Cancelled);
            }
        };
        if !args.wait {
            return accepted(context, client, job, key).await;
        }
        let waits = TaskWaits::begin(job);
        let mut progress = Progress::new(context.look.style(program));
        let shown = program && !context.look.json;
        let mut stream = shown.then(|| Stream::start(client, job, &spec));
        let following = follow(client, job, &mut progress, &mut interrupts);
        let followed = match beside(&mut stream, following).await {
            Ok(followed) => followed,
            Err(Closed) if leaves_files => {
                follow(client, job, &mut progress, &mut interrupts).await
            }
            Err(Closed) => {
                detached(job);
                return Err(Failure::OutputClosed);
            }
        };
        drop((progress, waits));
        let view = match followed? {
            Followed::Ended(view) => *view,
            Followed::Interrupted => return Ok(detached(job)),
        };
        let wish = Wish {
            results: true,
            out: args.out.as_deref(),
            program: program.then_some(&spec),
            stream,
            last: None,
            exit_code: args.exit_code,
        };
        finish(context, client, view, wish, &mut interrupts).await
    })
}

/// Tells the number of a job that is accepted, and what it waits for already.
async fn accepted(
    context: &Context,
    client: &Client,
    job: JobId,
    key: SubmitKey,
) -> Result<Exit, Failure> {
    // The job is accepted whether or not it can be asked for.
    let waits = match client.ask(Request::Job(job)).await {
        Ok(Reply::Job(view)) => view.waits,
        _ => Vec::new(),
    };
    let value = json!({ "job": job, "key": key.to_string(), "waits": waits });
    let text = || format!("job {job} is accepted: `hedge wait {job}`, `hedge job {job}`\n");
    context.look.print(&value, text)?;
    if !context.look.json {
        for why in &waits {
            show::note(&format!("job {job} waits: {}", show::escape::line(why)));
        }
    }
    Ok(Exit::Done)
}

/// Says how to come back to a job that goes on.
pub fn detached(job: JobId) -> Exit {
    show::note(&format!(
        "job {job} goes on without this terminal: `hedge wait {job}` comes back to it, `hedge cancel {job}` ends it"
    ));
    Exit::Cancelled
}
