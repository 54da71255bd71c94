//! Runs the commands and holds what they share. Each command has a module; the others are helpers of several.

use crate::args::{Cli, Command, Grid};
use crate::exit::{Exit, Failure};
use crate::show::Look;
use access::Right;
use hedge_model::msg::{Reply, Request};
use hedge_model::{JobId, JobSpec, SubmitKey};
use hedge_node::Folders;
use hedge_node::client::{Client, InputFiles};
use std::future::Future;
use std::time::Duration;

pub mod access;
mod cancel;
mod completions;
mod config;
mod confirm;
pub mod cost;
mod doctor;
mod doctor_owner;
mod drain;
pub mod explain;
pub mod fetch;
mod finish;
mod fits;
mod follow;
pub mod forget;
mod gateway;
pub mod history;
pub mod interrupt;
mod job;
pub mod jobs;
mod journal;
mod live;
pub mod logs;
mod manifest;
mod members;
mod named;
mod nested;
mod open;
pub mod pack;
mod place;
pub mod plan;
mod relay;
mod report;
mod results;
mod retry;
mod run;
mod scrape;
mod source;
mod stream;
mod submit;
mod supervisor;
pub mod tasks;
mod ticket;
mod trace;
mod ui;
pub mod wait;
mod watch;
mod worker;
mod workers;

/// Delay before a wait is reported to the user.
const NOTICE_DELAY: Duration = Duration::from_millis(1500);
/// Maximum time to close a connection.
const CLOSE_MAX: Duration = Duration::from_millis(500);

/// What commands share, except `completions`, which needs none of it.
#[derive(Clone, Debug)]
pub struct Context {
    /// How to show things.
    pub look: Look,
    /// State folders of this user's peers on this machine.
    pub folders: Folders,
}

/// Runs the command.
///
/// # Errors
/// Why it failed; the kind of failure gives the exit code.
pub fn run(cli: Cli) -> Result<Exit, Failure> {
    reject_unused_options(&cli)?;
    let context = Context {
        look: Look { json: cli.json },
        folders: Folders::new(cli.dir).map_err(|error| Failure::Arguments(error.to_string()))?,
    };
    match cli.command {
        Command::Run(args) => run::run(&context, args),
        Command::Supervisor(args) => supervisor::run(&context, args),
        Command::Ticket(args) => ticket::run(&context, args),
        Command::Worker(args) => worker::run(&context, args),
        Command::Submit(args) => submit::run(&context, args),
        Command::Jobs(args) => jobs::run(&context, &args),
        Command::Job(args) => job::run(&context, &args),
        Command::Tasks(args) => tasks::run(&context, &args),
        Command::Wait(args) => wait::run(&context, &args),
        Command::Cancel(args) => cancel::run(&context, &args),
        Command::Retry(args) => retry::run(&context, &args),
        Command::Fetch(args) => fetch::run(&context, &args),
        Command::Logs(args) => logs::run(&context, &args),
        Command::Explain(args) => explain::run(&context, &args),
        Command::Cost(args) => cost::run(&context, &args),
        Command::Manifest(args) => manifest::run(&context, &args),
        Command::Workers(grid) => workers::run(&context, &grid),
        Command::Pack(args) => pack::run(&context, &args),
        Command::Gateway(args) => gateway::run(&context, &args),
        Command::Ui(args) => ui::run(&context, &args),
        Command::Top(args) => crate::top::run(&context, &args),
        Command::Watch(args) => watch::run(&context, &args),
        Command::Trace(args) => trace::run(&context, &args),
        Command::Report(args) => report::run(&context, &args),
        Command::Relay(args) => relay::run(&context, &args),
        Command::Drain(args) => drain::run(&context, &args),
        Command::Members(args) => members::run(&context, args),
        Command::Revoke(args) => members::revoke(&context, &args),
        Command::Config(args) => config::run(&context, args),
        Command::Forget(args) => forget::run(&context, &args),
        Command::Journal(what) => journal::run(&context, &what),
        Command::Doctor(args) => doctor::run(&context, &args),
        Command::Screensaver(args) => crate::saver::run(&context, &args),
        Command::Plan(args) => plan::run(&context, &args),
        Command::Completions { shell } => completions::run(shell),
        Command::Spawner => Err(Failure::Arguments(
            "only workers start `hedge spawner`; nothing was done: start `hedge worker`".to_owned(),
        )),
    }
}

