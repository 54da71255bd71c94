//! `hedge run`: a job on this machine alone.

use super::finish::{Wish, finish};
use super::fits::largest;
use super::follow::{Followed, follow};
use super::interrupt::Interrupts;
use super::place::check_names;
use super::source::Checked;
use super::stream::{Closed, Stream, beside};
use super::{Context, ask, submit_job};
use crate::args::{Priority, Run, TaskRules};
use crate::exit::{Exit, Failure};
use crate::show::{self, progress::Progress};
use hedge_model::msg::Request;
use hedge_model::spec::MOUNTS_LABEL;
use hedge_model::{JobId, JobSpec};
use hedge_node::client::{Client, new_key};
use hedge_node::local::{LocalConfig, LocalGrid};
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

/// How long a cancelled job may take to end before the local grid is stopped anyway.
const CANCEL_MAX: Duration = Duration::from_secs(5);

/// Runs a job from start to end on a grid in this process, with workers as child processes.
///
/// # Errors
/// An invalid job, a machine that cannot run it, no worker that works, an interruption while the rest of the output is
/// printed, an output that was closed, or a failure of the grid.
pub fn run(context: &Context, args: Run) -> Result<Exit, Failure> {
    show::events::show("error,hedge_node=warn");
    let shown = !context.look.json;
    let checked = Checked::new(args.source, shown, shown)?;
    if checked.tasks().is_open() {
        return Err(Failure::Arguments(
            "the job is open and would not end, as nobody can close it here; nothing was started: leave open_timeout out, \
             or give the job to a grid with `hedge job open`"
                .to_owned(),
        ));
    }
    checked.check_out(args.out.as_deref(), true)?;
    check_names(args.out.as_deref(), checked.tasks())?;
    let has = hedge_node::worker::offer(&std::env::temp_dir());
    let wanted = Wanted {
        out: args.out,
        exit_code: args.exit_code,
    };
    let mut labels = hedge_node::worker::labels();
    if !args.rules.no_sandbox {
        // Whether the sandbox can show trees is known once a worker has started.
        labels.push((MOUNTS_LABEL.0.into(), MOUNTS_LABEL.1.into()));
    }
    let largest = largest(checked.tasks(), &has, &labels)?;
    let useful = useful_workers(checked.tasks());
    super::block_on(async {
        // Signals from here on are queued until the job can be cancelled, so that nothing is left half made. Each
        // `Interrupts` sees every signal; the second signal exits at once, and dropping the grid deletes its files.
        let interrupts = Interrupts::new()?;
        let mut signals = Interrupts::new()?;
        let mut second_signal = pin!(async move {
            signals.next().await;
            signals.next().await;
        });
        let mut config = config(args.workers, useful, &args.rules)?;
        config.largest = largest;
        config.tell = show::events::of_worker;
        let grid = LocalGrid::start(config).await?;
        let client = grid.client();
        let job = on_grid(context, &client, checked, &wanted, interrupts);
        let outcome = tokio::select! {
            outcome = job => outcome,
            () = grid.hopeless() => Err(Failure::Local(format!(
                "no worker can work here, for the reason above. The job was given up and nothing of it is kept. \
                 Workers use the folder {}; TMPDIR selects another one",
                grid.dir().display()
            ))),
            () = &mut second_signal => return Ok(Exit::Cancelled),
        };
        tokio::select! {
            () = grid.stop() => {}
            () = &mut second_signal => {}
        }
        outcome
    })
}

/// What the user wants of the job when it has ended.
struct Wanted {
    out: Option<PathBuf>,
    exit_code: bool,
}

/// The most workers that can be of use to a job: one for each attempt, two at least, as one may freeze, and 1024 at
/// most.
fn useful_workers(spec: &JobSpec) -> usize {
    let copies = spec.qos().copies;
    let attempts = spec.groups().iter().map(|group| {
        let each = copies.max(group.retries.saturating_add(1));
        u64::from(group.count()).saturating_mul(each.into())
    });
    attempts.fold(0, u64::saturating_add).clamp(2, 1024) as usize
}

