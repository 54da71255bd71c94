//! Charts of a comparison, of one run, and of how a measure grows.

use super::arena::Ended;
use super::compare::Comparison;
use super::rows::Row;
use super::run::Outcome;
use super::svg::{Anchor, INK, PALE, Svg, ticks};
use super::workflow::Workflow;

const WIDTH: f64 = 860.0;
const LEFT: f64 = 110.0;
const RIGHT: f64 = 30.0;
const ROW: f64 = 26.0;
/// Ratios beyond this are drawn at the edge: a few would squeeze all others.
const RATIO_MAX: f64 = 8.0;
/// Most bars of a run that are drawn; more would be a black page of many megabytes.
const BARS_MAX: usize = 20_000;

/// Box plots of makespan over the clairvoyant schedule's: all runs together, then each workflow. A box holds
/// the middle half, its line is the median, whiskers reach from the 5th to the 95th percentile, the dot is
/// the mean and the cross the 99th percentile.
pub fn boxes(comparison: &Comparison) -> String {
    let mut panels = vec![("all workflows together".to_owned(), &comparison.overall)];
    if comparison.tables.len() > 1 {
        let each = comparison.tables.iter();
        panels.extend(each.map(|table| {
            let title = format!("{}, {} tasks", table.workflow, table.tasks);
            (title, &table.rows)
        }));
    }
    let panel_height = |rows: &Vec<Row>| 58.0 + ROW * rows.len() as f64;
    let height = 44.0
        + panels
            .iter()
            .map(|(_, rows)| panel_height(rows))
            .sum::<f64>();
    let mut svg = Svg::new(WIDTH, height);
    let lifetime = comparison.lifetime.map_or(String::new(), |lifetime| {
        format!(", machines live {lifetime} longest paths (median)")
    });
    let title = format!(
        "Makespan over the clairvoyant schedule's: {} runs each{lifetime}",
        comparison.runs
    );
    svg.text(LEFT, 24.0, 15.0, Anchor::Start, &title);
    let mut top = 44.0;
    for (title, rows) in panels {
        boxes_panel(&mut svg, top, &title, rows);
        top += panel_height(rows);
    }
    svg.finish()
}

fn boxes_panel(svg: &mut Svg, top: f64, title: &str, rows: &[Row]) {
    let p99 = rows.iter().map(|row| row.clairvoyant.p99);
    let most = p99.fold(2.0, f64::max).min(RATIO_MAX);
    let marks = ticks(1.0, most);
    let end = marks.last().copied().unwrap_or(most);
    let x =
        |ratio: f64| LEFT + (ratio.clamp(1.0, end) - 1.0) / (end - 1.0) * (WIDTH - LEFT - RIGHT);
    svg.text(LEFT, top + 14.0, 13.0, Anchor::Start, title);
    let bottom = top + 24.0 + ROW * rows.len() as f64;
    for mark in &marks {
        svg.line((x(*mark), top + 22.0), (x(*mark), bottom), PALE, 1.0);
        let label = format!("{mark:.2}");
        let label = label.trim_end_matches('0').trim_end_matches('.');
        svg.text(x(*mark), bottom + 14.0, 11.0, Anchor::Middle, label);
    }
    for (at, row) in rows.iter().enumerate() {
        let middle = top + 24.0 + ROW * (at as f64 + 0.5);
        svg.text(LEFT - 8.0, middle + 4.0, 12.0, Anchor::End, row.policy);
        let quantile = |share: f64| {
            let last = row.samples.len().saturating_sub(1) as f64;
            let value = row.samples.get((share * last).round() as usize);
            value.copied().unwrap_or(1.0)
        };
        let (low, high) = (x(quantile(0.05)), x(quantile(0.95)));
        let (q1, q3) = (x(quantile(0.25)), x(quantile(0.75)));
        svg.line((low, middle), (high, middle), INK, 1.0);
        let fill = colour(row.policy);
        let style = format!("fill=\"{fill}\" stroke=\"{INK}\" stroke-width=\"1\"");
        let told = format!(
            "{}: mean {:.2}, p50 {:.2}, p95 {:.2}, p99 {:.2}, net {:.1} %",
            row.policy,
            row.clairvoyant.mean,
            row.clairvoyant.p50,
            row.clairvoyant.p95,
            row.clairvoyant.p99,
            row.net * 100.0
        );
        svg.rect((q1, middle - 8.0), (q3 - q1, 16.0), &style, &told);
        let median = x(row.clairvoyant.p50);
        svg.line((median, middle - 8.0), (median, middle + 8.0), INK, 2.0);
        svg.dot(
            (x(row.clairvoyant.mean), middle),
            3.0,
            "fill=\"#ffffff\" stroke=\"#1f2328\"",
        );
        let p99 = x(row.clairvoyant.p99);
        svg.line(
            (p99 - 4.0, middle - 4.0),
            (p99 + 4.0, middle + 4.0),
            INK,
            1.5,
        );
        svg.line(
            (p99 - 4.0, middle + 4.0),
            (p99 + 4.0, middle - 4.0),
            INK,
            1.5,
        );
    }
}

fn colour(policy: &str) -> &'static str {
    match policy {
        "auto" => "#2da44e",
        "late" | "spark" | "boinc" => "#54aeff",
        "none" | "clock" => "#afb8c1",
        _ => "#e3b341",
    }
}

