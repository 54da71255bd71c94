//! `hedge job`: one job, and those that are open.

use super::interrupt::Interrupts;
use super::named::{each, numbers};
use super::{Context, ask, unexpected};
use crate::args::Job;
use crate::exit::{Exit, Failure};
use crate::show::job::{detail, line};
use hedge_model::JobId;
use hedge_model::msg::{Reply, Request};
use hedge_node::client::Client;

/// Shows jobs, once or each time they change.
///
/// # Errors
/// There is no such job, or the grid cannot be reached.
pub fn run(context: &Context, args: &Job) -> Result<Exit, Failure> {
    if let Some(what) = &args.open {
        return super::open::run(context, what);
    }
    context.on_grid(&args.grid, async |client| {
        let jobs = numbers(client, &args.jobs).await?;
        each(&jobs, context.look.json, async |id| {
            if args.watch {
                watch(context, client, id).await?;
            } else {
                let Reply::Job(view) = ask(client, Request::Job(id)).await? else {
                    return Err(unexpected());
                };
                context.look.print(&view, || detail(&view))?;
            }
            Ok(Exit::Done)
        })
        .await
    })
}

async fn watch(context: &Context, client: &Client, id: JobId) -> Result<(), Failure> {
    let mut interrupts = Interrupts::new()?;
    let mut views = client.watch(id).await?;
    loop {
        let view = tokio::select! {
            view = views.recv() => view,
            () = interrupts.next() => return Ok(()),
        };
        let Some(view) = view else {
            let why = format!(
                "the connection to the grid was lost; job {id} goes on: `hedge job {id} --watch`"
            );
            return Err(hedge_node::ClientError::Unreachable(why).into());
        };
        let running = !view.state.ended();
        let text = || {
            if running {
                line(&view) + "\n"
            } else {
                detail(&view)
            }
        };
        context.look.print(&view, text)?;
        if !running {
            return Ok(());
        }
    }
}
