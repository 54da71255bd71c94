//! `hedge job open|extend|close|release`: jobs that grow while they run.

use super::named::{each, number, numbers};
use super::source::Checked;
use super::{Context, ask, patiently, submit_job, unexpected};
use crate::args::{Extend, Open, OpenJob, Release, Several};
use crate::exit::{Exit, Failure};
use hedge_job::Purpose;
use hedge_model::JobSpec;
use hedge_model::msg::{Reply, Request};
use hedge_model::spec::{CriticalRule, Draft, OPEN_TIMEOUT, Qos};
use hedge_node::client::{InputFiles, new_key};
use serde_json::json;

/// Opens a job, adds to it, or closes it.
///
/// # Errors
/// A wrong job or file, or a grid that does not take it.
pub fn run(context: &Context, what: &OpenJob) -> Result<Exit, Failure> {
    match what {
        OpenJob::Open(args) => open(context, args),
        OpenJob::Extend(args) => extend(context, args),
        OpenJob::Close(args) => close(context, args),
        OpenJob::Release(args) => release(context, args),
    }
}

fn open(context: &Context, args: &Open) -> Result<Exit, Failure> {
    let key = args.key.map_or_else(new_key, Ok)?;
    let hints = !context.look.json;
    let checked = match &args.job {
        Some(path) => Some(Checked::of_file(Purpose::Open, path, &args.set, hints)?),
        None => None,
    };
    context.on_grid(&args.grid, async |client| {
        let (mut draft, files) = match checked {
            Some(checked) => {
                let (spec, files) = checked.finish().await?;
                (Draft::from(spec), files)
            }
            None => (empty(args.name.as_deref().unwrap_or("open")), InputFiles::default()),
        };
        if let Some(timeout) = args.timeout {
            draft.qos.open_timeout = Some(timeout);
        }
        let spec = JobSpec::for_submission(draft)
            .map_err(|error| Failure::Arguments(format!("{error}; nothing was submitted")))?;
        let job = submit_job(client, key, &spec, &files).await?;
        let value = json!({ "job": job, "key": key.to_string() });
        context.look.print(&value, || {
            format!(
                "job {job} is open: `hedge job extend {job} FILE` adds tasks, `hedge job close {job}` lets it end\n"
            )
        })?;
        Ok(Exit::Done)
    })
}

/// An open job that has no task yet.
fn empty(name: &str) -> Draft {
    Draft {
        name: name.into(),
        qos: Qos {
            open_timeout: Some(OPEN_TIMEOUT),
            ..Qos::default()
        },
        critical: CriticalRule::default(),
        files: Vec::new(),
        groups: Vec::new(),
        outline: false,
    }
}

fn extend(context: &Context, args: &Extend) -> Result<Exit, Failure> {
    let key = args.key.map_or_else(new_key, Ok)?;
    let hints = !context.look.json;
    let checked = Checked::of_file(Purpose::Extension, &args.file, &args.set, hints)?;
    context.on_grid(&args.grid, async |client| {
        let job = number(client, args.job).await?;
        let (extension, files) = checked.finish_extension().await?;
        let what = "the grid has not added the tasks yet: it fetches their input files first";
        let added = patiently(what, client.extend(job, key, &extension, &files)).await?;
        let (first, tasks) = (added.first, added.tasks);
        let value = json!({ "job": job, "key": key.to_string(), "first": first, "tasks": tasks });
        context.look.print(&value, || {
            let plural = if tasks == 1 { "" } else { "s" };
            format!("job {job} has {tasks} task{plural} more, from number {first} on\n")
        })?;
        Ok(Exit::Done)
    })
}

fn close(context: &Context, args: &Several) -> Result<Exit, Failure> {
    context.on_grid(&args.grid, async |client| {
        let jobs = numbers(client, &args.jobs).await?;
        each(&jobs, context.look.json, async |job| {
            client.close_job(job).await?;
            let Reply::Job(view) = ask(client, Request::Job(job)).await? else {
                return Err(unexpected());
            };
            let value = json!({ "job": job, "closed": true, "state": view.state });
            context.look.print(&value, || {
                format!("job {job} is closed; `hedge wait {job}` waits for its end\n")
            })?;
            Ok(Exit::Done)
        })
        .await
    })
}

fn release(context: &Context, args: &Release) -> Result<Exit, Failure> {
    context.on_grid(&args.grid, async |client| {
        let job = number(client, args.job).await?;
        client.release(job, &args.tasks).await?;
        let value = json!({ "job": job, "released": args.tasks });
        context.look.print(&value, || {
            format!("job {job} keeps what these tasks left only for tasks that it has\n")
        })?;
        Ok(Exit::Done)
    })
}
