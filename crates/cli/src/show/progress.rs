//! Progress of a job: a bar on a terminal, a line now and then elsewhere.

use super::{job, note};
use hedge_model::view::JobView;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// How often a line is written where there is no terminal: often enough to see life, rare enough for a log.
const LINE_INTERVAL: Duration = Duration::from_secs(5);
/// How often a bar's times are drawn anew.
const TICK: Duration = Duration::from_millis(200);
/// Most reasons for waiting that are told.
const TOLD_MAX: usize = 20;

/// Shows how a job gets on, on standard error.
pub struct Progress {
    kind: Kind,
}

enum Kind {
    Silent,
    Bar(ProgressBar),
    Lines {
        next: Instant,
        last: String,
        told: Vec<String>,
    },
}

impl Progress {
    /// Progress for people, or none where `quiet`.
    pub fn new(quiet: bool) -> Self {
        let kind = if quiet {
            Kind::Silent
        } else if std::io::stderr().is_terminal() {
            Kind::Bar(bar())
        } else {
            Kind::Lines {
                next: Instant::now() + LINE_INTERVAL,
                last: String::new(),
                told: Vec::new(),
            }
        };
        Self { kind }
    }

    /// Shows the job's present state.
    pub fn update(&mut self, view: &JobView) {
        match &mut self.kind {
            Kind::Silent => {}
            Kind::Bar(bar) => {
                if bar.length() == Some(0) {
                    bar.enable_steady_tick(TICK);
                }
                bar.set_length(u64::from(view.tasks));
                bar.set_position(u64::from(view.done));
                bar.set_prefix(view.name.clone());
                bar.set_message(message(view));
            }
            Kind::Lines { next, last, told } => {
                for why in &view.unplaceable {
                    if !told.contains(why) && told.len() < TOLD_MAX {
                        note(&format!("{}: waiting: {why}", view.name));
                        told.push(why.clone());
                    }
                }
                let now = Instant::now();
                if now < *next {
                    return;
                }
                let line = job::line(view);
                if line != *last {
                    note(&line);
                }
                (*next, *last) = (now + LINE_INTERVAL, line);
            }
        }
    }

    /// Writes a line without disturbing the bar.
    pub fn say(&self, text: &str) {
        match &self.kind {
            Kind::Bar(bar) => bar.suspend(|| note(text)),
            _ => note(text),
        }
    }

    /// Takes the bar away.
    pub fn end(self) {
        if let Kind::Bar(bar) = self.kind {
            bar.finish_and_clear();
        }
    }
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template(
        "{prefix} [{bar:16}] {pos}/{len} in {elapsed}, {eta} left, {wide_msg}",
    );
    if let Ok(style) = style {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

fn message(view: &JobView) -> String {
    let mut text = format!("{} running", view.running);
    for (name, number) in [
        ("redundant", view.attempts.redundant),
        ("lost", view.attempts.lost),
        ("failed", view.attempts.failed),
    ] {
        if number > 0 {
            text.push_str(&format!(", {number} {name}"));
        }
    }
    if let Some(why) = view.unplaceable.first() {
        text.push_str(&format!(", waiting: {why}"));
    }
    text
}
