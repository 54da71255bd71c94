//! `hedge-lab sim compare`.

use super::args::Compare;
use super::{failed, read, write};
use crate::failure::Failure;
use crate::output::Output;
use crate::output::table;
use hedge_job::JobFile;
use hedge_sim::eval::{
    Comparison, Contender, Model, Options, Row, Saving, Setting, Trace, Workflow, boxes, compare,
    gantt, luck_of, run as run_once, time_scale,
};
use std::io::IsTerminal;
use std::path::Path;

/// Compares, prints and draws.
///
/// # Errors
/// Wrong arguments or files, or a chart that cannot be written.
pub fn run(output: Output, args: &Compare) -> Result<(), Failure> {
    let workflows = args.workflows.iter().map(|path| workflow(path));
    let workflows = workflows.collect::<Result<Vec<_>, _>>()?;
    let trace = pool(args)?;
    let options = options(args)?;
    let progress = |done: usize, all: usize| {
        if std::io::stderr().is_terminal() && (done.is_multiple_of(20) || done == all) {
            let end = if done == all { "\n" } else { "" };
            eprint!("\r{done} of {all} runs{end}");
        }
    };
    let comparison = compare(&workflows, &trace, &options, &progress).map_err(failed)?;
    output.print(&comparison, || text(&comparison))?;
    if let Some(folder) = &args.plot {
        draw(folder, &workflows, &trace, &options, &comparison)?;
    }
    Ok(())
}

fn workflow(path: &Path) -> Result<Workflow, Failure> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let is_json = path
        .extension()
        .is_some_and(|end| end.eq_ignore_ascii_case("json"));
    if is_json {
        let json = read(path)?;
        if json.contains("\"schemaVersion\"") {
            let found = Workflow::from_wfformat(&json);
            return Ok(found.map_err(failed)?.named(&stem));
        }
    }
    let file = JobFile::read(path, &[]).map_err(|bad| Failure::Arguments(bad.to_string()))?;
    Workflow::from_spec(file.tasks()).map_err(failed)
}

fn pool(args: &Compare) -> Result<Trace, Failure> {
    const MACHINES: usize = 30;
    const MACHINES_MAX: usize = 100_000;
    let count = args.machines.or(args.office).unwrap_or(MACHINES);
    if count == 0 || count > MACHINES_MAX {
        let why = format!("machines lie between 1 and {MACHINES_MAX}; nothing was run");
        return Err(Failure::Arguments(why));
    }
    if let Some(path) = &args.availability {
        return Trace::read(&read(path)?).map_err(failed);
    }
    Ok(match args.office {
        Some(_) => Trace::office(count, args.seed),
        None => Trace::steady(count),
    })
}

fn options(args: &Compare) -> Result<Options, Failure> {
    let luck = &args.luck;
    let named = args.policies.iter().map(|name| Contender::find(name));
    let named = named.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    let cpus = || std::thread::available_parallelism().map_or(1, |cpus| cpus.get());
    Ok(Options {
        model: Model {
            noise: luck.noise,
            estimate_error: luck.estimate_error,
            speed_spread: luck.speed_spread,
            speed_error: luck.speed_error,
            straggling: luck.straggling,
            straggle_min: luck.straggle_min,
            straggle_max: luck.straggle_max,
            straggle_shape: luck.straggle_shape,
            losses: !luck.no_losses,
            startup: luck.startup,
            bandwidth: luck.bandwidth,
            reports: luck.reports,
            starved: luck.starved,
            checkpoints: luck.checkpoints.then_some(Saving {
                share: luck.checkpoint_share,
                every_s: luck.checkpoint_every,
                cost: luck.checkpoint_cost,
            }),
            ..Model::default()
        },
        policies: if named.is_empty() {
            Contender::all()
        } else {
            named
        },
        runs: args.runs,
        seed: args.seed,
        lifetime: args.lifetime,
        detect: args.detect,
        learn: args.learn,
        threads: args.threads.unwrap_or_else(cpus),
    })
}

fn text(comparison: &Comparison) -> String {
    let tables = comparison.tables.iter();
    let mut parts: Vec<String> = tables
        .map(|one| {
            let title = format!(
                "{}: {} tasks of {} kinds, longest path {:.1} s",
                one.workflow, one.tasks, one.kinds, one.longest_path_s
            );
            format!("{title}\n{}", rows(&one.rows))
        })
        .collect();
    if comparison.tables.len() > 1 {
        parts.push(format!("all together\n{}", rows(&comparison.overall)));
    }
    let note = "makespan ÷ the clairvoyant schedule's, and ÷ the lower bound; net: machine time beyond \
                `none`; copies: machine time\nof redundant attempts ÷ winners'; cost: millionths of the \
                tariff's currency in a run";
    parts.join("\n") + "\n" + note + "\n"
}

fn rows(rows: &[Row]) -> String {
    let ratio = |value: f64| format!("{value:.2}");
    let share = |value: f64| format!("{:.1} %", value * 100.0);
    let cells = rows.iter().map(|row| {
        let (c, b) = (row.clairvoyant, row.bound);
        vec![
            row.policy.to_owned(),
            ratio(c.mean),
            ratio(c.p50),
            ratio(c.p95),
            ratio(c.p99),
            ratio(b.mean),
            ratio(b.p99),
            share(row.net),
            share(row.second_copies),
            format!("{:.0}", row.cost_micro),
        ]
    });
    let titles = [
        "policy",
        "mean#",
        "p50#",
        "p95#",
        "p99#",
        "÷ bound#",
        "p99#",
        "net#",
        "copies#",
        "cost#",
    ];
    table(&titles, &cells.collect::<Vec<_>>())
}

fn draw(
    folder: &Path,
    workflows: &[Workflow],
    trace: &Trace,
    options: &Options,
    comparison: &Comparison,
) -> Result<(), Failure> {
    std::fs::create_dir_all(folder).map_err(|error| {
        Failure::Local(format!(
            "cannot make {}: {error}; the figures above stand",
            folder.display()
        ))
    })?;
    write(&folder.join("makespan.svg"), &boxes(comparison))?;
    let Some(workflow) = workflows.first() else {
        return Ok(());
    };
    let scale = time_scale(workflow, trace, options.lifetime).map_err(failed)?;
    let trace = trace.scaled(scale);
    let luck = luck_of(workflow, &trace, options, 0);
    for policy in &options.policies {
        let setting = Setting {
            workflow,
            trace: &trace,
            luck: &luck,
            detect: options.detect,
            chart: true,
            qos: None,
        };
        let (outcome, _) = run_once(setting, policy, None).map_err(failed)?;
        let name = policy.name();
        let title = format!("{}, first run, {name}", workflow.name);
        let chart = gantt(workflow, &outcome, &title);
        write(&folder.join(format!("run-{name}.svg")), &chart)?;
    }
    Ok(())
}
