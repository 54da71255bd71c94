//! Draws the screen.

use super::screen::{Detail, Screen, View};
use crate::show::escape::line;
use crate::show::{cost::money, job, time};
use hedge_gateway::{Incident, IncidentKind};
use hedge_model::units::show_bytes;
use hedge_model::view::{AttemptLine, DeadlineView, JobState, JobView, WorkerView};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, LineGauge, Paragraph, Row, Table};
use std::time::{Duration, SystemTime};

/// Columns from which on tables have all that they could.
const WIDE: u16 = 100;
/// Lines that a reason may take.
const WHY_LINES: usize = 3;
const GOOD: Style = Style::new().fg(Color::Green);
const BUSY: Style = Style::new().fg(Color::Blue);
const WARN: Style = Style::new().fg(Color::Yellow);
const BAD: Style = Style::new().fg(Color::Red);
const COPY: Style = Style::new().fg(Color::Magenta);
const SOFT: Style = Style::new().add_modifier(Modifier::DIM);
const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const TURNED: Style = Style::new().add_modifier(Modifier::REVERSED);

/// Draws everything.
pub fn draw(frame: &mut Frame, screen: &mut Screen) {
    let rows = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(0),
        Constraint::Length(1),
    ]);
    let [head, body, foot] = rows.areas(frame.area());
    frame.render_widget(Paragraph::new(summary(screen)), head);
    match screen.view {
        View::Jobs => jobs(frame, screen, body),
        View::Machines => machines(frame, screen, body),
        View::Faults => faults(frame, screen, body),
        View::Job(_) => one_job(frame, screen, body),
    }
    frame.render_widget(Paragraph::new(keys(screen.view)), foot);
}

/// The state of the grid in one line.
fn summary(screen: &Screen) -> Line<'static> {
    let lost = screen.grid.as_ref().and_then(|grid| grid.why.clone());
    if let Some(why) = lost {
        return Line::styled(format!("the grid does not answer: {}", safe(&why)), BAD);
    }
    if !screen.ready {
        return Line::raw("connecting");
    }
    let running = screen
        .jobs
        .values()
        .filter(|job| !job.state.ended())
        .count();
    let live = screen
        .workers
        .values()
        .filter(|worker| worker.liveness == "live");
    let (mut count, mut total, mut free) = (0, 0, 0);
    for worker in live {
        count += 1;
        total += worker.total.cpus_milli;
        free += worker.free.cpus_milli;
    }
    let missing = screen.workers.len() - count;
    let mut spans = vec![
        Span::styled("Hedgerow", BOLD),
        Span::raw(format!(
            "  jobs {running} active, {} in all",
            screen.jobs.len()
        )),
        Span::raw(format!("  machines {count} live")),
    ];
    if missing > 0 {
        spans.push(Span::styled(format!(", {missing} missing"), BAD));
    }
    let used = |milli: u64| milli as f64 / 1000.0;
    spans.push(Span::raw(format!(
        "  CPUs {:.1} of {:.1}",
        used(total - free),
        used(total)
    )));
    Line::from(spans)
}

/// The keys that do something in a view.
fn keys(view: View) -> Line<'static> {
    let mut spans = Vec::new();
    let views = [
        ("1", "jobs", View::Jobs),
        ("2", "machines", View::Machines),
        ("3", "faults", View::Faults),
    ];
    for (key, name, of) in views {
        let here = view == of || matches!(view, View::Job(_)) && of == View::Jobs;
        spans.push(Span::styled(
            format!(" {key} {name} "),
            if here { TURNED } else { Style::new() },
        ));
    }
    let more = match view {
        View::Jobs => "  ↑↓ move  Enter open  q quit",
        View::Job(_) => "  ↑↓ move  Esc back  q quit",
        View::Machines | View::Faults => "  ↑↓ move  q quit",
    };
    spans.push(Span::styled(more, SOFT));
    Line::from(spans)
}

