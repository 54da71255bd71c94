//! What is told at a job's end.

use super::escape::line as safe;
use super::manifest::{Brought, Manifest};
use super::{job, time};
use hedge_model::JobId;
use hedge_model::view::{AttemptCounts, BudgetView, CostView, DeadlineView, JobState, JobView};
use serde::Serialize;
use std::path::PathBuf;

/// A job that has ended, and what became of its results. Printed by `run`, `submit --wait`, `wait` and `fetch`.
#[derive(Debug, Serialize)]
pub struct Ended {
    /// How.
    pub state: JobState,
    /// Its number.
    pub job: JobId,
    /// Its name.
    pub name: String,
    /// Why it failed.
    pub why: Option<String>,
    /// K: all its tasks.
    pub tasks: u32,
    /// N: the critical ones.
    pub critical: u32,
    /// How many of them had to be done.
    pub needed: u32,
    /// Done.
    pub done: u32,
    /// Failed and not done.
    pub failed: u32,
    /// Lost with their worker, and not run again.
    pub lost: u32,
    /// Not done and not needed.
    pub skipped: u32,
    /// Attempts made.
    pub attempts: AttemptCounts,
    /// From acceptance to end.
    pub elapsed_ms: f64,
    /// CPU time of all attempts whose end was reported.
    pub cpu_ms: f64,
    /// What it cost, and for what.
    pub cost: CostView,
    /// How its budget stands, where it has one.
    pub budget: Option<BudgetView>,
    /// How its deadline stands, where it has one.
    pub deadline: Option<DeadlineView>,
    /// Files brought.
    pub results: Vec<PathBuf>,
    /// What each of them is, where any were brought.
    #[serde(skip_serializing_if = "Manifest::is_empty")]
    pub manifest: Manifest,
    /// Where what the tasks printed was written, if it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logs: Option<PathBuf>,
    /// The exit status of the program of a job of one task, where it ended by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// What the program printed, for a job of one program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdout: Option<String>,
    /// What it wrote to its standard error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stderr: Option<String>,
}

/// Most paths shown to people; JSON has them all.
const PATHS_SHOWN_MAX: usize = 10;

impl Ended {
    /// A job's last view.
    pub fn new(job: JobView) -> Self {
        Self {
            state: job.state,
            job: job.id,
            name: job.name,
            why: job.why,
            tasks: job.tasks,
            critical: job.critical,
            needed: job.needed,
            done: job.done,
            failed: job.failed,
            lost: job.lost,
            skipped: job.skipped,
            attempts: job.attempts,
            elapsed_ms: job.elapsed_ms,
            cpu_ms: job.cpu_ms,
            cost: job.cost,
            budget: job.budget,
            deadline: job.deadline,
            results: Vec::new(),
            manifest: Manifest::default(),
            logs: None,
            exit_code: None,
            signal: None,
            stdout: None,
            stderr: None,
        }
    }

    /// Adds the files that were brought.
    pub fn add(&mut self, brought: Brought) {
        self.results = brought.paths;
        self.manifest = brought.manifest;
        self.logs = brought.logs;
    }

    /// Where the results are, in one line; none where there are none.
    pub fn results_text(&self) -> Option<String> {
        let first = self.results.first()?.display().to_string();
        let more = match self.results.len() - 1 {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        Some(format!("results: {}{more}", safe(&first)))
    }

    /// For people; `view` is the job's last view.
    pub fn text(&self, view: &JobView) -> String {
        let mut text = format!(
            "{} {} in {}\n",
            safe(&self.name),
            job::state(self.state),
            time(self.elapsed_ms)
        );
        if let Some(why) = &self.why {
            text.push_str(&format!("  because    {}\n", safe(why)));
        }
        let all = view.done == view.tasks;
        let tasks = if all {
            String::new()
        } else {
            format!(": {}", job::tasks(view))
        };
        text.push_str(&format!("  tasks      {}{tasks}\n", self.tasks));
        text.push_str(&job::figures(view));
        for (at, path) in self.results.iter().take(PATHS_SHOWN_MAX).enumerate() {
            let title = if at == 0 { "results" } else { "" };
            text.push_str(&format!(
                "  {title:<10} {}\n",
                safe(&path.display().to_string())
            ));
        }
        if self.results.len() > PATHS_SHOWN_MAX {
            let more = self.results.len() - PATHS_SHOWN_MAX;
            text.push_str(&format!("             and {more} more\n"));
        }
        if let Some(logs) = &self.logs {
            let logs = safe(&logs.display().to_string()).into_owned();
            text.push_str(&format!("  printed    {logs}\n"));
        }
        text
    }
}
