//! `hedge logs -f`: prints the output of tasks while they run.

use super::sink::{Form, Sink};
use super::{Seen, has_begun, show_ended, tasks};
use crate::commands::{ask, unexpected};
use crate::exit::Failure;
use crate::show::{escape, note};
use hedge_model::JobId;
use hedge_model::msg::{Reply, Request};
use hedge_model::view::TaskFilter;
use hedge_node::client::{Client, Patience, PollDelay, Tail, TailState};
use std::collections::{BTreeMap, BTreeSet};
use tokio::sync::watch;

/// The most tasks followed at once, because each read is a request. Further tasks are shown once others have ended.
const FOLLOWED_MAX: usize = 64;
/// Reads of one task before the next task is read.
const PARTS_AT_ONCE: usize = 8;
/// Pages of tasks searched for ended ones before the running ones are read again.
const PAGES_AT_ONCE: usize = 20;

/// Follows one task until it has ended. Returns whether the grid kept all of its output.
pub async fn one(client: &Client, job: JobId, task: &str, json: bool) -> Result<bool, Failure> {
    let form = if json { Form::Events } else { Form::Plain };
    let mut followed = Followed::new(client, job, task, form);
    let (_job, mut never) = watch::channel(false);
    let mut delay = PollDelay::default();
    loop {
        match followed.step().await? {
            Step::Over => return followed.sink.close().await,
            Step::More => delay.shorten(),
            Step::Quiet => delay.wait(&mut never).await,
        }
    }
}

/// Follows all tasks of a job until it has ended. Returns whether the grid kept all of their output.
pub async fn all(client: &Client, job: JobId, json: bool) -> Result<bool, Failure> {
    let mut tasks = Tasks::new(client, job, json);
    let (_job, mut never) = watch::channel(false);
    let mut delay = PollDelay::default();
    loop {
        let Reply::Job(view) = ask(client, Request::Job(job)).await? else {
            return Err(unexpected());
        };
        if view.tasks == 1
            && let Some(only) = super::tasks(client, job, TaskFilter::All, 0)
                .await?
                .tasks
                .first()
        {
            return one(client, job, &only.task, json).await;
        }
        tasks.find_running().await?;
        let found = tasks.show_ended(view.state.ended(), view.done).await?;
        let printed = tasks.step().await?;
        if found == Found::All && tasks.followed.is_empty() && view.state.ended() {
            return Ok(tasks.whole);
        }
        if printed || found == Found::More {
            delay.shorten();
        }
        delay.wait(&mut never).await;
    }
}

/// A task that is followed.
struct Followed {
    tail: Tail,
    sink: Sink,
    patience: Patience,
    name: String,
    json: bool,
    shown: Shown,
}

/// What the user has seen of a task.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shown {
    Nothing,
    /// What it waits for.
    Wait,
    /// Output of an attempt.
    Attempt,
}

/// The result of one read of a task's output.
enum Step {
    /// It printed something.
    More,
    /// Nothing new.
    Quiet,
    /// It has ended and is shown.
    Over,
}

impl Followed {
    fn new(client: &Client, job: JobId, task: &str, form: Form) -> Self {
        Self {
            tail: client.tail(job, task),
            sink: Sink::new(task, form),
            patience: Patience::default(),
            name: escape::line(task).into_owned(),
            json: form == Form::Events,
            shown: Shown::Nothing,
        }
    }

    async fn step(&mut self) -> Result<Step, Failure> {
        let news = self.patience.next(&mut self.tail).await?;
        if let Some(attempt) = news.attempt.filter(|_| news.begins) {
            if self.shown == Shown::Attempt {
                self.tell(&format!(
                    "attempt {attempt} is another output, from its beginning:"
                ));
            }
            self.shown = Shown::Attempt;
        }
        self.sink.part(&news).await?;
        let printed = !news.stdout.bytes.is_empty() || !news.stderr.bytes.is_empty();
        match news.state {
            TailState::Runs { .. } => {}
            TailState::Over { log, last } => {
                self.sink.end(&log, last).await?;
                if last {
                    if self.sink.read() == 0 {
                        self.tell(&format!("{}; nothing was printed", escape::line(&log.end)));
                    }
                    return Ok(Step::Over);
                }
                let attempt = log.attempt.map_or_else(String::new, |id| id.to_string());
                let end = escape::line(&log.end);
                self.tell(&format!("the output of attempt {attempt} ends here: {end}"));
            }
            TailState::Waits(why) if self.shown == Shown::Nothing => {
                self.shown = Shown::Wait;
                self.tell(&format!("{}; its output follows", escape::line(&why)));
            }
            TailState::Waits(_) => {}
            TailState::Nothing(why) => {
                self.tell(&format!("{}; nothing was printed", escape::line(&why)));
                return Ok(Step::Over);
            }
        }
        Ok(if printed { Step::More } else { Step::Quiet })
    }