/// A Gantt chart of one run: a row for each machine that did something, a bar for each attempt. Winners are
/// green, losers yellow, what was lost red; redundant ones have a dark edge.
pub fn gantt(workflow: &Workflow, outcome: &Outcome, title: &str) -> String {
    let mut machines: Vec<usize> = outcome.bars.iter().map(|bar| bar.machine).collect();
    machines.sort_unstable();
    machines.dedup();
    let height = 90.0 + 16.0 * machines.len() as f64;
    let mut svg = Svg::new(WIDTH, height);
    svg.text(LEFT, 22.0, 15.0, Anchor::Start, title);
    let marks = ticks(0.0, outcome.makespan.max(1e-3));
    let end = marks.last().copied().unwrap_or(1.0);
    let x = |time: f64| LEFT + time.clamp(0.0, end) / end * (WIDTH - LEFT - RIGHT);
    let bottom = 40.0 + 16.0 * machines.len() as f64;
    for mark in &marks {
        svg.line((x(*mark), 36.0), (x(*mark), bottom), PALE, 1.0);
        let label = format!("{mark} s");
        svg.text(x(*mark), bottom + 14.0, 11.0, Anchor::Middle, &label);
    }
    let key = "green: decided its task; yellow: stopped, another won; red: lost with its machine; dark edge: a copy";
    svg.text(LEFT, bottom + 34.0, 11.0, Anchor::Start, key);
    for (at, machine) in machines.iter().enumerate() {
        let y = 40.0 + 16.0 * at as f64;
        let name = format!("machine {machine}");
        svg.text(LEFT - 8.0, y + 11.0, 10.0, Anchor::End, &name);
    }
    for bar in outcome.bars.iter().take(BARS_MAX) {
        let row = machines.partition_point(|machine| *machine < bar.machine);
        let y = 40.0 + 16.0 * row as f64;
        let fill = match (bar.won, bar.how) {
            (true, _) => "#4ac26b",
            (false, Ended::Lost) => "#fa4549",
            (false, _) => "#e3b341",
        };
        let edge = if bar.redundant { INK } else { "#ffffff" };
        let style = format!("fill=\"{fill}\" stroke=\"{edge}\" stroke-width=\"0.7\"");
        let task = workflow.tasks.get(bar.task).map_or("", |task| &task.id);
        let told = format!("{task}: {:.2} s to {:.2} s", bar.from, bar.to);
        let size = (x(bar.to) - x(bar.from), 13.0);
        svg.rect((x(bar.from), y + 1.0), size, &style, &told);
    }
    svg.finish()
}

/// One line of a [`growth`] chart: its name and its points.
pub type Line = (String, Vec<(f64, f64)>);

/// How measures grow with a number, on logarithmic scale below; what is measured stands at the left.
pub fn growth(title: &str, below: &str, left: &str, lines: &[Line]) -> String {
    const COLOURS: [&str; 4] = ["#0969da", "#2da44e", "#bf8700", "#cf222e"];
    let (top, bottom) = (60.0, 340.0);
    let mut svg = Svg::new(WIDTH, 420.0);
    let points = || lines.iter().flat_map(|(_, points)| points);
    let low = points().map(|(x, _)| *x).fold(f64::MAX, f64::min).max(1e-9);
    let high = points().map(|(x, _)| *x).fold(low * 10.0, f64::max);
    let most = points().map(|(_, y)| *y).fold(1e-9, f64::max);
    let marks = ticks(0.0, most);
    let end = marks.last().copied().unwrap_or(most);
    let across = |x: f64| LEFT + (x / low).ln() / (high / low).ln() * (WIDTH - LEFT - RIGHT - 40.0);
    let up = |y: f64| bottom - y / end * (bottom - top);
    svg.text(LEFT, 24.0, 15.0, Anchor::Start, title);
    svg.text(LEFT, top - 14.0, 11.0, Anchor::Start, left);
    for mark in &marks {
        svg.line((LEFT, up(*mark)), (WIDTH - RIGHT, up(*mark)), PALE, 1.0);
        let label = format!("{:.6}", mark);
        let label = label.trim_end_matches('0').trim_end_matches('.');
        svg.text(LEFT - 8.0, up(*mark) + 4.0, 11.0, Anchor::End, label);
    }
    let mut decade = 10f64.powf(low.log10().ceil());
    while decade <= high * 1.001 {
        svg.line((across(decade), top), (across(decade), bottom), PALE, 1.0);
        svg.text(
            across(decade),
            bottom + 16.0,
            11.0,
            Anchor::Middle,
            &format!("{decade}"),
        );
        decade *= 10.0;
    }
    svg.text(
        (LEFT + WIDTH - RIGHT) / 2.0,
        bottom + 36.0,
        12.0,
        Anchor::Middle,
        below,
    );
    for (at, (name, points)) in lines.iter().enumerate() {
        let colour = COLOURS[at % COLOURS.len()];
        let drawn: Vec<(f64, f64)> = points.iter().map(|(x, y)| (across(*x), up(*y))).collect();
        svg.path(&drawn, colour);
        for point in &drawn {
            svg.dot(*point, 3.5, &format!("fill=\"{colour}\""));
        }
        let y = bottom + 58.0;
        let x = LEFT + 240.0 * at as f64;
        svg.line((x, y - 4.0), (x + 24.0, y - 4.0), colour, 2.0);
        svg.text(x + 30.0, y, 12.0, Anchor::Start, name);
    }
    svg.finish()
}
