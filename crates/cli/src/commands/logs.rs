//! `hedge logs`: what tasks printed, and what they print.

mod follow;
mod sink;

use super::named::number;
use super::results::tell_cut;
use super::{Context, ask, unexpected};
use crate::args::{Grid, JobName};
use crate::exit::{Exit, Failure};
use crate::show::{self, escape};
use clap::builder::NonEmptyStringValueParser;
use hedge_model::JobId;
use hedge_model::msg::{Reply, Request};
use hedge_model::view::{TaskFilter, TaskLine, TasksView};
use hedge_node::client::{Client, Patience, Printed, TailState};
use sink::{Form, Sink};

/// Arguments of `logs`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Number of the job, or last
    #[arg(value_name = "JOB")]
    pub job: JobName,
    /// The task: its id, and its index behind a dot for an array [default: all tasks]
    #[arg(value_name = "TASK", value_parser = NonEmptyStringValueParser::new())]
    pub task: Option<String>,
    /// Show output as it comes, until the task or the job has ended
    #[arg(long, short)]
    pub follow: bool,
    /// The grid.
    #[command(flatten)]
    pub grid: Grid,
}

/// Shows what one task printed, or what each task of a job printed; where asked to, until it has ended.
///
/// # Errors
/// There is no such job or task, or the grid cannot be reached.
pub fn run(context: &Context, args: &Args) -> Result<Exit, Failure> {
    let json = context.look.json;
    context.on_grid(&args.grid, async |client| {
        let job = number(client, args.job).await?;
        let whole = match (&args.task, args.follow) {
            (Some(task), false) => {
                let form = if json { Form::Json } else { Form::Plain };
                let seen = one(client, job, task, form).await?;
                if seen.runs && !json {
                    note_running(job, Some(&escape::line(task)));
                }
                seen.whole
            }
            (Some(task), true) => follow::one(client, job, task, json).await?,
            (None, false) => all(client, job, json).await?,
            (None, true) => follow::all(client, job, json).await?,
        };
        // What was printed and not kept is as good as a file that could not be brought.
        Ok(if whole { Exit::Done } else { Exit::Failed })
    })
}

/// What was shown of a task.
struct Seen {
    /// All of it was kept.
    whole: bool,
    /// It runs, and may print more.
    runs: bool,
}

/// Shows what one task printed so far.
async fn one(client: &Client, job: JobId, task: &str, form: Form) -> Result<Seen, Failure> {
    let mut tail = client.tail(job, task);
    let mut sink = Sink::new(task, form);
    let mut patience = Patience::default();
    let mut limit = None;
    let ended = |printed: &Printed| -> Result<Seen, Failure> {
        let whole = show_ended(printed, form)?;
        Ok(Seen { whole, runs: false })
    };
    loop {
        let news = patience.next(&mut tail).await?;
        match &news.state {
            TailState::Waits(_) | TailState::Nothing(_) if sink.read() == 0 => {
                return ended(&client.printed(job, task).await?);
            }
            TailState::Over { .. } if sink.read() == 0 => {
                if let TailState::Over { log, .. } = news.state {
                    return ended(&Printed {
                        view: *log,
                        stdout: news.stdout.bytes,
                        stderr: news.stderr.bytes,
                    });
                }
            }
            // It has ended meanwhile; what it printed until then is not waited for either.
            TailState::Waits(_) | TailState::Nothing(_) | TailState::Over { .. } => {
                sink.part(&news).await?;
                let whole = sink.close().await?;
                return Ok(Seen { whole, runs: false });
            }
            TailState::Runs { left, .. } => {
                sink.part(&news).await?;
                let limit = *limit.get_or_insert(sink.read() + left);
                if *left == 0 || sink.read() >= limit {
                    let whole = sink.close().await?;
                    return Ok(Seen { whole, runs: true });
                }
            }
        }
    }
}

/// Shows the output of all tasks that have begun, in the order of their numbers; where there are several, each line
/// begins with the name of its task.
async fn all(client: &Client, job: JobId, json: bool) -> Result<bool, Failure> {
    let (mut from, mut first) = (0, true);
    let mut all = Seen {
        whole: true,
        runs: false,
    };
    loop {
        let page = tasks(client, job, TaskFilter::All, from).await?;
        let alone = first && page.tasks.len() == 1 && page.next.is_none();
        let form = match (json, alone) {
            (true, _) => Form::Json,
            (false, true) => Form::Plain,
            (false, false) => Form::Named,
        };
        for task in page.tasks.iter().filter(|task| has_begun(task)) {
            let seen = one(client, job, &task.task, form).await?;
            all.whole &= seen.whole;
            all.runs |= seen.runs;
        }
        first = false;
        match page.next {
            Some(next) if next > from => from = next,
            _ => break,
        }
    }
    if all.runs && !json {
        note_running(job, None);
    }
    Ok(all.whole)
}

/// Tells that there may be more.
fn note_running(job: JobId, task: Option<&str>) {
    let (what, task) = match task {
        Some(task) => (format!("{task} runs"), format!(" {task}")),
        None => ("tasks run".to_owned(), String::new()),
    };
    show::note(&format!(
        "{what}: this is what was printed so far; `hedge logs {job}{task} -f` shows it as it comes"
    ));
}

/// A page of a job's tasks.
async fn tasks(
    client: &Client,
    job: JobId,
    filter: TaskFilter,
    from: u32,
) -> Result<TasksView, Failure> {
    match ask(client, Request::Tasks { job, filter, from }).await? {
        Reply::Tasks(page) => Ok(*page),
        _ => Err(unexpected()),
    }
}

/// Whether an attempt of a task has begun, so that there may be something to show.
fn has_begun(task: &TaskLine) -> bool {
    task.state == "done" || task.attempts > 0
}

/// Shows what an attempt printed that has ended; whether all of it was kept.
fn show_ended(printed: &Printed, form: Form) -> Result<bool, Failure> {
    let view = &printed.view;
    let (name, end) = (escape::line(&view.task), escape::line(&view.end));
    match form {
        Form::Json | Form::Events => {
            show::json(&printed.output())?;
        }
        Form::Plain if view.log.is_none() => {
            show::note(&format!("{name}: {end}; nothing was printed"));
        }
        Form::Plain => {
            show::task_err(&printed.stderr);
            show::task_out(&printed.stdout)?;
        }
        Form::Named => {
            show::task_err(&show::named_lines(&name, &printed.stderr));
            show::task_out(&show::named_lines(&name, &printed.stdout))?;
        }
    }
    Ok(tell_cut(printed))
}
