//! `hedge-lab sim estimates`.

use super::args::Estimates as Args;
use super::failed;
use crate::failure::Failure;
use crate::output::{Output, table};
use hedge_sim::eval::{Estimated, Estimates, MOMENTS, Promised, estimates};
use serde::Serialize;

const RUNS_MAX: u64 = 10_000;
/// Bounds of the chances that are counted together.
const CHANCES: [f64; 7] = [0.0, 0.1, 0.35, 0.65, 0.85, 0.95, 1.0001];

/// What the command prints as JSON.
#[derive(Serialize)]
struct Report {
    moments: Vec<Moment>,
    chances: Vec<Chance>,
    runs: Vec<Estimates>,
}

/// The estimates after one part of the jobs' time.
#[derive(Serialize)]
struct Moment {
    part: f64,
    jobs: usize,
    without: usize,
    within_1_5: usize,
    within_2: usize,
    in_interval: usize,
}

/// Jobs whose chance to meet their deadline was estimated alike.
#[derive(Serialize)]
struct Chance {
    from: f64,
    to: f64,
    jobs: usize,
    estimated: f64,
    met: f64,
}

/// Simulates, and prints how good the estimates were.
///
/// # Errors
/// Wrong arguments, or a job that does not end.
pub fn run(output: Output, args: &Args) -> Result<(), Failure> {
    if args.runs == 0 || args.runs > RUNS_MAX {
        return Err(Failure::Arguments(format!(
            "runs lie between 1 and {RUNS_MAX}; nothing was run"
        )));
    }
    let seeds = args.seed..args.seed.saturating_add(args.runs);
    let runs = seeds.map(|seed| estimates(seed).map_err(failed));
    let runs = runs.collect::<Result<Vec<Estimates>, Failure>>()?;
    print(output, runs)
}

/// Prints how good these estimates were.
///
/// # Errors
/// The output cannot be written.
pub fn print(output: Output, runs: Vec<Estimates>) -> Result<(), Failure> {
    let report = Report {
        moments: MOMENTS.iter().map(|part| moment(*part, &runs)).collect(),
        chances: chances(&runs),
        runs,
    };
    output.print(&report, || text(&report))
}

fn moment(part: f64, runs: &[Estimates]) -> Moment {
    let all = runs.iter().flat_map(|run| &run.remaining);
    let all: Vec<&Estimated> = all.filter(|one| one.moment == part).collect();
    let count = |holds: &dyn Fn(&Estimated) -> bool| all.iter().filter(|one| holds(one)).count();
    Moment {
        part,
        jobs: all.len(),
        without: count(&|one| one.likely_s.is_none()),
        within_1_5: count(&|one| one.within(1.5)),
        within_2: count(&|one| one.within(2.0)),
        in_interval: count(&Estimated::holds),
    }
}

fn chances(runs: &[Estimates]) -> Vec<Chance> {
    let bins = CHANCES.windows(2).map(|bin| {
        let all = runs.iter().flat_map(|run| &run.deadline);
        let all = all.filter(|one| (bin[0]..bin[1]).contains(&one.chance));
        let all: Vec<&Promised> = all.collect();
        let mean = |of: &dyn Fn(&Promised) -> f64| {
            all.iter().map(|one| of(one)).sum::<f64>() / (all.len() as f64).max(1.0)
        };
        Chance {
            from: bin[0],
            to: bin[1].min(1.0),
            jobs: all.len(),
            estimated: mean(&|one| one.chance),
            met: mean(&|one| f64::from(u8::from(one.met))),
        }
    });
    bins.collect()
}

fn text(report: &Report) -> String {
    let part =
        |count: usize, of: usize| format!("{:.0} %", 100.0 * count as f64 / (of as f64).max(1.0));
    let rows = report.moments.iter().map(|one| {
        vec![
            format!("{:.0} %", one.part * 100.0),
            one.jobs.to_string(),
            one.without.to_string(),
            part(one.within_1_5, one.jobs),
            part(one.within_2, one.jobs),
            part(one.in_interval, one.jobs),
        ]
    });
    let titles = [
        "after#",
        "jobs#",
        "no estimate#",
        "within 1.5#",
        "within 2#",
        "in interval#",
    ];
    let remaining = table(&titles, &rows.collect::<Vec<_>>());
    let rows = report.chances.iter().map(|one| {
        vec![
            format!("{:.0} to {:.0} %", one.from * 100.0, one.to * 100.0),
            one.jobs.to_string(),
            format!("{:.0} %", one.estimated * 100.0),
            format!("{:.0} %", one.met * 100.0),
        ]
    });
    let titles = ["chance#", "estimates#", "mean#", "met#"];
    let chances = table(&titles, &rows.collect::<Vec<_>>());
    format!("{remaining}\n{chances}")
}
