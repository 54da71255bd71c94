//! `hedge plan`: what each level of redundancy is expected to buy a job and to cost, before anything runs.

use super::source::Checked;
use super::{Context, ask, unexpected};
use crate::args::{Grid, Source};
use crate::exit::{Exit, Failure};
use crate::show::{
    self,
    cost::money,
    table::{Column, table},
};
use hedge_model::JobSpec;
use hedge_model::msg::{Reply, Request};
use hedge_sim::eval::{MACHINES_MAX, Options, Plan, Trace, machines, plan, prices};
use std::path::PathBuf;
use std::sync::Arc;

/// What stands below the help of `plan`.
pub const HELP: &str = "\
Examples:
  hedge plan job.toml                        on the grid's workers as they are now
  hedge plan job.toml --machines 20          on 20 machines of usual speeds

The scheduler runs the job in virtual time, with times scattered around its estimates and a share of
stragglers; costs are by the grid's tariff, with --machines by the default one.";

/// Arguments of `plan`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Job file: TOML, or JSON with the ending .json
    #[arg(value_name = "JOB")]
    pub job: PathBuf,
    /// Set a parameter of the job file, in the place of its default there. Repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = crate::args::label)]
    pub set: Vec<(String, String)>,
    /// So many machines of usual speeds, instead of the grid's workers
    #[arg(long, value_name = "N", conflicts_with = "join")]
    pub machines: Option<usize>,
    /// Trace of when machines come and go, as for `hedge-lab sim compare`; without one all stay
    #[arg(long, value_name = "FILE", requires = "machines")]
    pub availability: Option<PathBuf>,
    /// Simulated runs
    #[arg(long, default_value_t = 200, value_name = "N")]
    pub runs: u32,
    /// What all random numbers follow from
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,
    /// Share of executions that straggle
    #[arg(long, default_value_t = 0.05, value_name = "SHARE")]
    pub straggling: f64,
    /// The grid.
    #[command(flatten)]
    pub grid: Grid,
}

/// Simulates the job and prints what came of it; nothing is submitted.
///
/// # Errors
/// A wrong job file or arguments, or a grid that cannot be reached.
pub fn run(context: &Context, args: &Args) -> Result<Exit, Failure> {
    let source = Source {
        job: Some(args.job.clone()),
        set: args.set.clone(),
        ..Source::default()
    };
    let checked = Checked::new(source, false, false)?;
    let ((speeds, trace), prices) = match args.machines {
        Some(machines) => (assumed(args, machines)?, Vec::new()),
        None => known(context, args, checked.tasks())?,
    };
    let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get());
    let mut options = Options {
        runs: args.runs,
        seed: args.seed,
        threads: cpus,
        ..Options::default()
    };
    options.model.straggling = args.straggling;
    let found = plan(checked.tasks(), &speeds, &trace, &options, &prices).map_err(failed)?;
    context.look.print(&found, || text(&found))?;
    Ok(Exit::Done)
}

/// Machines of which nothing is known: their speeds are drawn anew for each run.
fn assumed(args: &Args, machines: usize) -> Result<(Vec<f64>, Trace), Failure> {
    if machines == 0 || machines > MACHINES_MAX {
        let why = format!("machines lie between 1 and {MACHINES_MAX}; nothing was run");
        return Err(Failure::Arguments(why));
    }
    let trace = match &args.availability {
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| {
                let why = format!("cannot read {}: {error}; nothing was run", path.display());
                Failure::Arguments(why)
            })?;
            Trace::read(&text).map_err(failed)?
        }
        None => Trace::steady(machines),
    };
    Ok((Vec::new(), trace))
}

/// Settings by name and value.
type Settings = Vec<(Arc<str>, Arc<str>)>;

/// The grid's workers: each counts as many machines as it can run of the job's largest tasks at once. And the grid's
/// tariff.
fn known(
    context: &Context,
    args: &Args,
    spec: &JobSpec,
) -> Result<((Vec<f64>, Trace), Settings), Failure> {
    let (workers, settings) = context.on_grid(&args.grid, async |client| {
        let Reply::Workers(workers) = ask(client, Request::Workers).await? else {
            return Err(unexpected());
        };
        match ask(client, Request::Settings).await? {
            Reply::Settings(settings) => Ok((workers, settings)),
            _ => Err(unexpected()),
        }
    })?;
    let speeds = machines(spec, &workers);
    if speeds.is_empty() {
        return Err(Failure::Arguments(
            "the grid has no worker that could run this job now; `--machines N` plans for others"
                .into(),
        ));
    }
    let trace = Trace::steady(speeds.len());
    Ok(((speeds, trace), prices(settings)))
}

fn failed(error: hedge_sim::Error) -> Failure {
    match error {
        hedge_sim::Error::Run(_) => Failure::Local(error.to_string()),
        _ => Failure::Arguments(error.to_string()),
    }
}

fn text(plan: &Plan) -> String {
    let rows = plan.levels.iter().map(|level| {
        let time = |seconds: f64| show::time(seconds * 1e3);
        let mut row = vec![
            level.redundancy.to_owned(),
            time(level.makespan_s.mean),
            time(level.makespan_s.p50),
            time(level.makespan_s.p95),
            format!("{:.1}", level.copies),
            format!("{:+.1} %", level.extra * 100.0),
            money(level.cost_micro.round() as u64),
        ];
        row.extend(level.in_time.map(|share| format!("{:.1} %", share * 100.0)));
        row
    });
    let mut columns = vec![
        Column::new("REDUNDANCY"),
        Column::new("MEAN#"),
        Column::drop("MEDIAN#", 2),
        Column::drop("95 %#", 1),
        Column::drop("COPIES#", 4),
        Column::drop("MACHINE TIME#", 5),
        Column::drop("COST#", 3),
    ];
    if plan.finish_by_s.is_some() {
        columns.push(Column::drop("IN TIME#", 0));
    }
    let tasks = show::count(plan.tasks as u64, "task");
    let runs = show::count(u64::from(plan.runs), "simulated run");
    let mut text = format!(
        "{}: {tasks}, {runs}\n{}",
        plan.job,
        table(&columns, rows.collect())
    );
    if let (Some(by), Some(confidence)) = (plan.finish_by_s, plan.confidence) {
        let best = plan.levels.iter().filter_map(|level| level.in_time);
        let best = best.fold(0.0, f64::max);
        let verdict = if best >= confidence {
            "is to be expected of the levels that reach it"
        } else {
            "cannot be met with this confidence, whatever the redundancy"
        };
        let by = show::time(by * 1e3);
        text.push_str(&format!(
            "ending within {by} by {:.0} % {verdict}\n",
            confidence * 100.0
        ));
    }
    for level in &plan.levels {
        let Some(without) = level.without_checkpoints else {
            continue;
        };
        let time = |seconds: f64| show::time(seconds * 1e3);
        text.push_str(&format!(
            "without the job's checkpoints, `{}` would take {} on average, at {:+.1} % machine time\n",
            level.redundancy,
            time(without.makespan_s.mean),
            (without.machine_s / level.machine_s - 1.0) * 100.0
        ));
    }
    if plan.unknown > 0 {
        let tasks = show::count(u64::from(plan.unknown), "task");
        text.push_str(&format!(
            "{tasks} without an estimate of `cpu_time` counted as one second; with estimates a plan means more\n"
        ));
    }
    text
}