/// The configuration of a grid on this machine whose workers follow `rules`: `workers` of them if that is given, else
/// the usual number, but no more than `useful`.
///
/// # Errors
/// The path of this executable is unknown.
fn config(workers: Option<u16>, useful: usize, rules: &TaskRules) -> Result<LocalConfig, Failure> {
    let mut config = LocalConfig::new()?;
    config.workers = match workers {
        Some(workers) => workers.into(),
        None => config.workers.min(useful),
    };
    let flags = [
        ("--no-sandbox", rules.no_sandbox),
        ("--accept-weak-sandbox", rules.accept_weak_sandbox),
        ("--allow-network", rules.allow_network),
        (
            "--task-priority=normal",
            rules.task_priority == Priority::Normal,
        ),
    ];
    let set = flags.iter().filter(|(_, set)| *set);
    config.worker_args = set.map(|(flag, _)| (*flag).to_owned()).collect();
    for share in &rules.share {
        let mode = if share.writable { "" } else { ":ro" };
        let path = share.path.display();
        let given = format!("--share={}={path}{mode}", share.name);
        config.worker_args.push(given);
    }
    Ok(config)
}

async fn on_grid(
    context: &Context,
    client: &Client,
    checked: Checked,
    wanted: &Wanted,
    mut interrupts: Interrupts,
) -> Result<Exit, Failure> {
    let (program, leaves_files) = (checked.is_program(), checked.leaves_files());
    let submitted = async {
        let (spec, files) = checked.finish().await?;
        let job = submit_job(client, new_key()?, &spec, &files).await?;
        Ok::<_, Failure>((spec, job, files))
    };
    // The supervisor is in this process, and workers read the input files and packs of trees from where they lie.
    let (spec, job, _files) = tokio::select! {
        submitted = submitted => submitted?,
        () = interrupts.next() => {
            show::note("cancelled before the job began; Ctrl-C again quits at once");
            return Ok(Exit::Cancelled);
        }
    };
    let mut progress = Progress::new(context.look.style(program)).on_this_machine();
    let shown = program && !context.look.json;
    let mut stream = shown.then(|| Stream::start(client, job, &spec));
    let following = follow(client, job, &mut progress, &mut interrupts);
    let mut followed = match beside(&mut stream, following).await {
        Ok(followed) => followed,
        Err(Closed) if leaves_files => follow(client, job, &mut progress, &mut interrupts).await,
        // Like a program that stops when nobody reads its output.
        Err(Closed) => {
            cancel(client, job, &mut progress).await?;
            return Err(Failure::OutputClosed);
        }
    };
    if let Ok(Followed::Interrupted) = followed {
        show::note("cancelling; Ctrl-C again quits at once");
        followed = match beside(&mut stream, cancel(client, job, &mut progress)).await {
            Ok(followed) => followed,
            Err(Closed) => cancel(client, job, &mut progress).await,
        };
    }
    drop(progress);
    let view = match followed? {
        Followed::Ended(view) => *view,
        Followed::Interrupted => {
            show::note(
                "the job did not end in time; its workers are stopped, and its results are lost",
            );
            return Ok(Exit::Cancelled);
        }
    };
    let wish = Wish {
        results: true,
        out: wanted.out.as_deref(),
        program: program.then_some(&spec),
        stream,
        last: Some(&spec),
        exit_code: wanted.exit_code,
    };
    finish(context, client, view, wish, &mut interrupts).await
}

async fn cancel(client: &Client, job: JobId, progress: &mut Progress) -> Result<Followed, Failure> {
    let mut again = Interrupts::new()?;
    let ended = async {
        ask(client, Request::Cancel(job)).await?;
        follow(client, job, progress, &mut again).await
    };
    match tokio::time::timeout(CANCEL_MAX, ended).await {
        Ok(followed) => followed,
        Err(_) => Ok(Followed::Interrupted),
    }
}
