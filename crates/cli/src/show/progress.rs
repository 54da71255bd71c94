//! Progress of a job on standard error: a bar on a terminal, a line now and then elsewhere, and on both a line about
//! what the job waits for.

use super::table::shortened;
use super::{escape, job, moves, note};
use hedge_model::view::JobView;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often a line is written where there is no terminal: often enough to see life, rare enough for a log.
const LINE_INTERVAL: Duration = Duration::from_secs(5);
/// How often a bar's times are drawn anew.
const TICK: Duration = Duration::from_millis(200);
/// A job that waits for less than this is not spoken of.
const WAIT_MIN: Duration = Duration::from_secs(1);
/// A job that waits for the same again after it ran is spoken of this often at most.
const SAME_AGAIN: Duration = Duration::from_secs(30);
/// Where a reason goes on with how workers join.
const JOIN: &str = "; `hedge ticket worker`";
/// Columns of a bar that a job's name may take.
const NAME_MAX: usize = 24;

/// The bar that is on the terminal now.
static BAR: Mutex<Option<ProgressBar>> = Mutex::new(None);

fn bar_now() -> MutexGuard<'static, Option<ProgressBar>> {
    BAR.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes something to standard error without disturbing the bar.
pub fn beside_bar(write: impl FnOnce()) {
    let bar = bar_now().clone();
    match bar {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// What the job waits for, as JSON.
    Json,
    /// What the job waits for: a program's output is the user's.
    Waits,
    /// All.
    Full,
}

/// Shows how a job gets on; takes its bar away when it is dropped.
pub struct Progress {
    kind: Kind,
    waits: Waits,
}

enum Kind {
    Quiet,
    Bar(ProgressBar),
    Lines { next: Instant, last: String },
}

impl Progress {
    /// Shows nothing yet.
    pub fn new(style: Style) -> Self {
        let kind = match style {
            Style::Json | Style::Waits => Kind::Quiet,
            Style::Full if moves() => Kind::Bar(bar()),
            Style::Full => Kind::Lines {
                next: Instant::now() + LINE_INTERVAL,
                last: String::new(),
            },
        };
        if let Kind::Bar(bar) = &kind {
            *bar_now() = Some(bar.clone());
        }
        Self {
            kind,
            waits: Waits::new(style == Style::Json),
        }
    }

    /// The job runs on workers of this machine alone: how others join is no help.
    pub fn on_this_machine(mut self) -> Self {
        self.waits.joinable = false;
        self
    }

    /// Shows the job's present state; to be called again while nothing changes, at least twice a second.
    pub fn update(&mut self, view: &JobView) {
        self.waits.update(view);
        match &mut self.kind {
            Kind::Quiet => {}
            Kind::Bar(bar) => {
                if bar.length() == Some(0) {
                    // What has ended already needs no bar.
                    if view.state.ended() {
                        return;
                    }
                    bar.set_draw_target(ProgressDrawTarget::stderr());
                    bar.enable_steady_tick(TICK);
                }
                bar.set_length(u64::from(view.tasks));
                bar.set_position(u64::from(view.done));
                bar.set_prefix(shortened(&escape::line(&view.name), NAME_MAX).into_owned());
                bar.set_message(message(view));
            }
            Kind::Lines { next, last } => {
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
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Kind::Bar(bar) = &self.kind {
            bar.finish_and_clear();
            *bar_now() = None;
        }
    }
}

/// What a job waits for, told when it has lasted for a moment and whenever it changes.
struct Waits {
    json: bool,
    /// Whether further workers can join.
    joinable: bool,
    now: Vec<String>,
    since: Instant,
    told: Option<(Vec<String>, Instant)>,
}

impl Waits {
    fn new(json: bool) -> Self {
        Self {
            json,
            joinable: true,
            now: Vec::new(),
            since: Instant::now(),
            told: None,
        }
    }

    fn update(&mut self, view: &JobView) {
        let mut waits = view.waits.clone();
        if !self.joinable {
            let hint = |why: &mut String| why.truncate(why.find(JOIN).unwrap_or(why.len()));
            waits.iter_mut().for_each(hint);
        }
        if waits != self.now {
            (self.now, self.since) = (waits, Instant::now());
        }
        if self.now.is_empty() || self.since.elapsed() < WAIT_MIN {
            return;
        }
        if let Some((told, at)) = &self.told
            && *told == self.now
            && (*at >= self.since || at.elapsed() < SAME_AGAIN)
        {
            return;
        }
        self.told = Some((self.now.clone(), Instant::now()));
        if self.json {
            let line = serde_json::json!({ "job": view.id, "waits": self.now });
            return note(&escape::json(&line.to_string()));
        }
        for why in &self.now {
            let (name, why) = (escape::line(&view.name), escape::line(why));
            note(&format!("{name} waits: {why}"));
        }
    }
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::hidden());
    let style =
        ProgressStyle::with_template("{prefix} [{bar:16}] {pos}/{len} in {elapsed}, {wide_msg}");
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
        ("failed", u64::from(view.failed)),
        ("tasks lost", u64::from(view.lost)),
    ] {
        if number > 0 {
            text.push_str(&format!(", {number} {name}"));
        }
    }
    if let Some(left) = view.left_ms {
        text.push_str(&format!(", about {} left", super::time(left)));
    }
    if let Some(why) = view.waits.first() {
        text.push_str(&format!(", waits: {}", escape::line(why)));
    }
    text
}