/// Draws a table whose rows fit into it, and its cursor.
fn table(
    frame: &mut Frame,
    screen: &mut Screen,
    area: Rect,
    columns: &[(&'static str, Constraint)],
    rows: Vec<Row<'static>>,
    none: &'static str,
) {
    screen.rows = rows.len();
    if rows.is_empty() {
        let text = if screen.ready { none } else { "" };
        return frame.render_widget(Paragraph::new(Line::styled(text, SOFT)), area);
    }
    let at = screen.cursor.selected().unwrap_or(0).min(rows.len() - 1);
    screen.cursor.select(Some(at));
    let titles = columns.iter().map(|(title, _)| Cell::from(*title));
    let table = Table::new(rows, columns.iter().map(|(_, width)| *width))
        .header(Row::new(titles).style(BOLD))
        .row_highlight_style(TURNED);
    frame.render_stateful_widget(table, area, &mut screen.cursor);
}

fn state_style(state: JobState) -> Style {
    match state {
        JobState::Waiting => Style::new(),
        JobState::Running => BUSY,
        JobState::Done => GOOD,
        JobState::Failed => BAD,
        JobState::Cancelled => SOFT,
    }
}

fn jobs(frame: &mut Frame, screen: &mut Screen, area: Rect) {
    let wide = area.width >= WIDE;
    let row = |job: &JobView| {
        let deadline = job.deadline;
        let risk = deadline.is_some_and(|deadline| deadline.at_risk || deadline.missed);
        let style = if risk { BAD } else { Style::new() };
        let left = job.left_ms.filter(|_| !job.state.ended());
        let mut cells = vec![
            Cell::from(job.id.to_string()),
            Cell::from(safe(&job.name)),
            Cell::from(Span::styled(job::state(job.state), state_style(job.state))),
            Cell::from(format!("{}/{}", job.done, job.tasks)),
            Cell::from(nonzero(job.running.into())),
            Cell::from(Span::styled(nonzero((job.failed + job.lost).into()), BAD)),
            Cell::from(Span::styled(nonzero(job.attempts.redundant), COPY)),
            Cell::from(Span::styled(time(screen.elapsed_ms(job)), style)),
        ];
        if wide {
            let left = left.map_or_else(String::new, time);
            cells.push(Cell::from(Span::styled(left, style)));
        }
        Row::new(cells)
    };
    let rows = screen.jobs.values().rev().map(row).collect();
    let columns = [
        ("JOB", Constraint::Length(5)),
        ("NAME", Constraint::Fill(1)),
        ("STATE", Constraint::Length(9)),
        ("DONE", Constraint::Length(13)),
        ("RUN", Constraint::Length(4)),
        ("FAIL", Constraint::Length(4)),
        ("COPY", Constraint::Length(4)),
        ("TIME", Constraint::Length(11)),
        ("LEFT", Constraint::Length(11)),
    ];
    let columns = &columns[..columns.len() - usize::from(!wide)];
    let none = "no jobs yet: `hedge submit JOB.toml` makes one";
    table(frame, screen, area, columns, rows, none);
}

fn machines(frame: &mut Frame, screen: &mut Screen, area: Rect) {
    let wide = area.width >= WIDE;
    let cpus = |milli: u64| milli as f64 / 1000.0;
    let row = |worker: &WorkerView| {
        let (condition, style) = condition(worker);
        let (total, free) = (&worker.total, &worker.free);
        let busy = cpus(total.cpus_milli.saturating_sub(free.cpus_milli));
        let mut cells = vec![
            Cell::from(safe(&worker.host)),
            Cell::from(Span::styled(safe(&condition), style)),
            Cell::from(format!("{busy:.1}/{:.1}", cpus(total.cpus_milli))),
            Cell::from(nonzero(worker.in_hand.into())),
            Cell::from(worker.done.to_string()),
            Cell::from(Span::styled(nonzero(worker.failed), BAD)),
            Cell::from(Span::styled(nonzero(worker.lost), BAD)),
            Cell::from(Span::styled(nonzero(worker.suspicions), WARN)),
        ];
        if wide {
            let used = total.memory.saturating_sub(free.memory);
            cells.push(Cell::from(show_bytes(used)));
        }
        Row::new(cells)
    };
    let mut workers: Vec<&WorkerView> = screen.workers.values().collect();
    workers.sort_by(|a, b| (&a.host, &a.peer).cmp(&(&b.host, &b.peer)));
    let rows = workers.into_iter().map(row).collect();
    let columns = [
        ("MACHINE", Constraint::Fill(1)),
        ("STATE", Constraint::Fill(1)),
        ("CPUS", Constraint::Length(11)),
        ("TASKS", Constraint::Length(5)),
        ("WON", Constraint::Length(6)),
        ("FAIL", Constraint::Length(4)),
        ("LOST", Constraint::Length(4)),
        ("SUSP", Constraint::Length(4)),
        ("MEMORY", Constraint::Length(10)),
    ];
    let columns = &columns[..columns.len() - usize::from(!wide)];
    let none = "no workers: `hedge ticket worker` prints what `hedge worker --join` needs";
    table(frame, screen, area, columns, rows, none);
}

/// What a person wants to know of a worker first.
fn condition(worker: &WorkerView) -> (String, Style) {
    let admission = worker.admission.split(':').next().unwrap_or_default();
    match (&*worker.liveness, &*worker.usage, &worker.owner) {
        ("dead", ..) => ("dead".to_owned(), BAD),
        ("live", "ready", _) if admission == "admitted" => ("live".to_owned(), GOOD),
        ("live", "ready", _) => (admission.to_owned(), WARN),
        ("live", "away", Some(owner)) => (format!("owner: {}", owner.why.join(", ")), WARN),
        ("live", usage, _) => (usage.to_owned(), WARN),
        (liveness, ..) => (liveness.to_owned(), WARN),
    }
}

fn faults(frame: &mut Frame, screen: &mut Screen, area: Rect) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now_ms = now.unwrap_or_default().as_millis() as u64;
    let row = |one: &Incident| {
        let (what, style) = incident(one.kind);
        let why = if one.why.is_empty() {
            String::new()
        } else {
            format!(": {}", one.why.join(", "))
        };
        let who = one
            .host
            .clone()
            .or_else(|| one.peer.clone().map(|peer| peer[..8].to_owned()));
        let ago = now_ms.saturating_sub(one.at_unix_ms) as f64;
        Row::new([
            Cell::from(format!("{} ago", time(ago))),
            Cell::from(safe(&who.unwrap_or_default())),
            Cell::from(Span::styled(safe(&format!("{what}{why}")), style)),
            Cell::from(one.lasted_ms.map_or_else(String::new, time)),
        ])
    };
    let rows = screen.incidents.iter().rev().map(row).collect();
    let columns = [
        ("WHEN", Constraint::Length(16)),
        ("MACHINE", Constraint::Length(20)),
        ("WHAT", Constraint::Fill(1)),
        ("LASTED", Constraint::Length(11)),
    ];
    let none = "nothing has happened";
    table(frame, screen, area, &columns, rows, none);
}

fn incident(kind: IncidentKind) -> (&'static str, Style) {
    match kind {
        IncidentKind::WatchBegins => ("this command begins to look", SOFT),
        IncidentKind::WatchPauses => ("this command looks no longer", SOFT),
        IncidentKind::Joined => ("joined", GOOD),
        IncidentKind::Left => ("left", SOFT),
        IncidentKind::Suspected => ("suspected", WARN),
        IncidentKind::BrieflySuspected => ("suspected for a moment", WARN),
        IncidentKind::Dead => ("declared dead", BAD),
        IncidentKind::Recovered => ("heard again", GOOD),
        IncidentKind::OwnerBack => ("its owner is back", BUSY),
        IncidentKind::Vacates => ("vacates", WARN),
        IncidentKind::OwnerLeft => ("its owner is away again", SOFT),
        IncidentKind::Excluded => ("excluded", BAD),
        IncidentKind::Admitted => ("admitted again", GOOD),
        IncidentKind::Unreachable => ("no supervisor answers", BAD),
        IncidentKind::Reachable => ("a supervisor answers again", GOOD),
        IncidentKind::Leader => ("another supervisor leads", BUSY),
    }
}

fn one_job(frame: &mut Frame, screen: &mut Screen, area: Rect) {
    let job = screen
        .shown_job()
        .and_then(|job| screen.jobs.get(&job))
        .cloned();
    let Some(job) = job else {
        let text = Line::styled("this job is dropped; Esc goes back", SOFT);
        return frame.render_widget(Paragraph::new(text), area);
    };
    let facts = facts(screen, &job, area.width.into());
    let height = facts.len() as u16;
    let rows = Layout::vertical([
        Constraint::Length(height),
        Constraint::Length(1),
        Constraint::Min(0),
    ]);
    let [top, gauge, rest] = rows.areas(area);
    frame.render_widget(Paragraph::new(facts), top);
    let share = job.progress.clamp(0.0, 1.0);
    let done = LineGauge::default()
        .ratio(share)
        .label(format!("{:>3.0} %", share * 100.0))
        .filled_style(state_style(job.state));
    frame.render_widget(done, gauge);
    attempts(frame, screen, rest);
}

/// A job in a few lines.
fn facts(screen: &Screen, job: &JobView, width: usize) -> Vec<Line<'static>> {
    let mut lines = vec![Line::from(vec![
        Span::styled(format!("job {} {}", job.id, safe(&job.name)), BOLD),
        Span::raw("  "),
        Span::styled(job::state(job.state), state_style(job.state)),
        Span::raw(format!("  {}", time(screen.elapsed_ms(job)))),
        Span::raw(
            job.left_ms
                .map_or_else(String::new, |left| format!(", {} left", time(left))),
        ),
    ])];
    let tasks = format!("tasks {}: {}", job.tasks, job::tasks(job));
    lines.push(Line::raw(tasks));
    let made = &job.attempts;
    lines.push(Line::from(vec![
        Span::raw(format!("attempts {}: ", made.total)),
        Span::styled(format!("{} copies", made.redundant), COPY),
        Span::raw(format!(
            ", {} failed, {} lost; {} critical tasks",
            made.failed, made.lost, job.critical
        )),
    ]));
    let cost = &job.cost;
    lines.push(Line::raw(format!(
        "cost {} {}: useful {}, copies {}, lost {}",
        money(cost.total_micro),
        safe(&cost.currency),
        money(cost.useful.micro),
        money(cost.redundant.micro),
        money(cost.lost.micro)
    )));
    lines.extend(job.deadline.as_ref().map(deadline_line));
    for why in job.why.iter().chain(&job.waits) {
        let why = safe(why);
        let parts = textwrap::wrap(&why, width.max(1)).into_iter();
        lines.extend(
            parts
                .take(WHY_LINES)
                .map(|part| Line::styled(part.into_owned(), WARN)),
        );
    }
    if let Some(detail) = detail(screen) {
        let open: Vec<String> = detail
            .groups
            .iter()
            .filter(|group| group.done < group.tasks)
            .map(|group| format!("{} {}/{}", safe(&group.id), group.done, group.tasks))
            .collect();
        if !open.is_empty() {
            lines.push(Line::styled(format!("groups {}", open.join("  ")), SOFT));
        }
    }
    lines
}