/// Rejects `--dir` and `--json` for commands that ignore them.
fn reject_unused_options(cli: &Cli) -> Result<(), Failure> {
    let own_grid = "makes a grid of its own in a temporary folder";
    let (why_no_dir, why_no_json) = match &cli.command {
        Command::Run(_) => (Some(own_grid), None),
        Command::Plan(args) if args.machines.is_some() => (Some("asks no grid"), None),
        Command::Worker(_) => (None, Some("prints nothing to standard output")),
        Command::Screensaver(_) | Command::Top(_) => (None, Some("draws on the screen")),
        Command::Trace(_) | Command::Report(_) => (None, Some("writes a file")),
        Command::Cost(args) if args.csv => (None, Some("prints comma-separated values")),
        Command::Pack(_) => (Some("asks no grid"), None),
        Command::Completions { .. } => (Some("keeps nothing"), Some("prints what a shell reads")),
        Command::Spawner => (Some("keeps nothing"), Some("prints nothing")),
        _ => (None, None),
    };
    let unused = |option: &str, why: &str| {
        Err(Failure::Arguments(format!(
            "{option} has no effect here, as this command {why}; nothing was done: leave it out"
        )))
    };
    match (why_no_dir, why_no_json) {
        (Some(why), _) if cli.dir.is_some() => unused("--dir", why),
        (_, Some(why)) if cli.json => unused("--json", why),
        _ => Ok(()),
    }
}

impl Context {
    /// Does `work` with a connection to the grid, and closes that in order.
    ///
    /// # Errors
    /// What `work` fails with, or the connection.
    pub fn on_grid<T>(
        &self,
        grid: &Grid,
        work: impl AsyncFnOnce(&Client) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.on_grid_as(Right::Client, grid, work)
    }

    /// The same with the rights that the command needs.
    ///
    /// # Errors
    /// What `work` fails with, or the connection.
    pub fn on_grid_as<T>(
        &self,
        right: Right,
        grid: &Grid,
        work: impl AsyncFnOnce(&Client) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let ticket = access::ticket(&self.folders, grid, right)?;
        block_on(async {
            let connected = patiently(
                "no supervisor has answered yet; still trying",
                Client::connect(&self.folders, &ticket),
            );
            let client = connected.await?;
            let outcome = work(&client).await;
            close(client).await;
            outcome
        })
    }
}

/// Closes a connection to the grid in order, if that takes no longer than [`CLOSE_MAX`]. The grid also copes with a client
/// that vanishes.
async fn close(client: Client) {
    _ = tokio::time::timeout(CLOSE_MAX, client.close()).await;
}

/// Runs one future on this thread. Supervisors and workers do so too: what they hand on from task to task
/// stays on one core, and what is heavy has threads of its own.
///
/// # Errors
/// What the future fails with, or a system that gives no runtime.
fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Local(format!("cannot start: {error}; nothing was changed")))?;
    let outcome = runtime.block_on(work);
    runtime.shutdown_background();
    outcome
}

/// Does something that may take long. If it does, tells the user what it waits for.
async fn patiently<T>(what: &str, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    tokio::select! {
        done = &mut work => return done,
        () = tokio::time::sleep(NOTICE_DELAY) => crate::show::note(what),
    }
    work.await
}

/// Submits a job. If that takes long, tells the user what it waits for.
///
/// # Errors
/// The inputs cannot be read, or the grid does not take the job.
async fn submit_job(
    client: &Client,
    key: SubmitKey,
    spec: &JobSpec,
    files: &InputFiles,
) -> Result<JobId, Failure> {
    let what = "the grid has not accepted the job yet: it fetches the job's input files first";
    Ok(patiently(what, client.submit_with(key, spec, files)).await?)
}

/// Sends a request and returns the reply. A refusal is a failure.
///
/// # Errors
/// The grid cannot be reached, or refuses.
pub async fn ask(client: &Client, request: Request) -> Result<Reply, Failure> {
    Ok(client.ask(request).await?)
}

/// Returns the failure for a reply that is not one to the request.
pub fn unexpected() -> Failure {
    Failure::Local(
        "the supervisor answered something else than it was asked; it may be of another version: \
         compare `hedge --version` there and here"
            .to_owned(),
    )
}
