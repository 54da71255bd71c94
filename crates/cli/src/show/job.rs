//! Jobs as text.

use super::cost::money;
use super::escape::line as safe;
use super::table::{Column, table};
use super::{count, time};
use hedge_model::units::show_bytes;
use hedge_model::view::{BudgetView, DeadlineView, JobState, JobView, OpenView};

/// A job's state in a word.
pub fn state(state: JobState) -> &'static str {
    match state {
        JobState::Waiting => "waiting",
        JobState::Running => "running",
        JobState::Done => "done",
        JobState::Failed => "failed",
        JobState::Cancelled => "cancelled",
    }
}

const COLUMNS: [Column; 12] = [
    Column::new("JOB#"),
    Column::name("NAME"),
    Column::new("STATE"),
    Column::new("DONE#"),
    Column::drop("RUNNING#", 1),
    Column::drop("FAILED#", 3),
    Column::drop("CRITICAL#", 6),
    Column::drop("ATTEMPTS#", 5),
    Column::drop("LOST#", 4),
    Column::drop("ELAPSED#", 2),
    Column::drop("AGE#", 7),
    Column::drop("OWNER", 8),
];

/// Characters of an owner's id that are shown: enough to tell clients apart.
const OWNER_SHOWN: usize = 10;

/// For how long a job is there, coarsely.
fn age(age_ms: f64) -> String {
    let minutes = (age_ms / 60_000.0) as u64;
    match minutes {
        0 => format!("{:.0} s", age_ms / 1000.0),
        1..60 => format!("{minutes} min"),
        60..2880 => format!("{} h", minutes / 60),
        _ => format!("{} d", minutes / 1440),
    }
}

/// A job's state in a list: one that waits for further tasks alone is open.
fn listed_state(job: &JobView) -> &'static str {
    match job.open {
        Some(OpenView::Open { .. })
            if job.state == JobState::Waiting
                && job.done + job.failed + job.lost + job.skipped == job.tasks =>
        {
            "open"
        }
        _ => state(job.state),
    }
}

/// Jobs, one a line.
pub fn list(jobs: &[JobView]) -> String {
    if jobs.is_empty() {
        return "no jobs yet: `hedge submit JOB.toml` makes one\n".to_owned();
    }
    let row = |job: &JobView| {
        vec![
            job.id.to_string(),
            job.name.clone(),
            listed_state(job).to_owned(),
            format!("{}/{}", job.done, job.tasks),
            job.running.to_string(),
            match job.lost {
                0 => job.failed.to_string(),
                lost => format!("{}, {lost} lost", job.failed),
            },
            job.critical.to_string(),
            job.attempts.total.to_string(),
            job.attempts.lost.to_string(),
            time(job.elapsed_ms),
            age(job.age_ms),
            job.owner.chars().take(OWNER_SHOWN).collect(),
        ]
    };
    let mut text = table(&COLUMNS, jobs.iter().map(row).collect());
    // Nothing in the table says why a job that has done its tasks does not end.
    for job in jobs
        .iter()
        .filter(|job| !job.state.ended() && job.done >= job.needed)
    {
        if let Some(why) = job.waits.first() {
            text.push_str(&format!("job {} waits: {}\n", job.id, safe(why)));
        }
    }
    text
}

/// One job, in a few lines.
pub fn detail(job: &JobView) -> String {
    let since = if job.state.ended() { "after" } else { "for" };
    let mut text = format!(
        "job {} {:?}: {} {since} {}\n",
        job.id,
        job.name,
        state(job.state),
        time(job.elapsed_ms)
    );
    if let Some(why) = &job.why {
        text.push_str(&format!("  because    {}\n", safe(why)));
    }
    text.push_str(&format!("  tasks      {}: {}\n", job.tasks, tasks(job)));
    if !job.state.ended() {
        text.push_str(&format!("  progress   {}\n", progress(job)));
    }
    if let Some(open) = &job.open {
        text.push_str(&format!("  open       {}\n", open_line(job, open)));
    }
    text.push_str(&figures(job));
    for why in &job.waits {
        text.push_str(&format!("  waits      {}\n", safe(why)));
    }
    if job.result_bytes > 0 {
        text.push_str(&format!(
            "  results    {}: `hedge fetch {} --out DIR`\n",
            show_bytes(job.result_bytes),
            job.id
        ));
    }
    text
}

/// How a job stands to which tasks can be added, or could.
fn open_line(job: &JobView, open: &OpenView) -> String {
    match open {
        OpenView::Open { closes_in_ms } => format!(
            "`hedge job extend {id} FILE` adds tasks, `hedge job close {id}` lets it end; it closes itself in {} unless its \
             client asks about it",
            time(*closes_in_ms),
            id = job.id
        ),
        OpenView::Closed => "closed: no tasks can be added any more".to_owned(),
        OpenView::TimedOut => "closed itself, because its client was gone for too long".to_owned(),
    }
}

