//! `hedge sim scale`.

use super::args::Scale as Args;
use super::{failed, write};
use crate::commands::Context;
use crate::exit::{Exit, Failure};
use crate::show::table::{Column, table};
use hedge_model::spec::{Qos, Redundancy};
use hedge_sim::eval::{Scale, growth, scale};

const TASKS_MAX: u32 = 10_000_000;
const WORKERS_MAX: u32 = 1_000_000;

/// Measures, prints and draws.
///
/// # Errors
/// Wrong arguments, or a chart that cannot be written.
pub fn run(context: &Context, args: &Args) -> Result<Exit, Failure> {
    let mut words = Redundancy::WORDS.iter();
    let Some((_, redundancy)) = words.find(|(word, _)| *word == args.redundancy) else {
        let words = Redundancy::WORDS.map(|(word, _)| word).join(", ");
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
    context.look.print(&all, || text(&all))?;
    if let Some(path) = &args.plot {
        let points = all.iter();
        let points = points.map(|one| (f64::from(one.tasks), one.core_us_per_task));
        let line = (format!("{} machines", args.workers), points.collect());
        let title = "The scheduling core's time for each task";
        let chart = growth(title, "tasks of the job", "microseconds a task", &[line]);
        write(path, &chart)?;
    }
    Ok(Exit::Done)
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
    const COLUMNS: [Column; 6] = [
        Column::new("tasks#"),
        Column::drop("machines#", 1),
        Column::new("core µs a task#"),
        Column::drop("virtual s#", 3),
        Column::drop("real s#", 2),
        Column::drop("events#", 4),
    ];
    table(&COLUMNS, rows.collect())
}
