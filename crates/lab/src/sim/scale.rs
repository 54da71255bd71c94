//! `hedge-lab sim scale`.

use super::args::Scale as Args;
use super::{failed, write};
use crate::failure::Failure;
use crate::output::Output;
use crate::output::table;
use hedge_model::spec::{Qos, Redundancy};
use hedge_sim::eval::{Scale, growth, scale};

const TASKS_MAX: u32 = 10_000_000;
const WORKERS_MAX: u32 = 1_000_000;

/// Measures, prints and draws.
///
/// # Errors
/// Wrong arguments, or a chart that cannot be written.
pub fn run(output: Output, args: &Args) -> Result<(), Failure> {
    let mut words = Redundancy::WORDS.iter();
    let Some((_, redundancy, _)) = words.find(|(word, ..)| *word == args.redundancy) else {
        let words = Redundancy::WORDS.map(|(word, ..)| word).join(", ");
        return Err(Failure::Arguments(format!(
            "{:?} is no redundancy; there are {words}; nothing was run",
            args.redundancy
        )));
    };
    let wrong = |tasks: &u32| *tasks == 0 || *tasks > TASKS_MAX;
    if args.tasks.iter().any(wrong) || args.workers == 0 || args.workers > WORKERS_MAX {
        return Err(Failure::Arguments(format!(
            "tasks lie between 1 and {TASKS_MAX}, workers between 1 and {WORKERS_MAX}; nothing was run"
        )));
    }
    let qos = Qos {
        redundancy: *redundancy,
        ..Qos::default()
    };
    let each = args.tasks.iter();
    let all = each.map(|tasks| scale(*tasks, args.workers, qos.clone()).map_err(failed));
    let all = all.collect::<Result<Vec<Scale>, Failure>>()?;
    output.print(&all, || text(&all))?;
    if let Some(path) = &args.plot {
        let points = all.iter();
        let points = points.map(|one| (f64::from(one.tasks), one.core_us_per_task));
        let line = (format!("{} machines", args.workers), points.collect());
        let title = "The scheduling core's time for each task";
        let chart = growth(title, "tasks of the job", "microseconds a task", &[line]);
        write(path, &chart)?;
    }
    Ok(())
}

fn text(all: &[Scale]) -> String {
    let rows = all.iter().map(|one| {
        vec![
            one.tasks.to_string(),
            one.workers.to_string(),
            format!("{:.2}", one.core_us_per_task),
            format!("{:.1}", one.virtual_s),
            format!("{:.1}", one.wall_s),
            one.events.to_string(),
        ]
    });
    let titles = [
        "tasks#",
        "machines#",
        "core µs a task#",
        "virtual s#",
        "real s#",
        "events#",
    ];
    table(&titles, &rows.collect::<Vec<_>>())
}
