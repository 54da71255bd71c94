//! `hedge-lab sim compare`.

use super::args::Compare;
use super::{failed, read, write};
use crate::failure::Failure;
use crate::output::Output;
use crate::output::table;
use hedge_job::JobFile;
use hedge_sim::eval::{
    Case, Comparison, Contender, Model, Options, Row, Saving, Setting, Stragglers, Study, Trace,
    Workflow, boxes, cases, gantt, luck_of, run as run_once, study, time_scale, with_errors,
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
    let cases = models(args, &options.model)?;
    let study = study(&workflows, &trace, &options, &cases, &progress).map_err(failed)?;
    output.print(&study, || text(&study))?;
    if let (Some(folder), Some(case), Some(first)) =
        (&args.plot, cases.first(), study.cases.first())
    {
        let model = case.model.clone();
        let options = Options { model, ..options };
        draw(folder, &workflows, &trace, &options, &first.comparison)?;
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

/// The models of luck to compare under.
fn models(args: &Compare, model: &Model) -> Result<Vec<Case>, Failure> {
    let luck = &args.luck;
    let Some(share) = luck.straggling else {
        return cases(model, &luck.stragglers, &luck.estimate_error).map_err(failed);
    };
    let model = model.clone().with_stragglers(Stragglers {
        share,
        min: luck.straggle_min,
        max: luck.straggle_max,
    });
    let percent = share * 100.0;
    Ok(with_errors(
        &format!("{percent} % straggle"),
        &model,
        &luck.estimate_error,
    ))
}

fn options(args: &Compare) -> Result<Options, Failure> {
    let luck = &args.luck;
    let named = args.policies.iter().map(|name| Contender::find(name));
    let named = named.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    let cpus = || std::thread::available_parallelism().map_or(1, |cpus| cpus.get());
    Ok(Options {
        model: Model {
            noise: luck.noise,
            speed_spread: luck.speed_spread,
            speed_error: luck.speed_error,
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
            link_spread: luck.link_spread,
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
        jobs: args.jobs,
        scatter: args.scatter,
        threads: args.threads.unwrap_or_else(cpus),
    })
}

fn text(study: &Study) -> String {
    let mut parts = Vec::new();
    let several = study.cases.len() > 1;
    for (at, case) in study.cases.iter().enumerate() {
        let comparison = &case.comparison;
        let alone = comparison.tables.len() == 1;
        if several && at == 0 {
            let titles = comparison
                .tables
                .iter()
                .map(|one| title(comparison, &one.workflow) + "\n");
            parts.push(titles.collect());
        }
        if !several || alone {
            let tables = comparison.tables.iter().map(|one| {
                let name = match several {
                    true => case.name.clone(),
                    false => title(comparison, &one.workflow),
                };
                format!("{name}\n{}", rows(&one.rows))
            });
            parts.extend(tables);
        }
        if !alone {
            let name = if several {
                case.name.as_str()
            } else {
                "all together"
            };
            parts.push(format!(
                "{name}\n{}{}",
                rows(&comparison.overall),
                behind(comparison)
            ));
        }
    }
    if several {
        parts.push(format!("all together\n{}", rows(&study.overall)));
    }
    let note = "makespan ÷ the clairvoyant schedule's, and ÷ the lower bound, ± standard errors; net: machine time \
                beyond `none`;\ncopies: machine time of redundant attempts ÷ winners'; cost: millionths of the \
                tariff's currency in a run";
    parts.join("\n") + "\n" + note + "\n"
}

fn title(comparison: &Comparison, workflow: &str) -> String {
    let table = comparison
        .tables
        .iter()
        .find(|one| one.workflow == workflow);
    table.map_or_else(String::new, |one| {
        format!(
            "{}: {} tasks of {} kinds, longest path {:.1} s",
            one.workflow, one.tasks, one.kinds, one.longest_path_s
        )
    })
}

/// Where `auto` is furthest behind the best rule of others.
fn behind(comparison: &Comparison) -> String {
    comparison
        .behind
        .as_ref()
        .map_or_else(String::new, |found| {
            format!(
                "auto ÷ the best of late, spark and boinc, by mean: at most {:.3} ({}, {})\n",
                1.0 + found.by,
                found.workflow,
                found.rival
            )
        })
}

fn rows(rows: &[Row]) -> String {
    let ratio = |value: f64| format!("{value:.3}");
    let error = |value: f64| format!("±{value:.3}");
    let share = |value: f64| format!("{:.1} %", value * 100.0);
    let cells = rows.iter().map(|row| {
        let (c, b) = (row.clairvoyant, row.bound);
        vec![
            row.policy.to_owned(),
            ratio(c.mean),
            error(row.clairvoyant_error.mean),
            ratio(c.p50),
            ratio(c.p95),
            ratio(c.p99),
            error(row.clairvoyant_error.p99),
            ratio(b.mean),
            ratio(b.p99),
            share(row.net),
            format!("±{:.1}", row.net_error * 100.0),
            share(row.second_copies),
            format!("{:.0}", row.cost_micro),
        ]
    });
    let titles = [
        "policy",
        "mean#",
        "#",
        "p50#",
        "p95#",
        "p99#",
        "#",
        "÷ bound#",
        "p99#",
        "net#",
        "#",
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
            later: &[],
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