/// How many tasks are in which state.
pub fn tasks(job: &JobView) -> String {
    let done = if job.needed < job.tasks {
        format!("{} done of {} needed", job.done, job.needed)
    } else {
        format!("{} done", job.done)
    };
    let others: &[(&str, u32)] = if job.state.ended() {
        &[
            ("failed", job.failed),
            ("lost", job.lost),
            ("skipped", job.skipped),
        ]
    } else {
        &[
            ("running", job.running),
            ("ready", job.ready),
            ("waiting", job.waiting),
            ("failed", job.failed),
            ("lost", job.lost),
            ("skipped", job.skipped),
        ]
    };
    let always = !job.state.ended();
    let others = others.iter().enumerate();
    let others = others.filter(|(at, (_, number))| *number > 0 || always && *at < 3);
    let others = others.map(|(_, (name, number))| format!("{number} {name}"));
    let parts: Vec<String> = std::iter::once(done).chain(others).collect();
    parts.join(", ")
}

/// How far a job is that has not ended, and what is left of it where that is known.
fn progress(job: &JobView) -> String {
    let bounds = job.left_low_ms.zip(job.left_high_ms);
    let bounds = bounds.map(|(low, high)| format!(" ({} to {})", time(low), time(high)));
    let bounds = bounds.unwrap_or_default();
    let left = job
        .left_ms
        .map(|left| format!(", about {} left{bounds}", time(left)));
    format!("{:.1} %{}", job.progress * 100.0, left.unwrap_or_default())
}

fn deadline_line(job: &JobView, deadline: &DeadlineView) -> String {
    let by = time(deadline.finish_by_ms);
    let late = if job.state.ended() {
        time(job.elapsed_ms - deadline.finish_by_ms)
    } else {
        time(-deadline.left_ms)
    };
    let stands = match (deadline.missed, job.state.ended(), deadline.chance) {
        (true, true, _) => format!("missed by {late}"),
        (true, false, _) => format!("missed {late} ago"),
        (false, true, _) => "kept".to_owned(),
        (false, false, Some(chance)) => {
            let risk = if deadline.at_risk {
                "; it is at risk"
            } else {
                ""
            };
            let left = time(deadline.left_ms);
            format!(
                "{left} left, met with a chance of {:.0} %{risk}",
                chance * 100.0
            )
        }
        (false, false, None) => format!("{} left", time(deadline.left_ms)),
    };
    format!("  deadline   {by}: {stands}\n")
}

fn budget_line(job: &JobView, budget: &BudgetView) -> String {
    let stands = match (budget.exceeded, job.state.ended()) {
        (true, _) => {
            let over = budget.spent_micro.saturating_sub(budget.limit_micro);
            format!("exceeded by {}", money(over))
        }
        (false, true) => "kept".to_owned(),
        (false, false) => format!("{} left", money(budget.limit_micro - budget.spent_micro)),
    };
    let limit = money(budget.limit_micro);
    format!(
        "  budget     {limit} {}: {stands}\n",
        safe(&job.cost.currency)
    )
}

/// Critical tasks, attempts, CPU time, cost, budget and deadline, a line each.
pub fn figures(job: &JobView) -> String {
    let made = &job.attempts;
    let others = [
        ("redundant", made.redundant),
        ("lost", made.lost),
        ("failed", made.failed),
        ("cancelled", made.cancelled),
    ];
    let others = others.map(|(name, number)| format!("{number} {name}"));
    let mut text = format!(
        "  critical   {}\n  attempts   {}: {}\n",
        job.critical,
        made.total,
        others.join(", ")
    );
    if made.outputs_lost > 0 {
        text.push_str(&format!(
            "  outputs    {} lost and made again\n",
            made.outputs_lost
        ));
    }
    text.push_str(&format!("  CPU time   {}\n", time(job.cpu_ms)));
    text.push_str(&format!(
        "  cost       {} {}\n",
        money(job.cost.total_micro),
        safe(&job.cost.currency)
    ));
    if let Some(budget) = &job.budget {
        text.push_str(&budget_line(job, budget));
    }
    if let Some(deadline) = &job.deadline {
        text.push_str(&deadline_line(job, deadline));
    }
    text
}

/// A job in one line, for places without a progress bar.
pub fn line(job: &JobView) -> String {
    let mut text = format!("{} {}: {}", safe(&job.name), state(job.state), tasks(job));
    for (name, number) in [("lost", job.attempts.lost), ("failed", job.attempts.failed)] {
        if number > 0 {
            text.push_str(&format!(", {} {name}", count(number, "attempt")));
        }
    }
    text.push_str(&format!(", {}", time(job.elapsed_ms)));
    if !job.state.ended() {
        text.push_str(&format!(", {}", progress(job)));
    }
    text
}
