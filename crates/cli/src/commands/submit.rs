//! `hedge submit`: a job for the grid.

use super::Context;
use super::finish::{Wish, finish};
use super::follow::{Followed, follow};
use super::interrupt::Interrupts;
use super::results::check_out;
use super::source::Checked;
use crate::args::Submit;
use crate::exit::{Exit, Failure};
use crate::show::{self, progress::Progress};
use hedge_model::JobId;
use hedge_node::client::new_key;
use serde_json::json;

/// Submits a job and, if asked to, waits for its end.
///
/// # Errors
/// A wrong job, or a grid that does not take it.
pub fn run(context: &Context, args: Submit) -> Result<Exit, Failure> {
    check_out(args.out.as_deref(), args.wait && args.source.job.is_some())?;
    let key = args.key.map_or_else(new_key, Ok)?;
    let checked = Checked::new(args.source)?;
    let program = checked.is_program();
    context.on_grid(&args.grid, async |client| {
        let spec = checked.finish(client).await?;
        let mut interrupts = Interrupts::new()?;
        let job = tokio::select! {
            job = client.submit(key, &spec) => job?,
            () = interrupts.next() => {
                show::note(&format!(
                    "whether the grid has taken the job is not known; submitting it again with `--key {key}` is harmless"
                ));
                return Ok(Exit::Cancelled);
            }
        };
        if !args.wait {
            let text = || format!("job {job} is accepted: `hedge wait {job}`, `hedge job {job}`\n");
            context
                .look
                .print(&json!({ "job": job, "key": key.to_string() }), text)?;
            return Ok(Exit::Done);
        }
        let mut progress = Progress::new(context.look.json || program);
        let followed = follow(client, job, &mut progress, &mut interrupts).await;
        progress.end();
        let view = match followed? {
            Followed::Ended(view) => *view,
            Followed::Interrupted => return Ok(detached(job)),
        };
        let wish = Wish {
            results: true,
            out: args.out.as_deref(),
            program: program.then_some(&spec),
        };
        finish(context, client, view, &wish).await
    })
}

/// Says how to come back to a job that goes on.
pub fn detached(job: JobId) -> Exit {
    show::note(&format!(
        "job {job} goes on without this terminal: `hedge wait {job}` comes back to it, `hedge cancel {job}` ends it"
    ));
    Exit::Cancelled
}
