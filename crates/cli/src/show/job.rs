//! Jobs as text.

use super::{table::table, time};
use hedge_model::units::show_bytes;
use hedge_model::view::{DeadlineView, JobState, JobView};

/// A job's state in a word.
pub fn state(state: JobState) -> &'static str {
    match state {
        JobState::Running => "running",
        JobState::Done => "done",
        JobState::Failed => "failed",
        JobState::Cancelled => "cancelled",
    }
}

/// All jobs, one a line.
pub fn list(jobs: &[JobView]) -> String {
    if jobs.is_empty() {
        return "no jobs yet: `hedge submit JOB.toml` makes one\n".to_owned();
    }
    let rows = jobs
        .iter()
        .map(|job| {
            vec![
                job.id.to_string(),
                job.name.clone(),
                state(job.state).to_owned(),
                format!("{}/{}", job.done, job.tasks),
                job.running.to_string(),
                job.critical.to_string(),
                job.attempts.total.to_string(),
                job.attempts.lost.to_string(),
                time(job.elapsed_ms),
            ]
        })
        .collect();
    let headers = [
        "JOB#",
        "NAME",
        "STATE",
        "DONE#",
        "RUNNING#",
        "CRITICAL#",
        "ATTEMPTS#",
        "LOST#",
        "ELAPSED#",
    ];
    table(&headers, rows)
}

/// One job, in a few lines.
pub fn detail(job: &JobView) -> String {
    let mut text = format!("job {} {:?}: {}", job.id, job.name, state(job.state));
    if job.state == JobState::Running {
        text.push_str(&format!(" for {}", time(job.elapsed_ms)));
    } else {
        text.push_str(&format!(" after {}", time(job.elapsed_ms)));
    }
    text.push('\n');
    if let Some(why) = &job.why {
        text.push_str(&format!("  because    {why}\n"));
    }
    text.push_str(&format!(
        "  tasks      {}: {} done, {} running, {} ready, {} waiting\n",
        job.tasks, job.done, job.running, job.ready, job.waiting
    ));
    if job.state == JobState::Running {
        text.push_str(&format!("  progress   {}\n", progress(job)));
    }
    text.push_str(&figures(job));
    if let Some(deadline) = &job.deadline {
        text.push_str(&deadline_line(job, deadline));
    }
    for task in &job.unplaceable {
        text.push_str(&format!("  cannot be placed: {task}\n"));
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

/// How far a running job is, and what is left of it.
fn progress(job: &JobView) -> String {
    let left = job
        .left_ms
        .map(|left| format!(", about {} left", time(left)));
    format!("{:.1} %{}", job.progress * 100.0, left.unwrap_or_default())
}

fn deadline_line(job: &JobView, deadline: &DeadlineView) -> String {
    let by = time(deadline.finish_by_ms);
    if job.state != JobState::Running {
        let kept = if deadline.chance > 0.0 {
            "kept"
        } else {
            "missed"
        };
        return format!("  deadline   {by}: {kept}\n");
    }
    let risk = if deadline.at_risk {
        "; it is at risk"
    } else {
        ""
    };
    format!(
        "  deadline   {by}, {} left: met with a chance of {:.0} %{risk}\n",
        time(deadline.left_ms.max(0.0)),
        deadline.chance * 100.0
    )
}

/// Critical tasks, attempts and CPU time, a line each.
pub fn figures(job: &JobView) -> String {
    let made = &job.attempts;
    let mut parts = vec![format!("{} redundant", made.redundant)];
    parts.extend(
        [
            ("lost", made.lost),
            ("failed", made.failed),
            ("cancelled", made.cancelled),
        ]
        .iter()
        .map(|(name, number)| format!("{number} {name}")),
    );
    let mut text = format!(
        "  critical   {}\n  attempts   {}: {}\n",
        job.critical,
        made.total,
        parts.join(", ")
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
        super::cost::money(job.cost.total_micro),
        job.cost.currency
    ));
    text
}

/// A job in one line, for places without a progress bar.
pub fn line(job: &JobView) -> String {
    let mut text = format!(
        "{} {}: {}/{} done, {} running, {} ready, {} waiting",
        job.name,
        state(job.state),
        job.done,
        job.tasks,
        job.running,
        job.ready,
        job.waiting
    );
    for (name, number) in [("lost", job.attempts.lost), ("failed", job.attempts.failed)] {
        if number > 0 {
            text.push_str(&format!(", {number} {name}"));
        }
    }
    text.push_str(&format!(", {}", time(job.elapsed_ms)));
    if job.state == JobState::Running {
        text.push_str(&format!(", {}", progress(job)));
    }
    text
}