/// How a deadline stands.
fn deadline_line(deadline: &DeadlineView) -> Line<'static> {
    let chance = deadline
        .chance
        .map(|chance| format!(", chance {:.0} %", chance * 100.0));
    let text = match deadline.missed {
        true => "missed".to_owned(),
        false => format!(
            "{} left{}",
            time(deadline.left_ms),
            chance.unwrap_or_default()
        ),
    };
    let style = if deadline.missed || deadline.at_risk {
        BAD
    } else {
        GOOD
    };
    Line::from(vec![Span::raw("deadline "), Span::styled(text, style)])
}

/// What was asked about the job that is shown.
fn detail(screen: &Screen) -> Option<&Detail> {
    screen
        .detail
        .as_ref()
        .filter(|detail| Some(detail.job) == screen.shown_job())
}

/// The attempts of a job that run or ended lately: those that run first, then the newest.
fn attempts(frame: &mut Frame, screen: &mut Screen, area: Rect) {
    let mut found = detail(screen).map_or_else(Vec::new, |detail| detail.attempts.clone());
    let late = |one: &AttemptLine| one.end_ms.or(one.start_ms).unwrap_or(0.0);
    found.sort_by(|a, b| {
        let running = a.end_ms.is_some().cmp(&b.end_ms.is_some());
        running.then(late(b).total_cmp(&late(a)))
    });
    let now_ms = detail(screen).map_or(0.0, |detail| {
        detail.now_ms
            + detail
                .at
                .elapsed()
                .min(Duration::from_secs(60))
                .as_secs_f64()
                * 1e3
    });
    let ended = screen.shown_job().and_then(|job| screen.jobs.get(&job));
    let ended = ended.is_some_and(|job| job.state.ended());
    let row = |one: &AttemptLine| {
        let until = one.end_ms.unwrap_or(if ended {
            one.start_ms.unwrap_or(0.0)
        } else {
            now_ms
        });
        let ran = one.start_ms.map(|start| time((until - start).max(0.0)));
        let style = match &*one.state {
            "won" => GOOD,
            "running" => BUSY,
            "failed" | "lost" => BAD,
            "stalled" | "moved" => WARN,
            _ => SOFT,
        };
        Row::new([
            Cell::from(safe(&one.task)),
            Cell::from(Span::styled(one.state.clone(), style)),
            Cell::from(Span::styled(if one.redundant { "copy" } else { "" }, COPY)),
            Cell::from(safe(&screen.host(&one.worker))),
            Cell::from(ran.unwrap_or_default()),
        ])
    };
    let rows = found.iter().map(row).collect();
    let columns = [
        ("TASK", Constraint::Fill(2)),
        ("ATTEMPT", Constraint::Length(10)),
        ("", Constraint::Length(5)),
        ("MACHINE", Constraint::Fill(1)),
        ("TIME", Constraint::Length(12)),
    ];
    let none = "no attempt runs, and none ended in the last 30 s";
    table(frame, screen, area, &columns, rows, none);
}

/// Text of others, as a terminal may be given it.
fn safe(text: &str) -> String {
    line(text).into_owned()
}

/// A number, unless it is zero.
fn nonzero(number: u64) -> String {
    if number == 0 {
        String::new()
    } else {
        number.to_string()
    }
}