    fn tell(&self, what: &str) {
        if !self.json {
            note(&format!("{}: {what}", self.name));
        }
    }
}

/// Whether all ended tasks are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    All,
    /// Some pages have not been searched yet.
    More,
}

/// The tasks of a job, and which of them the user has seen.
struct Tasks<'a> {
    client: &'a Client,
    job: JobId,
    json: bool,
    followed: BTreeMap<u32, Followed>,
    /// Tasks that are shown to their end, beside all below `below`.
    shown: BTreeSet<u32>,
    below: u32,
    /// The number of the task at which the search for ended ones continues.
    at: u32,
    /// How many tasks were done when a search last reached the end.
    done_at_search: Option<u32>,
    /// Whether the grid kept all of the output shown so far.
    whole: bool,
}

impl<'a> Tasks<'a> {
    fn new(client: &'a Client, job: JobId, json: bool) -> Self {
        Self {
            client,
            job,
            json,
            followed: BTreeMap::new(),
            shown: BTreeSet::new(),
            below: 0,
            at: 0,
            done_at_search: None,
            whole: true,
        }
    }

    fn is_shown(&self, number: u32) -> bool {
        number < self.below || self.shown.contains(&number)
    }

    fn set_shown(&mut self, number: u32) {
        self.shown.insert(number);
        while self.shown.remove(&self.below) {
            self.below += 1;
        }
    }

    /// Follows running tasks, up to the limit.
    async fn find_running(&mut self) -> Result<(), Failure> {
        if self.followed.len() >= FOLLOWED_MAX {
            return Ok(());
        }
        let page = tasks(self.client, self.job, TaskFilter::Running, 0).await?;
        let form = if self.json { Form::Events } else { Form::Named };
        for task in page.tasks {
            if self.followed.len() >= FOLLOWED_MAX {
                break;
            }
            if !self.is_shown(task.number) && !self.followed.contains_key(&task.number) {
                let followed = Followed::new(self.client, self.job, &task.task, form);
                self.followed.insert(task.number, followed);
            }
        }
        Ok(())
    }

    /// Shows tasks that have ended and were not followed, in the order of their numbers.
    async fn show_ended(&mut self, job_ended: bool, done: u32) -> Result<Found, Failure> {
        if self.done_at_search == Some(done) && !job_ended {
            return Ok(Found::All);
        }
        for _ in 0..PAGES_AT_ONCE {
            let from = self.at.max(self.below);
            let page = tasks(self.client, self.job, TaskFilter::All, from).await?;
            for task in &page.tasks {
                let over = task.state == "done" || job_ended && has_begun(task);
                if !over || self.is_shown(task.number) || self.followed.contains_key(&task.number) {
                    continue;
                }
                self.show_whole(&task.task).await?;
                self.set_shown(task.number);
            }
            match page.next {
                Some(next) if next > from => self.at = next,
                _ => {
                    self.at = 0;
                    self.done_at_search = Some(done);
                    return Ok(Found::All);
                }
            }
        }
        Ok(Found::More)
    }

    async fn show_whole(&mut self, task: &str) -> Result<(), Failure> {
        let Seen { whole, .. } = if self.json {
            let form = Form::Events;
            let printed = self.client.printed(self.job, task).await?;
            let whole = show_ended(&printed, form)?;
            Seen { whole, runs: false }
        } else {
            super::one(self.client, self.job, task, Form::Named).await?
        };
        self.whole &= whole;
        Ok(())
    }

    /// Reads the output of each followed task. Returns whether one printed something.
    async fn step(&mut self) -> Result<bool, Failure> {
        let (mut printed, mut over) = (false, Vec::new());
        for (number, followed) in &mut self.followed {
            for _ in 0..PARTS_AT_ONCE {
                match followed.step().await? {
                    Step::More => printed = true,
                    Step::Quiet => break,
                    Step::Over => {
                        self.whole &= followed.sink.close().await?;
                        over.push(*number);
                        break;
                    }
                }
            }
        }
        for number in over {
            self.followed.remove(&number);
            self.set_shown(number);
        }
        Ok(printed)
    }
}
